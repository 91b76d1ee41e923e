package queue_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/alarm"
	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/lifecycle"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/settings"
	"github.com/gofanout/fanout/internal/store"
	"github.com/gofanout/fanout/internal/view"
)

// comes is when the timer comes next, from now on; -1: never.
func comes(t *testing.T, q *queue.Queue[int]) (in time.Duration) {
	t.Helper()
	require.NoError(t, q.Check())
	in = -1
	q.Locked(func() {
		if q.Alarm.Armed {
			in = time.Duration(q.Alarm.At - q.Core.Now())
		} else {
			require.Nil(t, q.Alarm.Timer, "a timer that has come is not kept")
		}
	})
	return in
}

// settle lets the timer come for what was armed briefly, and for the memory that is spared.
func settle() { elapse(2*alarm.CheckAge + alarm.SpareAge) }

// want says that somebody waits for room: for so much more than there is.
func want(q *queue.Queue[int], room int64) {
	q.Mu.Lock()
	q.RoomWanted.Store(q.Store.Allow.Load() + room)
	q.LookForExpiryLocked(q.Core.Now())
	q.ArmLocked(q.Core.Now())
	q.Unlock()
}

// enough says that nobody waits for room any more.
func enough(q *queue.Queue[int]) {
	q.Mu.Lock()
	q.RoomWanted.Store(0)
	q.ArmLocked(q.Core.Now())
	q.Unlock()
}

// Once a queue has come to rest the timer sleeps until the first instant that the queue waits
// for, whatever that is for, and is gone if there is none.
func TestTheTimerSleepsUntilTheFirstInstant(t *testing.T) {
	const s = time.Second
	took := 2*alarm.CheckAge + alarm.SpareAge
	limit := func(every time.Duration) func(t *testing.T, h *home) {
		return func(t *testing.T, h *home) {
			subscribe(t, h.q, 1, func(context.Context, delivery.Delivery[int]) error { return nil }, func(x *settings.Subscriber) { x.Every = every })
			h.publish(1, 2)
		}
	}
	retry := func(after time.Duration) func(t *testing.T, h *home) {
		return func(t *testing.T, h *home) {
			h.publish(9)
			require.NoError(t, take(t, h.q, 1)[0].NackAfter(t.Context(), after))
		}
	}
	flight := func(t *testing.T, h *home) { h.publish(8); take(t, h.q, 1) }
	ready := func(t *testing.T, h *home) { h.publish(7) }
	room := func(t *testing.T, h *home) { want(h.q, 100) }
	for name, row := range map[string]struct {
		ttl   time.Duration
		steps []func(t *testing.T, h *home)
		next  time.Duration // 0: never
	}{
		"nothing":                            {0, nil, 0},
		"what is ready":                      {0, []func(t *testing.T, h *home){ready}, 0},
		"a retry":                            {0, []func(t *testing.T, h *home){retry(5 * s)}, 5 * s},
		"a time-out":                         {0, []func(t *testing.T, h *home){flight}, 10 * s},
		"a retry before a time-out":          {0, []func(t *testing.T, h *home){flight, retry(5 * s)}, 5 * s},
		"a time-out before a retry":          {0, []func(t *testing.T, h *home){retry(15 * s), flight}, 10 * s},
		"a rate limit":                       {0, []func(t *testing.T, h *home){limit(7 * s)}, 7 * s},
		"a rate limit before a retry":        {0, []func(t *testing.T, h *home){retry(15 * s), limit(7 * s)}, 7 * s},
		"a retry before a rate limit":        {0, []func(t *testing.T, h *home){retry(3 * s), limit(7 * s)}, 3 * s},
		"what expires, and nobody waits":     {4 * s, []func(t *testing.T, h *home){ready}, 0},
		"what expires, and somebody waits":   {4 * s, []func(t *testing.T, h *home){ready, room}, 4 * s},
		"nothing expires, somebody waits":    {0, []func(t *testing.T, h *home){flight, ready, room}, 10 * s},
		"what expires before a time-out":     {4 * s, []func(t *testing.T, h *home){flight, ready, room}, 4 * s},
		"a time-out before what expires":     {time.Minute, []func(t *testing.T, h *home){flight, ready, room}, 10 * s},
		"somebody waits, nothing is to come": {0, []func(t *testing.T, h *home){ready, room}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				h := newHome(t, limits(func(q *settings.Limits) { q.TTL = row.ttl }))
				for _, step := range row.steps {
					step(t, h)
				}
				settle()
				next := row.next - took
				if row.next == 0 {
					next = -1
				}
				require.Equal(t, next, comes(t, h.q))
				enough(h.q)
				h.end(t)
			})
		})
	}
}

// A queue that is closed stops its timer, and has ended then.
func TestAClosedQueueStopsItsTimer(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t)
		h.publish(1)
		take(t, h.q, 1)
		require.True(t, armed(h.q))
		require.NoError(t, lifecycle.Close(h.q))
		require.False(t, armed(h.q))
		require.EqualValues(t, 1, h.Live.N.Load(), "it has ended")
		h.Release()
	})
}

// The table of an idle queue's leases goes after a while, and then the timer.
func TestTheTimerLooksOnceMoreAndIsGone(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t)
		h.publish(1)
		began := h.Now()
		require.NoError(t, take(t, h.q, 1)[0].Ack(ctx))
		require.Equal(t, began+int64(alarm.CheckAge), checkAt(h.q))
		elapse(alarm.CheckAge)
		require.Equal(t, began+int64(alarm.CheckAge+alarm.SpareAge), checkAt(h.q))
		require.Equal(t, alarm.SpareAge, comes(t, h.q))
		elapse(alarm.SpareAge)
		require.Zero(t, checkAt(h.q))
		require.EqualValues(t, -1, comes(t, h.q))
		h.end(t)
	})
}

// A timer that comes for something else looks at nothing before its time.
func TestTheTimerLooksAtItsInstantOnly(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t, limits(func(q *settings.Limits) { q.Visibility = alarm.CheckAge / 2 }))
		h.publish(1, 2)
		began := h.Now()
		take(t, h.q, 1)
		elapse(alarm.CheckAge / 2)
		require.EqualValues(t, 1, view.StatsOf(h.q).TimedOut)
		require.Equal(t, began+int64(alarm.CheckAge), checkAt(h.q))
		require.False(t, resting(h.q))
		elapse(alarm.CheckAge / 2)
		require.True(t, resting(h.q))
		h.end(t)
	})
}

// A look for what expires has the log let go of if it went on, and not else; taking a message
// that is in no log neither.
func TestOnlyWhoMovesTheCursorHasTheLogLookedAt(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t, limits(func(q *settings.Limits) { q.TTL = time.Minute }))
		look := func() {
			h.q.Locked(func() { h.q.LookForExpiryLocked(h.Now()) })
		}
		h.publish(1)
		look()
		require.Zero(t, checkAt(h.q), "it does not expire yet")
		elapse(time.Minute)
		look()
		require.Equal(t, h.Now()+int64(alarm.CheckAge), checkAt(h.q))
		h.q.Locked(func() { h.q.Alarm.CheckAt = 0 })
		look()
		require.Zero(t, checkAt(h.q), "it is in the window")
		requireNone(t, h.q)
		dead := h.q.DeadNow()
		dead.Locked(func() {
			i, ok := dead.NextEntryLocked(h.Now())
			require.True(t, ok)
			require.Zero(t, dead.Alarm.CheckAt)
			dead.Store.Put(i, store.Due)
		})
		h.end(t)
	})
}

// What comes at one instant comes in one: what is in leases, and what waits in the window.
func TestWhatComesAtOneInstantComesTogether(t *testing.T) {
	for _, first := range []bool{false, true} {
		bubble(t, func(t *testing.T, ctx context.Context) {
			told := new(book)
			h := newHome(t, settled(told))
			h.publish(1, 2, 3)
			ds := take(t, h.q, 1)
			if first {
				require.NoError(t, ds[0].NackAfter(ctx, 10*time.Second))
				ds = take(t, h.q, 2)
			} else {
				ds = append(ds, take(t, h.q, 2)...)
				require.NoError(t, ds[0].NackAfter(ctx, 10*time.Second))
				ds = ds[1:]
			}
			elapse(10*time.Second - 1)
			require.Zero(t, view.StatsOf(h.q).Ready)
			elapse(1)
			require.Equal(t, 3, view.StatsOf(h.q).Ready)
			require.Len(t, told.read(), 3)
			for k, d := range ds {
				require.Equal(t, d.ID(), told.read()[1+k].MessageID)
			}
			h.end(t)
		})
	}
}

// A queue that is paused is drained when what was in flight has timed out, several together, or
// has expired.
func TestATickDrainsAQueue(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t)
		h.publish(make([]int, 100)...)
		take(t, h.q, 100)
		require.NoError(t, lifecycle.Pause(ctx, h.q))
		drained := lifecycle.AwaitDrained(h.q)
		elapse(10 * time.Second)
		requireClosed(t, drained, "what is ready is not waited for")
		h.end(t)
	})
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t, limits(func(q *settings.Limits) { q.TTL = time.Minute }))
		h.publish(1, 2)
		drained := lifecycle.AwaitDrained(h.q)
		want(h.q, 100)
		elapse(time.Minute)
		requireClosed(t, drained, "they are dead")
		require.Equal(t, []int{1, 2}, seen(t, h.q.DeadNow()))
		enough(h.q)
		h.end(t)
	})
}

// A delivery times out at its instant though somebody waits for room, and nothing expires.
func TestATimeOutDoesNotWaitForRoom(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t, limits(func(q *settings.Limits) { q.TTL = time.Hour }))
		h.publish(1, 2)
		take(t, h.q, 2)
		want(h.q, 100)
		elapse(10 * time.Second)
		require.Equal(t, 2, view.StatsOf(h.q).Ready)
		enough(h.q)
		h.end(t)
	})
}

// The limit of a rate holds among dead letters, too: they are in no log.
func TestARateLimitHoldsAmongLetters(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t)
		h.publish(1, 2, 3)
		die(t, take(t, h.q, 3)...)
		began := time.Now()
		var at []time.Duration
		subscribe(t, h.q.DeadNow(), 2, func(context.Context, delivery.Delivery[int]) error {
			at = append(at, time.Since(began))
			return nil
		}, func(s *settings.Subscriber) { s.Every = time.Minute })
		elapse(time.Hour)
		require.Equal(t, []time.Duration{0, time.Minute, 2 * time.Minute}, at)
		h.end(t)
	})
}

// Nobody waits for the end of a rate limit any more when another subscriber has come who may
// start: the timer is stopped.
func TestARateLimitThatNobodyWaitsForLeavesNoTimer(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t)
		k := new(keeper)
		h.kept(k, 0)
		nothing := func(context.Context, delivery.Delivery[int]) error { return nil }
		subscribe(t, h.q, 1, nothing, func(s *settings.Subscriber) { s.Every = time.Minute })
		h.q.Locked(func() {
			require.True(t, h.q.Group.Subs[0].Pass(h.Now()))
			h.q.HandOnLocked()
		})
		require.Equal(t, h.Now()+int64(time.Minute), limited(h.q))
		require.True(t, armed(h.q))
		wanted := k.saw().wanted
		subscribe(t, h.q, 1, nothing)
		require.Zero(t, limited(h.q))
		require.False(t, armed(h.q))
		require.Greater(t, k.saw().wanted, wanted)
	})
}

// A handler that hangs keeps what waits behind it for a millisecond or two, also if the timer
// has come too early for its lease.
func TestNothingWaitsLongBehindAHandler(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t)
		reached, goOn := make(chan struct{}), make(chan struct{})
		n := 0
		subscribe(t, h.q, 1, func(context.Context, delivery.Delivery[int]) error {
			if n++; n == 51 {
				close(reached)
				<-goOn
			}
			return nil
		})
		h.publish(1) // the timer is to come in a millisecond
		elapse(alarm.CheckAge * 3 / 4)
		h.publish(make([]int, 100)...)
		<-reached
		synctest.Wait()
		require.Positive(t, waiting(h.q))
		elapse(alarm.CheckAge / 4)
		require.Positive(t, waiting(h.q), "it is young")
		elapse(alarm.CheckAge * 3 / 4)
		require.Zero(t, waiting(h.q))
		close(goOn)
		synctest.Wait()
		require.EqualValues(t, 101, view.StatsOf(h.q).Acked)
		h.end(t)
	})
}

// waiting is how many messages wait in leases.
func waiting(q *queue.Queue[int]) (n int) {
	q.Locked(func() { n = q.Store.Leases.Waiting() })
	return n
}

// What a handler is told of its time-out says how long it had.
func TestATimeOutSaysHowLongItTook(t *testing.T) {
	for _, letters := range []bool{false, true} {
		bubble(t, func(t *testing.T, ctx context.Context) {
			told := new(book)
			h := newHome(t, hooked(notice.Stuck, told.note))
			time.Sleep(time.Minute)
			q := h.q
			h.publish(1)
			if letters {
				die(t, take(t, h.q, 1)...)
				q = h.q.DeadNow()
			}
			causes := make(chan error, 2)
			subscribe(t, q, 1, func(ctx context.Context, d delivery.Delivery[int]) error {
				if d.Attempt() == 1 {
					<-ctx.Done()
					causes <- context.Cause(ctx)
				}
				return nil
			})
			cause := <-causes
			require.ErrorIs(t, cause, message.ErrStale)
			require.ErrorContains(t, cause, "10s")
			synctest.Wait()
			h.end(t)
		})
	}
}
