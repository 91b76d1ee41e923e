package queue_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/handling"
	"github.com/gofanout/fanout/internal/lifecycle"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/settings"
	"github.com/gofanout/fanout/internal/store"
)

// Whatever there is together, a queue is drained only when nothing of it is left.
func TestNothingMakesUpForWhatIsLeft(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		is := func(q *queue.Queue[int]) (drained bool) {
			q.Locked(func() { drained = q.IsDrainedLocked() })
			return drained
		}
		h := newHome(t)
		h.publish(1, 2)
		d := take(t, h.q, 1)[0]
		require.False(t, is(h.q), "one is in flight and one is ready")
		require.NoError(t, d.NackAfter(ctx, time.Hour))
		require.False(t, is(h.q), "one is retried and one is ready")
		h.q.Locked(func() { h.q.Group.Running, h.q.Calls = 1, 1 })
		require.False(t, is(h.q))
		h.q.Locked(func() { h.q.Group.Running, h.q.Calls = 0, 0 })
		drained := lifecycle.AwaitDrained(h.q)
		h.q.Locked(h.q.CheckDrainedLocked)
		select {
		case <-drained:
			t.Fatal("it is not")
		default:
		}
		_, err := lifecycle.Purge(ctx, h.q)
		require.NoError(t, err)
		require.True(t, is(h.q))
		h.q.Locked(func() { h.q.Group.Running, h.q.Calls = 1, 1 })
		require.False(t, is(h.q), "a worker runs, and the engine is asked")
		h.q.Locked(func() { h.q.Group.Running, h.q.Calls = 0, 0 })
		h.publish(3)
		d = take(t, h.q, 1)[0]
		h.q.Locked(func() { h.q.Calls = 1 })
		require.False(t, is(h.q), "one is in flight, and the engine is asked")
		h.q.Locked(func() { h.q.Calls = 0 })
		require.NoError(t, d.Ack(ctx))

		dead := h.q.DeadLetters()
		require.Equal(t, []bool{true, true, true, false}, []bool{dead.Entries, dead.Store.Letters, dead.Store.Direct, dead.Store.Evicts})
		h.publish(4, 5)
		die(t, take(t, h.q, 2)...)
		dead.Mu.Lock()
		for _, state := range []uint8{store.InFlight, store.InHandler} {
			_, ok := delivery.ClaimAtLocked(dead, h.Now(), time.Minute, state)
			require.True(t, ok)
		}
		dead.ArmLocked(h.Now())
		dead.Unlock()
		require.False(t, is(dead), "one is received, and one is handled")
		h.end(t)
		require.True(t, is(h.q), "it is closed")
	})
}

// The last message that dies drains its queue at once.
func TestTheLastThatDiesDrainsTheQueue(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t, limits(func(q *settings.Limits) { q.TTL, q.Visibility = time.Minute, time.Hour }))
		h.publish(1)
		d := take(t, h.q, 1)[0]
		drained := lifecycle.AwaitDrained(h.q)
		elapse(time.Minute)
		require.NoError(t, d.Nack(ctx))
		requireClosed(t, drained, "its time to live had passed: it is dead")
		require.Equal(t, []int{1}, seen(t, h.q.DeadNow()))
		letter := take(t, h.q.DeadNow(), 1)[0]
		require.Equal(t, []message.Cause{message.Nacked, message.Expired}, []message.Cause{letter.History()[0].Cause, letter.History()[1].Cause})
		h.end(t)
	})
}

// What follows from letting somebody in is told as well.
func TestWhatFollowsFromRoomIsTold(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t, limits(func(q *settings.Limits) { q.Capacity = 1 }))
		told := 0
		h.letIn = func(*queue.Queue[int]) (p notice.Pending) {
			p.Call(func() { told++ })
			return p
		}
		h.publish(1)
		d := take(t, h.q, 1)[0]
		h.q.RoomWanted.Store(h.q.Store.Allow.Load() + 1)
		require.NoError(t, d.Ack(ctx))
		require.Equal(t, 1, told)
		h.end(t)
	})
}

// Of what the search for deadlocks sees, more: who may take what is delayed, who only waits, and
// what expires.
func TestWhoElseMayMakeRoom(t *testing.T) {
	for name, row := range map[string]struct {
		set  []setting
		make func(t *testing.T, h *home)
		free bool
	}{
		"nothing else":                      {nil, func(*testing.T, *home) {}, false},
		"a delayed message, a free worker":  {nil, func(t *testing.T, h *home) { h.delay(t); h.idle(t) }, true},
		"a free worker, and nothing for it": {nil, func(t *testing.T, h *home) { h.idle(t) }, false},
		"somebody waits for nothing": {nil, func(t *testing.T, h *home) {
			h.q.Locked(func() { h.q.Group.Receivers.Add(h.q.Group.Receivers.Make()) })
		}, false},
		"somebody waits for a delayed one": {nil, func(t *testing.T, h *home) {
			h.delay(t)
			h.q.Locked(func() { h.q.Group.Receivers.Add(h.q.Group.Receivers.Make()) })
		}, true},
		"it is closed":    {nil, func(t *testing.T, h *home) { h.q.Locked(func() { h.q.Store.Closed = true }) }, true},
		"nothing expires": {nil, func(_ *testing.T, h *home) { h.publish(2) }, false},
		"one expires":     {[]setting{limits(func(q *settings.Limits) { q.TTL = time.Hour })}, func(_ *testing.T, h *home) { h.publish(2) }, true},
		"somebody has what would expire": {[]setting{limits(func(q *settings.Limits) { q.TTL = time.Hour })}, func(t *testing.T, h *home) {
			h.publish(2)
			take(t, h.q, 1)
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				h := newHome(t, row.set...)
				runs, hang := make(chan *handling.Run, 1), make(chan struct{})
				subscribe(t, h.q, 1, func(ctx context.Context, _ delivery.Delivery[int]) error {
					runs <- handling.RunOf(ctx)
					<-hang
					return nil
				})
				h.publish(1)
				run, wait := <-runs, &handling.Wait{Blockers: func() []handling.Queue { return nil }}
				run.Add(wait)
				row.make(t, h)
				require.Equal(t, row.free, h.q.WaitState().Free)
				h.q.Locked(func() {
					h.q.Store.Closed = false
					for h.q.Group.Receivers.Wake() {
					}
				})
				run.Remove(wait)
				go func() {
					for range runs { // of those that come
					}
				}()
				close(hang)
				h.end(t)
				close(runs)
			})
		})
	}
}

// delay has one more message wait for an hour.
func (h *home) delay(t *testing.T) {
	h.publish(9)
	require.NoError(t, take(t, h.q, 1)[0].Settle(t.Context(), message.Snooze(time.Hour)))
}

// idle has a worker that is free.
func (h *home) idle(t *testing.T) {
	subscribe(t, h.q, 1, func(context.Context, delivery.Delivery[int]) error { return nil })
}
