package workers

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/intercept"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/view"
)

func TestARateLimitSpacesDeliveriesExactly(t *testing.T) {
	for name, row := range map[string]struct {
		settings []setting
		batch    bool
		took     time.Duration
		want     []string
		keys     bool // each message has an ordering key, so that it is taken by itself
	}{
		"one worker":           {nil, false, 0, []string{"0s: [0]", "1s: [1]", "2s: [2]", "3s: [3]", "4s: [4]"}, false},
		"slow handlers":        {nil, false, 1500 * time.Millisecond, []string{"0s: [0]", "1.5s: [1]", "3s: [2]", "4.5s: [3]", "6s: [4]"}, false},
		"three workers":        {[]setting{concurrency(3)}, false, 0, []string{"0s: [0]", "1s: [1]", "2s: [2]", "3s: [3]", "4s: [4]"}, false},
		"three slow workers":   {[]setting{concurrency(3)}, false, 2500 * time.Millisecond, []string{"0s: [0]", "1s: [1]", "2s: [2]", "3s: [3]", "4s: [4]"}, false},
		"with keys":            {nil, false, 0, []string{"0s: [0]", "1s: [1]", "2s: [2]", "3s: [3]", "4s: [4]"}, true},
		"batches of two, keys": {[]setting{batchesOf(2)}, true, 0, []string{"0s: [0 1]", "2s: [2 3]", "4s: [4]"}, true},
		"batches of two":       {[]setting{batchesOf(2)}, true, 0, []string{"0s: [0 1]", "2s: [2 3]", "4s: [4]"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				h := newHome[int](t)
				y := newDiary()
				handle := func(ds ...delivery.Delivery[int]) error {
					y.note("%v", bodiesOf(ds))
					time.Sleep(row.took)
					return nil
				}
				if row.batch {
					h.subscribeBatch(t, func(_ context.Context, ds []delivery.Delivery[int]) error { return handle(ds...) }, append(row.settings, every(time.Second))...)
				} else {
					h.subscribe(t, func(_ context.Context, d delivery.Delivery[int]) error { return handle(d) }, append(row.settings, every(time.Second))...)
				}
				is := make([]message.Item[int], 5)
				for k := range is {
					is[k].Body = k
					if row.keys {
						is[k].Ext = &message.Extra{Key: fmt.Sprint(k)}
					}
				}
				h.items(is...)
				elapse(time.Minute)
				require.Equal(t, row.want, y.read())
				h.publish(from(5, 6)...)
				synctest.Wait()
				require.Equal(t, []string{"1m0s: [5]"}, y.read(), "what was not used is not saved up, and not owed")
				elapse(time.Minute)
				h.end(t)
			})
		})
	}
}

// Nor does the next message of a lease begin too early: what waits is given back until then.
func TestARateLimitSpacesTheMessagesOfALease(t *testing.T) {
	const limit = 10 * time.Microsecond
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome[int](t)
		var s *Subscriber[int]
		var began []time.Time
		most := 0
		s = h.subscribe(t, func(_ context.Context, d delivery.Delivery[int]) error {
			require.Equal(t, len(began), d.Body)
			began = append(began, time.Now())
			most = max(most, len(busy(s).ds))
			if d.Body < 12 || d.Body > 20 {
				time.Sleep(limit)
			}
			return nil
		}, every(limit))
		h.publish(from(0, 40)...)
		elapse(time.Second)
		require.Len(t, began, 40)
		require.Greater(t, most, 1)
		for k := range began[1:] {
			require.Equal(t, limit, began[k+1].Sub(began[k]), "message %d", k+1)
		}
		h.end(t)
	})
}

// What waits for a subscriber's rate limit is there for another one.
func TestARateLimitKeepsNothingFromOthers(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome[int](t)
		y := newDiary()
		h.subscribe(t, func(_ context.Context, d delivery.Delivery[int]) error { y.note("limited: %d", d.Body); return nil }, every(time.Second))
		h.publish(from(0, 4)...)
		synctest.Wait()
		require.Equal(t, 1, receive(t, h.q).Body)
		elapse(time.Second)
		require.Equal(t, 3, receive(t, h.q).Body)
		require.Equal(t, []string{"0s: limited: 0", "1s: limited: 2"}, y.read())
		h.end(t)
	})
}

// A handler timeout cancels the context at the exact instant, for each message by itself, and
// is no visibility timeout: the handler still settles its message.
func TestAHandlerTimeoutPassesAtTheExactInstant(t *testing.T) {
	for _, batch := range []bool{false, true} {
		for _, hooks := range []bool{false, true} {
			bubble(t, func(t *testing.T, ctx context.Context) {
				ss := []setting{visible(time.Hour), backoff(time.Hour)}
				if hooks {
					ss = append(ss, hooked(notice.Delivered, func(notice.Event) {}))
				}
				h := newHome[int](t, ss...)
				y := newDiary()
				handle := func(ctx context.Context, d delivery.Delivery[int]) error {
					if _, ok := ctx.Deadline(); ok {
						y.note("a deadline")
					}
					if d.Body%10 != 9 { // quick: 100 ms, less than the timeout
						time.Sleep(100 * time.Millisecond)
						return ctx.Err()
					}
					<-ctx.Done()
					y.note("%d", d.Body)
					require.ErrorIs(t, context.Cause(ctx), context.DeadlineExceeded)
					require.ErrorContains(t, context.Cause(ctx), `queue "q": the handler timeout of 1s has passed`)
					return nil
				}
				if batch {
					h.subscribeBatch(t, func(ctx context.Context, ds []delivery.Delivery[int]) error { return handle(ctx, ds[0]) }, batchesOf(1), handlerTimeout(time.Second))
				} else {
					h.subscribe(t, handle, handlerTimeout(time.Second))
				}
				h.publish(from(0, 30)...)
				elapse(time.Minute)
				require.Equal(t, []string{"1.9s: 9", "3.8s: 19", "5.7s: 29"}, y.read(), "batch %v, hooks %v", batch, hooks)
				require.EqualValues(t, 30, view.StatsOf(h.q).Acked)
				h.end(t)
			})
		}
	}
}

// A worker that rests has no timer, and one that begins again has the whole time.
func TestAHandlerTimeoutEndsWithItsHandler(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome[int](t)
		var s *Subscriber[int]
		var w *Worker[int]
		var errs []error
		s = h.subscribe(t, func(ctx context.Context, d delivery.Delivery[int]) error {
			w = busy(s)
			time.Sleep(time.Second - 1)
			errs = append(errs, ctx.Err())
			return nil
		}, handlerTimeout(time.Second))
		for k := range 3 {
			h.publish(k)
			elapse(time.Second - 1)
			require.Nil(t, w.timed.timer)
			require.False(t, w.timed.armed.Load())
			elapse(time.Minute)
		}
		require.Equal(t, []error{nil, nil, nil}, errs)
		h.end(t)
	})
}

// Hooks hear of each delivery and of its end, in order, when it happened.
func TestHooksHearOfEachDeliveryAndItsEnd(t *testing.T) {
	for _, batch := range []bool{false, true} {
		for _, both := range []bool{false, true} {
			bubble(t, func(t *testing.T, ctx context.Context) {
				y := newDiary()
				var seq uint64
				note := func(what string) func(e notice.Event) {
					return func(e notice.Event) {
						require.Greater(t, e.Seq, seq)
						require.NotEmpty(t, e.MessageID)
						require.Equal(t, []string{"payments", "q"}, []string{e.Topic, e.Queue})
						require.Equal(t, 1, e.Count)
						seq = e.Seq
						y.note("%s, attempt %d, %v after %v, at %v", what, e.Attempt, e.Cause, e.Elapsed, e.Time.Sub(y.began))
					}
				}
				ss := []setting{backoff(time.Minute), hooked(notice.Settled, note("settled"))}
				if both {
					ss = append(ss, hooked(notice.Delivered, note("delivered")))
				}
				h := newHome[int](t, ss...)
				handle := func(ctx context.Context, d delivery.Delivery[int]) error {
					time.Sleep(time.Second)
					if d.Body == 1 && d.Attempt() == 1 {
						return errBusy
					}
					return nil
				}
				if batch {
					h.subscribeBatch(t, func(ctx context.Context, ds []delivery.Delivery[int]) error { return handle(ctx, ds[0]) }, batchesOf(1))
				} else {
					h.subscribe(t, handle)
				}
				h.publish(0, 1, 2)
				elapse(time.Hour)
				want := []string{
					"0s: delivered, attempt 1, none after 0s, at 0s", "1s: settled, attempt 1, acked after 1s, at 1s",
					"1s: delivered, attempt 1, none after 0s, at 1s", "2s: settled, attempt 1, failed after 1s, at 2s",
					"2s: delivered, attempt 1, none after 0s, at 2s", "3s: settled, attempt 1, acked after 1s, at 3s",
					"1m2s: delivered, attempt 2, none after 0s, at 1m2s", "1m3s: settled, attempt 2, acked after 1s, at 1m3s",
				}
				if !both {
					want = []string{want[1], want[3], want[5], want[7]}
				}
				require.Equal(t, want, y.read(), "batch %v", batch)
				h.end(t)
			})
		}
	}
}

// Interceptors stand around each run, see what it is about, and may leave the handler out.
func TestInterceptorsStandAroundEachRun(t *testing.T) {
	for _, batch := range []bool{false, true} {
		bubble(t, func(t *testing.T, ctx context.Context) {
			h := newHome[int](t, backoff(time.Minute))
			y := newDiary()
			outer := func(ctx context.Context, info intercept.Info, next func(context.Context) error) error {
				y.note("%v %s/%s: %d of attempt %d", info.Operation == intercept.OpHandle, info.Topic, info.Queue, info.Messages, info.Attempt)
				require.NotEmpty(t, info.MessageID)
				return next(ctx)
			}
			inner := func(ctx context.Context, info intercept.Info, next func(context.Context) error) error {
				switch info.About.Body(0).(int) {
				case 1:
					if info.Attempt == 1 {
						return message.RetryAfter(errBusy, time.Second)
					}
				case 2:
					go func() { // too late: the run is over
						time.Sleep(time.Hour)
						_ = next(ctx)
					}()
					return nil
				}
				return next(ctx)
			}
			handle := func(d delivery.Delivery[int]) error { y.note("%d", d.Body); return nil }
			around := around(outer, inner)
			if batch {
				h.subscribeBatch(t, func(_ context.Context, ds []delivery.Delivery[int]) error { return handle(ds[0]) }, batchesOf(1), around)
			} else {
				h.subscribe(t, func(_ context.Context, d delivery.Delivery[int]) error { return handle(d) }, around)
			}
			h.publish(from(0, 4)...)
			elapse(time.Minute)
			require.Equal(t, []string{
				"0s: true payments/q: 1 of attempt 1", "0s: 0", "0s: true payments/q: 1 of attempt 1", "0s: true payments/q: 1 of attempt 1",
				"0s: true payments/q: 1 of attempt 1", "0s: 3", "1s: true payments/q: 1 of attempt 2", "1s: 1",
			}, y.read())
			require.EqualValues(t, 4, view.StatsOf(h.q).Acked)
			elapse(time.Hour)
			require.Equal(t, []string{"1h0m0s: 2"}, y.read())
			h.end(t)
		})
	}
}
