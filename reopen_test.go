package fanout

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// die has the next n messages of a queue die.
func die(t *testing.T, q *Queue[int], n int) {
	t.Helper()
	for range n {
		require.NoError(t, receive(t, q).Settle(t.Context(), Permanent(errBusy)))
	}
}

// TestAQueueOpenedAgainRedrivesItsLetters: they are those of the queue of that name
// in that topic, whether its dead-letter queue is its own or shared.
func TestAQueueOpenedAgainRedrivesItsLetters(t *testing.T) {
	for _, row := range []struct {
		name    string
		options func(shared *Queue[int]) []QueueOption
	}{
		{"of its own", func(*Queue[int]) []QueueOption { return []QueueOption{WithDeadLetterCapacity(8)} }},
		{"that is shared", func(d *Queue[int]) []QueueOption { return []QueueOption{WithDeadLetterQueue(d)} }},
	} {
		t.Run("from a dead-letter queue "+row.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				shared, err := NewDeadLetterQueue[int]("dead", silent)
				require.NoError(t, err)
				top, other := newTopic[int](t), newTopic[int](t) // of one name
				options := row.options(shared)
				q := openQueue(t, top, "q", options...)
				second, elsewhere := openQueue(t, top, "second", options...), openQueue(t, other, "q", options...)
				publish(t, top, 1, 2)
				publish(t, other, 3)
				die(t, q, 2)
				die(t, second, 1)
				die(t, elsewhere, 1)
				before := q.DeadLetters()
				require.NoError(t, q.Close())
				_, err = q.Redrive(ctx)
				require.ErrorIs(t, err, ErrClosed)

				var asked atomic.Int32
				refuse := WithFilter(func(int) bool { asked.Add(1); return false })
				for round := range 3 {
					q = openQueue(t, top, "q", append(row.options(shared), refuse)...)
					require.Same(t, before, q.DeadLetters())
					require.ErrorIs(t, errOf(top.OpenQueue(ctx, "q", options...)), ErrInvalidOption)
					n, err := q.Redrive(ctx, RedriveIf(func(d Delivery[int]) bool { return d.Body == 1 }))
					require.NoError(t, err)
					require.Equal(t, 1, n)
					d := receive(t, q)
					require.Equal(t, 1, d.Body)
					require.Len(t, d.History(), 1+2*round)
					require.NoError(t, d.Settle(ctx, Permanent(errBusy)))
					check(t, top)
					require.NoError(t, q.Close())

					q = openQueue(t, top, "q", options...)
					n, err = q.Redrive(ctx)
					require.NoError(t, err)
					require.Equal(t, 2, n, "those of other queues stay where they are")
					die(t, q, 2)
					check(t, top)
					require.NoError(t, q.Close())
				}
				require.Zero(t, asked.Load())
				q = openQueue(t, top, "q", options...)
				require.ErrorIs(t, errOf(q, before.Close()), map[bool]error{true: nil, false: ErrUnsupported}[before == shared])
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
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "q", WithDeadLetterCapacity(4))
		publish(t, top, 1, 2, 3, 4, 5)
		die(t, q, 5)
		dead := q.DeadLetters()
		require.Equal(t, 1, q.Stats().Parked)
		require.NoError(t, q.Close())

		require.NoError(t, receive(t, dead).Ack(ctx))
		q = openQueue(t, top, "q", WithDeadLetterCapacity(2)) // it has more
		check(t, top)
		require.Equal(t, 3, dead.Stats().Capacity)
		publish(t, top, 6)
		die(t, q, 1)
		require.Equal(t, 1, q.Stats().Parked)
		require.NoError(t, receive(t, dead).Ack(ctx))
		require.Zero(t, q.Stats().Parked)
		require.Equal(t, []int{3, 4, 6}, bodies(t, dead))
		require.NoError(t, receive(t, dead).Ack(ctx))
		require.NoError(t, q.Close())

		q = openQueue(t, top, "q", WithDeadLetterCapacity(2), WithDeadLetterOverflow(DropOldest))
		inHand := receive(t, dead)
		require.Equal(t, 4, inHand.Body)
		publish(t, top, 7)
		die(t, q, 1)
		require.Equal(t, []int{7}, bodies(t, dead), "6 was dropped, 4 is in flight")
		require.EqualValues(t, 1, dead.Stats().Dropped)
		check(t, top)
		require.NoError(t, q.Close())

		q = openQueue(t, top, "q", WithDeadLetterCapacity(3))
		publish(t, top, 8, 9)
		die(t, q, 2)
		require.Equal(t, 1, q.Stats().Parked)
		require.NoError(t, inHand.Ack(ctx))
		require.Equal(t, []int{7, 8, 9}, bodies(t, dead))
		check(t, top)

		seen := make(chan int, 8)
		_, err := dead.Subscribe(ctx, func(_ context.Context, d Delivery[int]) error {
			seen <- d.Body
			return nil
		})
		require.NoError(t, err)
		require.Equal(t, []int{7, 8, 9}, []int{<-seen, <-seen, <-seen})
		require.NoError(t, q.Close())
		q = openQueue(t, top, "q")
		publish(t, top, 10)
		die(t, q, 1)
		require.Equal(t, 10, <-seen, "who consumes the letters goes on")
		require.NoError(t, q.Close())

		require.NoError(t, dead.Close())
		q = openQueue(t, top, "q")
		require.NotSame(t, dead, q.DeadLetters())
		require.NoError(t, top.Close())
		<-top.Done()
	})
}

func TestATopicEndsWithADeadLetterQueueThatChangedHands(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "q")
		publish(t, top, 1)
		die(t, q, 1)
		require.NoError(t, q.Close())
		again := openQueue(t, top, "q")
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
		require.ErrorIs(t, <-got, ErrClosed)
		<-top.Done()
		require.Equal(t, []int{1}, bodies(t, q.DeadLetters()))
	})
}
