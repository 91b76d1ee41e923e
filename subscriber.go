package fanout

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"runtime/pprof"
	"slices"
	"sync"
	"sync/atomic"
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
	handler BatchHandler[T]
	most    int // messages that the handler gets
	set     subscriberSettings
	site    string // file and line that subscribed

	// Guarded by the queue's mu.
	running  int
	stuck    int
	nextAt   int64 // no delivery may start before, for the rate limit
	labels   context.Context
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
	claims []claim // the deliveries in hand, none between two runs
	place  int     // in busy
	stuck  bool
	ctx    *handlerContext // made anew once a handler has used it
	// cancelled says that ctx is, or is about to be: no other run may have it.
	cancelled bool

	one       [1]Delivery[T] // where a handler's only delivery is kept
	goroutine atomic.Pointer[string]
}

// Subscribe runs h over the queue by a pool of workers, beside those that the
// queue has already. ctx bounds the set-up only; in memory there is nothing to
// wait for. It returns [ErrClosed], [ErrInvalidOption], or ctx's error if it has
// ended.
func (q *Queue[T]) Subscribe(ctx context.Context, h Handler[T], options ...SubscriberOption) (*Subscriber[T], error) {
	set := defaultSubscriberSettings()
	err := applyAll(options, func(o SubscriberOption) error { return o.applySubscriber(&set) })
	if err != nil {
		return nil, err
	}
	if err := checkSubscribe(ctx, h == nil); err != nil {
		return nil, err
	}
	return q.subscribe(single(h), 1, set)
}

// A BatchHandler works on several deliveries at once, at least one and at most
// [WithBatchSize], as many as were ready. What it returns settles those that it
// left unsettled: nil acknowledges them, an error, Permanent, RetryAfter,
// Snooze, a panic or runtime.Goexit hold for each. All else is as for a [Handler].
// The slice is the handler's to keep.
type BatchHandler[T any] func(ctx context.Context, ds []Delivery[T]) error

// single makes a handler of one delivery a batch handler.
func single[T any](h Handler[T]) BatchHandler[T] {
	return func(ctx context.Context, ds []Delivery[T]) error { return h(ctx, ds[0]) }
}

// SubscribeBatch is [Queue.Subscribe] for a handler that takes several messages
// at a time.
func (q *Queue[T]) SubscribeBatch(ctx context.Context, h BatchHandler[T], options ...SubscriberOption) (*Subscriber[T], error) {
	set := defaultSubscriberSettings()
	err := applyAll(options, func(o SubscriberOption) error { return o.applySubscriber(&set) })
	if err != nil {
		return nil, err
	}
	if err := checkSubscribe(ctx, h == nil); err != nil {
		return nil, err
	}
	return q.subscribe(h, set.batch, set)
}

func checkSubscribe(ctx context.Context, noHandler bool) error {
	if ctx == nil {
		return fmt.Errorf("%w: %w", ErrInvalidOption, errNilContext)
	}
	if noHandler {
		return invalid("Subscribe", "nil handler", "a handler")
	}
	if ctx.Err() != nil {
		return fmt.Errorf("fanout: subscribe: %w", contextError(ctx))
	}
	return nil
}

func (q *Queue[T]) subscribe(h BatchHandler[T], most int, set subscriberSettings) (*Subscriber[T], error) {
	if around := append(slices.Clip(q.core.around), set.interceptors...); len(around) > 0 {
		inner := h
		h = func(ctx context.Context, ds []Delivery[T]) error {
			return intercept(ctx, around, infoOf(ds), func(ctx context.Context) error { return inner(ctx, ds) })
		}
	}
	s := &Subscriber[T]{q: q, handler: h, most: most, set: set, site: callSite(), done: make(chan struct{})}
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
		for _, c := range w.claims {
			if q.ownedLocked(c.entry, c.stamp) == nil {
				q.stale.Add(c.stamp)
				q.win.Unschedule(c.entry)
				fx = fx.and(q.endLocked(c.entry, verdict{cause: Released}, now))
			}
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

// limitedLocked returns until when the rate limit lets no delivery start, 0 if
// one may start now.
func (s *Subscriber[T]) limitedLocked() int64 {
	if s.set.every == 0 || s.nextAt <= s.q.core.now() {
		return 0
	}
	return s.nextAt
}

// startLocked starts one more worker.
func (s *Subscriber[T]) startLocked() {
	var w *worker[T]
	if n := len(s.idle); n > 0 {
		w, s.idle = s.idle[n-1], s.idle[:n-1]
	} else {
		w = &worker[T]{s: s}
	}
	if s.labels == nil {
		s.labels = pprof.WithLabels(context.Background(), pprof.Labels("topic", s.q.core.name, "queue", s.q.name, "subscriber", s.site))
	}
	s.running++
	s.q.running++
	go w.work()
}

// work is the worker's goroutine. Started by startLocked; ends when nothing is
// ready or its subscriber stops; the subscriber's done waits for it, as does
// the queue's close.
func (w *worker[T]) work() {
	pprof.SetGoroutineLabels(w.s.labels)
	w.goroutine.Store(w.s.q.core.goroutine())
	ended := false
	defer func() {
		if !ended {
			// The handler, or a hook, called runtime.Goexit, which cannot be
			// stopped: another goroutine takes this one's place.
			go w.work()
		}
	}()
	for {
		ds, ctx := w.next()
		if ctx == nil {
			ended = true
			return
		}
		w.handle(ctx, ds)
	}
}

// A claim names a delivery.
type claim struct {
	stamp uint64
	entry int32
}

// next claims as many messages as the handler takes, or gives the worker back
// and returns no context.
func (w *worker[T]) next() ([]Delivery[T], *handlerContext) {
	s, q := w.s, w.s.q
	q.mu.Lock()
	w.putDownLocked()
	var fx *effects
	expired := q.counters.ended[Expired]
	ds := w.claimLocked(&fx)
	for len(ds) == 0 && q.counters.ended[Expired] != expired {
		// Some came too late: that is told while the worker still counts.
		q.mu.Unlock()
		fx.and(q.madeRoom()).perform()
		q.mu.Lock()
		expired, fx = q.counters.ended[Expired], nil
		ds = w.claimLocked(&fx)
	}
	if len(ds) == 0 {
		s.running--
		q.running--
		s.idle = append(s.idle, w)
		if _, ok := q.win.NextDue(); !ok && q.running == 0 && q.limited == 0 {
			q.armLocked(0) // stops the timer
		}
		s.checkDoneLocked()
		q.checkDrainedLocked()
		q.checkHomeLocked()
		q.handOnLocked()
		q.mu.Unlock()
		return nil, nil
	}
	if w.ctx == nil || !w.ctx.fresh() {
		w.ctx = &handlerContext{run: run{queue: q, lock: q.locked}}
	}
	w.place = len(s.busy)
	s.busy = append(s.busy, w)
	ctx := w.ctx
	q.handOnLocked()
	q.mu.Unlock()
	fx.and(q.madeRoom()).perform()
	return ds, ctx
}

// claimLocked claims messages if the subscriber may have any.
func (w *worker[T]) claimLocked(fx **effects) (ds []Delivery[T]) {
	s, q := w.s, w.s.q
	if s.stopping || s.limitedLocked() > 0 {
		return nil
	}
	if s.most == 1 {
		ds = w.one[:0]
	}
	for len(ds) < s.most {
		d, more, ok := q.claimLocked(q.set.visibility, handling)
		*fx = (*fx).and(more)
		if !ok {
			break
		}
		ds = append(ds, d)
		w.claims = append(w.claims, claim{d.stamp, d.entry})
	}
	if s.set.every > 0 && len(ds) > 0 {
		s.nextAt = after(max(q.core.now(), s.nextAt), time.Duration(len(ds))*s.set.every)
	}
	return ds
}

// locked runs f while it holds the queue's lock.
func (q *Queue[T]) locked(f func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	f()
}

// putDownLocked says that the worker's handler runs no longer.
func (w *worker[T]) putDownLocked() {
	if len(w.claims) == 0 {
		return
	}
	s := w.s
	last := len(s.busy) - 1
	s.busy[w.place] = s.busy[last]
	s.busy[w.place].place = w.place
	s.busy[last] = nil
	s.busy = s.busy[:last]
	w.claims = w.claims[:0]
	clear(w.one[:])
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

// handle runs the handler on ds and settles them as it says.
func (w *worker[T]) handle(ctx *handlerContext, ds []Delivery[T]) {
	var timeout *time.Timer
	if d := w.s.set.handlerTimeout; d > 0 {
		q := w.s.q
		q.core.live.Add(1)
		timeout = time.AfterFunc(d, func() {
			defer q.core.release()
			ctx.cancel(fmt.Errorf("%w: queue %q: the handler timeout of %v has passed", context.DeadlineExceeded, q.name, d))
		})
	}
	returned := false
	defer func() {
		v := verdict{cause: Exited, wait: fromBackoff}
		if p := recover(); p != nil {
			v.cause, v.err, v.stack = Panicked, panicError(p), stack()
		}
		if !returned {
			w.stopTimeout(timeout)
			w.finish(ds, v)
		}
	}()
	v := judge(w.s.handler(ctx, ds)) // an error that panics when it is looked at is the handler's
	returned = true
	w.stopTimeout(timeout)
	w.finish(ds, v)
}

// stopTimeout ends the handler timeout. If it is too late to stop it, the
// context is cancelled or about to be: no other run may have it.
func (w *worker[T]) stopTimeout(timeout *time.Timer) {
	if timeout == nil {
		return
	}
	q := w.s.q
	if timeout.Stop() {
		q.core.release()
		return
	}
	q.locked(func() { w.cancelled = true })
}

// finish settles ds. The handler may have done so itself, or come too late: what
// it says then is told, not done.
func (w *worker[T]) finish(ds []Delivery[T], v verdict) {
	q := w.s.q
	for k := range ds {
		d := &ds[k]
		err := q.settle(d.entry, d.stamp, d.attempt, v)
		if err == nil || isClosed(err) || v.cause == Acked || len(ds) > 1 && errors.Is(err, ErrSettled) {
			continue
		}
		k := late
		if heardOfIt(v.err) {
			k = lateCancelled
		}
		q.mu.Lock()
		fx := q.noteLocked(nil, k, Event{
			MessageID: d.ID(), Attempt: d.Attempt(), Cause: v.cause, Err: v.err, Subscriber: w.s.site, Count: 1,
		})
		q.mu.Unlock()
		fx.perform()
	}
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
	run run // what it tells to publishes

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
		return &c.run
	}
	return c.real().Value(key)
}
