package delivery

import (
	"context"
	"log/slog"
	"time"

	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/queue"
)

// Settle ends a delivery as v says.
func Settle[T any](ctx context.Context, q *queue.Queue[T], ref message.Ref, v message.Verdict) error {
	if q.Keeper != nil {
		return q.Keeper.Settle(ctx, ref, v)
	}
	return settleHere(q, ref, v)
}

// settleHere is Settle in memory.
func settleHere[T any](q *queue.Queue[T], ref message.Ref, v message.Verdict) error {
	v = v.Told()
	v.Wait = WaitAfter(q, v, CountFor(q, v, ref))
	q.Mu.Lock()
	now := q.Core.Now()
	e, err := q.Store.Settle(ref, v, now)
	if err != nil {
		q.Mu.Unlock()
		return err
	}
	q.GoOnLocked(&e, v, now)
	q.ArmLocked(now)
	q.HandOnLocked()
	q.Unlock()
	return nil
}

// CountFor is what the backoff is asked for when a delivery ends as v says: the
// number of the attempt, or, if it is a release, that of the releases in a row.
func CountFor[T any](q *queue.Queue[T], v message.Verdict, ref message.Ref) int32 {
	if v.Cause != message.Released || v.Wait != message.FromBackoff {
		return ref.Attempt
	}
	q.Mu.Lock()
	defer q.Mu.Unlock()
	past, ok := q.Store.Past(ref)
	if !ok {
		return 1 // it settles nothing
	}
	return 1 + int32(past.Hist.Releases(int(past.Passes)))
}

// WaitAfter is how long a message waits after an attempt that ended as v says.
// It calls the user's backoff: no lock is held.
func WaitAfter[T any](q *queue.Queue[T], v message.Verdict, attempt int32) time.Duration {
	if v.Wait != message.FromBackoff && (!q.Store.Letters || v.Cause != message.PermanentlyFailed) {
		return v.Wait
	}
	if q.Store.Letters || !v.Cause.Spends() || q.Store.Set.MaxAttempts == message.Unlimited || int64(attempt) < int64(q.Store.Set.MaxAttempts) {
		wait, e := q.Store.Set.Backoff.Ask(int(attempt))
		if !e.Returned {
			q.Core.To.LogApart("fanout: a backoff "+message.CauseOfEnd(e).String(), slog.String("topic", q.Core.TopicName), slog.String("queue", q.Name()),
				slog.Any("panic", e.Panicked), slog.Duration("wait", wait))
		}
		return wait
	}
	return 0
}

// extend moves the deadline of a delivery.
func extend[T any](ctx context.Context, q *queue.Queue[T], ref message.Ref, by time.Duration) error {
	if q.Keeper != nil {
		return q.Keeper.Extend(ctx, ref, by)
	}
	return extendHere(q, ref, by)
}

// extendHere is extend in memory.
func extendHere[T any](q *queue.Queue[T], ref message.Ref, by time.Duration) error {
	q.Mu.Lock()
	defer q.Unlock() // what a range has acknowledged is tallied on the way
	now := q.Core.Now()
	if err := q.Store.Extend(ref, message.After(now, by), now); err != nil {
		return err
	}
	q.ArmLocked(now)
	return nil
}

func deadline[T any](q *queue.Queue[T], ref message.Ref) time.Time {
	q.Mu.Lock()
	defer q.Unlock() // as in extendHere
	now := q.Core.Now()
	at, ok := q.Store.Deadline(ref, now)
	if !ok {
		return time.Time{}
	}
	q.ArmLocked(now)
	return q.Core.Time(at)
}
