// Package waitline has the lines in which those stand who wait for room in queues: publishes,
// which want room in many queues, and redrives, which want it in one.
//
// It promises that nobody goes on before one who came earlier and wants a queue that he wants
// too; that who wants other queues is held back by nobody; that only the first of a line has
// to be looked at when there is room; and that nobody is looked for when he leaves.
//
// Every waiter stands in one line for all queues without a filter, since publishes want all
// of these, and in a line of each queue with a filter that he wants. Who is behind nobody in
// any of his lines may go on if there is room. Nobody waits to publish to a queue that drops,
// so that a redrive to one, which does wait, keeps no publish waiting.
//
// Lines own the places in them. They have no lock, clock or goroutine: their owner's lock
// guards them and the lines of queues.
package waitline

import (
	turnheap "container/heap"
	"iter"
)

// Lines are the lines of a topic.
//
// Invariants: each line is in the order of arrival; who waits stands somewhere; and who was
// held back by one who left, and is behind nobody now, is in turns until Next returns him.
type Lines struct {
	waiting, inHandlers int
	arrived             uint64

	publishes, redrives line
	// unfiltered are those who want queues without a filter: all publishes, as if there was
	// one, and redrives to such queues. holding are those redrives that publishes wait behind.
	unfiltered, holding line
	wanted              map[string]*line // publishes by their deduplication IDs

	turns turns // who is to be looked at
}

// A Queue is the lines of one queue: of publishes, if it has a filter, and of redrives to it.
type Queue struct {
	Filtered, Drops     bool // it has a filter; it drops messages if it is full. Immutable
	publishes, redrives line
}

// An Offer is what a waiter wants to add. It wants room in its Queues, and, if it is a
// publish, in all queues without a filter.
type Offer interface {
	// Redrives reports whether it is a redrive. Then it has one queue.
	Redrives() bool
	Queues() int
	// Queue returns the lines of one of its queues: of those with a filter, if it is a
	// publish. It returns nil if the queue is closed, or nobody has waited for room in it.
	Queue(k int) *Queue
}

// A Waiter is one who waits. It can enter again when it has left.
type Waiter struct {
	Of        any  // whose it is
	InHandler bool // it waits in a handler. Immutable

	redrives bool
	number   uint64  // of its arrival
	places   []place // in the lines that it stands in; none once it has left
	turn     bool    // it is to be looked at
}

// Waits reports whether w has entered and not left.
func (w *Waiter) Waits() bool { return w.places != nil }

// Number is larger for whoever came later.
func (w *Waiter) Number() uint64 { return w.number }

// A line holds waiters in the order of their arrival.
type line struct {
	first, last *place
	id          string // whose line it is, one of wanted; empty for others
}

// A place is where a waiter stands in a line.
type place struct {
	w              *Waiter
	in             *line  // nil once it has been left
	q              *Queue // whose line it is; nil: the topic's
	before, behind *place
}

// Waiting counts those who wait, and InHandlers those of them in a handler.
func (l *Lines) Waiting() int { return l.waiting }

func (l *Lines) InHandlers() int { return l.inHandlers }

// Enter puts w at the end of its lines. Ids are the deduplication IDs that it wants to publish.
func (l *Lines) Enter(w *Waiter, o Offer, ids ...string) {
	l.waiting++
	l.arrived++
	w.number, w.redrives = l.arrived, o.Redrives()
	if w.InHandler {
		l.inHandlers++
	}
	w.places = make([]place, 0, max(2+o.Queues()+len(ids), 4))
	if w.redrives {
		q := o.Queue(0)
		w.join(&l.redrives, nil)
		w.join(&q.redrives, q)
		if !q.Filtered {
			w.join(&l.unfiltered, nil)
			if !q.Drops {
				w.join(&l.holding, nil)
			}
		}
		return
	}
	w.join(&l.unfiltered, nil) // it leaves this before l.publishes, see passOn
	w.join(&l.publishes, nil)
	for k := range o.Queues() {
		if q := o.Queue(k); q != nil {
			w.join(&q.publishes, q)
		}
	}
	for _, id := range ids {
		in := l.wanted[id]
		if in == nil {
			if l.wanted == nil {
				l.wanted = make(map[string]*line)
			}
			in = &line{id: id}
			l.wanted[id] = in
		}
		w.join(in, nil)
	}
}

// join puts w at the end of a line. w.places has room for it.
func (w *Waiter) join(l *line, q *Queue) {
	w.places = append(w.places, place{w: w, in: l, q: q, before: l.last})
	p := &w.places[len(w.places)-1]
	if l.last == nil {
		l.first = p
	} else {
		l.last.behind = p
	}
	l.last = p
}

// Leave takes w out of all its lines.
func (l *Lines) Leave(w *Waiter) {
	l.waiting--
	if w.InHandler {
		l.inHandlers--
	}
	for k := range w.places {
		l.leaveLine(&w.places[k])
	}
	w.places = nil
}

// Narrow takes w out of the lines of queues that its offer wants no more. Those it wants
// still come in the order in which it entered.
func (l *Lines) Narrow(w *Waiter, o Offer) {
	next := 0
	for k := range w.places {
		p := &w.places[k]
		if p.q == nil || p.in == nil {
			continue
		}
		for next < o.Queues() && o.Queue(next) == nil {
			next++
		}
		if next < o.Queues() && o.Queue(next) == p.q {
			next++
		} else {
			l.leaveLine(p)
		}
	}
}

// leaveLine takes a place out of its line.
func (l *Lines) leaveLine(p *place) {
	in := p.in
	if in == nil {
		return
	}
	l.passOn(p)
	if p.before == nil {
		in.first = p.behind
	} else {
		p.before.behind = p.behind
	}
	if p.behind == nil {
		in.last = p.before
	} else {
		p.behind.before = p.before
	}
	p.in, p.before, p.behind = nil, nil, nil
	if in.first == nil && in.id != "" {
		delete(l.wanted, in.id)
	}
}

// passOn has those looked at who may have waited for w only, which leaves its
// place: the next of the line if it is the first, and the first of another that wait
// for the same queues.
func (l *Lines) passOn(p *place) {
	if p.in == &l.unfiltered { // redrives are behind the first publish, whoever wants the queue of each
		if p.w == l.publishes.firstWaiter() {
			for p = p.behind; p != nil && p.w.redrives; p = p.behind {
				l.Turn(p.w)
			}
		}
		return
	}
	if p.before != nil || p.in == &l.redrives || p.in.id != "" {
		return
	}
	if p.behind != nil {
		l.Turn(p.behind.w)
	}
	switch {
	case p.in == &l.holding:
		l.firstTurn(&l.publishes)
	case p.q != nil && p.w.redrives:
		l.firstTurn(&p.q.publishes)
	case p.q != nil:
		l.firstTurn(&p.q.redrives)
	}
}

func (l *line) firstWaiter() *Waiter {
	if l.first == nil {
		return nil
	}
	return l.first.w
}

// Ahead yields the first of each line that an offer stands in, or would, if they came before
// the given number. All says whether there are queues without a filter, which a publish wants.
func (l *Lines) Ahead(o Offer, all bool, number uint64) iter.Seq[*Waiter] {
	return func(yield func(*Waiter) bool) {
		more := func(l *line) bool {
			return l.first == nil || l.first.w.number >= number || yield(l.first.w)
		}
		if o.Redrives() {
			if q := o.Queue(0); q != nil && more(&q.redrives) && more(&q.publishes) && !q.Filtered {
				more(&l.publishes)
			}
			return
		}
		if all && !(more(&l.publishes) && more(&l.holding)) {
			return
		}
		for k := range o.Queues() {
			if q := o.Queue(k); q != nil && (!more(&q.publishes) || !q.Drops && !more(&q.redrives)) {
				return
			}
		}
	}
}

// First returns the first that Ahead yields, or nil.
func (l *Lines) First(o Offer, all bool, number uint64) (first *Waiter) {
	for w := range l.Ahead(o, all, number) {
		return w
	}
	return nil
}

// All yields all who wait.
func (l *Lines) All() iter.Seq[*Waiter] {
	return func(yield func(*Waiter) bool) {
		for _, in := range []*line{&l.publishes, &l.redrives} {
			for p := in.first; p != nil; p = p.behind {
				if !yield(p.w) {
					return
				}
			}
		}
	}
}

// Turn has w looked at: Next returns it.
func (l *Lines) Turn(w *Waiter) {
	if !w.turn {
		w.turn = true
		turnheap.Push(&l.turns, w)
	}
}

// Next returns the next who is to be looked at, in the order of their arrival, or nil.
func (l *Lines) Next() *Waiter {
	for len(l.turns) > 0 {
		w := turnheap.Pop(&l.turns).(*Waiter)
		w.turn = false
		if w.Waits() {
			return w
		}
	}
	return nil
}

// HasTurns reports whether anybody is to be looked at. Forget says that nobody is.
func (l *Lines) HasTurns() bool { return len(l.turns) > 0 }

func (l *Lines) Forget() { l.turns = nil }

// RoomMade has those looked at who may be waiting for room in a queue. Its lines are nil if
// nobody has waited for room in it.
func (l *Lines) RoomMade(q *Queue, filtered bool) {
	if q != nil {
		l.firstTurn(&q.redrives)
		l.firstTurn(&q.publishes)
	}
	if !filtered {
		l.firstTurn(&l.publishes)
	}
}

// Closed has those looked at who wait for a queue no longer, since it is closed. All says
// whether there are other queues without a filter.
func (l *Lines) Closed(q *Queue, filtered, all bool) {
	if q != nil {
		l.allTurns(&q.redrives)
		for p := q.publishes.first; p != nil; p = q.publishes.first {
			l.Turn(p.w)
			l.leaveLine(p)
		}
	}
	switch {
	case filtered:
	case all:
		l.firstTurn(&l.publishes)
	default: // they share no queue any more but those with a filter
		l.allTurns(&l.publishes)
	}
}

// Published has those looked at who want to publish a deduplication ID that has just been
// published.
func (l *Lines) Published(id string) {
	if in := l.wanted[id]; in != nil {
		l.allTurns(in)
	}
}

// firstTurn has the first of a line looked at.
func (l *Lines) firstTurn(in *line) {
	if w := in.firstWaiter(); w != nil {
		l.Turn(w)
	}
}

// allTurns has all of a line looked at.
func (l *Lines) allTurns(in *line) {
	for p := in.first; p != nil; p = p.behind {
		l.Turn(p.w)
	}
}

// turns is a heap of waiters, the first that arrived at its top.
type turns []*Waiter

func (h turns) Len() int           { return len(h) }
func (h turns) Less(i, j int) bool { return h[i].number < h[j].number }
func (h turns) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *turns) Push(w any)        { *h = append(*h, w.(*Waiter)) }

func (h *turns) Pop() any {
	last := len(*h) - 1
	w := (*h)[last]
	(*h)[last] = nil
	if *h = (*h)[:last]; last == 0 && cap(*h) > 8 {
		*h = nil // it was long; a short one spares a worker that makes room the allocation
	}
	return w
}
