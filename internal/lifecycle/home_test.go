// What the tests of this package share: a queue that has no topic above it.

package lifecycle

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
	"github.com/gofanout/fanout/internal/ending"
	"github.com/gofanout/fanout/internal/log"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/settings"
	"github.com/gofanout/fanout/internal/store"
)

var errBusy = errors.New("busy")

// A home stands for the topic above one queue: it has a log, and nobody waits for room in it.
type home struct {
	queue.Home[int]
	log  *log.Log[message.Item[int]]
	seq  uint64
	q    *queue.Queue[int]
	left ending.Left // of the queue, when it was closed
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
	h.q = queue.NewQueue(c, &h.Home, "q", &set)
	h.q.Store.Log, h.q.Idle = h.log, &h.Idle
	h.q.Store.Cursor = h.log.Cursor()
	h.Live.Add(1)
	return h
}

func (h *home) LetIn(*queue.Queue[int]) notice.Pending    { return notice.Pending{} }
func (h *home) HasTurnsLocked() bool                      { return false }
func (h *home) TurnsOfLocked(*queue.Queue[int])           {}
func (h *home) TakeOrphanLocked(string) *queue.Queue[int] { return nil }
func (h *home) RedriveLetters(context.Context, *queue.Queue[int], []queue.Letter) (int, error) {
	return 0, errors.ErrUnsupported
}

// EndQueue closes the queue, and its dead letters with it.
func (h *home) EndQueue(_ *queue.Queue[int], deleting bool) error {
	h.Mu.Lock()
	h.Live.Add(1)
	defer h.Release()
	h.left = CloseNow(h.q, deleting)
	defer h.q.Report.Stop()
	if d := DeadIfAny(h.q); d != nil {
		CloseNow(d, deleting)
		defer d.Report.Stop()
	}
	h.Unlock()
	return nil
}

// end closes the queue, and waits until nothing of it runs.
func (h *home) end(t *testing.T) {
	t.Helper()
	synctest.Wait()
	h.check(t)
	require.NoError(t, Close(h.q))
	h.over()
}

// over waits until nothing of the queue, which is closed, runs.
func (h *home) over() {
	h.Release()
	<-h.Live.Awaitable()
}

// check checks the invariants, and the books of the queue.
func (h *home) check(t *testing.T) {
	t.Helper()
	require.NoError(t, h.q.Check())
	if d := h.q.DeadNow(); d != nil {
		require.NoError(t, d.Check())
	}
}

// items publishes items in one step.
func (h *home) items(is ...message.Item[int]) {
	h.Mu.Lock()
	for _, it := range is {
		h.seq++
		it.Seq, it.At = h.seq, h.Now()
		h.log.Append(it)
	}
	h.log.Publish()
	h.Mu.Unlock()
	h.WakeAll(&h.Idle)
}

// publish publishes bodies in one step.
func (h *home) publish(bodies ...int) {
	is := make([]message.Item[int], len(bodies))
	for k, b := range bodies {
		is[k].Body = b
	}
	h.items(is...)
}

// counts are the numbers of messages that are ready, in flight, retrying and delayed, and
// that were acknowledged.
type counts struct{ ready, inFlight, retrying, delayed, acked int }

func countsOf(q *queue.Queue[int]) (c counts) {
	q.Locked(func() {
		q.Store.Count()
		c = counts{q.Store.Ready(), q.Store.Leases.Counts().InFlight + q.Store.In(store.InFlight), q.Store.In(store.Retrying), q.Store.In(store.Delayed), int(q.Store.Acked)}
	})
	return c
}

// take takes so many messages, which are ready.
func take(t *testing.T, q *queue.Queue[int], n int) []delivery.Delivery[int] {
	t.Helper()
	ds := make([]delivery.Delivery[int], n)
	for k := range ds {
		ok, err := delivery.TryTake(t.Context(), q, &ds[k], q.Visibility())
		require.NoError(t, err)
		require.True(t, ok, "nothing is ready: %+v", countsOf(q))
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

func bodiesOf(ms []message.Published[int]) (bs []int) {
	for _, m := range ms {
		bs = append(bs, m.Body)
	}
	return bs
}

// armed reports whether the queue's timer is armed.
func armed(q *queue.Queue[int]) (is bool) {
	q.Locked(func() { is = q.Alarm.Armed })
	return is
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
