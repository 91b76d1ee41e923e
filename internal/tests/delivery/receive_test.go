// Whoever receives gets what is ready, in its turn, and nothing more.

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

func TestABatchWakesAsManyReceiversAsItHasMessages(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "q")
		got := make(chan int, 10)
		for range 5 {
			go func() {
				if d, err := q.Receive(ctx); err == nil {
					got <- d.Body // and keeps it: nothing else wakes the next
				}
			}()
		}
		synctest.Wait()
		require.NoError(t, top.PublishMessages(ctx, fanout.Message[int]{Body: 1}, fanout.Message[int]{Body: 2}, fanout.Message[int]{Body: 3}))
		synctest.Wait()
		require.Len(t, got, 3)
		require.Equal(t, 3, q.Stats().InFlight)
		top.Close()
	})
}

func TestAReceivedBatchPassesOverWhatExpiredAndLeavesTheRestToOthers(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "q", fanout.WithCapacity(6))
		for n := range 6 {
			m := fanout.Message[int]{Body: n}
			if n == 1 || n == 2 {
				m.TimeToLive = time.Second
			}
			require.NoError(t, top.PublishMessages(ctx, m))
		}
		time.Sleep(time.Second)
		ds, err := q.ReceiveBatch(ctx, 3)
		require.NoError(t, err)
		require.Equal(t, []int{0, 3, 4}, kit.BodiesOf(ds))
		require.EqualValues(t, 2, q.Stats().Expired)
		kit.Publish(t, top, 6, 7) // what expired has made room
		require.Equal(t, []int{5, 6, 7}, kit.Bodies(t, q))
		kit.Check(t, top)
		top.Close()
	})
}

func TestTryReceiveReturnsTheErrorOfItsContext(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "q")
		kit.Publish(t, top, 1)
		ended, end := context.WithCancelCause(ctx)
		end(kit.ErrBusy)
		_, ok, err := q.TryReceive(ended)
		require.False(t, ok)
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, err, kit.ErrBusy)
		require.Equal(t, 1, q.Stats().Ready)
		top.Close()
	})
}

func TestALoopOverDeliveriesCanBeLeftAndTakesNothingMore(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "q")
		kit.Publish(t, top, 1, 2, 3)
		var got []int
		for d, err := range q.Deliveries(ctx) {
			require.NoError(t, err)
			got = append(got, d.Body)
			require.NoError(t, d.Ack(ctx))
			if d.Body == 2 {
				break
			}
		}
		require.Equal(t, []int{1, 2}, got)
		require.Equal(t, []int{3}, kit.Bodies(t, q))
		top.Close()
	})
}
