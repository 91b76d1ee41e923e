package guide_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
)

// ErrDown is what a handler returns while the service that it calls is down.
var ErrDown = errors.New("the service is down")

// A Breaker pauses a queue while the service that its handler calls is down.
type Breaker[T any] struct {
	Queue    *fanout.Queue[T]
	Failures int           // the queue is paused after so many in a row
	Pause    time.Duration // for so long

	mu     sync.Mutex // guards the fields below
	failed int        // in a row
	paused bool
}

// Guard puts the breaker in front of a handler.
func (b *Breaker[T]) Guard(handle fanout.Handler[T]) fanout.Handler[T] {
	return func(ctx context.Context, d fanout.Delivery[T]) error {
		err := handle(ctx, d)
		if !errors.Is(err, ErrDown) {
			b.succeeded()
			return err
		}
		if b.mustPause() {
			if err := b.Queue.Pause(ctx); err == nil {
				time.AfterFunc(b.Pause, b.tryAgain)
			}
		}
		return fanout.Release(err) // the message is not to blame: no attempt is spent
	}
}

func (b *Breaker[T]) succeeded() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failed = 0
}

func (b *Breaker[T]) mustPause() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failed++
	if b.paused || b.failed < b.Failures {
		return false
	}
	b.paused = true
	return true
}

// tryAgain resumes the queue. One more failure pauses it again.
func (b *Breaker[T]) tryAgain() {
	b.mu.Lock()
	b.paused, b.failed = false, b.Failures-1
	b.mu.Unlock()
	_ = b.Queue.Resume(context.Background()) // ErrClosed: there is nothing to resume any more
}

func TestACircuitBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, begin := t.Context(), time.Now()
		payments, err := fanout.NewTopic[string]("payments")
		require.NoError(t, err)
		queue, err := payments.OpenQueue(ctx, "billing", fanout.WithBackoff(fanout.Constant(time.Second)))
		require.NoError(t, err)

		calls, charged := 0, map[string]time.Duration{}
		charge := func(_ context.Context, d fanout.Delivery[string]) error { // the bank is down for an hour
			calls++
			if time.Since(begin) < time.Hour {
				return ErrDown
			}
			require.Equal(t, 1, d.Attempt())
			charged[d.Body] = time.Since(begin)
			return nil
		}
		breaker := &Breaker[string]{Queue: queue, Failures: 3, Pause: 10 * time.Minute}
		_, err = queue.Subscribe(ctx, breaker.Guard(charge))
		require.NoError(t, err)

		for _, order := range []string{"o-17", "o-18", "o-19", "o-20"} {
			require.NoError(t, payments.Publish(ctx, order))
		}
		time.Sleep(2 * time.Hour)
		require.NoError(t, payments.Shutdown(ctx))
		require.Equal(t, map[string]time.Duration{"o-17": time.Hour, "o-18": time.Hour, "o-19": time.Hour, "o-20": time.Hour}, charged)
		require.Equal(t, 3+5+4, calls, "three find that the bank is down, one every ten minutes that it still is")
		require.Zero(t, queue.Stats().Dead)
	})
}
