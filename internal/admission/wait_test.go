package admission

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/lifecycle"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/offer"
	"github.com/gofanout/fanout/internal/settings"
)

// Who finds no room says that it waits, and then looks once more. Here it
// can't look, because the test has the queue. So the room that is made meanwhile is
// seen by its look, and whoever makes some after that is told that it waits.
func TestNoPublishMissesTheRoomThatIsMadeAsItBeginsToWait(t *testing.T) {
	for _, before := range []bool{true, false} {
		bubble(t, func(t *testing.T, ctx context.Context) {
			h := newHome[int](t)
			q := h.open("q", capacity(1))
			h.publish(t, 1)
			d := receive(t, q)
			q.Mu.Lock()
			room := make(chan bool, 1)
			go func() {
				h.Mu.Lock()
				defer h.Mu.Unlock()
				room <- hasRoomOrWants(&offer.Offer[int]{MayWait: true}, q, 1)
			}()
			for n := 0; n < 10_000_000 && q.RoomWanted.Load() == 0; n++ {
				runtime.Gosched()
			}
			told := q.RoomWanted.Load() != 0
			if before { // as by one who saw that no room is wanted
				q.Store.Leases.Ack(d.Ref)
				delivery.AckedLocked(q)
			}
			q.Mu.Unlock()
			require.True(t, told, "it looks for room, and nobody would tell it of what is made then")
			require.Equal(t, before, <-room)
			if before {
				require.Zero(t, q.RoomWanted.Load(), "nobody waits")
			} else {
				require.NoError(t, d.Ack(ctx))
				require.Zero(t, q.RoomWanted.Load(), "who waits was not told")
			}
			h.check(t)
			h.end(t)
		})
	}
}

// The two things happen at one instant, in either order.
func TestAPublishThatIsAdmittedAsItIsReportedReturns(t *testing.T) {
	for range 200 {
		bubble(t, func(t *testing.T, ctx context.Context) {
			h := newHome[int](t)
			q := h.open("q", capacity(1))
			h.publish(t, 1)
			d := receive(t, q)
			go func() {
				time.Sleep(StallAfter)
				require.NoError(t, d.Ack(ctx))
			}()
			h.publish(t, 2)
			require.Equal(t, []int{2}, bodies(t, q))
			h.end(t)
		})
	}
}

// A publish that waits is reported every ten seconds, with the queue that it waits for
// then. Its error names that, too.
func TestAPublishThatWaitsIsReportedWithItsQueue(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var mu sync.Mutex
		var lines []string
		told := func() []string {
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(lines)
		}
		began := time.Now()
		h := newHome[int](t, hooked(notice.Stalled, func(e notice.Event) {
			mu.Lock()
			defer mu.Unlock()
			lines = append(lines, fmt.Sprintf("%v: %s, %v", time.Since(began), e.Queue, e.Elapsed))
		}))
		a, b := h.open("a", capacity(1)), h.open("b", capacity(1))
		h.publish(t, 1)
		elapse(time.Second)
		short, cancel := context.WithTimeout(ctx, 35*time.Second)
		defer cancel()
		errs := h.waiting(short, message.Published[int]{Body: 2})
		elapse(10*time.Second - 1)
		require.Empty(t, told())
		elapse(1)
		require.Equal(t, []string{"11s: a, 10s"}, told())
		elapse(15 * time.Second)
		require.ErrorContains(t, h.TryPublish(ctx, 3), `queue "a"`)
		require.NoError(t, receive(t, a).Ack(ctx))
		require.ErrorContains(t, h.TryPublish(ctx, 3), `queue "b"`)
		requireWaiting(t, errs)
		elapse(9 * time.Second)
		require.Equal(t, []string{"11s: a, 10s", "21s: a, 20s", "31s: b, 30s"}, told())
		elapse(time.Second)
		err := requireDecided(t, errs)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, `while waiting for room in queue "b"`)
		require.Equal(t, []int{1}, bodies(t, b))
		require.Zero(t, h.stats().Waiting)
		elapse(time.Minute)
		require.Len(t, told(), 3)
		h.check(t)
		h.end(t)
	})
}

// A hook that hears of a wait may end its goroutine: who stood behind it goes on.
func TestAWaitWhoseGoroutineEndsGivesUpItsPlace(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		exits := true
		h := newHome[int](t, hooked(notice.Stalled, func(notice.Event) {
			if exits {
				exits = false
				runtime.Goexit()
			}
		}))
		small := h.open("small", capacity(1), accepting(func(n int) bool { return n < 3 }))
		free := h.open("free", accepting(func(n int) bool { return n > 1 }))
		h.publish(t, 1)
		first := h.waiting(ctx, message.Published[int]{Body: 2})
		elapse(time.Second)
		second := h.waiting(ctx, message.Published[int]{Body: 3})
		elapse(StallAfter - time.Second) // the first is reported
		require.NoError(t, requireDecided(t, second))
		require.Zero(t, h.stats().Waiting)
		require.Equal(t, [][]int{{1}, {3}}, [][]int{bodies(t, small), bodies(t, free)})
		require.Empty(t, first)
		h.check(t)
		h.end(t)
	})
}

// Who is admitted in the end wakes those who wait for a message, in all its queues.
func TestAPublishThatWaitedWakesAllItsQueues(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome[int](t)
		small := h.open("small", capacity(1))
		h.publish(t, 0)
		handled := make(chan string, 9)
		for name, ss := range map[string][]setting{"plain": nil, "filtered": {accepting(all)}, "delayed": {delayed(time.Nanosecond)}} {
			handle(t, h.open(name, ss...), 1, func(_ context.Context, d delivery.Delivery[int]) error {
				handled <- name
				return nil
			})
			synctest.Wait()
		}
		errs := h.waiting(ctx, message.Published[int]{Body: 1})
		require.Empty(t, handled)
		require.NoError(t, receive(t, small).Ack(ctx))
		require.NoError(t, requireDecided(t, errs))
		elapse(1)
		require.Len(t, handled, 3)
		require.ElementsMatch(t, []string{"delayed", "filtered", "plain"}, []string{<-handled, <-handled, <-handled})
		h.check(t)
		h.end(t)
	})
}

// Who would be refused is told at once, whoever waits before it.
func TestNobodyWaitsToBeRefused(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome[int](t)
		small := h.open("small", capacity(1))
		h.open("rejecting", capacity(1), overflows(settings.Reject), accepting(func(n int) bool { return n%2 == 1 }))
		h.publish(t, 1)
		errs := h.waiting(ctx, message.Published[int]{Body: 2})
		err := h.Publish(ctx, 3)
		require.ErrorIs(t, err, message.ErrQueueFull)
		require.ErrorContains(t, err, `queue "rejecting" holds 1`)
		require.NoError(t, receive(t, small).Ack(ctx))
		require.NoError(t, requireDecided(t, errs))
		h.end(t)
	})
}

// A redrive whose queue closes meanwhile is told so.
func TestARedriveThatWaitsEndsWithItsQueue(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome[int](t)
		q := h.open("q", capacity(1))
		h.publish(t, 1)
		kill(t, q)
		h.publish(t, 2)
		errs := make(chan error, 1)
		go func() {
			_, err := redrive(ctx, q)
			errs <- err
		}()
		requireWaiting(t, errs)
		require.NoError(t, lifecycle.Close(q))
		err := requireDecided(t, errs)
		require.ErrorIs(t, err, message.ErrClosed)
		require.ErrorContains(t, err, `queue "q"`)
		require.Zero(t, h.stats().Waiting)
		h.check(t)
		h.end(t)
	})
}
