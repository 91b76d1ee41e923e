// Hooks are told of each thing that happens, and of handlers and publishers that are stuck.

package observing_test

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/internal/tests/kit"
)

func TestRowHooks(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		var mu sync.Mutex
		var events []string
		seqs := map[string][]uint64{}
		start := time.Now()
		hook := func(name string) func(fanout.Event) {
			return func(e fanout.Event) {
				mu.Lock()
				defer mu.Unlock()
				var x strings.Builder
				fmt.Fprintf(&x, "%v %s %s/%s %s", e.Time.Sub(start), name, e.Topic, e.Queue, e.MessageID)
				for _, f := range []struct {
					name  string
					value any
					zero  bool
				}{
					{"attempt", e.Attempt, e.Attempt == 0}, {"cause", e.Cause, e.Cause == 0}, {"err", e.Err, e.Err == nil},
					{"elapsed", e.Elapsed, e.Elapsed == 0}, {"wait", e.Wait, e.Wait == 0}, {"reason", e.Reason, e.Reason == 0},
					{"subscriber", e.Subscriber != "", e.Subscriber == ""}, {"stack", e.Stack != "", e.Stack == ""},
					{"depth", func() any {
						if e.Stats == nil {
							return nil
						}
						return e.Stats.Unsettled()
					}(), e.Stats == nil},
					{"count", e.Count, e.Count == 1},
				} {
					if !f.zero {
						fmt.Fprintf(&x, ", %s %v", f.name, f.value)
					}
				}
				events = append(events, x.String())
				seqs[e.Queue] = append(seqs[e.Queue], e.Seq)
			}
		}
		top := kit.NewTopic[int](t, fanout.WithHooks(fanout.Hooks{
			Published: hook("published"), Delivered: hook("delivered"), Settled: hook("settled"), DeadLettered: hook("dead-lettered"),
			Parked: hook("parked"), Redriven: hook("redriven"), Dropped: hook("dropped"), Stuck: hook("stuck"),
			StuckStack: hook("stuck stack"), Stalled: hook("stalled"), Late: hook("late"),
		}))
		next := func(want ...string) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			require.Equal(t, want, events)
			events = nil
		}
		message := func(id string) fanout.Message[int] { return fanout.Message[int]{ID: id} }
		q := kit.OpenQueue(t, top, "q", fanout.WithCapacity(2), fanout.WithMaxAttempts(2), fanout.WithDeadLetterCapacity(1), fanout.WithBackoff(fanout.Constant(3*time.Second)))
		old := kit.OpenQueue(t, top, "old", fanout.WithCapacity(1), fanout.WithOverflow(fanout.DropOldest), fanout.WithFilter(func(int) bool { return true }))

		kit.PublishAll(t, top, message("a"))
		next("0s published payments/ a")
		d := kit.Receive(t, q)
		next("0s delivered payments/q a, attempt 1")
		kit.Elapse(time.Second)
		require.NoError(t, d.Settle(ctx, kit.ErrBusy))
		next("1s settled payments/q a, attempt 1, cause failed, err busy, elapsed 1s, wait 3s")
		kit.Elapse(3 * time.Second)
		d = kit.Receive(t, q)
		kit.Elapse(time.Second)
		require.NoError(t, d.Settle(ctx, kit.ErrBusy))
		next("4s delivered payments/q a, attempt 2", "5s settled payments/q a, attempt 2, cause failed, err busy, elapsed 1s",
			"5s dead-lettered payments/q a, attempt 2, cause failed, err busy, elapsed 1s")
		kit.PublishAll(t, top, message("b"))
		next("5s dropped payments/old a, reason drop oldest", "5s published payments/ b")
		require.NoError(t, kit.Receive(t, q).Settle(ctx, fanout.Permanent(kit.ErrBusy)))
		next("5s delivered payments/q b, attempt 1", "5s settled payments/q b, attempt 1, cause permanent, err busy",
			"5s parked payments/q b, attempt 1, cause permanent, err busy")
		n, err := q.Redrive(ctx)
		require.NoError(t, err)
		require.Equal(t, 1, n)
		next("5s redriven payments/q a", "5s dead-lettered payments/q b, attempt 1, cause permanent, err busy")
		require.NoError(t, kit.Receive(t, q).Ack(ctx))
		next("5s delivered payments/q a, attempt 1", "5s settled payments/q a, attempt 1, cause acked")

		require.NoError(t, old.Close())
		next("5s dropped payments/old , reason close")
		s, err := q.Subscribe(ctx, func(ctx context.Context, d fanout.Delivery[int]) error {
			if d.Attempt() == 1 {
				time.Sleep(40 * time.Second)
				return kit.ErrBusy
			}
			return nil
		})
		require.NoError(t, err)
		kit.PublishAll(t, top, message("c"), message("d"))
		synctest.Wait()
		mu.Lock()
		events = nil
		mu.Unlock()
		full := kit.Waiting(ctx, top, message("e"))
		kit.Elapse(10 * time.Second)
		next("15s stalled payments/q , elapsed 10s, depth 2")
		kit.Elapse(10*time.Second + 1) // not to the instant at which more than one happens
		mu.Lock()
		events = nil
		mu.Unlock()
		kit.Elapse(10*time.Second - 1)
		mu.Lock()
		slices.Sort(events)
		require.Equal(t, []string{
			"35s settled payments/q c, attempt 1, cause timed out, elapsed 30s",
			"35s stalled payments/q , elapsed 30s, depth 2",
			"35s stuck payments/q c, attempt 1, elapsed 30s, subscriber true",
			"35s stuck stack payments/q c, attempt 1, elapsed 30s, subscriber true, stack true",
		}, events)
		events = nil
		mu.Unlock()
		kit.Elapse(10 * time.Second)
		mu.Lock()
		require.Contains(t, events, "45s late payments/q c, attempt 1, cause failed, err busy, subscriber true")
		require.Contains(t, events, "45s delivered payments/q c, attempt 2")
		mu.Unlock()
		require.NoError(t, kit.RequireDecided(t, full))
		_, err = q.Purge(ctx)
		require.NoError(t, err)
		kit.Elapse(2 * time.Minute)
		require.NoError(t, s.Shutdown(ctx))
		kit.Check(t, top)
		top.Close()
		<-top.Done()

		mu.Lock()
		for queue, got := range seqs {
			slices.Sort(got) // calls may overtake each other
			for k := range got {
				require.Equal(t, uint64(k+1), got[k], "queue %q", queue)
			}
		}
		require.Len(t, seqs[""], 5, "one for each message")
		mu.Unlock()
	})
	t.Run("calls of one goroutine come in order", func(t *testing.T) {
		kit.Bubble(t, func(t *testing.T, ctx context.Context) {
			var last uint64
			var n int
			hook := func(e fanout.Event) {
				n++
				require.Equal(t, last+1, e.Seq)
				last = e.Seq
			}
			top := kit.NewTopic[int](t, fanout.WithHooks(fanout.Hooks{Delivered: hook, Settled: hook, DeadLettered: hook, Dropped: hook, Redriven: hook}))
			q := kit.OpenQueue(t, top, "q", fanout.WithMaxAttempts(1), fanout.WithCapacity(3), fanout.WithOverflow(fanout.DropNewest))
			kit.Publish(t, top, 1, 2, 3, 4)
			require.NoError(t, kit.Receive(t, q).Nack(ctx))
			require.NoError(t, kit.Receive(t, q).Ack(ctx))
			_, err := q.Redrive(ctx)
			require.NoError(t, err)
			require.Equal(t, 7, n)
			top.Close()
		})
	})
	t.Run("a panic is recovered and logged", func(t *testing.T) {
		kit.Bubble(t, func(t *testing.T, ctx context.Context) {
			var log kit.Buffer
			boom := func(fanout.Event) { panic("boom") }
			top, err := fanout.NewTopic[int]("payments", fanout.WithLogger(log.Logger()), fanout.WithHooks(fanout.Hooks{
				Published: boom, Delivered: boom, Settled: boom, DeadLettered: boom, Parked: boom, Redriven: boom,
				Dropped: boom, Stuck: boom, StuckStack: boom, Stalled: boom, Late: boom,
			}))
			require.NoError(t, err)
			s := kit.Subscribe(t, top, "q", func(ctx context.Context, d fanout.Delivery[int]) error {
				time.Sleep(2 * time.Second)
				return kit.ErrBusy
			}, fanout.WithMaxAttempts(2), fanout.WithVisibilityTimeout(time.Second), fanout.WithDeadLetterCapacity(1))
			kit.Publish(t, top, 1, 2)
			kit.Elapse(time.Hour)
			st := s.Queue().Stats()
			require.Equal(t, [3]int{1, 1, 0}, [3]int{st.Dead, st.Parked, st.Workers})
			require.Contains(t, log.String(), "a hook panicked")
			kit.Check(t, top)
			top.Close()
			<-top.Done()
		})
	})
}

func TestRowPprofLabels(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		free := make(chan struct{})
		labelled := func(ctx context.Context, d fanout.Delivery[int]) error {
			if _, ok := pprof.Label(ctx, "queue"); ok {
				t.Error("its context carries labels")
			}
			<-free
			return nil
		}
		_, file, line, _ := runtime.Caller(0)
		_, err := top.Subscribe(ctx, "q", labelled)
		require.NoError(t, err)
		kit.Publish(t, top, 1)
		synctest.Wait()
		var profile bytes.Buffer
		require.NoError(t, pprof.Lookup("goroutine").WriteTo(&profile, 1))
		require.Contains(t, profile.String(), fmt.Sprintf(`# labels: {"queue":"q", "subscriber":"%s:%d", "topic":"payments"}`,
			site(file), line+1))
		close(free)
		top.Close()
		<-top.Done()
	})
}

// site is a file as subscribers are named by it.
func site(file string) string {
	return filepath.Join(filepath.Base(filepath.Dir(file)), filepath.Base(file))
}

func TestAStuckHandlerIsReportedWithItsSubscriberAndItsStackOnceAMinute(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		var mu sync.Mutex
		var stuck, stacks []fanout.Event
		add := func(to *[]fanout.Event) func(fanout.Event) {
			return func(e fanout.Event) {
				mu.Lock()
				defer mu.Unlock()
				*to = append(*to, e)
			}
		}
		top := kit.NewTopic[int](t, fanout.WithHooks(fanout.Hooks{Stuck: add(&stuck), StuckStack: add(&stacks)}))
		nap := func(ctx context.Context, d fanout.Delivery[int]) error {
			napInTheHandler(10*time.Minute - 1)
			return nil
		}
		_, file, line, _ := runtime.Caller(0)
		s, err := top.Subscribe(ctx, "q", nap, fanout.WithConcurrency(9), fanout.WithVisibilityTimeout(10*time.Second), fanout.WithMaxAttempts(1))
		require.NoError(t, err)
		counts := func() [3]int {
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			return [3]int{len(stuck), len(stacks), s.Queue().Stats().Stuck}
		}
		kit.Publish(t, top, 1, 2, 3)
		kit.Elapse(10*time.Second - 1)
		require.Equal(t, [3]int{}, counts())
		kit.Elapse(1)
		require.Equal(t, [3]int{3, 1, 3}, counts(), "at that instant, and one stack")
		mu.Lock()
		for _, e := range append(slices.Clone(stuck), stacks...) {
			require.Equal(t, fmt.Sprintf("%s:%d", site(file), line+1), e.Subscriber)
			require.Equal(t, 10*time.Second, e.Elapsed)
			require.Equal(t, "q", e.Queue)
			require.Equal(t, 1, e.Attempt)
			require.NotEmpty(t, e.MessageID)
		}
		require.Contains(t, stacks[0].Stack, "napInTheHandler")
		require.Contains(t, stacks[0].Stack, "hooks_test.go")
		require.Equal(t, 1, strings.Count(stacks[0].Stack, "napInTheHandler("), "of that one only")
		mu.Unlock()

		kit.Elapse(50*time.Second - 1)
		kit.Publish(t, top, 4) // stuck a nanosecond before a minute has passed
		kit.Elapse(1)
		kit.Publish(t, top, 5) // and when it has
		kit.Elapse(10*time.Second - 1)
		require.Equal(t, [3]int{4, 1, 4}, counts())
		kit.Elapse(1)
		require.Equal(t, [3]int{5, 2, 5}, counts())
		require.Equal(t, 5, s.Queue().Stats().Dead)
		kit.Check(t, top)
		kit.Elapse(10 * time.Minute)
		require.Equal(t, [3]int{5, 2, 0}, counts())
		require.NoError(t, top.Shutdown(ctx))
		<-top.Done()
	})
}

// napInTheHandler is what a handler is stuck in.
//
//go:noinline
func napInTheHandler(d time.Duration) { time.Sleep(d) }

func TestASubscriberIsNamedByTheLineThatMadeItWhicheverWay(t *testing.T) {
	ctx := t.Context()
	top := kit.NewTopic[int](t)
	q := kit.OpenQueue(t, top, "q")
	batch := func(context.Context, []fanout.Delivery[int]) error { return nil }
	_, file, line, _ := runtime.Caller(0)
	a, _ := top.Subscribe(ctx, "a", kit.HandleNothing)
	b, _ := top.SubscribeBatch(ctx, "b", batch)
	c, _ := q.Subscribe(ctx, kit.HandleNothing)
	d, _ := q.SubscribeBatch(ctx, batch)
	for k, s := range []fanout.SubscriberView{
		a.Queue().View().Subscribers()[0], b.Queue().View().Subscribers()[0], c.Queue().View().Subscribers()[0], d.Queue().View().Subscribers()[1],
	} {
		require.Equal(t, fmt.Sprintf("%s:%d", site(file), line+1+k), s.Subscriber)
	}
	top.Close()
}

func TestALongWaitIsReportedEveryTenSecondsWithTheQueueItIsFor(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		y := kit.NewDiary()
		var log kit.Buffer
		top, err := fanout.NewTopic[int]("payments", fanout.WithLogger(log.Logger()), fanout.WithHooks(fanout.Hooks{Stalled: func(e fanout.Event) {
			y.Note("%s %v %d of %d", e.Queue, e.Elapsed, e.Stats.Unsettled(), e.Stats.Capacity)
		}}))
		require.NoError(t, err)
		a := kit.OpenQueue(t, top, "a", fanout.WithCapacity(1), fanout.WithMaxAttempts(1))
		b := kit.OpenQueue(t, top, "b", fanout.WithCapacity(2))
		kit.Publish(t, top, 1)
		full := kit.Waiting(ctx, top, fanout.Message[int]{Body: 2})
		kit.Elapse(10*time.Second - 1)
		require.Empty(t, y.Read())
		kit.Elapse(15*time.Second + 1)
		require.Equal(t, []string{"10s: a 10s 1 of 1", "20s: a 20s 1 of 1"}, y.Read())
		require.NoError(t, kit.Receive(t, a).Nack(ctx)) // dead
		require.NoError(t, kit.RequireDecided(t, full))
		kit.Elapse(time.Minute)
		require.Empty(t, y.Read(), "no timer remains of it")

		y.Began = time.Now()
		full = kit.Waiting(ctx, top, fanout.Message[int]{Body: 3})
		kit.Elapse(12 * time.Second)
		require.NoError(t, kit.Receive(t, a).Ack(ctx)) // now it waits for b
		kit.Elapse(8 * time.Second)
		require.Equal(t, []string{"10s: a 10s 1 of 1", "20s: b 20s 2 of 2"}, y.Read())
		require.NoError(t, kit.Receive(t, b).Ack(ctx))
		require.NoError(t, kit.RequireDecided(t, full))

		y.Began = time.Now()
		soon, cancel := context.WithTimeout(ctx, 15*time.Second)
		defer cancel()
		n, err := a.Redrive(soon) // a redrive's wait, too
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Zero(t, n)
		require.Equal(t, []string{"10s: a 10s 1 of 1"}, y.Read())
		require.Equal(t, 5, strings.Count(log.String(), "waits for room"))
		kit.Check(t, top)
		top.Close()
	})
}

func TestTheStackOfAStuckHandlerIsFoundAmongMany(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		stacks := make(chan string, 1)
		top := kit.NewTopic[int](t, fanout.WithHooks(fanout.Hooks{StuckStack: func(e fanout.Event) { stacks <- e.Stack }}))
		var wg sync.WaitGroup
		stop := make(chan bool)
		for range 1000 { // a dump of more than is looked at first
			wg.Go(func() { <-stop })
		}
		kit.Subscribe(t, top, "q", func(ctx context.Context, d fanout.Delivery[int]) error {
			standStill(stop)
			return nil
		}, fanout.WithVisibilityTimeout(time.Second), fanout.WithMaxAttempts(1))
		kit.Publish(t, top, 1)
		require.Contains(t, <-stacks, "standStill")
		close(stop)
		wg.Wait()
		synctest.Wait()
		top.Close()
	})
}

//go:noinline
func standStill(stop <-chan bool) { <-stop }

func TestAFailureThatComesTooLateIsToldOfEachMessageThatItIsNews(t *testing.T) {
	late := func(t *testing.T, subscribe func(top *fanout.Topic[int]) error, n int) (late []int) {
		kit.Bubble(t, func(t *testing.T, ctx context.Context) {
			bodies := map[string]int{}
			top := kit.NewTopic[int](t, fanout.WithHooks(fanout.Hooks{
				Late:      func(e fanout.Event) { late = append(late, bodies[e.MessageID]) },
				Published: func(e fanout.Event) { bodies[e.MessageID] = len(bodies) },
			}))
			require.NoError(t, subscribe(top))
			q := top.Queue("q")
			require.NoError(t, q.Pause(ctx)) // so that no handler is quicker than the hook
			kit.PublishOnce(t, top, n)
			require.NoError(t, q.Resume(ctx))
			kit.Elapse(time.Minute)
			require.NoError(t, top.Shutdown(ctx))
		})
		return late
	}
	require.Equal(t, []int{0, 1, 2}, late(t, func(top *fanout.Topic[int]) error {
		_, err := top.SubscribeBatch(t.Context(), "q", func(_ context.Context, ds []fanout.Delivery[int]) error {
			if ds[0].Attempt() > 1 {
				return nil
			}
			time.Sleep(31 * time.Second)
			return kit.ErrBusy
		}, fanout.WithBatchSize(3))
		return err
	}, 3), "all have timed out")
	require.Equal(t, []int{0}, late(t, func(top *fanout.Topic[int]) error {
		_, err := top.Subscribe(t.Context(), "q", func(ctx context.Context, d fanout.Delivery[int]) error {
			if err := d.Ack(ctx); err != nil {
				return err
			}
			return kit.ErrBusy
		}, fanout.WithHandlerTimeout(time.Second))
		return err
	}, 1), "it was acknowledged before")
	require.Empty(t, late(t, func(top *fanout.Topic[int]) error {
		_, err := top.SubscribeBatch(t.Context(), "q", func(ctx context.Context, ds []fanout.Delivery[int]) error {
			if ds[0].Body > 0 {
				return nil
			}
			if err := ds[1].Ack(ctx); err != nil {
				return err
			}
			return kit.ErrBusy
		}, fanout.WithBatchSize(3), fanout.WithMaxAttempts(1))
		return err
	}, 3), "the error is that of those that were not acknowledged")
}
