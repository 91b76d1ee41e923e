package engineletters

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/internal/core"
	"github.com/gofanout/fanout/internal/deadletter"
	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/onengine"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/settings"
)

var errBusy = errors.New("busy")

// A shelf is an engine's dead-letter queue that does as it is told: it is slow, or fails.
type shelf struct {
	engine.Queue
	slow   time.Duration // each receive takes so long
	most   int           // letters of one answer
	broken func(op, id string) error
	hangs  bool // at returns

	mu      sync.Mutex
	letters []*shelved
	log     []string // what was done with letters
	asked   []int    // how many were asked for
	waits   []time.Duration
	calls   int // that run
	busiest int // how many ran at once
	stats   func() (engine.Stats, error)
}

// A shelved letter is leased until an instant, to the last who received it.
type shelved struct {
	engine.Received
	until time.Time
	gone  bool
}

func (s *shelf) Receive(ctx context.Context, most int, lease time.Duration) (got []engine.Received, err error) {
	began := time.Now()
	s.mu.Lock()
	s.asked = append(s.asked, most)
	s.mu.Unlock()
	if s.broken != nil {
		if err := s.broken("receive", ""); err != nil {
			return nil, err
		}
	}
	select {
	case <-time.After(s.slow):
	case <-ctx.Done():
	}
	s.mu.Lock()
	for _, l := range s.letters {
		if len(got) < min(most, s.most) && !l.gone && !time.Now().Before(l.until) {
			l.Deliveries++
			l.until = began.Add(lease)
			l.Receipt = fmt.Sprint(l.ID, " ", l.Deliveries)
			got = append(got, l.Received)
		}
	}
	s.mu.Unlock()
	if len(got) == 0 {
		<-ctx.Done()
		s.mu.Lock()
		s.waits = append(s.waits, time.Since(began))
		s.mu.Unlock()
		return nil, ctx.Err()
	}
	return got, nil
}

// by does what is to be done with the letter that has a receipt.
func (s *shelf) by(op string, r engine.Receipt, f func(l *shelved)) error {
	s.mu.Lock()
	s.calls++
	s.busiest = max(s.busiest, s.calls)
	s.mu.Unlock()
	time.Sleep(time.Millisecond)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls--
	for _, l := range s.letters {
		if l.Receipt != r || l.gone || !time.Now().Before(l.until) {
			continue
		}
		if s.broken != nil {
			if err := s.broken(op, l.ID); err != nil {
				return err
			}
		}
		s.log = append(s.log, op+" "+l.ID)
		f(l)
		return nil
	}
	return engine.ErrStale
}

func (s *shelf) Extend(_ context.Context, r engine.Receipt, lease time.Duration) error {
	return s.by("extend", r, func(l *shelved) { l.until = time.Now().Add(lease) })
}

func (s *shelf) Ack(_ context.Context, r engine.Receipt) error {
	return s.by("ack", r, func(l *shelved) { l.gone = true })
}

func (s *shelf) Redrive(_ context.Context, r engine.Receipt, m engine.Message) error {
	return s.by("redrive", r, func(l *shelved) { l.gone, l.State = true, m.State })
}

func (s *shelf) Return(ctx context.Context, r engine.Receipt, _ time.Duration, _ []byte) error {
	if s.hangs {
		<-ctx.Done()
		return ctx.Err()
	}
	return s.by("return", r, func(l *shelved) { l.until = time.Time{} })
}

func (s *shelf) Stats(context.Context) (st engine.Stats, err error) {
	if s.stats != nil {
		return s.stats()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.letters {
		if !l.gone && !time.Now().Before(l.until) {
			st.Ready++
		}
	}
	return st, nil
}

// shelve returns a source of n letters, "000" and so on, which died when it was made, and the queue
// whose they are. Visibility timeouts are ten seconds, and so are leases.
func shelve(t *testing.T, n int) (*shelf, *Source[string], *queue.Queue[string]) {
	t.Helper()
	c, err := core.New("payments", settings.Topic{Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	home := &queue.Home[string]{Core: c}
	set := settings.DefaultQueue()
	set.Visibility = 10 * time.Second
	q := queue.NewQueue(c, home, "q", &set.Limits)
	d := queue.NewDeadLetterQueue(c, home, "q"+queue.DeadSuffix, set.Limits)
	d.Source = q
	s := &shelf{most: 64}
	died := message.Restored([]message.Kept{{Attempt: message.Attempt{Number: 1, Queue: "q", Start: time.Now(), Elapsed: time.Second}}})
	time.Sleep(2 * time.Second)
	for k := range n {
		s.letters = append(s.letters, &shelved{Received: engine.Received{Message: engine.Message{ID: fmt.Sprintf("%03d", k), PublishedAt: time.Now().Add(time.Duration(-k) * time.Minute)}}})
	}
	return s, &Source[string]{
		Q: d, Engine: s, Lease: func(visibility time.Duration) time.Duration { return visibility },
		Decode: func(got []engine.Received) []Letter[string] {
			ls := make([]Letter[string], len(got))
			for k := range got {
				ls[k].Body, ls[k].At, ls[k].Hist = got[k].ID, c.Clock.At(got[k].PublishedAt), died
				ls[k].Ext = &message.Extra{ID: got[k].ID}
			}
			return ls
		},
	}, q
}

func all() *deadletter.Choice[string] { return new(deadletter.Choice[string]) }

// requireReady requires that none of so many letters is hidden.
func requireReady(t *testing.T, s *shelf, n int) {
	t.Helper()
	st, _ := s.Stats(t.Context())
	require.Equal(t, n, st.Ready)
}

// A look is as long as it may be, and asks for no more than it needs.
func TestALookIsInTheOrderOfPublicationAndAsLongAsItMayBe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, src, _ := shelve(t, 100)
		ds, err := src.Peek(t.Context(), 70)
		require.NoError(t, err)
		require.Len(t, ds, 70)
		require.Equal(t, []int{64, 6}, s.asked)
		require.Equal(t, []string{"069", "000"}, []string{ds[0].Body, ds[69].Body})
		require.Equal(t, 1, ds[0].Attempt())
		requireReady(t, s, 100)
	})
}

// However slow the engine is, leases are kept up, and each letter is met once.
func TestLeasesAreKeptUpWhileTheEngineIsSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, src, q := shelve(t, 60)
		s.slow, s.most = 900*time.Millisecond, 1
		asked := map[string]int{}
		n, err := src.Redrive(t.Context(), q, &deadletter.Choice[string]{Keep: []func(*delivery.Delivery[string]) bool{func(d *delivery.Delivery[string]) bool {
			asked[d.Body]++
			return d.Body == "059"
		}}})
		require.NoError(t, err)
		require.Equal(t, 1, n)
		require.Len(t, asked, 60)
		for _, times := range asked {
			require.Equal(t, 1, times)
		}
		for _, l := range s.letters {
			require.Equal(t, 1, l.Deliveries, "its lease did not end")
		}
		requireReady(t, s, 59)
		extended := 0
		for _, what := range s.log {
			if what[:6] == "extend" {
				extended++
			}
		}
		require.Positive(t, extended)
		require.Less(t, extended, 60*12, "each a few times")
	})
}

// An engine that says that there is more is asked for longer each time.
func TestAnEngineIsAskedForLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, src, _ := shelve(t, 0)
		questions := 0
		s.stats = func() (engine.Stats, error) {
			questions++
			return engine.Stats{Ready: max(7-questions, 0)}, nil
		}
		ds, err := src.Peek(t.Context(), 5)
		require.NoError(t, err)
		require.Empty(t, ds)
		p := onengine.ProbeTime
		require.Equal(t, []time.Duration{p, 2 * p, 4 * p, 8 * p, 16 * p, 16 * p, 16 * p}, s.waits)
		s.stats = func() (engine.Stats, error) { return engine.Stats{}, engine.ErrClosed }
		_, err = src.Peek(t.Context(), 5)
		require.ErrorIs(t, err, message.ErrClosed)
	})
}

func TestALookThatFailsSaysWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, src, q := shelve(t, 3)
		s.broken = func(op, _ string) error {
			if op == "receive" {
				return engine.ErrClosed
			}
			return nil
		}
		_, err := src.Peek(t.Context(), 5)
		require.ErrorIs(t, err, message.ErrClosed)
		_, err = src.Redrive(t.Context(), q, all())
		require.ErrorIs(t, err, message.ErrClosed)
		s.broken = nil
		soon, cancel := context.WithTimeoutCause(t.Context(), time.Second/2, errBusy)
		defer cancel()
		s.slow = time.Second
		ds, err := src.Peek(soon, 5)
		require.Len(t, ds, 3, "what came with the end of the context")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, err, errBusy)
	})
}

// An engine whose leases end sooner than letters are received is an error, and no endless
// loop.
func TestAnEngineThatIsTooSlowIsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, src, q := shelve(t, 5)
		src.Lease = func(time.Duration) time.Duration { return 0 } // they can't be kept up
		for _, l := range s.letters {
			l.until = time.Time{}
		}
		_, err := src.Peek(t.Context(), 6)
		require.EqualError(t, err, "letters come again before all are received: the engine is too slow for a visibility timeout of 10s")
		require.Len(t, s.asked, 1+fruitless)
		s.asked = nil
		n, err := src.Redrive(t.Context(), q, all())
		require.Zero(t, n)
		require.ErrorContains(t, err, "letters come again before all are received: the engine is too slow for a visibility timeout of 10s")
	})
}

// What is moved is counted and told, with its history and a time to live that begins anew, so
// many at a time.
func TestWhatIsMovedOrDeletedIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, src, q := shelve(t, 150)
		var told []notice.Event
		var hooks [notice.Kinds]func(*notice.Event)
		hooks[notice.Redriven] = func(e *notice.Event) { told = append(told, *e) }
		hooks[notice.Dropped] = hooks[notice.Redriven]
		defer q.Core.To.Tap(hooks)()
		began := time.Now()
		n, err := src.Redrive(t.Context(), q, &deadletter.Choice[string]{Keep: []func(*delivery.Delivery[string]) bool{func(d *delivery.Delivery[string]) bool { return d.Body < "100" }}})
		require.NoError(t, err)
		require.Equal(t, 100, n)
		require.Len(t, told, 100)
		require.Equal(t, []any{"q", 1}, []any{told[0].Queue, told[0].Count})
		require.Regexp(t, `^0\d\d$`, told[0].MessageID)
		require.NotZero(t, told[0].PublishedAt)
		require.EqualValues(t, 100, q.Store.Totals().Redriven)
		state, hist := onengine.Decode(s.letters[0].State)
		require.False(t, state.Born.Before(began))
		require.Len(t, hist.Kept(), 1)
		require.LessOrEqual(t, s.busiest, atOnce)
		told = nil
		n, err = src.Delete(t.Context(), q, all())
		require.NoError(t, err)
		require.Equal(t, 50, n)
		require.Len(t, told, 50)
		require.Equal(t, []any{"q/dead", 1, notice.DroppedByDelete}, []any{told[0].Queue, told[0].Count, told[0].Reason})
		require.EqualValues(t, 50, src.Q.Store.Totals().Dropped)
		_, err = src.Delete(t.Context(), q, &deadletter.Choice[string]{Letters: settings.Letters{IDs: map[string]bool{"nobody": false}}})
		require.ErrorIs(t, err, message.ErrUnknownID)
	})
}

// Those of one key are moved one after the other, in the order of publication, up to one that
// fails; others don't wait for them.
func TestLettersOfAKeyAreMovedInTheirOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, src, q := shelve(t, 9)
		for k, l := range s.letters {
			l.OrderingKey = []string{"a", "b", ""}[k%3]
		}
		s.broken = func(op, id string) error {
			if op == "redrive" && id == "004" {
				return errBusy
			}
			return nil
		}
		n, err := src.Redrive(t.Context(), q, all())
		require.EqualError(t, err, "2 letters were not moved: busy\nbusy", "and what stands behind it")
		require.Equal(t, 7, n)
		var keyed []string
		for _, what := range s.log {
			for _, id := range []string{"000", "001", "003", "004", "006", "007"} {
				if what == "redrive "+id {
					keyed = append(keyed, id)
				}
			}
		}
		require.Len(t, keyed, 4)
		at := func(id string) (at int) {
			for k, is := range keyed {
				if is == id {
					at = k
				}
			}
			return at
		}
		require.True(t, at("006") < at("003") && at("003") < at("000"), "of key a, the oldest first: %v", keyed)
		require.Contains(t, keyed, "007", "of key b the oldest is before the one that fails")
		requireReady(t, s, 2)
	})
}

// Only the first errors of many are told.
func TestOnlyTheFirstErrorsAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, src, q := shelve(t, 9)
		s.broken = func(op, id string) error {
			if op == "ack" {
				return fmt.Errorf("no %s", id)
			}
			return nil
		}
		n, err := src.Delete(t.Context(), q, all())
		require.Zero(t, n)
		require.EqualError(t, err, "9 letters were not deleted: no 000\nno 001\nno 002")
		requireReady(t, s, 9)
	})
}

// A letter whose lease has ended is met again, and moved then; one that somebody else has is
// said to be in other hands.
func TestALetterThatWasLostIsMetAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, src, q := shelve(t, 3)
		first := true
		n, err := src.Redrive(t.Context(), q, &deadletter.Choice[string]{Keep: []func(*delivery.Delivery[string]) bool{func(d *delivery.Delivery[string]) bool {
			if first { // the user takes his time
				first = false
				time.Sleep(time.Minute)
			}
			return true
		}}})
		require.NoError(t, err)
		require.Equal(t, 3, n)
		for _, l := range s.letters {
			require.True(t, l.gone)
			require.Equal(t, 2, l.Deliveries)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		s, src, q := shelve(t, 3)
		n, err := src.Redrive(t.Context(), q, &deadletter.Choice[string]{Keep: []func(*delivery.Delivery[string]) bool{func(d *delivery.Delivery[string]) bool {
			if d.Body == "002" {
				s.mu.Lock()
				s.letters[0].Receipt, s.letters[0].until = "another's", time.Now().Add(time.Hour)
				s.mu.Unlock()
			}
			return true
		}}})
		require.Equal(t, 2, n)
		require.ErrorIs(t, err, message.ErrStale)
		require.EqualError(t, err, "1 letters were not moved, and are in other hands: fanout: stale delivery")
	})
}

// What was received is given back, even if the user's code ends the goroutine or the context
// has ended; an engine that does not answer is told no more.
func TestWhatWasReceivedIsGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, src, q := shelve(t, 5)
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = src.Redrive(t.Context(), q, &deadletter.Choice[string]{Keep: []func(*delivery.Delivery[string]) bool{func(*delivery.Delivery[string]) bool { runtime.Goexit(); return true }}})
		}()
		<-done
		requireReady(t, s, 5)

		ctx, cancel := context.WithCancel(t.Context())
		_, err := src.Redrive(ctx, q, &deadletter.Choice[string]{Keep: []func(*delivery.Delivery[string]) bool{func(*delivery.Delivery[string]) bool { cancel(); return false }}})
		require.NoError(t, err, "nothing was left to do")
		requireReady(t, s, 5)

		s.broken = func(op, id string) error {
			if op == "return" && id == "003" {
				return engine.ErrClosed
			}
			return nil
		}
		_, err = src.Peek(t.Context(), 5)
		require.EqualError(t, err, "1 letters were not given back, and are hidden until their leases end: fanout: closed: "+engine.ErrClosed.Error())
		time.Sleep(time.Minute)
		s.broken, s.hangs = nil, true
		s.letters = append(s.letters, shelveMore(200)...)
		began := time.Now()
		_, err = src.Peek(t.Context(), 205)
		require.ErrorContains(t, err, "205 letters were not given back")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, onengine.SettleTime, time.Since(began), "none waits after the first")
	})
}

func shelveMore(n int) (ls []*shelved) {
	for k := range n {
		ls = append(ls, &shelved{Received: engine.Received{Message: engine.Message{ID: fmt.Sprintf("more %03d", k), PublishedAt: time.Now()}}})
	}
	return ls
}
