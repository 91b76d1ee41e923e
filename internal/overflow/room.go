package overflow

import "github.com/gofanout/fanout/internal/queue"

// FindRoom reports whether there is room for n messages, that of messages just done
// and of those that have expired included. If there is none and somebody waits for
// it, the timer comes when the next message expires. The topic's Mu is held.
func FindRoom[T any](q *queue.Queue[T], n int64) bool {
	if HasRoom(q, n) {
		return true
	}
	if !q.Expires() {
		return false
	}
	q.Mu.Lock()
	defer q.UnlockUnder(q.T)
	now := q.Core.Now()
	if expireAllLocked(q, now) {
		q.T.Admission.TurnsOfLocked(q) // it may be more room than is wanted here
	}
	if q.Store.Room() >= n {
		return true
	}
	q.ArmLocked(now)
	return false
}

// HasRoom reports whether there is room for n messages, that of messages just
// done included.
func HasRoom[T any](q *queue.Queue[T], n int64) bool {
	if q.Store.Room() >= n {
		return true
	}
	countDone(q)
	return q.Store.Room() >= n
}

// countDone counts what consumers in step have done, for one who needs the room.
func countDone[T any](q *queue.Queue[T]) {
	if q.Store.Direct {
		return
	}
	q.Mu.Lock()
	q.Store.Count()
	q.Mu.Unlock()
}

// expireAllLocked dead-letters what has expired and is neither in flight nor parked, and
// reports whether that was anything. The topic's Mu is held, too.
func expireAllLocked[T any](q *queue.Queue[T], now int64) bool {
	if at, ok := q.LookForExpiryLocked(now); !ok || at > now {
		return false
	}
	if q.Opening {
		q.AdoptLocked() // its dead-letter queue, if one waits for it
	}
	for q.ExpireFirstLocked(now) {
	}
	q.ArmLocked(now) // some may have been waiting for an instant
	q.CheckDrainedLocked()
	q.HandOnLocked() // one that went may have been the head of its key
	return true
}
