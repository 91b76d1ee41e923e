package fakeengine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/internal/policy"
)

// A topicData is a topic as it is stored.
type topicData struct {
	spec   engine.TopicSpec
	queues []*queueData
	seen   map[string]time.Time // deduplication IDs, and when each is forgotten
}

// A topic is one process's value of a topic.
type topic struct {
	engine *Engine
	data   *topicData

	once   sync.Once
	closed chan struct{} // closed by Close
}

func (t *topic) closer(op Op) closer {
	return closer{engine: t.engine, op: op, closed: []<-chan struct{}{t.closed}}
}

// Publish adds ms to each queue whose policy accepts them, in one step.
func (t *topic) Publish(ctx context.Context, ms []engine.Message) error {
	c := t.closer(Publish)
	f, err := c.begin(ctx)
	if err != nil {
		return err
	}
	defer f.respond(ctx)
	ms, failed := t.check(ms)
	if len(failed) > 0 && (len(ms) == 0 || t.engine.caps.Keeps(engine.AllOrNone, 0)) {
		return errors.Join(failed.errors()...)
	}
	s := t.engine.store
	for {
		s.mu.Lock()
		err, change := c.ended(ctx), s.change
		var full *queueData
		if err == nil {
			if full = t.tryLocked(ms); full == nil {
				s.changedLocked()
			}
		}
		s.mu.Unlock()
		switch {
		case err != nil:
			return err
		case full != nil && t.engine.config.FullFails:
			return fmt.Errorf("fakeengine: queue %q: %w", full.spec.Name, engine.ErrFull)
		case full != nil:
			if err := c.wait(ctx, change, -1); err != nil {
				return err
			}
			continue
		case f.Err != nil:
			return f.Err // lost
		case len(failed) > 0:
			return &engine.PartialError{Failed: failed}
		}
		return nil
	}
}

// failures has an error for the index of each message that can't be published.
type failures map[int]error

func (f failures) errors() (errs []error) {
	for _, err := range f {
		errs = append(errs, err)
	}
	return errs
}

// check returns those of ms that are within the engine's limits, and why the
// others are not.
func (t *topic) check(ms []engine.Message) (good []engine.Message, failed failures) {
	failed = failures{}
	config, caps := t.engine.config, t.engine.caps
	total := 0
	for i, m := range ms {
		total += len(m.Body)
		switch {
		case m.ID == "":
			failed[i] = fmt.Errorf("fakeengine: message %d has no ID", i)
		case config.MaxBody > 0 && len(m.Body) > config.MaxBody:
			failed[i] = fmt.Errorf("fakeengine: message %d has %d bytes, most are %d: %w", i, len(m.Body), config.MaxBody, engine.ErrTooLarge)
		case config.MaxMessage > 0 && len(m.Body)+engine.MinState > config.MaxMessage:
			failed[i] = fmt.Errorf("fakeengine: message %d has %d bytes and a state, most are %d: %w", i, len(m.Body), config.MaxMessage, engine.ErrTooLarge)
		case config.MaxBatch > 0 && total > config.MaxBatch:
			failed[i] = fmt.Errorf("fakeengine: message %d makes the batch %d bytes, most are %d: %w", i, total, config.MaxBatch, engine.ErrTooLarge)
		case config.MaxAttributes > 0 && len(m.Attributes) > config.MaxAttributes:
			failed[i] = fmt.Errorf("fakeengine: message %d has %d attributes, most are %d: %w", i, len(m.Attributes), config.MaxAttributes, engine.ErrTooLarge)
		case m.Delay > 0 && !caps.Keeps(engine.MessageDelay, m.Delay):
			failed[i] = t.engine.cannot(engine.MessageDelay, "message %d, delay %v", i, m.Delay)
		case m.OrderingKey != "" && !t.data.spec.Ordering:
			failed[i] = fmt.Errorf("fakeengine: message %d has an ordering key, the topic has none", i)
		case m.DeduplicationID != "" && t.data.spec.Deduplication == 0:
			failed[i] = fmt.Errorf("fakeengine: message %d has a deduplication ID, the topic has no window", i)
		default:
			good = append(good, m)
		}
	}
	return good, failed
}

// tryLocked adds ms to all queues, or returns one that has no room and adds
// nothing.
func (t *topic) tryLocked(ms []engine.Message) (full *queueData) {
	now := time.Now()
	fresh := []engine.Message{}
	ids := map[string]bool{}
	for _, m := range ms {
		if id := m.DeduplicationID; id != "" {
			if ids[id] || t.data.seen[id].After(now) {
				continue
			}
			ids[id] = true
		}
		fresh = append(fresh, m)
	}
	for _, q := range t.data.queues {
		n := 0
		for _, m := range fresh {
			if q.accepts(m) {
				n++
			}
		}
		if !q.hasRoomLocked(n) {
			return q
		}
	}
	for id := range ids {
		t.data.seen[id] = now.Add(t.data.spec.Deduplication)
	}
	for _, q := range t.data.queues {
		for _, m := range fresh {
			if q.accepts(m) {
				q.addLocked(m, now)
			}
		}
	}
	return nil
}

// OpenQueue makes the queue or finds it. What can be changed is; a smaller
// capacity than the queue holds and another filter policy are not.
func (t *topic) OpenQueue(ctx context.Context, spec engine.QueueSpec) (engine.Queue, error) {
	e := t.engine
	return call(ctx, t.closer(OpenQueue), func() (engine.Queue, error) {
		switch {
		case spec.Name == "":
			return nil, fmt.Errorf("fakeengine: a queue needs a name")
		case spec.Visibility > 0 && !e.caps.Keeps(engine.Visibility, spec.Visibility):
			return nil, e.cannot(engine.Visibility, "queue %q, visibility %v", spec.Name, spec.Visibility)
		case spec.Delay > 0 && !e.caps.Keeps(engine.QueueDelay, spec.Delay):
			return nil, e.cannot(engine.QueueDelay, "queue %q, delay %v", spec.Name, spec.Delay)
		case (spec.Capacity > 0 || spec.DeadCapacity > 0) && !e.caps.Keeps(engine.Bounded, 0):
			return nil, e.cannot(engine.Bounded, "queue %q", spec.Name)
		case spec.FilterPolicy != "" && !e.caps.Keeps(engine.FilterPolicy, 0):
			return nil, e.cannot(engine.FilterPolicy, "queue %q", spec.Name)
		}
		d := t.data.queueLocked(spec.Name)
		if d == nil {
			d = &queueData{spec: spec, ordering: t.data.spec.Ordering, deleted: make(chan struct{})}
			dead := engine.QueueSpec{Name: spec.Name + "/dead", Visibility: spec.Visibility, Capacity: spec.DeadCapacity}
			d.dead = &queueData{spec: dead, source: d, deleted: make(chan struct{})}
			if spec.FilterPolicy != "" {
				p, err := policy.Parse(spec.FilterPolicy)
				if err != nil {
					return nil, fmt.Errorf("fakeengine: queue %q: %w", spec.Name, err)
				}
				d.policy = p
			}
			t.data.queues = append(t.data.queues, d)
		}
		switch {
		case d.spec.FilterPolicy != spec.FilterPolicy:
			return nil, fmt.Errorf("fakeengine: queue %q has the filter policy %q, asked for %q: %w", spec.Name, d.spec.FilterPolicy, spec.FilterPolicy, engine.ErrMismatch)
		case spec.Capacity > 0 && spec.Capacity < len(d.entries):
			return nil, fmt.Errorf("fakeengine: queue %q has %d messages, asked for a capacity of %d: %w", spec.Name, len(d.entries), spec.Capacity, engine.ErrMismatch)
		}
		d.spec = spec
		d.dead.spec.Visibility, d.dead.spec.Capacity = spec.Visibility, spec.DeadCapacity
		return newQueue(t, d), nil
	})
}

// ListQueues tells what the stored queues hold.
func (t *topic) ListQueues(ctx context.Context) ([]engine.QueueInfo, error) {
	e := t.engine
	return call(ctx, t.closer(ListQueues), func() (infos []engine.QueueInfo, err error) {
		if !e.caps.Keeps(engine.Listing, 0) {
			return nil, e.cannot(engine.Listing, "queues of topic %q", t.data.spec.Name)
		}
		for _, d := range t.data.queues {
			infos = append(infos, engine.QueueInfo{Name: d.spec.Name, Stats: d.statsLocked(), Letters: d.dead.statsLocked()})
		}
		slices.SortFunc(infos, func(a, b engine.QueueInfo) int { return strings.Compare(a.Name, b.Name) })
		return infos, nil
	})
}

func (d *topicData) queueLocked(name string) *queueData {
	for _, q := range d.queues {
		if q.spec.Name == name {
			return q
		}
	}
	return nil
}

// Close ends the value and those of its queues.
func (t *topic) Close() error {
	t.once.Do(func() { close(t.closed) })
	return nil
}

// clone copies all that m shares with its owner.
func clone(m engine.Message) engine.Message {
	m.Body = bytes.Clone(m.Body)
	m.State = bytes.Clone(m.State)
	m.Attributes = maps.Clone(m.Attributes)
	return m
}
