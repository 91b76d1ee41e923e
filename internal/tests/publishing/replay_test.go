// A queue that is opened later begins with the last messages that the topic retained.

package publishing_test

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/internal/tests/kit"
)

// publishEach publishes 1, 2, 3 and so on, one each d, until stop is called.
func publishEach(t *testing.T, top *fanout.Topic[int], d time.Duration) (stop func() (last int)) {
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
	for _, o := range []fanout.Overflow{fanout.Block, fanout.Reject, fanout.DropOldest, fanout.DropNewest} {
		t.Run(o.String(), func(t *testing.T) {
			kit.Bubble(t, func(t *testing.T, ctx context.Context) {
				top := kit.NewTopic[int](t, fanout.WithRetention(10))
				stop := publishEach(t, top, time.Millisecond)
				time.Sleep(20 * time.Millisecond)
				synctest.Wait()
				seen := top.Stats().Published
				short, cancel := context.WithTimeout(ctx, time.Second)
				defer cancel()
				asked := map[int]int{}
				var mu sync.Mutex
				at := time.Now()
				q, err := top.OpenQueue(short, "late", fanout.WithReplay(10), fanout.WithCapacity(1000), fanout.WithOverflow(o), fanout.WithFilter(func(n int) bool {
					time.Sleep(2 * time.Millisecond)
					mu.Lock()
					defer mu.Unlock()
					asked[n]++
					return n%2 == 0
				}))
				require.NoError(t, err)
				require.Equal(t, 20*time.Millisecond, time.Since(at), "one snapshot of ten messages")
				kit.Check(t, top)
				last := stop()
				mu.Lock()
				defer mu.Unlock()
				for n, k := range asked {
					require.Equal(t, 1, k, "message %d", n)
				}
				got := kit.Bodies(t, q)
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
		overflow fanout.Overflow
		want     []int
		dropped  uint64
	}{
		{fanout.Block, []int{1, 2, 3, 4}, 0},
		{fanout.Reject, []int{1, 2, 3, 4}, 0},
		{fanout.DropNewest, []int{1, 2, 3, 4}, 1},
		{fanout.DropOldest, []int{2, 3, 4, 5}, 1},
	} {
		t.Run(row.overflow.String(), func(t *testing.T) {
			kit.Bubble(t, func(t *testing.T, ctx context.Context) {
				top := kit.NewTopic[int](t, fanout.WithRetention(3))
				kit.Publish(t, top, 1, 2, 3)
				var snapshot atomic.Bool
				opened := make(chan *fanout.Queue[int])
				go func() {
					q, err := top.OpenQueue(ctx, "late", fanout.WithReplay(3), fanout.WithCapacity(4), fanout.WithOverflow(row.overflow), fanout.WithFilter(func(int) bool {
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
				require.ErrorIs(t, err, fanout.ErrInvalidOption, "its name is taken")
				err = top.TryPublish(ctx, 5)
				if row.overflow == fanout.Block || row.overflow == fanout.Reject {
					require.ErrorIs(t, err, fanout.ErrQueueFull)
				} else {
					require.NoError(t, err)
				}
				q := <-opened
				require.Equal(t, row.want, kit.Bodies(t, q))
				require.Equal(t, row.dropped, q.Stats().Dropped)
				s := q.Stats()
				require.Equal(t, uint64(s.Published), s.Acked+s.DeadLettered+s.Dropped+s.Left+uint64(s.Unsettled()))
				kit.Check(t, top)
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
			kit.Bubble(t, func(t *testing.T, ctx context.Context) {
				top := kit.NewTopic[int](t, fanout.WithRetention(3))
				kit.Publish(t, top, 1, 2, 3)
				opening, cancel := context.WithCancel(ctx)
				defer cancel()
				var q *fanout.Queue[int]
				var err error
				done := make(chan struct{})
				go func() {
					q, err = top.OpenQueue(opening, "late", fanout.WithReplay(3), fanout.WithCapacity(3), fanout.WithFilter(func(n int) bool {
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
					require.Equal(t, row.want, kit.Bodies(t, q))
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
		filter func(top *fanout.Topic[int], cancel func())
		err    error
	}
	for _, e := range []ending{
		{"ctx ends", func(_ *fanout.Topic[int], cancel func()) { cancel() }, context.Canceled},
		{"panic", func(*fanout.Topic[int], func()) { panic("no") }, nil},
		{"exit", func(*fanout.Topic[int], func()) { runtime.Goexit() }, nil},
		{"close", func(top *fanout.Topic[int], _ func()) { _ = top.Close() }, fanout.ErrClosed},
	} {
		t.Run(e.name, func(t *testing.T) {
			kit.Bubble(t, func(t *testing.T, ctx context.Context) {
				top := kit.NewTopic[int](t, fanout.WithRetention(3))
				kit.Publish(t, top, 1, 2, 3)
				opening, cancel := context.WithCancel(ctx)
				defer cancel()
				calls := 0
				var err error
				done := make(chan struct{})
				go func() {
					defer close(done)
					_, err = top.OpenQueue(opening, "late", fanout.WithReplay(3), fanout.WithFilter(func(int) bool {
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
				if e.err != fanout.ErrClosed {
					calls = 10
					kit.Publish(t, top, 4)
					require.Equal(t, 10, calls, "nobody asks its filter any more")
					q := kit.OpenQueue(t, top, "late", fanout.WithReplay(1), fanout.WithFilter(func(int) bool { return true }))
					require.Equal(t, []int{4}, kit.Bodies(t, q))
					kit.Check(t, top)
				}
				require.NoError(t, top.Close())
				<-top.Done()
			})
		})
	}
}

// No lock is held while a filter runs: it may use the topic.
func TestAFilterOfAReplayMayUseItsTopic(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t, fanout.WithRetention(2))
		kit.Publish(t, top, 1, 2)
		q := kit.OpenQueue(t, top, "late", fanout.WithReplay(2), fanout.WithFilter(func(n int) bool {
			if n < 3 {
				kit.Publish(t, top, n+10)
			}
			return top.Stats().Published > 0
		}))
		require.Equal(t, []int{1, 2, 11, 12}, kit.Bodies(t, q))
		require.NoError(t, top.Close())
	})
}

// What is replayed into a queue with a delay is due in the order of publication,
// however much later the filters were asked.
func TestAReplayIntoAQueueWithADelayKeepsTheOrder(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t, fanout.WithRetention(3))
		kit.Publish(t, top, 1, 2, 3)
		stop := make(chan struct{})
		go func() {
			defer close(stop)
			time.Sleep(100 * time.Millisecond)
			kit.Publish(t, top, 4, 5)
		}()
		q := kit.OpenQueue(t, top, "late", fanout.WithReplay(3), fanout.WithDelay(time.Second), fanout.WithFilter(func(n int) bool {
			if n < 4 {
				time.Sleep(time.Second) // longer than the delay
			}
			return true
		}))
		<-stop
		synctest.Wait()
		for n := 1; n <= 5; n++ {
			require.Equal(t, n, kit.Receive(t, q).Body)
		}
		require.NoError(t, top.Close())
	})
}

// Whatever has expired by the time the filters were asked is not replayed, and
// older messages take its place.
func TestAReplaySkipsWhatExpiredWhileFiltersWereAsked(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t, fanout.WithRetention(3))
		require.NoError(t, top.PublishMessages(ctx,
			fanout.Message[int]{Body: 1}, fanout.Message[int]{Body: 2}, fanout.Message[int]{Body: 3, TimeToLive: 3 * time.Second}))
		q := kit.OpenQueue(t, top, "late", fanout.WithReplay(2), fanout.WithFilter(func(int) bool {
			time.Sleep(time.Second)
			return true
		}))
		require.Equal(t, []int{1, 2}, kit.Bodies(t, q))
		require.NoError(t, top.Close())
	})
}

func TestAReplayKeepsTheOrderOfAKey(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		for _, delay := range []time.Duration{0, time.Second} {
			top := kit.NewTopic[int](t, fanout.WithRetention(3), fanout.WithOrdering())
			for n := range 3 {
				require.NoError(t, top.PublishMessages(ctx, fanout.Message[int]{Body: n, OrderingKey: "k"}))
			}
			options := []fanout.QueueOption{fanout.WithReplay(3), fanout.WithFilter(func(int) bool { return true })}
			if delay > 0 {
				options = append(options, fanout.WithDelay(delay))
			}
			q := kit.OpenQueue(t, top, "late", options...)
			time.Sleep(delay)
			synctest.Wait()
			for n := range 3 {
				d := kit.Receive(t, q)
				require.Equal(t, n, d.Body, "delay %v", delay)
				require.NoError(t, d.Ack(ctx))
			}
			require.NoError(t, top.Close())
		}
	})
}

func TestRowReplay(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		_, err := kit.NewTopic[int](t).OpenQueue(ctx, "q", fanout.WithReplay(1))
		require.ErrorIs(t, err, fanout.ErrUnsupported)

		top := kit.NewTopic[int](t, fanout.WithRetention(6))
		start := time.Now()
		ids := map[int]string{}
		all := kit.OpenQueue(t, top, "all")
		for n := range 10 {
			kit.PublishAll(t, top, fanout.Message[int]{Body: n, Attributes: map[string]string{"n": fmt.Sprint(n)}})
			d := kit.Receive(t, all)
			ids[n] = d.ID()
			require.NoError(t, d.Ack(ctx))
			kit.Elapse(time.Second)
		}
		require.Equal(t, 6, top.Stats().Retained)
		require.Empty(t, kit.Bodies(t, kit.OpenQueue(t, top, "none")))
		require.Equal(t, []int{8, 9}, kit.Bodies(t, kit.OpenQueue(t, top, "two", fanout.WithReplay(2))))
		q := kit.OpenQueue(t, top, "retention", fanout.WithReplay(100))
		require.Equal(t, []int{4, 5, 6, 7, 8, 9}, kit.Bodies(t, q))
		require.Equal(t, []int{7, 8, 9}, kit.Bodies(t, kit.OpenQueue(t, top, "capacity", fanout.WithReplay(6), fanout.WithCapacity(3), fanout.WithOverflow(fanout.DropNewest))))
		require.Equal(t, []int{6, 8}, kit.Bodies(t, kit.OpenQueue(t, top, "filter", fanout.WithReplay(2), fanout.WithFilter(func(b int) bool { return b%2 == 0 }))))
		delayed := kit.OpenQueue(t, top, "delay", fanout.WithReplay(6), fanout.WithDelay(3*time.Second)) // 7 s to 9 s are not due
		synctest.Wait()
		require.Equal(t, [2]int{4, 2}, [2]int{delayed.Stats().Ready, delayed.Stats().Delayed})
		_, err = top.OpenQueue(ctx, "panics", fanout.WithReplay(2), fanout.WithFilter(func(int) bool { panic("boom") }))
		require.ErrorContains(t, err, `filter of queue "panics"`)
		require.Nil(t, top.Queue("panics"))

		kit.Publish(t, top, 10)
		kit.Check(t, top)
		for _, n := range []int{4, 5, 6, 7, 8, 9, 10} { // the past, then the present
			d := kit.Receive(t, q)
			require.Equal(t, n, d.Body)
			if n < 10 {
				require.Equal(t, ids[n], d.ID())
				require.Equal(t, start.Add(time.Duration(n)*time.Second), d.PublishedAt())
				require.Equal(t, map[string]string{"n": fmt.Sprint(n)}, d.Attributes())
			}
			require.NoError(t, d.Ack(ctx))
		}
		require.Equal(t, 7, q.Stats().Published)
		kit.Check(t, top)
		top.Close()
	})
}

func TestCombinationOfAReplayLargerThanTheCapacity(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t, fanout.WithRetention(10), fanout.WithOrdering())
		for n := range 10 {
			kit.PublishAll(t, top, kit.Keyed(fmt.Sprint(n%2), n)...)
		}
		q := kit.OpenQueue(t, top, "q", fanout.WithReplay(10), fanout.WithCapacity(4))
		even := kit.OpenQueue(t, top, "even", fanout.WithReplay(10), fanout.WithCapacity(4), fanout.WithFilter(func(b int) bool { return b%2 == 0 }))
		require.Equal(t, []int{6, 7, 8, 9}, kit.Bodies(t, q))
		require.Equal(t, []int{2, 4, 6, 8}, kit.Bodies(t, even))
		kit.Check(t, top)
		old := kit.OpenQueue(t, top, "old", fanout.WithReplay(10), fanout.WithCapacity(4), fanout.WithOverflow(fanout.DropOldest))
		full := kit.Waiting(ctx, top, fanout.Message[int]{Body: 11})
		kit.RequireWaiting(t, full)
		require.Equal(t, []int{6, 7, 8, 9}, kit.Bodies(t, old), "nothing is dropped for a publish that waits")
		six, seven := kit.Receive(t, q), kit.Receive(t, q)
		require.Equal(t, [2]int{6, 7}, [2]int{six.Body, seven.Body}, "one of each key")
		kit.RequireEmpty(t, q)
		require.NoError(t, six.Ack(ctx))
		require.NoError(t, kit.RequireDecided(t, full))
		require.Equal(t, []int{7, 8, 9, 11}, kit.Bodies(t, old))
		require.Equal(t, 8, kit.Receive(t, q).Body, "as it was the next of its key")
		require.Equal(t, 11, kit.Receive(t, q).Body)
		kit.Check(t, top)
		top.Close()
	})
}

func TestAClosedTopicThatRetainedIsClosed(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t, fanout.WithRetention(1))
		top.Close()
		_, err := top.OpenQueue(ctx, "q", fanout.WithReplay(1))
		require.ErrorIs(t, err, fanout.ErrClosed)
	})
}
