package queue

import (
	"context"
	"fmt"
	"time"
	"unsafe"

	"github.com/gofanout/fanout/internal/alarm"
	"github.com/gofanout/fanout/internal/consumers"
	"github.com/gofanout/fanout/internal/message"
)

// TakeOne takes the next message into d, and waits for one if there is none. vis is its
// visibility timeout.
func (q *Queue[T]) TakeOne(ctx context.Context, d *Delivery[T], vis time.Duration) error {
	_, err := q.TakeInto(ctx, unsafe.Slice(d, 1), vis)
	return err
}

// Visibility is how long a delivery hides its message, if a receive says nothing else.
func (q *Queue[T]) Visibility() time.Duration { return q.Set.Visibility }

// TakeInto takes as many messages as ds has room for and there are, and waits
// for the first.
func (q *Queue[T]) TakeInto(ctx context.Context, ds []Delivery[T], vis time.Duration) (n int, err error) {
	if !q.Local {
		got, err := q.ReceiveOther(ctx, len(ds), vis)
		return copy(ds, got), err
	}
	err = q.Await(ctx, func() (ok bool) {
		n = q.takeLocked(ds, vis)
		return n > 0
	})
	return n, err
}

// Await calls take, with the queue's Mu locked, until it has taken something,
// and waits in between until there may be something to take.
func (q *Queue[T]) Await(ctx context.Context, take func() (ok bool)) error {
	ended := ctx.Err() != nil // asks the user's context: before the lock
	q.Mu.Lock()
	if q.Closed || ended {
		return q.unreceived(ctx)
	}
	if !take() {
		r := q.Receivers.Make()
		q.Receivers.Add(r)
		q.HandOnLocked()
		return q.awaitTurn(ctx, r, take)
	}
	q.Unlock()
	return nil
}

// unreceived returns why nothing was received. It is called with Mu locked, and
// unlocks it.
func (q *Queue[T]) unreceived(ctx context.Context) error {
	closed := q.Closed
	// Whoever woke this receiver meant it to take a message: wake another.
	q.HandOnLocked()
	q.Unlock()
	if closed {
		return q.ReceiveError(ErrQueueClosed)
	}
	return q.ReceiveError(message.ContextError(ctx))
}

// awaitTurn is Await for r, which stands in line. It is called with Mu locked, and
// unlocks it. It asks the user's context and calls hooks: if one of them ends the
// goroutine, or panics, r gives up its place.
func (q *Queue[T]) awaitTurn(ctx context.Context, r *consumers.Receiver, take func() (ok bool)) error {
	waiting := true
	defer func() {
		if waiting {
			q.Mu.Lock()
			if r != nil {
				q.Receivers.Remove(r)
			}
			q.HandOnLocked() // it may have been woken
			q.Unlock()
		}
	}()
	for ok := false; ; {
		q.Unlock()
		if ok {
			waiting = false
			return nil
		}
		r.Wait(ctx)
		ended := ctx.Err() != nil
		q.Mu.Lock()
		q.Receivers.Remove(r)
		if q.Closed || ended {
			waiting = false
			q.Receivers.Done(r)
			return q.unreceived(ctx)
		}
		if ok = take(); ok {
			q.Receivers.Done(r)
			r = nil
		} else { // woken in vain: somebody was quicker, and it keeps its place
			q.Receivers.AddFirst(r)
			q.HandOnLocked()
		}
	}
}

// ErrQueueClosed is ErrClosed from a receive, to be told from one that a
// context was cancelled with.
var ErrQueueClosed = fmt.Errorf("%w", message.ErrClosed)

func (q *Queue[T]) ReceiveError(err error) error {
	return fmt.Errorf("fanout: receive from %q: %w", q.QueueName, err)
}

// TryTake takes the next message into d if there is one, and reports whether there was.
func (q *Queue[T]) TryTake(ctx context.Context, d *Delivery[T], vis time.Duration) (ok bool, err error) {
	if !q.Local {
		*d, ok, err = q.tryReceiveOther(ctx, vis)
		return ok, err
	}
	return q.tryReceiveInto(ctx, unsafe.Slice(d, 1), vis)
}

// tryReceiveHere is TryReceive from memory.
func (q *Queue[T]) tryReceiveHere(ctx context.Context, vis time.Duration) (d Delivery[T], ok bool, err error) {
	ok, err = q.tryReceiveInto(ctx, unsafe.Slice(&d, 1), vis)
	return d, ok, err
}

func (q *Queue[T]) tryReceiveInto(ctx context.Context, d []Delivery[T], vis time.Duration) (ok bool, err error) {
	ended := ctx.Err() != nil
	q.Mu.Lock()
	switch {
	case q.Closed:
		q.Mu.Unlock()
		return false, q.ReceiveError(ErrQueueClosed)
	case ended:
		q.Mu.Unlock()
		return false, q.ReceiveError(message.ContextError(ctx))
	}
	n := q.takeLocked(d, vis)
	q.Unlock()
	return n > 0, nil
}

// TakeBatch takes up to most messages, and waits for the first.
func (q *Queue[T]) TakeBatch(ctx context.Context, most int, vis time.Duration) ([]Delivery[T], error) {
	if !q.Local {
		return q.ReceiveOther(ctx, most, vis)
	}
	return q.receiveHere(ctx, most, vis)
}

// receiveHere is ReceiveBatch from memory.
func (q *Queue[T]) receiveHere(ctx context.Context, most int, vis time.Duration) ([]Delivery[T], error) {
	var batch []Delivery[T]
	err := q.Await(ctx, func() (ok bool) {
		if !q.ServesLocked() {
			return false
		}
		batch = make([]Delivery[T], min(most, q.Ready()))
		n := q.takeLocked(batch, vis)
		batch = batch[:n]
		return n > 0
	})
	if err != nil {
		return nil, err
	}
	return batch, nil
}

// takeLocked claims messages for a caller, as many as ds has room for, and sees
// to it that other consumers are woken for what remains. It may have dead-lettered some
// that came too late, and freed their room, even if it takes none.
func (q *Queue[T]) takeLocked(ds []Delivery[T], vis time.Duration) (n int) {
	if !q.ServesLocked() || q.InLog() == 0 && q.Ready() == 0 {
		return 0
	}
	return q.TakeAtLocked(ds, q.Core.Now(), vis)
}

// ClaimAtLocked puts the next message, a dead letter or one of an engine, in flight in the
// given state, and leaves the timer to the caller. It may have dead-lettered some that came too
// late, and freed their room, even if it returns none.
func (q *Queue[T]) ClaimAtLocked(now int64, vis time.Duration, state uint8) (d Delivery[T], ok bool) {
	i, ok := q.nextLocked(now)
	if !ok {
		q.CheckDrainedLocked()
		return d, false
	}
	q.Claim(i, state, now, message.After(now, vis))
	m, h := q.Win.Meta(i), q.Win.At(i)
	d = q.Delivery(&h.Item, h.Hist, message.Ref{Stamp: m.Stamp, Block: i, Attempt: int32(min(m.Spent+1, 1<<31-1))})
	q.DeliveredLocked(&d)
	return d, true
}

// nextLocked takes the next message that may be delivered, as an entry whose state has been
// left, and dead-letters those whose time to live has passed.
func (q *Queue[T]) nextLocked(now int64) (i int32, ok bool) {
	at := q.Cursor.Pos()
	for expired := true; expired; {
		if i, expired, ok = q.Next(now); expired {
			q.ExpireLocked(i, now)
		}
	}
	if q.Cursor.Pos() > at {
		q.LookByLocked(now, alarm.CheckAge)
	}
	return i, ok
}

// HandOnLocked keeps the invariant about idle consumers: it wakes one if there
// is something for it, and otherwise sees that the next publish will. Whoever
// is woken calls it again after taking a message, so that as many consumers
// come as there are messages, one after the other.
func (q *Queue[T]) HandOnLocked() {
	sub, limited, idle := q.NextLocked()
	if q.Limited > 0 && (limited == 0 || q.Ready() == 0 && q.Keeper == nil) {
		q.Limited = 0 // nobody waits for that any more
		q.ArmLocked(q.Core.Now())
	}
	for idle {
		switch {
		case !q.ServesLocked():
			return
		case q.Ready() > 0:
			if q.Receivers.Wake() {
				return
			}
			if sub != nil {
				q.StartLocked(sub)
			} else {
				q.Limited = limited // until when the timer will come
				q.ArmLocked(q.Core.Now())
			}
			return
		case q.Keeper != nil:
			if sub != nil {
				q.Keeper.WantLocked()
			} else {
				q.Limited = limited // until when the timer will come
				q.ArmLocked(q.Core.Now())
			}
			return
		case q.Direct || !q.Idle.Add(q):
			return
		case q.Log.Published() <= q.Cursor.Pos():
			return // a later publish finds the queue in the list
		}
	}
}

// ServesLocked reports whether the queue gives out messages: not while it is
// paused or closed, and a dead-letter queue not while its topic shuts down.
func (q *Queue[T]) ServesLocked() bool {
	return !q.Closed && !q.Paused && (!q.Letters || !q.Draining)
}

// wake is called by whoever took the queue out of its list of idle queues.
func (q *Queue[T]) wake() {
	q.Mu.Lock()
	q.HandOnLocked()
	q.Mu.Unlock()
}
