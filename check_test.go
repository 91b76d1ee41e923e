package fanout

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

var errBusy = errors.New("busy")

// silent is for tests that lose messages on purpose.
var silent = WithLogger(slog.New(slog.NewTextHandler(io.Discard, nil)))

// A syncBuffer is where a test's log goes.
type syncBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func (b *syncBuffer) logger() *slog.Logger { return slog.New(slog.NewTextHandler(b, nil)) }

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

func openQueue[T any](t *testing.T, top *Topic[T], name string, options ...QueueOption) *Queue[T] {
	t.Helper()
	q, err := top.OpenQueue(context.Background(), name, options...)
	require.NoError(t, err)
	return q
}

func subscribe[T any](t *testing.T, top *Topic[T], name string, h Handler[T], options ...SubscribeOption) *Subscriber[T] {
	t.Helper()
	s, err := top.Subscribe(context.Background(), name, h, options...)
	require.NoError(t, err)
	return s
}

func publish[T any](t *testing.T, top *Topic[T], bodies ...T) {
	t.Helper()
	for _, b := range bodies {
		require.NoError(t, top.Publish(context.Background(), b))
	}
}

func receive[T any](t *testing.T, q *Queue[T], options ...ReceiveOption) Delivery[T] {
	t.Helper()
	d, ok, err := q.TryReceive(context.Background(), options...)
	require.NoError(t, err)
	require.True(t, ok, "queue %q has nothing ready: %+v", q.Name(), q.Stats())
	return d
}

func requireEmpty[T any](t *testing.T, q *Queue[T]) {
	t.Helper()
	d, ok, err := q.TryReceive(context.Background())
	require.NoError(t, err)
	require.False(t, ok, "queue %q gave out %v", q.Name(), d.Body)
}

// bodies peeks at what is ready, delayed or retrying.
func bodies[T any](t *testing.T, q *Queue[T]) []T {
	t.Helper()
	ds, err := q.Peek(context.Background(), math.MaxInt)
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
	top.mu.Lock()
	defer top.mu.Unlock()
	head := top.log.Head()
	require.Equal(t, head, top.log.Published())
	for _, q := range top.queues {
		q.mu.Lock()
		err := q.checkLocked(head)
		allow := q.allow.Load()
		d := q.dead
		q.mu.Unlock()
		require.NoError(t, err, "queue %q", q.name)
		if !q.direct {
			require.LessOrEqual(t, top.limit, allow, "queue %q", q.name)
		}
		if d != nil {
			d.mu.Lock()
			err := d.checkLocked(head)
			d.mu.Unlock()
			require.NoError(t, err, "queue %q", d.name)
		}
	}
}

func (q *Queue[T]) checkLocked(head int64) error {
	if q.closed {
		return nil
	}
	sum := 0
	line := 0
	for _, k := range q.keys {
		line += k.line.Len()
	}
	if line != q.n[blocked] {
		return fmt.Errorf("%d messages stand behind others of their key, %d are blocked", line, q.n[blocked])
	}
	for s, n := range q.n {
		sum += n
		if l := q.listOf(uint8(s)); l != nil && l.Len() != n {
			return fmt.Errorf("state %d counts %d, its list holds %d", s, n, l.Len())
		}
	}
	if sum != q.win.Len()+q.leases.n {
		return fmt.Errorf("states count %d, the window holds %d", sum, q.win.Len())
	}
	q.countHeldLocked()
	inLoops := 0
	for _, l := range q.loops {
		p := l.load()
		if (p == 0) != (len(l.hand) == 0) {
			return fmt.Errorf("a loop is at %x of a hand of %d", uint64(p), len(l.hand))
		}
		if p == 0 {
			continue
		}
		end := int(p.stamp()-l.base) + 1 + p.waiting()
		if end > len(l.hand) || l.counted > end {
			return fmt.Errorf("a loop's hand of %d, counted to %d, ends at %d", len(l.hand), l.counted, end)
		}
		inLoops += end - l.counted
	}
	if inLoops > q.held || len(q.subs) == 0 && inLoops != q.held {
		return fmt.Errorf("loops hold %d of %d", inLoops, q.held)
	}
	unsettled := q.win.Len() + q.inLogLocked() + q.held + q.leases.n
	if unsettled > q.set.capacity {
		return fmt.Errorf("holds %d, capacity %d", unsettled, q.set.capacity)
	}
	capacity := int64(min(q.set.capacity, math.MaxInt/4))
	allow := capacity - int64(q.win.Len()) - int64(q.held) - int64(q.leases.n)
	if !q.direct {
		allow += q.cursor.Pos()
		if q.cursor.Pos() > head {
			return fmt.Errorf("cursor %d is beyond the head %d", q.cursor.Pos(), head)
		}
	}
	if got := q.allow.Load(); got != allow {
		return fmt.Errorf("allow is %d, want %d", got, allow)
	}
	at, ok := q.win.NextDue()
	if due, found := q.leaseDueLocked(); found && (!ok || due < at) {
		at, ok = due, true
	}
	if q.limited > 0 && (!ok || q.limited < at) {
		at, ok = q.limited, true
	}
	if q.lookAt > 0 && (!ok || q.lookAt < at) {
		at, ok = q.lookAt, true
	}
	if ok && !q.armed || !ok && q.armed && q.running == 0 && !q.brief || ok && q.timerAt > at {
		return fmt.Errorf("timer armed %t for %d; schedule has %t, next at %d", q.armed, q.timerAt, ok, at)
	}
	c := q.countersLocked()
	in := q.publishedLocked(q.inLogLocked())
	out := q.acked + c.dropped + c.deadLettered
	if !q.letters {
		in += c.redriven
	} else {
		out += c.redriven
	}
	if in != out+uint64(unsettled) {
		return fmt.Errorf("the books don't balance: %d in, %d out, %d held", in, out, unsettled)
	}
	return nil
}
