package queue

import (
	"context"
	"log/slog"
	"time"

	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/store"
)

// Settle ends a delivery as v says.
func (q *Queue[T]) Settle(ctx context.Context, ref message.Ref, v message.Verdict) error {
	if q.Keeper != nil {
		return q.Keeper.Settle(ctx, ref, v)
	}
	return q.settleHere(ref, v)
}

// settleHere is Settle in memory.
func (q *Queue[T]) settleHere(ref message.Ref, v message.Verdict) error {
	v = v.Told()
	v.Wait = q.WaitAfter(v, q.CountFor(v, ref))
	q.Mu.Lock()
	now := q.Core.Now()
	e, err := q.Store.Settle(ref, v, now)
	if err != nil {
		q.Mu.Unlock()
		return err
	}
	q.goOnLocked(&e, v, now)
	q.ArmLocked(now)
	q.HandOnLocked()
	q.Unlock()
	return nil
}

// CountFor is what the backoff is asked for when a delivery ends as v says: the
// number of the attempt, or, if it is a release, that of the releases in a row.
func (q *Queue[T]) CountFor(v message.Verdict, ref message.Ref) int32 {
	if v.Cause != message.Released || v.Wait != message.FromBackoff {
		return ref.Attempt
	}
	q.Mu.Lock()
	defer q.Mu.Unlock()
	past, ok := q.Past(ref)
	if !ok {
		return 1 // it settles nothing
	}
	return 1 + int32(past.Hist.Releases(int(past.Passes)))
}

// WaitAfter is how long a message waits after an attempt that ended as v says.
// It calls the user's backoff: no lock is held.
func (q *Queue[T]) WaitAfter(v message.Verdict, attempt int32) time.Duration {
	if v.Wait != message.FromBackoff && (!q.Letters || v.Cause != message.PermanentlyFailed) {
		return v.Wait
	}
	if q.Letters || !v.Cause.Spends() || q.Set.MaxAttempts == message.Unlimited || int64(attempt) < int64(q.Set.MaxAttempts) {
		wait, e := q.Set.Backoff.Ask(int(attempt))
		if !e.Returned {
			q.Core.To.LogApart("fanout: a backoff "+message.CauseOfEnd(e).String(), slog.String("topic", q.Core.TopicName), slog.String("queue", q.QueueName),
				slog.Any("panic", e.Panicked), slog.Duration("wait", wait))
		}
		return wait
	}
	return 0
}

// endLocked ends the delivery of entry i, which is no longer scheduled.
func (q *Queue[T]) endLocked(i int32, v message.Verdict, now int64) {
	if q.Keeper != nil {
		q.Keeper.EndLocked(i, v, now)
		return
	}
	e := q.End(i, v, now)
	q.goOnLocked(&e, v, now)
}

// goOnLocked tells of a delivery that has ended as v says, and has its message go on.
func (q *Queue[T]) goOnLocked(e *store.Ended[T], v message.Verdict, now int64) {
	q.NoteItemLocked(notice.Settled, &e.Item, notice.Event{Attempt: e.Attempt, Cause: v.Cause, Err: v.Err, Elapsed: e.Elapsed, Wait: v.Wait})
	q.NoteUnreturnedLocked(&e.Item, v, e.Attempt, e.Elapsed)
	switch e.Then {
	case store.Dies:
		q.deadLetterLocked(e.Entry)
	case store.Expires:
		q.ExpireLocked(e.Entry, now)
	case store.Retries:
		q.Retry(e.Entry, v, now)
	}
	q.CheckDrainedLocked()
}

// ExpireLocked dead-letters entry i, whose state has been left, because its time to
// live has passed.
func (q *Queue[T]) ExpireLocked(i int32, now int64) {
	q.Expire(i, now)
	q.deadLetterLocked(i)
}

// extend moves the deadline of a delivery.
func (q *Queue[T]) extend(ctx context.Context, ref message.Ref, by time.Duration) error {
	if q.Keeper != nil {
		return q.Keeper.Extend(ctx, ref, by)
	}
	return q.extendHere(ref, by)
}

// extendHere is extend in memory.
func (q *Queue[T]) extendHere(ref message.Ref, by time.Duration) error {
	q.Mu.Lock()
	defer q.Unlock() // what a range has acknowledged is tallied on the way
	now := q.Core.Now()
	if err := q.Store.Extend(ref, message.After(now, by), now); err != nil {
		return err
	}
	q.ArmLocked(now)
	return nil
}

func (q *Queue[T]) deadline(ref message.Ref) time.Time {
	q.Mu.Lock()
	defer q.Unlock() // as in extend
	now := q.Core.Now()
	at, ok := q.Store.Deadline(ref, now)
	if !ok {
		return time.Time{}
	}
	q.ArmLocked(now)
	return q.Core.Time(at)
}
