// What the tests of this package share: a queue that has no topic above it.

package workers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
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
)

var errBusy = errors.New("busy")

// A home stands for the topic above one queue: it has a log, and nobody waits for room in it.
type home[T any] struct {
	queue.Home[T]
	log *log.Log[message.Item[T]]
	seq uint64
	q   *queue.Queue[T]
}

// A setting is one of a topic, a queue or a subscriber.
type setting func(top *settings.Topic, q *settings.Queue, sub *settings.Subscriber)

func topic(f func(top *settings.Topic)) setting {
	return func(top *settings.Topic, _ *settings.Queue, _ *settings.Subscriber) { f(top) }
}

// hooked has f hear of events of one kind.
func hooked(k notice.Kind, f func(e notice.Event)) setting {
	return topic(func(top *settings.Topic) {
		top.Listen = append(top.Listen, func(l *notice.Listeners) { l.Hook(k, func(e *notice.Event) { f(*e) }) })
	})
}

func limits(f func(q *settings.Limits)) setting {
	return func(_ *settings.Topic, q *settings.Queue, _ *settings.Subscriber) { f(&q.Limits) }
}

func visible(d time.Duration) setting { return limits(func(q *settings.Limits) { q.Visibility = d }) }
func backoff(d time.Duration) setting {
	return limits(func(q *settings.Limits) { q.Backoff = settings.Constant(d) })
}

func sub(f func(sub *settings.Subscriber)) setting {
	return func(_ *settings.Topic, _ *settings.Queue, sub *settings.Subscriber) { f(sub) }
}

func concurrency(n int) setting { return sub(func(sub *settings.Subscriber) { sub.Concurrency = n }) }
func batchesOf(n int) setting   { return sub(func(sub *settings.Subscriber) { sub.Batch = n }) }
func every(d time.Duration) setting {
	return sub(func(sub *settings.Subscriber) { sub.Every = d })
}
func handlerTimeout(d time.Duration) setting {
	return sub(func(sub *settings.Subscriber) { sub.HandlerTimeout = d })
}

func set(ss []setting) (top settings.Topic, q settings.Queue, sub settings.Subscriber) {
	top, q, sub = settings.Topic{Logger: slog.New(slog.NewTextHandler(io.Discard, nil))}, settings.DefaultQueue(), settings.DefaultSubscriber()
	q.Capacity = 1 << 20
	for _, s := range ss {
		s(&top, &q, &sub)
	}
	return top, q, sub
}

// newHome opens a queue called q.
func newHome[T any](t *testing.T, ss ...setting) *home[T] {
	t.Helper()
	top, set, _ := set(ss)
	c, err := core.New("payments", top)
	require.NoError(t, err)
	h := &home[T]{Home: queue.Home[T]{Core: c}, log: log.New[message.Item[T]](log.SegmentOf[message.Item[T]]())}
	h.Admission, h.Owner = h, h
	h.q = queue.NewQueue(c, &h.Home, "q", &set.Limits)
	h.q.Store.Log, h.q.Idle = h.log, &h.Idle
	h.q.Store.Cursor = h.log.Cursor()
	h.Live.Add(1)
	return h
}

func (h *home[T]) LetIn(*queue.Queue[T]) notice.Pending         { return notice.Pending{} }
func (h *home[T]) HasTurnsLocked() bool                         { return false }
func (h *home[T]) TurnsOfLocked(*queue.Queue[T])                {}
func (h *home[T]) TakeOrphanLocked(name string) *queue.Queue[T] { return nil }

func (h *home[T]) RedriveLetters(context.Context, *queue.Queue[T], []queue.Letter) (int, error) {
	return 0, errors.ErrUnsupported
}

// EndQueue closes the queue, and its dead letters with it.
func (h *home[T]) EndQueue(*queue.Queue[T], bool) error {
	h.Mu.Lock()
	h.Live.Add(1)
	defer h.Release()
	lifecycle.CloseNow(h.q, false)
	defer h.q.Report.Stop()
	if d := lifecycle.DeadIfAny(h.q); d != nil {
		lifecycle.CloseNow(d, false)
		defer d.Report.Stop()
	}
	h.Unlock()
	return nil
}

// end closes the queue, and waits until nothing of it runs.
func (h *home[T]) end(t *testing.T) {
	t.Helper()
	synctest.Wait()
	require.NoError(t, h.q.Check())
	require.NoError(t, lifecycle.Close(h.q))
	h.Release()
	<-h.Live.Awaitable()
}

// items publishes items in one step.
func (h *home[T]) items(is ...message.Item[T]) {
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
func (h *home[T]) publish(bodies ...T) {
	is := make([]message.Item[T], len(bodies))
	for k, b := range bodies {
		is[k].Body = b
	}
	h.items(is...)
}

// subscribe starts a subscriber with a handler of single messages.
func (h *home[T]) subscribe(t *testing.T, f OneHandler[T], ss ...setting) *Subscriber[T] {
	t.Helper()
	return start(t, h.q, f, nil, ss...)
}

// subscribeBatch starts a subscriber with a batch handler.
func (h *home[T]) subscribeBatch(t *testing.T, f BatchHandler[T], ss ...setting) *Subscriber[T] {
	t.Helper()
	return start(t, h.q, nil, f, ss...)
}

func start[T any](t *testing.T, q *queue.Queue[T], one OneHandler[T], batch BatchHandler[T], ss ...setting) *Subscriber[T] {
	t.Helper()
	_, _, sub := set(ss)
	s, err := Start(q, one, batch, sub)
	require.NoError(t, err)
	return s
}

func receive[T any](t *testing.T, q *queue.Queue[T]) (d delivery.Delivery[T]) {
	t.Helper()
	ok, err := delivery.TryTake(t.Context(), q, &d, q.Visibility())
	require.NoError(t, err)
	require.True(t, ok, "nothing is ready: %+v", view.StatsOf(q))
	return d
}

// waiting returns what is ready, delayed or retrying.
func waiting[T any](t *testing.T, q *queue.Queue[T]) []T {
	t.Helper()
	ds, err := view.Peek(t.Context(), q, 1<<20)
	require.NoError(t, err)
	return bodiesOf(ds)
}

func bodiesOf[T any](ds []delivery.Delivery[T]) []T {
	bs := []T{}
	for _, d := range ds {
		bs = append(bs, d.Body)
	}
	return bs
}

// from returns k to n-1.
func from(k, n int) []int {
	list := []int{}
	for ; k < n; k++ {
		list = append(list, k)
	}
	return list
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

// A diary says what happened when, since it was begun.
type diary struct {
	began time.Time

	mu    sync.Mutex
	lines []string
}

func newDiary() *diary { return &diary{began: time.Now()} }

func (y *diary) note(format string, args ...any) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.lines = append(y.lines, fmt.Sprintf("%v: ", time.Since(y.began))+fmt.Sprintf(format, args...))
}

// read returns the lines since the last time.
func (y *diary) read() []string {
	y.mu.Lock()
	defer y.mu.Unlock()
	lines := y.lines
	y.lines = nil
	return lines
}

func limitsTTL(d time.Duration) setting { return limits(func(q *settings.Limits) { q.TTL = d }) }
