package enginequeue

import (
	"context"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/internal/deadletter"
	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/fakeengine"
	"github.com/gofanout/fanout/internal/lifecycle"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/onengine"
	"github.com/gofanout/fanout/internal/settings"
	"github.com/gofanout/fanout/internal/view"
)

func TestAReceiverWaitsForAMessage(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHost(t, fakeengine.New(fakeengine.Config{}))
		q := h.open(t)
		time.AfterFunc(time.Minute, func() { h.publish(t, "a", "b", "c") })
		began := time.Now()
		d := receive(t, q)
		require.Equal(t, time.Minute, time.Since(began))
		require.Equal(t, []any{"a", 1}, []any{d.Body, d.Attempt()})
		require.Equal(t, time.Now().Add(30*time.Second), d.Deadline())
		synctest.Wait() // for the others
		ds, err := delivery.TakeBatch(ctx, q, 10, time.Minute)
		require.NoError(t, err)
		require.Equal(t, []string{"b", "c"}, bodies(ds))
		require.Equal(t, time.Now().Add(time.Minute), ds[0].Deadline(), "its own visibility timeout")
		s := view.StatsOf(q)
		require.Equal(t, []int{3, 3, engine.Unknown}, []int{s.InFlight, int(s.Delivered), s.Ready})
		h.end(t)
	})
}

// The engine's lease is two seconds longer than the visibility timeout, so nobody else gets the
// message while that runs here.
func TestNobodyElseGetsAMessageWhileItsVisibilityTimeoutRuns(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		e := fakeengine.New(fakeengine.Config{})
		h := newHost(t, e)
		q := h.open(t)
		h.publish(t, "a")
		began := time.Now()
		receive(t, q)
		e.Crash() // nothing is told of its end
		other := newHost(t, e.Sibling())
		again := receive(t, other.open(t))
		require.Equal(t, 30*time.Second+leaseSlack, time.Since(began))
		require.Equal(t, 2, again.Attempt(), "a lease that ended without a word counts")
		require.Equal(t, message.TimedOut, again.History()[0].Cause)
		require.ErrorContains(t, again.History()[0].Err, "without a word")
		other.end(t)
		h.end(t)
	})
	bubble(t, func(t *testing.T, ctx context.Context) { // and here it comes again at once
		h := newHost(t, fakeengine.New(fakeengine.Config{}))
		q := h.open(t)
		h.publish(t, "a")
		began := time.Now()
		d := receive(t, q)
		require.Equal(t, 2, receive(t, q).Attempt())
		require.Equal(t, 30*time.Second, time.Since(began))
		require.ErrorIs(t, d.Ack(ctx), message.ErrStale)
		require.EqualValues(t, 1, view.StatsOf(q).TimedOut)
		h.end(t)
	})
}

func TestAReceiveEndsWithItsContextItsQueueOrItsEngine(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		e := fakeengine.New(fakeengine.Config{})
		h := newHost(t, e)
		q := h.open(t)
		soon, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		began := time.Now()
		_, err := delivery.TakeBatch(soon, q, 1, q.Visibility())
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, `fanout: receive from "q": `)
		require.Equal(t, time.Second, time.Since(began))
		_, err = delivery.TakeBatch(soon, q, 1, q.Visibility())
		require.ErrorIs(t, err, context.DeadlineExceeded, "it had ended before")

		e.Inject(fakeengine.Fault{Op: fakeengine.Receive, Nth: 1, Err: errBroken})
		_, err = delivery.TakeBatch(ctx, q, 1, q.Visibility())
		require.ErrorIs(t, err, errBroken)
		var d delivery.Delivery[string]
		e.Inject(fakeengine.Fault{Op: fakeengine.Receive, Nth: 1, Err: errBroken})
		ok, err := delivery.TryTake(ctx, q, &d, q.Visibility())
		require.ErrorIs(t, err, errBroken)
		require.False(t, ok)

		time.AfterFunc(time.Minute, func() { lifecycle.Close(q) })
		_, err = delivery.TakeBatch(ctx, q, 1, q.Visibility())
		require.ErrorIs(t, err, message.ErrClosed)
		_, err = delivery.TakeBatch(ctx, q, 1, q.Visibility())
		require.ErrorIs(t, err, message.ErrClosed)
		h.end(t)
	})
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHost(t, fakeengine.New(fakeengine.Config{Most: map[engine.Feature]time.Duration{engine.Visibility: time.Minute}}))
		q := h.open(t)
		_, err := delivery.TakeBatch(ctx, q, 1, time.Hour)
		require.ErrorIs(t, err, message.ErrUnsupported)
		require.ErrorContains(t, err, "WithVisibilityTimeout(1h0m0s)")
		h.end(t)
	})
}

// Whoever doesn't want to wait asks the engine for a second, and a paused queue not at all.
func TestATryAsksTheEngineForASecond(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		e := fakeengine.New(fakeengine.Config{})
		h := newHost(t, e)
		q := h.open(t)
		began := time.Now()
		requireNone(t, q)
		require.Equal(t, onengine.ProbeTime, time.Since(began))
		soon, cancel := context.WithTimeout(ctx, time.Millisecond)
		defer cancel()
		var d delivery.Delivery[string]
		_, err := delivery.TryTake(soon, q, &d, q.Visibility())
		require.ErrorIs(t, err, context.DeadlineExceeded)
		h.publish(t, "a")
		calls := e.Calls(fakeengine.Receive)
		require.NoError(t, lifecycle.Pause(ctx, q))
		began = time.Now()
		requireNone(t, q)
		require.Zero(t, time.Since(began))
		require.Equal(t, calls, e.Calls(fakeengine.Receive))
		require.NoError(t, lifecycle.Resume(ctx, q))
		ok, err := delivery.TryTake(ctx, q, &d, q.Visibility())
		require.NoError(t, err)
		require.True(t, ok)
		require.Equal(t, "a", d.Body)
		h.end(t)
	})
}

func TestAReceiverOfAPausedQueueWaitsUntilItIsResumed(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		e := fakeengine.New(fakeengine.Config{})
		h := newHost(t, e)
		q := h.open(t)
		h.publish(t, "a")
		require.NoError(t, lifecycle.Pause(ctx, q))
		soon, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		_, err := delivery.TakeBatch(soon, q, 1, q.Visibility())
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Zero(t, e.Calls(fakeengine.Receive), "the engine is not asked")
		time.AfterFunc(time.Minute, func() { lifecycle.Resume(ctx, q) })
		began := time.Now()
		require.Equal(t, "a", receive(t, q).Body)
		require.Equal(t, time.Minute, time.Since(began))
		require.NoError(t, lifecycle.Pause(ctx, q))
		time.AfterFunc(time.Minute, func() { lifecycle.Close(q) })
		_, err = delivery.TakeBatch(ctx, q, 1, q.Visibility())
		require.ErrorIs(t, err, message.ErrClosed)
		h.end(t)
	})
}

// What a filter refuses is acknowledged; what can't be decoded is a dead letter, and its bytes
// are there; what panics, or ends the goroutine, is a failed attempt.
func TestWhatArrivesIsDecodedAndFiltered(t *testing.T) {
	for name, row := range map[string]struct {
		body    string
		acked   int
		letters int
		again   bool
		err     string
		count   func(s view.Stats) uint64
	}{
		"unwanted":           {"unwanted", 1, 0, false, "", func(s view.Stats) uint64 { return 1 - s.Delivered }},
		"not decodable":      {"not decodable", 0, 1, false, "", func(s view.Stats) uint64 { return s.PermanentlyFailed }},
		"a codec panics":     {"decoding panics", 0, 0, true, `^codec of queue "q": .*boom`, func(s view.Stats) uint64 { return s.Panicked }},
		"a filter panics":    {"the filter panics", 0, 0, true, `^filter of queue "q": .*boom`, func(s view.Stats) uint64 { return s.Panicked }},
		"a filter calls end": {"the filter exits", 0, 0, true, `^filter of queue "q": called runtime.Goexit$`, func(s view.Stats) uint64 { return s.Exited }},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				var told []notice.Event
				note := func(e notice.Event) { told = append(told, e) }
				h := newHost(t, fakeengine.New(fakeengine.Config{}), broken, hooked(notice.Panicked, note), hooked(notice.Exited, note))
				q := h.open(t, attempts(3), func(s *settings.Queue) {
					s.Backoff = settings.BackoffFunc(func(n int) time.Duration { return time.Duration(n) * time.Minute })
				}, wanted(func(body string) bool {
					switch body {
					case "the filter panics":
						panic("boom")
					case "the filter exits":
						runtime.Goexit()
					}
					return body != "unwanted"
				}))
				h.publish(t, row.body, "fine")
				ds, err := delivery.TakeBatch(ctx, q, 2, q.Visibility())
				require.NoError(t, err)
				require.Equal(t, []string{"fine"}, bodies(ds))
				require.NoError(t, ds[0].Ack(ctx))
				s := view.StatsOf(q)
				if name == "unwanted" {
					require.EqualValues(t, 1, s.Delivered)
				} else {
					require.EqualValues(t, 1, row.count(s))
				}
				messages, letters := h.kept(t)
				require.Equal(t, row.letters, letters.Ready)
				if row.again {
					require.Equal(t, engine.Stats{InFlight: 1}, messages)
					elapse(time.Minute)
					messages, _ = h.kept(t)
					require.Equal(t, engine.Stats{Ready: 1}, messages, "after the backoff")
					requireNone(t, q)
					require.EqualValues(t, 2, row.count(view.StatsOf(q)))
					elapse(2*time.Minute - onengine.ProbeTime)
					requireNone(t, q)
					history := receive(t, q.DeadLetters()).History()
					require.Len(t, history, 3)
					require.Len(t, told, 3)
					for k, a := range history {
						require.Regexp(t, row.err, a.Err.Error())
						require.Equal(t, a.Err.Error(), told[k].Err.Error())
						require.Equal(t, []any{a.Stack, k + 1}, []any{told[k].Stack, told[k].Attempt})
						require.Equal(t, a.Cause == message.Panicked, a.Stack != "")
					}
				} else {
					require.Zero(t, messages.Sum())
				}
				if row.letters > 0 {
					l := receive(t, q.DeadLetters())
					require.Empty(t, l.Body)
					require.Equal(t, `"not decodable"`, string(l.Encoded()))
					require.ErrorContains(t, l.History()[0].Err, "decode: broken")
				}
				require.Zero(t, view.StatsOf(q).InFlight)
				h.end(t)
			})
		})
	}
}

// What has expired on its way is dead, and so is what has no attempt left.
func TestWhatIsTooLateOrSpentOnArrivalIsDead(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHost(t, fakeengine.New(fakeengine.Config{}))
		q := h.open(t, func(s *settings.Queue) { s.TTL = time.Minute })
		h.publish(t, "old")
		elapse(time.Minute)
		requireNone(t, q)
		_, letters := h.kept(t)
		require.Equal(t, 1, letters.Ready)
		require.EqualValues(t, 1, view.StatsOf(q).Expired)
		require.EqualValues(t, 1, view.StatsOf(q).DeadLettered)
		h.end(t)
	})
	bubble(t, func(t *testing.T, ctx context.Context) { // each process dies of it
		e := fakeengine.New(fakeengine.Config{})
		h := newHost(t, e)
		h.open(t)
		h.publish(t, "poison")
		for n := 1; n <= 5; n++ {
			p := newHost(t, e.Sibling())
			d := receive(t, p.open(t))
			require.Equal(t, n, d.Attempt())
			p.e.Crash()
			p.end(t)
			elapse(time.Minute)
		}
		p := newHost(t, e.Sibling())
		q := p.open(t)
		requireNone(t, q)
		letter := receive(t, q.DeadLetters())
		require.Len(t, letter.History(), 5)
		p.end(t)
		h.end(t)
	})
}

// An engine that keeps no state is helped out: this process remembers.
func TestWhatTheEngineDoesNotKeepIsRemembered(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHost(t, fakeengine.New(fakeengine.Config{Without: []engine.Feature{engine.State}}))
		q := h.open(t)
		h.publish(t, "a")
		require.NoError(t, receive(t, q).Settle(ctx, errBroken))
		d := receive(t, q)
		require.Equal(t, 2, d.Attempt())
		require.ErrorContains(t, d.History()[0].Err, "broken")
		h.end(t)
	})
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHost(t, fakeengine.New(fakeengine.Config{Without: []engine.Feature{engine.Visibility}}))
		q := h.open(t)
		h.publish(t, "a")
		began := time.Now()
		receive(t, q)
		require.Equal(t, 2, receive(t, q).Attempt(), "the engine's own lease, of half a minute")
		require.GreaterOrEqual(t, time.Since(began), 30*time.Second)
		h.end(t)
	})
}

// What comes to a queue that is closed meanwhile goes back as if it had not been taken.
func TestWhatComesAfterTheCloseGoesBack(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		e := fakeengine.New(fakeengine.Config{})
		h := newHost(t, e)
		q := h.open(t)
		h.publish(t, "a")
		e.Inject(fakeengine.Fault{Op: fakeengine.Receive, Nth: 1, Late: time.Second})
		got := make(chan error, 1)
		go func() { _, err := delivery.TakeBatch(context.Background(), q, 1, q.Visibility()); got <- err }()
		synctest.Wait()
		leave(h, q)
		require.ErrorIs(t, <-got, message.ErrClosed)
		synctest.Wait()
		require.Equal(t, 1, e.Calls(fakeengine.Return))
		messages, _ := h.kept(t)
		require.Equal(t, engine.Stats{Ready: 1}, messages)
		q.Keeper.LetGo()
		other := newHost(t, e.Sibling())
		d := receive(t, other.open(t))
		require.Equal(t, 1, d.Attempt(), "it has spent none")
		require.Empty(t, d.History())
		other.end(t)
		h.end(t)
	})
}

// Whether a message has no attempt left when it arrives.
func TestWhatIsDeadOnArrival(t *testing.T) {
	var none *message.History
	after := func(c message.Cause) *message.History {
		return none.With(message.Kept{Attempt: message.Attempt{Cause: c}})
	}
	for name, row := range map[string]struct {
		hist   *message.History
		spent  uint32
		passes uint16
		most   int
		dead   bool
	}{
		"nothing spent":               {none, 0, 0, 5, false},
		"one left":                    {after(message.Failed), 4, message.MostPasses - 1, 5, false},
		"none left":                   {after(message.Failed), 5, 0, 5, true},
		"without a limit":             {after(message.Failed), 1 << 31, 0, message.Unlimited, false},
		"passed on too often":         {after(message.Snoozed), 0, message.MostPasses, message.Unlimited, true},
		"failed permanently":          {after(message.PermanentlyFailed), 1, 0, 5, true},
		"redriven after that":         {after(message.PermanentlyFailed), 0, 0, 5, false},
		"spent, and nobody knows how": {none, 1, 0, 5, false},
	} {
		a := arrival[string]{spent: row.spent, passes: row.passes}
		a.Hist = row.hist
		require.Equal(t, row.dead, a.isDead(row.most), name)
	}
}

// Attempts at a letter are counted from its arrival among the letters, by the engine.
func TestTheAttemptsAtALetterAreTheEngines(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var told []notice.Event
		e := fakeengine.New(fakeengine.Config{})
		h := newHost(t, e, hooked(notice.Delivered, func(e notice.Event) { told = append(told, e) }))
		q := h.buried(t, 1)
		for n := 1; n <= 3; n++ {
			d := receive(t, q.DeadLetters())
			require.Equal(t, n, d.Attempt())
			require.NoError(t, d.Nack(ctx))
		}
		require.Len(t, told, 4, "each delivery is told of")
		require.Equal(t, []any{"q", 1}, []any{told[0].Queue, told[0].Attempt})
		require.Equal(t, []any{"q/dead", 3}, []any{told[3].Queue, told[3].Attempt})
		h.end(t)
	})
}

// The time to live of a message that was redriven begins anew, in each process.
func TestTheTimeToLiveBeginsAnewWithARedrive(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		e := fakeengine.New(fakeengine.Config{})
		h := newHost(t, e)
		lives := func(s *settings.Queue) { s.TTL = time.Minute }
		q := h.buried(t, 1, lives)
		elapse(time.Hour)
		_, err := deadletter.Redrive(ctx, q, new(deadletter.Choice[string]))
		require.NoError(t, err)
		redriven := time.Now()
		require.NoError(t, receive(t, q).Release(ctx))
		h.end(t)
		h = newHost(t, e.Sibling())
		q = h.open(t, lives)
		elapse(time.Minute - 1 - time.Since(redriven))
		require.NoError(t, receive(t, q).Release(ctx))
		elapse(1)
		requireNone(t, q)
		require.EqualValues(t, 1, view.StatsOf(q).Expired)
		h.end(t)
	})
}
