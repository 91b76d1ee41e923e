// A message waits its delay or its backoff, is dead after its attempts, and expires after its time to live.

package delivery_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/internal/tests/kit"
)

func TestRowMaxAttempts(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		for name, n := range map[string]int{"1": 1, "3": 3, "unlimited": fanout.Unlimited} {
			var tries atomic.Int32
			s := kit.Subscribe(t, top, name, func(ctx context.Context, d fanout.Delivery[int]) error {
				if int32(d.Attempt()) != tries.Add(1) {
					t.Errorf("attempt %d is the %d", d.Attempt(), tries.Load())
				}
				return kit.ErrBusy
			}, fanout.WithMaxAttempts(n), fanout.WithBackoff(fanout.Constant(time.Second)))
			kit.Publish(t, top, 1)
			kit.Elapse(99 * time.Second)
			kit.Check(t, top)
			if n == fanout.Unlimited {
				require.Equal(t, int32(100), tries.Load())
				require.Equal(t, 1, s.Queue().Stats().Retrying)
			} else {
				require.Equal(t, int32(n), tries.Load())
				require.Equal(t, []int{1}, kit.DeadBodies(t, s.Queue()))
			}
			require.NoError(t, s.Queue().Close())
		}
		top.Close()
	})
}

func TestRowBackoff(t *testing.T) {
	for name, row := range map[string]struct {
		b           fanout.Backoff
		least, most []time.Duration
	}{
		"constant":    {fanout.Constant(7 * time.Second), []time.Duration{7e9, 7e9, 7e9}, []time.Duration{7e9, 7e9, 7e9}},
		"exponential": {fanout.Exponential(time.Second, 3*time.Second), []time.Duration{5e8, 1e9, 15e8}, []time.Duration{1e9, 2e9, 3e9}},
		"function": {fanout.BackoffFunc(func(n int) time.Duration { return time.Duration(n*n) * time.Second }),
			[]time.Duration{1e9, 4e9, 9e9}, []time.Duration{1e9, 4e9, 9e9}},
		"at least a millisecond": {fanout.BackoffFunc(func(int) time.Duration { return 0 }),
			[]time.Duration{1e6, 1e6, 1e6}, []time.Duration{1e6, 1e6, 1e6}},
	} {
		t.Run(name, func(t *testing.T) {
			kit.Bubble(t, func(t *testing.T, ctx context.Context) {
				top := kit.NewTopic[int](t)
				q := kit.OpenQueue(t, top, "q", fanout.WithBackoff(row.b))
				kit.Publish(t, top, 1)
				for k := range row.least {
					require.NoError(t, kit.Receive(t, q).Nack(ctx))
					nacked := time.Now()
					d, err := q.Receive(ctx)
					require.NoError(t, err)
					require.GreaterOrEqual(t, time.Since(nacked), row.least[k])
					require.LessOrEqual(t, time.Since(nacked), row.most[k])
					require.NoError(t, d.Settle(ctx, fanout.Snooze(1))) // spends none: the same attempt again
					kit.Elapse(time.Millisecond)
				}
				kit.Check(t, top)
				top.Close()
			})
		})
	}
}

func TestRowDelay(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t, fanout.WithOrdering())
		q := kit.OpenQueue(t, top, "q", fanout.WithDelay(10*time.Second))
		plain := kit.OpenQueue(t, top, "plain")
		kit.PublishAll(t, top, fanout.Message[int]{Body: 1}, fanout.Message[int]{Body: 2, Delay: 5 * time.Second})
		require.Equal(t, 2, q.Stats().Delayed)
		require.Equal(t, 1, plain.Stats().Delayed, "a message's delay holds in all queues")
		kit.Elapse(5*time.Second - 1)
		kit.RequireEmpty(t, q)
		kit.Elapse(1)
		require.Equal(t, 2, kit.Receive(t, q).Body)
		require.Equal(t, 2, kit.Receive(t, plain).Body, "what has become due goes first after the backlog's turn")
		require.Equal(t, 1, kit.Receive(t, plain).Body)
		kit.Elapse(5*time.Second - 1)
		kit.RequireEmpty(t, q)
		kit.Elapse(1)
		require.Equal(t, 1, kit.Receive(t, q).Body)
		kit.Check(t, top)

		err := top.PublishMessages(ctx, fanout.Message[int]{Body: 3, OrderingKey: "k", Delay: 1})
		require.ErrorIs(t, err, fanout.ErrUnsupported)
		kit.PublishAll(t, top, kit.Keyed("k", 4, 5)...)
		kit.Elapse(10 * time.Second)
		d := kit.Receive(t, q)
		require.Equal(t, 4, d.Body)
		kit.RequireEmpty(t, q)
		require.NoError(t, d.Ack(ctx))
		require.Equal(t, 5, kit.Receive(t, q).Body)
		kit.Check(t, top)
		top.Close()
	})
}

func TestRowTimeToLive(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t, fanout.WithRetention(10))
		y := kit.NewDiary()
		q := kit.OpenQueue(t, top, "q", fanout.WithTimeToLive(10*time.Second), fanout.WithBackoff(fanout.Constant(time.Second)), fanout.WithMaxAttempts(9))
		forever := kit.OpenQueue(t, top, "forever")
		kit.PublishAll(t, top, fanout.Message[int]{Body: 1}, fanout.Message[int]{Body: 2, TimeToLive: 5 * time.Second}, fanout.Message[int]{Body: 3, TimeToLive: time.Minute})
		kit.Elapse(5 * time.Second)
		require.Equal(t, 3, q.Stats().Ready, "nothing comes to see: it dies when its turn comes")
		kit.Elapse(5*time.Second - 1)
		d := kit.Receive(t, q)
		require.Equal(t, 1, d.Body, "a nanosecond before its end")
		e := kit.Receive(t, q)
		require.Equal(t, 3, e.Body, "2 has expired")
		require.Equal(t, []int{2}, kit.DeadBodies(t, q))
		require.Equal(t, uint64(1), q.Stats().Expired)
		require.Equal(t, uint64(2), q.Stats().Delivered)

		kit.Elapse(10 * time.Second)
		require.NoError(t, e.Nack(ctx), "it may fail and be retried")
		require.NoError(t, d.Nack(ctx), "one in flight may finish, but not fail")
		require.Equal(t, []int{1, 2}, kit.DeadBodies(t, q))
		ls, err := q.DeadLetters().Peek(ctx, 10)
		require.NoError(t, err)
		require.Equal(t, []fanout.Cause{fanout.Nacked, fanout.Expired}, kit.CausesOf(ls[0]))
		require.Equal(t, []fanout.Cause{fanout.Expired}, kit.CausesOf(ls[1]))
		require.Equal(t, 1, q.Stats().Retrying)
		kit.Check(t, top)

		n, err := q.Redrive(ctx) // begins anew
		require.NoError(t, err)
		require.Equal(t, 2, n)
		kit.Elapse(5*time.Second - 1)
		require.Equal(t, 1, kit.Receive(t, q).Body)
		require.Equal(t, 2, kit.Receive(t, q).Body)
		require.Equal(t, 3, kit.Receive(t, q).Body)
		y.Note("now")
		require.Equal(t, []string{"24.999999998s: now"}, y.Read())
		require.Equal(t, 1, kit.Receive(t, forever).Body)
		require.Equal(t, 3, kit.Receive(t, forever).Body, "a message's own holds in all queues")
		kit.RequireEmpty(t, forever)

		late := kit.OpenQueue(t, top, "late", fanout.WithReplay(10))
		require.Equal(t, []int{1, 3}, kit.Bodies(t, late), "a replay skips what has expired")
		later := kit.OpenQueue(t, top, "later", fanout.WithReplay(10), fanout.WithTimeToLive(time.Second))
		require.Equal(t, []int{3}, kit.Bodies(t, later))
		kit.Check(t, top)
		top.Close()
	})
	t.Run("exactly at its end", func(t *testing.T) {
		kit.Bubble(t, func(t *testing.T, ctx context.Context) {
			top := kit.NewTopic[int](t)
			q := kit.OpenQueue(t, top, "q", fanout.WithTimeToLive(10*time.Second))
			kit.Publish(t, top, 1)
			got := make(chan int, 2)
			kit.Elapse(10 * time.Second)
			go func() {
				for d, err := range q.Deliveries(ctx) {
					if err == nil {
						got <- d.Body
					}
				}
			}()
			synctest.Wait()
			require.Empty(t, got)
			require.Equal(t, []int{1}, kit.DeadBodies(t, q))
			kit.Publish(t, top, 2)
			synctest.Wait()
			require.Equal(t, 2, <-got)
			kit.Check(t, top)
			top.Close()
		})
	})
}

func TestCombinationOfATimeToLiveWithAMessageInFlight(t *testing.T) {
	// The time to live passes while the message is in flight: what comes of each end.
	for name, row := range map[string]struct {
		end  func(ctx context.Context, d fanout.Delivery[int]) error
		want []fanout.Cause
	}{
		"ack":  {func(ctx context.Context, d fanout.Delivery[int]) error { return d.Ack(ctx) }, nil},
		"nack": {func(ctx context.Context, d fanout.Delivery[int]) error { return d.Nack(ctx) }, []fanout.Cause{fanout.Nacked, fanout.Expired}},
		"snooze": {func(ctx context.Context, d fanout.Delivery[int]) error {
			return d.Settle(ctx, fanout.Snooze(time.Hour))
		}, []fanout.Cause{fanout.Snoozed, fanout.Expired}},
		"permanent": {func(ctx context.Context, d fanout.Delivery[int]) error {
			return d.Settle(ctx, fanout.Permanent(kit.ErrBusy))
		}, []fanout.Cause{fanout.PermanentlyFailed}},
		"time-out": {func(context.Context, fanout.Delivery[int]) error { kit.Elapse(time.Minute); return nil }, []fanout.Cause{fanout.TimedOut, fanout.Expired}},
		"extend, ack": {func(ctx context.Context, d fanout.Delivery[int]) error {
			return errors.Join(d.Extend(ctx, time.Hour), d.Ack(ctx))
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			kit.Bubble(t, func(t *testing.T, ctx context.Context) {
				top := kit.NewTopic[int](t)
				q := kit.OpenQueue(t, top, "q", fanout.WithTimeToLive(10*time.Second), fanout.WithVisibilityTimeout(time.Minute), fanout.WithBackoff(fanout.Constant(1)))
				kit.Publish(t, top, 1)
				kit.Elapse(9 * time.Second)
				d := kit.Receive(t, q)
				kit.Elapse(time.Second)
				require.Equal(t, 1, q.Stats().InFlight, "it may finish")
				require.NoError(t, row.end(ctx, d))
				require.Zero(t, q.Stats().Unsettled())
				ls, err := q.DeadLetters().Peek(ctx, 9)
				require.NoError(t, err)
				if row.want == nil {
					require.Empty(t, ls)
					require.Equal(t, uint64(1), q.Stats().Acked)
				} else {
					require.Len(t, ls, 1)
					require.Equal(t, row.want, kit.CausesOf(ls[0]))
				}
				kit.Check(t, top)
				top.Close()
			})
		})
	}
}

func TestTheTimeToLiveOfAMessageBeginsAnewWithARedrive(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "q")
		require.NoError(t, top.PublishMessages(ctx, fanout.Message[int]{Body: 1, TimeToLive: time.Minute}))
		require.NoError(t, kit.Receive(t, q).Settle(ctx, fanout.Permanent(kit.ErrBusy)))
		time.Sleep(time.Hour)
		moved, err := q.Redrive(ctx)
		require.NoError(t, err)
		require.Equal(t, 1, moved)
		time.Sleep(time.Minute - 1)
		require.NoError(t, kit.Receive(t, q).NackAfter(ctx, 0))
		time.Sleep(time.Millisecond)
		synctest.Wait()
		kit.RequireEmpty(t, q)
		require.EqualValues(t, 1, q.Stats().Expired)
		top.Close()
	})
}

func TestARetryThatBecomesDueGoesBeforeWhatWaitsInAHand(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		var order []int
		s := kit.Subscribe(t, top, "q", func(_ context.Context, d fanout.Delivery[int]) error {
			order = append(order, d.Body)
			switch {
			case d.Body == 0 && d.Attempt() == 1:
				return fanout.RetryAfter(kit.ErrBusy, time.Millisecond)
			case d.Body == 2:
				time.Sleep(600 * time.Microsecond) // what is prefetched stays with a worker for a millisecond
			}
			return nil
		})
		kit.Publish(t, top, 0)
		time.Sleep(500 * time.Microsecond) // so that 0 is due before the timer looks at what is prefetched
		// The worker takes one, then two at once: 3 is prefetched when 0 is due.
		require.NoError(t, top.PublishMessages(ctx, fanout.Message[int]{Body: 1}, fanout.Message[int]{Body: 2}, fanout.Message[int]{Body: 3}))
		synctest.Wait()
		require.Equal(t, 1, s.Queue().Stats().Ready)
		time.Sleep(time.Second)
		synctest.Wait()
		require.Equal(t, []int{0, 1, 2, 0, 3}, order)
		top.Close()
	})
}
