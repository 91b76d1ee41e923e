package workers

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/alarm"
	"github.com/gofanout/fanout/internal/consumers"
	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/settings"
	"github.com/gofanout/fanout/internal/view"
)

// Only who needs the clock, or tells of each message, reads it for each.
func TestWhoseWorkersAreTimed(t *testing.T) {
	none := func(notice.Event) {}
	for name, row := range map[string]struct {
		ss    []setting
		timed bool
	}{
		"a plain one":       {nil, false},
		"other hooks":       {[]setting{hooked(notice.DeadLettered, none), hooked(notice.Late, none)}, false},
		"a hook, delivered": {[]setting{hooked(notice.Delivered, none)}, true},
		"a hook, settled":   {[]setting{hooked(notice.Settled, none)}, true},
		"a rate limit":      {[]setting{every(1)}, true},
		"a time limit":      {[]setting{handlerTimeout(1)}, true},
	} {
		bubble(t, func(t *testing.T, ctx context.Context) {
			h := newHome[int](t, row.ss...)
			s := h.subscribe(t, func(context.Context, delivery.Delivery[int]) error { return nil }, row.ss...)
			require.Equal(t, row.timed, s.timed, name)
			h.end(t)
		})
	}
}

// Hooks hear of each message of a lease, between the handlers, in order, and how long it took.
func TestHooksHearOfEachMessageOfALease(t *testing.T) {
	for _, kinds := range [][]notice.Kind{{notice.Settled}, {notice.Delivered}, {notice.Settled, notice.Delivered}} {
		for _, fails := range []bool{false, true} {
			bubble(t, func(t *testing.T, ctx context.Context) {
				const n, took = 200, time.Microsecond
				var got, want []string
				seq := uint64(0)
				ids := map[string]int{}
				note := func(what string) func(e notice.Event) {
					return func(e notice.Event) {
						require.Greater(t, e.Seq, seq)
						seq = e.Seq
						require.Equal(t, []any{1, 1, time.Duration(0)}, []any{e.Attempt, e.Count, time.Until(e.Time)})
						if what == "settled" {
							require.Equal(t, took, e.Elapsed)
							what := fmt.Sprint(what, " ", ids[e.MessageID], " ", e.Cause)
							got = append(got, what)
							return
						}
						require.Zero(t, e.Elapsed)
						got = append(got, fmt.Sprint(what, " ", len(ids)))
						require.NotContains(t, ids, e.MessageID)
					}
				}
				ss := []setting{backoff(time.Hour)}
				delivered, settled := false, false
				for _, k := range kinds {
					if k == notice.Settled {
						settled = true
						ss = append(ss, hooked(k, note("settled")))
					} else {
						delivered = true
						ss = append(ss, hooked(k, note("delivered")))
					}
				}
				h := newHome[int](t, ss...)
				var s *Subscriber[int]
				most := 0
				s = h.subscribe(t, func(_ context.Context, d delivery.Delivery[int]) error {
					most = max(most, len(busy(s).ds))
					ids[d.ID()] = d.Body
					got = append(got, fmt.Sprint("handled ", d.Body))
					time.Sleep(took)
					switch {
					case fails && d.Body%40 == 10:
						return errBusy
					case fails && d.Body%40 == 30:
						panic("boom")
					}
					return nil
				})
				h.publish(from(0, n)...)
				elapse(time.Second)
				for k := range n {
					if delivered {
						want = append(want, fmt.Sprint("delivered ", k))
					}
					want = append(want, fmt.Sprint("handled ", k))
					switch {
					case settled && fails && k%40 == 10:
						want = append(want, fmt.Sprintf("settled %d failed", k))
					case settled && fails && k%40 == 30:
						want = append(want, fmt.Sprintf("settled %d panicked", k))
					case settled:
						want = append(want, fmt.Sprintf("settled %d acked", k))
					}
				}
				require.Equal(t, want, got)
				require.Greater(t, most, 4)
				require.NoError(t, h.q.Check())
				h.end(t)
			})
		}
	}
}

// Each message of a lease has the handler's whole time, to the instant, and a handler without
// a limit has no end.
func TestAHandlerTimeoutOfEachMessageOfALease(t *testing.T) {
	none := func(notice.Event) {}
	for name, ss := range map[string][]setting{
		"alone":         {},
		"a rate limit":  {every(1)},
		"settled":       {hooked(notice.Settled, none)},
		"delivered":     {hooked(notice.Delivered, none)},
		"no time limit": {every(1), hooked(notice.Settled, none)},
	} {
		for _, limit := range []time.Duration{100 * time.Microsecond, time.Second} { // within a lease, and longer than one
			bubble(t, func(t *testing.T, ctx context.Context) {
				limited := name != "no time limit"
				if limited {
					ss = append(ss[:len(ss):len(ss)], handlerTimeout(limit))
				}
				h := newHome[int](t, append(ss, visible(time.Hour))...)
				y := newDiary()
				h.subscribe(t, func(ctx context.Context, d delivery.Delivery[int]) error {
					if d.Body%30 < 28 {
						time.Sleep(time.Microsecond)
						return ctx.Err()
					}
					began := time.Now()
					select {
					case <-ctx.Done():
						y.note("%d", d.Body)
						require.Equal(t, limit, time.Since(began))
					case <-time.After(time.Minute):
					}
					return nil
				}, ss...)
				h.publish(from(0, 120)...)
				elapse(time.Hour)
				require.EqualValues(t, 120, view.StatsOf(h.q).Acked)
				if limited {
					require.Len(t, y.read(), 8)
				} else {
					require.Empty(t, y.read())
				}
				h.quietens(t)
				h.end(t)
			})
		}
	}
}

// A timed worker knows when its message began, so that its deadline is exact.
func TestTheDeadlineOfATimedWorkersMessageIsExact(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome[int](t, visible(time.Minute))
		h.subscribe(t, func(_ context.Context, d delivery.Delivery[int]) error {
			began := time.Now()
			time.Sleep(time.Microsecond)
			if d.Body%7 == 6 {
				require.Equal(t, began.Add(time.Minute), d.Deadline())
			}
			return nil
		}, handlerTimeout(time.Hour))
		h.publish(from(0, 100)...)
		elapse(time.Second)
		require.EqualValues(t, 100, view.StatsOf(h.q).Acked)
		h.end(t)
	})
}

// A worker that is slow keeps nothing of what it has done before, once the timer has looked.
func TestASlowWorkerLetsGoOfWhatIsDone(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome[int](t)
		s := h.subscribe(t, func(_ context.Context, d delivery.Delivery[int]) error {
			if d.Body == 20 {
				time.Sleep(time.Second)
			}
			return nil
		})
		h.publish(from(0, 60)...) // a lease is 16 to 31
		elapse(alarm.CheckAge)
		h.q.Locked(func() {
			w := busy(s)
			for _, done := range from(16, 20) {
				require.NotContains(t, bodiesIn(w, w.buffer), done)
			}
		})
		elapse(time.Second)
		h.end(t)
	})
}

// Whatever a batch has, and its handler has returned: what is not settled in time says so.
func TestWhatIsNotSettledInTimeAfterItsHandlerSaysSo(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var once atomic.Bool
		h := newHome[int](t, visible(time.Second), backoff(time.Second), hooked(notice.Settled, func(notice.Event) {
			if !once.Swap(true) { // the first
				time.Sleep(time.Minute)
			}
		}))
		var errs []error
		h.subscribeBatch(t, func(_ context.Context, ds []delivery.Delivery[int]) error {
			for _, d := range ds {
				if hist := d.History(); len(hist) > 0 {
					require.Equal(t, message.TimedOut, hist[0].Cause)
					errs = append(errs, hist[0].Err)
				}
			}
			return nil
		}, batchesOf(2), concurrency(2))
		h.publish(1, 2)
		elapse(time.Hour)
		require.Len(t, errs, 1)
		require.EqualError(t, errs[0], errNotSettled.Error())
		require.Zero(t, view.StatsOf(h.q).Stuck, "its handler had returned")
		h.end(t)
	})
}

// A goroutine of a worker says whose it is; a hook that hears of a stuck one hears which.
func TestAWorkersGoroutineSaysWhoseItIs(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var stacks []notice.Event
		h := newHome[int](t, visible(time.Second), hooked(notice.StuckStack, func(e notice.Event) { stacks = append(stacks, e) }))
		var profile strings.Builder
		s := h.subscribe(t, func(_ context.Context, d delivery.Delivery[int]) error {
			if d.Attempt() == 1 {
				require.NoError(t, pprof.Lookup("goroutine").WriteTo(&profile, 1))
				time.Sleep(1500 * time.Millisecond)
			}
			return nil
		})
		h.publish(1)
		elapse(1200 * time.Millisecond)
		require.Contains(t, profile.String(), fmt.Sprintf(`"queue":"q", "subscriber":%q, "topic":"payments"`, s.Site))
		require.Len(t, stacks, 1)
		require.Equal(t, []any{1, time.Second, s.Site}, []any{stacks[0].Attempt, stacks[0].Elapsed, stacks[0].Subscriber})
		elapse(time.Minute)
		h.end(t)
	})
}

// The goroutines that were started are counted, those included that took the place of one
// that a handler had ended; those that serve are those of subscribers that go on.
func TestTheWorkersThatWereStartedAreCounted(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome[int](t, backoff(time.Hour))
		s := h.subscribe(t, func(_ context.Context, d delivery.Delivery[int]) error {
			if time.Sleep(time.Second); d.Body == 2 {
				runtime.Goexit()
			}
			return nil
		}, concurrency(2))
		serving := func() (n [2]int32) {
			h.q.Locked(func() { n = [2]int32{h.q.Group.Running, h.q.Group.Serving} })
			return n
		}
		h.publish(1, 2)
		synctest.Wait()
		require.Equal(t, [2]int32{2, 2}, serving())
		require.EqualValues(t, 2, view.StatsOf(h.q).WorkersStarted)
		elapse(time.Second)
		require.EqualValues(t, 3, view.StatsOf(h.q).WorkersStarted)
		require.Equal(t, [2]int32{}, serving())
		h.publish(3, 4)
		synctest.Wait()
		require.EqualValues(t, 5, view.StatsOf(h.q).WorkersStarted)
		ended, cancel := context.WithCancel(ctx)
		cancel()
		require.Error(t, s.Shutdown(ended))
		require.Equal(t, [2]int32{2, 0}, serving())
		h.q.Locked(func() { require.Empty(t, s.awaited, "nobody waits any more") })
		elapse(time.Second)
		require.Equal(t, [2]int32{}, serving())
		require.NoError(t, h.q.Check())
		h.end(t)
	})
}

// A queue knows the subscribers that have not ended, whatever the order in which they end.
func TestAQueueKnowsTheSubscribersThatHaveNotEnded(t *testing.T) {
	for _, order := range [][]int{{0, 1, 2}, {1, 2, 0}, {2, 0, 1}, {1, 0, 2}} {
		bubble(t, func(t *testing.T, ctx context.Context) {
			h := newHome[int](t)
			left := map[*consumers.Pool[int]]bool{}
			var subs []*Subscriber[int]
			for range 3 {
				s := h.subscribe(t, func(context.Context, delivery.Delivery[int]) error { return nil })
				subs, left[&s.Pool] = append(subs, s), true
			}
			for _, k := range order {
				require.NoError(t, subs[k].Shutdown(ctx))
				delete(left, &subs[k].Pool)
				h.q.Locked(func() {
					require.Len(t, h.q.Group.Subs, len(left))
					for place, p := range h.q.Group.Subs {
						require.True(t, left[p])
						require.EqualValues(t, place, p.Place)
					}
				})
			}
			h.end(t)
		})
	}
}

// Where leases are renewed on the way, automatic extension does not make them longer.
func TestAutomaticExtensionWhereLeasesAreRenewed(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome[int](t, visible(time.Second))
		h.q.Renews = true
		s := h.subscribe(t, func(context.Context, delivery.Delivery[int]) error { return nil }, sub(func(sub *settings.Subscriber) { sub.AutoExtend = time.Hour }))
		require.Equal(t, time.Second, s.visibility())
		h.q.Renews = false
		require.Equal(t, time.Hour, s.visibility())
		h.end(t)
	})
}

// What a handler says about its end is told as an error that can be looked at.
func TestWhatIsToldLateIsSafeToLookAt(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var told []error
		h := newHome[int](t, hooked(notice.Late, func(e notice.Event) { told = append(told, e.Err) }))
		h.subscribeBatch(t, func(ctx context.Context, ds []delivery.Delivery[int]) error {
			return errors.Join(ds[0].Ack(ctx), message.RetryAfter(errBusy, time.Second))
		})
		h.publish(1)
		synctest.Wait()
		require.Len(t, told, 1)
		require.ErrorIs(t, told[0], errBusy)
		h.end(t)
	})
}
