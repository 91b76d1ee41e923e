package fanouttest_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/fanouttest"
)

func TestEachFaultOfAHandlerIsWhatTheMessageGetsAndNothingElse(t *testing.T) {
	for _, c := range []struct {
		name   string
		fault  func(f *fanouttest.Fault)
		cause  func(s fanout.Stats) uint64
		second time.Duration // when the second delivery comes
	}{
		{"fail", func(f *fanouttest.Fault) { f.Fail(errDown) }, func(s fanout.Stats) uint64 { return s.Failed }, time.Second},
		{"retry after", func(f *fanouttest.Fault) { f.Fail(fanout.RetryAfter(errDown, time.Hour)) }, func(s fanout.Stats) uint64 { return s.Failed }, time.Hour},
		{"snooze", func(f *fanouttest.Fault) { f.Fail(fanout.Snooze(time.Hour)) }, func(s fanout.Stats) uint64 { return s.Snoozed }, time.Hour},
		{"panic", func(f *fanouttest.Fault) { f.Panic("boom") }, func(s fanout.Stats) uint64 { return s.Panicked }, time.Second},
		{"exit", func(f *fanouttest.Fault) { f.Exit() }, func(s fanout.Stats) uint64 { return s.Exited }, time.Second},
		{"time out", func(f *fanouttest.Fault) { f.TimeOut() }, func(s fanout.Stats) uint64 { return s.TimedOut }, 30 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := fanouttest.New(t)
				orders := fanouttest.NewTopic[order](k, "orders")
				begin := time.Now()
				var handled []time.Duration
				q := subscribe(t, orders, "billing", func(context.Context, fanout.Delivery[order]) error {
					handled = append(handled, time.Since(begin))
					return nil
				}, fanout.WithBackoff(fanout.Constant(time.Second)))
				subscribe(t, orders, "other", ack[order])
				c.fault(orders.Handling("billing").Nth(2))
				publish(t, orders, order{"o-17", 1}, order{"o-18", 2})
				k.Settle(t.Context(), fanouttest.Delayed())
				require.Equal(t, []time.Duration{0, c.second}, handled)
				require.Equal(t, uint64(1), c.cause(q.Stats()))
				orders.Retried("billing").Want(order{"o-18", 2})
				orders.Retried("other").Want()
			})
		})
	}
}

func TestADelayedHandlerBeginsLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := fanouttest.New(t)
		orders := fanouttest.NewTopic[order](k, "orders")
		begin := time.Now()
		var handled []time.Duration
		subscribe(t, orders, "billing", func(context.Context, fanout.Delivery[order]) error {
			handled = append(handled, time.Since(begin))
			return nil
		}, fanout.WithVisibilityTimeout(time.Minute))
		orders.Handling("billing").Nth(1).Delay(time.Second)
		orders.Handling("billing").Nth(2).Delay(2 * time.Minute) // times out meanwhile
		publish(t, orders, order{"o-17", 1}, order{"o-18", 2})
		k.Settle(t.Context())
		require.Equal(t, []time.Duration{time.Second, time.Minute + time.Second}, handled)
		orders.Acked("billing").WantCount(2)
	})
}

func TestADuplicateIsHandledTwiceAndAFailureIsNotDuplicated(t *testing.T) {
	both(t, func(t *testing.T) {
		k := fanouttest.New(t)
		orders := fanouttest.NewTopic[order](k, "orders")
		var runs atomic.Int64
		subscribe(t, orders, "billing", func(context.Context, fanout.Delivery[order]) error {
			if runs.Add(1) == 1 {
				return fanout.RetryAfter(errDown, time.Millisecond)
			}
			return nil
		})
		orders.Handling("billing").First(2).Duplicate()
		publish(t, orders, order{"o-17", 1})
		k.Settle(t.Context())
		require.Equal(t, int64(3), runs.Load())
		orders.Delivered("billing").WantCount(2)
		orders.Acked("billing").WantCount(1)
	})
}

func TestAFaultIsForOneMessageAndCountsFromWhenItIsMade(t *testing.T) {
	both(t, func(t *testing.T) {
		k := fanouttest.New(t)
		orders := fanouttest.NewTopic[order](k, "orders")
		subscribe(t, orders, "billing", ack[order], fanout.WithBackoff(fanout.Constant(time.Millisecond)))
		orders.Handling("billing").Message("m-2").First(2).Fail(errDown)
		orders.Handling("billing").Message("m-2").Nth(3).Panic(errDown)
		send := func(id string, n int) {
			require.NoError(t, orders.PublishMessages(t.Context(), fanout.Message[order]{ID: id, Body: order{Cents: n}}))
			k.Settle(t.Context())
		}
		send("m-1", 1)
		send("m-2", 2)
		orders.Retried("billing").Want(cents(2, 2, 2)...)
		orders.Handling("billing").Nth(1, 3).Fail(errDown)
		send("m-3", 3)
		send("m-4", 4)
		orders.Retried("billing").Want(cents(2, 2, 2, 3, 4)...)
	})
}

func TestFaultsStrikeInsideTheTopicsInterceptorsAndComeOneAroundTheOther(t *testing.T) {
	both(t, func(t *testing.T) {
		k := fanouttest.New(t)
		var seen []string
		note := func(name string) fanout.Interceptor {
			return func(ctx context.Context, _ fanout.Info, next func(context.Context) error) error {
				err := next(ctx)
				seen = append(seen, name)
				return err
			}
		}
		orders := fanouttest.NewTopic[order](k, "orders", fanout.WithHandlerInterceptor(note("topic's")))
		subscribe(t, orders, "billing", ack[order], fanout.WithHandlerInterceptor(note("subscriber's")))
		orders.Handling("billing").Do(note("first"))
		orders.Handling("billing").Do(note("second"))
		publish(t, orders, order{"o-17", 1})
		k.Settle(t.Context())
		require.Equal(t, []string{"subscriber's", "second", "first", "topic's"}, seen)
	})
}

func TestPublishesCanBeRefusedDelayedAndDoubled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := fanouttest.New(t)
		orders := fanouttest.NewTopic[order](k, "orders")
		subscribe(t, orders, "billing", ack[order])
		orders.Publishing().Nth(2).Fail(fanout.ErrQueueFull)
		orders.Publishing().Nth(3).Delay(time.Hour)
		orders.Publishing().Nth(4).Duplicate()
		orders.Publishing().Nth(5).TimeOut()
		publish(t, orders, order{Cents: 1})
		require.ErrorIs(t, orders.Publish(t.Context(), order{Cents: 2}), fanout.ErrQueueFull)
		begin := time.Now()
		publish(t, orders, order{Cents: 3})
		require.Equal(t, time.Hour, time.Since(begin))
		publish(t, orders, order{Cents: 4})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		require.ErrorIs(t, orders.Publish(ctx, order{Cents: 5}), context.DeadlineExceeded)
		k.Settle(t.Context())
		orders.Published().Want(cents(1, 3, 4, 4)...)
		orders.Acked("billing").Want(cents(1, 3, 4, 4)...)
	})
}

func TestAFaultThatNeverStrikesFailsTheTest(t *testing.T) {
	_, failed := failures(func(tb *fakeTB) {
		k := fanouttest.New(tb)
		orders := fanouttest.NewTopic[order](k, "orders")
		subscribe(tb, orders, "billing", ack[order])
		orders.Handling("billing").Nth(1).Fail(fanout.RetryAfter(errDown, time.Millisecond))
		orders.Handling("billing").Message("o-18").First(3).Fail(errDown)
		orders.Handling("biling").TimeOut()
		orders.Publishing().Nth(1, 7).Delay(time.Millisecond)
		publish(tb, orders, order{"o-17", 1})
		k.Settle(context.Background())
	})
	requireFailure(t, failed, `topic "orders" was given faults that never struck`,
		`Handling("billing").Message("o-18").First(3).Fail(the bank is down): struck 0 times, of 3`,
		`Handling("biling").TimeOut(): struck 0 times, of 1`,
		`Publishing().Nth(1 7).Delay(1ms): struck 1 times, of 2`)
	require.NotContains(t, failed[0], "RetryAfter")
}

func TestAFaultCanDependOnTheBody(t *testing.T) {
	both(t, func(t *testing.T) {
		k := fanouttest.New(t)
		orders := fanouttest.NewTopic[order](k, "orders")
		refuse := func(ctx context.Context, info fanout.Info, next func(context.Context) error) error {
			if o := info.Body().(order); o.Cents > 1000 {
				return fmt.Errorf("%s is too dear: %w", o.ID, errDown)
			}
			return next(ctx)
		}
		orders.Publishing().Do(refuse)
		require.ErrorContains(t, orders.Publish(t.Context(), order{"o-17", 4999}), "o-17 is too dear: the bank is down")
		publish(t, orders, order{"o-18", 1})

		var batch []string
		orders.Handling("audit").Do(func(ctx context.Context, info fanout.Info, next func(context.Context) error) error {
			batch = append(batch, fmt.Sprintf("%d, first %v %t", info.Messages, info.Body(), info.MessageID != ""))
			return next(ctx)
		})
		q, err := orders.OpenQueue(t.Context(), "audit")
		require.NoError(t, err)
		publish(t, orders, order{"o-19", 2}, order{"o-20", 3})
		_, err = q.SubscribeBatch(t.Context(), func(context.Context, []fanout.Delivery[order]) error { return nil }, fanout.WithBatchSize(10))
		require.NoError(t, err)
		k.Settle(t.Context())
		require.Equal(t, []string{"2, first {o-19 2} true"}, batch)
		orders.Acked("audit").Want(order{"o-19", 2}, order{"o-20", 3})
	})
}

func TestAFaultThatCannotBeEndsTheTest(t *testing.T) {
	for want, fault := range map[string]func(f *fanouttest.Fault){
		`Handling("q").Nth(0): want 1, the next, or more`:                func(f *fanouttest.Fault) { f.Nth(1, 0) },
		`Handling("q").Nth(): want at least one number`:                  func(f *fanouttest.Fault) { f.Nth() },
		`Handling("q").First(-1): want at least 1`:                       func(f *fanouttest.Fault) { f.First(-1) },
		`Handling("q").Message("m").First(2).Fail(nil): want an error`:   func(f *fanouttest.Fault) { f.Message("m").First(2).Fail(nil) },
		`Handling("q").Do(nil): want an interceptor`:                     func(f *fanouttest.Fault) { f.Do(nil) },
		`Handling("q").Delay(-1s): want a duration that is not negative`: func(f *fanouttest.Fault) { f.Delay(-time.Second) },
	} {
		tb, errs := failures(func(tb *fakeTB) {
			numbers := fanouttest.NewTopic[order](fanouttest.New(tb), "numbers")
			fault(numbers.Handling("q"))
		})
		require.Equal(t, []string{"fanouttest: " + want}, errs)
		require.True(t, tb.fatal)
	}
}
