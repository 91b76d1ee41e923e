package workers

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/alarm"
	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/intercept"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/settings"
	"github.com/gofanout/fanout/internal/view"
)

func TestABatchIsWhatIsThereUpToItsSize(t *testing.T) {
	for _, size := range []int{1, 2, 10, 64, 65, 300} {
		for _, n := range []int{1, 9, 10, 64, 130, 400} {
			for _, key := range []string{"", "a"} {
				bubble(t, func(t *testing.T, ctx context.Context) {
					h := newHome[int](t)
					var got [][]int
					h.subscribeBatch(t, func(_ context.Context, ds []delivery.Delivery[int]) error {
						got = append(got, bodiesOf(ds))
						require.Equal(t, len(ds), view.StatsOf(h.q).InFlight)
						return nil
					}, batchesOf(size))
					is := make([]message.Item[int], n)
					for k := range is {
						is[k].Body = k
					}
					is[n/2].Ext = &message.Extra{Key: key}
					h.items(is...)
					synctest.Wait()
					require.Equal(t, slices.Collect(slices.Chunk(from(0, n), size)), got)
					require.EqualValues(t, n, view.StatsOf(h.q).Acked)
					require.Zero(t, view.StatsOf(h.q).Workers)
					h.end(t)
				})
			}
		}
	}
}

// What a batch handler says is about all that it has not settled itself.
func TestABatchHandlerSettlesAPartOfItsBatch(t *testing.T) {
	settles := func(t *testing.T, ctx context.Context, ds []delivery.Delivery[int]) {
		require.NoError(t, ds[1].Ack(ctx))
		require.NoError(t, ds[3].Settle(ctx, message.RetryAfter(errBusy, time.Minute)))
		require.NoError(t, ds[5].Settle(ctx, message.Permanent(errBusy)))
	}
	for name, row := range map[string]struct {
		ends func() error
		want []string // of the batches after the first
		late int
	}{
		"nil":      {func() error { return nil }, []string{"1m0s: [3]"}, 0},
		"an error": {func() error { return errBusy }, []string{"1s: [0 2 4 6 7 8 9]", "1m0s: [3]"}, 0},
		"a panic":  {func() error { panic("boom") }, []string{"1s: [0 2 4 6 7 8 9]", "1m0s: [3]"}, 0},
		"Goexit":   {func() error { runtime.Goexit(); return nil }, []string{"1s: [0 2 4 6 7 8 9]", "1m0s: [3]"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				late := 0
				h := newHome[int](t, backoff(time.Second), visible(time.Hour), hooked(notice.Late, func(notice.Event) { late++ }))
				y := newDiary()
				h.subscribeBatch(t, func(ctx context.Context, ds []delivery.Delivery[int]) error {
					y.note("%v", bodiesOf(ds))
					if ds[0].Attempt() > 1 {
						return nil
					}
					settles(t, ctx, ds)
					return row.ends()
				}, batchesOf(10))
				h.publish(from(0, 10)...)
				elapse(time.Hour)
				require.Equal(t, append([]string{"0s: [0 1 2 3 4 5 6 7 8 9]"}, row.want...), y.read())
				s := view.StatsOf(h.q)
				require.Equal(t, []uint64{9, 1, 1}, []uint64{s.Acked, s.DeadLettered, s.PermanentlyFailed})
				require.Equal(t, row.late, late, "what it has settled itself is not late")
				h.end(t)
			})
		})
	}
}

// What is left of it, and in which order, does not matter.
func TestTheSliceOfABatchIsTheHandlersToChange(t *testing.T) {
	for _, size := range []int{1, 2, 9, 64, 65, 200} {
		for _, ordering := range []bool{false, true} { // such messages are entries from the start
			bubble(t, func(t *testing.T, ctx context.Context) {
				const n = 500
				h := newHome[int](t, backoff(time.Second))
				runs := 0
				h.subscribeBatch(t, func(ctx context.Context, ds []delivery.Delivery[int]) error {
					switch {
					case ds[0].Attempt() > 1:
						return nil
					case runs%3 == 1: // what is left of it must not matter
						ds = slices.DeleteFunc(ds, func(d delivery.Delivery[int]) bool { return d.Body%2 == 0 })
						_ = append(ds, ds...)
						clear(ds)
					case runs%3 == 2:
						slices.Reverse(ds)
						_ = ds[0].Deadline() // makes them entries
						clear(ds[:cap(ds)])
					}
					if runs++; runs%2 == 0 {
						return errBusy
					}
					return nil
				}, batchesOf(size))
				is := make([]message.Item[int], n)
				for k := range is {
					is[k].Body = k
					if ordering {
						is[k].Ext = &message.Extra{Key: fmt.Sprint(k)}
					}
				}
				h.items(is...)
				elapse(time.Hour)
				s := view.StatsOf(h.q)
				require.EqualValues(t, n, s.Acked)
				require.Zero(t, s.TimedOut, "a message that the handler took from its slice was forgotten")
				h.end(t)
			})
		}
	}
}

func TestABatchTimesOutAtTheExactInstant(t *testing.T) {
	for size, vis := range map[int]time.Duration{1: time.Second, 10: 100 * time.Microsecond, 64: time.Second, 100: alarm.CheckAge} {
		bubble(t, func(t *testing.T, ctx context.Context) {
			h := newHome[int](t, visible(vis))
			y := newDiary()
			h.subscribeBatch(t, func(ctx context.Context, ds []delivery.Delivery[int]) error {
				y.note("%d of attempt %d", len(ds), ds[0].Attempt())
				if ds[0].Attempt() > 1 {
					return nil
				}
				require.NoError(t, h.q.Check())
				require.Equal(t, time.Now().Add(vis), ds[len(ds)-1].Deadline())
				<-ctx.Done()
				require.ErrorIs(t, context.Cause(ctx), message.ErrStale)
				require.ErrorIs(t, ds[0].Ack(ctx), message.ErrStale)
				y.note("over")
				return nil
			}, batchesOf(size))
			h.publish(from(0, size)...)
			elapse(time.Minute)
			lines := y.read()
			require.Len(t, lines, 3)
			require.ElementsMatch(t, []string{fmt.Sprint(vis, ": over"), lines[0], lines[2]}, lines)
			require.Contains(t, lines[2], fmt.Sprint(vis, ": "))
			require.Contains(t, lines[2], "of attempt 2")
			require.EqualValues(t, size, view.StatsOf(h.q).TimedOut)
			require.EqualValues(t, size, view.StatsOf(h.q).Acked)
			h.end(t)
		})
	}
}

// What has expired is left out of a batch, and dies while its worker still counts.
func TestABatchLeavesOutWhatHasExpired(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		died := 0
		h := newHome[int](t, limitsTTL(time.Second), hooked(notice.DeadLettered, func(notice.Event) { died++ }))
		var got []int
		h.subscribeBatch(t, func(_ context.Context, ds []delivery.Delivery[int]) error {
			got = append(got, bodiesOf(ds)...)
			if ds[0].Body == 0 {
				time.Sleep(time.Second)
			}
			return nil
		}, batchesOf(10))
		h.publish(from(0, 25)...)
		synctest.Wait()
		time.Sleep(time.Millisecond)
		h.publish(25, 26)
		elapse(time.Minute)
		require.Equal(t, append(from(0, 10), 25, 26), got)
		require.Equal(t, 15, died)
		require.EqualValues(t, 15, view.StatsOf(h.q).Expired)
		h.end(t)
	})
	bubble(t, func(t *testing.T, ctx context.Context) { // nothing is left of it
		h := newHome[int](t, limitsTTL(time.Second))
		h.subscribeBatch(t, func(_ context.Context, ds []delivery.Delivery[int]) error {
			time.Sleep(2 * time.Second)
			return nil
		}, batchesOf(1), every(time.Second))
		h.publish(from(0, 5)...)
		elapse(time.Hour)
		require.EqualValues(t, 4, view.StatsOf(h.q).Expired)
		require.Zero(t, view.StatsOf(h.q).Workers)
		h.end(t)
	})
}

// The slice is used again when the handler has returned, and keeps nothing in memory once
// the worker rests.
func TestABatchHandlersSliceIsItsUntilItReturns(t *testing.T) {
	for name, ends := range map[string]error{"acknowledged": nil, "failed": errBusy} {
		for _, size := range []int{1, 10, 100} {
			t.Run(fmt.Sprint(name, " ", size), func(t *testing.T) {
				bubble(t, func(t *testing.T, ctx context.Context) {
					h := newHome[int](t, backoff(time.Second), limits(func(q *settings.Limits) { q.MaxAttempts = 2 }))
					var arrays []*delivery.Delivery[int]
					h.subscribeBatch(t, func(_ context.Context, ds []delivery.Delivery[int]) error {
						require.Len(t, ds, size)
						require.Equal(t, size, cap(ds), "what it appends is not kept")
						if ds[0].Attempt() == 1 { // before it rests, and another buffer may be its
							arrays = append(arrays, &ds[0])
						}
						clear(ds)
						return ends
					}, batchesOf(size))
					h.publish(from(0, 3*size)...)
					elapse(time.Minute)
					stats := view.StatsOf(h.q)
					if ends == nil {
						require.EqualValues(t, 3*size, stats.Acked)
					} else {
						require.EqualValues(t, 3*size, stats.DeadLettered)
					}
					for _, a := range arrays[1:] {
						require.Same(t, arrays[0], a)
					}
					require.Zero(t, *arrays[0])
					h.end(t)
				})
			})
		}
	}
}

// An interceptor that returns while the handler still runs leaves it its slice.
func TestABatchHandlerThatRunsOnKeepsItsSlice(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		over := make(chan struct{})
		running := 0
		early := func(ctx context.Context, _ intercept.Info, next func(context.Context) error) error {
			if running++; running > 1 {
				return next(ctx)
			}
			go func() { _ = next(ctx) }()
			time.Sleep(time.Microsecond)
			return nil
		}
		h := newHome[int](t)
		var kept []int
		h.subscribeBatch(t, func(_ context.Context, ds []delivery.Delivery[int]) error {
			if ds[0].Body == 0 {
				<-over
				kept = bodiesOf(ds)
			}
			return nil
		}, batchesOf(10), around(early))
		h.publish(from(0, 30)...)
		elapse(time.Second)
		require.EqualValues(t, 30, view.StatsOf(h.q).Acked)
		close(over)
		synctest.Wait()
		require.Equal(t, from(0, 10), kept)
		h.end(t)
	})
}

func TestABatchOfDeadLetters(t *testing.T) {
	for name, ends := range map[string]error{"nil": nil, "an error": errBusy} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				h := newHome[int](t, backoff(time.Second))
				h.publish(from(0, 25)...)
				for range 25 {
					require.NoError(t, receive(t, h.q).Settle(ctx, message.Permanent(errBusy)))
				}
				y := newDiary()
				d := h.q.DeadLetters()
				start(t, d, nil, func(_ context.Context, ds []delivery.Delivery[int]) error {
					y.note("%d", len(ds))
					if ds[0].Attempt() > 1 {
						return nil
					}
					return ends
				}, batchesOf(10))
				elapse(time.Minute)
				want := []string{"0s: 10", "0s: 10", "0s: 5"}
				if ends != nil {
					want = append(want, "1s: 10", "1s: 10", "1s: 5")
				}
				require.Equal(t, want, y.read())
				require.EqualValues(t, 25, view.StatsOf(d).Acked)
				require.NoError(t, d.Check())
				h.end(t)
			})
		})
	}
}

// What has become due comes in leases, beside what stands in the log.
func TestABatchOfWhatTimedOutAndOfWhatIsNew(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome[int](t, visible(time.Second))
		h.publish(from(0, 100)...)
		ds := make([]delivery.Delivery[int], 100)
		n, err := delivery.TakeInto(ctx, h.q, ds, time.Second)
		require.NoError(t, err)
		require.Equal(t, 100, n)
		elapse(time.Second)
		h.publish(from(100, 200)...)
		attempts := map[int]int{}
		most := 0
		h.subscribeBatch(t, func(_ context.Context, ds []delivery.Delivery[int]) error {
			most = max(most, len(ds))
			for _, d := range ds {
				attempts[d.Body] = d.Attempt()
			}
			return nil
		}, batchesOf(150))
		synctest.Wait()
		require.Equal(t, 150, most)
		require.Len(t, attempts, 200)
		for k, attempt := range attempts {
			require.Equal(t, map[bool]int{true: 2, false: 1}[k < 100], attempt, k)
		}
		require.EqualValues(t, 200, view.StatsOf(h.q).Acked)
		h.end(t)
	})
}
