package topic

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sort"
	"strings"

	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/internal/admission"
	"github.com/gofanout/fanout/internal/core"
	"github.com/gofanout/fanout/internal/ending"
	"github.com/gofanout/fanout/internal/enginequeue"
	"github.com/gofanout/fanout/internal/filter"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/onengine"
	"github.com/gofanout/fanout/internal/overflow"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/settings"
)

// A Topic is where messages of type T are published: what package fanout calls so, without
// its options.
type Topic[T any] struct {
	In admission.Admission[T] // the way into the queues; it has the topic's Mu

	remote *enginequeue.Topic[T] // nil in memory

	// Guarded by Mu.
	queues  map[string]*queue.Queue[T]
	opening map[string]*queue.Queue[T] // those whose filters are asked about what they replay
	limits  *settings.Limits           // of the queue opened last
	orphans map[string]*queue.Queue[T] // dead-letter queues that outlived their queue, by their names
	closedQ []*queue.Queue[T]          // the queues that Close or Shutdown closed, in the order of their names

	shutdown *ending.ShutdownError // what ending the topic left; set once it is closed
}

// New returns a topic.
func New[T any](name string, set settings.Topic) (*Topic[T], error) {
	on, err := onengine.New(name, set, reflect.TypeFor[T]())
	if err != nil {
		return nil, err
	}
	c, err := core.New(name, set)
	if err != nil {
		return nil, fmt.Errorf("fanout: topic %q: %w", name, err)
	}
	t := &Topic[T]{queues: map[string]*queue.Queue[T]{}}
	t.In.Init(c, set)
	t.In.Owner = t
	if on != nil {
		t.remote = &enginequeue.Topic[T]{Topic: on, Home: &t.In.Home, Admission: &t.In, Host: t}
		t.In.PublishBy(t.remote)
	}
	return t, nil
}

// Name is the topic's name.
func (t *Topic[T]) Name() string { return t.In.TopicName }

// Open makes a queue that gets every message published from now on that its filters
// accept. Its dead letters go to dead, if that is not nil.
func (t *Topic[T]) Open(ctx context.Context, name string, set settings.Queue, filters []filter.Filter[T], dead *queue.Queue[T]) (*queue.Queue[T], error) {
	if ctx == nil {
		return nil, fmt.Errorf("%w: %w", message.ErrInvalidOption, message.ErrNilContext)
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("fanout: open queue %q of topic %q: %w", name, t.In.TopicName, message.ContextError(ctx))
	}
	if name == "" || strings.HasSuffix(name, queue.DeadSuffix) {
		return nil, message.Invalid("OpenQueue", fmt.Sprintf("%q", name), "a name that is not empty and does not end in "+queue.DeadSuffix)
	}
	if t.remote != nil {
		q, err := t.remote.OpenQueue(ctx, name, set, filters, dead != nil)
		if err != nil {
			return nil, fmt.Errorf("fanout: open queue %q of topic %q: %w", name, t.In.TopicName, err)
		}
		return q, nil
	}
	q := queue.NewQueue(t.In.Core, &t.In.Home, name, &set.Limits)
	q.Store.Direct, q.Filters = set.Delay > 0, filter.New(filters)
	t.In.Connect(q)
	if dead != nil && set.Asked.LettersOwn != "" {
		return nil, fmt.Errorf("%w: %s beside WithDeadLetterQueue: give it to NewDeadLetterQueue", message.ErrInvalidOption, set.Asked.LettersOwn)
	}
	q.Dead = dead
	if set.Replay > 0 && !t.In.Retains() {
		return nil, fmt.Errorf("%w: WithReplay(%v): topic %q retains nothing, make it WithRetention", message.ErrUnsupported, message.Limit(set.Replay), t.In.TopicName)
	}

	t.In.Mu.Lock()
	if err := t.mayOpenLocked(name); err != nil {
		t.In.Mu.Unlock()
		return nil, err
	}
	if t.limits == nil || *t.limits != *q.Store.Set {
		own := *q.Store.Set // not the filters with it
		t.limits = &own
	}
	q.Store.Set = t.limits
	if q.Filters != nil && set.Replay > 0 {
		r := t.beginReplayLocked(q)
		t.In.Mu.Unlock()
		if err := t.replay(ctx, r); err != nil {
			return nil, fmt.Errorf("fanout: open queue %q of topic %q: %w", name, t.In.TopicName, err)
		}
		return q, nil
	}
	defer t.In.Mu.Unlock()
	q.Mu.Lock() // what is replayed may be due at once, and the timer begin
	defer q.Mu.Unlock()
	t.In.Live.Add(1)
	q.AdoptLocked()
	t.queues[name] = q
	if set.Replay > 0 {
		overflow.ReplayLocked(q, t.In.RetainedLocked())
	}
	t.In.AddLocked(q)
	return q, nil
}

// mayOpenLocked returns the error that keeps a queue of that name from being opened.
func (t *Topic[T]) mayOpenLocked(name string) error {
	switch {
	case !t.In.IsOpenLocked():
		return fmt.Errorf("fanout: open queue %q of topic %q: %w", name, t.In.TopicName, message.ErrClosed)
	case t.queues[name] != nil || t.opening[name] != nil:
		return nameExists(name)
	}
	return nil
}

// nameExists is the error for a name that an open queue has.
func nameExists(name string) error {
	return fmt.Errorf("%w: OpenQueue(%q): want a name that no open queue of the topic has", message.ErrExists, name)
}

// Queue returns the open queue of that name, or nil if there is none. When the topic is
// closed it returns the queue that was open then.
func (t *Topic[T]) Queue(name string) *queue.Queue[T] {
	t.In.Mu.Lock()
	defer t.In.Mu.Unlock()
	if k, ok := slices.BinarySearchFunc(t.closedQ, name, func(q *queue.Queue[T], name string) int { return cmp.Compare(q.Name(), name) }); ok {
		return t.closedQ[k]
	}
	return t.queues[name]
}

// Queues returns the topic's open queues in the order of their names. When the topic is
// closed it returns those that were open then.
func (t *Topic[T]) Queues() []*queue.Queue[T] {
	t.In.Mu.Lock()
	defer t.In.Mu.Unlock()
	return t.queuesLocked()
}

func (t *Topic[T]) queuesLocked() []*queue.Queue[T] {
	qs := slices.Clone(t.closedQ)
	if !t.In.IsClosedLocked() {
		qs = slices.Collect(maps.Values(t.queues))
	}
	sortByName(qs)
	return qs
}

// sortByName is compiled for each T; package sort is not, as slices would be.
func sortByName[T any](qs []*queue.Queue[T]) {
	sort.Slice(qs, func(j, k int) bool { return qs[j].Name() < qs[k].Name() })
}

// Stats returns a snapshot of the topic's counters. Those of its queues are
// taken one by one, by [Queue.Stats].
func (t *Topic[T]) Stats() admission.Stats {
	t.In.Mu.Lock()
	defer t.In.Mu.Unlock()
	s := t.In.StatsLocked()
	s.Queues = len(t.queues)
	if t.remote != nil {
		s.Published, s.Unrouted = t.remote.Published.Load(), engine.Unknown
	}
	return s
}
