package admission

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/queue"
)

// An outcome is what a handler's publish returned.
type outcome struct {
	body int
	err  error
}

// publishing starts a handler that publishes what it is told to by commands, from inside of its run.
func publishing(t *testing.T, q *queue.Queue[int], to *home[int]) (commands chan int, outcomes chan outcome) {
	commands, outcomes = make(chan int), make(chan outcome, 10)
	handle(t, q, 1, func(ctx context.Context, _ delivery.Delivery[int]) error {
		for body := range commands {
			outcomes <- outcome{body, to.Publish(ctx, body)}
		}
		return nil
	})
	return commands, outcomes
}

// A topic that begins to end takes what running handlers of those publish that end with it,
// and nothing else. Who waits, and is not one of them, is told.
func TestWhatATopicTakesAsItEnds(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h, other, third := newHome[int](t), newHome[int](t), newHome[int](t)
		q := h.open("q", capacity(1))
		odd := func(n int) bool { return n%2 == 1 }
		dead := h.open("dead", accepting(func(n int) bool { return n == 8 }), capacity(1))
		h.publish(t, 8)
		kill(t, dead)
		require.NoError(t, receive(t, q).Ack(ctx))
		h.publish(t, 8)
		var own, others, thirds chan int
		var ownOut, othersOut, thirdsOut chan outcome
		own, ownOut = publishing(t, h.open("own", accepting(odd)), h)
		others, othersOut = publishing(t, other.open("other"), h)
		thirds, thirdsOut = publishing(t, third.open("third"), h)
		require.NoError(t, receive(t, q).Ack(ctx))
		h.publish(t, 1)
		other.publish(t, 1)
		third.publish(t, 1)
		synctest.Wait()

		waits := h.waiting(ctx, message.Published[int]{Body: 2})
		redriven := make(chan error, 1)
		go func() {
			_, err := redrive(ctx, dead)
			redriven <- err
		}()
		own <- 4
		others <- 6
		synctest.Wait()
		h.Mu.Lock()
		require.Equal(t, []bool{true, false}, []bool{h.IsOpenLocked(), h.IsClosedLocked()})
		h.Mu.Unlock()
		require.Equal(t, 4, h.stats().Waiting)

		h.shutdown()
		require.ErrorIs(t, requireDecided(t, waits), message.ErrClosed)
		require.ErrorIs(t, requireDecided(t, redriven), message.ErrClosed)
		require.ErrorIs(t, (<-othersOut).err, message.ErrClosed)
		require.Equal(t, 1, h.stats().Waiting, "the topic's own handler goes on")
		h.Mu.Lock()
		require.Equal(t, []bool{false, false}, []bool{h.IsOpenLocked(), h.IsClosedLocked()})
		h.Mu.Unlock()
		require.ErrorIs(t, h.Publish(ctx, 10), message.ErrClosed)
		require.ErrorIs(t, h.PublishBatch(ctx, []message.Published[int]{{Body: 10}}), message.ErrClosed)
		_, err := redrive(ctx, dead)
		require.ErrorIs(t, err, message.ErrClosed)
		require.ErrorIs(t, h.Stamp(ctx, make([]message.Item[int], 1)), message.ErrClosed)
		for _, body := range []int{1, 4} {
			d := receive(t, q)
			require.Equal(t, body, d.Body)
			require.NoError(t, d.Ack(ctx))
			synctest.Wait()
		}
		require.Equal(t, outcome{4, nil}, <-ownOut)
		h.check(t)

		h.Mu.Lock()
		tell := h.BeginClosingLocked(map[any]bool{other.Core: true}) // another Shutdown
		h.Unlock()
		tell()
		others <- 12
		require.Equal(t, outcome{12, nil}, <-othersOut)
		require.NoError(t, receive(t, q).Ack(ctx))
		own <- 14
		require.Equal(t, outcome{14, nil}, <-ownOut)
		thirds <- 16
		require.ErrorIs(t, (<-thirdsOut).err, message.ErrClosed)
		own <- 18
		synctest.Wait()
		require.Empty(t, ownOut, "it waits")

		h.Mu.Lock()
		tell = h.CloseLocked()
		h.Unlock()
		tell()
		require.ErrorIs(t, (<-ownOut).err, message.ErrClosed)
		others <- 20
		require.ErrorIs(t, (<-othersOut).err, message.ErrClosed)
		require.ErrorIs(t, h.Publish(ctx, 22), message.ErrClosed)
		h.Mu.Lock()
		tell = h.BeginClosingLocked(map[any]bool{other.Core: true})
		require.True(t, h.IsClosedLocked(), "it does not open again")
		require.False(t, h.IsOpenLocked())
		h.Unlock()
		tell()
		others <- 24
		require.ErrorIs(t, (<-othersOut).err, message.ErrClosed)
		close(own)
		close(others)
		close(thirds)
		h.end(t)
		other.end(t)
		third.end(t)
	})
}

// Nobody publishes with the context of a handler that has returned, once the topic ends.
func TestAHandlerThatHasReturnedIsNone(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome[int](t)
		contexts := make(chan context.Context, 1)
		handle(t, h.open("q"), 1, func(ctx context.Context, _ delivery.Delivery[int]) error {
			contexts <- context.WithoutCancel(ctx)
			return nil
		})
		h.publish(t, 1)
		synctest.Wait()
		h.shutdown()
		require.ErrorIs(t, h.Publish(<-contexts, 2), message.ErrClosed)
		h.end(t)
	})
}

// One who waits in a handler that returns meanwhile is refused when the topic ends.
func TestAWaitThatOutlivesItsHandlerIsRefused(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome[int](t)
		full := h.open("full", capacity(1), accepting(func(n int) bool { return n > 1 }))
		h.publish(t, 2)
		leave := make(chan bool)
		errs := make(chan error, 3)
		handle(t, h.open("q", accepting(func(n int) bool { return n == 1 })), 1, func(ctx context.Context, _ delivery.Delivery[int]) error {
			for body := range 3 {
				go func() {
					time.Sleep(time.Duration(body) * time.Millisecond)
					errs <- h.Publish(context.WithoutCancel(ctx), 10+body)
				}()
			}
			<-leave
			return nil
		})
		h.publish(t, 1)
		elapse(time.Second)
		require.Equal(t, 3, h.stats().Waiting)
		h.shutdown()
		require.Empty(t, errs)
		close(leave)
		synctest.Wait()
		require.NoError(t, receive(t, full).Ack(ctx)) // they are looked at
		synctest.Wait()
		require.Len(t, errs, 3)
		for range 3 {
			require.ErrorIs(t, <-errs, message.ErrClosed)
		}
		require.Zero(t, h.stats().Waiting)
		h.check(t)
		h.end(t)
	})
}

func TestAClosedTopicForgetsAllThatItHas(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome[int](t, retaining(2), deduplicating(time.Hour, 10))
		q := h.open("q", capacity(2))
		h.open("late", delayed(time.Second), capacity(message.Unlimited))
		h.open("even", accepting(func(n int) bool { return n%2 == 0 }))
		h.publishAll(t, withID(1, "x"), withID(2, "y"))
		other := h.waiting(ctx, withID(3, "z"))
		h.Mu.Lock()
		h.TurnsOfLocked(q)
		require.True(t, h.HasTurnsLocked())
		tell := h.CloseLocked()
		require.False(t, h.HasTurnsLocked())
		require.Empty(t, h.endsWith)
		require.Zero(t, h.Admission.open.Len())
		require.Zero(t, h.directs)
		require.Empty(t, h.short)
		require.True(t, h.routes.None())
		require.Empty(t, h.RetainedLocked())
		n, armed := h.IDsLocked()
		require.Zero(t, n)
		require.False(t, armed)
		h.Unlock()
		tell()
		require.ErrorIs(t, requireDecided(t, other), message.ErrClosed)
		h.end(t)
	})
}

// An engineOf is an engine that keeps what it gets.
type engineOf struct {
	h     *home[int]
	err   error
	items []message.Item[int]
	tries []bool
}

func (e *engineOf) Publish(ctx context.Context, items []message.Item[int], try bool) error {
	if err := e.h.Stamp(ctx, items); err != nil {
		return err
	}
	e.items, e.tries = append(e.items, items...), append(e.tries, try)
	return e.err
}

// On an engine all goes to the engine, and queues get nothing from here.
func TestAnEngineGetsAllThatIsPublished(t *testing.T) {
	for _, dedup := range []int{0, 10} {
		for name, way := range ways {
			t.Run(name, func(t *testing.T) {
				bubble(t, func(t *testing.T, ctx context.Context) {
					h := newHome[int](t, deduplicating(time.Minute, dedup))
					e := &engineOf{h: h}
					h.PublishBy(e)
					for body := range 3 {
						elapse(time.Second)
						at := h.Now()
						require.NoError(t, way.publish(ctx, h, body))
						it := e.items[body]
						require.Equal(t, []any{body, uint64(body + 1), at}, []any{it.Body, it.Seq, it.At})
						require.Equal(t, !way.waits, e.tries[body])
					}
					e.err = errBusy
					require.ErrorIs(t, way.publish(ctx, h, 4), errBusy)
					require.Zero(t, h.log.Head())
					want := Stats{Topic: "payments", Published: 4}
					if dedup > 0 {
						want.Duplicates, want.Remembered, want.Forgotten = engine.Unknown, engine.Unknown, engine.Unknown
					}
					require.Equal(t, want, h.stats())
					h.Mu.Lock()
					tell := h.CloseLocked()
					h.Unlock()
					tell()
					require.ErrorIs(t, way.publish(ctx, h, 5), message.ErrClosed)
					require.Len(t, e.items, 4)
					h.end(t)
				})
			})
		}
	}
}

// While the topic ends, an engine gets what its handlers publish.
func TestAnEngineGetsWhatHandlersPublishAsTheTopicEnds(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h, source := newHome[int](t), newHome[int](t)
		e := &engineOf{h: h}
		h.PublishBy(e)
		commands, outcomes := publishing(t, source.open("q"), h)
		source.publish(t, 1)
		commands <- 1
		require.NoError(t, (<-outcomes).err)
		h.shutdown()
		commands <- 2
		require.ErrorIs(t, (<-outcomes).err, message.ErrClosed)
		h.Mu.Lock()
		tell := h.BeginClosingLocked(map[any]bool{source.Core: true})
		h.Unlock()
		tell()
		commands <- 3
		require.NoError(t, (<-outcomes).err)
		require.ErrorIs(t, h.Publish(ctx, 4), message.ErrClosed)
		require.Len(t, e.items, 2)
		require.EqualValues(t, 2, e.items[1].Seq)
		close(commands)
		h.end(t)
		source.end(t)
	})
}

// A topic retains its last messages, however they are published.
func TestATopicRetainsItsLastMessages(t *testing.T) {
	for n := range 4 {
		for name, way := range ways {
			t.Run(name, func(t *testing.T) {
				bubble(t, func(t *testing.T, ctx context.Context) {
					h := newHome[int](t, retaining(n))
					require.Equal(t, n > 0, h.Retains())
					h.open("q")
					for body := 1; body <= 9; body++ {
						require.NoError(t, way.publish(ctx, h, body))
						var want, got []int
						for b := max(body-n, 0) + 1; b <= body; b++ {
							want = append(want, b)
						}
						h.Mu.Lock()
						for _, it := range h.RetainedLocked() {
							require.EqualValues(t, it.Body, it.Seq)
							got = append(got, it.Body)
						}
						h.Mu.Unlock()
						require.Equal(t, want, got)
						require.Equal(t, len(want), h.stats().Retained)
					}
					h.end(t)
				})
			})
		}
	}
}
