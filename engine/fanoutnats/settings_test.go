package fanoutnats_test

import (
	"bytes"
	"context"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/engine/fanoutnats"
	"github.com/gofanout/fanout/engine/fanoutnats/embedded"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
)

// on makes another engine on e's server.
func on(t *testing.T, e *embedded.Engine, options ...fanoutnats.Option) *fanoutnats.Engine {
	t.Helper()
	js, err := jetstream.New(e.Conn())
	require.NoError(t, err)
	other, err := fanoutnats.New(js, options...)
	require.NoError(t, err)
	return other
}

func TestAFullStreamRefusesAPublishWithErrFull(t *testing.T) {
	t.Parallel()
	e := on(t, fast(t), fanoutnats.WithMaxMessages(3))
	top := openTopic(t, e, engine.TopicSpec{Name: "payments"})
	q := openQueue(t, top, engine.QueueSpec{Name: "a"})
	ctx := t.Context()
	require.NoError(t, top.Publish(ctx, messages(2)))
	require.ErrorIs(t, top.Publish(ctx, messages(2)), engine.ErrFull)
	require.NoError(t, top.Publish(ctx, messages(1)))
	require.ErrorIs(t, top.Publish(ctx, messages(1)), engine.ErrFull)
	requireTotal(t, 3, q) // all or none

	// What is in it can be drained, retries and letters included.
	rs := receive(t, q, 3, 0)
	require.NoError(t, q.Return(ctx, rs[0].Receipt, 0, []byte("state")))
	require.NoError(t, q.DeadLetter(ctx, rs[1].Receipt, rs[1].Message))
	require.NoError(t, top.Publish(ctx, messages(1)))

	small := openTopic(t, on(t, fast(t), fanoutnats.WithMaxBytes(1000)), engine.TopicSpec{Name: "payments"})
	openQueue(t, small, engine.QueueSpec{Name: "a"})
	m := message(0)
	m.Body = make([]byte, 600)
	require.NoError(t, small.Publish(ctx, []engine.Message{m}))
	require.ErrorIs(t, small.Publish(ctx, []engine.Message{m}), engine.ErrFull)
}

func TestATopicThatExistsWithOtherSettingsIsRefused(t *testing.T) {
	t.Parallel()
	e := fast(t)
	ctx := t.Context()
	openTopic(t, e, engine.TopicSpec{Name: "payments", Deduplication: time.Minute})
	_, err := on(t, e, fanoutnats.WithMemoryStorage()).OpenTopic(ctx, engine.TopicSpec{Name: "payments"})
	require.ErrorIs(t, err, engine.ErrMismatch)
	require.ErrorContains(t, err, "storage")
	_, err = on(t, e, fanoutnats.WithReplicas(3)).OpenTopic(ctx, engine.TopicSpec{Name: "payments"})
	require.ErrorIs(t, err, engine.ErrMismatch)
	require.ErrorContains(t, err, "replicas 1, want 3")
	_, err = e.OpenTopic(ctx, engine.TopicSpec{Name: "payments", Deduplication: time.Second})
	require.ErrorIs(t, err, engine.ErrMismatch)
	require.ErrorContains(t, err, "deduplication window 1m0s, want 1s")
	_, err = e.OpenTopic(ctx, engine.TopicSpec{Name: "payments", Ordering: true})
	require.ErrorContains(t, err, "ordering keys")
	openTopic(t, e, engine.TopicSpec{Name: "payments"})
	openTopic(t, e, engine.TopicSpec{Name: "payments", Deduplication: time.Hour})

	js, err := jetstream.New(e.Conn())
	require.NoError(t, err)
	_, err = js.CreateStream(ctx, jetstream.StreamConfig{Name: "fanout-messages-foreign"})
	require.NoError(t, err)
	_, err = e.OpenTopic(ctx, engine.TopicSpec{Name: "foreign"})
	require.ErrorIs(t, err, engine.ErrMismatch)
}

func TestAPrefixKeepsTopicsApart(t *testing.T) {
	t.Parallel()
	e := fast(t)
	a := openTopic(t, on(t, e, fanoutnats.WithPrefix("a")), engine.TopicSpec{Name: "payments"})
	b := openTopic(t, on(t, e, fanoutnats.WithPrefix("b")), engine.TopicSpec{Name: "payments"})
	qa, qb := openQueue(t, a, engine.QueueSpec{Name: "q"}), openQueue(t, b, engine.QueueSpec{Name: "q"})
	require.NoError(t, a.Publish(t.Context(), messages(1)))
	receiveOne(t, qa, 0)
	requireEmpty(t, qb)
}

func TestAQueueMayGetALongerVisibilityAndNeverAShorterOne(t *testing.T) {
	t.Parallel()
	e := fast(t)
	top := openTopic(t, e, engine.TopicSpec{Name: "payments"})
	wait := func() time.Duration {
		js, err := jetstream.New(e.Conn())
		require.NoError(t, err)
		c, err := js.Consumer(t.Context(), "fanout-messages-payments", "q")
		require.NoError(t, err)
		return c.CachedInfo().Config.AckWait
	}
	for _, each := range []struct{ asked, ackWait time.Duration }{
		{20 * time.Second, 22 * time.Second}, {time.Minute, 66 * time.Second}, {time.Second, 66 * time.Second},
	} {
		q := openQueue(t, top, engine.QueueSpec{Name: "q", Visibility: each.asked})
		require.Equal(t, each.ackWait, wait())
		require.NoError(t, q.Close())
	}
}

func TestAReceiptIsRefusedWhenAnotherProcessHasTheMessage(t *testing.T) {
	t.Parallel()
	e := fast(t)
	var queues []engine.Queue
	for range 2 {
		queues = append(queues, openQueue(t, openTopic(t, on(t, e), engine.TopicSpec{Name: "payments"}), engine.QueueSpec{Name: "q"}))
	}
	ctx := t.Context()
	require.NoError(t, openTopic(t, e, engine.TopicSpec{Name: "payments"}).Publish(ctx, messages(1)))
	old := receiveOne(t, queues[0], 200*time.Millisecond)
	newer := receiveOne(t, queues[1], time.Minute)
	require.Equal(t, 2, newer.Deliveries)
	require.ErrorIs(t, queues[0].Ack(ctx, old.Receipt), engine.ErrStale)
	requireTotal(t, 1, queues[0]) // it is the other's to settle
	require.NoError(t, queues[1].Ack(ctx, newer.Receipt))
	require.Zero(t, total(t, queues[0]))
}

// A pull request asks for 16 MiB and a message at most. The rest comes with the next.
func TestManyLargeMessagesAreReceivedWhateverIsAskedFor(t *testing.T) {
	t.Parallel()
	top := openTopic(t, fast(t), engine.TopicSpec{Name: "payments"})
	q := openQueue(t, top, engine.QueueSpec{Name: "q"})
	m := message(0)
	m.Body = make([]byte, 7<<20)
	for range 12 {
		require.NoError(t, top.Publish(t.Context(), []engine.Message{m}))
	}
	n := 0
	for n < 12 {
		rs, err := q.Receive(t.Context(), 1000, 0)
		require.NoError(t, err)
		for _, r := range rs {
			require.Equal(t, 1, r.Deliveries)
			require.Len(t, r.Body, 7<<20)
		}
		n += len(rs)
	}
}

func TestADirectoryIsOpenOnce(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "not", "there", "yet")
	e := openEmbedded(t, dir)
	_, err := embedded.Open(dir)
	require.ErrorContains(t, err, "it is open already")
	require.NoError(t, e.Close())
	require.NoError(t, e.Close())
	var log bytes.Buffer
	again, err := embedded.Open(dir, embedded.WithLogger(slog.New(slog.NewTextHandler(&log, nil))),
		embedded.WithMaxStore(1<<30), embedded.WithMaxPayload(1<<20), embedded.WithEngine(fanoutnats.WithPrefix("p")))
	require.NoError(t, err)
	require.NoError(t, again.Close())
	require.Contains(t, log.String(), "JetStream")

	for name, o := range map[string]embedded.Option{
		"WithSyncInterval(0s)": embedded.WithSyncInterval(0), "WithMaxPayload(1)": embedded.WithMaxPayload(1),
		"WithMaxStore(1)": embedded.WithMaxStore(1), "WithLogger": embedded.WithLogger(nil),
		"WithTimeout(0s)": embedded.WithEngine(fanoutnats.WithTimeout(0)),
	} {
		_, err := embedded.Open(t.TempDir(), o)
		require.ErrorContains(t, err, name)
	}
}

func TestCallsOnAClosedServerFailWithTheirContextOrAtOnce(t *testing.T) {
	t.Parallel()
	e := openEmbedded(t, t.TempDir())
	top := openTopic(t, e, engine.TopicSpec{Name: "payments"})
	q := openQueue(t, top, engine.QueueSpec{Name: "q"})
	require.NoError(t, top.Publish(t.Context(), messages(2)))
	r := receiveOne(t, q, 0)
	require.NoError(t, e.Close())
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.Error(t, top.Publish(ctx, messages(1)))
	require.Error(t, top.Publish(ctx, messages(2)))
	require.Error(t, q.Ack(ctx, r.Receipt))
	_, err := q.Receive(ctx, 1, 0)
	require.Error(t, err)
	_, err = q.Stats(ctx)
	require.Error(t, err)
	_, err = top.OpenQueue(ctx, engine.QueueSpec{Name: "other"})
	require.Error(t, err)
	require.NoError(t, ctx.Err(), "none of them had to wait")
}
