package queue

import (
	"context"
	"fmt"
	"time"

	"github.com/gofanout/fanout/internal/alarm"
	"github.com/gofanout/fanout/internal/lease"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/store"
)

// This file takes messages into the queue's leases, and ends their deliveries. A delivery's
// ref names it there.

// TakeAtLocked puts messages in flight for a caller, as many as ds has room for and
// there are. Something is ready. It sees to it that other consumers are woken for what
// remains. It may have dead-lettered some that came too late, even if it takes none.
func (q *Queue[T]) TakeAtLocked(ds []Delivery[T], now int64, vis time.Duration) (n int) {
	for n < len(ds) {
		k := q.takeSomeLocked(ds[n:], now, vis)
		if k == 0 {
			break
		}
		n += k
	}
	if n > 0 {
		q.Tally()
		q.LookByLocked(now, alarm.CheckAge)
		if !q.Alarm.Armed || q.Alarm.At > message.After(now, vis) {
			q.ArmLocked(now)
		}
		q.HandOnLocked()
	}
	return n
}

// takeSomeLocked is TakeAtLocked for messages that can be taken in one step.
func (q *Queue[T]) takeSomeLocked(ds []Delivery[T], now int64, vis time.Duration) int {
	if q.Entries {
		d, ok := q.ClaimAtLocked(now, vis, store.InFlight)
		if !ok {
			return 0
		}
		ds[0] = d
		return 1
	}
	t := q.OpenLeases()
	if q.Due() > 0 {
		if r, ok := q.TakeExpired(len(ds), int64(vis), now); ok {
			return q.DeliverLocked(ds, &r)
		}
	}
	if run := q.PlainRun(len(ds), now); len(run) > 0 {
		var r lease.Run[T]
		t.Take(&r, run, len(ds), int64(vis), now)
		q.Took(len(r.Items))
		return q.DeliverLocked(ds, &r)
	}
	l := t.Fill(1, int64(vis))
	first := l.Len()
	if !q.FillLocked(l, now) {
		q.CheckDrainedLocked()
		return 0
	}
	r := t.Run(l, first)
	return q.DeliverLocked(ds, &r)
}

// FillLocked takes the next message by itself into a lease, which has room, and reports
// whether there was one. It may have dead-lettered some that came too late, even if not.
func (q *Queue[T]) FillLocked(l *lease.Lease[T], now int64) bool {
	i, ok := q.nextLocked(now)
	if ok {
		q.Fly(l, i, now)
	}
	return ok
}

// DeliverLocked makes deliveries of a run, and returns how many.
func (q *Queue[T]) DeliverLocked(ds []Delivery[T], r *lease.Run[T]) int {
	items, ref, hist := r.Items, r.First, r.History
	ds = ds[:len(items)]
	for j := range ds {
		d, it := &ds[j], &items[j] // field by field: a literal would be copied, which costs more than all of this
		d.Body, d.Ext, d.Seq, d.At = it.Body, it.Ext, it.Seq, it.At
		d.Q, d.Hist = q, hist
		d.Ref.Stamp, d.Ref.Block, d.Ref.Attempt = ref.Stamp+uint64(j), ref.Block, ref.Attempt
	}
	if q.Hooked(notice.Delivered) {
		for j := range ds {
			q.DeliveredLocked(&ds[j])
		}
	}
	return len(ds)
}

// ack acknowledges a message that is in flight, if nobody has to hear of that, and
// reports whether it has. It is the fast path of Ack.
func (q *Queue[T]) ack(ref message.Ref) bool {
	if l := q.Ranging.Load(); l != nil && l.Word.AckCurrent(ref.Stamp) {
		return true
	}
	q.Mu.Lock()
	if q.Keys != nil || q.Hooked(notice.Settled) || !q.Leases.Ack(ref) {
		q.Mu.Unlock()
		return false
	}
	q.AckedLocked()
	q.Unlock()
	return true
}

// AckedLocked is called when messages were acknowledged in their leases. Nothing
// becomes ready by that, so that nobody has to be woken.
func (q *Queue[T]) AckedLocked() {
	q.Tally()
	if q.Alarm.CheckAt == 0 && q.Leases.Spare() {
		q.LookByLocked(q.Core.Now(), alarm.CheckAge)
	}
	if q.Leases.Timed() == 0 {
		if !q.Alarm.Brief { // else the timer comes in a moment, and sees that there is nothing
			q.ArmLocked(0)
		}
		q.CheckDrainedLocked()
	}
}

// AckAll acknowledges deliveries of this queue, and returns the errors of those that it did
// not acknowledge, by their indexes; nil if there are none.
func (q *Queue[T]) AckAll(ctx context.Context, ds []Delivery[T]) (failed map[int]error) {
	var others [16]int // those that are not acknowledged so: each is by itself
	for k := 0; k < len(ds); {
		n := 0
		q.Mu.Lock()
		leased := q.Local && q.Keys == nil && !q.Hooked(notice.Settled) // a settlement is not logged
		for k < len(ds) && n < len(others) {
			done := 0
			if leased && ds[k].Q == q {
				done = q.ackSomeLocked(ds[k:])
			}
			if done == 0 {
				others[n] = k
				n++
				done = 1
			}
			k += done
		}
		q.AckedLocked()
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
func (q *Queue[T]) ackSomeLocked(ds []Delivery[T]) int {
	first, open := q.Leases.Open(ds[0].Ref)
	if open == 0 {
		if q.Leases.Ack(ds[0].Ref) {
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
	q.Leases.AckOpen(block, open&^left)
	return n
}

// LandedLocked ends the delivery of a message that has left its lease.
func (q *Queue[T]) LandedLocked(out *lease.Out[T], v message.Verdict, now int64) {
	e := q.Land(out, v, now)
	q.goOnLocked(&e, v, now)
}
