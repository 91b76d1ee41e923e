package queue

import (
	"github.com/gofanout/fanout/internal/lease"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/store"
)

// endLocked ends the delivery of entry i, which is no longer scheduled.
func (q *Queue[T]) endLocked(i int32, v message.Verdict, now int64) {
	if q.Keeper != nil {
		q.Keeper.EndLocked(i, v, now)
		return
	}
	e := q.Store.End(i, v, now)
	q.GoOnLocked(&e, v, now)
}

// LandedLocked ends the delivery of a message that has left its lease.
func (q *Queue[T]) LandedLocked(out *lease.Out[T], v message.Verdict, now int64) {
	e := q.Store.Land(out, v, now)
	q.GoOnLocked(&e, v, now)
}

// GoOnLocked tells of a delivery that has ended as v says, and has its message go on.
func (q *Queue[T]) GoOnLocked(e *store.Ended[T], v message.Verdict, now int64) {
	q.NoteItemLocked(notice.Settled, &e.Item, notice.Event{Attempt: e.Attempt, Cause: v.Cause, Err: v.Err, Elapsed: e.Elapsed, Wait: v.Wait})
	q.NoteUnreturnedLocked(&e.Item, v, e.Attempt, e.Elapsed)
	switch e.Then {
	case store.Dies:
		q.deadLetterLocked(e.Entry)
	case store.Expires:
		q.ExpireLocked(e.Entry, now)
	case store.Retries:
		q.Store.Retry(e.Entry, v, now)
	}
	q.CheckDrainedLocked()
}

// ExpireLocked dead-letters entry i, whose state has been left, because its time to
// live has passed.
func (q *Queue[T]) ExpireLocked(i int32, now int64) {
	q.Store.Expire(i, now)
	q.deadLetterLocked(i)
}
