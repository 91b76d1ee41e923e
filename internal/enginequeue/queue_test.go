package enginequeue

import (
	"context"
	"fmt"
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

// However a message has left, nothing of it is kept here.
func TestAQueueForgetsWhatHasLeft(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHost(t, fakeengine.New(fakeengine.Config{}))
		q := h.open(t, attempts(2), func(s *settings.Queue) { s.TTL = time.Hour }, wanted(func(body string) bool { return body != "unwanted" }))
		h.publish(t, "unwanted", "acked", "failed", "snoozed", "timed out", "expired")
		ds, err := delivery.TakeBatch(ctx, q, 6, q.Visibility())
		require.NoError(t, err)
		require.Len(t, ds, 5, "one that nobody wants does not hide those behind it")
		require.Equal(t, 5, view.StatsOf(q).InFlight)
		for k, result := range []error{nil, errBroken, message.Snooze(time.Minute)} {
			require.NoError(t, ds[k].Settle(ctx, result))
		}
		elapse(30 * time.Second)
		require.Zero(t, q.Store.Held())
		s := view.StatsOf(q)
		require.EqualValues(t, []uint64{5, 1, 1, 1, 2}, []uint64{s.Delivered, s.Acked, s.Failed, s.Snoozed, s.TimedOut})
		elapse(time.Hour)
		requireNone(t, q)
		require.Zero(t, q.Store.Held())
		require.EqualValues(t, 4, view.StatsOf(q).Expired)
		h.end(t)
	})
}

func TestTheNumbersOfAQueueAreThoseThatItKnows(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		e := fakeengine.New(fakeengine.Config{})
		h := newHost(t, e)
		q := h.open(t, func(s *settings.Queue) { s.TTL = time.Hour })
		h.publish(t, "a", "b", "c")
		receive(t, q)
		require.NoError(t, receive(t, q).Settle(ctx, message.Permanent(errBroken)))
		s := view.StatsOf(q)
		for _, n := range []int{s.Ready, s.Delayed, s.Retrying, s.Parked, s.Released, s.Blocked, s.Published, s.Dead, s.Unsettled(), s.Capacity, int(s.OldestAge)} {
			require.Equal(t, engine.Unknown, n)
		}
		require.Equal(t, 1, s.InFlight)
		require.Equal(t, engine.Unknown, q.Keeper.Capacity())
		require.False(t, q.Expires(), "the engine's messages make no room")
		require.Zero(t, view.StatsOf(q.DeadLetters()).Dead)
		d, err := view.DepthOf(ctx, q)
		require.NoError(t, err)
		require.Equal(t, []int{1, 1, 1}, []int{d.Ready, d.InFlight, d.Dead})
		d, err = view.DepthOf(ctx, q.DeadLetters())
		require.NoError(t, err)
		require.Equal(t, []int{1, 0}, []int{d.Ready, d.Dead})
		e.Inject(fakeengine.Fault{Op: fakeengine.Stats, Err: errBroken})
		_, err = view.DepthOf(ctx, q)
		require.ErrorIs(t, err, errBroken)
		h.end(t)
	})
}

func TestAPurgeDropsWhatTheEngineHoldsAndWhatIsInFlightHere(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var told []int
		e := fakeengine.New(fakeengine.Config{})
		h := newHost(t, e, hooked(notice.Dropped, func(e notice.Event) { told = append(told, e.Count) }))
		q := h.open(t)
		h.publish(t, "a", "b", "c")
		d := receive(t, q)
		n, err := lifecycle.Purge(ctx, q)
		require.NoError(t, err)
		require.Equal(t, 3, n)
		require.ElementsMatch(t, []int{1, 2}, told)
		require.EqualValues(t, 3, view.StatsOf(q).Dropped)
		require.ErrorIs(t, d.Ack(ctx), message.ErrStale)
		h.requireKept(t, 0, 0)
		e.Inject(fakeengine.Fault{Op: fakeengine.Purge, Err: errBroken})
		n, err = lifecycle.Purge(ctx, q)
		require.ErrorIs(t, err, errBroken)
		require.ErrorContains(t, err, `fanout: purge of "q": `)
		require.Zero(t, n)
		e.Heal()
		h.publish(t, "d")
		receive(t, q)
		told = nil
		n, err = lifecycle.Purge(ctx, q)
		require.NoError(t, err)
		require.Equal(t, 1, n)
		require.Equal(t, []int{1}, told, "nothing is told of nothing")
		e.Inject(fakeengine.Fault{Op: fakeengine.Purge, Nth: 1, Late: time.Second})
		time.AfterFunc(time.Millisecond, func() { lifecycle.Close(q) })
		_, err = lifecycle.Purge(ctx, q)
		require.ErrorIs(t, err, message.ErrClosed, "it was closed meanwhile")
		h.end(t)
	})
}

func TestACloseLeavesTheEnginesQueueAndEndsTheDeliveries(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHost(t, fakeengine.New(fakeengine.Config{}))
		q := h.open(t)
		h.publish(t, "a", "b")
		d := receive(t, q)
		err := lifecycle.Close(q.DeadLetters())
		require.ErrorIs(t, err, message.ErrUnsupported)
		require.ErrorContains(t, err, `close "q" first`)
		require.NoError(t, lifecycle.Close(q))
		require.NoError(t, lifecycle.Close(q))
		require.Equal(t, []string{"q, deleting: false"}, h.left)
		require.NoError(t, lifecycle.Close(q.DeadLetters()), "it has ended with its queue")
		require.ErrorIs(t, d.Ack(ctx), message.ErrClosed)
		require.ErrorIs(t, h.on.Publish(ctx, nil, false), nil)
		q = h.open(t) // by the same name
		began := time.Now()
		d = receive(t, q)
		require.Equal(t, "b", d.Body)
		require.NoError(t, d.Ack(ctx))
		require.Equal(t, "a", receive(t, q).Body)
		require.Equal(t, 32*time.Second, time.Since(began), "when the engine's lease ends")
		h.end(t)
	})
}

// leave closes a queue, and not yet that of the engine.
func leave(h *host, q *queue.Queue[string]) {
	p, _ := h.Leave(q, false)
	p.Perform()
	q.Report.Stop()
	q.Dead.Report.Stop()
	h.Release()
}

// A close with settlements under way does not wait for them; the end of all does.
func TestACloseWithCallsOfTheEnginePending(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		e := fakeengine.New(fakeengine.Config{})
		h := newHost(t, e)
		q := h.open(t)
		h.publish(t, "a")
		d := receive(t, q)
		e.Inject(fakeengine.Fault{Op: fakeengine.Ack, Nth: 1, Latency: 5 * time.Second})
		acked := make(chan error, 1)
		go func() { acked <- d.Ack(context.Background()) }()
		synctest.Wait()
		began := time.Now()
		h.Mu.Lock()
		h.closed = true
		h.Mu.Unlock()
		leave(h, q)
		require.Zero(t, time.Since(began))
		h.Release()
		<-h.Live.Awaitable()
		require.Equal(t, 5*time.Second, time.Since(began))
		require.NoError(t, <-acked, "the engine has taken it")
		q.Keeper.LetGo()
		h.on.Close()
	})
}

func TestADeleteRemovesTheQueueFromTheEngine(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var told []int
		e := fakeengine.New(fakeengine.Config{})
		h := newHost(t, e, hooked(notice.Dropped, func(e notice.Event) {
			require.Equal(t, notice.DroppedByDelete, e.Reason)
			told = append(told, e.Count)
		}))
		q := h.open(t)
		h.publish(t, "a", "b", "c")
		require.NoError(t, receive(t, q).Settle(ctx, message.Permanent(errBroken)))
		err := lifecycle.Delete(ctx, q.DeadLetters())
		require.ErrorIs(t, err, message.ErrUnsupported, "with its queue")
		require.ErrorContains(t, err, `delete "q"`)
		live := h.Live.N.Load()
		e.Inject(fakeengine.Fault{Op: fakeengine.Delete, Nth: 1, Err: errBroken})
		require.ErrorIs(t, lifecycle.Delete(ctx, q), errBroken)
		gone := func() int64 { return live - h.Live.N.Load() }
		require.EqualValues(t, 2, gone(), "it and its letters")
		require.NoError(t, lifecycle.Delete(ctx, q), "again, of one that is closed here")
		require.EqualValues(t, 2, gone())
		require.NoError(t, lifecycle.Delete(ctx, q), "it is gone")
		require.EqualValues(t, 2, gone())
		require.Equal(t, []string{"q, deleting: true"}, h.left)
		require.Equal(t, 2, e.Calls(fakeengine.Delete))
		require.ElementsMatch(t, []int{2, 1}, told)
		infos, err := h.on.List(ctx)
		require.NoError(t, err)
		require.Empty(t, infos)
		require.NoError(t, lifecycle.Delete(ctx, q.DeadLetters()))

		first := h.open(t)
		require.EqualValues(t, 0, gone())
		require.NoError(t, lifecycle.Delete(ctx, first))
		require.EqualValues(t, 2, gone())
		first = h.open(t)
		require.NoError(t, lifecycle.Close(first))
		second := h.open(t)
		require.ErrorContains(t, lifecycle.Delete(ctx, first), "it was opened again since: delete that one")
		h.on.Turn <- struct{}{} // somebody opens a queue
		soon, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		require.ErrorIs(t, lifecycle.Delete(soon, second), context.DeadlineExceeded)
		<-h.on.Turn
		require.EqualValues(t, 0, gone(), "none of these changed anything")
		require.NoError(t, lifecycle.Close(second))
		h.Mu.Lock()
		h.closed = true
		h.Mu.Unlock()
		require.ErrorIs(t, lifecycle.Delete(ctx, second), message.ErrClosed)
		require.EqualValues(t, 2, gone())
		h.end(t)
	})
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHost(t, fakeengine.New(fakeengine.Config{Without: []engine.Feature{engine.Deletion}}))
		require.ErrorIs(t, lifecycle.Delete(ctx, h.open(t)), message.ErrUnsupported)
		h.end(t)
	})
}

// Whoever shuts a topic down waits until the engine holds nothing that is ready or in flight,
// and asks less and less often.
func TestAwaitEmptyWaitsForTheEngine(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		e := fakeengine.New(fakeengine.Config{})
		h := newHost(t, e)
		q := h.open(t)
		require.NoError(t, q.Keeper.AwaitEmpty(ctx))
		h.publish(t, "a", "b")
		d := receive(t, q)
		soon, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		calls, began := e.Calls(fakeengine.Stats), time.Now()
		require.ErrorIs(t, q.Keeper.AwaitEmpty(soon), context.DeadlineExceeded)
		require.Equal(t, 5*time.Second, time.Since(began))
		require.Equal(t, 11, e.Calls(fakeengine.Stats)-calls, "after 10 ms, 20 ms and so on, up to a second")
		ready, inFlight := q.Keeper.Left()
		require.Equal(t, []int{1, 1}, []int{ready, inFlight})
		require.NoError(t, d.Ack(ctx))
		q.Keeper.AskLeft()
		ready, inFlight = q.Keeper.Left()
		require.Equal(t, []int{1, 0}, []int{ready, inFlight})
		e.Inject(fakeengine.Fault{Op: fakeengine.Stats, Nth: 1, Latency: time.Minute})
		began = time.Now()
		q.Keeper.AskLeft()
		require.Equal(t, onengine.ProbeTime, time.Since(began))
		time.AfterFunc(time.Minute, func() { require.NoError(t, receive(t, q).Ack(ctx)) })
		require.NoError(t, q.Keeper.AwaitEmpty(ctx))
		h.publish(t, "c")
		require.NoError(t, lifecycle.Pause(ctx, q))
		require.NoError(t, q.Keeper.AwaitEmpty(ctx), "nobody will handle it")
		require.NoError(t, lifecycle.Resume(ctx, q))
		require.NoError(t, lifecycle.Close(q))
		require.NoError(t, q.Keeper.AwaitEmpty(ctx))
		h.end(t)
	})
}

// Whoever waits for the engine to be empty waits for what is ready, for what is in flight
// elsewhere, and for an engine that does not answer.
func TestAwaitEmptyWaitsForEachThing(t *testing.T) {
	for name, until := range map[string]func(t *testing.T, h *host, q *queue.Queue[string]){
		"what is ready": func(t *testing.T, h *host, q *queue.Queue[string]) {
			h.publish(t, "a")
			time.AfterFunc(5*time.Second, func() { require.NoError(t, receive(t, q).Ack(context.Background())) })
		},
		"what is in flight": func(t *testing.T, h *host, q *queue.Queue[string]) {
			h.publish(t, "a")
			d := receive(t, q)
			time.AfterFunc(5*time.Second, func() { require.NoError(t, d.Ack(context.Background())) })
		},
		"an answer": func(_ *testing.T, h *host, _ *queue.Queue[string]) {
			h.e.Inject(fakeengine.Fault{Op: fakeengine.Stats, Err: errBroken})
			time.AfterFunc(5*time.Second, h.e.Heal)
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				h := newHost(t, fakeengine.New(fakeengine.Config{}))
				q := h.open(t)
				until(t, h, q)
				began := time.Now()
				require.NoError(t, q.Keeper.AwaitEmpty(ctx))
				took := time.Since(began)
				require.True(t, 5*time.Second <= took && took <= 6*time.Second, took)
				h.end(t)
			})
		})
	}
}

// A queue that ends logs what it has not told yet, of itself and of its letters, and leaves no
// timer for it.
func TestAQueueThatEndsTellsTheRestAtOnce(t *testing.T) {
	for name, end := range map[string]func(ctx context.Context, q *queue.Queue[string]) error{
		"closed":  func(_ context.Context, q *queue.Queue[string]) error { return lifecycle.Close(q) },
		"deleted": lifecycle.Delete[string],
	} {
		for _, letters := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", letters: ", letters), func(t *testing.T) {
				bubble(t, func(t *testing.T, ctx context.Context) {
					e := fakeengine.New(fakeengine.Config{})
					h := newHost(t, e)
					q := h.open(t)
					of := q
					if letters {
						of = q.DeadLetters()
					}
					require.False(t, of.Report.Armed())
					for range 2 { // of which one is logged, and one counted for a second
						of.Keeper.Failed(errBroken)
					}
					require.True(t, of.Report.Armed())
					began := time.Now()
					require.NoError(t, end(ctx, q))
					require.False(t, of.Report.Armed())
					h.end(t)
					require.Equal(t, began, time.Now())
				})
			})
		}
	}
}

// Deleting a queue cancels its handlers and ends its receives at once, whatever the engine says
// and however long it takes.
func TestADeleteEndsWhatRunsAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		e := fakeengine.New(fakeengine.Config{})
		h := newHost(t, e)
		q := h.open(t)
		began := time.Now()
		cancelled, received := make(chan time.Duration, 1), make(chan time.Duration, 1)
		s := work(t, q, 1, func(ctx context.Context, _ delivery.Delivery[string]) error {
			<-ctx.Done()
			cancelled <- time.Since(began)
			return nil
		})
		h.publish(t, "a")
		synctest.Wait()
		go func() {
			_, err := delivery.TakeBatch(context.Background(), q, 1, q.Visibility())
			require.ErrorIs(t, err, message.ErrClosed)
			received <- time.Since(began)
		}()
		synctest.Wait()
		e.Inject(fakeengine.Fault{Op: fakeengine.Delete, Nth: 1, Latency: time.Second, Err: errBroken})
		require.ErrorIs(t, lifecycle.Delete(ctx, q), errBroken)
		require.Equal(t, time.Second, time.Since(began))
		require.Zero(t, <-cancelled)
		require.Zero(t, <-received)
		require.NoError(t, s.Shutdown(ctx))
		h.end(t)
	})
}
