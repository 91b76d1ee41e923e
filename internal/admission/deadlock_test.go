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

// A handler that waits is told as soon as it would wait for ever, though it began to wait
// for something else.
func TestAWaitThatBecomesADeadlockIsToldAtOnce(t *testing.T) {
	for name, filtered := range map[string][]setting{"without filters": nil, "with filters": {accepting(all)}} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				h := newHome[int](t)
				other := h.open("other", append(filtered, capacity(1))...)
				own := h.open("own", append(filtered, capacity(2))...)
				commands, outcomes := publishing(t, own, h)
				h.publish(t, 1)
				synctest.Wait()
				first := h.waiting(ctx, message.Published[int]{Body: 2}) // for other
				commands <- 3
				synctest.Wait()
				require.Empty(t, outcomes)
				require.NoError(t, receive(t, other).Ack(ctx))
				require.NoError(t, requireDecided(t, first)) // and own is full
				require.Len(t, outcomes, 1)
				require.ErrorIs(t, (<-outcomes).err, message.ErrWouldDeadlock)
				close(commands)
				synctest.Wait()
				h.check(t)
				h.end(t)
			})
		})
	}
}

// Who stands behind another waits for what that waits for.
func TestWhoStandsBehindOneThatWaitsForItsQueueWouldDeadlock(t *testing.T) {
	for _, ends := range []bool{true, false} {
		bubble(t, func(t *testing.T, ctx context.Context) {
			h := newHome[int](t)
			is := func(k int) setting { return accepting(func(n int) bool { return n == k }) }
			own, roomy := h.open("own", is(1), capacity(1)), h.open("roomy", is(2), capacity(5))
			far := h.open("far", is(3), capacity(1))
			commands, outcomes := publishing(t, own, h)
			h.publish(t, 1, 3)
			synctest.Wait()
			var waits []<-chan error
			if ends { // it holds the next back, and isn't in the way of the handler
				waits = append(waits, h.waiting(ctx, message.Published[int]{Body: 3}))
			}
			waits = append(waits, h.waiting(ctx, message.Published[int]{Body: 1}, message.Published[int]{Body: 2}))
			commands <- 2
			out := <-outcomes
			require.ErrorIs(t, out.err, message.ErrWouldDeadlock)
			require.ErrorContains(t, out.err, "own")
			commands <- 3
			synctest.Wait()
			require.Empty(t, outcomes, "somebody will empty far")
			for range len(waits) {
				require.NoError(t, receive(t, far).Ack(ctx))
				synctest.Wait()
			}
			require.NoError(t, (<-outcomes).err)
			close(commands)
			synctest.Wait()
			for _, w := range waits {
				require.NoError(t, requireDecided(t, w))
			}
			require.Equal(t, []int{2}, bodies(t, roomy))
			h.check(t)
			h.end(t)
		})
	}
}
