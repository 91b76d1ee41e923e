package ranges

import (
	"context"
	"iter"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/alarm"
	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/lifecycle"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/view"
)

// deliveriesOf is a range as package fanout makes it of a Range.
func deliveriesOf[T any](q *queue.Queue[T], ctx context.Context, vis time.Duration) iter.Seq2[delivery.Delivery[T], error] {
	return func(yield func(delivery.Delivery[T], error) bool) {
		r := New(q, vis)
		defer r.Leave()
		var err error
		for err == nil {
			var d *delivery.Delivery[T]
			if d, err = r.Next(ctx); err == nil && !yield(*d, nil) {
				return
			}
		}
		if !r.IsOver(err) {
			yield(delivery.Delivery[T]{}, err)
		}
	}
}

// waitingIn is how many messages wait for the range that took some last.
func waitingIn[T any](q *queue.Queue[T]) int {
	if l := q.Ranging.Load(); l != nil {
		return l.Word.Place().Waiting()
	}
	return 0
}

// to returns k to n.
func to(k, n int) []int { return from(k, n+1) }

// warm ranges over n messages and acknowledges them, so that the next lease is as
// large as it can be; then it publishes more and calls body with each of them.
// body returns whether to go on.
func warm(t *testing.T, h *home[int], more int, body func(d delivery.Delivery[int]) bool) {
	t.Helper()
	const n = 4 * queue.PrefetchLen
	h.publish(to(-n, -1)...)
	for d, err := range deliveriesOf(h.q, t.Context(), h.q.Visibility()) {
		require.NoError(t, err)
		if d.Body >= 0 {
			if !body(d) {
				return
			}
			continue
		}
		require.NoError(t, d.Ack(t.Context()))
		if d.Body == -1 {
			h.publish(to(0, more-1)...)
		}
	}
}

func TestARangeCountsOneMessageAtATime(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome[int](t)
		q := h.q
		const n = 150
		warm(t, h, n, func(d delivery.Delivery[int]) bool {
			s := view.StatsOf(q)
			done := d.Body
			require.Equal(t, []int{n - 1 - done, 1}, []int{s.Ready, s.InFlight})
			require.Equal(t, []uint64{4*queue.PrefetchLen + uint64(done), 4*queue.PrefetchLen + uint64(done) + 1}, []uint64{s.Acked, s.Delivered})
			require.Equal(t, 1, d.Attempt())
			require.NoError(t, q.Check())
			require.NoError(t, d.Ack(ctx))
			s = view.StatsOf(q)
			require.Equal(t, []int{n - 1 - done, 0}, []int{s.Ready, s.InFlight}, "the next one is not delivered yet")
			require.ErrorIs(t, d.Ack(ctx), message.ErrSettled)
			require.ErrorIs(t, d.Nack(ctx), message.ErrSettled)
			require.Zero(t, d.Deadline())
			require.NoError(t, q.Check())
			return done < n-1
		})
		require.Nil(t, q.Ranging.Load())
		require.Zero(t, q.Store.Held())
		h.end(t)
	})
}

// What waits in the lease of a loop whose body is slow is anybody's.
func TestWhatARangeHasNotBegunIsTakenByOthersAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome[int](t)
		q := h.q
		warm(t, h, 10, func(d delivery.Delivery[int]) bool {
			if d.Body == 3 {
				require.Equal(t, 6, waitingIn(q))
				for want := 4; want < 10; want++ {
					other := receive(t, q)
					require.Equal(t, want, other.Body)
					require.NoError(t, other.Ack(ctx))
				}
				require.Zero(t, view.StatsOf(q).Ready)
				require.NoError(t, q.Check())
				h.publish(10)
			}
			require.NoError(t, d.Ack(ctx))
			return d.Body < 10
		})
		require.EqualValues(t, 4*queue.PrefetchLen+11, view.StatsOf(q).Acked)
		require.NoError(t, q.Check())
		h.end(t)
	})
}

// Others that always find something newer would not ask for what waits: the timer
// does, after a millisecond.
func TestWhatARangeIsSlowToBeginIsNotOvertakenForLong(t *testing.T) {
	for _, acked := range []bool{false, true} {
		bubble(t, func(t *testing.T, ctx context.Context) {
			h := newHome[int](t)
			q := h.q
			warm(t, h, 100, func(d delivery.Delivery[int]) bool {
				if d.Body != 3 {
					require.NoError(t, d.Ack(ctx))
					return true
				}
				if acked {
					require.NoError(t, d.Ack(ctx))
				}
				require.Equal(t, 60, waitingIn(q))
				require.Equal(t, 64, receive(t, q).Body)
				elapse(alarm.CheckAge - 1)
				require.Equal(t, 65, receive(t, q).Body)
				elapse(1)
				require.Equal(t, 4, receive(t, q).Body)
				require.NoError(t, q.Check())
				return false
			})
			h.end(t)
		})
	}
}

// The visibility timeout counts from when a message is yielded, at most a
// millisecond late.
func TestARangedMessageTimesOut(t *testing.T) {
	const hide = time.Minute
	for _, n := range []int{0, 1, 30} {
		for _, asked := range []bool{false, true} {
			bubble(t, func(t *testing.T, ctx context.Context) {
				h := newHome[int](t, visible(hide))
				q := h.q
				warm(t, h, 40, func(d delivery.Delivery[int]) bool {
					time.Sleep(time.Microsecond)
					if d.Body < n {
						require.NoError(t, d.Ack(ctx))
						return true
					}
					began := time.Now()
					late := alarm.CheckAge
					if asked || n == 0 {
						late = time.Microsecond // of the first the instant is known
					}
					if asked {
						require.WithinRange(t, d.Deadline(), began.Add(hide-late), began.Add(hide))
					}
					elapse(hide - late - 1)
					require.Equal(t, 1, view.StatsOf(q).InFlight)
					elapse(late + 1 + time.Duration(min(n, 1))*alarm.CheckAge)
					require.Equal(t, 0, view.StatsOf(q).InFlight)
					require.ErrorIs(t, d.Ack(ctx), message.ErrStale)
					require.ErrorIs(t, d.Extend(ctx, hide), message.ErrStale)
					again := receive(t, q)
					require.Equal(t, d.ID(), again.ID())
					require.Equal(t, 2, again.Attempt())
					require.Equal(t, message.TimedOut, again.History()[0].Cause)
					require.NoError(t, q.Check())
					return false
				})
				h.end(t)
			})
		}
	}
}

// A loop that asks for the next message before it has settled one has both.
func TestARangeMaySettleLater(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome[int](t, visible(time.Minute), backoff(time.Hour))
		q := h.q
		const n = 100
		var ds []delivery.Delivery[int]
		warm(t, h, n, func(d delivery.Delivery[int]) bool {
			ds = append(ds, d)
			require.Equal(t, len(ds), view.StatsOf(q).InFlight)
			require.NoError(t, q.Check())
			return len(ds) < n
		})
		require.Equal(t, n, view.StatsOf(q).InFlight)
		want := map[message.Cause]uint64{}
		for k, d := range ds {
			require.Equal(t, k, d.Body)
			require.Equal(t, time.Now().Add(time.Minute), d.Deadline(), "no time has passed")
			var err error
			switch k % 5 {
			case 0:
				err = d.Ack(ctx)
				want[message.Acked]++
			case 1:
				err = d.Nack(ctx)
				want[message.Nacked]++
			case 2:
				err = d.Extend(ctx, time.Hour)
			case 3:
				err = delivery.AckAll(ctx, q, []delivery.Delivery[int]{d})[0]
				want[message.Acked]++
			case 4:
				continue
			}
			require.NoError(t, err)
			if k%5 != 2 {
				require.ErrorIs(t, d.Ack(ctx), message.ErrSettled)
			}
			require.NoError(t, q.Check())
		}
		elapse(time.Minute)
		for k, d := range ds {
			if k%5 == 4 {
				require.ErrorIs(t, d.Ack(ctx), message.ErrStale)
				want[message.TimedOut]++
			} else if k%5 == 2 {
				require.NoError(t, d.Ack(ctx))
				want[message.Acked]++
			}
		}
		s := view.StatsOf(q)
		require.Equal(t, []uint64{want[message.Acked] + 4*queue.PrefetchLen, want[message.Nacked], want[message.TimedOut]}, []uint64{s.Acked, s.Nacked, s.TimedOut})
		require.NoError(t, q.Check())
		h.end(t)
	})
}

// However a loop ends, what it has not begun is there for others, in its place,
// and what it has is its own to settle.
func TestARangeThatEndsGivesBackWhatItHasNotBegun(t *testing.T) {
	for name, end := range map[string]func(){
		"break": func() {},
		"panic": func() { panic("broken") },
		"exit":  runtime.Goexit,
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				h := newHome[int](t, visible(time.Minute))
				q := h.q
				var last delivery.Delivery[int]
				var wg sync.WaitGroup
				wg.Go(func() {
					defer func() { _ = recover() }()
					warm(t, h, 100, func(d delivery.Delivery[int]) bool {
						if last = d; d.Body == 5 {
							end()
							return false
						}
						return d.Ack(ctx) == nil
					})
				})
				wg.Wait()
				require.NoError(t, q.Check())
				require.Nil(t, q.Ranging.Load())
				s := view.StatsOf(q)
				require.Equal(t, []int{94, 1}, []int{s.Ready, s.InFlight})
				require.Equal(t, to(6, 99), waiting(t, q))
				require.NoError(t, last.Ack(ctx))
				require.ErrorIs(t, last.Ack(ctx), message.ErrSettled)
				for want := 6; want < 100; want++ {
					require.Equal(t, want, receive(t, q).Body)
				}
				require.NoError(t, q.Check())
				h.end(t)
			})
		})
	}
}

func TestARangeWakesOthersForWhatItGivesBack(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome[int](t)
		q := h.q
		got := make(chan int, 1)
		warm(t, h, 2, func(d delivery.Delivery[int]) bool {
			require.Equal(t, 1, waitingIn(q))
			require.NoError(t, lifecycle.Pause(ctx, q))
			require.NoError(t, d.Ack(ctx))
			go func() {
				var other delivery.Delivery[int]
				assert.NoError(t, delivery.TakeOne(ctx, q, &other, q.Visibility()))
				got <- other.Body
			}()
			synctest.Wait()
			require.Empty(t, got, "it is paused")
			require.NoError(t, lifecycle.Resume(ctx, q))
			synctest.Wait()
			require.Equal(t, 1, <-got)
			return false
		})
		h.end(t)
	})
}

// What something is kept apart of is received singly.
func TestARangeHearsOfEach(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var told []string
		h := newHome[int](t, hooked(notice.Delivered, func(notice.Event) { told = append(told, "delivered") }), hooked(notice.Settled, func(notice.Event) { told = append(told, "settled") }))
		q := h.q
		h.publish(to(1, 100)...)
		for d, err := range deliveriesOf(q, ctx, q.Visibility()) {
			require.NoError(t, err)
			require.Equal(t, []string{"delivered"}, told)
			require.NoError(t, d.Ack(ctx))
			require.Equal(t, []string{"delivered", "settled"}, told)
			if told = nil; d.Body == 100 {
				break
			}
		}
		h.end(t)
	})
}

func TestARangeWithAVisibilityTimeoutOfItsOwn(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome[int](t, visible(time.Minute))
		q := h.q
		h.publish(to(1, 100)...)
		for d, err := range deliveriesOf(q, ctx, time.Second) {
			require.NoError(t, err)
			require.Equal(t, time.Now().Add(time.Second), d.Deadline())
			require.NoError(t, d.Ack(ctx))
			if d.Body == 99 {
				break
			}
		}
		h.end(t)
	})
}
