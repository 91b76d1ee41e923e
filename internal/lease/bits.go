package lease

import (
	"cmp"
	"math/bits"
	"slices"

	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/slots"
)

// find returns the slot and the bit of a delivery that is in flight by its bit.
func (t *Table[T]) find(r message.Ref) (*slots.Slot[*Lease[T]], uint64) {
	if t == nil {
		return nil, 0
	}
	s := t.slots.Find(r.Block)
	if s == nil {
		return nil, 0
	}
	return s, s.Open & (1 << (r.Stamp - s.Base)) // none beyond the block: it is shifted out
}

// current returns the lease in step whose current message the delivery is.
func (t *Table[T]) current(s *slots.Slot[*Lease[T]], r message.Ref) *Lease[T] {
	if s == nil || s.Lease == nil {
		return nil
	}
	if p := s.Lease.Word.Place(); p == 0 || p.Stamp() != r.Stamp || p.Over() {
		return nil
	}
	return s.Lease
}

// Ack acknowledges a delivery, in flight by its bit or current, and reports
// whether it has. If not, it is over, or no longer owns its message.
func (t *Table[T]) Ack(r message.Ref) bool {
	s, b := t.find(r)
	if b != 0 {
		t.acked++
		t.end(s, b)
		return true
	}
	l := t.current(s, r)
	if l == nil || !l.Word.Ack(r.Stamp) {
		return false
	}
	t.count(l)
	return true
}

// Open returns the stamp of the first message of a delivery's block, and which of that
// block are in flight by their bits; none if this delivery is not. A delivery of the block is
// the bit that counts how far its stamp is from the first.
func (t *Table[T]) Open(r message.Ref) (first, open uint64) {
	s, b := t.find(r)
	if b == 0 {
		return 0, 0
	}
	return s.Base, s.Open
}

// AckOpen acknowledges deliveries of a block, which are some of those that Open has returned
// under the same lock.
func (t *Table[T]) AckOpen(block int32, acked uint64) {
	t.acked += bits.OnesCount64(acked)
	t.end(t.slots.At(block), acked)
}

// Extract takes a message out of its block by its delivery, which thereby ends,
// whether it is in flight by its bit or current. It reports whether the delivery
// owned the message. Whatever ends a delivery other than Ack begins with it.
func (t *Table[T]) Extract(r message.Ref, now int64) (Out[T], bool) {
	s, b := t.find(r)
	if b != 0 {
		return t.extract(s, bits.TrailingZeros64(b)), true
	}
	if l := t.current(s, r); l != nil {
		return t.extractCurrent(l, r.Stamp, now)
	}
	return Out[T]{}, false
}

// owned is find, for a current message too: that is detached.
func (t *Table[T]) owned(r message.Ref, now int64) (*slots.Slot[*Lease[T]], uint64) {
	s, b := t.find(r)
	if b == 0 {
		if l := t.current(s, r); l != nil && t.Detach(l, now) {
			return t.find(r)
		}
	}
	return s, b
}

// extract takes message k, which is open or timed out, out of its block.
func (t *Table[T]) extract(s *slots.Slot[*Lease[T]], k int) Out[T] {
	l := s.Lease
	out := Out[T]{Item: l.item(k), Past: l.past(k), Stamp: s.Base + uint64(k), Start: l.block.Start(k)}
	t.end(s, bit(k))
	return out
}

// Deadline is when a delivery times out, if it owns its message. A current message
// is detached by it.
func (t *Table[T]) Deadline(r message.Ref, now int64) (at int64, ok bool) {
	s, b := t.owned(r, now)
	if b == 0 {
		return 0, false
	}
	return s.Lease.deadline(bits.TrailingZeros64(b)), true
}

// Extend makes a delivery time out at the given instant, or when it would have if
// that is later, and reports whether it owned its message. A current message is
// detached by it.
func (t *Table[T]) Extend(r message.Ref, until, now int64) bool {
	s, b := t.owned(r, now)
	if b == 0 {
		return false
	}
	l, k := s.Lease, bits.TrailingZeros64(b)
	if until > l.deadline(k) {
		m := l.moreOf()
		if m.until == nil {
			m.until = make([]int64, Len)
		}
		m.extended |= b
		m.until[k] = until // due stays a bound
	}
	return true
}

// Lookup returns the item of a delivery that owns its message, and the consumer
// that has its lease, if any.
func (t *Table[T]) Lookup(r message.Ref) (it message.Item[T], owner Consumer[T], ok bool) {
	s, b := t.find(r)
	if b == 0 && t.current(s, r) == nil {
		return it, nil, false
	}
	return s.Lease.item(int(r.Stamp - s.Base)), s.Lease.owner, true
}

// Past returns what the message of a delivery that owns it has been through.
func (t *Table[T]) Past(r message.Ref) (p message.Past, ok bool) {
	s, b := t.find(r)
	if b == 0 && t.current(s, r) == nil {
		return p, false
	}
	return s.Lease.past(int(r.Stamp - s.Base)), true
}

// end takes messages out of their block that were open or timed out.
func (t *Table[T]) end(s *slots.Slot[*Lease[T]], ended uint64) {
	n := bits.OnesCount64(ended)
	if x := bits.OnesCount64(ended & s.TimedOut); x > 0 {
		t.timedOut -= x
		n -= x
		s.TimedOut &^= ended
	}
	t.open -= n
	s.Open &^= ended
	s.Dead |= ended
	if l := s.Lease; len(t.steps) > 0 && l.step != 0 && l.block.Items != nil {
		l.block.Clear(ended) // the others are tidied in time
	}
	switch {
	case s == t.fillSlot:
		t.tidyFilling(s)
	case sparse(s):
		t.tidy(s)
	}
}

func sortRefs(refs []message.Ref) {
	slices.SortFunc(refs, func(a, b message.Ref) int { return cmp.Compare(a.Stamp, b.Stamp) })
}
