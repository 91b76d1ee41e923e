package fanout

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// publishEach publishes 1, 2, 3 and so on, one each d, until stop is called.
func publishEach(t *testing.T, top *Topic[int], d time.Duration) (stop func() (last int)) {
	ctx, cancel := context.WithCancel(t.Context())
	last := make(chan int)
	go func() {
		n := 0
		for ; ctx.Err() == nil; n++ {
			if top.Publish(ctx, n+1) != nil {
				break
			}
			time.Sleep(d)
		}
		last <- n
	}()
	return func() int {
		cancel()
		return <-last
	}
}

func TestAReplayAsksEachRetainedMessageOnceHoweverFastOthersPublish(t *testing.T) {
	for _, o := range []Overflow{Block, Reject, DropOldest, DropNewest} {
		t.Run(o.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				top := newTopic[int](t, WithRetention(10))
				stop := publishEach(t, top, time.Millisecond)
				time.Sleep(20 * time.Millisecond)
				synctest.Wait()
				seen := top.Stats().Published
				short, cancel := context.WithTimeout(ctx, time.Second)
				defer cancel()
				asked := map[int]int{}
				var mu sync.Mutex
				at := time.Now()
				q, err := top.OpenQueue(short, "late", WithReplay(10), WithCapacity(1000), WithOverflow(o), WithFilter(func(n int) bool {
					time.Sleep(2 * time.Millisecond)
					mu.Lock()
					defer mu.Unlock()
					asked[n]++
					return n%2 == 0
				}))
				require.NoError(t, err)
				require.Equal(t, 20*time.Millisecond, time.Since(at), "one snapshot of ten messages")
				check(t, top)
				last := stop()
				mu.Lock()
				defer mu.Unlock()
				for n, k := range asked {
					require.Equal(t, 1, k, "message %d", n)
				}
				got := bodies(t, q)
				require.Greater(t, len(got), 5, "some were published meanwhile")
				first := int(seen) - 9
				first += first % 2
				for k, n := range got {
					require.Equal(t, first+2*k, n, "the replay comes first, and all is in order: %v", got)
				}
				require.LessOrEqual(t, got[len(got)-1], last)
				require.EqualValues(t, len(got), q.Stats().Published)
				require.NoError(t, top.Close())
			})
		})
	}
}

// While the filters are asked the queue has no more room than is left beside what
// it will replay.
func TestAReplayAndWhatIsPublishedMeanwhileShareTheCapacity(t *testing.T) {
	for _, row := range []struct {
		overflow Overflow
		want     []int
		dropped  uint64
	}{
		{Block, []int{1, 2, 3, 4}, 0},
		{Reject, []int{1, 2, 3, 4}, 0},
		{DropNewest, []int{1, 2, 3, 4}, 1},
		{DropOldest, []int{2, 3, 4, 5}, 1},
	} {
		t.Run(row.overflow.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				top := newTopic[int](t, WithRetention(3))
				publish(t, top, 1, 2, 3)
				var snapshot atomic.Bool
				opened := make(chan *Queue[int])
				go func() {
					q, err := top.OpenQueue(ctx, "late", WithReplay(3), WithCapacity(4), WithOverflow(row.overflow), WithFilter(func(int) bool {
						if !snapshot.Load() {
							time.Sleep(time.Second)
						}
						return true
					}))
					require.NoError(t, err)
					opened <- q
				}()
				synctest.Wait()
				snapshot.Store(true) // a publisher asks the same filter
				require.NoError(t, top.TryPublish(ctx, 4))
				require.Nil(t, top.Queue("late"), "it is not open yet")
				require.Empty(t, top.Queues())
				_, err := top.OpenQueue(ctx, "late")
				require.ErrorIs(t, err, ErrInvalidOption, "its name is taken")
				err = top.TryPublish(ctx, 5)
				if row.overflow == Block || row.overflow == Reject {
					require.ErrorIs(t, err, ErrQueueFull)
				} else {
					require.NoError(t, err)
				}
				q := <-opened
				require.Equal(t, row.want, bodies(t, q))
				require.Equal(t, row.dropped, q.Stats().Dropped)
				s := q.Stats()
				require.Equal(t, uint64(s.Published), s.Acked+s.DeadLettered+s.Dropped+s.Left+uint64(s.Unsettled()))
				check(t, top)
				require.NoError(t, top.Close())
			})
		})
	}
}

// A publisher that waits for room which the replay did not need goes on.
func TestRoomThatAReplayDidNotNeedIsGivenBack(t *testing.T) {
	for _, row := range []struct {
		name string
		end  func(cancel func()) // while the filter is asked
		want []int
	}{
		{"opened", func(func()) {}, []int{9}},
		{"given up", func(cancel func()) { cancel() }, nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				top := newTopic[int](t, WithRetention(3))
				publish(t, top, 1, 2, 3)
				opening, cancel := context.WithCancel(ctx)
				defer cancel()
				var q *Queue[int]
				var err error
				done := make(chan struct{})
				go func() {
					q, err = top.OpenQueue(opening, "late", WithReplay(3), WithCapacity(3), WithFilter(func(n int) bool {
						if n != 9 {
							time.Sleep(time.Second)
						}
						return n == 9
					}))
					close(done)
				}()
				synctest.Wait()
				go func() { require.NoError(t, top.Publish(ctx, 9)) }()
				synctest.Wait()
				require.Equal(t, 1, top.Stats().Waiting, "all room is set aside")
				row.end(cancel)
				<-done
				synctest.Wait()
				require.Zero(t, top.Stats().Waiting)
				if row.want == nil {
					require.ErrorIs(t, err, context.Canceled)
				} else {
					require.NoError(t, err)
					require.Equal(t, row.want, bodies(t, q))
				}
				require.NoError(t, top.Close())
			})
		})
	}
}

// However the opening of a queue ends without a queue, nothing of it is left.
func TestAReplayThatFailsLeavesNoQueue(t *testing.T) {
	type ending struct {
		name   string
		filter func(top *Topic[int], cancel func())
		err    error
	}
	for _, e := range []ending{
		{"ctx ends", func(_ *Topic[int], cancel func()) { cancel() }, context.Canceled},
		{"panic", func(*Topic[int], func()) { panic("no") }, nil},
		{"exit", func(*Topic[int], func()) { runtime.Goexit() }, nil},
		{"close", func(top *Topic[int], _ func()) { _ = top.Close() }, ErrClosed},
	} {
		t.Run(e.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				top := newTopic[int](t, WithRetention(3))
				publish(t, top, 1, 2, 3)
				opening, cancel := context.WithCancel(ctx)
				defer cancel()
				calls := 0
				var err error
				done := make(chan struct{})
				go func() {
					defer close(done)
					_, err = top.OpenQueue(opening, "late", WithReplay(3), WithFilter(func(int) bool {
						if calls++; calls == 2 {
							e.filter(top, cancel)
						}
						return true
					}))
				}()
				<-done
				if e.err != nil {
					require.ErrorIs(t, err, e.err)
				} else if e.name == "panic" {
					require.ErrorContains(t, err, `filter of queue "late"`)
				}
				if e.err == context.Canceled {
					require.Equal(t, 2, calls, "the end is noticed between two calls")
				}
				require.Nil(t, top.Queue("late"))
				require.Zero(t, top.Stats().Queues)
				if e.err != ErrClosed {
					calls = 10
					publish(t, top, 4)
					require.Equal(t, 10, calls, "nobody asks its filter any more")
					q := openQueue(t, top, "late", WithReplay(1), WithFilter(func(int) bool { return true }))
					require.Equal(t, []int{4}, bodies(t, q))
					check(t, top)
				}
				require.NoError(t, top.Close())
				<-top.Done()
			})
		})
	}
}

// No lock is held while a filter runs: it may use the topic.
func TestAFilterOfAReplayMayUseItsTopic(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t, WithRetention(2))
		publish(t, top, 1, 2)
		q := openQueue(t, top, "late", WithReplay(2), WithFilter(func(n int) bool {
			if n < 3 {
				publish(t, top, n+10)
			}
			return top.Stats().Published > 0
		}))
		require.Equal(t, []int{1, 2, 11, 12}, bodies(t, q))
		require.NoError(t, top.Close())
	})
}

// What is replayed into a queue with a delay is due in the order of publication,
// however much later the filters were asked.
func TestAReplayIntoAQueueWithADelayKeepsTheOrder(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t, WithRetention(3))
		publish(t, top, 1, 2, 3)
		stop := make(chan struct{})
		go func() {
			defer close(stop)
			time.Sleep(100 * time.Millisecond)
			publish(t, top, 4, 5)
		}()
		q := openQueue(t, top, "late", WithReplay(3), WithDelay(time.Second), WithFilter(func(n int) bool {
			if n < 4 {
				time.Sleep(time.Second) // longer than the delay
			}
			return true
		}))
		<-stop
		synctest.Wait()
		for n := 1; n <= 5; n++ {
			require.Equal(t, n, receive(t, q).Body)
		}
		require.NoError(t, top.Close())
	})
}

// Whatever has expired by the time the filters were asked is not replayed, and
// older messages take its place.
func TestAReplaySkipsWhatExpiredWhileFiltersWereAsked(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t, WithRetention(3))
		require.NoError(t, top.PublishMessages(ctx,
			Message[int]{Body: 1}, Message[int]{Body: 2}, Message[int]{Body: 3, TimeToLive: 3 * time.Second}))
		q := openQueue(t, top, "late", WithReplay(2), WithFilter(func(int) bool {
			time.Sleep(time.Second)
			return true
		}))
		require.Equal(t, []int{1, 2}, bodies(t, q))
		require.NoError(t, top.Close())
	})
}

func TestAReplayKeepsTheOrderOfAKey(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		for _, delay := range []time.Duration{0, time.Second} {
			top := newTopic[int](t, WithRetention(3), WithOrdering())
			for n := range 3 {
				require.NoError(t, top.PublishMessages(ctx, Message[int]{Body: n, OrderingKey: "k"}))
			}
			options := []QueueOption{WithReplay(3), WithFilter(func(int) bool { return true })}
			if delay > 0 {
				options = append(options, WithDelay(delay))
			}
			q := openQueue(t, top, "late", options...)
			time.Sleep(delay)
			synctest.Wait()
			for n := range 3 {
				d := receive(t, q)
				require.Equal(t, n, d.Body, "delay %v", delay)
				require.NoError(t, d.Ack(ctx))
			}
			require.NoError(t, top.Close())
		}
	})
}
