package queue

import (
	"time"

	"github.com/gofanout/fanout/internal/lease"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/settings"
)

// leaseDueLocked times out what of the leases is due, and comes before what is due in
// the window: by their instants, and those of one instant in the order in which they
// were delivered. It reports whether that was anything.
func (q *Queue[T]) leaseDueLocked(now int64) bool {
	at, _, ok := q.Leases.NextDue()
	return ok && at <= now && q.timeOutLeaseLocked(now)
}

func (q *Queue[T]) timeOutLeaseLocked(now int64) bool {
	until := lease.Never
	if at, stamp, ok := q.Win.FirstDue(); ok {
		until = lease.Instant{At: at, Stamp: stamp}
	}
	e, ok := q.Leases.Expire(now, until, q.togetherLocked())
	if !ok {
		return false
	}
	q.TallyLocked()
	if !e.Several {
		q.Stale.Add(e.Out.Stamp)
		v := message.Verdict{Cause: message.TimedOut}
		if w, ok := e.Owner.(holder[T]); ok {
			v = w.TimedOutLocked(&e.Out.Item, int(e.Out.Past.Spent)+1, e.Out.Start, now, time.Duration(e.At-e.Out.Start))
		}
		q.LandedLocked(&e.Out, v, now)
		return true
	}
	q.OnDemandLocked().Ended[message.TimedOut] += uint64(e.Len())
	for first, n := range e.Runs() {
		q.Stale.AddRun(first, n)
	}
	q.CheckDrainedLocked()
	return true
}

// togetherLocked is how many attempts messages must not reach to time out together: 0
// if somebody wants to hear of each, or has to find each by itself.
func (q *Queue[T]) togetherLocked() int {
	if q.Hooked(notice.Settled) || q.Set.TTL > 0 || q.Set.Overflow == settings.DropOldest {
		return 0
	}
	return q.Set.MaxAttempts
}

// expiredFirstLocked reports whether what is due first timed out together with others,
// and is in its lease still.
func (q *Queue[T]) expiredFirstLocked() bool {
	rank, ok := q.Leases.FirstExpired()
	if !ok {
		return false
	}
	i, found := q.due.First()
	return !found || rank < q.Win.Meta(i).Stamp
}

// popDueFirstLocked takes the first message that is due.
func (q *Queue[T]) popDueFirstLocked() int32 {
	if q.expiredFirstLocked() {
		return q.popExpiredLocked()
	}
	i, _ := q.Win.Pop(&q.due)
	return i
}

// popExpiredLocked makes the first message that timed out together with others an
// entry that is due and in no list yet.
func (q *Queue[T]) popExpiredLocked() int32 {
	out, _ := q.Leases.PopExpired()
	i := q.landLocked(&out, out.Past.Hist, out.Past.Spent, out.Past.Passes)
	m := q.Win.Meta(i)
	m.Stamp, m.State = out.Stamp, Due
	q.N[Due]++
	return i
}

// unfoldLocked makes all that timed out together entries of the window.
func (q *Queue[T]) unfoldLocked() { q.unfoldSomeLocked(q.Leases.Expired()) }

// unfoldSomeLocked is unfoldLocked for the first n of them.
func (q *Queue[T]) unfoldSomeLocked(n int) {
	before, found := q.due.Last()
	for ; n > 0; n-- {
		rank, ok := q.Leases.FirstExpired()
		if !ok {
			return
		}
		for found && q.Win.Meta(before).Stamp > rank {
			before, found = q.Win.Prev(before)
		}
		next, more := q.due.First()
		if found {
			next, more = q.Win.Next(before)
		}
		for more && q.Win.Meta(next).Stamp < rank {
			before, found = next, true
			next, more = q.Win.Next(next)
		}
		i := q.popExpiredLocked()
		q.Win.PushAfter(&q.due, i, before, found)
		before, found = i, true
	}
}

// timeOutLocked ends the delivery of entry i because its visibility timeout has
// passed, or extends it if its subscriber says so. If a handler has it, its
// context is cancelled and it counts as stuck until it returns. A handler that has
// returned is not stuck: its worker is, with settling what it left.
func (q *Queue[T]) timeOutLocked(i int32, now int64, find func(stamp uint64) holder[T]) {
	m, h := q.Win.Meta(i), q.Win.At(i)
	var w holder[T]
	if m.State == InHandler {
		w = find(m.Stamp)
	}
	if w != nil && q.Renews { // else it has had all of it
		if until := After(h.Start, w.Pooled().Set.AutoExtend); now < until {
			next := min(After(now, q.Set.Visibility), until)
			q.Win.Schedule(i, next)
			q.Keeper.ExtendLocked(i, time.Duration(next-now))
			return
		}
	}
	q.Stale.Add(m.Stamp)
	v := message.Verdict{Cause: message.TimedOut}
	if w != nil {
		v = w.TimedOutLocked(&h.Item, int(m.Spent)+1, h.Start, now, time.Duration(m.Deadline-h.Start))
	}
	q.endLocked(i, v, now)
}

// finder returns a function that finds the worker whose delivery has a stamp, or nil.
// It looks at all workers once, when it is first called: it is good as long as the
// queue's Mu is held.
func (q *Queue[T]) finder() func(stamp uint64) holder[T] {
	var workers map[uint64]holder[T]
	return func(stamp uint64) holder[T] {
		if workers == nil {
			workers = make(map[uint64]holder[T])
			for _, s := range q.Subs {
				for _, w := range s.Busy {
					for _, stamp := range w.StampsLocked() {
						workers[stamp] = w
					}
				}
			}
		}
		return workers[stamp]
	}
}
