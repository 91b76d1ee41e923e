package workers

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/gofanout/fanout/internal/callsite"
	"github.com/gofanout/fanout/internal/consumers"
	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/intercept"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/settings"
)

// A Subscriber is a pool of workers that run a handler over a queue.
type Subscriber[T any] struct {
	// A worker is a goroutine that claims what the handler takes at a time, runs
	// the handler on it, settles it and claims the next, until there is none. The
	// queue starts it when something is ready (HandOnLocked) and it ends by itself.

	consumers.Pool[T]

	// Immutable.
	Q *queue.Queue[T]
	handlers[T]
	prefetches bool // its workers prefetch messages
	timed      bool // its workers are timed

	// Guarded by the queue's Mu.
	labels  context.Context
	idle    []*Worker[T]           // to be used again
	ended   bool                   // stopping, and no worker is left
	done    chan struct{}          // closed when ended; made when somebody asks
	awaited map[chan struct{}]bool // of calls of Shutdown that wait: closed when ended

	interceptors *[]intercept.Interceptor // around each run of a handler; nil: none. Immutable
}

// A OneHandler works on one delivery.
type OneHandler[T any] func(ctx context.Context, d delivery.Delivery[T]) error

// A BatchHandler works on several deliveries at once. It has the slice until it returns.
type BatchHandler[T any] func(ctx context.Context, ds []delivery.Delivery[T]) error

// handlers are a handler: one of the two.
type handlers[T any] struct {
	one   OneHandler[T]
	batch BatchHandler[T]
}

// run runs the handler on what it takes at a time.
func (h *handlers[T]) run(ctx context.Context, ds []delivery.Delivery[T]) error {
	if h.one != nil {
		return h.one(ctx, ds[0])
	}
	return h.batch(ctx, ds)
}

// Start adds a subscriber to the queue. It has one of the two handlers.
func Start[T any](q *queue.Queue[T], one OneHandler[T], h BatchHandler[T], set settings.Subscriber) (*Subscriber[T], error) {
	most := set.Batch
	if one != nil {
		most = 1
	}
	s := &Subscriber[T]{Q: q, handlers: handlers[T]{one, h}}
	s.Pool = consumers.Pool[T]{Workers: s, Clock: &q.Core.Clock, Most: most, Set: set.Shared(), Site: callsite.Of()}
	if is := append(slices.Clip(q.Core.Around), set.Interceptors...); len(is) > 0 {
		s.interceptors = &is
	}
	s.prefetches, s.timed = !q.Store.Direct, s.isTimed()
	q.Mu.Lock()
	defer q.Mu.Unlock()
	if q.Store.Closed {
		return nil, fmt.Errorf("fanout: subscribe to %q: %w", q.Name(), message.ErrClosed)
	}
	s.Place = int32(len(q.Group.Subs))
	q.Group.Subs = append(q.Group.Subs, &s.Pool)
	q.Group.Free.Add(&s.Pool)
	q.Group.Consumers += set.Concurrency
	q.HandOnLocked()
	return s, nil
}

// Queue returns the queue that the subscriber works on.
func (s *Subscriber[T]) Queue() *queue.Queue[T] { return s.Q }

// Done returns a channel that is closed when the subscriber has been stopped and its last
// handler has returned.
func (s *Subscriber[T]) Done() <-chan struct{} {
	s.Q.Mu.Lock()
	defer s.Q.Mu.Unlock()
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
	q := s.Q
	q.Mu.Lock()
	s.StopLocked()
	q.HandOnLocked()
	if s.ended {
		q.Mu.Unlock()
		return nil
	}
	done := make(chan struct{}) // of this call alone, see Subscriber.Done
	if s.awaited == nil {
		s.awaited = make(map[chan struct{}]bool)
	}
	s.awaited[done] = true
	q.Mu.Unlock()
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
	q.Mu.Lock()
	running := s.HandlersLocked()
	for _, w := range s.Busy {
		w.CancelLocked(fmt.Errorf("%w: the subscriber of queue %q was shut down", message.ErrClosed, q.Name()))
	}
	q.Unlock()
	what := message.Plural(running, "handler")
	if running == 0 { // workers between two messages, or settling: on their way home, or a hook or an engine keeps them
		select {
		case <-done:
			return nil
		default:
			what = "a worker"
		}
	}
	return fmt.Errorf("fanout: shutdown of a subscriber of %q: %s still running: %w", q.Name(), what, message.ContextError(ctx))
}

// StopLocked makes the workers end, and takes the subscriber from its queue
// once they have.
func (s *Subscriber[T]) StopLocked() {
	if s.Stopping {
		return
	}
	s.Stopping = true
	s.Q.Group.Consumers -= s.Set.Concurrency
	s.Q.Group.Serving -= s.Running
	for _, w := range s.Busy {
		w.ReturnWaitingLocked()
	}
	s.Q.ChangedLocked()
	s.checkDoneLocked()
}

func (s *Subscriber[T]) checkDoneLocked() {
	if !s.Stopping || s.Running > 0 || s.ended {
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
	q := s.Q
	last := len(q.Group.Subs) - 1
	q.Group.Subs[s.Place] = q.Group.Subs[last]
	q.Group.Subs[s.Place].Place = s.Place
	q.Group.Subs[last] = nil
	q.Group.Subs = q.Group.Subs[:last]
	q.Group.Free.Remove(&s.Pool)
}

// visibility is how long after its start a delivery to the subscriber times out.
// Automatic extension makes it longer; only an engine's leases have to be renewed
// on the way.
func (s *Subscriber[T]) visibility() time.Duration {
	if s.Q.Renews {
		return s.Q.Store.Set.Visibility
	}
	return max(s.Q.Store.Set.Visibility, s.Set.AutoExtend)
}

// Made reports whether the subscriber is not the zero Subscriber.
func (s *Subscriber[T]) Made() bool { return s.Q != nil }
