// A deduplication ID is published once while it is remembered, whatever becomes of the publish.

package publishing_test

import (
	"context"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/internal/tests/kit"
)

func TestCombinationOfDeduplicationWithARefusedPublish(t *testing.T) {
	// Each row refuses a publish, and then no longer: the retry is not swallowed.
	for name, row := range map[string]func(t *testing.T, ctx context.Context, top *fanout.Topic[int]) (again func()){
		"a full queue rejects it": func(t *testing.T, ctx context.Context, top *fanout.Topic[int]) func() {
			r := kit.OpenQueue(t, top, "r", fanout.WithCapacity(1), fanout.WithOverflow(fanout.Reject))
			kit.Publish(t, top, 0)
			require.ErrorIs(t, top.PublishMessages(ctx, kit.WithID(1, "x")), fanout.ErrQueueFull)
			return func() { require.NoError(t, kit.Receive(t, r).Ack(ctx)) }
		},
		"it may not wait": func(t *testing.T, ctx context.Context, top *fanout.Topic[int]) func() {
			r := kit.OpenQueue(t, top, "r", fanout.WithCapacity(1))
			kit.Publish(t, top, 0)
			require.ErrorIs(t, top.TryPublishMessages(ctx, kit.WithID(1, "x")), fanout.ErrQueueFull)
			return func() { require.NoError(t, kit.Receive(t, r).Ack(ctx)) }
		},
		"it is cancelled while it waits": func(t *testing.T, ctx context.Context, top *fanout.Topic[int]) func() {
			r := kit.OpenQueue(t, top, "r", fanout.WithCapacity(1))
			kit.Publish(t, top, 0)
			soon, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			require.ErrorIs(t, top.PublishMessages(soon, kit.WithID(1, "x")), context.DeadlineExceeded)
			return func() { require.NoError(t, kit.Receive(t, r).Ack(ctx)) }
		},
		"a filter panics": func(t *testing.T, ctx context.Context, top *fanout.Topic[int]) func() {
			p := kit.OpenQueue(t, top, "p", fanout.WithFilter(func(b int) bool { return b == 0 || panicked() }))
			kit.Publish(t, top, 0)
			require.ErrorIs(t, top.PublishMessages(ctx, kit.WithID(1, "x")), kit.ErrBusy)
			return func() { require.NoError(t, p.Close()) }
		},
		"its batch is too large": func(t *testing.T, ctx context.Context, top *fanout.Topic[int]) func() {
			r := kit.OpenQueue(t, top, "r", fanout.WithCapacity(2))
			kit.Publish(t, top, 0)
			require.ErrorIs(t, top.PublishMessages(ctx, kit.WithID(1, "x"), kit.WithID(2, "y"), kit.WithID(3, "z")), fanout.ErrBatchTooLarge)
			return func() { require.NoError(t, kit.Receive(t, r).Ack(ctx)) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			kit.Bubble(t, func(t *testing.T, ctx context.Context) {
				top := kit.NewTopic[int](t, fanout.WithDeduplication(time.Hour, 10))
				q := kit.OpenQueue(t, top, "q")
				again := row(t, ctx, top)
				require.Zero(t, top.Stats().Remembered)
				again()
				kit.PublishAll(t, top, kit.WithID(1, "x"))
				kit.PublishAll(t, top, kit.WithID(1, "x"))
				require.Equal(t, []int{0, 1}, kit.Bodies(t, q))
				require.Equal(t, 1, top.Stats().Remembered)
				kit.Check(t, top)
				top.Close()
				<-top.Done()
			})
		})
	}
}

func panicked() bool { panic(kit.ErrBusy) }

func TestCombinationOfDeduplicationWithTwoThatWaitForTheSameRoom(t *testing.T) {
	for _, cancelled := range []bool{false, true} {
		kit.Bubble(t, func(t *testing.T, ctx context.Context) {
			top := kit.NewTopic[int](t, fanout.WithDeduplication(time.Hour, 10))
			q := kit.OpenQueue(t, top, "q", fanout.WithCapacity(1))
			kit.Publish(t, top, 0)
			one, cancel := context.WithCancel(ctx)
			defer cancel()
			a := kit.Waiting(one, top, kit.WithID(1, "x"))
			b := kit.Waiting(ctx, top, kit.WithID(2, "x"))
			c := kit.Waiting(ctx, top, fanout.Message[int]{Body: 3})
			if cancelled {
				cancel()
				require.ErrorIs(t, kit.RequireDecided(t, a), context.Canceled)
			}
			kit.RequireWaiting(t, b)
			require.NoError(t, kit.Receive(t, q).Ack(ctx))
			require.NoError(t, kit.RequireDecided(t, b), "it gets in, or is a duplicate of the one before, and needs no room then")
			kit.RequireWaiting(t, c)
			want := 2
			if !cancelled {
				require.NoError(t, kit.RequireDecided(t, a))
				want = 1
			}
			require.Equal(t, []int{want}, kit.Bodies(t, q))
			kit.Check(t, top)
			require.NoError(t, kit.Receive(t, q).Ack(ctx))
			require.NoError(t, kit.RequireDecided(t, c))
			require.Equal(t, []int{3}, kit.Bodies(t, q))
			kit.Check(t, top)
			top.Close()
		})
	}
}

func TestADuplicateNeedsNoRoomThoughItHasWaitedForSome(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t, fanout.WithDeduplication(time.Hour, 10))
		x := kit.OpenQueue(t, top, "x", fanout.WithCapacity(2), fanout.WithFilter(func(n int) bool { return n < 10 }))
		y := kit.OpenQueue(t, top, "y", fanout.WithFilter(func(n int) bool { return n >= 10 }))
		other := kit.OpenQueue(t, top, "other", fanout.WithFilter(func(n int) bool { return n < 0 }))
		kit.Publish(t, top, 1, 2)
		go func() { _ = top.PublishMessages(ctx, fanout.Message[int]{Body: 3}, fanout.Message[int]{Body: 4}) }()
		synctest.Wait()
		duplicate := make(chan error, 1)
		go func() { duplicate <- top.PublishMessages(ctx, fanout.Message[int]{Body: 5, DeduplicationID: "id"}) }()
		synctest.Wait()
		require.Equal(t, 2, top.Stats().Waiting)
		require.NoError(t, top.PublishMessages(ctx, fanout.Message[int]{Body: 10, DeduplicationID: "id"}))
		require.NoError(t, other.Close()) // all who wait are looked at
		synctest.Wait()
		require.Len(t, duplicate, 1)
		require.NoError(t, <-duplicate)
		require.EqualValues(t, 1, top.Stats().Duplicates)
		require.Equal(t, []int{10}, kit.Bodies(t, y))
		require.Equal(t, []int{1, 2}, kit.Bodies(t, x))
		top.Close()
	})
}

func TestDeduplicationKeepsNoMoreThanItRemembers(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t, fanout.WithDeduplication(time.Hour, 100))
		for n := range 5000 {
			require.NoError(t, top.PublishMessages(ctx, fanout.Message[int]{DeduplicationID: strconv.Itoa(n)}))
		}
		require.Equal(t, 100, top.Stats().Remembered)
		require.EqualValues(t, 4900, top.Stats().Forgotten)
		top.Close()
	})
}

func TestDeduplicationForgetsWhatIsOverBeforeWhatIsNot(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t, fanout.WithDeduplication(time.Second, 2))
		publishAt := func(id string, at time.Duration) {
			time.Sleep(at)
			synctest.Wait()
			require.NoError(t, top.PublishMessages(ctx, fanout.Message[int]{DeduplicationID: id}))
		}
		publishAt("a", 0)
		publishAt("b", 10*time.Millisecond)
		publishAt("c", 1040*time.Millisecond) // b's second is over, though nobody has looked since
		publishAt("d", 0)
		require.Zero(t, top.Stats().Forgotten, "there was room for both")
		require.Equal(t, 2, top.Stats().Remembered)
		require.NoError(t, top.Close())
	})
}

func TestForgettingLeavesTheTopicsEndToTheTopic(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t, fanout.WithDeduplication(time.Second, 2))
		for n := range 5 {
			require.NoError(t, top.PublishMessages(ctx, fanout.Message[int]{DeduplicationID: strconv.Itoa(n)}))
			kit.Elapse(2 * time.Second)
		}
		require.Zero(t, top.Stats().Remembered)
		require.True(t, kit.IsOpen(top.Done()))
		require.NoError(t, top.Close())
		<-top.Done()
	})
}

// Deduplication IDs are the topic's: what ends in a queue does not make it forget them.
func TestDeduplicationIDsOutliveWhatHappensToTheQueue(t *testing.T) {
	for name, lose := range map[string]func(ctx context.Context, q *fanout.Queue[int]) error{
		"purge":  func(ctx context.Context, q *fanout.Queue[int]) error { _, err := q.Purge(ctx); return err },
		"close":  func(_ context.Context, q *fanout.Queue[int]) error { return q.Close() },
		"delete": func(ctx context.Context, q *fanout.Queue[int]) error { return q.Delete(ctx) },
	} {
		t.Run(name, func(t *testing.T) {
			kit.OnBoth(t, func(t *testing.T, ctx context.Context, on func() fanout.TopicOption) {
				top := kit.NewTopic[int](t, on(), fanout.WithDeduplication(time.Minute, 100))
				q := kit.OpenQueue(t, top, "q")
				m := fanout.Message[int]{Body: 1, DeduplicationID: "payment-1"}
				kit.PublishAll(t, top, m)
				require.NoError(t, lose(ctx, q))
				if name != "purge" {
					q = kit.OpenQueue(t, top, "q")
				}
				time.Sleep(time.Minute - time.Nanosecond)
				before, err := q.Depth(ctx)
				require.NoError(t, err)
				kit.PublishAll(t, top, m)
				after, err := q.Depth(ctx)
				require.NoError(t, err)
				require.Equal(t, before.Unsettled(), after.Unsettled(), "it was published before")
				time.Sleep(time.Nanosecond)
				kit.PublishAll(t, top, m)
				after, err = q.Depth(ctx)
				require.NoError(t, err)
				require.Equal(t, before.Unsettled()+1, after.Unsettled())
				require.NoError(t, top.Close())
			})
		})
	}
}

func TestARefusedPublishCountsNoDuplicates(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t, fanout.WithDeduplication(time.Minute, 10))
		kit.OpenQueue(t, top, "q", fanout.WithCapacity(1))
		kit.Publish(t, top, 1)
		twice := fanout.Message[int]{Body: 2, DeduplicationID: "id"}
		require.ErrorIs(t, top.TryPublishMessages(ctx, twice, twice), fanout.ErrQueueFull)
		require.Zero(t, top.Stats().Duplicates)
		top.Close()
	})
}
