package fanouttest

import (
	"context"
	"fmt"
	"log/slog"
	"reflect"
	"runtime/pprof"
	"sync"
	"time"

	"github.com/gofanout/fanout"
)

// tapName is the kit's own queue in a topic, which it learns the bodies from.
const tapName = "fanouttest"

// A Topic is a fanout.Topic that the kit watches. Give the embedded topic to the code under
// test, which does not depend on the kit:
//
//	startBilling(ctx, orders.Topic, bank)
//
// The kit sees every publish and what happens in every queue. For that it has a queue of its
// own in the topic, "fanouttest", which Queues lists. It is always empty, except for delayed
// messages.
//
// All methods may be called concurrently.
type Topic[T any] struct {
	*fanout.Topic[T]

	kit      *Kit
	set      settings
	snapshot func(T) any // nil: bodies are not compared
	labels   context.Context
	tap      *fanout.Queue[T]
	journal  journal

	emptying sync.Mutex // held while the tap is emptied, which never waits

	mu       sync.Mutex // guards the fields below
	bodies   []published[T]
	byID     map[string]int    // the latest of bodies with an ID
	later    map[letterID]bool // seen in the tap while they were delayed
	taken    []taken[T]        // snapshots of what is being published
	expected map[letterID]bool // dead letters that were asserted
	scripts  map[string]*script
}

// published is a message that the topic accepted.
type published[T any] struct {
	id       string
	body     T
	snapshot string // "" if there is none
}

// A letterID names one message of a queue, or of a topic at an instant.
type letterID struct {
	id, queue string
	at        int64
}

// NewTopic makes a topic that k watches and that ends with the test. It takes options of
// fanout and of this package. The topic logs to the test's log, unless it is given
// fanout.WithLogger. An error ends the test.
func NewTopic[T any](k *Kit, name string, options ...fanout.TopicOption) *Topic[T] {
	k.tb.Helper()
	t := &Topic[T]{
		kit: k, byID: make(map[string]int), later: make(map[letterID]bool), expected: make(map[letterID]bool),
		scripts: make(map[string]*script), labels: k.labels(name),
	}
	theirs := t.set.applyOwn(options)
	if err := t.chooseSnapshot(); err != nil {
		k.tb.Fatalf("fanouttest: topic %q: %v", name, err)
	}
	// The user's interceptors stand inside the kit's books and outside of its
	// faults, which they see as they would see real ones.
	all := []fanout.TopicOption{
		fanout.WithHooks(t.hooks()), fanout.WithLogger(slog.New(k.log())),
		fanout.WithPublishInterceptor(t.publishing), fanout.WithHandlerInterceptor(t.handling),
	}
	all = append(all, theirs...)
	all = append(all, fanout.WithPublishInterceptor(t.strike), fanout.WithHandlerInterceptor(t.strike))
	var err error
	if t.Topic, err = fanout.NewTopic[T](name, all...); err != nil {
		k.tb.Fatalf("%v", err)
	}
	tapping := []fanout.QueueOption{fanout.WithCapacity(fanout.Unlimited)}
	if t.snapshot != nil {
		// A filter sees a message before any consumer does.
		tapping = append(tapping, fanout.WithFilter(t.takeSnapshot))
	}
	if t.tap, err = t.OpenQueue(context.Background(), tapName, tapping...); err != nil {
		k.tb.Fatalf("%v", err)
	}
	k.change(func() { k.topics = append(k.topics, t) })
	return t
}

func (t *Topic[T]) chooseSnapshot() error {
	switch f := t.set.snapshotOf.(type) {
	case nil:
		if shares(reflect.TypeFor[T](), nil) {
			t.snapshot = func(body T) any { return body }
		}
	case func(T) any:
		t.snapshot = f
	default:
		return fmt.Errorf("WithSnapshot was given a %T, but the topic carries %v", f, reflect.TypeFor[T]())
	}
	if t.set.changes {
		t.snapshot = nil
	}
	return nil
}

// hooks are the kit's.
func (t *Topic[T]) hooks() fanout.Hooks {
	hook := func(k kind) func(fanout.Event) {
		return func(e fanout.Event) {
			if ofTap(e) {
				return
			}
			if k == publishedEvent {
				t.emptyTap()
			}
			t.journal.add(k, e)
			t.kit.change(nil)
		}
	}
	return fanout.Hooks{
		Published: hook(publishedEvent), Delivered: hook(deliveredEvent), Settled: hook(settledEvent), DeadLettered: hook(deadEvent),
		Parked: hook(parkedEvent), Redriven: hook(redrivenEvent), Dropped: hook(droppedEvent),
	}
}

// publishing keeps the books of publishes.
func (t *Topic[T]) publishing(ctx context.Context, _ fanout.Info, next func(context.Context) error) error {
	t.kit.change(func() {
		t.kit.sending++
		if t.kit.settle == "" {
			t.kit.settle = "Settle was not called after the last publish"
		}
	})
	defer t.kit.change(func() { t.kit.sending-- })
	return next(ctx)
}

// handling keeps the books of handlers, and looks whether they change bodies.
func (t *Topic[T]) handling(ctx context.Context, info fanout.Info, next func(context.Context) error) error {
	pprof.SetGoroutineLabels(t.labels)
	r := &run{topic: info.Topic, queue: info.Queue, id: info.MessageID, attempt: info.Attempt, began: time.Now()}
	t.kit.change(func() { t.kit.runs[r] = struct{}{}; t.kit.ran = true })
	defer t.kit.change(func() { delete(t.kit.runs, r) })
	t.compare(r, info.Messages, "before")
	defer t.compare(r, info.Messages, "while") // after a panic too
	return next(ctx)
}

// emptyTap takes the bodies of what was published out of the tap.
func (t *Topic[T]) emptyTap() {
	ctx := context.Background()
	t.emptying.Lock()
	defer t.emptying.Unlock()
	for {
		d, ok, err := t.tap.TryReceive(ctx)
		if err != nil || !ok {
			break
		}
		t.record(d, false)
		_ = d.Ack(ctx) // the topic may have been closed, as it likes
	}
	if t.tap.Stats().Delayed == 0 {
		return
	}
	delayed, _ := t.tap.Peek(ctx, fanout.Unlimited)
	for _, d := range delayed {
		t.record(d, true)
	}
}

func (t *Topic[T]) record(d fanout.Delivery[T], delayed bool) {
	key := letterID{id: d.ID(), at: d.PublishedAt().UnixNano()}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.later[key] {
		if !delayed {
			delete(t.later, key)
		}
		return
	}
	if delayed {
		t.later[key] = true
	}
	t.byID[d.ID()] = len(t.bodies)
	t.bodies = append(t.bodies, published[T]{d.ID(), d.Body, t.snapshotLocked(d.Body)})
}

// body returns the body of a message, if the tap has been emptied since it was
// published.
func (t *Topic[T]) body(id string) (body T, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	i, ok := t.byID[id]
	if ok {
		body = t.bodies[i].body
	}
	return body, ok
}

func (t *Topic[T]) title() string          { return t.Name() }
func (t *Topic[T]) close() error           { return t.Close() }
func (t *Topic[T]) ended() <-chan struct{} { return t.Done() }
