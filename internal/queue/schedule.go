package queue

import (
	"github.com/gofanout/fanout/internal/alarm"
	"github.com/gofanout/fanout/internal/message"
)

// ArmLocked keeps the invariant about the alarm, by a brief one if that will do. It is also
// called when nothing is in flight any more: what was in use for that is looked at.
func (q *Queue[T]) ArmLocked(now int64) { q.armForLocked(now, true) }

func (q *Queue[T]) armForLocked(now int64, brief bool) {
	if q.Opening {
		return // what is replayed is due before
	}
	if q.UnwatchedLocked() {
		now = q.Core.Now()
		q.Alarm.CheckBy(message.After(now, alarm.SpareAge))
	}
	at, ok := q.Store.NextDue()
	if q.Limited > 0 && (!ok || q.Limited < at) {
		at, ok, brief = q.Limited, true, false
	}
	if q.RoomWanted.Load() != 0 { // somebody waits for room
		if expires, found := q.Store.KnownExpiry(); found && (!ok || expires < at) {
			at, ok, brief = expires, true, false
		}
	}
	switch check := q.Alarm.CheckAt; {
	case check > 0 && (!ok || check < at) && !q.Store.Closed:
		q.Alarm.ArmCheck(now, q)
	case ok && !q.Store.Closed && brief:
		q.Alarm.ArmBriefly(now, at, q)
	case ok && !q.Store.Closed:
		q.Alarm.Arm(now, at, q)
	case q.Store.Closed || q.Group.Running == 0 && !q.Alarm.Brief:
		// Else who goes on will need it in a moment: stopping and starting a timer costs
		// more than all the rest of a delivery.
		q.Alarm.Stop()
	}
}

// UnwatchedLocked reports whether there are leases that nobody uses and the timer will not
// look at.
func (q *Queue[T]) UnwatchedLocked() bool {
	return q.Alarm.CheckAt == 0 && !q.Store.Closed && q.Store.Leases.Spare()
}

// tickLen bounds how many entries one tick sees to: for more, the timer fires
// again at once, so that none waits for the hooks of others.
const tickLen = 1024

// Tick sees to those whose time has come: what waited for it is ready, and what
// was in flight has timed out. It runs in the timer's goroutine, which the
// queue's close waits for through the alarm.
func (q *Queue[T]) Tick() {
	q.Mu.Lock()
	q.Alarm.Begin()
	defer q.ticked() // even if a hook ends the goroutine
	now := q.Core.Now()
	if q.Limited <= now {
		q.Limited = 0
	}
	if check := q.Alarm.CheckAt; check > 0 && check <= now {
		q.lookLocked(now)
	}
	if q.RoomWanted.Load() != 0 {
		q.LookForExpiryLocked(now)
	}
	find := q.Group.Finder()
	for n := 0; n < tickLen && !q.Store.Closed; n++ {
		if q.RoomWanted.Load() != 0 && q.ExpireFirstLocked(now) {
			continue
		}
		if q.leaseDueLocked(now) {
			continue
		}
		i, timedOut, ok := q.Store.PopDue(now)
		if !ok {
			break
		}
		if timedOut {
			q.timeOutLocked(i, now, find)
		}
	}
	q.CheckDrainedLocked()
	q.HandOnLocked()
	q.armForLocked(now, false)
	q.Alarm.Rest()
	q.Unlock()
}

func (q *Queue[T]) ticked() {
	q.Mu.Lock()
	q.Alarm.End()
	q.CheckEndedLocked()
	q.Mu.Unlock()
}
