package workers

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/intercept"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/settings"
	"github.com/gofanout/fanout/internal/view"
)

// kinds are the ways in which a worker takes a message and settles it.
var kinds = map[string]struct {
	settings []setting
	batch    bool
	letters  bool
	alone    bool // the message is taken by itself
}{
	"prefetched":           {},
	"with a time limit":    {settings: []setting{handlerTimeout(time.Hour)}},
	"with a rate limit":    {settings: []setting{every(time.Nanosecond)}},
	"with hooks":           {settings: []setting{hooked(notice.Settled, func(notice.Event) {}), hooked(notice.Delivered, func(notice.Event) {})}},
	"with an interceptor":  {settings: []setting{around(passing)}},
	"with two of them":     {settings: []setting{around(passing, passing)}},
	"with all of these":    {settings: []setting{handlerTimeout(time.Hour), every(time.Nanosecond), hooked(notice.Settled, func(notice.Event) {}), around(passing)}},
	"alone":                {alone: true},
	"alone, timed":         {alone: true, settings: []setting{handlerTimeout(time.Hour)}},
	"a batch":              {batch: true},
	"a batch, timed":       {batch: true, settings: []setting{handlerTimeout(time.Hour)}},
	"a batch, intercepted": {batch: true, settings: []setting{around(passing)}},
	"a letter":             {letters: true},
	"a batch of letters":   {letters: true, batch: true},
}

func passing(ctx context.Context, info intercept.Info, next func(context.Context) error) error {
	return next(ctx)
}

// around puts interceptors around the handlers.
func around(is ...intercept.Interceptor) setting {
	return sub(func(sub *settings.Subscriber) { sub.Interceptors = append(sub.Interceptors, is...) })
}

// What the handler says becomes of the message, however it was taken, and holds up no other.
func TestWhatTheHandlerSaysBecomesOfTheMessage(t *testing.T) {
	const at = 5 // of 10
	for kind, k := range kinds {
		for name, row := range map[string]struct {
			ends  func() error
			again time.Duration // after which the message comes again; 0: never
			tries int           // the number of that attempt
			cause message.Cause // of the attempt before it
			count func(s view.Stats) uint64
		}{
			"nil":              {func() error { return nil }, 0, 0, 0, func(s view.Stats) uint64 { return s.Acked - 9 }},
			"an error":         {func() error { return errBusy }, time.Second, 2, message.Failed, func(s view.Stats) uint64 { return s.Failed }},
			"a panic":          {func() error { panic("boom") }, time.Second, 2, message.Panicked, func(s view.Stats) uint64 { return s.Panicked }},
			"Goexit":           {func() error { runtime.Goexit(); return nil }, time.Second, 2, message.Exited, func(s view.Stats) uint64 { return s.Exited }},
			"RetryAfter":       {func() error { return message.RetryAfter(errBusy, time.Minute) }, time.Minute, 2, message.Failed, func(s view.Stats) uint64 { return s.Failed }},
			"Snooze":           {func() error { return message.Snooze(time.Minute) }, time.Minute, 1, message.Snoozed, func(s view.Stats) uint64 { return s.Snoozed }},
			"Release":          {func() error { return message.Release(errBusy) }, time.Second, 1, message.Released, func(s view.Stats) uint64 { return s.ReleasedCount }},
			"Permanent":        {func() error { return message.Permanent(errBusy) }, 0, 0, 0, func(s view.Stats) uint64 { return s.PermanentlyFailed }},
			"a broken error":   {func() error { return brokenError{} }, time.Second, 2, message.Panicked, func(s view.Stats) uint64 { return s.Panicked }},
			"nil, from a Nack": {nil, time.Second, 2, message.Nacked, func(s view.Stats) uint64 { return s.Nacked }},
		} {
			if k.letters && name == "Permanent" {
				continue // a letter has nowhere to go
			}
			t.Run(kind+"/"+name, func(t *testing.T) {
				bubble(t, func(t *testing.T, ctx context.Context) {
					var attempts []int
					var began []time.Time
					handle := func(ctx context.Context, d delivery.Delivery[int]) error {
						if d.Body != at {
							return nil
						}
						attempts, began = append(attempts, d.Attempt()), append(began, time.Now())
						switch {
						case len(attempts) > 1:
							last := d.History()[len(d.History())-1]
							require.Equal(t, row.cause, last.Cause)
							return nil
						case row.ends == nil:
							return d.Nack(ctx)
						}
						return row.ends()
					}
					h := newHome[int](t, append(slices.Clone(k.settings), backoff(time.Second), visible(time.Hour))...)
					q := h.q
					if k.letters {
						h.publish(from(0, 10)...)
						for range 10 {
							require.NoError(t, receive(t, q).Settle(ctx, message.Permanent(errBusy)))
						}
						q = q.DeadLetters()
					}
					one, batch := OneHandler[int](handle), BatchHandler[int](nil)
					if k.batch {
						one, batch = nil, func(ctx context.Context, ds []delivery.Delivery[int]) error {
							require.Len(t, ds, 1)
							return handle(ctx, ds[0])
						}
					}
					start(t, q, one, batch, append(slices.Clone(k.settings), batchesOf(1))...)
					if !k.letters {
						is := make([]message.Item[int], 10)
						for n := range is {
							is[n].Body = n
							if k.alone {
								is[n].Ext = &message.Extra{Key: "key"}
							}
						}
						if k.alone && row.again > 0 {
							is = is[at : at+1] // the others of its key wait for it
						}
						h.items(is...)
					}
					elapse(time.Hour)
					if row.again == 0 {
						require.Equal(t, []int{1}, attempts)
					} else {
						require.Equal(t, []int{1, row.tries}, attempts)
						require.Equal(t, row.again, began[1].Sub(began[0]))
					}
					s := view.StatsOf(q)
					require.EqualValues(t, 1, row.count(s), "%+v", s)
					require.Zero(t, s.Unsettled())
					require.Zero(t, s.Workers, "they end when nothing is there")
					require.NoError(t, q.Check())
					h.end(t)
				})
			})
		}
	}
}

// A brokenError panics when it is looked at.
type brokenError struct{}

func (brokenError) Error() string { panic("broken") }
func (brokenError) Unwrap() error { panic("broken") }

func TestAWorkerIsStartedWhenThereIsSomethingAndEndsWhenNot(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome[int](t)
		s := h.subscribe(t, func(context.Context, delivery.Delivery[int]) error { time.Sleep(time.Second); return nil }, concurrency(3))
		synctest.Wait()
		require.Zero(t, view.StatsOf(h.q).Workers, "none before the first message")
		for n := 1; n <= 5; n++ {
			h.publish(n)
			synctest.Wait()
			require.Equal(t, min(n, 3), view.StatsOf(h.q).Workers)
		}
		elapse(time.Second)
		require.Equal(t, 2, view.StatsOf(h.q).Workers)
		elapse(time.Second)
		require.Zero(t, view.StatsOf(h.q).Workers)
		require.EqualValues(t, 5, view.StatsOf(h.q).Acked)
		require.Same(t, h.q, s.Queue())
		require.True(t, s.Made())
		require.False(t, new(Subscriber[int]).Made())
		h.publish(6)
		synctest.Wait()
		require.Equal(t, 1, view.StatsOf(h.q).Workers)
		elapse(time.Second)
		h.end(t)
	})
}

// Two subscribers share what there is.
func TestNoMoreWorkersRunThanTheSubscribersMayHave(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome[int](t)
		var running, most [2]int
		handle := func(k int) OneHandler[int] {
			return func(context.Context, delivery.Delivery[int]) error {
				running[k]++
				most[k] = max(most[k], running[k])
				time.Sleep(time.Second)
				running[k]--
				return nil
			}
		}
		h.subscribe(t, handle(0), concurrency(1))
		h.subscribe(t, handle(1), concurrency(1))
		h.publish(from(0, 20)...)
		elapse(10*time.Second - 1)
		require.EqualValues(t, 18, view.StatsOf(h.q).Acked)
		elapse(1)
		require.EqualValues(t, 20, view.StatsOf(h.q).Acked)
		require.Equal(t, [2]int{1, 1}, most)
		h.end(t)
	})
}

func TestWhatAHandlerSaysTooLateIsTold(t *testing.T) {
	for name, row := range map[string]struct {
		does func(ctx context.Context, d delivery.Delivery[int]) error
		want []string
	}{
		"nothing, after its timeout":         {func(ctx context.Context, _ delivery.Delivery[int]) error { <-ctx.Done(); return nil }, nil},
		"a failure after its timeout":        {func(ctx context.Context, _ delivery.Delivery[int]) error { <-ctx.Done(); return errBusy }, []string{"late: failed"}},
		"that it was cancelled":              {func(ctx context.Context, _ delivery.Delivery[int]) error { <-ctx.Done(); return ctx.Err() }, []string{"late, cancelled: failed"}},
		"a failure after an acknowledgement": {func(ctx context.Context, d delivery.Delivery[int]) error { return errors.Join(d.Ack(ctx), errBusy) }, []string{"late: failed"}},
		"a panic after an acknowledgement":   {func(ctx context.Context, d delivery.Delivery[int]) error { _ = d.Ack(ctx); panic("boom") }, []string{"late: panicked"}},
		"an acknowledgement of its own":      {func(ctx context.Context, d delivery.Delivery[int]) error { return d.Ack(ctx) }, nil},
	} {
		for _, how := range []string{"one", "one, timed", "batch"} {
			t.Run(name+"/"+how, func(t *testing.T) {
				bubble(t, func(t *testing.T, ctx context.Context) {
					var told []string
					var sites []string
					note := func(kind string) func(e notice.Event) {
						return func(e notice.Event) {
							told = append(told, kind+": "+e.Cause.String())
							sites = append(sites, e.Subscriber)
						}
					}
					h := newHome[int](t, visible(time.Second), hooked(notice.Late, note("late")), hooked(notice.LateCancelled, note("late, cancelled")))
					handle := func(ctx context.Context, d delivery.Delivery[int]) error {
						if d.Attempt() == 1 {
							return row.does(ctx, d)
						}
						return nil
					}
					var s *Subscriber[int]
					switch how {
					case "batch":
						s = h.subscribeBatch(t, func(ctx context.Context, ds []delivery.Delivery[int]) error { return handle(ctx, ds[0]) })
					case "one, timed":
						s = h.subscribe(t, handle, handlerTimeout(time.Hour))
					default:
						s = h.subscribe(t, handle)
					}
					h.publish(1)
					elapse(time.Minute)
					require.Equal(t, row.want, told)
					for _, site := range sites {
						require.Equal(t, s.Site, site)
						require.Regexp(t, `^workers/home_test\.go:\d+$`, site)
					}
					require.EqualValues(t, 1, view.StatsOf(h.q).Acked)
					h.end(t)
				})
			})
		}
	}
}

// A hook that ends the goroutine between taking a message and handling it loses nothing, nor
// does one between two messages.
func TestAHookThatEndsTheGoroutineLosesNothing(t *testing.T) {
	for _, kind := range []notice.Kind{notice.Delivered, notice.Settled} {
		for _, batch := range []bool{false, true} {
			for _, key := range []string{"", "key"} {
				bubble(t, func(t *testing.T, ctx context.Context) {
					var got []int
					h := newHome[int](t, hooked(kind, func(notice.Event) { runtime.Goexit() }), hooked(notice.Late, func(e notice.Event) { t.Errorf("late: %v", e.Cause) }))
					if batch {
						h.subscribeBatch(t, func(_ context.Context, ds []delivery.Delivery[int]) error {
							got = append(got, bodiesOf(ds)...)
							return nil
						}, batchesOf(3))
					} else {
						h.subscribe(t, func(_ context.Context, d delivery.Delivery[int]) error { got = append(got, d.Body); return nil })
					}
					is := make([]message.Item[int], 20)
					for k := range is {
						is[k] = message.Item[int]{Body: k, Ext: &message.Extra{Key: key}}
					}
					h.items(is...)
					synctest.Wait()
					require.Equal(t, from(0, 20), got)
					require.EqualValues(t, 20, view.StatsOf(h.q).Acked)
					require.Zero(t, view.StatsOf(h.q).Workers)
					h.end(t)
				})
			}
		}
	}
}
