// A purge, a close and a shutdown end what they should, at once or in order, and leave nothing behind.

package ending_test

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/internal/tests/kit"
)

// The ends of queues, subscribers and handlers, and what they must not leave behind.

func TestASharedDeadLetterQueueThatClosesCancelsItsHandlers(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		shared, err := fanout.NewDeadLetterQueue[int]("shared", kit.Silent)
		require.NoError(t, err)
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "q", fanout.WithDeadLetterQueue(shared))
		var cause error
		s, err := shared.Subscribe(ctx, func(hctx context.Context, _ fanout.Delivery[int]) error {
			<-hctx.Done()
			cause = context.Cause(hctx)
			return nil
		})
		require.NoError(t, err)
		kit.Publish(t, top, 1)
		require.NoError(t, kit.Receive(t, q).Settle(ctx, fanout.Permanent(kit.ErrBusy)))
		synctest.Wait()
		require.NoError(t, shared.Close())
		<-s.Done()
		require.ErrorIs(t, cause, fanout.ErrClosed)
		top.Close()
	})
}

func TestDeadLettersStayWhileATopicShutsDown(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		early := kit.OpenQueue(t, top, "early", fanout.WithFilter(func(n int) bool { return n < 3 }))
		late := kit.OpenQueue(t, top, "late", fanout.WithFilter(func(n int) bool { return n == 3 }))
		kit.Publish(t, top, 1, 2, 3)
		for range 2 {
			require.NoError(t, kit.Receive(t, early).Settle(ctx, fanout.Permanent(kit.ErrBusy)))
		}
		held := kit.Receive(t, early.DeadLetters())
		require.NoError(t, late.Pause(ctx))
		done := make(chan error, 1)
		go func() { done <- top.Shutdown(ctx) }()
		synctest.Wait()
		require.Empty(t, done, "one letter is in flight")
		kit.RequireEmpty(t, early.DeadLetters())
		require.NoError(t, late.Resume(ctx))
		require.NoError(t, kit.Receive(t, late).Settle(ctx, fanout.Permanent(kit.ErrBusy)))
		kit.RequireEmpty(t, late.DeadLetters()) // made only now
		require.NoError(t, held.Ack(ctx))
		require.NoError(t, <-done)
		require.Equal(t, []int{2}, kit.Bodies(t, early.DeadLetters()))
		require.Equal(t, []int{3}, kit.Bodies(t, late.DeadLetters()))
	})
}

func TestAPurgeTakesWhatWasGivenBackWhileTheTopicShutsDown(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		other := kit.OpenQueue(t, top, "other")
		started := make(chan bool)
		q := kit.Subscribe(t, top, "q", func(context.Context, fanout.Delivery[int]) error {
			<-started
			return fmt.Errorf("a connection: %w", fanout.ErrClosed)
		}).Queue()
		kit.Publish(t, top, 1, 2)
		held := kit.Receive(t, other)
		done := make(chan error, 1)
		go func() { done <- top.Shutdown(ctx) }()
		synctest.Wait()
		close(started)
		synctest.Wait()
		require.Equal(t, 2, q.Stats().Released)
		n, err := q.Purge(ctx)
		require.NoError(t, err)
		require.Equal(t, 2, n)
		require.Zero(t, q.Stats().Unsettled())
		kit.Check(t, top)
		require.NoError(t, held.Ack(ctx))
		require.NoError(t, kit.Receive(t, other).Ack(ctx))
		require.NoError(t, <-done)
	})
}

func TestAMessageThatAHandlerGivesBackAThousandTimesIsDead(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.Subscribe(t, top, "q", func(context.Context, fanout.Delivery[int]) error { return fanout.ErrClosed }, fanout.WithBackoff(fanout.Constant(time.Second))).Queue()
		kit.Publish(t, top, 1)
		time.Sleep(998 * time.Second)
		synctest.Wait()
		require.EqualValues(t, 999, q.Stats().ReleasedCount)
		require.Zero(t, q.Stats().Dead)
		time.Sleep(time.Second)
		synctest.Wait()
		require.Equal(t, 1, q.Stats().Dead)
		top.Close()
	})
}

func TestAMessageThatShutdownsOfSubscribersGiveBackNeverDiesOfIt(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "q", fanout.WithMaxAttempts(1))
		kit.Publish(t, top, 1)
		ended, end := context.WithCancel(ctx)
		end()
		for range 1001 {
			s, err := q.Subscribe(ctx, func(hctx context.Context, _ fanout.Delivery[int]) error {
				<-hctx.Done()
				return context.Cause(hctx)
			})
			require.NoError(t, err)
			synctest.Wait()
			require.Error(t, s.Shutdown(ended))
			<-s.Done()
		}
		require.EqualValues(t, 1001, q.Stats().ReleasedCount)
		require.Equal(t, []int{0, 1}, []int{q.Stats().Dead, q.Stats().Ready})
		top.Close()
	})
}

func TestAShutdownGoesOnOnceTheQueueThatItWaitsForIsClosed(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q, empty := kit.OpenQueue(t, top, "q"), kit.OpenQueue(t, top, "empty")
		require.Nil(t, q.Leftovers(), "it is open")
		kit.Publish(t, top, 1)
		require.NoError(t, kit.Receive(t, empty).Ack(ctx))
		done := make(chan error, 1)
		go func() { done <- top.Shutdown(ctx) }()
		synctest.Wait()
		require.Empty(t, done)
		require.NoError(t, q.Close())
		synctest.Wait()
		require.Len(t, done, 1)
		require.Len(t, q.Leftovers(), 1)
		require.NotNil(t, empty.Leftovers(), "nothing is left, and that is known")
		require.Empty(t, empty.Leftovers())
		require.Nil(t, q.DeadLetters().Leftovers(), "dead letters stay where they are")
	})
}

func TestRowPurgeAndClose(t *testing.T) {
	t.Run("purge", func(t *testing.T) {
		kit.Bubble(t, func(t *testing.T, ctx context.Context) {
			lost := map[fanout.DropReason]int{}
			top := kit.NewTopic[int](t, fanout.WithHooks(fanout.Hooks{Dropped: func(e fanout.Event) { lost[e.Reason] += e.Count }}))
			q := kit.OpenQueue(t, top, "q", fanout.WithBackoff(fanout.Constant(time.Minute)), fanout.WithCapacity(7), fanout.WithMaxAttempts(2), fanout.WithDeadLetterCapacity(1))
			other := kit.OpenQueue(t, top, "other", fanout.WithFilter(func(int) bool { return true }))
			kit.Publish(t, top, 1, 2, 3, 4, 5)
			kit.PublishAll(t, top, fanout.Message[int]{Body: 6, Delay: time.Hour})
			require.NoError(t, kit.Receive(t, q).Settle(ctx, fanout.Permanent(kit.ErrBusy)))
			require.NoError(t, kit.Receive(t, q).Settle(ctx, fanout.Permanent(kit.ErrBusy))) // parked
			require.NoError(t, kit.Receive(t, q).Nack(ctx))
			d := kit.Receive(t, q)
			kit.Publish(t, top, 7, 8)
			blocked := kit.Waiting(ctx, top, fanout.Message[int]{Body: 9})
			kit.RequireWaiting(t, blocked)
			n, err := q.Purge(ctx)
			require.NoError(t, err)
			require.Equal(t, 7, n)
			require.Equal(t, map[fanout.DropReason]int{fanout.DroppedByPurge: 7}, lost)
			require.ErrorIs(t, d.Ack(ctx), fanout.ErrStale)
			require.NoError(t, kit.RequireDecided(t, blocked))
			require.Equal(t, []int{9}, kit.Bodies(t, q))
			require.Equal(t, []int{1}, kit.DeadBodies(t, q), "dead letters stay")
			require.Equal(t, 9, other.Stats().Unsettled())
			kit.Check(t, top)
			kit.Elapse(2 * time.Hour)
			require.Equal(t, 1, q.Stats().Unsettled(), "nothing comes back")
			n, err = other.Purge(ctx)
			require.NoError(t, err)
			require.Equal(t, 9, n)
			n, err = q.DeadLetters().Purge(ctx)
			require.NoError(t, err)
			require.Equal(t, 1, n)
			n, err = q.DeadLetters().Purge(ctx)
			require.NoError(t, err)
			require.Zero(t, n)
			kit.Check(t, top)
			top.Close()
			_, err = q.Purge(ctx)
			require.ErrorIs(t, err, fanout.ErrClosed)
		})
	})
	t.Run("purge keys", func(t *testing.T) {
		kit.Bubble(t, func(t *testing.T, ctx context.Context) {
			top := kit.NewTopic[int](t, fanout.WithOrdering())
			q := kit.OpenQueue(t, top, "q")
			kit.PublishAll(t, top, kit.Keyed("a", 1, 2)...)
			kit.Receive(t, q)
			kit.RequireEmpty(t, q)
			_, err := q.Purge(ctx)
			require.NoError(t, err)
			kit.PublishAll(t, top, append(kit.Keyed("b", 3), kit.Keyed("a", 4)...)...)
			require.Equal(t, 3, kit.Receive(t, q).Body)
			require.Equal(t, 4, kit.Receive(t, q).Body, "no key remembers what was purged")
			kit.Check(t, top)
			top.Close()
		})
	})
	t.Run("close a queue", func(t *testing.T) {
		kit.Bubble(t, func(t *testing.T, ctx context.Context) {
			lost := map[fanout.DropReason]int{}
			top := kit.NewTopic[int](t, fanout.WithHooks(fanout.Hooks{Dropped: func(e fanout.Event) { lost[e.Reason] += e.Count }}))
			q := kit.OpenQueue(t, top, "q", fanout.WithMaxAttempts(1))
			kit.Publish(t, top, 1, 2, 3)
			require.NoError(t, kit.Receive(t, q).Nack(ctx))
			d := kit.Receive(t, q)
			require.NoError(t, q.Close())
			require.NoError(t, q.Close(), "again")
			require.ErrorIs(t, d.Ack(ctx), fanout.ErrClosed)
			require.Equal(t, map[fanout.DropReason]int{fanout.DroppedByClose: 2}, lost)
			require.Equal(t, uint64(2), q.Stats().Left)
			require.Equal(t, []int{2, 3}, []int{q.Leftovers()[0].Body, q.Leftovers()[1].Body})
			require.Equal(t, []int{1}, kit.DeadBodies(t, q), "its dead letters stay readable")
			require.Equal(t, 1, kit.Receive(t, q.DeadLetters()).Body)
			again := kit.OpenQueue(t, top, "q")
			kit.Publish(t, top, 4)
			require.Equal(t, []int{4}, kit.Bodies(t, again), "its name is free")
			kit.Check(t, top)
			top.Close()
			<-top.Done()
		})
	})
	t.Run("shut a subscriber down", func(t *testing.T) {
		kit.Bubble(t, func(t *testing.T, ctx context.Context) {
			top := kit.NewTopic[int](t)
			s := kit.Subscribe(t, top, "q", func(ctx context.Context, d fanout.Delivery[int]) error {
				time.Sleep(5 * time.Second)
				return nil
			})
			kit.Publish(t, top, 1, 2)
			synctest.Wait()
			start := time.Now()
			require.NoError(t, s.Shutdown(ctx))
			require.Equal(t, 5*time.Second, time.Since(start))
			<-s.Done()
			require.Equal(t, []int{2}, kit.Bodies(t, s.Queue()), "the queue stays open")
			require.NoError(t, s.Shutdown(ctx), "again")
			kit.Check(t, top)
			top.Close()
		})
	})
}

func TestAShutdownWaitsForNoneBehindAReleasedHead(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t, fanout.WithOrdering())
		q := kit.OpenQueue(t, top, "q")
		for body := range 2 {
			require.NoError(t, top.PublishMessages(ctx, fanout.Message[int]{Body: body, OrderingKey: "k"}))
		}
		kit.Publish(t, top, 2) // without a key
		d, other := kit.Receive(t, q), kit.Receive(t, q)
		require.Equal(t, 1, q.Stats().Blocked)
		done := make(chan error, 1)
		go func() { done <- top.Shutdown(ctx) }()
		synctest.Wait()
		// As one that could not publish to the closing topic.
		require.NoError(t, d.Settle(ctx, fmt.Errorf("onwards: %w", top.Publish(ctx, 3))))
		synctest.Wait()
		require.Empty(t, done)
		stats := q.Stats()
		require.Equal(t, []int{1, 1, 1}, []int{stats.Released, stats.Blocked, stats.InFlight})
		depth, err := q.Depth(ctx)
		require.NoError(t, err)
		require.Equal(t, 3, depth.Unsettled())
		require.NoError(t, other.Ack(ctx))
		var left *fanout.ShutdownError
		require.ErrorAs(t, <-done, &left)
		require.Equal(t, []fanout.Left{{Queue: "q", Released: 1, Blocked: 1}}, left.Queues)
		require.NoError(t, left.Err)
	})
}

func TestAClosedTopicStillTellsItsQueues(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		a, b := kit.OpenQueue(t, top, "a"), kit.OpenQueue(t, top, "b")
		top.Close()
		require.Same(t, b, top.Queue("b"))
		require.Same(t, a, top.Queue("a"))
		require.Nil(t, top.Queue("c"))
		require.Equal(t, []*fanout.Queue[int]{a, b}, top.Queues())
	})
}

func TestAShutdownWaitsForEachQueue(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		var qs []*fanout.Queue[int]
		for _, name := range []string{"a", "b", "c", "d"} {
			qs = append(qs, kit.OpenQueue(t, top, name))
		}
		kit.Publish(t, top, 1)
		var ds []fanout.Delivery[int]
		for _, q := range qs {
			ds = append(ds, kit.Receive(t, q))
		}
		require.NoError(t, ds[0].Ack(ctx))
		require.NoError(t, ds[2].Ack(ctx))
		done := make(chan error, 1)
		go func() { done <- top.Shutdown(ctx) }()
		for _, k := range []int{3, 1} {
			synctest.Wait()
			require.Empty(t, done)
			require.NoError(t, ds[k].Ack(ctx))
		}
		require.NoError(t, <-done)
	})
}

func TestWhatASubscriberReleasesGoesToAReceiverAtOnce(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		s := kit.Subscribe(t, top, "q", func(ctx context.Context, _ fanout.Delivery[int]) error {
			<-ctx.Done()
			return ctx.Err()
		})
		kit.Publish(t, top, 1)
		synctest.Wait()
		got := make(chan fanout.Delivery[int], 1)
		go func() {
			if d, err := s.Queue().Receive(ctx); err == nil {
				got <- d
			}
		}()
		synctest.Wait()
		ended, end := context.WithCancel(ctx)
		end()
		require.ErrorIs(t, s.Shutdown(ended), context.Canceled)
		synctest.Wait()
		require.Len(t, got, 1)
		d := <-got
		require.Equal(t, 1, d.Attempt(), "a release spends none")
		require.Equal(t, fanout.Released, d.History()[0].Cause)
		require.NoError(t, d.Ack(ctx))
		<-s.Done()
		top.Close()
	})
}

func TestPromise10AHookThatBlocksKeepsNoShutdownOfASubscriberWaiting(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		release := make(chan struct{})
		top := kit.NewTopic[int](t, fanout.WithHooks(fanout.Hooks{DeadLettered: func(fanout.Event) { <-release }}))
		s := kit.Subscribe(t, top, "q", func(context.Context, fanout.Delivery[int]) error { return nil }, fanout.WithTimeToLive(time.Second))
		q := s.Queue()
		require.NoError(t, q.Pause(ctx))
		kit.Publish(t, top, 1)
		time.Sleep(time.Second)
		require.NoError(t, q.Resume(ctx)) // its worker tells that the message has expired
		synctest.Wait()
		start := time.Now()
		soon, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		require.ErrorIs(t, s.Shutdown(soon), context.DeadlineExceeded)
		require.Equal(t, time.Minute, time.Since(start))
		close(release)
		<-s.Done()
		top.Close()
		<-top.Done()
	})
}

func TestAContextThatHasEndedOpensNothing(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		ended, end := context.WithCancelCause(ctx)
		end(kit.ErrBusy)
		q, err := top.OpenQueue(ended, "q")
		require.Nil(t, q)
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, err, kit.ErrBusy)
		s, err := top.Subscribe(ended, "q", kit.HandleNothing)
		require.Nil(t, s)
		require.ErrorIs(t, err, kit.ErrBusy)
		require.Empty(t, top.Queues())
		s, err = kit.OpenQueue(t, top, "q").Subscribe(ended, kit.HandleNothing)
		require.Nil(t, s)
		require.ErrorIs(t, err, kit.ErrBusy)
		top.Close()
	})
}

func TestPromise09WhatAConsumerOfDeadLettersHeldAtTheEndCanBePeekedAt(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "q")
		kit.Publish(t, top, 1, 2)
		for range 2 {
			require.NoError(t, kit.Receive(t, q).Settle(ctx, fanout.Permanent(kit.ErrBusy)))
		}
		d := kit.Receive(t, q.DeadLetters())
		require.Equal(t, []int{2}, kit.Bodies(t, q.DeadLetters()))
		top.Close()
		require.ErrorIs(t, d.Ack(ctx), fanout.ErrClosed)
		require.Equal(t, []int{1, 2}, kit.Bodies(t, q.DeadLetters()))
	})
}

func TestPromise10AHookThatClosesTheTopicInTheMiddleOfAQueuesClose(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		var top *fanout.Topic[int]
		top = kit.NewTopic[int](t, fanout.WithHooks(fanout.Hooks{Dropped: func(e fanout.Event) {
			if e.Reason == fanout.DroppedByClose {
				top.Close()
			}
		}}))
		q := kit.OpenQueue(t, top, "q", fanout.WithCapacity(1), fanout.WithOverflow(fanout.DropNewest))
		kit.Publish(t, top, 1, 2) // a line is logged: the next is to wait for its second
		require.NoError(t, q.Close())
		synctest.Wait()
		require.False(t, kit.IsOpen(top.Done()))
	})
}

func TestPromise10DoneWaitsForTheHooksOfATimeout(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		release := make(chan struct{})
		top := kit.NewTopic[int](t, fanout.WithHooks(fanout.Hooks{Settled: func(fanout.Event) { <-release }}))
		q := kit.OpenQueue(t, top, "q", fanout.WithVisibilityTimeout(time.Second))
		kit.Publish(t, top, 1)
		kit.Receive(t, q)
		time.Sleep(time.Second)
		synctest.Wait()
		top.Close()
		synctest.Wait()
		require.True(t, kit.IsOpen(top.Done()), "a goroutine of the topic's runs a hook")
		close(release)
		synctest.Wait()
		require.False(t, kit.IsOpen(top.Done()))
	})
}

func TestPromise10AHookThatEndsTheGoroutineOfATimeoutIsNotWaitedForForEver(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t, fanout.WithHooks(fanout.Hooks{Settled: func(e fanout.Event) { runtime.Goexit() }}))
		q := kit.OpenQueue(t, top, "q", fanout.WithVisibilityTimeout(time.Second), fanout.WithMaxAttempts(2))
		kit.Publish(t, top, 1)
		for range 2 {
			kit.Receive(t, q)
			time.Sleep(time.Second)
			synctest.Wait()
		}
		require.Equal(t, 1, q.Stats().Dead)
		kit.Check(t, top)
		top.Close()
		synctest.Wait()
		require.False(t, kit.IsOpen(top.Done()))
	})
}

func TestPromise10AHookThatEndsTheGoroutineOfACloseDoesNotKeepTheTopic(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t, fanout.WithHooks(fanout.Hooks{Dropped: func(e fanout.Event) { runtime.Goexit() }}))
		a := kit.OpenQueue(t, top, "a", fanout.WithCapacity(1))
		kit.OpenQueue(t, top, "b")
		kit.Publish(t, top, 1)
		got := make(chan error, 1)
		go func() { got <- top.Publish(ctx, 2) }()
		synctest.Wait()
		go a.Close()
		require.NoError(t, <-got, "the queue that it waited for is gone")
		go top.Close()
		<-top.Done()
	})
}

// Two queues of a topic get a message in turn. Whichever Shutdown looks at first,
// it finds it drained before the other.
func TestShutdownLooksAgainAtQueuesItFoundDrained(t *testing.T) {
	kit.OnBoth(t, func(t *testing.T, ctx context.Context, on func() fanout.TopicOption) {
		top := kit.NewTopic[int](t, on())
		var seen []int
		for k, name := range []string{"even", "odd"} {
			kit.Subscribe(t, top, name, func(hctx context.Context, d fanout.Delivery[int]) error {
				time.Sleep(time.Second)
				seen = append(seen, d.Body)
				if d.Body == 20 {
					return nil
				}
				return top.Publish(hctx, d.Body+1)
			}, fanout.WithFilter(func(n int) bool { return n%2 == k }))
		}
		kit.Publish(t, top, 0)
		require.NoError(t, top.Shutdown(ctx))
		require.Equal(t, kit.To(0, 20), seen)
	})
}

// Nobody publishes, but what was delayed is due in a queue that was drained when
// Shutdown looked at it.
func TestShutdownLooksAgainAtQueuesWhereMessagesBecameDue(t *testing.T) {
	type work struct {
		queue string
		until time.Duration
	}
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[*work](t)
		start := time.Now()
		for _, name := range []string{"a", "b"} {
			kit.Subscribe(t, top, name, func(_ context.Context, d fanout.Delivery[*work]) error {
				time.Sleep(d.Body.until - time.Since(start))
				return nil
			}, fanout.WithVisibilityTimeout(time.Hour), fanout.WithFilter(func(w *work) bool { return w.queue == name }))
		}
		require.NoError(t, top.PublishMessages(ctx,
			fanout.Message[*work]{Body: &work{"b", 2 * time.Second}},
			fanout.Message[*work]{Body: &work{"a", 10 * time.Second}, Delay: time.Second},
			fanout.Message[*work]{Body: &work{"b", 20 * time.Second}, Delay: 5 * time.Second},
			fanout.Message[*work]{Body: &work{"a", 100 * time.Second}, Delay: 15 * time.Second},
		))
		require.NoError(t, top.Shutdown(ctx))
		require.Equal(t, 100*time.Second, time.Since(start))
	})
}
