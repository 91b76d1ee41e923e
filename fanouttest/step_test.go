package fanouttest_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/fanouttest"
)

func TestAdvanceLetsTimePassToTheInstant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := fanouttest.New(t)
		orders := fanouttest.NewTopic[order](k, "orders", fanouttest.AllowUnsettled())
		subscribe(t, orders, "billing", func(context.Context, fanout.Delivery[order]) error { return errDown },
			fanout.WithBackoff(fanout.Constant(time.Hour)))
		publish(t, orders, order{"o-17", 1})
		k.Advance(time.Hour - 1)
		orders.Delivered("billing").WantCount(1)
		k.Advance(1)
		orders.Delivered("billing").WantCount(2)
		k.Advance(3 * time.Hour)
		orders.Delivered("billing").WantCount(5)
		orders.DeadLettered("billing").WantCount(1)
	})
}

func TestAdvanceInRealTimeWaitsForHandlers(t *testing.T) {
	k := fanouttest.New(t)
	orders := fanouttest.NewTopic[order](k, "orders")
	subscribe(t, orders, "billing", ack[order])
	orders.Handling("billing").Nth(1).Delay(20 * time.Millisecond)
	publish(t, orders, order{"o-17", 1})
	k.Advance(time.Millisecond)
	orders.Acked("billing").WantCount(1)

	// Nothing tells of a worker's end, here while somebody else has a message.
	d, err := orders.OpenQueue(t.Context(), "both")
	require.NoError(t, err)
	publish(t, orders, order{"o-18", 1}, order{"o-19", 1})
	inHand, err := d.Receive(t.Context())
	require.NoError(t, err)
	_, err = d.Subscribe(t.Context(), ack[order])
	require.NoError(t, err)
	k.Advance(time.Millisecond)
	orders.Acked("both").Want(order{"o-19", 1})
	require.NoError(t, inHand.Ack(t.Context()))
}

func TestNextGoesFromOneEventToTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := fanouttest.New(t)
		orders := fanouttest.NewTopic[order](k, "orders")
		subscribe(t, orders, "billing", func(_ context.Context, d fanout.Delivery[order]) error {
			if d.Attempt() < 4 {
				return errDown
			}
			return nil
		}, fanout.WithBackoff(fanout.BackoffFunc(func(attempt int) time.Duration { return time.Duration(attempt) * time.Minute })))
		publish(t, orders, order{"o-17", 1})
		for n := range 3 {
			require.Equal(t, time.Duration(n+1)*time.Minute, k.Next())
			orders.Delivered("billing").WantCount(n + 2)
		}
		orders.Acked("billing").WantCount(1)
	})
}

func TestNextGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, failed := failures(func(tb *fakeTB) { fanouttest.New(tb).Next() })
		requireFailure(t, failed, "nothing happened for 720h0m0s")
	})
}

// A day of visibility timeouts: each delivery hangs, and comes again at the exact
// instant. How long that takes on the wall is logged.
func TestADayOfTimeoutsPasses(t *testing.T) {
	begin := time.Now()
	synctest.Test(t, aDayOfTimeouts)
	t.Logf("24 hours passed in %v", time.Since(begin))
}

func aDayOfTimeouts(t *testing.T) {
	k := fanouttest.New(t)
	const timeouts = int(24 * time.Hour / (30 * time.Second))
	orders := fanouttest.NewTopic[order](k, "orders")
	begin := time.Now()
	var late int
	var handled time.Duration
	q := subscribe(t, orders, "billing", func(context.Context, fanout.Delivery[order]) error {
		handled = time.Since(begin)
		return nil
	}, fanout.WithMaxAttempts(fanout.Unlimited))
	orders.Handling("billing").First(timeouts).Do(func(ctx context.Context, info fanout.Info, _ func(context.Context) error) error {
		if time.Since(begin) != time.Duration(info.Attempt-1)*30*time.Second {
			late++
		}
		<-ctx.Done()
		return context.Cause(ctx)
	})
	publish(t, orders, order{"o-17", 1})
	k.Settle(context.Background())
	if s := q.Stats(); s.TimedOut != uint64(timeouts) || s.Acked != 1 || late != 0 || handled != 24*time.Hour {
		t.Errorf("%d timed out, %d acked, %d not at their instant, handled after %v", s.TimedOut, s.Acked, late, handled)
	}
	orders.Delivered("billing").WantCount(timeouts + 1)
}
