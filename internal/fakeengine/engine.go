// Package fakeengine is an engine that keeps its queues in memory, for tests:
// of fanout above the seam, and of the conformance kit. It aims at being
// obviously right, not fast: slices, one mutex, every rule of package engine in
// the plainest form.
//
// It uses time only through package time and owns no goroutine: whoever waits,
// waits in the goroutine of the call. So it works in testing/synctest, where
// leases, delays and waits end at their exact instants.
//
// What stands for the broker is the storage behind an [Engine]; an Engine value
// stands for one process that uses it. [Engine.Sibling] is one more process,
// [Engine.Crash] kills one. [Engine.Inject] makes calls fail, wait, or lose their
// responses.
package fakeengine

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/gofanout/fanout/engine"
)

// A Config says what the engine keeps. The zero Config keeps everything.
type Config struct {
	// Name is the engine's name, "fake" by default.
	Name string
	// Without lists features that the engine does not keep.
	Without []engine.Feature
	// Most limits the durations of Visibility, MessageDelay, QueueDelay,
	// RetryDelay and Deduplication. What is not in it is unlimited.
	Most map[engine.Feature]time.Duration

	// MaxBody and MaxBatch limit the bytes of one message and of the bodies of
	// one Publish, MaxAttributes the attributes of a message: above it is
	// engine.ErrTooLarge. 0 is no limit. Without AllOrNone the messages of a
	// batch that are within the limits are published, with a PartialError.
	MaxBody, MaxBatch, MaxAttributes int
	// MaxMessage limits the bytes of a message's body and its state together: above
	// it is engine.ErrTooLarge. A publish leaves room for engine.MinState. 0 is no
	// limit.
	MaxMessage int
	// MaxReceive is how many messages one Receive returns, at most, as in SQS. 0 is
	// no limit.
	MaxReceive int
	// FullFails makes a publish that finds a queue full fail with engine.ErrFull.
	// It waits otherwise.
	FullFails bool
}

// An Engine is one process's view of a storage. Its methods may be called
// concurrently.
type Engine struct {
	config Config
	caps   engine.Capabilities
	store  *storage

	crashed chan struct{} // closed by Crash, under store.mu
	faults  faults
}

// A storage is what processes share, and what outlives them.
type storage struct {
	mu     sync.Mutex // guards all below, and all that hangs on it
	topics map[string]*topicData
	stamp  uint64        // of the last lease: no two leases have the same
	change chan struct{} // closed and made anew at each change
}

// New returns an engine over an empty storage.
func New(c Config) *Engine {
	if c.Name == "" {
		c.Name = "fake"
	}
	caps := engine.Capabilities{}
	for _, f := range engine.Features() {
		caps[f] = engine.Support{Kept: true, Most: c.Most[f], Note: "in memory"}
	}
	for _, f := range c.Without {
		caps[f] = engine.Support{Note: "switched off; switch it on"}
	}
	s := &storage{topics: map[string]*topicData{}, change: make(chan struct{})}
	return &Engine{config: c, caps: caps, store: s, crashed: make(chan struct{})}
}

// Sibling returns an engine over the same storage, as another process has it,
// or the same one that was started again after Crash. No faults are injected
// into it.
func (e *Engine) Sibling() *Engine {
	return &Engine{config: e.config, caps: e.caps, store: e.store, crashed: make(chan struct{})}
}

// Crash ends the process that e stands for, as SIGKILL does: every call on e and
// on what it made returns engine.ErrClosed from now on, those that wait too, and
// none of them does anything any more. What is stored stays: leases end when
// they end, and Sibling opens it again.
func (e *Engine) Crash() {
	e.store.mu.Lock()
	defer e.store.mu.Unlock()
	if !isClosed(e.crashed) {
		close(e.crashed)
	}
}

// SetMaxMessage changes MaxMessage, for what is done from now on.
func (e *Engine) SetMaxMessage(n int) {
	e.store.mu.Lock()
	defer e.store.mu.Unlock()
	e.config.MaxMessage = n
}

// Name returns the configured name.
func (e *Engine) Name() string { return e.config.Name }

// Capabilities returns what the engine keeps.
func (e *Engine) Capabilities() engine.Capabilities { return maps.Clone(e.caps) }

// OpenTopic makes the topic or finds it. Ordering and the deduplication window
// of one that exists must be those asked for.
func (e *Engine) OpenTopic(ctx context.Context, spec engine.TopicSpec) (engine.Topic, error) {
	t := &topic{engine: e, closed: make(chan struct{})}
	return call(ctx, t.closer(OpenTopic), func() (engine.Topic, error) {
		switch {
		case spec.Name == "":
			return nil, fmt.Errorf("fakeengine: a topic needs a name")
		case spec.Ordering && !e.caps.Keeps(engine.Ordering, 0):
			return nil, e.cannot(engine.Ordering, "ordering of topic %q", spec.Name)
		case spec.Deduplication > 0 && !e.caps.Keeps(engine.Deduplication, spec.Deduplication):
			return nil, e.cannot(engine.Deduplication, "a window of %v", spec.Deduplication)
		}
		d := e.store.topics[spec.Name]
		if d == nil {
			d = &topicData{spec: spec, seen: map[string]time.Time{}}
			e.store.topics[spec.Name] = d
		}
		if d.spec != spec {
			return nil, fmt.Errorf("fakeengine: topic %q has %+v, asked for %+v: %w", spec.Name, d.spec, spec, engine.ErrMismatch)
		}
		t.data = d
		return t, nil
	})
}

// cannot says that a feature is asked for that is not kept.
func (e *Engine) cannot(f engine.Feature, format string, args ...any) error {
	return fmt.Errorf("fakeengine: %s: the engine keeps no such %v (most %v)", fmt.Sprintf(format, args...), f, e.caps[f].Most)
}

// changedLocked wakes all that wait for a change.
func (s *storage) changedLocked() {
	close(s.change)
	s.change = make(chan struct{})
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
