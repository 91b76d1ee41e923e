package onengine

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/settings"
)

var errBusy = errors.New("busy")

// A fake is an engine that supports what it is told to, and opens topics.
type fake struct {
	engine.Engine
	caps   engine.Capabilities
	opened []engine.TopicSpec
	fails  error
	topic  engine.Topic
}

func (f *fake) Name() string                      { return "fake" }
func (f *fake) Capabilities() engine.Capabilities { return f.caps }
func (f *fake) OpenTopic(_ context.Context, s engine.TopicSpec) (engine.Topic, error) {
	f.opened = append(f.opened, s)
	if f.fails != nil {
		return nil, f.fails
	}
	return f.topic, nil
}

type fakeTopic struct {
	engine.Topic
	closed int
}

func (t *fakeTopic) Close() error { t.closed++; return errBusy }

// able supports everything, for a minute where there is a longest.
func able(without ...engine.Feature) *fake {
	f := &fake{caps: engine.Capabilities{}, topic: new(fakeTopic)}
	for _, k := range engine.Features() {
		f.caps[k] = engine.Support{Kept: true, Note: "by hand"}
	}
	for _, k := range []engine.Feature{engine.Deduplication, engine.Visibility, engine.QueueDelay} {
		f.caps[k] = engine.Support{Kept: true, Most: time.Minute, Note: "by hand"}
	}
	for _, k := range without {
		f.caps[k] = engine.Support{Note: "use another"}
	}
	return f
}

var text = reflect.TypeFor[string]()

func newTopic(t *testing.T, f *fake) *Topic {
	t.Helper()
	r, err := New("payments", settings.Topic{Engine: f}, text)
	require.NoError(t, err)
	return r
}

func TestATopicInMemoryHasNoEngine(t *testing.T) {
	r, err := New("payments", settings.Topic{}, text)
	require.NoError(t, err)
	require.Nil(t, r)
}

// What a topic asks of its engine is there, or the error says what is not.
func TestWhatATopicAsksOfItsEngine(t *testing.T) {
	bounded, all := engine.Bounded, engine.AllOrNone
	codec := struct{ settings.Codec }{settings.JSON{}}
	for name, row := range map[string]struct {
		f       *fake
		set     settings.Topic
		carries reflect.Type
		err     string // empty: none
	}{
		"everything is there": {able(), settings.Topic{}, text, ""},
		"not bounded": {able(bounded), settings.Topic{}, text,
			`fanout: unsupported: topic "payments": engine "fake" does not support ` + bounded.String() + ` (use another); to do without: fanout.WithEngine(e, fanout.Without(engine.Bounded))`},
		"neither": {able(bounded, all), settings.Topic{Without: []engine.Feature{bounded}}, text,
			`fanout: unsupported: topic "payments": engine "fake" does not support ` + all.String() + ` (use another); to do without: fanout.WithEngine(e, fanout.Without(engine.Bounded, engine.AllOrNone))`},
		"neither, and none was named": {able(bounded, all), settings.Topic{}, text,
			`fanout: unsupported: topic "payments": engine "fake" does not support ` + bounded.String() + ` (use another) and ` + all.String() +
				` (use another); to do without: fanout.WithEngine(e, fanout.Without(engine.Bounded, engine.AllOrNone))`},
		"all or none alone": {able(all), settings.Topic{}, text,
			`fanout: unsupported: topic "payments": engine "fake" does not support ` + all.String() + ` (use another); to do without: fanout.WithEngine(e, fanout.Without(engine.AllOrNone))`},
		"it was named": {able(bounded, all), settings.Topic{Without: []engine.Feature{all, bounded}}, text, ""},
		"no delay of retries": {able(engine.RetryDelay), settings.Topic{}, text,
			`fanout: unsupported: topic "payments": engine "fake" does not support ` + engine.RetryDelay.String() + `, without which what fails would be tried without a pause`},
		"ordering": {able(engine.Ordering), settings.Topic{Ordering: true}, text,
			`topic "payments": fanout: unsupported: WithOrdering() on engine "fake": it does not support ` + engine.Ordering.String() + `; use another`},
		"ordering, not asked for":      {able(engine.Ordering), settings.Topic{}, text, ""},
		"deduplication":                {able(), settings.Topic{DedupMax: 1, DedupWindow: time.Minute}, text, ""},
		"deduplication, not asked for": {able(engine.Deduplication), settings.Topic{DedupWindow: time.Hour}, text, ""},
		"deduplication for too long": {able(), settings.Topic{DedupMax: 1, DedupWindow: time.Hour}, text,
			`topic "payments": fanout: unsupported: WithDeduplication(1h0m0s) on engine "fake": the longest ` + engine.Deduplication.String() + ` is 1m0s; by hand`},
		"the first that is wrong is named": {able(engine.Ordering), settings.Topic{Ordering: true, Retention: 5, DedupMax: 1, DedupWindow: time.Hour}, reflect.TypeFor[chan int](),
			`topic "payments": fanout: unsupported: WithOrdering() on engine "fake": it does not support ` + engine.Ordering.String() + `; use another`},
		"retention":           {able(), settings.Topic{Retention: 5}, text, `topic "payments": fanout: unsupported: WithRetention(5) on engine "fake": replay is for topics in memory`},
		"retention of all":    {able(), settings.Topic{Retention: message.Unlimited}, text, `topic "payments": fanout: unsupported: WithRetention(Unlimited) on engine "fake": replay is for topics in memory`},
		"what JSON can carry": {able(), settings.Topic{}, reflect.TypeFor[map[string]int](), ""},
		"what JSON can't carry": {able(), settings.Topic{}, reflect.TypeFor[chan int](),
			`topic "payments": fanout: unsupported: a topic of chan int on engine "fake": JSON can't bring chan int back, which is a chan: give NewTopic a codec (fanout.WithCodec), ` +
				`use another type, or give that type MarshalJSON and UnmarshalJSON; a field that needs not travel is left out by the tag json:"-"`},
		"what another codec carries": {able(), settings.Topic{Codec: codec}, reflect.TypeFor[chan int](), ""},
	} {
		t.Run(name, func(t *testing.T) {
			row.set.Engine = row.f
			r, err := New("payments", row.set, row.carries)
			if row.err != "" {
				require.Nil(t, r)
				require.EqualError(t, err, row.err)
				require.ErrorIs(t, err, message.ErrUnsupported)
				return
			}
			require.NoError(t, err)
			require.Equal(t, row.f.caps, r.Caps)
			if row.set.Codec == nil {
				require.Equal(t, settings.JSON{}, r.Codec)
			} else {
				require.Equal(t, row.set.Codec, r.Codec)
			}
		})
	}
}

// What a queue asks of its engine is there, or the error says all that is not.
func TestWhatAQueueAsksOfItsEngine(t *testing.T) {
	no := func(option, why string) string { return `fanout: unsupported: ` + option + ` on engine "fake": ` + why }
	unbounded := "it does not support " + engine.Bounded.String() + "; use another"
	plain := settings.DefaultQueue
	for name, row := range map[string]struct {
		f      *fake
		change func(s *settings.Queue)
		shared bool
		err    string
	}{
		"nothing": {able(engine.Bounded, engine.Visibility, engine.QueueDelay), func(*settings.Queue) {}, false, ""},
		"all that it supports": {able(), func(s *settings.Queue) {
			s.Asked = settings.Asked{Capacity: true, Overflow: true, Visibility: true, DeadCapacity: true}
			s.Overflow, s.Delay = settings.Reject, time.Minute
		}, false, ""},
		"a capacity":       {able(engine.Bounded), func(s *settings.Queue) { s.Asked.Capacity, s.Capacity = true, 5 }, false, no("WithCapacity(5)", unbounded)},
		"no bound":         {able(engine.Bounded), func(s *settings.Queue) { s.Asked.Capacity, s.Capacity = true, message.Unlimited }, false, ""},
		"to wait for room": {able(engine.Bounded), func(s *settings.Queue) { s.Asked.Overflow = true }, false, no("WithOverflow(Block)", unbounded)},
		"to wait, unbounded": {able(engine.Bounded), func(s *settings.Queue) {
			s.Asked.Overflow, s.Asked.Capacity, s.Capacity = true, true, message.Unlimited
		}, false, ""},
		"to refuse, unbounded": {able(engine.Bounded), func(s *settings.Queue) {
			s.Asked.Overflow, s.Asked.Capacity, s.Capacity, s.Overflow = true, true, message.Unlimited, settings.Reject
		}, false, no("WithOverflow(Reject)", unbounded)},
		"to drop":             {able(), func(s *settings.Queue) { s.Asked.Overflow, s.Overflow = true, settings.DropOldest }, false, no("WithOverflow(DropOldest)", "no engine drops; let Block wait or Reject refuse")},
		"to drop, by default": {able(), func(s *settings.Queue) { s.Overflow = settings.DropOldest }, false, ""},
		"letters":             {able(engine.Bounded), func(s *settings.Queue) { s.Asked.DeadCapacity, s.DeadCapacity = true, 3 }, false, no("WithDeadLetterCapacity(3)", unbounded)},
		"letters, no bound":   {able(engine.Bounded), func(s *settings.Queue) { s.Asked.DeadCapacity, s.DeadCapacity = true, message.Unlimited }, false, ""},
		"letters, by default": {able(engine.Bounded), func(s *settings.Queue) { s.DeadCapacity = 3 }, false, ""},
		"letters that drop":   {able(), func(s *settings.Queue) { s.DeadOverflow = settings.DropOldest }, false, no("WithDeadLetterOverflow(DropOldest)", "no engine drops")},
		"a short visibility":  {able(), func(s *settings.Queue) { s.Asked.Visibility, s.Visibility = true, time.Minute }, false, ""},
		"a long visibility":   {able(), func(s *settings.Queue) { s.Asked.Visibility, s.Visibility = true, time.Hour }, false, no("WithVisibilityTimeout(1h0m0s)", "the longest "+engine.Visibility.String()+" is 1m0s; by hand")},
		"a long delay":        {able(), func(s *settings.Queue) { s.Delay = time.Hour }, false, no("WithDelay(1h0m0s)", "the longest "+engine.QueueDelay.String()+" is 1m0s; by hand")},
		"a delay":             {able(engine.QueueDelay), func(s *settings.Queue) { s.Delay = 1 }, false, no("WithDelay(1ns)", "it does not support "+engine.QueueDelay.String()+"; use another")},
		"a replay":            {able(), func(s *settings.Queue) { s.Replay = 7 }, false, no("WithReplay(7)", "replay is for topics in memory")},
		"shared letters":      {able(), func(*settings.Queue) {}, true, no("WithDeadLetterQueue", "each queue has a dead-letter queue of its own there")},
		"several": {able(), func(s *settings.Queue) { s.Replay, s.Delay = 7, time.Hour }, false,
			no("WithDelay(1h0m0s)", "the longest "+engine.QueueDelay.String()+" is 1m0s; by hand") + "\n" + no("WithReplay(7)", "replay is for topics in memory")},
	} {
		t.Run(name, func(t *testing.T) {
			s := plain()
			row.change(&s)
			r, err := New("payments", settings.Topic{Engine: row.f, Without: []engine.Feature{engine.Bounded}}, text)
			require.NoError(t, err)
			err = r.CheckQueue(&s, row.shared)
			if row.err == "" {
				require.NoError(t, err)
				return
			}
			require.EqualError(t, err, row.err)
			require.ErrorIs(t, err, message.ErrUnsupported)
		})
	}
}

func TestTheEnginesTopicIsOpenedOnce(t *testing.T) {
	f := able()
	r, err := New("payments", settings.Topic{Engine: f, Ordering: true, DedupWindow: time.Minute}, text)
	require.NoError(t, err)
	r.Close() // nothing was opened
	f.fails = fmt.Errorf("open: %w", engine.ErrClosed)
	_, err = r.Open(t.Context())
	require.ErrorIs(t, err, message.ErrClosed, "by our name")
	require.EqualError(t, err, "fanout: closed: open: "+engine.ErrClosed.Error())
	f.fails = nil
	for range 3 {
		got, err := r.Open(t.Context())
		require.NoError(t, err)
		require.Same(t, f.topic, got)
		got, err = r.OpenInTurn(t.Context())
		require.NoError(t, err)
		require.Same(t, f.topic, got)
	}
	spec := engine.TopicSpec{Name: "payments", Ordering: true, Deduplication: time.Minute}
	require.Equal(t, []engine.TopicSpec{spec, spec}, f.opened)
	require.Empty(t, r.Turn, "the turn is given back")
	r.Close()
	require.Equal(t, 1, f.topic.(*fakeTopic).closed)
}

func TestWhoWaitsForTheTurnWaitsForItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTopic(t, able())
		r.Turn <- struct{}{}
		soon, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		_, err := r.Open(soon)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, time.Second, time.Since(began))
		<-r.Turn
		_, err = r.Open(t.Context())
		require.NoError(t, err)
	})
}

// Errors of engines are found by the names that users know, once.
func TestErrorsOfEnginesHaveOurNames(t *testing.T) {
	for theirs, ours := range map[error]error{
		engine.ErrStale: message.ErrStale, engine.ErrFull: message.ErrQueueFull, engine.ErrClosed: message.ErrClosed,
		engine.ErrTooLarge: message.ErrInvalidMessage, engine.ErrInvalid: message.ErrInvalidMessage, engine.ErrUnconfirmed: message.ErrUnconfirmed,
	} {
		err := Error(fmt.Errorf("of it: %w", theirs))
		require.ErrorIs(t, err, ours)
		require.ErrorIs(t, err, theirs)
		require.EqualError(t, err, ours.Error()+": of it: "+theirs.Error())
		require.Equal(t, err, Error(err), "it has its name")
	}
	require.Equal(t, errBusy, Error(errBusy))
	require.NoError(t, Error(nil))
}

// If the context ended under way, nobody knows what the engine has.
func TestAPublishThatItsContextEndedIsNotConfirmed(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	err := PublishError(ended, fmt.Errorf("send: %w", context.Canceled))
	require.EqualError(t, err, "fanout: not confirmed: send: context canceled")
	require.ErrorIs(t, err, message.ErrUnconfirmed)
	require.Equal(t, err, PublishError(ended, err), "it is said once")
	require.Equal(t, errBusy, PublishError(ended, errBusy), "it failed by itself")
	require.Equal(t, context.Canceled, PublishError(t.Context(), context.Canceled), "that is another's context")
	require.ErrorIs(t, PublishError(t.Context(), engine.ErrFull), message.ErrQueueFull)
}

// A state is made shorter until the engine has room for it.
func TestAStateIsMadeToFit(t *testing.T) {
	var h *message.History
	for range 100 {
		text := "some text that says what was wrong with it, and where"
		h = h.With(message.Kept{Attempt: message.Attempt{Cause: message.Failed, Queue: "q", Err: errors.New(text)}, Text: text})
	}
	s := Full{State: State{Spent: 100}, Hist: h}
	var lens []int
	fits := func(most int) func(data []byte) error {
		lens = nil
		return func(data []byte) error {
			if lens = append(lens, len(data)); len(data) > most {
				return fmt.Errorf("return: %w", engine.ErrTooLarge)
			}
			return nil
		}
	}
	require.NoError(t, s.Fit(fits(1<<20)))
	require.Len(t, lens, 1)
	whole := lens[0]
	require.Greater(t, whole, 2000)
	require.NoError(t, s.Fit(fits(whole/2)))
	require.Len(t, lens, 2)
	require.LessOrEqual(t, lens[1], whole/2)
	require.Greater(t, lens[1], whole/4, "no more is left out than has to be")
	require.ErrorIs(t, s.Fit(fits(0)), engine.ErrTooLarge)
	require.LessOrEqual(t, lens[len(lens)-1], engine.MinState)
	require.Less(t, len(lens), 8)
	calls := 0
	require.ErrorIs(t, s.Fit(func([]byte) error { calls++; return errBusy }), errBusy)
	require.Equal(t, 1, calls, "another error is not about the room")
}
