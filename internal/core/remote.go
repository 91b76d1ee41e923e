package core

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/gofanout/fanout/internal/onengine"

	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/internal/handling"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
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

const (
	// leaseSlack is how much longer than the visibility timeout a lease is.
	leaseSlack = 2 * time.Second
	// probeTime is how long the engine is asked when nobody wants to wait.
	probeTime = time.Second
	// settleTime bounds what is told to an engine in the background.
	settleTime = 10 * time.Second
	// mostPolled is how many messages a poller asks for at a time, at most.
	mostPolled = 64
)

// publishRemote publishes items by the engine.
func (t *Topic[T]) publishRemote(ctx context.Context, items []item[T], try bool) error {
	r := t.remote
	if try && r.Caps[engine.Bounded].Kept {
		return r.Refuse("TryPublish", "it may have to wait for room; use Publish with a context that ends")
	}
	t.mu.Lock()
	closed := !t.mayPublishLocked(nil)
	if t.state == topicClosing { // a handler may
		t.mu.Unlock()
		run := handling.RunOf(ctx) // asks the user's context: without a lock
		t.mu.Lock()
		closed = !t.mayPublishLocked(run)
	}
	if !closed {
		at := t.timeOf(t.now())
		for k := range items {
			t.seq++
			items[k].Seq, items[k].At = t.seq, at
		}
	}
	t.mu.Unlock()
	if closed {
		return message.ErrClosed
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
	et, err := r.Open(ctx)
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
			r.Published.Add(uint64(len(ms) - len(failed)))
			return r.Partial(t.name, failed, err)
		}
		return onengine.PublishError(ctx, err)
	}
	r.Published.Add(uint64(len(ms)))
	if t.to.Hooked(notice.Published) {
		t.tellPublished(items)
	}
	return nil
}

func (t *Topic[T]) encode(it *item[T]) (m engine.Message, err error) {
	m.ID = t.id(it.Seq, it.At, it.Ext)
	m.PublishedAt = t.time(it.At)
	if x := it.Ext; x != nil {
		m.Attributes, m.OrderingKey, m.DeduplicationID = maps.Clone(x.Attributes), x.Key, x.Dedup
		m.Delay, m.TimeToLive = x.Delay, x.TTL
		if err := t.remote.Need(m.Delay > 0, fmt.Sprintf("a Delay of %v", m.Delay), engine.MessageDelay, m.Delay); err != nil {
			return m, err
		}
	}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: codec: %w", message.ErrInvalidMessage, panicError(p))
		}
	}()
	if m.Body, err = t.remote.Codec.Encode(it.Body); err != nil {
		return m, fmt.Errorf("%w: %w", message.ErrInvalidMessage, err)
	}
	m.ContentType = t.remote.Codec.ContentType()
	return m, nil
}

// openRemote opens a queue on the engine.
func (t *Topic[T]) openRemote(ctx context.Context, name string, set settings.Queue, filters []Filter[T], sharedLetters bool) (*Queue[T], error) {
	r := t.remote
	if err := r.CheckQueue(&set, sharedLetters); err != nil {
		return nil, err
	}
	if most := r.Caps[engine.Visibility].Most; most > 0 { // the default, which nobody asked for
		set.Visibility = min(set.Visibility, most)
	}
	select {
	case r.Turn <- struct{}{}:
		defer func() { <-r.Turn }()
	case <-ctx.Done():
		return nil, message.ContextError(ctx)
	}
	if err := t.mayOpen(name); err != nil {
		return nil, err
	}
	et, err := r.OpenInTurn(ctx)
	if err != nil {
		return nil, err
	}
	spec := engine.QueueSpec{Name: name, Delay: set.Delay}
	if r.Caps[engine.Visibility].Kept {
		spec.Visibility = set.Visibility
	}
	if set.MaxAttempts != message.Unlimited {
		spec.MaxAttempts = set.MaxAttempts
	}
	if set.Asked.Capacity && r.Caps[engine.Bounded].Kept {
		spec.Capacity = set.Capacity
	}
	if set.Asked.DeadCapacity && r.Caps[engine.Bounded].Kept {
		spec.DeadCapacity = set.DeadCapacity
	}
	if len(set.Policies) == 1 && r.Caps[engine.FilterPolicy].Kept {
		spec.FilterPolicy = set.Policies[0]
		// The engine filters by it, and knows best how.
		filters = slices.DeleteFunc(filters, func(f Filter[T]) bool { return f.Policy != nil })
	}
	eq, err := et.OpenQueue(ctx, spec)
	if err != nil {
		return nil, onengine.Error(err)
	}
	q := newQueue(t.core, t, name, &set.Limits)
	q.direct, q.filters = true, newFilters(filters)
	q.remote = newRemoteQueue(q, eq)
	q.dead = newDeadLetterQueue(t.core, t, name+deadSuffix, set.Limits)
	q.dead.source = q
	q.dead.remote = newRemoteQueue(q.dead, eq.DeadLetters())
	if set.Asked.Capacity {
		q.remote.capacity = set.Capacity
	}
	if set.Asked.DeadCapacity {
		q.dead.remote.capacity = set.DeadCapacity
	}

	t.mu.Lock()
	defer t.mu.Unlock()
	if t.state != topicOpen { // closed meanwhile
		_ = eq.Close()
		return nil, message.ErrClosed
	}
	t.live.Add(2)
	t.queues[name] = q
	return q, nil
}

// mayOpen returns why a queue of that name can't be opened, if so.
func (t *Topic[T]) mayOpen(name string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.state != topicOpen {
		return message.ErrClosed
	}
	if t.queues[name] != nil {
		return nameExists(name)
	}
	return nil
}
