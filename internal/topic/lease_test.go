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
	"github.com/gofanout/fanout/internal/lifecycle"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/settings"
	"github.com/gofanout/fanout/internal/view"
)

// receiveAll receives n messages, singly or in batches of odd lengths.
func receiveAll(t *testing.T, q *queue.Queue[int], n int) (ds []delivery.Delivery[int]) {
	t.Helper()
	for len(ds) < n {
		if len(ds)%2 == 0 {
			ds = append(ds, receive(t, q))
			continue
		}
		more, err := receiveBatch(q, t.Context(), min(37, n-len(ds)))
		require.NoError(t, err)
		ds = append(ds, more...)
	}
	for k, d := range ds {
		require.Equal(t, k, d.Body)
		require.Equal(t, 1, d.Attempt())
	}
	return ds
}

// Three leases and a bit.
const ofLeases = 3*lease.Len + 7

func TestALeaseIsAcknowledgedInAnyOrder(t *testing.T) {
	for name, order := range map[string]func(n int) []int{
		"forwards": func(n int) []int { return from(0, n) },
		"backwards": func(n int) (ks []int) {
			for k := n - 1; k >= 0; k-- {
				ks = append(ks, k)
			}
			return ks
		},
		"at random": rand.New(rand.NewPCG(1, 2)).Perm,
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				top := newTopic[int](t)
				q := openQueue(t, top, "q", WithMaxAttempts(1))
				ms := make([]message.Published[int], ofLeases)
				for k := range ms {
					ms[k] = message.Published[int]{Body: k, Attributes: map[string]string{"k": "v"}}
				}
				for range 3 { // leases that are used again, too
					publishAll(t, top, ms...)
					ds := receiveAll(t, q, ofLeases)
					for n, k := range order(ofLeases) {
						require.NoError(t, ds[k].Ack(ctx))
						require.Equal(t, ofLeases-n-1, view.StatsOf(q).InFlight)
						check(t, top)
						require.ErrorIs(t, ds[k].Ack(ctx), message.ErrSettled)
						require.ErrorIs(t, ds[k].Nack(ctx), message.ErrSettled)
						require.True(t, ds[k].Deadline().IsZero())
					}
				}
				time.Sleep(time.Hour)
				require.Zero(t, view.StatsOf(q).Unsettled())
				require.Zero(t, view.StatsOf(q).TimedOut)
				require.NoError(t, top.Close())
			})
		})
	}
}

func TestWhatHappensToOneMessageOfALease(t *testing.T) {
	const vis = 10 * time.Second
	for _, at := range []int{0, 1, 63, 64, 100, ofLeases - 1} {
		for name, row := range map[string]func(t *testing.T, q *queue.Queue[int], d delivery.Delivery[int]){
			"nacked": func(t *testing.T, q *queue.Queue[int], d delivery.Delivery[int]) {
				require.NoError(t, d.NackAfter(t.Context(), time.Second))
				require.ErrorIs(t, d.Ack(t.Context()), message.ErrSettled)
				elapse(time.Second)
				again := receive(t, q)
				require.Equal(t, at, again.Body)
				require.Equal(t, 2, again.Attempt())
				require.NoError(t, again.Ack(t.Context()))
				require.ErrorIs(t, d.Ack(t.Context()), message.ErrSettled)
			},
			"extended": func(t *testing.T, q *queue.Queue[int], d delivery.Delivery[int]) {
				require.Equal(t, time.Now().Add(vis), d.Deadline())
				require.NoError(t, d.Extend(t.Context(), time.Minute))
				require.Equal(t, time.Now().Add(time.Minute), d.Deadline())
				elapse(time.Minute - 1)
				require.NoError(t, d.Ack(t.Context()))
				require.ErrorIs(t, d.Ack(t.Context()), message.ErrSettled)
			},
			"timed out": func(t *testing.T, q *queue.Queue[int], d delivery.Delivery[int]) {
				elapse(vis - 1)
				require.Equal(t, 1, view.StatsOf(q).InFlight)
				elapse(1)
				require.ErrorIs(t, d.Ack(t.Context()), message.ErrStale)
				require.ErrorIs(t, ackBatchOf(q, t.Context(), d), message.ErrStale)
				again := receive(t, q)
				require.Equal(t, at, again.Body)
				require.Equal(t, message.TimedOut, again.History()[0].Cause)
				require.Equal(t, vis, again.History()[0].Elapsed)
				require.NoError(t, again.Ack(t.Context()))
			},
			"purged": func(t *testing.T, q *queue.Queue[int], d delivery.Delivery[int]) {
				n, err := lifecycle.Purge(t.Context(), q)
				require.NoError(t, err)
				require.Equal(t, 1, n)
				require.ErrorIs(t, d.Ack(t.Context()), message.ErrStale)
				require.ErrorIs(t, ackBatchOf(q, t.Context(), d), message.ErrStale)
			},
			"left by the queue": func(t *testing.T, q *queue.Queue[int], d delivery.Delivery[int]) {
				require.NoError(t, lifecycle.Close(q))
				require.ErrorIs(t, d.Ack(t.Context()), message.ErrClosed)
				require.ErrorIs(t, ackBatchOf(q, t.Context(), d), message.ErrClosed)
				require.Len(t, lifecycle.Leftovers(q), 1)
				require.Equal(t, at, lifecycle.Leftovers(q)[0].Body)
			},
		} {
			t.Run(name, func(t *testing.T) {
				bubble(t, func(t *testing.T, ctx context.Context) {
					top := newTopic[int](t)
					q := openQueue(t, top, "q", WithVisibilityTimeout(vis))
					publishOnce(t, top, ofLeases)
					ds := receiveAll(t, q, ofLeases)
					require.NoError(t, ackBatchOf(q, ctx, ds[:at]...))
					require.NoError(t, ackBatchOf(q, ctx, ds[at+1:]...))
					check(t, top)
					row(t, q, ds[at])
					check(t, top)
					if !q.Store.Closed {
						requireEmpty(t, q)
						require.Zero(t, view.StatsOf(q).Unsettled())
					}
					elapse(time.Hour)
					require.NoError(t, top.Close())
				})
			})
		}
	}
}

func TestLeasesTimeOutEachAtItsInstant(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "q", WithVisibilityTimeout(10*time.Second), WithMaxAttempts(message.Unlimited))
		publishOnce(t, top, ofLeases)
		for range ofLeases {
			receive(t, q)
			time.Sleep(time.Millisecond)
		}
		synctest.Wait()
		require.Equal(t, ofLeases, view.StatsOf(q).InFlight)
		time.Sleep(10*time.Second - ofLeases*time.Millisecond - 1)
		for k := range ofLeases {
			synctest.Wait()
			require.EqualValues(t, k, view.StatsOf(q).TimedOut)
			check(t, top)
			elapse(1)
			require.EqualValues(t, k+1, view.StatsOf(q).TimedOut)
			time.Sleep(time.Millisecond - 1)
		}
		require.NoError(t, top.Close())
	})
}

func TestAckBatchSaysWhichItCouldNot(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q, other := openQueue(t, top, "q", WithVisibilityTimeout(time.Second)), openQueue(t, top, "other")
		publishOnce(t, top, 100)
		stale := receive(t, q)
		elapse(time.Second)
		ds, err := receiveBatch(q, ctx, 50)
		require.NoError(t, err)
		require.Equal(t, 0, ds[0].Body, "the one that was stale, again")
		foreign := receive(t, other)
		require.NoError(t, ds[3].Ack(ctx))
		batch := append([]delivery.Delivery[int]{stale, foreign, {}, ds[7], ds[7]}, ds...)
		err = ackBatchOf(q, ctx, batch...)
		require.ErrorIs(t, err, message.ErrStale)
		require.ErrorIs(t, err, message.ErrSettled)
		require.ErrorIs(t, err, message.ErrInvalidOption)
		require.Contains(t, err.Error(), ds[3].ID())
		require.Contains(t, err.Error(), foreign.ID())
		require.Len(t, err.(interface{ Unwrap() []error }).Unwrap(), 6, "stale, foreign, zero, 7 twice more, 3")
		check(t, top)
		require.EqualValues(t, 50, view.StatsOf(q).Acked)
		require.Equal(t, 50, view.StatsOf(q).Unsettled())
		require.NoError(t, foreign.Ack(ctx), "it was left alone")
		require.NoError(t, ackBatchOf(q, ctx))
		require.NoError(t, top.Close())
	})
}

func TestAckBatchTakesNoDeliveryOfAnotherQueueForOneOfItsOwn(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q, other := openQueue(t, top, "q"), openQueue(t, top, "other")
		publishOnce(t, top, 3)
		own, foreign := receiveAll(t, q, 3), receiveAll(t, other, 3)
		require.Equal(t, own[1].Ref, foreign[1].Ref, "they look alike")
		require.ErrorIs(t, ackBatchOf(q, ctx, own[0], foreign[1]), message.ErrInvalidOption)
		require.Equal(t, []int{2, 3}, []int{view.StatsOf(q).InFlight, view.StatsOf(other).InFlight})
		require.NoError(t, own[1].Ack(ctx))
		require.NoError(t, foreign[1].Ack(ctx))
		check(t, top)
		require.NoError(t, top.Close())
	})
}

// The slice is used over and over: nothing of an earlier delivery may shine
// through, and nothing beyond what was received is touched.
func TestReceiveIntoFillsTheCallersSlice(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "q", WithBackoff(settings.Constant(time.Second)))
		room := make([]delivery.Delivery[int], 3)
		got := make(chan int, 1)
		go func() {
			n, err := receiveInto(q, ctx, room)
			require.NoError(t, err)
			got <- n
		}()
		synctest.Wait()
		require.Empty(t, got, "it waits for one")
		publish(t, top, 1)
		synctest.Wait()
		require.Equal(t, 1, <-got, "and not for more")
		require.Equal(t, 1, room[0].Body)
		require.Equal(t, make([]delivery.Delivery[int], 2), room[1:])
		require.NoError(t, room[0].Nack(ctx))
		elapse(time.Second)

		publish(t, top, 2, 3, 4, 5)
		n, err := receiveInto(q, ctx, room)
		require.NoError(t, err)
		require.Equal(t, 3, n)
		require.Equal(t, []int{1, 2, 3}, []int{room[0].Body, room[1].Body, room[2].Body})
		require.Equal(t, []int{2, 1, 1}, []int{room[0].Attempt(), room[1].Attempt(), room[2].Attempt()})
		require.Len(t, room[0].History(), 1)
		kept := room[2]
		require.NoError(t, ackBatchOf(q, ctx, room[:2]...))

		n, err = receiveInto(q, ctx, room)
		require.NoError(t, err)
		require.Equal(t, 2, n)
		require.Equal(t, []int{4, 5, 3}, []int{room[0].Body, room[1].Body, room[2].Body})
		require.Equal(t, 1, room[0].Attempt())
		require.Empty(t, room[0].History(), "that of the one before")
		require.Equal(t, time.Now().Add(30*time.Second), room[1].Deadline())
		require.NoError(t, kept.Ack(ctx), "a copy is not changed by the next call")
		check(t, top)
		ended, cancel := context.WithCancel(ctx)
		cancel()
		n, err = receiveInto(q, ended, room)
		require.ErrorIs(t, err, context.Canceled)
		require.Zero(t, n)
		require.Equal(t, 4, room[0].Body)
		require.NoError(t, top.Close())
	})
}

func TestReceivingIntoOneSliceAllocatesNothing(t *testing.T) {
	bubble(t, receivingIntoOneSlice)
}

func receivingIntoOneSlice(t *testing.T, ctx context.Context) {
	top := newTopic[*int](t)
	q := openQueue(t, top, "q")
	batch := make([]message.Published[*int], lease.Len)
	for k := range batch {
		batch[k].Body = new(int)
	}
	room := make([]delivery.Delivery[*int], lease.Len)
	each := testing.AllocsPerRun(100, func() {
		if err := top.PublishMessages(ctx, batch...); err != nil {
			t.Error(err)
		}
		n, err := receiveInto(q, ctx, room)
		if err != nil || n != lease.Len {
			t.Error(n, err)
		}
		if err := ackBatchOf(q, ctx, room[:n]...); err != nil {
			t.Error(err)
		}
	})
	require.Less(t, each, 1.0, "a batch published, received and acknowledged")
	require.NoError(t, top.Close())
}

func TestAReceiverThatWaitsAllocatesItsChannelAlone(t *testing.T) {
	bubble(t, aReceiverThatWaits)
}

func aReceiverThatWaits(t *testing.T, ctx context.Context) {
	top := newTopic[*int](t)
	q := openQueue(t, top, "q")
	received := make(chan error)
	go func() {
		for {
			d, err := receiveFrom(q, ctx)
			if err == nil {
				err = d.Ack(ctx)
			}
			received <- err
			if err != nil {
				return
			}
		}
	}()
	body := new(int)
	each := testing.AllocsPerRun(1000, func() {
		if err := top.In.Publish(ctx, body); err != nil {
			t.Error(err)
		}
		if err := <-received; err != nil {
			t.Error(err)
		}
	})
	require.LessOrEqual(t, each, 1.0, "a publish, a receive that waited, and an acknowledgement")
	require.NoError(t, top.Close())
	require.ErrorIs(t, <-received, message.ErrClosed)
}
