package core

import (
	"time"

	"github.com/gofanout/fanout/internal/message"
)

// armLocked keeps the invariant about the alarm, by a brief one if that will do.
func (q *Queue[T]) armLocked(now int64) { q.armForLocked(now, true) }

func (q *Queue[T]) armForLocked(now int64, brief bool) {
	if q.opening {
		return // what is replayed is due before
	}
	at, ok := q.win.NextDue()
	if due, _, found := q.leases.NextDue(); found && (!ok || due < at) {
		at, ok = due, true
	}
	if q.limited > 0 && (!ok || q.limited < at) {
		at, ok, brief = q.limited, true, false
	}
	if q.gate.Load() != 0 { // somebody waits for room
		if expires, found := q.knownExpiryLocked(); found && (!ok || expires < at) {
			at, ok, brief = expires, true, false
		}
	}
	if check := q.alarm.checkAt; check > 0 && (!ok || check < at) {
		at, ok = check, true
	}
	switch {
	case ok && !q.closed && brief:
		q.alarm.armBriefly(now, at, q)
	case ok && !q.closed:
		q.alarm.arm(now, at, q)
	case q.closed || q.running == 0 && !q.alarm.brief:
		// Else who goes on will need it in a moment: stopping and starting a timer costs
		// more than all the rest of a delivery.
		q.alarm.stop()
	}
}

// tickLen bounds how many entries one tick sees to: for more, the timer fires
// again at once, so that none waits for the hooks of others.
const tickLen = 1024

// tick sees to those whose time has come: what waited for it is ready, and what
// was in flight has timed out. It runs in the timer's goroutine, which the
// queue's close waits for through the alarm.
func (q *Queue[T]) tick() {
	q.mu.Lock()
	q.alarm.begin()
	defer q.ticked() // even if a hook ends the goroutine
	now := q.core.now()
	if q.limited <= now {
		q.limited = 0
	}
	for _, s := range q.subs {
		s.workers.trimLocked()
	}
	if check := q.alarm.checkAt; check > 0 && check <= now {
		q.lookLocked(now)
	}
	if q.gate.Load() != 0 {
		q.firstExpiryLocked(now)
	}
	find := q.finder()
	for n := 0; n < tickLen && !q.closed; n++ {
		if q.gate.Load() != 0 && q.expireFirstLocked(now) {
			continue
		}
		if q.leaseDueLocked(now) {
			continue
		}
		i, ok := q.win.PopDue(now)
		if !ok {
			break
		}
		if state := q.win.Meta(i).State; state == inFlight || state == inHandler {
			q.timeOutLocked(i, now, find)
		} else {
			q.n[state]--
			q.becomeDueLocked(i)
		}
	}
	q.checkDrainedLocked()
	q.handOnLocked()
	q.armForLocked(now, false)
	q.alarm.rest()
	q.unlock()
}

func (q *Queue[T]) ticked() {
	q.mu.Lock()
	q.alarm.end()
	q.checkHomeLocked()
	q.mu.Unlock()
}

// timeOutLocked ends the delivery of entry i because its visibility timeout has
// passed, or extends it if its subscriber says so. If a handler has it, its
// context is cancelled and it counts as stuck until it returns. A handler that has
// returned is not stuck: its worker is, with settling what it left.
func (q *Queue[T]) timeOutLocked(i int32, now int64, find func(stamp uint64) holder[T]) {
	m, h := q.win.Meta(i), q.win.At(i)
	var w holder[T]
	if m.State == inHandler {
		w = find(m.Stamp)
	}
	if w != nil && q.renews { // else it has had all of it
		if until := after(h.start, w.pooled().set.AutoExtend); now < until {
			next := min(after(now, q.set.Visibility), until)
			q.win.Schedule(i, next)
			q.keeper.extendLocked(i, time.Duration(next-now))
			return
		}
	}
	q.stale.Add(m.Stamp)
	v := message.Verdict{Cause: message.TimedOut}
	if w != nil {
		v = w.timedOutLocked(&h.item, int(m.Spent)+1, h.start, now, time.Duration(m.Deadline-h.start))
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
			for _, s := range q.subs {
				for _, w := range s.busy {
					w.eachLocked(func(stamp uint64) { workers[stamp] = w })
				}
			}
		}
		return workers[stamp]
	}
}
