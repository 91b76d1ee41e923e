package fanout

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// Who gets which room: what counts as room, what is dropped for want of it, and
// who waits for it in vain.

func TestTheRoomThatAHandMakesIsSeenByWhoeverNeedsIt(t *testing.T) {
	for _, o := range []Overflow{Block, Reject, DropNewest, DropOldest} {
		for _, row := range []struct {
			name    string
			message Message[int]
			beside  QueueOption // of another queue
		}{
			{"a message with a delay", Message[int]{Delay: time.Hour}, WithCapacity(20)},
			{"a message that goes to a queue with a filter too", Message[int]{}, WithFilter(func(int) bool { return true })},
		} {
			t.Run(o.String()+", "+row.name, func(t *testing.T) {
				for at := 8; at < 16; at++ { // at most of them something in the hand is done
					bubble(t, func(t *testing.T, ctx context.Context) {
						g := newGripAt(t, at, 20, WithCapacity(20), WithOverflow(o))
						openQueue(t, g.top, "beside", row.beside)
						ms := make([]Message[int], at)
						for k := range ms {
							ms[k] = row.message
						}
						require.NoError(t, g.top.TryPublishMessages(ctx, ms...)) // nobody has asked yet
						require.Equal(t, 20, g.q.Stats().Unsettled())
						require.Zero(t, g.q.Stats().Dropped)
						check(t, g.top)
						g.end()
					})
				}
			})
		}
	}
}

func TestMessagesWithADelayDropTheOldestThatWaitsInAHand(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		g := newGrip(t, 20, WithCapacity(20), WithOverflow(DropOldest))
		ms := plainOnes(13)
		for k := range ms {
			ms[k].Body, ms[k].Delay = 20+k, time.Hour
		}
		require.NoError(t, g.top.PublishMessages(ctx, ms...)) // 10 find room, and 3 more
		require.EqualValues(t, 3, g.q.Stats().Dropped)
		require.Equal(t, to(14, 32), bodies(t, g.q))
		check(t, g.top)
		g.end()
	})
}

func TestWhatIsReceivedTakesRoomThatADelayedMessageDoesNotGet(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "q", WithCapacity(5), WithOverflow(DropNewest))
		publish(t, top, 1, 2, 3, 4)
		ds, err := q.ReceiveBatch(ctx, 4)
		require.NoError(t, err)
		require.NoError(t, top.PublishMessages(ctx,
			Message[int]{Body: 5, Delay: time.Hour}, Message[int]{Body: 6, Delay: time.Hour}, Message[int]{Body: 7, Delay: time.Hour}))
		require.EqualValues(t, 2, q.Stats().Dropped)
		require.Equal(t, []int{5}, bodies(t, q))
		check(t, top)
		require.NoError(t, q.AckBatch(ctx, ds...))
		top.Close()
	})
}

// The two things happen at one instant, in either order.
func TestAPublishThatIsAdmittedAsItIsReportedReturns(t *testing.T) {
	for range 200 {
		bubble(t, func(t *testing.T, ctx context.Context) {
			top := newTopic[int](t)
			q := openQueue(t, top, "q", WithCapacity(1))
			publish(t, top, 1)
			d := receive(t, q)
			go func() {
				time.Sleep(stallAfter)
				require.NoError(t, d.Ack(ctx))
			}()
			publish(t, top, 2)
			require.Equal(t, []int{2}, bodies(t, q))
			top.Close()
		})
	}
}

// Waiting in vain.

func TestAHandlerThatRedrivesIntoItsOwnFullQueueWouldDeadlock(t *testing.T) {
	for _, o := range []Overflow{Block, Reject, DropNewest, DropOldest} {
		bubble(t, func(t *testing.T, ctx context.Context) {
			top := newTopic[int](t)
			var moved int
			var err error
			s := subscribe(t, top, "q", func(hctx context.Context, d Delivery[int]) error {
				if d.Body == 1 {
					return Permanent(errBusy)
				}
				moved, err = top.Queue("q").Redrive(hctx)
				return nil
			}, WithCapacity(1), WithOverflow(o))
			publish(t, top, 1)
			synctest.Wait()
			require.Equal(t, 1, s.Queue().Stats().Dead)
			publish(t, top, 2)
			synctest.Wait()
			require.ErrorIs(t, err, ErrWouldDeadlock)
			require.Zero(t, moved)
			require.Equal(t, 1, s.Queue().Stats().Dead)
			top.Close()
		})
	}
}

func TestAHandlerWhoseQueueIsFullOfItsOwnKeyWouldDeadlock(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t, WithOrdering())
		q := openQueue(t, top, "q", WithCapacity(3))
		for n := range 3 {
			require.NoError(t, top.PublishMessages(ctx, Message[int]{Body: n, OrderingKey: "k"}))
		}
		var errs []error
		_, err := q.Subscribe(ctx, func(hctx context.Context, d Delivery[int]) error {
			if d.Body == 0 {
				errs = append(errs, top.Publish(hctx, 3))
			}
			return nil
		}, WithConcurrency(2)) // the second finds nothing but what stands behind the first
		require.NoError(t, err)
		time.Sleep(stallAfter) // when it looks again, should it have looked before the second has
		synctest.Wait()
		require.Len(t, errs, 1, "it waits for ever")
		require.ErrorIs(t, errs[0], ErrWouldDeadlock)
		require.EqualValues(t, 3, q.Stats().Acked)
		top.Close()
	})
}

func TestAHandlerThatFillsItsOwnPausedQueueWouldDeadlock(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		paused, published := make(chan bool), make(chan error, 1)
		q := subscribe(t, top, "q", func(hctx context.Context, d Delivery[int]) error {
			if d.Body == 1 {
				<-paused
				published <- top.Publish(hctx, 3)
			}
			return nil
		}, WithCapacity(2)).Queue()
		publish(t, top, 1, 2)
		synctest.Wait()
		require.NoError(t, q.Pause(ctx)) // Resume would not bring another consumer
		close(paused)
		require.ErrorIs(t, <-published, ErrWouldDeadlock)
		require.NoError(t, q.Resume(ctx))
		synctest.Wait()
		require.EqualValues(t, 2, q.Stats().Acked)
		top.Close()
	})
}

func TestAHandlerMayWaitForAWorkerThatIsIdleUntilADelayEnds(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		began := time.Now()
		var published time.Duration
		var err error
		q := subscribe(t, top, "q", func(hctx context.Context, d Delivery[int]) error {
			if d.Body == 1 {
				err = top.Publish(hctx, 3)
				published = time.Since(began)
			}
			return nil
		}, WithCapacity(2), WithConcurrency(2)).Queue()
		require.NoError(t, top.PublishMessages(ctx, Message[int]{Body: 2, Delay: 5 * time.Second}, Message[int]{Body: 1}))
		time.Sleep(time.Minute)
		synctest.Wait()
		require.NoError(t, err)
		require.Equal(t, 5*time.Second, published)
		require.EqualValues(t, 3, q.Stats().Acked)
		top.Close()
	})
}

func TestAHandlersPublishThatStandsBehindItsOwnQueueWouldDeadlockBesideOtherWaits(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		waiting, published := make(chan bool), make(chan error, 1)
		mine, err := top.Subscribe(ctx, "mine", func(hctx context.Context, d Delivery[int]) error {
			if d.Body == 1 {
				<-waiting
				published <- top.Publish(hctx, -1)
			}
			return nil
		}, WithCapacity(1), WithFilter(func(n int) bool { return n == 1 || n == 2 }))
		require.NoError(t, err)
		openQueue(t, top, "other", WithFilter(func(n int) bool { return n == 2 || n == -1 }))
		apart := openQueue(t, top, "apart", WithCapacity(1), WithFilter(func(n int) bool { return n > 2 }))
		publish(t, top, 1, 3)
		for _, body := range []int{2, 4} { // 4 waits for "apart" alone
			go func() { _ = top.Publish(ctx, body) }()
			synctest.Wait()
		}
		require.Equal(t, 2, top.Stats().Waiting)
		waiting <- true
		require.ErrorIs(t, <-published, ErrWouldDeadlock) // behind 2, for "other"
		synctest.Wait()
		require.EqualValues(t, 2, mine.Queue().Stats().Acked)
		require.NoError(t, receive(t, apart).Ack(ctx))
		synctest.Wait()
		require.Equal(t, []int{4}, bodies(t, apart))
		top.Close()
	})
}

func TestAHandlerMayWaitForALongRowOfOthers(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		const n = 10
		release := make(chan struct{})
		var tops [n]*Topic[int]
		var errs [n]error
		for k := range tops {
			tops[k] = newTopic[int](t)
			subscribe(t, tops[k], "q", func(ctx context.Context, d Delivery[int]) error {
				if k == n-1 {
					<-release
					return nil
				}
				errs[k] = tops[k+1].Publish(ctx, d.Body)
				return nil
			}, WithCapacity(1))
		}
		for k := n - 1; k >= 0; k-- {
			publish(t, tops[k], 0)
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
