package enginequeue

import (
	"context"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/fakeengine"
	"github.com/gofanout/fanout/internal/lifecycle"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/settings"
	"github.com/gofanout/fanout/internal/store"
	"github.com/gofanout/fanout/internal/view"
	"github.com/gofanout/fanout/internal/workers"
)

func TestThePollerReceivesAsManyAsThereAreWorkersFree(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		e := fakeengine.New(fakeengine.Config{})
		h := newHost(t, e)
		q := h.open(t)
		synctest.Wait()
		require.Zero(t, e.Calls(fakeengine.Receive), "there is no worker")
		y := newDiary()
		s := work(t, q, 3, func(_ context.Context, d delivery.Delivery[string]) error {
			y.note("%s", d.Body)
			time.Sleep(time.Second)
			return nil
		})
		synctest.Wait()
		require.Equal(t, 1, e.Calls(fakeengine.Receive), "one waits for all of them")
		h.publish(t, "a", "b", "c", "d", "e")
		synctest.Wait()
		messages, _ := h.kept(t)
		require.Equal(t, engine.Stats{Ready: 2, InFlight: 3}, messages, "no more than can begin")
		elapse(time.Second)
		messages, _ = h.kept(t)
		require.Equal(t, engine.Stats{InFlight: 2}, messages)
		elapse(time.Minute)
		require.Len(t, y.read(), 5)
		messages, _ = h.kept(t)
		require.Zero(t, messages)
		calls := e.Calls(fakeengine.Receive)
		require.NoError(t, s.Shutdown(ctx))
		h.publish(t, "nobody's")
		elapse(time.Minute)
		require.Equal(t, calls, e.Calls(fakeengine.Receive), "nobody is there")
		require.Zero(t, e.Calls(fakeengine.Return), "nothing was taken in vain")
		messages, _ = h.kept(t)
		require.Equal(t, engine.Stats{Ready: 1}, messages)
		h.end(t)
	})
}

// An engine that fails is asked less and less often, at exact instants, and at once again
// after it has worked.
func TestThePollerBacksOffFromAnEngineThatFails(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		y := newDiary()
		e := fakeengine.New(fakeengine.Config{})
		h := newHost(t, e, failures(y))
		q := h.open(t)
		e.Inject(fakeengine.Fault{Op: fakeengine.Receive, Err: errBroken})
		work(t, q, 3, func(_ context.Context, d delivery.Delivery[string]) error { y.note("%s", d.Body); return nil })
		elapse(35 * time.Second)
		require.Equal(t, []string{
			"0s: receive: broken", "100ms: receive: broken", "300ms: receive: broken", "700ms: receive: broken", "1.5s: receive: broken", "3.1s: receive: broken",
			"6.3s: receive: broken", "12.7s: receive: broken", "22.7s: receive: broken", "32.7s: receive: broken",
		}, y.read())
		e.Heal()
		h.publish(t, "a")
		e.Inject(fakeengine.Fault{Op: fakeengine.Receive, Nth: 2, Err: errBroken})
		elapse(7800 * time.Millisecond)
		require.ElementsMatch(t, []string{"42.7s: a", "42.7s: receive: broken"}, y.read())
		h.publish(t, "b")
		elapse(time.Second)
		require.Equal(t, []string{"42.8s: b"}, y.read(), "a tenth of a second after the first failure")
		e.Inject(fakeengine.Fault{Op: fakeengine.Receive, Err: errBroken})
		h.publish(t, "c")
		elapse(time.Second)
		began := time.Now()
		require.NoError(t, lifecycle.Close(q))
		h.end(t)
		require.Zero(t, time.Since(began), "a pause ends with the queue")
	})
}

func TestThePollerRestsWhileTheQueueIsPaused(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		e := fakeengine.New(fakeengine.Config{})
		h := newHost(t, e)
		q := h.open(t)
		y := newDiary()
		work(t, q, 1, func(_ context.Context, d delivery.Delivery[string]) error { y.note("%s", d.Body); return nil })
		synctest.Wait()
		require.NoError(t, lifecycle.Pause(ctx, q))
		synctest.Wait()
		h.publish(t, "a")
		elapse(time.Minute)
		require.Empty(t, y.read())
		require.Zero(t, e.Calls(fakeengine.Return), "it was not taken")
		require.NoError(t, lifecycle.Resume(ctx, q))
		synctest.Wait()
		require.Equal(t, []string{"1m0s: a"}, y.read())
		require.NoError(t, lifecycle.Pause(ctx, q)) // for no time
		require.NoError(t, lifecycle.Resume(ctx, q))
		h.publish(t, "b")
		synctest.Wait()
		require.Equal(t, []string{"1m0s: b"}, y.read())
		h.end(t)
	})
}

// What comes while nobody is there to begin it goes back, and no attempt is spent.
func TestWhatNobodyIsThereForGoesBackToTheEngine(t *testing.T) {
	for name, leave := range map[string]func(ctx context.Context, q *queue.Queue[string], shutdown func(context.Context) error) error{
		"paused": func(ctx context.Context, q *queue.Queue[string], _ func(context.Context) error) error {
			return lifecycle.Pause(ctx, q)
		},
		"shut down": func(ctx context.Context, _ *queue.Queue[string], shutdown func(context.Context) error) error {
			return shutdown(ctx)
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				e := fakeengine.New(fakeengine.Config{})
				h := newHost(t, e)
				q := h.open(t)
				h.publish(t, "a", "b")
				e.Inject(fakeengine.Fault{Op: fakeengine.Receive, Nth: 1, Late: time.Second})
				s := work(t, q, 2, func(context.Context, delivery.Delivery[string]) error { t.Error("handled"); return nil })
				synctest.Wait()
				messages, _ := h.kept(t)
				require.Equal(t, engine.Stats{InFlight: 2}, messages)
				require.NoError(t, leave(ctx, q, s.Shutdown))
				elapse(time.Second)
				messages, _ = h.kept(t)
				require.Equal(t, engine.Stats{Ready: 2}, messages)
				require.EqualValues(t, 2, view.StatsOf(q).ReleasedCount)
				require.Zero(t, view.StatsOf(q).Delivered)
				other := newHost(t, e.Sibling())
				d := receive(t, other.open(t))
				require.Equal(t, 1, d.Attempt())
				require.Empty(t, d.History(), "nobody has begun with it")
				other.end(t)
				h.end(t)
			})
		})
	}
}

// A subscriber with a rate limit is received for one message at a time.
func TestThePollerReceivesOneAtATimeForARateLimit(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHost(t, fakeengine.New(fakeengine.Config{}))
		q := h.open(t)
		h.publish(t, "a", "b", "c")
		y := newDiary()
		work(t, q, 5, func(_ context.Context, d delivery.Delivery[string]) error { y.note("%s", d.Body); return nil },
			func(s *settings.Subscriber) { s.Every = time.Minute })
		synctest.Wait()
		messages, _ := h.kept(t)
		require.Equal(t, engine.Stats{Ready: 2}, messages)
		elapse(time.Hour)
		require.Equal(t, []string{"0s: a", "1m0s: b", "2m0s: c"}, y.read())
		h.end(t)
	})
}

// A hook that ends the poller's goroutine ends no poller.
func TestAHookThatEndsTheGoroutineDoesNotEndThePoller(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		exits := 0
		e := fakeengine.New(fakeengine.Config{})
		h := newHost(t, e, hooked(notice.EngineFailed, func(notice.Event) { exits++; runtime.Goexit() }))
		q := h.open(t)
		e.Inject(fakeengine.Fault{Op: fakeengine.Receive, Nth: 1, Err: errBroken})
		h.publish(t, "a")
		got := make(chan string, 1)
		work(t, q, 1, func(_ context.Context, d delivery.Delivery[string]) error { got <- d.Body; return nil })
		require.Equal(t, "a", <-got)
		require.Equal(t, 1, exits)
		h.end(t)
	})
}

// Automatic extension renews the engine's lease for as long as it says, so that nobody else
// gets the message.
func TestAutomaticExtensionRenewsTheEnginesLease(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		e := fakeengine.New(fakeengine.Config{})
		h := newHost(t, e)
		q := h.open(t, visible(10*time.Second))
		var took time.Duration
		work(t, q, 1, func(ctx context.Context, d delivery.Delivery[string]) error {
			if d.Attempt() > 1 {
				return nil
			}
			began := time.Now()
			<-ctx.Done()
			took = time.Since(began)
			require.ErrorIs(t, context.Cause(ctx), message.ErrStale)
			return nil
		}, func(s *settings.Subscriber) { s.AutoExtend = 25 * time.Second })
		h.publish(t, "a")
		elapse(24 * time.Second)
		require.Equal(t, 2, e.Calls(fakeengine.Extend))
		messages, _ := h.kept(t)
		require.Equal(t, engine.Stats{InFlight: 1}, messages)
		elapse(time.Minute)
		require.Equal(t, 25*time.Second, took)
		require.EqualValues(t, 1, view.StatsOf(q).TimedOut)
		require.EqualValues(t, 1, view.StatsOf(q).Acked)
		h.end(t)
	})
}

// A worker's settlement that the engine refuses is told, for nobody else could be; one that
// comes too late is late.
func TestAWorkersSettlementThatFailsIsTold(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		y := newDiary()
		e := fakeengine.New(fakeengine.Config{})
		h := newHost(t, e, failures(y))
		q := h.open(t)
		n := 0
		work(t, q, 1, func(context.Context, delivery.Delivery[string]) error { n++; return nil })
		e.Inject(fakeengine.Fault{Op: fakeengine.Ack, Nth: 1, Err: errBroken})
		h.publish(t, "a")
		elapse(time.Minute)
		require.Equal(t, []string{`0s: settle: queue "q": broken`}, y.read())
		require.Equal(t, 2, n)
		require.EqualValues(t, 1, view.StatsOf(q).Acked)
		h.end(t)
	})
}

// What was received and no worker has begun with when the queue is closed goes back at once.
func TestWhatNoWorkerHasBegunWithGoesBackAtClose(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		e := fakeengine.New(fakeengine.Config{})
		h := newHost(t, e)
		q := h.open(t, visible(time.Hour))
		h.publish(t, "a", "b")
		d := receive(t, q)
		r := q.Keeper.(*Queue[string])
		got, err := r.eq.Receive(ctx, 1, time.Hour)
		require.NoError(t, err)
		arrivals := r.decode(got)
		q.Mu.Lock()
		i, ok := r.enterLocked(&arrivals[0], q.Core.Now())
		require.True(t, ok)
		q.Store.Put(i, store.Backlogged)
		q.Unlock()
		require.Equal(t, 2, view.StatsOf(q).InFlight, "as the engine sees it")
		require.NoError(t, lifecycle.Close(q))
		messages, _ := h.kept(t)
		require.Equal(t, engine.Stats{Ready: 1, InFlight: 1}, messages, "who has a delivery keeps it")
		require.ErrorIs(t, d.Ack(ctx), message.ErrClosed)
		h.end(t)
	})
}

// What the engine gives out as the queue is closed goes back at once: it comes to nobody
// here, and would be hidden until its lease ends.
func TestWhatComesAsTheQueueIsClosedGoesBack(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		e := fakeengine.New(fakeengine.Config{})
		h := newHost(t, e)
		q := h.open(t, visible(time.Hour))
		e.Inject(fakeengine.Fault{Op: fakeengine.Receive, Nth: 1, Late: time.Second})
		work(t, q, 1, func(context.Context, delivery.Delivery[string]) error { t.Error("it is closed"); return nil })
		h.publish(t, "a")
		elapse(500 * time.Millisecond)
		require.NoError(t, lifecycle.Close(q))
		elapse(time.Second)
		messages, _ := h.kept(t)
		require.Equal(t, engine.Stats{Ready: 1}, messages)
		h.end(t)
	})
}

// A subscriber that ends is received for no more, though a handler of it still runs: what comes
// for it goes back at once.
func TestASubscriberThatEndsIsReceivedForNoMore(t *testing.T) {
	for name, late := range map[string]time.Duration{"nothing is on its way": 0, "a message is on its way": time.Second} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				e := fakeengine.New(fakeengine.Config{})
				h := newHost(t, e)
				q := h.open(t)
				var handled []string
				s := work(t, q, 2, func(_ context.Context, d delivery.Delivery[string]) error {
					handled = append(handled, d.Body)
					time.Sleep(20 * time.Second)
					return nil
				})
				h.publish(t, "a")
				synctest.Wait()
				if late > 0 {
					e.Inject(fakeengine.Fault{Op: fakeengine.Receive, Nth: 1, Late: late})
					require.NoError(t, lifecycle.Pause(ctx, q)) // so that it receives anew
					require.NoError(t, lifecycle.Resume(ctx, q))
					synctest.Wait()
					h.publish(t, "b")
					synctest.Wait()
				}
				ended := make(chan error, 1)
				go func() { ended <- s.Shutdown(context.Background()) }()
				synctest.Wait()
				if late == 0 {
					h.publish(t, "b")
				}
				elapse(late)
				messages, _ := h.kept(t)
				require.Equal(t, engine.Stats{Ready: 1, InFlight: 1}, messages)
				require.Equal(t, late > 0, e.Calls(fakeengine.Return) == 1)
				require.NoError(t, <-ended)
				require.Equal(t, []string{"a"}, handled)
				require.EqualValues(t, 1, view.StatsOf(q).Acked)
				h.end(t)
			})
		})
	}
}

// A handler of batches is received for as many messages as it may get.
func TestThePollerReceivesAWholeBatch(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		e := fakeengine.New(fakeengine.Config{})
		h := newHost(t, e)
		q := h.open(t)
		h.publish(t, "a", "b", "c", "d", "e")
		set := settings.DefaultSubscriber()
		set.Concurrency, set.Batch = 1, 3
		var sizes []int
		_, err := workers.Start(q, nil, func(_ context.Context, ds []delivery.Delivery[string]) error {
			sizes = append(sizes, len(ds))
			time.Sleep(time.Second)
			return nil
		}, set)
		require.NoError(t, err)
		elapse(time.Minute)
		require.Equal(t, []int{3, 2}, sizes)
		require.Zero(t, e.Calls(fakeengine.Return))
		h.end(t)
	})
}
