package topic

import (
	"context"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/lease"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/settings"
	"github.com/gofanout/fanout/internal/view"
)

func TestAckBatchAcknowledgesAllThatItCanAndNamesTheOthers(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "q", WithVisibilityTimeout(time.Minute))
		foreign := openQueue(t, top, "foreign")
		publish(t, top, to(0, 7)...)
		var ds []delivery.Delivery[int]
		for range 8 {
			ds = append(ds, receive(t, q))
		}
		require.NoError(t, ds[1].Ack(ctx))
		require.NoError(t, ds[2].Nack(ctx))
		require.NoError(t, ds[3].Extend(ctx, time.Hour)) // no longer as it was received
		var other delivery.Delivery[int]
		for range 8 {
			other = receive(t, foreign) // the last has the place there that ds[7] has here
		}
		time.Sleep(time.Second)

		err := ackBatchOf(q, ctx, ds[0], ds[1], ds[2], ds[3], other, delivery.Delivery[int]{}, ds[4], ds[4])
		require.ErrorIs(t, err, message.ErrSettled)
		require.ErrorIs(t, err, message.ErrStale)
		require.ErrorIs(t, err, message.ErrInvalidOption)
		require.NotErrorIs(t, err, message.ErrClosed)
		for _, d := range []delivery.Delivery[int]{ds[1], ds[2], ds[4], other} {
			require.ErrorContains(t, err, d.ID())
		}
		require.NotContains(t, err.Error(), ds[0].ID())
		require.NotContains(t, err.Error(), ds[3].ID())
		require.ErrorContains(t, err, `a delivery of queue "foreign"`)
		s := view.StatsOf(q)
		require.Equal(t, []uint64{4, 1}, []uint64{s.Acked, s.Nacked})
		require.Equal(t, 3, s.InFlight)
		require.Equal(t, 8, view.StatsOf(foreign).InFlight, "left alone")
		require.False(t, ds[7].Deadline().IsZero(), "and so is its neighbour here")
		check(t, top)

		require.NoError(t, ackBatchOf(q, ctx))
		require.NoError(t, ackBatchOf(q, ctx, ds[5:7]...))
		time.Sleep(time.Minute)
		synctest.Wait()
		require.ErrorIs(t, ackBatchOf(q, ctx, ds[7]), message.ErrStale)
		check(t, top)
		top.Close()
		require.ErrorIs(t, ackBatchOf(q, ctx, ds[7]), message.ErrClosed)
	})
}

func TestAckBatchMakesRoomAndLetsAShutdownEnd(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "q", WithCapacity(3))
		publish(t, top, 0, 1, 2)
		ds, err := receiveBatch(q, ctx, 3)
		require.NoError(t, err)
		published := make(chan error, 1)
		go func() { published <- top.PublishMessages(ctx, make([]message.Published[int], 2)...) }()
		synctest.Wait()
		require.Empty(t, published)
		require.NoError(t, ackBatchOf(q, ctx, ds...))
		synctest.Wait()
		require.Len(t, published, 1, "at once")
		require.NoError(t, <-published)

		ds, err = receiveBatch(q, ctx, 3)
		require.NoError(t, err)
		done := make(chan error, 1)
		go func() { done <- top.Shutdown(ctx) }()
		synctest.Wait()
		require.Empty(t, done)
		require.NoError(t, ackBatchOf(q, ctx, ds...))
		synctest.Wait()
		require.Len(t, done, 1, "at once")
		require.NoError(t, <-done)
	})
}

func TestAckBatchIsToldToTheHooksLikeAck(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var settled []message.Cause
		top := newTopic[int](t, WithHooks(Hooks{Settled: func(e Event) { settled = append(settled, e.Cause) }}))
		q := openQueue(t, top, "q")
		publish(t, top, 0, 1)
		ds, err := receiveBatch(q, ctx, 2)
		require.NoError(t, err)
		require.NoError(t, ackBatchOf(q, ctx, ds...))
		require.Equal(t, []message.Cause{message.Acked, message.Acked}, settled)
		top.Close()
	})
}

// Many are received, and settled in any order and way, or not at all; each
// stands on its own.
func TestWhatIsReceivedTogetherIsSettledApart(t *testing.T) {
	for seed := range uint64(8) {
		bubble(t, func(t *testing.T, ctx context.Context) {
			rnd := rand.New(rand.NewPCG(seed, 7))
			top := newTopic[int](t)
			q := openQueue(t, top, "q", WithCapacity(10_000), WithMaxAttempts(message.Unlimited), WithVisibilityTimeout(time.Minute), WithBackoff(settings.Constant(time.Hour)))
			want := map[int]message.Cause{}
			type open struct {
				delivery.Delivery[int]
				until time.Time
			}
			var hand []open
			var over []delivery.Delivery[int]
			for n := range 400 {
				publish(t, top, n)
				d := receive(t, q)
				require.Equal(t, n, d.Body)
				require.Equal(t, time.Now().Add(time.Minute), d.Deadline())
				hand = append(hand, open{d, d.Deadline()})
				for len(hand) > 0 && rnd.IntN(40) < int(12+seed) {
					k := rnd.IntN(len(hand))
					o := &hand[k]
					switch rnd.IntN(6) {
					case 0:
						require.NoError(t, o.Nack(ctx))
						want[o.Body] = message.Nacked
					case 1:
						require.NoError(t, o.Extend(ctx, 2*time.Minute))
						o.until = time.Now().Add(2 * time.Minute)
						require.Equal(t, o.until, o.Deadline())
						continue
					default:
						require.NoError(t, o.Ack(ctx))
						want[o.Body] = message.Acked
					}
					require.ErrorIs(t, o.Ack(ctx), message.ErrSettled)
					over = append(over, o.Delivery)
					hand = append(hand[:k], hand[k+1:]...)
				}
				if n%16 == 0 {
					check(t, top)
				}
				time.Sleep(time.Duration(rnd.IntN(3)) * 10 * time.Millisecond)
			}
			require.Equal(t, len(hand), view.StatsOf(q).InFlight)
			// The others time out, each at its instant.
			for now := time.Now(); len(hand) > 0; now = time.Now() {
				next := hand[0].until
				for _, o := range hand {
					if o.until.Before(next) {
						next = o.until
					}
				}
				time.Sleep(next.Sub(now) - 1)
				synctest.Wait()
				require.Equal(t, len(hand), view.StatsOf(q).InFlight)
				time.Sleep(time.Nanosecond)
				synctest.Wait()
				left := hand[:0]
				for _, o := range hand {
					if o.until.Equal(next) {
						want[o.Body] = message.TimedOut
						require.ErrorIs(t, o.Ack(ctx), message.ErrStale)
					} else {
						left = append(left, o)
					}
				}
				hand = left
				require.Equal(t, len(hand), view.StatsOf(q).InFlight)
				check(t, top)
			}
			for _, d := range over {
				require.ErrorIs(t, d.Ack(ctx), message.ErrSettled)
			}
			counts := map[message.Cause]uint64{}
			for _, c := range want {
				counts[c]++
			}
			s := view.StatsOf(q)
			require.Equal(t, []uint64{counts[message.Acked], counts[message.Nacked], counts[message.TimedOut]}, []uint64{s.Acked, s.Nacked, s.TimedOut})
			require.Positive(t, s.TimedOut)
			check(t, top)
			top.Close()
			<-top.Done()
		})
	}
}

// Blocks of what was received together end in any order, and what is left of
// others still times out in order.
func TestWholeBlocksOfReceivedMessagesEndInAnyOrder(t *testing.T) {
	const blocks, length = 6, lease.Len
	for seed := range uint64(12) {
		bubble(t, func(t *testing.T, ctx context.Context) {
			rnd := rand.New(rand.NewPCG(seed, 9))
			top := newTopic[int](t)
			q := openQueue(t, top, "q", WithCapacity(10_000), WithVisibilityTimeout(time.Minute))
			began := time.Now()
			var ds []delivery.Delivery[int]
			for n := range 4 + blocks*length {
				publish(t, top, n)
				ds = append(ds, receive(t, q))
				time.Sleep(time.Millisecond)
			}
			left := len(ds)
			keep := map[int]bool{}
			for _, b := range rnd.Perm(blocks) {
				from := 4 + b*length
				k := from + rnd.IntN(length) // of some blocks one message stays in flight
				for n := from; n < from+length; n++ {
					if b%3 == 1 && n == k {
						keep[n] = true
						continue
					}
					require.NoError(t, ds[n].Ack(ctx))
					left--
				}
				check(t, top)
				require.Equal(t, left, view.StatsOf(q).InFlight)
				publish(t, top, -1) // another one is received in between
				require.NoError(t, receive(t, q).Ack(ctx))
				check(t, top)
			}
			for n := range 4 {
				keep[n] = true
			}
			require.Len(t, keep, left)
			for n := range ds {
				if !keep[n] {
					require.ErrorIs(t, ds[n].Ack(ctx), message.ErrSettled)
					continue
				}
				deadline := began.Add(time.Duration(n)*time.Millisecond + time.Minute)
				require.Equal(t, deadline, ds[n].Deadline())
				time.Sleep(time.Until(deadline) - 1)
				synctest.Wait()
				require.Equal(t, left, view.StatsOf(q).InFlight)
				time.Sleep(time.Nanosecond)
				synctest.Wait()
				left--
				require.Equal(t, left, view.StatsOf(q).InFlight)
				require.ErrorIs(t, ds[n].Ack(ctx), message.ErrStale)
				check(t, top)
			}
			top.Close()
			<-top.Done()
		})
	}
}

func TestReceivesThatHideForDifferentTimesDoNotMix(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "q", WithVisibilityTimeout(time.Minute))
		publish(t, top, to(0, 5)...)
		hide := []time.Duration{time.Minute, 2 * time.Minute, time.Minute, time.Second, time.Minute, time.Hour}
		began := time.Now()
		var ds []delivery.Delivery[int]
		for _, d := range hide {
			ds = append(ds, receive(t, q, WithVisibilityTimeout(d)))
		}
		for k, d := range ds {
			require.Equal(t, k, d.Body)
			require.Equal(t, began.Add(hide[k]), d.Deadline())
		}
		for _, step := range []struct {
			at   time.Duration
			left int
		}{{time.Second, 5}, {time.Minute, 2}, {2 * time.Minute, 1}, {time.Hour, 0}} {
			time.Sleep(time.Until(began.Add(step.at)) - 1)
			require.Less(t, step.left, view.StatsOf(q).InFlight)
			time.Sleep(time.Nanosecond)
			synctest.Wait()
			require.Equal(t, step.left, view.StatsOf(q).InFlight)
			check(t, top)
		}
		top.Close()
	})
}
