package topic

import (
	"context"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/handling"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/view"
)

// A handler's context is of its run alone.

func TestAPublishWithTheContextOfAHandlerThatHasReturnedWaits(t *testing.T) {
	for name, w := range workersOf {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				top := newTopic[int](t, w.topic...)
				published := make(chan error, 1)
				release := make(chan bool)
				handle := func(ctx context.Context, d delivery.Delivery[int]) error {
					if d.Body == 1 {
						go func() {
							<-release
							published <- top.In.Publish(ctx, 5)
						}()
						return nil
					}
					time.Sleep(time.Second)
					return nil
				}
				q := openQueue(t, top, "q", WithCapacity(2))
				publish(t, top, 1, 2)
				var err error
				if w.batch {
					_, err = subscribeBatchTo(q, ctx, func(ctx context.Context, ds []delivery.Delivery[int]) error { return handle(ctx, ds[0]) }, WithBatchSize(1))
				} else {
					_, err = subscribeTo(q, ctx, handle, workerOptions(w.options)...)
				}
				require.NoError(t, err)
				synctest.Wait()
				publish(t, top, 3) // the queue is full, and 2 is being handled
				close(release)
				synctest.Wait()
				require.Empty(t, published, "it waits for room")
				require.Equal(t, 1, top.Stats().Waiting)
				elapse(time.Second)
				require.NoError(t, <-published)
				elapse(time.Minute)
				require.EqualValues(t, 4, view.StatsOf(q).Acked)
				top.Close()
			})
		})
	}
}

// Nothing that happens to a later message is seen through an earlier context,
// whether somebody has looked at it before or not.
func TestAContextSeesNothingOfALaterRun(t *testing.T) {
	type key struct{}
	for name, w := range workersOf {
		for how, looks := range map[string]func(ctx context.Context){
			"not looked at":    func(context.Context) {},
			"asked for Err":    func(ctx context.Context) { _ = ctx.Err() },
			"asked for Done":   func(ctx context.Context) { ctx.Done() },
			"asked for values": func(ctx context.Context) { ctx.Value(key{}); handling.RunOf(ctx) },
		} {
			t.Run(name+"/"+how, func(t *testing.T) {
				bubble(t, func(t *testing.T, ctx context.Context) {
					const n = 40
					top := newTopic[int](t, w.topic...)
					var ctxs []context.Context
					handle := func(ctx context.Context, d delivery.Delivery[int]) error {
						ctxs = append(ctxs, ctx)
						looks(ctx)
						if d.Body%10 == 9 && d.Attempt() == 1 {
							<-ctx.Done() // times out
						}
						return nil
					}
					q := openQueue(t, top, "q", WithVisibilityTimeout(time.Second))
					ms := make([]message.Published[int], n)
					for k := range ms {
						ms[k].Body = k
					}
					publishAll(t, top, ms...)
					var err error
					if w.batch {
						_, err = subscribeBatchTo(q, ctx, func(ctx context.Context, ds []delivery.Delivery[int]) error { return handle(ctx, ds[0]) }, WithBatchSize(1))
					} else {
						_, err = subscribeTo(q, ctx, handle, workerOptions(w.options)...)
					}
					require.NoError(t, err)
					elapse(time.Minute)
					require.Len(t, ctxs, n+4)
					runs := map[*handling.Run]bool{}
					cancelled := 0
					for k, ctx := range ctxs {
						runs[handling.RunOf(ctx)] = true
						if ctx.Err() != nil {
							cancelled++
							require.ErrorIs(t, context.Cause(ctx), message.ErrStale)
							require.ErrorIs(t, ctx.Err(), context.Canceled)
							<-ctx.Done()
							continue
						}
						require.NoError(t, context.Cause(ctx), "run %d", k)
						select {
						case <-ctx.Done():
							require.Fail(t, "the context of a run that returned was cancelled", "run %d", k)
						default:
						}
					}
					require.Len(t, runs, n+4, "each has one of its own")
					require.Equal(t, 4, cancelled)
					top.Close()
				})
			})
		}
	}
}

func TestContextsDerivedFromAHandlersStartNoGoroutine(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		goroutines := make(chan string, 1)
		subscribe(t, top, "q", func(ctx context.Context, d delivery.Delivery[int]) error {
			for range 100 {
				child, cancel := context.WithTimeout(ctx, time.Hour)
				defer cancel()
				context.AfterFunc(child, func() {})
			}
			all := make([]byte, 1<<20) // not a count: other tests and the runtime have some, too
			goroutines <- string(all[:runtime.Stack(all, true)])
			return nil
		})
		publish(t, top, 1)
		require.NotContains(t, <-goroutines, "context.(*cancelCtx).propagateCancel", "which waits for a parent that package context does not know")
		top.Close()
	})
}

// workersOf are the ways in which a worker can hold its message.
var workersOf = map[string]struct {
	topic   []TopicOption
	options []SubscribeOption
	batch   bool
}{
	"prefetched": {},
	"alone":      {topic: []TopicOption{WithHooks(Hooks{Settled: func(Event) {}})}},
	"timed":      {options: []SubscribeOption{WithHandlerTimeout(time.Hour)}},
	"in a batch": {batch: true},
}

func workerOptions(options []SubscribeOption) (of []WorkerOption) {
	return append(of, options...)
}
