package topic

import (
	"context"
	"runtime"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/handling"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/store"
)

// What is pending under a queue's lock is told by whoever unlocks, in the order in
// which it came to be, and after those who waited for room have been let in.
func TestUnlockTellsLast(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var q *queue.Queue[int]
		var told []int
		var waited, held bool
		top := newTopic[int](t, WithHooks(Hooks{Dropped: func(e Event) {
			held = held || !q.Mu.TryLock()
			if !held {
				q.Mu.Unlock()
			}
			told = append(told, e.Count)
			waited = waited || topicOf(q).Stats().Waiting > 0
		}}))
		q = openQueue(t, top, "q", WithCapacity(1))
		publish(t, top, 1)
		published := make(chan error, 1)
		go func() { published <- top.In.Publish(ctx, 2) }()
		synctest.Wait()
		require.Equal(t, 1, top.Stats().Waiting)

		q.Mu.Lock()
		for n := range 3 {
			q.NoteLocked(notice.Dropped, notice.Event{Reason: notice.DroppedByPurge, Count: n + 1})
		}
		require.Empty(t, told, "nothing is told under the lock")
		q.Pending.Cancel(newTestContext(q).Cancel, errBusy)
		_, ok := delivery.ClaimAtLocked(q, q.Core.Now(), q.Store.Set.Visibility, store.InFlight)
		require.True(t, ok)
		i, _ := q.Store.Win.PopDue(1<<63 - 1)
		q.Store.CountOut(i)
		q.Store.Remove(i)
		q.Store.Acked++
		q.Unlock()
		require.Equal(t, []int{1, 2, 3}, told)
		require.False(t, held, "a hook was called under the lock")
		require.False(t, waited, "a hook was called before the publisher was let in")
		require.NoError(t, <-published)
		require.False(t, q.Pending.Any())
		check(t, top)
		require.NoError(t, top.Close())
	})
}

func newTestContext(q *queue.Queue[int]) *handling.Context {
	return &handling.NewContexts(q, nil).All[0]
}

// All that is pending is told, even if a hook ends the goroutine.
func TestWhatIsPendingIsToldThoughAHookExits(t *testing.T) {
	var told []int
	top := newTopic[int](t, WithHooks(Hooks{Dropped: func(e Event) {
		told = append(told, e.Count)
		runtime.Goexit()
	}}))
	q := openQueue(t, top, "q")
	ctx := newTestContext(q)
	called := false
	over := make(chan struct{})
	go func() {
		defer close(over)
		q.Mu.Lock()
		q.NoteLocked(notice.Dropped, notice.Event{Reason: notice.DroppedByPurge, Count: 1})
		q.Pending.Cancel(ctx.Cancel, errBusy)
		q.Pending.Call(func() { called = true })
		q.NoteLocked(notice.Dropped, notice.Event{Reason: notice.DroppedByPurge, Count: 2})
		q.Unlock()
	}()
	<-over
	require.Equal(t, []int{1, 2}, told)
	require.ErrorIs(t, context.Cause(ctx), errBusy)
	require.True(t, called)
	require.NoError(t, top.Close())
}

// Who holds the topic's lock leaves to it what is pending in a queue, and the room.
func TestUnlockUnderATopicLeavesItToTheTopic(t *testing.T) {
	var told []string
	top := newTopic[int](t, WithHooks(Hooks{Dropped: func(e Event) { told = append(told, e.Queue) }}))
	a, b := openQueue(t, top, "a"), openQueue(t, top, "b")
	top.In.Mu.Lock()
	for _, q := range []*queue.Queue[int]{a, b} {
		q.Mu.Lock()
		q.NoteLocked(notice.Dropped, notice.Event{Reason: notice.DroppedByPurge, Count: 1})
		q.RoomWanted.Store(1) // as of one who waits for room, and has gone
		q.UnlockUnder(&top.In.Home)
		require.False(t, q.Pending.Any())
	}
	require.Empty(t, told)
	require.Equal(t, []*queue.Queue[int]{a, b}, top.In.RoomMade)
	top.In.Unlock()
	require.Equal(t, []string{"a", "b"}, told)
	require.Zero(t, a.RoomWanted.Load()+b.RoomWanted.Load(), "who waits for room was not told")
	check(t, top)
	require.NoError(t, top.Close())
}

func TestUnlockWithNothingPendingAllocatesNothing(t *testing.T) {
	top := newTopic[int](t)
	q := openQueue(t, top, "q")
	require.Zero(t, testing.AllocsPerRun(100, func() {
		q.Mu.Lock()
		q.Unlock()
		top.In.Mu.Lock()
		q.Mu.Lock()
		q.UnlockUnder(&top.In.Home)
		top.In.Unlock()
	}))
	require.NoError(t, top.Close())
}
