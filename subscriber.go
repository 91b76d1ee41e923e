package fanout

import (
	"context"
	"fmt"

	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/settings"
	"github.com/gofanout/fanout/internal/workers"
)

// A Subscriber is a pool of workers that run a handler over a queue. Several
// subscribers of one queue compete for its messages. Workers are goroutines
// that exist only while there is something to do: an idle subscriber owns none.
//
// All methods may be called concurrently. A subscriber is made by
// [Topic.Subscribe] or [Queue.Subscribe].
type Subscriber[T any] struct{ core workers.Subscriber[T] }

// Subscribe runs h over the queue by a pool of workers, beside those that the queue has
// already. ctx bounds the set-up only: the workers go on when it ends, until
// [Subscriber.Shutdown] or the end of the queue. In memory Subscribe never waits. It returns
// [ErrClosed], [ErrInvalidOption], or ctx's error if that has ended.
func (q *Queue[T]) Subscribe(ctx context.Context, h Handler[T], options ...WorkerOption) (*Subscriber[T], error) {
	return q.subscribe(ctx, h, nil, options)
}

// SubscribeBatch is [Queue.Subscribe] for a handler that takes several messages
// at a time.
func (q *Queue[T]) SubscribeBatch(ctx context.Context, h BatchHandler[T], options ...WorkerOption) (*Subscriber[T], error) {
	return q.subscribe(ctx, nil, h, options)
}

func (q *Queue[T]) subscribe(ctx context.Context, one Handler[T], h BatchHandler[T], options []WorkerOption) (*Subscriber[T], error) {
	set := settings.DefaultSubscriber()
	if err := applyAll(options, func(o WorkerOption) error { return o.applyWorker(&set) }); err != nil {
		return nil, err
	}
	if err := checkSubscribe(ctx, one, h, &set); err != nil {
		return nil, err
	}
	if err := q.made(); err != nil {
		return nil, err
	}
	return q.start(one, h, set)
}

// start adds a subscriber with one of the two handlers.
func (q *Queue[T]) start(one Handler[T], h BatchHandler[T], set settings.Subscriber) (*Subscriber[T], error) {
	s, err := workers.Start(&q.core, one.core(), h.core(), set)
	if err != nil {
		return nil, err
	}
	return subscriberOf(s), nil
}

func checkSubscribe[T any](ctx context.Context, one Handler[T], h BatchHandler[T], set *settings.Subscriber) error {
	if ctx == nil {
		return fmt.Errorf("%w: %w", ErrInvalidOption, message.ErrNilContext)
	}
	if one == nil && h == nil {
		return invalid("Subscribe", "nil handler", "a handler")
	}
	if set.BatchAsked && h == nil {
		return invalid("WithBatchSize", set.Batch, "a batch handler: this one takes one message, see SubscribeBatch")
	}
	if ctx.Err() != nil {
		return fmt.Errorf("fanout: subscribe: %w", message.ContextError(ctx))
	}
	return nil
}

// Queue returns the queue that the subscriber works on.
func (s *Subscriber[T]) Queue() *Queue[T] { return queueOf(s.core.Queue()) }

// Done returns a channel that is closed when the subscriber has been stopped,
// by Shutdown or by the end of its queue, and its last handler has returned.
func (s *Subscriber[T]) Done() <-chan struct{} { return s.core.Done() }

// Shutdown stops the workers: they take no more messages, and it waits until running
// handlers have settled theirs. The queue stays open.
//
// If ctx ends first, the contexts of the handlers that still run are cancelled with a cause
// that wraps [ErrClosed], and Shutdown returns an error that wraps ctx's and says how many
// run. These handlers keep their messages until they return or their visibility timeouts
// pass. Nil acknowledges. An error that wraps [context.Canceled] or that cause releases the
// message: others get it at once, and no attempt is spent.
//
// A second call waits again. A handler of this subscriber that calls Shutdown waits for
// itself until ctx ends.
func (s *Subscriber[T]) Shutdown(ctx context.Context) error {
	if ctx == nil {
		return fmt.Errorf("%w: Shutdown: %w", ErrInvalidOption, message.ErrNilContext)
	}
	if !s.core.Made() {
		return zeroValue(s, "Subscribe")
	}
	return s.core.Shutdown(ctx)
}
