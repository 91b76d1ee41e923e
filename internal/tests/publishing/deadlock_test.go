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
	// handler's publish wants "other", where the message is in flight.
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

func TestAHandlerThatRedrivesIntoItsOwnFullQueueWouldDeadlock(t *testing.T) {
	for _, o := range []fanout.Overflow{fanout.Block, fanout.Reject, fanout.DropNewest, fanout.DropOldest} {
		kit.Bubble(t, func(t *testing.T, ctx context.Context) {
			top := kit.NewTopic[int](t)
			var moved int
			var err error
			s := kit.Subscribe(t, top, "q", func(hctx context.Context, d fanout.Delivery[int]) error {
				if d.Body == 1 {
					return fanout.Permanent(kit.ErrBusy)
				}
				moved, err = top.Queue("q").Redrive(hctx)
				return nil
			}, fanout.WithCapacity(1), fanout.WithOverflow(o))
			kit.Publish(t, top, 1)
			synctest.Wait()
			require.Equal(t, 1, s.Queue().Stats().Dead)
			kit.Publish(t, top, 2)
			synctest.Wait()
			require.ErrorIs(t, err, fanout.ErrWouldDeadlock)
			require.Zero(t, moved)
			require.Equal(t, 1, s.Queue().Stats().Dead)
			top.Close()
		})
	}
}

func TestAHandlerThatFillsItsOwnPausedQueueWouldDeadlock(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		paused, published := make(chan bool), make(chan error, 1)
		q := kit.Subscribe(t, top, "q", func(hctx context.Context, d fanout.Delivery[int]) error {
			if d.Body == 1 {
				<-paused
				published <- top.Publish(hctx, 3)
			}
			return nil
		}, fanout.WithCapacity(2)).Queue()
		kit.Publish(t, top, 1, 2)
		synctest.Wait()
		require.NoError(t, q.Pause(ctx)) // Resume would not bring another consumer
		close(paused)
		require.ErrorIs(t, <-published, fanout.ErrWouldDeadlock)
		require.NoError(t, q.Resume(ctx))
		synctest.Wait()
		require.EqualValues(t, 2, q.Stats().Acked)
		top.Close()
	})
}

func TestAHandlerMayWaitForAWorkerThatIsIdleUntilADelayEnds(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		began := time.Now()
		var published time.Duration
		var err error
		q := kit.Subscribe(t, top, "q", func(hctx context.Context, d fanout.Delivery[int]) error {
			if d.Body == 1 {
				err = top.Publish(hctx, 3)
				published = time.Since(began)
			}
			return nil
		}, fanout.WithCapacity(2), fanout.WithConcurrency(2)).Queue()
		require.NoError(t, top.PublishMessages(ctx, fanout.Message[int]{Body: 2, Delay: 5 * time.Second}, fanout.Message[int]{Body: 1}))
		time.Sleep(time.Minute)
		synctest.Wait()
		require.NoError(t, err)
		require.Equal(t, 5*time.Second, published)
		require.EqualValues(t, 3, q.Stats().Acked)
		top.Close()
	})
}

func TestAHandlersPublishThatStandsBehindItsOwnQueueWouldDeadlockBesideOtherWaits(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		waiting, published := make(chan bool), make(chan error, 1)
		mine, err := top.Subscribe(ctx, "mine", func(hctx context.Context, d fanout.Delivery[int]) error {
			if d.Body == 1 {
				<-waiting
				published <- top.Publish(hctx, -1)
			}
			return nil
		}, fanout.WithCapacity(1), fanout.WithFilter(func(n int) bool { return n == 1 || n == 2 }))
		require.NoError(t, err)
		kit.OpenQueue(t, top, "other", fanout.WithFilter(func(n int) bool { return n == 2 || n == -1 }))
		apart := kit.OpenQueue(t, top, "apart", fanout.WithCapacity(1), fanout.WithFilter(func(n int) bool { return n > 2 }))
		kit.Publish(t, top, 1, 3)
		for _, body := range []int{2, 4} { // 4 waits for "apart" alone
			go func() { _ = top.Publish(ctx, body) }()
			synctest.Wait()
		}
		require.Equal(t, 2, top.Stats().Waiting)
		waiting <- true
		require.ErrorIs(t, <-published, fanout.ErrWouldDeadlock) // behind 2, for "other"
		synctest.Wait()
		require.EqualValues(t, 2, mine.Queue().Stats().Acked)
		require.NoError(t, kit.Receive(t, apart).Ack(ctx))
		synctest.Wait()
		require.Equal(t, []int{4}, kit.Bodies(t, apart))
		top.Close()
	})
}

func TestAHandlerMayWaitForALongRowOfOthers(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		const n = 10
		release := make(chan struct{})
		var tops [n]*fanout.Topic[int]
		var errs [n]error
		for k := range tops {
			tops[k] = kit.NewTopic[int](t)
			kit.Subscribe(t, tops[k], "q", func(ctx context.Context, d fanout.Delivery[int]) error {
				if k == n-1 {
					<-release
					return nil
				}
				errs[k] = tops[k+1].Publish(ctx, d.Body)
				return nil
			}, fanout.WithCapacity(1))
		}
		for k := n - 1; k >= 0; k-- {
			kit.Publish(t, tops[k], 0)
			synctest.Wait()
		}
		close(release)
		synctest.Wait()
		require.Equal(t, [n]error{}, errs)
		for k, top := range tops {
			require.EqualValues(t, k+1, top.Queue("q").Stats().Acked, "its own, and those of all before it")
			require.NoError(t, top.Close())
		}
	})
}

// A message parked for want of room in the dead-letter queue leaves as letters are
// read, so the queue that it fills is not stuck, though all its consumers are
// handlers that wait for it.
func TestAHandlerWaitsForRoomThatAParkedMessageWillMake(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "q", fanout.WithCapacity(2), fanout.WithDeadLetterCapacity(1))
		published := make(chan error, 1)
		_, err := q.Subscribe(ctx, func(ctx context.Context, d fanout.Delivery[int]) error {
			if d.Body == 3 {
				published <- top.Publish(ctx, 4)
			}
			if d.Body < 3 {
				return fanout.Permanent(kit.ErrBusy)
			}
			return nil
		})
		require.NoError(t, err)
		for n := range 3 {
			kit.Publish(t, top, n+1)
			synctest.Wait()
		}
		require.Empty(t, published, "it waits")
		st := q.Stats()
		require.Equal(t, []int{1, 1, 1}, []int{st.Parked, st.InFlight, st.Dead})
		require.NoError(t, kit.Receive(t, q.DeadLetters()).Ack(ctx)) // the parked one takes its place
		require.NoError(t, <-published)
		synctest.Wait()
		kit.Check(t, top)
		require.NoError(t, top.Close())
	})
}
