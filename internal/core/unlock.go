package core

import "github.com/gofanout/fanout/internal/notice"

// What follows from a change under a queue's lock has to be told once that lock is
// released: events to hooks and log, contexts to be cancelled, engines to be called
// (pending), and room to those who wait for it. unlock does all of this, so it is the
// last thing that is done: hooks may block or end the goroutine. Who holds the lock of
// a topic too leaves it to the topic's unlock (unlockUnder), and who has something to
// do first, to itself (unlockTo). Who has only looked unlocks mu.

// unlock releases the queue's lock and tells what has to be told. No other lock is held.
func (q *Queue[T]) unlock() {
	if q.pending.Any() {
		q.unlockAndTell()
		return
	}
	q.mu.Unlock()
	if q.roomIsWanted() {
		q.tell()
	}
}

func (q *Queue[T]) unlockAndTell() {
	var p notice.Pending
	q.unlockTo(&p)
	p.Perform()
}

// tell lets in those who wait for room, and tells what follows from that.
func (q *Queue[T]) tell() {
	var p notice.Pending
	q.tellRoom(&p)
	p.Perform()
}

// unlockTo is unlock that leaves in p what is pending, to be performed by the caller.
func (q *Queue[T]) unlockTo(p *notice.Pending) {
	p.Join(q.pending.Take())
	q.mu.Unlock()
	q.tellRoom(p)
}

// unlockUnder is unlock for one who holds the lock of topic t, too.
func (q *Queue[T]) unlockUnder(t *home[T]) {
	t.pending.Join(q.pending.Take())
	if q.roomIsWanted() {
		t.roomMade = append(t.roomMade, q)
	}
	q.mu.Unlock()
}

// roomIsWanted reports whether somebody waits for the room that there is.
func (q *Queue[T]) roomIsWanted() bool {
	g := q.gate.Load()
	return g != 0 && q.allow.Load() >= g || q.starving.Load()
}

// tellRoom lets those in who wait for the room that there is. No lock is held; what has
// to be told is left in p.
func (q *Queue[T]) tellRoom(p *notice.Pending) {
	if g := q.gate.Load(); g != 0 && q.allow.Load() >= g && q.gate.CompareAndSwap(g, 0) {
		p.Join(q.t.owner.letIn(q))
	}
	if q.starving.Load() && q.starving.CompareAndSwap(true, false) {
		q.mu.Lock()
		r := q.rareLocked()
		starved := r.starving
		r.starving, r.starved = nil, nil
		q.mu.Unlock()
		for _, source := range starved {
			source.unpark(p)
		}
	}
}

// unlock releases the topic's lock, admits those who can go on, and tells what has to be
// told. No other lock is held.
func (t *home[T]) unlock() {
	var p notice.Pending
	t.unlockTo(&p)
	p.Perform()
}

// unlockTo is unlock that leaves in p what is pending, to be performed by the caller.
func (t *home[T]) unlockTo(p *notice.Pending) {
	made, turns := t.takeLocked(p), t.owner.hasTurnsLocked()
	t.mu.Unlock()
	if turns {
		p.Join(t.owner.letIn(nil))
	}
	for _, q := range made {
		q.tellRoom(p)
	}
}

// takeLocked adds what is pending to p, and returns the queues in which room was made.
func (t *home[T]) takeLocked(p *notice.Pending) (made []*Queue[T]) {
	p.Join(t.pending.Take())
	made, t.roomMade = t.roomMade, nil
	return made
}
