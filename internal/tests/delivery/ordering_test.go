// Messages of a key are delivered one at a time, in their order.

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

func TestRowOrdering(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		err := kit.NewTopic[int](t).PublishMessages(ctx, kit.Keyed("a", 1)...)
		require.ErrorIs(t, err, fanout.ErrUnsupported)
		require.ErrorContains(t, err, "OrderingKey")

		top := kit.NewTopic[int](t, fanout.WithOrdering())
		y := kit.NewDiary()
		kit.Subscribe(t, top, "q", func(ctx context.Context, d fanout.Delivery[int]) error {
			y.Note("%d", d.Body)
			time.Sleep(time.Second)
			return nil
		}, fanout.WithConcurrency(8))
		kit.PublishAll(t, top, kit.Keyed("a", 1, 2, 3)...)
		kit.Elapse(time.Minute)
		require.Equal(t, []string{"0s: 1", "1s: 2", "2s: 3"}, y.Read())
		kit.Check(t, top)
		top.Close()
	})
}

func TestCombinationOfOrderingWithSeveralWorkersAndAHeadThatHasTrouble(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t, fanout.WithOrdering())
		keys := map[string]*kit.Diary{"a": kit.NewDiary(), "b": kit.NewDiary(), "c": kit.NewDiary(), "d": kit.NewDiary()}
		s := kit.Subscribe(t, top, "q", func(ctx context.Context, d fanout.Delivery[int]) error {
			keys[string(rune('a'+d.Body/10))].Note("%d, attempt %d", d.Body, d.Attempt())
			first := len(d.History()) == 0
			switch {
			case d.Body == 1 && first:
				return kit.ErrBusy
			case d.Body == 11 && first:
				time.Sleep(15 * time.Second) // past its visibility timeout
			case d.Body == 21 && first:
				return fanout.Snooze(30 * time.Second)
			case d.Body == 31 && first:
				return fanout.Permanent(kit.ErrBusy)
			case d.Body == 33:
				time.Sleep(5 * time.Second)
			}
			return nil
		}, fanout.WithConcurrency(5), fanout.WithVisibilityTimeout(10*time.Second), fanout.WithBackoff(fanout.Constant(time.Minute)))
		kit.PublishAll(t, top, kit.Keyed("a", 1, 2, 3)...)
		kit.PublishAll(t, top, kit.Keyed("b", 11, 12)...)
		kit.PublishAll(t, top, kit.Keyed("c", 21, 22)...)
		kit.PublishAll(t, top, kit.Keyed("d", 31, 32)...)
		synctest.Wait()
		kit.Check(t, top)
		require.Equal(t, 4, s.Queue().Stats().Blocked, "2, 3, 12, 22")
		kit.Elapse(100 * time.Second)
		require.Equal(t, []string{"0s: 1, attempt 1", "1m0s: 1, attempt 2", "1m0s: 2, attempt 1", "1m0s: 3, attempt 1"}, keys["a"].Read())
		require.Equal(t, []string{"0s: 11, attempt 1", "10s: 11, attempt 2", "10s: 12, attempt 1"}, keys["b"].Read())
		require.Equal(t, []string{"0s: 21, attempt 1", "30s: 21, attempt 1", "30s: 22, attempt 1"}, keys["c"].Read())
		require.Equal(t, []string{"0s: 31, attempt 1", "0s: 32, attempt 1"}, keys["d"].Read())

		kit.PublishAll(t, top, kit.Keyed("d", 33, 34)...)
		kit.Elapse(time.Second)
		n, err := s.Queue().Redrive(ctx)
		require.NoError(t, err)
		require.Equal(t, 1, n)
		kit.Check(t, top)
		kit.Elapse(time.Minute)
		require.Equal(t, []string{"1m40s: 33, attempt 1", "1m45s: 31, attempt 1", "1m45s: 34, attempt 1"}, keys["d"].Read(),
			"behind the one in flight, before those published later")
		kit.Check(t, top)
		require.NoError(t, top.Shutdown(ctx))
	})
}

func TestCombinationOfOrderingWithADroppedHeadWakesAnIdleWorker(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		for name, options := range map[string][]fanout.SubscribeOption{
			"log": nil, "filter": {fanout.WithFilter(func(int) bool { return true })},
		} {
			top := kit.NewTopic[int](t, fanout.WithOrdering())
			y := kit.NewDiary()
			kit.Subscribe(t, top, name, func(ctx context.Context, d fanout.Delivery[int]) error {
				y.Note("%d", d.Body)
				if d.Body == 1 {
					return fanout.Snooze(time.Hour)
				}
				return nil
			}, append(options, fanout.WithCapacity(3), fanout.WithOverflow(fanout.DropOldest))...)
			kit.PublishAll(t, top, kit.Keyed("a", 1, 2, 3)...)
			kit.Elapse(time.Second)
			kit.PublishAll(t, top, kit.Keyed("a", 4)...)
			synctest.Wait()
			require.Equal(t, []string{"0s: 1", "1s: 2", "1s: 3", "1s: 4"}, y.Read(), name)
			kit.Check(t, top)
			top.Close()
		}
	})
}

func TestCombinationOfOrderingWithATimeToLive(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t, fanout.WithOrdering())
		q := kit.OpenQueue(t, top, "q", fanout.WithTimeToLive(10*time.Second), fanout.WithBackoff(fanout.Constant(time.Minute)))
		kit.PublishAll(t, top, kit.Keyed("a", 1, 2)...)
		d := kit.Receive(t, q)
		kit.Elapse(5 * time.Second)
		kit.PublishAll(t, top, kit.Keyed("a", 3)...)
		kit.RequireEmpty(t, q) // 2 and 3 are in line
		require.Equal(t, 2, q.Stats().Blocked)
		kit.Elapse(6 * time.Second)
		require.NoError(t, d.Nack(ctx)) // dies of its age, and so does 2 when its turn comes
		require.Equal(t, 3, kit.Receive(t, q).Body)
		require.Equal(t, []int{1, 2}, kit.DeadBodies(t, q))
		kit.Check(t, top)
		top.Close()
	})
}

func TestCombinationOfARateLimitWithOrderingAndRetries(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t, fanout.WithOrdering())
		y := kit.NewDiary()
		kit.Subscribe(t, top, "q", func(ctx context.Context, d fanout.Delivery[int]) error {
			y.Note("%d", d.Body)
			if d.Body == 1 && d.Attempt() == 1 {
				return fanout.RetryAfter(kit.ErrBusy, 3500*time.Millisecond)
			}
			return nil
		}, fanout.WithRateLimit(1), fanout.WithConcurrency(3))
		kit.PublishAll(t, top, append(kit.Keyed("a", 1, 2), kit.Keyed("b", 11, 12)...)...)
		kit.Elapse(time.Minute)
		require.Equal(t, []string{"0s: 1", "1s: 11", "2s: 12", "3.5s: 1", "4.5s: 2"}, y.Read(), "what is blocked takes no token")
		kit.Check(t, top)
		top.Close()
	})
}

// Redriven letters go in line by their publication, wherever those are that stood there before.
func TestARedrivenLetterGoesInLineBeforeTheYoungerOnesOfItsKey(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t, fanout.WithOrdering())
		q := kit.OpenQueue(t, top, "q")
		kit.PublishAll(t, top, kit.Keyed("a", 1, 2, 3, 4, 5, 6)...)
		receive := func() fanout.Delivery[int] {
			d, ok, err := q.TryReceive(ctx)
			require.NoError(t, err)
			require.True(t, ok)
			return d
		}
		idle := func(blocked int) {
			_, ok, err := q.TryReceive(ctx)
			require.NoError(t, err)
			require.False(t, ok)
			require.Equal(t, blocked, q.Stats().Blocked)
		}
		redrive := func(body int) {
			n, err := q.Redrive(ctx, fanout.RedriveIf(func(d fanout.Delivery[int]) bool { return d.Body == body }))
			require.NoError(t, err)
			require.Equal(t, 1, n)
		}
		for range 3 {
			require.NoError(t, receive().Settle(ctx, fanout.Permanent(kit.ErrBusy)))
		}
		head := receive()
		require.Equal(t, 4, head.Body)
		idle(2)
		redrive(1)
		idle(3)
		redrive(3) // its turn is before that of 1, which becomes due when the head is gone
		redrive(2)
		require.NoError(t, head.Ack(ctx))
		for _, want := range []int{1, 2, 3, 5, 6} {
			d := receive()
			require.Equal(t, want, d.Body)
			kit.Check(t, top)
			require.NoError(t, d.Ack(ctx))
		}
		idle(0)
		top.Close()
	})
}
