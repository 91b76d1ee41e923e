package ranges

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/intercept"
	"github.com/gofanout/fanout/internal/lifecycle"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/settings"
	"github.com/gofanout/fanout/internal/view"
)

// next is the next message of a range.
func next(t *testing.T, r *Range[int]) *delivery.Delivery[int] {
	t.Helper()
	d, err := r.Next(t.Context())
	require.NoError(t, err)
	return d
}

// quicken has the range prefetch many at a time: it acknowledges that many messages at once.
func quicken(t *testing.T, h *home[int], r *Range[int]) {
	t.Helper()
	h.publish(from(0, 200)...)
	for range 200 {
		require.NoError(t, next(t, r).Ack(t.Context()))
	}
}

// heldBack is how many messages wait in leases.
func heldBack(q *queue.Queue[int]) (n int) {
	q.Locked(func() { n = q.Store.Leases.Waiting() })
	return n
}

// An ended context yields nothing, though more was prefetched; what was yielded before is let
// go of.
func TestARangeYieldsNothingToAnEndedContext(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome[int](t)
		r := New(h.q, h.q.Visibility())
		quicken(t, h, r)
		h.publish(from(300, 340)...)
		d := next(t, r)
		require.Equal(t, 300, d.Body)
		require.Positive(t, heldBack(h.q))
		require.NoError(t, d.Ack(ctx))
		second := next(t, r)
		require.Equal(t, 301, second.Body)
		require.Zero(t, d.Body, "it is valid until the next call")
		var acked error
		ended, cancel := context.WithCancel(ctx)
		cancel()
		for range 2 {
			_, err := r.Next(ended)
			require.ErrorIs(t, err, context.Canceled)
			require.ErrorIs(t, second.Ack(ctx), acked)
			acked = message.ErrSettled
		}
		require.Equal(t, 302, next(t, r).Body, "it goes on where it was")
		r.Leave()
		r.Leave() // once more does nothing
		require.Zero(t, h.q.Group.Ranges)
		require.Equal(t, from(303, 340), waiting(t, h.q))
		h.end(t)
	})
}

// What was yielded and not settled stays in flight, and times out at its instant.
func TestWhatALoopLeavesUnsettledTimesOut(t *testing.T) {
	for _, vis := range []time.Duration{100 * time.Microsecond, time.Minute} {
		bubble(t, func(t *testing.T, ctx context.Context) {
			h := newHome[int](t, visible(vis))
			r := New(h.q, vis)
			quicken(t, h, r)
			time.Sleep(time.Second)
			h.publish(from(0, 20)...)
			began := time.Now()
			for range 20 {
				next(t, r) // not acknowledged
			}
			require.Equal(t, began, time.Now())
			require.Equal(t, 20, view.StatsOf(h.q).InFlight)
			d := next(t, r)
			require.Equal(t, 2, d.Attempt())
			require.Equal(t, vis, time.Since(began))
			r.Leave()
			h.end(t)
		})
	}
}

// What a loop has done is counted when it goes on, and its age is that of what waits.
func TestTheNumbersOfALoop(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome[int](t)
		r := New(h.q, h.q.Visibility())
		quicken(t, h, r)
		h.publish(from(0, 40)...)
		time.Sleep(time.Second / 2)
		for k := range 40 {
			d := next(t, r)
			s := view.StatsOf(h.q)
			require.Equal(t, []int{39 - k, 1, 200 + k}, []int{s.Ready, s.InFlight, int(s.Acked)})
			if k < 39 {
				require.Equal(t, time.Second/2, s.OldestAge)
			}
			require.NoError(t, d.Ack(ctx))
			require.Zero(t, view.StatsOf(h.q).InFlight)
		}
		r.Leave()
		require.EqualValues(t, 240, h.q.Store.Acked)
		h.end(t)
	})
}

// What a loop has not begun is at once for whoever waits when it is left, and a shutdown goes
// on.
func TestALeftLoopHandsOnWhatItHas(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome[int](t)
		r := New(h.q, h.q.Visibility())
		h.publish(1)
		d := next(t, r)
		got := make(chan int, 1)
		go func() {
			if ds, err := delivery.TakeBatch(ctx, h.q, 1, time.Minute); err == nil {
				got <- ds[0].Body
			}
		}()
		synctest.Wait()
		began := time.Now()
		require.NoError(t, d.Release(ctx))
		r.Leave()
		require.Equal(t, 1, <-got)
		require.Equal(t, began, time.Now())
		h.end(t)
	})
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome[int](t)
		r := New(h.q, h.q.Visibility())
		quicken(t, h, r)
		h.publish(1, 2, 3, 4)
		require.NoError(t, next(t, r).Ack(ctx))
		require.NoError(t, lifecycle.Pause(ctx, h.q))
		r.Leave()
		require.Equal(t, []int{2, 3, 4}, waiting(t, h.q))
		require.Nil(t, lifecycle.AwaitDrained(h.q), "a paused queue is drained")
		h.end(t)
	})
}

// What is due and the backlog take turns, whatever would be prefetched.
func TestALoopTakesWhatIsDueInItsTurn(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome[int](t, backoff(time.Second))
		r := New(h.q, h.q.Visibility())
		quicken(t, h, r)
		h.publish(1, 2, 3)
		for range 3 {
			require.NoError(t, next(t, r).Nack(ctx))
		}
		elapse(time.Second)
		h.publish(10, 11, 12)
		var got []int
		for range 6 {
			d := next(t, r)
			got = append(got, d.Body)
			require.NoError(t, d.Ack(ctx))
		}
		require.Equal(t, []int{1, 10, 2, 11, 3, 12}, got)

		h.publish(1, 2, 3, 4)
		require.NoError(t, next(t, r).Release(ctx)) // the backlog of the window comes first
		got = nil
		for range 4 {
			d := next(t, r)
			got = append(got, d.Body)
			require.NoError(t, d.Ack(ctx))
		}
		require.Equal(t, from(1, 5), got)
		r.Leave()
		h.end(t)
	})
}

// A loop leaves others their share.
func TestALoopLeavesOthersTheirShare(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome[int](t)
		r, others := New(h.q, h.q.Visibility()), []*Range[int]{New(h.q, h.q.Visibility()), New(h.q, h.q.Visibility())}
		quicken(t, h, r)
		h.publish(from(0, 66)...)
		for _, o := range others {
			require.NoError(t, next(t, o).Ack(ctx))
		}
		d := next(t, r)
		require.LessOrEqual(t, heldBack(h.q), 64/(2*3), "of three, each leaves the others as much as it takes")
		require.NoError(t, d.Ack(ctx))
		for _, o := range append(others, r) {
			o.Leave()
		}
		h.end(t)
	})
}

// What is closed under a loop is not kept by it.
func TestALoopOverAClosedQueueKeepsNothing(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome[int](t)
		r := New(h.q, h.q.Visibility())
		quicken(t, h, r)
		h.publish(from(0, 40)...)
		next(t, r)
		require.NoError(t, lifecycle.Close(h.q))
		_, err := r.Next(ctx)
		require.True(t, r.IsOver(err))
		r.Leave()
		require.Nil(t, r.ds)
		require.Nil(t, h.q.Ranging.Load())
		h.Release()
		<-h.Live.Awaitable()
	})
}

// Each step of a range over a queue with interceptors goes through these.
func TestEachStepGoesThroughInterceptors(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var infos []intercept.Info
		fail := false
		h := newHome[int](t, topic(func(top *settings.Topic) {
			top.Calls = append(top.Calls, func(ctx context.Context, info intercept.Info, next func(context.Context) error) error {
				infos = append(infos, info)
				if fail {
					return errBusy
				}
				return next(ctx)
			})
		}))
		require.False(t, h.q.Local)
		h.publish(1, 2)
		r := New(h.q, time.Minute)
		for want := 1; want <= 2; want++ {
			d := next(t, r)
			require.Equal(t, want, d.Body)
			require.True(t, time.Now().Add(time.Minute).Equal(d.Deadline()))
			require.Equal(t, []any{intercept.OpReceive, 1}, []any{infos[len(infos)-1].Operation, infos[len(infos)-1].Messages})
			require.NoError(t, d.Ack(ctx))
		}
		fail = true
		_, err := r.Next(ctx)
		require.ErrorIs(t, err, errBusy)
		fail = false
		r.Leave()
		require.ErrorIs(t, (&delivery.Delivery[int]{}).Ack(ctx), message.ErrStale)
		h.end(t)
	})
}

// keeps returns the bodies that a range has in memory, none of which is 0.
func keeps(r *Range[int]) (bodies []int) {
	for _, d := range append(slices.Clone(r.buffer), r.one[0]) {
		if d.Body != 0 {
			bodies = append(bodies, d.Body)
		}
	}
	return bodies
}

// A loop keeps what it has not settled and what it has not begun, and nothing while it waits.
// What it left unsettled comes again as it was, whatever it has taken since.
func TestALoopKeepsNoMoreThanItHas(t *testing.T) {
	for name, settled := range map[string]func(ctx context.Context, k int, d *delivery.Delivery[int]) error{
		"all": func(ctx context.Context, _ int, d *delivery.Delivery[int]) error { return d.Ack(ctx) },
		"all but few": func(ctx context.Context, k int, d *delivery.Delivery[int]) error { // one of a lease
			if k%100 == 50 {
				return nil
			}
			return d.Ack(ctx)
		},
		"most": func(ctx context.Context, k int, d *delivery.Delivery[int]) error {
			switch k % 10 {
			case 3:
				return d.Nack(ctx)
			case 7:
				return nil
			}
			return d.Ack(ctx)
		},
		"none at all": func(context.Context, int, *delivery.Delivery[int]) error { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				h := newHome[int](t, visible(time.Minute), backoff(time.Minute))
				r := New(h.q, time.Minute)
				quicken(t, h, r)
				h.publish(from(1, 301)...)
				left := map[int]bool{}
				for k := 1; k <= 300; k++ {
					d := next(t, r)
					require.Equal(t, k, d.Body)
					for _, body := range keeps(r) {
						require.True(t, body >= k || left[body] && r.lease.Kept(), "%d, while it has %d", body, k)
					}
					require.NoError(t, settled(ctx, k, d))
					s := view.StatsOf(h.q)
					left[k] = s.InFlight+s.Retrying > len(left)
					if !left[k] {
						delete(left, k)
					}
					require.NoError(t, h.q.Check())
				}
				var again []int
				go func() {
					defer r.Leave()
					for d, err := r.Next(ctx); err == nil; d, err = r.Next(ctx) {
						again = append(again, d.Body)
						_ = d.Ack(ctx)
					}
				}()
				synctest.Wait()
				require.Empty(t, keeps(r), "it waits")
				h.q.Locked(func() { require.Equal(t, 500-len(left), int(h.q.Store.Acked)) })
				elapse(time.Minute)
				require.ElementsMatch(t, slices.Collect(maps.Keys(left)), again)
				h.publish(-1)
				synctest.Wait()
				require.Equal(t, -1, again[len(again)-1])
				h.end(t)
				require.Empty(t, keeps(r))
			})
		})
	}
}

// What a loop has done is counted when its lease is used up, whether or not somebody asks.
func TestALoopCountsWhatALeaseHadWhenItIsUsedUp(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome[int](t)
		r := New(h.q, h.q.Visibility())
		quicken(t, h, r)
		h.publish(from(0, 300)...)
		first, left := 0, 0
		for k := range 300 {
			d := next(t, r)
			if d.Ref.Stamp == r.base {
				first = k
			}
			h.q.Locked(func() { require.GreaterOrEqual(t, int(h.q.Store.Acked), 200+first-left) })
			if k-first == len(r.ds)-1 {
				left++ // the last of each stays in flight
				continue
			}
			require.NoError(t, d.Ack(ctx))
		}
		require.Equal(t, left, view.StatsOf(h.q).InFlight)
		r.Leave()
		h.end(t)
	})
}

// A loop that is woken before others leaves them something, and wakes them for it.
func TestALoopWakesOthersForWhatItLeaves(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome[int](t)
		r := New(h.q, h.q.Visibility())
		quicken(t, h, r)
		y := make(chan string, 2)
		go func() {
			d := next(t, r)
			y <- fmt.Sprint("the loop: ", d.Body, ", of ", len(r.ds))
		}()
		synctest.Wait()
		go func() {
			ds, err := delivery.TakeBatch(ctx, h.q, 1, time.Minute)
			require.NoError(t, err)
			y <- fmt.Sprint("another: ", ds[0].Body)
		}()
		synctest.Wait()
		h.publish(from(0, 40)...)
		synctest.Wait()
		require.Len(t, y, 2, "both have got something")
		require.Equal(t, "the loop: 0, of 10", <-y, "each of two leaves the other as much as it takes")
		require.Equal(t, "another: 10", <-y)
		r.Leave()
		h.end(t)
	})
}

// What has expired is passed over.
func TestALoopPassesOverWhatHasExpired(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome[int](t, limits(func(q *settings.Limits) { q.TTL = time.Second }))
		r := New(h.q, h.q.Visibility())
		h.publish(1, 2)
		elapse(time.Second)
		time.AfterFunc(time.Second, func() { h.publish(3) })
		d := next(t, r)
		require.Equal(t, 3, d.Body)
		require.EqualValues(t, 2, view.StatsOf(h.q).Expired)
		r.Leave()
		h.end(t)
	})
}

// When a loop prefetches, the backlog has had its turn: what becomes due then is next.
func TestWhatBecomesDueIsNextAfterAPrefetch(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome[int](t, backoff(message.MinWait))
		r := New(h.q, h.q.Visibility())
		quicken(t, h, r)
		h.publish(1, 2)
		require.NoError(t, next(t, r).Nack(ctx))
		require.NoError(t, next(t, r).Ack(ctx))
		d := next(t, r)
		require.Equal(t, 1, d.Body) // what is due has had its turn
		require.NoError(t, d.Nack(ctx))
		elapse(message.MinWait - 10*time.Microsecond)
		h.publish(from(10, 110)...)
		require.NoError(t, next(t, r).Ack(ctx))
		n := len(r.ds)
		require.Greater(t, n, 1)
		elapse(10 * time.Microsecond)
		require.Equal(t, 1, h.q.Store.Due())
		var got []int
		for range n + 1 {
			d := next(t, r)
			got = append(got, d.Body)
			require.NoError(t, d.Ack(ctx))
		}
		require.Equal(t, append([]int{1}, from(11, 11+n)...), got, "and what waited is behind it")
		r.Leave()
		h.end(t)
	})
}

// A closed queue has let go of its leases when the last loop has left.
func TestTheLastLoopOverAClosedQueueLetsGoOfItsLeases(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome[int](t)
		r := New(h.q, h.q.Visibility())
		quicken(t, h, r)
		h.publish(from(0, 200)...)
		ds, err := delivery.TakeBatch(ctx, h.q, 100, time.Minute)
		require.NoError(t, err)
		require.Empty(t, delivery.AckAll(ctx, h.q, ds))
		require.NoError(t, next(t, r).Ack(ctx))
		require.NoError(t, lifecycle.Close(h.q))
		r.Leave()
		h.q.Locked(func() { require.Nil(t, h.q.Store.Leases) })
		h.Release()
		<-h.Live.Awaitable()
	})
}
