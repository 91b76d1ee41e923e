package topic

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
		top := newTopic[int](t)
		handled := make([]int, n)
		for k := range n {
			subscribe(t, top, strconv.Itoa(k), func(context.Context, delivery.Delivery[int]) error {
				handled[k]++
				return nil
			}, WithFilter(func(body int) bool { return body == k }))
		}
		plain := subscribe(t, top, "plain", func(context.Context, delivery.Delivery[int]) error { return nil })
		synctest.Wait()
		sleeping := func() (names []string) {
			for _, q := range top.Queues() {
				q.Idle.Mu.Lock()
				if q.IdleAt >= q.Idle.First {
					names = append(names, q.Name())
				}
				q.Idle.Mu.Unlock()
			}
			return names
		}
		require.Len(t, sleeping(), n+1)
		publish(t, top, 7)
		synctest.Wait()
		require.Equal(t, 1, handled[7])
		require.EqualValues(t, 1, view.StatsOf(plain.Queue()).Acked)
		for k := range n {
			q := top.Queue(strconv.Itoa(k))
			q.Idle.Mu.Lock()
			if k == 7 {
				require.Positive(t, q.Idle.First, "it was woken")
			} else {
				require.Zero(t, q.Idle.First, "queue %d was not", k)
			}
			q.Idle.Mu.Unlock()
		}
		require.Len(t, sleeping(), n+1)
		check(t, top)
		require.NoError(t, top.Close())
	})
}

func TestAnIdleQueueWithAFilterIsSmall(t *testing.T) {
	const queues = 10_000
	ctx := context.Background()
	top := newTopic[*int](t)
	names := make([]string, queues)
	for k := range names {
		names[k] = strconv.Itoa(k)
	}
	before := heapInUse()
	for k, name := range names {
		_, err := top.Subscribe(ctx, name, func(context.Context, delivery.Delivery[*int]) error { return nil }, WithFilter(func(body *int) bool { return *body == k }))
		require.NoError(t, err)
	}
	each := (heapInUse() - before) / queues
	t.Logf("%d bytes", each)
	require.Less(t, each, int64(1600), "bytes of an idle queue with a filter and a subscriber")
	for k := range 100 {
		publish(t, top, &k)
	}
	require.NoError(t, top.Close())
}

func TestAnIdleQueueWithAFilterHasNoRoomForBodies(t *testing.T) {
	type large [1 << 20]byte
	ctx := context.Background()
	top := newTopic[large](t)
	before := heapInUse()
	for k := range 100 {
		_, err := top.OpenQueue(ctx, strconv.Itoa(k), WithFilter(func(large) bool { return true }))
		require.NoError(t, err)
	}
	require.Less(t, heapInUse()-before, int64(1<<18), "before the first message")
	require.NoError(t, top.Close())
}
