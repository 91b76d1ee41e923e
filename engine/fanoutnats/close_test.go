package fanoutnats_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/engine/fanoutnats"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
)

// requireGivenBack closes queues that wait, while messages are published: each comes to
// another process soon, as one that nobody has received. With one server, the server itself
// counts a delivery to an inbox that goes at that instant: that is the extra one.
func requireGivenBack(t *testing.T, extra int, connect func() jetstream.JetStream) {
	t.Helper()
	open := func() *fanoutnats.Engine { return engineOn(t, connect()) }
	// If it were hidden, a message would stay away for an hour.
	spec := engine.QueueSpec{Name: "q", Visibility: time.Hour}
	top := openTopic(t, open(), engine.TopicSpec{Name: "closing"})
	there := openQueue(t, openTopic(t, open(), engine.TopicSpec{Name: "closing"}), spec)
	for k := range 30 {
		js := connect()
		closing, err := engineOn(t, js).OpenTopic(t.Context(), engine.TopicSpec{Name: "closing"})
		require.NoError(t, err)
		q, err := closing.OpenQueue(t.Context(), spec)
		require.NoError(t, err)
		var ended []chan error
		var returned atomic.Int32
		for range 2 {
			c := make(chan error, 1)
			ended = append(ended, c)
			go func() {
				rs, err := q.Receive(t.Context(), 3, 0)
				for _, r := range rs { // it came before Close
					returned.Add(1)
					if err := q.Return(t.Context(), r.Receipt, 0, nil); err != nil {
						t.Error(err)
					}
				}
				c <- err
			}()
		}
		wait := time.Duration(k%10) * time.Millisecond // to be before, after and while it is closed
		published := make(chan error, 1)
		time.AfterFunc(wait, func() { published <- top.Publish(t.Context(), messages(1)) })
		time.Sleep(5 * time.Millisecond) // both wait by now, or not: any instant will do
		require.NoError(t, q.Close())
		for _, c := range ended {
			if err := <-c; err != nil {
				require.ErrorIs(t, err, engine.ErrClosed)
			}
		}
		require.NoError(t, closing.Close())
		js.Conn().Close() // as the end of the process does
		require.NoError(t, <-published)
		r := receiveOne(t, there, 0)
		require.LessOrEqual(t, r.Deliveries, 1+extra+int(returned.Load()), "round %d", k)
		require.NoError(t, there.Ack(t.Context(), r.Receipt))
	}
}

// requireNoAttemptSpent closes a process that waits for messages; one that is published a
// little later has all its attempts elsewhere.
func requireNoAttemptSpent(t *testing.T, connect func() jetstream.JetStream) {
	t.Helper()
	open := func() *fanoutnats.Engine { return engineOn(t, connect()) }
	for range 3 {
		got := make(chan int, 1)
		options := []fanout.SubscribeOption{fanout.WithMaxAttempts(1), fanout.WithVisibilityTimeout(time.Second)}
		here, err := onEngine("attempts", open())
		require.NoError(t, err)
		_, err = here.Subscribe(t.Context(), "q", func(context.Context, fanout.Delivery[string]) error { return nil }, options...)
		require.NoError(t, err)
		there, err := onEngine("attempts", open())
		require.NoError(t, err)
		time.Sleep(20 * time.Millisecond) // it waits by now, or not
		require.NoError(t, here.Close())
		time.Sleep(300 * time.Millisecond) // not long enough for its request to end by itself
		require.NoError(t, there.Publish(t.Context(), "late"))
		<-here.Done()
		s, err := there.Subscribe(t.Context(), "q", func(_ context.Context, d fanout.Delivery[string]) error {
			got <- d.Attempt()
			return nil
		}, options...)
		require.NoError(t, err)
		select {
		case attempt := <-got:
			require.Equal(t, 1, attempt)
		case <-time.After(patience):
			d, err := s.Queue().Depth(t.Context())
			t.Fatal("no handler has seen the message: ", s.Queue().Stats(), d, err)
		}
		stats := s.Queue().Stats()
		require.Zero(t, stats.DeadLettered)
		require.NoError(t, there.Shutdown(t.Context()))
	}
}

func TestWhatComesAfterCloseIsGivenBack(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	connect := func() jetstream.JetStream {
		nc, err := nats.Connect("", nats.InProcessServer(s))
		require.NoError(t, err)
		t.Cleanup(nc.Close)
		js, err := jetstream.New(nc)
		require.NoError(t, err)
		return js
	}
	t.Run("to others", func(t *testing.T) { requireGivenBack(t, 1, connect) })
	t.Run("with all attempts", func(t *testing.T) { requireNoAttemptSpent(t, connect) })
}

func engineOn(t *testing.T, js jetstream.JetStream) *fanoutnats.Engine {
	t.Helper()
	e, err := fanoutnats.New(js, fanoutnats.WithTimeout(3*patience))
	require.NoError(t, err)
	return e
}
