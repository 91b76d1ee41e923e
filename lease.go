package fanout

import (
	"context"
	"fmt"
	"maps"
	"math/bits"
	"sort"
	"time"
	"unsafe"

	"github.com/gofanout/fanout/internal/notice"
)

// What callers receive from the log, and settle in no other way than by Ack, is
// kept in leases: blocks of messages in the order in which they were received,
// with a bit each that says whether it is in flight. So a receive is a few
// stores and an acknowledgement one bit, and a million messages in flight cost
// little more than themselves.
//
// Whatever else happens to a message (it times out, is extended, given back,
// purged) makes it an entry of the window first (unleaseLocked), with the stamp
// that it has. Its delivery names the lease; moved says where it went.
//
// All messages of a queue's leases have the queue's visibility timeout, so that
// the deadlines are in the order of the leases, and in each in the order of the
// messages: the first bit of the first lease is due first.
const leaseLen = 64

// keptEach bounds how many messages that are over a lease keeps, for each that
// is in flight: fewer than so many, and none for a single one.
const keptEach = 7

const noSlot = int32(-1)

// keptBytes is what bodies that are kept by value may take in a lease.
const keptBytes = 2 << 10

// leaseSize is how many messages a lease has room for: fewer if they are large.
func leaseSize[T any]() int {
	return min(max(keptBytes/max(int(unsafe.Sizeof(*new(T))), 1), 1), leaseLen)
}

// A lease is a block of messages received. What an acknowledgement looks at is
// in its slot.
//
// Invariant: starts never decrease from one message to the next.
type lease[T any] struct {
	slot   int32 // place in the table, or noSlot
	lapses int16 // that hold messages of it
	shared bool  // msgs are part of a past, too
	msgs   []leased
	bodies []T      // as many as msgs may hold
	exts   []*extra // nil if none has any
	thin   uint64   // 0, or the messages that are left of it, see thinLeasesLocked
	past   *past    // nil: none was delivered before

	prev, next *lease[T]
}

type leased struct {
	seq   uint64
	at    int64
	start int64
}

func newLease[T any](size int) *lease[T] {
	return &lease[T]{msgs: make([]leased, 0, size), bodies: make([]T, size)}
}

// place is where message k stands.
func (l *lease[T]) place(k int) int {
	if l.thin != 0 {
		return bits.OnesCount64(l.thin & mask(0, k))
	}
	return k
}

// start is when message k was received.
func (l *lease[T]) start(k int) int64 { return l.msgs[l.place(k)].start }

// item is message k.
func (l *lease[T]) item(k int) item[T] {
	k = l.place(k)
	it := item[T]{Seq: l.msgs[k].seq, At: l.msgs[k].at, Body: l.bodies[k]}
	if l.exts != nil {
		it.Ext = l.exts[k]
	}
	return it
}

func (l *lease[T]) setExt(k int, ext *extra) {
	if l.exts == nil {
		l.exts = make([]*extra, len(l.bodies))
	}
	l.exts[k] = ext
}

// forget lets go of the messages of some bits.
func (l *lease[T]) forget(bitset uint64) {
	if bitset == 0 {
		return
	}
	if first := bits.TrailingZeros64(bitset); l.thin == 0 && bitset>>first&(bitset>>first+1) == 0 { // a run
		n := bits.OnesCount64(bitset)
		clear(l.bodies[first : first+n])
		if l.exts != nil {
			clear(l.exts[first : first+n])
		}
		return
	}
	var none T
	for ; bitset != 0; bitset &= bitset - 1 {
		k := l.place(bits.TrailingZeros64(bitset))
		l.bodies[k] = none
		if l.exts != nil {
			l.exts[k] = nil
		}
	}
}

// mask has the n bits from the given one on.
func mask(from, n int) uint64 { return (1<<n - 1) << from }

// A slot is what of a lease is looked at most often, and its place in the table:
// acknowledgements that come in any order read this table and little else.
//
// Invariants: open and kept have bits below len(lease.msgs) only, and none in
// common; kept has fewer than keptEach for each of open, and none if that is
// one or none; open is 0 only in the last lease.
type slot[T any] struct {
	base  uint64    // stamp of the first message; reserved for as many as there may be
	open  uint64    // bit k: message k is in flight
	kept  uint64    // bit k: message k is over, and not forgotten yet
	lease *lease[T] // nil: the lease is gone
}

// leases are all leases of a queue. Its mu guards them.
type leases[T any] struct {
	first, last *lease[T]
	n           int        // messages in flight
	slots       *slots[T]  // nil while there is no lease
	moved       *moved     // the entries of what has left its lease
	lapsed      *lapses[T] // nil while there are none
}

// moved finds entries by the stamps of their deliveries.
type moved struct {
	entries map[uint64]int32
	most    int // entries since it was made
}

func (m *moved) of(stamp uint64) (i int32, ok bool) {
	if m == nil {
		return 0, false
	}
	i, ok = m.entries[stamp]
	return i, ok
}

// move says which entry a message has become.
func (t *leases[T]) move(stamp uint64, i int32) {
	if t.moved == nil {
		t.moved = &moved{entries: make(map[uint64]int32)}
	}
	m := t.moved
	m.entries[stamp] = i
	m.most = max(m.most, len(m.entries))
}

// remove forgets a stamp. A map does not shrink, so it is made anew when little
// is left in it.
func (m *moved) remove(stamp uint64) {
	if m == nil || len(m.entries) == 0 {
		return
	}
	delete(m.entries, stamp)
	switch n := len(m.entries); {
	case m.most <= 2*leaseLen || n > m.most/4:
	default:
		left := make(map[uint64]int32, n)
		maps.Copy(left, m.entries)
		*m = moved{entries: left, most: n}
	}
}

// held counts the messages.
func (t *leases[T]) held() int { return t.n + t.lapsed.count() }

// slots find leases by the numbers that they were given, one after the other, and
// by the stamps of their messages.
//
// Invariants: the table is in the order of the numbers and of the stamps; the last
// lease of the queue has the last slot; there are few slots without a lease.
type slots[T any] struct {
	table  []slot[T]
	leases int    // in it
	next   uint32 // number of the next lease
	room   int    // messages that the leases have room for
	thinAt int    // when no more than so many are in flight, leases may have become thin
}

// numbers is how many numbers there are before they begin anew.
const numbers = 1 << 30

func (s *slots[T]) add(l *lease[T], base uint64) {
	l.slot = int32(len(s.table))
	s.table = append(s.table, slot[T]{base: base, lease: l})
	s.leases++
	s.next++
}

// remove takes a lease out of the table, and closes the gaps there when there are
// many. The numbers are not changed: find looks where a lease stands if there is no
// gap behind it, and then among all.
func (s *slots[T]) remove(l *lease[T]) {
	s.table[l.slot].lease, s.table[l.slot].open, s.table[l.slot].kept = nil, 0, 0
	s.leases--
	for n := len(s.table); n > 0 && s.table[n-1].lease == nil; n-- {
		s.table = s.table[:n-1]
		s.next--
	}
	if len(s.table) < slotsMin || 4*s.leases > 3*len(s.table) {
		return
	}
	table := s.table[:0]
	if cap(s.table) > 4*slotsMin {
		table = make([]slot[T], 0, s.leases+s.leases/4)
	}
	for k := range s.table {
		if slot := s.table[k]; slot.lease != nil {
			slot.lease.slot = int32(len(table))
			table = append(table, slot)
		}
	}
	clear(s.table[min(len(table), len(s.table)):])
	s.table = table
}

const slotsMin = 16 // slots that are kept in any case

// find returns the slot of the lease with the given number that has, or had, the
// given stamp, or nil.
func (s *slots[T]) find(number uint32, stamp uint64) *slot[T] {
	last := len(s.table) - 1
	k := last + 1 - int((s.next-number)%numbers)
	if k < 0 || k > last || stamp < s.table[k].base || k < last && stamp >= s.table[k+1].base {
		k = sort.Search(len(s.table), func(k int) bool { return s.table[k].base > stamp }) - 1
	}
	if k < 0 || stamp-s.table[k].base >= leaseLen {
		return nil
	}
	return &s.table[k]
}

// of returns a lease's slot. It is good until a lease is added or removed.
func (t *leases[T]) of(l *lease[T]) *slot[T] { return &t.slots.table[l.slot] }

// lastEntry is the entry in the deliveries that are made from the last lease, and
// numberOf the lease's number in it.
func (t *leases[T]) lastEntry() int32 { return inHand - 1 - int32((t.slots.next-1)%numbers) }
func numberOf(entry int32) uint32     { return uint32(inHand - 1 - entry) }

// leaseLocked puts the next messages of the log in flight, for a caller, as many
// as ds has room for and nothing has to be kept apart about. It returns how many.
func (q *Queue[T]) leaseLocked(ds []Delivery[T], now int64, vis time.Duration) (n int) {
	if q.direct || vis != q.set.visibility || q.set.ttl > 0 || q.core.singly {
		return 0
	}
	if p := q.leases.lapsed.taken(); p != nil && !q.backlogWaitsLocked() { // else they take turns
		q.backlogsTurn = true
		return q.leaseAgainLocked(p, ds, now)
	}
	if q.n[due] > 0 || q.n[backlogged] > 0 {
		return 0
	}
	ds = ds[:min(len(ds), q.inLogLocked())]
	for n < len(ds) {
		run := q.cursor.Run(len(ds) - n)
		if !run[0].Ext.Plain() {
			break
		}
		l := q.lastLeaseLocked(nil)
		s := q.leases.of(l)
		first := len(l.msgs)
		room := l.msgs[first:min(first+len(run), cap(l.msgs))]
		bodies, base, entry := l.bodies[first:], s.base+uint64(first), q.leases.lastEntry()
		k := 0
		for k < len(room) && run[k].Ext.Plain() {
			it, m, d := &run[k], &room[k], &ds[n+k] // field by field: a literal would be copied
			m.seq, m.at, m.start = it.Seq, it.At, now
			bodies[k] = it.Body
			if it.Ext != nil {
				l.setExt(first+k, it.Ext)
			}
			d.Body, d.ext, d.seq, d.at = it.Body, it.Ext, it.Seq, it.At
			d.q, d.hist, d.stamp, d.entry, d.attempt = q, nil, base+uint64(k), entry, 1
			k++
		}
		l.msgs = l.msgs[:first+k]
		s.open |= mask(first, k)
		q.cursor.Step(k)
		n += k
	}
	if n > 0 {
		q.backlogsTurn = false
		q.lookByLocked(now, handAge)
	}
	q.leases.n += n
	q.n[inFlight] += n
	q.delivered += uint64(n)
	return n
}

// lastLeaseLocked returns a lease that has room for messages with the given past.
func (q *Queue[T]) lastLeaseLocked(past *past) *lease[T] {
	t := &q.leases
	l := t.last
	size := leaseSize[T]()
	switch {
	case l == nil:
		size = min(size, 4) // often one message is all that there is
	case t.of(l).open == 0 && l.thin == 0: // nothing of it is in flight: it begins anew
		if l.shared {
			l.msgs, l.shared = make([]leased, 0, cap(l.msgs)), false
		}
		l.msgs, l.past = l.msgs[:0], past
		t.of(l).base = q.win.Reserve(cap(l.msgs))
		return l
	case len(l.msgs) < cap(l.msgs) && l.past == past:
		return l
	}
	l, _ = q.t.leases.Get().(*lease[T])
	if l == nil || cap(l.msgs) != size {
		l = newLease[T](size)
	}
	l.past = past
	if t.slots == nil {
		t.slots = new(slots[T])
	}
	t.slots.add(l, q.win.Reserve(cap(l.msgs)))
	t.slots.room += cap(l.msgs)
	t.slots.thinAt += leaseLen / 2
	l.prev = t.last
	if t.last == nil {
		t.first = l
	} else {
		t.last.next = l
	}
	t.last = l
	return l
}

// leaseOfLocked finds the message in flight that a delivery was made of, if it is
// still in its lease.
func (q *Queue[T]) leaseOfLocked(entry int32, stamp uint64) (s *slot[T], k int) {
	t := q.leases.slots
	if t == nil {
		return nil, 0
	}
	s = t.find(numberOf(entry), stamp)
	if s == nil || s.open>>(stamp-s.base)&1 == 0 {
		return nil, 0
	}
	return s, int(stamp - s.base)
}

// endLeaseLocked takes the messages of some bits out of their lease, and gives
// the lease back with the last of them. It forgets them when they are many for
// what is left: so the memory of a lease that ends in any order is gone over
// three times, not once for each message, which would be all that an
// acknowledgement costs.
func (q *Queue[T]) endLeaseLocked(s *slot[T], ended uint64) {
	s.open &^= ended
	s.kept |= ended
	q.leases.n -= bits.OnesCount64(ended)
	if t := &q.leases; t.n <= t.slots.thinAt && t.slots.room > t.n+t.n/2+2*leaseLen {
		q.thinLeasesLocked()
	}
	if open := bits.OnesCount64(s.open); open > 1 && bits.OnesCount64(s.kept) < keptEach*open {
		return
	}
	l := s.lease
	l.forget(s.kept)
	s.kept = 0
	if s.open != 0 || l.lapses == 0 && l.thin == 0 && l == q.leases.last && q.leases.first == l && l.small() {
		return
	}
	if l != q.leases.last || len(l.msgs) == cap(l.msgs) || l.lapses > 0 || !l.small() {
		q.dropLeaseLocked(l)
	}
}

// small reports whether an idle queue may keep the lease.
func (l *lease[T]) small() bool { return int(unsafe.Sizeof(*new(T)))*cap(l.msgs) <= keptBytes }

// thinLeasesLocked gives the leases that have more room than they need, because
// messages of theirs are over, as much as they need. It is called when a third of
// the room of all is not used, and again when a quarter of what is in flight now is over.
func (q *Queue[T]) thinLeasesLocked() {
	t := &q.leases
	t.slots.thinAt = t.n - t.n/4
	for l := t.first; l != nil; l = l.next {
		s := t.of(l)
		n := bits.OnesCount64(s.open)
		if n == 0 || n == cap(l.msgs) || l == t.last && len(l.msgs) < cap(l.msgs) || l.lapses > 0 || l.shared {
			continue
		}
		thin := lease[T]{msgs: make([]leased, 0, n), bodies: make([]T, n), thin: s.open}
		for open := s.open; open != 0; open &= open - 1 {
			from, to := l.place(bits.TrailingZeros64(open)), len(thin.msgs)
			thin.msgs = append(thin.msgs, l.msgs[from])
			thin.bodies[to] = l.bodies[from]
			if l.exts != nil && l.exts[from] != nil {
				thin.setExt(to, l.exts[from])
			}
		}
		t.slots.room -= cap(l.msgs) - n
		l.msgs, l.bodies, l.exts, l.thin = thin.msgs, thin.bodies, thin.exts, thin.thin
		s.kept = 0
	}
}

// dropLeaseLocked removes a lease of which nothing is in flight.
func (q *Queue[T]) dropLeaseLocked(l *lease[T]) {
	t := &q.leases
	if l.prev == nil {
		t.first = l.next
	} else {
		l.prev.next = l.next
	}
	if l.next == nil {
		t.last = l.prev
	} else {
		l.next.prev = l.prev
	}
	l.prev, l.next = nil, nil
	t.slots.remove(l)
	t.slots.room -= cap(l.msgs)
	l.slot = noSlot
	if t.first == nil {
		t.slots = nil
	}
	q.spareLeaseLocked(l)
}

// spareLeaseLocked gives back a lease, if no lapse holds messages of it.
func (q *Queue[T]) spareLeaseLocked(l *lease[T]) {
	if cap(l.msgs) == leaseSize[T]() && l.lapses == 0 && !l.shared && l.thin == 0 {
		*l = lease[T]{msgs: l.msgs[:0], bodies: l.bodies}
		q.t.leases.Put(l)
	}
}

// ackLeaseLocked acknowledges the messages of some bits of a lease. Nothing
// becomes ready by it, so that nobody has to be woken.
func (q *Queue[T]) ackLeaseLocked(s *slot[T], acked uint64) {
	n := bits.OnesCount64(acked)
	q.endLeaseLocked(s, acked)
	q.n[inFlight] -= n
	q.acked += uint64(n)
	q.allow.Add(int64(n))
	if q.leases.n == 0 {
		if !q.alarm.brief { // else the timer comes in a moment, and sees that there is nothing
			q.armLocked(0)
		}
		q.checkDrainedLocked()
	}
}

// ackLeased acknowledges a message that is in a lease, and reports whether it
// was. It is the fast path of Ack.
func (q *Queue[T]) ackLeased(entry int32, stamp uint64) bool {
	q.mu.Lock()
	s, k := q.leaseOfLocked(entry, stamp)
	if s == nil || q.hooked(notice.Settled) {
		q.mu.Unlock()
		return false
	}
	q.ackLeaseLocked(s, 1<<k)
	q.unlock()
	return true
}

// unleaseLocked makes message k of a lease an entry of the window, in flight and
// not scheduled.
func (q *Queue[T]) unleaseLocked(s *slot[T], k int) int32 {
	l := s.lease
	start, it := l.start(k), l.item(k)
	i := q.win.AddStamped(held[T]{item: it, hist: l.past.history(it.Seq), start: start}, s.base+uint64(k))
	m := q.win.Meta(i)
	m.State, m.Deadline, m.Spent = inFlight, after(start, q.set.visibility), uint32(l.past.count())
	q.endLeaseLocked(s, 1<<k)
	return i
}

// moveLocked is unleaseLocked for a message that stays in flight: its entry is
// scheduled, and its delivery finds it.
func (q *Queue[T]) moveLocked(s *slot[T], k int) int32 {
	stamp := s.base + uint64(k)
	i := q.unleaseLocked(s, k)
	q.win.Schedule(i, q.win.Meta(i).Deadline)
	q.leases.move(stamp, i)
	return i
}

// unleaseAllLocked makes all leased messages entries of the window.
func (q *Queue[T]) unleaseAllLocked() {
	q.unfoldLocked()
	for q.leases.n > 0 {
		s, k := q.firstLeasedLocked()
		q.moveLocked(s, k)
	}
}

// entryOfLease returns the window's entry of a delivery that was made from a
// lease, and inHand if it is over.
func (q *Queue[T]) entryOfLeaseLocked(entry int32, stamp uint64) int32 {
	if s, k := q.leaseOfLocked(entry, stamp); s != nil {
		return q.moveLocked(s, k)
	}
	if i, ok := q.leases.moved.of(stamp); ok {
		return i
	}
	return inHand
}

// firstLeasedLocked returns the message in flight that was leased first, nil if
// there is none.
func (q *Queue[T]) firstLeasedLocked() (s *slot[T], k int) {
	if q.leases.n == 0 {
		return nil, 0
	}
	s = q.leases.of(q.leases.first)
	return s, bits.TrailingZeros64(s.open)
}

// leaseDueLocked returns when the first leased message times out.
func (q *Queue[T]) leaseDueLocked() (at int64, ok bool) {
	s, k := q.firstLeasedLocked()
	if s == nil {
		return 0, false
	}
	return after(s.lease.start(k), q.set.visibility), true
}

// AckBatch acknowledges deliveries of this queue, as Ack does for each, but at a lower
// price. It returns nil if it acknowledged all of them. Otherwise it returns a [*BatchError]
// with the errors of the others: [ErrStale], [ErrSettled] or [ErrClosed], and
// [ErrInvalidOption] for a delivery of another queue, which is left alone. As
// DeleteMessageBatch in SQS it goes on after an error. In memory it never waits, ignores
// ctx, and allocates nothing if there is no error.
func (q *Queue[T]) AckBatch(ctx context.Context, ds ...Delivery[T]) error {
	if err := q.made(); err != nil {
		return err
	}
	var failed *BatchError
	var others [16]int // deliveries that are not leased: each is acknowledged by itself
	for k := 0; k < len(ds); {
		n := 0
		q.mu.Lock()
		leased := !q.hooked(notice.Settled) // a settlement is not logged
		for k < len(ds) && n < len(others) {
			d := &ds[k]
			var s *slot[T]
			var m int
			if leased && d.q == q && d.entry < inHand {
				s, m = q.leaseOfLocked(d.entry, d.stamp)
			}
			if s == nil {
				others[n] = k
				n++
				k++
				continue
			}
			acked := uint64(1) << m
			for k++; k < len(ds) && ds[k].q == q; k++ {
				bit := uint64(1) << (ds[k].stamp - s.base) // 0 if it is in none, or another lease
				if s.open&bit&^acked == 0 {
					break
				}
				acked |= bit
			}
			q.ackLeaseLocked(s, acked)
		}
		q.unlock()
		for _, k := range others[:n] {
			d := &ds[k]
			var err error
			if d.q == q || d.q == nil {
				err = d.Ack(ctx)
			} else {
				err = fmt.Errorf("%w: a delivery of queue %q", ErrInvalidOption, d.Queue())
			}
			if err != nil {
				failed = failed.with(q.name, k, fmt.Errorf("message %s: %w", d.ID(), err))
			}
		}
	}
	if failed == nil {
		return nil
	}
	return failed
}
