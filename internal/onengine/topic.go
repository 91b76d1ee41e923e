// Package onengine has what topics on an engine need that does not depend on their T: what
// the engine is asked to support, its errors by our names, and what of a message's state
// travels with it. A Topic's mutex is held for a few stores only; its Turn is held, by sending
// to it, while the topic or a queue is being opened.
package onengine

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/settings"
)

const (
	// ProbeTime is how long the engine is asked when nobody wants to wait.
	ProbeTime = time.Second
	// SettleTime bounds what is told to an engine in the background.
	SettleTime = 10 * time.Second
	// MostPolled is how many messages are asked for at a time, at most.
	MostPolled = 64
)

// A Topic is what a topic has of its engine.
//
// Its mutex guards opened and is held for a few stores only; Turn is held, by
// sending to it, while the topic or a queue is being opened.
type Topic struct {
	Engine engine.Engine
	Caps   engine.Capabilities
	Codec  settings.Codec
	spec   engine.TopicSpec
	Turn   chan struct{}

	Partial func(topic string, failed map[int]error, err error) error // see settings.Topic

	Published atomic.Uint64 // messages that the engine has confirmed

	mu     sync.Mutex
	opened engine.Topic
}

// New checks what a topic that carries values of the given type asks of its
// engine; nil if it has none.
func New(name string, s settings.Topic, carries reflect.Type) (*Topic, error) {
	if s.Engine == nil {
		return nil, nil
	}
	r := &Topic{
		Engine: s.Engine, Caps: s.Engine.Capabilities(), Codec: s.Codec, Partial: s.Partial, Turn: make(chan struct{}, 1),
		spec: engine.TopicSpec{Name: name, Ordering: s.Ordering, Deduplication: s.DedupWindow},
	}
	if r.Codec == nil {
		r.Codec = settings.JSON{}
	}
	if err := r.checkWithout(s.Without); err != nil {
		return nil, fmt.Errorf("%w: topic %q: %w", message.ErrUnsupported, name, err)
	}
	if !r.Caps[engine.RetryDelay].Kept {
		return nil, fmt.Errorf("%w: topic %q: engine %q does not support %v, without which what fails would be tried without a pause",
			message.ErrUnsupported, name, r.Engine.Name(), engine.RetryDelay)
	}
	err := r.Need(s.Ordering, "WithOrdering()", engine.Ordering, 0)
	if err == nil {
		err = r.Need(s.DedupMax > 0, fmt.Sprintf("WithDeduplication(%v)", s.DedupWindow), engine.Deduplication, s.DedupWindow)
	}
	if err == nil && s.Retention > 0 {
		err = r.Refuse(fmt.Sprintf("WithRetention(%v)", message.Limit(s.Retention)), "replay is for topics in memory")
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
func (r *Topic) checkWithout(named []engine.Feature) error {
	var missing []string // all, so that the call is whole
	var unnamed []string
	for _, f := range []engine.Feature{engine.Bounded, engine.AllOrNone} {
		if r.Caps[f].Kept {
			continue
		}
		missing = append(missing, settings.Dispensable[f])
		if !slices.Contains(named, f) {
			unnamed = append(unnamed, fmt.Sprintf("%v (%s)", f, r.Caps[f].Note))
		}
	}
	if unnamed == nil {
		return nil
	}
	return fmt.Errorf("engine %q does not support %s; to do without: fanout.WithEngine(e, fanout.Without(%s))",
		r.Engine.Name(), strings.Join(unnamed, " and "), strings.Join(missing, ", "))
}

// Need returns an error if asked for and not kept.
func (r *Topic) Need(asked bool, option string, f engine.Feature, d time.Duration) error {
	switch s := r.Caps[f]; {
	case !asked || r.Caps.Keeps(f, d):
		return nil
	case s.Kept:
		return r.Refuse(option, fmt.Sprintf("the longest %v is %v; %s", f, s.Most, s.Note))
	default:
		return r.Refuse(option, fmt.Sprintf("it does not support %v; %s", f, s.Note))
	}
}

// Refuse is the error for an option that the engine does not support.
func (r *Topic) Refuse(option, why string) error {
	return fmt.Errorf("%w: %s on engine %q: %s", message.ErrUnsupported, option, r.Engine.Name(), why)
}

// CheckQueue returns an error for what a queue asks that the engine does not support.
func (r *Topic) CheckQueue(s *settings.Queue, sharedLetters bool) error {
	// Unlimited is what every engine keeps, and what waits for room never waits then.
	unlimited := s.Asked.Capacity && s.Capacity == message.Unlimited
	return errors.Join(
		r.Need(s.Asked.Capacity && !unlimited, fmt.Sprintf("WithCapacity(%v)", message.Limit(s.Capacity)), engine.Bounded, 0),
		r.Need(s.Asked.Overflow && !s.Overflow.Drops() && !(unlimited && s.Overflow == settings.Block), fmt.Sprintf("WithOverflow(%v)", s.Overflow), engine.Bounded, 0),
		r.Need(s.Asked.DeadCapacity && s.DeadCapacity != message.Unlimited, fmt.Sprintf("WithDeadLetterCapacity(%v)", message.Limit(s.DeadCapacity)), engine.Bounded, 0),
		r.Need(s.Asked.Visibility, fmt.Sprintf("WithVisibilityTimeout(%v)", s.Visibility), engine.Visibility, s.Visibility),
		r.Need(s.Delay > 0, fmt.Sprintf("WithDelay(%v)", s.Delay), engine.QueueDelay, s.Delay),
		r.refuseIf(s.Asked.Overflow && s.Overflow.Drops(), fmt.Sprintf("WithOverflow(%v)", s.Overflow), "no engine drops; let Block wait or Reject refuse"),
		r.refuseIf(s.Replay > 0, fmt.Sprintf("WithReplay(%v)", message.Limit(s.Replay)), "replay is for topics in memory"),
		r.refuseIf(sharedLetters, "WithDeadLetterQueue", "each queue has a dead-letter queue of its own there"),
		r.refuseIf(s.DeadOverflow != settings.Block, fmt.Sprintf("WithDeadLetterOverflow(%v)", s.DeadOverflow), "no engine drops"),
	)
}

func (r *Topic) refuseIf(asked bool, option, why string) error {
	if !asked {
		return nil
	}
	return r.Refuse(option, why)
}

// Open returns the engine's topic, and opens it if nobody has.
func (r *Topic) Open(ctx context.Context) (engine.Topic, error) {
	r.mu.Lock()
	t := r.opened
	r.mu.Unlock()
	if t != nil {
		return t, nil
	}
	select {
	case r.Turn <- struct{}{}:
		defer func() { <-r.Turn }()
	case <-ctx.Done():
		return nil, message.ContextError(ctx)
	}
	return r.OpenInTurn(ctx)
}

// OpenInTurn is Open for one who has the turn.
func (r *Topic) OpenInTurn(ctx context.Context) (engine.Topic, error) {
	r.mu.Lock()
	t := r.opened
	r.mu.Unlock()
	if t != nil {
		return t, nil
	}
	t, err := r.Engine.OpenTopic(ctx, r.spec)
	if err != nil {
		return nil, Error(err)
	}
	r.mu.Lock()
	r.opened = t
	r.mu.Unlock()
	return t, nil
}

// Close closes the engine's topic, if it was opened.
func (r *Topic) Close() {
	r.mu.Lock()
	t := r.opened
	r.mu.Unlock()
	if t != nil {
		_ = t.Close()
	}
}

// errorNames are the errors of engines that users know by other names.
var errorNames = []struct{ theirs, ours error }{
	{engine.ErrStale, message.ErrStale}, {engine.ErrFull, message.ErrQueueFull}, {engine.ErrClosed, message.ErrClosed}, {engine.ErrTooLarge, message.ErrInvalidMessage},
	{engine.ErrInvalid, message.ErrInvalidMessage},
	{engine.ErrUnconfirmed, message.ErrUnconfirmed},
}

// Error makes errors.Is find what users look for.
func Error(err error) error {
	for _, e := range errorNames {
		if errors.Is(err, e.theirs) && !errors.Is(err, e.ours) {
			err = fmt.Errorf("%w: %w", e.ours, err)
		}
	}
	return err
}

// PublishError is Error for a publish. If ctx ended under way nobody knows what the
// engine has.
func PublishError(ctx context.Context, err error) error {
	err = Error(err)
	if ended := ctx.Err(); ended != nil && errors.Is(err, ended) && !errors.Is(err, message.ErrUnconfirmed) {
		return fmt.Errorf("%w: %w", message.ErrUnconfirmed, err)
	}
	return err
}
