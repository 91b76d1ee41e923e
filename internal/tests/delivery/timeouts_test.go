// Visibility timeouts, handler timeouts and extensions end at their instants, and a handler's context says why.

package delivery_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/internal/tests/kit"
)

func TestRowVisibilityTimeout(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "q", fanout.WithVisibilityTimeout(10*time.Second))
		kit.Publish(t, top, 1, 2)
		d := kit.Receive(t, q)
		short := kit.Receive(t, q, fanout.WithVisibilityTimeout(time.Second))
		require.Equal(t, time.Now().Add(10*time.Second), d.Deadline())
		kit.Elapse(time.Second)
		require.ErrorIs(t, short.Ack(ctx), fanout.ErrStale)
		require.NoError(t, kit.Receive(t, q).Ack(ctx))

		require.NoError(t, d.Extend(ctx, time.Second), "never to an earlier one")
		require.Equal(t, time.Now().Add(9*time.Second), d.Deadline())
		require.NoError(t, d.Extend(ctx, 20*time.Second), "from the call")
		require.Equal(t, time.Now().Add(20*time.Second), d.Deadline())
		kit.Check(t, top)
		kit.Elapse(20*time.Second - 1)
		kit.RequireEmpty(t, q)
		kit.Elapse(1)
		require.Equal(t, 2, kit.Receive(t, q).Attempt(), "without backoff")
		require.ErrorIs(t, d.Extend(ctx, time.Hour), fanout.ErrStale)
		require.True(t, d.Deadline().IsZero())
		kit.Check(t, top)
		top.Close()
	})
	t.Run("counts from the handler's start", func(t *testing.T) {
		kit.Bubble(t, func(t *testing.T, ctx context.Context) {
			top := kit.NewTopic[int](t)
			s := kit.Subscribe(t, top, "q", func(ctx context.Context, d fanout.Delivery[int]) error {
				time.Sleep(900 * time.Millisecond)
				return nil
			}, fanout.WithVisibilityTimeout(time.Second))
			kit.Publish(t, top, 1, 2, 3, 4)
			synctest.Wait()
			st := s.Queue().Stats()
			require.Equal(t, [2]int{3, 1}, [2]int{st.Ready, st.InFlight}, "what no handler has begun is ready")
			kit.Elapse(3600 * time.Millisecond)
			st = s.Queue().Stats()
			require.Equal(t, [2]uint64{4, 0}, [2]uint64{st.Acked, st.TimedOut})
			kit.Check(t, top)
			top.Close()
		})
	})
}

func TestRowHandlerTimeout(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		y := kit.NewDiary()
		s := kit.Subscribe(t, top, "q", func(ctx context.Context, d fanout.Delivery[int]) error {
			if d.Attempt() > 1 {
				y.Note("attempt %d", d.Attempt())
				return nil
			}
			<-ctx.Done()
			cause := context.Cause(ctx)
			y.Note("deadline exceeded: %t", errors.Is(cause, context.DeadlineExceeded))
			time.Sleep(5 * time.Second)
			if d.Body == 2 {
				return nil
			}
			return cause
		}, fanout.WithHandlerTimeout(10*time.Second), fanout.WithVisibilityTimeout(20*time.Second), fanout.WithBackoff(fanout.Constant(time.Second)))
		kit.Publish(t, top, 1)
		kit.Elapse(12 * time.Second)
		require.Equal(t, 1, s.Queue().Stats().InFlight, "the delivery goes on")
		require.Zero(t, s.Queue().Stats().Stuck)
		kit.Elapse(time.Minute)
		require.Equal(t, []string{"10s: deadline exceeded: true", "16s: attempt 2"}, y.Read())
		st := s.Queue().Stats()
		require.Equal(t, [3]uint64{1, 0, 1}, [3]uint64{st.Failed, st.TimedOut, st.Acked}, "its error counts as any")
		kit.Publish(t, top, 2)
		kit.Elapse(time.Minute)
		st = s.Queue().Stats()
		require.Equal(t, [3]uint64{1, 0, 2}, [3]uint64{st.Failed, st.TimedOut, st.Acked}, "and so does its success")
		kit.Check(t, top)
		require.NoError(t, top.Shutdown(ctx))
		<-top.Done()
	})
}

func TestHandlersWithATimeoutLeaveTheTopicsEndToTheTopic(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		kit.Subscribe(t, top, "q", func(context.Context, fanout.Delivery[int]) error { return nil }, fanout.WithHandlerTimeout(time.Second))
		for n := range 5 {
			kit.Publish(t, top, n)
			synctest.Wait()
		}
		require.True(t, kit.IsOpen(top.Done()))
		began := time.Now()
		require.NoError(t, top.Shutdown(ctx))
		<-top.Done()
		require.Zero(t, time.Since(began), "no timer of a handler's is waited for")
	})
}

// A handler ends at the very instant of its timeout, over and over: whichever
// comes first, the next message's context has nothing of it.
func TestAHandlersTimeoutIsNotTheNextOnes(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		const messages = 500
		top := kit.NewTopic[int](t)
		cancelled := 0
		s := kit.Subscribe(t, top, "q", func(hctx context.Context, d fanout.Delivery[int]) error {
			time.Sleep(time.Millisecond)
			if d.Body%2 == 1 { // looks, and ends early
				if hctx.Err() != nil {
					cancelled++
				}
				return nil
			}
			time.Sleep(time.Second - time.Millisecond) // does not look
			return nil
		}, fanout.WithHandlerTimeout(time.Second))
		require.NoError(t, top.PublishMessages(ctx, kit.Numbered(messages)...))
		require.NoError(t, top.Shutdown(ctx))
		require.Zero(t, cancelled, "of %d contexts", messages/2)
		require.EqualValues(t, messages, s.Queue().Stats().Acked)
	})
}

func TestAutoExtendMovesTheDeadlineAsItPassesUpToItsLongest(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		stuck := make(chan fanout.Event, 9)
		top := kit.NewTopic[int](t, fanout.WithHooks(fanout.Hooks{Stuck: func(e fanout.Event) { stuck <- e }}))
		y := kit.NewDiary()
		var work, extend time.Duration
		var hand fanout.Delivery[int]
		s := kit.Subscribe(t, top, "q", func(ctx context.Context, d fanout.Delivery[int]) error {
			hand = d
			if extend > 0 {
				if err := d.Extend(ctx, extend); err != nil {
					t.Error(err)
				}
			}
			done := time.NewTimer(work)
			defer done.Stop()
			select {
			case <-ctx.Done():
				y.Note("%t", errors.Is(context.Cause(ctx), fanout.ErrStale))
			case <-done.C:
				y.Note("done")
			}
			return nil
		}, fanout.WithVisibilityTimeout(10*time.Second), fanout.WithAutoExtend(35*time.Second), fanout.WithMaxAttempts(1))
		q := s.Queue()
		deadline := func() time.Duration {
			synctest.Wait()
			return hand.Deadline().Sub(y.Began)
		}

		work = 25 * time.Second
		kit.Publish(t, top, 1)
		require.Equal(t, 35*time.Second, deadline(), "the last instant is known from the start")
		kit.Elapse(10 * time.Second)
		require.Equal(t, 35*time.Second, deadline())
		kit.Check(t, top)
		kit.Elapse(time.Minute)
		require.Equal(t, []string{"25s: done"}, y.Read())
		require.Equal(t, [2]uint64{1, 0}, [2]uint64{q.Stats().Acked, q.Stats().TimedOut})

		work, y.Began = time.Hour, time.Now()
		kit.Publish(t, top, 2)
		kit.Elapse(30 * time.Second)
		require.Equal(t, 35*time.Second, deadline(), "no further than its longest")
		kit.Elapse(5*time.Second - 1)
		require.Equal(t, 1, q.Stats().InFlight)
		require.Empty(t, stuck)
		kit.Elapse(1)
		require.Equal(t, []string{"35s: true"}, y.Read())
		require.Len(t, stuck, 1)
		require.Equal(t, 35*time.Second, (<-stuck).Elapsed)
		require.Equal(t, 1, q.Stats().Dead)

		work, extend, y.Began = time.Hour, 50*time.Second, time.Now()
		kit.Publish(t, top, 3) // the handler's own goes beyond
		kit.Elapse(time.Minute)
		require.Equal(t, []string{"50s: true"}, y.Read())

		kit.Publish(t, top, 4) // not for those who receive
		_ = s.Shutdown(ctx)
		kit.Check(t, top)
		top.Close()
		<-top.Done()
	})
	t.Run("a receiver's delivery is not extended", func(t *testing.T) {
		kit.Bubble(t, func(t *testing.T, ctx context.Context) {
			top := kit.NewTopic[int](t)
			q := kit.OpenQueue(t, top, "q", fanout.WithVisibilityTimeout(time.Second))
			kit.Publish(t, top, 1)
			d := kit.Receive(t, q)
			_, err := q.Subscribe(ctx, kit.HandleNothing, fanout.WithAutoExtend(time.Hour))
			require.NoError(t, err)
			kit.Elapse(time.Second)
			require.ErrorIs(t, d.Ack(ctx), fanout.ErrStale)
			require.Equal(t, uint64(1), q.Stats().Acked)
			top.Close()
		})
	})
}

func TestRowHandlerContext(t *testing.T) {
	type key struct{}
	// Each row ends the run of a handler that waits for its context.
	for name, row := range map[string]struct {
		end   func(ctx context.Context, top *fanout.Topic[int], s *fanout.Subscriber[int])
		after time.Duration
		is    error
	}{
		"time-out":        {func(context.Context, *fanout.Topic[int], *fanout.Subscriber[int]) {}, 10 * time.Second, fanout.ErrStale},
		"close":           {func(_ context.Context, top *fanout.Topic[int], _ *fanout.Subscriber[int]) { top.Close() }, 0, fanout.ErrClosed},
		"close the queue": {func(_ context.Context, _ *fanout.Topic[int], s *fanout.Subscriber[int]) { _ = s.Queue().Close() }, 0, fanout.ErrClosed},
		"purge": {func(ctx context.Context, _ *fanout.Topic[int], s *fanout.Subscriber[int]) {
			_, _ = s.Queue().Purge(ctx)
		}, 0, fanout.ErrStale},
		"end of shutdown": {func(ctx context.Context, top *fanout.Topic[int], _ *fanout.Subscriber[int]) {
			ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
			defer cancel()
			_ = top.Shutdown(ctx)
		}, 3 * time.Second, fanout.ErrClosed},
		"end of the subscriber's": {func(ctx context.Context, _ *fanout.Topic[int], s *fanout.Subscriber[int]) {
			ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
			defer cancel()
			_ = s.Shutdown(ctx)
		}, 3 * time.Second, fanout.ErrClosed},
	} {
		t.Run(name, func(t *testing.T) {
			kit.Bubble(t, func(t *testing.T, ctx context.Context) {
				top := kit.NewTopic[int](t)
				causes := make(chan error, 1)
				var after time.Duration
				s := kit.Subscribe(t, top, "q", func(ctx context.Context, d fanout.Delivery[int]) error {
					if d.Attempt() > 1 {
						return nil
					}
					if _, ok := ctx.Deadline(); ok || ctx.Err() != nil || ctx.Value(key{}) != nil {
						t.Error("a deadline, an error, or a value of the publisher's")
					}
					began := time.Now()
					<-ctx.Done()
					after = time.Since(began)
					if ctx.Err() != context.Canceled {
						t.Errorf("it says %v", ctx.Err())
					}
					causes <- context.Cause(ctx)
					return nil
				}, fanout.WithVisibilityTimeout(10*time.Second))
				pub, cancel := context.WithCancel(context.WithValue(ctx, key{}, 1))
				require.NoError(t, top.Publish(pub, 1))
				cancel() // is not the handler's
				synctest.Wait()
				require.Empty(t, causes)
				row.end(ctx, top, s)
				kit.Elapse(time.Minute)
				err := <-causes
				require.ErrorIs(t, err, row.is)
				require.ErrorContains(t, err, `"q"`)
				require.Equal(t, row.after, after)
				top.Close()
				<-top.Done()
			})
		})
	}
	t.Run("a return does not cancel it", func(t *testing.T) {
		kit.Bubble(t, func(t *testing.T, ctx context.Context) {
			top := kit.NewTopic[int](t)
			var kept context.Context
			kit.Subscribe(t, top, "q", func(ctx context.Context, d fanout.Delivery[int]) error {
				if d.Body == 1 {
					kept = ctx
					ctx.Done()
				}
				return nil
			})
			kit.Publish(t, top, 1, 2)
			synctest.Wait()
			top.Close()
			<-top.Done()
			require.NoError(t, kept.Err())
		})
	})
}

func TestAHandlerThatLooksAtItsContextLateSeesWhyItEnded(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		causes := make(chan error, 1)
		kit.Subscribe(t, top, "q", func(ctx context.Context, d fanout.Delivery[int]) error {
			if d.Attempt() == 1 {
				time.Sleep(2 * time.Second)
				causes <- context.Cause(ctx)
			}
			return nil
		}, fanout.WithVisibilityTimeout(time.Second))
		kit.Publish(t, top, 1)
		require.ErrorIs(t, <-causes, fanout.ErrStale)
		synctest.Wait()
		top.Close()
	})
}

func TestAStuckHandlersContextTellsHowLongItsTimeoutWas(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		causes := make(chan error, 1)
		top := kit.NewTopic[int](t)
		time.Sleep(time.Hour) // the topic's clock is not at its start
		kit.Subscribe(t, top, "audit", func(ctx context.Context, d fanout.Delivery[int]) error {
			if d.Attempt() == 1 {
				<-ctx.Done()
				causes <- context.Cause(ctx)
			}
			return nil
		}, fanout.WithVisibilityTimeout(7*time.Second))
		kit.Publish(t, top, 1)
		err := <-causes
		require.ErrorIs(t, err, fanout.ErrStale)
		require.EqualError(t, errors.Unwrap(err), fanout.ErrStale.Error())
		require.ErrorContains(t, err, `queue "audit": the visibility timeout of 7s has passed`)
		top.Close()
	})
}

func TestPromise05NoLockIsHeldWhileAContextIsAsked(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "q")
		kit.Publish(t, top, 1, 2)
		asking := askingContext{ctx, q}
		_, err := q.Receive(asking)
		require.NoError(t, err)
		_, ok, err := q.TryReceive(asking)
		require.NoError(t, err)
		require.True(t, ok)
		require.NoError(t, top.Publish(asking, 3))
		_, err = q.Peek(asking, 1)
		require.NoError(t, err)
		top.Close()
	})
}

// askingContext asks the queue whenever it is asked.
type askingContext struct {
	context.Context
	q *fanout.Queue[int]
}

func (c askingContext) Err() error {
	c.q.Stats()
	return c.Context.Err()
}

func TestPromise03ManyTimeoutsAtOnceWaitForNoHook(t *testing.T) {
	const many = 3000
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		var blocked atomic.Bool
		release := make(chan struct{})
		top := kit.NewTopic[int](t, fanout.WithHooks(fanout.Hooks{Settled: func(fanout.Event) {
			if blocked.CompareAndSwap(false, true) {
				<-release
			}
		}}))
		q := kit.OpenQueue(t, top, "q", fanout.WithCapacity(many), fanout.WithVisibilityTimeout(time.Second))
		for n := range many {
			kit.Publish(t, top, n)
		}
		ds, err := q.ReceiveBatch(ctx, many)
		require.NoError(t, err)
		require.Len(t, ds, many)
		time.Sleep(time.Second)
		synctest.Wait()
		require.Equal(t, many, q.Stats().Ready)
		kit.Check(t, top)
		close(release)
		top.Close()
	})
}
