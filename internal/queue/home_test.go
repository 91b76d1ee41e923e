// What the tests of this package share: queues that have no topic above them.

package queue_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/core"
	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/lifecycle"
	"github.com/gofanout/fanout/internal/log"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/settings"
	"github.com/gofanout/fanout/internal/view"
	"github.com/gofanout/fanout/internal/workers"
)

var errBusy = errors.New("busy")

// A home stands for the topic above its queues: it has a log, and lets in those who wait as it
// is told.
type home struct {
	queue.Home[int]
	log    *log.Log[message.Item[int]]
	seq    uint64
	q      *queue.Queue[int]
	orphan *queue.Queue[int]
	turns  bool                                        // it is somebody's turn
	letIn  func(room *queue.Queue[int]) notice.Pending // nil: nobody waits
}

// A setting is one of a topic or a queue.
type setting func(top *settings.Topic, q *settings.Limits)

// hooked has f hear of events of one kind.
func hooked(k notice.Kind, f func(e notice.Event)) setting {
	return func(top *settings.Topic, _ *settings.Limits) {
		top.Listen = append(top.Listen, func(l *notice.Listeners) { l.Hook(k, func(e *notice.Event) { f(*e) }) })
	}
}

func limits(f func(q *settings.Limits)) setting {
	return func(_ *settings.Topic, q *settings.Limits) { f(q) }
}

func attempts(n int) setting { return limits(func(q *settings.Limits) { q.MaxAttempts = n }) }

// newHome opens a queue called q. A delivery has ten seconds, and a retry waits for one.
func newHome(t *testing.T, ss ...setting) *home {
	t.Helper()
	h := new(home)
	top := settings.Topic{Logger: slog.New(slog.NewTextHandler(io.Discard, nil))}
	set := settings.DefaultQueue().Limits
	set.Capacity, set.Visibility, set.Backoff = 1<<20, 10*time.Second, settings.Constant(time.Second)
	for _, s := range ss {
		s(&top, &set)
	}
	c, err := core.New("payments", top)
	require.NoError(t, err)
	h.Home.Core, h.log = c, log.New[message.Item[int]](log.SegmentOf[message.Item[int]]())
	h.Admission, h.Owner = h, h
	h.q = h.open("q", &set)
	return h
}

// open opens one more queue.
func (h *home) open(name string, set *settings.Limits) *queue.Queue[int] {
	q := queue.NewQueue(h.Core, &h.Home, name, set)
	q.Store.Log, q.Idle = h.log, &h.Idle
	q.Store.Cursor = h.log.Cursor()
	h.Live.Add(1)
	return q
}

func (h *home) LetIn(q *queue.Queue[int]) (p notice.Pending) {
	if h.letIn != nil {
		p = h.letIn(q)
	}
	return p
}
func (h *home) HasTurnsLocked() bool                      { return h.turns }
func (h *home) TurnsOfLocked(*queue.Queue[int])           {}
func (h *home) TakeOrphanLocked(string) *queue.Queue[int] { return h.orphan }
func (h *home) RedriveLetters(context.Context, *queue.Queue[int], []queue.Letter) (int, error) {
	return 0, errors.ErrUnsupported
}

// EndQueue closes a queue, and its dead letters with it.
func (h *home) EndQueue(q *queue.Queue[int], deleting bool) error {
	h.Mu.Lock()
	h.Live.Add(1)
	defer h.Release()
	lifecycle.CloseNow(q, deleting)
	defer q.Report.Stop()
	if d := lifecycle.DeadIfAny(q); d != nil {
		lifecycle.CloseNow(d, deleting)
		defer d.Report.Stop()
	}
	h.Unlock()
	return nil
}

// end closes the queues, and waits until nothing of them runs.
func (h *home) end(t *testing.T, others ...*queue.Queue[int]) {
	t.Helper()
	synctest.Wait()
	for _, q := range append(others, h.q) {
		require.NoError(t, q.Check())
		if d := q.DeadNow(); d != nil {
			require.NoError(t, d.Check())
		}
		require.NoError(t, lifecycle.Close(q))
	}
	h.Release()
	<-h.Live.Awaitable()
}

// publish publishes bodies in one step.
func (h *home) publish(bodies ...int) {
	h.Mu.Lock()
	for _, b := range bodies {
		h.seq++
		h.log.Append(message.Item[int]{Body: b, Seq: h.seq, At: h.Now()})
	}
	h.log.Publish()
	h.Mu.Unlock()
	h.WakeAll(&h.Idle)
}

// take takes so many messages, which are ready.
func take(t *testing.T, q *queue.Queue[int], n int) []delivery.Delivery[int] {
	t.Helper()
	ds := make([]delivery.Delivery[int], n)
	for k := range ds {
		ok, err := delivery.TryTake(t.Context(), q, &ds[k], q.Visibility())
		require.NoError(t, err)
		require.True(t, ok, "nothing is ready: %+v", view.StatsOf(q))
	}
	return ds
}

func requireNone(t *testing.T, q *queue.Queue[int]) {
	t.Helper()
	var d delivery.Delivery[int]
	ok, err := delivery.TryTake(t.Context(), q, &d, q.Visibility())
	require.NoError(t, err)
	require.False(t, ok, "%d is ready", d.Body)
}

// die has messages die.
func die(t *testing.T, ds ...delivery.Delivery[int]) {
	t.Helper()
	for _, d := range ds {
		require.NoError(t, d.Settle(t.Context(), message.Permanent(errBusy)))
	}
}

// seen are the bodies that wait, in the order of publication.
func seen(t *testing.T, q *queue.Queue[int]) []int {
	t.Helper()
	ds, err := view.Peek(t.Context(), q, 1<<20)
	require.NoError(t, err)
	bs := []int{}
	for _, d := range ds {
		bs = append(bs, d.Body)
	}
	return bs
}

// subscribe has n workers run f.
func subscribe(t *testing.T, q *queue.Queue[int], n int, f func(ctx context.Context, d delivery.Delivery[int]) error, change ...func(s *settings.Subscriber)) *workers.Subscriber[int] {
	t.Helper()
	set := settings.DefaultSubscriber()
	set.Concurrency = n
	for _, f := range change {
		f(&set)
	}
	s, err := workers.Start(q, f, nil, set)
	require.NoError(t, err)
	return s
}

// armed reports whether the queue's timer is armed.
func armed(q *queue.Queue[int]) (is bool) {
	q.Locked(func() { is = q.Alarm.Armed })
	return is
}

// checkAt is when the queue is looked at.
func checkAt(q *queue.Queue[int]) (at int64) {
	q.Locked(func() { at = q.Alarm.CheckAt })
	return at
}

// resting reports whether the log was let go of.
func resting(q *queue.Queue[int]) (is bool) {
	q.Locked(func() { is = q.Store.Cursor.Resting() })
	return is
}

// limited is until when a rate limit lets nobody start; 0: nobody waits for that.
func limited(q *queue.Queue[int]) (at int64) {
	q.Locked(func() { at = q.Limited })
	return at
}

// elapse lets d pass, and all that it brings about.
func elapse(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// bubble runs f in virtual time. All goroutines of the bubble have ended when it returns.
func bubble(t *testing.T, f func(t *testing.T, ctx context.Context)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, t.Context()) })
}
