package fanout

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"
)

// A Subscriber is a pool of workers that run a handler over a queue. Several
// subscribers of one queue compete for its messages. Workers are goroutines
// that exist only while there is something to do: an idle subscriber owns none.
//
// All methods may be called concurrently. A subscriber is made by
// [Topic.Subscribe] or [Queue.Subscribe].
type Subscriber[T any] struct {
	// A worker is a goroutine that claims one message, runs the handler on it,
	// settles it and claims the next, until there is none. The queue starts it
	// when something is ready (handOnLocked) and it ends by itself.
	//
	// Invariants:
	//   - running <= concurrency, and running counts the worker goroutines;
	//   - busy holds the workers whose handler is running, stuck counts those of
	//     them whose delivery has timed out.

	// Immutable.
	q       *Queue[T]
	handler Handler[T]
	set     subscriberSettings

	// Guarded by the queue's mu.
	running  int
	stuck    int
	busy     []*worker[T]
	idle     []*worker[T] // to be used again
	stopping bool

	done chan struct{} // closed when stopping and no worker is left
}

// A worker is what one worker goroutine has of its own. Its fields but s are
// the goroutine's, except where said.
type worker[T any] struct {
	s *Subscriber[T]

	// Guarded by the queue's mu.
	stamp uint64 // of the delivery in hand, 0 between two
	entry int32
	place int // in busy
	stuck bool
	ctx   *handlerContext // made anew once a handler has used it
	run   run             // what the context tells to publishes
	// cancelled says that ctx is, or is about to be: no other run may have it.
	cancelled bool
}

// Subscribe runs h over the queue by a pool of workers, beside those that the
// queue has already. ctx bounds the set-up only; in memory there is nothing to
// wait for. It returns [ErrClosed] or [ErrInvalidOption].
func (q *Queue[T]) Subscribe(ctx context.Context, h Handler[T], options ...SubscriberOption) (*Subscriber[T], error) {
	set := subscriberSettings{concurrency: 1}
	err := applyAll(options, func(o SubscriberOption) error { return o.applySubscriber(&set) })
	if err != nil {
		return nil, err
	}
	if err := checkSubscribe(ctx, h); err != nil {
		return nil, err
	}
	return q.subscribe(h, set)
}

func checkSubscribe[T any](ctx context.Context, h Handler[T]) error {
	if ctx == nil {
		return fmt.Errorf("%w: %w", ErrInvalidOption, errNilContext)
	}
	if h == nil {
		return invalid("Subscribe", "nil handler", "a handler")
	}
	if ctx.Err() != nil {
		return fmt.Errorf("fanout: subscribe: %w", contextError(ctx))
	}
	return nil
}

func (q *Queue[T]) subscribe(h Handler[T], set subscriberSettings) (*Subscriber[T], error) {
	s := &Subscriber[T]{q: q, handler: h, set: set, done: make(chan struct{})}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return nil, fmt.Errorf("fanout: subscribe to %q: %w", q.name, ErrClosed)
	}
	q.subs = append(q.subs, s)
	q.handOnLocked()
	return s, nil
}

// Queue returns the queue that the subscriber works on.
func (s *Subscriber[T]) Queue() *Queue[T] { return s.q }

// Done returns a channel that is closed when the subscriber has been stopped,
// by Shutdown or by the end of its queue, and its last handler has returned.
func (s *Subscriber[T]) Done() <-chan struct{} { return s.done }

// Shutdown stops the workers: none takes another message, and it waits until
// those that run have settled theirs. When ctx ends first, the contexts of the
// handlers still running are cancelled with a cause that wraps [ErrClosed],
// their messages are released, to be delivered to others at once without
// having spent an attempt, and Shutdown returns an error that wraps the
// context's and says how many handlers are running still. The queue stays
// open. Calling it again waits again.
func (s *Subscriber[T]) Shutdown(ctx context.Context) error {
	if ctx == nil {
		return fmt.Errorf("%w: Shutdown: %w", ErrInvalidOption, errNilContext)
	}
	q := s.q
	q.mu.Lock()
	s.stopLocked()
	q.mu.Unlock()
	select {
	case <-s.done:
		return nil
	default:
	}
	select {
	case <-s.done:
		return nil
	case <-ctx.Done():
	}
	q.mu.Lock()
	now := q.core.now()
	running := len(s.busy)
	var fx *effects
	for _, w := range s.busy {
		fx = w.cancelLocked(fx, fmt.Errorf("%w: the subscriber of queue %q was shut down", ErrClosed, q.name))
		if q.ownedLocked(w.entry, w.stamp) == nil {
			q.stale.Add(w.stamp)
			q.win.Unschedule(w.entry)
			fx = fx.and(q.endLocked(w.entry, verdict{cause: Released}, now))
		}
	}
	q.armLocked(now)
	q.handOnLocked()
	q.mu.Unlock()
	fx.and(q.madeRoom()).perform()
	if running == 0 {
		<-s.done // workers between two messages: they are on their way home
		return nil
	}
	return fmt.Errorf("fanout: shutdown of a subscriber of %q: %s still running: %w", q.name, plural(running, "handler"), contextError(ctx))
}

// stopLocked makes the workers end, and takes the subscriber from its queue
// once they have.
func (s *Subscriber[T]) stopLocked() {
	if s.stopping {
		return
	}
	s.stopping = true
	s.checkDoneLocked()
}

func (s *Subscriber[T]) checkDoneLocked() {
	if !s.stopping || s.running > 0 {
		return
	}
	close(s.done)
	q := s.q
	if k := slices.Index(q.subs, s); k >= 0 {
		q.subs = slices.Delete(q.subs, k, k+1)
		q.nextSub = 0
	}
}

// startLocked starts one more worker.
func (s *Subscriber[T]) startLocked() {
	var w *worker[T]
	if n := len(s.idle); n > 0 {
		w, s.idle = s.idle[n-1], s.idle[:n-1]
	} else {
		w = &worker[T]{s: s}
		w.run.queue, w.run.lock = s.q, s.q.locked
	}
	s.running++
	s.q.running++
	go w.work()
}

// work is the worker's goroutine. Started by startLocked; ends when nothing is
// ready or its subscriber stops; the subscriber's done waits for it, as does
// the queue's close.
func (w *worker[T]) work() {
	ended := false
	defer func() {
		if !ended {
			// The handler, or a hook, called runtime.Goexit, which cannot be
			// stopped: another goroutine takes this one's place.
			go w.work()
		}
	}()
	for {
		d, ctx, ok := w.next()
		if !ok {
			ended = true
			return
		}
		w.handle(ctx, d)
	}
}

// next claims a message, or gives the worker back and returns false.
func (w *worker[T]) next() (d Delivery[T], ctx *handlerContext, ok bool) {
	s, q := w.s, w.s.q
	q.mu.Lock()
	w.putDownLocked()
	var fx *effects
	expired := q.counters.ended[Expired]
	if !s.stopping {
		d, fx, ok = q.claimLocked(q.set.visibility, handling)
	}
	for !ok && q.counters.ended[Expired] != expired {
		// Some came too late: that is told while the worker still counts.
		q.mu.Unlock()
		fx.and(q.madeRoom()).perform()
		q.mu.Lock()
		expired, fx = q.counters.ended[Expired], nil
		if !s.stopping {
			d, fx, ok = q.claimLocked(q.set.visibility, handling)
		}
	}
	if !ok {
		s.running--
		q.running--
		s.idle = append(s.idle, w)
		s.checkDoneLocked()
		q.checkDrainedLocked()
		q.checkHomeLocked()
		q.handOnLocked()
		q.mu.Unlock()
		return d, nil, false
	}
	if w.ctx == nil || !w.ctx.fresh() {
		w.ctx = &handlerContext{run: &w.run}
	}
	w.stamp, w.entry = d.stamp, d.entry
	w.place = len(s.busy)
	s.busy = append(s.busy, w)
	ctx = w.ctx
	q.handOnLocked()
	q.mu.Unlock()
	fx.and(q.madeRoom()).perform()
	return d, ctx, true
}

// locked runs f while it holds the queue's lock.
func (q *Queue[T]) locked(f func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	f()
}

// putDownLocked says that the worker's handler runs no longer.
func (w *worker[T]) putDownLocked() {
	if w.stamp == 0 {
		return
	}
	s := w.s
	last := len(s.busy) - 1
	s.busy[w.place] = s.busy[last]
	s.busy[w.place].place = w.place
	s.busy[last] = nil
	s.busy = s.busy[:last]
	w.stamp = 0
	if w.stuck {
		w.stuck = false
		s.stuck--
	}
	if w.cancelled {
		w.cancelled, w.ctx = false, nil
	}
}

// cancelLocked adds to fx that the handler's context is cancelled.
func (w *worker[T]) cancelLocked(fx *effects, cause error) *effects {
	w.cancelled = true
	return fx.cancel(w.ctx, cause)
}

// handle runs the handler on d and settles d as it says.
func (w *worker[T]) handle(ctx *handlerContext, d Delivery[T]) {
	returned := false
	defer func() {
		if returned {
			return
		}
		v := verdict{cause: Exited, wait: fromBackoff}
		if p := recover(); p != nil {
			v.cause, v.err, v.stack = Panicked, panicError(p), stack()
		}
		w.finish(&d, v)
	}()
	v := judge(w.s.handler(ctx, d)) // an error that panics when it is looked at is the handler's
	returned = true
	w.finish(&d, v)
}

// finish settles d. The handler may have done so itself, or come too late: what
// it says then is told, not done.
func (w *worker[T]) finish(d *Delivery[T], v verdict) {
	q := w.s.q
	err := q.settle(d.entry, d.stamp, d.attempt, v)
	if err == nil || isClosed(err) || v.cause == Acked {
		return
	}
	k := late
	if heardOfIt(v.err) {
		k = lateCancelled
	}
	q.mu.Lock()
	fx := q.noteLocked(nil, k, Event{
		MessageID: d.ID(), Attempt: d.Attempt(), Cause: v.cause, Err: v.err, Count: 1,
	})
	q.mu.Unlock()
	fx.perform()
}

// heardOfIt reports whether err says that the handler's context was cancelled.
// Looking at what was panicked with may panic again.
func heardOfIt(err error) bool {
	defer func() { _ = recover() }()
	return errors.Is(err, ErrStale) || errors.Is(err, context.Canceled)
}

func panicError(p any) error {
	if err, ok := p.(error); ok {
		return fmt.Errorf("panic: %w", err)
	}
	return fmt.Errorf("panic: %v", p)
}

// stack returns the stack of a panic, as its message's history keeps it.
func stack() string {
	s := debug.Stack()
	return string(s[:min(len(s), 8<<10)])
}

// A handlerContext is the context of one run of a handler, or of many that do
// not look at it: it becomes a real one, with a channel and a cause, when it is
// first asked, so that a handler that never asks costs nothing.
//
// Its mutex guards the fields below it and is a leaf: only package context's
// own locks are taken under it.
type handlerContext struct {
	run *run

	mu    sync.Mutex
	asked bool
	inner context.Context
	end   context.CancelCauseFunc
	cause error
}

// fresh reports whether the context can serve another run: nobody has looked
// at it and it is not cancelled.
func (c *handlerContext) fresh() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.inner == nil && c.cause == nil && !c.asked
}

func (c *handlerContext) cancel(cause error) {
	c.mu.Lock()
	first := c.cause == nil
	if first {
		c.cause = cause
	}
	end := c.end
	c.mu.Unlock()
	if first && end != nil {
		end(cause)
	}
}

func (c *handlerContext) real() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.inner == nil {
		c.inner, c.end = context.WithCancelCause(context.Background())
		if c.cause != nil {
			c.end(c.cause)
		}
	}
	return c.inner
}

// Deadline reports none: Extend could not move it.
func (c *handlerContext) Deadline() (time.Time, bool) { return time.Time{}, false }
func (c *handlerContext) Done() <-chan struct{}       { return c.real().Done() }
func (c *handlerContext) Err() error                  { return c.real().Err() }
func (c *handlerContext) Value(key any) any {
	if key == (runKey{}) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.asked = true
		return c.run
	}
	return c.real().Value(key)
}
