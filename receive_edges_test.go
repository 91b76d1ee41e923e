package fanout

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// What a receive, a settlement or the timer must see to beside what it is for.

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
