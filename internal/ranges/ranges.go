package ranges

import (
	"context"
	"errors"
	"time"

	"github.com/gofanout/fanout/internal/alarm"
	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/lease"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/store"
)

// A Range receives one message after the other. The queue knows it for as long as it lasts, so
// it prefetches messages into a lease in step: up to 64 of them are taken from the log
// under one lock and one reading of the clock. What a message costs beside the loop's
// body is two atomic steps: its acknowledgement, which finds the lease by the queue,
// and the step to the next. A message that is not settled by then stays in flight in
// the lease.
type Range[T any] struct {
	// Immutable.
	q   *queue.Queue[T]
	vis time.Duration

	// The loop's goroutine's; it changes lease and entered under the queue's Mu.
	lease   *lease.Lease[T]        // nil: the last message was received by itself
	entered bool                   // it is counted among the queue's ranges
	base    uint64                 // stamp of ds[0]
	ds      []delivery.Delivery[T] // what is in the lease
	// forgotten is how many of ds were let go of for good, once the lease has them.
	forgotten int
	takenAt   int64
	size      int // how many to take next
	buffer    []delivery.Delivery[T]
	one       [1]delivery.Delivery[T] // what was received by itself
}

// New returns a range over the queue's messages, each with the given visibility timeout.
func New[T any](q *queue.Queue[T], vis time.Duration) *Range[T] {
	return &Range[T]{q: q, vis: vis}
}

// Next returns the next message, and waits for one if there is none. It is valid
// until the next call.
func (r *Range[T]) Next(ctx context.Context) (*delivery.Delivery[T], error) {
	if ctx.Err() == nil && r.lease != nil {
		if p, ok := r.lease.Word.Advance(); ok {
			k := p.Stamp() - r.base
			r.ds[k-1].Forget()
			return &r.ds[k], nil
		}
	}
	q := r.q
	if !q.Local {
		ds, err := delivery.ReceiveOther(ctx, q, 1, r.vis)
		copy(r.one[:], ds)
		return &r.one[0], err
	}
	if err := delivery.Await(ctx, q, r.takeLocked); err != nil {
		return nil, err
	}
	if r.lease != nil {
		return &r.ds[r.lease.Word.Place().Stamp()-r.base], nil
	}
	return &r.one[0], nil
}

// takeLocked makes another message the current one: the next of the lease, or the
// first of a new one, or a single one.
func (r *Range[T]) takeLocked() (ok bool) {
	q := r.q
	r.detachLocked()
	if r.lease != nil {
		if q.Store.Leases.Next(r.lease) {
			return true
		}
	}
	if !r.entered {
		r.entered = true
		q.Group.Ranges++
	}
	if !q.ServesLocked() || q.Store.Ready() == 0 {
		r.restLocked()
		return false
	}
	now := q.Core.Now()
	if r.prefetchLocked(now) {
		q.HandOnLocked()
		return true
	}
	r.restLocked()
	return delivery.TakeAtLocked(q, r.one[:], now, r.vis) > 0
}

// detachLocked ends what the range has to do with its current message. If it is not
// settled, it stays in flight.
func (r *Range[T]) detachLocked() {
	clear(r.one[:])
	if r.lease == nil {
		return
	}
	q, p := r.q, r.lease.Word.Place()
	k := int(p.Stamp() - r.base)
	if !p.Over() {
		// The timer comes in time: it has not looked at the lease yet, see prefetchLocked.
		q.Store.Leases.Detach(r.lease, q.Core.Now())
	}
	q.Store.Tally()
	if !r.lease.Kept() {
		for ; r.forgotten <= k; r.forgotten++ {
			r.ds[r.forgotten].Forget()
		}
	}
}

// Message returns message k of the range's lease.
func (r *Range[T]) Message(_ *lease.Lease[T], k int) message.Item[T] { return r.ds[k].Item() }

// At is when message k of the range's lease was published. forget leaves that alone.
func (r *Range[T]) At(_ *lease.Lease[T], k int) int64 { return r.ds[k].At }

// Began is now: a range reads no clock between two messages.
func (r *Range[T]) Began(now int64) int64 { return now }

// endLocked gives back the lease, of which nothing waits and nothing is current.
func (r *Range[T]) endLocked() {
	q := r.q
	if r.lease == nil {
		return
	}
	q.Ranging.CompareAndSwap(r.lease, nil)
	q.Store.Leases.End(r.lease, 0)
	r.lease = nil
}

// restLocked is endLocked for a range that has nothing to go on with.
func (r *Range[T]) restLocked() {
	r.endLocked()
	clear(r.ds)
	r.ds = nil
	if r.q.UnwatchedLocked() {
		r.q.ArmLocked(0)
	}
}

// Leave ends the range. What it has not begun is for others. The range is of no use
// after that.
func (r *Range[T]) Leave() {
	q := r.q
	q.Mu.Lock()
	if !r.entered {
		q.Mu.Unlock()
		return
	}
	r.detachLocked()
	if r.lease != nil {
		q.Store.TakeBack(r.lease)
		r.restLocked()
	}
	r.entered = false
	q.Group.Ranges--
	if q.Store.Closed && q.Store.Leases.Spare() {
		q.Store.Leases = nil
	}
	q.Unlock()
}

// prefetchLocked takes messages from the log, two at least, and makes the first the
// current one. It reports whether there was anything to take so.
func (r *Range[T]) prefetchLocked(now int64) bool {
	q := r.q
	n := r.sizeLocked(now)
	if n < 2 || q.Store.Due() > 0 || q.Store.In(store.Backlogged) > 0 || q.Store.Direct || r.vis != q.Store.Set.Visibility || q.Core.Singly || q.Hooked(notice.Settled) {
		return false
	}
	run := q.Store.Cursor.Run(n)
	k := q.Store.Joins(run, message.After(now, alarm.CheckAge))
	if k < 2 {
		return false
	}
	if r.buffer == nil {
		r.buffer = make([]delivery.Delivery[T], lease.Len)
	}
	t := q.Store.OpenLeases()
	if r.lease == nil || !t.Again(r.lease, k, now) {
		r.endLocked()
		r.lease = t.InStep(r, k, now, int64(r.vis))
		q.Ranging.Store(r.lease)
	}
	clear(r.ds[min(k, len(r.ds)):]) // the lease before has what it needs of it
	first := t.First(r.lease)
	r.ds, r.base, r.forgotten = r.buffer[:k], first.Stamp, 0
	delivery.CopyOut(q, r.ds, run, first)
	q.Store.Cursor.Step(k)
	q.Store.BacklogsTurn = false
	q.LookByLocked(now, min(alarm.CheckAge, r.vis))
	return true
}

// prefetchTime is how long what is prefetched should last.
const prefetchTime = int64(50 * time.Microsecond)

// sizeLocked says how many messages to take: more as long as the loop's body takes
// microseconds, and never so many that other consumers find none.
func (r *Range[T]) sizeLocked(now int64) int {
	q := r.q
	if now-r.takenAt < prefetchTime {
		r.size = min(2*r.size, lease.Len)
	} else {
		r.size = max(r.size/4, 1)
	}
	r.takenAt = now
	n := q.Store.InLog()
	if c := q.Group.Consumers + int(q.Group.Receivers.N) + int(q.Group.Ranges); c > 1 {
		n /= 2 * c
	}
	return min(r.size, n)
}

// IsOver reports whether err, of Next, says that the queue is closed.
func (r *Range[T]) IsOver(err error) bool { return errors.Is(err, delivery.ErrQueueClosed) }
