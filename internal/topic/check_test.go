package topic

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/view"
	"github.com/gofanout/fanout/internal/workers"
)

var errBusy = errors.New("busy")

// silent is for tests that lose messages on purpose.
var silent = WithLogger(slog.New(slog.NewTextHandler(io.Discard, nil)))

// bubble runs f in virtual time.
func bubble(t *testing.T, f func(t *testing.T, ctx context.Context)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, t.Context()) })
}

func newTopic[T any](t *testing.T, options ...TopicOption) *Topic[T] {
	t.Helper()
	top, err := NewTopic[T]("payments", append([]TopicOption{silent}, options...)...)
	require.NoError(t, err)
	return top
}

func openQueue[T any](t *testing.T, top *Topic[T], name string, options ...QueueOption) *queue.Queue[T] {
	t.Helper()
	q, err := top.OpenQueue(context.Background(), name, options...)
	require.NoError(t, err)
	return q
}

func subscribe[T any](t *testing.T, top *Topic[T], name string, h Handler[T], options ...SubscribeOption) *workers.Subscriber[T] {
	t.Helper()
	s, err := top.Subscribe(context.Background(), name, h, options...)
	require.NoError(t, err)
	return s
}

func publish[T any](t *testing.T, top *Topic[T], bodies ...T) {
	t.Helper()
	for _, b := range bodies {
		require.NoError(t, top.In.Publish(context.Background(), b))
	}
}

func receive[T any](t *testing.T, q *queue.Queue[T], options ...ReceiveOption) delivery.Delivery[T] {
	t.Helper()
	d, ok, err := tryReceiveFrom(q, context.Background(), options...)
	require.NoError(t, err)
	require.True(t, ok, "queue %q has nothing ready: %+v", q.Name(), view.StatsOf(q))
	return d
}

func requireEmpty[T any](t *testing.T, q *queue.Queue[T]) {
	t.Helper()
	d, ok, err := tryReceiveFrom(q, context.Background())
	require.NoError(t, err)
	require.False(t, ok, "queue %q gave out %v", q.Name(), d.Body)
}

// bodies peeks at what is ready, delayed or retrying.
func bodies[T any](t *testing.T, q *queue.Queue[T]) []T {
	t.Helper()
	ds, err := view.Peek(context.Background(), q, math.MaxInt)
	require.NoError(t, err)
	bs := []T{}
	for _, d := range ds {
		bs = append(bs, d.Body)
	}
	return bs
}

// check walks the invariants that stand above Queue and Topic. Nothing else may
// run on the topic meanwhile but consumers.
func check[T any](t *testing.T, top *Topic[T]) {
	t.Helper()
	require.NoError(t, top.Check())
}
