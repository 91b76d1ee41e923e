package queue

// A message whose time to live has passed makes room when somebody wants room: it is
// dead then, whatever becomes of who wanted it. While one waits for room, the queue's
// timer comes when the next message expires. Nobody else looks for what has expired:
// a message is seen to have when its turn comes.
//
// What is in flight may succeed still, and what is parked is dead already. All other
// messages that expire are noted in the window (noteExpiryLocked). When room is wanted,
// those in the log are looked at where they stand (scanLocked), and taken into the window
// if one of them has expired.

// Expires reports whether any message of the queue may have a time to live.
func (q *Queue[T]) Expires() bool {
	return q.Evicts && (q.Set.TTL > 0 || q.T.Expiring.Load() > 0)
}

// noteExpiryLocked notes when entry i, which is neither in flight nor parked, expires.
func (q *Queue[T]) noteExpiryLocked(i int32) {
	if !q.Evicts {
		return
	}
	if at, ok := q.expiry(&q.Win.At(i).Item); ok {
		q.Win.SetExpiry(i, at)
	}
}

// A logScan is what is known of the times to live in the log: of the messages before
// position end, none expires before at.
type logScan struct {
	end int64
	at  int64
}

const never = 1<<63 - 1

// firstExpiryLocked returns when the first expires of the messages that are neither in
// flight nor parked, or an earlier instant that has not come. What has expired is in the
// window then.
func (q *Queue[T]) firstExpiryLocked(now int64) (at int64, ok bool) {
	if q.scanLocked() <= now {
		q.scan.end = 0 // what it was may be gone: look again
		if q.scanLocked() <= now {
			q.spillExpiringLocked(now)
		}
	}
	return q.knownExpiryLocked()
}

// knownExpiryLocked is firstExpiryLocked for what has been looked at.
func (q *Queue[T]) knownExpiryLocked() (at int64, ok bool) {
	_, at, ok = q.Win.FirstExpiry()
	if s := &q.scan; s.end > q.Cursor.Pos() && s.at != never && (!ok || s.at < at) {
		at, ok = s.at, true
	}
	return at, ok
}

// scanLocked looks at the messages of the log that nobody has looked at yet, and returns
// when the first of the log expires, or an earlier instant.
func (q *Queue[T]) scanLocked() int64 {
	s := &q.scan
	if q.InLogLocked() == 0 || q.Set.TTL == 0 && q.Cursor.Peek().Seq > q.T.Expiring.Load() {
		s.end = 0
		return never
	}
	if s.end <= q.Cursor.Pos() {
		s.end, s.at = q.Cursor.Pos(), never
	}
	q.Cursor.ScanFrom(s.end, func(it *Item[T]) bool {
		if at, ok := q.expiry(it); ok {
			s.at = min(s.at, at)
		}
		s.end++
		return true
	})
	return s.at
}

// spillExpiringLocked takes the messages of the log that have a time to live into the
// window, and those before them.
func (q *Queue[T]) spillExpiringLocked(now int64) {
	if q.Set.TTL > 0 {
		q.spillLocked()
	} else {
		for last := q.T.Expiring.Load(); q.InLogLocked() > 0 && q.Cursor.Peek().Seq <= last; {
			q.PutLocked(q.Win.Add(Held[T]{Item: *q.Cursor.Next()}), Backlogged)
		}
	}
	q.LookByLocked(now, CheckAge)
}

// expireFirstLocked dead-letters the first that expires of those in the window, if its time
// to live has passed, and reports whether it has.
func (q *Queue[T]) expireFirstLocked(now int64) bool {
	i, at, ok := q.Win.FirstExpiry()
	if !ok || at > now {
		return false
	}
	q.takeOutLocked(i)
	q.N[q.Win.Meta(i).State]--
	q.Win.Restamp(i)
	q.ExpireLocked(i, now)
	return true
}

// expireAllLocked dead-letters what has expired and is neither in flight nor parked, and
// reports whether that was anything. The topic's Mu is held, too.
func (q *Queue[T]) expireAllLocked(now int64) bool {
	if at, ok := q.firstExpiryLocked(now); !ok || at > now {
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
