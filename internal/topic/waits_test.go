package topic

import (
	"context"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"weak"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/lifecycle"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/queue"
)

// Who waits for room, who waits behind them, and what wakes them.

// The list of idle queues holds queues that wait for a message, and no others.
func TestAClosedQueueIsNoneOfTheSleepers(t *testing.T) {
	waitIn := map[string]func(ctx context.Context, t *testing.T, q *queue.Queue[int]){
		"receiver": func(ctx context.Context, t *testing.T, q *queue.Queue[int]) {
			go func() {
				_, _ = receiveFrom(q, ctx)
			}()
		},
		"subscriber": func(ctx context.Context, t *testing.T, q *queue.Queue[int]) {
			_, err := subscribeTo(q, ctx, func(context.Context, delivery.Delivery[int]) error { return nil })
			require.NoError(t, err)
		},
		"both": func(ctx context.Context, t *testing.T, q *queue.Queue[int]) {
			_, err := subscribeTo(q, ctx, func(context.Context, delivery.Delivery[int]) error { return nil })
			require.NoError(t, err)
			go func() {
				_, _ = receiveFrom(q, ctx)
			}()
		},
	}
	const n = 5
	// closeOne closes the queue of a name, so that no variable of the caller's keeps it.
	closeOne := func(t *testing.T, top *Topic[int], name string) weak.Pointer[queue.Queue[int]] {
		q := top.Queue(name)
		require.NoError(t, lifecycle.Close(q))
		require.NoError(t, lifecycle.Close(q))
		_, err := receiveFrom(q, context.Background())
		require.ErrorIs(t, err, message.ErrClosed)
		return weak.Make(q)
	}
	for consumer, wait := range waitIn {
		for _, order := range [][]int{{0, 1, 2, 3, 4}, {4, 3, 2, 1, 0}, {2, 0, 4, 1, 3}} {
			t.Run(consumer, func(t *testing.T) {
				bubble(t, func(t *testing.T, ctx context.Context) {
					top := newTopic[int](t)
					for k := range n {
						wait(ctx, t, openQueue(t, top, strconv.Itoa(k)))
					}
					synctest.Wait()
					require.EqualValues(t, n, top.In.Idle.N.Load())
					for k, name := range order {
						closed := closeOne(t, top, strconv.Itoa(name))
						synctest.Wait()
						require.EqualValues(t, n-k-1, top.In.Idle.N.Load())
						require.Len(t, top.In.Idle.List, n-k-1)
						require.False(t, slices.ContainsFunc(top.In.Idle.List, func(q *queue.Queue[int]) bool { return q.Store.Closed }))
						runtime.GC()
						runtime.GC()
						require.Nil(t, closed.Value(), "the topic keeps a closed queue")
					}
					require.NoError(t, top.Close())
				})
			})
		}
		t.Run(consumer+", with the topic", func(t *testing.T) {
			for _, end := range []func(ctx context.Context, top *Topic[int]) error{
				func(_ context.Context, top *Topic[int]) error { return top.Close() },
				func(ctx context.Context, top *Topic[int]) error { return top.Shutdown(ctx) },
			} {
				bubble(t, func(t *testing.T, ctx context.Context) {
					top := newTopic[int](t)
					for k := range n {
						wait(ctx, t, openQueue(t, top, strconv.Itoa(k)))
					}
					synctest.Wait()
					require.NoError(t, end(ctx, top))
					synctest.Wait()
					require.Zero(t, top.In.Idle.N.Load())
					require.Empty(t, top.In.Idle.List)
				})
			}
		})
	}
}
