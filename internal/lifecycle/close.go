package lifecycle

import (
	"context"
	"fmt"
	"slices"

	"github.com/gofanout/fanout/internal/ending"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/queue"
)

// Close ends the queue at once.
func Close[T any](q *queue.Queue[T]) error {
	if q.Keeper != nil {
		return q.Keeper.Close()
	}
	return end(q, false)
}

// Delete ends the queue as Close does, and removes all that it held and its own dead letters.
func Delete[T any](ctx context.Context, q *queue.Queue[T]) error {
	if err := deleteAt(ctx, q); err != nil {
		return fmt.Errorf("fanout: delete of %q: %w", q.Name(), err)
	}
	return nil
}

func deleteAt[T any](ctx context.Context, q *queue.Queue[T]) error {
	if q.Keeper != nil {
		return q.Keeper.Delete(ctx)
	}
	return end(q, true)
}

// end closes a queue in memory. If it is to be deleted nothing of it is left.
func end[T any](q *queue.Queue[T], deleting bool) error {
	if q.T == nil {
		return endShared(q, deleting)
	}
	return q.T.Owner.EndQueue(q, deleting)
}

// endShared is end for a dead-letter queue that belongs to no topic.
func endShared[T any](q *queue.Queue[T], deleting bool) error {
	q.Mu.Lock()
	if q.Store.Closed && !deleting {
		q.Mu.Unlock()
		return nil
	}
	if !q.Store.Closed {
		q.Core.Live.Add(1) // the reporter may arm a timer until it is stopped
		defer q.Core.Release()
	}
	closeLocked(q, deleting)
	defer q.Report.Stop()
	q.Unlock()
	return nil
}

// SourceIsOpen is the error for ending the dead-letter queue d before its queue.
func SourceIsOpen[T any](d *queue.Queue[T], deleting bool) error {
	if deleting {
		return fmt.Errorf("%w: deleting the dead-letter queue %q: delete %q", message.ErrUnsupported, d.Name(), d.Source.Name())
	}
	return fmt.Errorf("%w: closing the dead-letter queue %q: close %q first", message.ErrUnsupported, d.Name(), d.Source.Name())
}

// DeadIfAny returns the queue's own dead-letter queue, if it has been made.
func DeadIfAny[T any](q *queue.Queue[T]) *queue.Queue[T] {
	q.Mu.Lock()
	defer q.Mu.Unlock()
	if q.Dead == nil || q.Dead.Shared() {
		return nil
	}
	return q.Dead
}

// CloseNow closes the queue and says what was left in it. The topic's Mu is held. A
// dead-letter queue keeps its letters, to be looked at, unless it is being deleted.
func CloseNow[T any](q *queue.Queue[T], deleting bool) ending.Left {
	q.Mu.Lock()
	defer q.UnlockUnder(q.T)
	return closeLocked(q, deleting)
}

func closeLocked[T any](q *queue.Queue[T], deleting bool) (l ending.Left) {
	if q.Store.Closed {
		if deleting {
			forgetLocked(q)
		}
		return l
	}
	q.Store.LandAll(q.Core.Now())
	q.Store.Offered = q.Store.Published(q.Store.InLog())
	now := q.Core.Now()
	if q.Keeper == nil && !q.Store.Letters {
		q.Store.Spill()
		expireWaitingLocked(q, now)
	}
	l = leftLocked(q)
	switch {
	case q.Keeper != nil:
		// What no worker has begun with goes back: others get it at once.
		for i, ok := q.Store.PopReady(); ok; i, ok = q.Store.PopReady() {
			q.Keeper.EndLocked(i, message.Verdict{Cause: message.Released, Unstarted: true}, now)
		}
		q.Store.Empty()
	case deleting:
		dropAllLocked(q)
	case q.Store.Letters:
	default:
		left := messagesLocked(q, now)
		if n := len(left); n > 0 {
			q.KeepLeftLocked(left)
			q.NoteLocked(notice.Dropped, notice.Event{Reason: notice.DroppedByClose, Count: n})
		}
		q.Store.Empty()
	}
	q.Store.Close()
	q.ChangedLocked()
	if !q.Store.Direct {
		q.Idle.Remove(q)
	}
	for _, s := range slices.Clone(q.Group.Subs) {
		for _, w := range s.Busy {
			w.CancelLocked(fmt.Errorf("%w: queue %q", message.ErrClosed, q.Name()))
		}
		s.Workers.StopLocked()
	}
	for q.Group.Receivers.Wake() {
	}
	q.ArmLocked(0)
	q.CheckDrainedLocked()
	q.CheckEndedLocked()
	return l
}

// dropAllLocked drops all that the window holds, because the queue is being deleted.
func dropAllLocked[T any](q *queue.Queue[T]) {
	n := q.Store.Win.Len()
	q.Store.Empty()
	if n == 0 {
		return
	}
	q.Store.Counters().Dropped += uint64(n)
	q.NoteLocked(notice.Dropped, notice.Event{Reason: notice.DroppedByDelete, Count: n})
}

// forgetLocked drops what a closed queue still holds: letters, or its leftovers, of which
// was told when it was closed.
func forgetLocked[T any](q *queue.Queue[T]) {
	if q.Store.Letters {
		dropAllLocked(q)
		return
	}
	q.Store.Counters().Dropped += uint64(len(q.LeftLocked()))
	q.KeepLeftLocked(nil)
}
