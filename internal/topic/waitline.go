package topic

import (
	turnheap "container/heap"
	"iter"
	"slices"

	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/settings"
)

// Those who wait for room stand in lines, so that only the first of a line has to be
// looked at when there is room, and nobody is looked for when he leaves.
//
// Every offer that waits wants some queues, and waits behind those that came before it
// and want one of them. A publish wants all queues without a filter, so publishes
// share one line for these; for each queue with a filter that wants it, it stands in a
// line of that queue too. A redrive stands in a line of its queue. Who is behind nobody
// in any of his lines may go on if there is room. Nobody waits for a queue that drops,
// so that a redrive to one, which does wait, keeps no publish waiting.

// waitLines are the lines of a topic. Its Mu guards them.
//
// Invariant: who is behind nobody was found without room in a queue, whose RoomWanted says
// so, or is in turns.
type waitLines[T any] struct {
	waiting    int // waiters
	inHandlers int // of them in a handler
	arrived    uint64

	publishes line[T]
	redrives  line[T]
	// Those who want queues without a filter: all publishes, as if there was one, and
	// redrives to such queues; and those redrives that publishes wait behind.
	unfiltered, holding line[T]
	wanted              map[string]*line[T] // publishes by their deduplication IDs

	turns turns[T] // who is to be looked at
}

// queueLines are the lines of a queue: of publishes, if it has a filter, and of
// redrives to it. The topic's Mu guards them.
type queueLines[T any] struct{ publishes, redrives line[T] }

// A line holds waiters in the order of their arrival.
type line[T any] struct {
	first, last *standing[T]
	id          string // whose line it is, one of wanted; empty for others
}

// A standing is where a waiter stands in a line.
type standing[T any] struct {
	w              *waiter[T]
	in             *line[T]        // nil once it has been left
	q              *queue.Queue[T] // whose line it is; nil: the topic's
	before, behind *standing[T]
}

// turns is a heap of waiters, the first that arrived at its top.
type turns[T any] []*waiter[T]

func (h turns[T]) Len() int           { return len(h) }
func (h turns[T]) Less(i, j int) bool { return h[i].number < h[j].number }
func (h turns[T]) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *turns[T]) Push(w any)        { *h = append(*h, w.(*waiter[T])) }

func (h *turns[T]) Pop() any {
	last := len(*h) - 1
	w := (*h)[last]
	(*h)[last] = nil
	if *h = (*h)[:last]; last == 0 && cap(*h) > 8 {
		*h = nil // it was long; a short one spares a worker that makes room the allocation
	}
	return w
}

// linesOf returns a queue's lines, nil if nobody has waited for room in it.
func linesOf[T any](q *queue.Queue[T]) *queueLines[T] {
	l, _ := q.Wait.(*queueLines[T])
	return l
}

// makeLines returns a queue's lines, and makes them if there are none.
func makeLines[T any](q *queue.Queue[T]) *queueLines[T] {
	l := linesOf(q)
	if l == nil {
		l = new(queueLines[T])
		q.Wait = l
	}
	return l
}

// enterLocked puts w at the end of its lines.
func (t *Topic[T]) enterLocked(w *waiter[T]) {
	t.waiting++
	t.arrived++
	w.number = t.arrived
	if w.run != nil {
		t.inHandlers++
	}
	if q := w.redrive; q != nil {
		w.places = make([]standing[T], 0, 4)
		w.join(&t.redrives, nil)
		w.join(&makeLines(q).redrives, q)
		if q.Filters == nil {
			w.join(&t.unfiltered, nil)
			if !q.Set.Overflow.Drops() {
				w.join(&t.holding, nil)
			}
		}
		return
	}
	w.rows = slices.DeleteFunc(w.rows, func(r row[T]) bool { return r.q.Closing })
	n := 2 + len(w.rows)
	if w.dedup {
		n += len(w.items)
	}
	w.places = make([]standing[T], 0, n)
	w.join(&t.unfiltered, nil) // it leaves this before t.publishes, see passOnLocked
	w.join(&t.publishes, nil)
	for _, r := range w.rows {
		w.join(&makeLines(r.q).publishes, r.q)
	}
	if !w.dedup {
		return
	}
	for _, it := range w.items {
		if it.Ext != nil && it.Ext.Dedup != "" {
			l := t.wanted[it.Ext.Dedup]
			if l == nil {
				if t.wanted == nil {
					t.wanted = make(map[string]*line[T])
				}
				l = &line[T]{id: it.Ext.Dedup}
				t.wanted[it.Ext.Dedup] = l
			}
			w.join(l, nil)
		}
	}
}

// join puts w at the end of a line. w.places has room for it.
func (w *waiter[T]) join(l *line[T], q *queue.Queue[T]) {
	w.places = append(w.places, standing[T]{w: w, in: l, q: q, before: l.last})
	p := &w.places[len(w.places)-1]
	if l.last == nil {
		l.first = p
	} else {
		l.last.behind = p
	}
	l.last = p
}

// leaveLocked takes w out of all its lines.
func (t *Topic[T]) leaveLocked(w *waiter[T]) {
	t.waiting--
	if w.run != nil {
		t.inHandlers--
	}
	for k := range w.places {
		t.leaveLineLocked(&w.places[k])
	}
	w.places = nil
	w.unwantLocked()
}

// leaveLineLocked takes a place out of its line.
func (t *Topic[T]) leaveLineLocked(p *standing[T]) {
	l := p.in
	if l == nil {
		return
	}
	t.passOnLocked(p)
	if p.before == nil {
		l.first = p.behind
	} else {
		p.before.behind = p.behind
	}
	if p.behind == nil {
		l.last = p.before
	} else {
		p.behind.before = p.before
	}
	p.in, p.before, p.behind = nil, nil, nil
	if l.first == nil && l.id != "" {
		delete(t.wanted, l.id)
	}
}

// passOnLocked has those looked at who may have waited for w only, which leaves its
// place: the next of the line if it is the first, and the first of another that wait
// for the same queues.
func (t *Topic[T]) passOnLocked(p *standing[T]) {
	if p.in == &t.unfiltered { // redrives are behind the first publish, whoever wants the queue of each
		if p.w == t.publishes.firstWaiter() {
			for p = p.behind; p != nil && p.w.redrive != nil; p = p.behind {
				t.turnLocked(p.w)
			}
		}
		return
	}
	if p.before != nil || p.in == &t.redrives || p.in.id != "" {
		return
	}
	if p.behind != nil {
		t.turnLocked(p.behind.w)
	}
	switch {
	case p.in == &t.holding:
		t.firstTurnLocked(&t.publishes)
	case p.q != nil && p.w.redrive != nil:
		t.firstTurnLocked(&linesOf(p.q).publishes)
	case p.q != nil:
		t.firstTurnLocked(&linesOf(p.q).redrives)
	}
}

func (l *line[T]) firstWaiter() *waiter[T] {
	if l.first == nil {
		return nil
	}
	return l.first.w
}

// leaveLinesLocked takes w out of the lines of queues that nothing of it goes to any
// more, as duplicates were taken out of it.
func (t *Topic[T]) leaveLinesLocked(w *waiter[T]) {
	if !w.dedup {
		return
	}
	rows := w.rows
	for k := range w.places {
		p := &w.places[k]
		if p.q == nil || p.in == nil {
			continue
		}
		for len(rows) > 0 && rows[0].q.Closing {
			rows = rows[1:]
		}
		if len(rows) > 0 && rows[0].q == p.q {
			rows = rows[1:]
		} else {
			t.leaveLineLocked(p)
		}
	}
}

// turnLocked has w looked at by the next admitWaiters.
func (t *Topic[T]) turnLocked(w *waiter[T]) {
	if !w.turn {
		w.turn = true
		turnheap.Push(&t.turns, w)
	}
}

// nextTurnLocked returns the next who is to be looked at, or nil.
func (t *Topic[T]) nextTurnLocked() *waiter[T] {
	for len(t.turns) > 0 {
		w := turnheap.Pop(&t.turns).(*waiter[T])
		w.turn = false
		if w.places != nil { // else it has left
			return w
		}
	}
	return nil
}

// LetIn is admitWaiters that returns what has to be told.
func (t *Topic[T]) LetIn(room *queue.Queue[T]) (p notice.Pending) {
	t.admitWaiters(room, &p)
	return p
}

// HasTurnsLocked reports whether anybody is to be looked at.
func (t *Topic[T]) HasTurnsLocked() bool { return len(t.turns) > 0 }

// firstTurnLocked has the first of a line looked at.
func (t *Topic[T]) firstTurnLocked(l *line[T]) {
	if w := l.firstWaiter(); w != nil {
		t.turnLocked(w)
	}
}

// allTurnsLocked has all of a line looked at.
func (t *Topic[T]) allTurnsLocked(l *line[T]) {
	for p := l.first; p != nil; p = p.behind {
		t.turnLocked(p.w)
	}
}

// TurnsOfLocked has those looked at who may be waiting for room in q.
func (t *Topic[T]) TurnsOfLocked(q *queue.Queue[T]) {
	if linesOf(q) != nil {
		t.firstTurnLocked(&linesOf(q).redrives)
		t.firstTurnLocked(&linesOf(q).publishes)
	}
	if q.Filters == nil {
		t.firstTurnLocked(&t.publishes)
	}
}

// turnsWithoutLocked has those looked at who wait for q no longer, since it is gone.
func (t *Topic[T]) turnsWithoutLocked(q *queue.Queue[T]) {
	if linesOf(q) != nil {
		t.allTurnsLocked(&linesOf(q).redrives)
		t.allTurnsLocked(&linesOf(q).publishes)
		for p := linesOf(q).publishes.first; p != nil; p = linesOf(q).publishes.first {
			t.leaveLineLocked(p)
		}
	}
	switch {
	case q.Filters != nil:
	case t.open.n > 0:
		t.firstTurnLocked(&t.publishes)
	default: // they share no queue any more but those with a filter
		t.allTurnsLocked(&t.publishes)
	}
}

// turnsOfWantedLocked has those looked at who want to publish a deduplication ID that
// has just been published.
func (t *Topic[T]) turnsOfWantedLocked(id string) {
	if l := t.wanted[id]; l != nil {
		t.allTurnsLocked(l)
	}
}

// ahead yields the first of each line that an offer stands in, or would, if they came
// before the given number. The topic's Mu is held.
func (t *Topic[T]) ahead(o *offer[T], number uint64) iter.Seq[*waiter[T]] {
	return func(yield func(*waiter[T]) bool) {
		more := func(l *line[T]) bool {
			return l.first == nil || l.first.w.number >= number || yield(l.first.w)
		}
		if q := o.redrive; q != nil {
			if q.Closing {
				return
			}
			if linesOf(q) != nil && !(more(&linesOf(q).redrives) && more(&linesOf(q).publishes)) {
				return
			}
			if q.Filters == nil {
				more(&t.publishes)
			}
			return
		}
		if t.open.n > 0 && !(more(&t.publishes) && more(&t.holding)) {
			return
		}
		for _, r := range o.rows {
			if l := linesOf(r.q); l != nil && !r.q.Closing {
				if !more(&l.publishes) || !r.q.Set.Overflow.Drops() && !more(&l.redrives) {
					return
				}
			}
		}
	}
}

// standsBehind reports whether w has to wait for another to go on first.
func (t *Topic[T]) standsBehind(w *waiter[T]) bool {
	for range t.ahead(w.offer, w.number) {
		return true
	}
	return false
}

// everyWaiter yields all who wait. The topic's Mu is held.
func (t *Topic[T]) everyWaiter() iter.Seq[*waiter[T]] {
	return func(yield func(*waiter[T]) bool) {
		for _, l := range []*line[T]{&t.publishes, &t.redrives} {
			for p := l.first; p != nil; p = p.behind {
				if !yield(p.w) {
					return
				}
			}
		}
	}
}

// blocksAnewLocked reports whether w, which stands behind nobody, may wait for a queue
// that those in handlers were not known to wait for, so that they have to look for a
// deadlock again. A queue is blocking if whoever has looked since has found it full.
func (t *Topic[T]) blocksAnewLocked(w *waiter[T]) (anew bool) {
	if t.inHandlers == 0 {
		return false
	}
	if w.redrive != nil || len(w.rows) > 0 {
		return true // others may not want this queue, and have not looked at it
	}
	for q, n := range t.targets(w.offer) {
		if q.Set.Overflow == settings.Block && !q.Blocks && !q.HasRoom(int64(n)) {
			q.Blocks, anew = true, true
		}
	}
	return anew
}
