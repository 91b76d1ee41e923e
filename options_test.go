// Options are refused by name and value, hold from the scope nearest to what they are given for, and have the documented defaults.

package fanout_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"math"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/internal/fakeengine"
	"github.com/gofanout/fanout/internal/tests/kit"
)

func TestTheErrorForAPromiseGivenUpPrintsTheCall(t *testing.T) {
	e := fakeengine.New(fakeengine.Config{Without: []engine.Feature{engine.Bounded, engine.AllOrNone}})
	const call = "fanout.WithEngine(e, fanout.Without(engine.Bounded, engine.AllOrNone))"
	for _, option := range []fanout.TopicOption{
		fanout.WithEngine(e),
		fanout.WithEngine(e, fanout.Without()),
		fanout.WithEngine(e, fanout.Without(engine.Bounded)),
		fanout.WithEngine(e, fanout.Without(engine.AllOrNone)),
	} {
		_, err := fanout.NewTopic[string]("payments", option)
		require.ErrorIs(t, err, fanout.ErrUnsupported)
		require.ErrorContains(t, err, call)
	}
	_, err := fanout.NewTopic[string]("payments", fanout.WithEngine(e, fanout.Without(engine.Bounded)))
	require.ErrorContains(t, err, engine.AllOrNone.String())
	require.NotContains(t, err.Error(), engine.Bounded.String(), "it was named")

	for _, option := range []fanout.TopicOption{
		fanout.WithEngine(e, fanout.Without(engine.Bounded, engine.AllOrNone)), // the call
		fanout.WithEngine(e, fanout.Without(engine.Bounded), fanout.Without(engine.AllOrNone)),
		fanout.WithEngine(fakeengine.New(fakeengine.Config{}), fanout.Without(engine.Bounded, engine.AllOrNone)),
	} {
		_, err := fanout.NewTopic[string]("payments", option)
		require.NoError(t, err)
	}

	_, err = fanout.NewTopic[string]("payments", fanout.WithEngine(e, fanout.Without(engine.Bounded)), fanout.WithEngine(e))
	require.ErrorIs(t, err, fanout.ErrUnsupported, "the last of two engines counts, with what it was given")
	_, err = fanout.NewTopic[string]("payments", fanout.WithEngine(e, nil))
	require.ErrorIs(t, err, fanout.ErrInvalidOption)
}

func TestAGroupOfOptionsIsAnOption(t *testing.T) {
	ctx := context.Background()
	handle := func(context.Context, fanout.Delivery[int]) error { return nil }
	hooked := 0
	topicOptions := []fanout.TopicOption{fanout.WithOrdering(), fanout.WithHooks(fanout.Hooks{Published: func(fanout.Event) { hooked++ }})}
	group := fanout.TopicOptions(topicOptions...)
	topicOptions[0] = nil // the group has its own slice
	top, err := fanout.NewTopic[int]("payments", fanout.TopicOptions(), fanout.TopicOptions(group, group))
	require.NoError(t, err)
	defer top.Close()

	queueOptions := []fanout.QueueOption{fanout.WithCapacity(3), fanout.WithVisibilityTimeout(time.Minute)}
	queueGroup := fanout.QueueOptions(queueOptions...)
	queueOptions[0] = nil
	q, err := top.OpenQueue(ctx, "pulled", fanout.WithCapacity(9), queueGroup)
	require.NoError(t, err)
	require.Equal(t, 3, q.Stats().Capacity, "the last of two equal options wins")
	q, err = top.OpenQueue(ctx, "again", fanout.QueueOptions(queueGroup, fanout.QueueOptions()), fanout.WithCapacity(9))
	require.NoError(t, err)
	require.Equal(t, 9, q.Stats().Capacity)

	workerOptions := []fanout.WorkerOption{fanout.WithConcurrency(2), fanout.WithHandlerTimeout(time.Second)}
	workerGroup := fanout.WorkerOptions(workerOptions...)
	workerOptions[0] = nil
	s, err := top.Subscribe(ctx, "pushed", handle, workerGroup, queueGroup)
	require.NoError(t, err)
	require.Equal(t, 3, s.Queue().Stats().Capacity)
	_, err = q.Subscribe(ctx, handle, fanout.WorkerOptions(workerGroup, workerGroup))
	require.NoError(t, err)

	require.NoError(t, top.PublishMessages(ctx, fanout.Message[int]{OrderingKey: "k"}))
	require.Equal(t, 2, hooked, "what adds up adds up in groups too")
}

func TestABadOptionInAGroupIsNamed(t *testing.T) {
	ctx := context.Background()
	handle := func(context.Context, fanout.Delivery[int]) error { return nil }
	top, err := fanout.NewTopic[int]("payments")
	require.NoError(t, err)
	defer top.Close()
	q, err := top.OpenQueue(ctx, "q")
	require.NoError(t, err)
	newTopic := func(o fanout.TopicOption) error { _, err := fanout.NewTopic[int]("t", o); return err }
	open := func(o fanout.QueueOption) error { _, err := top.OpenQueue(ctx, "open", o); return err }
	subscribe := func(o fanout.SubscribeOption) error { _, err := top.Subscribe(ctx, "both", handle, o); return err }
	work := func(o fanout.WorkerOption) error { _, err := q.Subscribe(ctx, handle, o); return err }
	badTopic := fanout.TopicOptions(fanout.WithOrdering(), fanout.WithRetention(0))
	badQueue := fanout.QueueOptions(fanout.WithCapacity(1), fanout.WithCapacity(0))
	badWorker := fanout.WorkerOptions(fanout.WithConcurrency(1), fanout.WithConcurrency(0))
	for k, row := range []struct {
		err  error
		says string
	}{
		{newTopic(badTopic), "WithRetention(0)"},
		{newTopic(fanout.TopicOptions(badTopic)), "WithRetention(0)"},
		{newTopic(fanout.TopicOptions(fanout.WithOrdering(), nil)), "TopicOptions(nil): want an option at index 1"},
		{open(badQueue), "WithCapacity(0)"},
		{open(fanout.QueueOptions(nil)), "QueueOptions(nil): want an option at index 0"},
		{subscribe(badQueue), "WithCapacity(0)"},
		{subscribe(badWorker), "WithConcurrency(0)"},
		{subscribe(fanout.QueueOptions(nil)), "QueueOptions(nil): want an option at index 0"},
		{work(badWorker), "WithConcurrency(0)"},
		{work(fanout.WorkerOptions(badWorker)), "WithConcurrency(0)"},
		{work(fanout.WorkerOptions(fanout.WithConcurrency(1), nil)), "WorkerOptions(nil): want an option at index 1"},
	} {
		t.Run(fmt.Sprint(k), func(t *testing.T) {
			require.ErrorIs(t, row.err, fanout.ErrInvalidOption)
			require.ErrorContains(t, row.err, row.says)
		})
	}
	require.Len(t, top.Queues(), 1, "a bad option opens no queue")
}

// A stage is a topic with a queue that holds one message in flight, one that is
// ready and one dead letter: what a bad argument must leave as it is.
type stage struct {
	ctx context.Context
	top *fanout.Topic[int]
	q   *fanout.Queue[int]
	d   fanout.Delivery[int]
}

func newStage(t *testing.T) *stage {
	s := &stage{ctx: t.Context(), top: kit.NewTopic[int](t)}
	s.q = kit.OpenQueue(t, s.top, "audit")
	kit.Publish(t, s.top, 0, 1, 2)
	require.NoError(t, kit.Receive(t, s.q).Settle(s.ctx, fanout.Permanent(kit.ErrBusy)))
	s.d = kit.Receive(t, s.q)
	return s
}

// state is all that can be seen of the stage.
func (s *stage) state() string {
	return fmt.Sprintf("%+v %+v %+v %v", s.top.Stats(), s.q.Stats(), s.q.DeadLetters().Stats(), s.d.Deadline())
}

func topicWith(o fanout.TopicOption) error {
	_, err := fanout.NewTopic[int]("other", o)
	return err
}

func openWith(o fanout.QueueOption) func(s *stage) error {
	return func(s *stage) error {
		_, err := s.top.OpenQueue(s.ctx, "other", o)
		return err
	}
}

func subscribeWith(o fanout.SubscribeOption) func(s *stage) error {
	return func(s *stage) error {
		_, err := s.top.Subscribe(s.ctx, "other", kit.HandleNothing, o)
		return err
	}
}

func receiveWith(o fanout.ReceiveOption) func(s *stage) error {
	return func(s *stage) error {
		_, err := s.q.Receive(s.ctx, o)
		return err
	}
}

func redriveWith(o fanout.RedriveOption) func(s *stage) error {
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
			_, err := fanout.NewTopic[int]("")
			return err
		}, []string{"NewTopic", `""`}, nil},
		{"empty queue name", func(s *stage) error {
			_, err := s.top.OpenQueue(s.ctx, "")
			return err
		}, []string{"OpenQueue", `""`}, nil},
		{"empty queue name to Subscribe", func(s *stage) error {
			_, err := s.top.Subscribe(s.ctx, "", kit.HandleNothing)
			return err
		}, []string{`""`}, nil},
		{"duplicate queue name", func(s *stage) error {
			_, err := s.top.OpenQueue(s.ctx, "audit")
			return err
		}, []string{"OpenQueue", `"audit"`}, nil},
		{"duplicate queue name to Subscribe", func(s *stage) error {
			_, err := s.top.Subscribe(s.ctx, "audit", kit.HandleNothing)
			return err
		}, []string{`"audit"`}, nil},

		// Options of a topic.
		{"nil topic option", func(s *stage) error { return topicWith(nil) }, []string{"option 0", "nil"}, nil},
		{"nil logger", func(s *stage) error { return topicWith(fanout.WithLogger(nil)) }, []string{"WithLogger", "nil"}, nil},

		{"no deduplication window", func(s *stage) error { return topicWith(fanout.WithDeduplication(0, 1)) }, []string{"WithDeduplication(0s)"}, nil},
		{"no deduplication IDs", func(s *stage) error { return topicWith(fanout.WithDeduplication(time.Minute, 0)) }, []string{"WithDeduplication(0)"}, nil},
		{"no retention", func(s *stage) error { return topicWith(fanout.WithRetention(0)) }, []string{"WithRetention(0)"}, nil},
		{"unlimited retention", func(s *stage) error { return topicWith(fanout.WithRetention(fanout.Unlimited)) }, []string{"WithRetention", "Unlimited"}, nil},
		{"nil publish interceptor", func(s *stage) error { return topicWith(fanout.WithPublishInterceptor(nil)) }, []string{"WithPublishInterceptor", "nil"}, nil},
		{"nil handler interceptor", func(s *stage) error { return topicWith(fanout.WithHandlerInterceptor(nil)) }, []string{"WithHandlerInterceptor", "nil"}, nil},
		{"empty name of a shared dead-letter queue", func(s *stage) error {
			_, err := fanout.NewDeadLetterQueue[int]("")
			return err
		}, []string{"NewDeadLetterQueue", `""`}, nil},
		{"bad option to a shared dead-letter queue", func(s *stage) error {
			_, err := fanout.NewDeadLetterQueue[int]("dead", fanout.WithDeadLetterCapacity(-1))
			return err
		}, []string{"WithDeadLetterCapacity(-1)"}, nil},

		// Options of a queue.
		{"name of a dead-letter queue", func(s *stage) error {
			_, err := s.top.OpenQueue(s.ctx, "other/dead")
			return err
		}, []string{"OpenQueue", `"other/dead"`}, nil},
		{"no time to live", openWith(fanout.WithTimeToLive(0)), []string{"WithTimeToLive(0s)"}, nil},
		{"negative time to live", openWith(fanout.WithTimeToLive(-time.Second)), []string{"WithTimeToLive(-1s)"}, nil},
		{"no replay", openWith(fanout.WithReplay(0)), []string{"WithReplay(0)"}, nil},
		{"replay without retention", openWith(fanout.WithReplay(3)), []string{"WithReplay(3)", "WithRetention"}, fanout.ErrUnsupported},
		{"nil message filter", openWith(fanout.WithMessageFilter[int](nil)), []string{"WithMessageFilter", "nil"}, nil},
		{"message filter for another type", openWith(fanout.WithMessageFilter(func(fanout.Message[string]) bool { return true })), []string{"WithMessageFilter", "string", "carries int"}, nil},
		{"bad filter policy", openWith(fanout.WithFilterPolicy(`{"price": [{"numeric": ["<"]}]}`)), []string{"WithFilterPolicy", `"price"`, "Invalid parameter"}, nil},
		{"no shared dead-letter queue", openWith(fanout.WithDeadLetterQueue[int](nil)), []string{"WithDeadLetterQueue", "nil"}, nil},
		{"a queue that is no shared dead-letter queue", func(s *stage) error {
			_, err := s.top.OpenQueue(s.ctx, "other", fanout.WithDeadLetterQueue(s.top.Queue("audit")))
			return err
		}, []string{"WithDeadLetterQueue", `"audit"`}, nil},
		{"a shared dead-letter queue for another type", func(s *stage) error {
			d, err := fanout.NewDeadLetterQueue[string]("dead")
			if err != nil {
				return err
			}
			_, err = s.top.OpenQueue(s.ctx, "other", fanout.WithDeadLetterQueue(d))
			return err
		}, []string{"WithDeadLetterQueue", "Queue[string]", "carries int"}, nil},
		{"a capacity for somebody else's dead letters", func(s *stage) error {
			d, err := fanout.NewDeadLetterQueue[int]("dead")
			if err != nil {
				return err
			}
			_, err = s.top.OpenQueue(s.ctx, "other", fanout.WithDeadLetterCapacity(7), fanout.WithDeadLetterQueue(d))
			return errors.Join(err, d.Close())
		}, []string{"WithDeadLetterCapacity(7)", "NewDeadLetterQueue"}, nil},
		{"a policy for somebody else's dead letters", func(s *stage) error {
			d, err := fanout.NewDeadLetterQueue[int]("dead")
			if err != nil {
				return err
			}
			_, err = s.top.OpenQueue(s.ctx, "other", fanout.WithDeadLetterQueue(d), fanout.WithDeadLetterOverflow(fanout.DropOldest))
			return errors.Join(err, d.Close())
		}, []string{"WithDeadLetterOverflow(DropOldest)", "NewDeadLetterQueue"}, nil},
		{"no batch size", subscribeWith(fanout.WithBatchSize(0)), []string{"WithBatchSize(0)"}, nil},
		{"no rate", subscribeWith(fanout.WithRateLimit(0)), []string{"WithRateLimit(0)"}, nil},
		{"negative rate", subscribeWith(fanout.WithRateLimit(-1)), []string{"WithRateLimit(-1)"}, nil},
		{"no number for a rate", subscribeWith(fanout.WithRateLimit(math.NaN())), []string{"WithRateLimit(NaN)"}, nil},
		{"no automatic extension", subscribeWith(fanout.WithAutoExtend(0)), []string{"WithAutoExtend(0s)"}, nil},
		{"no handler timeout", subscribeWith(fanout.WithHandlerTimeout(-1)), []string{"WithHandlerTimeout(-1ns)"}, nil},
		{"nil batch handler", func(s *stage) error {
			_, err := s.top.SubscribeBatch(s.ctx, "other", nil)
			return err
		}, []string{"Subscribe", "nil handler"}, nil},
		{"negative time to live of a message", func(s *stage) error {
			return s.top.PublishMessages(s.ctx, fanout.Message[int]{TimeToLive: -time.Second})
		}, []string{"message 0", "TimeToLive", "-1s"}, fanout.ErrInvalidMessage},
		{"nil queue option", openWith(nil), []string{"option 0", "nil"}, nil},
		{"nil queue option behind a good one", func(s *stage) error {
			_, err := s.top.OpenQueue(s.ctx, "other", fanout.WithCapacity(1), nil)
			return err
		}, []string{"option 1", "nil"}, nil},
		{"no capacity", openWith(fanout.WithCapacity(0)), []string{"WithCapacity(0)"}, nil},
		{"negative capacity", openWith(fanout.WithCapacity(-7)), []string{"WithCapacity(-7)"}, nil},
		{"zero overflow", openWith(fanout.WithOverflow(0)), []string{"WithOverflow", "Overflow(0)"}, nil},
		{"unknown overflow", openWith(fanout.WithOverflow(9)), []string{"WithOverflow", "Overflow(9)"}, nil},
		{"no visibility timeout", openWith(fanout.WithVisibilityTimeout(0)), []string{"WithVisibilityTimeout(0s)"}, nil},
		{"negative visibility timeout", openWith(fanout.WithVisibilityTimeout(-time.Second)), []string{"WithVisibilityTimeout(-1s)"}, nil},
		{"no attempts", openWith(fanout.WithMaxAttempts(0)), []string{"WithMaxAttempts(0)"}, nil},
		{"negative attempts", openWith(fanout.WithMaxAttempts(-1)), []string{"WithMaxAttempts(-1)"}, nil},
		{"zero backoff", openWith(fanout.WithBackoff(fanout.Backoff{})), []string{"WithBackoff", "Backoff{}"}, nil},
		{"no constant backoff", openWith(fanout.WithBackoff(fanout.Constant(0))), []string{"WithBackoff", "Constant(0s)"}, nil},
		{"negative constant backoff", openWith(fanout.WithBackoff(fanout.Constant(-time.Second))), []string{"WithBackoff", "Constant(-1s)"}, nil},
		{"no first wait", openWith(fanout.WithBackoff(fanout.Exponential(0, time.Second))), []string{"WithBackoff", "Exponential(0s, 1s)"}, nil},
		{"negative first wait", openWith(fanout.WithBackoff(fanout.Exponential(-1, time.Second))), []string{"WithBackoff", "Exponential(-1ns, 1s)"}, nil},
		{"longest wait below the first", openWith(fanout.WithBackoff(fanout.Exponential(time.Second, time.Millisecond))), []string{"WithBackoff", "Exponential(1s, 1ms)"}, nil},
		{"negative longest wait", openWith(fanout.WithBackoff(fanout.Exponential(time.Second, -1))), []string{"WithBackoff", "Exponential(1s, -1ns)"}, nil},
		{"nil backoff function", openWith(fanout.WithBackoff(fanout.BackoffFunc(nil))), []string{"WithBackoff", "BackoffFunc(nil)"}, nil},
		{"negative delay", openWith(fanout.WithDelay(-time.Second)), []string{"WithDelay(-1s)"}, nil},
		{"nil filter", openWith(fanout.WithFilter[int](nil)), []string{"WithFilter", "nil"}, nil},
		{"filter for another type", openWith(fanout.WithFilter(func(string) bool { return true })), []string{"WithFilter", "func(string) bool", "carries int"}, nil},
		{"second filter for another type", func(s *stage) error {
			_, err := s.top.OpenQueue(s.ctx, "other",
				fanout.WithFilter(func(int) bool { return true }), fanout.WithFilter(func(any) bool { return true }))
			return err
		}, []string{"WithFilter", "func(interface {}) bool", "carries int"}, nil},
		{"no dead letters", openWith(fanout.WithDeadLetterCapacity(0)), []string{"WithDeadLetterCapacity(0)"}, nil},
		{"negative dead letters", openWith(fanout.WithDeadLetterCapacity(-1)), []string{"WithDeadLetterCapacity(-1)"}, nil},
		{"zero dead-letter overflow", openWith(fanout.WithDeadLetterOverflow(0)), []string{"WithDeadLetterOverflow", "Overflow(0)"}, nil},
		{"dead-letter overflow that loses the new one", openWith(fanout.WithDeadLetterOverflow(fanout.DropNewest)), []string{"WithDeadLetterOverflow", "DropNewest"}, nil},
		{"dead-letter overflow that nobody can be told of", openWith(fanout.WithDeadLetterOverflow(fanout.Reject)), []string{"WithDeadLetterOverflow", "Reject"}, nil},
		{"bad queue option to Subscribe", func(s *stage) error {
			_, err := s.top.Subscribe(s.ctx, "other", kit.HandleNothing, fanout.WithCapacity(-7))
			return err
		}, []string{"WithCapacity(-7)"}, nil},
		{"bad visibility timeout to Subscribe", func(s *stage) error {
			_, err := s.top.Subscribe(s.ctx, "other", kit.HandleNothing, fanout.WithVisibilityTimeout(0))
			return err
		}, []string{"WithVisibilityTimeout(0s)"}, nil},
		{"filter for another type to Subscribe", func(s *stage) error {
			_, err := s.top.Subscribe(s.ctx, "other", kit.HandleNothing, fanout.WithFilter(func(string) bool { return true }))
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
			_, err := s.top.Subscribe(s.ctx, "other", kit.HandleNothing, nil)
			return err
		}, []string{"option 0", "nil"}, nil},
		{"nil subscriber option", func(s *stage) error {
			_, err := s.q.Subscribe(s.ctx, kit.HandleNothing, nil)
			return err
		}, []string{"option 0", "nil"}, nil},
		{"no concurrency", func(s *stage) error {
			_, err := s.q.Subscribe(s.ctx, kit.HandleNothing, fanout.WithConcurrency(0))
			return err
		}, []string{"WithConcurrency(0)"}, nil},
		{"negative concurrency of a new queue", func(s *stage) error {
			_, err := s.top.Subscribe(s.ctx, "other", kit.HandleNothing, fanout.WithConcurrency(-1))
			return err
		}, []string{"WithConcurrency(-1)"}, nil},

		// Receiving.
		{"nil receive option", receiveWith(nil), []string{"option 0", "nil"}, nil},
		{"receive with no visibility timeout", receiveWith(fanout.WithVisibilityTimeout(0)), []string{"WithVisibilityTimeout(0s)"}, nil},
		{"try to receive with a negative visibility timeout", func(s *stage) error {
			_, ok, err := s.q.TryReceive(s.ctx, fanout.WithVisibilityTimeout(-1))
			if ok {
				return errors.New("it was received")
			}
			return err
		}, []string{"WithVisibilityTimeout(-1ns)"}, nil},
		{"deliveries with no visibility timeout", func(s *stage) error {
			return onlyError(s.q.Deliveries(s.ctx, fanout.WithVisibilityTimeout(0)))
		}, []string{"WithVisibilityTimeout(0s)"}, nil},
		{"batch with no visibility timeout", func(s *stage) error {
			_, err := s.q.ReceiveBatch(s.ctx, 1, fanout.WithVisibilityTimeout(0))
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
			_, err := s.q.ReceiveInto(s.ctx, make([]fanout.Delivery[int], 1), fanout.WithVisibilityTimeout(0))
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
		{"nil predicate", redriveWith(fanout.RedriveIf[int](nil)), []string{"RedriveIf", "nil"}, nil},
		{"predicate for another type", redriveWith(fanout.RedriveIf(func(fanout.Delivery[string]) bool { return true })),
			[]string{"RedriveIf", "Delivery[string]", "carries int"}, nil},

		// Settling.
		{"negative wait", func(s *stage) error { return s.d.NackAfter(s.ctx, -1) }, []string{"NackAfter(-1ns)"}, nil},
		{"extension by nothing", func(s *stage) error { return s.d.Extend(s.ctx, 0) }, []string{"Extend(0s)"}, nil},
		{"extension by less", func(s *stage) error { return s.d.Extend(s.ctx, -time.Second) }, []string{"Extend(-1s)"}, nil},

		// Messages.
		{"negative message delay", func(s *stage) error {
			return s.top.PublishMessages(s.ctx, fanout.Message[int]{Body: 1}, fanout.Message[int]{Body: 2, Delay: -time.Second})
		}, []string{"message 1", "Delay", "-1s"}, fanout.ErrInvalidMessage},
		{"negative message delay, not waiting", func(s *stage) error {
			return s.top.TryPublishMessages(s.ctx, fanout.Message[int]{Delay: -1})
		}, []string{"message 0", "Delay", "-1ns"}, fanout.ErrInvalidMessage},

		// Contexts.
		{"publish without a context", func(s *stage) error { return s.top.Publish(kit.NoContext, 1) }, []string{"nil context"}, nil},
		{"try to publish without a context", func(s *stage) error { return s.top.TryPublish(kit.NoContext, 1) }, []string{"nil context"}, nil},
		{"publish messages without a context", func(s *stage) error {
			return s.top.PublishMessages(kit.NoContext, fanout.Message[int]{})
		}, []string{"nil context"}, nil},
		{"open without a context", func(s *stage) error {
			_, err := s.top.OpenQueue(kit.NoContext, "other")
			return err
		}, []string{"nil context"}, nil},
		{"subscribe without a context", func(s *stage) error {
			_, err := s.top.Subscribe(kit.NoContext, "other", kit.HandleNothing)
			return err
		}, []string{"nil context"}, nil},
		{"subscribe to a queue without a context", func(s *stage) error {
			_, err := s.q.Subscribe(kit.NoContext, kit.HandleNothing)
			return err
		}, []string{"nil context"}, nil},
		{"receive without a context", func(s *stage) error {
			_, err := s.q.Receive(kit.NoContext)
			return err
		}, []string{"nil context"}, nil},
		{"try to receive without a context", func(s *stage) error {
			_, _, err := s.q.TryReceive(kit.NoContext)
			return err
		}, []string{"nil context"}, nil},
		{"receive a batch without a context", func(s *stage) error {
			_, err := s.q.ReceiveBatch(kit.NoContext, 1)
			return err
		}, []string{"nil context"}, nil},
		{"deliveries without a context", func(s *stage) error {
			return onlyError(s.q.Deliveries(kit.NoContext))
		}, []string{"nil context"}, nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t)
				before := s.state()
				err := row.do(s)

				want := fanout.ErrInvalidOption
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
func onlyError(seq func(yield func(fanout.Delivery[int], error) bool)) (only error) {
	n := 0
	for d, err := range seq {
		n++
		if n > 1 || err == nil || !reflect.ValueOf(d).IsZero() {
			return fmt.Errorf("yielded %d times, lastly %v and %v", n, d.Body, err)
		}
		only = err
	}
	return only
}

func TestSettlingInMemoryAsksForNoContext(t *testing.T) {
	s := newStage(t)
	depth, err := s.q.Depth(kit.NoContext)
	require.NoError(t, err)
	require.Equal(t, 2, depth.Unsettled())
	require.NoError(t, s.d.Extend(kit.NoContext, time.Minute))
	require.NoError(t, s.d.Ack(kit.NoContext))
	require.NoError(t, s.top.Close())
}

func TestNoHandlerNoFilterAndNoQueueRemainOfARefusedSubscribe(t *testing.T) {
	s := newStage(t)
	_, err := s.top.Subscribe(s.ctx, "other", kit.HandleNothing, fanout.WithFilter(func(string) bool { panic("asked") }))
	require.ErrorIs(t, err, fanout.ErrInvalidOption)
	require.NoError(t, s.top.Publish(s.ctx, 1))
	require.Equal(t, 1, s.top.Stats().Queues)
	_, err = s.top.OpenQueue(s.ctx, "other")
	require.NoError(t, err, "the name is free")
	require.NoError(t, s.top.Close())
}

// --- defaults ---

func TestTheDefaultCapacityIs1024AndTheDefaultOverflowWaits(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "audit")
		for i := range 1024 {
			require.NoError(t, top.TryPublish(ctx, i))
		}
		require.ErrorIs(t, top.TryPublish(ctx, 1024), fanout.ErrQueueFull)
		admitted := make(chan error)
		go func() { admitted <- top.Publish(ctx, 1024) }()
		synctest.Wait()
		require.Equal(t, 1, top.Stats().Waiting)
		require.NoError(t, kit.Receive(t, q).Ack(ctx))
		require.NoError(t, <-admitted)
		require.Zero(t, q.Stats().Dropped)
	})
}

func TestTheDefaultVisibilityTimeoutIs30Seconds(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "audit")
		kit.Publish(t, top, 1)
		began := time.Now()
		require.Equal(t, began.Add(30*time.Second), kit.Receive(t, q).Deadline())
		d, err := q.Receive(ctx)
		require.NoError(t, err)
		require.Equal(t, 30*time.Second, time.Since(began))
		require.NoError(t, d.Ack(ctx))
	})
}

func TestByDefaultAMessageIsDeadAfterFiveAttemptsWithTheDefaultBackoffBetween(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		var waits []time.Duration
		top := kit.NewTopic[int](t, fanout.WithHooks(fanout.Hooks{Settled: func(e fanout.Event) { waits = append(waits, e.Wait) }}))
		q := kit.OpenQueue(t, top, "audit")
		kit.Publish(t, top, 1)
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
				kit.RequireEmpty(t, q)
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
		by   func(ctx context.Context, top *fanout.Topic[int], h fanout.Handler[int]) error
	}{
		{"of a topic's subscriber", func(ctx context.Context, top *fanout.Topic[int], h fanout.Handler[int]) error {
			_, err := top.Subscribe(ctx, "audit", h)
			return err
		}},
		{"of a queue's subscriber", func(ctx context.Context, top *fanout.Topic[int], h fanout.Handler[int]) error {
			q, err := top.OpenQueue(ctx, "audit")
			if err != nil {
				return err
			}
			_, err = q.Subscribe(ctx, h)
			return err
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			kit.Bubble(t, func(t *testing.T, ctx context.Context) {
				top := kit.NewTopic[int](t)
				var running, most atomic.Int32
				require.NoError(t, row.by(ctx, top, func(context.Context, fanout.Delivery[int]) error {
					most.Store(max(most.Load(), running.Add(1)))
					time.Sleep(time.Millisecond)
					running.Add(-1)
					return nil
				}))
				kit.Publish(t, top, 1, 2, 3)
				began := time.Now()
				require.NoError(t, top.Shutdown(ctx))
				require.Equal(t, int32(1), most.Load())
				require.Equal(t, 3*time.Millisecond, time.Since(began))
			})
		})
	}
}

func TestTheDefaultDeadLetterQueueHolds1024AndParksTheRest(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "audit", fanout.WithCapacity(fanout.Unlimited), fanout.WithMaxAttempts(1))
		for i := range 1025 {
			kit.Publish(t, top, i)
			require.NoError(t, kit.Receive(t, q).Nack(ctx))
		}
		s := q.Stats()
		require.Equal(t, 1024, s.Dead)
		require.Equal(t, 1, s.Parked)
		require.Zero(t, s.Dropped)
		require.Equal(t, 1024, q.DeadLetters().Stats().Capacity)
	})
}

func TestTheDefaultLoggerIsSlogsAtTheTimeOfLogging(t *testing.T) {
	top, err := fanout.NewTopic[int]("payments")
	require.NoError(t, err)
	kit.OpenQueue(t, top, "audit", fanout.WithCapacity(1), fanout.WithOverflow(fanout.DropNewest))

	var b kit.Buffer
	logger, out, flags := slog.Default(), log.Writer(), log.Flags()
	slog.SetDefault(b.Logger())
	t.Cleanup(func() {
		slog.SetDefault(logger)
		log.SetOutput(out)
		log.SetFlags(flags)
	})
	kit.Publish(t, top, 1, 2)
	require.Contains(t, b.String(), "messages dropped")
	require.Contains(t, b.String(), "queue=audit")
	require.NoError(t, top.Close())
}

// --- several options ---

func TestOptionsAreValuesThatCanBeUsedAgain(t *testing.T) {
	ctx := t.Context()
	top := kit.NewTopic[int](t)
	options := []fanout.QueueOption{fanout.WithCapacity(2), fanout.WithFilter(func(i int) bool { return i%2 == 0 })}
	a := kit.OpenQueue(t, top, "a", options...)
	b := kit.OpenQueue(t, top, "b", options...)
	kit.Publish(t, top, 0, 1, 2, 3)
	require.Equal(t, 2, a.Stats().Ready)
	require.Equal(t, 2, b.Stats().Ready)
	require.ErrorIs(t, top.TryPublish(ctx, 4), fanout.ErrQueueFull)
}

func TestOfTwoTopicOptionsTheLastWins(t *testing.T) {
	var lost kit.Buffer
	top, err := fanout.NewTopic[int]("payments", fanout.WithLogger(lost.Logger()), kit.Silent)
	require.NoError(t, err)
	kit.OpenQueue(t, top, "audit", fanout.WithCapacity(1), fanout.WithOverflow(fanout.DropNewest))
	kit.Publish(t, top, 1, 2)
	require.Empty(t, lost.String())
	require.NoError(t, top.Close())
}

func TestHooksAddUpInTheOrderOfTheOptions(t *testing.T) {
	var told []string
	tell := func(who string) func(fanout.Event) {
		return func(e fanout.Event) { told = append(told, who+" "+e.Queue) }
	}
	broken := func(e fanout.Event) { tell("second")(e); panic("broken") }
	var log kit.Buffer
	all := []interface {
		fanout.TopicOption
		fanout.DeadLetterOption
	}{
		fanout.WithLogger(log.Logger()),
		fanout.WithHooks(fanout.Hooks{Published: tell("first"), Dropped: tell("first")}),
		fanout.WithHooks(fanout.Hooks{Published: broken, Dropped: broken}),
		fanout.WithHooks(fanout.Hooks{}),
		fanout.WithHooks(fanout.Hooks{Published: tell("last"), Parked: tell("last")}),
	}
	var ofTopic []fanout.TopicOption
	var ofLetters []fanout.DeadLetterOption
	for _, o := range all {
		ofTopic, ofLetters = append(ofTopic, o), append(ofLetters, o)
	}
	dead, err := fanout.NewDeadLetterQueue[int]("graveyard", ofLetters...)
	require.NoError(t, err)
	top, err := fanout.NewTopic[int]("payments", ofTopic...)
	require.NoError(t, err)
	q := kit.OpenQueue(t, top, "audit", fanout.WithCapacity(1), fanout.WithOverflow(fanout.DropNewest), fanout.WithDeadLetterQueue(dead), fanout.WithMaxAttempts(1))
	kit.Publish(t, top, 1, 2)
	require.Equal(t, []string{"first ", "second ", "last ", "first audit", "second audit", "first ", "second ", "last "}, told)
	require.Equal(t, 3, strings.Count(log.String(), "a hook panicked"))

	told = nil
	require.NoError(t, kit.Receive(t, q).Nack(t.Context()))
	_, err = dead.Purge(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"first graveyard", "second graveyard"}, told)
	require.NoError(t, top.Close())
	require.NoError(t, dead.Close())
}

func TestSeveralFiltersLetInWhatAllOfThemAccept(t *testing.T) {
	top := kit.NewTopic[int](t)
	q := kit.OpenQueue(t, top, "audit",
		fanout.WithFilter(func(i int) bool { return i%2 == 0 }), fanout.WithFilter(func(i int) bool { return i%3 == 0 }))
	kit.Publish(t, top, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12)
	require.Equal(t, []int{0, 6, 12}, kit.Bodies(t, q))
}

func TestSeveralRedriveOptionsSelectWhatAllOfThemAccept(t *testing.T) {
	ctx := t.Context()
	top := kit.NewTopic[int](t)
	q := kit.OpenQueue(t, top, "audit", fanout.WithMaxAttempts(1))
	for i := range 12 {
		require.NoError(t, top.PublishMessages(ctx, fanout.Message[int]{Body: i, ID: fmt.Sprint(i)}))
		require.NoError(t, kit.Receive(t, q).Nack(ctx))
	}
	moved, err := q.Redrive(ctx, fanout.RedriveIDs())
	require.NoError(t, err)
	require.Zero(t, moved, "no ID is none, not all")
	moved, err = q.Redrive(ctx,
		fanout.RedriveIDs("0", "2", "3"), fanout.RedriveIDs("6", "7"),
		fanout.RedriveIf(func(d fanout.Delivery[int]) bool { return d.Body%2 == 0 }),
		fanout.RedriveIf(func(d fanout.Delivery[int]) bool { return d.Body%3 == 0 }),
	)
	require.NoError(t, err)
	require.Equal(t, 2, moved)
	require.Equal(t, []int{0, 6}, kit.Bodies(t, q))
}

func TestTheLargestValuesAreNoOverflow(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		const ever = time.Duration(math.MaxInt64)
		q := kit.OpenQueue(t, top, "audit",
			fanout.WithCapacity(fanout.Unlimited), fanout.WithMaxAttempts(fanout.Unlimited), fanout.WithDeadLetterCapacity(fanout.Unlimited),
			fanout.WithVisibilityTimeout(ever), fanout.WithBackoff(fanout.Constant(ever)))
		late := kit.OpenQueue(t, top, "late", fanout.WithDelay(ever))
		time.Sleep(time.Hour) // so that now + ever is past the end of time
		kit.Publish(t, top, 1, 2)
		require.NoError(t, kit.Receive(t, q).Nack(ctx))
		d := kit.Receive(t, q)
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

func TestBackoffFuncIsAskedWithTheNumberOfAttemptsSpent(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		var asked []int
		top := kit.NewTopic[int](t)
		q, err := top.OpenQueue(ctx, "audit", fanout.WithMaxAttempts(4),
			fanout.WithBackoff(fanout.BackoffFunc(func(attempt int) time.Duration {
				asked = append(asked, attempt)
				return time.Duration(attempt) * time.Second
			})))
		require.NoError(t, err)
		kit.Publish(t, top, 1)
		began := time.Now()
		for range 3 {
			d, err := q.Receive(ctx)
			require.NoError(t, err)
			require.NoError(t, d.Nack(ctx))
			kit.RequireEmpty(t, q)
		}
		d, err := q.Receive(ctx)
		require.NoError(t, err)
		require.Equal(t, (1+2+3)*time.Second, time.Since(began))
		require.Equal(t, []int{1, 2, 3}, asked)
		require.NoError(t, d.Ack(ctx))
		require.Equal(t, []int{1, 2, 3}, asked, "an ack has no backoff")
	})
}
