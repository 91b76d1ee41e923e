package queue

import (
	"context"
	"fmt"

	"github.com/gofanout/fanout/internal/lease"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
)

// Pause makes the queue give out no messages until Resume.
func (q *Queue[T]) Pause(context.Context) error { return q.setPaused(true) }

// Resume ends a Pause.
func (q *Queue[T]) Resume(context.Context) error { return q.setPaused(false) }

func (q *Queue[T]) setPaused(paused bool) error {
	q.Mu.Lock()
	defer q.Unlock() // what is taken back was tallied
	if q.Closed {
		return fmt.Errorf("%w: queue %q", message.ErrClosed, q.QueueName)
	}
	q.Paused = paused
	if paused {
		q.TakeAllBackLocked()
	}
	q.ChangedLocked()
	q.CheckDrainedLocked()
	q.HandOnLocked()
	return nil
}

// Purge drops all that the queue holds, also what is in flight, and returns how much it was.
func (q *Queue[T]) Purge(ctx context.Context) (dropped int, err error) {
	return q.At().Purge(ctx)
}

// purgeHere is Purge in memory.
func (q *Queue[T]) purgeHere() (dropped int, err error) {
	if q.T == nil { // a shared dead-letter queue, which reads no log
		q.Mu.Lock()
		defer q.Unlock()
		return q.PurgeLocked()
	}
	q.T.Mu.Lock()
	defer q.T.Unlock()
	q.Mu.Lock()
	defer q.UnlockUnder(q.T)
	return q.PurgeLocked()
}

// PurgeLocked empties the queue. Of one that reads the log the topic's Mu is held, too.
func (q *Queue[T]) PurgeLocked() (n int, err error) {
	if q.Closed {
		return 0, fmt.Errorf("%w: queue %q", message.ErrClosed, q.QueueName)
	}
	ended := 0
	cause := fmt.Errorf("%w: queue %q was purged", message.ErrStale, q.QueueName)
	q.endAllLocked(func(out *lease.Out[T], owner lease.Consumer[T]) {
		ended++
		q.Stale.Add(out.Stamp)
		if w, ok := owner.(holder[T]); ok {
			w.CancelLocked(cause)
		}
	})
	n = ended + q.Win.Len() + q.InLogLocked()
	if n == 0 {
		return 0, nil
	}
	all := make([]int32, 0, q.Win.Len())
	q.Win.All(func(i int32) bool {
		all = append(all, i)
		return true
	})
	find := q.finder()
	for _, i := range all {
		m := q.Win.Meta(i)
		if m.State == InFlight || m.State == InHandler {
			q.Stale.Add(m.Stamp)
			if w := find(m.Stamp); w != nil {
				w.CancelLocked(cause)
			}
		}
		q.takeOutLocked(i)
		q.N[m.State]--
		q.Win.Remove(i)
	}
	q.Keys = nil
	allow := int64(min(q.Set.Capacity, maxCapacity))
	if !q.Direct {
		q.Cursor.SkipTo(q.Log.Published())
		q.Cursor.Rest()
		allow += q.Cursor.Pos()
	}
	q.Allow.Store(allow)
	q.OnDemandLocked().Dropped += uint64(n)
	q.ArmLocked(q.Core.Now())
	q.HandOnLocked()
	q.CheckDrainedLocked()
	q.NoteLocked(notice.Dropped, notice.Event{Reason: notice.DroppedByPurge, Count: n})
	return n, nil
}
