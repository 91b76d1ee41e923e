package topic

import (
	"context"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/alarm"
	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/lifecycle"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/settings"
	"github.com/gofanout/fanout/internal/store"
	"github.com/gofanout/fanout/internal/view"
)

// waitingIn is how many messages wait for the range that took some last, and
// prefetchedIn how many it took.
func waitingIn[T any](q *queue.Queue[T]) int {
	if l := q.Ranging.Load(); l != nil {
		return l.Word.Place().Waiting()
	}
	return 0
}

func prefetchedIn[T any](q *queue.Queue[T]) (n int) {
	q.Locked(func() { n = prefetchedLocked(q) })
	return n
}

func prefetchedLocked[T any](q *queue.Queue[T]) int {
	if l := q.Ranging.Load(); l != nil {
		return l.Len()
	}
	return 0
}

// warm ranges over n messages and acknowledges them, so that the next lease is as
// large as it can be; then it publishes more and calls body with each of them.
// body returns whether to go on.
func warm(t *testing.T, top *Topic[int], q *queue.Queue[int], more int, body func(d delivery.Delivery[int]) bool) {
	t.Helper()
	const n = 4 * queue.PrefetchLen
	publish(t, top, to(-n, -1)...)
	for d, err := range deliveriesOf(q, t.Context()) {
		require.NoError(t, err)
		if d.Body >= 0 {
			if !body(d) {
				return
			}
			continue
		}
		require.NoError(t, d.Ack(t.Context()))
		if d.Body == -1 {
			publish(t, top, to(0, more-1)...)
		}
	}
}

// What is done to a queue in the midst of a lease is as if there were none.
func TestARangeInTheMidstOf(t *testing.T) {
	type stage struct {
		top *Topic[int]
		q   *queue.Queue[int]
		d   delivery.Delivery[int]
		ctx context.Context
	}
	for _, row := range []struct {
		name string
		do   func(t *testing.T, s stage) // with message 3 of 20, not settled
		next int                         // that the loop then gets; -1 if it waits or ends
		err  error                       // of the acknowledgement afterwards
	}{
		{"nothing", func(*testing.T, stage) {}, 4, nil},
		{"a look at the deadline", func(t *testing.T, s stage) {
			require.Equal(t, time.Now().Add(time.Minute), s.d.Deadline())
		}, 4, nil},
		{"an extension", func(t *testing.T, s stage) {
			require.NoError(t, s.d.Extend(s.ctx, time.Hour))
			require.Equal(t, time.Now().Add(time.Hour), s.d.Deadline())
		}, 4, nil},
		{"a settlement", func(t *testing.T, s stage) {
			require.NoError(t, s.d.Settle(s.ctx, message.Snooze(time.Hour)))
			require.Equal(t, 1, view.StatsOf(s.q).Delayed)
		}, 4, message.ErrSettled},
		{"a look at what is ready", func(t *testing.T, s stage) {
			publish(t, s.top, to(20, 219)...)
			require.Equal(t, to(4, 219), bodies(t, s.q))
		}, 4, nil},
		{"a pause", func(t *testing.T, s stage) {
			require.NoError(t, lifecycle.Pause(s.ctx, s.q))
		}, -1, nil},
		{"a purge", func(t *testing.T, s stage) {
			n, err := lifecycle.Purge(s.ctx, s.q)
			require.NoError(t, err)
			require.Equal(t, 17, n)
		}, -1, message.ErrStale},
		{"a close", func(t *testing.T, s stage) {
			require.NoError(t, lifecycle.Close(s.q))
			require.Len(t, lifecycle.Leftovers(s.q), 17)
		}, -1, message.ErrClosed},
		{"a message that becomes due", func(t *testing.T, s stage) {
			other := receive(t, s.q)
			require.Equal(t, 4, other.Body, "nothing but the lease is left")
			require.NoError(t, other.NackAfter(s.ctx, time.Nanosecond)) // a millisecond
			for s.q.Store.In(store.Backlogged) > 0 {                    // what the receiver took back from the lease
				require.NoError(t, receive(t, s.q).Ack(s.ctx))
			}
			publish(t, s.top, to(20, 219)...)
			elapse(time.Millisecond)
			require.Equal(t, 1, s.q.Store.In(store.Due))
		}, 4, nil},
		{"a flood that drops the oldest", func(t *testing.T, s stage) {
			publish(t, s.top, to(20, 20+1023-1)...)
			require.EqualValues(t, 16, view.StatsOf(s.q).Dropped)
		}, 20, nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				overflow := settings.Block
				if row.next == 20 {
					overflow = settings.DropOldest
				}
				top := newTopic[int](t)
				q := openQueue(t, top, "q", WithVisibilityTimeout(time.Minute), WithOverflow(overflow))
				ctx, cancel := context.WithCancel(ctx)
				defer cancel()
				next := -1
				publish(t, top, to(-4*queue.PrefetchLen, -1)...)
				for d, err := range deliveriesOf(q, ctx) {
					switch {
					case err != nil:
						require.ErrorIs(t, err, context.Canceled)
					case d.Body == -1:
						require.NoError(t, d.Ack(ctx))
						publish(t, top, to(0, 19)...)
					case d.Body < 3:
						require.NoError(t, d.Ack(ctx))
					case d.Body == 3:
						require.Equal(t, 16, waitingIn(q))
						row.do(t, stage{top, q, d, ctx})
						check(t, top)
						require.ErrorIs(t, d.Ack(ctx), row.err)
						check(t, top)
						time.AfterFunc(time.Second, cancel)
					default:
						next = d.Body
						cancel()
					}
				}
				require.Equal(t, row.next, next)
				check(t, top)
				require.NoError(t, top.Close())
				<-top.Done()
			})
		})
	}
}

func TestARangeYieldsNothingThatHasExpired(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "q", WithTimeToLive(time.Microsecond))
		publish(t, top, to(1, 100)...)
		for d, err := range deliveriesOf(q, ctx) {
			require.NoError(t, err)
			if d.Body == 50 {
				time.Sleep(time.Microsecond)
				publish(t, top, 101)
			}
			require.NoError(t, d.Ack(ctx))
			if d.Body > 50 {
				require.Equal(t, 101, d.Body)
				break
			}
		}
		require.EqualValues(t, 50, view.StatsOf(q).Expired)
		require.NoError(t, top.Close())
	})
}

func TestARangeGetsOneMessageOfAKeyAtATime(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t, WithOrdering())
		q := openQueue(t, top, "q")
		var first delivery.Delivery[int]
		warm(t, top, q, 1, func(d delivery.Delivery[int]) bool {
			switch d.Body {
			case 0:
				publishAll(t, top, message.Published[int]{Body: 1, OrderingKey: "a"}, message.Published[int]{Body: 2, OrderingKey: "a"}, message.Published[int]{Body: 3})
			case 1:
				first = d
				return true
			case 2:
				require.ErrorIs(t, first.Ack(ctx), message.ErrSettled)
				require.NoError(t, d.Ack(ctx))
				return false
			case 3:
				require.NoError(t, first.Ack(ctx))
			}
			require.NoError(t, d.Ack(ctx))
			return true
		})
		require.NoError(t, top.Close())
	})
}

func TestARangeLetsAShutdownEndAtOnce(t *testing.T) {
	for _, from := range []int{20, 39} {
		bubble(t, func(t *testing.T, ctx context.Context) {
			top := newTopic[int](t)
			q := openQueue(t, top, "q")
			done := make(chan error, 1)
			warm(t, top, q, 40, func(d delivery.Delivery[int]) bool {
				if d.Body == from {
					go func() { done <- top.Shutdown(ctx) }()
					synctest.Wait()
				}
				require.Empty(t, done)
				require.NoError(t, d.Ack(ctx))
				if d.Body == 39 {
					synctest.Wait()
					require.Len(t, done, 1, "the loop has not asked for the next")
				}
				return true
			})
			require.NoError(t, <-done)
		})
	}
}

// A publisher that waits for room gets it with the last message of the lease, or
// when the lease is a millisecond old.
func TestARangeMakesRoom(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "q", WithCapacity(4*queue.PrefetchLen))
		published := make(chan error, 1)
		wait := func(body int) {
			go func() { published <- top.In.Publish(ctx, body) }()
			synctest.Wait()
			require.Empty(t, published)
		}
		admitted := false
		warm(t, top, q, 4*queue.PrefetchLen, func(d delivery.Delivery[int]) bool {
			if d.Body == 0 {
				wait(1000)
			}
			last := waitingIn(q) == 0
			require.NoError(t, d.Ack(ctx))
			synctest.Wait()
			if admitted {
				require.Empty(t, published)
				elapse(alarm.CheckAge)
				require.Len(t, published, 1)
				require.NoError(t, <-published)
				return false
			}
			if last {
				require.Len(t, published, 1, "at once")
				require.NoError(t, <-published)
				require.NoError(t, top.PublishMessages(ctx, make([]message.Published[int], d.Body)...))
				wait(1001)
				admitted = true
			}
			require.Empty(t, published)
			return true
		})
		check(t, top)
		require.NoError(t, top.Close())
	})
}

// Several loops, receivers and a subscriber compete, acknowledgements come from
// other goroutines, and the queue is paused meanwhile: each message is
// acknowledged once.
func TestRangesCompeteForAQueue(t *testing.T) {
	const n = 20_000
	ctx := context.Background()
	top := newTopic[int](t)
	q := openQueue(t, top, "q", WithCapacity(500), WithVisibilityTimeout(time.Hour))
	var counts [n]atomic.Int32
	settle := func(d delivery.Delivery[int]) {
		if d.Ack(ctx) == nil {
			counts[d.Body].Add(1)
		}
	}
	late := make(chan delivery.Delivery[int], 100)
	var wg, settlers sync.WaitGroup
	for range 2 {
		settlers.Go(func() {
			for d := range late {
				settle(d)
			}
		})
	}
	for k := range 3 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(k), 3))
			for again := true; again; {
				again = false
				for d, err := range deliveriesOf(q, ctx) {
					if err != nil {
						t.Error(err)
						return
					}
					switch rnd.IntN(200) {
					case 0:
						late <- d
					case 1:
						go settle(d)
						runtime.Gosched()
						settle(d)
					case 2:
						_ = d.NackAfter(ctx, time.Millisecond)
					case 3:
						_ = d.Deadline()
						settle(d)
					default:
						settle(d)
					}
					if again = rnd.IntN(500) == 0; again {
						break
					}
				}
			}
		})
	}
	wg.Go(func() {
		for {
			d, err := receiveFrom(q, ctx)
			if err != nil {
				return
			}
			settle(d)
		}
	})
	_, err := subscribeTo(q, ctx, func(_ context.Context, d delivery.Delivery[int]) error {
		settle(d)
		return nil
	})
	require.NoError(t, err)
	for k := range n {
		require.NoError(t, top.In.Publish(ctx, k))
		if k%1000 == 0 {
			require.NoError(t, lifecycle.Pause(ctx, q))
			_ = view.StatsOf(q)
			require.NoError(t, lifecycle.Resume(ctx, q))
		}
	}
	require.NoError(t, top.Shutdown(ctx))
	wg.Wait()
	close(late)
	settlers.Wait()
	for k := range counts {
		require.EqualValues(t, 1, counts[k].Load(), "message %d", k)
	}
	s := view.StatsOf(q)
	require.EqualValues(t, n, s.Acked)
	require.Zero(t, s.Unsettled())
}

func TestARangeAllocatesNothing(t *testing.T) { bubble(t, aRangeOverPointers) }

func aRangeOverPointers(t *testing.T, ctx context.Context) {
	top := newTopic[*int](t)
	q := openQueue(t, top, "q")
	body := new(int)
	const n = 10 * queue.PrefetchLen
	each := testing.AllocsPerRun(20, func() {
		for range n {
			if err := top.In.Publish(ctx, body); err != nil {
				t.Error(err)
			}
		}
		got := 0
		for d, err := range deliveriesOf(q, ctx) {
			if err == nil {
				err = d.Ack(ctx)
			}
			if err != nil {
				t.Error(err)
			}
			if got++; got == n {
				break
			}
		}
	})
	require.Less(t, each, 6.0, "a loop over %d messages: itself, its lease, and what ranging costs", n)
	require.NoError(t, top.Close())
}

func TestARangePinsNothingThatIsAcknowledged(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[*watched](t)
		q := openQueue(t, top, "q", WithCapacity(8*queue.PrefetchLen))
		all := publishWatched(t, top, 6*queue.PrefetchLen)
		got := 0
		for d, err := range deliveriesOf(q, ctx) {
			require.NoError(t, err)
			require.NoError(t, d.Ack(ctx))
			if got++; prefetchedIn(q) < queue.PrefetchLen || waitingIn(q) > 4 {
				continue
			}
			for range 3 * queue.PrefetchLen { // the log gives up the segment that the lease is from
				require.NoError(t, receive(t, q).Ack(ctx))
			}
			elapse(alarm.CheckAge)
			require.LessOrEqual(t, alive(all[:got-1]), 1)
			break
		}
		require.NoError(t, top.Close())
	})
}

// A loop is a consumer that will come for more, whatever its body does now: a
// handler that waits for room in its queue does not wait for itself alone.
func TestARangeMayFreeAHandlerThatWaits(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "q", WithCapacity(2))
		release := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			for d, err := range deliveriesOf(q, ctx) {
				require.NoError(t, err)
				require.NoError(t, d.Ack(ctx))
				<-release
			}
		})
		publish(t, top, 1)
		synctest.Wait()
		published := make(chan error, 2)
		s, err := subscribeTo(q, ctx, func(ctx context.Context, d delivery.Delivery[int]) error {
			if d.Body == 2 {
				published <- top.In.Publish(ctx, 3)
				published <- top.In.Publish(ctx, 4)
			}
			return nil
		})
		require.NoError(t, err)
		publish(t, top, 2)
		synctest.Wait()
		require.Len(t, published, 1, "the second waits")
		require.NoError(t, <-published)
		close(release)
		require.NoError(t, <-published)
		require.NoError(t, s.Shutdown(ctx))
		require.NoError(t, top.Shutdown(ctx))
		wg.Wait()
	})
}

func TestARangeThatIsLeftMakesRoomAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "q", WithCapacity(4*queue.PrefetchLen))
		published := make(chan error, 1)
		warm(t, top, q, 4*queue.PrefetchLen, func(d delivery.Delivery[int]) bool {
			go func() { published <- top.In.Publish(ctx, 1000) }()
			synctest.Wait()
			require.Positive(t, waitingIn(q))
			require.NoError(t, d.Ack(ctx))
			synctest.Wait()
			require.Empty(t, published, "nobody has counted yet")
			return false
		})
		synctest.Wait()
		require.Len(t, published, 1)
		require.NoError(t, <-published)
		check(t, top)
		require.NoError(t, top.Close())
	})
}

func TestARangeThatIsWokenWakesOthers(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "q")
		release := make(chan struct{})
		go func() {
			for d, err := range deliveriesOf(q, ctx) {
				if err != nil {
					return
				}
				if d.Body >= 0 {
					<-release
				}
				_ = d.Ack(ctx)
			}
		}()
		publish(t, top, to(-4*queue.PrefetchLen, -1)...)
		synctest.Wait()
		got := make(chan delivery.Delivery[int], 1)
		go func() {
			if d, err := receiveFrom(q, ctx); err == nil {
				got <- d
			}
		}()
		synctest.Wait()
		publishOnce(t, top, 100)
		synctest.Wait()
		require.Positive(t, waitingIn(q), "the loop has taken several")
		require.Len(t, got, 1, "a receiver sleeps beside a message")
		require.NoError(t, (<-got).Ack(ctx))
		close(release)
		synctest.Wait()
		require.Zero(t, view.StatsOf(q).Unsettled())
		require.NoError(t, top.Close())
	})
}

func TestARangeIsLookedAtInTimeBesideABatch(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		const visibility = time.Second
		top := newTopic[int](t)
		release := make(chan struct{})
		defer close(release)
		q := subscribeBatch(t, top, "q", func(context.Context, []delivery.Delivery[int]) error {
			<-release
			return nil
		}, WithVisibilityTimeout(visibility), WithBatchSize(1))
		publish(t, top, -1000)
		elapse(visibility / 2) // the timer is armed for the batch's end
		warm(t, top, q, 100, func(d delivery.Delivery[int]) bool {
			if d.Body < 5 {
				require.NoError(t, d.Ack(ctx))
				return true
			}
			require.Positive(t, waitingIn(q))
			elapse(visibility + time.Millisecond)
			require.ErrorIs(t, d.Ack(ctx), message.ErrStale)
			return false
		})
		check(t, top)
		require.NoError(t, top.Close())
	})
}

// Each of several ranges holds a lease that was taken at an instant of its own.
func TestTheTimeoutsOfSeveralRangesAreInTime(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		const visibility = time.Second
		top := newTopic[int](t)
		q := openQueue(t, top, "q", WithVisibilityTimeout(visibility))
		publishOnce(t, top, 400)
		for _, d := range receiveAll(t, q, 8) { // no lease goes over the end of a segment, and the first is short
			require.NoError(t, d.Ack(ctx))
		}
		var wg sync.WaitGroup
		var late [3]error
		for k, after := range []time.Duration{500 * time.Microsecond, 400 * time.Microsecond, time.Second} {
			wg.Go(func() {
				n := 0
				for d := range deliveriesOf(q, ctx) {
					if n++; n < 3 { // one received singly, and then a lease of two, of which the second has no start of its own
						require.NoError(t, d.Ack(ctx))
						continue
					}
					time.Sleep(visibility + time.Millisecond + time.Nanosecond)
					late[k] = d.Ack(ctx)
					return
				}
			})
			synctest.Wait()
			require.Equal(t, 2, prefetchedIn(q))
			p := q.Ranging.Load().Word.Place()
			require.False(t, p.Acked() || p.Detached())
			time.Sleep(after)
		}
		wg.Wait()
		for k := range late {
			require.ErrorIs(t, late[k], message.ErrStale, k)
		}
		check(t, top)
		require.NoError(t, top.Close())
	})
}

func TestAShutdownWaitsForARangeAndForAReceiver(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "q")
		publishOnce(t, top, 4)
		received := receive(t, q)
		done := make(chan error, 1)
		for d, err := range deliveriesOf(q, ctx) {
			if err != nil {
				break
			}
			if d.Body == 3 {
				require.Equal(t, 2, prefetchedIn(q), "it is the last of a lease")
				go func() { done <- top.Shutdown(ctx) }()
				synctest.Wait()
				require.Empty(t, done)
				require.NoError(t, received.Ack(ctx))
				synctest.Wait()
				require.Empty(t, done)
			}
			require.NoError(t, d.Ack(ctx))
		}
		require.NoError(t, <-done)
	})
}

func TestAQueueForgetsTheRangesThatWereLeft(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "q")
		publishOnce(t, top, 100)
		loops := func() int {
			q.Mu.Lock()
			defer q.Mu.Unlock()
			return int(q.Group.Ranges)
		}
		for range deliveriesOf(q, ctx) {
			for range deliveriesOf(q, ctx) {
				for k := range 3 { // the first of three, then the second, then the last
					n := 0
					for range deliveriesOf(q, ctx) {
						require.Equal(t, 3, loops(), k)
						if n++; n == 10 {
							break
						}
					}
					require.Equal(t, 2, loops())
				}
				break
			}
			require.Equal(t, 1, loops())
			break
		}
		require.Zero(t, loops())
		release := [3]chan struct{}{make(chan struct{}), make(chan struct{}), make(chan struct{})}
		for k := range release {
			go func() {
				for range deliveriesOf(q, ctx) {
					<-release[k]
					return
				}
			}()
			synctest.Wait()
		}
		for left, k := range []int{1, 0, 2} { // in the middle of the list, at its end, alone
			require.Equal(t, 3-left, loops())
			close(release[k])
			synctest.Wait()
		}
		require.Zero(t, loops())
		require.NoError(t, top.Close())
	})
}
