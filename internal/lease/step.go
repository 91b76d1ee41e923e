package lease

import (
	"math/bits"

	"github.com/gofanout/fanout/internal/instep"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/slots"
)

// What the owner of a lease in step, or whoever asks for what is in it, does under
// the lock. The consumer may step on meanwhile, and others acknowledge: so each
// function reads the word once, or changes it by compare-and-swap.

// count counts what has begun and what is acknowledged of a lease in step, as of
// the place that it returns.
func (t *Table[T]) count(l *Lease[T]) instep.Place {
	p := l.Word.Place()
	if p == 0 {
		return p
	}
	done := int(p.Stamp() - t.slot(l).Base)
	if n := done + 1 - int(l.begun); n > 0 {
		l.begun = uint8(done + 1)
		t.began += n
	}
	if p.Acked() {
		done++
	}
	if n := done - int(l.counted); n > 0 {
		l.counted = uint8(done)
		t.acked += n
		t.inStep -= n
	}
	return p
}

// Steps reports whether any message waits for a consumer, or is current and not detached. If
// not, nobody has to look at the leases that consumers have.
func (t *Table[T]) Steps() bool { return t != nil && t.inStep > 0 }

// Held is how many messages the table holds, those included that consumers in step
// have acknowledged since they were last counted.
func (t *Table[T]) Held() int {
	if t == nil {
		return 0
	}
	return t.inStep + t.open + t.timedOut
}

// TimedOut is how many messages timed out in their blocks, and are to be taken again.
func (t *Table[T]) TimedOut() int {
	if t == nil {
		return 0
	}
	return t.timedOut
}

// Timed is how many messages are in flight by their bits: each of them times out.
func (t *Table[T]) Timed() int {
	if t == nil {
		return 0
	}
	return t.open
}

// Tally returns how many deliveries have begun, and how many were acknowledged,
// since it was last called.
func (t *Table[T]) Tally() (began, acked int) {
	if t == nil {
		return 0, 0
	}
	began, acked = t.began, t.acked
	t.began, t.acked = 0, 0
	return began, acked
}

// Leases are those that a consumer has. The slice is the table's, and good until
// the next lease is opened or left.
func (t *Table[T]) Leases() []*Lease[T] {
	if t == nil {
		return nil
	}
	return t.steps
}

// Detach makes the current message of a lease in step one that is in flight by its
// bit, if it is neither acknowledged nor that already, and reports whether it has.
// Its visibility timeout counts from when it began: now, if its consumer does not know
// better, or when it was taken if it is the lease's first.
func (t *Table[T]) Detach(l *Lease[T], now int64) bool {
	p, ok := l.Word.Detach()
	if p == 0 {
		return false
	}
	t.count(l)
	s := t.slot(l)
	l.clearDone(s, p)
	if !ok {
		return false
	}
	k := int(p.Stamp() - s.Base)
	l.counted++
	t.inStep--
	if s.Open != 0 && l.block.Items == nil {
		t.own(l, s, s.Open|mask(k, 1+p.Waiting())) // it began at another time
	}
	t.open++
	s.Open |= bit(k)
	switch {
	case k == 0:
	case l.block.Items == nil:
		l.block.Began = l.owner.Began(now)
	default:
		l.block.Begin(l.block.Place(k), 1, len(l.block.Items), l.owner.Began(now))
	}
	t.due.Enter(&l.due, after(l.block.Start(k), l.vis), s.Base+uint64(k))
	t.tidy(s)
	return true
}

// extractCurrent takes the current message, of stamp, out of a lease in step. It reports
// whether that was the current one, and not over.
func (t *Table[T]) extractCurrent(l *Lease[T], stamp uint64, now int64) (out Out[T], ok bool) {
	if !l.Word.DetachOf(stamp) {
		return out, false
	}
	t.count(l)
	s := t.slot(l)
	k := int(stamp - s.Base)
	l.counted++
	t.inStep--
	out = Out[T]{Item: l.item(k), Stamp: stamp, Start: l.taken}
	if k > 0 {
		out.Start = l.owner.Began(now)
	}
	s.Dead |= bit(k) & l.block.Present
	t.tidy(s)
	return out, true
}

// Next begins the next message, if the current one is acknowledged or detached
// and something waits: Advance for a consumer that holds the lock.
func (t *Table[T]) Next(l *Lease[T]) bool {
	if p := l.Word.Place(); !p.Over() || p.Waiting() == 0 {
		return false
	}
	t.count(l)
	return l.Word.Next()
}

// An Out is a message that has left its block.
type Out[T any] struct {
	Item  message.Item[T]
	Past  message.Past // its history is its own
	Stamp uint64       // of its delivery; 0: it never was delivered from here
	Start int64        // of its delivery
}

// TakeBack takes out of a lease what waits there, and gives it away in the order in
// which it would have been delivered.
func (t *Table[T]) TakeBack(l *Lease[T], give func(Out[T])) {
	p := l.Word.TakeBack()
	n := p.Waiting()
	if n == 0 {
		return
	}
	s := t.slot(l)
	first := int(p.Stamp()-s.Base) + 1
	for k := first; k < first+n; k++ {
		give(Out[T]{Item: l.item(k)})
	}
	if l.block.Items != nil {
		at := l.block.Place(first)
		clear(l.block.Items[at : at+n])
	}
	l.n = uint8(first)
	t.inStep -= n
	t.count(l)
	t.tidy(s)
}

// past is what message k has been through, as its own.
func (l *Lease[T]) past(k int) (past message.Past) {
	m := l.more
	if m == nil || l.block.Items == nil {
		return past
	}
	p := l.block.Place(k)
	return m.pasts.Of(p, l.block.Items[p].Seq)
}

// End says that a consumer has left its lease. What of it is in flight by its bit
// stays so, and so does a current message that is not over: as if it was detached
// now. Nothing waits any more: see TakeBack. The consumer forgets the lease.
func (t *Table[T]) End(l *Lease[T], now int64) {
	t.Detach(l, now)
	if l.Word.Place().Waiting() > 0 {
		panic("fanout: bug: a lease is left while messages wait in it")
	}
	if int(l.step) <= t.ahead {
		t.ahead--
		t.exchange(l, t.ahead)
	}
	last := len(t.steps) - 1
	t.exchange(l, last)
	t.steps[last] = nil
	t.steps = t.steps[:last]
	if cap(t.steps) > 64 && last < cap(t.steps)/4 {
		t.steps = append(make([]*Lease[T], 0, cap(t.steps)/2), t.steps...)
	}
	s := t.slot(l)
	if l.block.Items == nil && s.Open != 0 {
		t.own(l, s, s.Open)
	}
	l.step, l.owner = 0, nil
	l.Word.Leave()
	if s.Open|s.TimedOut != 0 {
		s.Dead |= gone(s)
		t.tidy(s)
		return
	}
	t.drop(s)
}

// gone has the bits of the messages that are over and still have a place.
func gone[T any](s *slots.Slot[*Lease[T]]) uint64 {
	l := s.Lease
	return mask(0, int(l.n)) & l.block.Present &^ s.Open &^ s.TimedOut
}

// Done reports whether nothing of a lease is in flight, timed out or waits.
func (t *Table[T]) Done(l *Lease[T]) bool {
	s, p := t.slot(l), t.count(l)
	return s.Open|s.TimedOut == 0 && (p == 0 || p.Over() && p.Waiting() == 0)
}

// AckWhole acknowledges all of a lease of which all has begun, if all of it is
// still in flight, and reports whether it has.
func (t *Table[T]) AckWhole(l *Lease[T]) bool {
	s, n := t.slot(l), int(l.n)
	if n == 0 || s.Open != mask(0, n) {
		return false
	}
	s.Open = 0
	t.open -= n
	t.acked += n
	return true
}

// InFlightOf is how many messages of a lease are in flight.
func (t *Table[T]) InFlightOf(l *Lease[T]) int {
	n := bits.OnesCount64(t.slot(l).Open)
	if p := l.Word.Place(); p != 0 && !p.Over() {
		n++
	}
	return n
}

// InFlight returns names of all deliveries that are in flight by their bits, in the
// order of their stamps. To have those of consumers in step too, detach them first.
func (t *Table[T]) InFlight() []message.Ref {
	if t == nil {
		return nil
	}
	refs := make([]message.Ref, 0, t.open)
	for _, s := range t.slots.All {
		for b := s.Open; b != 0; b &= b - 1 {
			refs = append(refs, t.ref(s, bits.TrailingZeros64(b)))
		}
	}
	sortRefs(refs)
	return refs
}
