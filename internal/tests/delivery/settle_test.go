// A delivery is settled once; a late settlement is stale and touches nothing.

package delivery_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/internal/tests/kit"
)

func TestRowSettle(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		late := make(chan fanout.Event, 10)
		top := kit.NewTopic[int](t, fanout.WithHooks(fanout.Hooks{Late: func(e fanout.Event) { late <- e }}))
		q := kit.OpenQueue(t, top, "q", fanout.WithBackoff(fanout.Constant(time.Minute)))
		over, cancel := context.WithCancel(ctx)
		cancel()
		kit.Publish(t, top, 1, 2, 3)
		require.NoError(t, kit.Receive(t, q).Ack(over), "even with a cancelled context")
		a, b := kit.Receive(t, q), kit.Receive(t, q)
		require.NoError(t, a.Nack(over))
		require.NoError(t, b.NackAfter(over, 5*time.Second))
		require.ErrorIs(t, a.Ack(ctx), fanout.ErrSettled)
		kit.Elapse(5 * time.Second)
		require.Equal(t, 3, kit.Receive(t, q).Body)
		kit.Elapse(55 * time.Second)
		requireBodies := func(want ...int) {
			t.Helper()
			for _, w := range want {
				require.Equal(t, w, kit.Receive(t, q).Body)
			}
			kit.RequireEmpty(t, q)
		}
		requireBodies(3, 2) // 3 timed out half a minute ago
		require.NoError(t, q.Close())

		// In a push handler the first settlement wins.
		y := kit.NewDiary()
		s, err := top.Subscribe(ctx, "push", func(ctx context.Context, d fanout.Delivery[int]) error {
			y.Note("%d, attempt %d", d.Body, d.Attempt())
			switch {
			case d.Body == 1:
				_ = d.Ack(ctx)
				return kit.ErrBusy // too late: to hook and log
			case d.Body == 2 && d.Attempt() == 1:
				_ = d.NackAfter(ctx, time.Second)
				return nil // fine
			}
			return nil
		})
		require.NoError(t, err)
		kit.Publish(t, top, 1, 2)
		kit.Elapse(time.Minute)
		require.Equal(t, []string{"0s: 1, attempt 1", "0s: 2, attempt 1", "1s: 2, attempt 2"}, y.Read())
		require.Len(t, late, 1)
		e := <-late
		require.Equal(t, kit.ErrBusy, e.Err)
		require.Equal(t, fanout.Failed, e.Cause)
		require.Equal(t, "push", e.Queue)
		require.Equal(t, uint64(2), s.Queue().Stats().Acked)
		kit.Check(t, top)
		top.Close()
	})
}

// A message that was tried before is kept apart from those that are fresh; its
// place is the same at every attempt, and another message's after that.
func TestAStaleDeliveryOfARetryTouchesNothing(t *testing.T) {
	for name, use := range map[string]func(ctx context.Context, q *fanout.Queue[int], d fanout.Delivery[int]) error{
		"Ack": func(ctx context.Context, _ *fanout.Queue[int], d fanout.Delivery[int]) error { return d.Ack(ctx) },
		"AckBatch": func(ctx context.Context, q *fanout.Queue[int], d fanout.Delivery[int]) error {
			return q.AckBatch(ctx, d)
		},
		"Nack": func(ctx context.Context, _ *fanout.Queue[int], d fanout.Delivery[int]) error { return d.Nack(ctx) },
		"NackAfter": func(ctx context.Context, _ *fanout.Queue[int], d fanout.Delivery[int]) error {
			return d.NackAfter(ctx, time.Hour)
		},
		"Settle": func(ctx context.Context, _ *fanout.Queue[int], d fanout.Delivery[int]) error {
			return d.Settle(ctx, fanout.Permanent(kit.ErrBusy))
		},
		"Extend": func(ctx context.Context, _ *fanout.Queue[int], d fanout.Delivery[int]) error {
			return d.Extend(ctx, time.Hour)
		},
	} {
		t.Run(name, func(t *testing.T) {
			kit.Bubble(t, func(t *testing.T, ctx context.Context) {
				top := kit.NewTopic[int](t)
				q := kit.OpenQueue(t, top, "q", fanout.WithVisibilityTimeout(time.Minute))
				kit.Publish(t, top, 1)
				require.NoError(t, kit.Receive(t, q).NackAfter(ctx, 0))
				time.Sleep(time.Millisecond)
				synctest.Wait()
				stale := kit.Receive(t, q)
				time.Sleep(time.Minute)
				synctest.Wait()
				newer := kit.Receive(t, q)
				require.Equal(t, []int{2, 3}, []int{stale.Attempt(), newer.Attempt()})
				was, until := q.Stats(), newer.Deadline()
				require.ErrorIs(t, use(ctx, q, stale), fanout.ErrStale)
				require.Equal(t, was, q.Stats())
				require.Equal(t, until, newer.Deadline())
				require.True(t, stale.Deadline().IsZero())
				require.NoError(t, newer.Ack(ctx))
				require.ErrorIs(t, use(ctx, q, newer), fanout.ErrSettled)

				kit.Publish(t, top, 2) // takes the place
				require.NoError(t, kit.Receive(t, q).NackAfter(ctx, 0))
				time.Sleep(time.Millisecond)
				synctest.Wait()
				other := kit.Receive(t, q)
				require.ErrorIs(t, use(ctx, q, stale), fanout.ErrStale)
				require.ErrorIs(t, use(ctx, q, newer), fanout.ErrSettled)
				require.NoError(t, other.Ack(ctx))
				top.Close()
			})
		})
	}
}

// TestALateSettlementIsNeverCalledSettled however many other deliveries have timed
// out since. What is in flight that long can be settled.
func TestALateSettlementIsNeverCalledSettled(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "audit", fanout.WithMaxAttempts(fanout.Unlimited))
		kit.Publish(t, top, 1, 2, 3, 4)
		acked, lost := kit.Receive(t, q), kit.Receive(t, q, fanout.WithVisibilityTimeout(time.Second))
		leased, entry := kit.Receive(t, q, fanout.WithVisibilityTimeout(24*time.Hour)), kit.Receive(t, q, fanout.WithVisibilityTimeout(24*time.Hour))
		require.NoError(t, entry.Extend(ctx, 25*time.Hour))
		require.NoError(t, acked.Ack(ctx))
		time.Sleep(time.Second)
		synctest.Wait()
		require.NoError(t, kit.Receive(t, q).Ack(ctx), "the second delivery of what was lost")
		require.ErrorIs(t, acked.Nack(ctx), fanout.ErrSettled)

		fillStale(t, ctx, top, q)
		require.ErrorIs(t, lost.Ack(ctx), fanout.ErrStale)
		require.ErrorIs(t, lost.Nack(ctx), fanout.ErrStale)
		require.ErrorIs(t, lost.Extend(ctx, time.Minute), fanout.ErrStale)
		require.ErrorIs(t, q.AckBatch(ctx, lost), fanout.ErrStale)
		require.ErrorIs(t, acked.Nack(ctx), fanout.ErrStale, "it is too long ago to tell")

		require.NoError(t, leased.Extend(ctx, time.Hour))
		require.NoError(t, leased.Ack(ctx))
		require.NoError(t, entry.Nack(ctx))
		s := q.Stats()
		require.Equal(t, 1, s.Unsettled())
		require.Equal(t, 1, s.Retrying)
		kit.Check(t, top)
	})
}

// fillStale makes so many deliveries time out that the queue forgets the first of
// them. Each is a range of its own: what is received between them is acknowledged.
func fillStale(t *testing.T, ctx context.Context, top *fanout.Topic[int], q *fanout.Queue[int]) {
	t.Helper()
	const separate = 5000
	for range separate {
		kit.Publish(t, top, 1, 2)
		late := kit.Receive(t, q, fanout.WithVisibilityTimeout(time.Millisecond))
		require.NoError(t, kit.Receive(t, q).Ack(ctx))
		time.Sleep(time.Millisecond)
		synctest.Wait()
		again := kit.Receive(t, q)
		require.NoError(t, again.Ack(ctx))
		require.ErrorIs(t, late.Ack(ctx), fanout.ErrStale)
		require.ErrorIs(t, again.Ack(ctx), fanout.ErrSettled)
	}
}
