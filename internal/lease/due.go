package lease

import "math/bits"

// A block stands in the schedule for its first deadline or an earlier instant: what was first
// may have been settled since. When it comes up it is looked at, and enters again.

// firstDue returns the block whose message times out first, and that message.
func (t *Table[T]) firstDue() (l *Lease[T], k int) {
	if t == nil {
		return nil, 0
	}
	for n := t.due.First(); n != nil; n = t.due.First() {
		s := t.slots.At(n.ID)
		l = s.Lease
		if s.Open == 0 {
			t.due.Leave(n)
			continue
		}
		if k = int(n.When.Stamp - s.Base); s.Open&bit(k) != 0 && l.deadline(k) == n.When.At {
			return l, k
		}
		k = bits.TrailingZeros64(s.Open) // starts never decrease
		at := l.deadline(k)
		if l.more != nil && l.more.extended&s.Open != 0 {
			for b := s.Open; b != 0; b &= b - 1 {
				j := bits.TrailingZeros64(b)
				if d := l.deadline(j); d < at {
					k, at = j, d
				}
			}
		}
		t.due.Leave(n)
		t.due.Enter(n, at, s.Base+uint64(k))
	}
	return nil, 0
}

// NextDue returns the first instant at which a message times out, and its stamp.
func (t *Table[T]) NextDue() (at int64, stamp uint64, ok bool) {
	l, _ := t.firstDue()
	if l == nil {
		return 0, 0, false
	}
	return l.due.When.At, l.due.When.Stamp, true
}
