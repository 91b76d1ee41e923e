package fanout

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"math"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// noContext is what a caller passes who has forgotten to make one.
var noContext context.Context

// A stage is a topic with a queue that holds one message in flight, one that is
// ready and one dead letter: what a bad argument must leave as it is.
type stage struct {
	ctx context.Context
	top *Topic[int]
	q   *Queue[int]
	d   Delivery[int]
}

func newStage(t *testing.T) *stage {
	s := &stage{ctx: t.Context(), top: newTopic[int](t)}
	s.q = openQueue(t, s.top, "audit")
	publish(t, s.top, 0, 1, 2)
	require.NoError(t, receive(t, s.q).Settle(s.ctx, Permanent(errBusy)))
	s.d = receive(t, s.q)
	return s
}

// state is all that can be seen of the stage.
func (s *stage) state() string {
	return fmt.Sprintf("%+v %+v %+v %v", s.top.Stats(), s.q.Stats(), s.q.DeadLetters().Stats(), s.d.Deadline())
}

func handleNothing(context.Context, Delivery[int]) error { return nil }

func topicWith(o TopicOption) error {
	_, err := NewTopic[int]("other", o)
	return err
}

func openWith(o QueueOption) func(s *stage) error {
	return func(s *stage) error {
		_, err := s.top.OpenQueue(s.ctx, "other", o)
		return err
	}
}

func subscribeWith(o SubscribeOption) func(s *stage) error {
	return func(s *stage) error {
		_, err := s.top.Subscribe(s.ctx, "other", handleNothing, o)
		return err
	}
}

func receiveWith(o ReceiveOption) func(s *stage) error {
	return func(s *stage) error {
		_, err := s.q.Receive(s.ctx, o)
		return err
	}
}

func redriveWith(o RedriveOption) func(s *stage) error {
	return func(s *stage) error {
		_, err := s.q.Redrive(s.ctx, o)
		return err
	}
}

func TestABadArgumentIsRefusedByNameAndValueAndChangesNothing(t *testing.T) {
	// Each row does one thing wrong. The error names what was given wrongly and,
	// where there is one, the value.
	for _, row := range []struct {
		name  string
		do    func(s *stage) error
		names []string
		is    error // ErrInvalidOption if nil
	}{
		// Names.
		{"empty topic name", func(s *stage) error {
			_, err := NewTopic[int]("")
			return err
		}, []string{"NewTopic", `""`}, nil},
		{"empty queue name", func(s *stage) error {
			_, err := s.top.OpenQueue(s.ctx, "")
			return err
		}, []string{"OpenQueue", `""`}, nil},
		{"empty queue name to Subscribe", func(s *stage) error {
			_, err := s.top.Subscribe(s.ctx, "", handleNothing)
			return err
		}, []string{`""`}, nil},
		{"duplicate queue name", func(s *stage) error {
			_, err := s.top.OpenQueue(s.ctx, "audit")
			return err
		}, []string{"OpenQueue", `"audit"`}, nil},
		{"duplicate queue name to Subscribe", func(s *stage) error {
			_, err := s.top.Subscribe(s.ctx, "audit", handleNothing)
			return err
		}, []string{`"audit"`}, nil},

		// Options of a topic.
		{"nil topic option", func(s *stage) error { return topicWith(nil) }, []string{"option 0", "nil"}, nil},
		{"nil logger", func(s *stage) error { return topicWith(WithLogger(nil)) }, []string{"WithLogger", "nil"}, nil},

		{"no deduplication window", func(s *stage) error { return topicWith(WithDeduplication(0, 1)) }, []string{"WithDeduplication(0s)"}, nil},
		{"no deduplication IDs", func(s *stage) error { return topicWith(WithDeduplication(time.Minute, 0)) }, []string{"WithDeduplication(0)"}, nil},
		{"no retention", func(s *stage) error { return topicWith(WithRetention(0)) }, []string{"WithRetention(0)"}, nil},
		{"unlimited retention", func(s *stage) error { return topicWith(WithRetention(Unlimited)) }, []string{"WithRetention", "Unlimited"}, nil},
		{"nil publish interceptor", func(s *stage) error { return topicWith(WithPublishInterceptor(nil)) }, []string{"WithPublishInterceptor", "nil"}, nil},
		{"nil handler interceptor", func(s *stage) error { return topicWith(WithHandlerInterceptor(nil)) }, []string{"WithHandlerInterceptor", "nil"}, nil},
		{"empty name of a shared dead-letter queue", func(s *stage) error {
			_, err := NewDeadLetterQueue[int]("")
			return err
		}, []string{"NewDeadLetterQueue", `""`}, nil},
		{"bad option to a shared dead-letter queue", func(s *stage) error {
			_, err := NewDeadLetterQueue[int]("dead", WithDeadLetterCapacity(-1))
			return err
		}, []string{"WithDeadLetterCapacity(-1)"}, nil},

		// Options of a queue.
		{"name of a dead-letter queue", func(s *stage) error {
			_, err := s.top.OpenQueue(s.ctx, "other/dead")
			return err
		}, []string{"OpenQueue", `"other/dead"`}, nil},
		{"no time to live", openWith(WithTimeToLive(0)), []string{"WithTimeToLive(0s)"}, nil},
		{"negative time to live", openWith(WithTimeToLive(-time.Second)), []string{"WithTimeToLive(-1s)"}, nil},
		{"no replay", openWith(WithReplay(0)), []string{"WithReplay(0)"}, nil},
		{"replay without retention", openWith(WithReplay(3)), []string{"WithReplay(3)", "WithRetention"}, ErrUnsupported},
		{"nil message filter", openWith(WithMessageFilter[int](nil)), []string{"WithMessageFilter", "nil"}, nil},
		{"message filter for another type", openWith(WithMessageFilter(func(Message[string]) bool { return true })), []string{"WithMessageFilter", "string", "carries int"}, nil},
		{"bad filter policy", openWith(WithFilterPolicy(`{"price": [{"numeric": ["<"]}]}`)), []string{"WithFilterPolicy", `"price"`, "Invalid parameter"}, nil},
		{"no shared dead-letter queue", openWith(WithDeadLetterQueue[int](nil)), []string{"WithDeadLetterQueue", "nil"}, nil},
		{"a queue that is no shared dead-letter queue", func(s *stage) error {
			_, err := s.top.OpenQueue(s.ctx, "other", WithDeadLetterQueue(s.top.Queue("audit")))
			return err
		}, []string{"WithDeadLetterQueue", `"audit"`}, nil},
		{"a shared dead-letter queue for another type", func(s *stage) error {
			d, err := NewDeadLetterQueue[string]("dead")
			if err != nil {
				return err
			}
			_, err = s.top.OpenQueue(s.ctx, "other", WithDeadLetterQueue(d))
			return err
		}, []string{"WithDeadLetterQueue", "Queue[string]", "carries int"}, nil},
		{"a capacity for somebody else's dead letters", func(s *stage) error {
			d, err := NewDeadLetterQueue[int]("dead")
			if err != nil {
				return err
			}
			_, err = s.top.OpenQueue(s.ctx, "other", WithDeadLetterCapacity(7), WithDeadLetterQueue(d))
			return errors.Join(err, d.Close())
		}, []string{"WithDeadLetterCapacity(7)", "NewDeadLetterQueue"}, nil},
		{"a policy for somebody else's dead letters", func(s *stage) error {
			d, err := NewDeadLetterQueue[int]("dead")
			if err != nil {
				return err
			}
			_, err = s.top.OpenQueue(s.ctx, "other", WithDeadLetterQueue(d), WithDeadLetterOverflow(DropOldest))
			return errors.Join(err, d.Close())
		}, []string{"WithDeadLetterOverflow(DropOldest)", "NewDeadLetterQueue"}, nil},
		{"no batch size", subscribeWith(WithBatchSize(0)), []string{"WithBatchSize(0)"}, nil},
		{"no rate", subscribeWith(WithRateLimit(0)), []string{"WithRateLimit(0)"}, nil},
		{"negative rate", subscribeWith(WithRateLimit(-1)), []string{"WithRateLimit(-1)"}, nil},
		{"no number for a rate", subscribeWith(WithRateLimit(math.NaN())), []string{"WithRateLimit(NaN)"}, nil},
		{"no automatic extension", subscribeWith(WithAutoExtend(0)), []string{"WithAutoExtend(0s)"}, nil},
		{"no handler timeout", subscribeWith(WithHandlerTimeout(-1)), []string{"WithHandlerTimeout(-1ns)"}, nil},
		{"nil batch handler", func(s *stage) error {
			_, err := s.top.SubscribeBatch(s.ctx, "other", nil)
			return err
		}, []string{"Subscribe", "nil handler"}, nil},
		{"negative time to live of a message", func(s *stage) error {
			return s.top.PublishMessages(s.ctx, Message[int]{TimeToLive: -time.Second})
		}, []string{"message 0", "TimeToLive", "-1s"}, ErrInvalidMessage},
		{"nil queue option", openWith(nil), []string{"option 0", "nil"}, nil},
		{"nil queue option behind a good one", func(s *stage) error {
			_, err := s.top.OpenQueue(s.ctx, "other", WithCapacity(1), nil)
			return err
		}, []string{"option 1", "nil"}, nil},
		{"no capacity", openWith(WithCapacity(0)), []string{"WithCapacity(0)"}, nil},
		{"negative capacity", openWith(WithCapacity(-7)), []string{"WithCapacity(-7)"}, nil},
		{"zero overflow", openWith(WithOverflow(0)), []string{"WithOverflow", "Overflow(0)"}, nil},
		{"unknown overflow", openWith(WithOverflow(9)), []string{"WithOverflow", "Overflow(9)"}, nil},
		{"no visibility timeout", openWith(WithVisibilityTimeout(0)), []string{"WithVisibilityTimeout(0s)"}, nil},
		{"negative visibility timeout", openWith(WithVisibilityTimeout(-time.Second)), []string{"WithVisibilityTimeout(-1s)"}, nil},
		{"no attempts", openWith(WithMaxAttempts(0)), []string{"WithMaxAttempts(0)"}, nil},
		{"negative attempts", openWith(WithMaxAttempts(-1)), []string{"WithMaxAttempts(-1)"}, nil},
		{"zero backoff", openWith(WithBackoff(Backoff{})), []string{"WithBackoff", "Backoff{}"}, nil},
		{"no constant backoff", openWith(WithBackoff(Constant(0))), []string{"WithBackoff", "Constant(0s)"}, nil},
		{"negative constant backoff", openWith(WithBackoff(Constant(-time.Second))), []string{"WithBackoff", "Constant(-1s)"}, nil},
		{"no first wait", openWith(WithBackoff(Exponential(0, time.Second))), []string{"WithBackoff", "Exponential(0s, 1s)"}, nil},
		{"negative first wait", openWith(WithBackoff(Exponential(-1, time.Second))), []string{"WithBackoff", "Exponential(-1ns, 1s)"}, nil},
		{"longest wait below the first", openWith(WithBackoff(Exponential(time.Second, time.Millisecond))), []string{"WithBackoff", "Exponential(1s, 1ms)"}, nil},
		{"negative longest wait", openWith(WithBackoff(Exponential(time.Second, -1))), []string{"WithBackoff", "Exponential(1s, -1ns)"}, nil},
		{"nil backoff function", openWith(WithBackoff(BackoffFunc(nil))), []string{"WithBackoff", "BackoffFunc(nil)"}, nil},
		{"negative delay", openWith(WithDelay(-time.Second)), []string{"WithDelay(-1s)"}, nil},
		{"nil filter", openWith(WithFilter[int](nil)), []string{"WithFilter", "nil"}, nil},
		{"filter for another type", openWith(WithFilter(func(string) bool { return true })), []string{"WithFilter", "func(string) bool", "carries int"}, nil},
		{"second filter for another type", func(s *stage) error {
			_, err := s.top.OpenQueue(s.ctx, "other",
				WithFilter(func(int) bool { return true }), WithFilter(func(any) bool { return true }))
			return err
		}, []string{"WithFilter", "func(interface {}) bool", "carries int"}, nil},
		{"no dead letters", openWith(WithDeadLetterCapacity(0)), []string{"WithDeadLetterCapacity(0)"}, nil},
		{"negative dead letters", openWith(WithDeadLetterCapacity(-1)), []string{"WithDeadLetterCapacity(-1)"}, nil},
		{"zero dead-letter overflow", openWith(WithDeadLetterOverflow(0)), []string{"WithDeadLetterOverflow", "Overflow(0)"}, nil},
		{"dead-letter overflow that loses the new one", openWith(WithDeadLetterOverflow(DropNewest)), []string{"WithDeadLetterOverflow", "DropNewest"}, nil},
		{"dead-letter overflow that nobody can be told of", openWith(WithDeadLetterOverflow(Reject)), []string{"WithDeadLetterOverflow", "Reject"}, nil},
		{"bad queue option to Subscribe", func(s *stage) error {
			_, err := s.top.Subscribe(s.ctx, "other", handleNothing, WithCapacity(-7))
			return err
		}, []string{"WithCapacity(-7)"}, nil},
		{"bad visibility timeout to Subscribe", func(s *stage) error {
			_, err := s.top.Subscribe(s.ctx, "other", handleNothing, WithVisibilityTimeout(0))
			return err
		}, []string{"WithVisibilityTimeout(0s)"}, nil},
		{"filter for another type to Subscribe", func(s *stage) error {
			_, err := s.top.Subscribe(s.ctx, "other", handleNothing, WithFilter(func(string) bool { return true }))
			return err
		}, []string{"WithFilter", "func(string) bool", "carries int"}, nil},

		// Subscribers.
		{"nil handler", func(s *stage) error {
			_, err := s.top.Subscribe(s.ctx, "other", nil)
			return err
		}, []string{"Subscribe", "nil handler"}, nil},
		{"nil handler for a queue", func(s *stage) error {
			_, err := s.q.Subscribe(s.ctx, nil)
			return err
		}, []string{"Subscribe", "nil handler"}, nil},
		{"nil subscribe option", func(s *stage) error {
			_, err := s.top.Subscribe(s.ctx, "other", handleNothing, nil)
			return err
		}, []string{"option 0", "nil"}, nil},
		{"nil subscriber option", func(s *stage) error {
			_, err := s.q.Subscribe(s.ctx, handleNothing, nil)
			return err
		}, []string{"option 0", "nil"}, nil},
		{"no concurrency", func(s *stage) error {
			_, err := s.q.Subscribe(s.ctx, handleNothing, WithConcurrency(0))
			return err
		}, []string{"WithConcurrency(0)"}, nil},
		{"negative concurrency of a new queue", func(s *stage) error {
			_, err := s.top.Subscribe(s.ctx, "other", handleNothing, WithConcurrency(-1))
			return err
		}, []string{"WithConcurrency(-1)"}, nil},

		// Receiving.
		{"nil receive option", receiveWith(nil), []string{"option 0", "nil"}, nil},
		{"receive with no visibility timeout", receiveWith(WithVisibilityTimeout(0)), []string{"WithVisibilityTimeout(0s)"}, nil},
		{"try to receive with a negative visibility timeout", func(s *stage) error {
			_, ok, err := s.q.TryReceive(s.ctx, WithVisibilityTimeout(-1))
			if ok {
				return errors.New("it was received")
			}
			return err
		}, []string{"WithVisibilityTimeout(-1ns)"}, nil},
		{"deliveries with no visibility timeout", func(s *stage) error {
			return onlyError(s.q.Deliveries(s.ctx, WithVisibilityTimeout(0)))
		}, []string{"WithVisibilityTimeout(0s)"}, nil},
		{"batch with no visibility timeout", func(s *stage) error {
			_, err := s.q.ReceiveBatch(s.ctx, 1, WithVisibilityTimeout(0))
			return err
		}, []string{"WithVisibilityTimeout(0s)"}, nil},
		{"batch of none", func(s *stage) error {
			_, err := s.q.ReceiveBatch(s.ctx, 0)
			return err
		}, []string{"ReceiveBatch(0)"}, nil},
		{"batch of less", func(s *stage) error {
			_, err := s.q.ReceiveBatch(s.ctx, -3)
			return err
		}, []string{"ReceiveBatch(-3)"}, nil},
		{"into nothing", func(s *stage) error {
			_, err := s.q.ReceiveInto(s.ctx, nil)
			return err
		}, []string{"ReceiveInto(0)"}, nil},
		{"into a slice with no visibility timeout", func(s *stage) error {
			_, err := s.q.ReceiveInto(s.ctx, make([]Delivery[int], 1), WithVisibilityTimeout(0))
			return err
		}, []string{"WithVisibilityTimeout(0s)"}, nil},
		{"peek at none", func(s *stage) error {
			_, err := s.q.Peek(s.ctx, 0)
			return err
		}, []string{"Peek(0)"}, nil},
		{"peek at less", func(s *stage) error {
			_, err := s.q.Peek(s.ctx, -3)
			return err
		}, []string{"Peek(-3)"}, nil},

		// Redriving.
		{"nil redrive option", redriveWith(nil), []string{"option 0", "nil"}, nil},
		{"nil predicate", redriveWith(RedriveIf[int](nil)), []string{"RedriveIf", "nil"}, nil},
		{"predicate for another type", redriveWith(RedriveIf(func(Delivery[string]) bool { return true })),
			[]string{"RedriveIf", "Delivery[string]", "carries int"}, nil},

		// Settling.
		{"negative wait", func(s *stage) error { return s.d.NackAfter(s.ctx, -1) }, []string{"NackAfter(-1ns)"}, nil},
		{"extension by nothing", func(s *stage) error { return s.d.Extend(s.ctx, 0) }, []string{"Extend(0s)"}, nil},
		{"extension by less", func(s *stage) error { return s.d.Extend(s.ctx, -time.Second) }, []string{"Extend(-1s)"}, nil},

		// Messages.
		{"negative message delay", func(s *stage) error {
			return s.top.PublishMessages(s.ctx, Message[int]{Body: 1}, Message[int]{Body: 2, Delay: -time.Second})
		}, []string{"message 1", "Delay", "-1s"}, ErrInvalidMessage},
		{"negative message delay, not waiting", func(s *stage) error {
			return s.top.TryPublishMessages(s.ctx, Message[int]{Delay: -1})
		}, []string{"message 0", "Delay", "-1ns"}, ErrInvalidMessage},

		// Contexts.
		{"publish without a context", func(s *stage) error { return s.top.Publish(noContext, 1) }, []string{"nil context"}, nil},
		{"try to publish without a context", func(s *stage) error { return s.top.TryPublish(noContext, 1) }, []string{"nil context"}, nil},
		{"publish messages without a context", func(s *stage) error {
			return s.top.PublishMessages(noContext, Message[int]{})
		}, []string{"nil context"}, nil},
		{"open without a context", func(s *stage) error {
			_, err := s.top.OpenQueue(noContext, "other")
			return err
		}, []string{"nil context"}, nil},
		{"subscribe without a context", func(s *stage) error {
			_, err := s.top.Subscribe(noContext, "other", handleNothing)
			return err
		}, []string{"nil context"}, nil},
		{"subscribe to a queue without a context", func(s *stage) error {
			_, err := s.q.Subscribe(noContext, handleNothing)
			return err
		}, []string{"nil context"}, nil},
		{"receive without a context", func(s *stage) error {
			_, err := s.q.Receive(noContext)
			return err
		}, []string{"nil context"}, nil},
		{"try to receive without a context", func(s *stage) error {
			_, _, err := s.q.TryReceive(noContext)
			return err
		}, []string{"nil context"}, nil},
		{"receive a batch without a context", func(s *stage) error {
			_, err := s.q.ReceiveBatch(noContext, 1)
			return err
		}, []string{"nil context"}, nil},
		{"deliveries without a context", func(s *stage) error {
			return onlyError(s.q.Deliveries(noContext))
		}, []string{"nil context"}, nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t)
				before := s.state()
				err := row.do(s)

				want := ErrInvalidOption
				if row.is != nil {
					want = row.is
				}
				require.ErrorIs(t, err, want)
				for _, name := range row.names {
					require.ErrorContains(t, err, name)
				}
				require.Equal(t, 1, strings.Count(err.Error(), want.Error()), "said twice: %v", err)

				require.Equal(t, before, s.state())
				require.Nil(t, s.top.Queue("other"))
				require.Len(t, s.top.Queues(), 1)
				require.NoError(t, s.d.Ack(s.ctx), "the delivery still owns its message")
				require.NoError(t, s.top.Close())
				<-s.top.Done()
			})
		})
	}
}

// onlyError returns the one error that an iterator yields, with nothing else.
func onlyError(seq func(yield func(Delivery[int], error) bool)) (only error) {
	n := 0
	for d, err := range seq {
		n++
		if n > 1 || err == nil || d.q != nil {
			return fmt.Errorf("yielded %d times, lastly %v and %v", n, d.Body, err)
		}
		only = err
	}
	return only
}

func TestSettlingInMemoryAsksForNoContext(t *testing.T) {
	s := newStage(t)
	depth, err := s.q.Depth(noContext)
	require.NoError(t, err)
	require.Equal(t, 2, depth.Unsettled())
	require.NoError(t, s.d.Extend(noContext, time.Minute))
	require.NoError(t, s.d.Ack(noContext))
	require.NoError(t, s.top.Close())
}

func TestNoHandlerNoFilterAndNoQueueRemainOfARefusedSubscribe(t *testing.T) {
	s := newStage(t)
	_, err := s.top.Subscribe(s.ctx, "other", handleNothing, WithFilter(func(string) bool { panic("asked") }))
	require.ErrorIs(t, err, ErrInvalidOption)
	require.NoError(t, s.top.Publish(s.ctx, 1))
	require.Equal(t, 1, s.top.Stats().Queues)
	_, err = s.top.OpenQueue(s.ctx, "other")
	require.NoError(t, err, "the name is free")
	require.NoError(t, s.top.Close())
}

// --- defaults ---

func TestTheDefaultsAreThoseThatTheDocumentationStates(t *testing.T) {
	s := defaultQueueSettings()
	require.Equal(t, 1024, s.capacity)
	require.Equal(t, Block, s.overflow)
	require.Equal(t, 30*time.Second, s.visibility)
	require.Equal(t, 5, s.maxAttempts)
	require.Zero(t, s.delay)
	require.Empty(t, s.filters)
	require.Equal(t, 1024, s.deadCapacity)
	require.Equal(t, Block, s.deadOverflow)
	requireWithin(t, s.backoff, 1, 100*time.Millisecond)
	requireWithin(t, s.backoff, 2, 200*time.Millisecond)
	requireWithin(t, s.backoff, 100, 30*time.Second)
}

func TestTheDefaultCapacityIs1024AndTheDefaultOverflowWaits(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "audit")
		for i := range 1024 {
			require.NoError(t, top.TryPublish(ctx, i))
		}
		require.ErrorIs(t, top.TryPublish(ctx, 1024), ErrQueueFull)
		admitted := make(chan error)
		go func() { admitted <- top.Publish(ctx, 1024) }()
		synctest.Wait()
		require.Equal(t, 1, top.Stats().Waiting)
		require.NoError(t, receive(t, q).Ack(ctx))
		require.NoError(t, <-admitted)
		require.Zero(t, q.Stats().Dropped)
	})
}

func TestTheDefaultVisibilityTimeoutIs30Seconds(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "audit")
		publish(t, top, 1)
		began := time.Now()
		require.Equal(t, began.Add(30*time.Second), receive(t, q).Deadline())
		d, err := q.Receive(ctx)
		require.NoError(t, err)
		require.Equal(t, 30*time.Second, time.Since(began))
		require.NoError(t, d.Ack(ctx))
	})
}

func TestByDefaultAMessageIsDeadAfterFiveAttemptsWithTheDefaultBackoffBetween(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var waits []time.Duration
		top := newTopic[int](t, WithHooks(Hooks{Settled: func(e Event) { waits = append(waits, e.Wait) }}))
		q := openQueue(t, top, "audit")
		publish(t, top, 1)
		for attempt := 1; attempt <= 5; attempt++ {
			d, err := q.Receive(ctx)
			require.NoError(t, err)
			require.Equal(t, attempt, d.Attempt())
			require.Zero(t, q.Stats().Dead)
			require.NoError(t, d.Nack(ctx))
			if attempt < 5 {
				w := 100 * time.Millisecond << (attempt - 1)
				require.GreaterOrEqual(t, waits[attempt-1], w/2)
				require.LessOrEqual(t, waits[attempt-1], w)
				require.Equal(t, 1, q.Stats().Retrying)
				time.Sleep(waits[attempt-1] - 1)
				requireEmpty(t, q)
				time.Sleep(time.Nanosecond)
				synctest.Wait()
				require.Equal(t, 1, q.Stats().Ready)
			}
		}
		require.Equal(t, 1, q.Stats().Dead)
		require.Zero(t, q.Stats().Unsettled())
	})
}

func TestTheDefaultConcurrencyIsOne(t *testing.T) {
	for _, row := range []struct {
		name string
		by   func(ctx context.Context, top *Topic[int], h Handler[int]) error
	}{
		{"of a topic's subscriber", func(ctx context.Context, top *Topic[int], h Handler[int]) error {
			_, err := top.Subscribe(ctx, "audit", h)
			return err
		}},
		{"of a queue's subscriber", func(ctx context.Context, top *Topic[int], h Handler[int]) error {
			q, err := top.OpenQueue(ctx, "audit")
			if err != nil {
				return err
			}
			_, err = q.Subscribe(ctx, h)
			return err
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				top := newTopic[int](t)
				var running, most atomic.Int32
				require.NoError(t, row.by(ctx, top, func(context.Context, Delivery[int]) error {
					most.Store(max(most.Load(), running.Add(1)))
					time.Sleep(time.Millisecond)
					running.Add(-1)
					return nil
				}))
				publish(t, top, 1, 2, 3)
				began := time.Now()
				require.NoError(t, top.Shutdown(ctx))
				require.Equal(t, int32(1), most.Load())
				require.Equal(t, 3*time.Millisecond, time.Since(began))
			})
		})
	}
}

func TestTheDefaultDeadLetterQueueHolds1024AndParksTheRest(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "audit", WithCapacity(Unlimited), WithMaxAttempts(1))
		for i := range 1025 {
			publish(t, top, i)
			require.NoError(t, receive(t, q).Nack(ctx))
		}
		s := q.Stats()
		require.Equal(t, 1024, s.Dead)
		require.Equal(t, 1, s.Parked)
		require.Zero(t, s.Dropped)
		require.Equal(t, 1024, q.DeadLetters().Stats().Capacity)
	})
}

func TestTheDefaultLoggerIsSlogsAtTheTimeOfLogging(t *testing.T) {
	top, err := NewTopic[int]("payments")
	require.NoError(t, err)
	openQueue(t, top, "audit", WithCapacity(1), WithOverflow(DropNewest))

	var b syncBuffer
	logger, out, flags := slog.Default(), log.Writer(), log.Flags()
	slog.SetDefault(b.logger())
	t.Cleanup(func() {
		slog.SetDefault(logger)
		log.SetOutput(out)
		log.SetFlags(flags)
	})
	publish(t, top, 1, 2)
	require.Contains(t, b.String(), "messages dropped")
	require.Contains(t, b.String(), "queue=audit")
	require.NoError(t, top.Close())
}

// --- several options ---

// seen is what of settings can be compared, over a default backoff that doesn't vary.
type seen struct {
	capacity, maxAttempts, deadCapacity, filters, concurrency int
	overflow, deadOverflow                                    Overflow
	visibility, delay, backoff                                time.Duration
}

func see(t *testing.T, options ...SubscribeOption) seen {
	t.Helper()
	q, s := defaultQueueSettings(), subscriberSettings{subscriberLimits: subscriberLimits{concurrency: 1}}
	q.backoff = Constant(time.Second)
	require.NoError(t, applyAll(options, func(o SubscribeOption) error { return o.applySubscribe(&q, &s) }))
	return seen{
		capacity: q.capacity, maxAttempts: q.maxAttempts, deadCapacity: q.deadCapacity,
		filters: len(q.filters), concurrency: s.concurrency,
		overflow: q.overflow, deadOverflow: q.deadOverflow,
		visibility: q.visibility, delay: q.delay, backoff: q.backoff.after(1),
	}
}

func TestOfTwoEqualOptionsTheLastWins(t *testing.T) {
	for _, row := range []struct {
		name        string
		first, last SubscribeOption
	}{
		{"WithCapacity", WithCapacity(7), WithCapacity(9)},
		{"WithOverflow", WithOverflow(Reject), WithOverflow(DropOldest)},
		{"WithVisibilityTimeout", WithVisibilityTimeout(time.Hour), WithVisibilityTimeout(time.Minute)},
		{"WithMaxAttempts", WithMaxAttempts(Unlimited), WithMaxAttempts(1)},
		{"WithBackoff", WithBackoff(Constant(time.Hour)), WithBackoff(Constant(time.Minute))},
		{"WithDelay", WithDelay(time.Hour), WithDelay(0)},
		{"WithDeadLetterCapacity", WithDeadLetterCapacity(9), WithDeadLetterCapacity(7)},
		{"WithDeadLetterOverflow", WithDeadLetterOverflow(DropOldest), WithDeadLetterOverflow(Block)},
		{"WithConcurrency", WithConcurrency(9), WithConcurrency(7)},
	} {
		t.Run(row.name, func(t *testing.T) {
			require.NotEqual(t, see(t, row.first), see(t, row.last))
			require.Equal(t, see(t, row.last), see(t, row.first, row.last))
			require.Equal(t, see(t, row.first), see(t, row.last, row.first))
		})
	}
}

func TestTheOrderOfOptionsDoesNotMatter(t *testing.T) {
	options := []SubscribeOption{
		WithCapacity(7), WithOverflow(DropOldest), WithVisibilityTimeout(time.Hour), WithMaxAttempts(3),
		WithBackoff(Constant(time.Minute)), WithDelay(time.Second), WithConcurrency(4),
		WithDeadLetterCapacity(9), WithDeadLetterOverflow(DropOldest),
		WithFilter(func(i int) bool { return i > 1 }), WithFilter(func(i int) bool { return i < 9 }),
	}
	want := seen{
		capacity: 7, maxAttempts: 3, deadCapacity: 9, filters: 2, concurrency: 4,
		overflow: DropOldest, deadOverflow: DropOldest,
		visibility: time.Hour, delay: time.Second, backoff: time.Minute,
	}
	for range 200 {
		require.Equal(t, want, see(t, options...))
		rand.Shuffle(len(options), func(i, j int) { options[i], options[j] = options[j], options[i] })
	}
}

func TestOptionsAreValuesThatCanBeUsedAgain(t *testing.T) {
	ctx := t.Context()
	top := newTopic[int](t)
	options := []QueueOption{WithCapacity(2), WithFilter(func(i int) bool { return i%2 == 0 })}
	a := openQueue(t, top, "a", options...)
	b := openQueue(t, top, "b", options...)
	publish(t, top, 0, 1, 2, 3)
	require.Equal(t, 2, a.Stats().Ready)
	require.Equal(t, 2, b.Stats().Ready)
	require.ErrorIs(t, top.TryPublish(ctx, 4), ErrQueueFull)
}

func TestOfTwoTopicOptionsTheLastWins(t *testing.T) {
	var lost syncBuffer
	top, err := NewTopic[int]("payments", WithLogger(lost.logger()), silent)
	require.NoError(t, err)
	openQueue(t, top, "audit", WithCapacity(1), WithOverflow(DropNewest))
	publish(t, top, 1, 2)
	require.Empty(t, lost.String())
	require.NoError(t, top.Close())
}

func TestHooksAddUpInTheOrderOfTheOptions(t *testing.T) {
	var told []string
	tell := func(who string) func(Event) {
		return func(e Event) { told = append(told, who+" "+e.Queue) }
	}
	broken := func(e Event) { tell("second")(e); panic("broken") }
	var log syncBuffer
	all := []interface {
		TopicOption
		DeadLetterOption
	}{
		WithLogger(log.logger()),
		WithHooks(Hooks{Published: tell("first"), Dropped: tell("first")}),
		WithHooks(Hooks{Published: broken, Dropped: broken}),
		WithHooks(Hooks{}),
		WithHooks(Hooks{Published: tell("last"), Parked: tell("last")}),
	}
	var ofTopic []TopicOption
	var ofLetters []DeadLetterOption
	for _, o := range all {
		ofTopic, ofLetters = append(ofTopic, o), append(ofLetters, o)
	}
	dead, err := NewDeadLetterQueue[int]("graveyard", ofLetters...)
	require.NoError(t, err)
	top, err := NewTopic[int]("payments", ofTopic...)
	require.NoError(t, err)
	q := openQueue(t, top, "audit", WithCapacity(1), WithOverflow(DropNewest), WithDeadLetterQueue(dead), WithMaxAttempts(1))
	publish(t, top, 1, 2)
	require.Equal(t, []string{"first ", "second ", "last ", "first audit", "second audit", "first ", "second ", "last "}, told)
	require.Equal(t, 3, strings.Count(log.String(), "a hook panicked"))

	told = nil
	require.NoError(t, receive(t, q).Nack(t.Context()))
	_, err = dead.Purge(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"first graveyard", "second graveyard"}, told)
	require.NoError(t, top.Close())
	require.NoError(t, dead.Close())
}

func TestSeveralFiltersLetInWhatAllOfThemAccept(t *testing.T) {
	top := newTopic[int](t)
	q := openQueue(t, top, "audit",
		WithFilter(func(i int) bool { return i%2 == 0 }), WithFilter(func(i int) bool { return i%3 == 0 }))
	publish(t, top, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12)
	require.Equal(t, []int{0, 6, 12}, bodies(t, q))
}

func TestSeveralRedriveOptionsSelectWhatAllOfThemAccept(t *testing.T) {
	ctx := t.Context()
	top := newTopic[int](t)
	q := openQueue(t, top, "audit", WithMaxAttempts(1))
	for i := range 12 {
		require.NoError(t, top.PublishMessages(ctx, Message[int]{Body: i, ID: fmt.Sprint(i)}))
		require.NoError(t, receive(t, q).Nack(ctx))
	}
	moved, err := q.Redrive(ctx, RedriveIDs())
	require.NoError(t, err)
	require.Zero(t, moved, "no ID is none, not all")
	moved, err = q.Redrive(ctx,
		RedriveIDs("0", "2", "3"), RedriveIDs("6", "7"),
		RedriveIf(func(d Delivery[int]) bool { return d.Body%2 == 0 }),
		RedriveIf(func(d Delivery[int]) bool { return d.Body%3 == 0 }),
	)
	require.NoError(t, err)
	require.Equal(t, 2, moved)
	require.Equal(t, []int{0, 6}, bodies(t, q))
}

func TestTheLargestValuesAreNoOverflow(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		const ever = time.Duration(math.MaxInt64)
		q := openQueue(t, top, "audit",
			WithCapacity(Unlimited), WithMaxAttempts(Unlimited), WithDeadLetterCapacity(Unlimited),
			WithVisibilityTimeout(ever), WithBackoff(Constant(ever)))
		late := openQueue(t, top, "late", WithDelay(ever))
		time.Sleep(time.Hour) // so that now + ever is past the end of time
		publish(t, top, 1, 2)
		require.NoError(t, receive(t, q).Nack(ctx))
		d := receive(t, q)
		require.NoError(t, d.Extend(ctx, ever))
		time.Sleep(1000 * time.Hour)
		synctest.Wait()
		s := q.Stats()
		require.Equal(t, 1, s.Retrying)
		require.Equal(t, 1, s.InFlight)
		require.Equal(t, 2, late.Stats().Delayed)
		require.NoError(t, d.Ack(ctx))
	})
}

// --- backoff ---

// requireWithin draws often and checks that each wait is one that Exponential
// promises for a whole wait of w: in [w/2, w], and never under a millisecond.
func requireWithin(t *testing.T, b Backoff, attempt int, w time.Duration) {
	t.Helper()
	for range 50 {
		d := b.after(attempt)
		require.GreaterOrEqual(t, d, max(w/2, time.Millisecond))
		require.LessOrEqual(t, d, max(w, time.Millisecond))
	}
}

func TestExponentialBackoffStaysBetweenHalfAndWhole(t *testing.T) {
	for _, row := range []struct {
		name           string
		first, longest time.Duration
	}{
		{"the default", 100 * time.Millisecond, 30 * time.Second},
		{"no growth", time.Second, time.Second},
		{"a longest wait that is no multiple", 3 * time.Millisecond, 100 * time.Millisecond},
		{"the shortest", 1, 1},
		{"under a millisecond at first", time.Microsecond, time.Second},
		{"the longest", 1, math.MaxInt64},
		{"long at once", math.MaxInt64, math.MaxInt64},
		{"one short of the longest", math.MaxInt64 - 1, math.MaxInt64},
	} {
		t.Run(row.name, func(t *testing.T) {
			b := Exponential(row.first, row.longest)
			require.NoError(t, b.err)
			w := row.first
			for attempt := 1; attempt <= 70; attempt++ {
				requireWithin(t, b, attempt, w)
				if w > row.longest/2 {
					w = row.longest
				} else {
					w *= 2
				}
			}
			requireWithin(t, b, math.MaxInt, row.longest)
			requireWithin(t, b, math.MaxInt32, row.longest)
		})
	}
}

func TestExponentialBackoffStaysBetweenHalfAndWholeForAnyValues(t *testing.T) {
	for range 2000 {
		longest := time.Duration(1 + rand.Int64N(math.MaxInt64)>>rand.N(63))
		first := 1 + rand.N(longest)
		b := Exponential(first, longest)
		require.NoError(t, b.err, "Exponential(%d, %d)", first, longest)
		attempt := 1 + rand.N(80)
		w := first
		for range attempt - 1 {
			w = min(longest, w+min(w, math.MaxInt64-w))
		}
		d := b.after(attempt)
		require.GreaterOrEqual(t, d, max(w/2, time.Millisecond), "Exponential(%d, %d) after %d", first, longest, attempt)
		require.LessOrEqual(t, d, max(w, time.Millisecond), "Exponential(%d, %d) after %d", first, longest, attempt)
	}
}

func TestExponentialBackoffIsUniformBothEndsIncluded(t *testing.T) {
	b := Exponential(8, 8)
	drawn := map[time.Duration]int{}
	for range 5000 {
		drawn[b.wait(1)]++
	}
	require.Len(t, drawn, 5)
	for d := time.Duration(4); d <= 8; d++ {
		require.InDelta(t, 1000, drawn[d], 200, "drawn %v", drawn)
	}
}

func TestConstantBackoffIsExact(t *testing.T) {
	for _, d := range []time.Duration{time.Millisecond, time.Second, 3*time.Hour + 1, math.MaxInt64} {
		for _, attempt := range []int{1, 2, 100, math.MaxInt} {
			require.Equal(t, d, Constant(d).after(attempt))
		}
	}
}

func TestNoBackoffIsUnderAMillisecond(t *testing.T) {
	for _, b := range []Backoff{
		Constant(1),
		Exponential(1, 2),
		BackoffFunc(func(int) time.Duration { return 0 }),
		BackoffFunc(func(int) time.Duration { return -time.Hour }),
		BackoffFunc(func(int) time.Duration { return math.MinInt64 }),
	} {
		require.Equal(t, time.Millisecond, b.after(1))
	}
}

func TestBackoffFuncIsAskedWithTheNumberOfAttemptsSpent(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var asked []int
		top := newTopic[int](t)
		q, err := top.OpenQueue(ctx, "audit", WithMaxAttempts(4),
			WithBackoff(BackoffFunc(func(attempt int) time.Duration {
				asked = append(asked, attempt)
				return time.Duration(attempt) * time.Second
			})))
		require.NoError(t, err)
		publish(t, top, 1)
		began := time.Now()
		for range 3 {
			d, err := q.Receive(ctx)
			require.NoError(t, err)
			require.NoError(t, d.Nack(ctx))
			requireEmpty(t, q)
		}
		d, err := q.Receive(ctx)
		require.NoError(t, err)
		require.Equal(t, (1+2+3)*time.Second, time.Since(began))
		require.Equal(t, []int{1, 2, 3}, asked)
		require.NoError(t, d.Ack(ctx))
		require.Equal(t, []int{1, 2, 3}, asked, "an ack has no backoff")
	})
}

func TestAPanickingBackoffFuncFallsBackToTheDefault(t *testing.T) {
	b := BackoffFunc(func(attempt int) time.Duration { panic(attempt) })
	requireWithin(t, b, 1, 100*time.Millisecond)
	requireWithin(t, b, 2, 200*time.Millisecond)
	requireWithin(t, b, 100, 30*time.Second)

	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "audit", WithBackoff(b))
		publish(t, top, 1)
		require.NoError(t, receive(t, q).Nack(ctx))
		nacked := time.Now()
		d, err := q.Receive(ctx)
		require.NoError(t, err)
		require.GreaterOrEqual(t, time.Since(nacked), 50*time.Millisecond)
		require.LessOrEqual(t, time.Since(nacked), 100*time.Millisecond)
		require.NoError(t, d.Ack(ctx))
	})
}

func TestAnOverflowPolicyDropsOrDoesNot(t *testing.T) {
	require.False(t, Block.drops())
	require.False(t, Reject.drops())
	require.True(t, DropOldest.drops())
	require.True(t, DropNewest.drops())
}
