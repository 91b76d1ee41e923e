package fakeengine

import (
	"context"
	"sync"
	"time"

	"github.com/gofanout/fanout/engine"
)

// An Op is an operation that faults can be injected into and whose calls are
// counted.
type Op string

// The operations. Those of a queue stand for its dead-letter queue's too, whose
// calls count as well.
const (
	OpenTopic  Op = "open topic"
	Publish    Op = "publish"
	OpenQueue  Op = "open queue"
	Receive    Op = "receive"
	Ack        Op = "ack"
	Return     Op = "return"
	Extend     Op = "extend"
	DeadLetter Op = "dead-letter"
	Redrive    Op = "redrive"
	Stats      Op = "stats"
	Purge      Op = "purge"
	Delete     Op = "delete"
	ListQueues Op = "list queues"
)

// A Fault is what happens at a call.
type Fault struct {
	Op Op
	// Nth is which call from now on has the fault, 1 for the next; 0 is each.
	Nth int
	// Latency makes the call wait first, until its context ends.
	Latency time.Duration
	// Err is what the call returns. Unless Lost or Halfway is set, it does
	// nothing else.
	Err error
	// Lost has the call done, and only its response lost.
	Lost bool
	// Late makes the response come that much later, or when the call's context
	// ends: what is done is done before.
	Late time.Duration
	// Halfway has a DeadLetter or Redrive end after its first step: the message
	// is there, and still here. Without an Err nobody hears of it.
	Halfway bool
}

// respond waits as long as the response takes.
func (f Fault) respond(ctx context.Context) {
	if f.Late <= 0 {
		return
	}
	timer := time.NewTimer(f.Late)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// faults are an engine's faults and how often each operation was called.
type faults struct {
	mu     sync.Mutex // guards the fields below
	calls  map[Op]int
	faults []*pending
}

type pending struct {
	Fault
	left int // calls until it happens, if Nth is not 0
}

// Inject adds a fault to calls of this Engine value and of what it made. Of several
// that meet in one call the times add up, and the first error is returned.
func (e *Engine) Inject(f Fault) {
	e.faults.mu.Lock()
	defer e.faults.mu.Unlock()
	e.faults.faults = append(e.faults.faults, &pending{Fault: f, left: f.Nth})
}

// Heal removes all faults.
func (e *Engine) Heal() {
	e.faults.mu.Lock()
	defer e.faults.mu.Unlock()
	e.faults.faults = nil
}

// Calls returns how often op was called, failed calls included.
func (e *Engine) Calls(op Op) int {
	e.faults.mu.Lock()
	defer e.faults.mu.Unlock()
	return e.faults.calls[op]
}

// next counts a call and returns what happens at it.
func (f *faults) next(op Op) (now Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.calls == nil {
		f.calls = map[Op]int{}
	}
	f.calls[op]++
	for _, p := range f.faults {
		if p.Op != op {
			continue
		}
		p.left--
		if p.Nth != 0 && p.left != 0 {
			continue
		}
		now.Latency += p.Latency
		now.Late += p.Late
		if now.Err == nil {
			now.Err, now.Lost, now.Halfway = p.Err, p.Lost, now.Halfway || p.Halfway
		}
	}
	return now
}

// A closer is what a call belongs to and ends with.
type closer struct {
	engine *Engine
	op     Op
	closed []<-chan struct{} // of the queue, the topic and the queue's data
}

// ended says why a call can't begin or go on, nil if it can.
func (c closer) ended(ctx context.Context) error {
	if isClosed(c.engine.crashed) {
		return engine.ErrClosed
	}
	for _, closed := range c.closed {
		if isClosed(closed) {
			return engine.ErrClosed
		}
	}
	return ctx.Err()
}

// wait waits until wake is closed, or for at most d if d is not negative, and
// returns why the call must end, if it must.
func (c closer) wait(ctx context.Context, wake <-chan struct{}, d time.Duration) error {
	var due <-chan time.Time
	if d >= 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		due = timer.C
	}
	closed := [3]<-chan struct{}{} // a nil channel is never ready
	copy(closed[:], c.closed)
	select {
	case <-wake:
	case <-due:
	case <-closed[0]:
	case <-closed[1]:
	case <-closed[2]:
	case <-c.engine.crashed:
	case <-ctx.Done():
	}
	return c.ended(ctx)
}

// begin is the start of each call: it counts, waits and fails as was injected.
func (c closer) begin(ctx context.Context) (Fault, error) {
	f := c.engine.faults.next(c.op)
	if f.Latency > 0 {
		until := time.Now().Add(f.Latency)
		for left := f.Latency; left > 0; left = time.Until(until) {
			if err := c.wait(ctx, nil, left); err != nil {
				return f, err
			}
		}
	}
	if f.Err != nil && !f.Lost && !f.Halfway {
		return f, f.Err
	}
	return f, c.ended(ctx)
}

// call does one operation that never waits, under the storage's mutex.
func call[R any](ctx context.Context, c closer, do func() (R, error)) (r R, err error) {
	f, err := c.begin(ctx)
	if err != nil {
		return r, err
	}
	defer f.respond(ctx)
	s := c.engine.store
	s.mu.Lock()
	defer s.mu.Unlock()
	// A crash or close after begin: the call hasn't happened.
	if err := c.ended(ctx); err != nil {
		return r, err
	}
	got, err := do()
	if f.Err != nil {
		return r, f.Err // lost
	}
	return got, err
}
