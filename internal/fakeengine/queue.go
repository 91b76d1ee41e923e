package fakeengine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/internal/policy"
)

// defaultLease is the lease of a queue whose spec has none.
const defaultLease = 30 * time.Second

// A queueData is a queue as it is stored, or a dead-letter queue.
type queueData struct {
	spec     engine.QueueSpec
	ordering bool
	policy   *policy.Policy // nil accepts all
	entries  []*entry       // in the order of their publication

	dead   *queueData // of a queue
	source *queueData // of a dead-letter queue

	deleted chan struct{} // closed by Delete
}

// An entry is a message in a queue. It is ready when due has passed.
type entry struct {
	engine.Message
	due        time.Time
	delayed    bool   // due is the end of a delay, not of a lease or a wait
	stamp      uint64 // of the lease; 0 if it has none
	deliveries int
}

// A receipt names an entry and the stamp of its lease.
type receipt struct {
	entry *entry
	stamp uint64
}

func (d *queueData) accepts(m engine.Message) bool {
	return d.policy == nil || d.policy.Match(m.Attributes)
}

func (d *queueData) hasRoomLocked(n int) bool {
	return n == 0 || d.spec.Capacity <= 0 || len(d.entries)+n <= d.spec.Capacity
}

func (d *queueData) addLocked(m engine.Message, now time.Time) {
	delay := m.Delay
	if delay == 0 {
		delay = d.spec.Delay
	}
	d.entries = append(d.entries, &entry{Message: clone(m), due: now.Add(delay), delayed: delay > 0})
}

// takeLocked leases up to most messages, or says how long to wait for the next
// one; less than 0 if none is known to come.
func (d *queueData) takeLocked(most int, lease time.Duration, stamp *uint64) (got []engine.Received, wait time.Duration) {
	now := time.Now()
	wait = -1
	busy := map[string]bool{} // keys with a message before this one
	for _, e := range d.entries {
		key := e.OrderingKey
		if d.ordering && key != "" {
			if busy[key] {
				continue
			}
			busy[key] = true
		}
		if left := e.due.Sub(now); left > 0 {
			if wait < 0 || left < wait {
				wait = left
			}
			continue
		}
		if len(got) == most {
			break
		}
		*stamp++
		e.due, e.delayed, e.stamp = now.Add(lease), false, *stamp
		e.deliveries++
		got = append(got, engine.Received{Message: clone(e.Message), Receipt: receipt{e, e.stamp}, Deliveries: e.deliveries})
	}
	return got, wait
}

// A queue is one process's value of a queue.
type queue struct {
	topic *topic
	data  *queueData
	dead  *queue // nil for a dead-letter queue

	once   sync.Once
	closed chan struct{} // closed by Close
}

func newQueue(t *topic, d *queueData) *queue {
	q := &queue{topic: t, data: d, closed: make(chan struct{})}
	if d.dead != nil {
		q.dead = newQueue(t, d.dead)
	}
	return q
}

func (q *queue) closer(op Op) closer {
	return closer{engine: q.topic.engine, op: op, closed: []<-chan struct{}{q.closed, q.topic.closed, q.data.deleted}}
}

// Receive leases up to most messages, and waits until there is one.
func (q *queue) Receive(ctx context.Context, most int, lease time.Duration) ([]engine.Received, error) {
	e := q.topic.engine
	c := q.closer(Receive)
	f, err := c.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer f.respond(ctx)
	if most < 1 {
		return nil, fmt.Errorf("fakeengine: receive at most %d messages", most)
	}
	if lease > 0 && !e.caps.Keeps(engine.Visibility, lease) {
		return nil, e.cannot(engine.Visibility, "lease %v", lease)
	}
	if e.config.MaxReceive > 0 {
		most = min(most, e.config.MaxReceive)
	}
	s := e.store
	for {
		s.mu.Lock()
		err, change := c.ended(ctx), s.change
		var got []engine.Received
		wait := time.Duration(-1)
		if err == nil {
			own := lease
			if own <= 0 {
				own = q.data.lease()
			}
			got, wait = q.data.takeLocked(most, own, &s.stamp)
		}
		s.mu.Unlock()
		switch {
		case err != nil:
			return nil, err
		case len(got) > 0 && f.Err != nil:
			return nil, f.Err // lost
		case len(got) > 0:
			return got, nil
		}
		if err := c.wait(ctx, change, wait); err != nil {
			return nil, err
		}
	}
}

func (d *queueData) lease() time.Duration {
	if d.spec.Visibility > 0 {
		return d.spec.Visibility
	}
	return defaultLease
}

// settle does something to the entry of a lease, if the lease is good.
func (q *queue) settle(ctx context.Context, op Op, r engine.Receipt, do func(e *entry, f Fault) error) error {
	c := q.closer(op)
	if op == Return { // which works after Close
		c.closed = c.closed[1:]
	}
	f, err := c.begin(ctx)
	if err != nil {
		return err
	}
	defer f.respond(ctx)
	s := q.topic.engine.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := c.ended(ctx); err != nil {
		return err
	}
	e, err := q.entryLocked(r)
	if err != nil || e == nil {
		return err
	}
	err = do(e, f)
	s.changedLocked()
	if f.Err != nil {
		return f.Err // lost
	}
	return err
}

// entryLocked returns the entry of a lease. Without Fencing a lease that has
// ended is as good as any while the message is here, and settling one that isn't
// does nothing, as in SQS.
func (q *queue) entryLocked(r engine.Receipt) (*entry, error) {
	rc, ok := r.(receipt)
	if !ok {
		return nil, fmt.Errorf("fakeengine: %T is no receipt of this engine", r)
	}
	held := slices.Contains(q.data.entries, rc.entry)
	if !q.topic.engine.caps.Keeps(engine.Fencing, 0) {
		if !held {
			return nil, nil
		}
		return rc.entry, nil
	}
	if !held || rc.entry.stamp != rc.stamp || !rc.entry.due.After(time.Now()) {
		return nil, fmt.Errorf("fakeengine: message %q in queue %q: %w", rc.entry.ID, q.data.spec.Name, engine.ErrStale)
	}
	return rc.entry, nil
}

// Ack removes the message.
func (q *queue) Ack(ctx context.Context, r engine.Receipt) error {
	return q.settle(ctx, Ack, r, func(e *entry, _ Fault) error {
		q.data.removeLocked(e)
		return nil
	})
}

func (d *queueData) removeLocked(e *entry) {
	d.entries = slices.DeleteFunc(d.entries, func(other *entry) bool { return other == e })
}

// Return makes the message ready after wait, also after Close.
func (q *queue) Return(ctx context.Context, r engine.Receipt, wait time.Duration, state []byte) error {
	caps := q.topic.engine.caps
	if !caps.Keeps(engine.RetryDelay, wait) && wait > 0 {
		return q.topic.engine.cannot(engine.RetryDelay, "wait %v", wait)
	}
	return q.settle(ctx, Return, r, func(e *entry, _ Fault) error {
		if err := q.topic.engine.fits(state); err != nil {
			return err
		}
		e.due, e.stamp = time.Now().Add(wait), 0
		if caps.Keeps(engine.State, 0) {
			e.State = slices.Clone(state)
		}
		return nil
	})
}

// Extend moves the end of the lease.
func (q *queue) Extend(ctx context.Context, r engine.Receipt, lease time.Duration) error {
	if lease > 0 && !q.topic.engine.caps.Keeps(engine.Visibility, lease) {
		return q.topic.engine.cannot(engine.Visibility, "lease %v", lease)
	}
	return q.settle(ctx, Extend, r, func(e *entry, _ Fault) error {
		e.due = time.Now().Add(lease)
		return nil
	})
}

var errNoDeadLetters = errors.New("fakeengine: a dead-letter queue has no dead-letter queue")

// DeadLetter moves the message, as m, to the dead-letter queue.
func (q *queue) DeadLetter(ctx context.Context, r engine.Receipt, m engine.Message) error {
	if q.dead == nil {
		return errNoDeadLetters
	}
	return q.settle(ctx, DeadLetter, r, func(e *entry, f Fault) error {
		if err := q.topic.engine.fits(m.Body, m.State); err != nil {
			return err
		}
		return q.data.moveLocked(e, q.data.dead, m, f)
	})
}

// fits returns ErrTooLarge if the parts of a message are more than it takes.
func (e *Engine) fits(parts ...[]byte) error {
	size := 0
	for _, p := range parts {
		size += len(p)
	}
	if e.config.MaxMessage == 0 || size <= e.config.MaxMessage {
		return nil
	}
	return fmt.Errorf("fakeengine: %d bytes with the state, most are %d: %w", size, e.config.MaxMessage, engine.ErrTooLarge)
}

// moveLocked moves e, as m, to another queue. There it is ready at once.
func (d *queueData) moveLocked(e *entry, to *queueData, m engine.Message, f Fault) error {
	if !to.hasRoomLocked(1) {
		return fmt.Errorf("fakeengine: queue %q: %w", to.spec.Name, engine.ErrFull)
	}
	to.entries = append(to.entries, &entry{Message: clone(m)})
	if !f.Halfway {
		d.removeLocked(e)
	}
	return nil
}

// DeadLetters returns the dead-letter queue.
func (q *queue) DeadLetters() engine.Queue {
	if q.dead == nil {
		return nil
	}
	return q.dead
}

// Redrive moves the letter, as m, back to its queue.
func (q *queue) Redrive(ctx context.Context, r engine.Receipt, m engine.Message) error {
	if q.data.source == nil {
		return errors.New("fakeengine: only a dead-letter queue is redriven")
	}
	return q.settle(ctx, Redrive, r, func(e *entry, f Fault) error {
		if err := q.topic.engine.fits(m.Body, m.State); err != nil {
			return err
		}
		return q.data.moveLocked(e, q.data.source, m, f)
	})
}

// Stats counts the entries.
func (q *queue) Stats(ctx context.Context) (engine.Stats, error) {
	return call(ctx, q.closer(Stats), func() (engine.Stats, error) { return q.data.statsLocked(), nil })
}

func (d *queueData) statsLocked() (s engine.Stats) {
	now := time.Now()
	for _, e := range d.entries {
		switch {
		case !e.due.After(now):
			s.Ready++
			s.OldestAge = max(s.OldestAge, now.Sub(e.PublishedAt))
		case e.delayed:
			s.Delayed++
		default:
			s.InFlight++
		}
	}
	return s
}

// Purge removes all entries.
func (q *queue) Purge(ctx context.Context) (dropped int, err error) {
	return call(ctx, q.closer(Purge), func() (int, error) {
		n := len(q.data.entries)
		q.data.entries = nil
		q.topic.engine.store.changedLocked()
		return n, nil
	})
}

// Delete removes the queue from the topic, with its dead-letter queue. It works on a
// value that was closed.
func (q *queue) Delete(ctx context.Context) (dropped, letters int, err error) {
	e := q.topic.engine
	_, err = call(ctx, closer{engine: e, op: Delete, closed: []<-chan struct{}{q.topic.closed}}, func() (struct{}, error) {
		d := q.data
		switch {
		case !e.caps.Keeps(engine.Deletion, 0):
			return struct{}{}, e.cannot(engine.Deletion, "delete queue %q", d.spec.Name)
		case d.dead == nil:
			return struct{}{}, errors.New("fakeengine: a dead-letter queue is deleted with its queue")
		case isClosed(d.deleted):
			return struct{}{}, nil
		}
		q.topic.data.queues = slices.DeleteFunc(q.topic.data.queues, func(other *queueData) bool { return other == d })
		dropped, letters = len(d.entries), len(d.dead.entries)
		d.entries, d.dead.entries = nil, nil
		close(d.deleted)
		close(d.dead.deleted)
		e.store.changedLocked()
		return struct{}{}, nil
	})
	return dropped, letters, err
}

// Close ends the value and its dead-letter queue's.
func (q *queue) Close() error {
	q.once.Do(func() { close(q.closed) })
	if q.dead != nil {
		return q.dead.Close()
	}
	return nil
}
