// What the tests of this package share: a topic on an engine that is nothing but its host.

package enginequeue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"reflect"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/internal/core"
	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/fakeengine"
	"github.com/gofanout/fanout/internal/filter"
	"github.com/gofanout/fanout/internal/lifecycle"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/onengine"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/settings"
	"github.com/gofanout/fanout/internal/workers"
)

var errBroken = errors.New("broken")

// A host stands for the topic that is on the engine.
type host struct {
	queue.Home[string]
	on *Topic[string]
	e  *fakeengine.Engine

	// Guarded by Mu.
	seq    uint64
	queues map[string]*queue.Queue[string]
	told   []string
	closed bool
	refuse error // what Enter returns
	left   []string
}

// newHost returns a topic on the engine. Hooks that fail put their errors into what failed
// returns.
func newHost(t *testing.T, e *fakeengine.Engine, change ...func(s *settings.Topic)) *host {
	t.Helper()
	s := settings.Topic{
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)), Engine: e, Without: []engine.Feature{engine.Bounded, engine.AllOrNone},
		Partial: func(_ string, failed map[int]error, err error) error {
			return fmt.Errorf("%d failed: %w", len(failed), err)
		},
	}
	for _, f := range change {
		f(&s)
	}
	on, err := onengine.New("payments", s, reflect.TypeFor[string]())
	require.NoError(t, err)
	c, err := core.New("payments", s)
	require.NoError(t, err)
	h := &host{Home: queue.Home[string]{Core: c}, e: e, queues: map[string]*queue.Queue[string]{}}
	h.Admission, h.Owner = h, h
	h.on = &Topic[string]{Topic: on, Home: &h.Home, Admission: h, Host: h}
	return h
}

// hooked has f hear of events of one kind.
func hooked(k notice.Kind, f func(e notice.Event)) func(s *settings.Topic) {
	return func(s *settings.Topic) {
		s.Listen = append(s.Listen, func(l *notice.Listeners) { l.Hook(k, func(e *notice.Event) { f(*e) }) })
	}
}

// failures has errors of the engine that were told noted in y.
func failures(y *diary) func(s *settings.Topic) {
	return hooked(notice.EngineFailed, func(e notice.Event) { y.note("%v", e.Err) })
}

func (h *host) LetIn(*queue.Queue[string]) notice.Pending    { return notice.Pending{} }
func (h *host) HasTurnsLocked() bool                         { return false }
func (h *host) TurnsOfLocked(*queue.Queue[string])           {}
func (h *host) TakeOrphanLocked(string) *queue.Queue[string] { return nil }
func (h *host) EndQueue(*queue.Queue[string], bool) error    { return errors.ErrUnsupported }
func (h *host) RedriveLetters(context.Context, *queue.Queue[string], []queue.Letter) (int, error) {
	return 0, errors.ErrUnsupported
}

func (h *host) Stamp(_ context.Context, items []message.Item[string]) error {
	h.Mu.Lock()
	defer h.Mu.Unlock()
	if h.closed {
		return message.ErrClosed
	}
	for k := range items {
		h.seq++
		items[k].Seq, items[k].At = h.seq, h.Now()
	}
	return nil
}

func (h *host) TellPublished(items []message.Item[string]) {
	h.Mu.Lock()
	defer h.Mu.Unlock()
	for _, it := range items {
		h.told = append(h.told, it.Body)
	}
}

func (h *host) MayOpen(name string) error {
	h.Mu.Lock()
	defer h.Mu.Unlock()
	if h.closed {
		return message.ErrClosed
	}
	if h.queues[name] != nil {
		return message.ErrExists
	}
	return nil
}

func (h *host) Enter(q *queue.Queue[string]) error {
	h.Mu.Lock()
	defer h.Mu.Unlock()
	if h.refuse != nil {
		return h.refuse
	}
	h.Live.Add(2)
	h.queues[q.Name()] = q
	return nil
}

func (h *host) Leave(q *queue.Queue[string], deleting bool) (p notice.Pending, left bool) {
	h.Mu.Lock()
	if q.Closing {
		h.Mu.Unlock()
		return p, false
	}
	h.Live.Add(1)
	q.Closing = true
	h.left = append(h.left, fmt.Sprintf("%s, deleting: %t", q.Name(), deleting))
	delete(h.queues, q.Name())
	lifecycle.CloseNow(q, deleting)
	lifecycle.CloseNow(q.Dead, deleting)
	h.UnlockTo(&p)
	return p, true
}

func (h *host) QueueState(name string) (open, over bool) {
	h.Mu.Lock()
	defer h.Mu.Unlock()
	return h.queues[name] != nil, h.closed
}

func (h *host) HasEnded(q *queue.Queue[string]) bool {
	h.Mu.Lock()
	defer h.Mu.Unlock()
	return q.Closing
}

// end closes the queues, and waits until nothing of them runs.
func (h *host) end(t *testing.T) {
	t.Helper()
	synctest.Wait()
	h.Mu.Lock()
	h.closed = true
	var qs []*queue.Queue[string]
	for _, q := range h.queues {
		qs = append(qs, q)
	}
	h.Mu.Unlock()
	for _, q := range qs {
		require.NoError(t, lifecycle.Close(q))
	}
	h.Release()
	<-h.Live.Awaitable()
	h.on.Close()
}

// open opens queue q with the default settings, changed.
func (h *host) open(t *testing.T, change ...func(s *settings.Queue)) *queue.Queue[string] {
	t.Helper()
	q, err := h.tryOpen(t.Context(), "q", change...)
	require.NoError(t, err)
	return q
}

func (h *host) tryOpen(ctx context.Context, name string, change ...func(s *settings.Queue)) (*queue.Queue[string], error) {
	s := settings.DefaultQueue()
	s.Backoff = settings.Constant(time.Second)
	for _, f := range change {
		f(&s)
	}
	var filters []filter.Filter[string]
	for _, f := range s.Filters {
		filters = append(filters, f.(filter.Filter[string]))
	}
	return h.on.OpenQueue(ctx, name, s, filters, s.DeadLetters != nil)
}

func visible(d time.Duration) func(s *settings.Queue) {
	return func(s *settings.Queue) { s.Visibility = d }
}

func attempts(n int) func(s *settings.Queue) {
	return func(s *settings.Queue) { s.MaxAttempts = n }
}

// wanted has the queue take only bodies that f accepts.
func wanted(f func(body string) bool) func(s *settings.Queue) {
	return func(s *settings.Queue) { s.Filters = append(s.Filters, filter.Filter[string]{Body: f}) }
}

// publish publishes bodies, each by itself.
func (h *host) publish(t *testing.T, bodies ...string) {
	t.Helper()
	for _, b := range bodies {
		require.NoError(t, h.on.Publish(t.Context(), []message.Item[string]{{Body: b}}, false))
	}
}

// receive receives one message.
func receive(t *testing.T, q *queue.Queue[string]) delivery.Delivery[string] {
	t.Helper()
	ds, err := delivery.TakeBatch(t.Context(), q, 1, q.Visibility())
	require.NoError(t, err)
	require.Len(t, ds, 1)
	return ds[0]
}

// requireNone requires that nothing is ready for a caller.
func requireNone(t *testing.T, q *queue.Queue[string]) {
	t.Helper()
	var d delivery.Delivery[string]
	ok, err := delivery.TryTake(t.Context(), q, &d, q.Visibility())
	require.NoError(t, err)
	require.False(t, ok, "%s is ready", d.Body)
}

// kept is what the engine holds of the queue, as another process sees it.
func (h *host) kept(t *testing.T) (messages, letters engine.Stats) {
	t.Helper()
	top, err := h.e.Sibling().OpenTopic(t.Context(), engine.TopicSpec{Name: "payments"})
	require.NoError(t, err)
	q, err := top.OpenQueue(t.Context(), engine.QueueSpec{Name: "q", Visibility: 30 * time.Second, MaxAttempts: 5})
	require.NoError(t, err)
	messages, err = q.Stats(t.Context())
	require.NoError(t, err)
	letters, err = q.DeadLetters().Stats(t.Context())
	require.NoError(t, err)
	messages.OldestAge, letters.OldestAge = 0, 0
	return messages, letters
}

// work has n workers run f on the queue's messages.
func work(t *testing.T, q *queue.Queue[string], n int, f func(ctx context.Context, d delivery.Delivery[string]) error, change ...func(s *settings.Subscriber)) *workers.Subscriber[string] {
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

// bodies are in order.
func bodies(ds []delivery.Delivery[string]) (bs []string) {
	for _, d := range ds {
		bs = append(bs, d.Body)
	}
	slices.Sort(bs)
	return bs
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
	lines chan string
}

func newDiary() *diary { return &diary{time.Now(), make(chan string, 1000)} }

func (y *diary) note(format string, args ...any) {
	y.lines <- fmt.Sprintf("%v: ", time.Since(y.began)) + fmt.Sprintf(format, args...)
}

// read returns the lines since the last time.
func (y *diary) read() (lines []string) {
	for len(y.lines) > 0 {
		lines = append(lines, <-y.lines)
	}
	return lines
}

// A codec is JSON's, except for some bodies.
type codec struct{ settings.JSON }

func (c codec) Encode(body any) ([]byte, error) {
	switch body {
	case "not encodable":
		return nil, errBroken
	case "encoding panics":
		panic("boom")
	}
	return c.JSON.Encode(body)
}

func (c codec) Decode(data []byte, body any) error {
	switch string(data) {
	case `"not decodable"`:
		return errBroken
	case `"decoding panics"`:
		panic("boom")
	}
	return c.JSON.Decode(data, body)
}

func broken(s *settings.Topic) { s.Codec = codec{} }
