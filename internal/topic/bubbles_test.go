package topic

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/lifecycle"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/settings"
	"github.com/gofanout/fanout/internal/view"
	"github.com/gofanout/fanout/internal/workers"
)

// A topic whose calls wait, and whose timers fire, in one bubble after the other
// and in none: what a wait needs belongs to the bubble that it was made in.
func TestBubblesUseAQueueInTurn(t *testing.T) {
	uses := map[string]struct {
		options  []QueueOption
		topic    []TopicOption
		sub      []WorkerOption
		noWorker bool
		orders   [][]bool // in a bubble or not
		use      func(t *testing.T, ctx context.Context, top *Topic[int], q *queue.Queue[int], ran chan int)
	}{
		"Receive waits": {noWorker: true, use: func(t *testing.T, ctx context.Context, top *Topic[int], q *queue.Queue[int], _ chan int) {
			got := make(chan error)
			go func() {
				d, err := receiveFrom(q, ctx)
				got <- errors.Join(err, d.Ack(ctx))
			}()
			awaitReceivers(q, 1)
			publish(t, top, 1)
			require.NoError(t, <-got)
		}},
		"Receive gives up": {noWorker: true, use: func(t *testing.T, ctx context.Context, top *Topic[int], q *queue.Queue[int], _ chan int) {
			short, cancel := context.WithTimeout(ctx, time.Millisecond)
			defer cancel()
			_, err := receiveFrom(q, short)
			require.ErrorIs(t, err, context.DeadlineExceeded)
		}},
		"a range waits": {noWorker: true, use: func(t *testing.T, ctx context.Context, top *Topic[int], q *queue.Queue[int], _ chan int) {
			got := make(chan error)
			go func() {
				for d, err := range deliveriesOf(q, ctx) {
					got <- errors.Join(err, d.Ack(ctx))
					return
				}
			}()
			awaitReceivers(q, 1)
			publish(t, top, 1)
			require.NoError(t, <-got)
			for view.StatsOf(q).Unsettled() > 0 {
				time.Sleep(time.Millisecond)
			}
		}},
		"a time-out": {noWorker: true, options: []QueueOption{WithVisibilityTimeout(5 * time.Millisecond)}, use: func(t *testing.T, ctx context.Context, top *Topic[int], q *queue.Queue[int], _ chan int) {
			publish(t, top, 1)
			receive(t, q)
			d, err := receiveFrom(q, ctx)
			require.NoError(t, err)
			require.Equal(t, 2, d.Attempt())
			require.NoError(t, d.Extend(ctx, time.Second))
			require.NoError(t, d.Ack(ctx))
		}},
		"a delay": {noWorker: true, use: func(t *testing.T, ctx context.Context, top *Topic[int], q *queue.Queue[int], _ chan int) {
			start := time.Now()
			require.NoError(t, top.PublishMessages(ctx, message.Published[int]{Body: 1, Delay: 5 * time.Millisecond}))
			d, err := receiveFrom(q, ctx)
			require.NoError(t, err)
			require.GreaterOrEqual(t, time.Since(start), 5*time.Millisecond)
			require.NoError(t, d.Ack(ctx))
		}},
		"a publish waits for room": {noWorker: true, options: []QueueOption{WithCapacity(1)}, use: func(t *testing.T, ctx context.Context, top *Topic[int], q *queue.Queue[int], _ chan int) {
			publish(t, top, 1)
			done := make(chan error)
			go func() { done <- top.In.Publish(ctx, 2) }()
			for top.Stats().Waiting == 0 {
				time.Sleep(time.Millisecond)
			}
			require.NoError(t, receive(t, q).Ack(ctx))
			require.NoError(t, <-done)
			require.NoError(t, receive(t, q).Ack(ctx))
		}},
		"log lines that wait for their second": {noWorker: true, orders: [][]bool{{true, true, false}}, use: func(t *testing.T, ctx context.Context, top *Topic[int], q *queue.Queue[int], _ chan int) {
			for range 3 {
				publish(t, top, 1)
				_, err := lifecycle.Purge(ctx, q)
				require.NoError(t, err)
			}
			if time.Now().Year() == 2000 { // outside the second is a real one
				awaitLog(q)
			}
		}},
		"deduplication IDs": {noWorker: true, topic: []TopicOption{WithDeduplication(5*time.Millisecond, 10)}, use: func(t *testing.T, ctx context.Context, top *Topic[int], q *queue.Queue[int], _ chan int) {
			require.NoError(t, top.PublishMessages(ctx, message.Published[int]{Body: 1, DeduplicationID: "a"}, message.Published[int]{Body: 1, DeduplicationID: "a"}))
			require.NoError(t, receive(t, q).Ack(ctx))
			requireEmpty(t, q)
			awaitForgotten(top)
		}},
		"a handler that is tried again": {options: []QueueOption{WithBackoff(settings.Constant(2 * time.Millisecond))}, use: func(t *testing.T, ctx context.Context, top *Topic[int], q *queue.Queue[int], ran chan int) {
			publish(t, top, -1)
			require.Equal(t, -1, <-ran)
			require.Equal(t, -1, <-ran)
		}},
		"a rate limit": {sub: []WorkerOption{WithRateLimit(100)}, use: func(t *testing.T, ctx context.Context, top *Topic[int], q *queue.Queue[int], ran chan int) {
			publish(t, top, 1, 2)
			require.Equal(t, 1, <-ran)
			require.Equal(t, 2, <-ran)
		}},
	}
	for name, c := range uses {
		t.Run(name, func(t *testing.T) {
			if c.orders == nil {
				c.orders = [][]bool{{false, true, true, false}, {true, false, true, true, false, false}}
			}
			for _, order := range c.orders {
				var top *Topic[int]
				var q *queue.Queue[int]
				for _, inside := range order {
					run := func(t *testing.T) {
						ran := make(chan int, 8) // a channel of the test's own belongs to a bubble too
						if top == nil {
							top = newTopic[int](t, c.topic...)
							q = openQueue(t, top, "q", c.options...)
						}
						var s *workers.Subscriber[int]
						if !c.noWorker {
							var err error
							s, err = subscribeTo(q, t.Context(), func(_ context.Context, d delivery.Delivery[int]) error {
								ran <- d.Body
								if d.Body < 0 && d.Attempt() == 1 {
									return errBusy
								}
								return nil
							}, c.sub...)
							require.NoError(t, err)
						}
						c.use(t, t.Context(), top, q, ran)
						if s != nil {
							require.NoError(t, s.Shutdown(t.Context()))
						}
						require.Zero(t, view.StatsOf(q).Unsettled())
						awaitTimer(q)
						check(t, top)
					}
					if inside {
						synctest.Test(t, run)
					} else {
						run(t)
					}
				}
				require.NoError(t, top.Close())
				<-top.Done()
			}
		})
	}
}

// The same subscriber works in turn, too: what it keeps of idle workers is of no bubble.
func TestBubblesUseASubscriberInTurn(t *testing.T) {
	for _, every := range []time.Duration{0, 10 * time.Millisecond} {
		top := newTopic[int](t)
		var ran chan int
		var options []SubscribeOption
		if every > 0 {
			options = append(options, WithRateLimit(float64(time.Second/every)))
		}
		s := subscribe(t, top, "q", func(ctx context.Context, d delivery.Delivery[int]) error {
			require.NoError(t, ctx.Err()) // makes the context a real one
			ran <- d.Body
			return nil
		}, options...)
		for _, inside := range []bool{false, true, true, false} {
			run := func(t *testing.T) {
				ran = make(chan int, 8)
				publish(t, top, 1, 2, 3)
				for n := range 3 {
					require.Equal(t, n+1, <-ran)
				}
				q := s.Queue()
				for view.StatsOf(q).Workers > 0 {
					time.Sleep(time.Millisecond)
				}
				awaitTimer(q)
			}
			if inside {
				synctest.Test(t, run)
			} else {
				run(t)
			}
		}
		require.NoError(t, top.Shutdown(t.Context()))
		<-top.Done()
	}
}

// A Shutdown that ran out leaves nothing that the next one would wait on.
func TestAShutdownThatRanOutInABubbleIsCalledAgainOutside(t *testing.T) {
	top := newTopic[int](t)
	var release chan struct{}
	s := subscribe(t, top, "q", func(context.Context, delivery.Delivery[int]) error {
		<-release
		return nil
	})
	synctest.Test(t, func(t *testing.T) {
		release = make(chan struct{})
		publish(t, top, 1)
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, s.Shutdown(ctx), context.DeadlineExceeded)
		close(release)
		for view.StatsOf(s.Queue()).Workers > 0 {
			time.Sleep(time.Millisecond)
		}
		awaitTimer(s.Queue())
	})
	require.NoError(t, s.Shutdown(t.Context()))
	<-s.Done()
	require.NoError(t, top.Close())
}

// A topic that was made in a bubble ends outside.
func TestATopicMadeInABubbleEndsOutside(t *testing.T) {
	var top *Topic[int]
	synctest.Test(t, func(t *testing.T) { top = newTopic[int](t) })
	require.NoError(t, top.Close())
	<-top.Done()
}

func awaitReceivers(q *queue.Queue[int], n int) {
	for waiting := -1; waiting != n; time.Sleep(time.Millisecond) {
		q.Locked(func() { waiting = int(q.Group.Receivers.N) })
	}
}

func awaitTimer(q *queue.Queue[int]) {
	for armed := true; armed; time.Sleep(time.Millisecond) {
		q.Locked(func() { armed = q.Alarm.Armed || q.Alarm.Ticking > 0 })
	}
}

func awaitLog(q *queue.Queue[int]) {
	for armed := true; armed; time.Sleep(time.Millisecond) {
		armed = q.Report.Armed()
	}
}

func awaitForgotten(top *Topic[int]) {
	for armed := true; armed; time.Sleep(time.Millisecond) {
		top.In.Mu.Lock()
		_, armed = top.In.IDsLocked()
		top.In.Mu.Unlock()
	}
}
