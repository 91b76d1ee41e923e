package fanout

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/internal/notice"
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

// A remoteTopic is what a topic has of its engine.
//
// Its mutex guards opened and is held for a few stores only; turn is held, by
// sending to it, while the topic or a queue is being opened.
type remoteTopic struct {
	engine engine.Engine
	caps   engine.Capabilities
	codec  Codec
	spec   engine.TopicSpec
	turn   chan struct{}

	published atomic.Uint64 // messages that the engine has confirmed

	mu     sync.Mutex
	opened engine.Topic
}

// newRemoteTopic checks what a topic that carries values of the given type asks of its
// engine; nil if it has none.
func newRemoteTopic(name string, s topicSettings, carries reflect.Type) (*remoteTopic, error) {
	if s.engine == nil {
		return nil, nil
	}
	r := &remoteTopic{
		engine: s.engine, caps: s.engine.Capabilities(), codec: s.codec, turn: make(chan struct{}, 1),
		spec: engine.TopicSpec{Name: name, Ordering: s.ordering, Deduplication: s.dedupWindow},
	}
	if r.codec == nil {
		r.codec = JSON
	}
	if err := r.checkWithout(s.without); err != nil {
		return nil, fmt.Errorf("%w: topic %q: %w", ErrUnsupported, name, err)
	}
	if !r.caps[engine.RetryDelay].Kept {
		return nil, fmt.Errorf("%w: topic %q: engine %q does not support %v, without which what fails would be tried without a pause",
			ErrUnsupported, name, r.engine.Name(), engine.RetryDelay)
	}
	err := r.need(s.ordering, "WithOrdering()", engine.Ordering, 0)
	if err == nil {
		err = r.need(s.dedupMax > 0, fmt.Sprintf("WithDeduplication(%v)", s.dedupWindow), engine.Deduplication, s.dedupWindow)
	}
	if err == nil && s.retention > 0 {
		err = r.refuse(fmt.Sprintf("WithRetention(%v)", limit(s.retention)), "replay is for topics in memory")
	}
	if err == nil {
		err = r.checkJSON(carries)
	}
	if err != nil {
		return nil, fmt.Errorf("topic %q: %w", name, err)
	}
	return r, nil
}

// checkWithout returns an error that names the call which does without all that
// the engine does not support, if the user has not named it all.
func (r *remoteTopic) checkWithout(named []engine.Feature) error {
	var missing []string // all, so that the call is whole
	var unnamed []string
	for _, f := range []engine.Feature{engine.Bounded, engine.AllOrNone} {
		if r.caps[f].Kept {
			continue
		}
		missing = append(missing, dispensable[f])
		if !slices.Contains(named, f) {
			unnamed = append(unnamed, fmt.Sprintf("%v (%s)", f, r.caps[f].Note))
		}
	}
	if unnamed == nil {
		return nil
	}
	return fmt.Errorf("engine %q does not support %s; to do without: fanout.WithEngine(e, fanout.Without(%s))",
		r.engine.Name(), strings.Join(unnamed, " and "), strings.Join(missing, ", "))
}

// need returns an error if asked for and not kept.
func (r *remoteTopic) need(asked bool, option string, f engine.Feature, d time.Duration) error {
	switch s := r.caps[f]; {
	case !asked || r.caps.Keeps(f, d):
		return nil
	case s.Kept:
		return r.refuse(option, fmt.Sprintf("the longest %v is %v; %s", f, s.Most, s.Note))
	default:
		return r.refuse(option, fmt.Sprintf("it does not support %v; %s", f, s.Note))
	}
}

func (r *remoteTopic) refuse(option, why string) error {
	return fmt.Errorf("%w: %s on engine %q: %s", ErrUnsupported, option, r.engine.Name(), why)
}

// checkQueue returns an error for what a queue asks that the engine does not support.
func (r *remoteTopic) checkQueue(s *queueSettings) error {
	// Unlimited is what every engine keeps, and what waits for room never waits then.
	unlimited := s.asked.capacity && s.capacity == Unlimited
	return errors.Join(
		r.need(s.asked.capacity && !unlimited, fmt.Sprintf("WithCapacity(%v)", limit(s.capacity)), engine.Bounded, 0),
		r.need(s.asked.overflow && !s.overflow.drops() && !(unlimited && s.overflow == Block), fmt.Sprintf("WithOverflow(%v)", s.overflow), engine.Bounded, 0),
		r.need(s.asked.deadCapacity && s.deadCapacity != Unlimited, fmt.Sprintf("WithDeadLetterCapacity(%v)", limit(s.deadCapacity)), engine.Bounded, 0),
		r.need(s.asked.visibility, fmt.Sprintf("WithVisibilityTimeout(%v)", s.visibility), engine.Visibility, s.visibility),
		r.need(s.delay > 0, fmt.Sprintf("WithDelay(%v)", s.delay), engine.QueueDelay, s.delay),
		r.refuseIf(s.asked.overflow && s.overflow.drops(), fmt.Sprintf("WithOverflow(%v)", s.overflow), "no engine drops; let Block wait or Reject refuse"),
		r.refuseIf(s.replay > 0, fmt.Sprintf("WithReplay(%v)", limit(s.replay)), "replay is for topics in memory"),
		r.refuseIf(s.deadLetters != nil, "WithDeadLetterQueue", "each queue has a dead-letter queue of its own there"),
		r.refuseIf(s.deadOverflow != Block, fmt.Sprintf("WithDeadLetterOverflow(%v)", s.deadOverflow), "no engine drops"),
	)
}

func (r *remoteTopic) refuseIf(asked bool, option, why string) error {
	if !asked {
		return nil
	}
	return r.refuse(option, why)
}

// topic returns the engine's topic, and opens it if nobody has.
func (r *remoteTopic) topic(ctx context.Context) (engine.Topic, error) {
	r.mu.Lock()
	t := r.opened
	r.mu.Unlock()
	if t != nil {
		return t, nil
	}
	select {
	case r.turn <- struct{}{}:
		defer func() { <-r.turn }()
	case <-ctx.Done():
		return nil, contextError(ctx)
	}
	return r.openLocked(ctx)
}

// openLocked is topic for one who has the turn.
func (r *remoteTopic) openLocked(ctx context.Context) (engine.Topic, error) {
	r.mu.Lock()
	t := r.opened
	r.mu.Unlock()
	if t != nil {
		return t, nil
	}
	t, err := r.engine.OpenTopic(ctx, r.spec)
	if err != nil {
		return nil, remoteError(err)
	}
	r.mu.Lock()
	r.opened = t
	r.mu.Unlock()
	return t, nil
}

func (r *remoteTopic) close() {
	r.mu.Lock()
	t := r.opened
	r.mu.Unlock()
	if t != nil {
		_ = t.Close()
	}
}

// remoteErrors are the errors of engines that users know by other names.
var remoteErrors = []struct{ theirs, ours error }{
	{engine.ErrStale, ErrStale}, {engine.ErrFull, ErrQueueFull}, {engine.ErrClosed, ErrClosed}, {engine.ErrTooLarge, ErrInvalidMessage},
	{engine.ErrInvalid, ErrInvalidMessage},
	{engine.ErrUnconfirmed, ErrUnconfirmed},
}

// remoteError makes errors.Is find what users look for.
func remoteError(err error) error {
	for _, e := range remoteErrors {
		if errors.Is(err, e.theirs) && !errors.Is(err, e.ours) {
			err = fmt.Errorf("%w: %w", e.ours, err)
		}
	}
	return err
}

// publishError is remoteError for a publish. If ctx ended under way nobody knows what the
// engine has.
func publishError(ctx context.Context, err error) error {
	err = remoteError(err)
	if ended := ctx.Err(); ended != nil && errors.Is(err, ended) && !errors.Is(err, ErrUnconfirmed) {
		return fmt.Errorf("%w: %w", ErrUnconfirmed, err)
	}
	return err
}

// publishRemote publishes items by the engine.
func (t *Topic[T]) publishRemote(ctx context.Context, items []item[T], try bool) error {
	r := t.remote
	if try && r.caps[engine.Bounded].Kept {
		return r.refuse("TryPublish", "it may have to wait for room; use Publish with a context that ends")
	}
	t.mu.Lock()
	closed := !t.mayPublishLocked(nil)
	if t.state == topicClosing { // a handler may
		t.mu.Unlock()
		run := runOf(ctx) // asks the user's context: without a lock
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
		return ErrClosed
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
	et, err := r.topic(ctx)
	if err == nil && ctx.Err() != nil {
		err = contextError(ctx)
	}
	if err != nil {
		return err
	}
	if err := et.Publish(ctx, ms); err != nil {
		var partial *engine.PartialError
		if errors.As(err, &partial) {
			failed := make(map[int]error, len(partial.Failed))
			for k, err := range partial.Failed {
				failed[k] = publishError(ctx, err)
			}
			r.published.Add(uint64(len(ms) - len(failed)))
			return &PublishError{Topic: t.name, Failed: failed, err: err}
		}
		return publishError(ctx, err)
	}
	r.published.Add(uint64(len(ms)))
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
		if err := t.remote.need(m.Delay > 0, fmt.Sprintf("a Delay of %v", m.Delay), engine.MessageDelay, m.Delay); err != nil {
			return m, err
		}
	}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: codec: %w", ErrInvalidMessage, panicError(p))
		}
	}()
	if m.Body, err = t.remote.codec.Encode(it.Body); err != nil {
		return m, fmt.Errorf("%w: %w", ErrInvalidMessage, err)
	}
	m.ContentType = t.remote.codec.ContentType()
	return m, nil
}

// openRemote opens a queue on the engine.
func (t *Topic[T]) openRemote(ctx context.Context, name string, set queueSettings, filters []func(*item[T]) bool) (*Queue[T], error) {
	r := t.remote
	if err := r.checkQueue(&set); err != nil {
		return nil, err
	}
	if most := r.caps[engine.Visibility].Most; most > 0 { // the default, which nobody asked for
		set.visibility = min(set.visibility, most)
	}
	select {
	case r.turn <- struct{}{}:
		defer func() { <-r.turn }()
	case <-ctx.Done():
		return nil, contextError(ctx)
	}
	if err := t.mayOpen(name); err != nil {
		return nil, err
	}
	et, err := r.openLocked(ctx)
	if err != nil {
		return nil, err
	}
	spec := engine.QueueSpec{Name: name, Delay: set.delay}
	if r.caps[engine.Visibility].Kept {
		spec.Visibility = set.visibility
	}
	if set.maxAttempts != Unlimited {
		spec.MaxAttempts = set.maxAttempts
	}
	if set.asked.capacity && r.caps[engine.Bounded].Kept {
		spec.Capacity = set.capacity
	}
	if set.asked.deadCapacity && r.caps[engine.Bounded].Kept {
		spec.DeadCapacity = set.deadCapacity
	}
	if len(set.policies) == 1 && r.caps[engine.FilterPolicy].Kept {
		spec.FilterPolicy = set.policies[0]
		// The engine filters by it, and knows best how.
		rest := slices.DeleteFunc(slices.Clone(set.filters), func(f any) bool {
			_, policy := f.(func(*extra) bool)
			return policy
		})
		if filters, err = filtersOf[T](rest); err != nil {
			return nil, err
		}
	}
	eq, err := et.OpenQueue(ctx, spec)
	if err != nil {
		return nil, remoteError(err)
	}
	q := newQueue(t.core, t, name, &set.queueLimits)
	q.direct, q.filters = true, filters
	q.remote = newRemoteQueue(q, eq)
	q.dead = newDeadLetterQueue(t.core, t, name+deadSuffix, set.queueLimits)
	q.dead.source = q
	q.dead.remote = newRemoteQueue(q.dead, eq.DeadLetters())
	if set.asked.capacity {
		q.remote.capacity = set.capacity
	}
	if set.asked.deadCapacity {
		q.dead.remote.capacity = set.deadCapacity
	}

	t.mu.Lock()
	defer t.mu.Unlock()
	if t.state != topicOpen { // closed meanwhile
		_ = eq.Close()
		return nil, ErrClosed
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
		return ErrClosed
	}
	if t.queues[name] != nil {
		return nameExists(name)
	}
	return nil
}
