package topic

import (
	"context"
	"runtime"
	"strconv"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/lease"
	"github.com/gofanout/fanout/internal/lifecycle"
	"github.com/gofanout/fanout/internal/log"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/settings"
	"github.com/gofanout/fanout/internal/view"
)

// heapInUse is what the heap holds once garbage is gone.
func heapInUse() int64 {
	runtime.GC()
	runtime.GC() // what pools held
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestAnIdleQueueWithASubscriberIsSmall(t *testing.T) {
	const queues = 10_000
	ctx := context.Background()
	top := newTopic[*int](t)
	names := make([]string, queues)
	for k := range names {
		names[k] = strconv.Itoa(k)
	}
	goroutines := runtime.NumGoroutine()
	before := heapInUse()
	for _, name := range names {
		_, err := top.Subscribe(ctx, name, func(context.Context, delivery.Delivery[*int]) error { return nil }, WithCapacity(2048))
		require.NoError(t, err)
	}
	each := (heapInUse() - before) / queues
	require.Less(t, each, int64(1100), "bytes of an idle queue with its subscriber")
	require.Less(t, runtime.NumGoroutine(), goroutines+queues/100, "other tests and the runtime have some, too")
	q := top.Queue("7")
	require.Nil(t, q.Alarm.Timer)
	require.NoError(t, top.Close())
}

// A flock of bodies that can be watched.
type watched struct{ _ [1 << 10]byte }

func publishWatched(t *testing.T, top *Topic[*watched], n int) []weak.Pointer[watched] {
	ps := make([]weak.Pointer[watched], n)
	for k := range ps {
		body := new(watched)
		ps[k] = weak.Make(body)
		publish(t, top, body)
	}
	return ps
}

func alive(ps []weak.Pointer[watched]) (n int) {
	runtime.GC()
	runtime.GC()
	for _, p := range ps {
		if p.Value() != nil {
			n++
		}
	}
	return n
}

func TestAMessageRetriedForAnHourPinsNoOther(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[*watched](t)
		first := true
		var stubborn *watched
		subscribe(t, top, "q", func(_ context.Context, d delivery.Delivery[*watched]) error {
			if first {
				first, stubborn = false, d.Body
			}
			if d.Body == stubborn {
				return errBusy
			}
			return nil
		}, WithMaxAttempts(message.Unlimited), WithBackoff(settings.Constant(time.Second)))
		var all []weak.Pointer[watched]
		for range 60 {
			all = append(all, publishWatched(t, top, 500)...)
			elapse(time.Minute)
		}
		stubborn = nil
		require.NotNil(t, all[0].Value(), "it is retried still")
		// The rest of its segment was copied out or cleared, and a lease forgets
		// what is done; no more than the newest segment of the log stays.
		require.LessOrEqual(t, alive(all[:len(all)-log.MaxSegment]), 1)
		require.NoError(t, top.Close())
	})
}

func TestAPausedQueuePinsNoMoreThanItHolds(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[*watched](t)
		q := openQueue(t, top, "paused", WithCapacity(64), WithOverflow(settings.DropOldest))
		require.NoError(t, lifecycle.Pause(ctx, q))
		subscribe(t, top, "busy", func(context.Context, delivery.Delivery[*watched]) error { return nil })
		all := publishWatched(t, top, 5000)
		elapse(time.Minute)
		require.LessOrEqual(t, alive(all), 64+64/4+1, "its own, and the segment that they begin in")
		require.Equal(t, 64, view.StatsOf(q).Ready)
		require.NoError(t, top.Close())
	})
}

func TestALeasePinsNothingThatIsAcknowledged(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[*watched](t)
		q := openQueue(t, top, "q", WithCapacity(4*lease.Len))
		all := publishWatched(t, top, 3*lease.Len)
		func() {
			ds, err := receiveBatch(q, ctx, 3*lease.Len)
			require.NoError(t, err)
			require.Len(t, ds, 3*lease.Len)
			require.NoError(t, ds[0].Ack(ctx))
			require.NoError(t, ackBatchOf(q, ctx, ds[2:]...))
		}()
		require.LessOrEqual(t, alive(all[:2*lease.Len]), 1, "the second is in flight")
		check(t, top)
		require.NoError(t, top.Close())
	})
}

func TestAnIdleWorkerKeepsNothingOfItsLastMessage(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[*watched](t)
		release := make(chan struct{})
		subscribe(t, top, "q", func(_ context.Context, d delivery.Delivery[*watched]) error {
			<-release
			return nil
		}, WithConcurrency(2), WithCapacity(8))
		first := publishWatched(t, top, 2) // one in each worker's lease
		synctest.Wait()
		close(release)
		synctest.Wait()
		for range 20 { // the worker that rested last handles them all, and the log moves on
			publish(t, top, nil)
			synctest.Wait()
		}
		require.Zero(t, alive(first))
		require.NoError(t, top.Close())
	})
}
