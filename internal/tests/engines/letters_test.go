// Letters on an engine that come again, belong to somebody else, or were made by somebody else are moved once.

package engines_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/internal/fakeengine"
)

// TestLettersAreLookedAtInTheOrderOfPublication, as many as are asked for, whatever the
// order in which they died.
func TestLettersAreLookedAtInTheOrderOfPublication(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newDeadQueue(t, fakeengine.New(fakeengine.Config{}), 0)
		top, _ := g.foreign()
		var ds []fanout.Delivery[string]
		for _, id := range ids(5) {
			m := engine.Message{ID: id, Body: []byte(`"body of ` + id + `"`), PublishedAt: time.Now()}
			require.NoError(t, top.Publish(t.Context(), []engine.Message{m}))
			ds = append(ds, next(t, g.q))
			time.Sleep(time.Millisecond)
		}
		for _, k := range []int{3, 0, 4, 2, 1} {
			require.NoError(t, ds[k].Settle(t.Context(), fanout.Permanent(errBroken)))
		}
		start := time.Now()
		for most, want := range map[int][]string{3: {"0000", "0003", "0004"}, 5: ids(5), 6: ids(5)} {
			received := g.e.Calls(fakeengine.Receive)
			letters, err := g.q.DeadLetters().Peek(t.Context(), most)
			require.NoError(t, err)
			var seen []string
			for _, l := range letters {
				seen = append(seen, l.ID())
				require.ErrorIs(t, l.Ack(t.Context()), fanout.ErrStale)
			}
			require.Equal(t, want, seen)
			require.Equal(t, 1+most/6, g.e.Calls(fakeengine.Receive)-received)
		}
		require.Equal(t, time.Second, time.Since(start), "to ask whether there is a sixth")
		start = time.Now()
		moved, err := g.q.Redrive(t.Context())
		require.NoError(t, err)
		require.Equal(t, 5, moved)
		require.Equal(t, time.Second, time.Since(start))
	})
}

// TestAnEngineThatDoesNotAnswerIsAskedLessAndLessOften: for 1, 2, 4, 8, 16 and 16
// seconds, and then until nobody waits any more.
func TestAnEngineThatDoesNotAnswerIsAskedLessAndLessOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newDeadQueue(t, fakeengine.New(fakeengine.Config{}), 1)
		g.e.Inject(fakeengine.Fault{Op: fakeengine.Receive, Latency: time.Hour})
		ctx, cancel := context.WithTimeout(t.Context(), 48*time.Second)
		defer cancel()
		received := g.e.Calls(fakeengine.Receive)
		_, err := g.q.DeadLetters().Peek(ctx, 1)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 7, g.e.Calls(fakeengine.Receive)-received)
	})
}

// TestALetterThatComesAgainAfterItsMoveIsMovedOnce, as from an engine whose move is a
// copy and a removal that is forgotten. What is still there afterwards is given back.
func TestALetterThatComesAgainAfterItsMoveIsMovedOnce(t *testing.T) {
	const n = 20
	synctest.Test(t, func(t *testing.T) {
		g := newDeadQueue(t, fakeengine.New(fakeengine.Config{MaxReceive: 1}), n, fanout.WithVisibilityTimeout(5*time.Second))
		g.e.Inject(fakeengine.Fault{Op: fakeengine.Redrive, Nth: 1, Halfway: true})
		g.e.Inject(fakeengine.Fault{Op: fakeengine.Receive, Latency: 900 * time.Millisecond})
		received := g.e.Calls(fakeengine.Receive)
		moved, err := g.q.Redrive(t.Context())
		require.NoError(t, err)
		require.Equal(t, n, moved)
		require.Equal(t, n+2, g.e.Calls(fakeengine.Receive)-received, "one came twice, and then there were no more")
		g.holds(n, 1)
		require.Equal(t, ids(n), g.back())
	})
}

// TestALetterThatIsSomebodyElsesIsLeftAlone: its lease is not extended again, and it is
// not given back, unless it comes again.
func TestALetterThatIsSomebodyElsesIsLeftAlone(t *testing.T) {
	for name, row := range map[string]struct {
		fault                  fakeengine.Fault
		each                   time.Duration // letter
		n, extended, givenBack int
	}{
		// A lease has 7 s, and is to be extended after a third of them. Letters are
		// looked through for such at most each 0.7 s.
		"four of six":           {fakeengine.Fault{Err: engine.ErrStale}, 900 * time.Millisecond, 6, 4, 2},
		"one, that comes again": {fakeengine.Fault{Err: engine.ErrStale, Nth: 1}, 900 * time.Millisecond, 10, 10, 10},
		"none, for all we know": {fakeengine.Fault{Err: errBroken}, 300 * time.Millisecond, 14, 2 + 5, 14},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newDeadQueue(t, fakeengine.New(fakeengine.Config{MaxReceive: 1}), row.n, fanout.WithVisibilityTimeout(5*time.Second))
				g.e.Inject(fakeengine.Fault{Op: fakeengine.Receive, Latency: row.each})
				row.fault.Op = fakeengine.Extend
				g.e.Inject(row.fault)
				extended, givenBack := g.e.Calls(fakeengine.Extend), g.e.Calls(fakeengine.Return)
				seen, err := g.peek()
				require.NoError(t, err)
				require.Equal(t, ids(row.n), seen)
				require.Equal(t, row.extended, g.e.Calls(fakeengine.Extend)-extended)
				require.Equal(t, row.givenBack, g.e.Calls(fakeengine.Return)-givenBack)
				time.Sleep(7 * time.Second)
				g.holds(0, row.n)
			})
		})
	}
}

// TestALetterOfAKeyThatIsNotMovedHoldsUpThoseBehindIt, and those of no other key; one
// that is somebody else's does not.
func TestALetterOfAKeyThatIsNotMovedHoldsUpThoseBehindIt(t *testing.T) {
	for name, row := range map[string]struct {
		fault, err error
		left       []string
	}{
		"is broken":              {errBroken, errBroken, []string{"0001", "0002"}},
		"is in flight elsewhere": {engine.ErrStale, fanout.ErrStale, []string{"0001"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newDeadQueue(t, fakeengine.New(fakeengine.Config{}), 0)
				top, _ := g.foreign()
				for k, id := range ids(4) {
					m := engine.Message{ID: id, Body: []byte(`"body of ` + id + `"`), OrderingKey: string("aaab"[k]), PublishedAt: time.Now()}
					require.NoError(t, top.Publish(t.Context(), []engine.Message{m}))
					require.NoError(t, next(t, g.q).Settle(t.Context(), fanout.Permanent(errBroken)))
					time.Sleep(time.Millisecond)
				}
				// The first of each key are moved side by side, and then the second of a.
				g.e.Inject(fakeengine.Fault{Op: fakeengine.Redrive, Latency: time.Second})
				g.e.Inject(fakeengine.Fault{Op: fakeengine.Redrive, Nth: 3, Err: row.fault})
				moved, err := g.q.Redrive(t.Context())
				require.ErrorIs(t, err, row.err)
				require.Equal(t, 4-len(row.left), moved)
				g.e.Heal()
				time.Sleep(time.Minute)
				seen, err := g.peek()
				require.NoError(t, err)
				require.Equal(t, row.left, seen)
			})
		})
	}
}

// foreign opens the queue as somebody does who knows nothing of fanout.
func (g deadQueue) foreign() (engine.Topic, engine.Queue) {
	g.t.Helper()
	top, err := g.e.Sibling().OpenTopic(g.t.Context(), engine.TopicSpec{Name: "t", Ordering: true})
	require.NoError(g.t, err)
	q, err := top.OpenQueue(g.t.Context(), engine.QueueSpec{Name: "q", Visibility: 30 * time.Second})
	require.NoError(g.t, err)
	return top, q
}

// TestARedriveDoesNotChaseWhatDiesAgain: a letter that was moved, and is dead again
// before the redrive ends, is one for the next redrive.
func TestARedriveDoesNotChaseWhatDiesAgain(t *testing.T) {
	for name, die := range map[string]func(t *testing.T, g deadQueue){
		"by somebody who keeps no history": func(t *testing.T, g deadQueue) {
			_, q := g.foreign()
			got, err := q.Receive(t.Context(), 1, 0)
			require.NoError(t, err)
			m := got[0].Message
			m.State = nil
			require.NoError(t, q.DeadLetter(t.Context(), got[0].Receipt, m))
		},
		"with a history": func(t *testing.T, g deadQueue) {
			d := next(t, g.q)
			require.NoError(t, d.Settle(t.Context(), fanout.Permanent(errors.New("no"))))
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newDeadQueue(t, fakeengine.New(fakeengine.Config{}), 0)
				top, _ := g.foreign()
				m := engine.Message{ID: "0000", Body: []byte(`"body of 0000"`), PublishedAt: time.Now()}
				require.NoError(t, top.Publish(t.Context(), []engine.Message{m}))
				die(t, g)
				seen, err := g.peek()
				require.NoError(t, err)
				require.Equal(t, ids(1), seen)

				// The engine takes its time, so that Redrive moves what it has, and looks for
				// more when the letter is dead again.
				for call := range 5 { // for 1, 2, 4 and 8 seconds in vain
					g.e.Inject(fakeengine.Fault{Op: fakeengine.Receive, Nth: call + 1, Latency: 9 * time.Second})
				}
				g.e.Inject(fakeengine.Fault{Op: fakeengine.Redrive, Late: 2 * time.Second})
				moved, done := 0, make(chan error)
				go func() {
					var err error
					moved, err = g.q.Redrive(context.Background())
					done <- err
				}()
				time.Sleep(25 * time.Second) // the letter is back, which Redrive is not told yet
				require.Equal(t, 1, g.e.Calls(fakeengine.Redrive))
				die(t, g)
				require.NoError(t, <-done)
				require.Equal(t, 1, moved)
				g.holds(0, 1)

				moved, err = g.q.Redrive(t.Context())
				require.NoError(t, err)
				require.Equal(t, 1, moved)
				g.holds(1, 0)
			})
		})
	}
}

// TestTheSameMessagesNextDeathIsAnotherLetter, though the two have all in common but
// when they died.
func TestTheSameMessagesNextDeathIsAnotherLetter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newDeadQueue(t, fakeengine.New(fakeengine.Config{}), 0)
		top, _ := g.foreign()
		m := engine.Message{ID: "0000", Body: []byte(`"body of 0000"`), PublishedAt: time.Now()}
		require.NoError(t, top.Publish(t.Context(), []engine.Message{m, m}))
		for range 2 {
			require.NoError(t, next(t, g.q).Settle(t.Context(), fanout.Permanent(errBroken)))
			time.Sleep(time.Second)
		}
		first, second := next(t, g.q.DeadLetters()), next(t, g.q.DeadLetters())
		require.NoError(t, second.Nack(t.Context()))
		second = next(t, g.q.DeadLetters()) // so that it has one delivery more
		require.NoError(t, first.Nack(t.Context()))
		require.NoError(t, second.Nack(t.Context()))
		time.Sleep(time.Hour)
		seen, err := g.peek()
		require.NoError(t, err)
		require.Equal(t, []string{"0000", "0000"}, seen)
	})
}

// TestLettersOfAnEngineThatKeepsNoVisibility have the engine's leases, which can't be
// kept up.
func TestLettersOfAnEngineThatKeepsNoVisibility(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := fakeengine.New(fakeengine.Config{Without: []engine.Feature{engine.Visibility}, MaxReceive: 1})
		top := onEngine(t, e)
		q := engineQueue(t, top)
		for range 5 {
			require.NoError(t, top.Publish(t.Context(), "a"))
			require.NoError(t, next(t, q).Settle(t.Context(), fanout.Permanent(errBroken)))
		}
		e.Inject(fakeengine.Fault{Op: fakeengine.Receive, Latency: 900 * time.Millisecond})
		letters, err := q.DeadLetters().Peek(t.Context(), fanout.Unlimited)
		require.NoError(t, err)
		require.Len(t, letters, 5)
		moved, err := q.Redrive(t.Context())
		require.NoError(t, err)
		require.Equal(t, 5, moved)
		require.Zero(t, e.Calls(fakeengine.Extend))
		endTopic(t, top)
	})
}
