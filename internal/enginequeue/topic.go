package enginequeue

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/internal/callback"
	"github.com/gofanout/fanout/internal/filter"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/onengine"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/settings"
)

// A topic on an engine keeps nothing itself. A publish goes to the engine; a
// queue holds what it has leased from the engine and works on, in the window and
// by the states that every queue has. What ends there (acknowledged, to be
// retried, dead) is told to the engine, and then forgotten here. So a time-out is
// noticed by the queue's own timer, a little before the engine's lease ends, and
// a late settlement is refused without asking anybody.
//
//	engine ── Receive ─▶ [ready] ─▶ [in flight] ── Ack, Return, DeadLetter ─▶ engine
//
// Whoever receives asks the engine himself. For a queue's workers one goroutine,
// the poller, receives as many messages as there are workers free.

// leaseSlack is how much longer than the visibility timeout a lease is.
const leaseSlack = 2 * time.Second

// A Topic is what a topic has of its engine. All methods may be called concurrently.
type Topic[T any] struct {
	*onengine.Topic
	Home      *queue.Home[T]
	Admission Admission[T]
	Host      Host[T]
}

// An Admission is that of the topic, of which an engine needs this.
type Admission[T any] interface {
	// Stamp gives items that are about to be published numbers and times. It returns
	// ErrClosed if the topic does not take them.
	Stamp(ctx context.Context, items []message.Item[T]) error
	// TellPublished tells hooks of items that were published.
	TellPublished(items []message.Item[T])
}

// A Host is the topic that is on the engine, as this side knows it.
type Host[T any] interface {
	// MayOpen returns why a queue of that name can't be opened, if so.
	MayOpen(name string) error
	// Enter makes a queue one of the topic's, unless that has been closed.
	Enter(q *queue.Queue[T]) error
	// Leave closes a queue that is open, and takes it out of the topic. Then a reporter
	// may arm a timer until it is stopped: who calls Leave stops those of the queue and of
	// its dead letters, and releases the topic after that. What has to be told is in p.
	Leave(q *queue.Queue[T], deleting bool) (p notice.Pending, left bool)
	// QueueState says whether a queue of that name is open, and whether the topic was closed.
	QueueState(name string) (open, over bool)
	// HasEnded reports whether a queue was closed.
	HasEnded(q *queue.Queue[T]) bool
}

// Publish publishes items by the engine.
func (t *Topic[T]) Publish(ctx context.Context, items []message.Item[T], try bool) error {
	if try && t.Caps[engine.Bounded].Kept {
		return t.Refuse("TryPublish", "it may have to wait for room; use Publish with a context that ends")
	}
	if err := t.Admission.Stamp(ctx, items); err != nil {
		return err
	}
	ms := make([]engine.Message, len(items))
	for k := range items {
		m, err := t.encode(&items[k])
		if err != nil {
			return fmt.Errorf("message %d: %w", k, err)
		}
		ms[k] = m
	}
	if len(ms) == 0 {
		return nil
	}
	et, err := t.Open(ctx)
	if err == nil && ctx.Err() != nil {
		err = message.ContextError(ctx)
	}
	if err != nil {
		return err
	}
	if err := et.Publish(ctx, ms); err != nil {
		var partial *engine.PartialError
		if errors.As(err, &partial) {
			failed := make(map[int]error, len(partial.Failed))
			for k, err := range partial.Failed {
				failed[k] = onengine.PublishError(ctx, err)
			}
			t.Published.Add(uint64(len(ms) - len(failed)))
			return t.Partial(t.Home.TopicName, failed, err)
		}
		return onengine.PublishError(ctx, err)
	}
	t.Published.Add(uint64(len(ms)))
	t.Admission.TellPublished(items)
	return nil
}

func (t *Topic[T]) encode(it *message.Item[T]) (m engine.Message, err error) {
	m.ID = t.Home.IDOf(it.Seq, it.At, it.Ext)
	m.PublishedAt = t.Home.Time(it.At)
	if x := it.Ext; x != nil {
		m.Attributes, m.OrderingKey, m.DeduplicationID = maps.Clone(x.Attributes), x.Key, x.Dedup
		m.Delay, m.TimeToLive = x.Delay, x.TTL
		if err := t.Need(m.Delay > 0, fmt.Sprintf("a Delay of %v", m.Delay), engine.MessageDelay, m.Delay); err != nil {
			return m, err
		}
	}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: codec: %w", message.ErrInvalidMessage, callback.Error(p))
		}
	}()
	if m.Body, err = t.Codec.Encode(it.Body); err != nil {
		return m, fmt.Errorf("%w: %w", message.ErrInvalidMessage, err)
	}
	m.ContentType = t.Codec.ContentType()
	return m, nil
}

// OpenQueue opens a queue on the engine.
func (t *Topic[T]) OpenQueue(ctx context.Context, name string, set settings.Queue, filters []filter.Filter[T], sharedLetters bool) (*queue.Queue[T], error) {
	if err := t.CheckQueue(&set, sharedLetters); err != nil {
		return nil, err
	}
	if most := t.Caps[engine.Visibility].Most; most > 0 { // the default, which nobody asked for
		set.Visibility = min(set.Visibility, most)
	}
	select {
	case t.Turn <- struct{}{}:
		defer func() { <-t.Turn }()
	case <-ctx.Done():
		return nil, message.ContextError(ctx)
	}
	if err := t.Host.MayOpen(name); err != nil {
		return nil, err
	}
	et, err := t.OpenInTurn(ctx)
	if err != nil {
		return nil, err
	}
	spec := engine.QueueSpec{Name: name, Delay: set.Delay}
	if t.Caps[engine.Visibility].Kept {
		spec.Visibility = set.Visibility
	}
	if set.MaxAttempts != message.Unlimited {
		spec.MaxAttempts = set.MaxAttempts
	}
	if set.Asked.Capacity && t.Caps[engine.Bounded].Kept {
		spec.Capacity = set.Capacity
	}
	if set.Asked.DeadCapacity && t.Caps[engine.Bounded].Kept {
		spec.DeadCapacity = set.DeadCapacity
	}
	if len(set.Policies) == 1 && t.Caps[engine.FilterPolicy].Kept {
		spec.FilterPolicy = set.Policies[0]
		// The engine filters by it, and knows best how.
		filters = slices.DeleteFunc(filters, func(f filter.Filter[T]) bool { return f.Policy != nil })
	}
	eq, err := et.OpenQueue(ctx, spec)
	if err != nil {
		return nil, onengine.Error(err)
	}
	q := queue.NewQueue(t.Home.Core, t.Home, name, &set.Limits)
	q.Store.Direct, q.Filters = true, filter.New(filters)
	kept := newQueue(t, q, eq)
	q.Dead = queue.NewDeadLetterQueue(t.Home.Core, t.Home, name+queue.DeadSuffix, set.Limits)
	q.Dead.Source = q
	kept.dead = newQueue(t, q.Dead, eq.DeadLetters())
	if set.Asked.Capacity {
		kept.asked = set.Capacity
	}
	if set.Asked.DeadCapacity {
		kept.dead.asked = set.DeadCapacity
	}
	if err := t.Host.Enter(q); err != nil {
		_ = eq.Close()
		return nil, err
	}
	return q, nil
}

// List asks the engine for the topic's queues.
func (t *Topic[T]) List(ctx context.Context) ([]engine.QueueInfo, error) {
	if err := t.Need(true, "ListQueues", engine.Listing, 0); err != nil {
		return nil, err
	}
	if _, over := t.Host.QueueState(""); over {
		return nil, message.ErrClosed
	}
	et, err := t.Open(ctx)
	if err != nil {
		return nil, err
	}
	l, ok := et.(engine.Lister)
	if !ok {
		return nil, t.Refuse("ListQueues", "it says that it keeps "+engine.Listing.String()+", but its topics are no engine.Lister")
	}
	infos, err := l.ListQueues(ctx)
	return infos, onengine.Error(err)
}
