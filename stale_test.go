package fanout

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// fillStale makes so many deliveries time out that the queue forgets the first of
// them. Each is a range of its own: what is received between them is acknowledged.
func fillStale(t *testing.T, ctx context.Context, top *Topic[int], q *Queue[int]) {
	t.Helper()
	const separate = 5000
	for range separate {
		publish(t, top, 1, 2)
		late := receive(t, q, WithVisibilityTimeout(time.Millisecond))
		require.NoError(t, receive(t, q).Ack(ctx))
		time.Sleep(time.Millisecond)
		synctest.Wait()
		again := receive(t, q)
		require.NoError(t, again.Ack(ctx))
		require.ErrorIs(t, late.Ack(ctx), ErrStale)
		require.ErrorIs(t, again.Ack(ctx), ErrSettled)
	}
}

// TestALateSettlementIsNeverCalledSettled however many other deliveries have timed
// out since. What is in flight that long can be settled.
func TestALateSettlementIsNeverCalledSettled(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "audit", WithMaxAttempts(Unlimited))
		publish(t, top, 1, 2, 3, 4)
		acked, lost := receive(t, q), receive(t, q, WithVisibilityTimeout(time.Second))
		leased, entry := receive(t, q, WithVisibilityTimeout(24*time.Hour)), receive(t, q, WithVisibilityTimeout(24*time.Hour))
		require.NoError(t, entry.Extend(ctx, 25*time.Hour))
		require.NoError(t, acked.Ack(ctx))
		time.Sleep(time.Second)
		synctest.Wait()
		require.NoError(t, receive(t, q).Ack(ctx), "the second delivery of what was lost")
		require.ErrorIs(t, acked.Nack(ctx), ErrSettled)

		fillStale(t, ctx, top, q)
		require.ErrorIs(t, lost.Ack(ctx), ErrStale)
		require.ErrorIs(t, lost.Nack(ctx), ErrStale)
		require.ErrorIs(t, lost.Extend(ctx, time.Minute), ErrStale)
		require.ErrorIs(t, q.AckBatch(ctx, lost), ErrStale)
		require.ErrorIs(t, acked.Nack(ctx), ErrStale, "it is too long ago to tell")

		require.NoError(t, leased.Extend(ctx, time.Hour))
		require.NoError(t, leased.Ack(ctx))
		require.NoError(t, entry.Nack(ctx))
		s := q.Stats()
		require.Equal(t, 1, s.Unsettled())
		require.Equal(t, 1, s.Retrying)
		check(t, top)
	})
}
