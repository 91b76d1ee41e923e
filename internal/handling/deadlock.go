package handling

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/gofanout/fanout/internal/message"
)

// A handler that publishes into a full queue waits for that queue's consumers.
// If all of them are handlers that wait too, each for a queue that only the
// others could empty, none will ever go on: the publish that would close such a
// cycle is refused. It is searched for over all topics, by what is T-free here.
//
// A publish is known to be a handler's by its context, which must come from the
// handler's. What cannot be known is what else a handler waits for, a mutex say:
// such a wait ends with its context, and is reported while it lasts.

// A Queue is a queue as the search sees it.
type Queue interface {
	// WaitState locks the queue for a moment.
	WaitState() State
	Locked(f func()) // runs f under the queue's mu
	Label() string
}

// A State is what a queue's room depends on. The queue is free if some
// consumer outside of these runs may make room; else all runs must stay where
// they are for it to stay full.
type State struct {
	Free bool
	Runs [][]*Wait // of each handler that runs: its publishes that wait
}

// A Worker is the worker of a run.
type Worker interface {
	// TopicOf returns what tells the topic from others whose handler is running now, as r;
	// nil if that has ended. It locks the queue for a moment.
	TopicOf(r *Run) any
}

// A Run is what a handler's context tells to the publishes it is given to.
type Run struct {
	queue  Queue
	worker Worker
	waits  []*Wait // guarded by the queue's mu
}

// A Wait is a publish, or a redrive, that waits inside a handler.
type Wait struct {
	// Blockers returns the full queues that it waits for, and none when it has
	// been decided. It locks the topic for a moment.
	Blockers func() []Queue
	at       int // its index in the run's waits
}

type runKey struct{}

// RunOf returns the handler's run that ctx comes from, or nil.
func RunOf(ctx context.Context) *Run {
	r, _ := ctx.Value(runKey{}).(*Run)
	return r
}

// Topic returns what tells the run's topic from others; nil if the run has ended.
func (r *Run) Topic() any { return r.worker.TopicOf(r) }

// Label names the queue of the run.
func (r *Run) Label() string { return r.queue.Label() }

// Waits is how many publishes wait inside the run. The queue's mu is held.
func (r *Run) Waits() int { return len(r.waits) }

// Add says that w waits inside the run.
func (r *Run) Add(w *Wait) {
	r.queue.Locked(func() {
		w.at = len(r.waits)
		r.waits = append(r.waits, w)
	})
}

// Remove says that w, which has been added, waits no more.
func (r *Run) Remove(w *Wait) {
	r.queue.Locked(func() {
		last := len(r.waits) - 1
		r.waits[w.at] = r.waits[last]
		r.waits[w.at].at = w.at
		r.waits[last] = nil
		r.waits = r.waits[:last]
	})
}

// Deadlock returns the cycle that w, which has been added to r, closes, or nil.
// Of two publishes that close one at the same instant, both may be told.
//
// All queues that w depends on are taken to be stuck, and then freed one after
// the other as they are found not to be, until nothing changes: what is left
// depends on nothing but itself. No lock is held.
func (r *Run) Deadlock(w *Wait) error {
	type wait struct{ blockers []Queue }
	type node struct {
		stuck bool
		runs  [][]wait
	}
	nodes := map[Queue]*node{}
	roots := w.Blockers()
	for todo := slices.Clone(roots); len(todo) > 0; {
		q := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if nodes[q] != nil {
			continue
		}
		state := q.WaitState()
		n := &node{stuck: !state.Free}
		nodes[q] = n
		if state.Free {
			continue
		}
		for _, hw := range state.Runs {
			var waits []wait
			for _, h := range hw {
				b := h.Blockers()
				waits = append(waits, wait{b})
				todo = append(todo, b...)
			}
			n.runs = append(n.runs, waits)
		}
	}
	stuckOn := func(waits []wait) Queue {
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
	path := []string{r.queue.Label()}
	for seen := map[Queue]bool{}; !seen[q]; q = stuckOn(nodes[q].runs[0]) {
		seen[q] = true
		path = append(path, q.Label())
	}
	return fmt.Errorf("%w: handlers of each queue would wait for room in the next: %s", message.ErrWouldDeadlock, strings.Join(path, " -> "))
}
