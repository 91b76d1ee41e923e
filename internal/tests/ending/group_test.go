// Topics that publish to each other are shut down as one.

package ending_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/internal/tests/kit"
)

func TestPromise10ASagaEndsAsOne(t *testing.T) {
	kit.OnBoth(t, func(t *testing.T, ctx context.Context, on func() fanout.TopicOption) {
		type step struct{ Order, Step int }
		orders, payments := kit.NewTopic[*step](t, on()), kit.NewTopic[*step](t, on())
		var done []string
		kit.Subscribe(t, orders, "saga", func(ctx context.Context, d fanout.Delivery[*step]) error {
			time.Sleep(time.Second)
			if d.Body.Step == 6 {
				done = append(done, fmt.Sprint("order ", d.Body.Order))
				return nil
			}
			if d.Body.Step == 2 && d.Attempt() == 1 {
				return kit.ErrBusy // what is to be retried is waited for
			}
			ctx, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			return payments.Publish(ctx, &step{d.Body.Order, d.Body.Step + 1})
		}, fanout.WithBackoff(fanout.Constant(time.Second)))
		kit.Subscribe(t, payments, "saga", func(ctx context.Context, d fanout.Delivery[*step]) error {
			time.Sleep(time.Second)
			return orders.PublishMessages(ctx, fanout.Message[*step]{Body: &step{d.Body.Order, d.Body.Step + 1}})
		})
		kit.Publish(t, orders, &step{Order: 1}, &step{Order: 2})
		synctest.Wait()
		refused := make(chan error, 1)
		go func() {
			time.Sleep(2 * time.Second)
			refused <- orders.Publish(context.Background(), &step{Order: 3})
		}()
		require.NoError(t, fanout.Shutdown(ctx, orders, payments, orders))
		require.ErrorIs(t, <-refused, fanout.ErrClosed)
		require.ElementsMatch(t, []string{"order 1", "order 2"}, done)
		require.ErrorIs(t, payments.Publish(ctx, &step{}), fanout.ErrClosed)
		<-orders.Done()
		<-payments.Done()
	})
}

func TestPromise10ACycleInOneTopicDrains(t *testing.T) {
	kit.OnBoth(t, func(t *testing.T, ctx context.Context, on func() fanout.TopicOption) {
		top := kit.NewTopic[int](t, on())
		var seen []int
		kit.Subscribe(t, top, "q", func(ctx context.Context, d fanout.Delivery[int]) error {
			seen = append(seen, d.Body)
			if d.Body == 0 {
				return nil
			}
			return top.Publish(ctx, d.Body-1)
		})
		kit.Publish(t, top, 20)
		require.NoError(t, top.Shutdown(ctx))
		require.Len(t, seen, 21)
	})
}

func TestPromise10ALineOfTopicsNamedFromItsEndDrains(t *testing.T) {
	kit.OnBoth(t, func(t *testing.T, ctx context.Context, on func() fanout.TopicOption) {
		const n = 5
		var tops []*fanout.Topic[int]
		for range n {
			tops = append(tops, kit.NewTopic[int](t, on()))
		}
		ends := 0
		for k, top := range tops {
			kit.Subscribe(t, top, "q", func(ctx context.Context, d fanout.Delivery[int]) error {
				time.Sleep(time.Millisecond)
				if k+1 == n {
					ends++
					return nil
				}
				return errors.Join(tops[k+1].Publish(ctx, d.Body), tops[k+1].Publish(ctx, d.Body))
			})
		}
		kit.Publish(t, tops[0], 1)
		var group []fanout.AnyTopic
		for k := range tops {
			group = append(group, tops[n-1-k])
		}
		require.NoError(t, fanout.Shutdown(ctx, group...))
		require.Equal(t, 1<<(n-1), ends)
	})
}

func TestPromise10ATopicInTroubleDoesNotCancelTheOthers(t *testing.T) {
	kit.OnBoth(t, func(t *testing.T, ctx context.Context, on func() fanout.TopicOption) {
		good, bad, idle := kit.NewTopic[int](t, on()), kit.NewTopic[int](t, on()), kit.NewTopic[int](t, on())
		handled := 0
		kit.Subscribe(t, good, "slow", func(ctx context.Context, d fanout.Delivery[int]) error {
			time.Sleep(10 * time.Second)
			if ctx.Err() == nil {
				handled++
			}
			return ctx.Err()
		})
		kit.OpenQueue(t, bad, "nobody")
		kit.OpenQueue(t, idle, "q")
		kit.Publish(t, good, 1, 2)
		kit.Publish(t, bad, 1)
		bad.Queue("nobody").Pause(ctx)
		synctest.Wait()

		ending, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		began := time.Now()
		bad.Queue("nobody").Resume(ctx)
		err := fanout.Shutdown(ending, idle, bad, good)
		require.Equal(t, time.Minute, time.Since(began), "all are closed at the end of ctx")
		require.Equal(t, 2, handled, "the other topic was drained")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		var left *fanout.ShutdownError
		require.ErrorAs(t, err, &left)
		require.Equal(t, bad.Name(), left.Topic)
		require.Equal(t, []fanout.Left{{Queue: "nobody", Ready: 1}}, left.Queues)
	})
}

func TestPromise10TheErrorHasOneOfEachTopicWithSomethingLeft(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		var tops []fanout.AnyTopic
		for _, name := range []string{"a", "b", "c"} {
			top, err := fanout.NewTopic[int](name, kit.Silent)
			require.NoError(t, err)
			kit.OpenQueue(t, top, "q")
			if name != "b" {
				kit.Publish(t, top, 1)
			}
			tops = append(tops, top)
		}
		ending, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		err := fanout.Shutdown(ending, tops[2], tops[1], tops[0], tops[2])
		require.EqualError(t, err, `fanout: shutdown of topic "c" left queue "q": 1 ready: context deadline exceeded`+"\n"+
			`fanout: shutdown of topic "a" left queue "q": 1 ready: context deadline exceeded`)
		require.Equal(t, err, fanout.Shutdown(ctx, tops[2], tops[1], tops[0]), "again, it returns the same")
		require.NoError(t, fanout.Shutdown(ctx, tops[1]))
		require.NoError(t, fanout.Shutdown(ctx))
	})
}

// Topics in no group of the handler's, handlers that have returned, and those of
// other topics are no better than any publisher.
func TestPromise10WhoMayPublishToClosingTopics(t *testing.T) {
	kit.OnBoth(t, func(t *testing.T, ctx context.Context, on func() fanout.TopicOption) {
		top, other := kit.NewTopic[int](t, on()), kit.NewTopic[int](t, on())
		kit.OpenQueue(t, top, "held") // keeps the shutdown waiting
		kit.Publish(t, top, 0)
		var old context.Context
		kit.Subscribe(t, other, "outside", func(ctx context.Context, d fanout.Delivery[int]) error { return top.Publish(ctx, d.Body) },
			fanout.WithMaxAttempts(1), fanout.WithConcurrency(1))
		q := kit.Subscribe(t, top, "inside", func(ctx context.Context, d fanout.Delivery[int]) error {
			if d.Body == 1 {
				old = ctx
				_ = old.Value("anything") // so that it is this run's alone
			}
			return nil
		}).Queue()
		kit.Publish(t, top, 1)
		synctest.Wait()
		require.Equal(t, uint64(1), q.Stats().Acked)

		ending, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		ended := make(chan error)
		go func() { ended <- top.Shutdown(ending) }()
		synctest.Wait()
		require.ErrorIs(t, top.Publish(old, 2), fanout.ErrClosed, "its handler has returned")
		require.ErrorIs(t, top.PublishMessages(ctx, fanout.Message[int]{Body: 2}), fanout.ErrClosed)
		kit.Publish(t, other, 3)
		synctest.Wait()
		require.Equal(t, uint64(1), other.Queue("outside").Stats().ReleasedCount, "refused, as by a closed topic")
		_, err := top.OpenQueue(ctx, "new")
		require.ErrorIs(t, err, fanout.ErrClosed)
		cancel()
		require.Error(t, <-ended)
		other.Close()
	})
}

func TestPromise10AHandlerThatWaitsForRoomGoesOnWaitingAndOthersDoNot(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		a, b := kit.NewTopic[int](t), kit.NewTopic[int](t)
		full := kit.OpenQueue(t, b, "full", fanout.WithCapacity(1))
		kit.Publish(t, b, 0)
		results := make(chan error, 2)
		kit.Subscribe(t, a, "q", func(ctx context.Context, d fanout.Delivery[int]) error {
			err := b.Publish(ctx, d.Body)
			results <- err
			return err
		})
		outside := make(chan error, 1)
		go func() { outside <- b.Publish(ctx, 100) }()
		synctest.Wait()
		kit.Publish(t, a, 1) // waits behind the one from outside
		synctest.Wait()
		ended := make(chan error)
		go func() { ended <- fanout.Shutdown(ctx, a, b) }()
		synctest.Wait()
		require.ErrorIs(t, <-outside, fanout.ErrClosed)
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
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		full := kit.OpenQueue(t, top, "full", fanout.WithCapacity(1))
		stray := make(chan error, 1)
		kit.Subscribe(t, top, "q", func(ctx context.Context, d fanout.Delivery[int]) error {
			if d.Body == 0 {
				go func() { stray <- top.Publish(ctx, 1) }()
				synctest.Wait()
			}
			return nil
		})
		kit.Publish(t, top, 0)
		time.Sleep(time.Second) // the handler has returned, the publish waits
		ended := make(chan error)
		go func() { ended <- top.Shutdown(ctx) }()
		synctest.Wait()
		d, err := full.Receive(ctx)
		require.NoError(t, err)
		require.NoError(t, d.Ack(ctx))
		require.ErrorIs(t, <-stray, fanout.ErrClosed)
		require.NoError(t, <-ended)
	})
}

func TestPromise10HandlersOfDeadLettersPublishToTheGroup(t *testing.T) {
	kit.OnBoth(t, func(t *testing.T, ctx context.Context, on func() fanout.TopicOption) {
		top := kit.NewTopic[int](t, on())
		var seen []int
		q := kit.Subscribe(t, top, "q", func(ctx context.Context, d fanout.Delivery[int]) error {
			if d.Body < 10 {
				return fanout.Permanent(kit.ErrBusy)
			}
			seen = append(seen, d.Body)
			return nil
		}).Queue()
		_, err := q.DeadLetters().Subscribe(ctx, func(ctx context.Context, d fanout.Delivery[int]) error {
			time.Sleep(time.Second)
			return top.Publish(ctx, d.Body+10)
		})
		require.NoError(t, err)
		kit.Publish(t, top, 1, 2)
		synctest.Wait()
		require.NoError(t, top.Shutdown(ctx))
		require.NotEmpty(t, seen, "the letter in flight was waited for, and what it led to")
	})
}

func TestPromise10TheEndOfTheContextClosesAllAtOnce(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		blocked := make(chan struct{})
		// A hook that blocks keeps no other topic open.
		a := kit.NewTopic[int](t, fanout.WithHooks(fanout.Hooks{Dropped: func(fanout.Event) { <-blocked }}))
		b := kit.NewTopic[int](t)
		kit.OpenQueue(t, a, "q")
		causes := make(chan time.Time, 1)
		kit.Subscribe(t, b, "q", func(ctx context.Context, d fanout.Delivery[int]) error {
			<-ctx.Done()
			causes <- time.Now()
			return ctx.Err()
		}, fanout.WithVisibilityTimeout(time.Hour))
		kit.Publish(t, a, 1)
		kit.Publish(t, b, 1)
		ending, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		end := time.Now().Add(time.Minute)
		ended := make(chan error)
		go func() { ended <- fanout.Shutdown(ending, a, b) }()
		time.Sleep(time.Minute)
		synctest.Wait()
		require.ErrorIs(t, b.Publish(ctx, 1), fanout.ErrClosed)
		_, err := b.OpenQueue(ctx, "late")
		require.ErrorIs(t, err, fanout.ErrClosed)
		require.Len(t, causes, 1, "contexts are cancelled before any hook is called")
		close(blocked)
		require.Error(t, <-ended)
		require.Equal(t, end, <-causes)
	})
}

func TestShutdownRefusesWhatIsNoTopic(t *testing.T) {
	ctx := context.Background()
	top := kit.NewTopic[int](t)
	var none *fanout.Topic[int]
	for name, topics := range map[string][]fanout.AnyTopic{"nil": {top, nil}, "nil topic": {top, none}, "zero topic": {top, new(fanout.Topic[int])}} {
		t.Run(name, func(t *testing.T) {
			err := fanout.Shutdown(ctx, topics...)
			require.ErrorIs(t, err, fanout.ErrInvalidOption)
			require.ErrorContains(t, err, "topic 1")
		})
	}
	require.ErrorIs(t, fanout.Shutdown(nil, top), fanout.ErrInvalidOption) //lint:ignore SA1012 that is what is tested
	require.NoError(t, top.Publish(ctx, 1), "nothing was changed")
	require.NoError(t, top.Shutdown(ctx))
}
