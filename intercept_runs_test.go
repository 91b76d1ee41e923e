package fanout

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A delivery through an interceptor costs no allocation more than one without.
func TestAnInterceptorAroundAHandlerAllocatesNothing(t *testing.T) {
	const messages = 1000
	cost := func(batches bool, options ...TopicOption) float64 {
		top := newTopic[int](t, options...)
		handled := make(chan struct{}, 1)
		var n int
		count := func(more int) error {
			if n += more; n == messages {
				n = 0
				handled <- struct{}{}
			}
			return nil
		}
		var err error
		if batches {
			_, err = top.SubscribeBatch(t.Context(), "q", func(_ context.Context, ds []Delivery[int]) error { return count(len(ds)) })
		} else {
			_, err = top.Subscribe(t.Context(), "q", func(context.Context, Delivery[int]) error { return count(1) })
		}
		require.NoError(t, err)
		each := testing.AllocsPerRun(20, func() {
			for k := range messages {
				if top.Publish(t.Context(), k) != nil {
					panic("not published")
				}
			}
			<-handled
		}) / messages
		require.NoError(t, top.Close())
		return each
	}
	ids := func(ctx context.Context, info Info, next func(context.Context) error) error {
		if info.Message(0).Attempt() != 1 {
			panic("no attempt")
		}
		return next(ctx)
	}
	most := 1 + amortised // its ID, which nobody has fixed
	if Raced {
		most++ // pools forget a part of what they are given
	}
	for name, batches := range map[string]bool{"singly": false, "batches": true} {
		plain, around := cost(batches), cost(batches, WithHandlerInterceptor(ids))
		t.Logf("%s: allocations a message: plain %v, around a handler %v", name, plain, around)
		require.LessOrEqual(t, around-plain, most)
	}
}

// An interceptor may return while next runs: the handler keeps its delivery.
func TestAnInterceptorLeavesNextRunning(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var running sync.WaitGroup
		var wrong atomic.Int64
		leave := func(ctx context.Context, info Info, next func(context.Context) error) error {
			if info.Body().(int)%3 > 0 {
				return next(ctx)
			}
			running.Go(func() {
				if err := next(ctx); err != nil {
					wrong.Add(1)
				}
			})
			return nil
		}
		top := newTopic[int](t, WithHandlerInterceptor(leave))
		var mu sync.Mutex
		seen := map[int]int{}
		handle := func(_ context.Context, d Delivery[int]) error {
			before := d.Body
			time.Sleep(time.Duration(1+d.Body%3*10) * time.Millisecond)
			if d.Body != before || d.Attempt() != 1 {
				return fmt.Errorf("%d, and %d before", d.Body, before)
			}
			mu.Lock()
			defer mu.Unlock()
			seen[d.Body]++
			return nil
		}
		_, err := top.Subscribe(ctx, "q", handle, WithConcurrency(2))
		require.NoError(t, err)
		_, err = top.SubscribeBatch(ctx, "batches", func(ctx context.Context, ds []Delivery[int]) error {
			for _, d := range ds {
				if err := handle(ctx, d); err != nil {
					return err
				}
			}
			return nil
		}, WithBatchSize(5))
		require.NoError(t, err)
		for k := range 100 {
			require.NoError(t, top.Publish(ctx, k))
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		running.Wait()
		require.Zero(t, wrong.Load())
		require.Len(t, seen, 100)
		for k, n := range seen {
			require.Equal(t, 2, n, "message %d", k)
		}
		require.NoError(t, top.Close())
	})
}

// One that panics, or that calls next never or twice, leaves nothing for the next one.
func TestInterceptorsThatDoNotCallNextOnce(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		odd := func(ctx context.Context, info Info, next func(context.Context) error) error {
			switch info.Body().(int) % 4 {
			case 0:
				return nil
			case 1:
				panic("oh")
			case 2:
				if err := next(ctx); err != nil {
					return err
				}
			}
			return next(ctx)
		}
		top := newTopic[int](t, WithHandlerInterceptor(odd))
		var runs [8]int
		s, err := top.Subscribe(ctx, "q", func(_ context.Context, d Delivery[int]) error {
			runs[d.Body]++
			return nil
		}, WithMaxAttempts(1))
		require.NoError(t, err)
		for k := range runs {
			require.NoError(t, top.Publish(ctx, k))
		}
		synctest.Wait()
		require.Equal(t, [8]int{0, 0, 2, 1, 0, 0, 2, 1}, runs)
		require.Equal(t, uint64(2), s.Queue().Stats().DeadLettered)
		require.NoError(t, top.Close())
	})
}

// One that calls next again publishes again, with the same ID and the attributes set before.
func TestAPublishInterceptorThatCallsNextAgain(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		twice := func(ctx context.Context, info Info, next func(context.Context) error) error {
			info.SetAttribute("n", "1")
			if err := next(ctx); err != nil {
				return err
			}
			return next(ctx)
		}
		top := newTopic[int](t, WithPublishInterceptor(twice))
		q := openQueue(t, top, "q")
		require.NoError(t, top.Publish(ctx, 7))
		require.NoError(t, top.PublishMessages(ctx, Message[int]{Body: 8}, Message[int]{Body: 9, Delay: time.Second}))
		elapse(time.Second)
		ids := map[int]map[string]int{7: {}, 8: {}, 9: {}}
		for range 6 {
			d, ok, err := q.TryReceive(ctx)
			require.NoError(t, err)
			require.True(t, ok)
			require.Equal(t, map[string]string{"n": "1"}, d.Attributes())
			ids[d.Body][d.ID()]++
		}
		for body, of := range ids {
			require.Len(t, of, 1, "IDs of message %d", body)
		}
		_, ok, err := q.TryReceive(ctx)
		require.NoError(t, err)
		require.False(t, ok)
		require.NoError(t, top.Close())
	})
}
