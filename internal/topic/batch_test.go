package topic

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/settings"
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
func bodiesOf[T any](ds []queue.Delivery[T]) (bs []T) {
	for _, d := range ds {
		bs = append(bs, d.Body)
	}
	return bs
}

// inWindow counts what the queue holds outside the log, leases and leases.
func inWindow[T any](q *queue.Queue[T]) int {
	q.Mu.Lock()
	defer q.Mu.Unlock()
	return q.Win.Len()
}

func TestABatchIsWhatIsThere(t *testing.T) {
	for _, size := range []int{1, 2, 10, 64, 65, 300, 1000} {
		for _, n := range []int{1, 9, 10, 64, 130, 999} {
			bubble(t, func(t *testing.T, ctx context.Context) {
				top := newTopic[int](t)
				var got [][]int
				q := subscribeBatch(t, top, "q", func(_ context.Context, ds []queue.Delivery[int]) error {
					got = append(got, bodiesOf(ds))
					return nil
				}, WithBatchSize(size))
				publishOnce(t, top, n)
				synctest.Wait()
				var want [][]int
				for bs := range slices.Chunk(from(0, n), size) {
					want = append(want, bs)
				}
				require.Equal(t, want, got)
				require.EqualValues(t, n, q.Stats().Acked)
				check(t, top)
				require.NoError(t, top.Close())
			})
		}
	}
}

func TestABatchWithAMessageOfWhichMoreIsKeptIsWholeToo(t *testing.T) {
	for at := range ofPrefetched {
		bubble(t, func(t *testing.T, ctx context.Context) {
			top := newTopic[int](t, WithOrdering())
			var q *queue.Queue[int]
			batch := 0
			q = subscribeBatch(t, top, "q", func(_ context.Context, ds []queue.Delivery[int]) error {
				require.Len(t, ds, 100)
				require.Equal(t, 100, q.Stats().InFlight)
				require.Zero(t, inWindow(q), "nothing of a batch is kept apart")
				batch++
				return nil
			}, WithBatchSize(100))
			ms := make([]queue.Message[int], ofPrefetched)
			ms[at].OrderingKey = "a"
			require.NoError(t, top.PublishMessages(ctx, ms...))
			synctest.Wait()
			require.Equal(t, 3, batch)
			require.EqualValues(t, ofPrefetched, q.Stats().Acked)
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
			q = subscribeBatch(t, top, "q", func(context.Context, []queue.Delivery[int]) error {
				require.Equal(t, 100, q.Stats().InFlight)
				time.Sleep(took)
				require.Zero(t, inWindow(q))
				require.Equal(t, 100, q.Stats().InFlight)
				return nil
			}, WithBatchSize(100))
			publishOnce(t, top, 300)
			elapse(3 * took)
			s := q.Stats()
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
				q := subscribeBatch(t, top, "q", func(ctx context.Context, ds []queue.Delivery[int]) error {
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
					s, err := subscribeTo(q, ctx, func(context.Context, queue.Delivery[int]) error { return nil })
					require.NoError(t, err)
					publish(t, top, 128, 129)
					synctest.Wait()
					require.NoError(t, s.Shutdown(ctx))
				}
				elapse(time.Minute)
				require.Equal(t, []time.Duration{timeout}, took)
				after := fmt.Sprintf("%v: 64 of attempt 2", timeout)
				require.Equal(t, []string{"0s: 64 of attempt 1", "0s: 64 of attempt 1", after}, y.read())
				require.EqualValues(t, 64, q.Stats().TimedOut)
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
		q := subscribeBatch(t, top, "q", func(context.Context, []queue.Delivery[int]) error {
			time.Sleep(visibility / 2)
			return nil
		}, WithVisibilityTimeout(visibility), WithBatchSize(1))
		publish(t, top, 0)
		elapse(visibility / 4)
		var took time.Duration
		_, err := subscribeTo(q, ctx, func(ctx context.Context, d queue.Delivery[int]) error {
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
		inLog := g.q.InLog()
		g.q.Mu.Unlock()
		require.Positive(t, inLog, "nothing is in the log")
		var got []int
		_, err := subscribeBatchTo(g.q, ctx, func(_ context.Context, ds []queue.Delivery[int]) error {
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
		subscribeBatch(t, top, "q", func(_ context.Context, ds []queue.Delivery[int]) error {
			got = append(got, bodiesOf(ds))
			time.Sleep(time.Second)
			return nil
		}, WithBatchSize(10), WithCapacity(10))
		publishOnce(t, top, 10)
		synctest.Wait()
		began := time.Now()
		require.NoError(t, top.Publish(ctx, 10), "waits until the batch is done")
		require.Equal(t, time.Second, time.Since(began))
		elapse(time.Minute)
		require.Equal(t, [][]int{to(0, 9), {10}}, got)
		check(t, top)
		require.NoError(t, top.Close())
	})
}

func TestWhatHappensToABatch(t *testing.T) {
	const n, size, second = 40, 20, 25 // message 25 is in the second batch
	type scene struct {
		q *queue.Queue[int]
		s *workers.Subscriber[int]
		y *diary
	}
	failed := []string{"0s: 0-19", "0s: 20-39", "1s: 20-39"}
	quiet := failed[:2]
	for name, row := range map[string]struct {
		inHandler func(t *testing.T, c *scene, ctx context.Context, ds []queue.Delivery[int]) error // with 20 to 39
		want      []string
		acked     int
		after     func(t *testing.T, c *scene)
	}{
		"nothing": {func(t *testing.T, c *scene, _ context.Context, ds []queue.Delivery[int]) error { return nil }, quiet, n, nil},
		"stats and a peek": {func(t *testing.T, c *scene, _ context.Context, ds []queue.Delivery[int]) error {
			publish(t, topicOf(c.q), n)
			s := c.q.Stats()
			require.Equal(t, []int{20, 20, 1, 40}, []int{int(s.Acked), s.InFlight, s.Ready, int(s.Delivered)})
			require.Equal(t, []int{n}, bodies(t, c.q))
			require.Zero(t, inWindow(c.q))
			return nil
		}, append(slices.Clone(quiet), "0s: 40-40"), n + 1, nil},
		"an error": {func(*testing.T, *scene, context.Context, []queue.Delivery[int]) error { return errBusy }, failed, n, nil},
		"a panic":  {func(*testing.T, *scene, context.Context, []queue.Delivery[int]) error { panic("boom") }, failed, n, nil},
		"Goexit": {func(*testing.T, *scene, context.Context, []queue.Delivery[int]) error {
			runtime.Goexit()
			return nil
		}, failed, n, nil},
		"a nack of one": {func(t *testing.T, c *scene, ctx context.Context, ds []queue.Delivery[int]) error {
			require.NoError(t, ds[5].Nack(ctx))
			require.ErrorIs(t, ds[5].Ack(ctx), message.ErrSettled)
			s := c.q.Stats()
			require.Equal(t, []int{19, 1}, []int{s.InFlight, s.Retrying})
			return nil
		}, append(slices.Clone(quiet), "1s: 25-25"), n, nil},
		"an error after some were acknowledged": {func(t *testing.T, _ *scene, ctx context.Context, ds []queue.Delivery[int]) error {
			for _, d := range ds[1:19] {
				require.NoError(t, d.Ack(ctx))
			}
			return errBusy
		}, append(slices.Clone(quiet), "1s: 20-39"), n, nil},
		"an extension of one": {func(t *testing.T, c *scene, ctx context.Context, ds []queue.Delivery[int]) error {
			require.NoError(t, ds[5].Extend(ctx, time.Hour))
			require.Equal(t, time.Now().Add(time.Hour), ds[5].Deadline())
			require.Equal(t, time.Now().Add(10*time.Second), ds[6].Deadline())
			<-ctx.Done()
			require.Equal(t, 1, c.q.Stats().InFlight)
			require.EqualValues(t, 19, c.q.Stats().TimedOut)
			return nil
		}, append(slices.Clone(quiet), "10s: 20-39"), n, nil},
		"another goroutine that settles": {func(t *testing.T, c *scene, ctx context.Context, ds []queue.Delivery[int]) error {
			var wg sync.WaitGroup
			for _, d := range ds {
				wg.Go(func() { require.NoError(t, d.Ack(ctx)) })
			}
			wg.Wait()
			require.EqualValues(t, n, c.q.Stats().Acked)
			return errBusy // too late
		}, quiet, n, nil},
		"a pause": {func(t *testing.T, c *scene, ctx context.Context, ds []queue.Delivery[int]) error {
			publish(t, topicOf(c.q), n)
			return c.q.Pause(ctx)
		}, quiet, n, func(t *testing.T, c *scene) { require.Equal(t, 1, c.q.Stats().Ready) }},
		"a purge": {func(t *testing.T, c *scene, ctx context.Context, ds []queue.Delivery[int]) error {
			dropped, err := c.q.Purge(ctx)
			require.NoError(t, err)
			require.Equal(t, 20, dropped)
			require.ErrorIs(t, context.Cause(ctx), message.ErrStale)
			require.ErrorIs(t, ds[3].Ack(ctx), message.ErrStale)
			return nil
		}, quiet, 20, nil},
		"a close": {func(t *testing.T, c *scene, ctx context.Context, ds []queue.Delivery[int]) error {
			require.NoError(t, c.q.Close())
			require.ErrorIs(t, context.Cause(ctx), message.ErrClosed)
			require.ErrorIs(t, ds[3].Ack(ctx), message.ErrClosed)
			return nil
		}, quiet, 20, func(t *testing.T, c *scene) { require.Len(t, c.q.Leftovers(), 20) }},
		"a shutdown that ends early": {func(t *testing.T, c *scene, ctx context.Context, ds []queue.Delivery[int]) error {
			ended, end := context.WithCancel(ctx)
			end()
			require.ErrorIs(t, c.s.Shutdown(ended), context.Canceled)
			require.ErrorIs(t, context.Cause(ctx), message.ErrClosed)
			require.NoError(t, ds[3].Ack(ctx))
			return nil
		}, quiet, n, func(t *testing.T, c *scene) {
			require.False(t, isOpen(c.s.Done()))
			requireEmpty(t, c.q)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				top := newTopic[int](t)
				c := &scene{y: newDiary()}
				var before []queue.Delivery[int]
				var err error
				c.s, err = top.SubscribeBatch(ctx, "q", func(ctx context.Context, ds []queue.Delivery[int]) error {
					c.y.note("%d-%d", ds[0].Body, ds[len(ds)-1].Body)
					if ds[0].Body != size || ds[0].Attempt() > 1 {
						before = ds
						return nil
					}
					require.ErrorIs(t, before[3].Nack(ctx), message.ErrSettled, "the batch before is done")
					require.True(t, before[4].Deadline().IsZero())
					return row.inHandler(t, c, ctx, ds)
				}, WithBatchSize(size), WithVisibilityTimeout(10*time.Second), WithBackoff(settings.Constant(time.Second)))
				require.NoError(t, err)
				c.q = c.s.Queue()
				publishOnce(t, top, n)
				elapse(2 * time.Minute)
				require.Equal(t, row.want, c.y.read())
				require.EqualValues(t, row.acked, c.q.Stats().Acked)
				if row.after != nil {
					row.after(t, c)
				}
				synctest.Wait()
				check(t, top)
				require.NoError(t, top.Close())
				<-top.Done()
			})
		})
	}
}

func TestTheSliceOfABatchIsTheHandlersToKeepAndToChange(t *testing.T) {
	for _, size := range []int{1, 2, 9, 64, 65, 200} {
		for _, ordering := range []bool{false, true} { // such messages are entries from the start
			bubble(t, func(t *testing.T, ctx context.Context) {
				const n = 500
				top := newTopic[int](t, WithOrdering())
				var kept, copies [][]queue.Delivery[int]
				q := subscribeBatch(t, top, "q", func(ctx context.Context, ds []queue.Delivery[int]) error {
					switch {
					case ds[0].Attempt() > 1:
						return nil
					case len(kept)%3 == 1: // what is left of it must not matter
						ds = slices.DeleteFunc(ds, func(d queue.Delivery[int]) bool { return d.Body%2 == 0 })
						_ = append(ds, ds...)
						clear(ds)
					case len(kept)%3 == 2:
						slices.Reverse(ds)
						_ = ds[0].Deadline() // makes them entries
						clear(ds[:cap(ds)])
					}
					kept, copies = append(kept, ds), append(copies, slices.Clone(ds))
					if len(kept)%2 == 0 {
						return errBusy
					}
					return nil
				}, WithBatchSize(size), WithBackoff(settings.Constant(time.Second)))
				ms := make([]queue.Message[int], n)
				for k := range ms {
					ms[k].Body = k
					if ordering {
						ms[k].OrderingKey = fmt.Sprint(k)
					}
				}
				require.NoError(t, top.PublishMessages(ctx, ms...))
				elapse(time.Hour)
				require.Equal(t, copies, kept)
				s := q.Stats()
				require.EqualValues(t, n, s.Acked)
				require.Zero(t, s.TimedOut, "a message that the handler took from its slice was forgotten")
				check(t, top)
				require.NoError(t, top.Close())
			})
		}
	}
}

func TestABatchPinsNothingAMillisecondAfterItIsDone(t *testing.T) {
	for _, waits := range []bool{false, true} { // another message, so that the timer is armed for that
		bubble(t, func(t *testing.T, ctx context.Context) {
			top := newTopic[*watched](t)
			fails := waits
			q := subscribeBatch(t, top, "q", func(context.Context, []queue.Delivery[*watched]) error {
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
			require.EqualValues(t, 60, q.Stats().Acked)
			require.LessOrEqual(t, alive(all[:39]), 1, "the last ones stand in the log's last segment")
			check(t, top)
			require.NoError(t, top.Close())
		})
	}
}

// In a bubble, where time stands still, so that the timer drops no slab however
// long it takes.
func TestABatchAllocatesNothingForADelivery(t *testing.T) {
	for _, queues := range []int{1, 4} {
		for _, size := range []int{10, 64, 100} {
			bubble(t, func(t *testing.T, ctx context.Context) {
				top := newTopic[*int](t)
				handled := make(chan struct{}, queues)
				const n = 1000
				for k := range queues {
					count := 0
					subscribeBatch(t, top, fmt.Sprint(k), func(_ context.Context, ds []queue.Delivery[*int]) error {
						if count += len(ds); count%n == 0 {
							handled <- struct{}{}
						}
						return nil
					}, WithBatchSize(size))
				}
				elapse(time.Second) // nothing is quick after what never was
				batch := make([]queue.Message[*int], n)
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
