// A publish goes to all its queues or to none, waits in its turn for room, and drops only what a queue's policy says.

package publishing_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/internal/tests/kit"
)

func TestRowCapacity(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "q", fanout.WithCapacity(3), fanout.WithOverflow(fanout.Reject), fanout.WithBackoff(fanout.Constant(time.Minute)))
		require.Equal(t, 1024, kit.OpenQueue(t, top, "default").Stats().Capacity)
		wide := kit.OpenQueue(t, top, "wide", fanout.WithCapacity(fanout.Unlimited))
		kit.Publish(t, top, 1, 2, 3)
		require.ErrorIs(t, top.Publish(ctx, 4), fanout.ErrQueueFull, "what is ready counts")
		d := kit.Receive(t, q)
		require.ErrorIs(t, top.Publish(ctx, 4), fanout.ErrQueueFull, "what is in flight counts")
		require.NoError(t, d.Nack(ctx))
		require.ErrorIs(t, top.Publish(ctx, 4), fanout.ErrQueueFull, "what is retrying counts")
		require.NoError(t, kit.Receive(t, q).Settle(ctx, fanout.Snooze(time.Hour)))
		require.ErrorIs(t, top.Publish(ctx, 4), fanout.ErrQueueFull, "what is snoozed counts")
		kit.Check(t, top)
		require.NoError(t, kit.Receive(t, q).Settle(ctx, fanout.Permanent(kit.ErrBusy)))
		kit.Publish(t, top, 4)
		require.ErrorIs(t, top.Publish(ctx, 5), fanout.ErrQueueFull, "what is dead does not")
		require.Equal(t, []int{1, 2, 3, 4}, kit.Bodies(t, wide))
		kit.Check(t, top)
		top.Close()
	})
}

func TestRowOverflow(t *testing.T) {
	odd := fanout.WithFilter(func(b int) bool { return b%2 != 0 })
	even := fanout.WithFilter(func(b int) bool { return b%2 == 0 })

	t.Run("Block", func(t *testing.T) {
		kit.Bubble(t, func(t *testing.T, ctx context.Context) {
			top := kit.NewTopic[int](t)
			q := kit.OpenQueue(t, top, "q", fanout.WithCapacity(2))
			kit.Publish(t, top, 1, 2)
			a, b := kit.Waiting(ctx, top, fanout.Message[int]{Body: 3}, fanout.Message[int]{Body: 4}), kit.Waiting(ctx, top, fanout.Message[int]{Body: 5})
			kit.Elapse(time.Hour)
			require.NoError(t, kit.Receive(t, q).Ack(ctx))
			kit.RequireWaiting(t, a)
			kit.RequireWaiting(t, b) // it came later, and there would be room
			require.NoError(t, kit.Receive(t, q).Ack(ctx))
			require.NoError(t, kit.RequireDecided(t, a))
			kit.RequireWaiting(t, b)
			require.NoError(t, kit.Receive(t, q).Ack(ctx))
			require.NoError(t, kit.RequireDecided(t, b))
			require.Equal(t, []int{4, 5}, kit.Bodies(t, q))
			require.ErrorIs(t, top.PublishMessages(ctx, make([]fanout.Message[int], 3)...), fanout.ErrBatchTooLarge)
			kit.Check(t, top)
			top.Close()
		})
	})
	t.Run("Block, another queue", func(t *testing.T) {
		kit.Bubble(t, func(t *testing.T, ctx context.Context) {
			top := kit.NewTopic[int](t)
			o := kit.OpenQueue(t, top, "odd", fanout.WithCapacity(1), odd)
			e := kit.OpenQueue(t, top, "even", fanout.WithCapacity(3), even)
			kit.Publish(t, top, 1)
			a := kit.Waiting(ctx, top, fanout.Message[int]{Body: 3})
			kit.Publish(t, top, 2) // shares no queue with it
			b := kit.Waiting(ctx, top, fanout.Message[int]{Body: 4}, fanout.Message[int]{Body: 5})
			c := kit.Waiting(ctx, top, fanout.Message[int]{Body: 6}) // shares one with b, which came before
			kit.RequireWaiting(t, c)
			soon, cancel := context.WithCancel(ctx)
			d := kit.Waiting(soon, top, fanout.Message[int]{Body: 7})
			cancel() // has all looked at again
			require.ErrorIs(t, kit.RequireDecided(t, d), context.Canceled)
			kit.RequireWaiting(t, c)
			require.NoError(t, kit.Receive(t, o).Ack(ctx))
			require.NoError(t, kit.RequireDecided(t, a))
			kit.RequireWaiting(t, b)
			kit.RequireWaiting(t, c)
			require.NoError(t, kit.Receive(t, o).Ack(ctx))
			require.NoError(t, kit.RequireDecided(t, b))
			require.NoError(t, kit.RequireDecided(t, c))
			require.Equal(t, []int{2, 4, 6}, kit.Bodies(t, e))
			require.Equal(t, []int{5}, kit.Bodies(t, o))
			kit.Check(t, top)
			top.Close()
		})
	})
	t.Run("Reject", func(t *testing.T) {
		kit.Bubble(t, func(t *testing.T, ctx context.Context) {
			top := kit.NewTopic[int](t)
			q := kit.OpenQueue(t, top, "q", fanout.WithCapacity(2), fanout.WithOverflow(fanout.Reject))
			old := kit.OpenQueue(t, top, "old", fanout.WithCapacity(1), fanout.WithOverflow(fanout.DropOldest))
			kit.Publish(t, top, 1)
			err := top.PublishMessages(ctx, fanout.Message[int]{Body: 2}, fanout.Message[int]{Body: 3})
			require.ErrorIs(t, err, fanout.ErrQueueFull)
			require.ErrorContains(t, err, `"q" holds 1`)
			require.Equal(t, []int{1}, kit.Bodies(t, q))
			require.Equal(t, []int{1}, kit.Bodies(t, old), "for all queues")
			require.ErrorIs(t, top.PublishMessages(ctx, make([]fanout.Message[int], 3)...), fanout.ErrBatchTooLarge)
			kit.Check(t, top)
			top.Close()
		})
	})
	for _, filtered := range []bool{false, true} {
		options := func(o fanout.Overflow) []fanout.QueueOption {
			os := []fanout.QueueOption{fanout.WithCapacity(3), fanout.WithOverflow(o), fanout.WithBackoff(fanout.Constant(time.Hour))}
			if filtered {
				os = append(os, fanout.WithFilter(func(int) bool { return true }))
			}
			return os
		}
		t.Run(fmt.Sprintf("DropOldest, filtered %t", filtered), func(t *testing.T) {
			kit.Bubble(t, func(t *testing.T, ctx context.Context) {
				top := kit.NewTopic[int](t)
				q := kit.OpenQueue(t, top, "q", options(fanout.DropOldest)...)
				kit.Publish(t, top, 1, 2, 3)
				d := kit.Receive(t, q)
				kit.Publish(t, top, 4)
				require.Equal(t, []int{3, 4}, kit.Bodies(t, q), "2 is the oldest that is not in flight")
				require.NoError(t, d.Nack(ctx))
				kit.Publish(t, top, 5)
				require.Equal(t, []int{3, 4, 5}, kit.Bodies(t, q), "1 was published first")
				kit.PublishAll(t, top, make([]fanout.Message[int], 5)...)
				require.Equal(t, []int{0, 0, 0}, kit.Bodies(t, q), "a batch above the capacity is no error")
				require.Equal(t, uint64(7), q.Stats().Dropped)
				kit.Check(t, top)
				top.Close()
			})
		})
		t.Run(fmt.Sprintf("DropNewest, filtered %t", filtered), func(t *testing.T) {
			kit.Bubble(t, func(t *testing.T, ctx context.Context) {
				top := kit.NewTopic[int](t)
				q := kit.OpenQueue(t, top, "q", options(fanout.DropNewest)...)
				kit.PublishAll(t, top, []fanout.Message[int]{{Body: 1}, {Body: 2}, {Body: 3}, {Body: 4}}...)
				kit.Publish(t, top, 5)
				require.Equal(t, []int{1, 2, 3}, kit.Bodies(t, q))
				require.NoError(t, kit.Receive(t, q).Ack(ctx))
				kit.Publish(t, top, 6, 7)
				require.Equal(t, []int{2, 3, 6}, kit.Bodies(t, q))
				require.Equal(t, uint64(3), q.Stats().Dropped)
				kit.Check(t, top)
				top.Close()
			})
		})
	}
	t.Run("an idle queue pins no memory", func(t *testing.T) {
		type big [1 << 10]byte
		top := kit.NewTopic[*big](t)
		kit.OpenQueue(t, top, "old", fanout.WithCapacity(8), fanout.WithOverflow(fanout.DropOldest))
		kit.OpenQueue(t, top, "new", fanout.WithCapacity(8), fanout.WithOverflow(fanout.DropNewest))
		before := kit.Heap()
		for range 10_000 {
			kit.Publish(t, top, new(big))
		}
		require.Less(t, kit.Heap()-before, int64(256<<10))
		kit.Check(t, top)
		top.Close()
	})
}

func TestCombinationOfDropOldestWithWhatCannotBeDropped(t *testing.T) {
	for _, filtered := range []bool{false, true} {
		t.Run(fmt.Sprintf("filtered %t", filtered), func(t *testing.T) {
			kit.Bubble(t, func(t *testing.T, ctx context.Context) {
				var lost []fanout.DropReason
				top := kit.NewTopic[int](t, fanout.WithHooks(fanout.Hooks{Dropped: func(e fanout.Event) { lost = append(lost, e.Reason) }}))
				options := []fanout.QueueOption{fanout.WithCapacity(3), fanout.WithOverflow(fanout.DropOldest), fanout.WithBackoff(fanout.Constant(time.Minute)),
					fanout.WithMaxAttempts(2), fanout.WithDeadLetterCapacity(1)}
				if filtered {
					options = append(options, fanout.WithFilter(func(b int) bool { return b >= 0 }))
				}
				q := kit.OpenQueue(t, top, "q", options...)
				kit.Publish(t, top, 1, 2, 3)
				a, b, c := kit.Receive(t, q), kit.Receive(t, q), kit.Receive(t, q)
				kit.Publish(t, top, 4, 5)
				require.Empty(t, kit.Bodies(t, q), "all is in flight: the new ones go")
				require.Equal(t, 3, q.Stats().InFlight)
				kit.Check(t, top)

				require.NoError(t, b.Nack(ctx)) // retrying
				kit.Publish(t, top, 6)
				require.Equal(t, []int{6}, kit.Bodies(t, q), "a retry that waits goes before what is newer")
				require.NoError(t, c.NackAfter(ctx, time.Second))
				kit.Elapse(time.Second)
				require.Equal(t, []int{3, 6}, kit.Bodies(t, q))
				kit.Publish(t, top, 7)
				require.Equal(t, []int{6, 7}, kit.Bodies(t, q), "so does one that is due again")
				kit.Check(t, top)
				kit.Elapse(time.Minute)
				require.Equal(t, []int{1, 6, 7}, kit.Bodies(t, q), "1 timed out, and what was dropped does not come back")
				require.ErrorIs(t, a.Ack(ctx), fanout.ErrStale)

				// What is parked cannot be dropped either.
				require.NoError(t, kit.Receive(t, q).Settle(ctx, fanout.Permanent(kit.ErrBusy)))
				require.NoError(t, kit.Receive(t, q).Settle(ctx, fanout.Permanent(kit.ErrBusy)))
				d := kit.Receive(t, q)
				kit.Publish(t, top, 8)
				require.Equal(t, []int{8}, kit.Bodies(t, q))
				kit.Publish(t, top, 9)
				require.Equal(t, []int{9}, kit.Bodies(t, q))
				require.Equal(t, 1, q.Stats().Parked)
				require.NoError(t, d.Ack(ctx))
				kit.Check(t, top)

				// What is ready goes before a delayed one that was published later.
				kit.PublishAll(t, top, fanout.Message[int]{Body: 10, Delay: time.Second})
				require.Equal(t, []int{9, 10}, kit.Bodies(t, q), "and one is parked")
				kit.Publish(t, top, 11)
				require.Equal(t, []int{10, 11}, kit.Bodies(t, q))
				kit.Check(t, top)
				require.Len(t, lost, 6)
				for _, why := range lost {
					require.Equal(t, fanout.DroppedOldest, why)
				}
				top.Close()
			})
		})
	}
}

func TestCombinationOfTwoBlockQueuesThatAreNeverOpenTogetherAndABatch(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		var handled [2]string
		consume := func(k int) fanout.Handler[int] {
			return func(ctx context.Context, d fanout.Delivery[int]) error {
				handled[k] += fmt.Sprint(d.Body)
				time.Sleep(time.Second)
				return nil
			}
		}
		negative := kit.Subscribe(t, top, "negative", consume(0), fanout.WithCapacity(3), fanout.WithFilter(func(b int) bool { return b < 0 })).Queue()
		positive := kit.Subscribe(t, top, "positive", consume(1), fanout.WithCapacity(3), fanout.WithFilter(func(b int) bool { return b > 0 })).Queue()
		stop := make(chan struct{})
		stream := func(body int) {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if top.Publish(ctx, body) != nil {
					return
				}
			}
		}
		go stream(-1)
		go stream(-1)
		time.Sleep(500 * time.Millisecond) // so that the two make room in turn
		go stream(1)
		go stream(1)
		kit.Elapse(10 * time.Second)
		require.Equal(t, [2]int{3, 3}, [2]int{negative.Stats().Unsettled(), positive.Stats().Unsettled()})
		require.Equal(t, 4, top.Stats().Waiting)
		kit.Check(t, top)

		batch := time.Now()
		require.NoError(t, top.PublishMessages(ctx,
			fanout.Message[int]{Body: -2}, fanout.Message[int]{Body: 2}, fanout.Message[int]{Body: -2}, fanout.Message[int]{Body: 2}, fanout.Message[int]{Body: -2}, fanout.Message[int]{Body: 2}))
		require.LessOrEqual(t, time.Since(batch), 6*time.Second, "two before it, then three in each")
		kit.Check(t, top)
		kit.Elapse(10 * time.Second)
		close(stop)
		kit.Elapse(time.Minute)
		require.Zero(t, top.Stats().Waiting)
		require.Contains(t, handled[0], "-1-2-2-2-1", "and no other's between them")
		require.Contains(t, handled[1], "12221")
		kit.Check(t, top)
		require.NoError(t, top.Shutdown(ctx))
	})
}

func TestCombinationOfAPauseWithAPublisherThatWaits(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "q", fanout.WithCapacity(2), fanout.WithVisibilityTimeout(time.Hour))
		kit.Publish(t, top, 1, 2)
		d := kit.Receive(t, q)
		a, b := kit.Waiting(ctx, top, fanout.Message[int]{Body: 3}), kit.Waiting(ctx, top, fanout.Message[int]{Body: 4})
		require.NoError(t, q.Pause(ctx))
		kit.Elapse(time.Minute)
		kit.RequireWaiting(t, a)
		require.NoError(t, d.Ack(ctx)) // in flight goes on, and makes room
		require.NoError(t, kit.RequireDecided(t, a))
		kit.RequireWaiting(t, b)
		require.Equal(t, []int{2, 3}, kit.Bodies(t, q))
		kit.Check(t, top)
		y := kit.NewDiary()
		_, err := q.Subscribe(ctx, func(ctx context.Context, d fanout.Delivery[int]) error {
			y.Note("%d", d.Body)
			return nil
		})
		require.NoError(t, err)
		kit.Elapse(time.Minute)
		require.Empty(t, y.Read())
		require.NoError(t, q.Resume(ctx))
		require.NoError(t, kit.RequireDecided(t, b))
		require.Equal(t, []string{"1m0s: 2", "1m0s: 3", "1m0s: 4"}, y.Read())
		kit.Check(t, top)
		top.Close()
	})
}

func TestCombinationOfAPurgeWithARunningHandlerAndAPublisherThatWaits(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		var log kit.Buffer
		y := kit.NewDiary()
		top, err := fanout.NewTopic[int]("payments", fanout.WithOrdering(), fanout.WithLogger(log.Logger()), fanout.WithHooks(fanout.Hooks{
			Late:  func(e fanout.Event) { y.Note("late: %v", e.Err) },
			Stuck: func(e fanout.Event) { y.Note("stuck") },
		}))
		require.NoError(t, err)
		s := kit.Subscribe(t, top, "q", func(ctx context.Context, d fanout.Delivery[int]) error {
			y.Note("%d", d.Body)
			if d.Body == 1 {
				<-ctx.Done()
				y.Note("%t %t", errors.Is(context.Cause(ctx), fanout.ErrStale), errors.Is(d.Ack(ctx), fanout.ErrStale))
				time.Sleep(5 * time.Second)
				return kit.ErrBusy
			}
			return nil
		}, fanout.WithCapacity(3))
		q := s.Queue()
		kit.PublishAll(t, top, kit.Keyed("a", 1, 2, 3)...)
		full := kit.Waiting(ctx, top, kit.Keyed("a", 4)...)
		kit.Elapse(time.Second)
		n, err := q.Purge(ctx)
		require.NoError(t, err)
		require.Equal(t, 3, n)
		require.NoError(t, kit.RequireDecided(t, full))
		require.Equal(t, []string{"0s: 1", "1s: true true"}, y.Read())
		require.Equal(t, [2]int{1, 0}, [2]int{q.Stats().Ready, q.Stats().Stuck}, "its worker is kept until it returns")
		kit.Check(t, top)
		kit.Elapse(time.Minute)
		require.Equal(t, []string{"6s: late: busy", "6s: 4"}, y.Read())
		require.Contains(t, log.String(), "reason=purge")
		require.Equal(t, [2]uint64{1, 3}, [2]uint64{q.Stats().Acked, q.Stats().Dropped})
		kit.Check(t, top)
		require.NoError(t, top.Shutdown(ctx))
	})
}

func TestCombinationOfAPublisherThatWaitsWithTheCloseOfItsQueue(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		a := kit.OpenQueue(t, top, "a", fanout.WithCapacity(1))
		b := kit.OpenQueue(t, top, "b", fanout.WithCapacity(1), fanout.WithFilter(func(body int) bool { return body != 3 }))
		c := kit.OpenQueue(t, top, "c")
		kit.Publish(t, top, 1)
		both := kit.Waiting(ctx, top, fanout.Message[int]{Body: 2})
		one := kit.Waiting(ctx, top, fanout.Message[int]{Body: 3}) // for a only, but behind the other
		kit.Elapse(time.Minute)
		require.NoError(t, a.Close())
		kit.RequireWaiting(t, both) // for b
		kit.RequireWaiting(t, one)  // c is shared, and the other came before
		require.NoError(t, b.Close())
		require.NoError(t, kit.RequireDecided(t, both))
		require.NoError(t, kit.RequireDecided(t, one))
		require.Equal(t, []int{1, 2, 3}, kit.Bodies(t, c))
		require.Equal(t, 1, a.Leftovers()[0].Body)
		require.Len(t, a.Leftovers(), 1)
		require.Len(t, b.Leftovers(), 1)
		kit.Check(t, top)
		kit.Publish(t, top, 4)
		top.Close()
		<-top.Done()
	})
}

func TestDropOldestFindsWhatStandsBehindItsKey(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t, fanout.WithOrdering())
		q := kit.OpenQueue(t, top, "q", fanout.WithCapacity(3), fanout.WithOverflow(fanout.DropOldest))
		send := func(body int) {
			require.NoError(t, top.PublishMessages(ctx, fanout.Message[int]{Body: body, OrderingKey: "k"}))
		}
		send(1)
		send(2)
		d := kit.Receive(t, q)
		kit.RequireEmpty(t, q) // 2 stands behind 1
		require.Equal(t, 1, q.Stats().Blocked)
		send(3)
		send(4)
		require.Equal(t, []int{3, 4}, kit.Bodies(t, q))
		kit.Check(t, top)
		require.NoError(t, d.Ack(ctx))
		top.Close()
	})
}

func TestWhatAFullQueueDroppedIsNotKept(t *testing.T) {
	top := kit.NewTopic[*[1 << 16]byte](t)
	q := kit.OpenQueue(t, top, "q", fanout.WithCapacity(1), fanout.WithOverflow(fanout.DropOldest))
	old := new([1 << 16]byte)
	dropped := weak.Make(old)
	kit.Publish(t, top, old)
	old = nil
	kit.Publish(t, top, new([1 << 16]byte))
	runtime.GC()
	require.Nil(t, dropped.Value(), "an idle queue pins what it dropped")
	require.EqualValues(t, 1, q.Stats().Dropped)
	top.Close()
}

func TestAWaitThatEndsLetsThoseBehindItGoOn(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		full := kit.OpenQueue(t, top, "full", fanout.WithCapacity(1), fanout.WithFilter(func(n int) bool { return n < 3 }))
		free := kit.OpenQueue(t, top, "free")
		kit.Publish(t, top, 1)
		brief, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		go func() { _ = top.Publish(brief, 2) }() // for both
		synctest.Wait()
		var published time.Duration
		began := time.Now()
		go func() {
			require.NoError(t, top.Publish(ctx, 3)) // for "free", behind the other
			published = time.Since(began)
		}()
		synctest.Wait()
		require.Equal(t, 2, top.Stats().Waiting)
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Equal(t, time.Minute, published)
		require.Equal(t, []int{1, 3}, kit.Bodies(t, free))
		require.Equal(t, []int{1}, kit.Bodies(t, full))
		top.Close()
	})
}

func TestWhoeverStandsBehindAnotherIsStillRejectedAtOnce(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		kit.OpenQueue(t, top, "block", fanout.WithCapacity(1))
		kit.OpenQueue(t, top, "reject", fanout.WithCapacity(1), fanout.WithOverflow(fanout.Reject), fanout.WithFilter(func(n int) bool { return n != 2 }))
		kit.Publish(t, top, 1)
		go func() { _ = top.Publish(ctx, 2) }()
		synctest.Wait()
		require.Equal(t, 1, top.Stats().Waiting)
		err := top.Publish(ctx, 3)
		require.ErrorIs(t, err, fanout.ErrQueueFull)
		require.ErrorContains(t, err, `"reject"`)
		top.Close()
	})
}

func TestAPublishWhoseContextHasEndedPublishesNothingThoughThereIsRoom(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "q")
		ended, end := context.WithCancelCause(ctx)
		end(kit.ErrBusy)
		for name, err := range map[string]error{
			"Publish":            top.Publish(ended, 1),
			"TryPublish":         top.TryPublish(ended, 1),
			"PublishMessages":    top.PublishMessages(ended, fanout.Message[int]{Body: 1}, fanout.Message[int]{Body: 2}),
			"TryPublishMessages": top.TryPublishMessages(ended, fanout.Message[int]{Body: 1}),
		} {
			require.ErrorIs(t, err, context.Canceled, name)
			require.ErrorIs(t, err, kit.ErrBusy, name)
			require.ErrorContains(t, err, `"payments"`, name)
		}
		require.Zero(t, q.Stats().Published)
		require.Zero(t, top.Stats().Published)
		top.Close()
	})
}

func TestNobodyOvertakesABatchThatWaitsForMoreRoomThanThereIs(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "q", fanout.WithCapacity(2))
		kit.Publish(t, top, 1)
		go func() { _ = top.PublishMessages(ctx, fanout.Message[int]{Body: 2}, fanout.Message[int]{Body: 3}) }()
		synctest.Wait()
		require.ErrorIs(t, top.TryPublish(ctx, 4), fanout.ErrQueueFull)
		require.ErrorIs(t, top.TryPublishMessages(ctx, fanout.Message[int]{Body: 4}), fanout.ErrQueueFull)
		go func() { _ = top.Publish(ctx, 4) }()
		synctest.Wait()
		go func() { _ = top.PublishMessages(ctx, fanout.Message[int]{Body: 5}) }()
		synctest.Wait()
		require.Equal(t, 3, top.Stats().Waiting)
		require.Equal(t, []int{1}, kit.Bodies(t, q))
		var got []int
		for range 5 {
			d := kit.Receive(t, q)
			got = append(got, d.Body)
			require.NoError(t, d.Ack(ctx))
			synctest.Wait()
			kit.Check(t, top)
		}
		require.Equal(t, kit.To(1, 5), got)
		top.Close()
	})
}

func TestATopicWithoutQueuesKeepsNothing(t *testing.T) {
	top := kit.NewTopic[*[1 << 16]byte](t)
	q := kit.OpenQueue(t, top, "q")
	body := new([1 << 16]byte)
	held := weak.Make(body)
	kit.Publish(t, top, body)
	body = nil
	require.NoError(t, q.Close())
	q = kit.OpenQueue(t, top, "q") // the one before is gone, with its leftovers
	require.NoError(t, q.Close())
	runtime.GC()
	require.Nil(t, held.Value())
	top.Close()
}

func TestTenThousandIdleQueuesCostLittle(t *testing.T) {
	const n = 10_000
	for _, row := range []struct {
		name    string
		options func(k int) []fanout.SubscribeOption
		most    int64
	}{
		{"no subscriber", nil, 800},
		{"a subscriber", func(int) []fanout.SubscribeOption { return nil }, 1024},
		{"a subscriber with much asked for", func(int) []fanout.SubscribeOption {
			return []fanout.SubscribeOption{fanout.WithConcurrency(64), fanout.WithRateLimit(10), fanout.WithAutoExtend(time.Hour), fanout.WithHandlerTimeout(time.Minute),
				fanout.WithCapacity(1_000_000), fanout.WithTimeToLive(time.Hour), fanout.WithReplay(1000)}
		}, 2048},
		{"a subscriber behind a filter", func(int) []fanout.SubscribeOption {
			return []fanout.SubscribeOption{fanout.WithFilter(func(int) bool { return false }), fanout.WithOverflow(fanout.DropOldest)}
		}, 2304},
	} {
		t.Run(row.name, func(t *testing.T) {
			names := make([]string, n)
			for k := range names {
				names[k] = fmt.Sprint(k)
			}
			goroutines, bytes := runtime.NumGoroutine(), kit.Heap()
			top := kit.NewTopic[int](t, fanout.WithRetention(1000), fanout.WithOrdering(), fanout.WithDeduplication(time.Minute, 1000))
			for k, name := range names {
				if row.options == nil {
					kit.OpenQueue(t, top, name)
				} else {
					kit.Subscribe(t, top, name, kit.HandleNothing, row.options(k)...)
				}
			}
			each, more := (kit.Heap()-bytes)/n, runtime.NumGoroutine()-goroutines
			t.Logf("%d queues with %s: %d bytes each, %d goroutines", n, row.name, each, more)
			require.LessOrEqual(t, each, row.most)
			require.Less(t, more, n/100, "other tests and the runtime have some, too")
			require.Len(t, top.Queues(), n)
			top.Close()
			<-top.Done()
		})
	}
}

func TestWhatIsReceivedTakesRoomThatADelayedMessageDoesNotGet(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "q", fanout.WithCapacity(5), fanout.WithOverflow(fanout.DropNewest))
		kit.Publish(t, top, 1, 2, 3, 4)
		ds, err := q.ReceiveBatch(ctx, 4)
		require.NoError(t, err)
		require.NoError(t, top.PublishMessages(ctx,
			fanout.Message[int]{Body: 5, Delay: time.Hour}, fanout.Message[int]{Body: 6, Delay: time.Hour}, fanout.Message[int]{Body: 7, Delay: time.Hour}))
		require.EqualValues(t, 2, q.Stats().Dropped)
		require.Equal(t, []int{5}, kit.Bodies(t, q))
		kit.Check(t, top)
		require.NoError(t, q.AckBatch(ctx, ds...))
		top.Close()
	})
}

func TestPromise01AnEmptyBatchNeedsNoRoom(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		kit.OpenQueue(t, top, "full", fanout.WithCapacity(1))
		kit.Publish(t, top, 1)
		go top.Publish(ctx, 2) // waits; others wait behind it
		synctest.Wait()
		require.NoError(t, top.TryPublishMessages(ctx))
		require.NoError(t, top.PublishMessages(ctx))
		top.Close()
	})
}

func TestPromise01ARedriveThatWaitsHoldsNoPublishBackWhereMessagesAreDropped(t *testing.T) {
	for _, policy := range []fanout.Overflow{fanout.DropOldest, fanout.DropNewest} {
		t.Run(policy.String(), func(t *testing.T) {
			kit.Bubble(t, func(t *testing.T, ctx context.Context) {
				top := kit.NewTopic[int](t)
				q := kit.OpenQueue(t, top, "q", fanout.WithCapacity(1), fanout.WithOverflow(policy))
				other := kit.OpenQueue(t, top, "other")
				kit.Publish(t, top, 1)
				require.NoError(t, kit.Receive(t, q).Settle(ctx, fanout.Permanent(kit.ErrBusy)))
				kit.Publish(t, top, 2)
				d := kit.Receive(t, q)
				moved := make(chan int, 1)
				go func() {
					n, _ := q.Redrive(ctx)
					moved <- n
				}()
				synctest.Wait()
				require.Equal(t, 1, top.Stats().Waiting)

				require.NoError(t, top.TryPublish(ctx, 3), "the queue drops, so that nobody waits for it")
				require.Equal(t, []int{1, 2, 3}, kit.Bodies(t, other))
				require.NoError(t, d.Ack(ctx))
				require.Equal(t, 1, <-moved)
				require.Equal(t, []int{1}, kit.Bodies(t, q))
				kit.Check(t, top)
				top.Close()
			})
		})
	}
}

func TestPromise03AHookThatPublishesKeepsNobodyWaitingForRoomThatIsThere(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		var top *fanout.Topic[int]
		var once sync.Once
		top = kit.NewTopic[int](t, fanout.WithHooks(fanout.Hooks{Settled: func(fanout.Event) {
			once.Do(func() { _ = top.Publish(ctx, 3) })
		}}))
		q := kit.OpenQueue(t, top, "q", fanout.WithCapacity(1))
		kit.Publish(t, top, 1)
		go top.Publish(ctx, 2)
		synctest.Wait()
		go kit.Receive(t, q).Ack(ctx) // the hook waits behind 2, for which there is room now
		synctest.Wait()
		for want := 2; want <= 3; want++ {
			d := kit.Receive(t, q)
			require.Equal(t, want, d.Body)
			require.NoError(t, d.Ack(ctx))
			synctest.Wait()
		}
		kit.Check(t, top)
		top.Close()
	})
}

func TestPromise03AHookThatEndsItsGoroutineKeepsNoPublisherWaiting(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t, fanout.WithHooks(fanout.Hooks{Dropped: func(fanout.Event) { runtime.Goexit() }}))
		full := kit.OpenQueue(t, top, "full", fanout.WithCapacity(1))
		kit.OpenQueue(t, top, "dropper", fanout.WithCapacity(1), fanout.WithOverflow(fanout.DropNewest))
		kit.Publish(t, top, 1)
		got := make(chan error, 1)
		go func() { got <- top.Publish(ctx, 2) }()
		synctest.Wait()
		go kit.Receive(t, full).Ack(ctx) // admits 2, which the other queue drops
		synctest.Wait()
		select {
		case err := <-got:
			require.NoError(t, err)
		default:
			require.Fail(t, "the publisher was admitted and never told")
		}
		kit.Check(t, top)
		go top.Close()
		<-top.Done()
	})
}

// A batch waits for a whole queue, and others wait behind it. It gives up.
func TestWhoWaitsBehindABatchThatGaveUpGetsItsTurn(t *testing.T) {
	type scene struct {
		ctx  context.Context
		top  *fanout.Topic[int]
		q, o *fanout.Queue[int] // o gets only what is even
		ds   []fanout.Delivery[int]
	}
	publishing := func(body int) func(s *scene) error {
		return func(s *scene) error { return s.top.Publish(s.ctx, body) }
	}
	for _, row := range []struct {
		name   string
		held   int // in q, of a capacity of 3
		behind []func(s *scene) error
		// once counts those that go on as the batch gives up, the others do one by one
		// as a message is acknowledged.
		once int
	}{
		{"for one of whom there is room", 2, []func(s *scene) error{publishing(10)}, 1},
		{"all of whom there is room for", 1, []func(s *scene) error{publishing(10), publishing(12)}, 2},
		{"some of whom there is room for", 2, []func(s *scene) error{publishing(10), publishing(12), publishing(14)}, 1},
		{"who need one place, which is made later", 3, []func(s *scene) error{publishing(10), publishing(12)}, 0},
		{"who only wanted another queue of its", 3, []func(s *scene) error{func(s *scene) error {
			n, err := s.o.Redrive(s.ctx)
			if n != 1 {
				return kit.ErrBusy
			}
			return err
		}}, 1},
		{"who redrives", 2, []func(s *scene) error{func(s *scene) error {
			n, err := s.q.Redrive(s.ctx)
			if n != 1 {
				return kit.ErrBusy
			}
			return err
		}}, 1},
		{"who is a smaller batch", 1, []func(s *scene) error{func(s *scene) error {
			return s.top.PublishMessages(s.ctx, fanout.Message[int]{Body: 10}, fanout.Message[int]{Body: 12})
		}}, 1},
	} {
		t.Run(row.name, func(t *testing.T) {
			kit.Bubble(t, func(t *testing.T, ctx context.Context) {
				s := &scene{ctx: ctx, top: kit.NewTopic[int](t)}
				s.q = kit.OpenQueue(t, s.top, "q", fanout.WithCapacity(3))
				s.o = kit.OpenQueue(t, s.top, "o", fanout.WithFilter(func(n int) bool { return n%2 == 0 }))
				kit.Publish(t, s.top, 0) // a letter of both
				for _, q := range []*fanout.Queue[int]{s.q, s.o} {
					require.NoError(t, kit.Receive(t, q).Settle(ctx, fanout.Permanent(kit.ErrBusy)))
				}
				for n := range row.held {
					kit.Publish(t, s.top, 2*n+1)
					s.ds = append(s.ds, kit.Receive(t, s.q))
				}
				start := time.Now()
				short, cancel := context.WithTimeout(ctx, time.Second)
				defer cancel()
				gaveUp := make(chan error, 1)
				go func() {
					gaveUp <- s.top.PublishMessages(short, fanout.Message[int]{Body: 2}, fanout.Message[int]{Body: 4}, fanout.Message[int]{Body: 6})
				}()
				synctest.Wait()
				went := make(chan error, len(row.behind))
				for _, f := range row.behind {
					go func() { went <- f(s) }()
					synctest.Wait()
				}
				require.Empty(t, went, "one overtook the batch")
				require.ErrorIs(t, <-gaveUp, context.DeadlineExceeded)
				synctest.Wait()
				require.Equal(t, time.Second, time.Since(start))
				require.Len(t, went, row.once)
				for k := row.once; k < len(row.behind); k++ {
					require.NoError(t, s.ds[k-row.once].Ack(ctx))
					synctest.Wait()
					require.Len(t, went, k+1)
				}
				for range row.behind {
					require.NoError(t, <-went)
				}
				kit.Check(t, s.top)
				require.NoError(t, s.top.Close())
			})
		})
	}
}

// A batch waits for room in one queue, and a handler's publish to another one
// behind it. The topic shuts down: the batch is refused, the handler is not.
func TestAHandlerBehindABatchThatAShutdownRefusedGetsItsTurn(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		full := kit.OpenQueue(t, top, "full", fanout.WithCapacity(2), fanout.WithFilter(func(n int) bool { return n%2 == 0 }))
		begin, published := make(chan struct{}), make(chan error, 1)
		s := kit.Subscribe(t, top, "q", func(hctx context.Context, d fanout.Delivery[int]) error {
			if d.Body == 0 {
				<-begin
				published <- top.Publish(hctx, 1)
			}
			return nil
		})
		kit.Publish(t, top, 0)
		d := kit.Receive(t, full)
		refused := make(chan error, 1)
		go func() {
			refused <- top.PublishMessages(ctx, fanout.Message[int]{Body: 2}, fanout.Message[int]{Body: 4})
		}()
		synctest.Wait()
		close(begin)
		synctest.Wait()
		require.Empty(t, published)
		ended := make(chan error, 1)
		go func() { ended <- top.Shutdown(ctx) }()
		synctest.Wait()
		require.Len(t, published, 1)
		require.NoError(t, <-published)
		require.ErrorIs(t, <-refused, fanout.ErrClosed)
		require.NoError(t, d.Ack(ctx))
		require.NoError(t, <-ended)
		require.EqualValues(t, 2, s.Queue().Stats().Acked)
	})
}

func TestATopicCountsTheMessagesThatNoQueueTook(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		unrouted := func(want int) {
			t.Helper()
			require.EqualValues(t, want, top.Stats().Unrouted)
		}
		kit.Publish(t, top, 1)
		unrouted(1)
		require.NoError(t, top.PublishMessages(ctx, kit.Numbered(3)...))
		unrouted(4)
		require.NoError(t, top.PublishMessages(ctx, fanout.Message[int]{ID: "own"}))
		unrouted(5)
		even := kit.OpenQueue(t, top, "even", fanout.WithFilter(func(n int) bool { return n%2 == 0 }))
		require.NoError(t, top.PublishMessages(ctx, fanout.Message[int]{Body: 1}, fanout.Message[int]{Body: 2}, fanout.Message[int]{Body: 3}))
		unrouted(7)
		all := kit.OpenQueue(t, top, "all")
		kit.Publish(t, top, 1)
		unrouted(7)
		require.NoError(t, all.Close())
		kit.Publish(t, top, 2)
		unrouted(7)
		require.NoError(t, even.Close())
		kit.Publish(t, top, 2)
		unrouted(8)
		require.NoError(t, top.Close())
	})
}
