package fanouttest

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
)

// taken is the snapshot of a body that is being published. Which message it
// becomes is known only later: it is found by what its body points to.
type taken[T any] struct {
	body     T
	snapshot string
}

// shares reports whether copies of a value of type rt can point to the same.
func shares(rt reflect.Type, within []reflect.Type) bool {
	if rt == reflect.TypeFor[time.Time]() || slices.Contains(within, rt) {
		return false
	}
	switch rt.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map, reflect.Interface:
		return true
	case reflect.Array:
		return shares(rt.Elem(), append(within, rt))
	case reflect.Struct:
		for i := range rt.NumField() {
			if shares(rt.Field(i).Type, append(within, rt)) {
				return true
			}
		}
	}
	return false
}

// snap returns the snapshot of a body, "" for one that JSON can't tell.
func (t *Topic[T]) snap(body T) string {
	b, err := json.MarshalIndent(t.snapshot(body), "", "  ")
	if err != nil {
		return ""
	}
	return string(b)
}

// takeSnapshot is the tap's filter, which lets everything in.
func (t *Topic[T]) takeSnapshot(body T) bool {
	s := t.snap(body)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.taken = append(t.taken, taken[T]{body, s})
	return true
}

// snapshotLocked returns the latest snapshot taken of body, and forgets those of
// publishes that failed before.
func (t *Topic[T]) snapshotLocked(body T) (snapshot string) {
	if t.snapshot == nil {
		return ""
	}
	v := reflect.ValueOf(&body).Elem()
	for i := len(t.taken) - 1; i >= 0; i-- {
		if same(reflect.ValueOf(&t.taken[i].body).Elem(), v) {
			snapshot = t.taken[i].snapshot
			t.taken = slices.Delete(t.taken, i, i+1)
			break
		}
	}
	return snapshot
}

// same reports whether a and b are bit by bit the same value, so that they
// point to the same, without looking at that.
func same(a, b reflect.Value) bool {
	switch a.Kind() {
	case reflect.Pointer, reflect.Map, reflect.Chan, reflect.UnsafePointer, reflect.Func:
		return a.Pointer() == b.Pointer()
	case reflect.Slice:
		return a.Pointer() == b.Pointer() && a.Len() == b.Len()
	case reflect.Interface:
		if a.IsNil() || b.IsNil() {
			return a.IsNil() == b.IsNil()
		}
		return a.Elem().Type() == b.Elem().Type() && same(a.Elem(), b.Elem())
	case reflect.Struct:
		for i := range a.NumField() {
			if !same(a.Field(i), b.Field(i)) {
				return false
			}
		}
		return true
	case reflect.Array:
		for i := range a.Len() {
			if !same(a.Index(i), b.Index(i)) {
				return false
			}
		}
		return true
	default:
		return a.Equal(b)
	}
}

// compare looks whether the bodies that a handler gets, or got, are as they
// were published. Of a batch only the first message is told: it looks at all
// that are in flight.
func (t *Topic[T]) compare(r *run, messages int, when string) {
	if t.snapshot == nil {
		return
	}
	ids := []string{r.id}
	if messages > 1 {
		for id, tr := range t.journal.trails(r.queue) {
			if tr.last.kind == deliveredEvent && id != r.id {
				ids = append(ids, id)
			}
		}
	}
	t.emptyTap()
	for _, id := range ids {
		diff := t.changed(id)
		if diff == "" {
			continue
		}
		who := fmt.Sprintf("before the handler of queue %q got it", r.queue)
		if when == "while" {
			who = fmt.Sprintf("while the handler of queue %q had it", r.queue)
		}
		if others := t.others(r, id); len(others) > 0 {
			who += fmt.Sprintf(" (so had those of %s)", strings.Join(others, ", "))
		}
		t.kit.problem("fanouttest: topic %q: the body of message %s, which queues share, was changed %s, attempt %d:\n%s", t.Name(), id, who, r.attempt, diff)
	}
}

// others names the other queues whose handlers run with the message.
func (t *Topic[T]) others(than *run, id string) (queues []string) {
	t.kit.mu.Lock()
	defer t.kit.mu.Unlock()
	for r := range t.kit.runs {
		if r != than && r.topic == than.topic && r.id == id {
			queues = append(queues, fmt.Sprintf("%q", r.queue))
		}
	}
	slices.Sort(queues)
	return queues
}

// changed returns how the body of a message differs from its snapshot, which it
// replaces: each change is told once.
func (t *Topic[T]) changed(id string) string {
	t.mu.Lock()
	i, ok := t.byID[id]
	if !ok || t.bodies[i].snapshot == "" {
		t.mu.Unlock()
		return ""
	}
	p := t.bodies[i]
	t.mu.Unlock()
	now := t.snap(p.body) // calls the body's own methods
	if now == p.snapshot {
		return ""
	}
	t.mu.Lock()
	t.bodies[i].snapshot = now
	t.mu.Unlock()
	return diffLines(lines(p.snapshot), lines(now), "was", "is")
}

// checkBodies looks at all bodies once more, when the topic has ended.
func (t *Topic[T]) checkBodies() {
	if t.snapshot == nil {
		return
	}
	t.emptyTap()
	t.mu.Lock()
	ids := make([]string, len(t.bodies))
	for i, p := range t.bodies {
		ids[i] = p.id
	}
	t.mu.Unlock()
	for _, id := range ids {
		if diff := t.changed(id); diff != "" {
			t.kit.problem("fanouttest: topic %q: the body of message %s was changed, not by a handler before it returned:\n%s", t.Name(), id, diff)
		}
	}
}
