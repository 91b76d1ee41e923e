package core

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gofanout/fanout/internal/intercept"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/settings"
)

// A Subscriber is a pool of workers that run a handler over a queue.
type Subscriber[T any] struct {
	// A worker is a goroutine that claims what the handler takes at a time, runs
	// the handler on it, settles it and claims the next, until there is none. The
	// queue starts it when something is ready (handOnLocked) and it ends by itself.
	//
	// Invariants:
	//   - running <= concurrency, and running counts the worker goroutines;
	//   - busy holds the workers whose handler is running, stuck counts those of
	//     them whose delivery has timed out.

	// Immutable.
	q *Queue[T]
	handlers[T]
	prefetches bool // its workers prefetch messages
	timed      bool // its workers are timed
	keeps      bool // the slice that the handler gets is its to keep
	most       int  // messages that the handler gets
	set        *settings.SubscriberLimits
	site       string // file and line that subscribed

	// Guarded by the queue's mu.
	running  int
	stuck    int
	nextAt   atomic.Int64 // no delivery may start before, for the rate limit; written without mu too
	labels   context.Context
	busy     []*worker[T]
	idle     []*worker[T] // to be used again
	slab     *slab[T]     // nil if keeps is false
	stopping bool
	ended    bool                   // stopping, and no worker is left
	done     chan struct{}          // closed when ended; made when somebody asks
	place    int                    // in the queue's subs
	awaited  map[chan struct{}]bool // of calls of Shutdown that wait: closed when ended

	nextFree, previousFree *Subscriber[T] // see freeSubscribers

	interceptors *[]intercept.Interceptor // around each run of a handler; nil: none. Immutable
}

// A OneHandler works on one delivery, which it may not keep.
type OneHandler[T any] func(ctx context.Context, d *Delivery[T]) error

// A BatchHandler works on several deliveries at once. It may keep the slice.
type BatchHandler[T any] func(ctx context.Context, ds []Delivery[T]) error

// handlers are a handler: one of the two.
type handlers[T any] struct {
	one   OneHandler[T]
	batch BatchHandler[T]
}

// run runs the handler on what it takes at a time.
func (h *handlers[T]) run(ctx context.Context, ds []Delivery[T]) error {
	if h.one != nil {
		return h.one(ctx, &ds[0])
	}
	return h.batch(ctx, ds)
}

// Start adds a subscriber to the queue. It has one of the two handlers.
func (q *Queue[T]) Start(one OneHandler[T], h BatchHandler[T], set settings.Subscriber) (*Subscriber[T], error) {
	most, keeps := set.Batch, true
	if one != nil {
		most, keeps = 1, false
	}
	s := &Subscriber[T]{q: q, handlers: handlers[T]{one, h}, most: most, keeps: keeps, set: set.Shared(), site: callSite()}
	if is := append(slices.Clip(q.core.around), set.Interceptors...); len(is) > 0 {
		s.interceptors = &is
	}
	s.prefetches, s.timed = !q.direct, s.isTimed()
	if keeps {
		s.slab = new(slab[T])
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return nil, fmt.Errorf("fanout: subscribe to %q: %w", q.name, message.ErrClosed)
	}
	s.place = len(q.subs)
	q.subs = append(q.subs, s)
	q.free.add(s)
	q.consumers += set.Concurrency
	q.handOnLocked()
	return s, nil
}

// Queue returns the queue that the subscriber works on.
func (s *Subscriber[T]) Queue() *Queue[T] { return s.q }

// Done returns a channel that is closed when the subscriber has been stopped and its last
// handler has returned.
func (s *Subscriber[T]) Done() <-chan struct{} {
	s.q.mu.Lock()
	defer s.q.mu.Unlock()
	return s.doneLocked()
}

func (s *Subscriber[T]) doneLocked() <-chan struct{} {
	if s.done == nil {
		s.done = make(chan struct{})
		if s.ended {
			close(s.done)
		}
	}
	return s.done
}

// Shutdown stops the workers, and waits until running handlers have settled what they have, or
// ctx ends.
func (s *Subscriber[T]) Shutdown(ctx context.Context) error {
	q := s.q
	q.mu.Lock()
	s.stopLocked()
	q.handOnLocked()
	if s.ended {
		q.mu.Unlock()
		return nil
	}
	done := make(chan struct{}) // of this call alone, see Subscriber.Done
	if s.awaited == nil {
		s.awaited = make(map[chan struct{}]bool)
	}
	s.awaited[done] = true
	q.mu.Unlock()
	defer q.Locked(func() { delete(s.awaited, done) })
	select {
	case <-done:
		return nil
	default:
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	q.mu.Lock()
	running := s.handlersLocked()
	for _, w := range s.busy {
		w.cancelLocked(fmt.Errorf("%w: the subscriber of queue %q was shut down", message.ErrClosed, q.name))
	}
	q.unlock()
	what := plural(running, "handler")
	if running == 0 { // workers between two messages, or settling: on their way home, or a hook or an engine keeps them
		select {
		case <-done:
			return nil
		default:
			what = "a worker"
		}
	}
	return fmt.Errorf("fanout: shutdown of a subscriber of %q: %s still running: %w", q.name, what, message.ContextError(ctx))
}

// handlersLocked returns how many handlers run.
func (s *Subscriber[T]) handlersLocked() (n int) {
	for _, w := range s.busy {
		if !w.returned {
			n++
		}
	}
	return n
}

// stopLocked makes the workers end, and takes the subscriber from its queue
// once they have.
func (s *Subscriber[T]) stopLocked() {
	if s.stopping {
		return
	}
	s.stopping = true
	s.q.consumers -= s.set.Concurrency
	s.q.serving -= int32(s.running)
	for _, w := range s.busy {
		if w.lease != nil {
			s.q.takeBackLocked(w.lease)
		}
	}
	if s.q.remote != nil {
		s.q.remote.stopPollLocked()
	}
	s.checkDoneLocked()
}

func (s *Subscriber[T]) checkDoneLocked() {
	if !s.stopping || s.running > 0 || s.ended {
		return
	}
	s.ended, s.idle = true, nil
	if s.done != nil {
		close(s.done)
	}
	for done := range s.awaited {
		close(done)
	}
	s.awaited = nil
	q := s.q
	last := len(q.subs) - 1
	q.subs[s.place] = q.subs[last]
	q.subs[s.place].place = s.place
	q.subs[last] = nil
	q.subs = q.subs[:last]
	q.free.remove(s)
}

// freeSubscribers is a ring of a queue's subscribers: each that may start one more
// worker is in it, and others until first meets them. They take turns: last is the one
// that started the latest worker, and the next one follows it. Guarded by the queue's mu.
type freeSubscribers[T any] struct{ last *Subscriber[T] }

// mayStart reports whether the subscriber may start one more worker.
func (s *Subscriber[T]) mayStart() bool { return !s.stopping && s.running < s.set.Concurrency }

// add puts a subscriber that may start a worker behind all others.
func (f *freeSubscribers[T]) add(s *Subscriber[T]) {
	if s.nextFree != nil {
		return
	}
	s.nextFree, s.previousFree = s, s
	if f.last != nil {
		s.previousFree, s.nextFree = f.last, f.last.nextFree
		s.previousFree.nextFree, s.nextFree.previousFree = s, s
	}
	f.last = s
}

// remove takes a subscriber out, if it is in the ring.
func (f *freeSubscribers[T]) remove(s *Subscriber[T]) {
	if s.nextFree == nil {
		return
	}
	s.previousFree.nextFree, s.nextFree.previousFree = s.nextFree, s.previousFree
	if f.last == s {
		f.last = s.previousFree
		if f.last == s {
			f.last = nil
		}
	}
	s.nextFree, s.previousFree = nil, nil
}

// first returns the subscriber whose turn it is, of those that may start a worker and
// whose rate limits let a message start. If only rate limits prevent it, it returns
// nil and until when.
func (f *freeSubscribers[T]) first() (sub *Subscriber[T], limited int64) {
	if f.last == nil {
		return nil, 0
	}
	for s, end := f.last.nextFree, f.last; ; {
		next, atEnd := s.nextFree, s == end
		if !s.mayStart() {
			f.remove(s)
		} else if at := s.limitedLocked(); at == 0 {
			return s, 0
		} else if limited == 0 || at < limited {
			limited = at
		}
		if atEnd {
			return nil, limited
		}
		s = next
	}
}

// visibility is how long after its start a delivery to the subscriber times out.
// Automatic extension makes it longer; only an engine's leases have to be renewed
// on the way.
func (s *Subscriber[T]) visibility() time.Duration {
	if s.q.remote != nil {
		return s.q.set.Visibility
	}
	return max(s.q.set.Visibility, s.set.AutoExtend)
}

// limitedLocked returns until when the rate limit lets no delivery start, 0 if
// one may start now.
func (s *Subscriber[T]) limitedLocked() int64 {
	if s.set.Every == 0 {
		return 0
	}
	if now, at := s.q.core.now(), s.nextAt.Load(); !s.mayStartAt(now, at) {
		return at
	}
	return 0
}

// mayStartAt reports whether a delivery may start now, given the instant before which none
// may. One that is too late is of the clock of another bubble.
func (s *Subscriber[T]) mayStartAt(now, at int64) bool {
	return at <= now || at > after(now, time.Duration(s.most)*s.set.Every)
}

// pass says that a delivery starts now, if the rate limit lets one, and reports whether it
// does. Anyone may call it.
func (s *Subscriber[T]) pass(now int64) bool {
	if s.set.Every == 0 {
		return true
	}
	at := s.nextAt.Load()
	return s.mayStartAt(now, at) && s.nextAt.CompareAndSwap(at, after(now, s.set.Every))
}

// passMore says that n more deliveries have started with one that did.
func (s *Subscriber[T]) passMore(n int) { s.nextAt.Add(int64(n) * int64(s.set.Every)) }

// unpass says that the delivery that was to start now has not.
func (s *Subscriber[T]) unpass(now int64) {
	if s.set.Every > 0 {
		s.nextAt.CompareAndSwap(after(now, s.set.Every), now)
	}
}

// callSite is the file and line that called into this package, to name a
// subscriber by the place where it was made.
func callSite() string {
	var pcs [8]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(3, pcs[:])])
	for {
		f, more := frames.Next()
		if !ours(f.Function) || strings.HasSuffix(f.File, "_test.go") {
			return lastTwo(f.File) + ":" + strconv.Itoa(f.Line)
		}
		if !more {
			return "unknown"
		}
	}
}

// lastTwo is a file with its folder.
func lastTwo(path string) string {
	if k := strings.LastIndexByte(path, '/'); k > 0 {
		return path[strings.LastIndexByte(path[:k], '/')+1:]
	}
	return path
}

// ours reports whether a function is of package fanout, or of this one.
func ours(function string) bool {
	return strings.HasPrefix(function, "github.com/gofanout/fanout.") || strings.HasPrefix(function, "github.com/gofanout/fanout/internal/core.")
}
