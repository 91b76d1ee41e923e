// Package kit is what the black-box tests of the core share: topics and queues made
// in one line, virtual time, and a check of a topic's books.
package kit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/internal/fakeengine"
)

// ErrBusy is why a handler fails in these tests.
var ErrBusy = errors.New("busy")

// Silent is for tests that lose messages on purpose.
var Silent = fanout.WithLogger(slog.New(slog.NewTextHandler(io.Discard, nil)))

// NoContext is what a caller passes who has forgotten to make one.
var NoContext context.Context

// A Buffer is where a test's log goes.
type Buffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *Buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// Logger writes to the buffer.
func (b *Buffer) Logger() *slog.Logger { return slog.New(slog.NewTextHandler(b, nil)) }

// Bubble runs f in virtual time.
func Bubble(t *testing.T, f func(t *testing.T, ctx context.Context)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, t.Context()) })
}

// OnBoth runs a test in virtual time with topics in memory, and with topics that are
// each on an engine.
func OnBoth(t *testing.T, f func(t *testing.T, ctx context.Context, on func() fanout.TopicOption)) {
	t.Helper()
	t.Run("memory", func(t *testing.T) {
		Bubble(t, func(t *testing.T, ctx context.Context) { f(t, ctx, func() fanout.TopicOption { return Silent }) })
	})
	t.Run("engine", func(t *testing.T) {
		Bubble(t, func(t *testing.T, ctx context.Context) {
			f(t, ctx, func() fanout.TopicOption { return fanout.WithEngine(fakeengine.New(fakeengine.Config{})) })
		})
	})
}

// Elapse lets d of virtual time pass, and all that happens then.
func Elapse(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// NewTopic makes a topic called payments.
func NewTopic[T any](t *testing.T, options ...fanout.TopicOption) *fanout.Topic[T] {
	t.Helper()
	top, err := fanout.NewTopic[T]("payments", append([]fanout.TopicOption{Silent}, options...)...)
	require.NoError(t, err)
	return top
}

// OpenQueue opens a queue, which must succeed.
func OpenQueue[T any](t *testing.T, top *fanout.Topic[T], name string, options ...fanout.QueueOption) *fanout.Queue[T] {
	t.Helper()
	q, err := top.OpenQueue(context.Background(), name, options...)
	require.NoError(t, err)
	return q
}

// Subscribe subscribes to a queue of the topic, which must succeed.
func Subscribe[T any](t *testing.T, top *fanout.Topic[T], name string, h fanout.Handler[T], options ...fanout.SubscribeOption) *fanout.Subscriber[T] {
	t.Helper()
	s, err := top.Subscribe(context.Background(), name, h, options...)
	require.NoError(t, err)
	return s
}

// SubscribeBatch subscribes a batch handler and returns its queue.
func SubscribeBatch[T any](t *testing.T, top *fanout.Topic[T], name string, h fanout.BatchHandler[T], options ...fanout.SubscribeOption) *fanout.Queue[T] {
	t.Helper()
	s, err := top.SubscribeBatch(context.Background(), name, h, options...)
	require.NoError(t, err)
	return s.Queue()
}

// HandleNothing is a handler that acknowledges.
func HandleNothing(context.Context, fanout.Delivery[int]) error { return nil }

// Publish publishes bodies one after the other.
func Publish[T any](t *testing.T, top *fanout.Topic[T], bodies ...T) {
	t.Helper()
	for _, b := range bodies {
		require.NoError(t, top.Publish(context.Background(), b))
	}
}

// PublishAll publishes messages in one batch.
func PublishAll[T any](t *testing.T, top *fanout.Topic[T], ms ...fanout.Message[T]) {
	t.Helper()
	require.NoError(t, top.PublishMessages(context.Background(), ms...))
}

// Numbered returns messages whose bodies are 0 to n-1.
func Numbered(n int) []fanout.Message[int] {
	ms := make([]fanout.Message[int], n)
	for k := range ms {
		ms[k].Body = k
	}
	return ms
}

// PublishOnce publishes 0 to n-1 in one batch, so that all of them wait at once.
func PublishOnce(t *testing.T, top *fanout.Topic[int], n int) {
	t.Helper()
	PublishAll(t, top, Numbered(n)...)
}

// Keyed returns messages of one ordering key.
func Keyed(key string, bodies ...int) (ms []fanout.Message[int]) {
	for _, b := range bodies {
		ms = append(ms, fanout.Message[int]{Body: b, OrderingKey: key})
	}
	return ms
}

// WithID returns a message with a deduplication ID.
func WithID(body int, id string) fanout.Message[int] {
	return fanout.Message[int]{Body: body, DeduplicationID: id}
}

// Receive receives the message that must be ready.
func Receive[T any](t *testing.T, q *fanout.Queue[T], options ...fanout.ReceiveOption) fanout.Delivery[T] {
	t.Helper()
	d, ok, err := q.TryReceive(context.Background(), options...)
	require.NoError(t, err)
	require.True(t, ok, "queue %q has nothing ready: %+v", q.Name(), q.Stats())
	return d
}

// RequireEmpty requires that nothing is ready.
func RequireEmpty[T any](t *testing.T, q *fanout.Queue[T]) {
	t.Helper()
	d, ok, err := q.TryReceive(context.Background())
	require.NoError(t, err)
	require.False(t, ok, "queue %q gave out %v", q.Name(), d.Body)
}

// Bodies peeks at what is ready, delayed or retrying.
func Bodies[T any](t *testing.T, q *fanout.Queue[T]) []T {
	t.Helper()
	ds, err := q.Peek(context.Background(), math.MaxInt)
	require.NoError(t, err)
	return append([]T{}, BodiesOf(ds)...)
}

// DeadBodies peeks at the dead letters.
func DeadBodies[T any](t *testing.T, q *fanout.Queue[T]) []T {
	t.Helper()
	return Bodies(t, q.DeadLetters())
}

// BodiesOf returns the bodies of deliveries.
func BodiesOf[T any](ds []fanout.Delivery[T]) (bs []T) {
	for _, d := range ds {
		bs = append(bs, d.Body)
	}
	return bs
}

// CausesOf returns how the attempts of a delivery ended.
func CausesOf[T any](d fanout.Delivery[T]) (cs []fanout.Cause) {
	for _, a := range d.History() {
		cs = append(cs, a.Cause)
	}
	return cs
}

// To is from, from+1, ... up to and with last.
func To(from, last int) (ns []int) {
	for n := from; n <= last; n++ {
		ns = append(ns, n)
	}
	return ns
}

// A Diary keeps what happened, and when: how long after Began.
type Diary struct {
	Began time.Time

	mu    sync.Mutex
	lines []string
}

// NewDiary begins a diary.
func NewDiary() *Diary { return &Diary{Began: time.Now()} }

// Note writes a line.
func (y *Diary) Note(format string, args ...any) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.lines = append(y.lines, fmt.Sprintf("%v: ", time.Since(y.Began))+fmt.Sprintf(format, args...))
}

// Read returns the lines written since it was last read.
func (y *Diary) Read() []string {
	y.mu.Lock()
	defer y.mu.Unlock()
	lines := y.lines
	y.lines = nil
	return lines
}

// Waiting publishes in a goroutine, and returns where the error will come.
func Waiting[T any](ctx context.Context, top *fanout.Topic[T], ms ...fanout.Message[T]) <-chan error {
	errs := make(chan error, 1)
	go publishTo(ctx, top, ms, errs)
	synctest.Wait()
	return errs
}

func publishTo[T any](ctx context.Context, top *fanout.Topic[T], ms []fanout.Message[T], errs chan<- error) {
	errs <- top.PublishMessages(ctx, ms...)
}

// RequireWaiting requires that no error has come.
func RequireWaiting(t *testing.T, errs <-chan error) {
	t.Helper()
	synctest.Wait()
	select {
	case err := <-errs:
		require.Fail(t, "it does not wait", "it returned %v", err)
	default:
	}
}

// RequireDecided returns the error, which must have come.
func RequireDecided(t *testing.T, errs <-chan error) error {
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

// IsOpen reports whether a channel on which nothing is sent is open.
func IsOpen(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return false
	default:
		return true
	}
}

// Heap is what the heap and stacks hold once garbage is gone.
func Heap() int64 {
	runtime.GC()
	runtime.GC() // what pools held
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}
