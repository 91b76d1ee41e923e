package fanout

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// A handler that publishes into a full queue waits for that queue's consumers.
// If all of them are handlers that wait too, each for a queue that only the
// others could empty, none will ever go on: the publish that would close such a
// cycle is refused. It is searched for over all topics, by what is T-free here.
//
// A publish is known to be a handler's by its context, which must come from the
// handler's. What cannot be known is what else a handler waits for, a mutex say:
// such a wait ends with its context, and is reported while it lasts.

// A waitQueue is a queue as the search sees it.
type waitQueue interface {
	// waitState locks the queue for a moment.
	waitState() waitState
	locked(f func()) // runs f under the queue's mu
	label() string
}

// A waitState is what a queue's room depends on. The queue is free if some
// consumer outside of these runs may make room; else all runs must stay where
// they are for it to stay full.
type waitState struct {
	free bool
	runs [][]*handlerWait // of each handler that runs: its publishes that wait
}

// A runner is the worker of a run.
type runner interface {
	// topicOf says of which topic a handler runs, see shutdown.go. It locks the queue
	// for a moment.
	topicOf(r *run) *core
}

// A run is what a handler's context tells to the publishes it is given to.
type run struct {
	queue  waitQueue
	worker runner
	waits  []*handlerWait // guarded by the queue's mu
}

// A handlerWait is a publish, or a redrive, that waits inside a handler.
type handlerWait struct {
	// blockers returns the full queues that it waits for, and none when it has
	// been decided. It locks the topic for a moment.
	blockers func() []waitQueue
	at       int // its index in the run's waits
}

type runKey struct{}

// runOf returns the handler's run that ctx comes from, or nil.
func runOf(ctx context.Context) *run {
	r, _ := ctx.Value(runKey{}).(*run)
	return r
}

func (r *run) add(w *handlerWait) {
	r.queue.locked(func() {
		w.at = len(r.waits)
		r.waits = append(r.waits, w)
	})
}

func (r *run) remove(w *handlerWait) {
	r.queue.locked(func() {
		last := len(r.waits) - 1
		r.waits[w.at] = r.waits[last]
		r.waits[w.at].at = w.at
		r.waits[last] = nil
		r.waits = r.waits[:last]
	})
}

// deadlock returns the cycle that w, which has been added to r, closes, or nil.
// Of two publishes that close one at the same instant, both may be told.
//
// All queues that w depends on are taken to be stuck, and then freed one after
// the other as they are found not to be, until nothing changes: what is left
// depends on nothing but itself. No lock is held.
func (r *run) deadlock(w *handlerWait) error {
	type wait struct{ blockers []waitQueue }
	type node struct {
		stuck bool
		runs  [][]wait
	}
	nodes := map[waitQueue]*node{}
	roots := w.blockers()
	for todo := slices.Clone(roots); len(todo) > 0; {
		q := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if nodes[q] != nil {
			continue
		}
		state := q.waitState()
		n := &node{stuck: !state.free}
		nodes[q] = n
		if state.free {
			continue
		}
		for _, hw := range state.runs {
			var waits []wait
			for _, h := range hw {
				b := h.blockers()
				waits = append(waits, wait{b})
				todo = append(todo, b...)
			}
			n.runs = append(n.runs, waits)
		}
	}
	stuckOn := func(waits []wait) waitQueue {
		for _, w := range waits {
			for _, b := range w.blockers {
				if nodes[b].stuck {
					return b
				}
			}
		}
		return nil
	}
	for changed := true; changed; {
		changed = false
		for _, n := range nodes {
			if n.stuck && slices.ContainsFunc(n.runs, func(ws []wait) bool { return stuckOn(ws) == nil }) {
				n.stuck, changed = false, true
			}
		}
	}
	q := stuckOn([]wait{{roots}})
	if q == nil {
		return nil
	}
	path := []string{r.queue.label()}
	for seen := map[waitQueue]bool{}; !seen[q]; q = stuckOn(nodes[q].runs[0]) {
		seen[q] = true
		path = append(path, q.label())
	}
	return fmt.Errorf("%w: handlers of each queue would wait for room in the next: %s", ErrWouldDeadlock, strings.Join(path, " -> "))
}

func (q *Queue[T]) label() string { return fmt.Sprintf("%q of topic %q", q.name, q.core.name) }

func (q *Queue[T]) waitState() (s waitState) {
	q.mu.Lock()
	defer q.mu.Unlock()
	// What stands behind another of its key can be taken only after that one.
	toTake := q.readyLocked() + q.n[delayed] + q.n[retrying]
	s.free = q.closed || q.n[inFlight] > 0 || q.receivedLocked() > 0 || q.ranges > 0 || q.n[parked] > 0 || q.receivers.n > 0 && toTake > 0
	if !s.free && q.expires() {
		_, _, s.free = q.firstExpiryLocked(q.core.now()) // that makes room
	}
	for _, sub := range q.subs {
		if !sub.stopping && len(sub.busy) < sub.set.concurrency && toTake > 0 {
			s.free = true
		}
		for _, w := range sub.busy {
			waits := w.ctx().waits()
			if len(waits) == 0 {
				s.free = true // it may return
			}
			if s.free {
				return s
			}
			s.runs = append(s.runs, slices.Clone(waits))
		}
	}
	s.free = s.free || len(s.runs) == 0
	return s
}

// receivedLocked counts what is in flight in leases, and no worker has.
func (q *Queue[T]) receivedLocked() int {
	n := q.leases.Counts().InFlight
	for _, l := range q.leases.Leases() {
		if _, ok := l.Owner().(*worker[T]); ok {
			n -= q.leases.InFlightOf(l)
		}
	}
	return n
}

// blockersOf returns the full queues that waiter w waits for: its own, and those
// of the waiters that it stands behind, as far as they are the first of their lines.
// Who stands in between is looked at when he is the first.
func (t *Topic[T]) blockersOf(w *waiter[T]) (full []waitQueue) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if w.places == nil {
		return nil
	}
	head := t.log.Head()
	seen := map[*waiter[T]]bool{w: true}
	for todo := []*waiter[T]{w}; len(todo) > 0; {
		o, number := todo[0].offer, todo[0].number
		todo = todo[1:]
		for q, n := range t.targets(o) {
			switch {
			case q.set.overflow != Block && o.redrive == nil:
			case q.hasRoom(head, int64(n)):
				q.blocking = false
			default:
				full = append(full, q)
			}
		}
		for first := range t.ahead(o, number) {
			if !seen[first] {
				seen[first] = true
				todo = append(todo, first)
			}
		}
	}
	return full
}
