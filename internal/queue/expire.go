package queue

import (
	"github.com/gofanout/fanout/internal/alarm"
)

// A message whose time to live has passed makes room when somebody wants room: it is
// dead then, whatever becomes of who wanted it. While one waits for room, the queue's
// timer comes when the next message expires. Nobody else looks for what has expired:
// a message is seen to have when its turn comes. Package store finds them.

// Expires reports whether any message of the queue may have a time to live.
func (q *Queue[T]) Expires() bool {
	return q.Evicts && (q.Set.TTL > 0 || q.T.Expiring.Load() > 0)
}

// lookForExpiryLocked returns when the first expires of the messages that are neither in
// flight nor parked, or an earlier instant that has not come.
func (q *Queue[T]) lookForExpiryLocked(now int64) (at int64, ok bool) {
	from := q.Cursor.Pos()
	if at, ok = q.FirstExpiry(now, q.T.Expiring.Load()); q.Cursor.Pos() > from {
		q.LookByLocked(now, alarm.CheckAge)
	}
	return at, ok
}

// expireFirstLocked dead-letters the first that expires of those in the window, if its time
// to live has passed, and reports whether it has.
func (q *Queue[T]) expireFirstLocked(now int64) bool {
	i, ok := q.PopExpired(now)
	if ok {
		q.ExpireLocked(i, now)
	}
	return ok
}

// expireAllLocked dead-letters what has expired and is neither in flight nor parked, and
// reports whether that was anything. The topic's Mu is held, too.
func (q *Queue[T]) expireAllLocked(now int64) bool {
	if at, ok := q.lookForExpiryLocked(now); !ok || at > now {
		return false
	}
	if q.Opening {
		q.AdoptLocked() // its dead-letter queue, if one waits for it
	}
	for q.expireFirstLocked(now) {
	}
	q.ArmLocked(now) // some may have been waiting for an instant
	q.CheckDrainedLocked()
	q.HandOnLocked() // one that went may have been the head of its key
	return true
}

// FindRoom reports whether there is room for n messages, that of messages just done
// and of those that have expired included. If there is none and somebody waits for
// it, the timer comes when the next message expires. The topic's Mu is held.
func (q *Queue[T]) FindRoom(n int64) bool {
	if q.HasRoom(n) {
		return true
	}
	if !q.Expires() {
		return false
	}
	q.Mu.Lock()
	defer q.UnlockUnder(q.T)
	now := q.Core.Now()
	if q.expireAllLocked(now) {
		q.T.Owner.TurnsOfLocked(q) // it may be more room than is wanted here
	}
	if q.Room() >= n {
		return true
	}
	q.ArmLocked(now)
	return false
}

// HasRoom reports whether there is room for n messages, that of messages just
// done included.
func (q *Queue[T]) HasRoom(n int64) bool {
	if q.Room() >= n {
		return true
	}
	q.countDone()
	return q.Room() >= n
}
