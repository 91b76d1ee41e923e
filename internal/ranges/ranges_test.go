package ranges

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/alarm"
	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/lifecycle"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/view"
)

// over ranges over n messages, and calls body with each until it returns false.
func over(t *testing.T, r *Range[int], n int, body func(d *delivery.Delivery[int]) bool) {
	t.Helper()
	defer r.Leave()
	for range n {
		d, err := r.Next(t.Context())
		require.NoError(t, err)
		if !body(d) {
			return
		}
	}
}

func TestARangeYieldsEachMessageOnceAndInOrder(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome[int](t)
		r := New(h.q, h.q.Visibility())
		h.publish(from(0, 300)...)
		n, most := 0, 0
		over(t, r, 300, func(d *delivery.Delivery[int]) bool {
			require.Equal(t, n, d.Body)
			s := view.StatsOf(h.q)
			require.Equal(t, []int{n, 1, 300 - n - 1}, []int{int(s.Acked), s.InFlight, s.Ready}, "one at a time is in flight")
			n++
			most = max(most, len(r.ds))
			require.NoError(t, d.Ack(ctx))
			require.ErrorIs(t, d.Ack(ctx), message.ErrSettled)
			return true
		})
		require.Equal(t, 300, n)
		require.Equal(t, queue.PrefetchLen, most, "a quick loop's prefetches are as long as they may be")
		require.Zero(t, h.q.Group.Ranges)
		require.Nil(t, h.q.Ranging.Load())
		h.end(t)
	})
}

func TestWhatARangeHasNotBegunIsForASubscriberAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome[int](t)
		h.publish(from(0, 8)...)
		var got []int
		over(t, New(h.q, h.q.Visibility()), 8, func(d *delivery.Delivery[int]) bool {
			if d.Body < 2 {
				return d.Ack(ctx) == nil
			}
			h.subscribe(t, func(_ context.Context, d delivery.Delivery[int]) error { got = append(got, d.Body); return nil })
			synctest.Wait()
			require.Equal(t, from(3, 8), got)
			return false
		})
		h.end(t)
	})
}

func TestARangeWaitsForAMessageAndForTheEndOfItsContext(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome[int](t)
		r := New(h.q, h.q.Visibility())
		time.AfterFunc(time.Second, func() { h.publish(1) })
		began := time.Now()
		d, err := r.Next(ctx)
		require.NoError(t, err)
		require.Equal(t, time.Second, time.Since(began))
		require.Equal(t, 1, d.Body)
		require.NoError(t, d.Ack(ctx))
		soon, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		_, err = r.Next(soon)
		require.Equal(t, 2*time.Second, time.Since(began))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.False(t, r.IsOver(err))
		time.AfterFunc(time.Second, func() { lifecycle.Close(h.q) })
		_, err = r.Next(ctx)
		require.Equal(t, 3*time.Second, time.Since(began))
		require.ErrorIs(t, err, message.ErrClosed)
		require.True(t, r.IsOver(err))
		r.Leave()
		New(h.q, h.q.Visibility()).Leave() // one that has taken nothing
		h.end(t)
	})
}

// A queue that is closed, purged or paused under a loop that has prefetched.
func TestARangeUnderAClosePauseOrPurge(t *testing.T) {
	for name, row := range map[string]struct {
		do   func(ctx context.Context, q *queue.Queue[int]) error
		ack  error
		over bool
		left int // that wait after it
	}{
		"close": {func(_ context.Context, q *queue.Queue[int]) error { return lifecycle.Close(q) }, message.ErrClosed, true, 0},
		"pause": {func(ctx context.Context, q *queue.Queue[int]) error { return lifecycle.Pause(ctx, q) }, nil, false, 39},
		"purge": {func(ctx context.Context, q *queue.Queue[int]) error { _, err := lifecycle.Purge(ctx, q); return err }, message.ErrStale, false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				h := newHome[int](t)
				h.publish(from(0, 60)...)
				r := New(h.q, h.q.Visibility())
				defer r.Leave()
				for k := range 21 {
					d, err := r.Next(ctx)
					require.NoError(t, err)
					if k < 20 {
						require.NoError(t, d.Ack(ctx))
						continue
					}
					require.NoError(t, row.do(ctx, h.q))
					require.ErrorIs(t, d.Ack(ctx), row.ack)
				}
				soon, cancel := context.WithTimeout(ctx, time.Second)
				defer cancel()
				_, err := r.Next(soon)
				require.Error(t, err)
				require.Equal(t, row.over, r.IsOver(err))
				require.Equal(t, row.left, view.StatsOf(h.q).Ready)
				h.end(t)
			})
		})
	}
}

// A range with a visibility timeout of its own, and what can't be prefetched.
func TestARangeTakesWhatItCannotPrefetchByItself(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome[int](t, visible(time.Hour))
		is := make([]message.Item[int], 30)
		for k := range is {
			is[k].Body = k
			if k%10 == 5 {
				is[k].Ext = &message.Extra{Key: "a"}
			}
		}
		h.items(is...)
		n := 0
		over(t, New(h.q, h.q.Visibility()), 30, func(d *delivery.Delivery[int]) bool {
			require.Equal(t, n, d.Body)
			n++
			return d.Ack(ctx) == nil
		})
		require.EqualValues(t, 30, view.StatsOf(h.q).Acked)
		h.publish(1, 2, 3)
		over(t, New(h.q, time.Second), 1, func(d *delivery.Delivery[int]) bool {
			require.Equal(t, time.Now().Add(time.Second), d.Deadline())
			elapse(time.Second)
			require.EqualValues(t, 1, view.StatsOf(h.q).TimedOut)
			return false
		})
		h.end(t)
	})
}

// It takes twice as many each time, or a quarter of them if what it took has lasted too long.
// Segments of the log end at 8, 40, 168 and 424, and leases with them.
func TestARangePrefetchesMoreAsLongAsItsLoopIsQuick(t *testing.T) {
	for each, want := range map[time.Duration][]int{
		0:                           {1, 2, 4, 1, 16, 16, 64, 64, 64, 64, 64, 64, 2},
		10 * time.Microsecond:       {1, 2, 4, 1, 16, 4, 8, 2, 2, 8, 2, 4},
		time.Duration(prefetchTime): slices.Repeat([]int{1}, 10),
	} {
		bubble(t, func(t *testing.T, ctx context.Context) {
			h := newHome[int](t)
			n := 0
			for _, k := range want {
				n += k
			}
			h.publish(from(0, n)...)
			r := New(h.q, h.q.Visibility())
			var lens []int
			last := uint64(0)
			over(t, r, n, func(d *delivery.Delivery[int]) bool {
				switch {
				case r.lease == nil:
					lens = append(lens, 1)
				case r.base != last:
					lens, last = append(lens, len(r.ds)), r.base
				}
				time.Sleep(each)
				return d.Ack(ctx) == nil
			})
			require.Equal(t, want, lens, "%v each", each)
			h.end(t)
		})
	}
}

// A dead letter is an entry of its queue, and received by itself.
func TestARangeOverDeadLetters(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome[int](t)
		h.publish(from(0, 5)...)
		for range 5 {
			require.NoError(t, receive(t, h.q).Settle(ctx, message.Permanent(errBusy)))
		}
		n := 0
		d := h.q.DeadLetters()
		over(t, New(d, d.Visibility()), 5, func(d *delivery.Delivery[int]) bool {
			require.Equal(t, n, d.Body)
			n++
			return d.Ack(ctx) == nil
		})
		require.Zero(t, view.StatsOf(d).Unsettled())
		require.NoError(t, d.Check())
		h.end(t)
	})
}

// The visibility timeout of a message counts from when it was yielded: exactly for the first
// of a lease, a millisecond late at most for the others, and never early.
func TestAMessageOfARangeTimesOutInTime(t *testing.T) {
	for at := range 30 {
		bubble(t, func(t *testing.T, ctx context.Context) {
			h := newHome[int](t, visible(time.Second))
			h.publish(from(0, 60)...)
			over(t, New(h.q, h.q.Visibility()), 60, func(d *delivery.Delivery[int]) bool {
				if d.Body < at {
					time.Sleep(time.Microsecond)
					if d.Body == 7 { // the last of a lease, of which the timer is done then
						time.Sleep(2 * alarm.CheckAge)
					}
					return d.Ack(ctx) == nil
				}
				elapse(time.Second - 1)
				require.EqualValues(t, 0, view.StatsOf(h.q).TimedOut, "message %d, early", at)
				elapse(alarm.CheckAge + 1)
				require.EqualValues(t, 1, view.StatsOf(h.q).TimedOut, "message %d, late", at)
				require.ErrorIs(t, d.Ack(ctx), message.ErrStale)
				return false
			})
			h.end(t)
		})
	}
}
