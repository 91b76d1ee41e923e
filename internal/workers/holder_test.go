package workers

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/handling"
	"github.com/gofanout/fanout/internal/lifecycle"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/settings"
	"github.com/gofanout/fanout/internal/view"
)

// A handler whose visibility timeout has passed is stuck until it returns. It hears of that,
// and so do hooks.
func TestAHandlerWhoseVisibilityTimeoutHasPassedIsStuck(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		y := newDiary()
		h := newHome[int](t, visible(time.Second), hooked(notice.Stuck, func(e notice.Event) { y.note("attempt %d stuck for %v", e.Attempt, e.Elapsed) }))
		var cause error
		h.subscribe(t, func(ctx context.Context, d delivery.Delivery[int]) error {
			if d.Attempt() > 1 {
				y.note("attempt %d", d.Attempt())
				return nil
			}
			<-ctx.Done()
			cause = context.Cause(ctx)
			time.Sleep(time.Minute)
			return nil
		}, concurrency(2))
		h.publish(1)
		elapse(time.Second)
		require.ErrorIs(t, cause, message.ErrStale)
		require.ErrorContains(t, cause, "the visibility timeout of 1s has passed")
		require.Equal(t, 1, view.StatsOf(h.q).Stuck)
		require.ElementsMatch(t, []string{"1s: attempt 1 stuck for 1s", "1s: attempt 2"}, y.read())
		elapse(time.Minute)
		require.Zero(t, view.StatsOf(h.q).Stuck)
		s := view.StatsOf(h.q)
		require.Equal(t, []uint64{1, 1}, []uint64{s.Acked, s.TimedOut})
		h.end(t)
	})
}

// Automatic extension makes the visibility timeout of a subscriber's deliveries longer, and
// never shorter.
func TestAutomaticExtensionMakesTheVisibilityTimeoutLonger(t *testing.T) {
	for extend, want := range map[time.Duration]time.Duration{0: time.Second, time.Millisecond: time.Second, time.Minute: time.Minute} {
		for _, batch := range []bool{false, true} {
			bubble(t, func(t *testing.T, ctx context.Context) {
				h := newHome[int](t, visible(time.Second))
				var took time.Duration
				handle := func(ctx context.Context, d delivery.Delivery[int]) error {
					if d.Attempt() == 1 {
						began := time.Now()
						<-ctx.Done()
						took = time.Since(began)
					}
					return nil
				}
				extended := sub(func(sub *settings.Subscriber) { sub.AutoExtend = extend })
				if batch {
					h.subscribeBatch(t, func(ctx context.Context, ds []delivery.Delivery[int]) error { return handle(ctx, ds[0]) }, extended)
				} else {
					h.subscribe(t, handle, extended)
				}
				h.publish(1)
				elapse(time.Hour)
				require.Equal(t, want, took)
				require.EqualValues(t, 1, view.StatsOf(h.q).Acked)
				h.end(t)
			})
		}
	}
}

// A worker tells its queue which deliveries it has, for the messages that Peek shows and the
// search for deadlocks.
func TestAWorkerTellsItsQueueWhatItHas(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome[int](t)
		release := make(chan bool)
		s := h.subscribeBatch(t, func(context.Context, []delivery.Delivery[int]) error { <-release; return nil }, batchesOf(3))
		h.publish(1, 2, 3, 4)
		synctest.Wait()
		w := busy(s)
		h.q.Locked(func() {
			first := w.ds[0].Ref.Stamp
			require.Equal(t, []uint64{first, first + 1, first + 2}, w.StampsLocked())
			require.Same(t, &s.Pool, w.Pooled())
			require.True(t, w.HandlesLocked())
			require.Empty(t, w.WaitsLocked(), "its handler waits in no publish")
		})
		close(release)
		h.end(t)
	})
}

// A run is of the topic while its handler runs, and nobody's after that.
func TestARunHasItsTopicUntilItsHandlerReturns(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome[int](t)
		var run *handling.Run
		release := make(chan bool)
		h.subscribe(t, func(ctx context.Context, d delivery.Delivery[int]) error {
			if d.Body == 1 {
				run = handling.RunOf(ctx)
			}
			<-release
			return nil
		})
		h.publish(1, 2)
		synctest.Wait()
		require.Same(t, h.Core, run.Topic())
		release <- true
		synctest.Wait()
		require.Nil(t, run.Topic(), "another message's runs")
		release <- true
		synctest.Wait()
		require.Nil(t, run.Topic(), "none runs")
		h.publish(1)
		synctest.Wait()
		require.Same(t, h.Core, run.Topic())
		require.NoError(t, lifecycle.Close(h.q))
		require.Nil(t, run.Topic(), "the queue is closed")
		close(release)
		h.end(t)
	})
}

// A handler that has returned is not stuck, and one that runs is, whatever became of the
// message before.
func TestAHandlerIsStuckAlsoBehindOneThatFailed(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome[int](t, visible(time.Second), backoff(time.Hour))
		var cause error
		s := h.subscribeBatch(t, func(ctx context.Context, ds []delivery.Delivery[int]) error {
			if ds[0].Body == 1 {
				return errBusy
			}
			if ds[0].Attempt() == 1 {
				<-ctx.Done()
				cause = context.Cause(ctx)
				time.Sleep(time.Minute)
			}
			return nil
		}, batchesOf(1))
		h.publish(1, 2)
		elapse(2 * time.Second)
		require.ErrorIs(t, cause, message.ErrStale)
		require.Equal(t, 1, view.StatsOf(h.q).Stuck)
		ended, cancel := context.WithCancel(ctx)
		cancel()
		require.ErrorContains(t, s.Shutdown(ended), "1 handler still running")
		elapse(time.Minute)
		require.Zero(t, view.StatsOf(h.q).Stuck)
		h.end(t)
	})
}
