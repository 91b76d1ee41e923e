package fanout_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/internal/fakeengine"
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
