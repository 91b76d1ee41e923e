package queue_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/lifecycle"
	"github.com/gofanout/fanout/internal/log"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/settings"
	"github.com/gofanout/fanout/internal/store"
	"github.com/gofanout/fanout/internal/view"
)

// A book has the events that hooks heard of.
type book struct {
	mu   sync.Mutex
	list []notice.Event
}

func (b *book) note(e notice.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.list = append(b.list, e)
}

func (b *book) read() []notice.Event {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.list
}

func (b *book) forget() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.list = nil
}

// settled are the ends that hooks heard of.
func settled(told *book) setting { return hooked(notice.Settled, told.note) }

// A delivery whose time has passed is told of by itself, if somebody wants to hear of each,
// and is stale.
func TestATimeOutEndsADelivery(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		told := new(book)
		h := newHome(t, settled(told), attempts(2))
		h.publish(1, 2)
		ds := take(t, h.q, 2)
		drained := lifecycle.AwaitDrained(h.q)
		elapse(10*time.Second - 1)
		require.Empty(t, told.read())
		elapse(1)
		require.Len(t, told.read(), 2)
		for k, e := range told.read() {
			require.Equal(t, []any{ds[k].ID(), message.TimedOut, 1, 10 * time.Second}, []any{e.MessageID, e.Cause, e.Attempt, e.Elapsed})
			require.ErrorIs(t, ds[k].Ack(ctx), message.ErrStale)
		}
		require.Equal(t, 2, view.StatsOf(h.q).Ready, "they are ready at once")
		take(t, h.q, 2)
		elapse(10 * time.Second)
		requireClosed(t, drained, "they are dead")
		require.Equal(t, []int{1, 2}, seen(t, h.q.DeadNow()))
		require.Equal(t, 2, told.read()[3].Attempt)
		h.end(t)
	})
	bubble(t, func(t *testing.T, ctx context.Context) { // several together
		h := newHome(t)
		h.publish(make([]int, 100)...)
		ds := take(t, h.q, 100)
		elapse(10 * time.Second)
		require.Equal(t, 100, view.StatsOf(h.q).Ready)
		require.EqualValues(t, 100, view.StatsOf(h.q).TimedOut)
		require.ErrorIs(t, ds[50].Ack(ctx), message.ErrStale)
		h.end(t)
	})
}

func requireClosed(t *testing.T, ch <-chan struct{}, why string) {
	t.Helper()
	select {
	case <-ch:
	default:
		t.Fatal(why)
	}
}

// A dead letter, which stays in its entry, times out as any other.
func TestADeadLetterTimesOutInItsPlace(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		told := new(book)
		h := newHome(t, settled(told))
		h.publish(1)
		die(t, take(t, h.q, 1)...)
		dead := h.q.DeadNow()
		told.forget()
		letter := take(t, dead, 1)[0]
		drained := lifecycle.AwaitDrained(dead)
		elapse(10 * time.Second)
		require.Len(t, told.read(), 1)
		require.Equal(t, []any{"q/dead", message.TimedOut, 1, 10 * time.Second}, []any{told.read()[0].Queue, told.read()[0].Cause, told.read()[0].Attempt, told.read()[0].Elapsed})
		require.ErrorIs(t, letter.Ack(ctx), message.ErrStale)
		requireClosed(t, drained, "nobody has it in hand")
		again := take(t, dead, 1)[0]
		require.Equal(t, 2, again.Attempt())
		require.Equal(t, message.TimedOut, again.History()[1].Cause)
		h.end(t)
	})
}

// A handler whose message times out hears of it, and is stuck until it returns, of messages in
// leases and in entries.
func TestAHandlerThatTakesTooLongIsCancelled(t *testing.T) {
	for _, letters := range []bool{false, true} {
		bubble(t, func(t *testing.T, ctx context.Context) {
			told := new(book)
			h := newHome(t, settled(told), hooked(notice.Stuck, told.note))
			h.publish(1)
			q := h.q
			if letters {
				die(t, take(t, h.q, 1)...)
				q = h.q.DeadNow()
				told.forget()
			}
			began := time.Now()
			causes, goOn := make(chan error, 1), make(chan struct{})
			subscribe(t, q, 1, func(ctx context.Context, d delivery.Delivery[int]) error {
				if d.Attempt() > 1 {
					return nil
				}
				<-ctx.Done()
				causes <- context.Cause(ctx)
				<-goOn
				return nil
			})
			require.ErrorIs(t, <-causes, message.ErrStale)
			require.LessOrEqual(t, time.Since(began), 10*time.Second+time.Millisecond)
			synctest.Wait()
			require.Len(t, told.read(), 2)
			for _, e := range told.read() {
				require.Equal(t, []any{q.Name(), 1}, []any{e.Queue, e.Attempt})
			}
			require.Equal(t, 10*time.Second, told.read()[0].Elapsed)
			require.Equal(t, 1, view.StatsOf(q).Stuck)
			close(goOn)
			elapse(time.Minute)
			require.Zero(t, view.StatsOf(q).Stuck)
			require.EqualValues(t, 1, view.StatsOf(q).Acked)
			h.end(t)
		})
	}
}

// A keeper keeps a queue's messages elsewhere.
type keeper struct {
	nothing
	mu  sync.Mutex
	has heard
}

// What a keeper was told.
type heard struct {
	ended, dead, wanted, changed int
	extended                     []time.Duration
	verdict                      message.Verdict
}

func (k *keeper) note(f func(x *heard)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f(&k.has)
}

func (k *keeper) saw() heard {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.has
}

// nothing is all that a keeper does and these tests do not ask for.
type nothing interface {
	Extend(ctx context.Context, ref message.Ref, by time.Duration) error
	Purge(ctx context.Context) (dropped int, err error)
	Close() error
	Delete(ctx context.Context) error
	AwaitEmpty(ctx context.Context) error
	AskLeft()
	Left() (ready, inFlight int)
	LetGo()
	Capacity() int
}

// Settle says that the worker comes too late.
func (k *keeper) Settle(context.Context, message.Ref, message.Verdict) error { return message.ErrStale }
func (k *keeper) Failed(error) bool                                          { return false }

// Unknown to these tests: where the messages are.
func (k *keeper) Depth(context.Context) (d view.Depth, err error) { return d, nil }
func (k *keeper) Hide(*view.Stats)                                {}
func (k *keeper) Peek(context.Context, int) ([]delivery.Delivery[int], error) {
	return nil, nil
}

func (k *keeper) Look(context.Context, view.Seat, view.PeekOptions) ([]view.Sight[int], bool, error) {
	return nil, false, nil
}

func (k *keeper) WantLocked()    { k.note(func(x *heard) { x.wanted++ }) }
func (k *keeper) ChangedLocked() { k.note(func(x *heard) { x.changed++ }) }
func (k *keeper) EndLocked(_ int32, v message.Verdict, _ int64) {
	k.note(func(x *heard) { x.ended, x.verdict = x.ended+1, v })
}
func (k *keeper) DeadLetterLocked(int32) { k.note(func(x *heard) { x.dead++ }) }
func (k *keeper) ExtendLocked(_ int32, by time.Duration) {
	k.note(func(x *heard) { x.extended = append(x.extended, by) })
}

// kept has the queue kept by k, with messages in its window.
func (h *home) kept(k *keeper, n int) {
	h.q.Keeper, h.q.Entries, h.q.Store.Direct, h.q.Renews, h.q.Store.Evicts = k, true, true, true, false
	h.q.Locked(func() {
		for range n {
			h.seq++
			h.q.Store.Offered++
			h.q.Store.Admit(store.Held[int]{Item: message.Item[int]{Seq: h.seq, At: h.Now(), Body: int(h.seq)}}, store.Due)
		}
	})
}

// What an engine keeps ends by it: time-outs, and what is dead.
func TestAKeeperIsToldWhatEnds(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t, limits(func(q *settings.Limits) { q.TTL = time.Minute }))
		k := new(keeper)
		h.kept(k, 2)
		take(t, h.q, 1)
		elapse(10 * time.Second)
		require.Equal(t, []any{1, message.TimedOut}, []any{k.saw().ended, k.saw().verdict.Cause})
		h.q.Locked(h.q.ChangedLocked)
		require.Equal(t, 1, k.saw().changed)
		elapse(time.Minute)
		requireNone(t, h.q)
		require.Equal(t, 1, k.saw().dead, "its time to live has passed")
		require.Nil(t, h.q.DeadNow())
	})
}

// A worker that is free wants messages of the engine, as its rate limit lets it.
func TestAKeeperIsAskedForMessages(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t)
		k := new(keeper)
		h.kept(k, 0)
		subscribe(t, h.q, 1, func(context.Context, delivery.Delivery[int]) error { return nil })
		require.Positive(t, k.saw().wanted)
		wanted := k.saw().wanted
		h.q.Locked(func() {
			h.q.Paused = true
			h.q.HandOnLocked()
		})
		require.Equal(t, wanted, k.saw().wanted, "not while it is paused")
	})
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t)
		k := new(keeper)
		h.kept(k, 0)
		subscribe(t, h.q, 1, func(context.Context, delivery.Delivery[int]) error { return nil }, func(s *settings.Subscriber) { s.Every = time.Minute })
		h.q.Locked(func() {
			require.True(t, h.q.Group.Subs[0].Pass(h.Now()))
			k.note(func(x *heard) { x.wanted = 0 })
			h.q.HandOnLocked()
			require.Zero(t, k.saw().wanted)
			require.Equal(t, h.Now()+int64(time.Minute), h.q.Limited)
		})
		elapse(time.Minute - 1)
		require.Zero(t, k.saw().wanted)
		elapse(1)
		require.Positive(t, k.saw().wanted, "once it may start one")
	})
}

// An engine's lease is renewed on the way for a handler that is extended by itself, up to the
// end of that.
func TestAKeptMessageIsRenewedOnTheWay(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		told := new(book)
		h := newHome(t, settled(told))
		k := new(keeper)
		h.kept(k, 1)
		began := time.Now()
		var cancelled time.Duration
		subscribe(t, h.q, 1, func(ctx context.Context, _ delivery.Delivery[int]) error {
			<-ctx.Done()
			cancelled = time.Since(began)
			return nil
		}, func(s *settings.Subscriber) { s.AutoExtend = 25 * time.Second })
		elapse(24 * time.Second)
		require.Equal(t, []time.Duration{10 * time.Second, 5 * time.Second}, k.saw().extended)
		require.Zero(t, k.saw().ended)
		elapse(time.Second)
		require.Equal(t, 25*time.Second, cancelled)
		require.Equal(t, 1, k.saw().ended)
		require.Equal(t, message.TimedOut, k.saw().verdict.Cause)
	})
}

// While somebody waits for room, the timer comes when the next message expires; else nobody
// looks.
func TestTheTimerComesForWhatExpiresIfRoomIsWanted(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t, limits(func(q *settings.Limits) { q.Capacity, q.TTL = 3, time.Minute }))
		let := 0
		h.letIn = func(*queue.Queue[int]) (p notice.Pending) { let++; return p }
		h.publish(1, 2)
		elapse(30 * time.Second)
		h.publish(3)
		elapse(10 * time.Minute)
		require.Nil(t, h.q.DeadNow(), "nobody wants room")
		h.q.Mu.Lock()
		h.q.RoomWanted.Store(h.q.Store.Allow.Load() + 3)
		h.q.Unlock()
		h.q.Mu.Lock()
		h.q.LookForExpiryLocked(h.Now())
		h.q.ArmLocked(h.Now())
		h.q.Unlock()
		elapse(time.Millisecond)
		require.Equal(t, []int{1, 2, 3}, seen(t, h.q.DeadNow()))
		require.Equal(t, 1, let)
		h.end(t)
	})
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t, limits(func(q *settings.Limits) { q.Capacity, q.TTL = 3, time.Minute }))
		began := time.Now()
		var at time.Duration
		h.letIn = func(*queue.Queue[int]) (p notice.Pending) { at = time.Since(began); return p }
		h.publish(1, 2, 3)
		h.q.Mu.Lock()
		h.q.RoomWanted.Store(h.q.Store.Allow.Load() + 2)
		h.q.LookForExpiryLocked(h.Now())
		h.q.ArmLocked(h.Now())
		h.q.Unlock()
		require.True(t, armed(h.q))
		elapse(time.Hour)
		require.Equal(t, time.Minute, at, "at its instant")
		h.end(t)
	})
}

// What was read is let go of in a moment, though nothing else comes.
func TestALogIsLetGoOfInAMoment(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t, limits(func(q *settings.Limits) { q.TTL = time.Minute }))
		h.publish(1, 2)
		elapse(time.Minute)
		requireNone(t, h.q) // they are dead
		require.False(t, resting(h.q))
		elapse(2 * time.Millisecond)
		require.True(t, resting(h.q))
		elapse(10 * time.Millisecond)
		require.False(t, armed(h.q))
		h.end(t)
	})
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t)
		h.q.Locked(func() {
			now := h.Now()
			h.q.LookByLocked(now, time.Second)
			require.Equal(t, now+int64(time.Second), h.q.Alarm.CheckAt)
			h.q.LookByLocked(now, 2*time.Second)
			require.Equal(t, now+int64(time.Second), h.q.Alarm.CheckAt, "the earlier counts")
			h.q.LookByLocked(now, time.Millisecond)
			require.Equal(t, now+int64(time.Millisecond), h.q.Alarm.CheckAt)
		})
		elapse(time.Millisecond)
		require.Zero(t, checkAt(h.q))
		h.end(t)
	})
}

// Whatever a queue held when it was closed is kept, and nothing else.
func TestWhatIsKeptOfAClosedQueue(t *testing.T) {
	left := []message.Published[int]{{Body: 1}}
	q := new(queue.Queue[int])
	q.KeepLeftLocked(left)
	require.Equal(t, left, q.LeftLocked())
	q = new(queue.Queue[int])
	require.Nil(t, q.LeftLocked())
	q.KeepLeftLocked(nil)
	require.Nil(t, q.LeftLocked())
	q.KeepLeftLocked(left)
	require.Equal(t, left, q.LeftLocked())
	q.KeepLeftLocked(nil)
	require.Nil(t, q.LeftLocked())
}

// Segments of a queue's own log are short.
func TestTheSegmentsOfAnOwnLogAreShort(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		for capacity, want := range map[int]int{1 << 20: queue.PrefetchLen, 40: 10, 1: 1} {
			h := newHome(t, limits(func(q *settings.Limits) { q.Capacity = capacity }))
			h.q.Store.Cursor.Close()
			var spare log.Spare[message.Item[int]]
			idle := h.q.Idle
			h.q.ReadOwnLog(&spare)
			require.NotSame(t, idle, h.q.Idle)
			longest := 0
			for range 400 {
				longest = max(longest, len(h.q.Store.Log.Extend(1000)))
			}
			require.Equal(t, want, longest)
			h.Release()
		}
	})
}

// A queue has ended once it is closed and nothing of it runs, and once only.
func TestAQueueHasEndedOnceNothingOfItRuns(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t)
		live := h.Live.N.Load()
		check := func() int64 {
			h.q.Locked(h.q.CheckEndedLocked)
			return live - h.Live.N.Load()
		}
		require.Zero(t, check(), "it is open")
		h.q.Calls, h.q.Polling = 1, true
		require.NoError(t, lifecycle.Close(h.q))
		require.Zero(t, check())
		h.q.Calls = 0
		require.Zero(t, check(), "the engine is asked for messages")
		h.q.Polling = false
		h.q.Group.Running = 1
		require.Zero(t, check())
		h.q.Group.Running = 0
		h.q.Alarm.Begin()
		require.Zero(t, check())
		h.q.Alarm.End()
		require.EqualValues(t, 1, check())
		require.EqualValues(t, 1, check())
		h.Release()
	})
}

// A tick that is on its way when the queue closes ends it.
func TestATickEndsAClosedQueue(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var h *home
		h = newHome(t, hooked(notice.Settled, func(notice.Event) { // in the tick
			require.NoError(t, lifecycle.Close(h.q))
			require.EqualValues(t, 2, h.Live.N.Load(), "it is not over")
		}))
		h.publish(1)
		take(t, h.q, 1)
		elapse(10 * time.Second)
		require.EqualValues(t, 1, h.Live.N.Load())
		h.Release()
	})
}

// Interceptors around calls make a queue no local one.
func TestAQueueIsLocalIfNothingStandsAroundCalls(t *testing.T) {
	h := newHome(t)
	require.True(t, h.q.Local)
	h.Calls = append(h.Calls, nil)
	require.False(t, h.open("other", h.q.Store.Set).Local)
	require.False(t, new(queue.Queue[int]).Local)
}

// A redrive that waits for room is looked at when something is parked: they may change places.
func TestWhatIsParkedIsOfferedToAWaitingRedrive(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t, limits(func(q *settings.Limits) { q.DeadCapacity = 1 }))
		let := 0
		h.letIn = func(*queue.Queue[int]) (p notice.Pending) { let++; return p }
		h.publish(1, 2)
		ds := take(t, h.q, 2)
		h.q.RoomWanted.Store(1 << 60) // far more than there will be
		die(t, ds[0])
		require.Zero(t, let, "it is a letter")
		die(t, ds[1])
		require.Equal(t, 1, let)
		require.False(t, h.q.Blocking())
		h.end(t)
	})
}

// Whoever waits for letters gets one that dies.
func TestAReceiverOfLettersIsWoken(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t)
		dead := h.q.DeadLetters()
		got := make(chan int, 1)
		go func() {
			if ds, err := delivery.TakeBatch(ctx, dead, 1, time.Minute); err == nil {
				got <- ds[0].Body
			}
		}()
		synctest.Wait()
		h.publish(7)
		began := time.Now()
		die(t, take(t, h.q, 1)...)
		require.Equal(t, 7, <-got)
		require.Equal(t, began, time.Now())
		h.end(t)
	})
}

// Others are awaited while something waits in the hands of a worker.
func TestOthersAreGivenAMoment(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t)
		h.q.AwaitOthers() // there are none
		reached, goOn := make(chan struct{}), make(chan struct{})
		subscribe(t, h.q, 1, func(_ context.Context, d delivery.Delivery[int]) error {
			if d.Seq == 51 {
				close(reached)
				<-goOn
			}
			return nil
		})
		h.publish(make([]int, 100)...)
		<-reached
		require.Positive(t, h.q.Store.Leases.Waiting())
		h.q.AwaitOthers()
		close(goOn)
		synctest.Wait()
		require.EqualValues(t, 100, view.StatsOf(h.q).Acked)
		h.end(t)
	})
}
