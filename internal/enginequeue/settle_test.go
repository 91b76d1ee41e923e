package enginequeue

import (
	"context"
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
	"github.com/gofanout/fanout/internal/onengine"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/settings"
	"github.com/gofanout/fanout/internal/view"
)

// What ends here is told to the engine: in which call, and when the message comes again.
func TestASettlementReachesTheEngine(t *testing.T) {
	for name, row := range map[string]struct {
		settle  func(ctx context.Context, d delivery.Delivery[string]) error
		op      fakeengine.Op
		again   time.Duration // 0: never
		attempt int           // of the next delivery
		count   func(s view.Stats) uint64
	}{
		"Ack":       {func(ctx context.Context, d delivery.Delivery[string]) error { return d.Ack(ctx) }, fakeengine.Ack, 0, 0, func(s view.Stats) uint64 { return s.Acked }},
		"Nack":      {func(ctx context.Context, d delivery.Delivery[string]) error { return d.Nack(ctx) }, fakeengine.Return, time.Second, 2, func(s view.Stats) uint64 { return s.Nacked }},
		"NackAfter": {func(ctx context.Context, d delivery.Delivery[string]) error { return d.NackAfter(ctx, time.Minute) }, fakeengine.Return, time.Minute, 2, func(s view.Stats) uint64 { return s.Nacked }},
		"Release":   {func(ctx context.Context, d delivery.Delivery[string]) error { return d.Release(ctx) }, fakeengine.Return, 1, 1, func(s view.Stats) uint64 { return s.ReleasedCount }},
		"an error":  {func(ctx context.Context, d delivery.Delivery[string]) error { return d.Settle(ctx, errBroken) }, fakeengine.Return, time.Second, 2, func(s view.Stats) uint64 { return s.Failed }},
		"Snooze": {func(ctx context.Context, d delivery.Delivery[string]) error {
			return d.Settle(ctx, message.Snooze(time.Hour))
		}, fakeengine.Return, time.Hour, 1, func(s view.Stats) uint64 { return s.Snoozed }},
		"Permanent": {func(ctx context.Context, d delivery.Delivery[string]) error {
			return d.Settle(ctx, message.Permanent(errBroken))
		}, fakeengine.DeadLetter, 0, 0, func(s view.Stats) uint64 { return s.PermanentlyFailed }},
		"the batch's": {func(_ context.Context, d delivery.Delivery[string]) error {
			for _, err := range delivery.AckAll(context.Background(), d.Q, []delivery.Delivery[string]{d}) {
				return err
			}
			return nil
		}, fakeengine.Ack, 0, 0, func(s view.Stats) uint64 { return s.Acked }},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				var told []notice.Event
				e := fakeengine.New(fakeengine.Config{})
				h := newHost(t, e, hooked(notice.Settled, func(e notice.Event) { told = append(told, e) }))
				q := h.open(t)
				h.publish(t, "a")
				d := receive(t, q)
				time.Sleep(time.Second)
				require.NoError(t, row.settle(ctx, d))
				require.Equal(t, 1, e.Calls(row.op))
				require.EqualValues(t, 1, row.count(view.StatsOf(q)))
				require.Zero(t, view.StatsOf(q).InFlight)
				require.Len(t, told, 1)
				require.Equal(t, time.Second, told[0].Elapsed)
				require.Equal(t, 1, told[0].Attempt)
				require.ErrorIs(t, row.settle(ctx, d), message.ErrSettled)
				require.Equal(t, 1, e.Calls(row.op))
				if row.again == 0 {
					messages, letters := h.kept(t)
					require.Zero(t, messages.Sum())
					require.Equal(t, name == "Permanent", letters.Ready == 1)
				} else {
					began := time.Now()
					d = receive(t, q)
					require.InDelta(t, row.again, time.Since(began), 1)
					require.Equal(t, row.attempt, d.Attempt())
					require.Len(t, d.History(), 1)
				}
				h.end(t)
			})
		})
	}
}

// If the engine does not take a settlement the delivery is as it was.
func TestASettlementThatTheEngineDidNotTakeLeavesTheDeliveryAsItWas(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		y := newDiary()
		e := fakeengine.New(fakeengine.Config{})
		h := newHost(t, e, failures(y))
		q := h.open(t)
		h.publish(t, "a")
		d := receive(t, q)
		deadline := d.Deadline()
		for op, settle := range map[fakeengine.Op]func() error{
			fakeengine.Ack:    func() error { return d.Ack(ctx) },
			fakeengine.Return: func() error { return d.Nack(ctx) },
			fakeengine.DeadLetter: func() error {
				e.Inject(fakeengine.Fault{Op: fakeengine.Return, Nth: 1, Err: errBroken})
				return d.Settle(ctx, message.Permanent(errBroken))
			},
			fakeengine.Extend: func() error { return d.Extend(ctx, time.Hour) },
		} {
			e.Inject(fakeengine.Fault{Op: op, Nth: 1, Err: errBroken})
			err := settle()
			require.ErrorIs(t, err, errBroken, op)
			require.ErrorContains(t, err, `queue "q": `, op)
			require.Equal(t, deadline, d.Deadline(), op)
			require.Equal(t, 1, view.StatsOf(q).InFlight)
		}
		e.Heal()
		require.NoError(t, d.Ack(ctx))
		s := view.StatsOf(q)
		require.Equal(t, []uint64{1, 0, 0}, []uint64{s.Acked, s.Nacked, s.DeadLettered}, "only what was done is counted")
		require.Empty(t, y.read(), "whoever settles is told by his own error")
		h.end(t)
	})
	// It times out at its deadline, as if nobody had tried, also if the engine answers later.
	for name, fault := range map[string]fakeengine.Fault{
		"before": {Op: fakeengine.Ack, Nth: 1, Err: errBroken}, "after": {Op: fakeengine.Ack, Nth: 1, Err: errBroken, Latency: time.Minute},
	} {
		t.Run(name+" its deadline", func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				e := fakeengine.New(fakeengine.Config{})
				h := newHost(t, e)
				q := h.open(t)
				h.publish(t, "a")
				d := receive(t, q)
				e.Inject(fault)
				long, cancel := context.WithTimeout(ctx, time.Hour)
				defer cancel()
				require.ErrorIs(t, d.Ack(long), errBroken)
				elapse(time.Minute)
				require.EqualValues(t, 1, view.StatsOf(q).TimedOut)
				require.ErrorIs(t, d.Ack(ctx), message.ErrStale)
				require.Equal(t, 2, receive(t, q).Attempt())
				h.end(t)
			})
		})
	}
}

// An engine that does not answer holds a settlement up for ten seconds, or as long as the
// caller wants.
func TestASettlementDoesNotWaitForEver(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		e := fakeengine.New(fakeengine.Config{})
		h := newHost(t, e)
		q := h.open(t, visible(time.Hour))
		h.publish(t, "a")
		d := receive(t, q)
		e.Inject(fakeengine.Fault{Op: fakeengine.Ack, Latency: time.Hour})
		began := time.Now()
		require.ErrorIs(t, d.Ack(ctx), context.DeadlineExceeded)
		require.Equal(t, onengine.SettleTime, time.Since(began))
		soon, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		require.ErrorIs(t, d.Ack(soon), context.DeadlineExceeded)
		require.Equal(t, onengine.SettleTime+time.Second, time.Since(began))
		e.Heal()
		require.NoError(t, d.Ack(ctx))
		h.end(t)
	})
}

// A settlement that comes while another is under way waits for how that ends.
func TestASecondSettlementWaitsForTheFirst(t *testing.T) {
	for name, fails := range map[string]error{"works": nil, "fails": errBroken} {
		t.Run("which "+name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				e := fakeengine.New(fakeengine.Config{})
				h := newHost(t, e)
				q := h.open(t)
				h.publish(t, "a")
				d := receive(t, q)
				e.Inject(fakeengine.Fault{Op: fakeengine.Ack, Nth: 1, Latency: time.Second, Err: fails})
				first := make(chan error, 1)
				go func() { first <- d.Ack(context.Background()) }()
				synctest.Wait()
				soon, cancel := context.WithTimeout(ctx, time.Millisecond)
				defer cancel()
				err := d.Nack(soon)
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.ErrorContains(t, err, "another settlement of the delivery has not ended")
				began := time.Now()
				err = d.Extend(ctx, time.Minute)
				require.Equal(t, time.Second-time.Millisecond, time.Since(began))
				require.ErrorIs(t, <-first, fails)
				if fails == nil {
					require.ErrorIs(t, err, message.ErrSettled)
				} else {
					require.NoError(t, err)
					require.NoError(t, d.Ack(ctx))
				}
				h.end(t)
			})
		})
	}
}

// A delivery whose message the engine has taken away, or that was purged or closed under its
// settlement, is stale.
func TestASettlementOfWhatIsGoneIsStale(t *testing.T) {
	for name, gone := range map[string]func(t *testing.T, ctx context.Context, q *queue.Queue[string]) error{
		"purged": func(_ *testing.T, ctx context.Context, q *queue.Queue[string]) error {
			_, err := lifecycle.Purge(ctx, q)
			return err
		},
		"closed": func(_ *testing.T, _ context.Context, q *queue.Queue[string]) error { return lifecycle.Close(q) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				e := fakeengine.New(fakeengine.Config{})
				h := newHost(t, e)
				q := h.open(t)
				h.publish(t, "a")
				d := receive(t, q)
				e.Inject(fakeengine.Fault{Op: fakeengine.Ack, Nth: 1, Latency: time.Second})
				first, second := make(chan error, 1), make(chan error, 1)
				go func() { first <- d.Ack(context.Background()) }()
				synctest.Wait()
				go func() { second <- d.Ack(context.Background()) }()
				synctest.Wait()
				require.NoError(t, gone(t, ctx, q))
				require.Error(t, <-first)
				err := <-second
				if name == "closed" {
					require.ErrorIs(t, err, message.ErrClosed)
				} else {
					require.ErrorIs(t, err, message.ErrStale)
					require.ErrorIs(t, d.Ack(ctx), message.ErrStale, "and stays so")
				}
				require.Zero(t, view.StatsOf(q).Acked)
				h.end(t)
			})
		})
	}
	bubble(t, func(t *testing.T, ctx context.Context) {
		e := fakeengine.New(fakeengine.Config{})
		h := newHost(t, e)
		q := h.open(t)
		h.publish(t, "a")
		d := receive(t, q)
		other := newHost(t, e.Sibling())
		_, err := lifecycle.Purge(ctx, other.open(t))
		require.NoError(t, err)
		require.ErrorIs(t, d.Ack(ctx), message.ErrStale)
		require.ErrorIs(t, d.Ack(ctx), message.ErrStale)
		require.Zero(t, view.StatsOf(q).InFlight)
		other.end(t)
		h.end(t)
	})
}

func TestAnExtensionMovesTheDeadlineHereAndInTheEngine(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		e := fakeengine.New(fakeengine.Config{Most: map[engine.Feature]time.Duration{engine.Visibility: time.Hour}})
		h := newHost(t, e)
		q := h.open(t)
		h.publish(t, "a")
		began := time.Now()
		d := receive(t, q)
		require.NoError(t, d.Extend(ctx, time.Second))
		require.Zero(t, e.Calls(fakeengine.Extend), "it has longer")
		require.Equal(t, began.Add(30*time.Second), d.Deadline())
		time.Sleep(29 * time.Second)
		require.NoError(t, d.Extend(ctx, time.Minute))
		require.Equal(t, time.Now().Add(time.Minute), d.Deadline())
		err := d.Extend(ctx, 2*time.Hour)
		require.ErrorIs(t, err, message.ErrUnsupported)
		require.ErrorContains(t, err, "Extend(2h0m0s)")
		elapse(time.Minute - 1)
		require.Equal(t, 1, view.StatsOf(q).InFlight)
		messages, _ := h.kept(t)
		require.Equal(t, engine.Stats{InFlight: 1}, messages)
		elapse(1)
		require.Zero(t, view.StatsOf(q).InFlight)
		require.ErrorIs(t, d.Extend(ctx, time.Minute), message.ErrStale)
		h.end(t)
	})
	bubble(t, func(t *testing.T, ctx context.Context) { // the answer comes too late
		e := fakeengine.New(fakeengine.Config{})
		h := newHost(t, e)
		q := h.open(t)
		h.publish(t, "a")
		d := receive(t, q)
		e.Inject(fakeengine.Fault{Op: fakeengine.Extend, Nth: 1, Late: time.Minute})
		require.ErrorIs(t, d.Extend(ctx, time.Hour), message.ErrStale)
		h.end(t)
	})
}

// What times out has nobody who could be told that the engine has failed, but hooks.
func TestAFailureInTheBackgroundIsTold(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		failed := newDiary()
		e := fakeengine.New(fakeengine.Config{})
		h := newHost(t, e, failures(failed))
		q := h.open(t)
		h.publish(t, "a")
		receive(t, q)
		e.Inject(fakeengine.Fault{Op: fakeengine.Return, Nth: 1, Latency: time.Hour})
		elapse(30 * time.Second)
		began := time.Now()
		leave(h, q)
		require.Zero(t, time.Since(began), "it does not wait for the engine")
		h.Release()
		<-h.Live.Awaitable()
		require.Equal(t, onengine.SettleTime, time.Since(began), "but whoever waits for the end does")
		require.Equal(t, []string{"40s: settle: context deadline exceeded"}, failed.read())
		q.Keeper.LetGo()
		h.on.Close()
	})
}

// Whose time to live has passed is dead once its attempt has failed, and not when it is only
// given back.
func TestWhatHasExpiredMeanwhileDiesOfItsFailure(t *testing.T) {
	for name, row := range map[string]struct {
		result  error
		died    int
		expired uint64
		history []message.Cause
	}{
		"failed":             {errBroken, 1, 1, []message.Cause{message.Failed, message.Expired}},
		"failed permanently": {message.Permanent(errBroken), 1, 0, []message.Cause{message.PermanentlyFailed}},
		"released":           {nil, 0, 0, []message.Cause{message.Released, message.Expired}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				e := fakeengine.New(fakeengine.Config{})
				h := newHost(t, e)
				q := h.open(t, visible(time.Hour), func(s *settings.Queue) { s.TTL = time.Minute })
				h.publish(t, "a")
				d := receive(t, q)
				drained := lifecycle.AwaitDrained(q)
				elapse(time.Minute)
				if row.result == nil {
					require.NoError(t, d.Release(ctx))
				} else {
					require.NoError(t, d.Settle(ctx, row.result))
				}
				requireClosed(t, drained)
				require.Equal(t, row.died, e.Calls(fakeengine.DeadLetter))
				require.Equal(t, row.expired, view.StatsOf(q).Expired)
				requireNone(t, q)
				var causes []message.Cause
				for _, a := range receive(t, q.DeadLetters()).History() {
					causes = append(causes, a.Cause)
				}
				require.Equal(t, row.history, causes)
				require.EqualValues(t, 1, view.StatsOf(q).DeadLettered)
				h.end(t)
			})
		})
	}
}

func requireClosed(t *testing.T, ch <-chan struct{}) {
	t.Helper()
	require.NotNil(t, ch)
	select {
	case <-ch:
	default:
		t.Fatal("it is not drained")
	}
}

// A time-out is told to the engine by nobody's hand: hooks hear how long the attempt took, and
// a drain waits until the engine has been told.
func TestATimeOutIsToldToTheEngine(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var told []notice.Event
		e := fakeengine.New(fakeengine.Config{})
		h := newHost(t, e, hooked(notice.Settled, func(e notice.Event) { told = append(told, e) }))
		q := h.open(t)
		h.publish(t, "a")
		time.Sleep(time.Second)
		receive(t, q)
		drained := lifecycle.AwaitDrained(q)
		e.Inject(fakeengine.Fault{Op: fakeengine.Return, Nth: 1, Latency: time.Second})
		began := time.Now()
		<-drained
		require.Equal(t, 31*time.Second, time.Since(began))
		synctest.Wait()
		require.Len(t, told, 1)
		require.Equal(t, []any{message.TimedOut, 30 * time.Second, 1}, []any{told[0].Cause, told[0].Elapsed, told[0].Attempt})
		h.end(t)
	})
}

// A delivery whose settlement failed times out when it would have, though the timer has come
// meanwhile and found nothing to wait for; and once it is settled it is settled, and not stale.
func TestAFailedSettlementIsAsIfNobodyHadTried(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		e := fakeengine.New(fakeengine.Config{})
		h := newHost(t, e)
		q := h.open(t)
		h.publish(t, "a", "b")
		began := time.Now()
		_, err := delivery.TakeBatch(ctx, q, 1, 10*time.Second)
		require.NoError(t, err)
		d := receive(t, q)
		e.Inject(fakeengine.Fault{Op: fakeengine.Ack, Nth: 1, Latency: 15 * time.Second, Err: errBroken})
		long, cancel := context.WithTimeout(ctx, time.Hour)
		defer cancel()
		require.ErrorIs(t, d.Ack(long), errBroken)
		require.Equal(t, 15*time.Second, time.Since(began))
		elapse(15*time.Second - 1)
		require.EqualValues(t, 1, view.StatsOf(q).TimedOut)
		elapse(1)
		require.EqualValues(t, 2, view.StatsOf(q).TimedOut)

		d = receive(t, q)
		e.Inject(fakeengine.Fault{Op: fakeengine.Ack, Nth: 1, Err: errBroken})
		require.ErrorIs(t, d.Ack(ctx), errBroken)
		require.NoError(t, d.Ack(ctx))
		require.ErrorIs(t, d.Ack(ctx), message.ErrSettled)
		h.end(t)
	})
}

// What the engine has taken is settled, though the message is gone when the answer comes.
func TestWhatTheEngineHasTakenIsSettled(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		e := fakeengine.New(fakeengine.Config{})
		h := newHost(t, e)
		q := h.open(t)
		h.publish(t, "a")
		d := receive(t, q)
		e.Inject(fakeengine.Fault{Op: fakeengine.Ack, Nth: 1, Late: time.Second})
		first := make(chan error, 1)
		go func() { first <- d.Ack(context.Background()) }()
		synctest.Wait()
		_, err := lifecycle.Purge(ctx, q)
		require.NoError(t, err)
		require.NoError(t, <-first)
		require.ErrorIs(t, d.Ack(ctx), message.ErrSettled)
		h.end(t)
	})
}

// A dead message whose lease is somebody else's is stale as others, and is no letter.
func TestADeadMessageThatIsGoneIsStale(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		e := fakeengine.New(fakeengine.Config{})
		h := newHost(t, e)
		q := h.open(t)
		h.publish(t, "a")
		d := receive(t, q)
		e.Inject(fakeengine.Fault{Op: fakeengine.DeadLetter, Nth: 1, Err: engine.ErrStale})
		require.ErrorIs(t, d.Settle(ctx, message.Permanent(errBroken)), message.ErrStale)
		require.Zero(t, e.Calls(fakeengine.Return))
		s := view.StatsOf(q)
		require.Equal(t, []uint64{0, 0, 0}, []uint64{s.DeadLettered, s.TimesParked, s.PermanentlyFailed})
		h.end(t)
	})
}

// A settlement that comes when its time has passed is late, though the timer has not come yet.
func TestASettlementAfterItsDeadlineIsStale(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		e := fakeengine.New(fakeengine.Config{})
		h := newHost(t, e)
		q := h.open(t)
		h.publish(t, "a")
		time.Sleep(time.Second)
		d := receive(t, q)
		q.Locked(func() {
			m := q.Store.Win.Meta(d.Ref.Block)
			q.Store.Win.Unschedule(d.Ref.Block)
			q.Store.Win.Schedule(d.Ref.Block, q.Core.Now()-1)
			require.Equal(t, q.Core.Now()-1, m.Deadline)
		})
		require.ErrorIs(t, d.Ack(ctx), message.ErrStale)
		require.Zero(t, e.Calls(fakeengine.Ack))
		h.end(t)
	})
}

// Whether it is the engine that failed: not if a worker came too late.
func TestWhoFailedAtAWorkersSettlement(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		y := newDiary()
		h := newHost(t, fakeengine.New(fakeengine.Config{}), failures(y))
		q := h.open(t)
		require.False(t, q.Keeper.Failed(message.ErrStale))
		require.False(t, q.Keeper.Failed(message.ErrSettled))
		require.Empty(t, y.read())
		require.True(t, q.Keeper.Failed(errBroken))
		require.Equal(t, []string{"0s: settle: broken"}, y.read())
		h.end(t)
	})
}

// An extension moves one deadline, and no other.
func TestAnExtensionMovesOneDeadline(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHost(t, fakeengine.New(fakeengine.Config{}))
		q := h.open(t)
		h.publish(t, "a", "b", "c")
		ds, err := delivery.TakeBatch(ctx, q, 3, q.Visibility())
		require.NoError(t, err)
		require.NoError(t, ds[0].Extend(ctx, time.Minute))
		for at, timedOut := range []uint64{0, 0, 2, 3} { // by every 20 seconds
			require.Equal(t, timedOut, view.StatsOf(q).TimedOut, at)
			elapse(20 * time.Second)
		}
		h.end(t)
	})
}
