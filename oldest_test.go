package fanout

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestOldestAgeIsThatOfTheOldestReadyMessage(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "audit", WithVisibilityTimeout(time.Hour))
		age := func(want time.Duration) {
			t.Helper()
			require.Equal(t, want, q.Stats().OldestAge)
		}
		age(0)
		for n := range 4 {
			publish(t, top, n)
			time.Sleep(time.Second)
		}
		age(4 * time.Second)
		first := receive(t, q)
		age(3 * time.Second) // what is in flight is not ready
		second := receive(t, q)
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
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "audit", WithVisibilityTimeout(10*time.Second))
		for n := range 5 {
			publish(t, top, n)
			time.Sleep(time.Second)
		}
		for range 5 {
			receive(t, q)
		}
		time.Sleep(11 * time.Second)
		require.Equal(t, 16*time.Second, q.Stats().OldestAge)
		receive(t, q)
		require.Equal(t, 15*time.Second, q.Stats().OldestAge)
		require.NoError(t, top.Close())
	})
}

func TestOldestAgeCountsWhatWaitsInAHand(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		g := newGripAt(t, 3, 7)
		time.Sleep(100 * time.Microsecond)
		publish(t, g.top, 7)
		g.q.mu.Lock()
		inLog, waiting := g.q.inLogLocked(), g.q.waitingLocked()
		g.q.mu.Unlock()
		require.Equal(t, []int{1, 3}, []int{inLog, waiting})
		time.Sleep(100 * time.Microsecond)
		require.Equal(t, 200*time.Microsecond, g.q.Stats().OldestAge)
		g.end()
	})
}

func TestOldestAgeCountsWhatALoopHasNotYielded(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "audit")
		require.NoError(t, top.PublishMessages(ctx, plainOnes(7)...))
		time.Sleep(100 * time.Microsecond)
		publish(t, top, 7)
		n := 0
		for d, err := range q.Deliveries(ctx) {
			require.NoError(t, err)
			if n++; n == 4 {
				q.mu.Lock()
				waiting := q.waitingLocked()
				q.mu.Unlock()
				require.Positive(t, waiting)
				time.Sleep(100 * time.Microsecond)
				require.Equal(t, 200*time.Microsecond, q.Stats().OldestAge)
				break
			}
			require.NoError(t, d.Ack(ctx))
		}
		require.NoError(t, top.Close())
	})
}

func TestOldestAgeOfDeadLetters(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "audit", WithMaxAttempts(1), WithVisibilityTimeout(time.Hour))
		publish(t, top, 1)
		time.Sleep(time.Second)
		publish(t, top, 2)
		older, newer := receive(t, q), receive(t, q)
		require.NoError(t, newer.Nack(ctx))
		require.Zero(t, q.DeadLetters().Stats().OldestAge)
		require.NoError(t, older.Nack(ctx)) // it died later
		require.Equal(t, time.Second, q.DeadLetters().Stats().OldestAge)
		require.NoError(t, top.Close())
	})
}

func TestEventsAndInfoTellWhenTheMessageWasPublished(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		start := time.Now()
		told := map[string]time.Time{}
		note := func(name string) func(Event) { return func(e Event) { told[name] = e.PublishedAt } }
		top := newTopic[int](t, WithHooks(Hooks{
			Published: note("published"), Delivered: note("delivered"), Settled: note("settled"),
			DeadLettered: note("dead"), Redriven: note("redriven"),
		}), WithHandlerInterceptor(func(ctx context.Context, i Info, next func(context.Context) error) error {
			told["info"] = i.PublishedAt
			return next(ctx)
		}))
		q := openQueue(t, top, "audit", WithMaxAttempts(1))
		publish(t, top, 1)
		time.Sleep(time.Minute)
		require.NoError(t, receive(t, q).Nack(ctx))
		time.Sleep(time.Minute)
		_, err := q.Redrive(ctx)
		require.NoError(t, err)
		_, err = q.Subscribe(ctx, func(context.Context, Delivery[int]) error { return nil })
		require.NoError(t, err)
		synctest.Wait()
		require.Len(t, told, 6)
		for name, at := range told {
			require.True(t, start.Equal(at), "%s: %v", name, at)
		}
		require.NoError(t, top.Close())
	})
}

func TestATopicCountsTheMessagesThatNoQueueTook(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		unrouted := func(want int) {
			t.Helper()
			require.EqualValues(t, want, top.Stats().Unrouted)
		}
		publish(t, top, 1)
		unrouted(1)
		require.NoError(t, top.PublishMessages(ctx, plainOnes(3)...))
		unrouted(4)
		require.NoError(t, top.PublishMessages(ctx, Message[int]{ID: "own"}))
		unrouted(5)
		even := openQueue(t, top, "even", WithFilter(func(n int) bool { return n%2 == 0 }))
		require.NoError(t, top.PublishMessages(ctx, Message[int]{Body: 1}, Message[int]{Body: 2}, Message[int]{Body: 3}))
		unrouted(7)
		all := openQueue(t, top, "all")
		publish(t, top, 1)
		unrouted(7)
		require.NoError(t, all.Close())
		publish(t, top, 2)
		unrouted(7)
		require.NoError(t, even.Close())
		publish(t, top, 2)
		unrouted(8)
		require.NoError(t, top.Close())
	})
}
