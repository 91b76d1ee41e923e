package lease

import (
	"iter"
	"math/bits"

	"github.com/gofanout/fanout/internal/block"
	"github.com/gofanout/fanout/internal/due"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/slots"
)

// What of a block times out in one step stays where it is, as timed out: a million
// messages that time out together cost a few bits each. A caller takes them again
// in place: the block gets new stamps, and all share one history. Any other
// consumer takes them out, one by one.

// TimedOut says what timed out: one message, which has left its block, or several
// that stay there.
type TimedOut[T any] struct {
	Several bool
	Out     Out[T]      // the one
	Owner   Consumer[T] // the consumer that had it, if any
	At      int64       // when it was due
	base    uint64
	bits    uint64
}

// Len is how many messages timed out.
func (e TimedOut[T]) Len() int {
	if !e.Several {
		return 1
	}
	return bits.OnesCount64(e.bits)
}

// Runs yields the stamps of all deliveries that timed out: the first and the
// number of each run.
func (e TimedOut[T]) Runs() iter.Seq2[uint64, int] {
	return func(yield func(uint64, int) bool) {
		if !e.Several {
			yield(e.Out.Stamp, 1)
			return
		}
		for b := e.bits; b != 0; {
			k := bits.TrailingZeros64(b)
			n := bits.TrailingZeros64(^(b >> k))
			if !yield(e.base+uint64(k), n) {
				return
			}
			b &^= mask(k, n)
		}
	}
}

// TimeOut times out what is first, if that is due by now and before until, and
// returns it; what of a block is due with it goes in the same step. ok is false if
// nothing is due.
//
// Messages time out together if no consumer has their block, each is plain, none has
// a deadline of its own, and with this attempt each has spent fewer than most. A most of 0 makes
// each time out alone: then its owner can tell of it, count it, or let it die.
func (t *Table[T]) TimeOut(now int64, until due.Instant, most int) (e TimedOut[T], ok bool) {
	l, k := t.firstDue()
	if l == nil || l.due.When.At > now || !l.due.When.Before(until) {
		return e, false
	}
	s := t.slot(l)
	if !t.mayTogether(l, s, most) {
		e.Owner, e.At = l.owner, l.due.When.At
		e.Out = t.extract(s, k)
		return e, true
	}
	t.due.Leave(&l.due)
	if m, _ := t.firstDue(); m != nil && m.due.When.Before(until) {
		until = m.due.When
	}
	late := s.Open
	for { // deadlines never decrease
		last := 63 - bits.LeadingZeros64(late)
		if at := l.deadline(last); at <= now && (due.Instant{At: at, Stamp: s.Base + uint64(last)}).Before(until) {
			break
		}
		late &^= bit(last)
	}
	t.timeOutSome(l, s, late, now)
	return TimedOut[T]{Several: true, base: s.Base, bits: late}, true
}

// mayTogether reports whether messages of a block may time out together.
func (t *Table[T]) mayTogether(l *Lease[T], s *slots.Slot[*Lease[T]], most int) bool {
	if most <= 0 || l.step != 0 || s.TimedOut != 0 || l.alone {
		return false
	}
	m := l.more
	if m == nil {
		return most > 1
	}
	return m.extended&s.Open == 0 && block.MayTimeOut(&l.block, &m.pasts, s.Open, most)
}

// timeOutSome lets some messages of a block wait there to be taken again.
func (t *Table[T]) timeOutSome(l *Lease[T], s *slots.Slot[*Lease[T]], late uint64, now int64) {
	if l == t.filling {
		t.unfill()
	}
	if t.timedOut == 0 {
		t.ranked = due.Ranks{} // what it names is over
	}
	n := bits.OnesCount64(late)
	s.Open &^= late
	s.TimedOut = late
	t.open -= n
	t.timedOut += n
	m := l.moreOf()
	m.taken, m.timedOutAt, m.rank = false, now, t.stamps.Reserve(Len)
	t.ranked.Add(l.due.ID, m.rank)
	if s.Open != 0 {
		k := bits.TrailingZeros64(s.Open)
		t.due.Enter(&l.due, l.deadline(k), s.Base+uint64(k))
	}
}

// firstTimedOut returns the block that timed out first.
func (t *Table[T]) firstTimedOut() (s *slots.Slot[*Lease[T]]) {
	if t == nil || t.timedOut == 0 {
		return nil
	}
	for ; ; t.ranked.Drop() {
		b := t.ranked.First()
		if s = t.slots.Find(b.ID); s != nil && s.TimedOut != 0 && s.Lease.more.rank == b.Rank {
			return s
		}
	}
}

// FirstTimedOut returns a stamp that tells when the first message that waits to be
// taken again timed out: later than every delivery and every change of state whose
// stamp is lower. ok is false if none waits. It is the stamp that PopTimedOut gives
// the message.
func (t *Table[T]) FirstTimedOut() (rank uint64, ok bool) {
	s := t.firstTimedOut()
	if s == nil {
		return 0, false
	}
	return s.Lease.more.rank + uint64(bits.TrailingZeros64(s.TimedOut)), true
}

// TakeTimedOut puts the first messages that timed out in flight again, for a caller:
// at most so many, at least one, all of one block. They stay where they are. ok is
// false if none wait, or the first can't be taken so: PopTimedOut takes it out then.
func (t *Table[T]) TakeTimedOut(most int, vis, now int64) (r Run[T], ok bool) {
	s := t.firstTimedOut()
	if s == nil || most <= 0 {
		return r, false
	}
	l := s.Lease
	m := l.more
	if !m.taken {
		if s.Open != 0 || l.step != 0 {
			return r, false // the others of their block go on with their stamps
		}
		t.again(l, s, vis)
	} else if l.vis != vis {
		return r, false
	}
	k := bits.TrailingZeros64(s.TimedOut)
	p := l.block.Place(k)
	n := m.pasts.Alike(p, p+min(bits.TrailingZeros64(^(s.TimedOut>>k)), most)) - p
	if s.Open == 0 && n == bits.OnesCount64(s.TimedOut) {
		l.block.BeginAll(now)
	} else {
		l.block.Begin(p, n, len(l.block.Items), now)
	}
	s.TimedOut &^= mask(k, n)
	s.Open |= mask(k, n)
	t.timedOut -= n
	t.open += n
	t.began += n
	t.due.Enter(&l.due, after(now, vis), s.Base+uint64(k))
	return Run[T]{l.block.Items[p : p+n], t.ref(s, k), m.pasts.History(p)}, true
}

// again gives a block whose messages have all timed out new stamps, and what they
// went through to all of them.
func (t *Table[T]) again(l *Lease[T], s *slots.Slot[*Lease[T]], vis int64) {
	t.due.Leave(&l.due)
	m := l.more
	block.TimeOut(&l.block, &m.pasts, s.TimedOut, m.timedOutAt, t.origin)
	m.taken = true
	l.block.Clear(s.Dead)
	s.Base = t.stamps.Reserve(64 - bits.LeadingZeros64(s.TimedOut))
	l.vis = vis
}

// PopTimedOut takes the first message that timed out, and waits to be taken again,
// out of its block. Its past includes that, and its stamp is new.
func (t *Table[T]) PopTimedOut() (out Out[T], ok bool) {
	s := t.firstTimedOut()
	if s == nil {
		return out, false
	}
	l := s.Lease
	m := l.more
	fresh, at := !m.taken, m.timedOutAt
	rank := m.rank + uint64(bits.TrailingZeros64(s.TimedOut))
	out = t.extract(s, bits.TrailingZeros64(s.TimedOut))
	if fresh {
		out.Past.Spent++
		out.Past.Hist = out.Past.Hist.With(message.TimeOut(t.origin, out.Start, at))
	}
	out.Stamp = rank
	return out, true
}
