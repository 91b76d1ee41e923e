package fanout

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/bits"
	"slices"
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
	if err := q.checkLeasesLocked(); err != nil {
		return err
	}
	for s, n := range q.n {
		sum += n
		if s == int(due) {
			n -= q.leases.lapsed.count()
		}
		if l := q.listOf(uint8(s)); l != nil && l.Len() != n {
			return fmt.Errorf("state %d counts %d, its list holds %d", s, n, l.Len())
		}
	}
	if sum != q.win.Len()+q.leases.held() {
		return fmt.Errorf("states count %d, the window holds %d", sum, q.win.Len())
	}
	q.countHeldLocked()
	inLoops := 0
	for l := q.loops.Load(); l != nil; l = l.behind {
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
	unsettled := q.win.Len() + q.inLogLocked() + q.held + q.leases.held()
	if unsettled > q.set.capacity {
		return fmt.Errorf("holds %d, capacity %d", unsettled, q.set.capacity)
	}
	capacity := int64(min(q.set.capacity, math.MaxInt/4))
	allow := capacity - int64(q.win.Len()) - int64(q.held) - int64(q.leases.held())
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

// checkLeasesLocked walks what is written above lease, slot, leases, lapse and lapses.
func (q *Queue[T]) checkLeasesLocked() error {
	t := &q.leases
	used, n, room, start := 0, 0, 0, int64(0)
	var prev *lease[T]
	lapsed := map[*lease[T]]uint64{}
	if t.lapsed != nil {
		for p := t.lapsed.first; p != nil; p = p.next {
			lapsed[p.lease] |= p.left
		}
	}
	for l := t.first; l != nil; prev, l = l, l.next {
		s := t.of(l)
		used++
		n += bits.OnesCount64(s.open)
		all := mask(0, len(l.msgs))
		if l.thin != 0 {
			all = l.thin
		}
		room += cap(l.msgs)
		switch kept, open := bits.OnesCount64(s.kept), bits.OnesCount64(s.open); {
		case s.lease != l || l.prev != prev:
			return fmt.Errorf("lease %d is linked wrongly", l.slot)
		case (s.open|s.kept)&^all != 0 || s.open&s.kept != 0:
			return fmt.Errorf("lease %d of %d messages: open %#x, kept %#x", l.slot, len(l.msgs), s.open, s.kept)
		case kept > 0 && (open < 2 || kept >= keptEach*open):
			return fmt.Errorf("lease %d keeps %d that are over, for %d that are not", l.slot, kept, open)
		case l.past.count() > pastLen:
			return fmt.Errorf("lease %d shares a past of %d attempts", l.slot, l.past.n)
		case open == 0 && l != t.last || open == 0 && l.lapses > 0:
			return fmt.Errorf("lease %d is kept for nothing", l.slot)
		case l.thin != 0 && (bits.OnesCount64(l.thin) != cap(l.msgs) || len(l.msgs) != cap(l.msgs)):
			return fmt.Errorf("a thin lease %d has room", l.slot)
		}
		for k := range 64 {
			if l.exts != nil && all>>k&1 == 1 && l.exts[l.place(k)] != nil && (s.open|s.kept|lapsed[l])>>k&1 == 0 {
				return fmt.Errorf("lease %d keeps attributes of message %d", l.slot, k)
			}
		}
		for k := range 64 {
			if all>>k&1 == 0 {
				continue
			}
			m := l.msgs[l.place(k)]
			if l.past != nil && s.open>>k&1 == 1 && len(l.past.history(m.seq).Kept()) != l.past.n {
				return fmt.Errorf("lease %d: message %d has another past", l.slot, m.seq)
			}
			if m.start < start {
				return fmt.Errorf("lease %d: a start at %d after one at %d", l.slot, m.start, start)
			}
			start = m.start
		}
	}
	if prev != t.last || n != t.n {
		return fmt.Errorf("the leases have %d in flight, %d are counted", n, t.n)
	}
	if t.slots != nil && room != t.slots.room {
		return fmt.Errorf("the leases have room for %d, %d is counted", room, t.slots.room)
	}
	if (t.slots == nil) != (used == 0) || t.slots != nil && (t.slots.leases != used || len(t.slots.table)-used > max(slotsMin, used/3+1)) {
		return fmt.Errorf("%d leases do not fill their table", used)
	}
	if t.slots != nil {
		for k, s := range t.slots.table {
			if s.lease == nil && s.open|s.kept != 0 || s.lease != nil && s.lease.slot != int32(k) || k > 0 && s.base <= t.slots.table[k-1].base {
				return fmt.Errorf("slot %d is not what it should be", k)
			}
		}
	}
	return q.checkLapsesLocked()
}

func (q *Queue[T]) checkLapsesLocked() error {
	t := q.leases.lapsed
	if t == nil {
		return nil
	}
	n := 0
	of := map[*lease[T]]uint64{}
	i, ok := q.due.First()
	for p := t.first; p != nil; p = p.next {
		for ok && i != p.leader && p.leader != noLeader {
			i, ok = q.win.Next(i)
		}
		if p.leader == noLeader && p != t.first || p.leader != noLeader && !ok {
			return fmt.Errorf("leader %d is not due, or not in its turn", p.leader)
		}
		l := p.lease
		all := mask(0, len(l.msgs))
		if l.thin != 0 {
			all = l.thin
		}
		if p.left == 0 || p.left&^all != 0 || p.left&of[l] != 0 {
			return fmt.Errorf("a lapse of %#x", p.left)
		}
		if l.slot != noSlot && (q.leases.of(l).lease != l || p.left&(q.leases.of(l).open|q.leases.of(l).kept) != 0) {
			return fmt.Errorf("lapsed and in flight: %#x", p.left)
		}
		of[l] |= p.left
		n += bits.OnesCount64(p.left)
		if p.next == nil && t.last != p {
			return fmt.Errorf("the last lapse is another")
		}
	}
	if n == 0 || n != t.n {
		return fmt.Errorf("%d have lapsed, %d are counted", n, t.n)
	}
	return nil
}

func (m *moved) len() int {
	if m == nil {
		return 0
	}
	return len(m.entries)
}
