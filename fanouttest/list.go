package fanouttest

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/gofanout/fanout"
)

// A List is what has happened in a topic or in one of its queues, in order, up to the call
// that returned it. An assertion fails if the queue does not exist and nothing has ever
// happened in it.
type List[T any] struct {
	tb     TB
	what   string
	bodies []T
	ids    []string
	equal  func(a, b T) bool
	passed func(ids []string) // nil, or told of an assertion that holds
	// noQueue is the name of the queue, if there is none and nothing happened in
	// one: an assertion that nothing has happened would hold for any typo.
	noQueue string
}

// Published lists what the topic accepted, from any publisher.
func (t *Topic[T]) Published() *List[T] {
	t.emptyTap()
	l := t.list("published to topic " + quote(t.Name()))
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.bodies {
		l.ids, l.bodies = append(l.ids, p.id), append(l.bodies, p.body)
	}
	return l
}

// Delivered lists the deliveries of a queue: a message that was delivered three
// times is there three times.
func (t *Topic[T]) Delivered(queue string) *List[T] {
	return t.listOf("delivered by queue "+quote(queue), queue, func(es []event, i int) bool { return es[i].kind == deliveredEvent })
}

// Acked lists what was acknowledged in a queue.
func (t *Topic[T]) Acked(queue string) *List[T] {
	return t.listOf("acknowledged in queue "+quote(queue), queue, func(es []event, i int) bool {
		return es[i].kind == settledEvent && es[i].Cause == fanout.Acked
	})
}

// Retried lists the deliveries of a queue that ended with a retry: those that failed, timed
// out, were snoozed or given back.
func (t *Topic[T]) Retried(queue string) *List[T] {
	return t.listOf("retried by queue "+quote(queue), queue, func(es []event, i int) bool {
		if es[i].kind != settledEvent || es[i].Cause == fanout.Acked {
			return false
		}
		// The move to the dead-letter queue is one step with the attempt's end.
		next := i + 1
		gone := next < len(es) && es[next].MessageID == es[i].MessageID && (es[next].kind == deadEvent || es[next].kind == parkedEvent)
		return !gone
	})
}

// DeadLettered lists what a queue moved to its dead-letter queue. If an assertion on the
// list holds, the test may end with these dead letters.
func (t *Topic[T]) DeadLettered(queue string) *List[T] {
	l := t.listOf("dead-lettered by queue "+quote(queue), queue, func(es []event, i int) bool { return es[i].kind == deadEvent })
	l.passed = func(ids []string) { t.expect(queue, ids) }
	return l
}

// Dropped lists what a queue dropped by its overflow policy. What was purged,
// or held when the queue was closed, is not in it.
func (t *Topic[T]) Dropped(queue string) *List[T] {
	return t.listOf("dropped by queue "+quote(queue), queue, func(es []event, i int) bool {
		return es[i].kind == droppedEvent && es[i].MessageID != ""
	})
}

func quote(name string) string { return `"` + name + `"` }

func (t *Topic[T]) list(what string) *List[T] {
	l := &List[T]{tb: t.kit.tb, what: what, equal: func(a, b T) bool { return reflect.DeepEqual(a, b) }}
	if t.set.snapshotOf != nil && t.snapshot != nil {
		l.equal = func(a, b T) bool { return t.snap(a) == t.snap(b) }
	}
	return l
}

func (t *Topic[T]) listOf(what, queue string, keep func(es []event, i int) bool) *List[T] {
	l := t.list(what)
	es := t.journal.of(queue)
	if len(es) == 0 && !t.knows(queue) {
		l.noQueue = queue
	}
	t.emptyTap()
	for i := range es {
		if keep(es, i) {
			body, _ := t.body(es[i].MessageID)
			l.ids, l.bodies = append(l.ids, es[i].MessageID), append(l.bodies, body)
		}
	}
	return l
}

// knows reports whether the topic has a queue or a dead-letter queue of that name.
func (t *Topic[T]) knows(queue string) bool {
	if t.Queue(strings.TrimSuffix(queue, "/dead")) != nil {
		return true
	}
	return slices.ContainsFunc(t.Queues(), func(q *fanout.Queue[T]) bool { return q.DeadLetters().Name() == queue })
}

// Bodies returns the bodies. What they point to is shared with the queues.
func (l *List[T]) Bodies() []T { return slices.Clone(l.bodies) }

// IDs returns the messages' IDs, in the same order as Bodies.
func (l *List[T]) IDs() []string { return slices.Clone(l.ids) }

// Want fails the test, with the difference, unless the list is want, in this order. Want()
// asserts that nothing has happened. It compares bodies by reflect.DeepEqual or, with
// [WithSnapshot], by their snapshots. It reports whether the list was as wanted.
func (l *List[T]) Want(want ...T) bool {
	l.tb.Helper()
	return l.compare(slices.EqualFunc(l.bodies, want, l.equal), want, "")
}

// WantInAnyOrder is Want for what happened in an order that doesn't matter.
func (l *List[T]) WantInAnyOrder(want ...T) bool {
	l.tb.Helper()
	// What is where it should be stands first, so that the difference is short.
	var found, rest []T
	missing := slices.Clone(want)
	for _, body := range l.bodies {
		if i := slices.IndexFunc(missing, func(w T) bool { return l.equal(body, w) }); i >= 0 {
			found, missing = append(found, body), slices.Delete(missing, i, i+1)
		} else {
			rest = append(rest, body)
		}
	}
	sorted := &List[T]{tb: l.tb, what: l.what, equal: l.equal, bodies: append(slices.Clip(found), rest...), ids: l.ids, passed: l.passed, noQueue: l.noQueue}
	return sorted.compare(len(rest)+len(missing) == 0, append(slices.Clip(found), missing...), ", in any order")
}

func (l *List[T]) compare(equal bool, want []T, how string) bool {
	l.tb.Helper()
	if equal || l.noQueue != "" {
		return l.holds()
	}
	l.tb.Errorf("fanouttest: %s: %s%s:\n%s", l.what, l.difference(want), how,
		diffLines(renderLines(want), renderLines(l.bodies), "want", "got"))
	return false
}

// difference says in a few words how the list differs from want.
func (l *List[T]) difference(want []T) string {
	if len(l.bodies) != len(want) {
		return fmt.Sprintf("%d, want %d", len(l.bodies), len(want))
	}
	differ, missing := 0, slices.Clone(want)
	for k, body := range l.bodies {
		if !l.equal(body, want[k]) {
			differ++
		}
		if i := slices.IndexFunc(missing, func(w T) bool { return l.equal(body, w) }); i >= 0 {
			missing = slices.Delete(missing, i, i+1)
		}
	}
	if len(missing) == 0 {
		return "what is wanted, in another order"
	}
	return fmt.Sprintf("as many as wanted, %d of %d different", differ, len(want))
}

// holds is what an assertion that holds comes to.
func (l *List[T]) holds() bool {
	l.tb.Helper()
	if l.noQueue != "" {
		l.tb.Errorf("fanouttest: %s: the topic has no queue %q, and nothing has happened in one", l.what, l.noQueue)
		return false
	}
	if l.passed != nil {
		l.passed(l.ids)
	}
	return true
}

// WantCount fails the test, with the list, unless it has n entries. It reports
// whether it had.
func (l *List[T]) WantCount(n int) bool {
	l.tb.Helper()
	if len(l.bodies) == n || l.noQueue != "" {
		return l.holds()
	}
	text := ""
	for i, body := range l.bodies {
		text += "\n    message " + l.ids[i] + ": " + render(body)
	}
	l.tb.Errorf("fanouttest: %s: %d, want %d:%s", l.what, len(l.bodies), n, text)
	return false
}
