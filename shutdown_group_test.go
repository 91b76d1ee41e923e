package fanout

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/fakeengine"
)

// onBoth runs a test with topics in memory, and with topics that are each on an engine.
func onBoth(t *testing.T, f func(t *testing.T, ctx context.Context, on func() TopicOption)) {
	t.Helper()
	t.Run("memory", func(t *testing.T) {
		bubble(t, func(t *testing.T, ctx context.Context) { f(t, ctx, func() TopicOption { return silent }) })
	})
	t.Run("engine", func(t *testing.T) {
		bubble(t, func(t *testing.T, ctx context.Context) {
			f(t, ctx, func() TopicOption { return WithEngine(fakeengine.New(fakeengine.Config{})) })
		})
	})
}

func TestPromise10ASagaEndsAsOne(t *testing.T) {
	onBoth(t, func(t *testing.T, ctx context.Context, on func() TopicOption) {
		type step struct{ Order, Step int }
		orders, payments := newTopic[step](t, on()), newTopic[string](t, on())
		var done []string
		subscribe(t, orders, "saga", func(ctx context.Context, d Delivery[step]) error {
			time.Sleep(time.Second)
			if d.Body.Step == 6 {
				done = append(done, fmt.Sprint("order ", d.Body.Order))
				return nil
			}
			if d.Body.Step == 2 && d.Attempt() == 1 {
				return errBusy // what is to be retried is waited for
			}
			ctx, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			return payments.Publish(ctx, fmt.Sprint(d.Body.Order, " ", d.Body.Step+1))
		}, WithBackoff(Constant(time.Second)))
		subscribe(t, payments, "saga", func(ctx context.Context, d Delivery[string]) error {
			time.Sleep(time.Second)
			var s step
			_, err := fmt.Sscan(d.Body, &s.Order, &s.Step)
			return errors.Join(err, orders.PublishMessages(ctx, Message[step]{Body: step{s.Order, s.Step + 1}}))
		})
		publish(t, orders, step{Order: 1}, step{Order: 2})
		synctest.Wait()
		refused := make(chan error, 1)
		go func() {
			time.Sleep(2 * time.Second)
			refused <- orders.Publish(context.Background(), step{Order: 3})
		}()
		require.NoError(t, Shutdown(ctx, orders, payments, orders))
		require.ErrorIs(t, <-refused, ErrClosed)
		require.ElementsMatch(t, []string{"order 1", "order 2"}, done)
		require.ErrorIs(t, payments.Publish(ctx, ""), ErrClosed)
		<-orders.Done()
		<-payments.Done()
	})
}

func TestPromise10ACycleInOneTopicDrains(t *testing.T) {
	onBoth(t, func(t *testing.T, ctx context.Context, on func() TopicOption) {
		top := newTopic[int](t, on())
		var seen []int
		subscribe(t, top, "q", func(ctx context.Context, d Delivery[int]) error {
			seen = append(seen, d.Body)
			if d.Body == 0 {
				return nil
			}
			return top.Publish(ctx, d.Body-1)
		})
		publish(t, top, 20)
		require.NoError(t, top.Shutdown(ctx))
		require.Len(t, seen, 21)
	})
}

func TestPromise10ALineOfTopicsNamedFromItsEndDrains(t *testing.T) {
	onBoth(t, func(t *testing.T, ctx context.Context, on func() TopicOption) {
		const n = 5
		var tops []*Topic[int]
		for range n {
			tops = append(tops, newTopic[int](t, on()))
		}
		ends := 0
		for k, top := range tops {
			subscribe(t, top, "q", func(ctx context.Context, d Delivery[int]) error {
				time.Sleep(time.Millisecond)
				if k+1 == n {
					ends++
					return nil
				}
				return errors.Join(tops[k+1].Publish(ctx, d.Body), tops[k+1].Publish(ctx, d.Body))
			})
		}
		publish(t, tops[0], 1)
		var group []AnyTopic
		for k := range tops {
			group = append(group, tops[n-1-k])
		}
		require.NoError(t, Shutdown(ctx, group...))
		require.Equal(t, 1<<(n-1), ends)
	})
}

func TestPromise10ATopicInTroubleDoesNotCancelTheOthers(t *testing.T) {
	onBoth(t, func(t *testing.T, ctx context.Context, on func() TopicOption) {
		good, bad, idle := newTopic[int](t, on()), newTopic[int](t, on()), newTopic[int](t, on())
		handled := 0
		subscribe(t, good, "slow", func(ctx context.Context, d Delivery[int]) error {
			time.Sleep(10 * time.Second)
			if ctx.Err() == nil {
				handled++
			}
			return ctx.Err()
		})
		openQueue(t, bad, "nobody")
		openQueue(t, idle, "q")
		publish(t, good, 1, 2)
		publish(t, bad, 1)
		bad.Queue("nobody").Pause(ctx)
		synctest.Wait()

		ending, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		began := time.Now()
		bad.Queue("nobody").Resume(ctx)
		err := Shutdown(ending, idle, bad, good)
		require.Equal(t, time.Minute, time.Since(began), "all are closed at the end of ctx")
		require.Equal(t, 2, handled, "the other topic was drained")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		var left *ShutdownError
		require.ErrorAs(t, err, &left)
		require.Equal(t, bad.Name(), left.Topic)
		require.Equal(t, []Left{{Queue: "nobody", Ready: 1}}, left.Queues)
	})
}

func TestPromise10TheErrorHasOneOfEachTopicWithSomethingLeft(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var tops []AnyTopic
		for _, name := range []string{"a", "b", "c"} {
			top, err := NewTopic[int](name, silent)
			require.NoError(t, err)
			openQueue(t, top, "q")
			if name != "b" {
				publish(t, top, 1)
			}
			tops = append(tops, top)
		}
		ending, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		err := Shutdown(ending, tops[2], tops[1], tops[0], tops[2])
		require.EqualError(t, err, `fanout: shutdown of topic "c" left queue "q": 1 ready: context deadline exceeded`+"\n"+
			`fanout: shutdown of topic "a" left queue "q": 1 ready: context deadline exceeded`)
		require.Equal(t, err, Shutdown(ctx, tops[2], tops[1], tops[0]), "again, it returns the same")
		require.NoError(t, Shutdown(ctx, tops[1]))
		require.NoError(t, Shutdown(ctx))
	})
}

// Topics in no group of the handler's, handlers that have returned, and those of
// other topics are no better than any publisher.
func TestPromise10WhoMayPublishToClosingTopics(t *testing.T) {
	onBoth(t, func(t *testing.T, ctx context.Context, on func() TopicOption) {
		top, other := newTopic[int](t, on()), newTopic[int](t, on())
		openQueue(t, top, "held") // keeps the shutdown waiting
		publish(t, top, 0)
		var old context.Context
		subscribe(t, other, "outside", func(ctx context.Context, d Delivery[int]) error { return top.Publish(ctx, d.Body) },
			WithMaxAttempts(1), WithConcurrency(1))
		q := subscribe(t, top, "inside", func(ctx context.Context, d Delivery[int]) error {
			if d.Body == 1 {
				old = ctx
				_ = old.Value("anything") // so that it is this run's alone
			}
			return nil
		}).Queue()
		publish(t, top, 1)
		synctest.Wait()
		require.Equal(t, uint64(1), q.Stats().Acked)

		ending, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		ended := make(chan error)
		go func() { ended <- top.Shutdown(ending) }()
		synctest.Wait()
		require.ErrorIs(t, top.Publish(old, 2), ErrClosed, "its handler has returned")
		require.ErrorIs(t, top.PublishMessages(ctx, Message[int]{Body: 2}), ErrClosed)
		publish(t, other, 3)
		synctest.Wait()
		require.Equal(t, uint64(1), other.Queue("outside").Stats().ReleasedCount, "refused, as by a closed topic")
		_, err := top.OpenQueue(ctx, "new")
		require.ErrorIs(t, err, ErrClosed)
		cancel()
		require.Error(t, <-ended)
		other.Close()
	})
}

func TestPromise10AHandlerThatWaitsForRoomGoesOnWaitingAndOthersDoNot(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		a, b := newTopic[int](t), newTopic[int](t)
		full := openQueue(t, b, "full", WithCapacity(1))
		publish(t, b, 0)
		results := make(chan error, 2)
		subscribe(t, a, "q", func(ctx context.Context, d Delivery[int]) error {
			err := b.Publish(ctx, d.Body)
			results <- err
			return err
		})
		outside := make(chan error, 1)
		go func() { outside <- b.Publish(ctx, 100) }()
		synctest.Wait()
		publish(t, a, 1) // waits behind the one from outside
		synctest.Wait()
		ended := make(chan error)
		go func() { ended <- Shutdown(ctx, a, b) }()
		synctest.Wait()
		require.ErrorIs(t, <-outside, ErrClosed)
		require.Empty(t, results, "the handler's waits on")
		d, err := full.Receive(ctx)
		require.NoError(t, err)
		require.NoError(t, d.Ack(ctx))
		require.NoError(t, <-results)
		d, err = full.Receive(ctx)
		require.NoError(t, err)
		require.Equal(t, 1, d.Body)
		require.NoError(t, d.Ack(ctx))
		require.NoError(t, <-ended)
	})
}

func TestPromise10APublishThatOutlivesItsHandlerIsRefusedWhenThereIsRoom(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		full := openQueue(t, top, "full", WithCapacity(1))
		stray := make(chan error, 1)
		subscribe(t, top, "q", func(ctx context.Context, d Delivery[int]) error {
			if d.Body == 0 {
				go func() { stray <- top.Publish(ctx, 1) }()
				synctest.Wait()
			}
			return nil
		})
		publish(t, top, 0)
		time.Sleep(time.Second) // the handler has returned, the publish waits
		ended := make(chan error)
		go func() { ended <- top.Shutdown(ctx) }()
		synctest.Wait()
		d, err := full.Receive(ctx)
		require.NoError(t, err)
		require.NoError(t, d.Ack(ctx))
		require.ErrorIs(t, <-stray, ErrClosed)
		require.NoError(t, <-ended)
	})
}

func TestPromise10HandlersOfDeadLettersPublishToTheGroup(t *testing.T) {
	onBoth(t, func(t *testing.T, ctx context.Context, on func() TopicOption) {
		top := newTopic[int](t, on())
		var seen []int
		q := subscribe(t, top, "q", func(ctx context.Context, d Delivery[int]) error {
			if d.Body < 10 {
				return Permanent(errBusy)
			}
			seen = append(seen, d.Body)
			return nil
		}).Queue()
		_, err := q.DeadLetters().Subscribe(ctx, func(ctx context.Context, d Delivery[int]) error {
			time.Sleep(time.Second)
			return top.Publish(ctx, d.Body+10)
		})
		require.NoError(t, err)
		publish(t, top, 1, 2)
		synctest.Wait()
		require.NoError(t, top.Shutdown(ctx))
		require.NotEmpty(t, seen, "the letter in hand was waited for, and what it led to")
	})
}

func TestPromise10TheEndOfTheContextClosesAllAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		blocked := make(chan struct{})
		// A hook that blocks keeps no other topic open.
		a := newTopic[int](t, WithHooks(Hooks{Dropped: func(Event) { <-blocked }}))
		b := newTopic[int](t)
		openQueue(t, a, "q")
		causes := make(chan time.Time, 1)
		subscribe(t, b, "q", func(ctx context.Context, d Delivery[int]) error {
			<-ctx.Done()
			causes <- time.Now()
			return ctx.Err()
		}, WithVisibilityTimeout(time.Hour))
		publish(t, a, 1)
		publish(t, b, 1)
		ending, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		end := time.Now().Add(time.Minute)
		ended := make(chan error)
		go func() { ended <- Shutdown(ending, a, b) }()
		time.Sleep(time.Minute)
		synctest.Wait()
		require.ErrorIs(t, b.Publish(ctx, 1), ErrClosed)
		_, err := b.OpenQueue(ctx, "late")
		require.ErrorIs(t, err, ErrClosed)
		require.Len(t, causes, 1, "contexts are cancelled before any hook is called")
		close(blocked)
		require.Error(t, <-ended)
		require.Equal(t, end, <-causes)
	})
}

func TestShutdownRefusesWhatIsNoTopic(t *testing.T) {
	ctx := context.Background()
	top := newTopic[int](t)
	var none *Topic[int]
	for name, topics := range map[string][]AnyTopic{"nil": {top, nil}, "nil topic": {top, none}, "zero topic": {top, new(Topic[int])}} {
		t.Run(name, func(t *testing.T) {
			err := Shutdown(ctx, topics...)
			require.ErrorIs(t, err, ErrInvalidOption)
			require.ErrorContains(t, err, "topic 1")
		})
	}
	require.ErrorIs(t, Shutdown(nil, top), ErrInvalidOption) //lint:ignore SA1012 that is what is tested
	require.NoError(t, top.Publish(ctx, 1), "nothing was changed")
	require.NoError(t, top.Shutdown(ctx))
}
