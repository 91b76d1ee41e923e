package queue

import (
	"github.com/gofanout/fanout/internal/alarm"
)

// NextEntryLocked takes the next message that may be delivered, as an entry whose state has been
// left, and dead-letters those whose time to live has passed.
func (q *Queue[T]) NextEntryLocked(now int64) (i int32, ok bool) {
	at := q.Store.Cursor.Pos()
	for expired := true; expired; {
		if i, expired, ok = q.Store.Next(now); expired {
			q.ExpireLocked(i, now)
		}
	}
	if q.Store.Cursor.Pos() > at {
		q.LookByLocked(now, alarm.CheckAge)
	}
	return i, ok
}

// HandOnLocked keeps the invariant about idle consumers: it wakes one if there
// is something for it, and otherwise sees that the next publish will. Whoever
// is woken calls it again after taking a message, so that as many consumers
// come as there are messages, one after the other.
func (q *Queue[T]) HandOnLocked() {
	sub, limited, idle := q.Group.NextLocked()
	if q.Limited > 0 && (limited == 0 || q.Store.Ready() == 0 && q.Keeper == nil) {
		q.Limited = 0 // nobody waits for that any more
		q.ArmLocked(q.Core.Now())
	}
	for idle {
		switch {
		case !q.ServesLocked():
			return
		case q.Store.Ready() > 0:
			if q.Group.Receivers.Wake() {
				return
			}
			if sub != nil {
				q.Group.StartLocked(sub)
			} else {
				q.limitLocked(limited)
			}
			return
		case q.Keeper != nil:
			if sub != nil {
				q.Keeper.WantLocked()
			} else {
				q.limitLocked(limited)
			}
			return
		case q.Store.Direct || !q.Idle.Add(q):
			return
		case q.Store.Log.Published() <= q.Store.Cursor.Pos():
			return // a later publish finds the queue in the list
		}
	}
}

// limitLocked has the timer come when a rate limit lets the next delivery start. It does
// nothing if the timer has been armed for that instant: or each tick would arm a brief one.
func (q *Queue[T]) limitLocked(until int64) {
	if q.Limited != until {
		q.Limited = until
		q.ArmLocked(q.Core.Now())
	}
}

// ServesLocked reports whether the queue gives out messages: not while it is
// paused or closed, and a dead-letter queue not while its topic shuts down.
func (q *Queue[T]) ServesLocked() bool {
	return !q.Store.Closed && !q.Paused && (!q.Store.Letters || !q.Store.Draining)
}

// wake is called by whoever took the queue out of its list of idle queues.
func (q *Queue[T]) wake() {
	q.Mu.Lock()
	q.HandOnLocked()
	q.Mu.Unlock()
}
