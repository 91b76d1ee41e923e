package admission

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/settings"
)

func withID(body int, id string) message.Published[int] {
	return message.Published[int]{Body: body, DeduplicationID: id}
}

func TestRowDeduplication(t *testing.T) {
	const window = 5 * time.Minute
	t.Run("window", func(t *testing.T) {
		bubble(t, func(t *testing.T, ctx context.Context) {
			h := newHome[int](t, deduplicating(window, 10))
			q := h.open("q")
			h.publishAll(t, withID(1, "x"))
			require.NoError(t, receive(t, q).Ack(ctx))
			h.publishAll(t, withID(2, "x")) // remembered after the ack
			elapse(window - 1)
			h.publishAll(t, withID(3, "x"), withID(4, "y"), withID(5, "y"), message.Published[int]{Body: 6})
			require.Equal(t, []int{4, 6}, bodies(t, q))
			elapse(1)
			h.publishAll(t, withID(7, "x"), withID(8, "y"))
			require.Equal(t, []int{4, 6, 7}, bodies(t, q))
			require.Equal(t, uint64(4), h.stats().Published)
			require.Equal(t, 4, h.stats().Duplicates)

			elapse(time.Second)
			h.publishAll(t, withID(9, "z")) // a second after x, for which the timer comes
			elapse(window - 1)
			h.publishAll(t, withID(10, "z"))
			elapse(1)
			h.publishAll(t, withID(11, "z"))
			require.Equal(t, []int{4, 6, 7, 9, 11}, bodies(t, q))
			h.check(t)
			h.end(t)
		})
	})
	t.Run("a duplicate needs no room", func(t *testing.T) {
		bubble(t, func(t *testing.T, ctx context.Context) {
			h := newHome[int](t, deduplicating(window, 10))
			q := h.open("q", capacity(1))
			h.open("even", accepting(func(b int) bool { return b%2 == 0 }), capacity(1), overflows(settings.Reject))
			h.publishAll(t, withID(2, "x"))
			h.publishAll(t, withID(2, "x"), withID(4, "x"))
			other := h.waiting(ctx, message.Published[int]{Body: 1})
			require.NoError(t, h.TryPublishBatch(ctx, []message.Published[int]{withID(2, "x")}), "not even while others wait")
			requireWaiting(t, other)
			require.Equal(t, []int{2}, bodies(t, q))
			require.NoError(t, receive(t, q).Ack(ctx))
			require.NoError(t, requireDecided(t, other))
			h.check(t)
			h.end(t)
		})
	})
	t.Run("filters see the right ones of a batch", func(t *testing.T) {
		bubble(t, func(t *testing.T, ctx context.Context) {
			var told []int
			h := newHome[int](t, deduplicating(window, 10), hooked(notice.Published, func(e notice.Event) { told = append(told, int(e.Seq)) }))
			even := h.open("even", accepting(func(b int) bool { return b%2 == 0 }))
			odd := h.open("odd", accepting(func(b int) bool { return b%2 == 1 }))
			h.publishAll(t, withID(1, "a"), withID(2, "b"), withID(3, "a"), withID(4, "c"), withID(5, "b"), withID(6, "b"), withID(7, "d"))
			require.Equal(t, []int{2, 4}, bodies(t, even))
			require.Equal(t, []int{1, 7}, bodies(t, odd))
			require.Equal(t, []int{1, 2, 3, 4}, told)
			h.check(t)
			h.end(t)
		})
	})
	t.Run("most IDs", func(t *testing.T) {
		bubble(t, func(t *testing.T, ctx context.Context) {
			h := newHome[int](t, deduplicating(window, 2))
			q := h.open("q")
			h.publishAll(t, withID(1, "x"), withID(2, "y"), withID(3, "z"))
			st := h.stats()
			require.Equal(t, [2]uint64{2, 1}, [2]uint64{uint64(st.Remembered), uint64(st.Forgotten)})
			h.publishAll(t, withID(4, "y"), withID(5, "z"), withID(6, "x")) // x was forgotten, and now y is
			require.Equal(t, []int{1, 2, 3, 6}, bodies(t, q))
			require.Equal(t, 2, h.stats().Forgotten)
			h.end(t)
		})
	})
	t.Run("the memory is given back", func(t *testing.T) {
		bubble(t, func(t *testing.T, ctx context.Context) {
			h := newHome[int](t, deduplicating(window, 100_000))
			for n := range 1000 {
				h.publishAll(t, withID(n, fmt.Sprint(n)))
			}
			elapse(window + window/8)
			h.Mu.Lock() // nobody asked, but the timer
			remembered, armed := h.IDsLocked()
			require.Zero(t, remembered)
			require.False(t, armed)
			h.Mu.Unlock()
			h.end(t)
		})
	})
	t.Run("a closed topic has no timer", func(t *testing.T) {
		bubble(t, func(t *testing.T, ctx context.Context) {
			h := newHome[int](t, deduplicating(window, 10))
			h.publishAll(t, withID(1, "x"))
			start := time.Now()
			h.end(t)
			require.Zero(t, time.Since(start))
		})
	})
}
