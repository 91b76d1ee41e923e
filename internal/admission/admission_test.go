package admission

import (
	"context"
	"runtime"
	"slices"
	"testing"
	"time"
	"weak"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/lifecycle"
	"github.com/gofanout/fanout/internal/log"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/settings"
	"github.com/gofanout/fanout/internal/view"
)

// longest is the longest segment that the log makes now. It is appended to.
func longest(h *home[int]) (n int) {
	h.Mu.Lock()
	defer h.Mu.Unlock()
	for range 8 { // segments grow to it
		n = max(n, len(h.log.Extend(log.SegmentOf[message.Item[int]]())))
	}
	h.log.Publish()
	return n
}

// A segment is kept as a whole while any queue stands in it, so that the smallest capacity
// says how long they are.
func TestSegmentsAreAQuarterOfTheSmallestCapacity(t *testing.T) {
	h := newHome[int](t)
	most := log.SegmentOf[message.Item[int]]()
	for _, step := range []struct {
		open, close string
		capacity    int
		want        int
	}{
		{"large", "", message.Unlimited, most},
		{"400", "", 400, min(most, 100)},
		{"40", "", 40, 10},
		{"41", "", 41, 10},
		{"most", "", 4 * most, 10},
		{"filtered", "", 4, 10},
		{"delayed", "", 4, 10},
		{"", "most", 0, 10},
		{"", "40", 0, 10},
		{"", "filtered", 0, 10},
		{"", "delayed", 0, 10},
		{"", "41", 0, min(most, 100)},
		{"3", "", 3, 1},
		{"", "400", 0, 1},
		{"", "3", 0, most},
	} {
		if step.open != "" {
			ss := []setting{capacity(step.capacity)}
			switch step.open {
			case "filtered":
				ss = append(ss, accepting(all))
			case "delayed":
				ss = append(ss, delayed(time.Second))
			}
			h.open(step.open, ss...)
		} else {
			k := slices.IndexFunc(h.queues, func(q *queue.Queue[int]) bool { return q.Name() == step.close })
			require.NoError(t, lifecycle.Close(h.queues[k]))
		}
		require.Equal(t, step.want, longest(h), "%+v", step)
	}
	h.end(t)
}

// A queue that is opened late has all its room, and is told of nothing that came before.
func TestAQueueThatIsOpenedLateHasAllItsRoom(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome[int](t)
		early := h.open("early")
		for body := range 10 {
			h.publish(t, body)
		}
		late := h.open("late", capacity(2), overflows(settings.Reject))
		require.Zero(t, view.StatsOf(late).Published)
		h.publish(t, 10, 11)
		require.ErrorIs(t, h.Publish(ctx, 12), message.ErrQueueFull)
		require.Equal(t, 2, view.StatsOf(late).Published)
		require.Equal(t, 12, view.StatsOf(early).Published)
		h.check(t)

		require.NoError(t, lifecycle.Close(early))
		require.NoError(t, receive(t, late).Ack(ctx))
		h.publish(t, 13)
		require.Equal(t, []int{11, 13}, bodies(t, late), "it reads on when another has gone")
		h.check(t)
		h.end(t)
	})
}

// Publishes look at queues only while they must: while one is direct, and when the room
// that is known of is used up.
func TestAPublishLooksAtQueuesOnlyWhileItMust(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome[int](t)
		fast := func(body int) bool {
			t.Helper()
			done := h.publishFast(ctx, body)
			if !done {
				require.NoError(t, h.TryPublish(ctx, body))
			}
			h.check(t)
			return done
		}
		require.True(t, fast(1), "there is none")
		q := h.open("q", capacity(3))
		require.True(t, fast(2))
		one, two := h.open("one", delayed(time.Second)), h.open("two", delayed(time.Second))
		require.False(t, fast(3))
		require.False(t, fast(4), "and it has looked once")
		require.NoError(t, lifecycle.Close(one))
		require.NoError(t, receive(t, q).Ack(ctx))
		require.False(t, fast(5))
		require.NoError(t, lifecycle.Close(two))
		require.False(t, h.publishFast(ctx, 6), "it is full")
		require.NoError(t, receive(t, q).Ack(ctx))
		require.True(t, fast(6))
		require.Equal(t, []int{4, 5, 6}, bodies(t, q))
		require.NoError(t, lifecycle.Close(q))
		require.True(t, fast(7), "there is none again")
		h.end(t)
	})
}

// What a queue had is let go of with the queue.
func TestALogThatNobodyReadsKeepsNothing(t *testing.T) {
	h := newHome[*watched](t)
	var bodies []weak.Pointer[watched]
	func() {
		q := h.open("q")
		for range 3 {
			body := new(watched)
			bodies = append(bodies, weak.Make(body))
			h.publish(t, body)
		}
		require.NoError(t, lifecycle.Close(q))
	}()
	runtime.GC()
	runtime.GC()
	for _, b := range bodies {
		require.Nil(t, b.Value())
	}
	h.end(t)
}

// IDs are asked for only where they are kept, and are counted as the clock says.
func TestDeduplicationIsAsked(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome[int](t)
		err := h.PublishBatch(ctx, []message.Published[int]{withID(1, "x")})
		require.ErrorIs(t, err, message.ErrUnsupported)
		require.ErrorContains(t, err, `topic "payments" was not made WithDeduplication`)
		require.ErrorContains(t, h.PublishBatch(ctx, []message.Published[int]{{OrderingKey: "k"}}), "WithOrdering")
		require.Equal(t, Stats{Topic: "payments"}, h.stats())
		h.end(t)

		h = newHome[int](t, deduplicating(time.Minute, 10))
		remembered := func() (n int) {
			h.Mu.Lock()
			defer h.Mu.Unlock()
			n, _ = h.IDsLocked()
			return n
		}
		h.publishAll(t, withID(1, "x"), withID(2, "x"))
		require.EqualValues(t, 2, h.Live.N.Load(), "the end waits for the timer")
		elapse(time.Second)
		h.publishAll(t, withID(2, "y"))
		elapse(time.Minute - time.Second - 1)
		require.Equal(t, Stats{Topic: "payments", Published: 2, Unrouted: 2, Duplicates: 1, Remembered: 2}, h.stats())
		elapse(time.Second + 1)
		require.Equal(t, 1, remembered(), "the timer has come for the first")
		require.Zero(t, h.stats().Remembered)
		h.publishAll(t, withID(3, "z"))
		elapse(time.Second)
		h.publishAll(t, withID(4, "a"))
		elapse(3 * time.Minute)
		require.Zero(t, remembered(), "it comes again and again")
		require.EqualValues(t, 1, h.Live.N.Load())
		h.end(t)
	})
}
