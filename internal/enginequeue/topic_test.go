package enginequeue

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/internal/fakeengine"
	"github.com/gofanout/fanout/internal/filter"
	"github.com/gofanout/fanout/internal/lifecycle"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/policy"
	"github.com/gofanout/fanout/internal/settings"
	"github.com/gofanout/fanout/internal/view"
)

func TestAPublishReachesTheEngineWithAllThatTheMessageHas(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHost(t, fakeengine.New(fakeengine.Config{}), func(s *settings.Topic) { s.Ordering, s.DedupWindow, s.DedupMax = true, time.Minute, 10 })
		q := h.open(t)
		ext := &message.Extra{ID: "mine", Attributes: map[string]string{"a": "1"}, Key: "k", Dedup: "d", Delay: time.Minute, TTL: time.Hour}
		require.NoError(t, h.on.Publish(ctx, []message.Item[string]{{Body: "plain"}, {Body: "full", Ext: ext}}, false))
		require.Equal(t, []string{"plain", "full"}, h.told)
		require.EqualValues(t, 2, h.on.Published.Load())
		d := receive(t, q)
		require.Equal(t, "plain", d.Body)
		require.NotEmpty(t, d.ID())
		require.NoError(t, d.Ack(ctx))
		began := time.Now()
		d = receive(t, q)
		require.Equal(t, time.Minute, time.Since(began), "its delay")
		require.Equal(t, []string{"full", "mine", "k"}, []string{d.Body, d.ID(), d.OrderingKey()})
		require.Equal(t, ext.Attributes, d.Attributes())
		require.True(t, began.Equal(d.PublishedAt()))
		require.Equal(t, `"full"`, string(d.Encoded()))
		require.NoError(t, d.Ack(ctx))
		require.NoError(t, h.on.Publish(ctx, []message.Item[string]{{Body: "again", Ext: ext}}, false))
		messages, _ := engineStats(t, h)
		require.Equal(t, 1, messages.Delayed, "a minute has passed: it is no duplicate any more")
		h.end(t)
	})
}

// engineStats asks the topic's own engine.
func engineStats(t *testing.T, h *host) (messages, letters engine.Stats) {
	t.Helper()
	infos, err := h.on.List(t.Context())
	require.NoError(t, err)
	require.Len(t, infos, 1)
	return infos[0].Stats, infos[0].Letters
}

func TestAPublishThatTheEngineDoesNotTakeIsAnError(t *testing.T) {
	one := func(body string) []message.Item[string] { return []message.Item[string]{{Body: body}} }
	bubble(t, func(t *testing.T, ctx context.Context) {
		e := fakeengine.New(fakeengine.Config{Without: []engine.Feature{engine.MessageDelay, engine.AllOrNone}, MaxBody: 40, FullFails: true})
		h := newHost(t, e, broken)
		require.ErrorIs(t, h.on.Publish(ctx, one("a"), true), message.ErrUnsupported, "it may have to wait for room")
		require.NoError(t, h.on.Publish(ctx, nil, false))
		require.Zero(t, e.Calls(fakeengine.OpenTopic), "nothing is no publish")

		err := h.on.Publish(ctx, []message.Item[string]{{Body: "a"}, {Body: "not encodable"}}, false)
		require.ErrorIs(t, err, errBroken)
		require.ErrorIs(t, err, message.ErrInvalidMessage)
		require.ErrorContains(t, err, "message 1: ")
		err = h.on.Publish(ctx, one("encoding panics"), false)
		require.ErrorIs(t, err, message.ErrInvalidMessage)
		require.ErrorContains(t, err, "boom")
		err = h.on.Publish(ctx, []message.Item[string]{{Body: "a", Ext: &message.Extra{Delay: time.Second}}}, false)
		require.ErrorIs(t, err, message.ErrUnsupported)
		require.ErrorContains(t, err, "a Delay of 1s")
		require.Zero(t, e.Calls(fakeengine.Publish))
		require.NoError(t, h.on.Publish(ctx, []message.Item[string]{{Body: "a", Ext: &message.Extra{ID: "mine"}}}, false), "it asks for no delay")
		require.Equal(t, []string{"a"}, h.told)
		h.told = nil
		h.on.Published.Store(0)
		h.on.Close()
		h = newHost(t, e, broken)

		e.Inject(fakeengine.Fault{Op: fakeengine.OpenTopic, Nth: 1, Err: errBroken})
		require.ErrorIs(t, h.on.Publish(ctx, one("a"), false), errBroken)
		e.Inject(fakeengine.Fault{Op: fakeengine.Publish, Nth: 1, Err: errBroken})
		require.ErrorIs(t, h.on.Publish(ctx, one("a"), false), errBroken)
		long := one("longer than what the engine takes, which are forty bytes")
		require.ErrorIs(t, h.on.Publish(ctx, long, false), message.ErrInvalidMessage)
		require.Zero(t, h.on.Published.Load())
		require.Empty(t, h.told)

		err = h.on.Publish(ctx, append(one("a"), long...), false)
		require.ErrorContains(t, err, "1 failed: ", "what the settings make of it")
		require.ErrorIs(t, err, engine.ErrTooLarge)
		require.EqualValues(t, 1, h.on.Published.Load())

		q := h.open(t, func(s *settings.Queue) { s.Capacity, s.Asked.Capacity = 1, true })
		require.NoError(t, h.on.Publish(ctx, one("a"), false))
		require.ErrorIs(t, h.on.Publish(ctx, one("b"), false), message.ErrQueueFull)
		require.Equal(t, 1, view.StatsOf(q).Capacity)

		// If the context ends under way nobody knows what the engine has.
		e.Inject(fakeengine.Fault{Op: fakeengine.Publish, Latency: time.Hour})
		soon, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		err = h.on.Publish(soon, one("a"), false)
		require.ErrorIs(t, err, message.ErrUnconfirmed)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		err = h.on.Publish(soon, one("a"), false)
		require.NotErrorIs(t, err, message.ErrUnconfirmed, "it had ended before")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		h.Mu.Lock()
		h.closed = true
		h.Mu.Unlock()
		require.ErrorIs(t, h.on.Publish(ctx, one("a"), false), message.ErrClosed)
		h.end(t)
	})
}

func TestAQueueIsOpenedAsItsSettingsSay(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		e := fakeengine.New(fakeengine.Config{Most: map[engine.Feature]time.Duration{engine.Visibility: 10 * time.Second}})
		h := newHost(t, e)
		q := h.open(t, func(s *settings.Queue) {
			s.Delay, s.DeadCapacity, s.Asked.DeadCapacity = time.Minute, 7, true
			s.Policies = []string{`{"for": ["q"]}`}
		})
		require.Equal(t, 10*time.Second, q.Visibility(), "nobody asked for the default, which is longer than it can be")
		require.Equal(t, engine.Unknown, view.StatsOf(q).Capacity)
		require.Equal(t, []int{engine.Unknown, 7}, []int{q.Keeper.Capacity(), q.Dead.Keeper.Capacity()})
		require.Equal(t, 7, view.StatsOf(q.Dead).Capacity)
		require.Equal(t, "q/dead", q.Dead.Name())
		require.NoError(t, h.on.Publish(ctx, []message.Item[string]{{Body: "others"}, {Body: "mine", Ext: &message.Extra{Attributes: map[string]string{"for": "q"}}}}, false))
		began := time.Now()
		require.Equal(t, "mine", receive(t, q).Body, "the engine filters")
		require.Equal(t, time.Minute, time.Since(began))

		_, err := h.tryOpen(ctx, "q")
		require.ErrorIs(t, err, message.ErrExists)
		_, err = h.tryOpen(ctx, "other", func(s *settings.Queue) { s.DeadLetters = true })
		require.ErrorIs(t, err, message.ErrUnsupported)
		e.Inject(fakeengine.Fault{Op: fakeengine.OpenQueue, Nth: 1, Err: errBroken})
		_, err = h.tryOpen(ctx, "other")
		require.ErrorIs(t, err, errBroken)
		h.end(t)
	})
}

func TestWhoeverOpensAQueueWaitsForItsTurn(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		e := fakeengine.New(fakeengine.Config{})
		h := newHost(t, e)
		e.Inject(fakeengine.Fault{Op: fakeengine.OpenTopic, Nth: 1, Latency: time.Minute, Err: errBroken})
		first := make(chan error, 1)
		go func() { _, err := h.tryOpen(context.Background(), "q"); first <- err }()
		synctest.Wait()
		soon, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		_, err := h.tryOpen(soon, "q")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		began := time.Now()
		q, err := h.tryOpen(ctx, "q")
		require.NoError(t, err)
		require.Equal(t, 59*time.Second, time.Since(began))
		require.ErrorIs(t, <-first, errBroken)

		h.refuse = message.ErrClosed // the topic was closed meanwhile
		_, err = h.tryOpen(ctx, "other")
		require.ErrorIs(t, err, message.ErrClosed)
		require.NoError(t, lifecycle.Close(q))
		h.end(t)
	})
}

func TestTheEngineListsTheTopicsQueues(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		e := fakeengine.New(fakeengine.Config{})
		h := newHost(t, e)
		h.open(t)
		h.publish(t, "a", "b")
		infos, err := h.on.List(ctx)
		require.NoError(t, err)
		require.Len(t, infos, 1)
		d := DepthOf(infos[0])
		require.Equal(t, []any{"q", 2, 0}, []any{d.Queue, d.Ready, d.Dead})
		e.Inject(fakeengine.Fault{Op: fakeengine.ListQueues, Nth: 1, Err: errBroken})
		_, err = h.on.List(ctx)
		require.ErrorIs(t, err, errBroken)
		h.end(t)
		_, err = h.on.List(ctx)
		require.ErrorIs(t, err, message.ErrClosed)
		h = newHost(t, e)
		e.Inject(fakeengine.Fault{Op: fakeengine.OpenTopic, Nth: 1, Err: errBroken})
		_, err = h.on.List(ctx)
		require.ErrorIs(t, err, errBroken)
		h.end(t)
	})
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHost(t, fakeengine.New(fakeengine.Config{Without: []engine.Feature{engine.Listing}}))
		_, err := h.on.List(ctx)
		require.ErrorIs(t, err, message.ErrUnsupported)
		h.end(t)
	})
}

// A watched engine notes what is opened, and lists nothing.
type watched struct {
	*fakeengine.Engine
	specs    []engine.QueueSpec
	messages []engine.Message
}

func (w *watched) OpenTopic(ctx context.Context, spec engine.TopicSpec) (engine.Topic, error) {
	t, err := w.Engine.OpenTopic(ctx, spec)
	return &watchedTopic{t, w}, err
}

type watchedTopic struct {
	engine.Topic
	w *watched
}

func (t *watchedTopic) OpenQueue(ctx context.Context, spec engine.QueueSpec) (engine.Queue, error) {
	t.w.specs = append(t.w.specs, spec)
	return t.Topic.OpenQueue(ctx, spec)
}

func (t *watchedTopic) Publish(ctx context.Context, ms []engine.Message) error {
	t.w.messages = append(t.w.messages, ms...)
	return t.Topic.Publish(ctx, ms)
}

// The engine is told of a queue what it keeps and was asked for.
func TestTheEngineIsToldWhatAQueueAsksFor(t *testing.T) {
	all := func(s *settings.Queue) {
		s.Visibility, s.MaxAttempts, s.Delay, s.Capacity, s.DeadCapacity = time.Minute, 7, time.Second, 100, 50
		s.Asked.Capacity, s.Asked.DeadCapacity = true, true
	}
	for name, row := range map[string]struct {
		without []engine.Feature
		change  func(s *settings.Queue)
		want    engine.QueueSpec
	}{
		"by default": {nil, func(*settings.Queue) {}, engine.QueueSpec{Visibility: 30 * time.Second, MaxAttempts: settings.DefaultQueue().MaxAttempts}},
		"all of it":  {nil, all, engine.QueueSpec{Visibility: time.Minute, MaxAttempts: 7, Delay: time.Second, Capacity: 100, DeadCapacity: 50}},
		"one that keeps less": {[]engine.Feature{engine.Visibility, engine.Bounded}, func(s *settings.Queue) {
			s.Capacity, s.DeadCapacity, s.MaxAttempts = message.Unlimited, message.Unlimited, message.Unlimited
			s.Asked.Capacity, s.Asked.DeadCapacity = true, true
		}, engine.QueueSpec{}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				w := &watched{Engine: fakeengine.New(fakeengine.Config{Without: row.without})}
				h := newHost(t, w.Engine, func(s *settings.Topic) { s.Engine = w })
				h.open(t, row.change)
				row.want.Name = "q"
				require.Equal(t, []engine.QueueSpec{row.want}, w.specs)
				h.publish(t, "a")
				require.Equal(t, settings.JSON{}.ContentType(), w.messages[0].ContentType)
				_, err := h.on.List(ctx)
				require.ErrorIs(t, err, message.ErrUnsupported)
				require.ErrorContains(t, err, "its topics are no engine.Lister")
				h.end(t)
			})
		})
	}
}

// A policy is the engine's to apply, if it keeps policies; other filters are asked here.
func TestAnEngineThatKeepsPoliciesAppliesThem(t *testing.T) {
	for _, keeps := range []bool{true, false} {
		bubble(t, func(t *testing.T, ctx context.Context) {
			c := fakeengine.Config{}
			if !keeps {
				c.Without = []engine.Feature{engine.FilterPolicy}
			}
			h := newHost(t, fakeengine.New(c))
			nobody, err := policy.Parse(`{"for": ["nobody"]}`)
			require.NoError(t, err)
			q := h.open(t, wanted(func(body string) bool { return body != "unwanted" }), func(s *settings.Queue) {
				s.Policies = []string{`{"for": ["q"]}`}
				s.Filters = append(s.Filters, filter.Filter[string]{Policy: nobody}) // another, to see who is asked
			})
			for _, body := range []string{"unwanted", "wanted"} {
				require.NoError(t, h.on.Publish(ctx, []message.Item[string]{{Body: body, Ext: &message.Extra{Attributes: map[string]string{"for": "q"}}}}, false))
			}
			h.publish(t, "others'")
			if keeps {
				require.Equal(t, "wanted", receive(t, q).Body)
			}
			requireNone(t, q)
			h.end(t)
		})
	}
}
