// What a queue on an engine holds is told as in memory, or is said to be unknown.

package engines_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/internal/fakeengine"
)

// TestDepthIsOneTypeInMemoryAndOnEngines: what waits for an instant is delayed in memory;
// an engine may call what was delivered before in flight.
func TestDepthIsOneTypeInMemoryAndOnEngines(t *testing.T) {
	for _, row := range []struct {
		name string
		on   []fanout.TopicOption
		want fanout.Depth
	}{
		{"memory", nil, fanout.Depth{Queue: "q", Ready: 1, Delayed: 2, InFlight: 1, Dead: 1, OldestAge: time.Second}},
		{"engine", []fanout.TopicOption{fanout.WithEngine(fakeengine.New(fakeengine.Config{}))},
			fanout.Depth{Queue: "q", Ready: 1, Delayed: 1, InFlight: 2, Dead: 1, OldestAge: time.Second}},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				top, err := fanout.NewTopic[string]("orders", row.on...)
				require.NoError(t, err)
				q, err := top.OpenQueue(t.Context(), "q", fanout.WithBackoff(fanout.Constant(time.Hour)))
				require.NoError(t, err)
				require.NoError(t, top.PublishMessages(t.Context(), fanout.Message[string]{Body: "dies"}, fanout.Message[string]{Body: "fails"},
					fanout.Message[string]{Body: "is worked on"}, fanout.Message[string]{Body: "waits"}, fanout.Message[string]{Body: "is delayed", Delay: time.Hour}))
				require.NoError(t, next(t, q).Settle(t.Context(), fanout.Permanent(errBroken)))
				require.NoError(t, next(t, q).Nack(t.Context()))
				next(t, q)
				time.Sleep(time.Second)
				d, err := q.Depth(t.Context())
				require.NoError(t, err)
				require.Equal(t, row.want, d)
				require.Equal(t, 4, d.Unsettled())
				dead, err := q.DeadLetters().Depth(t.Context())
				require.NoError(t, err)
				require.Equal(t, fanout.Depth{Queue: "q/dead", Ready: 1, OldestAge: time.Second}, dead)
				all, err := top.ListQueues(t.Context())
				require.NoError(t, err)
				require.Equal(t, []fanout.Depth{row.want}, all)
				require.NoError(t, top.Close())
				<-top.Done()
			})
		})
	}
}

// A vagueEngine can't tell some of its numbers.
type vagueEngine struct {
	*fakeengine.Engine
	blur func(*engine.Stats)
}

type vagueTopic struct {
	engine.Topic
	blur func(*engine.Stats)
}

type vagueQueue struct {
	engine.Queue
	blur func(*engine.Stats)
}

func (e vagueEngine) OpenTopic(ctx context.Context, spec engine.TopicSpec) (engine.Topic, error) {
	t, err := e.Engine.OpenTopic(ctx, spec)
	return vagueTopic{t, e.blur}, err
}

func (t vagueTopic) OpenQueue(ctx context.Context, spec engine.QueueSpec) (engine.Queue, error) {
	q, err := t.Topic.OpenQueue(ctx, spec)
	return vagueQueue{q, t.blur}, err
}

func (q vagueQueue) DeadLetters() engine.Queue { return vagueQueue{q.Queue.DeadLetters(), q.blur} }

func (q vagueQueue) Stats(ctx context.Context) (engine.Stats, error) {
	s, err := q.Queue.Stats(ctx)
	q.blur(&s)
	return s, err
}

func TestWhatAnEngineCannotTellIsUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := vagueEngine{fakeengine.New(fakeengine.Config{}), func(s *engine.Stats) { s.Ready, s.OldestAge = engine.Unknown, engine.Unknown }}
		top, err := fanout.NewTopic[string]("orders", fanout.WithEngine(e))
		require.NoError(t, err)
		q := engineQueue(t, top)
		require.NoError(t, top.Publish(t.Context(), "a"))
		require.NoError(t, next(t, q).Settle(t.Context(), fanout.Permanent(errBroken)))
		d, err := q.Depth(t.Context())
		require.NoError(t, err)
		require.Equal(t, fanout.Depth{Queue: q.Name(), Ready: fanout.Unknown, Dead: fanout.Unknown, OldestAge: fanout.Unknown}, d)
		require.Equal(t, fanout.Unknown, d.Unsettled())
		require.Contains(t, d.String(), ": unknown ready, 0 delayed, 0 in flight, unknown dead, oldest unknown")
		// A redrive takes the engine's silence for the end.
		moved, err := q.Redrive(t.Context())
		require.NoError(t, err)
		require.Equal(t, 1, moved)
		// One unknown and one in flight are no empty queue.
		next(t, q)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		var left *fanout.ShutdownError
		require.ErrorAs(t, top.Shutdown(ctx), &left)
		require.ErrorIs(t, left, context.DeadlineExceeded)
		// Wrapped, the topic can't list, though the engine says so.
		top, err = fanout.NewTopic[string]("orders", fanout.WithEngine(e))
		require.NoError(t, err)
		_, err = top.ListQueues(t.Context())
		require.ErrorIs(t, err, fanout.ErrUnsupported)
		require.ErrorContains(t, err, "engine.Lister")
		require.NoError(t, top.Close())
	})
}

func TestQueuesThatNobodyOpensAreListedOnAnEngine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := fakeengine.New(fakeengine.Config{})
		old := onEngine(t, e)
		_, err := old.OpenQueue(t.Context(), "forgotten")
		require.NoError(t, err)
		endTopic(t, old)
		top, err := fanout.NewTopic[string](old.Name(), fanout.WithEngine(e.Sibling()))
		require.NoError(t, err)
		require.NoError(t, top.Publish(t.Context(), "a"))
		all, err := top.ListQueues(t.Context())
		require.NoError(t, err)
		require.Equal(t, []fanout.Depth{{Queue: "forgotten", Ready: 1}}, all)
		endTopic(t, top)
		_, err = top.ListQueues(t.Context())
		require.ErrorIs(t, err, fanout.ErrClosed)
	})
}

func TestListQueuesReturnsTheEnginesErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := fakeengine.New(fakeengine.Config{})
		top := onEngine(t, e)
		e.Inject(fakeengine.Fault{Op: fakeengine.OpenTopic, Nth: 1, Err: errBroken})
		_, err := top.ListQueues(t.Context())
		require.ErrorIs(t, err, errBroken)
		e.Inject(fakeengine.Fault{Op: fakeengine.ListQueues, Nth: 1, Err: errBroken})
		_, err = top.ListQueues(t.Context())
		require.ErrorIs(t, err, errBroken)
		require.ErrorContains(t, err, top.Name())
		_, err = new(fanout.Topic[string]).ListQueues(t.Context())
		require.ErrorIs(t, err, fanout.ErrInvalidOption)
		without := fakeengine.New(fakeengine.Config{Without: []engine.Feature{engine.Listing}})
		_, err = onEngine(t, without).ListQueues(t.Context())
		require.ErrorIs(t, err, fanout.ErrUnsupported)
		endTopic(t, top)
	})
}
