package delivery

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/settings"
	"github.com/gofanout/fanout/internal/store"
)

// A batch takes what is plain and what is not, in order, over the blocks of leases.
func TestABatchTakesAllKindsInTheirOrder(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var told []notice.Event
		h := newHome(t, hooked(notice.Delivered, func(e notice.Event) { told = append(told, e) }))
		var is []message.Item[int]
		for k := range 300 {
			it := message.Item[int]{Body: k}
			switch k % 50 {
			case 7:
				it.Ext = &message.Extra{ID: "order", Attributes: map[string]string{"a": "1"}}
			case 8:
				it.Ext = &message.Extra{Key: string(rune('a' + k/50))}
			case 9:
				it.Ext = &message.Extra{TTL: time.Hour}
			}
			is = append(is, it)
		}
		h.items(is...)
		at := time.Now()
		ds := batch(t, h.q, 300)
		require.Equal(t, from(0, 300), bodiesOf(ds))
		require.Len(t, told, 300)
		stamps := map[uint64]bool{}
		for k, d := range ds {
			require.Equal(t, []any{k, 1, uint64(k + 1), is[k].Ext}, []any{d.Body, d.Attempt(), d.Sequence(), d.Ext})
			require.Nil(t, d.History())
			require.True(t, at.Equal(d.PublishedAt()))
			require.True(t, at.Add(10*time.Second).Equal(d.Deadline()))
			require.False(t, stamps[d.Ref.Stamp], "two deliveries have one stamp")
			stamps[d.Ref.Stamp] = true
			e := told[k]
			require.Equal(t, []any{d.ID(), 1, 1}, []any{e.MessageID, e.Attempt, e.Count})
			require.True(t, at.Equal(e.PublishedAt))
		}
		require.Equal(t, counts{inFlight: 300}, countsOf(h.q))
		require.Empty(t, AckAll(ctx, h.q, ds))
		require.Equal(t, counts{acked: 300}, countsOf(h.q))
		h.end(t)
	})
}

// What timed out together is taken again together, with what each has been through.
func TestWhatTimedOutTogetherIsTakenAgain(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t)
		h.publish(from(0, 100)...)
		batch(t, h.q, 100)
		elapse(10*time.Second - 1)
		requireNone(t, h.q)
		elapse(1)
		require.Equal(t, counts{ready: 100}, countsOf(h.q))
		ds := batch(t, h.q, 100)
		require.Equal(t, from(0, 100), bodiesOf(ds))
		for _, d := range ds {
			require.Equal(t, 2, d.Attempt())
			require.Len(t, d.History(), 1)
			require.Equal(t, message.TimedOut, d.History()[0].Cause)
			require.Equal(t, 10*time.Second, d.History()[0].Elapsed)
		}
		h.end(t)
	})
}

// What is due and the backlog take turns.
func TestWhatIsDueAndTheBacklogTakeTurnsInABatch(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t)
		h.publish(0, 1, 2)
		for _, d := range batch(t, h.q, 3) {
			require.NoError(t, d.Nack(ctx))
		}
		elapse(time.Second)
		h.publish(10, 11, 12)
		require.Equal(t, []int{0, 10, 1, 11, 2, 12}, bodiesOf(batch(t, h.q, 6)))
		h.end(t)
	})
}

// What has expired is dead, and no delivery is made of it.
func TestABatchStepsOverWhatHasExpired(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t, limits(func(q *settings.Limits) { q.TTL = time.Minute }))
		h.publish(1, 2)
		elapse(time.Minute)
		h.publish(3)
		ds, err := TakeBatch(ctx, h.q, 10, time.Minute)
		require.NoError(t, err)
		require.Equal(t, []int{3}, bodiesOf(ds))
		dead := h.q.DeadNow()
		require.Equal(t, counts{ready: 2}, countsOf(dead))
		require.Equal(t, message.Expired, receive(t, dead).History()[0].Cause)
		requireNone(t, h.q)
		h.end(t)
	})
	for _, entries := range []bool{false, true} {
		bubble(t, func(t *testing.T, ctx context.Context) {
			h := newHome(t, limits(func(q *settings.Limits) { q.TTL = time.Minute }))
			h.q.Entries = entries
			h.publish(1)
			elapse(time.Minute)
			drained := make(chan struct{})
			h.q.Locked(func() { h.q.Drained = drained })
			requireNone(t, h.q)
			select {
			case <-drained:
			default:
				t.Fatal("there is nothing any more")
			}
			h.end(t)
		})
	}
}

// The timer is armed for what was taken, if nothing comes before.
func TestWhatWasTakenTimesOutAtItsInstantWhateverElseIsArmed(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t)
		h.publish(1, 2, 3)
		began := time.Now()
		ds := make([]Delivery[int], 3)
		for k, vis := range []time.Duration{time.Hour, time.Minute, 2 * time.Hour} {
			_, err := TakeInto(ctx, h.q, ds[k:k+1], vis)
			require.NoError(t, err)
			elapse(5 * time.Millisecond)
		}
		got := batch(t, h.q, 1)
		require.Equal(t, 2, got[0].Body)
		require.Equal(t, time.Minute+5*time.Millisecond, time.Since(began))
		require.NoError(t, got[0].Ack(ctx))
		got = batch(t, h.q, 1)
		require.Equal(t, 1, got[0].Body)
		require.Equal(t, time.Hour, time.Since(began))
		require.NoError(t, got[0].Ack(ctx))
		got = batch(t, h.q, 1)
		require.Equal(t, 3, got[0].Body)
		require.Equal(t, 2*time.Hour+10*time.Millisecond, time.Since(began))
		h.end(t)
	})
	bubble(t, func(t *testing.T, ctx context.Context) { // though the queue is looked at in a moment
		h := newHome(t)
		h.publish(1, 2)
		began := time.Now()
		ds := make([]Delivery[int], 2)
		for k, vis := range []time.Duration{time.Hour, 100 * time.Microsecond} {
			_, err := TakeInto(ctx, h.q, ds[k:k+1], vis)
			require.NoError(t, err)
		}
		require.Equal(t, 2, batch(t, h.q, 1)[0].Body)
		require.Equal(t, 100*time.Microsecond, time.Since(began))
		h.end(t)
	})
	bubble(t, func(t *testing.T, ctx context.Context) { // before the queue is looked at
		h := newHome(t)
		h.publish(1)
		began := time.Now()
		ds := make([]Delivery[int], 1)
		_, err := TakeInto(ctx, h.q, ds, 100*time.Microsecond)
		require.NoError(t, err)
		require.EqualValues(t, 1, h.q.Store.Delivered, "it is counted at once")
		require.Equal(t, 2, batch(t, h.q, 1)[0].Attempt())
		require.Equal(t, 100*time.Microsecond, time.Since(began))
		elapse(5 * time.Millisecond)
		require.True(t, resting(h.q), "the log was let go of")
		h.end(t)
	})
}

// Of dead letters the entry stays where it is, in the state that is asked for.
func TestAClaimPutsAnEntryInFlightWhereItIs(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var told []notice.Event
		h := newHome(t, attempts(1), hooked(notice.Delivered, func(e notice.Event) { told = append(told, e) }))
		h.publish(1, 2)
		for _, d := range batch(t, h.q, 2) {
			require.NoError(t, d.Settle(ctx, errBusy))
		}
		told = nil
		dead := h.q.DeadNow()
		dead.Mu.Lock()
		now := dead.Core.Now()
		d, ok := ClaimAtLocked(dead, now, time.Minute, store.InHandler)
		require.True(t, ok)
		require.Equal(t, []any{1, 1, 1, dead}, []any{d.Body, d.Attempt(), len(d.History()), d.Q})
		require.Equal(t, 1, dead.Store.In(store.InHandler))
		require.Equal(t, now+int64(time.Minute), dead.Store.Win.Meta(d.Ref.Block).Deadline)
		require.True(t, dead.Store.Win.Owns(d.Ref.Block, d.Ref.Stamp))
		_, ok = ClaimAtLocked(dead, now, time.Minute, store.InFlight)
		require.True(t, ok)
		_, ok = ClaimAtLocked(dead, now, time.Minute, store.InFlight)
		require.False(t, ok)
		dead.ArmLocked(now)
		dead.Unlock()
		require.Len(t, told, 2)
		require.Equal(t, []any{d.ID(), 1, "q/dead"}, []any{told[0].MessageID, told[0].Attempt, told[0].Queue})
		require.NoError(t, d.Ack(ctx))
		h.end(t)
	})
}

// A worker copies what it prefetches: attempts are first ones, and stamps follow each other.
func TestWhatIsCopiedOutIsNamedInARow(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t)
		h.publish(5, 6)
		x := &message.Extra{ID: "a"}
		h.items(message.Item[int]{Body: 7, Ext: x})
		ds := []Delivery[int]{{Receipt: Receipt[int]{Hist: new(message.History)}}, {}}
		h.q.Locked(func() { CopyOut(h.q, ds, h.q.Store.Cursor.Run(3)[1:], message.Ref{Stamp: 40, Block: 3}) })
		require.Equal(t, []int{6, 7}, bodiesOf(ds))
		for k, d := range ds {
			require.Equal(t, message.Ref{Stamp: 40 + uint64(k), Block: 3, Attempt: 1}, d.Ref)
			require.Equal(t, []any{h.q, uint64(k + 2)}, []any{d.Q, d.Seq})
			require.Nil(t, d.Hist)
			require.Positive(t, d.At)
		}
		require.Nil(t, ds[0].Ext)
		require.Same(t, x, ds[1].Ext)
		h.end(t)
	})
}

// A lease is filled message by message, with what each has been through.
func TestALeaseIsFilledWithTheNextMessage(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t)
		h.publish(1)
		require.NoError(t, receive(t, h.q).Nack(ctx))
		elapse(time.Second)
		h.q.Mu.Lock()
		now := h.q.Core.Now()
		leases := h.q.Store.OpenLeases()
		l := leases.Fill(2, int64(time.Minute))
		require.True(t, FillLocked(h.q, l, now))
		require.False(t, FillLocked(h.q, l, now), "there is no other")
		r := leases.Run(l, 0)
		ds := make([]Delivery[int], 3)
		require.Equal(t, 1, DeliverLocked(h.q, ds, &r))
		h.q.Store.Tally()
		h.q.ArmLocked(now)
		h.q.Unlock()
		require.Equal(t, []any{1, 2, 1, uint64(1)}, []any{ds[0].Body, ds[0].Attempt(), len(ds[0].History()), ds[0].Seq})
		require.True(t, time.Now().Add(time.Minute).Equal(ds[0].Deadline()))
		require.Zero(t, ds[1])
		require.NoError(t, ds[0].Ack(ctx))
		h.end(t)
	})
}
