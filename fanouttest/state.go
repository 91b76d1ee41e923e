package fanouttest

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/gofanout/fanout"
)

// queues yields the topic's queues but the kit's own, and their dead-letter
// queues that hold something; one that is shared belongs to somebody else.
func (t *Topic[T]) queues(yield func(q *fanout.Queue[T], s fanout.Stats, dead bool) bool) {
	for _, q := range t.Queues() {
		if q.Name() == tapName {
			continue
		}
		s := knownOf(q.Stats())
		if !yield(q, s, false) {
			return
		}
		if s.Dead == 0 {
			continue
		}
		if d := q.DeadLetters(); d.Name() == q.Name()+"/dead" && !yield(d, knownOf(d.Stats()), true) {
			return
		}
	}
}

// knownOf takes what is unknown of a queue on an engine for nothing.
func knownOf(s fanout.Stats) fanout.Stats {
	for _, n := range []*int{&s.Ready, &s.Delayed, &s.Retrying, &s.Parked, &s.Released, &s.Blocked, &s.Dead} {
		*n = max(*n, 0)
	}
	return s
}

func (t *Topic[T]) started() (n uint64) {
	for _, q := range t.Queues() {
		n += q.Stats().WorkersStarted
	}
	return n
}

// working lists the queues in which something is about to be done.
func (t *Topic[T]) working() (lines []string) {
	t.queues(func(q *fanout.Queue[T], s fanout.Stats, _ bool) bool {
		if s.Ready+s.InFlight > 0 && s.Workers > 0 {
			lines = append(lines, fmt.Sprintf("topic %q, queue %q: %d ready, %d in flight, %d workers", t.Name(), q.Name(), s.Ready, s.InFlight, s.Workers))
		}
		if t.journal.behind(s) {
			lines = append(lines, fmt.Sprintf("topic %q, queue %q: hooks are being called", t.Name(), q.Name()))
		}
		return true
	})
	return lines
}

// waiting lists the queues with something that Settle waits for.
func (t *Topic[T]) waiting(s settling) (lines []string) {
	t.queues(func(q *fanout.Queue[T], st fanout.Stats, dead bool) bool {
		if dead && st.Workers == 0 {
			st.Ready = 0 // letters stay where they are
		}
		if st.Paused {
			st.Ready, st.Retrying = 0, 0
		}
		if !s.delayed || st.Paused {
			st.Delayed, st.Blocked = 0, 0
		}
		if !s.until.IsZero() && st.Retrying+st.Delayed > 0 {
			retries, snoozes := t.dueAfter(q.Name(), s.until)
			st.Retrying, st.Delayed = max(st.Retrying-retries, 0), max(st.Delayed-snoozes, 0)
		}
		st.Parked, st.Released = 0, 0
		what := counts(st)
		if t.journal.behind(st) {
			what = append(what, "hooks are being called")
		}
		if len(what) > 0 {
			if st.Paused {
				what = append(what, "paused")
			}
			lines = append(lines, fmt.Sprintf("topic %q, queue %q: %s", t.Name(), q.Name(), strings.Join(what, ", ")))
		}
		return true
	})
	return lines
}

func counts(s fanout.Stats) (what []string) {
	for _, c := range []struct {
		n    int
		what string
	}{
		{s.Ready, "ready"}, {s.InFlight, "in flight"}, {s.Retrying, "to be retried"}, {s.Delayed, "delayed or snoozed"},
		{s.Blocked, "behind others of their key"}, {s.Parked, "parked"}, {s.Released, "released"},
	} {
		if c.n > 0 {
			what = append(what, fmt.Sprintf("%d %s", c.n, c.what))
		}
	}
	return what
}

// dueAfter counts the messages of a queue whose next attempt comes after until.
func (t *Topic[T]) dueAfter(queue string, until time.Time) (retries, snoozes int) {
	for _, tr := range t.journal.trails(queue) {
		if tr.last.kind != settledEvent || !tr.last.Time.Add(tr.last.Wait).After(until) {
			continue
		}
		if tr.last.Cause == fanout.Snoozed {
			snoozes++
		} else {
			retries++
		}
	}
	return retries, snoozes
}

// unsettled lists the messages that the queues hold, or held when they were
// closed, each with its body and its history.
func (t *Topic[T]) unsettled() (lines []string) {
	if t.set.unsettled {
		return nil
	}
	return t.holding()
}

func (t *Topic[T]) holding() (lines []string) {
	t.emptyTap()
	t.queues(func(q *fanout.Queue[T], s fanout.Stats, dead bool) bool {
		if dead || s.Unsettled() == 0 && s.Left == 0 {
			return true
		}
		trails := t.journal.trails(q.Name())
		add := func(id string, body T, ok bool, state string) {
			lines = append(lines, t.describe(q.Name(), id, body, ok, state, trails[id]))
		}
		for _, m := range q.Leftovers() {
			add(m.ID, m.Body, true, "left when the queue was closed")
		}
		held, _ := q.Peek(context.Background(), fanout.Unlimited)
		seen := make(map[string]bool)
		for _, d := range held {
			seen[d.ID()] = true
			state := stateOf(trails[d.ID()])
			if s.Paused {
				state += ", the queue is paused"
			}
			add(d.ID(), d.Body, true, state)
		}
		for id, tr := range trails { // what Peek doesn't see
			if !seen[id] && (tr.last.kind == deliveredEvent || tr.last.kind == parkedEvent) {
				body, ok := t.body(id)
				add(id, body, ok, stateOf(tr))
			}
		}
		return true
	})
	return lines
}

func stateOf(tr *trail) string {
	switch {
	case tr == nil:
		return "not delivered yet"
	case tr.last.kind == deliveredEvent:
		return fmt.Sprintf("in flight for %v", time.Since(tr.last.Time))
	case tr.last.kind == parkedEvent:
		return "parked: the dead-letter queue is full"
	case tr.last.kind == settledEvent && tr.last.Wait > 0:
		return fmt.Sprintf("due again in %v", time.Until(tr.last.Time.Add(tr.last.Wait)))
	}
	return "to be delivered again"
}

func (t *Topic[T]) describe(queue, id string, body T, ok bool, state string, tr *trail) string {
	text := "(body not known)"
	if ok {
		text = render(body)
	}
	line := fmt.Sprintf("queue %q: message %s, %s: %s", queue, id, state, text)
	if tr != nil {
		for _, a := range tr.attempts {
			line += "\n        " + a.String()
		}
	}
	return line
}

// letters lists the dead letters that no assertion expected.
func (t *Topic[T]) letters() (lines []string) {
	if t.set.letters {
		return nil
	}
	for _, q := range t.Queues() {
		if q.Name() == tapName || q.Stats().Dead == 0 {
			continue
		}
		dead, _ := q.DeadLetters().Peek(context.Background(), fanout.Unlimited)
		for _, d := range dead {
			h := d.History()
			// A dead-letter queue can be shared: the last attempt names the queue.
			if t.expects(q.Name(), d.ID()) || len(h) > 0 && h[len(h)-1].Queue != q.Name() {
				continue
			}
			lines = append(lines, t.describe(q.Name(), d.ID(), d.Body, true, "dead after "+attempts(len(h)), &trail{attempts: h}))
		}
	}
	return lines
}

func (t *Topic[T]) expects(queue, id string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.expected[letterID{id: id, queue: queue}]
}

func (t *Topic[T]) expect(queue string, ids []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, id := range ids {
		t.expected[letterID{id: id, queue: queue}] = true
	}
}

func attempts(n int) string {
	if n == 1 {
		return "1 attempt"
	}
	return fmt.Sprintf("%d attempts", n)
}
