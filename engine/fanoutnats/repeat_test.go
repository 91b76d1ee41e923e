package fanoutnats_test

import (
	"context"
	"testing"
	"time"

	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/engine/fanoutnats"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
)

// A publish whose confirmation is lost is repeated, and stored once.
func TestAPublishThatIsNotAnsweredIsRepeated(t *testing.T) {
	t.Parallel()
	with := func(ids ...string) []engine.Message {
		ms := messages(len(ids))
		for k, id := range ids {
			ms[k].DeduplicationID = id
		}
		return ms
	}
	for name, ms := range map[string][]engine.Message{
		"one": with(""), "one with an ID": with("a"), "a batch": with("", "", ""), "a batch with IDs": with("a", "b"),
		"a batch with an ID": with("a", "", ""),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startServer(t)
			top := openTopic(t, s.engine(t, ""), engine.TopicSpec{Name: "payments", Deduplication: time.Minute})
			q := openQueue(t, top, engine.QueueSpec{Name: "q"})
			s.losing.Store(true)
			require.NoError(t, top.Publish(t.Context(), ms))
			require.EqualValues(t, 1, s.lost.Load())
			requireTotal(t, len(ms), q)

			// It was the call that was repeated: the same messages again are others, but
			// for those with an ID.
			want := len(ms)
			for _, m := range ms {
				if m.DeduplicationID == "" {
					want++
				}
			}
			require.NoError(t, top.Publish(t.Context(), ms))
			requireTotal(t, want, q)
		})
	}
}

// A publish that isn't repeated, or not for long enough, says that nobody knows.
func TestAPublishThatIsNotAnsweredIsUnconfirmed(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	for name, row := range map[string]struct {
		timeout, deadline time.Duration
		want, not         error
	}{
		"the context ends":      {time.Minute, time.Second, context.DeadlineExceeded, nats.ErrTimeout},
		"the timeout is over":   {time.Second, time.Minute, nats.ErrTimeout, context.DeadlineExceeded},
		"the window is shorter": {time.Second, 0, nats.ErrTimeout, context.DeadlineExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, spec := t.Context(), engine.TopicSpec{Name: name}
			if row.want == nats.ErrTimeout {
				spec.Deduplication = time.Second // no repeats
			}
			top := openTopic(t, s.engine(t, "", fanoutnats.WithTimeout(row.timeout)), spec)
			q := openQueue(t, top, engine.QueueSpec{Name: "q"})
			if row.deadline > 0 && row.want == context.DeadlineExceeded {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, row.deadline)
				defer cancel()
			}
			for k, n := range []int{1, 3} {
				s.losing.Store(true)
				err := top.Publish(ctx, messages(n))
				if k == 1 && ctx.Err() != nil {
					require.NotErrorIs(t, err, engine.ErrUnconfirmed, "nothing was sent")
					s.losing.Store(false)
					break
				}
				require.ErrorIs(t, err, engine.ErrUnconfirmed)
				require.ErrorIs(t, err, row.want)
				require.NotErrorIs(t, err, row.not)
			}
			require.Positive(t, total(t, q))
		})
	}
	full := openTopic(t, s.engine(t, "", fanoutnats.WithMaxMessages(1)), engine.TopicSpec{Name: "full"})
	openQueue(t, full, engine.QueueSpec{Name: "q"})
	err := full.Publish(t.Context(), messages(2))
	require.ErrorIs(t, err, engine.ErrFull)
	require.NotErrorIs(t, err, engine.ErrUnconfirmed, "the server has refused it")
}

// What moves between a queue and its letters is no duplicate, however often it does.
func TestLettersAndRedrivesAreNoDuplicates(t *testing.T) {
	t.Parallel()
	top := openTopic(t, fast(t), engine.TopicSpec{Name: "payments", Deduplication: time.Minute})
	q := openQueue(t, top, engine.QueueSpec{Name: "q"})
	ctx := t.Context()
	m := message(0)
	m.DeduplicationID = "a"
	require.NoError(t, top.Publish(ctx, []engine.Message{m}))
	for range 4 {
		r := receiveOne(t, q, 0)
		require.NoError(t, q.DeadLetter(ctx, r.Receipt, r.Message))
		l := receiveOne(t, q.DeadLetters(), 0)
		require.NoError(t, q.DeadLetters().Redrive(ctx, l.Receipt, l.Message))
	}
	require.Equal(t, "body-0", string(receiveOne(t, q, 0).Body))

	// Nor is what somebody publishes again: it is another call.
	for range 2 {
		require.NoError(t, top.Publish(ctx, messages(1)))
		require.NoError(t, top.Publish(ctx, messages(3)))
	}
	requireTotal(t, 1+8, q)
}
