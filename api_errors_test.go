package fanout_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/internal/fakeengine"
)

func TestTheMethodsOfAZeroValueSayWhatItIs(t *testing.T) {
	ctx := context.Background()
	handle := func(context.Context, fanout.Delivery[int]) error { return nil }
	handleBatch := func(context.Context, []fanout.Delivery[int]) error { return nil }
	made, err := fanout.NewTopic[int]("payments")
	require.NoError(t, err)
	defer made.Close()
	other, err := made.OpenQueue(ctx, "other")
	require.NoError(t, err)
	require.NoError(t, made.Publish(ctx, 1))
	d, err := other.Receive(ctx)
	require.NoError(t, err)

	top := func(call func(top *fanout.Topic[int]) error) error { return call(new(fanout.Topic[int])) }
	queue := func(call func(q *fanout.Queue[int]) error) error { return call(new(fanout.Queue[int])) }
	const aTopic, aQueue = "zero fanout.Topic[int]", "zero fanout.Queue[int]"
	for name, row := range map[string]struct {
		err  error
		says string
	}{
		"Publish":    {top(func(top *fanout.Topic[int]) error { return top.Publish(ctx, 1) }), aTopic},
		"TryPublish": {top(func(top *fanout.Topic[int]) error { return top.TryPublish(ctx, 1) }), aTopic},
		"Publish, no context": {top(func(top *fanout.Topic[int]) error {
			var none context.Context
			return top.Publish(none, 1)
		}), aTopic},
		"PublishMessages of none": {top(func(top *fanout.Topic[int]) error { return top.PublishMessages(ctx) }), aTopic},
		"PublishMessages":         {top(func(top *fanout.Topic[int]) error { return top.PublishMessages(ctx, fanout.Message[int]{}) }), aTopic},
		"PublishMessages that are not plain": {top(func(top *fanout.Topic[int]) error {
			return top.PublishMessages(ctx, fanout.Message[int]{DeduplicationID: "a", OrderingKey: "k", Delay: 1})
		}), aTopic},
		"TryPublishMessages": {top(func(top *fanout.Topic[int]) error { return top.TryPublishMessages(ctx, fanout.Message[int]{ID: "a"}) }), aTopic},
		"OpenQueue":          {top(func(top *fanout.Topic[int]) error { _, err := top.OpenQueue(ctx, "q"); return err }), aTopic},
		"Topic.Subscribe":    {top(func(top *fanout.Topic[int]) error { _, err := top.Subscribe(ctx, "q", handle); return err }), aTopic},
		"Topic.SubscribeBatch": {top(func(top *fanout.Topic[int]) error {
			_, err := top.SubscribeBatch(ctx, "q", handleBatch)
			return err
		}), aTopic},
		"Topic.Shutdown": {top(func(top *fanout.Topic[int]) error { return top.Shutdown(ctx) }), aTopic},
		"Topic.Close":    {top(func(top *fanout.Topic[int]) error { return top.Close() }), aTopic},

		"Receive": {queue(func(q *fanout.Queue[int]) error { _, err := q.Receive(ctx); return err }), aQueue},
		"Receive with an option": {queue(func(q *fanout.Queue[int]) error {
			_, err := q.Receive(ctx, fanout.WithVisibilityTimeout(1))
			return err
		}), aQueue},
		"TryReceive":   {queue(func(q *fanout.Queue[int]) error { _, _, err := q.TryReceive(ctx); return err }), aQueue},
		"ReceiveBatch": {queue(func(q *fanout.Queue[int]) error { _, err := q.ReceiveBatch(ctx, 2); return err }), aQueue},
		"ReceiveInto": {queue(func(q *fanout.Queue[int]) error {
			_, err := q.ReceiveInto(ctx, make([]fanout.Delivery[int], 1))
			return err
		}), aQueue},
		"Deliveries": {queue(func(q *fanout.Queue[int]) (err error) {
			n := 0
			for _, err = range q.Deliveries(ctx) {
				n++
			}
			require.Equal(t, 1, n)
			return err
		}), aQueue},
		"AckBatch of none":     {queue(func(q *fanout.Queue[int]) error { return q.AckBatch(ctx) }), aQueue},
		"AckBatch":             {queue(func(q *fanout.Queue[int]) error { return q.AckBatch(ctx, d) }), aQueue},
		"Queue.Subscribe":      {queue(func(q *fanout.Queue[int]) error { _, err := q.Subscribe(ctx, handle); return err }), aQueue},
		"Queue.SubscribeBatch": {queue(func(q *fanout.Queue[int]) error { _, err := q.SubscribeBatch(ctx, handleBatch); return err }), aQueue},
		"Peek":                 {queue(func(q *fanout.Queue[int]) error { _, err := q.Peek(ctx, 1); return err }), aQueue},
		"Redrive":              {queue(func(q *fanout.Queue[int]) error { _, err := q.Redrive(ctx); return err }), aQueue},
		"Pause":                {queue(func(q *fanout.Queue[int]) error { return q.Pause(ctx) }), aQueue},
		"Resume":               {queue(func(q *fanout.Queue[int]) error { return q.Resume(ctx) }), aQueue},
		"Purge":                {queue(func(q *fanout.Queue[int]) error { _, err := q.Purge(ctx); return err }), aQueue},
		"Depth":                {queue(func(q *fanout.Queue[int]) error { _, err := q.Depth(ctx); return err }), aQueue},
		"Delete":               {queue(func(q *fanout.Queue[int]) error { return q.Delete(ctx) }), aQueue},
		"Queue.Close":          {queue(func(q *fanout.Queue[int]) error { return q.Close() }), aQueue},

		"Subscriber.Shutdown": {new(fanout.Subscriber[int]).Shutdown(ctx), "zero fanout.Subscriber[int]"},
	} {
		t.Run(name, func(t *testing.T) {
			require.ErrorIs(t, row.err, fanout.ErrInvalidOption)
			require.ErrorContains(t, row.err, row.says)
		})
	}
	require.NoError(t, d.Ack(ctx), "it was left alone")
}

func TestWhatAHandlerOrARetentionCannotTakeIsRefusedByName(t *testing.T) {
	ctx := context.Background()
	top, err := fanout.NewTopic[int]("payments")
	require.NoError(t, err)
	defer top.Close()
	q, err := top.OpenQueue(ctx, "q")
	require.NoError(t, err)
	handle := func(context.Context, fanout.Delivery[int]) error { return nil }
	handleBatch := func(context.Context, []fanout.Delivery[int]) error { return nil }
	both := func(o fanout.WorkerOption) error {
		_, one := q.Subscribe(ctx, handle, o)
		_, other := top.Subscribe(ctx, "new", handle, o)
		if one == nil || other == nil {
			return nil
		}
		return errors.Join(one, other)
	}
	dead, err := fanout.NewDeadLetterQueue[int]("dead")
	require.NoError(t, err)
	defer dead.Close()
	open := func(o ...fanout.QueueOption) error { _, err := top.OpenQueue(ctx, "new", o...); return err }
	newTopic := func(o fanout.TopicOption) error { _, err := fanout.NewTopic[int]("t", o); return err }
	onEngine := func(o fanout.QueueOption) error {
		top, err := fanout.NewTopic[int]("t", fanout.WithEngine(
			fakeengine.New(fakeengine.Config{Without: []engine.Feature{engine.Bounded}}), fanout.Without(engine.Bounded)))
		require.NoError(t, err)
		defer top.Close()
		_, err = top.OpenQueue(ctx, "q", o)
		return err
	}
	for name, row := range map[string]struct {
		err  error
		is   error
		says string
	}{
		"a batch size":                {both(fanout.WithBatchSize(4)), fanout.ErrInvalidOption, "WithBatchSize(4): want a batch handler"},
		"a batch size in a group":     {both(fanout.WorkerOptions(fanout.WithBatchSize(1))), fanout.ErrInvalidOption, "WithBatchSize(1)"},
		"too long an extension":       {both(fanout.WithAutoExtend(fanout.MaxAutoExtend + 1)), fanout.ErrInvalidOption, "WithAutoExtend(12h0m0.000000001s): want a positive duration up to MaxAutoExtend, 12h0m0s"},
		"an endless retention":        {newTopic(fanout.WithRetention(fanout.Unlimited)), fanout.ErrInvalidOption, "WithRetention(Unlimited)"},
		"an endless replay of nought": {open(fanout.WithReplay(fanout.Unlimited)), fanout.ErrUnsupported, "WithReplay(Unlimited)"},
		"an endless shared queue": {open(fanout.WithDeadLetterQueue(dead), fanout.WithDeadLetterCapacity(fanout.Unlimited)),
			fanout.ErrInvalidOption, "WithDeadLetterCapacity(Unlimited)"},
		"an endless replay on an engine":   {onEngine(fanout.WithReplay(fanout.Unlimited)), fanout.ErrUnsupported, "WithReplay(Unlimited)"},
		"the name of a queue that is open": {func() error { _, err := top.OpenQueue(ctx, "q"); return err }(), fanout.ErrExists, `OpenQueue("q")`},
	} {
		t.Run(name, func(t *testing.T) {
			require.ErrorIs(t, row.err, row.is)
			require.ErrorContains(t, row.err, row.says)
		})
	}
	require.Len(t, top.Queues(), 1, "what is refused opens no queue")
	_, err = q.Subscribe(ctx, handle, fanout.WithAutoExtend(fanout.MaxAutoExtend))
	require.NoError(t, err)
	_, err = q.SubscribeBatch(ctx, handleBatch, fanout.WithBatchSize(4))
	require.NoError(t, err)
}

func TestANameIsTakenWhileItsQueueIsOpen(t *testing.T) {
	for where, options := range map[string][]fanout.TopicOption{
		"in memory":    nil,
		"on an engine": {fanout.WithEngine(fakeengine.New(fakeengine.Config{}))},
	} {
		t.Run(where, func(t *testing.T) {
			ctx := context.Background()
			top, err := fanout.NewTopic[int]("payments", options...)
			require.NoError(t, err)
			defer top.Close()
			handle := func(context.Context, fanout.Delivery[int]) error { return nil }
			q, err := top.OpenQueue(ctx, "q")
			require.NoError(t, err)
			_, open := top.OpenQueue(ctx, "q")
			_, subscribe := top.Subscribe(ctx, "q", handle)
			for _, err := range []error{open, subscribe} {
				require.ErrorIs(t, err, fanout.ErrExists)
				require.ErrorIs(t, err, fanout.ErrInvalidOption)
			}
			_, err = top.OpenQueue(ctx, "")
			require.NotErrorIs(t, err, fanout.ErrExists)
			require.NoError(t, q.Close())
			_, err = top.OpenQueue(ctx, "q")
			require.NoError(t, err, "the name is free again")
		})
	}
}

func TestABatchErrorNamesEachByItsIndex(t *testing.T) {
	for where, options := range map[string][]fanout.TopicOption{
		"in memory":              nil,
		"in memory, with a hook": {fanout.WithHooks(fanout.Hooks{Settled: func(fanout.Event) {}})},
		"on an engine":           {fanout.WithEngine(fakeengine.New(fakeengine.Config{}))},
	} {
		t.Run(where, func(t *testing.T) {
			ctx := context.Background()
			top, err := fanout.NewTopic[int]("payments", options...)
			require.NoError(t, err)
			defer top.Close()
			q, err := top.OpenQueue(ctx, "q")
			require.NoError(t, err)
			other, err := top.OpenQueue(ctx, "other")
			require.NoError(t, err)
			var ds []fanout.Delivery[int]
			const n = 40 // more than are looked at in one step
			for k := range n {
				require.NoError(t, top.Publish(ctx, k))
				d, err := q.Receive(ctx)
				require.NoError(t, err)
				ds = append(ds, d)
			}
			foreign, err := other.Receive(ctx)
			require.NoError(t, err)
			require.NoError(t, ds[3].Ack(ctx))
			require.NoError(t, ds[39].Nack(ctx))
			batch := append(slices.Clone(ds), foreign, ds[5], fanout.Delivery[int]{})
			err = q.AckBatch(ctx, batch...)
			var failed *fanout.BatchError
			require.ErrorAs(t, err, &failed)
			require.Equal(t, "q", failed.Queue)
			want := map[int]error{3: fanout.ErrSettled, 39: fanout.ErrSettled, 40: fanout.ErrInvalidOption, 41: fanout.ErrSettled, 42: fanout.ErrStale}
			require.ElementsMatch(t, slices.Collect(maps.Keys(want)), slices.Collect(maps.Keys(failed.Failed)))
			for k, is := range want {
				require.ErrorIs(t, failed.Failed[k], is, k)
				require.ErrorContains(t, failed.Failed[k], batch[k].ID())
				require.ErrorIs(t, err, is, "the whole unwraps to each")
				require.ErrorContains(t, err, fmt.Sprintf("%d: message %s", k, batch[k].ID()))
			}
			require.EqualValues(t, n-1, q.Stats().Acked, "all the others")
			require.NoError(t, foreign.Ack(ctx), "it was left alone")

			err = q.AckBatch(ctx, ds...) // a long list is cut
			require.ErrorAs(t, err, &failed)
			require.Len(t, failed.Failed, n)
			require.ErrorContains(t, err, "; and 30 more")
			require.Len(t, failed.Unwrap(), n)
			require.Equal(t, failed.Failed[7], failed.Unwrap()[7])
		})
	}
}

func TestAckBatchAllocatesNothingWhenAllGoesWell(t *testing.T) {
	ctx := context.Background()
	for name, option := range map[string]fanout.QueueOption{
		"leased":     fanout.WithCapacity(1000),
		"not leased": fanout.WithTimeToLive(time.Hour),
	} {
		t.Run(name, func(t *testing.T) {
			top, err := fanout.NewTopic[int]("payments")
			require.NoError(t, err)
			defer top.Close()
			q, err := top.OpenQueue(ctx, "q", option)
			require.NoError(t, err)
			const runs, size = 10, 40
			batches := make([][]fanout.Delivery[int], runs+1)
			for k := range batches {
				require.NoError(t, top.PublishMessages(ctx, make([]fanout.Message[int], size)...))
				batches[k], err = q.ReceiveBatch(ctx, size)
				require.NoError(t, err)
				require.Len(t, batches[k], size)
			}
			at := 0
			each := testing.AllocsPerRun(runs, func() {
				if err := q.AckBatch(ctx, batches[at]...); err != nil {
					t.Error(err)
				}
				at++
			})
			require.Less(t, each, 1.0)
			require.EqualValues(t, size*(runs+1), q.Stats().Acked)
		})
	}
}
