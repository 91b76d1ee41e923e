package queue

import (
	"github.com/gofanout/fanout/internal/alarm"
	"github.com/gofanout/fanout/internal/notice"
)

// A message whose time to live has passed makes room when somebody wants room: it is
// dead then, whatever becomes of who wanted it. While one waits for room, the queue's
// timer comes when the next message expires. Nobody else looks for what has expired:
// a message is seen to have when its turn comes. Package store finds them.

// Expires reports whether any message of the queue may have a time to live.
func (q *Queue[T]) Expires() bool {
	return q.Store.Evicts && (q.Store.Set.TTL > 0 || q.T.Expiring.Load() > 0)
}

// LookForExpiryLocked returns when the first expires of the messages that are neither in
// flight nor parked, or an earlier instant that has not come.
func (q *Queue[T]) LookForExpiryLocked(now int64) (at int64, ok bool) {
	from := q.Store.Cursor.Pos()
	if at, ok = q.Store.FirstExpiry(now, q.T.Expiring.Load()); q.Store.Cursor.Pos() > from {
		q.LookByLocked(now, alarm.CheckAge)
	}
	return at, ok
}

// ExpireFirstLocked dead-letters the first that expires of those in the window, if its time
// to live has passed, and reports whether it has.
func (q *Queue[T]) ExpireFirstLocked(now int64) bool {
	i, ok := q.Store.PopExpired(now)
	if ok {
		q.ExpireLocked(i, now)
	}
	return ok
}

// DropOldestLocked drops what was published first among what is not in flight,
// and reports whether there was anything. The log is read up to end, which may
// be beyond what consumers see.
func (q *Queue[T]) DropOldestLocked(end int64) bool {
	it, ok := q.Store.DropOldest(end)
	if ok {
		q.NoteItemLocked(notice.Dropped, &it, notice.Event{Reason: notice.DroppedOldest})
	}
	return ok
}
