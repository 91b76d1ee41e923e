package fanoutnats_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/engine/fanoutnats/embedded"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
)

// patience bounds every wait of a test. It is no measurement: what is waited for
// comes, or the test fails.
const patience = 20 * time.Second

// soon returns the context of one step of a test, which has all of patience: steps that shared
// one would have less of it, the more of them there are and the busier the machine is.
func soon(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func openEmbedded(t *testing.T, dir string, options ...embedded.Option) *embedded.Engine {
	t.Helper()
	e, err := embedded.Open(dir, options...)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, e.Close()) })
	return e
}

// fast is an engine for tests that are not about the disk.
func fast(t *testing.T) *embedded.Engine {
	t.Helper()
	return openEmbedded(t, t.TempDir(), embedded.WithSyncInterval(time.Minute))
}

func openTopic(t *testing.T, e engine.Engine, spec engine.TopicSpec) engine.Topic {
	t.Helper()
	top, err := e.OpenTopic(t.Context(), spec)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, top.Close()) })
	return top
}

func openQueue(t *testing.T, top engine.Topic, spec engine.QueueSpec) engine.Queue {
	t.Helper()
	if spec.Visibility == 0 {
		spec.Visibility = 30 * time.Second
	}
	q, err := top.OpenQueue(t.Context(), spec)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, q.Close()) })
	return q
}

func message(k int) engine.Message {
	return engine.Message{ID: fmt.Sprintf("id-%d", k), Body: fmt.Appendf(nil, "body-%d", k), ContentType: "text/plain"}
}

func messages(n int) []engine.Message {
	ms := make([]engine.Message, n)
	for k := range ms {
		ms[k] = message(k)
	}
	return ms
}

// receive receives exactly n messages.
func receive(t *testing.T, q engine.Queue, n int, lease time.Duration) []engine.Received {
	t.Helper()
	var rs []engine.Received
	for len(rs) < n {
		got, err := q.Receive(soon(t), n-len(rs), lease)
		require.NoError(t, err)
		require.NotEmpty(t, got)
		rs = append(rs, got...)
	}
	require.Len(t, rs, n)
	return rs
}

// receiveOne receives one message.
func receiveOne(t *testing.T, q engine.Queue, lease time.Duration) engine.Received {
	t.Helper()
	return receive(t, q, 1, lease)[0]
}

// requireEmpty finds nothing in q for a while. A message that were there would be
// found at once.
func requireEmpty(t *testing.T, q engine.Queue) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
	defer cancel()
	rs, err := q.Receive(ctx, 10, time.Second)
	require.Empty(t, rs)
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

func bodies(rs []engine.Received) []string {
	var s []string
	for _, r := range rs {
		s = append(s, string(r.Body))
	}
	return s
}

func total(t *testing.T, q engine.Queue) int {
	t.Helper()
	s, err := q.Stats(t.Context())
	require.NoError(t, err)
	return s.Ready + s.Delayed + s.InFlight
}

// requireTotal waits until the server counts n messages for q: it counts what it has
// confirmed a moment later.
func requireTotal(t *testing.T, n int, q engine.Queue) {
	t.Helper()
	require.Eventually(t, func() bool { return total(t, q) == n }, patience, time.Millisecond)
}

// requireAtLeast is requireTotal for a queue that may hold more.
func requireAtLeast(t *testing.T, n int, q engine.Queue) {
	t.Helper()
	require.Eventually(t, func() bool { return total(t, q) >= n }, patience, time.Millisecond)
}

// requireRecords finds n records of messages in retry, of the topic "payments".
func requireRecords(t *testing.T, e *embedded.Engine, n int) {
	t.Helper()
	js, err := jetstream.New(e.Conn())
	require.NoError(t, err)
	s, err := js.Stream(t.Context(), "fanout-state-payments")
	require.NoError(t, err)
	require.EqualValues(t, n, s.CachedInfo().State.Msgs)
}
