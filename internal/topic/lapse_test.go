package topic

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"
	"weak"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/ending"
	"github.com/gofanout/fanout/internal/lease"
	"github.com/gofanout/fanout/internal/lifecycle"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/settings"
	"github.com/gofanout/fanout/internal/view"
)

// How what has timed out together is taken again.
var takings = map[string]func(t *testing.T, q *queue.Queue[int], n int) []delivery.Delivery[int]{
	"one by one": func(t *testing.T, q *queue.Queue[int], n int) (ds []delivery.Delivery[int]) {
		for range n {
			ds = append(ds, receive(t, q))
			check(t, topicOf(q))
		}
		return ds
	},
	"in batches": func(t *testing.T, q *queue.Queue[int], n int) (ds []delivery.Delivery[int]) {
		for len(ds) < n {
			more, err := receiveBatch(q, t.Context(), min(37, n-len(ds)))
			require.NoError(t, err)
			ds = append(ds, more...)
			check(t, topicOf(q))
		}
		return ds
	},
	"with another time-out now and then": func(t *testing.T, q *queue.Queue[int], n int) (ds []delivery.Delivery[int]) {
		for k := range n {
			if k%5 == 2 {
				ds = append(ds, receive(t, q, WithVisibilityTimeout(q.Store.Set.Visibility-1)))
				require.NoError(t, ds[k].Extend(t.Context(), q.Store.Set.Visibility))
			} else {
				ds = append(ds, receive(t, q))
			}
			check(t, topicOf(q))
		}
		return ds
	},
	"after a peek": func(t *testing.T, q *queue.Queue[int], n int) (ds []delivery.Delivery[int]) {
		for k := range n {
			if k == n/2 {
				seen, err := view.Peek(t.Context(), q, message.Unlimited)
				require.NoError(t, err)
				require.Len(t, seen, n-k)
				for _, d := range seen {
					require.Len(t, d.History(), d.Attempt()-1)
				}
			}
			ds = append(ds, receive(t, q))
			check(t, topicOf(q))
		}
		return ds
	},
}

// Whole and partial leases time out together until all are dead; each attempt
// is where it was, when it was.
func TestWhatTimesOutTogetherComesAgainUntilItIsDead(t *testing.T) {
	const vis = 10 * time.Second
	for name, take := range takings {
		mixed := name == "with another time-out now and then"
		for _, attempts := range []int{1, 2, 4, 8 + 4} {
			t.Run(name, func(t *testing.T) {
				bubble(t, func(t *testing.T, ctx context.Context) {
					top := newTopic[int](t)
					q := openQueue(t, top, "q", WithVisibilityTimeout(vis), WithMaxAttempts(attempts))
					ms := make([]message.Published[int], ofLeases)
					for k := range ms {
						ms[k].Body = k
						if k%3 == 0 {
							ms[k].Attributes = map[string]string{"k": fmt.Sprint(k)}
						}
					}
					publishAll(t, top, ms...)
					acked, timedOut, delivered := map[int]bool{}, 0, 0
					began := time.Now()
					for a := range attempts {
						ds := take(t, q, ofLeases-len(acked))
						var left []delivery.Delivery[int]
						next := 0
						seen := map[int]bool{}
						for _, d := range ds {
							for acked[next] {
								next++
							}
							if !mixed { // those of one instant are in any order then
								require.Equal(t, next, d.Body, "in order")
							}
							require.False(t, seen[d.Body] || acked[d.Body])
							seen[d.Body] = true
							next++
							require.Equal(t, a+1, d.Attempt())
							require.Equal(t, ms[d.Body].Attributes["k"], d.Attributes()["k"])
							h := d.History()
							require.Len(t, h, a)
							for k, at := range h {
								want := Attempt{Number: k + 1, Cause: message.TimedOut, Queue: "q", Start: began.Add(time.Duration(k) * vis), Elapsed: vis}
								require.Equal(t, want, at)
							}
							if d.Body%7 == a%7 && attempts < 8 { // the leases have holes
								require.NoError(t, d.Ack(ctx))
								acked[d.Body] = true
							} else {
								left = append(left, d)
							}
						}
						check(t, top)
						delivered += len(ds)
						require.EqualValues(t, delivered, view.StatsOf(q).Delivered)
						elapse(vis - 1)
						require.Equal(t, len(left), view.StatsOf(q).InFlight)
						elapse(1)
						check(t, top)
						for _, d := range left {
							require.ErrorIs(t, d.Ack(ctx), message.ErrStale)
							require.ErrorIs(t, d.Extend(ctx, time.Hour), message.ErrStale)
							require.True(t, d.Deadline().IsZero())
						}
						timedOut += len(left)
						require.EqualValues(t, timedOut, view.StatsOf(q).TimedOut)
						if a+1 < attempts {
							require.Equal(t, len(left), view.StatsOf(q).Ready)
						}
					}
					s := view.StatsOf(q)
					require.Equal(t, ofLeases-len(acked), s.Dead)
					require.Zero(t, s.Unsettled())
					letters, err := view.Peek(ctx, q.DeadLetters(), message.Unlimited)
					require.NoError(t, err)
					for _, l := range letters {
						require.Len(t, l.History(), attempts)
						require.Equal(t, attempts, l.History()[attempts-1].Number)
					}
					require.NoError(t, top.Close())
				})
			})
		}
	}
}

// Messages that were received at different instants, or acknowledged, extended
// and given back in between, time out each at its own, and come back in the
// order in which they became ready.
func TestWhatTimesOutComesBackInTheOrderInWhichItBecameReady(t *testing.T) {
	const vis = 10 * time.Second
	seeds := uint64(20)
	if testing.Short() {
		seeds = 5
	}
	for seed := range seeds {
		bubble(t, func(t *testing.T, ctx context.Context) {
			rnd := rand.New(rand.NewPCG(seed, 3))
			top := newTopic[int](t)
			q := openQueue(t, top, "q", WithVisibilityTimeout(vis), WithMaxAttempts(message.Unlimited), WithBackoff(settings.Constant(7*time.Second)))
			publishOnce(t, top, ofLeases)
			type stay struct {
				due   time.Time
				times int
			}
			stays := map[int]stay{}
			var ready []int // in the order in which they must come, in turn with the backlog
			wasDue := false
			backlog := from(0, ofLeases)
			inFlight := map[int]delivery.Delivery[int]{}
			for range 1500 {
				switch n := rnd.IntN(10); {
				case n < 5 && len(ready)+len(backlog) > 0:
					ds, err := receiveBatch(q, ctx, 1+rnd.IntN(20))
					require.NoError(t, err)
					for _, d := range ds {
						next := &ready
						if wasDue && len(backlog) > 0 || len(ready) == 0 {
							next = &backlog
						}
						wasDue = next == &ready
						require.Equal(t, (*next)[0], d.Body)
						require.Equal(t, stays[d.Body].times+1, d.Attempt())
						*next = (*next)[1:]
						inFlight[d.Body] = d
						stays[d.Body] = stay{time.Now().Add(vis), stays[d.Body].times}
					}
				case n == 5 && len(inFlight) > 0:
					for k, d := range inFlight {
						require.NoError(t, d.Extend(ctx, 3*vis/2+time.Duration(k+1)))
						stays[k] = stay{time.Now().Add(3*vis/2 + time.Duration(k+1)), stays[k].times}
						break
					}
				case n == 6:
					_, err := view.Peek(ctx, q, message.Unlimited)
					require.NoError(t, err)
				default:
					elapse(time.Duration(rnd.IntN(2000)) * time.Millisecond)
				}
				now := time.Now()
				var late []int
				for k := range inFlight {
					if !stays[k].due.After(now) {
						late = append(late, k)
					}
				}
				for len(late) > 0 { // by their instants; those received together in their order
					first := 0
					for j, k := range late {
						a, b := stays[k], stays[late[first]]
						if a.due.Before(b.due) || a.due.Equal(b.due) && inFlight[k].Ref.Stamp < inFlight[late[first]].Ref.Stamp {
							first = j
						}
					}
					k := late[first]
					late = append(late[:first], late[first+1:]...)
					require.ErrorIs(t, inFlight[k].Ack(ctx), message.ErrStale)
					delete(inFlight, k)
					ready = append(ready, k)
					stays[k] = stay{times: stays[k].times + 1}
				}
				require.Equal(t, len(ready)+len(backlog), view.StatsOf(q).Ready)
				require.Equal(t, len(inFlight), view.StatsOf(q).InFlight)
				check(t, top)
			}
			for k, d := range inFlight {
				h := d.History()
				require.Len(t, h, stays[k].times)
				require.NoError(t, d.Ack(ctx))
				require.ErrorIs(t, d.Ack(ctx), message.ErrSettled)
			}
			check(t, top)
			require.NoError(t, top.Close())
		})
	}
}

func TestWhatHappensToMessagesThatTimedOutTogether(t *testing.T) {
	const vis = 10 * time.Second
	for name, row := range map[string]func(t *testing.T, q *queue.Queue[int], left int){
		"purged": func(t *testing.T, q *queue.Queue[int], left int) {
			n, err := lifecycle.Purge(t.Context(), q)
			require.NoError(t, err)
			require.Equal(t, left, n)
			require.Zero(t, view.StatsOf(q).Unsettled())
		},
		"left by the queue": func(t *testing.T, q *queue.Queue[int], left int) {
			require.NoError(t, lifecycle.Close(q))
			ms := lifecycle.Leftovers(q)
			require.Len(t, ms, left)
			for k, m := range ms {
				require.Equal(t, ofLeases-left+k, m.Body)
			}
		},
		"given to a handler": func(t *testing.T, q *queue.Queue[int], left int) {
			next := ofLeases - left
			_, err := subscribeTo(q, t.Context(), func(_ context.Context, d delivery.Delivery[int]) error {
				if d.Body != next || d.Attempt() != 2 || len(d.History()) != 1 {
					t.Errorf("got %d, attempt %d, want %d", d.Body, d.Attempt(), next)
				}
				next++
				return nil
			})
			require.NoError(t, err)
			elapse(time.Second)
			require.Equal(t, ofLeases, next)
		},
		"told to a receiver that waits": func(t *testing.T, q *queue.Queue[int], left int) {
			for range left {
				receive(t, q)
			}
			woken := make(chan time.Time, 1)
			go func() {
				if _, err := receiveFrom(q, context.Background()); err == nil {
					woken <- time.Now()
				}
			}()
			began := time.Now()
			elapse(time.Hour)
			require.Equal(t, began.Add(vis), <-woken)
		},
	} {
		for _, taken := range []int{0, 1, 5, lease.Len, lease.Len + 1} {
			t.Run(name, func(t *testing.T) {
				bubble(t, func(t *testing.T, ctx context.Context) {
					top := newTopic[int](t)
					q := openQueue(t, top, "q", WithVisibilityTimeout(vis))
					publishOnce(t, top, ofLeases)
					receiveAll(t, q, ofLeases)
					elapse(vis)
					for k := range taken {
						d := receive(t, q)
						require.Equal(t, k, d.Body)
						require.NoError(t, d.Ack(ctx))
					}
					check(t, top)
					row(t, q, ofLeases-taken)
					check(t, top)
					require.NoError(t, top.Close())
				})
			})
		}
	}
}

func TestEachTimeOutIsToldToAHookThatWantsIt(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		told := 0
		top := newTopic[int](t, WithHooks(Hooks{Settled: func(e Event) {
			if e.Cause == message.TimedOut && e.Elapsed == time.Second && e.Attempt == 1 {
				told++
			}
		}}))
		q := openQueue(t, top, "q", WithVisibilityTimeout(time.Second))
		publishOnce(t, top, ofLeases)
		receiveAll(t, q, ofLeases)
		elapse(time.Second)
		require.Equal(t, ofLeases, told)
		check(t, top)
		require.NoError(t, top.Close())
	})
}

// What timed out and came again, and was acknowledged then, is not kept by those
// that share a lease or a past with it.
func TestWhatTimedOutTogetherPinsNothingThatIsAcknowledged(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[*watched](t)
		q := openQueue(t, top, "q", WithVisibilityTimeout(time.Second))
		all := publishWatched(t, top, 3*lease.Len)
		var last weak.Pointer[watched]
		for range 3 {
			ds, err := receiveBatch(q, ctx, len(all))
			require.NoError(t, err)
			for n := range ds {
				if n != 1 && n != lease.Len+1 && n != 2*lease.Len+1 && len(ds) > 3 {
					require.NoError(t, ds[n].Ack(ctx))
				}
			}
			last = weak.Make(ds[1].Body)
			clear(ds)
			check(t, top)
			require.LessOrEqual(t, alive(all[:2*lease.Len]), 2, "the first two are in flight")
			elapse(time.Second)
		}
		require.NotNil(t, last.Value())
		runtime.KeepAlive(q)
		require.NoError(t, top.Close())
	})
}

// What is taken of messages that timed out together is not kept by those that
// nobody has taken yet.
func TestWhatTimedOutTogetherPinsNothingThatWasTaken(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[*watched](t)
		q := openQueue(t, top, "q", WithVisibilityTimeout(time.Second))
		all := publishWatched(t, top, 3*lease.Len)
		func() {
			_, err := receiveBatch(q, ctx, len(all))
			require.NoError(t, err)
			elapse(time.Second)
			ds, err := receiveBatch(q, ctx, 2*lease.Len) // ends in a lapse
			require.NoError(t, err)
			require.Len(t, ds, 2*lease.Len)
			require.NoError(t, ackBatchOf(q, ctx, ds...))
			d := receive(t, q, WithVisibilityTimeout(time.Minute)) // not from a lease
			require.NoError(t, d.Ack(ctx))
		}()
		require.Zero(t, alive(all[:2*lease.Len]))
		require.Equal(t, lease.Len-1, view.StatsOf(q).Ready)
		check(t, top)
		require.NoError(t, top.Close())
	})
}

// What timed out together takes its room, and is dropped in its turn.
func TestWhatTimedOutTogetherCountsInAFullQueue(t *testing.T) {
	for _, delay := range []time.Duration{0, time.Minute} { // into the log, and past it
		for policy, dropped := range map[settings.Overflow][]int{settings.DropOldest: {0, 1, 2}, settings.DropNewest: {1000, 1001, 1002}} {
			t.Run(policy.String(), func(t *testing.T) {
				bubble(t, func(t *testing.T, ctx context.Context) {
					top := newTopic[int](t)
					q := openQueue(t, top, "q", WithCapacity(ofLeases), WithOverflow(policy), WithVisibilityTimeout(time.Second))
					publishOnce(t, top, ofLeases)
					receiveAll(t, q, ofLeases)
					elapse(time.Second)
					for k := range dropped {
						publishAll(t, top, message.Published[int]{Body: 1000 + k, Delay: delay})
						check(t, top)
					}
					want := append(from(0, ofLeases), 1000, 1001, 1002)
					want = slices.DeleteFunc(want, func(k int) bool { return slices.Contains(dropped, k) })
					require.Equal(t, want, bodies(t, q))
					require.EqualValues(t, 3, view.StatsOf(q).Dropped)
					require.NoError(t, top.Close())
				})
			})
		}
	}
}

func TestAShutdownWaitsForNoneOfWhatTimedOutTogetherInAPausedQueue(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "q", WithVisibilityTimeout(time.Second))
		publishOnce(t, top, ofLeases)
		receiveAll(t, q, ofLeases)
		require.NoError(t, lifecycle.Pause(ctx, q))
		began := time.Now()
		var left *ending.ShutdownError
		require.ErrorAs(t, top.Shutdown(ctx), &left)
		require.Equal(t, time.Second, time.Since(began))
		require.Equal(t, []ending.Left{{Queue: "q", Ready: ofLeases}}, left.Queues)
	})
}

// The memory of a lease that is used again is not that of what its messages have
// been through.
func TestADeliveryKeepsItsHistoryWhenTheLeaseBeforeItIsUsedAgain(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		const vis = 10 * time.Second
		began := time.Now()
		top := newTopic[int](t)
		q := openQueue(t, top, "q", WithVisibilityTimeout(vis))
		publish(t, top, 0, 1, 2)
		take := func(n int) []delivery.Delivery[int] {
			ds, err := receiveBatch(q, ctx, n)
			require.NoError(t, err)
			require.Len(t, ds, n)
			return ds
		}
		take(2)
		elapse(vis / 2)
		later := receive(t, q)
		elapse(vis / 2)
		again := take(2) // the first two, out of their lapse
		want := []Attempt{{Number: 1, Cause: message.TimedOut, Queue: "q", Start: began, Elapsed: vis}}
		require.Equal(t, want, again[1].History())
		require.NoError(t, ackBatchOf(q, ctx, again...))
		publish(t, top, to(3, 99)...)
		require.NoError(t, ackBatchOf(q, ctx, take(lease.Len)...)) // a whole lease, which goes
		require.NoError(t, later.Ack(ctx))
		last := take(2)
		require.Equal(t, want, again[0].History())
		require.Equal(t, want, again[1].History())
		require.NoError(t, ackBatchOf(q, ctx, last...))
		check(t, top)
		require.NoError(t, top.Close())
	})
}
