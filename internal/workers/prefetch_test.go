package workers

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/alarm"
	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/ranges"
	"github.com/gofanout/fanout/internal/view"
)

// busy is the first of the subscriber's workers whose handler runs.
func busy[T any](s *Subscriber[T]) *Worker[T] { return s.Busy[0].(*Worker[T]) }

// leases handles n messages, each for so long, and returns how many each lease had.
func leases(t *testing.T, n int, each time.Duration) (lens []int) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome[int](t)
		var s *Subscriber[int]
		first := 0
		s = h.subscribe(t, func(_ context.Context, d delivery.Delivery[int]) error {
			if k := len(busy(s).ds); d.Body == first {
				lens, first = append(lens, k), first+k
			}
			time.Sleep(each)
			return nil
		})
		h.publish(from(0, n)...)
		elapse(time.Duration(n) * each)
		require.EqualValues(t, n, view.StatsOf(h.q).Acked)
		h.end(t)
	})
	return lens
}

func TestAWorkerPrefetchesMoreAsLongAsItsHandlerIsQuick(t *testing.T) {
	// It takes twice as many each time, or a quarter. Segments of the log end at 8, 40, 168 and
	// 424, and leases with them.
	require.Equal(t, []int{1, 2, 4, 1, 16, 16, 64, 64, 64, 64, 64, 64, 2}, leases(t, 426, 0))
	require.Equal(t, []int{1, 2, 4, 1, 16, 4, 8, 2, 2, 8, 2, 4}, leases(t, 54, 10*time.Microsecond), "eight take longer than what is prefetched should last")
	require.Equal(t, []int{1, 1, 1, 1, 1}, leases(t, 5, time.Millisecond))
}

// A worker leaves something for the other consumers that there are.
func TestAWorkerPrefetchesLessIfThereAreOthers(t *testing.T) {
	for name, others := range map[string]func(t *testing.T, h *home[int]){
		"workers": func(t *testing.T, h *home[int]) {
			h.subscribe(t, func(context.Context, delivery.Delivery[int]) error { time.Sleep(time.Hour); return nil })
			h.publish(-1)
			synctest.Wait()
		},
		"a range": func(t *testing.T, h *home[int]) {
			h.publish(-1)
			_, err := ranges.New(h.q, h.q.Visibility()).Next(t.Context())
			require.NoError(t, err)
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				h := newHome[int](t)
				others(t, h)
				most, got := 0, 0
				var s *Subscriber[int]
				s = h.subscribe(t, func(_ context.Context, d delivery.Delivery[int]) error {
					if d.Body < 0 {
						return nil
					}
					most = max(most, len(busy(s).ds))
					got++
					return nil
				})
				h.publish(from(0, 40)...)
				synctest.Wait()
				require.Equal(t, 40, got)
				require.LessOrEqual(t, most, 40/(2*2), "of 40 at most, for two")
				require.Greater(t, most, 1)
				elapse(time.Hour)
				h.end(t)
			})
		})
	}
}

// What waits behind a slow handler is for whoever has nothing else to do, at once, and for
// all when the timer has looked at the lease: after CheckAge.
func TestWhatWaitsBehindASlowHandlerIsTakenBack(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome[int](t)
		h.subscribe(t, func(_ context.Context, d delivery.Delivery[int]) error {
			if d.Body == 20 {
				time.Sleep(time.Second)
			}
			return nil
		})
		h.publish(from(0, 60)...) // a lease is 16 to 31
		synctest.Wait()
		require.Equal(t, from(21, 60), waiting(t, h.q))
		h.end(t)
	})
	for _, wait := range []time.Duration{alarm.CheckAge - 1, alarm.CheckAge} {
		bubble(t, func(t *testing.T, ctx context.Context) {
			h := newHome[int](t)
			h.subscribe(t, func(_ context.Context, d delivery.Delivery[int]) error {
				if d.Body == 20 {
					time.Sleep(time.Second)
				}
				return nil
			})
			h.publish(from(0, 60)...)
			synctest.Wait()
			newer := receive(t, h.q)
			require.Greater(t, newer.Body, 21, "of the log")
			elapse(wait)
			if wait == alarm.CheckAge {
				require.Equal(t, 21, receive(t, h.q).Body)
			} else {
				require.Equal(t, newer.Body+1, receive(t, h.q).Body)
			}
			elapse(time.Second)
			h.end(t)
		})
	}
}

// The log may be empty, and all that is ready wait in a lease. A batch that
// would have room left takes what waits there first: it was published earlier.
func TestAnIdleWorkerTakesWhatWaitsInTheLeaseOfAnother(t *testing.T) {
	for _, batch := range []bool{false, true} {
		bubble(t, func(t *testing.T, ctx context.Context) {
			h := newHome[int](t)
			y := newDiary()
			slow := func(_ context.Context, d delivery.Delivery[int]) error {
				if d.Body == 20 {
					time.Sleep(time.Second)
				}
				return nil
			}
			h.subscribe(t, slow)
			n := 24 // where a lease ends
			if batch {
				n = 30
			}
			h.publish(from(0, n)...)
			synctest.Wait()
			if batch {
				h.subscribeBatch(t, func(_ context.Context, ds []delivery.Delivery[int]) error { y.note("%v", bodiesOf(ds)); return nil }, batchesOf(10))
			} else {
				h.subscribe(t, func(_ context.Context, d delivery.Delivery[int]) error { y.note("%d", d.Body); return nil })
			}
			elapse(2 * time.Second)
			want := []string{"0s: [21 22 23 24 25 26 27 28 29]"}
			if !batch {
				want = []string{"0s: 21", "0s: 22", "0s: 23"}
			}
			require.Equal(t, want, y.read())
			require.EqualValues(t, n, view.StatsOf(h.q).Acked)
			h.end(t)
		})
	}
}

// The first message of a lease times out at the exact instant, another a millisecond late at
// most, and never early.
func TestAPrefetchedMessageTimesOutInTime(t *testing.T) {
	for at := 16; at <= 24; at++ {
		bubble(t, func(t *testing.T, ctx context.Context) {
			h := newHome[int](t, visible(time.Second))
			var took time.Duration
			var again []int
			h.subscribe(t, func(ctx context.Context, d delivery.Delivery[int]) error {
				if d.Body != at {
					return nil
				}
				if again = append(again, d.Attempt()); d.Attempt() == 1 {
					began := time.Now()
					<-ctx.Done()
					took = time.Since(began)
				}
				return nil
			})
			h.publish(from(0, 60)...)
			elapse(time.Minute)
			require.GreaterOrEqual(t, took, time.Second)
			require.LessOrEqual(t, took, time.Second+alarm.CheckAge)
			require.Equal(t, []int{1, 2}, again)
			require.EqualValues(t, 60, view.StatsOf(h.q).Acked)
			h.end(t)
		})
	}
}

// A message with an ordering key, or one that may expire before the timer looks, is taken by
// itself; what has expired is not handled.
func TestWhatCannotBePrefetchedIsTakenByItself(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome[int](t)
		var s *Subscriber[int]
		alone := map[int]bool{}
		s = h.subscribe(t, func(_ context.Context, d delivery.Delivery[int]) error {
			if !busy(s).stepping {
				alone[d.Body] = true
			}
			return nil
		})
		is := make([]message.Item[int], 30)
		for k := range is {
			is[k].Body = k
		}
		is[10].Ext, is[20].Ext = &message.Extra{Key: "a"}, &message.Extra{Key: "a"}
		h.items(is...)
		synctest.Wait()
		require.Equal(t, map[int]bool{10: true, 20: true}, alone)
		require.EqualValues(t, 30, view.StatsOf(h.q).Acked)
		h.end(t)
	})
	bubble(t, func(t *testing.T, ctx context.Context) {
		const ttl = 10 * time.Millisecond
		h := newHome[int](t, limitsTTL(ttl))
		var s *Subscriber[int]
		var got []int
		alone := 0
		s = h.subscribe(t, func(_ context.Context, d delivery.Delivery[int]) error {
			if !busy(s).stepping {
				alone++
			}
			got = append(got, d.Body)
			if d.Body == 3 {
				elapse := ttl - alarm.CheckAge
				time.Sleep(elapse)
			}
			if d.Body == 5 {
				time.Sleep(alarm.CheckAge)
			}
			return nil
		})
		h.publish(from(0, 8)...)
		elapse(time.Second)
		require.Equal(t, from(0, 6), got)
		require.Positive(t, alone)
		require.EqualValues(t, 2, view.StatsOf(h.q).Expired)
		h.end(t)
	})
}

// A handler's error is about its own message, whichever of a lease it is.
func TestAFailureInTheMiddleOfALeaseIsOfItsMessage(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome[int](t, backoff(time.Minute))
		y := newDiary()
		h.subscribe(t, func(_ context.Context, d delivery.Delivery[int]) error {
			if d.Attempt() > 1 {
				y.note("%d", d.Body)
				return nil
			}
			if d.Body%7 == 3 {
				return message.RetryAfter(errBusy, time.Duration(d.Body)*time.Second)
			}
			return nil
		})
		h.publish(from(0, 40)...)
		elapse(time.Hour)
		require.Equal(t, []string{"3s: 3", "10s: 10", "17s: 17", "24s: 24", "31s: 31", "38s: 38"}, y.read())
		require.EqualValues(t, 40, view.StatsOf(h.q).Acked)
		h.end(t)
	})
}
