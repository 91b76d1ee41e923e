// Workers run as many handlers as they are allowed, as often as they are allowed, and none while a queue is paused.

package delivery_test

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/internal/tests/kit"
)

func TestRowConcurrency(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		var running, most atomic.Int32
		free := make(chan struct{})
		s := kit.Subscribe(t, top, "q", func(ctx context.Context, d fanout.Delivery[int]) error {
			most.Store(max(most.Load(), running.Add(1)))
			defer running.Add(-1)
			switch {
			case d.Body < 0:
				<-free // whatever its context says
			case d.Body%3 == 0:
				runtime.Goexit()
			}
			time.Sleep(time.Millisecond)
			return nil
		}, fanout.WithConcurrency(3), fanout.WithVisibilityTimeout(time.Second), fanout.WithMaxAttempts(2), fanout.WithBackoff(fanout.Constant(time.Second)))
		q := s.Queue()
		kit.Publish(t, top, 1, 2, 3, 4, 5, 6, 7, 8, 9)
		kit.Elapse(10 * time.Second)
		require.Equal(t, int32(3), most.Load())
		require.Equal(t, uint64(6), q.Stats().Acked, "a worker that exits is replaced")
		require.Equal(t, 3, q.Stats().Dead)
		require.Zero(t, q.Stats().Workers)

		kit.Publish(t, top, -1, -2, -3, 10)
		kit.Elapse(time.Second)
		st := q.Stats()
		require.Equal(t, [4]int{3, 3, 0, 4}, [4]int{st.Workers, st.Stuck, st.InFlight, st.Ready}, "each stuck handler keeps its worker")
		for _, want := range []int{-1, 10, -2, -3} { // their messages go to others, in turn with the backlog
			d := kit.Receive(t, q)
			require.Equal(t, want, d.Body)
			require.NoError(t, d.Ack(ctx))
		}
		kit.Publish(t, top, 11)
		kit.Elapse(time.Hour)
		require.Equal(t, 1, q.Stats().Ready)
		kit.Check(t, top)
		close(free)
		kit.Elapse(time.Second)
		require.Equal(t, int32(3), most.Load())
		st = q.Stats()
		require.Equal(t, [3]int{0, 0, 0}, [3]int{st.Workers, st.Stuck, st.Unsettled()})
		kit.Check(t, top)
		top.Close()
	})
}

func TestRowConcurrencyAnInterceptorThatLeavesNextRunningKeepsItsDelivery(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		gate := make(chan struct{})
		late := make(chan fanout.Delivery[int], 1)
		kit.Subscribe(t, top, "q", func(ctx context.Context, d fanout.Delivery[int]) error {
			if d.Body == 1 {
				late <- d
			}
			return nil
		}, fanout.WithHandlerInterceptor(func(ctx context.Context, info fanout.Info, next func(context.Context) error) error {
			if info.MessageID == "first" {
				go func() {
					<-gate
					_ = next(ctx)
				}()
				return nil // gives up waiting
			}
			return next(ctx)
		}))
		require.NoError(t, top.PublishMessages(ctx, fanout.Message[int]{Body: 1, ID: "first"}, fanout.Message[int]{Body: 2}))
		synctest.Wait()
		close(gate)
		require.Equal(t, "first", (<-late).ID())
		require.NoError(t, top.Shutdown(ctx))
	})
}

func TestRowPauseAndResume(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		y := kit.NewDiary()
		s := kit.Subscribe(t, top, "q", func(ctx context.Context, d fanout.Delivery[int]) error {
			y.Note("%d", d.Body)
			time.Sleep(time.Second)
			return nil
		}, fanout.WithCapacity(4))
		q := s.Queue()
		kit.Publish(t, top, 1, 2)
		synctest.Wait()
		require.NoError(t, q.Pause(ctx))
		require.NoError(t, q.Pause(ctx), "again")
		require.True(t, q.Stats().Paused)
		kit.Elapse(time.Minute)
		require.Equal(t, []string{"0s: 1"}, y.Read())
		require.Equal(t, uint64(1), q.Stats().Acked, "what is in flight goes on")
		kit.RequireEmpty(t, q)
		got := make(chan int, 1)
		go func() {
			if d, err := q.Receive(ctx); err == nil {
				got <- d.Body
				_ = d.Ack(ctx)
			}
		}()
		kit.Publish(t, top, 3, 4, 5) // fills it
		full := kit.Waiting(ctx, top, fanout.Message[int]{Body: 6})
		kit.RequireWaiting(t, full)
		require.Empty(t, got, "receivers wait")
		kit.Check(t, top)
		require.NoError(t, q.Resume(ctx))
		synctest.Wait()
		require.NoError(t, q.Resume(ctx), "again")
		require.Equal(t, 2, <-got)
		require.NoError(t, kit.RequireDecided(t, full))
		kit.Elapse(time.Minute)
		require.Equal(t, []string{"1m0s: 3", "1m1s: 4", "1m2s: 5", "1m3s: 6"}, y.Read())

		require.NoError(t, q.Pause(ctx))
		kit.Publish(t, top, 7)
		start := time.Now()
		var left *fanout.ShutdownError
		require.ErrorAs(t, top.Shutdown(ctx), &left)
		require.Zero(t, time.Since(start), "nobody waits for a paused queue")
		require.Equal(t, []fanout.Left{{Queue: "q", Ready: 1}}, left.Queues)
		require.ErrorIs(t, q.Resume(ctx), fanout.ErrClosed)
	})
}

func TestCombinationOfAPurgeWithARateLimitAndADroppingQueue(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		y := kit.NewDiary()
		s := kit.Subscribe(t, top, "q", func(ctx context.Context, d fanout.Delivery[int]) error {
			y.Note("%d", d.Body)
			return nil
		}, fanout.WithRateLimit(1), fanout.WithCapacity(3), fanout.WithOverflow(fanout.DropOldest))
		kit.Publish(t, top, 1)
		synctest.Wait()
		kit.Publish(t, top, 2, 3, 4, 5)
		_, err := s.Queue().Purge(ctx)
		require.NoError(t, err)
		kit.Check(t, top)
		kit.Publish(t, top, 6)
		kit.Elapse(time.Minute)
		require.Equal(t, []string{"0s: 1", "1s: 6"}, y.Read())
		require.Equal(t, uint64(4), s.Queue().Stats().Dropped)
		kit.Check(t, top)
		top.Close()
	})
}

func TestOfSeveralRateLimitsTheOneThatEndsFirstCounts(t *testing.T) {
	for _, fastFirst := range []bool{true, false} {
		kit.Bubble(t, func(t *testing.T, ctx context.Context) {
			top := kit.NewTopic[int](t)
			q := kit.OpenQueue(t, top, "q")
			began := time.Now()
			var mu sync.Mutex // both subscribers call the handler
			var at []time.Duration
			handle := func(context.Context, fanout.Delivery[int]) error {
				mu.Lock()
				defer mu.Unlock()
				at = append(at, time.Since(began))
				return nil
			}
			rates := []float64{1, 0.1}
			if !fastFirst {
				rates = []float64{0.1, 1}
			}
			for _, r := range rates {
				_, err := q.Subscribe(ctx, handle, fanout.WithRateLimit(r))
				require.NoError(t, err)
			}
			kit.Publish(t, top, kit.To(1, 5)...)
			time.Sleep(5 * time.Second)
			synctest.Wait()
			require.Equal(t, []time.Duration{0, 0, time.Second, 2 * time.Second, 3 * time.Second}, at)
			top.Close()
			<-top.Done()
		})
	}
}

func TestStatsCountTheWorkersThatWereStarted(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		s := kit.Subscribe(t, top, "audit", func(_ context.Context, d fanout.Delivery[int]) error {
			if d.Body == 3 {
				require.NoError(t, d.Ack(context.Background()))
				runtime.Goexit()
			}
			return nil
		})
		for body, want := range []uint64{1, 2, 3, 5} { // whoever exits has a successor, who finds nothing
			kit.Publish(t, top, body)
			synctest.Wait()
			stats := s.Queue().Stats()
			require.Equal(t, want, stats.WorkersStarted)
			require.Zero(t, stats.Workers)
		}
		top.Close()
	})
}

// Messages that come one by one are shared out evenly among subscribers that are
// all idle.
func TestIdleSubscribersTakeTurns(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "q")
		var got [3]int
		subs := make([]*fanout.Subscriber[int], len(got))
		for k := range got {
			var err error
			subs[k], err = q.Subscribe(ctx, func(context.Context, fanout.Delivery[int]) error { got[k]++; return nil }, fanout.WithConcurrency(k+1))
			require.NoError(t, err)
		}
		send := func(n int) {
			got = [3]int{}
			for k := range n {
				kit.Publish(t, top, k)
				synctest.Wait()
			}
		}
		send(30)
		require.Equal(t, [3]int{10, 10, 10}, got)
		require.NoError(t, subs[1].Shutdown(ctx))
		send(30)
		require.Equal(t, [3]int{15, 0, 15}, got)
		require.NoError(t, top.Close())
	})
}
