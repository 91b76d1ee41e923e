package fanouttest_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/fanouttest"
)

var errDown = errors.New("the bank is down")

func TestSettleCountsWhatHandlersPublishToOtherTopics(t *testing.T) {
	both(t, func(t *testing.T) {
		const hops = 300
		k := fanouttest.New(t)
		a := fanouttest.NewTopic[order](k, "a")
		b := fanouttest.NewTopic[order](k, "b")
		pass := func(to *fanouttest.Topic[order]) fanout.Handler[order] {
			return func(ctx context.Context, d fanout.Delivery[order]) error {
				if d.Body.Cents == hops {
					return nil
				}
				return to.Publish(ctx, order{Cents: d.Body.Cents + 1})
			}
		}
		subscribe(t, a, "there", pass(b), fanout.WithConcurrency(4))
		subscribe(t, b, "back", pass(a), fanout.WithConcurrency(4))
		for range 8 {
			publish(t, a, order{Cents: 1})
		}
		k.Settle(t.Context())
		require.Equal(t, 8*hops, len(a.Published().Bodies())+len(b.Published().Bodies()))
		a.Acked("there").WantCount(8 * hops / 2)
		b.Acked("back").WantCount(8 * hops / 2)
	})
}

func TestSettleKnowsAllThatHooksTell(t *testing.T) {
	both(t, func(t *testing.T) {
		for range 300 {
			k := fanouttest.New(t)
			orders := fanouttest.NewTopic[order](k, "orders")
			for _, q := range []string{"a", "b", "c"} {
				subscribe(t, orders, q, ack[order], fanout.WithConcurrency(2))
			}
			publish(t, orders, order{"o-1", 1}, order{"o-2", 2})
			k.Settle(t.Context())
			for _, q := range []string{"a", "b", "c"} {
				if !orders.Acked(q).WantCount(2) {
					return
				}
			}
		}
	})
}

func TestSettleWaitsForAHandlerThatGoesOnAfterItsAck(t *testing.T) {
	both(t, func(t *testing.T) {
		k := fanouttest.New(t)
		orders := fanouttest.NewTopic[order](k, "orders")
		receipts := fanouttest.NewTopic[order](k, "receipts")
		acked := make(chan struct{})
		subscribe(t, orders, "billing", func(ctx context.Context, d fanout.Delivery[order]) error {
			if err := d.Ack(ctx); err != nil {
				return err
			}
			close(acked)
			<-time.After(20 * time.Millisecond)
			return receipts.Publish(ctx, d.Body)
		})
		subscribe(t, receipts, "mails", ack[order])
		publish(t, orders, order{"o-17", 1})
		<-acked
		k.Settle(t.Context())
		receipts.Acked("mails").Want(order{"o-17", 1})
	})
}

func TestSettleWaitsForRetriesAndNotForDelays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := fanouttest.New(t)
		orders := fanouttest.NewTopic[order](k, "orders")
		subscribe(t, orders, "billing", ack[order], fanout.WithBackoff(fanout.Constant(time.Hour)))
		orders.Handling("billing").First(3).Fail(errDown)
		begin := time.Now()
		publish(t, orders, order{"o-17", 1})
		k.Settle(t.Context())
		require.Equal(t, 3*time.Hour, time.Since(begin))
		orders.Retried("billing").WantCount(3)

		require.NoError(t, orders.PublishMessages(t.Context(), fanout.Message[order]{ID: "later", Body: order{"o-18", 2}, Delay: time.Minute}))
		orders.Handling("billing").Message("later").Nth(1).Fail(fanout.Snooze(time.Minute))
		begin = time.Now()
		k.Settle(t.Context())
		require.Zero(t, time.Since(begin))
		k.Settle(t.Context(), fanouttest.Delayed())
		require.Equal(t, 2*time.Minute, time.Since(begin))
		orders.Acked("billing").Want(order{"o-17", 1}, order{"o-18", 2})
	})
}

func TestSettleWithinLeavesTheFarFuture(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := fanouttest.New(t)
		orders := fanouttest.NewTopic[order](k, "orders", fanouttest.AllowUnsettled())
		h := func(_ context.Context, d fanout.Delivery[order]) error {
			switch d.Body.ID {
			case "retry":
				return fanout.RetryAfter(errDown, 24*time.Hour)
			case "snooze":
				return fanout.Snooze(24 * time.Hour)
			}
			if d.Attempt() < 3 {
				return fanout.RetryAfter(errDown, time.Minute)
			}
			return nil
		}
		subscribe(t, orders, "billing", h, fanout.WithConcurrency(3))
		publish(t, orders, order{ID: "retry"}, order{ID: "snooze"}, order{ID: "soon"})
		begin := time.Now()
		k.Settle(t.Context(), fanouttest.Within(time.Hour), fanouttest.Delayed())
		require.Equal(t, 2*time.Minute, time.Since(begin))
		orders.Acked("billing").Want(order{ID: "soon"})
	})
}

func TestSettleSaysWhatIsNotSettledWhenItsContextEnds(t *testing.T) {
	both(t, func(t *testing.T) {
		_, failed := failures(func(tb *fakeTB) {
			k := fanouttest.New(tb)
			orders := fanouttest.NewTopic[order](k, "orders")
			subscribe(tb, orders, "billing", func(context.Context, fanout.Delivery[order]) error { return errDown },
				fanout.WithBackoff(fanout.Constant(time.Hour)))
			_, err := orders.OpenQueue(t.Context(), "audit")
			require.NoError(t, err)
			publish(tb, orders, order{"o-17", 4999})
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			k.Settle(ctx)
			tb.Errorf("went on")
		})
		requireFailure(t, failed, "not settled: context deadline exceeded",
			`topic "orders", queue "billing": 1 to be retried`, `topic "orders", queue "audit": 1 ready`,
			`queue "audit": message`, `not delivered yet: {"ID":"o-17","Cents":4999}`,
			`queue "billing": message`, "due again in 59m59.9", "attempt 1: failed", "the bank is down")
	})
}

func TestSettleGivesUpByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := fanouttest.New(t)
		orders := fanouttest.NewTopic[order](k, "orders", fanouttest.AllowUnsettled())
		_, err := orders.OpenQueue(t.Context(), "audit")
		require.NoError(t, err)
		publish(t, orders, order{"o-17", 4999})
		begin := time.Now()
		err = k.AwaitSettled(t.Context())
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, "720h0m0s have passed")
		require.Equal(t, 30*24*time.Hour, time.Since(begin))

		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errDown)
		err = k.AwaitSettled(ctx)
		require.ErrorIs(t, err, errDown)
		require.ErrorIs(t, err, context.Canceled)
	})
}

func TestSettleWaitsForConsumersOfDeadLetters(t *testing.T) {
	both(t, func(t *testing.T) {
		k := fanouttest.New(t)
		orders := fanouttest.NewTopic[order](k, "orders")
		alarms := fanouttest.NewTopic[order](k, "alarms")
		q := subscribe(t, orders, "billing", func(context.Context, fanout.Delivery[order]) error { return fanout.Permanent(errDown) })
		_, err := q.DeadLetters().Subscribe(t.Context(), func(ctx context.Context, d fanout.Delivery[order]) error {
			return alarms.Publish(ctx, d.Body)
		})
		require.NoError(t, err)
		subscribe(t, alarms, "pager", ack[order])
		orders.Handling("billing/dead").Nth(1).Fail(errDown) // and is retried
		publish(t, orders, order{"o-17", 1}, order{"o-18", 1})
		k.Settle(t.Context())
		alarms.Acked("pager").WantInAnyOrder(order{"o-17", 1}, order{"o-18", 1})
		orders.Acked("billing/dead").WantCount(2)
	})
}

func TestSettleDoesNotWaitForAPausedQueue(t *testing.T) {
	both(t, func(t *testing.T) {
		k := fanouttest.New(t)
		orders := fanouttest.NewTopic[order](k, "orders")
		q := subscribe(t, orders, "billing", ack[order])
		require.NoError(t, q.Pause(t.Context()))
		publish(t, orders, order{"o-17", 1})
		k.Settle(t.Context())
		orders.Delivered("billing").Want()
		require.NoError(t, q.Resume(t.Context()))
		k.Settle(t.Context())
		orders.Acked("billing").WantCount(1)
	})
}

func TestSettleWaitsForAPublishThatWaitsForRoom(t *testing.T) {
	both(t, func(t *testing.T) {
		k := fanouttest.New(t)
		orders := fanouttest.NewTopic[order](k, "orders")
		q := subscribe(t, orders, "billing", ack[order], fanout.WithCapacity(1))
		require.NoError(t, q.Pause(t.Context()))
		publish(t, orders, order{"o-17", 1})
		begun, result := make(chan struct{}), make(chan error, 1)
		orders.Publishing().Do(func(ctx context.Context, _ fanout.Info, next func(context.Context) error) error {
			close(begun)
			return next(ctx)
		})
		go func() { result <- orders.Publish(context.Background(), order{"o-18", 1}) }()
		<-begun
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		require.ErrorContains(t, k.AwaitSettled(ctx), "publishes under way: 1")
		require.NoError(t, q.Resume(t.Context()))
		k.Settle(t.Context())
		orders.Acked("billing").Want(order{"o-17", 1}, order{"o-18", 1})
		require.NoError(t, <-result)
	})
}
