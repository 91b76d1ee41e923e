package queue_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/handling"
	"github.com/gofanout/fanout/internal/lifecycle"
	"github.com/gofanout/fanout/internal/log"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/settings"
	"github.com/gofanout/fanout/internal/store"
	"github.com/gofanout/fanout/internal/view"
)

// A list of idle queues has each once, wherever others leave it.
func TestAListOfIdleQueuesHasEachOnce(t *testing.T) {
	var s queue.IdleQueues[int]
	qs := make([]*queue.Queue[int], 5)
	for k := range qs {
		qs[k] = &queue.Queue[int]{IdleAt: queue.NotIdle}
		require.True(t, s.Add(qs[k]))
		require.False(t, s.Add(qs[k]))
		require.EqualValues(t, k+1, s.N.Load())
	}
	s.Remove(qs[1])
	s.Remove(qs[1])
	require.EqualValues(t, 4, s.N.Load())
	require.Equal(t, []*queue.Queue[int]{qs[0], qs[4], qs[2], qs[3]}, s.List)
	s.Remove(qs[4])
	require.Equal(t, []*queue.Queue[int]{qs[0], qs[3], qs[2]}, s.List)
	require.True(t, s.Add(qs[1]))
	list := s.TakeLocked()
	require.Len(t, list, 4)
	require.Zero(t, s.N.Load())
	s.Remove(qs[0]) // it has left with the others
	require.Empty(t, s.List)
	require.True(t, s.Add(qs[0]), "it can come again")
	require.True(t, s.Add(qs[3]))
	s.Remove(qs[0])
	require.Equal(t, []*queue.Queue[int]{qs[3]}, s.List)
}

// However many wait, a publish wakes all.
func TestAPublishWakesAllQueuesThatWait(t *testing.T) {
	for _, n := range []int{1, queue.WakesItself, queue.WakesItself + 1, 100} {
		bubble(t, func(t *testing.T, ctx context.Context) {
			h := newHome(t)
			qs := []*queue.Queue[int]{h.q}
			for len(qs) < n {
				qs = append(qs, h.open("other", h.q.Store.Set))
			}
			got := make(chan int, n)
			for _, q := range qs {
				go func() {
					if ds, err := delivery.TakeBatch(ctx, q, 1, time.Minute); err == nil {
						got <- ds[0].Body
					}
				}()
			}
			synctest.Wait()
			require.EqualValues(t, n, h.Idle.N.Load())
			began := time.Now()
			h.publish(7)
			synctest.Wait()
			require.Len(t, got, n)
			require.Equal(t, began, time.Now())
			require.EqualValues(t, 1+n, h.Live.N.Load(), "whoever woke them has ended")
			h.end(t, qs[1:]...)
		})
	}
}

// A queue that reads a log of its own is woken by that alone.
func TestAQueueMayReadALogOfItsOwn(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t)
		var spare log.Spare[message.Item[int]]
		own := h.open("own", h.q.Store.Set)
		own.Store.Cursor.Close()
		own.ReadOwnLog(&spare)
		h.publish(1)
		requireNone(t, own)
		own.Store.Log.Append(message.Item[int]{Seq: 1, At: h.Now(), Body: 2})
		own.Store.Log.Publish()
		h.WakeAll(own.Idle)
		require.Equal(t, 2, take(t, own, 1)[0].Body)
		require.Equal(t, []int{1}, seen(t, h.q))
		h.end(t, own)
	})
}

// Its dead-letter queue is made once, of its settings, and is its own.
func TestADeadLetterQueueIsMadeOnce(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t, limits(func(q *settings.Limits) {
			q.DeadCapacity, q.DeadOverflow, q.Visibility, q.MaxAttempts, q.TTL = 3, settings.DropOldest, time.Minute, 2, time.Hour
		}))
		require.Nil(t, h.q.DeadNow())
		live := h.Live.N.Load()
		d := h.q.DeadLetters()
		require.Equal(t, live+1, h.Live.N.Load(), "it is alive")
		require.Same(t, d, h.q.DeadLetters())
		require.Same(t, d, h.q.DeadNow())
		require.Same(t, d, d.DeadLetters(), "letters have none of their own")
		require.Same(t, h.q, d.Source)
		set := d.Store.Set
		require.Equal(t, []any{"q/dead", 3, settings.DropOldest, time.Minute, message.Unlimited, time.Duration(0)},
			[]any{d.Name(), set.Capacity, set.Overflow, set.Visibility, set.MaxAttempts, set.TTL})
		require.Equal(t, []bool{true, false, true, true}, []bool{d.IsLetters(), d.IsShared(), d.Made(), !h.q.IsLetters()})
		require.False(t, new(queue.Queue[int]).Made())
		require.Equal(t, `"q" of topic "payments"`, h.q.Label())
		h.end(t)

		late := newHome(t)
		require.NoError(t, lifecycle.Close(late.q))
		live = late.Live.N.Load()
		require.True(t, late.q.DeadLetters().Store.Closed, "of a closed queue it is closed")
		require.Equal(t, live, late.Live.N.Load())
		late.Release()
	})
}

// A message that is dead moves with what it has been through, and is told of.
func TestADeadMessageMovesToTheLetters(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var told []notice.Event
		h := newHome(t, attempts(2), hooked(notice.DeadLettered, func(e notice.Event) { told = append(told, e) }))
		h.publish(1)
		require.NoError(t, take(t, h.q, 1)[0].Nack(ctx))
		elapse(time.Second)
		next := take(t, h.q, 1)[0]
		elapse(time.Second)
		require.NoError(t, next.Settle(ctx, errBusy))
		letter := take(t, h.q.DeadNow(), 1)[0]
		require.Equal(t, []any{1, 1, 2, next.ID()}, []any{letter.Body, letter.Attempt(), len(letter.History()), letter.ID()})
		require.Len(t, told, 1)
		e := told[0]
		require.Equal(t, []any{"q", next.ID(), 2, message.Failed, time.Second, 1}, []any{e.Queue, e.MessageID, e.Attempt, e.Cause, e.Elapsed, e.Count})
		require.ErrorIs(t, e.Err, errBusy)
		require.EqualValues(t, 1, h.q.Store.Totals().DeadLettered)
		h.end(t)
	})
}

// What finds no room among the letters is parked, told of, and moves once there is some.
func TestWhatIsParkedMovesOnceThereIsRoom(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var told []notice.Event
		h := newHome(t, limits(func(q *settings.Limits) { q.DeadCapacity = 1 }), hooked(notice.Parked, func(e notice.Event) { told = append(told, e) }))
		h.publish(1, 2, 3)
		ds := take(t, h.q, 3)
		die(t, ds...)
		require.Equal(t, 2, h.q.Store.In(store.Parked))
		require.EqualValues(t, 2, h.q.Store.Totals().Parked)
		require.Len(t, told, 2)
		require.Equal(t, []any{ds[1].ID(), 1, message.PermanentlyFailed}, []any{told[0].MessageID, told[0].Attempt, told[0].Cause})
		dead := h.q.DeadNow()
		for want := 1; want <= 3; want++ {
			letter := take(t, dead, 1)[0]
			require.Equal(t, want, letter.Body)
			require.NoError(t, letter.Ack(ctx))
		}
		require.Zero(t, h.q.Store.In(store.Parked))
		require.EqualValues(t, 3, h.q.Store.Totals().DeadLettered)
		require.Zero(t, h.q.Store.Held())
		h.end(t)
	})
}

// A dead-letter queue that drops its oldest takes all.
func TestLettersMayDropTheOldest(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var told []notice.Event
		h := newHome(t, limits(func(q *settings.Limits) { q.DeadCapacity, q.DeadOverflow = 2, settings.DropOldest }), hooked(notice.Dropped, func(e notice.Event) { told = append(told, e) }))
		h.publish(1, 2, 3, 4)
		ds := take(t, h.q, 4)
		die(t, ds[1], ds[0], ds[2])
		dead := h.q.DeadNow()
		require.Equal(t, []int{2, 3}, seen(t, dead), "what was published first goes first")
		require.Len(t, told, 1)
		require.Equal(t, []any{"q/dead", ds[0].ID(), notice.DroppedOldest}, []any{told[0].Queue, told[0].MessageID, told[0].Reason})
		held := take(t, dead, 2) // in flight: there is nothing to drop
		die(t, ds[3])
		require.Equal(t, 1, h.q.Store.In(store.Parked))
		require.NoError(t, held[0].Ack(ctx))
		require.Equal(t, []int{4}, seen(t, dead))
		h.end(t)
	})
}

// A dead-letter queue that is shared knows where each came from, in its own time and numbers,
// and looks at all who wait for room.
func TestASharedDeadLetterQueueServesSeveral(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		a := newHome(t)
		elapse(time.Minute)
		b := newHome(t)
		set := settings.DefaultQueue().Limits
		set.Capacity = 2
		shared := queue.NewDeadLetterQueue[int](b.Core, nil, "letters", set)
		b.Live.Add(1)
		require.True(t, shared.IsShared())
		a.q.Dead, b.q.Dead = shared, shared
		a.publish(0, 1, 2)
		b.publish(10, 11)
		die(t, take(t, a.q, 1)...)
		die(t, take(t, b.q, 1)...)
		of := map[int]message.Item[int]{}
		shared.Locked(func() {
			for _, i := range shared.Store.InOrder() {
				it := shared.Store.Win.At(i).Item
				of[it.Body] = it
			}
		})
		require.Equal(t, a.q.Origin(), of[0].Ext.Source)
		require.Equal(t, a.IDOf(1, a.Now(), nil), of[0].Ext.ID)
		require.EqualValues(t, 1, of[0].Ext.Seq)
		require.Equal(t, []uint64{1, 2}, []uint64{of[0].Seq, of[10].Seq})
		require.Equal(t, b.Now(), of[0].At, "in its own time")
		require.Equal(t, b.q.Origin(), of[10].Ext.Source)

		die(t, take(t, a.q, 2)...)
		die(t, take(t, b.q, 1)...)
		require.Equal(t, []int{2, 1}, []int{a.q.Store.In(store.Parked), b.q.Store.In(store.Parked)})
		for _, want := range []int{0, 10, 1, 2, 11} { // those of who waited first come first
			letter := take(t, shared, 1)[0]
			require.Equal(t, want, letter.Body)
			require.NoError(t, letter.Ack(ctx))
		}
		require.Equal(t, []int{0, 0}, []int{a.q.Store.In(store.Parked), b.q.Store.In(store.Parked)})
		require.NoError(t, lifecycle.Close(shared))
		a.q.Dead, b.q.Dead = nil, nil
		a.end(t)
		b.end(t)
	})
}

// A closed dead-letter queue takes nothing.
func TestAClosedDeadLetterQueueTakesNothing(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t)
		shared := queue.NewDeadLetterQueue[int](h.Core, nil, "letters", settings.DefaultQueue().Limits)
		h.Live.Add(1)
		h.q.Dead = shared
		require.NoError(t, lifecycle.Close(shared))
		h.publish(1)
		die(t, take(t, h.q, 1)...)
		require.Equal(t, 1, h.q.Store.In(store.Parked))
		h.q.Dead = nil
		h.end(t)
	})
}

// A queue that is opened again finds its letters, with its own capacity for them.
func TestAQueueAdoptsWhatOneOfItsNameHasLeft(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t, limits(func(q *settings.Limits) { q.DeadCapacity, q.DeadOverflow = 9, settings.DropOldest }))
		h.q.Locked(h.q.AdoptLocked)
		require.Nil(t, h.q.DeadNow(), "there is none")
		h.orphan = queue.NewDeadLetterQueue[int](h.Core, &h.Home, "q/dead", settings.DefaultQueue().Limits)
		h.Live.Add(1)
		h.q.Locked(h.q.AdoptLocked)
		require.Same(t, h.orphan, h.q.DeadNow())
		require.Same(t, h.q, h.orphan.Source)
		require.Equal(t, []any{9, settings.DropOldest}, []any{h.orphan.Store.Set.Capacity, h.orphan.Store.Set.Overflow})
		h.orphan = nil
		h.q.Locked(h.q.AdoptLocked)
		require.NotNil(t, h.q.DeadNow(), "what it has it keeps")
		h.end(t)
	})
}

// What comes by time comes at its instant, however much it is.
func TestWhatComesByTimeComesAtItsInstant(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t)
		const n = 3000 // more than one tick sees to
		h.publish(make([]int, n)...)
		began := time.Now()
		for _, d := range take(t, h.q, n) {
			require.NoError(t, d.NackAfter(ctx, time.Minute))
		}
		elapse(time.Minute - 1)
		require.Equal(t, n, view.StatsOf(h.q).Retrying)
		elapse(1)
		require.Equal(t, n, view.StatsOf(h.q).Ready)
		require.Equal(t, time.Minute, time.Since(began))
		elapse(time.Second)
		require.False(t, h.q.Inside().TimerArmed)
		require.True(t, h.q.Alarm.Quiet())
		h.end(t)
	})
}

// What comes last is what was armed for last, and what comes first is first.
func TestTheTimerIsArmedForTheFirst(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t)
		h.publish(1, 2, 3)
		ds := take(t, h.q, 3)
		require.NoError(t, ds[0].NackAfter(ctx, 5*time.Second))
		require.NoError(t, ds[1].NackAfter(ctx, 2*time.Second))
		began := time.Now()
		var at []time.Duration
		for range 3 {
			got, err := delivery.TakeBatch(ctx, h.q, 1, time.Hour)
			require.NoError(t, err)
			at = append(at, time.Since(began))
			require.NoError(t, got[0].Ack(ctx))
		}
		require.Equal(t, []time.Duration{2 * time.Second, 5 * time.Second, 10 * time.Second}, at)
		h.end(t)
	})
}

// A rate limit lets one start at its instants, and leaves no timer when nobody waits for it.
func TestARateLimitStartsWorkersAtItsInstants(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t)
		began := time.Now()
		var at []time.Duration
		subscribe(t, h.q, 3, func(context.Context, delivery.Delivery[int]) error {
			at = append(at, time.Since(began))
			return nil
		}, func(s *settings.Subscriber) { s.Every = time.Minute })
		h.publish(1, 2, 3)
		elapse(time.Hour)
		require.Equal(t, []time.Duration{0, time.Minute, 2 * time.Minute}, at)
		require.Zero(t, limited(h.q))
		h.publish(4, 5)
		synctest.Wait()
		require.NotZero(t, limited(h.q))
		_, err := lifecycle.Purge(ctx, h.q)
		require.NoError(t, err)
		require.Zero(t, limited(h.q), "nobody waits for that any more")
		elapse(10 * time.Millisecond)
		require.False(t, armed(h.q))
		h.end(t)
	})
}

// Consumers take what there is: receivers before workers, and none while it is paused.
func TestReceiversComeBeforeWorkers(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t)
		got := make(chan int, 1)
		go func() {
			if ds, err := delivery.TakeBatch(ctx, h.q, 1, time.Minute); err == nil {
				got <- ds[0].Body
			}
		}()
		synctest.Wait()
		var handled []int
		subscribe(t, h.q, 1, func(_ context.Context, d delivery.Delivery[int]) error {
			handled = append(handled, d.Body)
			return nil
		})
		h.publish(1, 2)
		synctest.Wait()
		require.Equal(t, 1, <-got)
		require.Equal(t, []int{2}, handled)
		h.end(t)
	})
}

// What is pending is told once the lock is released, and left to whom it is left to.
func TestWhatIsPendingIsToldAfterUnlocking(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var told []notice.Event
		h := newHome(t, hooked(notice.Delivered, func(e notice.Event) { told = append(told, e) }))
		note := func(n int) { h.q.NoteLocked(notice.Delivered, notice.Event{Count: n}) }
		h.q.Mu.Lock()
		note(1)
		require.Empty(t, told)
		h.q.Unlock()
		require.Len(t, told, 1)
		require.Equal(t, []any{"payments", "q", uint64(1), 1}, []any{told[0].Topic, told[0].Queue, told[0].Seq, told[0].Count})
		require.True(t, time.Now().Equal(told[0].Time))

		var p notice.Pending
		h.q.Mu.Lock()
		note(2)
		h.q.UnlockTo(&p)
		require.Len(t, told, 1)
		p.Perform()
		require.Len(t, told, 2)

		h.Mu.Lock()
		h.q.Mu.Lock()
		note(3)
		h.q.UnlockUnder(&h.Home)
		require.Len(t, told, 2)
		h.Unlock()
		require.Len(t, told, 3)
		require.EqualValues(t, 3, told[2].Seq)

		h.q.Mu.Lock()
		h.q.NoteLocked(notice.Settled, notice.Event{}) // nobody wants to hear of it
		require.False(t, h.q.Pending.Any())
		x := &message.Extra{ID: "order"}
		h.q.NoteItemLocked(notice.Delivered, &message.Item[int]{Seq: 9, At: h.Now(), Ext: x}, notice.Event{Attempt: 4})
		h.q.Unlock()
		e := told[3]
		require.Equal(t, []any{"order", 1, 4, x}, []any{e.MessageID, e.Count, e.Attempt, e.Message})
		require.True(t, time.Now().Equal(e.PublishedAt))
		h.end(t)
	})
}

// An attempt that did not return is logged as what it was.
func TestAnAttemptThatDidNotReturnIsNoted(t *testing.T) {
	for cause, kind := range map[message.Cause]notice.Kind{message.Panicked: notice.Panicked, message.Exited: notice.Exited, message.Failed: notice.Kinds} {
		bubble(t, func(t *testing.T, ctx context.Context) {
			h := newHome(t)
			var told []notice.Event
			var hooks [notice.Kinds]func(*notice.Event)
			for _, k := range []notice.Kind{notice.Panicked, notice.Exited} {
				hooks[k] = func(e *notice.Event) { require.Equal(t, kind, k); told = append(told, *e) }
			}
			stop := h.To.Tap(hooks)
			h.publish(1)
			d := take(t, h.q, 1)[0]
			elapse(time.Second)
			require.NoError(t, delivery.Settle(ctx, h.q, d.Ref, message.Verdict{Cause: cause, Wait: time.Second, Err: errBusy, Stack: "stack"}))
			if kind == notice.Kinds {
				require.Empty(t, told)
			} else {
				require.Len(t, told, 1)
				e := told[0]
				require.Equal(t, []any{d.ID(), 1, cause, errBusy, "stack", time.Second}, []any{e.MessageID, e.Attempt, e.Cause, e.Err, e.Stack, e.Elapsed})
			}
			stop()
			h.end(t)
		})
	}
}

// Who waits for room is let in by whoever makes it, once, whichever way that unlocks.
func TestRoomIsToldToThoseWhoWaitForIt(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t, limits(func(q *settings.Limits) { q.Capacity = 2 }))
		var in []*queue.Queue[int]
		h.letIn = func(q *queue.Queue[int]) (p notice.Pending) {
			require.True(t, h.Mu.TryLock(), "no lock is held")
			h.Mu.Unlock()
			in = append(in, q)
			return p
		}
		h.publish(1, 2)
		ds := take(t, h.q, 2)
		require.False(t, h.q.Blocking())
		want := h.q.Store.Allow.Load() + 2
		h.q.RoomWanted.Store(want)
		require.True(t, h.q.Blocking())
		require.NoError(t, ds[0].Ack(ctx))
		require.Empty(t, in, "it is not enough")
		require.False(t, h.q.RoomIsWanted())
		require.NoError(t, ds[1].Ack(ctx))
		require.Equal(t, []*queue.Queue[int]{h.q}, in)
		require.False(t, h.q.Blocking(), "it is told once")
		for _, row := range []func(){
			func() { h.q.Mu.Lock(); h.q.Unlock() },
			func() { var p notice.Pending; h.q.Mu.Lock(); h.q.UnlockTo(&p); p.Perform() },
			func() { h.Mu.Lock(); h.q.Mu.Lock(); h.q.UnlockUnder(&h.Home); h.Unlock() },
			func() { h.q.Mu.Lock(); h.q.NoteLocked(notice.Stuck, notice.Event{Count: 1}); h.q.Unlock() },
		} {
			in = nil
			h.q.RoomWanted.Store(h.q.Store.Allow.Load() + 1)
			row()
			require.Empty(t, in)
			h.q.RoomWanted.Store(h.q.Store.Allow.Load())
			require.True(t, h.q.RoomIsWanted())
			row()
			row()
			require.Equal(t, []*queue.Queue[int]{h.q}, in)
		}
		in = nil
		h.turns = true
		h.Mu.Lock()
		h.Unlock()
		require.Equal(t, []*queue.Queue[int]{nil}, in, "whose turn it is goes on")
		h.turns = false
		h.end(t)
	})
}

func TestWhatAnEngineSaysThatItDroppedIsCountedAndTold(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var told []notice.Event
		h := newHome(t, hooked(notice.Dropped, func(e notice.Event) { told = append(told, e) }))
		var p notice.Pending
		h.q.DroppedByDelete(0, &p)
		h.q.DroppedByDelete(-1, &p)
		require.False(t, p.Any())
		h.q.DroppedByDelete(3, &p)
		require.Empty(t, told)
		p.Perform()
		require.Len(t, told, 1)
		require.Equal(t, []any{3, notice.DroppedByDelete}, []any{told[0].Count, told[0].Reason})
		require.EqualValues(t, 3, h.q.Store.Totals().Dropped)
		h.q.Store.Offered += 3 // the books of one in memory balance
		h.end(t)
	})
}

// A time to live may be of all messages, or of some of the topic's.
func TestWhetherAnythingOfAQueueExpires(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t)
		require.False(t, h.q.Expires())
		h.Expiring.Store(1)
		require.True(t, h.q.Expires())
		h.Expiring.Store(0)
		h.q.Store.Set.TTL = time.Hour
		require.True(t, h.q.Expires())
		require.False(t, h.q.DeadLetters().Expires())
		h.publish(1)
		elapse(time.Hour)
		h.q.Mu.Lock()
		at, ok := h.q.LookForExpiryLocked(h.Now())
		require.True(t, ok)
		require.Equal(t, h.Now(), at)
		require.True(t, h.q.ExpireFirstLocked(h.Now()))
		require.False(t, h.q.ExpireFirstLocked(h.Now()))
		require.False(t, h.q.DropOldestLocked(0))
		h.q.Unlock()
		require.Equal(t, []int{1}, seen(t, h.q.DeadNow()))
		h.end(t)
	})
}

// The search for deadlocks sees who may make room.
func TestWhoMayMakeRoom(t *testing.T) {
	free := func(q *queue.Queue[int]) bool { return q.WaitState().Free }
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t, limits(func(q *settings.Limits) { q.DeadCapacity = 1 }))
		require.True(t, free(h.q), "there is no handler at all")
		hang := make(chan struct{})
		wait := &handling.Wait{Blockers: func() []handling.Queue { return nil }}
		running := make(chan *handling.Run, 1)
		s := subscribe(t, h.q, 1, func(ctx context.Context, _ delivery.Delivery[int]) error {
			running <- handling.RunOf(ctx)
			<-hang
			return nil
		})
		h.publish(1)
		run := <-running
		require.True(t, free(h.q), "its handler may return")
		run.Add(wait)
		state := h.q.WaitState()
		require.False(t, state.Free)
		require.Equal(t, [][]*handling.Wait{{wait}}, state.Runs)
		h.publish(2)
		require.False(t, free(h.q), "the worker is busy")
		d := take(t, h.q, 1)[0]
		require.True(t, free(h.q), "somebody has received")
		require.NoError(t, d.NackAfter(ctx, time.Hour))
		require.False(t, free(h.q))
		other := subscribe(t, h.q, 1, func(context.Context, delivery.Delivery[int]) error { return nil })
		require.True(t, free(h.q), "another worker may take what is retried")
		require.NoError(t, other.Shutdown(ctx))
		require.False(t, free(h.q))
		h.q.Locked(func() { h.q.Group.Ranges++ })
		require.True(t, free(h.q), "a loop may take it")
		h.q.Locked(func() { h.q.Group.Ranges-- })
		run.Remove(wait)
		close(hang)
		require.NoError(t, s.Shutdown(ctx))
		h.end(t)
	})
}

// Nothing is left to wait for once a queue is drained.
func TestWhatADrainWaitsFor(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t)
		is := func(q *queue.Queue[int]) (drained bool) {
			q.Locked(func() { drained = q.IsDrainedLocked() })
			return drained
		}
		require.True(t, is(h.q))
		h.publish(1)
		require.False(t, is(h.q), "it is ready")
		h.q.Paused = true
		require.True(t, is(h.q))
		h.q.Paused = false
		d := take(t, h.q, 1)[0]
		require.False(t, is(h.q), "it is in flight")
		require.NoError(t, d.Nack(ctx))
		require.False(t, is(h.q), "it is retried")
		elapse(time.Second)
		d = take(t, h.q, 1)[0]
		require.NoError(t, d.Settle(ctx, message.Snooze(time.Hour)))
		require.True(t, is(h.q), "a delay is not waited for")
		h.q.Calls = 1
		require.False(t, is(h.q), "the engine is asked")
		h.q.Calls = 0
		h.publish(2)
		die(t, take(t, h.q, 1)...)
		dead := h.q.DeadNow()
		require.True(t, is(dead), "letters are not waited for")
		letter := take(t, dead, 1)[0]
		require.False(t, is(dead))
		require.NoError(t, letter.Release(ctx))
		require.Equal(t, []bool{true, true}, []bool{is(dead), is(h.q)})
		serves := func(q *queue.Queue[int]) (is bool) {
			q.Locked(func() { is = q.ServesLocked() })
			return is
		}
		require.True(t, serves(dead))
		dead.Store.Draining, h.q.Store.Draining = true, true
		require.Equal(t, []bool{false, true}, []bool{serves(dead), serves(h.q)}, "letters are not given out while their topic shuts down")
		dead.Store.Draining = false
		h.end(t)
		require.False(t, serves(h.q))
	})
}
