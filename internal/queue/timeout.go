package queue

import (
	"time"

	"github.com/gofanout/fanout/internal/consumers"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/store"
)

// leaseDueLocked times out what of the leases is due, and comes before what is due in
// the window. It reports whether that was anything. Most looks find nothing: they make no
// room for a message, which may be large.
func (q *Queue[T]) leaseDueLocked(now int64) bool {
	at, _, ok := q.Store.Leases.NextDue()
	return ok && at <= now && q.timeOutLeaseLocked(now)
}

func (q *Queue[T]) timeOutLeaseLocked(now int64) bool {
	e, ok := q.Store.TimeOutLease(now, q.Hooked(notice.Settled))
	if !ok {
		return false
	}
	if e.Several {
		q.CheckDrainedLocked()
		return true
	}
	out := e.Out // escapes
	v := message.Verdict{Cause: message.TimedOut}
	if w, ok := e.Owner.(consumers.Holder[T]); ok {
		v = w.TimedOutLocked(&out.Item, int(out.Past.Spent)+1, out.Start, now, time.Duration(e.At-out.Start))
	}
	q.LandedLocked(&out, v, now)
	return true
}

// timeOutLocked ends the delivery of entry i because its visibility timeout has
// passed, or extends it if its subscriber says so. If a handler has it, its
// context is cancelled and it counts as stuck until it returns. A handler that has
// returned is not stuck: its worker is, with settling what it left.
func (q *Queue[T]) timeOutLocked(i int32, now int64, find func(stamp uint64) consumers.Holder[T]) {
	m, h := q.Store.Win.Meta(i), q.Store.Win.At(i)
	var w consumers.Holder[T]
	if m.State == store.InHandler {
		w = find(m.Stamp)
	}
	if w != nil && q.Renews { // else it has had all of it
		if until := message.After(h.Start, w.Pooled().Set.AutoExtend); now < until {
			next := min(message.After(now, q.Store.Set.Visibility), until)
			q.Store.Win.Schedule(i, next)
			q.Keeper.ExtendLocked(i, time.Duration(next-now))
			return
		}
	}
	q.Store.Stale.Add(m.Stamp)
	v := message.Verdict{Cause: message.TimedOut}
	if w != nil {
		v = w.TimedOutLocked(&h.Item, int(m.Spent)+1, h.Start, now, time.Duration(m.Deadline-h.Start))
	}
	q.endLocked(i, v, now)
}
