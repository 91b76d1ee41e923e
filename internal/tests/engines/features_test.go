// A topic and a queue ask of their engine only what they need, and are refused by name what it does not support.

package engines_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/internal/fakeengine"
)

func TestATopicAsksOfItsEngineWhatItKeepsOnly(t *testing.T) {
	with := func(f ...engine.Feature) fanout.TopicOption {
		return fanout.WithEngine(fakeengine.New(fakeengine.Config{
			Without: f, Most: map[engine.Feature]time.Duration{engine.Deduplication: time.Minute},
		}), fanout.Without(engine.AllOrNone))
	}
	for name, row := range map[string]struct {
		options []fanout.TopicOption
		is      error
		says    string
	}{
		"no codec":                {[]fanout.TopicOption{fanout.WithCodec(nil)}, fanout.ErrInvalidOption, "WithCodec"},
		"no engine":               {[]fanout.TopicOption{fanout.WithEngine(nil)}, fanout.ErrInvalidOption, "WithEngine"},
		"without what is no must": {[]fanout.TopicOption{fanout.WithEngine(fakeengine.New(fakeengine.Config{}), fanout.Without(engine.Durable))}, fanout.ErrInvalidOption, "outlives"},
		"unbounded, not named":    {[]fanout.TopicOption{with(engine.Bounded)}, fanout.ErrUnsupported, "bounded queues (switched off; switch it on)"},
		"no delay of a retry":     {[]fanout.TopicOption{with(engine.RetryDelay)}, fanout.ErrUnsupported, "tried without a pause"},
		"no order":                {[]fanout.TopicOption{with(engine.Ordering), fanout.WithOrdering()}, fanout.ErrUnsupported, "WithOrdering()"},
		"no deduplication":        {[]fanout.TopicOption{with(engine.Deduplication), fanout.WithDeduplication(time.Second, 1)}, fanout.ErrUnsupported, "does not support deduplication"},
		"too long a window":       {[]fanout.TopicOption{with(), fanout.WithDeduplication(time.Hour, 1)}, fanout.ErrUnsupported, "the longest deduplication is 1m0s"},
		"a retention":             {[]fanout.TopicOption{with(), fanout.WithRetention(1)}, fanout.ErrUnsupported, "topics in memory"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := fanout.NewTopic[string]("payments", row.options...)
			require.ErrorIs(t, err, row.is)
			require.ErrorContains(t, err, row.says)
		})
	}
	top, err := fanout.NewTopic[string]("payments", with(engine.AllOrNone), fanout.WithCodec(fanout.JSON))
	require.NoError(t, err)
	require.NoError(t, top.Close())
}

func TestAQueueAsksOfItsEngineWhatItKeepsOnly(t *testing.T) {
	e := fakeengine.New(fakeengine.Config{Without: []engine.Feature{engine.Bounded}, Most: map[engine.Feature]time.Duration{
		engine.Visibility: time.Minute, engine.QueueDelay: time.Minute, engine.MessageDelay: time.Minute,
	}})
	top, err := fanout.NewTopic[string]("payments", fanout.WithEngine(e, fanout.Without(engine.Bounded)))
	require.NoError(t, err)
	dead, err := fanout.NewDeadLetterQueue[string]("graveyard")
	require.NoError(t, err)
	for name, option := range map[string]fanout.QueueOption{
		"WithCapacity(10)":              fanout.WithCapacity(10),
		"WithOverflow(":                 fanout.WithOverflow(fanout.Reject),
		"no engine drops; let Block":    fanout.WithOverflow(fanout.DropOldest),
		"WithDeadLetterCapacity(10)":    fanout.WithDeadLetterCapacity(10),
		"WithDeadLetterOverflow(":       fanout.WithDeadLetterOverflow(fanout.DropOldest),
		"WithDeadLetterQueue on engine": fanout.WithDeadLetterQueue(dead),
		"WithVisibilityTimeout(1h0m0s)": fanout.WithVisibilityTimeout(time.Hour),
		"WithDelay(1h0m0s)":             fanout.WithDelay(time.Hour),
		"WithReplay(3)":                 fanout.WithReplay(3),
	} {
		_, err := top.OpenQueue(t.Context(), "q", option)
		require.ErrorIs(t, err, fanout.ErrUnsupported, name)
		require.ErrorContains(t, err, name)
	}
	require.Zero(t, e.Calls(fakeengine.OpenTopic), "the engine was asked")

	q := engineQueue(t, top)
	_, err = q.Receive(t.Context(), fanout.WithVisibilityTimeout(time.Hour))
	require.ErrorIs(t, err, fanout.ErrUnsupported)
	_, err = top.OpenQueue(t.Context(), "q")
	require.ErrorIs(t, err, fanout.ErrInvalidOption)
	_, err = q.Peek(t.Context(), 1)
	require.ErrorIs(t, err, fanout.ErrUnsupported)
	require.NoError(t, top.TryPublish(t.Context(), "there is always room"))
	err = top.PublishMessages(t.Context(), fanout.Message[string]{Delay: time.Hour})
	require.ErrorIs(t, err, fanout.ErrUnsupported)
	require.ErrorContains(t, err, "message 0")
	d := next(t, q)
	require.ErrorIs(t, d.Extend(t.Context(), time.Hour), fanout.ErrUnsupported)
	require.NoError(t, d.Ack(t.Context()))
	endTopic(t, top)
	require.NoError(t, dead.Close())
}

func TestWhatNobodyAsksForNeedsNotBeKept(t *testing.T) {
	most := fakeengine.New(fakeengine.Config{})
	top := onEngine(t, most)
	for name, option := range map[string]fanout.QueueOption{"blocks": fanout.WithOverflow(fanout.Block), "rejects": fanout.WithOverflow(fanout.Reject)} {
		_, err := top.OpenQueue(t.Context(), name, option)
		require.NoError(t, err)
	}
	endTopic(t, top)
	var without []engine.Feature
	for _, f := range engine.Features() {
		if f != engine.RetryDelay {
			without = append(without, f)
		}
	}
	least := fakeengine.New(fakeengine.Config{Without: without})
	little := fanout.WithEngine(least, fanout.Without(engine.Bounded, engine.AllOrNone))
	top, err := fanout.NewTopic[string]("payments", little)
	require.NoError(t, err)
	require.NoError(t, top.Close())
	_, err = top.OpenQueue(t.Context(), "q")
	require.ErrorIs(t, err, fanout.ErrClosed)
	require.Zero(t, least.Calls(fakeengine.OpenTopic), "nothing is opened for a topic that is closed")
	top, err = fanout.NewTopic[string]("payments", little)
	require.NoError(t, err)
	q := engineQueue(t, top)
	require.NoError(t, top.Publish(t.Context(), "a"))
	require.NoError(t, next(t, q).Ack(t.Context()))
	endTopic(t, top)
}

func TestAnEngineThatKeepsNoVisibilityHasItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := fakeengine.New(fakeengine.Config{Without: []engine.Feature{engine.Visibility}})
		top := onEngine(t, e)
		q := engineQueue(t, top)
		require.NoError(t, top.Publish(t.Context(), "a"))
		d := next(t, q)
		require.ErrorIs(t, d.Extend(t.Context(), time.Hour), fanout.ErrUnsupported)
		require.NoError(t, d.Extend(t.Context(), time.Second), "it has that long already")
		require.NoError(t, d.Ack(t.Context()))
		endTopic(t, top)
	})
}
