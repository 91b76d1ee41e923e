package admission

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/handling"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/view"
)

// Who waits in a handler.

func TestAHandlerWhoseQueueIsFullOfItsOwnKeyWouldDeadlock(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome[int](t, ordering)
		q := h.open("q", capacity(3))
		for n := range 3 {
			require.NoError(t, h.PublishBatch(ctx, []message.Published[int]{{Body: n, OrderingKey: "k"}}))
		}
		var errs []error
		handle(t, q, 2, func(hctx context.Context, d delivery.Delivery[int]) error {
			if d.Body == 0 {
				errs = append(errs, h.Publish(hctx, 3))
			}
			return nil
		}) // the second worker finds nothing but what stands behind the first
		time.Sleep(StallAfter) // when it looks again, should it have looked before the second has
		synctest.Wait()
		require.Len(t, errs, 1, "it waits for ever")
		require.ErrorIs(t, errs[0], message.ErrWouldDeadlock)
		require.EqualValues(t, 3, view.StatsOf(q).Acked)
		h.end(t)
	})
}

func TestAHandlerKeepsNothingOfThePublishesThatItWaitedFor(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		in, out := newHome[int](t), newHome[int](t)
		q := out.open("out", capacity(1))
		kept := make(chan int, 1)
		handle(t, in.open("in"), 1, func(ctx context.Context, d delivery.Delivery[int]) error {
			for n := range 10 {
				if err := out.Publish(ctx, n); err != nil {
					return err
				}
			}
			kept <- handling.RunOf(ctx).Waits()
			return nil
		})
		in.publish(t, 1)
		for range 10 {
			var d delivery.Delivery[int]
			require.NoError(t, delivery.TakeOne(ctx, q, &d, q.Visibility()))
			synctest.Wait() // the next one waits
			require.NoError(t, d.Ack(ctx))
		}
		require.Zero(t, <-kept)
		in.end(t)
		out.end(t)
	})
}
