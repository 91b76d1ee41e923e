// What these tests share: topics and queues of strings on an engine, most of the time the fake one.

package engines_test

import (
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/engine"
)

var errBroken = errors.New("the engine is broken")

var quiet = fanout.WithLogger(slog.New(slog.DiscardHandler))

func onEngine(t *testing.T, e engine.Engine, options ...fanout.TopicOption) *fanout.Topic[string] {
	t.Helper()
	top, err := fanout.NewTopic[string]("payments", append([]fanout.TopicOption{fanout.WithEngine(e), quiet}, options...)...)
	require.NoError(t, err)
	return top
}

func engineQueue(t *testing.T, top *fanout.Topic[string], options ...fanout.QueueOption) *fanout.Queue[string] {
	t.Helper()
	q, err := top.OpenQueue(t.Context(), "q", options...)
	require.NoError(t, err)
	return q
}

func next(t *testing.T, q *fanout.Queue[string]) fanout.Delivery[string] {
	t.Helper()
	d, err := q.Receive(t.Context())
	require.NoError(t, err)
	return d
}

func endTopic(t *testing.T, top *fanout.Topic[string]) {
	t.Helper()
	require.NoError(t, top.Close())
	<-top.Done()
}

// brokenCodec can't encode what says so, nor decode what does.
type brokenCodec struct{ fanout.Codec }

func (c brokenCodec) Encode(body any) ([]byte, error) {
	if body == "not encodable" {
		return nil, errBroken
	}
	return c.Codec.Encode(body)
}

func (c brokenCodec) Decode(data []byte, body any) error {
	if strings.Contains(string(data), "not decodable") {
		return errBroken
	}
	return c.Codec.Decode(data, body)
}
