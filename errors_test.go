// Errors are the documented sentinels, name what they are about, and tell what is left.

package fanout_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/internal/fakeengine"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/tests/kit"
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

var errNoOrder = errors.New("no such order")

// A codeError is an error with something to ask for by errors.As.
type codeError struct{ code int }

func (e *codeError) Error() string { return fmt.Sprintf("code %d", e.code) }

func sentinels() []error {
	return []error{
		fanout.ErrClosed, fanout.ErrQueueFull, fanout.ErrBatchTooLarge, fanout.ErrInvalidMessage,
		fanout.ErrStale, fanout.ErrSettled, fanout.ErrInvalidOption, fanout.ErrUnsupported,
	}
}

func TestEverySentinelIsItselfAndNoOther(t *testing.T) {
	texts := map[string]bool{}
	for i, a := range sentinels() {
		require.True(t, strings.HasPrefix(a.Error(), "fanout: "), "%v", a)
		require.False(t, texts[a.Error()], "%v is said by two", a)
		texts[a.Error()] = true
		for j, b := range sentinels() {
			require.Equal(t, i == j, errors.Is(a, b), "%v is %v", a, b)
			require.Equal(t, i == j, errors.Is(fmt.Errorf("publish: %w", a), b), "%v is %v", a, b)
		}
		require.NotErrorIs(t, a, context.Canceled)
		require.NotErrorIs(t, a, context.DeadlineExceeded)
	}
}

func TestOperationsReturnTheSentinelThatIsDocumentedAndNoOther(t *testing.T) {
	for _, row := range []struct {
		name string
		want error
		do   func(s *stage) error
	}{
		{"publish to a closed topic", fanout.ErrClosed, func(s *stage) error {
			return errors.Join(s.top.Close(), s.top.Publish(s.ctx, 1))
		}},
		{"open in a closed topic", fanout.ErrClosed, func(s *stage) error {
			_, err := openClosed(s)
			return err
		}},
		{"receive from a closed queue", fanout.ErrClosed, func(s *stage) error {
			_, err := s.closedQueue().Receive(s.ctx)
			return err
		}},
		{"try to receive from a closed queue", fanout.ErrClosed, func(s *stage) error {
			_, _, err := s.closedQueue().TryReceive(s.ctx)
			return err
		}},
		{"receive a batch from a closed queue", fanout.ErrClosed, func(s *stage) error {
			_, err := s.closedQueue().ReceiveBatch(s.ctx, 1)
			return err
		}},
		{"receive from a closed queue into a slice", fanout.ErrClosed, func(s *stage) error {
			_, err := s.closedQueue().ReceiveInto(s.ctx, make([]fanout.Delivery[int], 1))
			return err
		}},
		{"subscribe to a closed queue", fanout.ErrClosed, func(s *stage) error {
			_, err := s.closedQueue().Subscribe(s.ctx, kit.HandleNothing)
			return err
		}},
		{"redrive to a closed queue", fanout.ErrClosed, func(s *stage) error {
			_, err := s.closedQueue().Redrive(s.ctx)
			return err
		}},
		{"settle in a closed queue", fanout.ErrClosed, func(s *stage) error {
			s.closedQueue()
			return s.d.Ack(s.ctx)
		}},
		{"extend in a closed queue", fanout.ErrClosed, func(s *stage) error {
			s.closedQueue()
			return s.d.Extend(s.ctx, time.Minute)
		}},
		{"publish where a queue rejects", fanout.ErrQueueFull, func(s *stage) error {
			_, err := s.top.OpenQueue(s.ctx, "small", fanout.WithCapacity(1), fanout.WithOverflow(fanout.Reject))
			return errors.Join(err, s.top.Publish(s.ctx, 1), s.top.Publish(s.ctx, 2))
		}},
		{"try to publish where it would wait", fanout.ErrQueueFull, func(s *stage) error {
			_, err := s.top.OpenQueue(s.ctx, "small", fanout.WithCapacity(1))
			return errors.Join(err, s.top.Publish(s.ctx, 1), s.top.TryPublish(s.ctx, 2))
		}},
		{"publish a batch above a capacity", fanout.ErrBatchTooLarge, func(s *stage) error {
			_, err := s.top.OpenQueue(s.ctx, "small", fanout.WithCapacity(1))
			return errors.Join(err, s.top.PublishMessages(s.ctx, make([]fanout.Message[int], 2)...))
		}},
		{"publish a negative delay", fanout.ErrInvalidMessage, func(s *stage) error {
			return s.top.PublishMessages(s.ctx, fanout.Message[int]{Delay: -1})
		}},
		{"settle twice", fanout.ErrSettled, func(s *stage) error {
			return errors.Join(s.d.Ack(s.ctx), s.d.Nack(s.ctx))
		}},
		{"extend what is settled", fanout.ErrSettled, func(s *stage) error {
			return errors.Join(s.d.Nack(s.ctx), s.d.Extend(s.ctx, time.Minute))
		}},
		{"settle too late", fanout.ErrStale, func(s *stage) error {
			time.Sleep(time.Minute)
			return s.d.Ack(s.ctx)
		}},
		{"extend too late", fanout.ErrStale, func(s *stage) error {
			time.Sleep(time.Minute)
			return s.d.Extend(s.ctx, time.Minute)
		}},
		{"settle what was peeked at", fanout.ErrStale, func(s *stage) error {
			ds, err := s.q.Peek(s.ctx, 1)
			return errors.Join(err, ds[0].Ack(s.ctx))
		}},
		{"settle the zero delivery", fanout.ErrStale, func(s *stage) error { return fanout.Delivery[int]{}.Ack(s.ctx) }},
		{"extend the zero delivery", fanout.ErrStale, func(s *stage) error { return fanout.Delivery[int]{}.Extend(s.ctx, 1) }},
		{"redrive a dead-letter queue", fanout.ErrUnsupported, func(s *stage) error {
			_, err := s.q.DeadLetters().Redrive(s.ctx)
			return err
		}},
		{"close a dead-letter queue", fanout.ErrUnsupported, func(s *stage) error { return s.q.DeadLetters().Close() }},
		{"open without a name", fanout.ErrInvalidOption, func(s *stage) error {
			_, err := s.top.OpenQueue(s.ctx, "")
			return err
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			kit.Bubble(t, func(t *testing.T, ctx context.Context) {
				s := newStage(t)
				err := row.do(s)
				require.Error(t, err)
				for _, e := range sentinels() {
					require.Equal(t, e == row.want, errors.Is(err, e), "%v is %v", err, e)
				}
			})
		})
	}
}

func openClosed(s *stage) (*fanout.Queue[int], error) {
	if err := s.top.Close(); err != nil {
		return nil, err
	}
	return s.top.OpenQueue(s.ctx, "other")
}

func (s *stage) closedQueue() *fanout.Queue[int] {
	if err := s.q.Close(); err != nil {
		panic(err)
	}
	return s.q
}

func TestErrorsNameTheTopicOrTheQueue(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "audit", fanout.WithCapacity(1))
		require.EqualError(t, top.PublishMessages(ctx, make([]fanout.Message[int], 2)...),
			`fanout: publish to "payments": fanout: batch too large: 2 messages for queue "audit", which has a capacity of 1`)
		kit.Publish(t, top, 1)
		require.EqualError(t, top.TryPublish(ctx, 2),
			`fanout: publish to "payments": fanout: queue full: queue "audit"`)
		d := kit.Receive(t, q)
		require.NoError(t, d.Ack(ctx))
		require.EqualError(t, d.Ack(ctx), `fanout: delivery already settled: queue "audit"`)
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		_, err := q.Receive(short)
		require.EqualError(t, err, `fanout: receive from "audit": context deadline exceeded`)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.EqualError(t, q.DeadLetters().Close(),
			`fanout: unsupported: closing the dead-letter queue "audit/dead": close "audit" first`)
		require.NoError(t, top.Close())
		require.EqualError(t, top.Publish(ctx, 3), `fanout: publish to "payments": fanout: closed`)
		_, err = top.OpenQueue(ctx, "late")
		require.EqualError(t, err, `fanout: open queue "late" of topic "payments": fanout: closed`)
	})
}

func TestTheZeroDeliveryHasNothingToTell(t *testing.T) {
	var d fanout.Delivery[int]
	require.Empty(t, d.ID())
	require.Empty(t, d.Queue())
	require.Zero(t, d.Attempt())
	require.True(t, d.PublishedAt().IsZero())
	require.True(t, d.Deadline().IsZero())
	require.Nil(t, d.History())
	require.Nil(t, d.Attributes())
	_, ok := d.Attribute("region")
	require.False(t, ok)
}

// --- what ends up in a text ---

func TestAShutdownErrorTellsWhatIsLeftWhereAndWhy(t *testing.T) {
	all := fanout.Left{
		Queue: "audit", Ready: 1, Retrying: 2, Delayed: 3, InFlight: 4, Parked: 5, Released: 6, Running: 7,
	}
	for _, row := range []struct {
		err  *fanout.ShutdownError
		want string
	}{
		{
			&fanout.ShutdownError{Topic: "payments", Queues: []fanout.Left{{Queue: "audit", Ready: 2}}},
			`fanout: shutdown of topic "payments" left queue "audit": 2 ready`,
		},
		{
			&fanout.ShutdownError{
				Topic: "payments", Err: context.DeadlineExceeded,
				Queues: []fanout.Left{{Queue: "audit", Ready: 2, Running: 1}, {Queue: "inventory", Parked: 3}},
			},
			`fanout: shutdown of topic "payments" left queue "audit": 2 ready, 1 handler running; ` +
				`queue "inventory": 3 parked: context deadline exceeded`,
		},
		{
			&fanout.ShutdownError{Topic: "payments", Queues: []fanout.Left{all}},
			`fanout: shutdown of topic "payments" left queue "audit": 1 ready, 2 retrying, 3 delayed, ` +
				`4 in flight, 5 parked, 6 released, 7 handlers running`,
		},
	} {
		require.EqualError(t, row.err, row.want)
	}
	require.Equal(t, `queue "audit":`, fanout.Left{Queue: "audit"}.String())
}

func TestAShutdownErrorUnwrapsToWhyTheWaitEnded(t *testing.T) {
	var err error = &fanout.ShutdownError{Topic: "payments", Err: context.Canceled}
	require.ErrorIs(t, err, context.Canceled)
	require.NotErrorIs(t, err, context.DeadlineExceeded)

	err = fmt.Errorf("main: %w", &fanout.ShutdownError{Topic: "payments"})
	require.NotErrorIs(t, err, context.Canceled)
	var left *fanout.ShutdownError
	require.ErrorAs(t, err, &left)
	require.Equal(t, "payments", left.Topic)
	require.NoError(t, left.Unwrap())
}

func TestShutdownReturnsAShutdownErrorInTheOrderOfTheQueuesNames(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		kit.OpenQueue(t, top, "late", fanout.WithDelay(time.Hour))
		kit.OpenQueue(t, top, "audit")
		kit.OpenQueue(t, top, "none", fanout.WithFilter(func(int) bool { return false }))
		kit.Publish(t, top, 1, 2)
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		err := top.Shutdown(short)
		require.EqualError(t, err, `fanout: shutdown of topic "payments" left queue "audit": 2 ready; `+
			`queue "late": 2 delayed: context deadline exceeded`)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, err, top.Shutdown(ctx), "the same again")
	})
}

func TestAShutdownErrorHasNoReasonIfOnlyTheDelayedAreLeft(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		kit.OpenQueue(t, top, "late", fanout.WithDelay(time.Hour))
		kit.Publish(t, top, 1)
		err := top.Shutdown(ctx)
		var left *fanout.ShutdownError
		require.ErrorAs(t, err, &left)
		require.Equal(t, []fanout.Left{{Queue: "late", Delayed: 1}}, left.Queues)
		require.NoError(t, left.Err)
	})
}

func TestAnAttemptTellsItselfInOneLine(t *testing.T) {
	for _, row := range []struct {
		attempt fanout.Attempt
		want    string
	}{
		{fanout.Attempt{Number: 1, Cause: fanout.TimedOut, Elapsed: 30 * time.Second}, "attempt 1: timed out after 30s"},
		{fanout.Attempt{Number: 2, Cause: fanout.Failed, Elapsed: 1234567, Err: errNoOrder}, "attempt 2: failed after 1.235ms: no such order"},
		{fanout.Attempt{Number: 3, Cause: fanout.Panicked, Err: errNoOrder, Stack: "goroutine 1"}, "attempt 3: panicked after 0s: no such order"},
	} {
		require.Equal(t, row.want, row.attempt.String())
	}
}

func TestEveryCauseHasANameOfItsOwn(t *testing.T) {
	want := map[fanout.Cause]string{
		0: "none", fanout.Acked: "acked", fanout.Failed: "failed", fanout.Panicked: "panicked", fanout.Exited: "exited",
		fanout.TimedOut: "timed out", fanout.Nacked: "nacked", fanout.PermanentlyFailed: "permanent", fanout.Expired: "expired",
		fanout.Snoozed: "snoozed", fanout.Released: "released",
	}
	require.Len(t, want, message.Causes)
	for c, name := range want {
		require.Equal(t, name, c.String())
	}
	require.Equal(t, "Cause(11)", fanout.Cause(len(want)).String())
	require.Equal(t, "Cause(255)", fanout.Cause(255).String())
}

func TestEveryOverflowHasTheNameOfItsConstant(t *testing.T) {
	require.Equal(t, "Block", fanout.Block.String())
	require.Equal(t, "Reject", fanout.Reject.String())
	require.Equal(t, "DropOldest", fanout.DropOldest.String())
	require.Equal(t, "DropNewest", fanout.DropNewest.String())
	require.Equal(t, "Overflow(0)", fanout.Overflow(0).String())
	require.Equal(t, "Overflow(5)", (fanout.DropNewest + 1).String())
}

func TestEveryDropReasonHasAName(t *testing.T) {
	require.Equal(t, "drop oldest", fanout.DroppedOldest.String())
	require.Equal(t, "drop newest", fanout.DroppedNewest.String())
	require.Equal(t, "close", fanout.DroppedByClose.String())
	require.Equal(t, "none", fanout.DropReason(0).String())
	require.Equal(t, "purge", fanout.DroppedByPurge.String())
	require.Equal(t, "delete", fanout.DroppedByDelete.String())
	require.Equal(t, "DropReason(6)", (fanout.DroppedByDelete + 1).String())
}

// --- outcomes ---

func TestAnOutcomeOfNoErrorIsNone(t *testing.T) {
	require.NoError(t, fanout.Permanent(nil))
	require.NoError(t, fanout.RetryAfter(nil, time.Minute))
	require.Error(t, fanout.Snooze(0), "a snooze needs no error")
}

func TestAnOutcomeWrapsItsError(t *testing.T) {
	inner := fmt.Errorf("reserve: %w", errors.Join(errNoOrder, &codeError{404}))
	for _, err := range []error{
		fanout.Permanent(inner),
		fanout.RetryAfter(inner, time.Minute),
		fmt.Errorf("handler: %w", fanout.Permanent(inner)),
		errors.Join(kit.ErrBusy, fanout.RetryAfter(inner, time.Minute)),
		fanout.Permanent(fanout.RetryAfter(inner, time.Minute)),
	} {
		require.ErrorIs(t, err, errNoOrder)
		var code *codeError
		require.ErrorAs(t, err, &code)
		require.Equal(t, 404, code.code)
		require.NotErrorIs(t, err, fanout.ErrClosed)
	}
	require.NoError(t, errors.Unwrap(fanout.Snooze(time.Minute)))
}

func TestAnOutcomeSaysWhatItIs(t *testing.T) {
	require.EqualError(t, fanout.Permanent(errNoOrder), "no such order")
	require.EqualError(t, fanout.RetryAfter(errNoOrder, time.Minute), "no such order")
	require.EqualError(t, fanout.Snooze(time.Minute), "fanout: snooze for 1m0s")
	require.EqualError(t, fanout.Snooze(-1), "fanout: snooze for 1ms")
}

func TestWhatAHandlerReturnsStaysInTheHistoryAsItWas(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "audit")
		kit.Publish(t, top, 1)
		for _, err := range []error{
			fmt.Errorf("reserve: %w", fanout.RetryAfter(&codeError{503}, time.Second)),
			fmt.Errorf("not yet: %w", fanout.Snooze(time.Second)),
			fmt.Errorf("reserve: %w", fanout.Permanent(&codeError{404})),
		} {
			d, rerr := q.Receive(ctx)
			require.NoError(t, rerr)
			require.NoError(t, d.Settle(ctx, err))
		}
		h := kit.Receive(t, q.DeadLetters()).History()
		require.Len(t, h, 3)
		var code *codeError
		require.ErrorAs(t, h[0].Err, &code)
		require.Equal(t, 503, code.code)
		require.EqualError(t, h[0].Err, "reserve: code 503")
		require.Equal(t, fanout.Snoozed, h[1].Cause)
		require.NoError(t, h[1].Err, "a snooze is no failure")
		require.ErrorAs(t, h[2].Err, &code)
		require.Equal(t, 404, code.code)
		require.EqualError(t, h[2].Err, "reserve: code 404")
	})
}

// --- history ---

func TestHistoryReturnsACopy(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "audit")
		kit.Publish(t, top, 1)
		require.NoError(t, kit.Receive(t, q).Settle(ctx, fanout.RetryAfter(kit.ErrBusy, time.Second)))
		d, err := q.Receive(ctx)
		require.NoError(t, err)
		d.History()[0].Err = nil
		require.Equal(t, 1, d.History()[0].Number)
		require.ErrorIs(t, d.History()[0].Err, kit.ErrBusy)
	})
}

func TestAttributesAreCopiedOnTheWayInAndOut(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "audit")
		attributes := map[string]string{"region": "eu"}
		require.NoError(t, top.PublishMessages(ctx, fanout.Message[int]{Attributes: attributes}))
		attributes["region"] = "us"
		d := kit.Receive(t, q)
		d.Attributes()["region"] = "us"
		require.Equal(t, map[string]string{"region": "eu"}, d.Attributes())
		require.NoError(t, d.Ack(ctx))
	})
}

func TestTheNumbersOfAHistoryGoOnThroughSnoozesAndRedrives(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "audit", fanout.WithMaxAttempts(1))
		kit.Publish(t, top, 1)
		require.NoError(t, kit.Receive(t, q).Settle(ctx, fanout.Snooze(time.Second)))
		d, err := q.Receive(ctx)
		require.NoError(t, err)
		require.NoError(t, d.Settle(ctx, kit.ErrBusy))
		moved, err := q.Redrive(ctx)
		require.NoError(t, err)
		require.Equal(t, 1, moved)
		d = kit.Receive(t, q)
		require.Equal(t, 1, d.Attempt(), "counted anew")
		require.NoError(t, d.Nack(ctx))

		h := kit.Receive(t, q.DeadLetters()).History()
		require.Len(t, h, 3)
		for i, cause := range []fanout.Cause{fanout.Snoozed, fanout.Failed, fanout.Nacked} {
			require.Equal(t, i+1, h[i].Number)
			require.Equal(t, cause, h[i].Cause)
			require.Equal(t, "audit", h[i].Queue)
		}
	})
}

func TestPeekAndRedriveWantAContextThatGoesOn(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		s := newStage(t)
		ended, end := context.WithCancelCause(ctx)
		end(kit.ErrBusy)
		_, err := s.q.Peek(kit.NoContext, 1)
		require.ErrorIs(t, err, fanout.ErrInvalidOption)
		_, err = s.q.Peek(ended, 1)
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, err, kit.ErrBusy)
		require.ErrorContains(t, err, `"audit"`)
		_, err = s.q.Redrive(kit.NoContext)
		require.ErrorIs(t, err, fanout.ErrInvalidOption)
		_, err = s.q.Redrive(ended)
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, err, kit.ErrBusy)
		require.ErrorContains(t, err, `"audit"`)
		require.Equal(t, 1, s.q.DeadLetters().Stats().Ready)
		s.top.Close()
	})
}

func TestAMissingContextIsRefused(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "q")
		s := kit.Subscribe(t, top, "push", kit.HandleNothing)
		yielded := 0
		for name, err := range map[string]error{
			"OpenQueue":           second(top.OpenQueue(kit.NoContext, "other")),
			"Topic.Subscribe":     second(top.Subscribe(kit.NoContext, "other", kit.HandleNothing)),
			"Queue.Subscribe":     second(q.Subscribe(kit.NoContext, kit.HandleNothing)),
			"Publish":             top.Publish(kit.NoContext, 1),
			"Receive":             second(q.Receive(kit.NoContext)),
			"ReceiveBatch":        second(q.ReceiveBatch(kit.NoContext, 1)),
			"ReceiveInto":         second(q.ReceiveInto(kit.NoContext, make([]fanout.Delivery[int], 1))),
			"Shutdown":            top.Shutdown(kit.NoContext),
			"Subscriber.Shutdown": s.Shutdown(kit.NoContext),
			"Deliveries": func() (err error) {
				for _, err = range q.Deliveries(kit.NoContext) {
					yielded++
				}
				return err
			}(),
		} {
			require.ErrorIs(t, err, fanout.ErrInvalidOption, name)
			require.ErrorIs(t, err, fanout.ErrNilContext, name)
		}
		require.Equal(t, 1, yielded)
		require.Len(t, top.Queues(), 2)
		kit.Publish(t, top, 1)
		require.NoError(t, kit.Receive(t, q).Ack(ctx), "the topic is open still")
		top.Close()
	})
}

func second[A, B any](_ A, b B) B { return b }
