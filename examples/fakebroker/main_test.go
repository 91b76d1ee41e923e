package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
)

// A fakeBank charges as its function says, and remembers when it was called.
type fakeBank struct {
	charge func(ctx context.Context, o order) error
	begin  time.Time

	mu    sync.Mutex      // guards calls
	calls []time.Duration // since begin
}

func (b *fakeBank) Charge(ctx context.Context, o order) error {
	b.mu.Lock()
	b.calls = append(b.calls, time.Since(b.begin))
	b.mu.Unlock()
	return b.charge(ctx, o)
}

func (b *fakeBank) called() []time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.calls)
}

// A world is the service with a broker around it.
type world struct {
	*testing.T
	bank    *fakeBank
	orders  *fanout.Topic[order]
	billing *fanout.Queue[order]
	mails   *fanout.Queue[receipt]
}

// inWorld runs test in a bubble with a world of its own. The bubble fails if
// a goroutine is left when the topics are closed.
func inWorld(t *testing.T, charge func(ctx context.Context, o order) error, test func(w world), mailOptions ...fanout.QueueOption) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		quiet := fanout.WithLogger(slog.New(slog.DiscardHandler)) // some tests leave orders undone
		orders, err := fanout.NewTopic[order]("orders", quiet)
		require.NoError(t, err)
		defer orders.Close()
		receipts, err := fanout.NewTopic[receipt]("receipts")
		require.NoError(t, err)
		defer receipts.Close()
		mails, err := receipts.OpenQueue(t.Context(), "mails", mailOptions...)
		require.NoError(t, err)
		b := &fakeBank{charge: charge, begin: time.Now()}
		billing, err := startBilling(t.Context(), orders, receipts, b)
		require.NoError(t, err)
		test(world{t, b, orders, billing.Queue(), mails})
	})
}

// receipt takes the next receipt, however long that takes.
func (w world) receipt() string {
	d, err := w.mails.Receive(w.Context())
	require.NoError(w, err)
	require.NoError(w, d.Ack(w.Context()))
	return d.Body.ID
}

var errDown = errors.New("the bank is down")

// downFor returns a bank that is down for d from the first call on.
func downFor(d time.Duration) func(context.Context, order) error {
	first := sync.OnceValue(time.Now)
	return func(context.Context, order) error {
		if time.Since(first()) < d {
			return errDown
		}
		return nil
	}
}

func TestAnOrderIsChargedAndGetsAReceipt(t *testing.T) {
	inWorld(t, downFor(0), func(w world) {
		require.NoError(w, w.orders.Publish(w.Context(), order{"o-17", 4_999}))
		require.Equal(w, "o-17", w.receipt())
		require.Equal(w, []time.Duration{0}, w.bank.called())
	})
}

func TestABankThatIsDownForAnHourIsAskedAgain(t *testing.T) {
	inWorld(t, downFor(time.Hour), func(w world) {
		require.NoError(w, w.orders.Publish(w.Context(), order{"o-17", 4_999}))
		require.Equal(w, "o-17", w.receipt())
		require.Len(w, w.bank.called(), 19)
		require.Equal(w, []time.Duration{0, 100 * time.Millisecond, 300 * time.Millisecond, 700 * time.Millisecond}, w.bank.called()[:4])
		require.Equal(w, time.Hour+3*time.Minute+39*time.Second+100*time.Millisecond, w.bank.called()[18])
	})
}

func TestAfterADayADeadOrderIsRedriven(t *testing.T) {
	inWorld(t, downFor(24*time.Hour), func(w world) {
		ctx := w.Context()
		require.NoError(w, w.orders.Publish(ctx, order{"o-17", 4_999}))
		time.Sleep(24 * time.Hour)
		synctest.Wait() // until everything is settled that is due by now

		letters, err := w.billing.DeadLetters().Peek(ctx, fanout.Unlimited)
		require.NoError(w, err)
		require.Len(w, letters, 1)
		require.Len(w, letters[0].History(), 20)
		require.ErrorIs(w, letters[0].History()[19].Err, errDown)

		moved, err := w.billing.Redrive(ctx)
		require.NoError(w, err)
		require.Equal(w, 1, moved)
		require.Equal(w, "o-17", w.receipt())
	})
}

func TestADeclinedCardIsFinal(t *testing.T) {
	declined := func(context.Context, order) error { return errDeclined }
	inWorld(t, declined, func(w world) {
		require.NoError(w, w.orders.Publish(w.Context(), order{"o-17", 4_999}))
		synctest.Wait()
		require.Equal(w, []time.Duration{0}, w.bank.called())
		require.Equal(w, 1, w.billing.Stats().Dead)
		require.Zero(w, w.mails.Stats().Published)
	})
}

func TestABankThatHangsIsGivenUpAfterTenSeconds(t *testing.T) {
	hangs := func(ctx context.Context, _ order) error {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	inWorld(t, hangs, func(w world) {
		require.NoError(w, w.orders.Publish(w.Context(), order{"o-17", 4_999}))
		time.Sleep(11 * time.Second)
		require.Equal(w, []time.Duration{0, 10*time.Second + 100*time.Millisecond}, w.bank.called())
	})
}

func TestAReceiptThatFindsNoRoomComesLater(t *testing.T) {
	inWorld(t, downFor(0), func(w world) {
		require.NoError(w, w.orders.Publish(w.Context(), order{"o-17", 4_999}))
		synctest.Wait()
		require.NoError(w, w.orders.Publish(w.Context(), order{"o-18", 4_999}))
		time.Sleep(150 * time.Millisecond) // the second one has failed twice
		require.Equal(w, "o-17", w.receipt())
		require.Equal(w, "o-18", w.receipt())
		require.Equal(w, []time.Duration{0, 0, 100 * time.Millisecond, 300 * time.Millisecond}, w.bank.called())
	}, fanout.WithCapacity(1), fanout.WithOverflow(fanout.Reject))
}

func TestTheProgramShowsARetryAndADeadLetter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		require.NoError(t, run(t.Context(), &out))
		require.Equal(t, `o-17: the bank is down
o-17: charged
receipt for o-17
o-18: declined
dead: 1
`, out.String())
	})
}
