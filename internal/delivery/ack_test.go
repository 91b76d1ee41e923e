package delivery

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/alarm"
	"github.com/gofanout/fanout/internal/lease"
	"github.com/gofanout/fanout/internal/lifecycle"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/queue"
)

// The fast path acknowledges what nobody has to hear of, once, and leaves the rest.
func TestAckHereAcknowledgesWhatNobodyHasToHearOf(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t)
		h.publish(from(0, 3)...)
		d := receive(t, h.q)
		allow := h.q.Store.Allow.Load()
		require.True(t, AckHere(h.q, d.Ref))
		require.EqualValues(t, 1, h.q.Store.Acked, "it is counted at once")
		require.Equal(t, allow+1, h.q.Store.Allow.Load(), "and its room is there")
		require.Equal(t, counts{ready: 2, acked: 1}, countsOf(h.q))
		require.False(t, AckHere(h.q, d.Ref), "it is over")
		require.Equal(t, counts{ready: 2, acked: 1}, countsOf(h.q))

		d = receive(t, h.q)
		h.q.Local = false // interceptors stand around it
		require.False(t, AckHere(h.q, d.Ref))
		require.Equal(t, counts{ready: 1, inFlight: 1, acked: 1}, countsOf(h.q))
		h.q.Local = true
		require.True(t, AckHere(h.q, d.Ref))
		h.end(t)
	})
	bubble(t, func(t *testing.T, ctx context.Context) {
		told := 0
		h := newHome(t, hooked(notice.Settled, func(notice.Event) { told++ }))
		h.publish(1)
		d := receive(t, h.q)
		require.False(t, AckHere(h.q, d.Ref), "a hook has to hear of it")
		require.Zero(t, told)
		require.NoError(t, d.Ack(ctx))
		require.Equal(t, 1, told)
		h.end(t)
	})
}

func TestTheNextOfAKeyIsReadyOnceItsHeadIsAcknowledged(t *testing.T) {
	for name, ack := range map[string]func(ctx context.Context, q *queue.Queue[int], d Delivery[int]) error{
		"by itself": func(ctx context.Context, _ *queue.Queue[int], d Delivery[int]) error { return d.Ack(ctx) },
		"in a batch": func(ctx context.Context, q *queue.Queue[int], d Delivery[int]) error {
			return AckAll(ctx, q, []Delivery[int]{d})[0]
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				h := newHome(t)
				x := &message.Extra{Key: "k"}
				h.items(message.Item[int]{Body: 1, Ext: x}, message.Item[int]{Body: 2, Ext: x})
				d := receive(t, h.q)
				requireNone(t, h.q)
				require.NoError(t, ack(ctx, h.q, d))
				require.Equal(t, 2, receive(t, h.q).Body)
				h.end(t)
			})
		})
	}
}

// Once the last message is acknowledged a shutdown goes on, and no timer is left.
func TestTheLastAcknowledgementDrainsTheQueue(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t)
		h.publish(1, 2)
		a, b := receive(t, h.q), receive(t, h.q)
		elapse(10 * time.Millisecond) // the brief alarm has come
		require.True(t, h.q.Inside().TimerArmed)
		drained := lifecycle.AwaitDrained(h.q)
		require.NoError(t, a.Ack(ctx))
		select {
		case <-drained:
			t.Fatal("one is in flight")
		default:
		}
		require.True(t, h.q.Inside().TimerArmed)
		require.NoError(t, b.Ack(ctx))
		<-drained
		elapse(10 * time.Millisecond)
		require.False(t, h.q.Inside().TimerArmed)
		h.end(t)
	})
}

// The memory of a queue that was busy is given back though nothing comes any more.
func TestTheMemoryOfWhatWasAcknowledgedIsGivenBack(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t)
		h.publish(from(0, lease.Len)...)
		ds := batch(t, h.q, lease.Len)
		elapse(10 * time.Millisecond)
		require.Zero(t, checkAt(h.q))
		for _, d := range ds {
			require.False(t, leases(h.q) == nil)
			require.Zero(t, checkAt(h.q), "nothing is to be given back yet")
			require.NoError(t, d.Ack(ctx))
		}
		require.NotZero(t, checkAt(h.q))
		elapse(alarm.SpareAge - 1)
		require.False(t, leases(h.q) == nil)
		elapse(1)
		require.True(t, leases(h.q) == nil)
		require.False(t, h.q.Inside().TimerArmed)
		h.end(t)
	})
}

// Each delivery has its own outcome, whatever the others are.
func TestAckAllAcknowledgesWhatItCanAndSaysOfTheOthersWhyNot(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h, other := newHome(t), newHome(t)
		h.publish(from(0, 200)...)
		other.publish(1)
		ds := batch(t, h.q, 200)
		require.Empty(t, AckAll(ctx, h.q, nil))
		require.Empty(t, AckAll(ctx, h.q, ds[:70]))
		require.Equal(t, counts{inFlight: 130, acked: 70}, countsOf(h.q))

		elsewhere := receive(t, other.q)
		require.NoError(t, ds[150].Nack(ctx))
		stale := ds[151]
		var list []Delivery[int]
		list = append(list, elsewhere, Delivery[int]{}, ds[0])
		list = append(list, ds[70:160]...)
		list = append(list, ds[69], ds[100], elsewhere)
		list = append(list, ds[190], ds[180], ds[181], ds[170])
		for range 20 {
			list = append(list, ds[1])
		}
		list = append(list, ds[160])
		failed := AckAll(ctx, h.q, list)
		want := map[int]error{0: message.ErrInvalidOption, 1: message.ErrStale, 2: message.ErrSettled, 3 + 80: message.ErrSettled,
			93: message.ErrSettled, 94: message.ErrSettled, 95: message.ErrInvalidOption}
		for k := range 20 {
			want[100+k] = message.ErrSettled
		}
		require.Len(t, failed, len(want))
		for k, err := range want {
			require.ErrorIs(t, failed[k], err, "the one with index %d", k)
		}
		require.EqualError(t, failed[0], `message `+elsewhere.ID()+`: fanout: invalid option: a delivery of queue "q"`)
		require.EqualError(t, failed[2], `message `+ds[0].ID()+`: fanout: delivery already settled: queue "q"`)
		require.Equal(t, counts{retrying: 1, inFlight: 200 - 160 - 5, acked: 70 + 89 + 5}, countsOf(h.q))
		require.Equal(t, counts{inFlight: 1}, countsOf(other.q), "a delivery of another queue is left alone")
		require.Zero(t, stale.Deadline())
		for k := 161; k < 200; k++ {
			open := k != 190 && k != 180 && k != 181 && k != 170
			require.Equal(t, !open, ds[k].Deadline().IsZero(), "of %d", k)
		}
		elapse(10 * time.Second)
		require.ErrorIs(t, AckAll(ctx, h.q, ds[199:])[0], message.ErrStale)
		h.end(t)
		other.end(t)
	})
}

// A delivery of another queue may have the same name as one of this.
func TestAckAllTouchesNoOtherQueue(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h, other := newHome(t), newHome(t)
		h.publish(1, 2)
		other.publish(3, 4)
		mine, theirs := batch(t, h.q, 2), batch(t, other.q, 2)
		require.Equal(t, mine[0].Ref, theirs[0].Ref)
		require.Len(t, AckAll(ctx, h.q, theirs), 2)
		failed := AckAll(ctx, h.q, []Delivery[int]{mine[0], theirs[1]})
		require.Len(t, failed, 1)
		require.ErrorIs(t, failed[1], message.ErrInvalidOption)
		require.EqualValues(t, 1, h.q.Store.Acked, "it is counted at once")
		require.Equal(t, counts{inFlight: 1, acked: 1}, countsOf(h.q))
		require.Equal(t, counts{inFlight: 2}, countsOf(other.q))
		h.end(t)
		other.end(t)
	})
}

func TestAckAllMakesRoomAndIsHeardOf(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var told []string
		h := newHome(t, hooked(notice.Settled, func(e notice.Event) { told = append(told, e.MessageID) }))
		h.publish(from(0, 40)...)
		ds := batch(t, h.q, 40)
		allow := h.q.Store.Allow.Load()
		require.Empty(t, AckAll(ctx, h.q, ds))
		require.Equal(t, allow+40, h.q.Store.Allow.Load())
		var ids []string
		for _, d := range ds {
			ids = append(ids, d.ID())
		}
		require.Equal(t, ids, told)
		h.end(t)
	})
}

// One that is in entries of the window, as letters are, is acknowledged by itself.
func TestAckAllOfDeadLetters(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t, attempts(1))
		h.publish(1, 2, 3)
		for _, d := range batch(t, h.q, 3) {
			require.NoError(t, d.Settle(ctx, errBusy))
		}
		dead := h.q.DeadNow()
		ds := batch(t, dead, 3)
		require.NoError(t, ds[1].Ack(ctx))
		failed := AckAll(ctx, dead, ds)
		require.Len(t, failed, 1)
		require.ErrorIs(t, failed[1], message.ErrSettled)
		require.Equal(t, counts{acked: 3}, countsOf(dead))
		h.end(t)
	})
}
