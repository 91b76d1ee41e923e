package core

import (
	"context"
	"runtime"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/handling"
	"github.com/gofanout/fanout/internal/notice"
)

// What is pending under a queue's lock is told by whoever unlocks, in the order in
// which it came to be, and after those who waited for room have been let in.
func TestUnlockTellsLast(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var q *Queue[int]
		var told []int
		var waited, held bool
		top := newTopic[int](t, WithHooks(Hooks{Dropped: func(e Event) {
			held = held || !q.mu.TryLock()
			if !held {
				q.mu.Unlock()
			}
			told = append(told, e.Count)
			waited = waited || topicOf(q).Stats().Waiting > 0
		}}))
		q = openQueue(t, top, "q", WithCapacity(1))
		publish(t, top, 1)
		published := make(chan error, 1)
		go func() { published <- top.Publish(ctx, 2) }()
		synctest.Wait()
		require.Equal(t, 1, top.Stats().Waiting)

		q.mu.Lock()
		for n := range 3 {
			q.noteLocked(notice.Dropped, notice.Event{Reason: notice.DroppedByPurge, Count: n + 1})
		}
		require.Empty(t, told, "nothing is told under the lock")
		q.pending.Cancel(newTestContext(q).Cancel, errBusy)
		_, ok := q.claimAtLocked(q.core.now(), q.set.Visibility, inFlight)
		require.True(t, ok)
		i, _ := q.win.PopDue(1<<63 - 1)
		q.freeLocked(i)
		q.acked++
		q.unlock()
		require.Equal(t, []int{1, 2, 3}, told)
		require.False(t, held, "a hook was called under the lock")
		require.False(t, waited, "a hook was called before the publisher was let in")
		require.NoError(t, <-published)
		require.False(t, q.pending.Any())
		check(t, top)
		require.NoError(t, top.Close())
	})
}

func newTestContext(q *Queue[int]) *handling.Context { return &handling.NewContexts(q, nil).All[0] }

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
		q.mu.Lock()
		q.noteLocked(notice.Dropped, notice.Event{Reason: notice.DroppedByPurge, Count: 1})
		q.pending.Cancel(ctx.Cancel, errBusy)
		q.pending.Call(func() { called = true })
		q.noteLocked(notice.Dropped, notice.Event{Reason: notice.DroppedByPurge, Count: 2})
		q.unlock()
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
	top.mu.Lock()
	for _, q := range []*Queue[int]{a, b} {
		q.mu.Lock()
		q.noteLocked(notice.Dropped, notice.Event{Reason: notice.DroppedByPurge, Count: 1})
		q.gate.Store(1) // as of one who waits for room, and has gone
		q.unlockUnder(&top.home)
		require.False(t, q.pending.Any())
	}
	require.Empty(t, told)
	require.Equal(t, []*Queue[int]{a, b}, top.roomMade)
	top.unlock()
	require.Equal(t, []string{"a", "b"}, told)
	require.Zero(t, a.gate.Load()+b.gate.Load(), "who waits for room was not told")
	check(t, top)
	require.NoError(t, top.Close())
}

func TestUnlockWithNothingPendingAllocatesNothing(t *testing.T) {
	top := newTopic[int](t)
	q := openQueue(t, top, "q")
	require.Zero(t, testing.AllocsPerRun(100, func() {
		q.mu.Lock()
		q.unlock()
		top.mu.Lock()
		q.mu.Lock()
		q.unlockUnder(&top.home)
		top.unlock()
	}))
	require.NoError(t, top.Close())
}
