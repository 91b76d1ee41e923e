package fanout

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"time"
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

// A lease is a block of messages received.
//
// Invariants: open has bits below len(msgs) only; it is 0 only in the last
// lease; deadlines never decrease from one message to the next.
type lease[T any] struct {
	base uint64 // stamp of msgs[0]; reserved for as many as msgs may hold
	open uint64 // bit k: msgs[k] is in flight
	slot int32  // place in the table
	msgs []leased[T]

	prev, next *lease[T]
}

type leased[T any] struct {
	item[T]
	start int64
}

// leases are all leases of a queue. Its mu guards them.
type leases[T any] struct {
	first, last *lease[T]
	n           int              // messages in flight
	slots       *slots[T]        // nil while there is no lease
	moved       map[uint64]int32 // by stamp, the entries of what has left its lease
}

// slots give leases numbers to be found by.
type slots[T any] struct {
	table []*lease[T]
	free  []int32 // places in the table
}

func (s *slots[T]) add(l *lease[T]) {
	if n := len(s.free); n > 0 {
		l.slot, s.free = s.free[n-1], s.free[:n-1]
		s.table[l.slot] = l
		return
	}
	l.slot = int32(len(s.table))
	s.table = append(s.table, l)
}

func (s *slots[T]) remove(l *lease[T]) {
	s.table[l.slot] = nil
	s.free = append(s.free, l.slot)
}

// entryOf and slotOf translate between a lease's slot and the entry in the
// deliveries made from it.
func (l *lease[T]) entry() int32 { return inHand - 1 - l.slot }
func slotOf(entry int32) int32   { return inHand - 1 - entry }

// leaseLocked puts the next messages of the log in flight, for a caller, as many
// as ds has room for and nothing has to be kept apart about. It returns how many.
func (q *Queue[T]) leaseLocked(ds []Delivery[T], now int64, vis time.Duration) (n int) {
	if q.direct || q.n[due] > 0 || q.n[backlogged] > 0 || vis != q.set.visibility || q.set.ttl > 0 || q.hooked(delivered) {
		return 0
	}
	ds = ds[:min(len(ds), q.inLogLocked())]
	for n < len(ds) {
		run := q.cursor.Run(len(ds) - n)
		if !run[0].ext.plain() {
			break
		}
		l := q.lastLeaseLocked()
		first := len(l.msgs)
		room := l.msgs[first:min(first+len(run), cap(l.msgs))]
		k := 0
		for k < len(room) && run[k].ext.plain() {
			it, m, d := &run[k], &room[k], &ds[n+k] // field by field: a literal would be copied
			m.item, m.start = *it, now
			d.Body, d.ext, d.seq, d.at = it.body, it.ext, it.seq, it.at
			d.q, d.hist, d.stamp, d.entry, d.attempt = q, nil, l.base+uint64(first+k), l.entry(), 1
			k++
		}
		l.msgs = l.msgs[:first+k]
		l.open |= mask(first, k)
		q.cursor.Step(k)
		n += k
	}
	q.leases.n += n
	q.n[inFlight] += n
	q.delivered += uint64(n)
	return n
}

// mask has the n bits from the given one on.
func mask(from, n int) uint64 { return (1<<n - 1) << from }

// lastLeaseLocked returns a lease that has room.
func (q *Queue[T]) lastLeaseLocked() *lease[T] {
	t := &q.leases
	l := t.last
	size := leaseLen
	switch {
	case l == nil:
		size = 4 // often one message is all that there is
	case l.open == 0: // nothing of it is in flight: it begins anew
		l.msgs = l.msgs[:0]
		l.base = q.win.Reserve(cap(l.msgs))
		return l
	case len(l.msgs) < cap(l.msgs):
		return l
	}
	l, _ = q.t.leases.Get().(*lease[T])
	if l == nil || size < leaseLen {
		l = &lease[T]{msgs: make([]leased[T], 0, size)}
	}
	l.base = q.win.Reserve(cap(l.msgs))
	if t.slots == nil {
		t.slots = new(slots[T])
	}
	t.slots.add(l)
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
func (q *Queue[T]) leaseOfLocked(entry int32, stamp uint64) (l *lease[T], k int) {
	if s := q.leases.slots; s != nil && int(slotOf(entry)) < len(s.table) {
		l = s.table[slotOf(entry)]
	}
	if l == nil || stamp-l.base >= leaseLen || l.open>>(stamp-l.base)&1 == 0 {
		return nil, 0
	}
	return l, int(stamp - l.base)
}

// endLeaseLocked takes the messages of some bits out of their lease, and gives
// the lease back with the last of them.
func (q *Queue[T]) endLeaseLocked(l *lease[T], ended uint64) {
	l.open &^= ended
	q.leases.n -= bits.OnesCount64(ended)
	for left := ended; left != 0; {
		k := bits.TrailingZeros64(left)
		n := bits.TrailingZeros64(^(left >> k))
		clear(l.msgs[k : k+n])
		left &^= mask(k, n)
	}
	if l.open != 0 || l == q.leases.last && q.leases.first == l {
		return
	}
	if l != q.leases.last || len(l.msgs) == cap(l.msgs) {
		q.dropLeaseLocked(l)
	}
}

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
	t.slots.remove(l)
	if cap(l.msgs) == leaseLen {
		*l = lease[T]{msgs: l.msgs[:0]}
		q.t.leases.Put(l)
	}
	if t.first == nil {
		*t = leases[T]{moved: t.moved}
	}
}

// ackLeaseLocked acknowledges the messages of some bits of a lease. Nothing
// becomes ready by it, so that nobody has to be woken.
func (q *Queue[T]) ackLeaseLocked(l *lease[T], acked uint64) {
	n := bits.OnesCount64(acked)
	q.endLeaseLocked(l, acked)
	q.n[inFlight] -= n
	q.acked += uint64(n)
	q.allow.Add(int64(n))
	if q.leases.n == 0 {
		if !q.brief { // else the timer comes in a moment, and sees that there is nothing
			q.armLocked(0)
		}
		q.checkDrainedLocked()
	}
}

// ackLeased acknowledges a message that is in a lease, and reports whether it
// was. It is the fast path of Ack.
func (q *Queue[T]) ackLeased(entry int32, stamp uint64) bool {
	q.mu.Lock()
	l, k := q.leaseOfLocked(entry, stamp)
	if l == nil || q.closed || q.hooked(settled) {
		q.mu.Unlock()
		return false
	}
	q.ackLeaseLocked(l, 1<<k)
	q.mu.Unlock()
	q.madeRoom().perform()
	return true
}

// unleaseLocked makes message k of a lease an entry of the window, in flight and
// not scheduled.
func (q *Queue[T]) unleaseLocked(l *lease[T], k int) int32 {
	m, stamp := &l.msgs[k], l.base+uint64(k)
	i := q.win.AddStamped(held[T]{item: m.item, start: m.start}, stamp)
	q.win.Meta(i).State = inFlight
	q.win.Meta(i).Deadline = after(m.start, q.set.visibility)
	if q.leases.moved == nil {
		q.leases.moved = make(map[uint64]int32)
	}
	q.leases.moved[stamp] = i
	q.endLeaseLocked(l, 1<<k)
	return i
}

// unleaseAllLocked makes all leased messages entries of the window.
func (q *Queue[T]) unleaseAllLocked() {
	for q.leases.n > 0 {
		l := q.leases.first
		if l.open == 0 {
			l = l.next
		}
		i := q.unleaseLocked(l, bits.TrailingZeros64(l.open))
		q.win.Schedule(i, q.win.Meta(i).Deadline)
	}
}

// entryOfLease returns the window's entry of a delivery that was made from a
// lease, and inHand if it is over.
func (q *Queue[T]) entryOfLeaseLocked(entry int32, stamp uint64) int32 {
	if l, k := q.leaseOfLocked(entry, stamp); l != nil {
		i := q.unleaseLocked(l, k)
		q.win.Schedule(i, q.win.Meta(i).Deadline)
		return i
	}
	if i, ok := q.leases.moved[stamp]; ok {
		return i
	}
	return inHand
}

// leaseDueLocked returns when the first leased message times out.
func (q *Queue[T]) leaseDueLocked() (at int64, ok bool) {
	l := q.leases.first
	if l == nil || l.open == 0 {
		return 0, false
	}
	return after(l.msgs[bits.TrailingZeros64(l.open)].start, q.set.visibility), true
}

// AckBatch acknowledges deliveries of this queue, as Ack of each would, at less
// than the price of each. It returns nil if all were acknowledged by it, and
// otherwise the errors of the others, joined, each with its message's ID:
// [ErrStale], [ErrSettled] or [ErrClosed], and [ErrInvalidOption] for a delivery
// of another queue, which is left alone. As DeleteMessageBatch in SQS it does
// not stop at one. In memory it never waits and ignores ctx.
func (q *Queue[T]) AckBatch(ctx context.Context, ds ...Delivery[T]) error {
	var failed []error
	var others []int
	q.mu.Lock()
	leased := !q.closed && !q.hooked(settled)
	for k := 0; k < len(ds); {
		d := &ds[k]
		var l *lease[T]
		var n int
		if leased && d.q == q && d.entry < inHand {
			l, n = q.leaseOfLocked(d.entry, d.stamp)
		}
		if l == nil {
			others = append(others, k)
			k++
			continue
		}
		acked := uint64(1) << n
		for k++; k < len(ds) && ds[k].q == q && ds[k].entry == d.entry; k++ {
			bit := uint64(1) << (ds[k].stamp - l.base) // 0 if it is beyond the lease
			if l.open&bit&^acked == 0 {
				break
			}
			acked |= bit
		}
		q.ackLeaseLocked(l, acked)
	}
	q.mu.Unlock()
	q.madeRoom().perform()
	for _, k := range others {
		d := &ds[k]
		err := fmt.Errorf("%w: a delivery of queue %q", ErrInvalidOption, d.Queue())
		if d.q == q || d.q == nil {
			err = d.Ack(ctx)
		}
		if err != nil {
			failed = append(failed, fmt.Errorf("fanout: acknowledge %s: %w", d.ID(), err))
		}
	}
	return errors.Join(failed...)
}
