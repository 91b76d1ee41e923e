package topic

import (
	"context"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/delivery"
)

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
