package workers

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/store"
	"github.com/gofanout/fanout/internal/view"
)

// bodiesIn are the bodies of what a worker has in memory. None is 0.
func bodiesIn(w *Worker[int], b *buffer[int]) (bodies []int) {
	for _, ds := range [][]delivery.Delivery[int]{b.ds, b.given, w.one[:]} {
		for _, d := range ds {
			if d.Body != 0 {
				bodies = append(bodies, d.Body)
			}
		}
	}
	return bodies
}

// quietens requires that nothing is left of what has been handled, once the queue is idle:
// no lease, no timer, no message that a worker keeps, nothing uncounted.
func (h *home[T]) quietens(t *testing.T) {
	t.Helper()
	elapse(time.Second)
	h.q.Locked(func() {
		q := h.q
		require.Empty(t, q.Store.Leases.Leases())
		require.Zero(t, q.Store.Leases.Held())
		require.False(t, q.Alarm.Armed)
		require.Zero(t, [2]int32{q.Group.Running, q.Group.Serving})
		require.True(t, q.Alarm.Quiet())
	})
}

// takes are the ways in which a worker takes messages: of ten, one, one more and so on.
var takes = map[string]struct {
	batch int // 0: a handler of single messages
	keys  bool
	ss    []setting
}{
	"prefetched":              {},
	"prefetched, timed":       {ss: []setting{handlerTimeout(time.Hour), hooked(notice.Settled, func(notice.Event) {})}},
	"prefetched, intercepted": {ss: []setting{around(passing, passing)}},
	"alone":                   {keys: true},
	"a batch":                 {batch: 10},
	"a long batch":            {batch: 200},
	"a batch, timed":          {batch: 10, ss: []setting{handlerTimeout(time.Hour)}},
	"a batch, intercepted":    {batch: 200, ss: []setting{around(passing, passing)}},
	"a batch with keys":       {batch: 10, keys: true},
	"a long batch with keys":  {batch: 200, keys: true},
}

// Batches, and leases, are longer and shorter in turn; some messages fail, and come again.
// Nothing of them is kept by a worker that rests, and all is counted then, whether or not
// somebody asks.
func TestAWorkerThatRestsKeepsNothing(t *testing.T) {
	for name, row := range takes {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				h := newHome[int](t, append(row.ss[:len(row.ss):len(row.ss)], backoff(time.Second), visible(time.Hour))...)
				n, round := 0, 0
				more := func(k int) {
					round++
					is := make([]message.Item[int], k)
					for j := range is {
						n++
						is[j].Body = n
						if row.keys && round%2 == 0 {
							is[j].Ext = &message.Extra{Key: fmt.Sprint(n)}
						}
					}
					h.items(is...)
				}
				var w *Worker[int]
				var s *Subscriber[int]
				bufs := map[*buffer[int]]bool{}
				rounds := []int{3, 64, 65, 10, 200, 7, 200, 64, 1, 130, 2}
				run := func(ds []delivery.Delivery[int]) error {
					w = busy(s)
					require.NoError(t, h.q.Check())
					if w.buffer != nil {
						bufs[w.buffer] = true
					}
					if d := ds[len(ds)-1]; d.Body == n && len(rounds) > 0 {
						more(rounds[0])
						rounds = rounds[1:]
					}
					if d := ds[0]; d.Body%50 == 7 && d.Attempt() == 1 {
						return errBusy
					}
					return nil
				}
				if row.batch > 0 {
					s = h.subscribeBatch(t, func(_ context.Context, ds []delivery.Delivery[int]) error { return run(ds) }, append(row.ss, batchesOf(row.batch))...)
				} else {
					s = h.subscribe(t, func(_ context.Context, d delivery.Delivery[int]) error {
						return run([]delivery.Delivery[int]{d})
					}, row.ss...)
				}
				for range 2 {
					rounds = append(rounds, 5)
					more(20)
					elapse(time.Minute)
					h.q.Locked(func() {
						require.EqualValues(t, n, h.q.Store.Acked)
						require.EqualValues(t, int(h.q.Store.Acked)+int(h.q.Store.Totals().Ended[message.Failed]), h.q.Store.Delivered)
						require.Zero(t, h.q.Store.Held())
					})
					require.Nil(t, w.buffer)
					require.Empty(t, bodiesIn(w, new(buffer[int])))
					for b := range bufs {
						require.Empty(t, bodiesIn(w, b))
					}
					h.quietens(t)
				}
				h.end(t)
			})
		})
	}
}

// What is done is counted at the latest when the worker takes something else, and the timer
// looks at what it took.
func TestAWorkerCountsWhatIsDoneWhenItTakesMore(t *testing.T) {
	for name, row := range takes {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				h := newHome[int](t, append(row.ss[:len(row.ss):len(row.ss)], backoff(time.Hour))...)
				var s *Subscriber[int]
				seen, failed := 0, 0
				run := func(ds []delivery.Delivery[int]) error {
					h.q.Locked(func() {
						w := busy(s)
						if ds[0].Ref.Stamp == w.ds[0].Ref.Stamp { // the first of a lease
							require.EqualValues(t, seen-failed, h.q.Store.Acked)
							require.GreaterOrEqual(t, int(h.q.Store.Delivered), seen)
						}
						if row.batch > 0 {
							require.EqualValues(t, seen+len(ds), h.q.Store.Delivered, "all of a batch has begun")
						}
						require.Positive(t, h.q.Alarm.CheckAt)
						require.True(t, h.q.Alarm.Armed)
					})
					seen += len(ds)
					if ds[0].Body%20 == 5 {
						failed += len(ds)
						return errBusy
					}
					return nil
				}
				if row.batch > 0 {
					s = h.subscribeBatch(t, func(_ context.Context, ds []delivery.Delivery[int]) error { return run(ds) }, append(row.ss, batchesOf(row.batch))...)
				} else {
					s = h.subscribe(t, func(_ context.Context, d delivery.Delivery[int]) error {
						return run([]delivery.Delivery[int]{d})
					}, row.ss...)
				}
				is := make([]message.Item[int], 500)
				for k := range is {
					is[k].Body = k
					if row.keys && k%3 > 0 {
						is[k].Ext = &message.Extra{Key: fmt.Sprint(k)}
					}
				}
				h.items(is...)
				synctest.Wait()
				require.Equal(t, 500, seen)
				h.q.Locked(func() { require.EqualValues(t, seen-failed, h.q.Store.Acked) })
				h.end(t)
			})
		})
	}
}

// All of a batch is acknowledged when its handler returns nil, whichever of it the handler
// has acknowledged itself.
func TestALongBatchIsAcknowledgedAsAWhole(t *testing.T) {
	for _, own := range [][]int{nil, {3}, {70}, {150}, {3, 150}, {0, 64, 128, 199}} {
		bubble(t, func(t *testing.T, ctx context.Context) {
			h := newHome[int](t, visible(time.Second))
			h.subscribeBatch(t, func(_ context.Context, ds []delivery.Delivery[int]) error {
				require.Equal(t, from(0, 200), bodiesOf(ds))
				for _, k := range own {
					require.NoError(t, ds[k].Ack(ctx))
				}
				return nil
			}, batchesOf(200))
			h.publish(from(0, 200)...)
			synctest.Wait()
			require.EqualValues(t, 200, view.StatsOf(h.q).Acked, "the handler acknowledged %v", own)
			require.Zero(t, view.StatsOf(h.q).Unsettled())
			h.quietens(t)
			h.end(t)
		})
	}
}

// A rate limit counts what was delivered. What has expired was not.
func TestWhatHasExpiredSpendsNothingOfARateLimit(t *testing.T) {
	for _, size := range []int{1, 10} {
		bubble(t, func(t *testing.T, ctx context.Context) {
			h := newHome[int](t, limitsTTL(time.Second))
			y := newDiary()
			h.subscribeBatch(t, func(_ context.Context, ds []delivery.Delivery[int]) error {
				if y.note("%v", bodiesOf(ds)); ds[0].Body == 1 {
					time.Sleep(20 * time.Second)
				}
				return nil
			}, batchesOf(size), every(time.Second))
			h.publish(1)
			synctest.Wait()
			h.publish(2, 3)
			elapse(20 * time.Second)
			time.Sleep(time.Millisecond)
			h.publish(4)
			elapse(time.Minute)
			require.Equal(t, []string{"0s: [1]", "20.001s: [4]"}, y.read())
			require.EqualValues(t, 2, view.StatsOf(h.q).Expired)
			h.quietens(t)
			h.end(t)
		})
	}
}

// Dead letters are entries all the time; what else a worker has is in leases.
func TestWhereWhatAWorkerHasIsKept(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome[int](t, visible(time.Second))
		y := newDiary()
		is := make([]message.Item[int], 5)
		for k := range is {
			is[k] = message.Item[int]{Body: k, Ext: &message.Extra{Key: fmt.Sprint(k)}}
		}
		h.items(is...)
		h.subscribeBatch(t, func(_ context.Context, ds []delivery.Delivery[int]) error {
			h.q.Locked(func() { require.Equal(t, []int{0, 5}, []int{h.q.Store.In(store.InHandler), h.q.Store.Leases.Held()}) })
			return message.Permanent(errBusy)
		}, batchesOf(10))
		synctest.Wait()
		d := h.q.DeadLetters()
		start(t, d, nil, func(ctx context.Context, ds []delivery.Delivery[int]) error {
			d.Locked(func() { require.Equal(t, []int{5, 0}, []int{d.Store.In(store.InHandler), d.Store.Leases.Held()}) })
			require.NoError(t, d.Check())
			if y.note("%v", bodiesOf(ds)); ds[0].Attempt() == 1 {
				<-ctx.Done()
				y.note("over")
			}
			return nil
		}, batchesOf(10))
		elapse(time.Minute)
		require.Equal(t, []string{"0s: [0 1 2 3 4]", "1s: over", "1s: [0 1 2 3 4]"}, y.read())
		h.end(t)
	})
}

// A batch from the log was the backlog's turn: what becomes due then is next.
func TestWhatBecomesDueIsNextAfterABatch(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome[int](t, backoff(time.Second))
		y := newDiary()
		h.subscribeBatch(t, func(_ context.Context, ds []delivery.Delivery[int]) error {
			d := ds[0]
			y.note("%d", d.Body)
			switch {
			case d.Body == 2:
				time.Sleep(1500 * time.Millisecond)
			case d.Body == 1 && d.Attempt() < 3:
				if d.Attempt() == 2 {
					h.publish(2, 3, 4)
				}
				return errBusy
			}
			return nil
		}, batchesOf(1))
		h.publish(1)
		elapse(time.Minute)
		require.Equal(t, []string{"0s: 1", "1s: 1", "1s: 2", "2.5s: 1", "2.5s: 3", "2.5s: 4"}, y.read())
		h.end(t)
	})
}

// What may expire soon is taken by itself, after what was prefetched, and its handler has its
// whole time.
func TestAHandlerTimeoutAfterAPrefetch(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome[int](t, limitsTTL(10*time.Millisecond), visible(time.Hour))
		y := newDiary()
		h.subscribe(t, func(ctx context.Context, d delivery.Delivery[int]) error {
			if y.note("%d", d.Body); d.Body == 1 {
				time.Sleep(9500 * time.Microsecond)
				return nil
			}
			<-ctx.Done()
			y.note("over")
			return nil
		}, handlerTimeout(time.Second))
		h.publish(1, 2)
		elapse(time.Minute)
		require.Equal(t, []string{"0s: 1", "9.5ms: 2", "1.0095s: over"}, y.read())
		require.EqualValues(t, 2, view.StatsOf(h.q).Acked)
		h.end(t)
	})
}

// A batch of letters has as many as may be handled at once: of one ordering key, one.
func TestABatchOfLettersOfOneKey(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome[int](t)
		for k := range 3 {
			h.items(message.Item[int]{Body: k, Ext: &message.Extra{Key: "a"}})
			require.NoError(t, receive(t, h.q).Settle(ctx, message.Permanent(errBusy)))
		}
		y := newDiary()
		d := h.q.DeadLetters()
		start(t, d, nil, func(_ context.Context, ds []delivery.Delivery[int]) error {
			y.note("%v", bodiesOf(ds))
			return nil
		}, batchesOf(10))
		elapse(time.Minute)
		require.Equal(t, []string{"0s: [0]", "0s: [1]", "0s: [2]"}, y.read())
		require.EqualValues(t, 3, view.StatsOf(d).Acked)
		h.end(t)
	})
}
