package core

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
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

	pool[T]

	// Immutable.
	handlers[T]
	prefetches bool // its workers prefetch messages
	timed      bool // its workers are timed
	keeps      bool // the slice that the handler gets is its to keep

	// Guarded by the queue's mu.
	labels  context.Context
	idle    []*worker[T]           // to be used again
	slab    *slab[T]               // nil if keeps is false
	ended   bool                   // stopping, and no worker is left
	done    chan struct{}          // closed when ended; made when somebody asks
	awaited map[chan struct{}]bool // of calls of Shutdown that wait: closed when ended

	interceptors *[]intercept.Interceptor // around each run of a handler; nil: none. Immutable
}

// A OneHandler works on one delivery.
type OneHandler[T any] func(ctx context.Context, d Delivery[T]) error

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
		return h.one(ctx, ds[0])
	}
	return h.batch(ctx, ds)
}

// Start adds a subscriber to the queue. It has one of the two handlers.
func Start[T any](q *Queue[T], one OneHandler[T], h BatchHandler[T], set settings.Subscriber) (*Subscriber[T], error) {
	most, keeps := set.Batch, true
	if one != nil {
		most, keeps = 1, false
	}
	s := &Subscriber[T]{handlers: handlers[T]{one, h}, keeps: keeps}
	s.pool = pool[T]{workers: s, q: q, most: most, set: set.Shared(), site: callSite()}
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
	q.subs = append(q.subs, &s.pool)
	q.free.add(&s.pool)
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
		w.returnWaitingLocked()
	}
	s.q.changedLocked()
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
	q.free.remove(&s.pool)
}

// visibility is how long after its start a delivery to the subscriber times out.
// Automatic extension makes it longer; only an engine's leases have to be renewed
// on the way.
func (s *Subscriber[T]) visibility() time.Duration {
	if s.q.renews {
		return s.q.set.Visibility
	}
	return max(s.q.set.Visibility, s.set.AutoExtend)
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

// trimLocked lets go of memory for batches to come.
func (s *Subscriber[T]) trimLocked() { s.slab.drop() }

// Made reports whether the subscriber is not the zero Subscriber.
func (s *Subscriber[T]) Made() bool { return s.q != nil }
