package fanout

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// The ends of queues, subscribers and handlers, and what they must not leave behind.

func TestASharedDeadLetterQueueThatClosesCancelsItsHandlers(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		shared, err := NewDeadLetterQueue[int]("shared", silent)
		require.NoError(t, err)
		top := newTopic[int](t)
		q := openQueue(t, top, "q", WithDeadLetterQueue(shared))
		var cause error
		s, err := shared.Subscribe(ctx, func(hctx context.Context, _ Delivery[int]) error {
			<-hctx.Done()
			cause = context.Cause(hctx)
			return nil
		})
		require.NoError(t, err)
		publish(t, top, 1)
		require.NoError(t, receive(t, q).Settle(ctx, Permanent(errBusy)))
		synctest.Wait()
		require.NoError(t, shared.Close())
		<-s.Done()
		require.ErrorIs(t, cause, ErrClosed)
		top.Close()
	})
}

func TestDeadLettersStayWhileATopicShutsDown(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		early := openQueue(t, top, "early", WithFilter(func(n int) bool { return n < 3 }))
		late := openQueue(t, top, "late", WithFilter(func(n int) bool { return n == 3 }))
		publish(t, top, 1, 2, 3)
		for range 2 {
			require.NoError(t, receive(t, early).Settle(ctx, Permanent(errBusy)))
		}
		held := receive(t, early.DeadLetters())
		require.NoError(t, late.Pause(ctx))
		done := make(chan error, 1)
		go func() { done <- top.Shutdown(ctx) }()
		synctest.Wait()
		require.Empty(t, done, "one letter is in flight")
		requireEmpty(t, early.DeadLetters())
		require.NoError(t, late.Resume(ctx))
		require.NoError(t, receive(t, late).Settle(ctx, Permanent(errBusy)))
		requireEmpty(t, late.DeadLetters()) // made only now
		require.NoError(t, held.Ack(ctx))
		require.NoError(t, <-done)
		require.Equal(t, []int{2}, bodies(t, early.DeadLetters()))
		require.Equal(t, []int{3}, bodies(t, late.DeadLetters()))
	})
}

func TestAPurgeTakesWhatWasGivenBackWhileTheTopicShutsDown(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		other := openQueue(t, top, "other")
		started := make(chan bool)
		q := subscribe(t, top, "q", func(context.Context, Delivery[int]) error {
			<-started
			return fmt.Errorf("a connection: %w", ErrClosed)
		}).Queue()
		publish(t, top, 1, 2)
		held := receive(t, other)
		done := make(chan error, 1)
		go func() { done <- top.Shutdown(ctx) }()
		synctest.Wait()
		close(started)
		synctest.Wait()
		require.Equal(t, 2, q.Stats().Released)
		n, err := q.Purge(ctx)
		require.NoError(t, err)
		require.Equal(t, 2, n)
		require.Zero(t, q.Stats().Unsettled())
		check(t, top)
		require.NoError(t, held.Ack(ctx))
		require.NoError(t, receive(t, other).Ack(ctx))
		require.NoError(t, <-done)
	})
}

func TestAMessageThatAHandlerGivesBackAThousandTimesIsDead(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := subscribe(t, top, "q", func(context.Context, Delivery[int]) error { return ErrClosed }, WithBackoff(Constant(time.Second))).Queue()
		publish(t, top, 1)
		time.Sleep(998 * time.Second)
		synctest.Wait()
		require.EqualValues(t, 999, q.Stats().ReleasedCount)
		require.Zero(t, q.Stats().Dead)
		time.Sleep(time.Second)
		synctest.Wait()
		require.Equal(t, 1, q.Stats().Dead)
		top.Close()
	})
}

func TestAMessageThatShutdownsOfSubscribersGiveBackNeverDiesOfIt(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "q", WithMaxAttempts(1))
		publish(t, top, 1)
		ended, end := context.WithCancel(ctx)
		end()
		for range 1001 {
			s, err := q.Subscribe(ctx, func(hctx context.Context, _ Delivery[int]) error {
				<-hctx.Done()
				return context.Cause(hctx)
			})
			require.NoError(t, err)
			synctest.Wait()
			require.Error(t, s.Shutdown(ended))
			<-s.Done()
		}
		require.EqualValues(t, 1001, q.Stats().ReleasedCount)
		require.Equal(t, []int{0, 1}, []int{q.Stats().Dead, q.Stats().Ready})
		top.Close()
	})
}

// A handler ends at the very instant of its timeout, over and over: whichever
// comes first, the next message's context has nothing of it.
func TestAHandlersTimeoutIsNotTheNextOnes(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		const messages = 500
		top := newTopic[int](t)
		cancelled := 0
		s := subscribe(t, top, "q", func(hctx context.Context, d Delivery[int]) error {
			time.Sleep(time.Millisecond)
			if d.Body%2 == 1 { // looks, and ends early
				if hctx.Err() != nil {
					cancelled++
				}
				return nil
			}
			time.Sleep(time.Second - time.Millisecond) // does not look
			return nil
		}, WithHandlerTimeout(time.Second))
		require.NoError(t, top.PublishMessages(ctx, plainOnes(messages)...))
		require.NoError(t, top.Shutdown(ctx))
		require.Zero(t, cancelled, "of %d contexts", messages/2)
		require.EqualValues(t, messages, s.Queue().Stats().Acked)
	})
}

func TestWhyAHandlerFailedTooLateIsInTheLog(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var log syncBuffer
		top := newTopic[int](t, WithLogger(log.logger()))
		subscribe(t, top, "q", func(hctx context.Context, d Delivery[int]) error {
			if err := d.Ack(hctx); err != nil {
				return err
			}
			return errBusy
		})
		publish(t, top, 1)
		synctest.Wait()
		require.NoError(t, top.Shutdown(ctx))
		require.Contains(t, log.String(), "error=busy")
	})
}

func TestAHandlerThatFailsForHavingHeardThatItIsLateIsHookedAndNotLogged(t *testing.T) {
	for name, why := range map[string]func(ctx context.Context) error{
		"its context's error": context.Context.Err,
		"its context's cause": func(ctx context.Context) error { return fmt.Errorf("gave up: %w", context.Cause(ctx)) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				var log syncBuffer
				var late []error
				top := newTopic[int](t, WithLogger(log.logger()), WithHooks(Hooks{Late: func(e Event) { late = append(late, e.Err) }}))
				subscribe(t, top, "q", func(hctx context.Context, d Delivery[int]) error {
					if d.Attempt() > 1 {
						return nil
					}
					<-hctx.Done()
					return why(hctx)
				})
				publish(t, top, 1)
				elapse(time.Minute)
				require.NoError(t, top.Shutdown(ctx))
				require.Len(t, late, 1)
				require.NotContains(t, log.String(), late[0].Error())
			})
		})
	}
}

func TestAFailureThatComesTooLateIsToldOfEachMessageThatItIsNews(t *testing.T) {
	late := func(t *testing.T, subscribe func(top *Topic[int]) error, n int) (late []int) {
		bubble(t, func(t *testing.T, ctx context.Context) {
			bodies := map[string]int{}
			top := newTopic[int](t, WithHooks(Hooks{
				Late:      func(e Event) { late = append(late, bodies[e.MessageID]) },
				Published: func(e Event) { bodies[e.MessageID] = len(bodies) },
			}))
			require.NoError(t, subscribe(top))
			q := top.Queue("q")
			require.NoError(t, q.Pause(ctx)) // so that no handler is quicker than the hook
			publishOnce(t, top, n)
			require.NoError(t, q.Resume(ctx))
			elapse(time.Minute)
			require.NoError(t, top.Shutdown(ctx))
		})
		return late
	}
	require.Equal(t, []int{0, 1, 2}, late(t, func(top *Topic[int]) error {
		_, err := top.SubscribeBatch(t.Context(), "q", func(_ context.Context, ds []Delivery[int]) error {
			if ds[0].Attempt() > 1 {
				return nil
			}
			time.Sleep(31 * time.Second)
			return errBusy
		}, WithBatchSize(3))
		return err
	}, 3), "all have timed out")
	require.Equal(t, []int{0}, late(t, func(top *Topic[int]) error {
		_, err := top.Subscribe(t.Context(), "q", func(ctx context.Context, d Delivery[int]) error {
			if err := d.Ack(ctx); err != nil {
				return err
			}
			return errBusy
		}, WithHandlerTimeout(time.Second))
		return err
	}, 1), "it was acknowledged before")
	require.Empty(t, late(t, func(top *Topic[int]) error {
		_, err := top.SubscribeBatch(t.Context(), "q", func(ctx context.Context, ds []Delivery[int]) error {
			if ds[0].Body > 0 {
				return nil
			}
			if err := ds[1].Ack(ctx); err != nil {
				return err
			}
			return errBusy
		}, WithBatchSize(3), WithMaxAttempts(1))
		return err
	}, 3), "the error is that of those that were not acknowledged")
}

func TestAShutdownGoesOnOnceTheQueueThatItWaitsForIsClosed(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q, empty := openQueue(t, top, "q"), openQueue(t, top, "empty")
		require.Nil(t, q.Leftovers(), "it is open")
		publish(t, top, 1)
		require.NoError(t, receive(t, empty).Ack(ctx))
		done := make(chan error, 1)
		go func() { done <- top.Shutdown(ctx) }()
		synctest.Wait()
		require.Empty(t, done)
		require.NoError(t, q.Close())
		synctest.Wait()
		require.Len(t, done, 1)
		require.Len(t, q.Leftovers(), 1)
		require.NotNil(t, empty.Leftovers(), "nothing is left, and that is known")
		require.Empty(t, empty.Leftovers())
		require.Nil(t, q.DeadLetters().Leftovers(), "dead letters stay where they are")
	})
}
