// Stats belong to one instant, count each message once, and know how old the oldest is.

package observing_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/internal/tests/kit"
)

func TestOldestAgeIsThatOfTheOldestReadyMessage(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "audit", fanout.WithVisibilityTimeout(time.Hour))
		age := func(want time.Duration) {
			t.Helper()
			require.Equal(t, want, q.Stats().OldestAge)
		}
		age(0)
		for n := range 4 {
			kit.Publish(t, top, n)
			time.Sleep(time.Second)
		}
		age(4 * time.Second)
		first := kit.Receive(t, q)
		age(3 * time.Second) // what is in flight is not ready
		second := kit.Receive(t, q)
		age(2 * time.Second)
		require.NoError(t, second.NackAfter(ctx, time.Second))
		age(2 * time.Second) // nor is what waits for its retry
		time.Sleep(time.Second)
		synctest.Wait()
		age(4 * time.Second) // it is due, and older than the backlog
		require.NoError(t, first.NackAfter(ctx, time.Second))
		time.Sleep(time.Second)
		synctest.Wait()
		age(6 * time.Second) // it stands behind a younger one
		_, err := q.Purge(ctx)
		require.NoError(t, err)
		age(0)
		require.NoError(t, top.Close())
	})
}

func TestOldestAgeOfWhatTimedOutTogether(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "audit", fanout.WithVisibilityTimeout(10*time.Second))
		for n := range 5 {
			kit.Publish(t, top, n)
			time.Sleep(time.Second)
		}
		for range 5 {
			kit.Receive(t, q)
		}
		time.Sleep(11 * time.Second)
		require.Equal(t, 16*time.Second, q.Stats().OldestAge)
		kit.Receive(t, q)
		require.Equal(t, 15*time.Second, q.Stats().OldestAge)
		require.NoError(t, top.Close())
	})
}

func TestOldestAgeOfDeadLetters(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "audit", fanout.WithMaxAttempts(1), fanout.WithVisibilityTimeout(time.Hour))
		kit.Publish(t, top, 1)
		time.Sleep(time.Second)
		kit.Publish(t, top, 2)
		older, newer := kit.Receive(t, q), kit.Receive(t, q)
		require.NoError(t, newer.Nack(ctx))
		require.Zero(t, q.DeadLetters().Stats().OldestAge)
		require.NoError(t, older.Nack(ctx)) // it died later
		require.Equal(t, time.Second, q.DeadLetters().Stats().OldestAge)
		require.NoError(t, top.Close())
	})
}

func TestEventsAndInfoTellWhenTheMessageWasPublished(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		start := time.Now()
		told := map[string]time.Time{}
		note := func(name string) func(fanout.Event) { return func(e fanout.Event) { told[name] = e.PublishedAt } }
		top := kit.NewTopic[int](t, fanout.WithHooks(fanout.Hooks{
			Published: note("published"), Delivered: note("delivered"), Settled: note("settled"),
			DeadLettered: note("dead"), Redriven: note("redriven"),
		}), fanout.WithHandlerInterceptor(func(ctx context.Context, i fanout.Info, next func(context.Context) error) error {
			told["info"] = i.PublishedAt
			return next(ctx)
		}))
		q := kit.OpenQueue(t, top, "audit", fanout.WithMaxAttempts(1))
		kit.Publish(t, top, 1)
		time.Sleep(time.Minute)
		require.NoError(t, kit.Receive(t, q).Nack(ctx))
		time.Sleep(time.Minute)
		_, err := q.Redrive(ctx)
		require.NoError(t, err)
		_, err = q.Subscribe(ctx, func(context.Context, fanout.Delivery[int]) error { return nil })
		require.NoError(t, err)
		synctest.Wait()
		require.Len(t, told, 6)
		for name, at := range told {
			require.True(t, start.Equal(at), "%s: %v", name, at)
		}
		require.NoError(t, top.Close())
	})
}

func TestStatsWhileAHandIsWorkedOffCountEachDeliveryOnce(t *testing.T) {
	const n = 100_000
	top, err := fanout.NewTopic[int]("t")
	require.NoError(t, err)
	sub, err := top.Subscribe(t.Context(), "q", func(context.Context, fanout.Delivery[int]) error { return nil })
	require.NoError(t, err)
	q, stop, over := sub.Queue(), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(over)
		for {
			select {
			case <-stop:
				return
			default:
				q.Stats()
			}
		}
	}()
	for k := range n {
		require.NoError(t, top.Publish(t.Context(), k))
	}
	require.NoError(t, top.Shutdown(t.Context()))
	close(stop)
	<-over
	require.EqualValues(t, n, q.Stats().Delivered)
}

// A worker, and a range, step through what they prefetched while Stats counts it.
func TestStatsOfAHandBelongToOneInstant(t *testing.T) {
	const batch = 1000
	batches := 4000
	if testing.Short() {
		batches = 400
	}
	for name, consume := range map[string]func(ctx context.Context, q *fanout.Queue[int]){
		"a handler": func(ctx context.Context, q *fanout.Queue[int]) { _, _ = q.Subscribe(ctx, kit.HandleNothing) },
		"a range": func(ctx context.Context, q *fanout.Queue[int]) {
			for d := range q.Deliveries(ctx) {
				_ = d.Ack(ctx)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			top := kit.NewTopic[int](t)
			q := kit.OpenQueue(t, top, "q", fanout.WithCapacity(100*batch))
			var all sync.WaitGroup
			all.Go(func() { consume(ctx, q) })
			all.Go(func() {
				for range batches {
					_ = top.PublishMessages(ctx, kit.Numbered(batch)...)
				}
			})
			for s := q.Stats(); s.Acked < uint64(batch*batches); s = q.Stats() {
				if s.InFlight > 1 || s.Delivered-s.Acked > 1 {
					t.Errorf("one consumer: %d in flight, %d delivered, %d acknowledged", s.InFlight, s.Delivered, s.Acked)
					break
				}
			}
			require.NoError(t, top.Shutdown(ctx))
			all.Wait()
			<-top.Done()
		})
	}
}
