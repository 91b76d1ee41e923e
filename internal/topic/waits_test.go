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

	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/queue"
)

// Who waits for room, who waits behind them, and what wakes them.

// Who finds no room says that it waits, and then looks once more. Here it
// can't look, because the test has the queue. So the room that is made meanwhile is
// seen by its look, and whoever makes some after that is told that it waits.
func TestNoPublishMissesTheRoomThatIsMadeAsItBeginsToWait(t *testing.T) {
	for _, before := range []bool{true, false} {
		bubble(t, func(t *testing.T, ctx context.Context) {
			top := newTopic[int](t)
			q := openQueue(t, top, "q", WithCapacity(1))
			publish(t, top, 1)
			d := receive(t, q)
			q.Mu.Lock()
			room := make(chan bool, 1)
			go func() {
				top.Mu.Lock()
				defer top.Mu.Unlock()
				room <- (&offer[int]{waits: true}).hasRoomOrWants(q, 1)
			}()
			for n := 0; n < 10_000_000 && q.RoomWanted.Load() == 0; n++ {
				runtime.Gosched()
			}
			told := q.RoomWanted.Load() != 0
			if before { // as by one who saw that no room is wanted
				q.Leases.Ack(d.Ref)
				q.AckedLocked()
			}
			q.Mu.Unlock()
			require.True(t, told, "it looks for room, and nobody would tell it of what is made then")
			require.Equal(t, before, <-room)
			if before {
				require.Zero(t, q.RoomWanted.Load(), "nobody waits")
			} else {
				require.NoError(t, d.Ack(ctx))
				require.Zero(t, q.RoomWanted.Load(), "who waits was not told")
			}
			check(t, top)
			require.NoError(t, top.Close())
		})
	}
}

// The list of idle queues holds queues that wait for a message, and no others.
func TestAClosedQueueIsNoneOfTheSleepers(t *testing.T) {
	waitIn := map[string]func(ctx context.Context, t *testing.T, q *queue.Queue[int]){
		"receiver": func(ctx context.Context, t *testing.T, q *queue.Queue[int]) {
			go func() {
				_, _ = receiveFrom(q, ctx)
			}()
		},
		"subscriber": func(ctx context.Context, t *testing.T, q *queue.Queue[int]) {
			_, err := subscribeTo(q, ctx, func(context.Context, queue.Delivery[int]) error { return nil })
			require.NoError(t, err)
		},
		"both": func(ctx context.Context, t *testing.T, q *queue.Queue[int]) {
			_, err := subscribeTo(q, ctx, func(context.Context, queue.Delivery[int]) error { return nil })
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
		require.NoError(t, q.Close())
		require.NoError(t, q.Close())
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
					require.EqualValues(t, n, top.Idle.N.Load())
					for k, name := range order {
						closed := closeOne(t, top, strconv.Itoa(name))
						synctest.Wait()
						require.EqualValues(t, n-k-1, top.Idle.N.Load())
						require.Len(t, top.Idle.List, n-k-1)
						require.False(t, slices.ContainsFunc(top.Idle.List, func(q *queue.Queue[int]) bool { return q.Closed }))
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
					require.Zero(t, top.Idle.N.Load())
					require.Empty(t, top.Idle.List)
				})
			}
		})
	}
}
