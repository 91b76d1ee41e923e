// Letters are met once, and none is lost, though the engine is slow and leases are short.

package engines_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/internal/fakeengine"
)

// A deadQueue is a queue on an engine that holds nothing but dead letters.
type deadQueue struct {
	t testing.TB
	e *fakeengine.Engine
	q *fanout.Queue[string]
}

// newDeadQueue makes n dead letters, with the IDs of ids(n).
func newDeadQueue(t testing.TB, e *fakeengine.Engine, n int, options ...fanout.QueueOption) deadQueue {
	t.Helper()
	top, err := fanout.NewTopic[string]("t", fanout.WithEngine(e), fanout.WithOrdering())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, top.Close()) })
	q, err := top.OpenQueue(t.Context(), "q", options...)
	require.NoError(t, err)
	s, err := q.Subscribe(t.Context(), func(context.Context, fanout.Delivery[string]) error {
		return fanout.Permanent(errors.New("no"))
	}, fanout.WithConcurrency(64))
	require.NoError(t, err)
	for _, id := range ids(n) {
		require.NoError(t, top.PublishMessages(t.Context(), fanout.Message[string]{ID: id, Body: "body of " + id}))
	}
	synctest.Wait()
	require.NoError(t, s.Shutdown(t.Context()))
	g := deadQueue{t, e, q}
	g.holds(0, n)
	return g
}

func ids(n int) (all []string) {
	for k := range n {
		all = append(all, fmt.Sprintf("%04d", k))
	}
	return all
}

// slow makes what letters are looked at and moved by take its time.
func (g deadQueue) slow(d time.Duration) {
	for _, op := range []fakeengine.Op{fakeengine.Receive, fakeengine.Return, fakeengine.Extend, fakeengine.Redrive, fakeengine.Stats} {
		g.e.Inject(fakeengine.Fault{Op: op, Latency: d})
	}
}

// holds looks into the engine: how many messages are ready in the queue and in its
// dead-letter queue, and that no more are there, in whatever state.
func (g deadQueue) holds(messages, letters int) {
	g.t.Helper()
	top, err := g.e.Sibling().OpenTopic(g.t.Context(), engine.TopicSpec{Name: "t", Ordering: true})
	require.NoError(g.t, err)
	q, err := top.OpenQueue(g.t.Context(), engine.QueueSpec{Name: "q", Visibility: 30 * time.Second})
	require.NoError(g.t, err)
	for each, want := range map[engine.Queue]int{q: messages, q.DeadLetters(): letters} {
		s, err := each.Stats(g.t.Context())
		require.NoError(g.t, err)
		require.Equal(g.t, want, s.Ready)
		require.Equal(g.t, want, s.Sum())
	}
}

// peek returns the IDs of all dead letters, and Peek's error.
func (g deadQueue) peek() (seen []string, err error) {
	ds, err := g.q.DeadLetters().Peek(g.t.Context(), fanout.Unlimited)
	for _, d := range ds {
		require.Equal(g.t, "body of "+d.ID(), d.Body)
		seen = append(seen, d.ID())
	}
	slices.Sort(seen)
	return seen, err
}

// back returns the IDs of the messages in the queue, in order.
func (g deadQueue) back() (seen []string) {
	g.t.Helper()
	g.e.Heal()
	for {
		d, ok, err := g.q.TryReceive(g.t.Context())
		require.NoError(g.t, err)
		if !ok {
			slices.Sort(seen)
			return seen
		}
		require.Len(g.t, d.History(), 1)
		require.NoError(g.t, d.Ack(g.t.Context()))
		seen = append(seen, d.ID())
	}
}

// TestASlowEngineIsNotAnEmptyOne: an engine that takes its time to answer holds
// its dead letters all the same.
func TestASlowEngineIsNotAnEmptyOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newDeadQueue(t, fakeengine.New(fakeengine.Config{}), 1)
		g.e.Inject(fakeengine.Fault{Op: fakeengine.Receive, Latency: 2 * time.Second})
		n, err := g.q.DeadLetters().Depth(t.Context())
		require.NoError(t, err)
		require.Equal(t, 1, n.Unsettled())
		moved, err := g.q.Redrive(t.Context())
		require.NoError(t, err)
		require.Equal(t, 1, moved)
	})
}

// TestLettersAreMetOnceThoughTheirLeasesAreShort: to receive all letters takes longer
// than a lease, which is two seconds longer than the visibility timeout.
func TestLettersAreMetOnceThoughTheirLeasesAreShort(t *testing.T) {
	const n = 734
	for name, row := range map[string]struct{ visibility, each, peek, redrive time.Duration }{
		"a tenth of a second": {5 * time.Second, 100 * time.Millisecond, 15 * time.Second, 15 * time.Second},
		"a second":            {30 * time.Second, 900 * time.Millisecond, 4 * time.Minute, 4 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newDeadQueue(t, fakeengine.New(fakeengine.Config{MaxReceive: 10}), n, fanout.WithVisibilityTimeout(row.visibility))
				g.slow(row.each)
				start := time.Now()
				seen, err := g.peek()
				require.NoError(t, err)
				require.Equal(t, ids(n), seen)
				require.Less(t, time.Since(start), row.peek)
				require.LessOrEqual(t, g.e.Calls(fakeengine.Extend), 3*n, "each grows longer")
				g.holds(0, n)

				asked := map[string]int{}
				moved, err := g.q.Redrive(t.Context(), fanout.RedriveIf(func(d fanout.Delivery[string]) bool {
					asked[d.ID()]++
					return len(asked)%2 == 0
				}))
				require.NoError(t, err)
				require.Equal(t, n/2, moved)
				require.Len(t, asked, n)
				for id, times := range asked {
					require.Equal(t, 1, times, id)
				}
				g.holds(n/2, n/2)

				start = time.Now()
				moved, err = g.q.Redrive(t.Context())
				require.NoError(t, err)
				require.Equal(t, n/2, moved)
				require.Less(t, time.Since(start), row.redrive)
				g.holds(n, 0)
				require.Equal(t, ids(n), g.back())
			})
		})
	}
}

// TestARedriveThatFailsSaysHowManyHaveMoved, and leaves the others ready.
func TestARedriveThatFailsSaysHowManyHaveMoved(t *testing.T) {
	const n = 300
	synctest.Test(t, func(t *testing.T) {
		g := newDeadQueue(t, fakeengine.New(fakeengine.Config{MaxReceive: 10}), n)
		g.slow(100 * time.Millisecond)
		for k := range 5 {
			g.e.Inject(fakeengine.Fault{Op: fakeengine.Redrive, Nth: 100 + k, Err: errors.New("no room")})
		}
		moved, err := g.q.Redrive(t.Context())
		require.ErrorContains(t, err, "5 letters were not moved: no room")
		require.Equal(t, 128-5, moved, "two parts, but for those that failed")
		g.holds(moved, n-moved)
		more, err := g.q.Redrive(t.Context())
		require.NoError(t, err)
		require.Equal(t, n, moved+more)
		require.Equal(t, ids(n), g.back())
	})
}

// TestALetterWhoseLeaseHasEndedIsMovedWhenItComesAgain, or else it is said.
func TestALetterWhoseLeaseHasEndedIsMovedWhenItComesAgain(t *testing.T) {
	const n = 20
	synctest.Test(t, func(t *testing.T) {
		g := newDeadQueue(t, fakeengine.New(fakeengine.Config{MaxReceive: 10}), n)
		// The lease of the first part ends while the engine thinks about it.
		g.e.Inject(fakeengine.Fault{Op: fakeengine.Redrive, Nth: 1, Latency: time.Minute})
		moved, err := g.q.Redrive(t.Context())
		require.NoError(t, err)
		require.Equal(t, n, moved)
		require.Equal(t, ids(n), g.back())
	})
	synctest.Test(t, func(t *testing.T) {
		g := newDeadQueue(t, fakeengine.New(fakeengine.Config{}), n)
		g.e.Inject(fakeengine.Fault{Op: fakeengine.Redrive, Nth: 1, Err: engine.ErrStale})
		returned := g.e.Calls(fakeengine.Return)
		moved, err := g.q.Redrive(t.Context())
		require.Equal(t, returned, g.e.Calls(fakeengine.Return), "it is not ours to give back")
		require.ErrorIs(t, err, fanout.ErrStale)
		require.ErrorContains(t, err, "1 letters were not moved")
		require.Equal(t, n-1, moved)
	})
	synctest.Test(t, func(t *testing.T) {
		g := newDeadQueue(t, fakeengine.New(fakeengine.Config{}), n, fanout.WithVisibilityTimeout(time.Second))
		g.e.Inject(fakeengine.Fault{Op: fakeengine.Redrive, Latency: time.Minute}) // each
		moved, err := g.q.Redrive(t.Context())
		require.ErrorContains(t, err, "too slow for a visibility timeout of 1s")
		require.Zero(t, moved)
		g.holds(0, n)
	})
}

// TestLeasesThatCannotBeKeptUpAreNoEndlessLoop: what is returned has no letter twice,
// and an error says that it may not be all.
func TestLeasesThatCannotBeKeptUpAreNoEndlessLoop(t *testing.T) {
	const n = 300
	refused := fakeengine.Fault{Op: fakeengine.Extend, Err: errors.New("no extensions")}
	open := func(t *testing.T) deadQueue {
		g := newDeadQueue(t, fakeengine.New(fakeengine.Config{MaxReceive: 10}), n, fanout.WithVisibilityTimeout(5*time.Second))
		g.slow(900 * time.Millisecond)
		g.e.Inject(refused)
		return g
	}
	synctest.Test(t, func(t *testing.T) {
		g := open(t)
		start := time.Now()
		seen, err := g.peek()
		require.ErrorContains(t, err, "letters come again before all are received")
		require.Less(t, time.Since(start), 3*time.Minute)
		require.NotEmpty(t, seen)
		require.Len(t, slices.Compact(seen), len(seen))
		g.holds(0, n) // by their last receipts
	})
	synctest.Test(t, func(t *testing.T) {
		g := open(t)
		asked := 0
		moved, err := g.q.Redrive(t.Context(), fanout.RedriveIf(func(fanout.Delivery[string]) bool { asked++; return false }))
		require.ErrorContains(t, err, "letters come again before all are received")
		require.Zero(t, moved)
		require.Less(t, asked, n)
		time.Sleep(time.Minute)
		g.holds(0, n)
	})
	synctest.Test(t, func(t *testing.T) { // each is moved in time, so none comes again
		g := open(t)
		moved, err := g.q.Redrive(t.Context())
		require.NoError(t, err)
		require.Equal(t, n, moved)
		require.Equal(t, ids(n), g.back())
	})
}

// TestLettersThatCannotBeGivenBackAreReported, and an engine that does not answer is
// not asked for each.
func TestLettersThatCannotBeGivenBackAreReported(t *testing.T) {
	const n = 300
	synctest.Test(t, func(t *testing.T) {
		g := newDeadQueue(t, fakeengine.New(fakeengine.Config{}), n)
		for k := range 7 {
			g.e.Inject(fakeengine.Fault{Op: fakeengine.Return, Nth: 1 + 40*k, Err: fmt.Errorf("failure %d", k)})
		}
		seen, err := g.peek()
		require.Equal(t, ids(n), seen)
		require.ErrorContains(t, err, "7 letters were not given back, and are hidden until their leases end: failure")
		require.Equal(t, 3, strings.Count(err.Error(), "failure"), "the first few")
		g.e.Heal()

		g.e.Inject(fakeengine.Fault{Op: fakeengine.Return, Latency: time.Hour})
		start := time.Now()
		moved, err := g.q.Redrive(t.Context(), fanout.RedriveIDs("0001", "0288"))
		require.ErrorContains(t, err, fmt.Sprintf("%d letters were not given back", n-7-moved))
		require.Equal(t, 11*time.Second, time.Since(start), "one to look for more, and ten for all that are tried at once")
		require.LessOrEqual(t, moved, 2)
		time.Sleep(time.Minute)
		g.holds(moved, n-moved)
	})
	synctest.Test(t, func(t *testing.T) { // 64 at a time
		g := newDeadQueue(t, fakeengine.New(fakeengine.Config{}), n)
		g.e.Inject(fakeengine.Fault{Op: fakeengine.Return, Latency: 100 * time.Millisecond})
		start := time.Now()
		seen, err := g.peek()
		require.NoError(t, err)
		require.Equal(t, ids(n), seen)
		require.Equal(t, time.Second+500*time.Millisecond, time.Since(start))
		g.holds(0, n)
	})
	synctest.Test(t, func(t *testing.T) { // nobody waits any more, but the letters do
		g := newDeadQueue(t, fakeengine.New(fakeengine.Config{MaxReceive: 10}), n)
		g.slow(100 * time.Millisecond)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second+time.Millisecond)
		defer cancel()
		ds, err := g.q.DeadLetters().Peek(ctx, fanout.Unlimited)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Len(t, ds, 100)
		g.holds(0, n)
	})
}

// TestLettersOfOneIDAreDifferentLetters: an ID need not be unique.
func TestLettersOfOneIDAreDifferentLetters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := fakeengine.New(fakeengine.Config{MaxReceive: 1})
		g := newDeadQueue(t, e, 0)
		top, err := e.OpenTopic(t.Context(), engine.TopicSpec{Name: "t", Ordering: true})
		require.NoError(t, err)
		m := engine.Message{ID: "a", Body: []byte(`"body of a"`), PublishedAt: time.Now()}
		require.NoError(t, top.Publish(t.Context(), []engine.Message{m, m, m}))
		for range 3 {
			d, err := g.q.Receive(t.Context())
			require.NoError(t, err)
			require.NoError(t, d.Settle(t.Context(), fanout.Permanent(errors.New("no"))))
		}
		seen, err := g.peek()
		require.NoError(t, err)
		require.Equal(t, []string{"a", "a", "a"}, seen)
		moved, err := g.q.Redrive(t.Context())
		require.NoError(t, err)
		require.Equal(t, 3, moved)
		g.holds(3, 0)
	})
}

// TestLettersOfOneKeyAreRedrivenInOrder, however long the engine takes for each.
func TestLettersOfOneKeyAreRedrivenInOrder(t *testing.T) {
	const n = 200
	synctest.Test(t, func(t *testing.T) {
		e := fakeengine.New(fakeengine.Config{MaxReceive: 10})
		g := newDeadQueue(t, e, 0)
		top, err := e.OpenTopic(t.Context(), engine.TopicSpec{Name: "t", Ordering: true})
		require.NoError(t, err)
		for k, id := range ids(n) {
			m := engine.Message{ID: id, Body: []byte(`"body of ` + id + `"`), OrderingKey: string("abc"[k%3]), PublishedAt: time.Now()}
			require.NoError(t, top.Publish(t.Context(), []engine.Message{m}))
			d, err := g.q.Receive(t.Context())
			require.NoError(t, err)
			require.NoError(t, d.Settle(t.Context(), fanout.Permanent(errors.New("no"))))
			time.Sleep(time.Millisecond)
			e.Inject(fakeengine.Fault{Op: fakeengine.Redrive, Nth: k + 1, Latency: time.Duration(n-k) * time.Millisecond})
		}
		moved, err := g.q.Redrive(t.Context())
		require.NoError(t, err)
		require.Equal(t, n, moved)
		last := map[string]string{}
		for range n {
			d, err := g.q.Receive(t.Context())
			require.NoError(t, err)
			require.Less(t, last[d.OrderingKey()], d.ID())
			last[d.OrderingKey()] = d.ID()
			require.NoError(t, d.Ack(t.Context()))
		}
		g.holds(0, 0)
	})
}

// An engine that somebody else closed is asked again now and then.
func TestWorkersDoNotSpinOnAnEngineThatIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := fakeengine.New(fakeengine.Config{})
		top := onEngine(t, e)
		_, err := top.Subscribe(t.Context(), "q", func(context.Context, fanout.Delivery[string]) error { return nil })
		require.NoError(t, err)
		synctest.Wait()
		e.Crash()
		time.Sleep(time.Hour)
		require.LessOrEqual(t, e.Calls(fakeengine.Receive), 1000)
		endTopic(t, top)
	})
}
