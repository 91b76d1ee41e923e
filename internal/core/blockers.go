package core

import (
	"fmt"
	"slices"

	"github.com/gofanout/fanout/internal/handling"
	"github.com/gofanout/fanout/internal/settings"
)

func (q *Queue[T]) Label() string { return fmt.Sprintf("%q of topic %q", q.name, q.core.name) }

func (q *Queue[T]) WaitState() (s handling.State) {
	q.mu.Lock()
	defer q.mu.Unlock()
	// What stands behind another of its key can be taken only after that one.
	toTake := q.readyLocked() + q.n[delayed] + q.n[retrying]
	s.Free = q.closed || q.n[inFlight] > 0 || q.receivedLocked() > 0 || q.ranges > 0 || q.n[parked] > 0 || q.receivers.n > 0 && toTake > 0
	if !s.Free && q.expires() {
		_, _, s.Free = q.firstExpiryLocked(q.core.now()) // that makes room
	}
	for _, sub := range q.subs {
		if !sub.stopping && len(sub.busy) < sub.set.Concurrency && toTake > 0 {
			s.Free = true
		}
		for _, w := range sub.busy {
			waits := w.ctx().Waits()
			if len(waits) == 0 {
				s.Free = true // it may return
			}
			if s.Free {
				return s
			}
			s.Runs = append(s.Runs, slices.Clone(waits))
		}
	}
	s.Free = s.Free || len(s.Runs) == 0
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
func (t *Topic[T]) blockersOf(w *waiter[T]) (full []handling.Queue) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if w.places == nil {
		return nil
	}
	seen := map[*waiter[T]]bool{w: true}
	for todo := []*waiter[T]{w}; len(todo) > 0; {
		o, number := todo[0].offer, todo[0].number
		todo = todo[1:]
		for q, n := range t.targets(o) {
			switch {
			case q.set.Overflow != settings.Block && o.redrive == nil:
			case q.hasRoom(int64(n)):
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
