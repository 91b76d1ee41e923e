package topic

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/ending"
	"github.com/gofanout/fanout/internal/lifecycle"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/settings"
	"github.com/gofanout/fanout/internal/view"
	"github.com/gofanout/fanout/internal/workers"
)

// A grip is a queue whose only worker has taken several messages from the log
// together, and stands in the handler of one of them: message 10 is in flight,
// those behind it wait in the worker's lease, and the rest is in the log.
type grip struct {
	top *Topic[int]
	q   *queue.Queue[int]
	s   *workers.Subscriber[int]
	at  int // the message in flight, 10 if nothing else is said
	// release lets it go on; its handler returns the error sent.
	release chan error

	mu      sync.Mutex
	handled []int // in the order of their starts
	ctx     context.Context
	held    delivery.Delivery[int] // the message in flight
}

const gripAt = 10

func newGrip(t *testing.T, messages int, options ...SubscribeOption) *grip {
	g := newGripAt(t, gripAt, messages, options...)
	g.q.Mu.Lock()
	waiting := g.q.Store.Leases.Waiting()
	g.q.Mu.Unlock()
	require.Positive(t, waiting, "nothing waits in the lease")
	return g
}

// newGripAt is newGrip for another message, behind which nothing may wait in the lease.
func newGripAt(t *testing.T, at, messages int, options ...SubscribeOption) *grip {
	g := &grip{top: newTopic[int](t), at: at, release: make(chan error)}
	g.s = subscribe(t, g.top, "q", g.handle, options...)
	g.q = g.s.Queue()
	ms := make([]message.Published[int], messages)
	for n := range ms {
		ms[n].Body = n
	}
	require.NoError(t, g.top.PublishMessages(t.Context(), ms...))
	synctest.Wait()
	return g
}

func (g *grip) handle(ctx context.Context, d delivery.Delivery[int]) error {
	g.mu.Lock()
	g.handled = append(g.handled, d.Body)
	first := d.Body == g.at && d.Attempt() == 1
	if first {
		g.ctx, g.held = ctx, d
	}
	g.mu.Unlock()
	if first {
		return <-g.release
	}
	return nil
}

func (g *grip) order() []int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.handled)
}

// to is from, from+1, ... up to and with last.
func to(from, last int) (ns []int) {
	for n := from; n <= last; n++ {
		ns = append(ns, n)
	}
	return ns
}

func (g *grip) end() {
	close(g.release)
	g.top.Close()
	<-g.top.Done()
}

func TestWhatWaitsInALeaseIsReadyToAllWhoLook(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		g := newGrip(t, 20)
		s := view.StatsOf(g.q)
		require.Equal(t, []int{9, 1}, []int{s.Ready, s.InFlight})
		require.Equal(t, []uint64{20, 11, 10}, []uint64{uint64(s.Published), s.Delivered, s.Acked})
		require.Equal(t, to(11, 19), bodies(t, g.q))
		check(t, g.top)
		g.end()
	})
}

func TestAReceiverTakesWhatWaitsInALease(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		g := newGrip(t, 20)
		var got []int
		for range 9 {
			d := receive(t, g.q)
			got = append(got, d.Body)
			require.NoError(t, d.Ack(ctx))
			check(t, g.top)
		}
		requireEmpty(t, g.q)
		require.ElementsMatch(t, to(11, 19), got)
		g.release <- nil
		synctest.Wait()
		require.Equal(t, to(0, 10), g.order())
		require.EqualValues(t, 20, view.StatsOf(g.q).Acked)
		g.end()
	})
}

func TestAReceiverThatWaitsIsGivenWhatWaitsInALease(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		g := newGrip(t, 13)
		for n := 11; n < 13; n++ {
			d, err := receiveFrom(g.q, ctx)
			require.NoError(t, err)
			require.Equal(t, n, d.Body)
			require.NoError(t, d.Ack(ctx))
		}
		g.end()
	})
}

func TestNoMessageWaitsInALeaseWhileAnotherWorkerIsIdle(t *testing.T) {
	for _, row := range []struct {
		name string
		join func(t *testing.T, g *grip)
	}{
		{"of the same subscriber", nil},
		{"of one that comes later", func(t *testing.T, g *grip) {
			_, err := subscribeTo(g.q, t.Context(), g.handle)
			require.NoError(t, err)
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				var g *grip
				if row.join == nil {
					g = &grip{top: newTopic[int](t), at: gripAt, release: make(chan error)}
					g.s = subscribe(t, g.top, "q", g.handle, WithConcurrency(2))
					g.q = g.s.Queue()
					require.NoError(t, lifecycle.Pause(ctx, g.q))
					publish(t, g.top, to(0, 19)...)
					require.NoError(t, lifecycle.Resume(ctx, g.q))
				} else {
					g = newGrip(t, 20)
					row.join(t, g)
				}
				synctest.Wait()
				require.ElementsMatch(t, to(0, 19), g.order())
				require.EqualValues(t, 19, view.StatsOf(g.q).Acked)
				check(t, g.top)
				g.end()
			})
		})
	}
}

func TestAPausedQueueStartsNothingThatWaitsInALease(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		g := newGrip(t, 20)
		require.NoError(t, lifecycle.Pause(ctx, g.q))
		g.release <- nil
		synctest.Wait()
		require.Equal(t, to(0, 10), g.order())
		require.Equal(t, 9, view.StatsOf(g.q).Ready)
		check(t, g.top)
		require.NoError(t, lifecycle.Resume(ctx, g.q))
		synctest.Wait()
		require.Equal(t, to(0, 19), g.order())
		g.end()
	})
}

func TestAPurgeTakesWhatWaitsInALeaseToo(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		g := newGrip(t, 20)
		dropped, err := lifecycle.Purge(ctx, g.q)
		require.NoError(t, err)
		require.Equal(t, 10, dropped)
		require.ErrorIs(t, context.Cause(g.ctx), message.ErrStale)
		check(t, g.top)
		require.ErrorIs(t, g.held.Ack(ctx), message.ErrStale)
		g.release <- nil
		synctest.Wait()
		require.Equal(t, to(0, 10), g.order())
		require.Zero(t, view.StatsOf(g.q).Unsettled())
		publish(t, g.top, 20)
		synctest.Wait()
		require.Equal(t, 20, g.order()[11], "the worker goes on with what comes")
		g.end()
	})
}

func TestWhatAClosedQueueHeldInALeaseIsLeftOver(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		g := newGrip(t, 20)
		require.NoError(t, lifecycle.Close(g.q))
		var left []int
		for _, m := range lifecycle.Leftovers(g.q) {
			left = append(left, m.Body)
		}
		require.Equal(t, to(10, 19), left)
		require.ErrorIs(t, context.Cause(g.ctx), message.ErrClosed)
		require.ErrorIs(t, g.held.Ack(ctx), message.ErrClosed)
		g.release <- nil
		synctest.Wait()
		require.Equal(t, to(0, 10), g.order())
		g.end()
	})
}

func TestASubscriberThatIsShutDownGivesBackWhatWaitsInItsLease(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		g := newGrip(t, 20)
		done := make(chan error, 1)
		go func() { done <- g.s.Shutdown(ctx) }()
		synctest.Wait()
		require.Empty(t, done)
		g.release <- nil
		require.NoError(t, <-done)
		require.Equal(t, to(0, 10), g.order())
		require.Equal(t, to(11, 19), bodies(t, g.q))
		check(t, g.top)
		g.end()
	})
}

func TestAShutdownThatEndsEarlyLeavesTheMessageInFlightToItsHandler(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		g := newGrip(t, 20)
		brief, cancel := context.WithTimeout(ctx, time.Microsecond)
		defer cancel()
		require.ErrorIs(t, g.s.Shutdown(brief), context.DeadlineExceeded)
		require.ErrorIs(t, context.Cause(g.ctx), message.ErrClosed)
		require.Equal(t, to(11, 19), bodies(t, g.q))
		require.NoError(t, g.held.Ack(ctx))
		check(t, g.top)
		g.end()
	})
}

func TestAHandlerThatIsTooSlowKeepsNothingInItsLease(t *testing.T) {
	for _, visibility := range []time.Duration{100 * time.Microsecond, time.Second} {
		t.Run(visibility.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				g := newGrip(t, 20, WithVisibilityTimeout(visibility))
				began := time.Now()
				<-g.ctx.Done()
				late := time.Since(began) - visibility
				require.True(t, 0 <= late && late <= time.Millisecond, "%v late", late)
				synctest.Wait()
				require.ErrorIs(t, context.Cause(g.ctx), message.ErrStale)
				s := view.StatsOf(g.q)
				require.Equal(t, []int{1, 10}, []int{s.Stuck, s.Ready})
				require.ErrorIs(t, g.held.Ack(ctx), message.ErrStale)
				d := receive(t, g.q)
				require.Equal(t, []int{gripAt, 2}, []int{d.Body, d.Attempt()})
				require.Equal(t, message.TimedOut, d.History()[0].Cause)
				require.NoError(t, d.Ack(ctx))
				check(t, g.top)
				g.release <- nil
				synctest.Wait()
				require.Equal(t, to(0, 19), g.order())
				require.Zero(t, view.StatsOf(g.q).Stuck)
				g.end()
			})
		})
	}
}

func TestEachHandlerOfALeaseHasItsOwnTimeoutAndContext(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		const visibility = time.Second
		contexts := make([]context.Context, 20)
		var started time.Time
		stuck, release := make(chan bool), make(chan bool)
		top := newTopic[int](t)
		q := openQueue(t, top, "q", WithVisibilityTimeout(visibility))
		require.NoError(t, lifecycle.Pause(ctx, q))
		publish(t, top, to(0, 19)...)
		s, err := subscribeTo(q, ctx, func(hctx context.Context, d delivery.Delivery[int]) error {
			if d.Attempt() > 1 {
				return nil
			}
			contexts[d.Body] = hctx
			_ = hctx.Err() // it has been looked at: it is this handler's alone
			switch d.Body {
			case gripAt: // long, but in time: longer than a lease is looked at
				time.Sleep(100 * time.Millisecond)
			case gripAt + 1:
				started = time.Now()
				<-hctx.Done()
				close(stuck)
				<-release
			}
			return nil
		})
		require.NoError(t, err)
		require.NoError(t, lifecycle.Resume(ctx, q))
		<-stuck
		late := time.Since(started) - visibility
		require.True(t, 0 <= late && late <= time.Millisecond, "%v late", late)
		for n, c := range contexts[:gripAt+1] {
			require.NoError(t, c.Err(), "the context of message %d, which is done", n)
		}
		require.ErrorIs(t, context.Cause(contexts[gripAt+1]), message.ErrStale)
		close(release)
		synctest.Wait()
		for n, c := range contexts[gripAt+2:] {
			require.NoError(t, c.Err(), "the context of message %d", n+gripAt+2)
		}
		require.EqualValues(t, 20, view.StatsOf(q).Acked)
		check(t, top)
		top.Close()
		<-s.Done()
	})
}

func TestALeaseKeepsNothingOfWhatIsDone(t *testing.T) {
	type body struct {
		n int
		_ [1 << 12]byte
	}
	top := newTopic[*body](t)
	reached, release := make(chan bool), make(chan bool)
	s := subscribe(t, top, "q", func(_ context.Context, d delivery.Delivery[*body]) error {
		if d.Body.n == gripAt {
			reached <- true
			<-release
		}
		return nil
	})
	var bodies []weak.Pointer[body]
	func() {
		ms := make([]message.Published[*body], 400) // more than one segment of the log
		for n := range ms {
			ms[n].Body = &body{n: n}
			bodies = append(bodies, weak.Make(ms[n].Body))
		}
		require.NoError(t, top.PublishMessages(t.Context(), ms...))
	}()
	<-reached
	dropped, err := lifecycle.Purge(t.Context(), s.Queue())
	require.NoError(t, err)
	require.LessOrEqual(t, dropped, 390)
	close(release)
	require.NoError(t, s.Shutdown(t.Context()))
	runtime.GC()
	kept := 0
	for _, b := range bodies {
		if b.Value() != nil {
			kept++
		}
	}
	require.LessOrEqual(t, kept, 256, "the last segment of the log, and no more")
	runtime.KeepAlive(s)
	top.Close()
}

func TestWhatSeveralLeasesGiveBackIsInTheOrderOfItsPublication(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "q")
		release := make(chan bool)
		_, err := subscribeTo(q, ctx, func(_ context.Context, d delivery.Delivery[int]) error {
			if d.Body >= 40 {
				<-release
			}
			return nil
		}, WithConcurrency(3))
		require.NoError(t, err)
		require.NoError(t, lifecycle.Pause(ctx, q))
		publish(t, top, to(0, 199)...)
		require.NoError(t, lifecycle.Resume(ctx, q))
		synctest.Wait()
		q.Mu.Lock()
		inPrefetched := q.Store.Leases.Waiting()
		q.Mu.Unlock()
		require.Positive(t, inPrefetched)
		logged := view.StatsOf(q).Ready - inPrefetched
		var got []int
		for view.StatsOf(q).Ready > 0 {
			d := receive(t, q)
			got = append(got, d.Body)
			require.NoError(t, d.Ack(ctx))
		}
		require.True(t, slices.IsSorted(got[:logged]))
		require.True(t, slices.IsSorted(got[logged:]), "%v", got[logged:])
		check(t, top)
		close(release)
		top.Close()
		<-top.Done()
	})
}

func TestAFailureInTheMiddleOfALeaseIsTriedAgainAndTheRestGoesOn(t *testing.T) {
	for _, row := range []struct {
		name string
		fail func(d delivery.Delivery[int]) error
		is   message.Cause
	}{
		{"an error", func(delivery.Delivery[int]) error { return errBusy }, message.Failed},
		{"a panic", func(delivery.Delivery[int]) error { panic(errBusy) }, message.Panicked},
		{"an exit", func(delivery.Delivery[int]) error { runtime.Goexit(); return nil }, message.Exited},
		{"a nack", func(d delivery.Delivery[int]) error { return d.Nack(context.Background()) }, message.Nacked},
		{"a snooze", func(delivery.Delivery[int]) error { return message.Snooze(time.Second) }, message.Snoozed},
	} {
		t.Run(row.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				var again delivery.Delivery[int]
				var order []int
				top := newTopic[int](t)
				q := subscribe(t, top, "q", func(ctx context.Context, d delivery.Delivery[int]) error {
					order = append(order, d.Body)
					switch {
					case d.Body != gripAt:
					case len(d.History()) == 0:
						return row.fail(d)
					default:
						again = d
					}
					return nil
				}, WithBackoff(settings.Constant(time.Second))).Queue()
				require.NoError(t, lifecycle.Pause(ctx, q))
				publish(t, top, to(0, 19)...)
				require.NoError(t, lifecycle.Resume(ctx, q))
				synctest.Wait()
				require.Equal(t, to(0, 19), order)
				check(t, top)
				time.Sleep(time.Second)
				synctest.Wait()
				require.Equal(t, append(to(0, 19), gripAt), order)
				h := again.History()
				require.Len(t, h, 1)
				require.Equal(t, row.is, h[0].Cause)
				require.EqualValues(t, 20, view.StatsOf(q).Acked)
				check(t, top)
				top.Close()
				<-top.Done()
			})
		})
	}
}

func TestEachMessageOfALeaseIsSettledExtendedAndAskedOnItsOwn(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var kept []delivery.Delivery[int]
		var problems []error
		expect := func(d delivery.Delivery[int], err, want error) {
			if !errors.Is(err, want) {
				problems = append(problems, fmt.Errorf("message %d: %v, want %v", d.Body, err, want))
			}
		}
		top := newTopic[int](t)
		q := subscribe(t, top, "q", func(hctx context.Context, d delivery.Delivery[int]) error {
			kept = append(kept, d)
			if d.Deadline().IsZero() || d.Body%7 == 3 && hctx.Err() != nil {
				problems = append(problems, fmt.Errorf("message %d is not this handler's", d.Body))
			}
			switch d.Body % 5 {
			case 1:
				expect(d, d.Ack(ctx), nil)
				expect(d, d.Ack(ctx), message.ErrSettled)
			case 2:
				expect(d, d.Extend(ctx, time.Hour), nil)
				if want := time.Now().Add(time.Hour); !d.Deadline().Equal(want) {
					problems = append(problems, fmt.Errorf("message %d: until %v, want %v", d.Body, d.Deadline(), want))
				}
			}
			if len(kept) > 1 { // the one before is over
				expect(d, kept[len(kept)-2].Ack(ctx), message.ErrSettled)
			}
			return nil
		}).Queue()
		require.NoError(t, lifecycle.Pause(ctx, q))
		publish(t, top, to(0, 99)...)
		require.NoError(t, lifecycle.Resume(ctx, q))
		synctest.Wait()
		require.Empty(t, problems)
		require.Len(t, kept, 100)
		for n, d := range kept {
			require.Equal(t, n, d.Body)
			require.Equal(t, 1, d.Attempt())
			require.True(t, d.Deadline().IsZero())
			require.ErrorIs(t, d.Extend(ctx, time.Second), message.ErrSettled)
			require.ErrorIs(t, d.Nack(ctx), message.ErrSettled)
		}
		require.EqualValues(t, 100, view.StatsOf(q).Acked)
		check(t, top)
		top.Close()
		<-top.Done()
	})
}

func TestRoomThatALeaseMakesIsSeenByPublishers(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		g := newGrip(t, 20, WithCapacity(20), WithOverflow(settings.Reject))
		require.NoError(t, g.top.In.Publish(ctx, 20)) // 10 are done, though nobody has asked yet
		require.NoError(t, g.top.PublishMessages(ctx, make([]message.Published[int], 9)...))
		require.ErrorIs(t, g.top.In.Publish(ctx, 0), message.ErrQueueFull)
		require.Equal(t, 20, view.StatsOf(g.q).Unsettled())
		check(t, g.top)
		g.end()
	})
}

func TestDropOldestDropsWhatWaitsInALeaseFirst(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		g := newGrip(t, 20, WithCapacity(20), WithOverflow(settings.DropOldest))
		publish(t, g.top, to(20, 32)...) // 10 that find room, and 3 more
		require.EqualValues(t, 3, view.StatsOf(g.q).Dropped)
		check(t, g.top)
		g.release <- nil
		synctest.Wait()
		require.ElementsMatch(t, append(to(0, 10), to(14, 32)...), g.order())
		g.end()
	})
}

func TestAShutdownOfTheTopicCountsWhatWaitsInALease(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		g := newGrip(t, 20)
		brief, cancel := context.WithTimeout(ctx, time.Microsecond)
		defer cancel()
		var left *ending.ShutdownError
		require.ErrorAs(t, g.top.Shutdown(brief), &left)
		require.Len(t, left.Queues, 1)
		require.Equal(t, 1, left.Queues[0].Running)
		require.Equal(t, 10, left.Queues[0].Ready+left.Queues[0].InFlight+left.Queues[0].Released)
		require.Len(t, lifecycle.Leftovers(g.q), 10)
		g.end()
	})
}

func TestAShutdownOfTheTopicWorksOffWhatWaitsInALease(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		g := newGrip(t, 20)
		done := make(chan error, 1)
		go func() { done <- g.top.Shutdown(ctx) }()
		synctest.Wait()
		require.Empty(t, done)
		g.release <- nil
		require.NoError(t, <-done)
		require.Equal(t, to(0, 19), g.order())
		<-g.top.Done()
	})
}
