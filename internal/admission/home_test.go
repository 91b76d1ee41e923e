// What the tests of this package share: an admission with nothing above it but its queues.

package admission

import (
	"context"
	"io"
	"log/slog"
	"math"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/core"
	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/filter"
	"github.com/gofanout/fanout/internal/lifecycle"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/settings"
	"github.com/gofanout/fanout/internal/view"
)

// A home stands for the topic, which has an admission and opens and closes queues.
type home[T any] struct {
	Admission[T]
	queues []*queue.Queue[T]
}

// newHome returns one that has no queues.
func newHome[T any](t *testing.T, set settings.Topic) *home[T] {
	t.Helper()
	set.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	c, err := core.New("payments", set)
	require.NoError(t, err)
	h := new(home[T])
	h.Init(c, set)
	h.Owner = h
	return h
}

// A setting is one of a queue.
type setting func(set *settings.Queue)

func capacity(n int) setting { return func(set *settings.Queue) { set.Capacity = n } }

func overflows(o settings.Overflow) setting { return func(set *settings.Queue) { set.Overflow = o } }

// open opens a queue with filters, nil if it has none.
func (h *home[T]) open(name string, filters []filter.Filter[T], ss ...setting) *queue.Queue[T] {
	set := settings.DefaultQueue()
	for _, s := range ss {
		s(&set)
	}
	q := queue.NewQueue(h.Core, &h.Home, name, &set.Limits)
	q.Store.Direct, q.Filters = set.Delay > 0, filter.New(filters)
	h.Connect(q)
	h.Mu.Lock()
	defer h.Mu.Unlock()
	q.Mu.Lock()
	defer q.Mu.Unlock()
	h.Live.Add(1)
	h.queues = append(h.queues, q)
	h.AddLocked(q)
	return q
}

func (h *home[T]) TakeOrphanLocked(string) *queue.Queue[T] { return nil }

// EndQueue closes a queue, and its dead letters with it.
func (h *home[T]) EndQueue(q *queue.Queue[T], _ bool) error {
	h.Mu.Lock()
	h.Live.Add(1)
	defer h.Release()
	q.Closing = true
	h.closeLocked(q)
	defer q.Report.Stop()
	h.queues = slices.DeleteFunc(h.queues, func(other *queue.Queue[T]) bool { return other == q })
	h.RemoveLocked(q)
	h.TurnsWithoutLocked(q)
	h.Unlock()
	return nil
}

func (h *home[T]) closeLocked(q *queue.Queue[T]) {
	lifecycle.CloseNow(q, false)
	if d := lifecycle.DeadIfAny(q); d != nil {
		lifecycle.CloseNow(d, false)
		d.Report.Stop()
	}
}

// end ends the admission, and then its queues. It waits until nothing of them runs.
func (h *home[T]) end(t *testing.T) {
	t.Helper()
	h.Mu.Lock()
	tell := h.CloseLocked()
	for _, q := range h.queues {
		q.Closing = true
		h.closeLocked(q)
		defer q.Report.Stop()
	}
	h.Unlock()
	tell()
	h.Release()
}

func (h *home[T]) check(t *testing.T) {
	t.Helper()
	require.NoError(t, h.Check())
	for _, q := range h.queues {
		require.NoError(t, q.Check())
	}
}

func (h *home[T]) publish(t *testing.T, bodies ...T) {
	t.Helper()
	for _, b := range bodies {
		require.NoError(t, h.Publish(context.Background(), b))
	}
}

func receive[T any](t *testing.T, q *queue.Queue[T]) delivery.Delivery[T] {
	t.Helper()
	var d delivery.Delivery[T]
	ok, err := delivery.TryTake(context.Background(), q, &d, q.Visibility())
	require.NoError(t, err)
	require.True(t, ok, "queue %q has nothing ready: %+v", q.Name(), view.StatsOf(q))
	return d
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

func accepting[T any](accepts func(T) bool) []filter.Filter[T] {
	return []filter.Filter[T]{{Body: accepts}}
}

func all(int) bool { return true }

// bubble runs f in virtual time.
func bubble(t *testing.T, f func(t *testing.T, ctx context.Context)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, t.Context()) })
}
