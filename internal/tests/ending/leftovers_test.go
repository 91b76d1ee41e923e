// What a queue held at its end can be published again with what is left of its times.

package ending_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/internal/tests/kit"
)

// leftover is what of a message is left in these tests.
func leftover(ms []fanout.Message[int]) map[int][2]time.Duration {
	left := make(map[int][2]time.Duration)
	for _, m := range ms {
		left[m.Body] = [2]time.Duration{m.Delay, m.TimeToLive}
	}
	return left
}

func TestLeftoversHaveWhatIsLeftOfTheirTimes(t *testing.T) {
	for name, end := range map[string]func(ctx context.Context, top *fanout.Topic[int], q *fanout.Queue[int]){
		"Queue.Close": func(_ context.Context, _ *fanout.Topic[int], q *fanout.Queue[int]) { _ = q.Close() },
		"Close":       func(_ context.Context, top *fanout.Topic[int], _ *fanout.Queue[int]) { _ = top.Close() },
		"Shutdown": func(ctx context.Context, top *fanout.Topic[int], _ *fanout.Queue[int]) {
			ended, cancel := context.WithCancel(ctx)
			cancel()
			_ = top.Shutdown(ended)
		},
	} {
		t.Run(name, func(t *testing.T) {
			kit.Bubble(t, func(t *testing.T, ctx context.Context) {
				top := kit.NewTopic[int](t, fanout.WithOrdering())
				q := kit.OpenQueue(t, top, "q", fanout.WithTimeToLive(10*time.Second), fanout.WithBackoff(fanout.Constant(time.Minute)))
				require.NoError(t, top.PublishMessages(ctx,
					fanout.Message[int]{Body: 1},
					fanout.Message[int]{Body: 2, TimeToLive: 8 * time.Second},
					fanout.Message[int]{Body: 3, TimeToLive: 5 * time.Second},
					fanout.Message[int]{Body: 4, TimeToLive: 5*time.Second + 1},
					fanout.Message[int]{Body: 5, TimeToLive: time.Second, OrderingKey: "k"},
					fanout.Message[int]{Body: 6, OrderingKey: "k"},
					fanout.Message[int]{Body: 7, TimeToLive: time.Hour, Delay: time.Minute},
				))
				inHand, failed := kit.Receive(t, q), kit.Receive(t, q)
				require.Equal(t, []int{1, 2}, []int{inHand.Body, failed.Body})
				require.NoError(t, failed.Nack(ctx))
				time.Sleep(5 * time.Second)
				require.NoError(t, top.PublishMessages(ctx, fanout.Message[int]{Body: 8}))
				end(ctx, top, q)

				require.Equal(t, map[int][2]time.Duration{
					1: {0, 5 * time.Second},
					2: {0, 3 * time.Second},
					4: {0, 1},
					6: {0, 5 * time.Second},
					7: {55 * time.Second, 59*time.Minute + 55*time.Second},
					8: {0, 10 * time.Second},
				}, leftover(q.Leftovers()))
				s := q.Stats()
				require.EqualValues(t, 2, s.Expired)
				require.EqualValues(t, 2, s.DeadLettered)
				require.EqualValues(t, 6, s.Left)
				require.Equal(t, uint64(s.Published)+s.Redriven, s.Acked+s.DeadLettered+s.Dropped+s.Left)
				require.Equal(t, []int{3, 5}, kit.Bodies(t, q.DeadLetters()))
				d, err := q.DeadLetters().Peek(ctx, 1)
				require.NoError(t, err)
				require.Equal(t, fanout.Expired, d[0].History()[0].Cause)
				top.Close()
				<-top.Done()
			})
		})
	}
}

// TestLeftoversOfWhatIsInFlightOrParkedHaveANanosecond at least: they are not
// dead of their age, and 0 would give them the queue's times anew.
func TestLeftoversOfWhatIsInFlightOrParkedHaveANanosecond(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "q", fanout.WithTimeToLive(time.Second), fanout.WithDeadLetterCapacity(1))
		kit.Publish(t, top, 1, 2, 3, 4)
		require.NoError(t, kit.Receive(t, q).Settle(ctx, fanout.Permanent(kit.ErrBusy)))
		require.NoError(t, kit.Receive(t, q).Settle(ctx, fanout.Permanent(kit.ErrBusy)))
		kit.Receive(t, q)
		time.Sleep(time.Second)
		var left *fanout.ShutdownError
		ended, cancel := context.WithCancel(ctx)
		cancel()
		require.ErrorAs(t, top.Shutdown(ended), &left)
		require.Equal(t, []fanout.Left{{Queue: "q", InFlight: 1, Parked: 2}}, left.Queues)
		require.Equal(t, map[int][2]time.Duration{2: {0, 1}, 3: {0, 1}, 4: {0, 1}}, leftover(q.Leftovers()))
		require.EqualValues(t, 1, q.Stats().Expired)
	})
}

func TestLeftoversOfAQueueWithADelayAreNotDelayedTwice(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "q", fanout.WithDelay(time.Minute))
		kit.Publish(t, top, 1)
		time.Sleep(time.Minute)
		kit.Publish(t, top, 2)
		time.Sleep(20 * time.Second)
		require.NoError(t, q.Close())
		require.Equal(t, map[int][2]time.Duration{1: {1, 0}, 2: {40 * time.Second, 0}}, leftover(q.Leftovers()))

		again := kit.OpenQueue(t, top, "q", fanout.WithDelay(time.Minute))
		require.NoError(t, top.PublishMessages(ctx, q.Leftovers()...))
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		require.Equal(t, 1, kit.Receive(t, again).Body)
		kit.RequireEmpty(t, again)
		require.NoError(t, top.Close())
	})
}

// TestARedrivenLeftoverLivesFromItsRedrive, not from its publication.
func TestARedrivenLeftoverLivesFromItsRedrive(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "q")
		require.NoError(t, top.PublishMessages(ctx, fanout.Message[int]{Body: 1, TimeToLive: 10 * time.Second}))
		require.NoError(t, kit.Receive(t, q).Settle(ctx, fanout.Permanent(kit.ErrBusy)))
		time.Sleep(time.Minute)
		moved, err := q.Redrive(ctx)
		require.NoError(t, err)
		require.Equal(t, 1, moved)
		time.Sleep(4 * time.Second)
		require.NoError(t, top.Close())
		require.Equal(t, map[int][2]time.Duration{1: {0, 6 * time.Second}}, leftover(q.Leftovers()))
	})
}
