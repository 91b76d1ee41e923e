package main

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
)

// settles returns dice whose handler settles after its timeout.
func settles() *dice {
	for n := uint64(0); ; n++ {
		if d := dice(n); d.roll(3) == 2 {
			d = dice(n)
			return &d
		}
	}
}

func TestAHandlerWhoseTimeoutPassesOwnsItsDelivery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := arenaFor(t)
		b := a.newBook("q", spec{keep: 1, visibility: time.Second, handlerTimeout: 100 * time.Millisecond}, 1)
		var done bool
		_, err := a.top.Subscribe(t.Context(), "q", func(ctx context.Context, d fanout.Delivery[ticket]) error {
			done, _ = b.timeOut(ctx, 256, &d, alone, settles())
			return nil
		}, fanout.WithVisibilityTimeout(time.Second), fanout.WithHandlerTimeout(100*time.Millisecond))
		require.NoError(t, err)
		require.NoError(t, a.top.Publish(t.Context(), 5))
		time.Sleep(2 * time.Second)
		synctest.Wait()
		require.True(t, done)
		require.Equal(t, []deed{settledAs}, deeds(b.events))
		require.Empty(t, a.w.problems)
		require.EqualValues(t, 1, a.w.sum.timedOut.Load())
		require.NoError(t, a.top.Close())
	})
}

func TestAHandlerWhoseSubscriberIsShutDownOwnsItsDelivery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := arenaFor(t)
		b := a.newBook("q", spec{keep: 1, visibility: time.Second}, 1)
		var done bool
		sub, err := a.top.Subscribe(t.Context(), "q", func(ctx context.Context, d fanout.Delivery[ticket]) error {
			odd := dice(0)
			for n := uint64(0); ; n++ {
				if odd = dice(n); odd.roll(2) == 1 {
					odd = dice(n)
					break
				}
			}
			done, _ = b.timeOut(ctx, 256, &d, alone, &odd)
			return nil
		}, fanout.WithVisibilityTimeout(time.Second))
		require.NoError(t, err)
		require.NoError(t, a.top.Publish(t.Context(), 5))
		synctest.Wait()
		over, cancel := context.WithCancel(t.Context())
		cancel()
		require.ErrorIs(t, sub.Shutdown(over), context.Canceled)
		synctest.Wait()
		require.True(t, done)
		require.Equal(t, []deed{settledAs}, deeds(b.events))
		require.NoError(t, a.top.Close())
	})
}

func TestAnAttemptThatTimedOutTooEarlyIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := arenaFor(t)
		b, _ := receivedFor(t, a, "q", 1)
		b.spec.visibility = time.Second
		d, err := b.q.Receive(t.Context()) // the one before times out
		require.NoError(t, err)
		b.got(256, &d, got)
		require.Empty(t, a.w.problems)
		b.spec.autoExtend = time.Second + 1
		b.got(256, &d, got)
		require.Equal(t, []string{"visibility timeout"}, promises(a.w.problems))
		require.NoError(t, a.top.Close())
	})
}

func TestAHandlerTimeoutThatIsWrongIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := arenaFor(t)
		b, ds := receivedFor(t, a, "q", 3)
		b.spec.visibility = time.Second
		over, cancel := context.WithDeadline(t.Context(), time.Now())
		defer cancel()

		done, _ := b.timedOut(over, 256, &ds[0], ds[0].Deadline(), settles())
		require.True(t, done)
		require.Equal(t, []string{"handler timeout"}, promises(a.w.problems), "without one")
		b.spec.handlerTimeout = 500 * time.Millisecond
		_, _ = b.timedOut(over, 256, &ds[1], ds[1].Deadline(), settles())
		require.Len(t, a.w.problems, 2, "too early")
		time.Sleep(2 * time.Second)
		_, err := b.timedOut(over, 256, &ds[2], time.Now().Add(time.Nanosecond), settles())
		require.True(t, errors.Is(err, errOther))
		require.Equal(t, []deed{settledAs, settledAs, wronglyDone}, deeds(b.events), "taken away too early")
		_, _ = b.timedOut(over, 256, &ds[2], time.Now(), settles())
		require.Equal(t, refusedAs, b.events[3].deed)
		require.Len(t, a.w.problems, 2)
		require.NoError(t, a.top.Close())
	})
}
