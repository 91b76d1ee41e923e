package fanoutnats_test

import (
	"context"
	"testing"
	"time"

	"github.com/gofanout/fanout/engine"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
)

// requireNothingLeft finds nothing on the server of a queue "q" of the topic "payments".
func requireNothingLeft(t *testing.T, js jetstream.JetStream) {
	t.Helper()
	for name, subject := range map[string]string{
		"fanout-messages-payments": "fanout.payments.one.q", "fanout-dead-payments": "fanout.payments.dead.q",
		"fanout-state-payments": "fanout.payments.state.q.>",
	} {
		s, err := js.Stream(t.Context(), name)
		require.NoError(t, err)
		info, err := s.Info(t.Context(), jetstream.WithSubjectFilter(subject))
		require.NoError(t, err)
		require.Empty(t, info.State.Subjects)
		if name == "fanout-state-payments" {
			continue
		}
		_, err = s.Consumer(t.Context(), "q")
		require.ErrorIs(t, err, jetstream.ErrConsumerNotFound)
	}
}

// A queue is deleted with all that it has on the server, and nothing that others have.
func TestDeleteLeavesNothingOfAQueueOnTheServer(t *testing.T) {
	t.Parallel()
	e, ctx := fast(t), t.Context()
	js, err := jetstream.New(e.Conn())
	require.NoError(t, err)
	top := openTopic(t, e, engine.TopicSpec{Name: "payments"})
	other := openQueue(t, top, engine.QueueSpec{Name: "other"})
	for range 2 { // the second one is new
		q := openQueue(t, top, engine.QueueSpec{Name: "q"})
		require.Zero(t, total(t, q))
		require.Zero(t, total(t, q.DeadLetters()))
		require.NoError(t, top.Publish(ctx, messages(6)))
		rs := receive(t, q, 6, 0)
		for _, r := range rs[:3] {
			require.NoError(t, q.DeadLetter(ctx, r.Receipt, r.Message))
		}
		letters := receive(t, q.DeadLetters(), 2, 0)
		require.NoError(t, q.DeadLetters().Redrive(ctx, letters[0].Receipt, letters[0].Message))
		require.NoError(t, q.DeadLetters().Return(ctx, letters[1].Receipt, 0, []byte("state")))
		require.NoError(t, q.Return(ctx, rs[3].Receipt, 0, []byte("state")))
		require.NoError(t, q.Close())

		_, _, err := q.DeadLetters().Delete(ctx)
		require.ErrorContains(t, err, "with its queue")
		dropped, dead, err := q.Delete(ctx)
		require.NoError(t, err)
		require.Equal(t, 4, dropped, "one returned, two leased, one redriven")
		require.Equal(t, 2, dead)
		requireNothingLeft(t, js)
		dropped, dead, err = q.Delete(ctx)
		require.NoError(t, err)
		require.Zero(t, dropped+dead)
	}
	require.Len(t, receive(t, other, 12, 0), 12)

	// It is not in the list; nor is what is none of ours.
	_, err = js.CreateConsumer(ctx, "fanout-messages-payments", jetstream.ConsumerConfig{Durable: "foreign", AckPolicy: jetstream.AckExplicitPolicy})
	require.NoError(t, err)
	infos, err := top.(engine.Lister).ListQueues(ctx)
	require.NoError(t, err)
	require.Len(t, infos, 1)
	require.Equal(t, "other", infos[0].Name)
	require.Equal(t, 12, infos[0].Stats.InFlight)
	require.NoError(t, js.DeleteConsumer(ctx, "fanout-messages-payments", "foreign"))

	// What was interrupted, or done by hand, is finished.
	q := openQueue(t, top, engine.QueueSpec{Name: "q"})
	require.NoError(t, top.Publish(ctx, messages(2)))
	for _, r := range receive(t, q, 2, 0) {
		require.NoError(t, q.DeadLetter(ctx, r.Receipt, r.Message))
	}
	require.NoError(t, q.Close())
	require.NoError(t, js.DeleteConsumer(ctx, "fanout-messages-payments", "q"))
	_, dead, err := q.Delete(ctx)
	require.NoError(t, err)
	require.Equal(t, 2, dead)
	requireNothingLeft(t, js)

	// A topic that is gone has no queues.
	for _, s := range []string{"messages", "dead", "state"} {
		require.NoError(t, js.DeleteStream(ctx, "fanout-"+s+"-payments"))
	}
	_, _, err = q.Delete(ctx)
	require.NoError(t, err)
}

// Who has the queue open elsewhere learns that it was deleted, whatever it does, at once.
func TestAQueueThatWasDeletedElsewhereIsClosed(t *testing.T) {
	t.Parallel()
	e := fast(t)
	js, err := jetstream.New(e.Conn())
	require.NoError(t, err)
	top := openTopic(t, e, engine.TopicSpec{Name: "payments"})
	here := openQueue(t, top, engine.QueueSpec{Name: "q"})
	there := openQueue(t, openTopic(t, on(t, e), engine.TopicSpec{Name: "payments"}), engine.QueueSpec{Name: "q", Visibility: time.Hour})
	require.NoError(t, top.Publish(soon(t), messages(6)))
	rs := receive(t, there, 6, 0)
	for _, r := range rs[4:] {
		require.NoError(t, there.DeadLetter(soon(t), r.Receipt, r.Message))
	}
	letters := receive(t, there.DeadLetters(), 2, 0)
	ended := make(chan error, 2)
	asked, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	for _, q := range []engine.Queue{there, there.DeadLetters()} {
		go func() { _, err := q.Receive(asked, 1, 0); ended <- err }()
	}
	require.Eventually(t, func() bool {
		for _, s := range []string{"fanout-messages-payments", "fanout-dead-payments"} {
			c, err := js.Consumer(soon(t), s, "q")
			if err != nil || c.CachedInfo().NumWaiting == 0 {
				return false
			}
		}
		return true
	}, patience, 10*time.Millisecond, "both wait")
	require.NoError(t, here.Close())
	_, _, err = here.Delete(soon(t))
	require.NoError(t, err)

	for range 2 {
		require.ErrorIs(t, <-ended, engine.ErrClosed)
	}
	dead := there.DeadLetters()
	for name, do := range map[string]func() error{
		"receive":              func() error { _, err := there.Receive(soon(t), 1, 0); return err },
		"receive a letter":     func() error { _, err := dead.Receive(soon(t), 1, 0); return err },
		"acknowledge":          func() error { return there.Ack(soon(t), rs[0].Receipt) },
		"return":               func() error { return there.Return(soon(t), rs[1].Receipt, 0, nil) },
		"extend":               func() error { return there.Extend(soon(t), rs[2].Receipt, time.Hour) },
		"dead-letter":          func() error { return there.DeadLetter(soon(t), rs[3].Receipt, rs[3].Message) },
		"acknowledge a letter": func() error { return dead.Ack(soon(t), letters[0].Receipt) },
		"redrive":              func() error { return dead.Redrive(soon(t), letters[1].Receipt, letters[1].Message) },
		"stats":                func() error { _, err := there.Stats(soon(t)); return err },
		"purge":                func() error { _, err := there.Purge(soon(t)); return err },
		"purge the letters":    func() error { _, err := dead.Purge(soon(t)); return err },
	} {
		err := do()
		require.ErrorIs(t, err, engine.ErrClosed, name)
		require.ErrorContains(t, err, "deleted", name)
	}
	requireNothingLeft(t, js)

	// Once it is there again, it can be received from.
	again := openQueue(t, top, engine.QueueSpec{Name: "q"})
	require.Zero(t, total(t, again))
	require.NoError(t, top.Publish(soon(t), messages(1)))
	require.Equal(t, 1, receiveOne(t, there, 0).Deliveries)
}
