package lease

import "math/bits"

// Deadlines. Nearly all blocks are opened in the order of their deadlines: those
// stand in a line, where entering, leaving and finding the first are a few stores,
// and a block can be used again as soon as it is over. One that comes out of order
// goes to a heap, in which it knows its place, so that it can leave at once too.
//
// A block stands for its first deadline or an earlier instant: what was first may
// have been settled since. When it comes up it is looked at, and enters again.

// A line is a list of blocks, by their numbers plus one.
type line struct{ first, last int32 }

// before reports whether l comes up before m: at one instant the lower stamp first.
func (t *Table[T]) before(l, m *Lease[T]) bool {
	return l.due < m.due || l.due == m.due && t.first(l) < t.first(m)
}

// first is the stamp that a block's due belongs to.
func (t *Table[T]) first(l *Lease[T]) uint64 { return t.slot(l).base + uint64(l.dueBit) }

// schedule sees to it that a block comes up no later than at, for message k.
func (t *Table[T]) schedule(l *Lease[T], at int64, k int) {
	if l.due != 0 {
		if l.due < at || l.due == at && int(l.dueBit) <= k {
			return // it comes up earlier
		}
		t.unschedule(l) // what was first had been extended
	}
	l.due, l.dueBit = at, uint8(k)
	switch {
	case t.line.last == 0:
		t.line = line{l.id + 1, l.id + 1}
	case t.before(t.lease(t.line.last), l):
		last := t.lease(t.line.last)
		last.next, l.prev, t.line.last = l.id+1, t.line.last, l.id+1
	case t.before(l, t.lease(t.line.first)):
		first := t.lease(t.line.first)
		first.prev, l.next, t.line.first = l.id+1, t.line.first, l.id+1
	default:
		t.heap = append(t.heap, l)
		t.up(len(t.heap) - 1)
	}
}

// lease returns a block by its number plus one.
func (t *Table[T]) lease(number int32) *Lease[T] { return t.slots.at(number - 1).lease }

// unschedule takes a block out of the line or the heap.
func (t *Table[T]) unschedule(l *Lease[T]) {
	switch {
	case l.due == 0:
		return
	case l.at != 0:
		t.leaveHeap(int(l.at - 1))
	default:
		if l.prev == 0 {
			t.line.first = l.next
		} else {
			t.lease(l.prev).next = l.next
		}
		if l.next == 0 {
			t.line.last = l.prev
		} else {
			t.lease(l.next).prev = l.prev
		}
		l.prev, l.next = 0, 0
	}
	l.due = 0
}

// top returns the block that comes up first, nil if none is scheduled.
func (t *Table[T]) top() *Lease[T] {
	var l *Lease[T]
	if t.line.first != 0 {
		l = t.lease(t.line.first)
	}
	if len(t.heap) > 0 && (l == nil || t.before(t.heap[0], l)) {
		l = t.heap[0]
	}
	return l
}

// firstDue returns the block whose message times out first, and that message.
func (t *Table[T]) firstDue() (l *Lease[T], k int) {
	if t == nil {
		return nil, 0
	}
	for l = t.top(); l != nil; l = t.top() {
		s := t.slot(l)
		if s.open == 0 {
			t.unschedule(l)
			continue
		}
		if k = int(l.dueBit); s.open&bit(k) != 0 && l.deadline(s, k) == l.due {
			return l, k
		}
		k = bits.TrailingZeros64(s.open) // starts never decrease
		at := l.deadline(s, k)
		if l.more != nil && l.more.extended&s.open != 0 {
			for b := s.open; b != 0; b &= b - 1 {
				j := bits.TrailingZeros64(b)
				if d := l.deadline(s, j); d < at {
					k, at = j, d
				}
			}
		}
		t.unschedule(l)
		t.schedule(l, at, k)
	}
	return nil, 0
}

// NextDue returns the first instant at which a message times out, and its stamp.
func (t *Table[T]) NextDue() (at int64, stamp uint64, ok bool) {
	l, k := t.firstDue()
	if l == nil {
		return 0, 0, false
	}
	return l.due, t.slot(l).base + uint64(k), true
}

func (t *Table[T]) up(k int) {
	h, l := t.heap, t.heap[k]
	for k > 0 && t.before(l, h[(k-1)/2]) {
		h[k] = h[(k-1)/2]
		h[k].at = int32(k + 1)
		k = (k - 1) / 2
	}
	h[k] = l
	l.at = int32(k + 1)
}

func (t *Table[T]) down(k int) {
	h, l := t.heap, t.heap[k]
	for c := 2*k + 1; c < len(h); c = 2*k + 1 {
		if c+1 < len(h) && t.before(h[c+1], h[c]) {
			c++
		}
		if !t.before(h[c], l) {
			break
		}
		h[k] = h[c]
		h[k].at = int32(k + 1)
		k = c
	}
	h[k] = l
	l.at = int32(k + 1)
}

func (t *Table[T]) leaveHeap(k int) {
	last := len(t.heap) - 1
	t.heap[k].at = 0
	moved := t.heap[last]
	t.heap[last] = nil
	t.heap = t.heap[:last]
	if k < last {
		t.heap[k] = moved
		moved.at = int32(k + 1)
		t.up(k)
		t.down(int(moved.at - 1))
	}
	if last == 0 {
		t.heap = nil
	}
}
