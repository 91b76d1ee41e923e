package workers

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/lifecycle"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/settings"
	"github.com/gofanout/fanout/internal/view"
)

func isOpen(c <-chan struct{}) bool {
	select {
	case <-c:
		return false
	default:
		return true
	}
}

func TestShutdownWaitsForTheRunningHandlersAndStartsNoOther(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome[int](t)
		y := newDiary()
		s := h.subscribe(t, func(_ context.Context, d delivery.Delivery[int]) error {
			time.Sleep(time.Duration(d.Body) * time.Second)
			y.note("%d", d.Body)
			return nil
		}, concurrency(2))
		h.publish(1, 3, 5, 7)
		synctest.Wait()
		done := s.Done()
		for range 2 { // callers who wait at once
			go func() {
				require.NoError(t, s.Shutdown(ctx))
				y.note("shut down")
			}()
		}
		synctest.Wait()
		require.True(t, isOpen(done))
		require.Equal(t, []int{5, 7}, waiting(t, h.q), "what was not begun is there for others")
		elapse(time.Minute)
		require.Equal(t, []string{"1s: 1", "3s: 3", "3s: shut down", "3s: shut down"}, y.read())
		require.False(t, isOpen(done))
		require.False(t, isOpen(s.Done()))
		require.NoError(t, s.Shutdown(ctx), "it has ended")
		require.Equal(t, 2, view.StatsOf(h.q).Ready)
		require.Zero(t, h.q.Group.Consumers)
		h.end(t)
	})
}

func TestShutdownOfAnIdleSubscriberReturnsAtOnceAndLeavesTheOthers(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome[int](t)
		var got [3]int
		var subs []*Subscriber[int]
		for k := range 3 {
			subs = append(subs, h.subscribe(t, func(context.Context, delivery.Delivery[int]) error { got[k]++; return nil }))
		}
		require.NoError(t, subs[0].Shutdown(ctx))
		h.publish(1)
		h.publish(2)
		synctest.Wait()
		require.Zero(t, got[0])
		require.EqualValues(t, 2, view.StatsOf(h.q).Acked)
		require.NoError(t, subs[2].Shutdown(ctx))
		require.NoError(t, subs[1].Shutdown(ctx))
		h.publish(3)
		synctest.Wait()
		require.Equal(t, []int{3}, waiting(t, h.q), "nobody is there")
		require.Empty(t, h.q.Group.Subs)
		h.end(t)
	})
}

func TestShutdownWhoseContextEndsCancelsTheHandlers(t *testing.T) {
	for _, batch := range []bool{false, true} {
		bubble(t, func(t *testing.T, ctx context.Context) {
			h := newHome[int](t, backoff(time.Hour), visible(time.Hour))
			causes := make(chan error, 2)
			handle := func(ctx context.Context, d delivery.Delivery[int]) error {
				<-ctx.Done()
				causes <- context.Cause(ctx)
				if d.Body == 1 {
					return ctx.Err() // it gives the message back
				}
				time.Sleep(time.Minute)
				return errBusy
			}
			var s *Subscriber[int]
			if batch {
				s = h.subscribeBatch(t, func(ctx context.Context, ds []delivery.Delivery[int]) error { return handle(ctx, ds[0]) }, batchesOf(1), concurrency(2))
			} else {
				s = h.subscribe(t, handle, concurrency(2))
			}
			h.publish(1, 2)
			synctest.Wait()
			began := time.Now()
			soon, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			err := s.Shutdown(soon)
			require.Equal(t, time.Second, time.Since(began))
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.ErrorContains(t, err, `fanout: shutdown of a subscriber of "q": 2 handlers still running: `)
			synctest.Wait()
			require.Len(t, causes, 2)
			for range 2 {
				cause := <-causes
				require.ErrorIs(t, cause, message.ErrClosed)
				require.ErrorContains(t, cause, `the subscriber of queue "q" was shut down`)
			}
			stats := view.StatsOf(h.q)
			require.Equal(t, []int{1, 1}, []int{stats.Ready, stats.InFlight}, "what was given back is ready at once, and spends no attempt")
			require.Equal(t, 1, receive(t, h.q).Attempt())
			require.True(t, isOpen(s.Done()))
			require.ErrorContains(t, s.Shutdown(soon), "1 handler still running")
			require.NoError(t, s.Shutdown(ctx))
			require.Equal(t, time.Minute+time.Second, time.Since(began))
			require.Equal(t, 1, view.StatsOf(h.q).Retrying)
			require.EqualValues(t, 1, view.StatsOf(h.q).Failed)
			h.end(t)
		})
	}
}

func TestCloseOfTheQueueCancelsTheHandlersAndEndsTheSubscriber(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome[int](t)
		var cause error
		s := h.subscribe(t, func(ctx context.Context, d delivery.Delivery[int]) error {
			<-ctx.Done()
			cause = context.Cause(ctx)
			time.Sleep(time.Second)
			return nil
		})
		h.publish(1, 2, 3)
		synctest.Wait()
		require.NoError(t, lifecycle.Close(h.q))
		synctest.Wait()
		require.ErrorIs(t, cause, message.ErrClosed)
		require.True(t, isOpen(s.Done()), "its handler runs")
		began := time.Now()
		require.NoError(t, s.Shutdown(ctx))
		require.Equal(t, time.Second, time.Since(began))
		require.False(t, isOpen(s.Done()))
		_, err := Start(h.q, func(context.Context, delivery.Delivery[int]) error { return nil }, nil, settings.DefaultSubscriber())
		require.ErrorIs(t, err, message.ErrClosed)
		require.EqualError(t, err, `fanout: subscribe to "q": `+message.ErrClosed.Error())
		h.end(t)
	})
}

// What a worker has prefetched is there for others as soon as its subscriber stops, and not
// for its own handler.
func TestASubscriberThatStopsGivesBackWhatItHasPrefetched(t *testing.T) {
	for _, taken := range []bool{false, true} {
		bubble(t, func(t *testing.T, ctx context.Context) {
			h := newHome[int](t)
			release := make(chan bool)
			var got []int
			s := h.subscribe(t, func(_ context.Context, d delivery.Delivery[int]) error {
				if got = append(got, d.Body); d.Body == 10 {
					<-release
				}
				return nil
			})
			h.publish(from(0, 20)...)
			synctest.Wait()
			ended, cancel := context.WithCancel(ctx)
			cancel()
			require.ErrorIs(t, s.Shutdown(ended), context.Canceled)
			require.Equal(t, 9, view.StatsOf(h.q).Ready)
			for k := 11; k < 20 && taken; k++ {
				require.Equal(t, k, receive(t, h.q).Body)
			}
			close(release)
			<-s.Done()
			require.Equal(t, from(0, 11), got)
			require.EqualValues(t, 11, view.StatsOf(h.q).Acked)
			h.end(t)
		})
	}
}

func TestAPausedQueueStartsNoWorker(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome[int](t)
		y := newDiary()
		h.subscribe(t, func(_ context.Context, d delivery.Delivery[int]) error {
			y.note("%d", d.Body)
			if d.Body == 3 {
				return lifecycle.Pause(ctx, h.q)
			}
			return nil
		})
		h.publish(from(0, 8)...)
		elapse(time.Second)
		require.Equal(t, []string{"0s: 0", "0s: 1", "0s: 2", "0s: 3"}, y.read())
		require.Equal(t, from(4, 8), waiting(t, h.q))
		require.Zero(t, view.StatsOf(h.q).Workers)
		require.NoError(t, lifecycle.Resume(ctx, h.q))
		synctest.Wait()
		require.Equal(t, []string{"1s: 4", "1s: 5", "1s: 6", "1s: 7"}, y.read())
		h.end(t)
	})
}
