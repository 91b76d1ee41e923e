package topic

import (
	"context"
	"fmt"
	"log/slog"
	"reflect"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/handling"
	"github.com/gofanout/fanout/internal/lifecycle"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/settings"
	"github.com/gofanout/fanout/internal/view"
)

// The tests in this file are interleavings that went wrong once, or could. Most
// are made to happen exactly: by a hook that runs in between, or by holding the
// lock that one of the two needs next.

// within fails the test, and tells what the topic holds, if ch isn't closed soon.
func within[T any](t *testing.T, top *Topic[T], ch <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-ch:
	case <-time.After(30 * time.Second):
		require.Fail(t, "it takes too long: "+what, dump(top))
	}
}

func isOpen(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return false
	default:
		return true
	}
}

func TestPromise03TheBooksBalanceWhileAPublishDrops(t *testing.T) {
	for _, policy := range []settings.Overflow{settings.DropOldest, settings.DropNewest} {
		t.Run(policy.String(), func(t *testing.T) {
			top := newTopic[int](t)
			q := openQueue(t, top, "q", WithCapacity(1), WithOverflow(policy))
			next := openQueue(t, top, "next", WithCapacity(1), WithOverflow(policy))
			publish(t, top, 1)
			receive(t, q)

			next.Mu.Lock() // the publisher looks at q, then at next
			done := make(chan struct{})
			go func() {
				defer close(done)
				_ = top.In.Publish(context.Background(), 2)
			}()
			require.Eventually(t, func() bool { return view.StatsOf(q).Dropped == 1 }, 10*time.Second, time.Millisecond)
			s := view.StatsOf(q)
			next.Mu.Unlock()
			<-done
			require.Equal(t, uint64(s.Published), s.Dropped+uint64(s.Unsettled()), "%+v", s)
			check(t, top)
			top.Close()
		})
	}
}

// deref is an error of the kind that is returned as a nil pointer by mistake.
type deref struct{ err error }

func (e *deref) Error() string { return "deref" }
func (e *deref) Unwrap() error { return e.err }

func TestPromise05AnErrorThatPanicsWhenItIsLookedAtFailsItsAttemptOnly(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		s := subscribe(t, top, "q", func(_ context.Context, d delivery.Delivery[int]) error {
			switch d.Body {
			case 1:
				var e *deref
				return e
			case 2:
				var e *deref
				panic(e)
			case 3: // too late, and then it panics
				_ = d.Ack(ctx)
				var e *deref
				panic(e)
			}
			return nil
		}, WithMaxAttempts(1))
		publish(t, top, 1, 2, 3, 4)
		synctest.Wait()
		st := view.StatsOf(s.Queue())
		require.Equal(t, [2]uint64{2, 2}, [2]uint64{st.Acked, st.Panicked})
		require.Equal(t, 2, st.Dead)
		check(t, top)
		top.Close()
	})
}

func TestPromise05ATimeoutCancelsNoLaterRun(t *testing.T) {
	top := newTopic[int](t)
	type run struct {
		body int
		end  chan struct{}
	}
	runs := make(chan run, 10)
	causes := make(chan error, 10)
	var first atomic.Pointer[handling.Context]
	q := openQueue(t, top, "q", WithVisibilityTimeout(100*time.Millisecond), WithMaxAttempts(1))
	_, err := subscribeTo(q, context.Background(), func(ctx context.Context, d delivery.Delivery[int]) error {
		r := run{d.Body, make(chan struct{})}
		if d.Body == 1 {
			first.Store(ctx.(*handling.Context))
		}
		if d.Body == 3 {
			_ = d.Extend(ctx, time.Hour)
		}
		runs <- r
		<-r.end
		if d.Body == 3 {
			causes <- context.Cause(ctx)
		}
		return nil
	}, WithConcurrency(2))
	require.NoError(t, err)
	publish(t, top, 1)
	one := <-runs
	publish(t, top, 2)
	two := <-runs

	// Both time out; the cancellation of the first is held up, and with it that
	// of the second, whose worker goes on meanwhile.
	hold := make(chan struct{})
	held := make(chan struct{})
	go first.Load().Hold(func() { close(held); <-hold })
	<-held
	for view.StatsOf(q).TimedOut < 2 {
		runtime.Gosched()
	}
	publish(t, top, 3)
	close(two.end)
	three := <-runs
	require.Equal(t, 3, three.body)
	close(hold)
	time.Sleep(50 * time.Millisecond)
	close(three.end)
	require.NoError(t, <-causes, "the context belongs to a delivery that has an hour left")
	close(one.end)
	require.NoError(t, top.Shutdown(context.Background()))
	within(t, top, top.Done(), "the end")
}

func TestPromise10ALetterThatIsToldOfWhileItsQueueClosesEndsNothingTwice(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var d *queue.Queue[int]
		d, err := NewDeadLetterQueue[int]("shared", WithLogger(slog.New(slog.DiscardHandler)))
		require.NoError(t, err)
		d.Report.Tell(notice.Dropped, notice.Event{Count: 1}) // a line is logged: the next is to wait for its second
		mu := (*sync.Mutex)(reflect.ValueOf(&d.Report).Elem().FieldByName("mu").Addr().UnsafePointer())
		mu.Lock() // holds Close up where it stops the reporter
		closed := make(chan struct{})
		go func() {
			defer close(closed)
			_ = lifecycle.Close(d)
		}()
		for open := true; open; runtime.Gosched() {
			d.Mu.Lock()
			open = !d.Store.Closed
			d.Mu.Unlock()
		}
		alive := d.Core.Live.N.Load()
		mu.Unlock()
		<-closed
		require.Positive(t, alive, "a timer that the reporter arms now would be nobody's")
		require.NoError(t, lifecycle.Close(d))
		require.False(t, isOpen(d.Core.Live.Awaitable()))
	})
}

func TestPromise11WhatIsReplayedCanBeDueBeforeItsQueueIsOpen(t *testing.T) {
	top := newTopic[int](t, WithRetention(100))
	for n, delay := range []time.Duration{time.Nanosecond, time.Hour} {
		require.NoError(t, top.PublishMessages(context.Background(), message.Published[int]{Body: n, Delay: delay}))
	}
	for range 300 {
		q := openQueue(t, top, "q", WithReplay(100))
		require.Eventually(t, func() bool { return view.StatsOf(q).Ready == 1 }, 10*time.Second, 100*time.Microsecond)
		check(t, top)
		require.NoError(t, lifecycle.Close(q))
	}
	require.NoError(t, top.Close())
	within(t, top, top.Done(), "the end")
}

// A publisher that has taken the list of idle queues owns nothing that keeps the
// topic alive, unless it says so while they are in the list.
func TestPromise10ClosingWhileAPublisherWakesManyQueues(t *testing.T) {
	rounds := 1500
	if testing.Short() {
		rounds = 200
	}
	for range rounds {
		top := newTopic[int](t)
		var received sync.WaitGroup
		ctx := context.Background()
		for n := range 2 * queue.WakesItself {
			q := openQueue(t, top, string(rune('A'+n)))
			received.Go(func() {
				if d, err := receiveFrom(q, ctx); err == nil {
					_ = d.Ack(ctx)
				}
			})
		}
		for top.In.Idle.N.Load() <= queue.WakesItself {
			runtime.Gosched()
		}
		received.Go(func() { _ = top.In.Publish(ctx, 1) })
		received.Go(func() { _ = top.Close() })
		received.Wait()
		within(t, top, top.Done(), "the end")
	}
}

func TestPromise11AWaitingReceiverThatWasWokenInVainKeepsItsPlace(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "q")
		got := make(chan [2]int, 2)
		for n := range 2 {
			go func() {
				d, _ := receiveFrom(q, ctx)
				got <- [2]int{n, d.Body}
			}()
			synctest.Wait()
		}
		q.Mu.Lock() // the first is woken, and somebody else is quicker
		q.Group.Receivers.Wake()
		q.Mu.Unlock()
		synctest.Wait()
		publish(t, top, 1)
		require.Equal(t, [2]int{0, 1}, <-got)
		publish(t, top, 2)
		require.Equal(t, [2]int{1, 2}, <-got)
		top.Close()
	})
}

func TestPromise12TheTimerStopsWhenWhatItWaitsForIsDropped(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "q", WithCapacity(2), WithOverflow(settings.DropOldest),
			WithBackoff(settings.Constant(time.Hour)), WithMaxAttempts(1),
			WithDeadLetterCapacity(1), WithDeadLetterOverflow(settings.DropOldest))
		publish(t, top, 1)
		require.NoError(t, receive(t, q).Settle(ctx, message.Snooze(time.Hour)))
		check(t, top)
		publish(t, top, 2, 3)
		require.Equal(t, []int{2, 3}, bodies(t, q))
		check(t, top)

		require.NoError(t, receive(t, q).Nack(ctx))
		require.NoError(t, receive(t, q.DeadLetters()).Nack(ctx)) // waits for its backoff
		require.NoError(t, receive(t, q).Nack(ctx))
		require.Equal(t, []int{3}, bodies(t, q.DeadLetters()))
		check(t, top)
		top.Close()
	})
}

// dump tells what the topic and its queues hold, for a test that hangs.
func dump[T any](top *Topic[T]) string {
	s := ""
	line := func(format string, args ...any) { s += fmt.Sprintf(format, args...) + "\n" }
	line("%+v; alive: %d", top.Stats(), top.In.Live.N.Load())
	for _, q := range top.Queues() {
		line("%+v", view.StatsOf(q))
		q.Mu.Lock()
		line("  allow %d, room wanted %d, receivers %d, subscribers %d, armed %t, asleep at %d",
			q.Store.Allow.Load(), q.RoomWanted.Load(), q.Group.Receivers.N, len(q.Group.Subs), q.Alarm.Armed, q.IdleAt)
		q.Mu.Unlock()
	}
	buf := make([]byte, 1<<20)
	return s + string(buf[:runtime.Stack(buf, true)])
}

// A message that is settled as the first thing that is looked at of it in its
// lease starts, for its history, when it is settled: not after that.
func TestNoAttemptEndsBeforeItStarts(t *testing.T) {
	ctx := t.Context()
	for name, consume := range map[string]func(q *queue.Queue[int]){
		"a handler that fails": func(q *queue.Queue[int]) {
			_, _ = subscribeTo(q, ctx, func(context.Context, delivery.Delivery[int]) error { return errBusy })
		},
		"a handler that settles": func(q *queue.Queue[int]) {
			_, _ = subscribeTo(q, ctx, func(ctx context.Context, d delivery.Delivery[int]) error { return d.Nack(ctx) })
		},
		"a batch handler that fails": func(q *queue.Queue[int]) {
			_, _ = subscribeBatchTo(q, ctx, func(context.Context, []delivery.Delivery[int]) error { return errBusy })
		},
		"a range": func(q *queue.Queue[int]) {
			for d, err := range deliveriesOf(q, ctx) {
				if err != nil || d.Nack(ctx) != nil || d.Body == ofPrefetched-1 {
					break
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			top := newTopic[int](t)
			q := openQueue(t, top, "q", WithMaxAttempts(1))
			publishOnce(t, top, ofPrefetched)
			consume(q)
			require.NoError(t, top.Shutdown(ctx))
			letters, err := view.Peek(ctx, q.DeadLetters(), message.Unlimited)
			require.NoError(t, err)
			require.Len(t, letters, ofPrefetched)
			for _, l := range letters {
				a := l.History()[0]
				require.GreaterOrEqual(t, a.Elapsed, time.Duration(0), "message %d", l.Body)
			}
			<-top.Done()
		})
	}
}

// A worker whose messages never end does not come to ask for what waits in
// another's lease, whatever became of the message before it: the timer does.
func TestNothingWaitsForLongInAHandBesideAWorkerThatIsBusy(t *testing.T) {
	for name, slow := range map[string]func(ctx context.Context, d delivery.Delivery[int]) error{
		"its handler only waits": func(context.Context, delivery.Delivery[int]) error { time.Sleep(time.Hour); return nil },
		"its handler acknowledges": func(ctx context.Context, d delivery.Delivery[int]) error {
			defer time.Sleep(time.Hour)
			return d.Ack(ctx)
		},
		"its handler extends": func(ctx context.Context, d delivery.Delivery[int]) error {
			defer time.Sleep(time.Hour)
			return d.Extend(ctx, 2*time.Hour)
		},
		"its handler looks": func(ctx context.Context, d delivery.Delivery[int]) error {
			d.Deadline()
			time.Sleep(time.Hour)
			return nil
		},
		"it is dead, and a hook waits": func(context.Context, delivery.Delivery[int]) error { return message.Permanent(errBusy) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				top := newTopic[int](t, WithHooks(Hooks{DeadLettered: func(Event) { time.Sleep(time.Hour) }}))
				g := newGot()
				const at = 100
				more := make(chan struct{})
				subscribe(t, top, "q", func(ctx context.Context, d delivery.Delivery[int]) error {
					g.add(d.Body)
					switch {
					case d.Body == at:
						return slow(ctx, d)
					case d.Body > at && isOpen(more):
						time.Sleep(2 * time.Millisecond)
						return top.In.Publish(context.Background(), ofPrefetched)
					}
					return nil
				}, WithConcurrency(2), WithVisibilityTimeout(2*time.Hour))
				publishOnce(t, top, ofPrefetched)
				elapse(time.Minute)
				g.mutex <- struct{}{}
				for body := range ofPrefetched {
					assert.Len(t, g.when[body], 1, "message %d", body)
				}
				<-g.mutex
				close(more)
				elapse(2 * time.Hour)
				check(t, top)
				require.NoError(t, top.Shutdown(ctx))
				<-top.Done()
			})
		})
	}
}
