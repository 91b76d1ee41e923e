package fanout

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// Features together: where one could undo what another promises.

// --- order ---

func TestCombinationOfOrderingWithSeveralWorkersAndAHeadThatHasTrouble(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t, WithOrdering())
		keys := map[string]*diary{"a": newDiary(), "b": newDiary(), "c": newDiary(), "d": newDiary()}
		s := subscribe(t, top, "q", func(ctx context.Context, d Delivery[int]) error {
			keys[string(rune('a'+d.Body/10))].note("%d, attempt %d", d.Body, d.Attempt())
			first := len(d.History()) == 0
			switch {
			case d.Body == 1 && first:
				return errBusy
			case d.Body == 11 && first:
				time.Sleep(15 * time.Second) // past its visibility timeout
			case d.Body == 21 && first:
				return Snooze(30 * time.Second)
			case d.Body == 31 && first:
				return Permanent(errBusy)
			case d.Body == 33:
				time.Sleep(5 * time.Second)
			}
			return nil
		}, WithConcurrency(5), WithVisibilityTimeout(10*time.Second), WithBackoff(Constant(time.Minute)))
		publishAll(t, top, keyed("a", 1, 2, 3)...)
		publishAll(t, top, keyed("b", 11, 12)...)
		publishAll(t, top, keyed("c", 21, 22)...)
		publishAll(t, top, keyed("d", 31, 32)...)
		synctest.Wait()
		check(t, top)
		require.Equal(t, 4, s.Queue().Stats().Blocked, "2, 3, 12, 22")
		elapse(100 * time.Second)
		require.Equal(t, []string{"0s: 1, attempt 1", "1m0s: 1, attempt 2", "1m0s: 2, attempt 1", "1m0s: 3, attempt 1"}, keys["a"].read())
		require.Equal(t, []string{"0s: 11, attempt 1", "10s: 11, attempt 2", "10s: 12, attempt 1"}, keys["b"].read())
		require.Equal(t, []string{"0s: 21, attempt 1", "30s: 21, attempt 1", "30s: 22, attempt 1"}, keys["c"].read())
		require.Equal(t, []string{"0s: 31, attempt 1", "0s: 32, attempt 1"}, keys["d"].read())

		publishAll(t, top, keyed("d", 33, 34)...)
		elapse(time.Second)
		n, err := s.Queue().Redrive(ctx)
		require.NoError(t, err)
		require.Equal(t, 1, n)
		check(t, top)
		elapse(time.Minute)
		require.Equal(t, []string{"1m40s: 33, attempt 1", "1m45s: 31, attempt 1", "1m45s: 34, attempt 1"}, keys["d"].read(),
			"behind the one in flight, before those published later")
		check(t, top)
		require.NoError(t, top.Shutdown(ctx))
	})
}

func TestCombinationOfOrderingWithADroppedHeadWakesAnIdleWorker(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		for name, options := range map[string][]SubscribeOption{
			"log": nil, "filter": {WithFilter(func(int) bool { return true })},
		} {
			top := newTopic[int](t, WithOrdering())
			y := newDiary()
			subscribe(t, top, name, func(ctx context.Context, d Delivery[int]) error {
				y.note("%d", d.Body)
				if d.Body == 1 {
					return Snooze(time.Hour)
				}
				return nil
			}, append(options, WithCapacity(3), WithOverflow(DropOldest))...)
			publishAll(t, top, keyed("a", 1, 2, 3)...)
			elapse(time.Second)
			publishAll(t, top, keyed("a", 4)...)
			synctest.Wait()
			require.Equal(t, []string{"0s: 1", "1s: 2", "1s: 3", "1s: 4"}, y.read(), name)
			check(t, top)
			top.Close()
		}
	})
}

func TestCombinationOfOrderingWithATimeToLive(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t, WithOrdering())
		q := openQueue(t, top, "q", WithTimeToLive(10*time.Second), WithBackoff(Constant(time.Minute)))
		publishAll(t, top, keyed("a", 1, 2)...)
		d := receive(t, q)
		elapse(5 * time.Second)
		publishAll(t, top, keyed("a", 3)...)
		requireEmpty(t, q) // 2 and 3 are in line
		require.Equal(t, 2, q.Stats().Blocked)
		elapse(6 * time.Second)
		require.NoError(t, d.Nack(ctx)) // dies of its age, and so does 2 when its turn comes
		require.Equal(t, 3, receive(t, q).Body)
		require.Equal(t, []int{1, 2}, deadBodies(t, q))
		check(t, top)
		top.Close()
	})
}

func TestCombinationOfADelayWithOrderingIsRefusedAsAWhole(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t, WithOrdering(), WithDeduplication(time.Minute, 10))
		q := openQueue(t, top, "q")
		for range 2 {
			err := top.PublishMessages(ctx, withID(1, "x"), Message[int]{Body: 2, OrderingKey: "a", Delay: time.Second})
			require.ErrorIs(t, err, ErrUnsupported)
			require.ErrorContains(t, err, "message 1")
		}
		require.Zero(t, q.Stats().Published)
		require.Zero(t, top.Stats().Remembered)
		publishAll(t, top, withID(1, "x"))
		require.Equal(t, []int{1}, bodies(t, q))
		check(t, top)
		top.Close()
	})
}

// --- deduplication ---

func TestCombinationOfDeduplicationWithARefusedPublish(t *testing.T) {
	// Each row refuses a publish, and then no longer: the retry is not swallowed.
	for name, row := range map[string]func(t *testing.T, ctx context.Context, top *Topic[int]) (again func()){
		"a full queue rejects it": func(t *testing.T, ctx context.Context, top *Topic[int]) func() {
			r := openQueue(t, top, "r", WithCapacity(1), WithOverflow(Reject))
			publish(t, top, 0)
			require.ErrorIs(t, top.PublishMessages(ctx, withID(1, "x")), ErrQueueFull)
			return func() { require.NoError(t, receive(t, r).Ack(ctx)) }
		},
		"it may not wait": func(t *testing.T, ctx context.Context, top *Topic[int]) func() {
			r := openQueue(t, top, "r", WithCapacity(1))
			publish(t, top, 0)
			require.ErrorIs(t, top.TryPublishMessages(ctx, withID(1, "x")), ErrQueueFull)
			return func() { require.NoError(t, receive(t, r).Ack(ctx)) }
		},
		"it is cancelled while it waits": func(t *testing.T, ctx context.Context, top *Topic[int]) func() {
			r := openQueue(t, top, "r", WithCapacity(1))
			publish(t, top, 0)
			soon, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			require.ErrorIs(t, top.PublishMessages(soon, withID(1, "x")), context.DeadlineExceeded)
			return func() { require.NoError(t, receive(t, r).Ack(ctx)) }
		},
		"a filter panics": func(t *testing.T, ctx context.Context, top *Topic[int]) func() {
			p := openQueue(t, top, "p", WithFilter(func(b int) bool { return b == 0 || panicked() }))
			publish(t, top, 0)
			require.ErrorIs(t, top.PublishMessages(ctx, withID(1, "x")), errBusy)
			return func() { require.NoError(t, p.Close()) }
		},
		"its batch is too large": func(t *testing.T, ctx context.Context, top *Topic[int]) func() {
			r := openQueue(t, top, "r", WithCapacity(2))
			publish(t, top, 0)
			require.ErrorIs(t, top.PublishMessages(ctx, withID(1, "x"), withID(2, "y"), withID(3, "z")), ErrBatchTooLarge)
			return func() { require.NoError(t, receive(t, r).Ack(ctx)) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				top := newTopic[int](t, WithDeduplication(time.Hour, 10))
				q := openQueue(t, top, "q")
				again := row(t, ctx, top)
				require.Zero(t, top.Stats().Remembered)
				again()
				publishAll(t, top, withID(1, "x"))
				publishAll(t, top, withID(1, "x"))
				require.Equal(t, []int{0, 1}, bodies(t, q))
				require.Equal(t, 1, top.Stats().Remembered)
				check(t, top)
				top.Close()
				<-top.Done()
			})
		})
	}
}

func panicked() bool { panic(errBusy) }

func TestCombinationOfDeduplicationWithTwoThatWaitForTheSameRoom(t *testing.T) {
	for _, cancelled := range []bool{false, true} {
		bubble(t, func(t *testing.T, ctx context.Context) {
			top := newTopic[int](t, WithDeduplication(time.Hour, 10))
			q := openQueue(t, top, "q", WithCapacity(1))
			publish(t, top, 0)
			one, cancel := context.WithCancel(ctx)
			defer cancel()
			a := waiting(one, top, withID(1, "x"))
			b := waiting(ctx, top, withID(2, "x"))
			c := waiting(ctx, top, Message[int]{Body: 3})
			if cancelled {
				cancel()
				require.ErrorIs(t, requireDecided(t, a), context.Canceled)
			}
			requireWaiting(t, b)
			require.NoError(t, receive(t, q).Ack(ctx))
			require.NoError(t, requireDecided(t, b), "it gets in, or is a duplicate of the one before, and needs no room then")
			requireWaiting(t, c)
			want := 2
			if !cancelled {
				require.NoError(t, requireDecided(t, a))
				want = 1
			}
			require.Equal(t, []int{want}, bodies(t, q))
			check(t, top)
			require.NoError(t, receive(t, q).Ack(ctx))
			require.NoError(t, requireDecided(t, c))
			require.Equal(t, []int{3}, bodies(t, q))
			check(t, top)
			top.Close()
		})
	}
}

// --- room ---

func TestCombinationOfDropOldestWithWhatCannotBeDropped(t *testing.T) {
	for _, filtered := range []bool{false, true} {
		t.Run(fmt.Sprintf("filtered %t", filtered), func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				var lost []DropReason
				top := newTopic[int](t, WithHooks(Hooks{Dropped: func(e Event) { lost = append(lost, e.Reason) }}))
				options := []QueueOption{WithCapacity(3), WithOverflow(DropOldest), WithBackoff(Constant(time.Minute)),
					WithMaxAttempts(2), WithDeadLetterCapacity(1)}
				if filtered {
					options = append(options, WithFilter(func(b int) bool { return b >= 0 }))
				}
				q := openQueue(t, top, "q", options...)
				publish(t, top, 1, 2, 3)
				a, b, c := receive(t, q), receive(t, q), receive(t, q)
				publish(t, top, 4, 5)
				require.Empty(t, bodies(t, q), "all is in flight: the new ones go")
				require.Equal(t, 3, q.Stats().InFlight)
				check(t, top)

				require.NoError(t, b.Nack(ctx)) // retrying
				publish(t, top, 6)
				require.Equal(t, []int{6}, bodies(t, q), "a retry that waits goes before what is newer")
				require.NoError(t, c.NackAfter(ctx, time.Second))
				elapse(time.Second)
				require.Equal(t, []int{3, 6}, bodies(t, q))
				publish(t, top, 7)
				require.Equal(t, []int{6, 7}, bodies(t, q), "so does one that is due again")
				check(t, top)
				elapse(time.Minute)
				require.Equal(t, []int{1, 6, 7}, bodies(t, q), "1 timed out, and what was dropped does not come back")
				require.ErrorIs(t, a.Ack(ctx), ErrStale)

				// What is parked cannot be dropped either.
				require.NoError(t, receive(t, q).Settle(ctx, Permanent(errBusy)))
				require.NoError(t, receive(t, q).Settle(ctx, Permanent(errBusy)))
				d := receive(t, q)
				publish(t, top, 8)
				require.Equal(t, []int{8}, bodies(t, q))
				publish(t, top, 9)
				require.Equal(t, []int{9}, bodies(t, q))
				require.Equal(t, 1, q.Stats().Parked)
				require.NoError(t, d.Ack(ctx))
				check(t, top)

				// What is ready goes before a delayed one that was published later.
				publishAll(t, top, Message[int]{Body: 10, Delay: time.Second})
				require.Equal(t, []int{9, 10}, bodies(t, q), "and one is parked")
				publish(t, top, 11)
				require.Equal(t, []int{10, 11}, bodies(t, q))
				check(t, top)
				require.Len(t, lost, 6)
				for _, why := range lost {
					require.Equal(t, DroppedOldest, why)
				}
				top.Close()
			})
		})
	}
}

func TestCombinationOfTwoBlockQueuesThatAreNeverOpenTogetherAndABatch(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		var handled [2]string
		consume := func(k int) Handler[int] {
			return func(ctx context.Context, d Delivery[int]) error {
				handled[k] += fmt.Sprint(d.Body)
				time.Sleep(time.Second)
				return nil
			}
		}
		negative := subscribe(t, top, "negative", consume(0), WithCapacity(3), WithFilter(func(b int) bool { return b < 0 })).Queue()
		positive := subscribe(t, top, "positive", consume(1), WithCapacity(3), WithFilter(func(b int) bool { return b > 0 })).Queue()
		stop := make(chan struct{})
		stream := func(body int) {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if top.Publish(ctx, body) != nil {
					return
				}
			}
		}
		go stream(-1)
		go stream(-1)
		time.Sleep(500 * time.Millisecond) // so that the two make room in turn
		go stream(1)
		go stream(1)
		elapse(10 * time.Second)
		require.Equal(t, [2]int{3, 3}, [2]int{negative.Stats().Unsettled(), positive.Stats().Unsettled()})
		require.Equal(t, 4, top.Stats().Waiting)
		check(t, top)

		batch := time.Now()
		require.NoError(t, top.PublishMessages(ctx,
			Message[int]{Body: -2}, Message[int]{Body: 2}, Message[int]{Body: -2}, Message[int]{Body: 2}, Message[int]{Body: -2}, Message[int]{Body: 2}))
		require.LessOrEqual(t, time.Since(batch), 6*time.Second, "two before it, then three in each")
		check(t, top)
		elapse(10 * time.Second)
		close(stop)
		elapse(time.Minute)
		require.Zero(t, top.Stats().Waiting)
		require.Contains(t, handled[0], "-1-2-2-2-1", "and no other's between them")
		require.Contains(t, handled[1], "12221")
		check(t, top)
		require.NoError(t, top.Shutdown(ctx))
	})
}

func TestCombinationOfARedriveWithAFullQueue(t *testing.T) {
	for _, policy := range []Overflow{Block, Reject, DropOldest, DropNewest} {
		t.Run(policy.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				top := newTopic[int](t)
				q := openQueue(t, top, "q", WithCapacity(2), WithOverflow(policy), WithMaxAttempts(1), WithVisibilityTimeout(time.Hour))
				for n := range 4 {
					publish(t, top, n)
					require.NoError(t, receive(t, q).Nack(ctx))
				}
				publish(t, top, 10, 11)
				a, b := receive(t, q), receive(t, q)
				start := time.Now()
				soon, cancel := context.WithTimeout(ctx, 10*time.Second)
				defer cancel()
				type result struct {
					n     int
					err   error
					after time.Duration
				}
				done := make(chan result, 1)
				go func() {
					n, err := q.Redrive(soon)
					done <- result{n, err, time.Since(start)}
				}()
				elapse(3 * time.Second)
				require.Equal(t, 1, top.Stats().Waiting)
				var p <-chan error
				if policy == Block {
					p = waiting(ctx, top, Message[int]{Body: 12})
				}
				require.NoError(t, a.Ack(ctx))
				synctest.Wait()
				require.Equal(t, []int{0}, bodies(t, q))
				require.NoError(t, b.Ack(ctx))
				synctest.Wait()
				if policy == Block { // in turn with publishers
					require.NoError(t, requireDecided(t, p))
					require.Equal(t, []int{0, 12}, bodies(t, q))
					require.NoError(t, receive(t, q).Ack(ctx))
					synctest.Wait()
					require.Equal(t, []int{1, 12}, bodies(t, q))
				} else {
					require.Equal(t, []int{0, 1}, bodies(t, q))
				}
				check(t, top)
				elapse(time.Minute)
				r := <-done
				require.Equal(t, 2, r.n)
				require.ErrorIs(t, r.err, context.DeadlineExceeded)
				require.Equal(t, 10*time.Second, r.after)
				require.Equal(t, []int{2, 3}, deadBodies(t, q))
				require.Zero(t, q.Stats().Dropped)
				check(t, top)

				// The queue closes under one that waits.
				go func() {
					n, err := q.Redrive(ctx)
					done <- result{n, err, 0}
				}()
				synctest.Wait()
				require.NoError(t, q.Close())
				r = <-done
				require.Zero(t, r.n)
				require.ErrorIs(t, r.err, ErrClosed)
				require.Equal(t, []int{2, 3}, deadBodies(t, q))
				top.Close()
				<-top.Done()
			})
		})
	}
}

func TestCombinationOfAReplayLargerThanTheCapacity(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t, WithRetention(10), WithOrdering())
		for n := range 10 {
			publishAll(t, top, keyed(fmt.Sprint(n%2), n)...)
		}
		q := openQueue(t, top, "q", WithReplay(10), WithCapacity(4))
		even := openQueue(t, top, "even", WithReplay(10), WithCapacity(4), WithFilter(func(b int) bool { return b%2 == 0 }))
		require.Equal(t, []int{6, 7, 8, 9}, bodies(t, q))
		require.Equal(t, []int{2, 4, 6, 8}, bodies(t, even))
		check(t, top)
		old := openQueue(t, top, "old", WithReplay(10), WithCapacity(4), WithOverflow(DropOldest))
		full := waiting(ctx, top, Message[int]{Body: 11})
		requireWaiting(t, full)
		require.Equal(t, []int{6, 7, 8, 9}, bodies(t, old), "nothing is dropped for a publish that waits")
		six, seven := receive(t, q), receive(t, q)
		require.Equal(t, [2]int{6, 7}, [2]int{six.Body, seven.Body}, "one of each key")
		requireEmpty(t, q)
		require.NoError(t, six.Ack(ctx))
		require.NoError(t, requireDecided(t, full))
		require.Equal(t, []int{7, 8, 9, 11}, bodies(t, old))
		require.Equal(t, 8, receive(t, q).Body, "as it was the next of its key")
		require.Equal(t, 11, receive(t, q).Body)
		check(t, top)
		top.Close()
	})
}

// --- time to live, pause, purge, close ---

func TestCombinationOfATimeToLiveWithAMessageInFlight(t *testing.T) {
	// The time to live passes while the message is in flight: what comes of each end.
	for name, row := range map[string]struct {
		end  func(ctx context.Context, d Delivery[int]) error
		want []Cause
	}{
		"ack":       {func(ctx context.Context, d Delivery[int]) error { return d.Ack(ctx) }, nil},
		"nack":      {func(ctx context.Context, d Delivery[int]) error { return d.Nack(ctx) }, []Cause{Nacked, Expired}},
		"snooze":    {func(ctx context.Context, d Delivery[int]) error { return d.Settle(ctx, Snooze(time.Hour)) }, []Cause{Snoozed, Expired}},
		"permanent": {func(ctx context.Context, d Delivery[int]) error { return d.Settle(ctx, Permanent(errBusy)) }, []Cause{PermanentlyFailed}},
		"time-out":  {func(context.Context, Delivery[int]) error { elapse(time.Minute); return nil }, []Cause{TimedOut, Expired}},
		"extend, ack": {func(ctx context.Context, d Delivery[int]) error {
			return errors.Join(d.Extend(ctx, time.Hour), d.Ack(ctx))
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				top := newTopic[int](t)
				q := openQueue(t, top, "q", WithTimeToLive(10*time.Second), WithVisibilityTimeout(time.Minute), WithBackoff(Constant(1)))
				publish(t, top, 1)
				elapse(9 * time.Second)
				d := receive(t, q)
				elapse(time.Second)
				require.Equal(t, 1, q.Stats().InFlight, "it may finish")
				require.NoError(t, row.end(ctx, d))
				require.Zero(t, q.Stats().Unsettled())
				ls, err := q.DeadLetters().Peek(ctx, 9)
				require.NoError(t, err)
				if row.want == nil {
					require.Empty(t, ls)
					require.Equal(t, uint64(1), q.Stats().Acked)
				} else {
					require.Len(t, ls, 1)
					require.Equal(t, row.want, causesOf(ls[0]))
				}
				check(t, top)
				top.Close()
			})
		})
	}
}

func TestCombinationOfAPauseWithAPublisherThatWaits(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "q", WithCapacity(2), WithVisibilityTimeout(time.Hour))
		publish(t, top, 1, 2)
		d := receive(t, q)
		a, b := waiting(ctx, top, Message[int]{Body: 3}), waiting(ctx, top, Message[int]{Body: 4})
		require.NoError(t, q.Pause(ctx))
		elapse(time.Minute)
		requireWaiting(t, a)
		require.NoError(t, d.Ack(ctx)) // in flight goes on, and makes room
		require.NoError(t, requireDecided(t, a))
		requireWaiting(t, b)
		require.Equal(t, []int{2, 3}, bodies(t, q))
		check(t, top)
		y := newDiary()
		_, err := q.Subscribe(ctx, func(ctx context.Context, d Delivery[int]) error {
			y.note("%d", d.Body)
			return nil
		})
		require.NoError(t, err)
		elapse(time.Minute)
		require.Empty(t, y.read())
		require.NoError(t, q.Resume(ctx))
		require.NoError(t, requireDecided(t, b))
		require.Equal(t, []string{"1m0s: 2", "1m0s: 3", "1m0s: 4"}, y.read())
		check(t, top)
		top.Close()
	})
}

func TestCombinationOfAPurgeWithARunningHandlerAndAPublisherThatWaits(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var log syncBuffer
		y := newDiary()
		top, err := NewTopic[int]("payments", WithOrdering(), WithLogger(log.logger()), WithHooks(Hooks{
			Late:  func(e Event) { y.note("late: %v", e.Err) },
			Stuck: func(e Event) { y.note("stuck") },
		}))
		require.NoError(t, err)
		s := subscribe(t, top, "q", func(ctx context.Context, d Delivery[int]) error {
			y.note("%d", d.Body)
			if d.Body == 1 {
				<-ctx.Done()
				y.note("%t %t", errors.Is(context.Cause(ctx), ErrStale), errors.Is(d.Ack(ctx), ErrStale))
				time.Sleep(5 * time.Second)
				return errBusy
			}
			return nil
		}, WithCapacity(3))
		q := s.Queue()
		publishAll(t, top, keyed("a", 1, 2, 3)...)
		full := waiting(ctx, top, keyed("a", 4)...)
		elapse(time.Second)
		n, err := q.Purge(ctx)
		require.NoError(t, err)
		require.Equal(t, 3, n)
		require.NoError(t, requireDecided(t, full))
		require.Equal(t, []string{"0s: 1", "1s: true true"}, y.read())
		require.Equal(t, [2]int{1, 0}, [2]int{q.Stats().Ready, q.Stats().Stuck}, "its worker is kept until it returns")
		check(t, top)
		elapse(time.Minute)
		require.Equal(t, []string{"6s: late: busy", "6s: 4"}, y.read())
		require.Contains(t, log.String(), "reason=purge")
		require.Equal(t, [2]uint64{1, 3}, [2]uint64{q.Stats().Acked, q.Stats().Dropped})
		check(t, top)
		require.NoError(t, top.Shutdown(ctx))
	})
}

func TestCombinationOfAPurgeWithARateLimitAndADroppingQueue(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		y := newDiary()
		s := subscribe(t, top, "q", func(ctx context.Context, d Delivery[int]) error {
			y.note("%d", d.Body)
			return nil
		}, WithRateLimit(1), WithCapacity(3), WithOverflow(DropOldest))
		publish(t, top, 1)
		synctest.Wait()
		publish(t, top, 2, 3, 4, 5)
		_, err := s.Queue().Purge(ctx)
		require.NoError(t, err)
		check(t, top)
		publish(t, top, 6)
		elapse(time.Minute)
		require.Equal(t, []string{"0s: 1", "1s: 6"}, y.read())
		require.Equal(t, uint64(4), s.Queue().Stats().Dropped)
		check(t, top)
		top.Close()
	})
}

func TestCombinationOfAPublisherThatWaitsWithTheCloseOfItsQueue(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		a := openQueue(t, top, "a", WithCapacity(1))
		b := openQueue(t, top, "b", WithCapacity(1), WithFilter(func(body int) bool { return body != 3 }))
		c := openQueue(t, top, "c")
		publish(t, top, 1)
		both := waiting(ctx, top, Message[int]{Body: 2})
		one := waiting(ctx, top, Message[int]{Body: 3}) // for a only, but behind the other
		elapse(time.Minute)
		require.NoError(t, a.Close())
		requireWaiting(t, both) // for b
		requireWaiting(t, one)  // c is shared, and the other came before
		require.NoError(t, b.Close())
		require.NoError(t, requireDecided(t, both))
		require.NoError(t, requireDecided(t, one))
		require.Equal(t, []int{1, 2, 3}, bodies(t, c))
		require.Equal(t, 1, a.Leftovers()[0].Body)
		require.Len(t, a.Leftovers(), 1)
		require.Len(t, b.Leftovers(), 1)
		check(t, top)
		publish(t, top, 4)
		top.Close()
		<-top.Done()
	})
}

// --- rate limit, automatic extension, shared dead letters with others ---

func TestCombinationOfARateLimitWithOrderingAndRetries(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t, WithOrdering())
		y := newDiary()
		subscribe(t, top, "q", func(ctx context.Context, d Delivery[int]) error {
			y.note("%d", d.Body)
			if d.Body == 1 && d.Attempt() == 1 {
				return RetryAfter(errBusy, 3500*time.Millisecond)
			}
			return nil
		}, WithRateLimit(1), WithConcurrency(3))
		publishAll(t, top, append(keyed("a", 1, 2), keyed("b", 11, 12)...)...)
		elapse(time.Minute)
		require.Equal(t, []string{"0s: 1", "1s: 11", "2s: 12", "3.5s: 1", "4.5s: 2"}, y.read(), "what is blocked takes no token")
		check(t, top)
		top.Close()
	})
}

func TestCombinationOfAutoExtendWithABatchAndAShutdownOfTheSubscriber(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		y := newDiary()
		q := openQueue(t, top, "q", WithVisibilityTimeout(10*time.Second))
		s, err := q.SubscribeBatch(ctx, func(ctx context.Context, ds []Delivery[int]) error {
			y.note("%d", len(ds))
			<-ctx.Done()
			y.note("%t", errors.Is(context.Cause(ctx), ErrClosed))
			return context.Cause(ctx)
		}, WithAutoExtend(time.Hour))
		require.NoError(t, err)
		publishAll(t, top, make([]Message[int], 3)...)
		elapse(25 * time.Second)
		require.Equal(t, 3, q.Stats().InFlight)
		check(t, top)
		soon, cancel := context.WithTimeout(ctx, 15*time.Second)
		defer cancel()
		require.ErrorIs(t, s.Shutdown(soon), context.DeadlineExceeded)
		synctest.Wait()
		require.Equal(t, []string{"0s: 3", "40s: true"}, y.read())
		require.Equal(t, [2]int{3, 0}, [2]int{q.Stats().Ready, q.Stats().InFlight})
		require.Equal(t, 1, receive(t, q).Attempt(), "released: no attempt is spent")
		check(t, top)
		top.Close()
		<-top.Done()
	})
}

func TestCombinationOfSharedDeadLettersWithATimeToLiveAndAKey(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		elapse(time.Minute)
		dead, err := NewDeadLetterQueue[int]("dead", silent)
		require.NoError(t, err)
		elapse(time.Minute)
		top := newTopic[int](t, WithOrdering())
		q := openQueue(t, top, "q", WithDeadLetterQueue(dead), WithTimeToLive(10*time.Second), WithMaxAttempts(1))
		other := openQueue(t, top, "other", WithDeadLetterQueue(dead), WithMaxAttempts(1))
		publishAll(t, top, keyed("a", 1, 2, 3)...)
		elapse(10 * time.Second)
		requireEmpty(t, q) // all have expired
		require.Equal(t, []int{1, 2, 3}, bodies(t, dead))
		require.NoError(t, receive(t, other).Nack(ctx))
		n, err := q.Redrive(ctx)
		require.NoError(t, err)
		require.Equal(t, 3, n)
		require.Equal(t, []int{1}, bodies(t, dead))
		elapse(10*time.Second - 1) // it began anew
		for _, want := range []int{1, 2} {
			d := receive(t, q)
			require.Equal(t, want, d.Body)
			requireEmpty(t, q) // one of a key
			require.NoError(t, d.Ack(ctx))
		}
		elapse(1)
		requireEmpty(t, q)
		require.Equal(t, []int{1, 3}, bodies(t, dead))
		require.NoError(t, dead.checkLocked(0))
		check(t, top)
		top.Close()
		require.NoError(t, dead.Close())
	})
}

// --- memory ---

func TestTenThousandIdleQueuesCostLittle(t *testing.T) {
	const n = 10_000
	for _, row := range []struct {
		name    string
		options func(k int) []SubscribeOption
		most    int64
	}{
		{"no subscriber", nil, 800},
		{"a subscriber", func(int) []SubscribeOption { return nil }, 1024},
		{"a subscriber with much asked for", func(int) []SubscribeOption {
			return []SubscribeOption{WithConcurrency(64), WithRateLimit(10), WithAutoExtend(time.Hour), WithHandlerTimeout(time.Minute),
				WithCapacity(1_000_000), WithTimeToLive(time.Hour), WithReplay(1000)}
		}, 2048},
		{"a subscriber behind a filter", func(int) []SubscribeOption {
			return []SubscribeOption{WithFilter(func(int) bool { return false }), WithOverflow(DropOldest)}
		}, 2304},
	} {
		t.Run(row.name, func(t *testing.T) {
			names := make([]string, n)
			for k := range names {
				names[k] = fmt.Sprint(k)
			}
			goroutines, bytes := runtime.NumGoroutine(), heap()
			top := newTopic[int](t, WithRetention(1000), WithOrdering(), WithDeduplication(time.Minute, 1000))
			for k, name := range names {
				if row.options == nil {
					openQueue(t, top, name)
				} else {
					subscribe(t, top, name, handleNothing, row.options(k)...)
				}
			}
			each, more := (heap()-bytes)/n, runtime.NumGoroutine()-goroutines
			t.Logf("%d queues with %s: %d bytes each, %d goroutines", n, row.name, each, more)
			require.LessOrEqual(t, each, row.most)
			require.LessOrEqual(t, more, 0)
			require.Len(t, top.Queues(), n)
			top.Close()
			<-top.Done()
		})
	}
}

func TestKeysIDsAndHistoriesAreGivenBack(t *testing.T) {
	// In virtual time an hour passes at once; what is measured is real.
	bubble(t, func(t *testing.T, ctx context.Context) {
		const n, rounds = 2000, 3
		top := newTopic[int](t, WithOrdering(), WithDeduplication(time.Minute, 1_000_000))
		q := openQueue(t, top, "q", WithCapacity(Unlimited), WithMaxAttempts(4), WithBackoff(Constant(time.Second)))
		long := strings.Repeat("x", 200)
		round := func(r int) {
			for k := range n {
				id := fmt.Sprintf("%s %d %d", long, r, k)
				publishAll(t, top, Message[int]{Body: k, OrderingKey: id, DeduplicationID: id, Attributes: map[string]string{"id": id}})
			}
			for range 3 {
				for range n {
					require.NoError(t, receive(t, q).Settle(ctx, fmt.Errorf("%s: %w", long, errBusy)))
				}
				elapse(time.Second)
			}
			q.mu.Lock()
			require.Len(t, q.keys, n)
			q.mu.Unlock()
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
			_, err := q.Redrive(ctx)
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
		q.mu.Lock()
		require.Nil(t, q.keys)
		q.mu.Unlock()
		require.Zero(t, q.Stats().Unsettled())
		require.Zero(t, q.Stats().Dead)
		top.mu.Lock()
		require.Zero(t, top.dedup.Len())
		top.mu.Unlock()
		check(t, top)
		top.Close()
		<-top.Done()
	})
}
