package queue

import (
	"time"

	"github.com/gofanout/fanout/internal/message"
)

// ArmLocked keeps the invariant about the alarm, by a brief one if that will do.
func (q *Queue[T]) ArmLocked(now int64) { q.armForLocked(now, true) }

func (q *Queue[T]) armForLocked(now int64, brief bool) {
	if q.Opening {
		return // what is replayed is due before
	}
	at, ok := q.Win.NextDue()
	if due, _, found := q.Leases.NextDue(); found && (!ok || due < at) {
		at, ok = due, true
	}
	if q.Limited > 0 && (!ok || q.Limited < at) {
		at, ok, brief = q.Limited, true, false
	}
	if q.Gate.Load() != 0 { // somebody waits for room
		if expires, found := q.knownExpiryLocked(); found && (!ok || expires < at) {
			at, ok, brief = expires, true, false
		}
	}
	if check := q.Alarm.CheckAt; check > 0 && (!ok || check < at) {
		at, ok = check, true
	}
	switch {
	case ok && !q.Closed && brief:
		q.Alarm.armBriefly(now, at, q)
	case ok && !q.Closed:
		q.Alarm.arm(now, at, q)
	case q.Closed || q.Running == 0 && !q.Alarm.Brief:
		// Else who goes on will need it in a moment: stopping and starting a timer costs
		// more than all the rest of a delivery.
		q.Alarm.stop()
	}
}

// tickLen bounds how many entries one tick sees to: for more, the timer fires
// again at once, so that none waits for the hooks of others.
const tickLen = 1024

// tick sees to those whose time has come: what waited for it is ready, and what
// was in flight has timed out. It runs in the timer's goroutine, which the
// queue's close waits for through the alarm.
func (q *Queue[T]) tick() {
	q.Mu.Lock()
	q.Alarm.begin()
	defer q.ticked() // even if a hook ends the goroutine
	now := q.Core.Now()
	if q.Limited <= now {
		q.Limited = 0
	}
	for _, s := range q.Subs {
		s.Workers.TrimLocked()
	}
	if check := q.Alarm.CheckAt; check > 0 && check <= now {
		q.lookLocked(now)
	}
	if q.Gate.Load() != 0 {
		q.firstExpiryLocked(now)
	}
	find := q.finder()
	for n := 0; n < tickLen && !q.Closed; n++ {
		if q.Gate.Load() != 0 && q.expireFirstLocked(now) {
			continue
		}
		if q.leaseDueLocked(now) {
			continue
		}
		i, ok := q.Win.PopDue(now)
		if !ok {
			break
		}
		if state := q.Win.Meta(i).State; state == InFlight || state == InHandler {
			q.timeOutLocked(i, now, find)
		} else {
			q.N[state]--
			q.becomeDueLocked(i)
		}
	}
	q.CheckDrainedLocked()
	q.HandOnLocked()
	q.armForLocked(now, false)
	q.Alarm.rest()
	q.Unlock()
}

func (q *Queue[T]) ticked() {
	q.Mu.Lock()
	q.Alarm.end()
	q.CheckHomeLocked()
	q.Mu.Unlock()
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
// queue's mu is held.
func (q *Queue[T]) finder() func(stamp uint64) holder[T] {
	var workers map[uint64]holder[T]
	return func(stamp uint64) holder[T] {
		if workers == nil {
			workers = make(map[uint64]holder[T])
			for _, s := range q.Subs {
				for _, w := range s.Busy {
					w.EachLocked(func(stamp uint64) { workers[stamp] = w })
				}
			}
		}
		return workers[stamp]
	}
}
