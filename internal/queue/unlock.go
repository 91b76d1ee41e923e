package queue

import "github.com/gofanout/fanout/internal/notice"

// What follows from a change under a queue's lock has to be told once that lock is
// released: events to hooks and log, contexts to be cancelled, engines to be called
// (pending), and room to those who wait for it. Unlock does all of this, so it is the
// last thing that is done: hooks may block or end the goroutine. Who holds the lock of
// a topic too leaves it to the topic's Unlock (UnlockUnder), and who has something to
// do first, to itself (UnlockTo). Who has only looked unlocks Mu.

// Unlock releases the queue's lock and tells what has to be told. No other lock is held.
func (q *Queue[T]) Unlock() {
	if q.Pending.Any() {
		q.unlockAndTell()
		return
	}
	q.Mu.Unlock()
	if q.RoomIsWanted() {
		q.tell()
	}
}

func (q *Queue[T]) unlockAndTell() {
	var p notice.Pending
	q.UnlockTo(&p)
	p.Perform()
}

// tell lets in those who wait for room, and tells what follows from that.
func (q *Queue[T]) tell() {
	var p notice.Pending
	q.TellRoom(&p)
	p.Perform()
}

// UnlockTo is Unlock that leaves in p what is pending, to be performed by the caller.
func (q *Queue[T]) UnlockTo(p *notice.Pending) {
	p.Join(q.Pending.Take())
	q.Mu.Unlock()
	q.TellRoom(p)
}

// UnlockUnder is Unlock for one who holds the lock of topic t, too.
func (q *Queue[T]) UnlockUnder(t *Home[T]) {
	t.Pending.Join(q.Pending.Take())
	if q.RoomIsWanted() {
		t.RoomMade = append(t.RoomMade, q)
	}
	q.Mu.Unlock()
}

// RoomIsWanted reports whether somebody waits for the room that there is.
func (q *Queue[T]) RoomIsWanted() bool {
	g := q.RoomWanted.Load()
	return g != 0 && q.Store.Allow.Load() >= g || q.sourcesWait.Load()
}

// TellRoom lets those in who wait for the room that there is. No lock is held; what has
// to be told is left in p.
func (q *Queue[T]) TellRoom(p *notice.Pending) {
	if g := q.RoomWanted.Load(); g != 0 && q.Store.Allow.Load() >= g && q.RoomWanted.CompareAndSwap(g, 0) {
		p.Join(q.T.Admission.LetIn(q))
	}
	if q.sourcesWait.Load() && q.sourcesWait.CompareAndSwap(true, false) {
		q.Mu.Lock()
		r := q.onDemandLocked()
		sources := r.sources
		r.sources, r.isSource = nil, nil
		q.Mu.Unlock()
		for _, source := range sources {
			source.unpark(p)
		}
	}
}

// Unlock releases the topic's lock, admits those who can go on, and tells what has to be
// told. No other lock is held.
func (t *Home[T]) Unlock() {
	var p notice.Pending
	t.UnlockTo(&p)
	p.Perform()
}

// UnlockTo is Unlock that leaves in p what is pending, to be performed by the caller.
func (t *Home[T]) UnlockTo(p *notice.Pending) {
	made, turns := t.TakeLocked(p), t.Admission.HasTurnsLocked()
	t.Mu.Unlock()
	if turns {
		p.Join(t.Admission.LetIn(nil))
	}
	for _, q := range made {
		q.TellRoom(p)
	}
}

// TakeLocked adds what is pending to p, and returns the queues in which room was made.
func (t *Home[T]) TakeLocked(p *notice.Pending) (made []*Queue[T]) {
	p.Join(t.Pending.Take())
	made, t.RoomMade = t.RoomMade, nil
	return made
}
