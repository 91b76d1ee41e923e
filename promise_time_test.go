// The promises by their numbers, 10 to 12: the end, exact instants, and what an idle queue costs.

package fanout_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/internal/tests/kit"
)

// --- 10. Clean end ---

func TestPromise10ShutdownWorksOffWhatIsReadyRetryingAndInFlight(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		start := time.Now()
		var done atomic.Int32
		kit.Subscribe(t, top, "q", func(ctx context.Context, d fanout.Delivery[int]) error {
			time.Sleep(time.Second)
			if ctx.Err() != nil {
				t.Error("a handler's context is live while the topic drains")
			}
			if d.Attempt() == 1 && d.Body%2 == 0 {
				return kit.ErrBusy
			}
			done.Add(1)
			return nil
		}, fanout.WithBackoff(fanout.Constant(10*time.Second)))
		pull := kit.OpenQueue(t, top, "pull")
		kit.Publish(t, top, 1, 2, 3, 4)
		received := make(chan int)
		go func() {
			n := 0
			for d, err := range pull.Deliveries(ctx) {
				require.NoError(t, err)
				time.Sleep(5 * time.Second)
				require.NoError(t, d.Ack(ctx))
				n++
			}
			received <- n
		}()
		synctest.Wait()
		require.NoError(t, top.Shutdown(ctx))
		require.Equal(t, 4, <-received, "received empty, then closed")
		require.Equal(t, int32(4), done.Load())
		require.Equal(t, 20*time.Second, time.Since(start))
		<-top.Done()
		require.Empty(t, top.Leftovers())
		require.NoError(t, top.Shutdown(ctx), "again")
	})
}

func TestPromise10ShutdownDoesNotWaitForDelaysAndSnoozes(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		kit.Subscribe(t, top, "q", func(ctx context.Context, d fanout.Delivery[int]) error {
			if d.Body == 1 {
				return fanout.Snooze(time.Hour)
			}
			return nil
		})
		kit.Publish(t, top, 1)
		require.NoError(t, top.PublishMessages(ctx, fanout.Message[int]{Body: 2, ID: "two", Delay: time.Hour, Attributes: map[string]string{"a": "b"}}))
		synctest.Wait()
		start := time.Now()
		err := top.Shutdown(ctx)
		require.Zero(t, time.Since(start))
		var left *fanout.ShutdownError
		require.ErrorAs(t, err, &left)
		require.Equal(t, []fanout.Left{{Queue: "q", Delayed: 2}}, left.Queues)
		require.NoError(t, left.Err)
		ms := top.Leftovers()["q"]
		require.Len(t, ms, 2)
		require.Equal(t, fanout.Message[int]{Body: 2, ID: "two", Attributes: map[string]string{"a": "b"}, Delay: time.Hour}, ms[1])
		require.Equal(t, err, top.Shutdown(ctx), "the same again")
		<-top.Done()
	})
}

func TestPromise10WhenTheContextEndsHandlersAreCancelledAndTheErrorSaysWhatIsLeft(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		causes := make(chan error, 1)
		kit.Subscribe(t, top, "a", func(ctx context.Context, d fanout.Delivery[int]) error {
			<-ctx.Done()
			causes <- context.Cause(ctx)
			time.Sleep(time.Minute)
			return nil
		}, fanout.WithVisibilityTimeout(time.Hour))
		b := kit.OpenQueue(t, top, "b", fanout.WithBackoff(fanout.Constant(time.Hour)), fanout.WithMaxAttempts(2), fanout.WithDeadLetterCapacity(1))
		kit.OpenQueue(t, top, "drained", fanout.WithFilter(func(int) bool { return false }))
		kit.Publish(t, top, 1, 2, 3, 4, 5)
		require.NoError(t, kit.Receive(t, b).Nack(ctx))
		require.NoError(t, kit.Receive(t, b).Settle(ctx, fanout.Permanent(kit.ErrBusy)))
		require.NoError(t, kit.Receive(t, b).Settle(ctx, fanout.Permanent(kit.ErrBusy)))
		inHand := kit.Receive(t, b)

		start := time.Now()
		soon, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		err := top.Shutdown(soon)
		require.Equal(t, time.Second, time.Since(start))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		var left *fanout.ShutdownError
		require.ErrorAs(t, err, &left)
		require.Equal(t, []fanout.Left{
			{Queue: "a", Ready: 4, InFlight: 1, Running: 1},
			{Queue: "b", Ready: 1, Retrying: 1, InFlight: 1, Parked: 1},
		}, left.Queues)
		require.Equal(t, `fanout: shutdown of topic "payments" left queue "a": 4 ready, 1 in flight, 1 handler running; `+
			`queue "b": 1 ready, 1 retrying, 1 in flight, 1 parked: context deadline exceeded`, err.Error())
		require.ErrorIs(t, <-causes, fanout.ErrClosed)
		require.ErrorIs(t, inHand.Ack(ctx), fanout.ErrClosed)

		all := top.Leftovers()
		require.Len(t, all["a"], 5)
		require.Equal(t, []int{1, 3, 4, 5}, []int{all["b"][0].Body, all["b"][1].Body, all["b"][2].Body, all["b"][3].Body})
		require.Equal(t, []int{2}, kit.Bodies(t, b.DeadLetters()), "dead letters stay readable")
		select {
		case <-top.Done():
			t.Fatal("a handler is still running")
		default:
		}
		<-top.Done()
		require.Equal(t, time.Second+time.Minute, time.Since(start))
	})
}

func TestPromise10AnAttemptThatPublishesToAClosingTopicIsReleased(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		calls := 0
		kit.Subscribe(t, top, "q", func(ctx context.Context, d fanout.Delivery[int]) error {
			calls++
			time.Sleep(time.Second)
			return top.Publish(context.Background(), d.Body+1) // for all the topic knows it is no handler
		}, fanout.WithMaxAttempts(1))
		kit.Publish(t, top, 1)
		synctest.Wait()
		err := top.Shutdown(ctx)
		var left *fanout.ShutdownError
		require.ErrorAs(t, err, &left)
		require.Equal(t, []fanout.Left{{Queue: "q", Released: 1}}, left.Queues)
		require.Equal(t, 1, calls, "it is not tried again while the topic closes")
		require.Equal(t, 1, top.Leftovers()["q"][0].Body)
		s := top.Queues()[0].Stats()
		require.Zero(t, s.DeadLettered)
		require.Equal(t, uint64(1), s.ReleasedCount)
	})
}

func TestPromise10CloseReturnsAtOnceAndDoneWaitsForTheLastWorker(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		causes := make(chan error, 2)
		s := kit.Subscribe(t, top, "q", func(ctx context.Context, d fanout.Delivery[int]) error {
			<-ctx.Done()
			causes <- context.Cause(ctx)
			time.Sleep(time.Minute)
			return kit.ErrBusy
		}, fanout.WithConcurrency(2))
		pull := kit.OpenQueue(t, top, "pull")
		receiving := make(chan error)
		go func() {
			for {
				if _, err := pull.Receive(ctx); err != nil {
					receiving <- err
					return
				}
			}
		}()
		kit.Publish(t, top, 1, 2, 3)
		synctest.Wait()
		start := time.Now()
		for range 3 {
			require.NoError(t, top.Close())
		}
		require.ErrorIs(t, <-receiving, fanout.ErrClosed)
		require.Zero(t, time.Since(start))
		<-top.Done()
		<-s.Done()
		require.Equal(t, time.Minute, time.Since(start))
		require.ErrorIs(t, <-causes, fanout.ErrClosed)
		require.ErrorIs(t, <-causes, fanout.ErrClosed)
		require.Len(t, top.Leftovers()["q"], 3)
		require.Equal(t, []string{"pull", "q"}, []string{top.Queues()[0].Name(), top.Queues()[1].Name()})
		err := top.Shutdown(ctx)
		var left *fanout.ShutdownError
		require.ErrorAs(t, err, &left, "it says what Close left")

		_, err = s.Queue().Subscribe(ctx, func(context.Context, fanout.Delivery[int]) error { return nil })
		require.ErrorIs(t, err, fanout.ErrClosed)
		_, _, err = pull.TryReceive(ctx)
		require.ErrorIs(t, err, fanout.ErrClosed)
		_, err = pull.Redrive(ctx)
		require.ErrorIs(t, err, fanout.ErrClosed)
	})
}

func TestPromise10NoGoroutineAndNoTimerRemains(t *testing.T) {
	before := runtime.NumGoroutine()
	for range 20 {
		top := kit.NewTopic[int](t)
		for n := range 10 {
			kit.Subscribe(t, top, fmt.Sprint(n), func(ctx context.Context, d fanout.Delivery[int]) error {
				if d.Body%3 == 0 {
					return kit.ErrBusy
				}
				return nil
			}, fanout.WithConcurrency(3))
		}
		for n := range 100 {
			kit.Publish(t, top, n)
		}
		qs := top.Queues()
		top.Close()
		<-top.Done()
		for _, q := range qs {
			require.False(t, fanout.TimerArmed(q))
			require.Zero(t, q.Stats().Workers)
		}
	}
	require.Eventually(t, func() bool { return runtime.NumGoroutine() <= before+1 }, 20*time.Second, time.Millisecond)
}

func TestPromise10AQueueThatClosesLosesWhatItHeldAndKeepsItsDeadLetters(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "q")
		kit.Publish(t, top, 1, 2, 3)
		require.NoError(t, kit.Receive(t, q).Settle(ctx, fanout.Permanent(kit.ErrBusy)))
		d := kit.Receive(t, q)
		dead := q.DeadLetters()
		require.ErrorIs(t, dead.Close(), fanout.ErrUnsupported)
		require.NoError(t, q.Close())
		require.NoError(t, q.Close())
		require.ErrorIs(t, d.Ack(ctx), fanout.ErrClosed)
		require.Equal(t, uint64(2), q.Stats().Left)
		require.Len(t, q.Leftovers(), 2)
		require.Nil(t, top.Queue("q"))
		kit.Publish(t, top, 4)
		require.Equal(t, []int{1}, kit.Bodies(t, dead))
		_, err := q.Redrive(ctx)
		require.ErrorIs(t, err, fanout.ErrClosed)
		require.NoError(t, kit.Receive(t, dead).Ack(ctx), "dead letters can still be acknowledged")

		again := kit.OpenQueue(t, top, "q")
		kit.Publish(t, top, 5)
		require.Equal(t, []int{5}, kit.Bodies(t, again), "the name is free again")
		require.Same(t, dead, again.DeadLetters())
		require.ErrorIs(t, dead.Close(), fanout.ErrUnsupported)
		require.NoError(t, again.Close())
		require.NoError(t, dead.Close())
		_, _, err = dead.TryReceive(ctx)
		require.ErrorIs(t, err, fanout.ErrClosed)
		require.NoError(t, top.Shutdown(ctx))
		<-top.Done()
	})
}

func TestPromise10ASubscribersShutdownLeavesTheQueueOpen(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		s := kit.Subscribe(t, top, "q", func(ctx context.Context, d fanout.Delivery[int]) error {
			time.Sleep(time.Second)
			return nil
		})
		kit.Publish(t, top, 1, 2)
		synctest.Wait()
		start := time.Now()
		require.NoError(t, s.Shutdown(ctx))
		require.Equal(t, time.Second, time.Since(start), "it waits for the handler that runs, and starts no other")
		require.NoError(t, s.Shutdown(ctx))
		require.Equal(t, []int{2}, kit.Bodies(t, s.Queue()))

		var attempt atomic.Int64
		causes := make(chan error, 1)
		stuck, err := s.Queue().Subscribe(ctx, func(ctx context.Context, d fanout.Delivery[int]) error {
			<-ctx.Done()
			causes <- context.Cause(ctx)
			time.Sleep(10 * time.Second)
			return ctx.Err()
		})
		require.NoError(t, err)
		synctest.Wait()
		soon, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		err = stuck.Shutdown(soon)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, "1 handler still running")
		require.ErrorIs(t, <-causes, fanout.ErrClosed)

		third, err := s.Queue().Subscribe(ctx, func(ctx context.Context, d fanout.Delivery[int]) error {
			attempt.Store(int64(d.Attempt()))
			return nil
		})
		require.NoError(t, err)
		kit.Elapse(10*time.Second - 1)
		require.Zero(t, attempt.Load(), "its handler has it still")
		kit.Elapse(1)
		require.EqualValues(t, 1, attempt.Load(), "a released message goes to others at once and has spent no attempt")
		require.NoError(t, third.Shutdown(ctx))
		<-stuck.Done()
		require.NoError(t, top.Shutdown(ctx))
	})
}

// --- 11. Time is virtual in tests ---

func TestPromise11VisibilityTimeoutsComeAtTheExactInstant(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "q", fanout.WithVisibilityTimeout(7*time.Second))
		start := time.Now()
		kit.Publish(t, top, 1, 2)
		d := kit.Receive(t, q)
		require.Equal(t, start.Add(7*time.Second), d.Deadline())
		other := kit.Receive(t, q, fanout.WithVisibilityTimeout(20*time.Second))
		require.Equal(t, start.Add(20*time.Second), other.Deadline())
		again, err := q.Receive(ctx)
		require.NoError(t, err)
		require.Equal(t, 7*time.Second, time.Since(start), "ready at the deadline, without a backoff")
		require.Equal(t, [2]int{1, 2}, [2]int{again.Body, again.Attempt()})

		require.NoError(t, again.Extend(ctx, time.Minute)) // counted from the call
		require.Equal(t, start.Add(67*time.Second), again.Deadline())
		require.NoError(t, again.Extend(ctx, time.Second), "never to an earlier one")
		require.Equal(t, start.Add(67*time.Second), again.Deadline())

		last, err := q.Receive(ctx)
		require.NoError(t, err)
		require.Equal(t, 20*time.Second, time.Since(start))
		require.Equal(t, 2, last.Body)
		require.NoError(t, last.Ack(ctx))
		again, err = q.Receive(ctx)
		require.NoError(t, err)
		require.Equal(t, 67*time.Second, time.Since(start))
		require.Equal(t, 3, again.Attempt())
		fanout.Check(t, top)
		top.Close()
	})
}

func TestPromise11APushDeliverysTimeoutComesAtItsDeadline(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		handled := make(chan time.Duration, 100)
		kit.Subscribe(t, top, "q", func(ctx context.Context, d fanout.Delivery[int]) error {
			from := time.Now()
			if d.Body%5 != 0 || d.Attempt() > 1 {
				time.Sleep(300 * time.Millisecond)
				return nil
			}
			<-ctx.Done()
			handled <- time.Since(from)
			return nil
		}, fanout.WithVisibilityTimeout(time.Second), fanout.WithConcurrency(2))
		for n := range 50 {
			kit.Publish(t, top, n)
		}
		require.NoError(t, top.Shutdown(ctx))
		close(handled)
		n := 0
		for after := range handled {
			n++
			require.GreaterOrEqual(t, after, time.Second)
			require.LessOrEqual(t, after, time.Second+time.Millisecond)
		}
		require.Equal(t, 10, n)
	})
}

func TestPromise11DelaysEndAtTheExactInstantAndTakeTurnsWithTheBacklog(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "q")
		late := kit.OpenQueue(t, top, "late", fanout.WithDelay(10*time.Second))
		start := time.Now()
		require.NoError(t, top.PublishMessages(ctx, fanout.Message[int]{Body: 1, Delay: 3 * time.Second}, fanout.Message[int]{Body: 2}))
		kit.Publish(t, top, 3, 4)
		require.Equal(t, 2, kit.Receive(t, q).Body)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		require.Equal(t, 1, kit.Receive(t, q).Body, "what has become due goes first after the backlog's turn")
		require.Equal(t, 3, kit.Receive(t, q).Body)

		for _, want := range []struct {
			body int
			at   time.Duration
		}{{1, 3 * time.Second}, {2, 10 * time.Second}, {3, 10 * time.Second}, {4, 10 * time.Second}} {
			d, err := late.Receive(ctx)
			require.NoError(t, err)
			require.Equal(t, want.body, d.Body)
			require.Equal(t, want.at, time.Since(start))
			require.Equal(t, start, d.PublishedAt())
			require.NoError(t, d.Ack(ctx))
		}
		fanout.Check(t, top)
		top.Close()
	})
}

func TestPromise11RetriesComeAtTheExactInstant(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "q", fanout.WithBackoff(fanout.BackoffFunc(func(n int) time.Duration { return time.Duration(n) * time.Second })))
		start := time.Now()
		kit.Publish(t, top, 1)
		for _, step := range []struct {
			settle func(fanout.Delivery[int]) error
			wait   time.Duration
		}{
			{func(d fanout.Delivery[int]) error { return d.Nack(ctx) }, time.Second},
			{func(d fanout.Delivery[int]) error { return d.NackAfter(ctx, 5*time.Second) }, 5 * time.Second},
			{func(d fanout.Delivery[int]) error { return d.Settle(ctx, fanout.Snooze(7*time.Second)) }, 7 * time.Second},
			{func(d fanout.Delivery[int]) error {
				return d.Settle(ctx, fanout.RetryAfter(kit.ErrBusy, 9*time.Second))
			}, 9 * time.Second},
			{func(d fanout.Delivery[int]) error { return d.Settle(ctx, kit.ErrBusy) }, 4 * time.Second},
		} {
			d, err := q.Receive(ctx)
			require.NoError(t, err)
			from := time.Now()
			require.NoError(t, step.settle(d))
			d, err = q.Receive(ctx)
			require.NoError(t, err)
			require.Equal(t, step.wait, time.Since(from))
			require.NoError(t, d.Settle(ctx, fanout.Snooze(time.Millisecond)))
		}
		_ = start
		top.Close()
	})
}

func TestPromise11ADayOfTimeoutsPassesInNoTime(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "q", fanout.WithMaxAttempts(fanout.Unlimited))
		start := time.Now()
		kit.Publish(t, top, 1)
		for time.Since(start) < 24*time.Hour {
			_, err := q.Receive(ctx)
			require.NoError(t, err)
		}
		require.Equal(t, uint64(24*60*2), q.Stats().TimedOut)
		d, err := q.Receive(ctx)
		require.NoError(t, err)
		require.LessOrEqual(t, len(d.History()), 1000, "the history of a message that is retried without limit is bounded")
		require.Equal(t, 24*60*2+1, d.History()[len(d.History())-1].Number)
		top.Close()
	})
}

func TestPromise11AWaitingReceiverIsServedInTheOrderOfArrivalAndEndsWithItsContext(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "q")
		got := make(chan [2]int, 3)
		gone, cancel := context.WithCancelCause(ctx)
		for k := range 3 {
			c := ctx
			if k == 1 {
				c = gone
			}
			go func() {
				d, err := q.Receive(c)
				if err != nil {
					require.ErrorIs(t, err, kit.ErrBusy)
					return
				}
				got <- [2]int{k, d.Body}
			}()
			synctest.Wait()
		}
		cancel(kit.ErrBusy)
		synctest.Wait()
		kit.Publish(t, top, 10, 20)
		synctest.Wait()
		a, b := <-got, <-got
		if a[0] > b[0] {
			a, b = b, a
		}
		require.Equal(t, 0, a[0])
		require.Equal(t, 2, b[0])
		require.Equal(t, 30, a[1]+b[1])
		top.Close()
	})
}

// --- 12. Idle costs nothing ---

func TestPromise12AnIdleQueueOwnsNoGoroutineAndNoTimer(t *testing.T) {
	before := runtime.NumGoroutine()
	bytes := kit.Heap()
	const n = 10_000
	top := kit.NewTopic[int](t)
	var handled atomic.Int32
	subs := make([]*fanout.Subscriber[int], n)
	for k := range subs {
		subs[k] = kit.Subscribe(t, top, fmt.Sprint(k), func(context.Context, fanout.Delivery[int]) error {
			handled.Add(1)
			return nil
		}, fanout.WithConcurrency(4))
	}
	require.Less(t, runtime.NumGoroutine(), before+n/100, "other tests and the runtime have some, too")
	require.LessOrEqual(t, (kit.Heap()-bytes)/n, int64(2048), "bytes for an idle queue with a subscriber")
	for round := range 2 {
		kit.Publish(t, top, 1)
		require.Eventually(t, func() bool {
			return handled.Load() == int32(n*(round+1)) && runtime.NumGoroutine() <= before+1
		}, 20*time.Second, 5*time.Millisecond)
		for _, s := range subs {
			require.Zero(t, s.Queue().Stats().Workers)
		}
		require.Eventually(t, func() bool { // a millisecond after the last message
			return !slices.ContainsFunc(subs, func(s *fanout.Subscriber[int]) bool { return fanout.TimerArmed(s.Queue()) })
		}, 20*time.Second, time.Millisecond, "nothing is in flight or delayed")
	}
	top.Close()
	<-top.Done()
}

func TestPromise12TheTimerStopsWhenNothingWaitsForIt(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "q", fanout.WithMaxAttempts(1))
		for _, settle := range []func(fanout.Delivery[int]) error{
			func(d fanout.Delivery[int]) error { return d.Ack(ctx) },
			func(d fanout.Delivery[int]) error { return d.Nack(ctx) },
			func(d fanout.Delivery[int]) error { time.Sleep(time.Hour); synctest.Wait(); return nil },
		} {
			kit.Publish(t, top, 1)
			d := kit.Receive(t, q)
			fanout.Check(t, top) // armed
			require.NoError(t, settle(d))
			require.Zero(t, q.Stats().InFlight)
			fanout.Check(t, top) // not armed
		}
		top.Close()
	})
}

func TestPromise12ATopicWithoutQueuesKeepsNothing(t *testing.T) {
	type big [1 << 10]byte
	top := kit.NewTopic[*big](t)
	before := kit.Heap()
	for range 10_000 {
		require.NoError(t, top.Publish(t.Context(), new(big)))
	}
	require.Less(t, kit.Heap()-before, int64(1<<18))
	q := kit.OpenQueue(t, top, "q")
	require.NoError(t, q.Close())
	for range 10_000 {
		require.NoError(t, top.Publish(t.Context(), new(big)))
	}
	require.Less(t, kit.Heap()-before, int64(1<<18), "after the last queue has gone, too")
	require.Equal(t, uint64(20_000), top.Stats().Published)
	top.Close()
	require.True(t, errors.Is(top.Publish(t.Context(), nil), fanout.ErrClosed))
}
