// A handler's publish waits for room if somebody will make it, and is refused if nobody can.

package publishing_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/internal/tests/kit"
)

func TestAHandlersPublishWaitsForAConsumerThatHasAMessageInHand(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "q", fanout.WithCapacity(2))
		kit.Publish(t, top, 1, 2)
		d := kit.Receive(t, q)
		published := make(chan error, 1)
		_, err := q.Subscribe(ctx, func(ctx context.Context, d fanout.Delivery[int]) error {
			if d.Body == 2 {
				published <- top.Publish(ctx, 3)
			}
			return nil
		})
		require.NoError(t, err)
		synctest.Wait()
		require.Empty(t, published, "it could go on, once the receiver has settled")
		require.NoError(t, d.Ack(ctx))
		require.NoError(t, <-published)
		top.Close()
	})
}

func TestAHandlersPublishWaitsForAReceiverThatWillGetAMessage(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "q", fanout.WithCapacity(2))
		kit.Publish(t, top, 1, 2)
		require.NoError(t, kit.Receive(t, q).NackAfter(ctx, time.Second)) // 1 comes again
		waiting, published := make(chan bool), make(chan error, 1)
		s, err := q.Subscribe(ctx, func(ctx context.Context, d fanout.Delivery[int]) error {
			if d.Body == 2 {
				<-waiting
				published <- top.Publish(ctx, 3)
			}
			return nil
		})
		require.NoError(t, err)
		synctest.Wait() // 2 is the handler's
		got := make(chan fanout.Delivery[int], 1)
		go func() {
			if d, err := q.Receive(ctx); err == nil {
				got <- d
			}
		}()
		synctest.Wait()
		waiting <- true
		synctest.Wait()
		require.Empty(t, published, "a receiver is there for what is tried again")
		time.Sleep(time.Second)
		synctest.Wait()
		require.NoError(t, (<-got).Ack(ctx))
		require.NoError(t, <-published)
		require.NoError(t, top.Close())
		<-s.Done()
	})
}

func TestAHandlersPublishDoesNotWaitForAReceiverThatGetsNothing(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "q", fanout.WithCapacity(1))
		waiting, published := make(chan bool), make(chan error, 1)
		_, err := q.Subscribe(ctx, func(ctx context.Context, d fanout.Delivery[int]) error {
			<-waiting
			published <- top.Publish(ctx, 2)
			return nil
		})
		require.NoError(t, err)
		kit.Publish(t, top, 1)
		synctest.Wait()
		go func() { _, _ = q.Receive(ctx) }()
		synctest.Wait()
		require.Equal(t, 1, q.Stats().InFlight)
		waiting <- true
		require.ErrorIs(t, <-published, fanout.ErrWouldDeadlock)
		top.Close()
	})
}

func TestAHandlersPublishWaitsForAWorkerThatWillGetAMessage(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "q", fanout.WithCapacity(2))
		kit.Publish(t, top, 1, 2)
		require.NoError(t, kit.Receive(t, q).NackAfter(ctx, time.Second)) // 1 comes again
		published := make(chan error, 1)
		_, err := q.Subscribe(ctx, func(ctx context.Context, d fanout.Delivery[int]) error {
			if d.Body == 2 {
				published <- top.Publish(ctx, 3)
			}
			return nil
		}, fanout.WithConcurrency(2))
		require.NoError(t, err)
		synctest.Wait()
		require.Empty(t, published, "the other worker is there for what is tried again")
		time.Sleep(time.Second)
		require.NoError(t, <-published)
		synctest.Wait()
		require.EqualValues(t, 3, q.Stats().Acked)
		top.Close()
	})
}

func TestAHandlersPublishThatStandsBehindItsOwnQueueWouldDeadlock(t *testing.T) {
	// The batch waits for "mine" and wants "other" too; what comes later for
	// "other" stands behind it. Only the handler could make room in "mine".
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		waiting, published := make(chan bool), make(chan error, 1)
		mine, err := top.Subscribe(ctx, "mine", func(ctx context.Context, d fanout.Delivery[int]) error {
			if d.Body == 1 {
				<-waiting
				published <- top.Publish(ctx, -1)
			}
			return nil
		}, fanout.WithCapacity(1), fanout.WithFilter(func(n int) bool { return n > 0 }))
		require.NoError(t, err)
		kit.OpenQueue(t, top, "other")
		kit.Publish(t, top, 1)
		go func() { _ = top.Publish(ctx, 2) }()
		synctest.Wait()
		require.Equal(t, 1, top.Stats().Waiting)
		waiting <- true
		require.ErrorIs(t, <-published, fanout.ErrWouldDeadlock)
		synctest.Wait()
		require.EqualValues(t, 2, mine.Queue().Stats().Acked)
		top.Close()
	})
}

func TestAHandlersPublishIsNotHeldBackByAWaitThatIsNotItsOwn(t *testing.T) {
	// The first waiter waits for "mine", which only the handler could empty; the
	// handler's publish wants "other", where a receiver has the message in hand.
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		waiting, published := make(chan bool), make(chan error, 1)
		_, err := top.Subscribe(ctx, "mine", func(ctx context.Context, d fanout.Delivery[int]) error {
			if d.Body == 1 {
				<-waiting
				published <- top.Publish(ctx, -2)
			}
			return nil
		}, fanout.WithCapacity(1), fanout.WithFilter(func(n int) bool { return n > 0 }))
		require.NoError(t, err)
		other := kit.OpenQueue(t, top, "other", fanout.WithCapacity(1), fanout.WithFilter(func(n int) bool { return n < 0 }))
		kit.Publish(t, top, 1, -1)
		d := kit.Receive(t, other)
		go func() { _ = top.Publish(ctx, 2) }()
		synctest.Wait()
		waiting <- true
		synctest.Wait()
		require.Empty(t, published)
		require.Equal(t, 2, top.Stats().Waiting)
		require.NoError(t, d.Ack(ctx))
		require.NoError(t, <-published)
		top.Close()
	})
}
