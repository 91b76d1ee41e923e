package topic

import (
	"context"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/lifecycle"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/settings"
	"github.com/gofanout/fanout/internal/view"
)

// pinnedAfter counts what is alive once the collector has had its turns: what pools
// held is gone after two.
func pinnedAfter(ps []weak.Pointer[watched]) int {
	for range 5 {
		if runtime.GC(); alive(ps) == 0 {
			return 0
		}
	}
	return alive(ps)
}

// Whoever empties a queue, in whatever way, lets go of the messages: a topic with
// nothing unsettled keeps one body at most.
func TestAnEmptyTopicPinsNoBodies(t *testing.T) {
	const n = 300
	drain := func(_ context.Context, d delivery.Delivery[*watched]) error { return nil }
	ways := map[string]struct {
		topic   []TopicOption
		queue   []QueueOption
		message message.Published[*watched]
		consume func(t *testing.T, ctx context.Context, top *Topic[*watched], q *queue.Queue[*watched])
		// before is done before the messages are published.
		before func(t *testing.T, ctx context.Context, q *queue.Queue[*watched])
	}{
		"a handler": {before: func(t *testing.T, ctx context.Context, q *queue.Queue[*watched]) {
			_, err := subscribeTo(q, ctx, drain)
			require.NoError(t, err)
		}},
		"two handlers, in a second queue too": {before: func(t *testing.T, ctx context.Context, q *queue.Queue[*watched]) {
			for range 2 {
				_, err := subscribeTo(q, ctx, drain, WithConcurrency(3))
				require.NoError(t, err)
			}
			subscribe(t, topicOf(q), "second", drain)
		}},
		"batches": {before: func(t *testing.T, ctx context.Context, q *queue.Queue[*watched]) {
			_, err := subscribeBatchTo(q, ctx, func(context.Context, []delivery.Delivery[*watched]) error { return nil }, WithBatchSize(10))
			require.NoError(t, err)
		}},
		"handlers with hooks": {topic: []TopicOption{WithHooks(Hooks{Settled: func(Event) {}})}, before: func(t *testing.T, ctx context.Context, q *queue.Queue[*watched]) {
			_, err := subscribeTo(q, ctx, drain)
			require.NoError(t, err)
		}},
		"ordering keys": {topic: []TopicOption{WithOrdering()}, message: message.Published[*watched]{OrderingKey: "k"}, before: func(t *testing.T, ctx context.Context, q *queue.Queue[*watched]) {
			_, err := subscribeTo(q, ctx, drain, WithConcurrency(2))
			require.NoError(t, err)
		}},
		"delays": {message: message.Published[*watched]{Delay: time.Second}, before: func(t *testing.T, ctx context.Context, q *queue.Queue[*watched]) {
			_, err := subscribeTo(q, ctx, drain)
			require.NoError(t, err)
		}},
		"a delayed queue": {queue: []QueueOption{WithDelay(time.Second)}, before: func(t *testing.T, ctx context.Context, q *queue.Queue[*watched]) {
			_, err := subscribeTo(q, ctx, drain)
			require.NoError(t, err)
		}},
		"a filter": {queue: []QueueOption{WithFilter(func(*watched) bool { return true })}, before: func(t *testing.T, ctx context.Context, q *queue.Queue[*watched]) {
			_, err := subscribeTo(q, ctx, drain)
			require.NoError(t, err)
		}},
		"handlers that are tried again": {queue: []QueueOption{WithMaxAttempts(3)}, before: func(t *testing.T, ctx context.Context, q *queue.Queue[*watched]) {
			_, err := subscribeTo(q, ctx, func(_ context.Context, d delivery.Delivery[*watched]) error {
				if d.Attempt() < 3 {
					return errBusy
				}
				return nil
			})
			require.NoError(t, err)
		}},
		"receives": {consume: func(t *testing.T, ctx context.Context, top *Topic[*watched], q *queue.Queue[*watched]) {
			for view.StatsOf(q).Ready > 0 {
				require.NoError(t, receive(t, q).Ack(ctx))
			}
		}},
		"receives that time out first": {queue: []QueueOption{WithVisibilityTimeout(time.Second)}, consume: func(t *testing.T, ctx context.Context, top *Topic[*watched], q *queue.Queue[*watched]) {
			for view.StatsOf(q).Ready > 0 {
				receive(t, q)
			}
			elapse(time.Second)
			for view.StatsOf(q).Ready > 0 {
				require.NoError(t, receive(t, q).Ack(ctx))
			}
		}},
		"ReceiveBatch, AckBatch": {consume: func(t *testing.T, ctx context.Context, top *Topic[*watched], q *queue.Queue[*watched]) {
			ds, err := receiveBatch(q, ctx, n)
			require.NoError(t, err)
			require.NoError(t, ackBatchOf(q, ctx, ds...))
		}},
		"a range": {consume: func(t *testing.T, ctx context.Context, top *Topic[*watched], q *queue.Queue[*watched]) {
			left := n
			for d, err := range deliveriesOf(q, ctx) {
				require.NoError(t, err)
				require.NoError(t, d.Ack(ctx))
				if left--; left == 0 {
					return
				}
			}
		}},
		"Purge": {consume: func(t *testing.T, ctx context.Context, top *Topic[*watched], q *queue.Queue[*watched]) {
			receive(t, q)
			dropped, err := lifecycle.Purge(ctx, q)
			require.NoError(t, err)
			require.Equal(t, n, dropped)
		}},
		"DropOldest": {queue: []QueueOption{WithCapacity(16), WithOverflow(settings.DropOldest)}, consume: func(t *testing.T, ctx context.Context, top *Topic[*watched], q *queue.Queue[*watched]) {
			for view.StatsOf(q).Ready > 0 {
				require.NoError(t, receive(t, q).Ack(ctx))
			}
		}},
		"DropNewest": {queue: []QueueOption{WithCapacity(16), WithOverflow(settings.DropNewest)}, consume: func(t *testing.T, ctx context.Context, top *Topic[*watched], q *queue.Queue[*watched]) {
			for view.StatsOf(q).Ready > 0 {
				require.NoError(t, receive(t, q).Ack(ctx))
			}
		}},
		"Close of the queue": {consume: func(t *testing.T, ctx context.Context, top *Topic[*watched], q *queue.Queue[*watched]) {
			for view.StatsOf(q).Ready > 1 {
				require.NoError(t, receive(t, q).Ack(ctx))
			}
			require.NoError(t, receive(t, q).Ack(ctx))
			require.NoError(t, lifecycle.Close(q))
		}},
		"beside a delayed queue": {consume: func(t *testing.T, ctx context.Context, top *Topic[*watched], q *queue.Queue[*watched]) {
			openQueue(t, top, "delayed", WithDelay(time.Nanosecond))
			publish(t, top, new(watched))
			elapse(1)
			require.NoError(t, receive(t, top.Queue("delayed")).Ack(ctx))
			for view.StatsOf(q).Ready > 0 {
				require.NoError(t, receive(t, q).Ack(ctx))
			}
		}},
	}
	for name, c := range ways {
		for _, busy := range []bool{false, true} {
			how := "idle"
			if busy {
				how = "while another message is in flight"
			}
			t.Run(name+", "+how, func(t *testing.T) {
				bubble(t, func(t *testing.T, ctx context.Context) {
					top := newTopic[*watched](t, c.topic...)
					q := openQueue(t, top, "q", c.queue...)
					if busy {
						if name == "Purge" || name == "Close of the queue" || name == "DropNewest" || name == "ordering keys" {
							return // nothing stays in flight
						}
						m := c.message
						require.NoError(t, top.PublishMessages(ctx, m))
						elapse(m.Delay + q.Store.Set.Delay)
						receive(t, q, WithVisibilityTimeout(time.Hour))
						elapse(time.Second)
					}
					if c.before != nil {
						c.before(t, ctx, q)
					}
					var all []weak.Pointer[watched]
					for range n {
						m := c.message
						m.Body = new(watched)
						all = append(all, weak.Make(m.Body))
						require.NoError(t, top.PublishMessages(ctx, m))
					}
					if c.consume != nil {
						c.consume(t, ctx, top, q)
						elapse(time.Millisecond)
					} else {
						elapse(time.Minute)
					}
					synctest.Wait()
					require.LessOrEqual(t, pinnedAfter(all), 1)
					runtime.KeepAlive(top)
					require.NoError(t, top.Close())
				})
			})
		}
	}
}

// While a handler runs, what was done before it is gone a millisecond later.
func TestARunningHandlerPinsNothingThatWasDoneBefore(t *testing.T) {
	for _, concurrency := range []int{1, 2} {
		bubble(t, func(t *testing.T, ctx context.Context) {
			top := newTopic[*watched](t)
			stop, release := make(chan struct{}, 1), make(chan struct{})
			subscribe(t, top, "q", func(_ context.Context, d delivery.Delivery[*watched]) error {
				select {
				case <-stop:
					<-release
				default:
				}
				return nil
			}, WithConcurrency(concurrency))
			var all []weak.Pointer[watched]
			for k := range 4 {
				if k == 3 {
					stop <- struct{}{}
				}
				all = append(all, publishWatched(t, top, 50)...)
				if k == 3 && concurrency == 1 {
					break
				}
				synctest.Wait()
			}
			elapse(time.Millisecond)
			most := 1 // the one that runs
			if concurrency == 1 {
				most = 50 // and those that wait behind it
			}
			require.LessOrEqual(t, alive(all), most)
			require.Equal(t, 1, view.StatsOf(top.Queue("q")).InFlight)
			close(release)
			elapse(time.Millisecond)
			require.Zero(t, pinnedAfter(all))
			require.NoError(t, top.Close())
		})
	}
}

// An ended topic that somebody still refers to pins what Leftovers and the
// dead-letter queues hand out, and nothing else.
func TestAnEndedTopicPinsWhatItHandsOut(t *testing.T) {
	ends := map[string]func(ctx context.Context, top *Topic[*watched]) error{
		"Shutdown": func(ctx context.Context, top *Topic[*watched]) error {
			short, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			return top.Shutdown(short) // it waits for what nobody receives
		},
		"Close": func(ctx context.Context, top *Topic[*watched]) error { return top.Close() },
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				top := newTopic[*watched](t, WithRetention(20))
				s := subscribe(t, top, "q", func(context.Context, delivery.Delivery[*watched]) error { return nil }, WithConcurrency(2))
				b, err := subscribeBatchTo(s.Queue(), ctx, func(context.Context, []delivery.Delivery[*watched]) error { return nil })
				require.NoError(t, err)
				failing := subscribe(t, top, "failing", func(_ context.Context, d delivery.Delivery[*watched]) error { return message.Permanent(errBusy) }, WithMessageFilter(func(m message.Published[*watched]) bool { return m.Attributes["fail"] != "" }))
				direct := openQueue(t, top, "direct", WithMessageFilter(func(m message.Published[*watched]) bool { return m.Attributes["keep"] != "" }))
				all := publishWatched(t, top, 300)
				for _, attribute := range []string{"fail", "keep"} {
					require.NoError(t, top.PublishMessages(ctx, message.Published[*watched]{Body: new(watched), Attributes: map[string]string{attribute: "x"}}))
				}
				synctest.Wait()
				_ = end(ctx, top)
				<-top.Done()
				require.Zero(t, pinnedAfter(all))
				require.Len(t, top.Leftovers()["direct"], 1)
				letters, err := view.Peek(ctx, failing.Queue().DeadLetters(), 10)
				require.NoError(t, err)
				require.Len(t, letters, 1)
				runtime.KeepAlive([]any{top, s, b, failing, direct})
			})
		})
	}
}

// A body that is large itself is not kept in room for others like it.
func TestLargeBodiesByValueAreLetGo(t *testing.T) {
	type large [1 << 20]byte
	ctx := context.Background()
	top := newTopic[large](t)
	before := heapInUse()
	q := openQueue(t, top, "q")
	for range 3 {
		for range 20 {
			require.NoError(t, top.PublishMessages(ctx, make([]message.Published[large], 1)...))
		}
		for range 20 {
			func() {
				d := receive(t, q)
				require.NoError(t, d.Ack(ctx))
			}()
		}
	}
	require.Zero(t, view.StatsOf(q).Unsettled())
	require.Less(t, heapInUse()-before, int64(2<<20), "an idle open topic keeps one body at most")
	require.NoError(t, top.Close())
	<-top.Done()
	require.Less(t, heapInUse()-before, int64(1<<19), "an ended one none")
	runtime.KeepAlive(top)
}
