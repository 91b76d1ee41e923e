package fanout

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// What the model found.

func TestARefusedPublishCountsNoDuplicates(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t, WithDeduplication(time.Minute, 10))
		openQueue(t, top, "q", WithCapacity(1))
		publish(t, top, 1)
		twice := Message[int]{Body: 2, DeduplicationID: "id"}
		require.ErrorIs(t, top.TryPublishMessages(ctx, twice, twice), ErrQueueFull)
		require.Zero(t, top.Stats().Duplicates)
		top.Close()
	})
}

func TestAClosedTopicThatRetainedIsClosed(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t, WithRetention(1))
		top.Close()
		_, err := top.OpenQueue(ctx, "q", WithReplay(1))
		require.ErrorIs(t, err, ErrClosed)
	})
}

func TestADeadLetterQueueMadeDuringAShutdownGivesOutLetters(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "q")
		publish(t, top, 1, 2)
		done := make(chan error, 1)
		go func() { done <- top.Shutdown(ctx) }()
		synctest.Wait()
		require.NoError(t, receive(t, q).Settle(ctx, Permanent(errBusy)))
		require.NoError(t, receive(t, q.DeadLetters()).Ack(ctx))
		require.NoError(t, receive(t, q).Ack(ctx))
		require.NoError(t, <-done)
	})
}

func TestADeadLetterQueueDropsWhatWasPublishedFirst(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "q", WithDeadLetterCapacity(2), WithDeadLetterOverflow(DropOldest))
		publish(t, top, 1, 2, 3)
		one, two, three := receive(t, q), receive(t, q), receive(t, q)
		for _, d := range []Delivery[int]{two, one, three} { // die in another order
			require.NoError(t, d.Settle(ctx, Permanent(errBusy)))
		}
		require.Equal(t, []int{2, 3}, bodies(t, q.DeadLetters()))
		top.Close()
	})
}

func TestARedriveThatWaitsSwapsWithWhatIsParkedLater(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "q", WithCapacity(1), WithDeadLetterCapacity(1))
		publish(t, top, 1)
		require.NoError(t, receive(t, q).Settle(ctx, Permanent(errBusy)))
		publish(t, top, 2)
		two := receive(t, q)
		done := make(chan error, 1)
		go func() {
			moved, err := q.Redrive(ctx)
			if err == nil && moved != 1 {
				err = fmt.Errorf("moved %d", moved)
			}
			done <- err
		}()
		synctest.Wait()
		// Now both queues are full, and would wait for each other for ever.
		require.NoError(t, two.Settle(ctx, Permanent(errBusy)))
		require.NoError(t, <-done)
		require.Equal(t, 1, receive(t, q).Body)
		require.Equal(t, []int{2}, bodies(t, q.DeadLetters()))
		require.NoError(t, top.Close())
	})
}

func TestARetryThatBecomesDueGoesBeforeWhatWaitsInAHand(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		var order []int
		s := subscribe(t, top, "q", func(_ context.Context, d Delivery[int]) error {
			order = append(order, d.Body)
			switch {
			case d.Body == 0 && d.Attempt() == 1:
				return RetryAfter(errBusy, time.Millisecond)
			case d.Body == 2:
				time.Sleep(600 * time.Microsecond) // it leaves a hand alone for a millisecond
			}
			return nil
		})
		publish(t, top, 0)
		time.Sleep(500 * time.Microsecond) // so that 0 is due before the timer looks at the hand
		// The worker takes one, then two at once: 3 waits in its hand when 0 is due.
		require.NoError(t, top.PublishMessages(ctx, Message[int]{Body: 1}, Message[int]{Body: 2}, Message[int]{Body: 3}))
		synctest.Wait()
		require.Equal(t, 1, s.Queue().Stats().Ready)
		time.Sleep(time.Second)
		synctest.Wait()
		require.Equal(t, []int{0, 1, 2, 0, 3}, order)
		top.Close()
	})
}

func TestTheSliceOfABatchHandlerIsItsToKeep(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "q")
		publish(t, top, 1, 2, 3)
		var kept [][]Delivery[int]
		_, err := q.SubscribeBatch(ctx, func(_ context.Context, ds []Delivery[int]) error {
			kept = append(kept, ds)
			return nil
		}, WithBatchSize(1))
		require.NoError(t, err)
		synctest.Wait()
		require.Len(t, kept, 3)
		for k, ds := range kept {
			require.Equal(t, k+1, ds[0].Body)
		}
		top.Close()
	})
}

func TestABatchHandlerMayChangeItsSlice(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "q")
		publish(t, top, 1, 2, 3)
		_, err := q.SubscribeBatch(ctx, func(_ context.Context, ds []Delivery[int]) error {
			clear(ds)
			return nil
		}, WithBatchSize(2))
		require.NoError(t, err)
		synctest.Wait()
		require.EqualValues(t, 3, q.Stats().Acked)
		top.Close()
	})
}

// CheckInvariants is check for the model's driver, which is outside of the
// package and wants an error.
func CheckInvariants(top *Topic[int]) error {
	top.mu.Lock()
	defer top.mu.Unlock()
	head := top.log.Head()
	for _, q := range top.queues {
		q.mu.Lock()
		err := q.checkLocked(head)
		d := q.dead
		q.mu.Unlock()
		if err == nil && d != nil {
			d.mu.Lock()
			err = d.checkLocked(head)
			d.mu.Unlock()
		}
		if err != nil {
			return fmt.Errorf("queue %q: %w", q.name, err)
		}
	}
	return nil
}
