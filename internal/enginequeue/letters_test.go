package enginequeue

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/internal/deadletter"
	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/fakeengine"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/onengine"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/settings"
	"github.com/gofanout/fanout/internal/view"
)

// buried opens a queue with n dead letters, 000 and so on.
func (h *host) buried(t *testing.T, n int, change ...func(s *settings.Queue)) *queue.Queue[string] {
	t.Helper()
	q := h.open(t, change...)
	for _, name := range names(n) {
		require.NoError(t, h.on.Publish(t.Context(), []message.Item[string]{{Body: name, Ext: &message.Extra{ID: name}}}, false))
		time.Sleep(time.Millisecond)
		require.NoError(t, receive(t, q).Settle(t.Context(), message.Permanent(errBroken)))
	}
	return q
}

func names(n int) []string {
	all := []string{}
	for k := range n {
		all = append(all, fmt.Sprintf("%03d", k))
	}
	return all
}

// requireKept requires that so many messages and letters are ready in the engine, and no others
// are there.
func (h *host) requireKept(t *testing.T, messages, letters int) {
	t.Helper()
	m, l := h.kept(t)
	require.Equal(t, []engine.Stats{{Ready: messages}, {Ready: letters}}, []engine.Stats{m, l})
}

func chosen(f func(d *delivery.Delivery[string]) bool) *deadletter.Choice[string] {
	return &deadletter.Choice[string]{Keep: []func(*delivery.Delivery[string]) bool{f}}
}

func TestLettersAreLookedAtAndGivenBack(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		e := fakeengine.New(fakeengine.Config{MaxReceive: 3})
		h := newHost(t, e)
		q := h.buried(t, 10)
		d := q.DeadLetters()
		for most, want := range map[int]int{4: 4, 10: 10, 100: 10} {
			ds, err := view.Peek(ctx, d, most)
			require.NoError(t, err)
			require.Len(t, ds, want)
			require.Equal(t, names(10)[:want], bodies(ds))
			for k := range ds[1:] {
				require.True(t, ds[k].At < ds[k+1].At, "in the order of publication")
			}
			require.ErrorIs(t, ds[0].Ack(ctx), message.ErrStale, "it is there to be looked at")
			h.requireKept(t, 0, 10)
		}
		seen, more, err := d.Keeper.(view.Elsewhere[string]).Look(ctx, view.Seat{}, view.PeekOptions{Most: 2})
		require.NoError(t, err)
		require.Len(t, seen, 2)
		require.False(t, more)
		_, more, err = d.Keeper.(view.Elsewhere[string]).Look(ctx, view.Seat{}, view.PeekOptions{Most: 2, After: "x"})
		require.False(t, more)
		require.ErrorIs(t, err, message.ErrUnsupported)
		require.ErrorContains(t, err, `PeekOptions.After("x")`)
		e.Inject(fakeengine.Fault{Op: fakeengine.Receive, Nth: 1, Err: errBroken})
		_, more, err = d.Keeper.(view.Elsewhere[string]).Look(ctx, view.Seat{}, view.PeekOptions{Most: 2})
		require.ErrorIs(t, err, errBroken)
		require.False(t, more)
		_, err = view.Peek(ctx, q, 1)
		require.ErrorIs(t, err, message.ErrUnsupported, "those of the queue would be hidden from others")
		h.end(t)
	})
}

func TestARedriveMovesThoseThatAreChosen(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var told []string
		h := newHost(t, fakeengine.New(fakeengine.Config{MaxReceive: 10}), hooked(notice.Redriven, func(e notice.Event) { told = append(told, e.MessageID) }))
		q := h.buried(t, 200)
		asked := map[string]int{}
		moved, err := deadletter.Redrive(ctx, q, chosen(func(d *delivery.Delivery[string]) bool {
			asked[d.Body]++
			return d.Body < "070"
		}))
		require.NoError(t, err)
		require.Equal(t, 70, moved)
		require.Len(t, asked, 200)
		for body, times := range asked {
			require.Equal(t, 1, times, body)
		}
		require.ElementsMatch(t, names(70), told)
		require.EqualValues(t, 70, view.StatsOf(q).Redriven)
		h.requireKept(t, 70, 130)
		d := receive(t, q)
		require.Equal(t, 1, d.Attempt(), "it has spent nothing")
		require.Len(t, d.History(), 1)
		require.NoError(t, d.Release(ctx))

		c := &deadletter.Choice[string]{Letters: settings.Letters{IDs: map[string]bool{"100": false, "no such": false}}}
		moved, err = deadletter.Redrive(ctx, q, c)
		require.ErrorIs(t, err, message.ErrUnknownID)
		require.ErrorContains(t, err, `"no such"`)
		require.Equal(t, 1, moved)
		_, err = deadletter.Redrive(ctx, q, chosen(func(*delivery.Delivery[string]) bool { panic("boom") }))
		require.ErrorContains(t, err, "boom")
		h.requireKept(t, 71, 129)

		ended := make(chan bool)
		go func() { // the user's code ends the goroutine
			defer close(ended)
			_, _ = deadletter.Redrive(ctx, q, chosen(func(*delivery.Delivery[string]) bool { runtime.Goexit(); return false }))
		}()
		<-ended
		h.requireKept(t, 71, 129)

		dropped := 0
		deleted, err := deadletter.Delete(ctx, q, chosen(func(d *delivery.Delivery[string]) bool { dropped++; return d.Body >= "150" }))
		require.NoError(t, err)
		require.Equal(t, []int{50, 129}, []int{deleted, dropped})
		require.EqualValues(t, 50, view.StatsOf(q.DeadLetters()).Dropped)
		h.requireKept(t, 71, 79)
		h.end(t)
	})
}

// What dies again while a redrive runs is not redriven again by it.
func TestARedriveDoesNotChaseWhatDiesAgain(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		e := fakeengine.New(fakeengine.Config{MaxReceive: 1})
		h := newHost(t, e)
		q := h.buried(t, 5)
		time.Sleep(time.Second)
		deaths := 0
		work(t, q, 1, func(context.Context, delivery.Delivery[string]) error { deaths++; return message.Permanent(errBroken) })
		e.Inject(fakeengine.Fault{Op: fakeengine.Redrive, Latency: time.Second})
		moved, err := deadletter.Redrive(ctx, q, new(deadletter.Choice[string]))
		require.NoError(t, err)
		require.Equal(t, 5, moved)
		synctest.Wait()
		require.Equal(t, 5, deaths)
		h.requireKept(t, 0, 5)
		h.end(t)
	})
}

// Letters stay leased until all are met, however long that takes, and no longer.
func TestLettersAreMetOnceThoughTheirLeasesAreShort(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		e := fakeengine.New(fakeengine.Config{MaxReceive: 1})
		h := newHost(t, e)
		q := h.buried(t, 40, visible(time.Second))
		e.Inject(fakeengine.Fault{Op: fakeengine.Receive, Latency: 500 * time.Millisecond})
		began := time.Now()
		ds, err := view.Peek(ctx, q.DeadLetters(), 100)
		require.NoError(t, err)
		require.Equal(t, names(40), bodies(ds))
		require.Equal(t, 40*500*time.Millisecond+onengine.ProbeTime, time.Since(began), "and a second to know that there are no more")
		require.Positive(t, e.Calls(fakeengine.Extend))
		require.LessOrEqual(t, e.Calls(fakeengine.Extend), 6*40, "each grows longer")
		h.requireKept(t, 0, 40)
		h.end(t)
	})
}

// An engine that keeps no leases long enough is no endless loop.
func TestLeasesThatEndTooEarlyAreAnError(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		e := fakeengine.New(fakeengine.Config{MaxReceive: 1})
		h := newHost(t, e)
		q := h.buried(t, 20, visible(time.Second))
		e.Inject(fakeengine.Fault{Op: fakeengine.Receive, Latency: 900 * time.Millisecond})
		e.Inject(fakeengine.Fault{Op: fakeengine.Extend, Err: errBroken})
		ds, err := view.Peek(ctx, q.DeadLetters(), 100)
		require.ErrorContains(t, err, "letters come again before all are received: the engine is too slow for a visibility timeout of 1s")
		require.NotEmpty(t, ds)
		seen := map[string]bool{}
		for _, d := range ds {
			require.False(t, seen[d.Body], "twice")
			seen[d.Body] = true
		}
		e.Heal()
		elapse(time.Minute)
		e.Inject(fakeengine.Fault{Op: fakeengine.Redrive, Latency: time.Minute})
		moved, err := deadletter.Redrive(ctx, q, new(deadletter.Choice[string]))
		require.ErrorContains(t, err, "too slow for a visibility timeout of 1s")
		require.Zero(t, moved)
		elapse(time.Minute)
		h.requireKept(t, 0, 20)
		h.end(t)
	})
}

func TestALetterThatIsSomebodyElsesIsLeftAlone(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		e := fakeengine.New(fakeengine.Config{})
		h := newHost(t, e)
		q := h.buried(t, 10)
		e.Inject(fakeengine.Fault{Op: fakeengine.Redrive, Nth: 1, Err: engine.ErrStale})
		returned := e.Calls(fakeengine.Return)
		moved, err := deadletter.Redrive(ctx, q, new(deadletter.Choice[string]))
		require.ErrorIs(t, err, message.ErrStale)
		require.ErrorContains(t, err, "1 letters were not moved, and are in other hands")
		require.Equal(t, 9, moved)
		require.Equal(t, returned, e.Calls(fakeengine.Return), "it is not ours to give back")
		h.end(t)
	})
	bubble(t, func(t *testing.T, ctx context.Context) { // it comes again, and is moved then
		e := fakeengine.New(fakeengine.Config{MaxReceive: 5})
		h := newHost(t, e)
		q := h.buried(t, 10)
		e.Inject(fakeengine.Fault{Op: fakeengine.Redrive, Nth: 1, Latency: time.Minute})
		moved, err := deadletter.Redrive(ctx, q, new(deadletter.Choice[string]))
		require.NoError(t, err)
		require.Equal(t, 10, moved)
		h.requireKept(t, 10, 0)
		h.end(t)
	})
	bubble(t, func(t *testing.T, ctx context.Context) { // its lease can't be extended, nor is it tried again
		e := fakeengine.New(fakeengine.Config{MaxReceive: 1})
		h := newHost(t, e)
		q := h.buried(t, 2, visible(time.Second))
		e.Inject(fakeengine.Fault{Op: fakeengine.Receive, Latency: 700 * time.Millisecond})
		e.Inject(fakeengine.Fault{Op: fakeengine.Extend, Nth: 1, Err: engine.ErrStale})
		ds, err := view.Peek(ctx, q.DeadLetters(), 100)
		require.NoError(t, err)
		require.Equal(t, names(2), bodies(ds))
		require.Equal(t, []int{1, 1}, []int{e.Calls(fakeengine.Extend), e.Calls(fakeengine.Return)}, "nor given back")
		elapse(time.Minute)
		h.requireKept(t, 0, 2)
		h.end(t)
	})
	bubble(t, func(t *testing.T, ctx context.Context) { // a move that is half done is done once
		e := fakeengine.New(fakeengine.Config{MaxReceive: 1})
		h := newHost(t, e)
		q := h.buried(t, 10, visible(time.Second))
		e.Inject(fakeengine.Fault{Op: fakeengine.Redrive, Nth: 1, Halfway: true})
		e.Inject(fakeengine.Fault{Op: fakeengine.Receive, Latency: 500 * time.Millisecond})
		moved, err := deadletter.Redrive(ctx, q, new(deadletter.Choice[string]))
		require.NoError(t, err)
		require.Equal(t, 10, moved)
		h.requireKept(t, 10, 1)
		h.end(t)
	})
}

// What fails is told, a few of many, and the others are moved; those of one key only up to the
// first that fails.
func TestLettersThatAreNotMovedAreAnError(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		e := fakeengine.New(fakeengine.Config{})
		h := newHost(t, e)
		q := h.buried(t, 50)
		for k := range 7 {
			e.Inject(fakeengine.Fault{Op: fakeengine.Redrive, Nth: 1 + 5*k, Err: fmt.Errorf("failure %d", k)})
		}
		moved, err := deadletter.Redrive(ctx, q, new(deadletter.Choice[string]))
		require.ErrorContains(t, err, `fanout: redrive of "q": 7 letters were not moved: failure`)
		require.Equal(t, 43, moved)
		h.requireKept(t, 43, 7)
		h.end(t)
	})
	bubble(t, func(t *testing.T, ctx context.Context) {
		e := fakeengine.New(fakeengine.Config{})
		h := newHost(t, e, func(s *settings.Topic) { s.Ordering = true })
		q := h.open(t)
		for k, key := range []string{"x", "y", "x", "y", "x"} {
			require.NoError(t, h.on.Publish(ctx, []message.Item[string]{{Body: fmt.Sprint(k), Ext: &message.Extra{Key: key}}}, false))
			require.NoError(t, receive(t, q).Settle(ctx, message.Permanent(errBroken)))
			time.Sleep(time.Second)
		}
		e.Inject(fakeengine.Fault{Op: fakeengine.Redrive, Nth: 1, Err: errors.New("no room")})
		moved, err := deadletter.Redrive(ctx, q, new(deadletter.Choice[string]))
		require.ErrorContains(t, err, "no room")
		require.Contains(t, []int{2, 3}, moved, "those of the other key")
		e.Heal()
		more, err := deadletter.Redrive(ctx, q, new(deadletter.Choice[string]))
		require.NoError(t, err)
		require.Equal(t, 5, moved+more)
		last := map[string]string{}
		for range 5 {
			d := receive(t, q)
			require.Greater(t, d.Body, last[d.OrderingKey()], "in their order")
			last[d.OrderingKey()] = d.Body
			require.NoError(t, d.Ack(ctx))
		}
		h.end(t)
	})
}

// An engine that does not answer is not asked for each letter, and ends with the context.
func TestAnEngineThatDoesNotAnswerIsNotAskedForEachLetter(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		e := fakeengine.New(fakeengine.Config{})
		h := newHost(t, e)
		q := h.buried(t, 100)
		e.Inject(fakeengine.Fault{Op: fakeengine.Return, Latency: time.Hour})
		began := time.Now()
		ds, err := view.Peek(ctx, q.DeadLetters(), 100)
		require.ErrorContains(t, err, "100 letters were not given back, and are hidden until their leases end")
		require.Equal(t, 64, e.Calls(fakeengine.Return), "the others are not tried")
		require.Len(t, ds, 100)
		require.Equal(t, onengine.SettleTime, time.Since(began), "64 at a time")
		e.Heal()
		elapse(time.Minute)
		h.requireKept(t, 0, 100)

		e.Inject(fakeengine.Fault{Op: fakeengine.Receive, Latency: time.Hour})
		calls := e.Calls(fakeengine.Receive)
		soon, cancel := context.WithTimeout(ctx, 48*time.Second)
		defer cancel()
		_, err = view.Peek(soon, q.DeadLetters(), 1)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 7, e.Calls(fakeengine.Receive)-calls, "for 1, 2, 4, 8, 16 and 16 seconds, and the last one")
		e.Heal()
		e.Inject(fakeengine.Fault{Op: fakeengine.Receive, Err: errBroken})
		_, err = view.Peek(ctx, q.DeadLetters(), 1)
		require.ErrorIs(t, err, errBroken)
		e.Heal()
		e.Inject(fakeengine.Fault{Op: fakeengine.Receive, Latency: time.Hour})
		e.Inject(fakeengine.Fault{Op: fakeengine.Stats, Err: errBroken})
		_, err = deadletter.Redrive(ctx, q, new(deadletter.Choice[string]))
		require.ErrorIs(t, err, errBroken)
		e.Heal()
		h.end(t)
	})
}
