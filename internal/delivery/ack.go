package delivery

import (
	"context"
	"fmt"

	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/queue"
)

// AckHere acknowledges a message, if nobody has to hear of that, and reports whether it
// has. It is the fast path of Ack, and of the zero Delivery too.
func AckHere[T any](q *queue.Queue[T], ref message.Ref) bool {
	return q != nil && q.Local && ack(q, ref)
}

// ack acknowledges a message that is in flight, if nobody has to hear of that, and
// reports whether it has. It is the fast path of Ack.
func ack[T any](q *queue.Queue[T], ref message.Ref) bool {
	if l := q.Ranging.Load(); l != nil && l.Word.AckCurrent(ref.Stamp) {
		return true
	}
	q.Mu.Lock()
	if q.Store.Keys.Len() > 0 || q.Hooked(notice.Settled) || !q.Store.Leases.Ack(ref) {
		q.Mu.Unlock()
		return false
	}
	AckedLocked(q)
	q.Unlock()
	return true
}

// AckedLocked is called when messages were acknowledged in their leases. Nothing
// becomes ready by that, so that nobody has to be woken.
func AckedLocked[T any](q *queue.Queue[T]) {
	q.Store.Tally()
	if q.Store.Leases.Timed() == 0 {
		if !q.Alarm.Brief { // else the timer comes in a moment, and sees that there is nothing
			q.ArmLocked(0)
		}
		q.CheckDrainedLocked()
	}
}

// AckAll acknowledges deliveries of this queue, and returns the errors of those that it did
// not acknowledge, by their indexes; nil if there are none.
func AckAll[T any](ctx context.Context, q *queue.Queue[T], ds []Delivery[T]) (failed map[int]error) {
	var others [16]int // those that are not acknowledged so: each is by itself
	for k := 0; k < len(ds); {
		n := 0
		q.Mu.Lock()
		leased := q.Local && q.Store.Keys.Len() == 0 && !q.Hooked(notice.Settled) // a settlement is not logged
		for k < len(ds) && n < len(others) {
			done := 0
			if leased && ds[k].Q == q {
				done = ackSomeLocked(q, ds[k:])
			}
			if done == 0 {
				others[n] = k
				n++
				done = 1
			}
			k += done
		}
		AckedLocked(q)
		q.Unlock()
		for _, k := range others[:n] {
			d := &ds[k]
			var err error
			if d.Q == q || d.Q == nil {
				err = d.Ack(ctx)
			} else {
				err = fmt.Errorf("%w: a delivery of queue %q", message.ErrInvalidOption, d.Queue())
			}
			if err != nil {
				if failed == nil {
					failed = make(map[int]error)
				}
				failed[k] = fmt.Errorf("message %s: %w", d.ID(), err)
			}
		}
	}
	return failed
}

// ackSomeLocked acknowledges the first of the deliveries, of this queue, and those behind it
// that are of its block, and returns how many.
func ackSomeLocked[T any](q *queue.Queue[T], ds []Delivery[T]) int {
	first, open := q.Store.Leases.Open(ds[0].Ref)
	if open == 0 {
		if q.Store.Leases.Ack(ds[0].Ref) {
			return 1
		}
		return 0
	}
	block, left, n := ds[0].Ref.Block, open, 0
	for n < len(ds) {
		d := &ds[n]
		b := left & (1 << (d.Ref.Stamp - first))
		if b == 0 || d.Ref.Block != block || d.Q != q {
			break
		}
		left &^= b
		n++
	}
	q.Store.Leases.AckOpen(block, open&^left)
	return n
}
