package lifecycle

import (
	"context"
	"fmt"

	"github.com/gofanout/fanout/internal/consumers"
	"github.com/gofanout/fanout/internal/lease"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/queue"
)

// Pause makes the queue give out no messages until Resume.
func Pause[T any](_ context.Context, q *queue.Queue[T]) error { return setPaused(q, true) }

// Resume ends a Pause.
func Resume[T any](_ context.Context, q *queue.Queue[T]) error { return setPaused(q, false) }

func setPaused[T any](q *queue.Queue[T], paused bool) error {
	q.Mu.Lock()
	defer q.Unlock() // what is taken back was tallied
	if q.Store.Closed {
		return fmt.Errorf("%w: queue %q", message.ErrClosed, q.Name())
	}
	q.Paused = paused
	if paused {
		q.Store.TakeAllBack()
	}
	q.ChangedLocked()
	q.CheckDrainedLocked()
	q.HandOnLocked()
	return nil
}

// Purge drops all that the queue holds, also what is in flight, and returns how much it was.
func Purge[T any](ctx context.Context, q *queue.Queue[T]) (dropped int, err error) {
	if q.Keeper != nil {
		return q.Keeper.Purge(ctx)
	}
	return purgeHere(q)
}

// purgeHere is Purge in memory.
func purgeHere[T any](q *queue.Queue[T]) (dropped int, err error) {
	if q.T == nil { // a shared dead-letter queue, which reads no log
		q.Mu.Lock()
		defer q.Unlock()
		return PurgeLocked(q)
	}
	q.T.Mu.Lock()
	defer q.T.Unlock()
	q.Mu.Lock()
	defer q.UnlockUnder(q.T)
	return PurgeLocked(q)
}

// PurgeLocked empties the queue. Of one that reads the log the topic's Mu is held, too.
func PurgeLocked[T any](q *queue.Queue[T]) (n int, err error) {
	if q.Store.Closed {
		return 0, fmt.Errorf("%w: queue %q", message.ErrClosed, q.Name())
	}
	cause, find := fmt.Errorf("%w: queue %q was purged", message.ErrStale, q.Name()), q.Group.Finder()
	now := q.Core.Now()
	n = q.Store.Purge(now, func(stamp uint64, owner lease.Consumer[T]) {
		w, ok := owner.(consumers.Holder[T])
		if owner == nil {
			w = find(stamp)
			ok = w != nil
		}
		if ok {
			w.CancelLocked(cause)
		}
	})
	if n == 0 {
		return 0, nil
	}
	q.ArmLocked(now)
	q.HandOnLocked()
	q.CheckDrainedLocked()
	q.NoteLocked(notice.Dropped, notice.Event{Reason: notice.DroppedByPurge, Count: n})
	return n, nil
}
