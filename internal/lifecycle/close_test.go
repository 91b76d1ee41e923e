package lifecycle

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/ending"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/settings"
	"github.com/gofanout/fanout/internal/store"
	"github.com/gofanout/fanout/internal/workers"
)

// dropped has all events for what was dropped noted.
func dropped(told *[]notice.Event) setting {
	return hooked(notice.Dropped, func(e notice.Event) {
		*told = append(*told, notice.Event{Queue: e.Queue, Reason: e.Reason, Count: e.Count})
	})
}

// What a closed queue held is there to be looked at, in the order of publication, as it
// would have to be published again.
func TestACloseKeepsWhatWasLeft(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var told []notice.Event
		h := newHome(t, dropped(&told))
		h.items(
			message.Item[int]{Body: 0},
			message.Item[int]{Body: 1, Ext: &message.Extra{ID: "one", Attributes: map[string]string{"a": "1"}, Dedup: "twice", TTL: time.Hour}},
			message.Item[int]{Body: 2},
			message.Item[int]{Body: 3, Ext: &message.Extra{Key: "k"}},
			message.Item[int]{Body: 4, Ext: &message.Extra{Key: "k"}},
			message.Item[int]{Body: 5, Ext: &message.Extra{TTL: time.Minute}}, // has expired by then
			message.Item[int]{Body: 6},
			message.Item[int]{Body: 7},
			message.Item[int]{Body: 8},
		)
		id := h.IDOf(9, h.Now(), nil)
		elapse(time.Second)
		ds := take(t, h.q, 7) // of the key, one stands in line
		require.NoError(t, ds[0].NackAfter(ctx, 2*time.Minute))
		require.NoError(t, ds[1].Settle(ctx, message.Snooze(10*time.Minute)))
		require.NoError(t, ds[6].Release(ctx))
		require.NoError(t, ds[5].Ack(ctx))
		require.Equal(t, 6, ds[5].Body)
		require.NoError(t, ds[4].Release(ctx))
		require.Nil(t, Leftovers(h.q), "it is open")
		for _, d := range []delivery.Delivery[int]{ds[2], ds[3]} {
			require.NoError(t, d.Extend(ctx, time.Hour))
		}
		elapse(time.Minute)
		require.True(t, armed(h.q))
		require.NoError(t, Close(h.q))
		require.False(t, armed(h.q), "nothing comes any more")
		require.Zero(t, h.q.Store.Win.Len(), "it holds nothing else")
		require.Equal(t, ending.Left{Queue: "q", Ready: 2, Retrying: 1, Delayed: 1, InFlight: 2, Blocked: 1}, h.left)
		left := Leftovers(h.q)
		require.Equal(t, []int{0, 1, 2, 3, 4, 7, 8}, bodiesOf(left))
		require.Equal(t, message.Published[int]{Body: 1, ID: "one", Attributes: map[string]string{"a": "1"}, Delay: 9 * time.Minute, TimeToLive: 59*time.Minute - time.Second}, left[1])
		require.Equal(t, message.Published[int]{Body: 3, ID: left[3].ID, OrderingKey: "k"}, left[3])
		require.Equal(t, message.Published[int]{Body: 8, ID: id}, left[6])
		require.Equal(t, []notice.Event{{Queue: "q", Reason: notice.DroppedByClose, Count: 7}}, told)
		left[0].Body = 100
		require.Equal(t, 0, Leftovers(h.q)[0].Body, "it is a copy")
		require.Equal(t, message.Expired, take1(t, h.q.DeadNow()), "what had expired is dead, and no leftover")
		require.NoError(t, Close(h.q), "a second close does nothing")
		require.Len(t, told, 1)
		require.Equal(t, ending.Left{}, h.left)
		require.Len(t, Leftovers(h.q), 7)
		require.EqualValues(t, 9, h.q.Store.Published(0))
		h.over()
	})
}

// take1 is how the first letter of a queue, open or closed, came to die.
func take1(t *testing.T, dead *queue.Queue[int]) message.Cause {
	t.Helper()
	var cause message.Cause
	dead.Locked(func() {
		all := dead.Store.InOrder()
		require.Len(t, all, 1)
		cause = dead.Store.Win.At(all[0]).Hist.Last().Cause
	})
	return cause
}

// What is left of a delay or a time to live is at least 1 ns, as 0 would be the queue's own.
func TestWhatIsLeftOfADelayIsNeverNothing(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t, limits(func(q *settings.Limits) { q.Delay, q.TTL = time.Minute, time.Hour }))
		h.q.Store.Direct = true
		enter := func(it message.Item[int]) {
			h.q.Locked(func() {
				h.seq++
				it.Seq, it.At = h.seq, h.Now()
				h.q.Store.Offered++
				h.q.Store.Enter(&it, 0, h.Now())
				h.q.ArmLocked(h.Now())
			})
		}
		enter(message.Item[int]{Body: 1})
		enter(message.Item[int]{Body: 2, Ext: &message.Extra{Key: "k"}})
		elapse(20 * time.Second)
		enter(message.Item[int]{Body: 3})
		elapse(40 * time.Second)
		ds := take(t, h.q, 2)
		elapse(5 * time.Second)
		require.NoError(t, Close(h.q))
		left := Leftovers(h.q)
		require.Equal(t, []int{1, 2, 3}, bodiesOf(left))
		require.Equal(t, time.Duration(1), left[0].Delay, "its delay has passed")
		require.Zero(t, left[1].Delay, "with a key it can't have one")
		require.Equal(t, 15*time.Second, left[2].Delay)
		require.Equal(t, time.Hour-65*time.Second, left[0].TimeToLive)
		require.Equal(t, time.Hour-45*time.Second, left[2].TimeToLive)
		require.ErrorIs(t, ds[0].Ack(ctx), message.ErrClosed)
		h.over()
	})
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t, limits(func(q *settings.Limits) { q.TTL = 5 * time.Second }))
		h.publish(1, 2)
		d := take(t, h.q, 2)[0]
		elapse(5 * time.Second)
		require.NoError(t, Close(h.q))
		left := Leftovers(h.q)
		require.Equal(t, []int{1, 2}, bodiesOf(left), "what is in flight may succeed still")
		require.Equal(t, time.Duration(1), left[0].TimeToLive, "it has passed")
		require.ErrorIs(t, d.Ack(ctx), message.ErrClosed)
		h.over()
	})
}

// An empty queue leaves nothing, and tells nobody.
func TestAClosedEmptyQueueLeavesNothing(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var told []notice.Event
		h := newHome(t, dropped(&told))
		require.NoError(t, Close(h.q))
		require.Equal(t, ending.Left{Queue: "q"}, h.left)
		require.Equal(t, []message.Published[int]{}, Leftovers(h.q))
		require.Empty(t, told)
		h.over()
	})
}

// Whoever uses a queue hears at once that it is closed: handlers by their contexts, with the
// cause, and those who wait.
func TestACloseEndsHandlersAndWaits(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t)
		causes, ended := make(chan error, 4), make(chan error, 3)
		for range 2 {
			sub := settings.DefaultSubscriber()
			sub.Concurrency = 2
			_, err := workers.Start(h.q, func(ctx context.Context, d delivery.Delivery[int]) error {
				<-ctx.Done()
				causes <- context.Cause(ctx)
				return nil
			}, nil, sub)
			require.NoError(t, err)
		}
		h.publish(1, 2, 3, 4)
		synctest.Wait()
		require.Equal(t, int32(4), h.q.Group.Running)
		for range 3 {
			go func() {
				_, err := delivery.TakeBatch(ctx, h.q, 1, time.Minute)
				ended <- err
			}()
		}
		synctest.Wait()
		drained := AwaitDrained(h.q)
		require.NoError(t, Close(h.q))
		requireDone(t, drained)
		require.Equal(t, ending.Left{Queue: "q", InFlight: 4, Running: 4}, h.left)
		for range 4 {
			require.EqualError(t, <-causes, `fanout: closed: queue "q"`)
		}
		for range 3 {
			require.ErrorIs(t, <-ended, message.ErrClosed)
		}
		synctest.Wait()
		require.Empty(t, h.q.Group.Subs)
		require.False(t, h.q.Inside().TimerArmed)
		require.Zero(t, h.Idle.N.Load(), "it is none of those that wait for a publish")
		h.over()
	})
}

// What is deleted is counted and told, and nothing is left of it.
func TestADeleteLeavesNothing(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var told []notice.Event
		h := newHome(t, dropped(&told), attempts(1))
		h.publish(1, 2, 3, 4)
		ds := take(t, h.q, 2)
		require.NoError(t, ds[0].Settle(ctx, errBusy))
		require.NoError(t, Delete(ctx, h.q))
		require.Equal(t, ending.Left{Queue: "q", Ready: 2, InFlight: 1}, h.left)
		require.Equal(t, []notice.Event{{Queue: "q", Reason: notice.DroppedByDelete, Count: 3}, {Queue: "q/dead", Reason: notice.DroppedByDelete, Count: 1}}, told)
		require.Equal(t, []message.Published[int]{}, Leftovers(h.q))
		require.EqualValues(t, 3, h.q.Store.Totals().Dropped)
		require.EqualValues(t, 1, h.q.DeadNow().Store.Totals().Dropped)
		require.Zero(t, h.q.DeadNow().Store.Held())
		require.NoError(t, Delete(ctx, h.q))
		require.Len(t, told, 2, "a second delete finds nothing")
		h.over()
	})
}

// One that was closed before gives up what it kept, of which was told then.
func TestADeleteOfAClosedQueueForgetsItsLeftovers(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var told []notice.Event
		h := newHome(t, dropped(&told), attempts(1))
		h.publish(1, 2, 3)
		require.NoError(t, take(t, h.q, 1)[0].Settle(ctx, errBusy))
		require.NoError(t, Close(h.q))
		require.Equal(t, []notice.Event{{Queue: "q", Reason: notice.DroppedByClose, Count: 2}}, told, "letters are kept")
		require.Nil(t, Leftovers(h.q.DeadNow()), "they are no leftovers")
		require.Equal(t, 1, h.q.DeadNow().Store.Win.Len())
		require.Zero(t, h.q.Store.Totals().Dropped)
		require.NoError(t, Delete(ctx, h.q))
		require.EqualValues(t, 2, h.q.Store.Totals().Dropped)
		require.Equal(t, []message.Published[int]{}, Leftovers(h.q))
		require.Equal(t, notice.Event{Queue: "q/dead", Reason: notice.DroppedByDelete, Count: 1}, told[1])
		require.Len(t, told, 2)
		require.Zero(t, h.q.DeadNow().Store.Win.Len())
		h.over()
	})
}

// A dead-letter queue that is shared belongs to no topic, and ends by itself.
func TestASharedDeadLetterQueueEndsByItself(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var told []notice.Event
		h := newHome(t, dropped(&told))
		d := queue.NewDeadLetterQueue[int](h.Core, nil, "letters", settings.DefaultQueue().Limits)
		h.Live.Add(1)
		for k := range 3 {
			d.Locked(func() {
				d.Store.Offered++
				d.Store.Admit(store.Held[int]{Item: message.Item[int]{Seq: uint64(k + 1), Body: k}}, store.Backlogged)
			})
		}
		take(t, d, 1)
		for range 2 {
			d.Mu.Lock()
			d.NoteLocked(notice.Stuck, notice.Event{Count: 1})
			d.Unlock()
		}
		require.True(t, d.Report.Armed(), "the second has to wait for its second")
		require.NoError(t, Close(d))
		require.False(t, d.Report.Armed(), "it is logged by now")
		require.NoError(t, Close(d))
		require.True(t, d.Store.Closed)
		require.Equal(t, 3, d.Store.Win.Len(), "letters are kept")
		require.Empty(t, told)
		require.NoError(t, Delete(ctx, d))
		require.Zero(t, d.Store.Win.Len())
		require.Equal(t, []notice.Event{{Queue: "letters", Reason: notice.DroppedByDelete, Count: 3}}, told)
		require.NoError(t, Delete(ctx, d))
		require.Len(t, told, 1)
		h.end(t)
	})
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t)
		d := queue.NewDeadLetterQueue[int](h.Core, nil, "letters", settings.DefaultQueue().Limits)
		h.Live.Add(1)
		require.NoError(t, Delete(ctx, d), "one that is open")
		require.True(t, d.Store.Closed)
	})
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t)
		d := queue.NewDeadLetterQueue[int](h.Core, nil, "letters", settings.DefaultQueue().Limits)
		h.Live.Add(1)
		require.NoError(t, Close(d))
		require.EqualValues(t, 2, h.Live.N.Load(), "of the core, its queue and the letters, one has ended")
		h.end(t)
	})
}

func TestTheDeadLetterQueueOfAQueueIsItsOwn(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t)
		require.Nil(t, DeadIfAny(h.q))
		d := h.q.DeadLetters()
		require.Same(t, d, DeadIfAny(h.q))
		err := SourceIsOpen(d, false)
		require.ErrorIs(t, err, message.ErrUnsupported)
		require.EqualError(t, err, `fanout: unsupported: closing the dead-letter queue "q/dead": close "q" first`)
		err = SourceIsOpen(d, true)
		require.ErrorIs(t, err, message.ErrUnsupported)
		require.EqualError(t, err, `fanout: unsupported: deleting the dead-letter queue "q/dead": delete "q"`)
		h.end(t)
	})
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t)
		shared := queue.NewDeadLetterQueue[int](h.Core, nil, "letters", settings.DefaultQueue().Limits)
		h.Live.Add(1)
		h.q.Dead = shared
		require.Nil(t, DeadIfAny(h.q))
		require.NoError(t, Close(shared))
		h.end(t)
	})
}

// A keeper keeps a queue's messages elsewhere, and is asked for all of this.
type keeper struct {
	did     []any
	err     error
	changed int
}

func (k *keeper) note(what ...any)                                           { k.did = append(k.did, what...) }
func (k *keeper) Settle(context.Context, message.Ref, message.Verdict) error { return nil }
func (k *keeper) Extend(context.Context, message.Ref, time.Duration) error   { return nil }
func (k *keeper) Purge(context.Context) (int, error)                         { k.note("purge"); return 7, k.err }
func (k *keeper) Close() error                                               { k.note("close"); return k.err }
func (k *keeper) Delete(context.Context) error                               { k.note("delete"); return k.err }
func (k *keeper) AwaitEmpty(context.Context) error                           { return nil }
func (k *keeper) AskLeft()                                                   {}
func (k *keeper) Left() (int, int)                                           { return 0, 0 }
func (k *keeper) LetGo()                                                     {}
func (k *keeper) WantLocked()                                                {}
func (k *keeper) ChangedLocked()                                             { k.changed++ }
func (k *keeper) EndLocked(_ int32, v message.Verdict, now int64)            { k.note(v, now) }
func (k *keeper) DeadLetterLocked(int32)                                     { k.note("dead") }
func (k *keeper) ExtendLocked(int32, time.Duration)                          {}
func (k *keeper) Failed(error) bool                                          { return false }
func (k *keeper) Capacity() int                                              { return 0 }

func requireDone(t *testing.T, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	default:
		t.Fatal("nothing is left to wait for")
	}
}

func TestAKeeperIsAsked(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t)
		k := &keeper{err: errBusy}
		h.q.Keeper = k
		require.ErrorIs(t, Close(h.q), errBusy)
		err := Delete(ctx, h.q)
		require.ErrorIs(t, err, errBusy)
		require.EqualError(t, err, `fanout: delete of "q": busy`)
		n, err := Purge(ctx, h.q)
		require.ErrorIs(t, err, errBusy)
		require.Equal(t, 7, n)
		k.err = nil
		require.NoError(t, Delete(ctx, h.q))
		require.Equal(t, []any{"close", "delete", "purge", "delete"}, k.did)
		require.NoError(t, Pause(ctx, h.q))
		require.Equal(t, 1, k.changed, "it is told")
		h.q.Keeper = nil
		h.end(t)
	})
}

// What no worker has begun with goes back to the engine, so that others get it at once. What
// is in flight there is not its queue's any more, and nothing is left over here.
func TestACloseGivesBackWhatAnEngineKeeps(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var told []notice.Event
		h := newHome(t, dropped(&told))
		k := new(keeper)
		h.q.Keeper, h.q.Entries, h.q.Store.Direct = k, true, true
		h.q.Locked(func() {
			for n := range 4 {
				h.q.Store.Admit(store.Held[int]{Item: message.Item[int]{Seq: uint64(n + 1), At: h.Now(), Body: n}}, store.Due)
				h.q.Store.Offered++
			}
		})
		take(t, h.q, 1)
		h.q.Locked(func() {
			_, ok := delivery.ClaimAtLocked(h.q, h.Now(), time.Hour, store.InHandler)
			require.True(t, ok)
		})
		elapse(5 * time.Second)
		h.q.Store.Set.TTL = time.Second // what has expired goes back as well
		h.Mu.Lock()
		left := CloseNow(h.q, false)
		h.Unlock()
		require.Equal(t, ending.Left{Queue: "q", Ready: 2, InFlight: 2}, left)
		back := message.Verdict{Cause: message.Released, Unstarted: true}
		require.Equal(t, []any{back, h.Now(), back, h.Now()}, k.did)
		require.Equal(t, 1, k.changed)
		require.Zero(t, h.q.Store.Win.Len())
		require.Empty(t, told)
		require.Equal(t, []message.Published[int]{}, Leftovers(h.q))
		h.over()
	})
}
