// Dead letters outlive their queue, and belong to the queue of that name that is opened next.

package delivery_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/internal/tests/kit"
)

// die has the next n messages of a queue die.
func die(t *testing.T, q *fanout.Queue[int], n int) {
	t.Helper()
	for range n {
		require.NoError(t, kit.Receive(t, q).Settle(t.Context(), fanout.Permanent(kit.ErrBusy)))
	}
}

// TestAQueueOpenedAgainRedrivesItsLetters: they are those of the queue of that name
// in that topic, whether its dead-letter queue is its own or shared.
func TestAQueueOpenedAgainRedrivesItsLetters(t *testing.T) {
	for _, row := range []struct {
		name    string
		options func(shared *fanout.Queue[int]) []fanout.QueueOption
	}{
		{"of its own", func(*fanout.Queue[int]) []fanout.QueueOption {
			return []fanout.QueueOption{fanout.WithDeadLetterCapacity(8)}
		}},
		{"that is shared", func(d *fanout.Queue[int]) []fanout.QueueOption {
			return []fanout.QueueOption{fanout.WithDeadLetterQueue(d)}
		}},
	} {
		t.Run("from a dead-letter queue "+row.name, func(t *testing.T) {
			kit.Bubble(t, func(t *testing.T, ctx context.Context) {
				shared, err := fanout.NewDeadLetterQueue[int]("dead", kit.Silent)
				require.NoError(t, err)
				top, other := kit.NewTopic[int](t), kit.NewTopic[int](t) // of one name
				options := row.options(shared)
				q := kit.OpenQueue(t, top, "q", options...)
				second, elsewhere := kit.OpenQueue(t, top, "second", options...), kit.OpenQueue(t, other, "q", options...)
				kit.Publish(t, top, 1, 2)
				kit.Publish(t, other, 3)
				die(t, q, 2)
				die(t, second, 1)
				die(t, elsewhere, 1)
				before := q.DeadLetters()
				require.NoError(t, q.Close())
				_, err = q.Redrive(ctx)
				require.ErrorIs(t, err, fanout.ErrClosed)

				var asked atomic.Int32
				refuse := fanout.WithFilter(func(int) bool { asked.Add(1); return false })
				for round := range 3 {
					q = kit.OpenQueue(t, top, "q", append(row.options(shared), refuse)...)
					require.Same(t, before, q.DeadLetters())
					require.ErrorIs(t, errOf(top.OpenQueue(ctx, "q", options...)), fanout.ErrInvalidOption)
					n, err := q.Redrive(ctx, fanout.RedriveIf(func(d fanout.Delivery[int]) bool { return d.Body == 1 }))
					require.NoError(t, err)
					require.Equal(t, 1, n)
					d := kit.Receive(t, q)
					require.Equal(t, 1, d.Body)
					require.Len(t, d.History(), 1+2*round)
					require.NoError(t, d.Settle(ctx, fanout.Permanent(kit.ErrBusy)))
					kit.Check(t, top)
					require.NoError(t, q.Close())

					q = kit.OpenQueue(t, top, "q", options...)
					n, err = q.Redrive(ctx)
					require.NoError(t, err)
					require.Equal(t, 2, n, "those of other queues stay where they are")
					die(t, q, 2)
					kit.Check(t, top)
					require.NoError(t, q.Close())
				}
				require.Zero(t, asked.Load())
				q = kit.OpenQueue(t, top, "q", options...)
				require.ErrorIs(t, errOf(q, before.Close()), map[bool]error{true: nil, false: fanout.ErrUnsupported}[before == shared])
				require.NoError(t, top.Close())
				<-top.Done()
				require.NoError(t, other.Close())
				<-other.Done()
			})
		})
	}
}

func errOf[T any](_ T, err error) error { return err }

// TestADeadLetterQueueThatOutlivesItsQueueKeepsItsConsumers when the queue is
// opened again, and gets that one's capacity and overflow.
func TestADeadLetterQueueThatOutlivesItsQueueKeepsItsConsumers(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "q", fanout.WithDeadLetterCapacity(4))
		kit.Publish(t, top, 1, 2, 3, 4, 5)
		die(t, q, 5)
		dead := q.DeadLetters()
		require.Equal(t, 1, q.Stats().Parked)
		require.NoError(t, q.Close())

		require.NoError(t, kit.Receive(t, dead).Ack(ctx))
		q = kit.OpenQueue(t, top, "q", fanout.WithDeadLetterCapacity(2)) // it has more
		kit.Check(t, top)
		require.Equal(t, 3, dead.Stats().Capacity)
		kit.Publish(t, top, 6)
		die(t, q, 1)
		require.Equal(t, 1, q.Stats().Parked)
		require.NoError(t, kit.Receive(t, dead).Ack(ctx))
		require.Zero(t, q.Stats().Parked)
		require.Equal(t, []int{3, 4, 6}, kit.Bodies(t, dead))
		require.NoError(t, kit.Receive(t, dead).Ack(ctx))
		require.NoError(t, q.Close())

		q = kit.OpenQueue(t, top, "q", fanout.WithDeadLetterCapacity(2), fanout.WithDeadLetterOverflow(fanout.DropOldest))
		inHand := kit.Receive(t, dead)
		require.Equal(t, 4, inHand.Body)
		kit.Publish(t, top, 7)
		die(t, q, 1)
		require.Equal(t, []int{7}, kit.Bodies(t, dead), "6 was dropped, 4 is in flight")
		require.EqualValues(t, 1, dead.Stats().Dropped)
		kit.Check(t, top)
		require.NoError(t, q.Close())

		q = kit.OpenQueue(t, top, "q", fanout.WithDeadLetterCapacity(3))
		kit.Publish(t, top, 8, 9)
		die(t, q, 2)
		require.Equal(t, 1, q.Stats().Parked)
		require.NoError(t, inHand.Ack(ctx))
		require.Equal(t, []int{7, 8, 9}, kit.Bodies(t, dead))
		kit.Check(t, top)

		seen := make(chan int, 8)
		_, err := dead.Subscribe(ctx, func(_ context.Context, d fanout.Delivery[int]) error {
			seen <- d.Body
			return nil
		})
		require.NoError(t, err)
		require.Equal(t, []int{7, 8, 9}, []int{<-seen, <-seen, <-seen})
		require.NoError(t, q.Close())
		q = kit.OpenQueue(t, top, "q")
		kit.Publish(t, top, 10)
		die(t, q, 1)
		require.Equal(t, 10, <-seen, "who consumes the letters goes on")
		require.NoError(t, q.Close())

		require.NoError(t, dead.Close())
		q = kit.OpenQueue(t, top, "q")
		require.NotSame(t, dead, q.DeadLetters())
		require.NoError(t, top.Close())
		<-top.Done()
	})
}

func TestATopicEndsWithADeadLetterQueueThatChangedHands(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "q")
		kit.Publish(t, top, 1)
		die(t, q, 1)
		require.NoError(t, q.Close())
		again := kit.OpenQueue(t, top, "q")
		got := make(chan error, 1)
		go func() {
			_, err := again.DeadLetters().Receive(ctx)
			if err == nil {
				_, err = again.DeadLetters().Receive(ctx)
			}
			got <- err
		}()
		time.Sleep(time.Second)
		soon, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		err := top.Shutdown(soon)
		require.True(t, err == nil || errors.Is(err, context.DeadlineExceeded), "%v", err)
		require.ErrorIs(t, <-got, fanout.ErrClosed)
		<-top.Done()
		require.Equal(t, []int{1}, kit.Bodies(t, q.DeadLetters()))
	})
}
