// What the tests of this package share: an admission with nothing above it but its queues.

package admission

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/core"
	"github.com/gofanout/fanout/internal/deadletter"
	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/filter"
	"github.com/gofanout/fanout/internal/intercept"
	"github.com/gofanout/fanout/internal/lifecycle"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/settings"
	"github.com/gofanout/fanout/internal/view"
	"github.com/gofanout/fanout/internal/workers"
)

var errBusy = errors.New("busy")

// A home stands for the topic, which has an admission and opens and closes queues.
type home[T any] struct {
	Admission[T]
	queues []*queue.Queue[T]
}

// A topicSetting is one of the topic.
type topicSetting func(set *settings.Topic)

func ordering(set *settings.Topic) { set.Ordering = true }

func deduplicating(window time.Duration, most int) topicSetting {
	return func(set *settings.Topic) { set.DedupWindow, set.DedupMax = window, most }
}

func retaining(n int) topicSetting { return func(set *settings.Topic) { set.Retention = n } }

func intercepting(is ...intercept.Interceptor) topicSetting {
	return func(set *settings.Topic) { set.Publishing = append(set.Publishing, is...) }
}

// hooked has f hear of events of one kind.
func hooked(k notice.Kind, f func(e notice.Event)) topicSetting {
	return func(set *settings.Topic) {
		set.Listen = append(set.Listen, func(l *notice.Listeners) { l.Hook(k, func(e *notice.Event) { f(*e) }) })
	}
}

// newHome returns one that has no queues.
func newHome[T any](t *testing.T, ss ...topicSetting) *home[T] {
	t.Helper()
	set := settings.Topic{Logger: slog.New(slog.NewTextHandler(io.Discard, nil))}
	for _, s := range ss {
		s(&set)
	}
	c, err := core.New("payments", set)
	require.NoError(t, err)
	h := new(home[T])
	h.Init(c, set)
	h.Owner = h
	return h
}

// queueSettings are all that a queue is opened with.
type queueSettings struct {
	settings.Queue
	filters any // []filter.Filter[T]
}

// A setting is one of a queue.
type setting func(set *queueSettings)

func limits(f func(q *settings.Limits)) setting {
	return func(set *queueSettings) { f(&set.Limits) }
}

func capacity(n int) setting { return limits(func(q *settings.Limits) { q.Capacity = n }) }

func overflows(o settings.Overflow) setting {
	return limits(func(q *settings.Limits) { q.Overflow = o })
}

func timeToLive(d time.Duration) setting { return limits(func(q *settings.Limits) { q.TTL = d }) }

func visibility(d time.Duration) setting {
	return limits(func(q *settings.Limits) { q.Visibility = d })
}

func attempts(n int) setting { return limits(func(q *settings.Limits) { q.MaxAttempts = n }) }

func deadCapacity(n int) setting { return limits(func(q *settings.Limits) { q.DeadCapacity = n }) }

func delayed(d time.Duration) setting { return limits(func(q *settings.Limits) { q.Delay = d }) }

// filtered is all filters of a queue.
func filtered[T any](fs ...filter.Filter[T]) setting {
	return func(set *queueSettings) { set.filters = fs }
}

func accepting[T any](accepts func(T) bool) setting {
	return filtered(filter.Filter[T]{Body: accepts})
}

func all(int) bool { return true }

// open opens a queue.
func (h *home[T]) open(name string, ss ...setting) *queue.Queue[T] {
	set := queueSettings{Queue: settings.DefaultQueue()}
	for _, s := range ss {
		s(&set)
	}
	filters, _ := set.filters.([]filter.Filter[T])
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
	if q.Closing {
		h.Mu.Unlock()
		return nil
	}
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
	<-h.Live.Awaitable()
}

// shutdown has the admission take nothing but what running handlers publish.
func (h *home[T]) shutdown() {
	h.Mu.Lock()
	tell := h.BeginClosingLocked(map[any]bool{h.Core: true})
	var p notice.Pending
	h.UnlockTo(&p)
	tell()
	p.Perform()
}

func (h *home[T]) check(t *testing.T) {
	t.Helper()
	require.NoError(t, h.Check())
	for _, q := range h.queues {
		require.NoError(t, q.Check())
		if d := q.DeadNow(); d != nil {
			require.NoError(t, d.Check())
		}
	}
}

func (h *home[T]) stats() Stats {
	h.Mu.Lock()
	defer h.Mu.Unlock()
	return h.StatsLocked()
}

func (h *home[T]) publish(t *testing.T, bodies ...T) {
	t.Helper()
	for _, b := range bodies {
		require.NoError(t, h.Publish(context.Background(), b))
	}
}

func (h *home[T]) publishAll(t *testing.T, ms ...message.Published[T]) {
	t.Helper()
	require.NoError(t, h.PublishBatch(context.Background(), ms))
}

// waiting publishes in a goroutine, and returns where the error will come.
func (h *home[T]) waiting(ctx context.Context, ms ...message.Published[T]) <-chan error {
	errs := make(chan error, 1)
	go func() { errs <- h.PublishBatch(ctx, ms) }()
	synctest.Wait()
	return errs
}

func requireWaiting(t *testing.T, errs <-chan error) {
	t.Helper()
	synctest.Wait()
	select {
	case err := <-errs:
		require.Fail(t, "it does not wait", "it returned %v", err)
	default:
	}
}

func requireDecided(t *testing.T, errs <-chan error) error {
	t.Helper()
	synctest.Wait()
	select {
	case err := <-errs:
		return err
	default:
		require.Fail(t, "it waits")
		return nil
	}
}

// handle starts a subscriber.
func handle[T any](t *testing.T, q *queue.Queue[T], concurrency int, f workers.OneHandler[T]) {
	t.Helper()
	set := settings.DefaultSubscriber()
	set.Concurrency = concurrency
	_, err := workers.Start(q, f, nil, set)
	require.NoError(t, err)
}

// redrive moves all dead letters of q back.
func redrive[T any](ctx context.Context, q *queue.Queue[T]) (moved int, err error) {
	return deadletter.Redrive(ctx, q, &deadletter.Choice[T]{})
}

// kill receives a message of q, and makes it a dead letter.
func kill[T any](t *testing.T, q *queue.Queue[T]) {
	t.Helper()
	require.NoError(t, receive(t, q).Settle(t.Context(), message.Permanent(errBusy)))
}

func receive[T any](t *testing.T, q *queue.Queue[T]) delivery.Delivery[T] {
	t.Helper()
	var d delivery.Delivery[T]
	ok, err := delivery.TryTake(context.Background(), q, &d, q.Visibility())
	require.NoError(t, err)
	require.True(t, ok, "queue %q has nothing ready: %+v", q.Name(), view.StatsOf(q))
	return d
}

func requireEmpty[T any](t *testing.T, q *queue.Queue[T]) {
	t.Helper()
	var d delivery.Delivery[T]
	ok, err := delivery.TryTake(context.Background(), q, &d, q.Visibility())
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

// elapse lets d pass, and all that it brings about.
func elapse(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// bubble runs f in virtual time.
func bubble(t *testing.T, f func(t *testing.T, ctx context.Context)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, t.Context()) })
}
