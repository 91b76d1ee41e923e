package fanout

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// What a receive, a settlement or the timer must see to beside what it is for.

func TestAShutdownGoesOnOnceAReceiveHasFoundThatTheRestHasExpired(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "q", WithTimeToLive(time.Minute))
		publish(t, top, 1, 2)
		done := make(chan error, 1)
		go func() { done <- top.Shutdown(ctx) }()
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Empty(t, done, "nobody has looked")
		requireEmpty(t, q)
		synctest.Wait()
		require.Len(t, done, 1)
		require.NoError(t, <-done)
		require.Equal(t, 2, q.Stats().Dead)
	})
}

func TestAReceiveTellsOfWhatHadExpiredBeforeTheMessageThatItGets(t *testing.T) {
	for name, receive := range map[string]func(t *testing.T, q *Queue[int]) []Delivery[int]{
		"one": func(t *testing.T, q *Queue[int]) []Delivery[int] { return []Delivery[int]{receive(t, q)} },
		"a batch": func(t *testing.T, q *Queue[int]) []Delivery[int] {
			ds, err := q.ReceiveBatch(t.Context(), 10)
			require.NoError(t, err)
			return ds
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				var dead []string
				top := newTopic[int](t, WithHooks(Hooks{DeadLettered: func(e Event) { dead = append(dead, e.MessageID) }}))
				q := openQueue(t, top, "q", WithCapacity(3))
				require.NoError(t, top.PublishMessages(ctx,
					Message[int]{ID: "a", Body: 1, TimeToLive: time.Second}, Message[int]{ID: "b", Body: 2, TimeToLive: time.Second}, Message[int]{Body: 3}))
				time.Sleep(time.Second)
				require.Equal(t, []int{3}, bodiesOf(receive(t, q)))
				require.Equal(t, []string{"a", "b"}, dead)
				top.Close()
			})
		})
	}
}

func TestTheNextOfAKeyIsForWhoeverWaitsOnceTheFirstIsAcknowledged(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t, WithOrdering())
		q := openQueue(t, top, "q")
		require.NoError(t, top.PublishMessages(ctx, Message[int]{Body: 1, OrderingKey: "k"}, Message[int]{Body: 2, OrderingKey: "k"}))
		first := receive(t, q)
		got := make(chan Delivery[int], 1)
		go func() {
			d, err := q.Receive(ctx)
			require.NoError(t, err)
			got <- d
		}()
		synctest.Wait()
		require.Empty(t, got)
		require.NoError(t, first.Ack(ctx))
		synctest.Wait()
		require.Len(t, got, 1, "the receiver sleeps beside a message")
		require.NoError(t, (<-got).Ack(ctx))
		top.Close()
	})
}

func TestAMessageTimesOutBesideOneThatWasExtended(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "q", WithVisibilityTimeout(time.Minute))
		publish(t, top, 1, 2, 3)
		ds, err := q.ReceiveBatch(ctx, 3)
		require.NoError(t, err)
		require.NoError(t, ds[1].Extend(ctx, time.Hour))
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Equal(t, []int{2, 1}, []int{q.Stats().Ready, q.Stats().InFlight})
		require.ErrorIs(t, ds[0].Ack(ctx), ErrStale)
		require.NoError(t, ds[1].Ack(ctx))
		require.ErrorIs(t, ds[2].Ack(ctx), ErrStale)
		check(t, top)
		top.Close()
	})
}

// Rate limits.

func hourly(context.Context, Delivery[int]) error { return nil }

func TestAPurgeLeavesNoTimerOfARateLimit(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := subscribe(t, top, "q", hourly, WithRateLimit(1.0/3600)).Queue()
		publish(t, top, 1, 2)
		time.Sleep(time.Second)
		synctest.Wait()
		require.EqualValues(t, 1, q.Stats().Acked)
		check(t, top)
		n, err := q.Purge(ctx)
		require.NoError(t, err)
		require.Equal(t, 1, n)
		check(t, top)
		top.Close()
	})
}

func TestTheTimerOfARateLimitComesOnceItIsTime(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		began := time.Now()
		q := subscribe(t, top, "q", hourly, WithRateLimit(1.0/3600)).Queue()
		publish(t, top, 1, 2)
		time.Sleep(time.Second) // what was armed for the first message has been seen to
		synctest.Wait()
		q.mu.Lock()
		at := q.core.time(q.alarm.at)
		q.mu.Unlock()
		require.Equal(t, time.Hour, at.Sub(began), "it comes in between, for nothing")
		time.Sleep(time.Hour)
		synctest.Wait()
		require.EqualValues(t, 2, q.Stats().Acked)
		top.Close()
	})
}

func TestARateLimitMayBeOneANanosecond(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "q")
		_, err := q.Subscribe(ctx, hourly, WithRateLimit(1e9))
		require.NoError(t, err)
		_, err = q.Subscribe(ctx, hourly, WithRateLimit(1.1e9))
		require.ErrorIs(t, err, ErrInvalidOption)
		top.Close()
	})
}
