package shop

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
)

func TestFailingCallsAreRetriedUntilEveryOrderIsBooked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		load, err := Load(Sample())
		require.NoError(t, err)
		s := NewShipping(load, NewWorld(3, 0.5, 1))
		topic, err := fanout.NewTopic[PaymentSucceeded]("payments", fanout.WithLogger(slog.New(slog.DiscardHandler)))
		require.NoError(t, err)
		sub, err := topic.Subscribe(t.Context(), "shipping", s.Handle,
			fanout.WithConcurrency(4), fanout.WithMaxAttempts(fanout.Unlimited))
		require.NoError(t, err)
		for p := range load.All() {
			require.NoError(t, topic.Publish(t.Context(), p))
		}
		require.NoError(t, topic.Shutdown(t.Context()))
		require.Equal(t, load.Len(), s.Ledger().Total())
		require.Zero(t, s.Ledger().Again())
		require.NotZero(t, sub.Queue().Stats().Failed)
	})
}

func TestACarrierSlowerThanTheVisibilityTimeoutIsBookedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		load, err := Load(Sample())
		require.NoError(t, err)
		s := NewShipping(load, NewWorld(1, 0, 1))
		topic, err := fanout.NewTopic[PaymentSucceeded]("payments", fanout.WithLogger(slog.New(slog.DiscardHandler)))
		require.NoError(t, err)
		// The slow carrier takes from 0.6 to 1.8 s: some attempts time out.
		sub, err := topic.Subscribe(t.Context(), "shipping", s.Handle, fanout.WithConcurrency(4),
			fanout.WithVisibilityTimeout(time.Second), fanout.WithMaxAttempts(fanout.Unlimited))
		require.NoError(t, err)
		for p := range load.All() {
			require.NoError(t, topic.Publish(t.Context(), p))
		}
		require.NoError(t, topic.Shutdown(t.Context()))
		require.Equal(t, load.Len(), s.Ledger().Total())
		require.NotZero(t, sub.Queue().Stats().TimedOut)
		published := NewLedger(load.Orders)
		for p := range load.All() {
			published.Enter(p.OrderID)
		}
		a := Audit(published, s.Ledger(), QueueSide{Stats: sub.Queue().Stats()})
		require.True(t, a.Balanced(), "%v", a.Wrong)
	})
}

func TestACallEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		begin := time.Now()
		err := NewWorld(1, 0, 1).call(ctx, carrier, 1, 1, time.Hour)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, time.Millisecond, time.Since(begin))
	})
}

func TestLuckDependsOnlyOnSeedOrderAndAttempt(t *testing.T) {
	outcomes := func(seed uint64) (failed int, all []bool) {
		w := NewWorld(seed, 0.3, Instant)
		for order := range 1000 {
			err := w.call(t.Context(), warehouse, order, 1, time.Second)
			all = append(all, err != nil)
			if err != nil {
				require.ErrorIs(t, err, ErrUnavailable)
				failed++
			}
		}
		return failed, all
	}
	n, first := outcomes(1)
	require.InDelta(t, 300, n, 60)
	_, again := outcomes(1)
	require.Equal(t, first, again)
	_, other := outcomes(2)
	require.NotEqual(t, first, other)
}

func TestACalmWorldHasNoFailures(t *testing.T) {
	w := NewWorld(1, 1, Instant)
	require.Error(t, w.call(t.Context(), carrier, 1, 1, time.Second))
	w.Calm()
	require.NoError(t, w.call(t.Context(), carrier, 1, 1, time.Second))
}

func TestCarriersWithoutANameHaveANumber(t *testing.T) {
	require.Equal(t, "Hare Express", CarrierOf(1).Name)
	require.Equal(t, "carrier 9", CarrierOf(9).Name)
	require.Positive(t, CarrierOf(0).Answer)
}
