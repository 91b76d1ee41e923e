package admission

import (
	"context"
	"strconv"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/view"
)

func TestAPublishWakesOnlyTheQueuesThatGetIt(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		const n = 100
		h := newHome[int](t)
		handled := make([]int, n)
		for k := range n {
			handle(t, h.open(strconv.Itoa(k), accepting(func(body int) bool { return body == k })), 1, func(context.Context, delivery.Delivery[int]) error {
				handled[k]++
				return nil
			})
		}
		plain := h.open("plain")
		handle(t, plain, 1, func(context.Context, delivery.Delivery[int]) error { return nil })
		synctest.Wait()
		sleeping := func() (names []string) {
			for _, q := range h.queues {
				q.Idle.Mu.Lock()
				if q.IdleAt >= q.Idle.First {
					names = append(names, q.Name())
				}
				q.Idle.Mu.Unlock()
			}
			return names
		}
		require.Len(t, sleeping(), n+1)
		h.publish(t, 7)
		synctest.Wait()
		require.Equal(t, 1, handled[7])
		require.EqualValues(t, 1, view.StatsOf(plain).Acked)
		for k := range n {
			q := h.queues[k]
			q.Idle.Mu.Lock()
			if k == 7 {
				require.Positive(t, q.Idle.First, "it was woken")
			} else {
				require.Zero(t, q.Idle.First, "queue %d was not", k)
			}
			q.Idle.Mu.Unlock()
		}
		require.Len(t, sleeping(), n+1)
		h.check(t)
		h.end(t)
	})
}
