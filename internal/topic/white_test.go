// What of the core's machinery can only be seen from inside: timers that are off, room that is counted, memory that is given back.
// These tests go with the machinery when it moves below the root.

package topic

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/alarm"
	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/lease"
	"github.com/gofanout/fanout/internal/lifecycle"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/settings"
	"github.com/gofanout/fanout/internal/view"
	"github.com/gofanout/fanout/internal/workers"
)

func TestRowRateLimitLeavesNoTimerWhenNobodyWaitsForIt(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		for name, end := range map[string]func(s *workers.Subscriber[int]) error{
			"a receiver took it": func(s *workers.Subscriber[int]) error { return receive(t, s.Queue()).Ack(ctx) },
			"purged":             func(s *workers.Subscriber[int]) error { _, err := lifecycle.Purge(ctx, s.Queue()); return err },
			"shut down":          func(s *workers.Subscriber[int]) error { return s.Shutdown(ctx) },
		} {
			top := newTopic[int](t)
			s := subscribe(t, top, "q", func(context.Context, delivery.Delivery[int]) error { return nil }, WithRateLimit(0.001))
			publish(t, top, 1, 2)
			synctest.Wait()
			require.Equal(t, 1, view.StatsOf(s.Queue()).Ready)
			require.True(t, s.Queue().Alarm.Armed)
			require.NoError(t, end(s), name)
			time.Sleep(alarm.CheckAge + alarm.SpareAge) // a timer that was armed for a moment goes by itself
			synctest.Wait()
			require.False(t, s.Queue().Alarm.Armed, name)
			check(t, top)
			top.Close()
		}
	})
}

func TestRowRateLimit(t *testing.T) {
	// Each row is a subscriber that is given ten messages at once, and ten more a
	// minute later, and says when it got them.
	for name, row := range map[string]struct {
		options []WorkerOption
		work    time.Duration
		want    []string
	}{
		"one worker": {[]WorkerOption{WithRateLimit(2)}, 0,
			[]string{"0s", "500ms", "1s", "1.5s", "2s", "2.5s", "3s", "3.5s", "4s", "4.5s"}},
		"one slow worker": {[]WorkerOption{WithRateLimit(2)}, 700 * time.Millisecond,
			[]string{"0s", "700ms", "1.4s", "2.1s", "2.8s", "3.5s", "4.2s", "4.9s", "5.6s", "6.3s"}},
		"several slow workers": {[]WorkerOption{WithRateLimit(2), WithConcurrency(4)}, 1700 * time.Millisecond,
			[]string{"0s", "500ms", "1s", "1.5s", "2s", "2.5s", "3s", "3.5s", "4s", "4.5s"}},
		"batches": {[]WorkerOption{WithRateLimit(2), WithBatchSize(4)}, 0,
			[]string{"0s", "0s", "0s", "0s", "2s", "2s", "2s", "2s", "4s", "4s"}},
		"a message in three seconds": {[]WorkerOption{WithRateLimit(1. / 3)}, 0,
			[]string{"0s", "3s", "6s", "9s", "12s", "15s", "18s", "21s", "24s", "27s"}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				top := newTopic[int](t)
				q := openQueue(t, top, "q")
				var mu sync.Mutex
				var got []string
				start := time.Now()
				_, err := subscribeBatchTo(q, ctx, func(ctx context.Context, ds []delivery.Delivery[int]) error {
					mu.Lock()
					for range ds {
						got = append(got, time.Since(start).Round(time.Microsecond).String())
					}
					mu.Unlock()
					time.Sleep(row.work)
					return nil
				}, append([]WorkerOption{WithBatchSize(1)}, row.options...)...)
				require.NoError(t, err)
				for range 2 { // a pause saves nothing up
					publishAll(t, top, make([]message.Published[int], 10)...)
					synctest.Wait()
					check(t, top)
					elapse(time.Minute)
					require.Equal(t, row.want, got)
					check(t, top)
					require.False(t, q.Alarm.Armed)
					start, got = time.Now(), nil
				}
				top.Close()
			})
		})
	}
	t.Run("receivers are not limited", func(t *testing.T) {
		bubble(t, func(t *testing.T, ctx context.Context) {
			top := newTopic[int](t)
			y := newDiary()
			s := subscribe(t, top, "q", func(ctx context.Context, d delivery.Delivery[int]) error {
				y.note("%d", d.Body)
				return nil
			}, WithRateLimit(1))
			publish(t, top, 1, 2, 3, 4)
			synctest.Wait()
			require.Equal(t, 2, receive(t, s.Queue()).Body)
			require.Equal(t, 3, receive(t, s.Queue()).Body)
			elapse(time.Second)
			require.Equal(t, []string{"0s: 1", "1s: 4"}, y.read())
			got := make(chan int, 9)
			go func() {
				for d, err := range deliveriesOf(s.Queue(), ctx) {
					if err == nil {
						got <- d.Body
						_ = d.Ack(ctx)
					}
				}
			}()
			synctest.Wait()
			publish(t, top, 5, 6, 7)
			synctest.Wait()
			require.Len(t, got, 3)
			check(t, top)
			top.Close()
		})
	})
	t.Run("pause, resume and close while limited", func(t *testing.T) {
		bubble(t, func(t *testing.T, ctx context.Context) {
			top := newTopic[int](t)
			y := newDiary()
			s := subscribe(t, top, "q", func(ctx context.Context, d delivery.Delivery[int]) error {
				y.note("%d", d.Body)
				return nil
			}, WithRateLimit(0.1))
			q := s.Queue()
			publish(t, top, 1, 2, 3)
			synctest.Wait()
			require.NoError(t, lifecycle.Pause(ctx, q))
			elapse(15 * time.Second)
			require.NoError(t, lifecycle.Resume(ctx, q))
			elapse(time.Second)
			require.Equal(t, []string{"0s: 1", "15s: 2"}, y.read())
			elapse(9*time.Second - 1)
			publish(t, top, 4)
			require.NoError(t, lifecycle.Resume(ctx, q)) // looks for somebody to wake, before the time
			synctest.Wait()
			require.Empty(t, y.read())
			elapse(1)
			require.Equal(t, []string{"25s: 3"}, y.read())
			q.Mu.Lock()
			require.True(t, q.Alarm.Armed)
			q.Mu.Unlock()
			check(t, top)
			start := time.Now()
			top.Close()
			<-top.Done()
			require.Zero(t, time.Since(start), "no timer remains")
			require.False(t, q.Alarm.Armed)
		})
	})
}

func TestDoneComesWhenTheLastOfManyThatAPublishWokeIsHome(t *testing.T) {
	for _, n := range []int{1, queue.WakesItself - 1, queue.WakesItself, queue.WakesItself + 1, 2*queue.WakesItself + 1, 5 * queue.WakesItself} {
		t.Run(strconv.Itoa(n), func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				top := newTopic[int](t)
				var handled atomic.Int64
				for k := range n {
					subscribe(t, top, strconv.Itoa(k), func(context.Context, delivery.Delivery[int]) error {
						handled.Add(1)
						return nil
					})
				}
				for k := range 5 {
					publish(t, top, k)
					synctest.Wait()
					require.EqualValues(t, (k+1)*n, handled.Load())
					require.LessOrEqual(t, len(top.In.Idle.List), n)
					require.EqualValues(t, n+1, top.In.Live.N.Load(), "each queue, and the topic")
				}
				top.Close()
				<-top.Done()
				synctest.Wait()
				require.Zero(t, top.In.Live.N.Load())
			})
		})
	}
}

func TestAQueueKeepsNoSubscriberThatWasShutDown(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "q")
		for range 3 {
			s, err := subscribeTo(q, ctx, handleNothing)
			require.NoError(t, err)
			require.NoError(t, s.Shutdown(ctx))
		}
		require.Empty(t, q.Group.Subs)
		top.Close()
	})
}

func TestWhatWasReceivedAndMovedIsForgottenOnceItIsOver(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "q")
		publish(t, top, to(1, 100)...)
		for n := range 100 {
			d := receive(t, q)
			require.NoError(t, d.Extend(ctx, time.Hour))
			if n%2 == 0 {
				require.NoError(t, d.Ack(ctx))
			} else {
				require.NoError(t, d.NackAfter(ctx, time.Hour))
			}
		}
		require.Zero(t, q.Store.Leases.Held())
		publish(t, top, 101)
		require.NoError(t, receive(t, q).Extend(ctx, time.Hour))
		_, err := lifecycle.Purge(ctx, q)
		require.NoError(t, err)
		require.Zero(t, q.Store.Leases.Held())
		top.Close()
	})
}

func TestKeysIDsAndHistoriesAreGivenBack(t *testing.T) {
	// In virtual time an hour passes at once; what is measured is real.
	bubble(t, func(t *testing.T, ctx context.Context) {
		const n, rounds = 2000, 3
		top := newTopic[int](t, WithOrdering(), WithDeduplication(time.Minute, 1_000_000))
		q := openQueue(t, top, "q", WithCapacity(message.Unlimited), WithMaxAttempts(4), WithBackoff(settings.Constant(time.Second)))
		long := strings.Repeat("x", 200)
		round := func(r int) {
			for k := range n {
				id := fmt.Sprintf("%s %d %d", long, r, k)
				publishAll(t, top, message.Published[int]{Body: k, OrderingKey: id, DeduplicationID: id, Attributes: map[string]string{"id": id}})
			}
			for range 3 {
				for range n {
					require.NoError(t, receive(t, q).Settle(ctx, fmt.Errorf("%s: %w", long, errBusy)))
				}
				elapse(time.Second)
			}
			q.Mu.Lock()
			require.Equal(t, n, q.Store.Keys.Len())
			q.Mu.Unlock()
			for k := range n {
				d := receive(t, q)
				require.Len(t, d.History(), 3)
				if k%2 == 0 {
					require.NoError(t, d.Ack(ctx))
				} else {
					require.NoError(t, d.Nack(ctx)) // dead, and read below
				}
			}
			check(t, top)
			_, err := redriveTo(q, ctx)
			require.NoError(t, err)
			for range n / 2 {
				require.NoError(t, receive(t, q).Ack(ctx))
			}
			elapse(2 * time.Minute)
		}
		round(0) // what stays for good, such as the tables of the window
		before := heap()
		most := int64(math.MinInt64)
		for r := 1; r <= rounds; r++ {
			round(r)
			most = max(most, heap()-before)
		}
		t.Logf("%d messages with keys, IDs and histories: at most %d bytes more", n*rounds, most)
		require.Less(t, most, int64(256<<10))
		q.Mu.Lock()
		require.Zero(t, q.Store.Keys)
		q.Mu.Unlock()
		require.Zero(t, view.StatsOf(q).Unsettled())
		require.Zero(t, view.StatsOf(q).Dead)
		top.In.Mu.Lock()
		remembered, _ := top.In.IDsLocked()
		require.Zero(t, remembered)
		top.In.Mu.Unlock()
		check(t, top)
		top.Close()
		<-top.Done()
	})
}

// A lease's room and messages count for queues that wait, that drop, and that get
// messages with delays of their own.
func TestMessagesWithADelayOfTheirOwnFindTheRoomThatALeaseHasMade(t *testing.T) {
	for _, row := range []struct {
		overflow settings.Overflow
		dropped  []int // of 0 to 19 and the delayed 100 to 112
		err      error
	}{
		{settings.Block, nil, message.ErrQueueFull},
		{settings.Reject, nil, message.ErrQueueFull},
		{settings.DropNewest, to(110, 112), nil},
		{settings.DropOldest, to(11, 13), nil},
	} {
		t.Run(row.overflow.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				g := newGrip(t, 20, WithCapacity(20), WithOverflow(row.overflow))
				for n := range 13 {
					err := g.top.TryPublishMessages(ctx, message.Published[int]{Body: 100 + n, Delay: time.Second})
					if n < 10 {
						require.NoError(t, err)
					} else {
						require.ErrorIs(t, err, row.err)
					}
					check(t, g.top)
				}
				require.Equal(t, 20, view.StatsOf(g.q).Unsettled())
				require.EqualValues(t, len(row.dropped), view.StatsOf(g.q).Dropped)
				g.release <- nil
				time.Sleep(time.Second)
				synctest.Wait()
				want := append(to(0, 19), to(100, 109)...)
				if row.overflow == settings.DropOldest {
					want = append(want, to(110, 112)...)
				}
				var kept []int
				for _, n := range want {
					if len(row.dropped) == 0 || n < row.dropped[0] || n > row.dropped[len(row.dropped)-1] {
						kept = append(kept, n)
					}
				}
				require.ElementsMatch(t, kept, g.order())
				g.end()
			})
		})
	}
}

func TestABlockQueueSeesTheRoomThatALeaseHasMadeAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		g := newGrip(t, 20, WithCapacity(20))
		for n := range 10 {
			require.NoError(t, g.top.In.TryPublish(ctx, 20+n))
		}
		require.ErrorIs(t, g.top.In.TryPublish(ctx, 30), message.ErrQueueFull)
		check(t, g.top)
		g.end()
	})
}

func TestWhatADeliveryReleasesIsReadyAtItsPlace(t *testing.T) {
	for name, options := range map[string][]QueueOption{
		"out of the log": nil,
		"filtered":       {WithFilter(func(int) bool { return true })},
		"drops":          {WithOverflow(settings.DropOldest)},
		"with a TTL":     {WithTimeToLive(time.Hour)},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				top := newTopic[int](t)
				q := openQueue(t, top, "q", append(options, WithMaxAttempts(1))...)
				publish(t, top, 1, 2, 3, 4, 5, 6)
				for range 3 * message.MostPasses { // it may go on for ever
					ds, err := receiveBatch(q, ctx, 4)
					require.NoError(t, err)
					require.NoError(t, ds[2].Ack(ctx))
					for _, k := range []int{3, 0, 1} {
						require.NoError(t, ds[k].Release(ctx))
						require.ErrorIs(t, ds[k].Release(ctx), message.ErrSettled)
					}
					check(t, top)
					require.Equal(t, 5, view.StatsOf(q).Ready)
					for _, want := range []int{1, 2, 4, 5, 6} {
						d := receive(t, q)
						require.Equal(t, []int{want, 1}, []int{d.Body, d.Attempt()})
						require.NoError(t, d.Ack(ctx))
					}
					publish(t, top, 1, 2, 3, 4, 5, 6)
					if name != "out of the log" {
						break
					}
				}
				top.Close()
			})
		})
	}
}

// Deleted is what a queue held and its dead letters, whether it is open or closed.
func TestADeletedQueuePinsNothing(t *testing.T) {
	for _, open := range []bool{true, false} {
		bubble(t, func(t *testing.T, ctx context.Context) {
			top := newTopic[int](t)
			q := openQueue(t, top, "q", WithMaxAttempts(1))
			publish(t, top, 1, 2, 3)
			require.NoError(t, receive(t, q).Settle(ctx, errBusy))
			receive(t, q)
			if !open {
				require.NoError(t, lifecycle.Close(q))
				require.NotEmpty(t, top.orphans)
			}
			require.NoError(t, lifecycle.Delete(ctx, q))
			require.Zero(t, q.Store.Win.Len())
			require.Zero(t, q.DeadLetters().Store.Win.Len())
			require.Empty(t, top.orphans)
			require.NoError(t, top.Close())
			<-top.Done()
		})
	}
}

// Automatic extension costs no tick: in memory nothing but its end can happen to
// a handler, so that the timer is armed for the last instant at once.
func TestAutoExtendDoesNotTick(t *testing.T) {
	const longest = time.Hour
	handlers := map[string]struct {
		queue  []QueueOption
		batch  bool
		option []WorkerOption
	}{
		"by the log":        {},
		"a batch":           {batch: true, option: []WorkerOption{WithBatchSize(4)}},
		"a filter":          {queue: []QueueOption{WithFilter(func(int) bool { return true })}},
		"a time to live":    {queue: []QueueOption{WithTimeToLive(2 * longest)}},
		"a handler timeout": {option: []WorkerOption{WithHandlerTimeout(2 * longest)}},
	}
	for name, c := range handlers {
		for _, vis := range []time.Duration{time.Microsecond, time.Millisecond, 20 * time.Second} {
			t.Run(name+" "+vis.String(), func(t *testing.T) {
				bubble(t, func(t *testing.T, ctx context.Context) {
					var stuck atomic.Int64
					top := newTopic[int](t, WithHooks(Hooks{Stuck: func(Event) { stuck.Add(1) }}))
					q := openQueue(t, top, "q", append(c.queue, WithVisibilityTimeout(vis), WithMaxAttempts(1))...)
					began := time.Now()
					options := append(c.option, WithAutoExtend(longest))
					release := make(chan struct{})
					var err error
					if c.batch {
						_, err = subscribeBatchTo(q, ctx, func(context.Context, []delivery.Delivery[int]) error { <-release; return nil }, options...)
					} else {
						_, err = subscribeTo(q, ctx, func(context.Context, delivery.Delivery[int]) error { <-release; return nil }, options...)
					}
					require.NoError(t, err)
					publish(t, top, 1)
					elapse(3 * time.Millisecond) // the look at a lease, and the timer that is armed for a moment only
					synctest.Wait()
					q.Locked(func() {
						at, ok := q.Store.Win.NextDue()
						if !ok {
							at, _, ok = q.Store.Leases.NextDue()
						}
						require.True(t, ok)
						require.Equal(t, longest, q.Core.Time(at).Sub(began))
						require.True(t, q.Alarm.Armed)
						require.Equal(t, at, q.Alarm.At, "the timer comes before")
					})
					elapse(longest - 3*time.Millisecond - 1)
					require.Equal(t, 1, view.StatsOf(q).InFlight)
					require.Zero(t, stuck.Load())
					elapse(1)
					require.Equal(t, uint64(1), view.StatsOf(q).TimedOut)
					synctest.Wait()
					require.EqualValues(t, 1, stuck.Load())
					close(release)
					synctest.Wait()
					check(t, top)
					require.NoError(t, top.Close())
				})
			})
		}
	}
}

// The queue's timer looks at what was prefetched a millisecond after it was
// taken. The visibility timeout of a message is never shorter for that.
func TestAPrefetchedMessageHasItsWholeVisibilityTimeout(t *testing.T) {
	const step, late = 300 * time.Microsecond, time.Millisecond
	consumers := map[string]func(ctx context.Context, q *queue.Queue[int], do func(d delivery.Delivery[int], place int)){
		"a worker": func(ctx context.Context, q *queue.Queue[int], do func(d delivery.Delivery[int], place int)) {
			_, _ = subscribeTo(q, ctx, func(_ context.Context, d delivery.Delivery[int]) error {
				q.Mu.Lock()
				place := q.Group.Subs[0].Busy[0].(*workers.Worker[int]).CurrentLocked() + 1
				q.Mu.Unlock()
				do(d, place)
				return nil
			})
		},
		"a range": func(ctx context.Context, q *queue.Queue[int], do func(d delivery.Delivery[int], place int)) {
			for d, err := range deliveriesOf(q, ctx) {
				if err != nil {
					return
				}
				q.Mu.Lock()
				place := prefetchedLocked(q) - waitingIn(q)
				q.Mu.Unlock()
				do(d, place)
				_ = d.Ack(ctx)
			}
		},
	}
	for name, consume := range consumers {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				top := newTopic[int](t)
				q := openQueue(t, top, "q", WithVisibilityTimeout(time.Second), WithMaxAttempts(message.Unlimited))
				var started time.Time
				over := make(chan struct{})
				first, slept := 0, 0
				go consume(ctx, q, func(d delivery.Delivery[int], place int) {
					if d.Body > 150 && place == 1 && first == 0 {
						first = d.Body
					}
					switch {
					case first == 0 || !started.IsZero():
					case slept < 2:
						slept++
						time.Sleep(step) // it is done in time, and the next one starts
					default:
						require.Equal(t, []int{3, first + 2}, []int{place, d.Body}, "they were prefetched together")
						started = time.Now()
						<-over
					}
				})
				synctest.Wait()
				bodies := make([]message.Published[int], 400)
				for k := range bodies {
					bodies[k].Body = k
				}
				require.NoError(t, top.PublishMessages(ctx, bodies...))
				time.Sleep(900 * time.Millisecond)
				synctest.Wait()
				require.False(t, started.IsZero())
				time.Sleep(time.Until(started.Add(time.Second)) - 1)
				synctest.Wait()
				require.Zero(t, view.StatsOf(q).TimedOut, "a nanosecond before its time")
				time.Sleep(late + 1)
				synctest.Wait()
				require.EqualValues(t, 1, view.StatsOf(q).TimedOut, "a millisecond after it")
				close(over)
				require.NoError(t, top.Close())
			})
		})
	}
}

func TestOldestAgeCountsWhatWaitsInALease(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		g := newGripAt(t, 3, 7)
		time.Sleep(100 * time.Microsecond)
		publish(t, g.top, 7)
		g.q.Mu.Lock()
		inLog, waiting := g.q.Store.InLog(), g.q.Store.Leases.Waiting()
		g.q.Mu.Unlock()
		require.Equal(t, []int{1, 3}, []int{inLog, waiting})
		time.Sleep(100 * time.Microsecond)
		require.Equal(t, 200*time.Microsecond, view.StatsOf(g.q).OldestAge)
		g.end()
	})
}

func TestOldestAgeCountsWhatALoopHasNotYielded(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "audit")
		require.NoError(t, top.PublishMessages(ctx, plainOnes(7)...))
		time.Sleep(100 * time.Microsecond)
		publish(t, top, 7)
		n := 0
		for d, err := range deliveriesOf(q, ctx) {
			require.NoError(t, err)
			if n++; n == 4 {
				q.Mu.Lock()
				waiting := q.Store.Leases.Waiting()
				q.Mu.Unlock()
				require.Positive(t, waiting)
				time.Sleep(100 * time.Microsecond)
				require.Equal(t, 200*time.Microsecond, view.StatsOf(q).OldestAge)
				break
			}
			require.NoError(t, d.Ack(ctx))
		}
		require.NoError(t, top.Close())
	})
}

func TestAMessageTimesOutBesideOneThatWasExtended(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "q", WithVisibilityTimeout(time.Minute))
		publish(t, top, 1, 2, 3)
		ds, err := receiveBatch(q, ctx, 3)
		require.NoError(t, err)
		require.NoError(t, ds[1].Extend(ctx, time.Hour))
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Equal(t, []int{2, 1}, []int{view.StatsOf(q).Ready, view.StatsOf(q).InFlight})
		require.ErrorIs(t, ds[0].Ack(ctx), message.ErrStale)
		require.NoError(t, ds[1].Ack(ctx))
		require.ErrorIs(t, ds[2].Ack(ctx), message.ErrStale)
		check(t, top)
		top.Close()
	})
}

func hourly(context.Context, delivery.Delivery[int]) error { return nil }

func TestAPurgeLeavesNoTimerOfARateLimit(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := subscribe(t, top, "q", hourly, WithRateLimit(1.0/3600)).Queue()
		publish(t, top, 1, 2)
		time.Sleep(time.Second)
		synctest.Wait()
		require.EqualValues(t, 1, view.StatsOf(q).Acked)
		check(t, top)
		n, err := lifecycle.Purge(ctx, q)
		require.NoError(t, err)
		require.Equal(t, 1, n)
		check(t, top)
		top.Close()
	})
}

func TestTheTimerOfARateLimitComesOnceItIsTime(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		began := time.Now()
		q := subscribe(t, top, "q", hourly, WithRateLimit(1.0/3600)).Queue()
		publish(t, top, 1, 2)
		time.Sleep(time.Second) // what was armed for the first message has been seen to
		synctest.Wait()
		q.Mu.Lock()
		at := q.Core.Time(q.Alarm.At)
		q.Mu.Unlock()
		require.Equal(t, time.Hour, at.Sub(began), "it comes in between, for nothing")
		time.Sleep(time.Hour)
		synctest.Wait()
		require.EqualValues(t, 2, view.StatsOf(q).Acked)
		top.Close()
	})
}

func TestAQueueAsksTheDefaultIfItsBackoffPanics(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "audit", WithBackoff(settings.BackoffFunc(func(attempt int) time.Duration { panic(attempt) })))
		publish(t, top, 1)
		require.NoError(t, receive(t, q).Nack(ctx))
		nacked := time.Now()
		d, err := receiveFrom(q, ctx)
		require.NoError(t, err)
		require.GreaterOrEqual(t, time.Since(nacked), 50*time.Millisecond)
		require.LessOrEqual(t, time.Since(nacked), 100*time.Millisecond)
		require.NoError(t, d.Ack(ctx))
	})
}

// Whatever took how long, a queue of which nothing is in flight gives back its table of
// leases, and then no timer is left.
func TestAQueueGivesBackItsTableOfLeasesAfterWhatTookLong(t *testing.T) {
	const long = 5 * time.Millisecond // the timer looks at the leases meanwhile
	for name, use := range map[string]func(ctx context.Context, t *testing.T, top *Topic[int]) *queue.Queue[int]{
		"a handler": func(ctx context.Context, t *testing.T, top *Topic[int]) *queue.Queue[int] {
			return subscribe(t, top, "q", func(context.Context, delivery.Delivery[int]) error {
				time.Sleep(long)
				return nil
			}).Q
		},
		"a handler that fails": func(ctx context.Context, t *testing.T, top *Topic[int]) *queue.Queue[int] {
			return subscribe(t, top, "q", func(context.Context, delivery.Delivery[int]) error {
				time.Sleep(long)
				return message.RetryAfter(errBusy, time.Hour)
			}).Q
		},
		"a batch handler": func(ctx context.Context, t *testing.T, top *Topic[int]) *queue.Queue[int] {
			return subscribeBatch(t, top, "q", func(context.Context, []delivery.Delivery[int]) error {
				time.Sleep(long)
				return nil
			})
		},
		"receives": func(ctx context.Context, t *testing.T, top *Topic[int]) *queue.Queue[int] {
			q := openQueue(t, top, "q")
			go func() {
				for d, err := receiveFrom(q, ctx); err == nil; d, err = receiveFrom(q, ctx) {
					time.Sleep(long)
					_ = d.Ack(ctx)
				}
			}()
			return q
		},
		"a loop that leaves": func(ctx context.Context, t *testing.T, top *Topic[int]) *queue.Queue[int] {
			q := openQueue(t, top, "q")
			go func() {
				for d, err := range deliveriesOf(q, ctx) {
					last := view.StatsOf(q).Ready == 0
					if last {
						time.Sleep(long) // the others were quick, so it is in a lease of the loop's
					}
					if err != nil || d.Ack(ctx) != nil || last {
						return
					}
				}
			}()
			return q
		},
		"a loop": func(ctx context.Context, t *testing.T, top *Topic[int]) *queue.Queue[int] {
			q := openQueue(t, top, "q")
			go func() {
				for d, err := range deliveriesOf(q, ctx) {
					time.Sleep(long)
					if err != nil || d.Ack(ctx) != nil {
						return
					}
				}
			}()
			return q
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, n := range []int{1, 2, 3} {
				bubble(t, func(t *testing.T, ctx context.Context) {
					top := newTopic[int](t)
					q := use(ctx, t, top)
					publishOnce(t, top, n)
					elapse(time.Duration(n) * long)
					require.Zero(t, view.StatsOf(q).InFlight)
					elapse(alarm.SpareAge)
					q.Locked(func() { require.Nil(t, q.Store.Leases) })
					elapse(alarm.CheckAge)
					q.Locked(func() { require.Equal(t, name == "a handler that fails", q.Alarm.Armed) })
					require.NoError(t, top.Close())
				})
			}
		})
	}
}

func TestAQueueThatHasBecomeIdleKeepsItsTableOfLeasesForAMoment(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "q")
		burst := func() {
			publish(t, top, 1)
			require.NoError(t, receive(t, q).Ack(ctx))
		}
		state := func() (table *lease.Table[int], armed bool) {
			synctest.Wait()
			q.Locked(func() { table, armed = q.Store.Leases, q.Alarm.Armed })
			return table, armed
		}
		burst()
		time.Sleep(alarm.CheckAge + alarm.SpareAge - 1)
		table, _ := state()
		require.NotNil(t, table)
		burst()
		again, _ := state()
		require.Same(t, table, again, "a burst that comes in time uses it again")
		time.Sleep(time.Nanosecond) // the look that was due, which sees the burst
		synctest.Wait()
		time.Sleep(alarm.SpareAge - 1)
		again, _ = state()
		require.Same(t, table, again)
		time.Sleep(time.Nanosecond)
		table, armed := state()
		require.Nil(t, table)
		require.False(t, armed)
	})
}
