package lifecycle

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/alarm"
	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/settings"
	"github.com/gofanout/fanout/internal/store"
	"github.com/gofanout/fanout/internal/workers"
)

func TestAPauseKeepsWhatIsReadyUntilTheResume(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t)
		h.publish(1, 2)
		d := take(t, h.q, 1)[0]
		require.NoError(t, Pause(ctx, h.q))
		requireNone(t, h.q)
		require.NoError(t, d.Ack(ctx), "what is in flight goes on")
		require.NoError(t, Resume(ctx, h.q))
		drained := AwaitDrained(h.q)
		require.NotNil(t, drained)
		require.NoError(t, Pause(ctx, h.q))
		requireDone(t, drained) // what is ready is not waited for
		require.Nil(t, AwaitDrained(h.q))
		got := make(chan int, 1)
		go func() {
			ds, err := delivery.TakeBatch(ctx, h.q, 1, time.Minute)
			if err == nil {
				got <- ds[0].Body
			}
		}()
		synctest.Wait()
		require.Empty(t, got)
		require.NoError(t, Resume(ctx, h.q))
		require.Equal(t, 2, <-got)
		require.NoError(t, Resume(ctx, h.q))
		h.end(t)
		for _, err := range []error{Pause(ctx, h.q), Resume(ctx, h.q)} {
			require.EqualError(t, err, `fanout: closed: queue "q"`)
			require.ErrorIs(t, err, message.ErrClosed)
		}
	})
}

// What a worker has prefetched and not begun stays in the queue, at its place.
func TestAPauseTakesBackWhatIsPrefetched(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t)
		reached, goOn := make(chan struct{}), make(chan struct{})
		handled := 0
		_, err := workers.Start(h.q, func(_ context.Context, d delivery.Delivery[int]) error {
			if handled++; d.Body == 50 {
				close(reached)
				<-goOn
			}
			return nil
		}, nil, settings.DefaultSubscriber())
		require.NoError(t, err)
		bodies := make([]int, 100)
		for k := range bodies {
			bodies[k] = k
		}
		h.publish(bodies...)
		<-reached
		require.Positive(t, h.q.Store.Leases.Waiting())
		require.NoError(t, Pause(ctx, h.q))
		require.Zero(t, h.q.Store.Leases.Waiting())
		close(goOn)
		synctest.Wait()
		require.Equal(t, 51, handled)
		require.Equal(t, counts{ready: 49, acked: 51}, countsOf(h.q))
		require.NoError(t, Resume(ctx, h.q))
		synctest.Wait()
		require.Equal(t, 100, handled)
		h.end(t)
	})
}

func TestAPurgeDropsAllThatTheQueueHolds(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var told []notice.Event
		h := newHome(t, dropped(&told))
		n, err := Purge(ctx, h.q)
		require.NoError(t, err)
		require.Zero(t, n)
		require.Empty(t, told, "nothing was dropped")

		h.publish(1, 2, 3, 4)
		ds := take(t, h.q, 3)
		require.NoError(t, ds[0].NackAfter(ctx, time.Hour))
		require.NoError(t, ds[1].Ack(ctx))
		elapse(10 * time.Millisecond)
		drained := AwaitDrained(h.q)
		n, err = Purge(ctx, h.q)
		require.NoError(t, err)
		require.Equal(t, 3, n)
		require.Equal(t, []notice.Event{{Queue: "q", Reason: notice.DroppedByPurge, Count: 3}}, told)
		<-drained
		require.ErrorIs(t, ds[2].Ack(ctx), message.ErrStale)
		require.ErrorIs(t, ds[1].Ack(ctx), message.ErrSettled)
		require.Equal(t, counts{acked: 1}, countsOf(h.q))
		elapse(alarm.SpareAge)
		require.False(t, h.q.Inside().TimerArmed, "there is nothing to wait for")
		h.publish(5)
		require.Equal(t, 5, take(t, h.q, 1)[0].Body, "the queue goes on")
		h.end(t)
		n, err = Purge(ctx, h.q)
		require.Zero(t, n)
		require.EqualError(t, err, `fanout: closed: queue "q"`)
		require.ErrorIs(t, err, message.ErrClosed)
	})
}

// Handlers whose messages were dropped hear of it by their contexts: those that work through
// a lease, those of batches, and those of an entry of the window.
func TestAPurgeCancelsTheHandlersOfWhatItDrops(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t)
		causes := make(chan error, 3)
		hangs := func(ctx context.Context) error {
			<-ctx.Done()
			causes <- context.Cause(ctx)
			return errors.New("late")
		}
		one := settings.DefaultSubscriber()
		_, err := workers.Start(h.q, func(ctx context.Context, d delivery.Delivery[int]) error { return hangs(ctx) }, nil, one)
		require.NoError(t, err)
		h.publish(1)
		synctest.Wait()
		_, err = workers.Start(h.q, nil, func(ctx context.Context, ds []delivery.Delivery[int]) error { return hangs(ctx) }, one)
		require.NoError(t, err)
		h.publish(2, 3)
		synctest.Wait()
		n, err := Purge(ctx, h.q)
		require.NoError(t, err)
		require.Equal(t, 3, n)
		for range 2 {
			require.EqualError(t, <-causes, `fanout: stale delivery: queue "q" was purged`)
		}
		synctest.Wait()
		require.Equal(t, counts{}, countsOf(h.q), "what they returned touches nothing")
		h.end(t)
	})
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t)
		d := queue.NewDeadLetterQueue[int](h.Core, nil, "letters", settings.DefaultQueue().Limits)
		h.Live.Add(1)
		d.Locked(func() {
			d.Store.Offered += 2
			for k := range 2 {
				d.Store.Admit(store.Held[int]{Item: message.Item[int]{Seq: uint64(k + 1), Body: k}}, store.Backlogged)
			}
		})
		taken := take(t, d, 1)[0] // by no worker
		cause := make(chan error, 1)
		_, err := workers.Start(d, func(ctx context.Context, _ delivery.Delivery[int]) error {
			<-ctx.Done()
			cause <- context.Cause(ctx)
			return nil
		}, nil, settings.DefaultSubscriber())
		require.NoError(t, err)
		synctest.Wait()
		n, err := Purge(ctx, d)
		require.NoError(t, err)
		require.Equal(t, 2, n)
		require.EqualError(t, <-cause, `fanout: stale delivery: queue "letters" was purged`)
		require.ErrorIs(t, taken.Ack(ctx), message.ErrStale)
		require.NoError(t, Close(d))
		h.end(t)
	})
}

// Whoever waits for room goes on when a queue is emptied, as who waits for a message does.
func TestAPurgeMakesRoom(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t, limits(func(q *settings.Limits) { q.Capacity = 2 }))
		h.publish(1, 2)
		require.Zero(t, h.q.Store.Room())
		_, err := Purge(ctx, h.q)
		require.NoError(t, err)
		require.EqualValues(t, 2, h.q.Store.Room())
		h.end(t)
	})
}

// A shutdown waits for what is ready, retrying, in flight and in a handler.
func TestWhatAShutdownWaitsFor(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t)
		require.Nil(t, AwaitDrained(h.q), "there is nothing")
		h.publish(1)
		drained := AwaitDrained(h.q)
		require.NotNil(t, drained)
		require.Equal(t, drained, AwaitDrained(h.q), "all wait for one thing")
		d := take(t, h.q, 1)[0]
		require.NoError(t, d.Nack(ctx))
		elapse(time.Second)
		d = take(t, h.q, 1)[0]
		select {
		case <-drained:
			t.Fatal("it is in flight")
		default:
		}
		Drain(h.q)
		require.NoError(t, d.Release(ctx))
		<-drained
		require.Nil(t, AwaitDrained(h.q))
		requireNone(t, h.q) // what is released while its topic shuts down stays so
		require.NoError(t, Close(h.q))
		require.Equal(t, 1, h.left.Released)
		require.Equal(t, []int{1}, bodiesOf(Leftovers(h.q)))
		h.over()
	})
}

// What is parked is dead: it is counted as such, and is left over as what waits is.
func TestWhatIsParkedIsLeftOver(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t, attempts(1), limits(func(q *settings.Limits) { q.DeadCapacity, q.TTL = 1, time.Minute }))
		h.publish(1, 2)
		for _, d := range take(t, h.q, 2) {
			require.NoError(t, d.Settle(ctx, errBusy))
		}
		elapse(time.Hour)
		require.NoError(t, Close(h.q))
		require.Equal(t, 1, h.left.Parked)
		require.Equal(t, []int{2}, bodiesOf(Leftovers(h.q)), "it is not dead a second time by its time to live")
		h.over()
	})
}
