package fanout

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
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
	require.False(t, top.pending.Any() || top.roomMade != nil, "something was not told")
	checkWaiters(t, top)
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
	if q.pending.Any() {
		return errors.New("something was not told")
	}
	if q.closed {
		return nil
	}
	sum := 0
	line := 0
	consumers := 0
	for _, sub := range q.subs {
		if !sub.stopping {
			consumers += sub.set.concurrency
		}
		if sub.mayStart() && sub.nextFree == nil {
			return errors.New("a subscriber that may start a worker is not in the ring of those that may")
		}
	}
	if consumers != q.consumers {
		return fmt.Errorf("subscribers have %d workers, the queue counts %d", consumers, q.consumers)
	}
	for _, k := range q.keys {
		line += k.line.Len()
	}
	if line != q.n[blocked] {
		return fmt.Errorf("%d messages stand behind others of their key, %d are blocked", line, q.n[blocked])
	}
	if q.leases != nil {
		if err := q.leases.Check(); err != nil {
			return err
		}
	}
	if rank, ok := q.leases.FirstExpired(); ok {
		later := false
		for i, ok := q.due.First(); ok; i, ok = q.win.Next(i) {
			s := q.win.Meta(i).Stamp
			if later && s < rank {
				return fmt.Errorf("stamp %d is due after %d", s, rank)
			}
			later = later || s > rank
		}
	}
	for s, n := range q.n {
		sum += n
		if l := q.listOf(uint8(s)); l != nil && l.Len() != n {
			return fmt.Errorf("state %d counts %d, its list holds %d", s, n, l.Len())
		}
	}
	if sum != q.win.Len() {
		return fmt.Errorf("states count %d, the window holds %d", sum, q.win.Len())
	}
	q.countLocked()
	unsettled := q.win.Len() + q.inLogLocked() + q.leases.Held()
	if unsettled > q.set.capacity {
		return fmt.Errorf("holds %d, capacity %d", unsettled, q.set.capacity)
	}
	capacity := int64(min(q.set.capacity, math.MaxInt/4))
	allow := capacity - int64(q.win.Len()) - int64(q.leases.Held())
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
	if due, _, found := q.leases.NextDue(); found && (!ok || due < at) {
		at, ok = due, true
	}
	if q.limited > 0 && (!ok || q.limited < at) {
		at, ok = q.limited, true
	}
	if q.alarm.checkAt > 0 && (!ok || q.alarm.checkAt < at) {
		at, ok = q.alarm.checkAt, true
	}
	_, first, expires := q.win.FirstExpiry()
	if expires && q.gate.Load() != 0 && (!ok || first < at) {
		at, ok = first, true
	}
	var all []int64 // when those expire that can make room
	q.win.All(func(i int32) bool {
		s := q.win.Meta(i).State
		if at, ok := q.expiry(&q.win.At(i).item); ok && q.remote == nil && s != inFlight && s != handling && s != parked {
			all = append(all, at)
		}
		return true
	})
	if expires != (len(all) > 0) || expires && first != slices.Min(all) {
		return fmt.Errorf("the first of %d expires at %d, %t", len(all), first, expires)
	}
	if ok && !q.alarm.armed || !ok && q.alarm.armed && q.running == 0 && !q.alarm.brief || ok && q.alarm.at > at {
		return fmt.Errorf("timer armed %t for %d; schedule has %t, next at %d", q.alarm.armed, q.alarm.at, ok, at)
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
