// The promises by their numbers: 8, order, and 13, no deadlock.

package fanout_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/internal/tests/kit"
)

// --- 8. Order ---

func TestPromise08AllQueuesSeeOneOrderAndEachPublishersOwn(t *testing.T) {
	top := kit.NewTopic[int](t)
	var got [3][]int
	var wg sync.WaitGroup
	const publishers, each = 4, 500
	for k := range got {
		q := kit.OpenQueue(t, top, fmt.Sprint(k), fanout.WithCapacity(8+k), fanout.WithFilter(func(int) bool { return true }))
		if k == 0 {
			require.NoError(t, q.Close())
			q = kit.OpenQueue(t, top, "0", fanout.WithCapacity(16))
		}
		wg.Go(func() {
			for d, err := range q.Deliveries(t.Context()) {
				if err != nil {
					return
				}
				got[k] = append(got[k], d.Body)
				_ = d.Ack(t.Context())
			}
		})
	}
	var pubs sync.WaitGroup
	for p := range publishers {
		pubs.Go(func() {
			for n := range each {
				if n%7 == 0 {
					_ = top.PublishMessages(t.Context(), fanout.Message[int]{Body: p*each + n})
				} else {
					_ = top.Publish(t.Context(), p*each+n)
				}
			}
		})
	}
	pubs.Wait()
	require.NoError(t, top.Shutdown(t.Context()))
	wg.Wait()
	require.Len(t, got[0], publishers*each)
	require.Equal(t, got[0], got[1])
	require.Equal(t, got[0], got[2])
	var next [publishers]int
	for _, b := range got[0] {
		require.Equal(t, next[b/each], b%each)
		next[b/each]++
	}
}

func TestPromise08OneMessageOfAKeyAtATimeInOrderWhileOtherKeysGoOn(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t, fanout.WithOrdering())
		q := kit.OpenQueue(t, top, "q", fanout.WithBackoff(fanout.Constant(time.Minute)), fanout.WithMaxAttempts(2), fanout.WithVisibilityTimeout(time.Hour))
		require.NoError(t, top.PublishMessages(ctx, kit.Keyed("a", 1, 2, 3, 4, 5)...))
		require.NoError(t, top.PublishMessages(ctx, kit.Keyed("b", 11, 12)...))
		require.NoError(t, top.Publish(ctx, 0))

		a1 := kit.Receive(t, q)
		require.Equal(t, 1, a1.Body)
		b := kit.Receive(t, q)
		require.Equal(t, 11, b.Body)
		require.Equal(t, 0, kit.Receive(t, q).Body, "a message without a key is nobody's successor")
		kit.RequireEmpty(t, q)
		require.Equal(t, 5, q.Stats().Blocked)
		fanout.Check(t, top)

		require.NoError(t, a1.Nack(ctx)) // fails: the key waits for its retry
		kit.RequireEmpty(t, q)
		require.NoError(t, b.Ack(ctx))
		require.Equal(t, 12, kit.Receive(t, q).Body, "the other key goes on")
		time.Sleep(time.Minute)
		synctest.Wait()
		a1 = kit.Receive(t, q)
		require.Equal(t, [2]int{1, 2}, [2]int{a1.Body, a1.Attempt()})
		kit.RequireEmpty(t, q)

		require.NoError(t, a1.Settle(ctx, fanout.Snooze(time.Minute))) // so does a snooze
		kit.RequireEmpty(t, q)
		time.Sleep(time.Minute)
		synctest.Wait()
		a1 = kit.Receive(t, q, fanout.WithVisibilityTimeout(time.Minute))
		require.Equal(t, 1, a1.Body)
		time.Sleep(time.Minute) // and a time-out, which here is the last attempt: a dead head lets its key go on
		synctest.Wait()
		require.Equal(t, 1, q.Stats().Dead)
		a2 := kit.Receive(t, q)
		require.Equal(t, 2, a2.Body)

		n, err := q.Redrive(ctx) // it is older than those in line
		require.NoError(t, err)
		require.Equal(t, 1, n)
		kit.RequireEmpty(t, q)
		require.NoError(t, a2.Ack(ctx))
		for _, want := range []int{1, 3, 4, 5} {
			d := kit.Receive(t, q)
			require.Equal(t, want, d.Body)
			kit.RequireEmpty(t, q)
			fanout.Check(t, top)
			require.NoError(t, d.Ack(ctx))
		}
		require.Equal(t, 1, fanout.KeysKept(q), "only b is in flight: the memory for idle keys is given back")
		top.Close()
	})
}

func TestPromise08AParkedOrDroppedOrPurgedHeadLetsItsKeyGoOn(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t, fanout.WithOrdering())
		q := kit.OpenQueue(t, top, "q", fanout.WithMaxAttempts(1), fanout.WithDeadLetterCapacity(1), fanout.WithCapacity(4), fanout.WithOverflow(fanout.DropOldest),
			fanout.WithBackoff(fanout.Constant(time.Hour)))
		require.NoError(t, top.PublishMessages(ctx, kit.Keyed("a", 1, 2, 3, 4)...))
		require.NoError(t, kit.Receive(t, q).Nack(ctx)) // dead
		require.NoError(t, kit.Receive(t, q).Nack(ctx)) // parked
		fanout.Check(t, top)
		d := kit.Receive(t, q)
		require.Equal(t, 3, d.Body)
		require.NoError(t, d.Settle(ctx, fanout.Snooze(time.Hour)))
		kit.RequireEmpty(t, q)
		require.NoError(t, top.PublishMessages(ctx, kit.Keyed("a", 5, 6)...)) // 3 is the oldest that can be dropped
		fanout.Check(t, top)
		require.Equal(t, 4, kit.Receive(t, q).Body)
		fanout.Check(t, top)
		n, err := q.Purge(ctx)
		require.NoError(t, err)
		require.Equal(t, 4, n)
		fanout.Check(t, top)
		require.NoError(t, top.PublishMessages(ctx, kit.Keyed("a", 7)...))
		require.Equal(t, 7, kit.Receive(t, q).Body)
		top.Close()
	})
}

func TestPromise08OrderHoldsWithManyWorkersThatFail(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t, fanout.WithOrdering())
		const keys, each = 7, 40
		var mu sync.Mutex
		next := map[string]int{}
		running := map[string]int{}
		handler := func(ctx context.Context, d fanout.Delivery[int]) error {
			key := fmt.Sprint(d.Body % keys)
			mu.Lock()
			running[key]++
			if running[key] > 1 {
				t.Errorf("two messages of key %s at a time", key)
			}
			if got := d.Body / keys; got != next[key] {
				t.Errorf("key %s: %d instead of %d", key, got, next[key])
			}
			r := rand.IntN(8)
			if r > 3 {
				next[key]++
			}
			mu.Unlock()
			time.Sleep(time.Duration(rand.IntN(50)) * time.Millisecond)
			mu.Lock()
			running[key]--
			mu.Unlock()
			switch r {
			case 0:
				return kit.ErrBusy
			case 1:
				panic("boom")
			case 2:
				return fanout.Snooze(time.Second)
			case 3:
				runtime.Goexit()
			}
			return nil
		}
		kit.Subscribe(t, top, "push", handler, fanout.WithConcurrency(5), fanout.WithMaxAttempts(fanout.Unlimited), fanout.WithCapacity(30))
		for n := range keys * each {
			require.NoError(t, top.PublishMessages(ctx, kit.Keyed(fmt.Sprint(n%keys), n)...))
		}
		time.Sleep(time.Hour)
		require.NoError(t, top.Shutdown(ctx))
		for key, n := range next {
			require.Equal(t, each, n, key)
		}
	})
}

func TestPromise08AFieldThatTheTopicHasNotEnabledIsUnsupported(t *testing.T) {
	top := kit.NewTopic[int](t)
	defer top.Close()
	for field, m := range map[string]fanout.Message[int]{
		"OrderingKey": {OrderingKey: "k"}, "DeduplicationID": {DeduplicationID: "d"},
	} {
		err := top.PublishMessages(t.Context(), fanout.Message[int]{}, m)
		require.ErrorIs(t, err, fanout.ErrUnsupported)
		require.ErrorContains(t, err, "message 1: "+field)
	}
	ordered := kit.NewTopic[int](t, fanout.WithOrdering())
	defer ordered.Close()
	err := ordered.PublishMessages(t.Context(), fanout.Message[int]{OrderingKey: "k", Delay: time.Second})
	require.ErrorIs(t, err, fanout.ErrUnsupported)
	require.ErrorContains(t, err, "Delay")
}

func TestPromise08ShutdownDoesNotWaitForWhatIsBehindASnooze(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t, fanout.WithOrdering())
		kit.Subscribe(t, top, "q", func(ctx context.Context, d fanout.Delivery[int]) error {
			if d.Body == 1 {
				return fanout.Snooze(time.Hour)
			}
			return nil
		}, fanout.WithConcurrency(2))
		require.NoError(t, top.PublishMessages(ctx, kit.Keyed("a", 1, 2, 3)...))
		require.NoError(t, top.PublishMessages(ctx, kit.Keyed("b", 4, 5, 6)...))
		synctest.Wait()
		start := time.Now()
		err := top.Shutdown(ctx)
		require.Zero(t, time.Since(start))
		var left *fanout.ShutdownError
		require.ErrorAs(t, err, &left)
		require.Equal(t, []fanout.Left{{Queue: "q", Delayed: 1, Blocked: 2}}, left.Queues)
		require.Len(t, top.Leftovers()["q"], 3)
		require.Equal(t, "a", top.Leftovers()["q"][0].OrderingKey)
	})
}

// --- 13. A publish inside a handler can't hang for ever ---

func TestPromise13AHandlerThatFillsItsOwnQueueGetsErrWouldDeadlock(t *testing.T) {
	// Tailscale's issue 18012.
	for _, workers := range []int{1, 8} {
		t.Run(fmt.Sprint(workers), func(t *testing.T) {
			kit.Bubble(t, func(t *testing.T, ctx context.Context) {
				top := kit.NewTopic[int](t)
				errs := make(chan error, 1)
				kit.Subscribe(t, top, "q", func(ctx context.Context, d fanout.Delivery[int]) error {
					if d.Body == 1 {
						errs <- top.Publish(ctx, 2)
					}
					return nil
				}, fanout.WithCapacity(1), fanout.WithConcurrency(workers))
				start := time.Now()
				kit.Publish(t, top, 1)
				err := <-errs
				require.ErrorIs(t, err, fanout.ErrWouldDeadlock)
				require.ErrorContains(t, err, `"q" of topic "payments" -> "q" of topic "payments"`)
				require.Zero(t, time.Since(start))
				require.Zero(t, top.Stats().Waiting)
				require.NoError(t, top.Shutdown(ctx))
			})
		})
	}
}

func TestPromise13ACycleOverTwoTopicsIsNamed(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		orders, err := fanout.NewTopic[int]("orders", kit.Silent)
		require.NoError(t, err)
		payments, err := fanout.NewTopic[string]("payments", kit.Silent)
		require.NoError(t, err)
		errs := make(chan error, 10)
		go1, go2 := make(chan struct{}), make(chan struct{})
		kit.Subscribe(t, orders, "billing", func(ctx context.Context, d fanout.Delivery[int]) error {
			<-go1
			errs <- payments.Publish(ctx, "x")
			return nil
		}, fanout.WithCapacity(1))
		kit.Subscribe(t, payments, "shipping", func(ctx context.Context, d fanout.Delivery[string]) error {
			<-go2
			if d.Body != "a" {
				return nil
			}
			ctx, cancel := context.WithTimeout(ctx, time.Hour) // comes from the handler's
			defer cancel()
			errs <- orders.Publish(ctx, 1)
			return nil
		}, fanout.WithCapacity(1))
		kit.Publish(t, orders, 1)
		kit.Publish(t, payments, "a")
		synctest.Wait()
		close(go1)
		synctest.Wait()
		require.Equal(t, 1, payments.Stats().Waiting, "this one waits: shipping may finish")
		close(go2)
		err = <-errs
		require.ErrorIs(t, err, fanout.ErrWouldDeadlock)
		require.ErrorContains(t, err, `"shipping" of topic "payments" -> "billing" of topic "orders" -> "shipping" of topic "payments"`)
		require.NoError(t, <-errs, "and the other goes on")
		require.NoError(t, orders.Shutdown(ctx))
		require.NoError(t, payments.Shutdown(ctx))
	})
}

func TestPromise13WhatLooksLikeACycleAndIsNotWaitsAndSucceeds(t *testing.T) {
	free := map[string]func(t *testing.T, ctx context.Context, q *fanout.Queue[int]){
		"another worker": nil,
		"a receiver that waits": func(t *testing.T, ctx context.Context, q *fanout.Queue[int]) {
			go func() {
				time.Sleep(time.Second)
				d, err := q.Receive(ctx)
				if err == nil {
					_ = d.Ack(ctx)
				}
			}()
		},
	}
	for name, consumer := range free {
		t.Run(name, func(t *testing.T) {
			kit.Bubble(t, func(t *testing.T, ctx context.Context) {
				top := kit.NewTopic[int](t)
				var published atomic.Int32
				workers := 1
				if consumer == nil {
					workers = 2
				}
				s := kit.Subscribe(t, top, "q", func(ctx context.Context, d fanout.Delivery[int]) error {
					if d.Body == 1 {
						time.Sleep(2 * time.Second)
						if err := top.Publish(ctx, 3); err != nil {
							return err
						}
						published.Add(1)
						return nil
					}
					time.Sleep(10 * time.Second)
					return nil
				}, fanout.WithCapacity(2), fanout.WithConcurrency(workers))
				kit.Publish(t, top, 1, 2)
				if consumer != nil {
					consumer(t, ctx, s.Queue())
				}
				synctest.Wait()
				require.NoError(t, top.Shutdown(ctxAfter(ctx, top, time.Minute)))
				require.Equal(t, int32(1), published.Load())
			})
		})
	}
}

// ctxAfter lets d pass before the test goes on.
func ctxAfter[T any](ctx context.Context, _ *fanout.Topic[T], d time.Duration) context.Context {
	time.Sleep(d)
	return ctx
}

func TestPromise13AHandlerThatNeedsALockItsPublisherHoldsEndsWithTheContextAndIsReported(t *testing.T) {
	// Tailscale's issue 17973.
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		var log kit.Buffer
		stalls := make(chan fanout.Event, 10)
		top, err := fanout.NewTopic[int]("payments", fanout.WithLogger(log.Logger()), fanout.WithHooks(fanout.Hooks{Stalled: func(e fanout.Event) { stalls <- e }}))
		require.NoError(t, err)
		lock := make(chan struct{}, 1) // a mutex
		kit.Subscribe(t, top, "q", func(ctx context.Context, d fanout.Delivery[int]) error {
			lock <- struct{}{}
			<-lock
			return nil
		}, fanout.WithCapacity(2))
		lock <- struct{}{}
		kit.Publish(t, top, 1, 2)
		soon, cancel := context.WithTimeout(ctx, 25*time.Second)
		defer cancel()
		require.ErrorIs(t, top.Publish(soon, 3), context.DeadlineExceeded)
		<-lock
		synctest.Wait()
		require.Len(t, stalls, 2, "after ten and twenty seconds")
		e := <-stalls
		require.Equal(t, "q", e.Queue)
		require.Equal(t, 10*time.Second, e.Elapsed)
		require.Equal(t, [3]int{2, 1, 1}, [3]int{e.Stats.Unsettled(), e.Stats.InFlight, e.Stats.Workers})
		require.Contains(t, log.String(), `msg="fanout: a publish waits for room in a queue" topic=payments queue=q count=1 elapsed=10s depth=2 ready=1 in_flight=1 workers=1 stuck=0`)
		require.NoError(t, top.Shutdown(ctx))
	})
}

func TestPromise13ManyHandlersThatPublishInAllDirectionsNeverHang(t *testing.T) {
	// Real goroutines: each publish in a handler succeeds or is refused.
	tops := make([]*fanout.Topic[int], 3)
	var refused, ok atomic.Int64
	for k := range tops {
		tops[k] = kit.NewTopic[int](t)
	}
	for k := range tops {
		for n := range 2 {
			kit.Subscribe(t, tops[k], fmt.Sprint(n), func(ctx context.Context, d fanout.Delivery[int]) error {
				for range 2 {
					if d.Body <= 0 {
						return nil
					}
					switch err := tops[rand.IntN(len(tops))].Publish(ctx, d.Body-1); {
					case err == nil:
						ok.Add(1)
					case strings.Contains(err.Error(), "deadlock"):
						refused.Add(1)
					default:
						return err
					}
				}
				return nil
			}, fanout.WithCapacity(1+rand.IntN(4)), fanout.WithConcurrency(1+rand.IntN(3)))
		}
	}
	for n := range 30 {
		_ = tops[n%3].Publish(t.Context(), 3)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for settled := false; !settled; {
		settled = !slices.ContainsFunc(tops, func(top *fanout.Topic[int]) bool {
			return top.Stats().Waiting > 0 || slices.ContainsFunc(top.Queues(), func(q *fanout.Queue[int]) bool { return q.Stats().Unsettled() > 0 })
		})
		require.NoError(t, ctx.Err(), "it hangs: %d published, %d refused", ok.Load(), refused.Load())
		time.Sleep(time.Millisecond)
	}
	require.Positive(t, ok.Load())
	for _, top := range tops {
		require.NoError(t, top.Shutdown(t.Context()))
	}
}
