package core

// A message whose time to live has passed makes room when somebody wants room: it is
// dead then, whatever becomes of who wanted it. While one waits for room, the queue's
// timer comes when the next message expires. Nobody else looks for what has expired:
// a message is seen to have when its turn comes.
//
// What is in flight may succeed still, and what is parked is dead already. All other
// messages that expire are noted in the window (noteExpiryLocked). Those in the log
// are taken into the window when room is wanted, each at most once.

// expires reports whether any message of the queue may have a time to live.
func (q *Queue[T]) expires() bool {
	return !q.letters && q.remote == nil && (q.set.TTL > 0 || q.t.expiring.Load() > 0)
}

// noteExpiryLocked notes when entry i, which is neither in flight nor parked, expires.
func (q *Queue[T]) noteExpiryLocked(i int32) {
	if q.remote != nil {
		return // room is the engine's
	}
	if at, ok := q.expiry(&q.win.At(i).item); ok {
		q.win.SetExpiry(i, at)
	}
}

// firstExpiryLocked returns which of the messages that are neither in flight nor
// parked expires first, and when.
func (q *Queue[T]) firstExpiryLocked(now int64) (i int32, at int64, ok bool) {
	before := q.cursor.Pos()
	switch {
	case q.direct || q.closed:
	case q.set.TTL > 0:
		q.spillLocked()
	default:
		for last := q.t.expiring.Load(); q.inLogLocked() > 0 && q.cursor.Peek().Seq <= last; {
			q.putLocked(q.win.Add(held[T]{item: *q.cursor.Next()}), backlogged)
		}
	}
	if q.cursor.Pos() > before {
		q.lookByLocked(now, checkAge)
	}
	return q.win.FirstExpiry()
}

// expireFirstLocked buries the first that expires of those in the window, if its time
// to live has passed, and reports whether it has.
func (q *Queue[T]) expireFirstLocked(now int64) bool {
	i, at, ok := q.win.FirstExpiry()
	if !ok || at > now {
		return false
	}
	q.takeOutLocked(i)
	q.n[q.win.Meta(i).State]--
	q.win.Restamp(i)
	q.expireLocked(i, now)
	return true
}

// expireAllLocked buries what has expired and is neither in flight nor parked, and
// reports whether that was anything. The topic's mu is held, too.
func (q *Queue[T]) expireAllLocked(now int64) bool {
	if _, at, ok := q.firstExpiryLocked(now); !ok || at > now {
		return false
	}
	if q.opening {
		q.adoptLocked() // its dead-letter queue, if one waits for it
	}
	for q.expireFirstLocked(now) {
	}
	q.armLocked(now) // some may have been waiting for an instant
	q.checkDrainedLocked()
	q.handOnLocked() // one that went may have been the head of its key
	return true
}

// findRoom reports whether there is room for n messages, that of messages just done
// and of those that have expired included. If there is none and somebody waits for
// it, the timer comes when the next message expires. The topic's mu is held.
func (q *Queue[T]) findRoom(n int64) bool {
	if q.hasRoom(n) {
		return true
	}
	if !q.expires() {
		return false
	}
	q.mu.Lock()
	defer q.unlockUnder(q.t)
	now := q.core.now()
	if q.expireAllLocked(now) {
		q.t.turnsOfLocked(q) // it may be more room than is wanted here
	}
	if q.room() >= n {
		return true
	}
	q.armLocked(now)
	return false
}

// ungateLocked says that o does not wait for room any more, or not where it did. The
// topic's mu is held.
func (o *offer[T]) ungateLocked() {
	q := o.gated
	if q == nil {
		return
	}
	o.gated = nil
	q.gate.Store(0) // it was for o: of those who want room in q only the first waits for it
	if q.expires() {
		q.mu.Lock()
		q.armLocked(q.core.now())
		q.mu.Unlock()
	}
}
