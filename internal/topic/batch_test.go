package topic

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/settings"
	"github.com/gofanout/fanout/internal/view"
	"github.com/gofanout/fanout/internal/workers"
)

// subscribeBatch opens a queue with a batch handler.
func subscribeBatch[T any](t *testing.T, top *Topic[T], name string, h workers.BatchHandler[T], options ...SubscribeOption) *queue.Queue[T] {
	t.Helper()
	s, err := top.SubscribeBatch(context.Background(), name, h, options...)
	require.NoError(t, err)
	return s.Queue()
}

// bodiesOf returns what ds are deliveries of.
func bodiesOf[T any](ds []delivery.Delivery[T]) (bs []T) {
	for _, d := range ds {
		bs = append(bs, d.Body)
	}
	return bs
}

// inWindow counts what the queue holds outside the log, leases and leases.
func inWindow[T any](q *queue.Queue[T]) int {
	q.Mu.Lock()
	defer q.Mu.Unlock()
	return q.Store.Win.Len()
}

func TestABatchWithAMessageOfWhichMoreIsKeptIsWholeToo(t *testing.T) {
	for at := range ofPrefetched {
		bubble(t, func(t *testing.T, ctx context.Context) {
			top := newTopic[int](t, WithOrdering())
			var q *queue.Queue[int]
			batch := 0
			q = subscribeBatch(t, top, "q", func(_ context.Context, ds []delivery.Delivery[int]) error {
				require.Len(t, ds, 100)
				require.Equal(t, 100, view.StatsOf(q).InFlight)
				require.Zero(t, inWindow(q), "nothing of a batch is kept apart")
				batch++
				return nil
			}, WithBatchSize(100))
			ms := make([]message.Published[int], ofPrefetched)
			ms[at].OrderingKey = "a"
			require.NoError(t, top.PublishMessages(ctx, ms...))
			synctest.Wait()
			require.Equal(t, 3, batch)
			require.EqualValues(t, ofPrefetched, view.StatsOf(q).Acked)
			check(t, top)
			require.NoError(t, top.Close())
		})
	}
}

func TestAQuietBatchNeverEntersTheWindow(t *testing.T) {
	for _, took := range []time.Duration{0, time.Microsecond, time.Second, 30*time.Second - 1} {
		bubble(t, func(t *testing.T, ctx context.Context) {
			top := newTopic[int](t)
			var q *queue.Queue[int]
			q = subscribeBatch(t, top, "q", func(context.Context, []delivery.Delivery[int]) error {
				require.Equal(t, 100, view.StatsOf(q).InFlight)
				time.Sleep(took)
				require.Zero(t, inWindow(q))
				require.Equal(t, 100, view.StatsOf(q).InFlight)
				return nil
			}, WithBatchSize(100))
			publishOnce(t, top, 300)
			elapse(3 * took)
			s := view.StatsOf(q)
			require.Equal(t, []uint64{300, 300, 0}, []uint64{s.Delivered, s.Acked, s.TimedOut})
			require.Zero(t, s.Workers)
			check(t, top)
			require.NoError(t, top.Close())
		})
	}
}

func TestPromise11ABatchTimesOutAtTheExactInstant(t *testing.T) {
	for _, timeout := range []time.Duration{100 * time.Microsecond, 5 * time.Millisecond, time.Second} {
		for _, single := range []bool{false, true} { // another subscriber's leases are looked at earlier
			bubble(t, func(t *testing.T, ctx context.Context) {
				top := newTopic[int](t)
				var took []time.Duration
				y := newDiary()
				q := subscribeBatch(t, top, "q", func(ctx context.Context, ds []delivery.Delivery[int]) error {
					y.note("%d of attempt %d", len(ds), ds[0].Attempt())
					if ds[0].Attempt() == 1 && ds[0].Body >= 64 {
						began := time.Now()
						require.Equal(t, began.Add(timeout), ds[1].Deadline())
						<-ctx.Done()
						took = append(took, time.Since(began))
						require.ErrorIs(t, context.Cause(ctx), message.ErrStale)
						require.ErrorIs(t, ds[2].Ack(ctx), message.ErrStale)
					}
					return nil
				}, WithBatchSize(64), WithVisibilityTimeout(timeout))
				publishOnce(t, top, 128)
				synctest.Wait()
				if single {
					s, err := subscribeTo(q, ctx, func(context.Context, delivery.Delivery[int]) error { return nil })
					require.NoError(t, err)
					publish(t, top, 128, 129)
					synctest.Wait()
					require.NoError(t, s.Shutdown(ctx))
				}
				elapse(time.Minute)
				require.Equal(t, []time.Duration{timeout}, took)
				after := fmt.Sprintf("%v: 64 of attempt 2", timeout)
				require.Equal(t, []string{"0s: 64 of attempt 1", "0s: 64 of attempt 1", after}, y.read())
				require.EqualValues(t, 64, view.StatsOf(q).TimedOut)
				check(t, top)
				require.NoError(t, top.Close())
			})
		}
	}
}

func TestLeasesAreLookedAtInTimeBesideABatch(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		const visibility = time.Second
		top := newTopic[int](t)
		q := subscribeBatch(t, top, "q", func(context.Context, []delivery.Delivery[int]) error {
			time.Sleep(visibility / 2)
			return nil
		}, WithVisibilityTimeout(visibility), WithBatchSize(1))
		publish(t, top, 0)
		elapse(visibility / 4)
		var took time.Duration
		_, err := subscribeTo(q, ctx, func(ctx context.Context, d delivery.Delivery[int]) error {
			if d.Body == 20 && d.Attempt() == 1 {
				began := time.Now()
				<-ctx.Done()
				took = time.Since(began)
			}
			return nil
		})
		require.NoError(t, err)
		publishOnce(t, top, 100)
		elapse(time.Minute)
		require.GreaterOrEqual(t, took, visibility)
		require.LessOrEqual(t, took, visibility+time.Millisecond)
		check(t, top)
		require.NoError(t, top.Close())
	})
}

func TestABatchBeginsWithWhatWaitsInAnotherConsumersLease(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		g := newGrip(t, 26)
		g.q.Mu.Lock()
		inLog := g.q.Store.InLog()
		g.q.Mu.Unlock()
		require.Positive(t, inLog, "nothing is in the log")
		var got []int
		_, err := subscribeBatchTo(g.q, ctx, func(_ context.Context, ds []delivery.Delivery[int]) error {
			got = append(got, bodiesOf(ds)...)
			return nil
		}, WithBatchSize(100))
		require.NoError(t, err)
		synctest.Wait()
		require.Equal(t, to(11, 25), got)
		check(t, g.top)
		g.end()
	})
}

func TestRoomThatABatchMakesIsSeenByPublishers(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		var got [][]int
		subscribeBatch(t, top, "q", func(_ context.Context, ds []delivery.Delivery[int]) error {
			got = append(got, bodiesOf(ds))
			time.Sleep(time.Second)
			return nil
		}, WithBatchSize(10), WithCapacity(10))
		publishOnce(t, top, 10)
		synctest.Wait()
		began := time.Now()
		require.NoError(t, top.In.Publish(ctx, 10), "waits until the batch is done")
		require.Equal(t, time.Second, time.Since(began))
		elapse(time.Minute)
		require.Equal(t, [][]int{to(0, 9), {10}}, got)
		check(t, top)
		require.NoError(t, top.Close())
	})
}

func TestABatchPinsNothingAMillisecondAfterItIsDone(t *testing.T) {
	for _, waits := range []bool{false, true} { // another message, so that the timer is armed for that
		bubble(t, func(t *testing.T, ctx context.Context) {
			top := newTopic[*watched](t)
			fails := waits
			q := subscribeBatch(t, top, "q", func(context.Context, []delivery.Delivery[*watched]) error {
				if fails {
					fails = false
					return errBusy
				}
				return nil
			}, WithBackoff(settings.Constant(20*time.Second)), WithCapacity(80))
			if waits {
				publish(t, top, &watched{})
				elapse(time.Second)
			}
			all := publishWatched(t, top, 60)
			elapse(time.Millisecond)
			require.EqualValues(t, 60, view.StatsOf(q).Acked)
			require.LessOrEqual(t, alive(all[:39]), 1, "the last ones stand in the log's last segment")
			check(t, top)
			require.NoError(t, top.Close())
		})
	}
}

func TestABatchAllocatesNothingForADelivery(t *testing.T) {
	for _, queues := range []int{1, 4} {
		for _, size := range []int{10, 64, 100} {
			bubble(t, func(t *testing.T, ctx context.Context) {
				top := newTopic[*int](t)
				handled := make(chan struct{}, queues)
				const n = 1000
				for k := range queues {
					count := 0
					subscribeBatch(t, top, fmt.Sprint(k), func(_ context.Context, ds []delivery.Delivery[*int]) error {
						if count += len(ds); count%n == 0 {
							handled <- struct{}{}
						}
						return nil
					}, WithBatchSize(size))
				}
				elapse(time.Second) // nothing is quick after what never was
				batch := make([]message.Published[*int], n)
				allocs := testing.AllocsPerRun(50, func() {
					if err := top.PublishMessages(ctx, batch...); err != nil {
						t.Error(err)
					}
					for range queues {
						<-handled
					}
				})
				require.Less(t, allocs/n/float64(queues), amortised, "per delivery in batches of %d to %d queues", size, queues)
				require.NoError(t, top.Close())
			})
		}
	}
}
