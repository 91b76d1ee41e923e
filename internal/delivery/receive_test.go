package delivery

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/lifecycle"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
)

func TestAReceiveTakesWhatThereIsAndWaitsForTheFirst(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t)
		h.publish(1, 2, 3)
		ds := make([]Delivery[int], 2)
		n, err := TakeInto(ctx, h.q, ds, time.Minute)
		require.NoError(t, err)
		require.Equal(t, 2, n)
		require.Equal(t, []int{1, 2}, bodiesOf(ds))
		require.True(t, time.Now().Add(time.Minute).Equal(ds[1].Deadline()))
		n, err = TakeInto(ctx, h.q, ds, time.Second)
		require.NoError(t, err)
		require.Equal(t, 1, n, "it does not wait for a second")
		require.Equal(t, 3, ds[0].Body)

		began := time.Now()
		time.AfterFunc(30*time.Second, func() { h.publish(4, 5) })
		batch, err := TakeBatch(ctx, h.q, 10, time.Hour)
		require.NoError(t, err)
		require.Equal(t, []int{3}, bodiesOf(batch), "its second attempt, when it has timed out")
		require.Equal(t, time.Second, time.Since(began))
		require.NoError(t, batch[0].Ack(ctx))
		batch, err = TakeBatch(ctx, h.q, 10, time.Hour)
		require.NoError(t, err)
		require.Equal(t, []int{4, 5}, bodiesOf(batch))
		require.Equal(t, 30*time.Second, time.Since(began))
		require.LessOrEqual(t, cap(batch), 2, "it is as long as there was something for it")
		var one Delivery[int]
		time.AfterFunc(time.Second, func() { h.publish(6) })
		require.NoError(t, TakeOne(ctx, h.q, &one, time.Hour))
		require.Equal(t, 6, one.Body)
		require.Equal(t, 31*time.Second, time.Since(began))
		h.end(t)
	})
}

func TestATryDoesNotWait(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t)
		requireNone(t, h.q)
		h.publish(1)
		d := receive(t, h.q)
		require.Equal(t, 1, d.Body)
		require.True(t, time.Now().Add(10*time.Second).Equal(d.Deadline()))
		requireNone(t, h.q)
		require.Zero(t, receivers(h.q))
		h.end(t)
	})
}

// An ended context takes nothing, though there is something.
func TestAnEndedContextTakesNothing(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t)
		h.publish(1)
		ended, cancel := context.WithCancelCause(ctx)
		cancel(errBusy)
		var d Delivery[int]
		ok, tried := TryTake(ended, h.q, &d, time.Hour)
		require.False(t, ok)
		n, into := TakeInto(ended, h.q, make([]Delivery[int], 1), time.Hour)
		require.Zero(t, n)
		ds, batch := TakeBatch(ended, h.q, 1, time.Hour)
		require.Nil(t, ds)
		for _, err := range []error{tried, into, batch, TakeOne(ended, h.q, &d, time.Hour)} {
			require.EqualError(t, err, `fanout: receive from "q": context canceled: busy`)
			require.ErrorIs(t, err, context.Canceled)
			require.ErrorIs(t, err, errBusy)
		}
		require.Equal(t, counts{ready: 1}, countsOf(h.q))
		h.end(t)
	})
}

func TestAWaitEndsWithItsContextAndWithTheQueue(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t)
		began := time.Now()
		soon, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		_, err := TakeBatch(soon, h.q, 1, time.Hour)
		require.Equal(t, time.Second, time.Since(began))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.NotErrorIs(t, err, message.ErrClosed)
		require.Zero(t, receivers(h.q))

		time.AfterFunc(time.Second, func() { lifecycle.Close(h.q) })
		_, err = TakeBatch(ctx, h.q, 1, time.Hour)
		require.Equal(t, 2*time.Second, time.Since(began))
		require.EqualError(t, err, `fanout: receive from "q": fanout: closed`)
		require.ErrorIs(t, err, ErrQueueClosed)
		var d Delivery[int]
		ok, tried := TryTake(ctx, h.q, &d, time.Hour)
		require.False(t, ok)
		for _, err := range []error{tried, TakeOne(ctx, h.q, &d, time.Hour)} {
			require.ErrorIs(t, err, ErrQueueClosed)
		}
		closed, cancelClosed := context.WithCancelCause(ctx)
		cancelClosed(message.ErrClosed)
		require.NotErrorIs(t, ReceiveError(h.q, message.ContextError(closed)), ErrQueueClosed, "it is another's")
		h.Release()
		<-h.Live.Awaitable()
	})
}

func TestAPausedQueueGivesOutNothing(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t)
		require.NoError(t, lifecycle.Pause(ctx, h.q))
		h.publish(1)
		requireNone(t, h.q)
		began := time.Now()
		time.AfterFunc(time.Second, func() { lifecycle.Resume(ctx, h.q) })
		require.Equal(t, []int{1}, bodiesOf(batch(t, h.q, 1)))
		require.Equal(t, time.Second, time.Since(began))
		h.end(t)
	})
}

// wait starts a receiver of one message, and waits until it stands in line.
func (h *home) wait(ctx context.Context) <-chan Delivery[int] {
	got := make(chan Delivery[int], 1)
	go func() {
		defer close(got)
		if ds, err := TakeBatch(ctx, h.q, 1, time.Hour); err == nil {
			got <- ds[0]
		}
	}()
	synctest.Wait()
	return got
}

func TestReceiversGetMessagesInTheOrderOfTheirCalls(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t)
		a, b, c := h.wait(ctx), h.wait(ctx), h.wait(ctx)
		h.q.Locked(func() { require.True(t, h.q.Group.Receivers.Wake()) })
		synctest.Wait() // a was woken in vain, and keeps its place
		require.EqualValues(t, 3, receivers(h.q))
		for k, ch := range []<-chan Delivery[int]{a, b} {
			h.publish(k)
			synctest.Wait()
			require.Equal(t, k, (<-ch).Body)
		}
		require.EqualValues(t, 1, receivers(h.q))
		h.publish(2)
		require.Equal(t, 2, (<-c).Body)
		h.publish(3, 4)
		require.Equal(t, []int{3, 4}, []int{(<-h.wait(ctx)).Body, (<-h.wait(ctx)).Body})
		h.end(t)
	})
}

// Messages that are published together wake as many as they are.
func TestAReceiverWakesTheNextWhileThereIsMore(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t)
		a, b, c := h.wait(ctx), h.wait(ctx), h.wait(ctx)
		began := time.Now()
		h.publish(1, 2, 3)
		synctest.Wait()
		require.Equal(t, counts{inFlight: 3}, countsOf(h.q))
		require.Equal(t, began, time.Now(), "at once")
		require.Equal(t, 6, (<-a).Body+(<-b).Body+(<-c).Body)
		h.end(t)
	})
}

// A context that ends when told to, without its Done.
type quiet struct {
	context.Context
	at  int32 // the call of Err that ends it
	end func() error
	n   atomic.Int32
}

func (c *quiet) Err() error {
	if c.n.Add(1) >= c.at {
		return c.end()
	}
	return nil
}

// A receiver that was woken and takes nothing wakes the next, however it ended.
func TestAReceiverThatTakesNothingHandsItsWakeUpOn(t *testing.T) {
	for name, end := range map[string]func() error{
		"its context ended":       func() error { return context.Canceled },
		"its context ended a run": func() error { runtime.Goexit(); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				h := newHome(t)
				a := h.wait(&quiet{Context: ctx, at: 2, end: end})
				b := h.wait(ctx)
				h.publish(1)
				_, ok := <-a
				require.False(t, ok)
				synctest.Wait()
				require.Equal(t, 1, (<-b).Body)
				require.Zero(t, receivers(h.q))
				h.end(t)
			})
		})
	}
}

// A hook that ends the goroutine of who received leaves the message in flight, and the
// others in line.
func TestAHookMayEndTheReceiver(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		n := 0
		h := newHome(t, hooked(notice.Delivered, func(notice.Event) {
			if n++; n == 1 {
				runtime.Goexit()
			}
		}))
		a, b := h.wait(ctx), h.wait(ctx)
		h.publish(1)
		_, ok := <-a
		require.False(t, ok)
		synctest.Wait()
		require.Equal(t, counts{inFlight: 1}, countsOf(h.q))
		require.EqualValues(t, 1, receivers(h.q))
		h.publish(2)
		require.Equal(t, 2, (<-b).Body)
		h.end(t)
	})
}

// A context that panics takes its receiver out of the line.
func TestAReceiverWhoseContextPanicsLeavesTheLine(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t)
		recovered := make(chan any)
		go func() {
			defer func() { recovered <- recover() }()
			_, _ = TakeBatch(&quiet{Context: ctx, at: 2, end: func() error { panic("boom") }}, h.q, 1, time.Hour)
		}()
		synctest.Wait()
		h.q.Locked(func() { h.q.Group.Receivers.Wake() })
		require.Equal(t, "boom", <-recovered)
		require.Zero(t, receivers(h.q))
		h.publish(1)
		receive(t, h.q)
		h.end(t)
	})
}

// One whose context ends and panics then leaves the line, though nobody has woken it.
func TestAReceiverThatPanicsUnwokenLeavesTheLine(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t)
		inner, cancel := context.WithCancel(ctx)
		recovered := make(chan any)
		go func() {
			defer func() { recovered <- recover() }()
			_, _ = TakeBatch(&quiet{Context: inner, at: 2, end: func() error { panic("boom") }}, h.q, 1, time.Hour)
		}()
		synctest.Wait()
		b := h.wait(ctx)
		cancel()
		require.Equal(t, "boom", <-recovered)
		require.EqualValues(t, 1, receivers(h.q))
		h.publish(1)
		require.Equal(t, 1, (<-b).Body)
		h.end(t)
	})
}

// One that was woken in vain is woken again by the next message.
func TestAReceiverThatWasWokenInVainIsWokenAgain(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t)
		a := h.wait(ctx)
		h.Idle.Mu.Lock()
		h.Idle.TakeLocked() // as a publisher does whose message somebody else takes
		h.Idle.Mu.Unlock()
		h.q.Locked(func() { require.True(t, h.q.Group.Receivers.Wake()) })
		synctest.Wait()
		h.publish(1)
		require.Equal(t, 1, (<-a).Body)
		h.end(t)
	})
}

// A hook that ends the receiver takes nobody else out of the line, who may wait with what the
// receiver waited with.
func TestAHookThatEndsTheReceiverTakesNobodyElseOut(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var h *home
		var b <-chan Delivery[int]
		h = newHome(t, hooked(notice.Delivered, func(e notice.Event) {
			if b == nil {
				b = h.wait(ctx)
				runtime.Goexit()
			}
		}))
		a := h.wait(ctx)
		h.publish(1)
		_, ok := <-a
		require.False(t, ok)
		require.EqualValues(t, 1, receivers(h.q))
		h.publish(2)
		require.Equal(t, 2, (<-b).Body)
		h.end(t)
	})
}

// Whoever waits gets what is given back.
func TestAReceiverGetsWhatIsReleased(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t)
		h.publish(1)
		d := receive(t, h.q)
		a := h.wait(ctx)
		began := time.Now()
		require.NoError(t, d.Release(ctx))
		require.Equal(t, 1, (<-a).Body)
		require.Equal(t, began, time.Now(), "at once")
		h.end(t)
	})
}

func TestAwaitSaysWhatTheTakerTook(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t)
		calls := 0
		require.NoError(t, Await(ctx, h.q, func() bool { calls++; return true }))
		require.Equal(t, 1, calls)
		ended, cancel := context.WithCancel(ctx)
		cancel()
		require.ErrorIs(t, Await(ended, h.q, func() bool { calls++; return true }), context.Canceled)
		require.Equal(t, 1, calls, "nothing is taken for an ended context")
		require.NoError(t, lifecycle.Close(h.q))
		require.ErrorIs(t, Await(ctx, h.q, func() bool { calls++; return true }), ErrQueueClosed)
		require.Equal(t, 1, calls)
		require.True(t, errors.Is(ErrQueueClosed, message.ErrClosed))
		h.Release()
		<-h.Live.Awaitable()
	})
}
