package lease

import (
	"math/bits"
	"unsafe"

	"github.com/gofanout/fanout/internal/message"
)

// What is over must not pin much. A block has four sizes. One that has been taken
// by callers, or left by its consumer, moves what is left of it to a smaller one
// whenever no more than a quarter of its places is in use: so each message is moved
// at most three times, and what is left alone pins little more than itself. The
// block that is filled does so once it is full, or with Trim if its places are large.
//
// Blocks that are over are kept for the next lease: a few while the queue is busy
// and none once its owner has called Trim.

const (
	// spareBytes bounds what is kept until Trim, which is no more than what is in use, or
	// fewBytes. And spareLen is how many leases without places are kept.
	spareBytes = 256 << 10
	fewBytes   = 4 << 10
	// largeBytes is more than a block for a few messages may take if only one is wanted.
	largeBytes = 64 << 10
	spareLen   = 16
	// deadEach bounds how many messages that are over the block that is filled
	// keeps, for each that is in flight: fewer than so many, and none for one.
	deadEach = 7
)

// sizeFor has the size of a block for so many messages.
var sizeFor = func() (sizes [Len + 1]uint8) {
	for n := range sizes {
		switch {
		case n <= 1:
			sizes[n] = 1
		case n <= small:
			sizes[n] = small
		case n <= medium:
			sizes[n] = medium
		default:
			sizes[n] = Len
		}
	}
	return sizes
}()

const small, medium = 4, 16

// A slab is the places of a block. What is in its items up to their length may be
// of messages that are over.
type slab[T any] struct {
	items  []message.Item[T]
	starts *int64 // the first of as many as there is room for items
}

// at returns the start of place p.
func (b slab[T]) at(p int) *int64 { return &unsafe.Slice(b.starts, cap(b.items))[p] }

// newSlab returns an empty slab with room for so many, in one piece.
func newSlab[T any](room int) slab[T] {
	switch sizeFor[room] {
	case 1:
		b := new(struct {
			items  [1]message.Item[T]
			starts [1]int64
		})
		return slab[T]{b.items[:0], &b.starts[0]}
	case small:
		b := new(struct {
			items  [small]message.Item[T]
			starts [small]int64
		})
		return slab[T]{b.items[:0], &b.starts[0]}
	case medium:
		b := new(struct {
			items  [medium]message.Item[T]
			starts [medium]int64
		})
		return slab[T]{b.items[:0], &b.starts[0]}
	}
	b := new(struct {
		items  [Len]message.Item[T]
		starts [Len]int64
	})
	return slab[T]{b.items[:0], &b.starts[0]}
}

func (b slab[T]) bytes() int { return cap(b.items) * placeBytes[T]() }

// placeBytes is the size of a place.
func placeBytes[T any]() int { return int(unsafe.Sizeof(message.Item[T]{})) + 8 }

// least is how many places the smallest block has that is begun: one of large messages, few
// of others.
func least[T any]() int {
	if small*placeBytes[T]() > largeBytes {
		return 1
	}
	return small
}

// roomFor is how large a block for callers is who want so many messages.
func (t *Table[T]) roomFor(wanted int) int {
	room := max(wanted, least[T]())
	switch {
	case t.bulky: // no more places than a few for each message in flight
		room = max(room, t.Held())
	case t.warm:
		room = Len
	}
	return int(sizeFor[min(room, Len)])
}

// sparse reports whether a block may have too many places for what is left of it.
// It looks at the slot alone.
func (s *slot[T]) sparse() bool {
	left := bits.OnesCount64(s.open | s.expired)
	return left <= 1 || 4*left <= int(sizeFor[left+bits.OnesCount64(s.dead)])
}

// tidyFilling is tidy for the lease that is filled.
func (t *Table[T]) tidyFilling(s *slot[T]) {
	l, left := s.lease, bits.OnesCount64(s.open|s.expired)
	if left == 0 && l.Room() == 0 {
		t.filling, t.fillSlot = nil, nil
		t.warm = true
		t.tidy(s)
		return
	}
	if left <= 1 || bits.OnesCount64(s.dead) >= deadEach*left {
		l.clear(s, s.dead)
		s.dead = 0
	}
}

// tidy sees that what is over of a block does not pin much, and gives the block
// back if nothing is left of it. A lease in step is its consumer's as long as it has
// a current message.
func (t *Table[T]) tidy(s *slot[T]) {
	l := s.lease
	if l.items == nil {
		return // its consumer keeps the messages, and gives it back
	}
	if p := l.Place(); p != 0 {
		if p.Waiting() > 0 || p&over == 0 {
			return
		}
		s.dead |= gone(s)
	}
	left := bits.OnesCount64(s.open | s.expired)
	switch n := cap(l.items); {
	case left == 0 && l.step == 0:
		if t.spare.takes(n, t.spareMost()) {
			l.clear(s, s.dead)
		}
		l.items = l.items[:0]
		t.drop(s)
	case left > 0 && (n >= 4*left || left == 1 && n > 1 || n > int(sizeFor[l.n])):
		t.shrink(s, left)
	}
}

// drop gives back a block of which nothing is left.
func (t *Table[T]) drop(s *slot[T]) {
	l := s.lease
	t.unschedule(l)
	t.slots.remove(l.id)
	t.spare.give(l, t.spareMost())
}

// shrink moves what is left of a block to one that is hardly larger.
func (t *Table[T]) shrink(s *slot[T], left int) {
	l, b := s.lease, t.block(left)
	var pasts []message.Past
	if l.more != nil && l.more.pasts != nil {
		pasts = make([]message.Past, left)
	}
	live, n := s.open|s.expired, 0
	for x := live; x != 0; x &= x - 1 {
		p := s.place(bits.TrailingZeros64(x))
		b.items[n], *b.at(n) = l.items[p], *l.startAt(p)
		if pasts != nil {
			pasts[n] = l.more.pasts[p]
		}
		n++
	}
	if most := t.spareMost(); t.spare.takes(cap(l.items), most) {
		clear(l.items)
		t.spare.giveSlab(slab[T]{l.items[:0], l.starts}, most)
	}
	l.items, l.starts, l.present = b.items, b.starts, live
	s.dead = 0
	if pasts != nil {
		l.more.pasts = pasts
	}
}

// block returns new places for so many messages.
func (t *Table[T]) block(left int) slab[T] {
	if t.bulky {
		return slab[T]{make([]message.Item[T], left), &make([]int64, left)[0]}
	}
	b := newSlab[T](left)
	return slab[T]{b.items[:left], b.starts}
}

// blockAgain returns places for so many messages, which may have been used.
func (t *Table[T]) blockAgain(left int) slab[T] {
	if sizeFor[left] == Len {
		if b, ok := t.spare.slab(Len); ok {
			if len(b.items) > left {
				clear(b.items[left:])
			}
			return slab[T]{b.items[:left], b.starts}
		}
	}
	return t.block(left)
}

// clear lets go of the messages of some bits.
func (l *Lease[T]) clear(s *slot[T], dead uint64) {
	for dead != 0 {
		k := bits.TrailingZeros64(dead)
		n := bits.TrailingZeros64(^(dead >> k))
		p := s.place(k)
		if n == 1 { // a call less
			l.items[p] = message.Item[T]{}
		} else {
			clear(l.items[p : p+n])
		}
		dead &^= mask(k, n)
	}
}

// clearDone lets go of the messages of a lease in step that are over, of which the table
// has a copy.
func (l *Lease[T]) clearDone(s *slot[T], p Place) {
	if l.items == nil || p == 0 {
		return
	}
	done := int(p.Stamp() - s.base)
	if p.Acked() {
		done++
	}
	l.clear(s, mask(0, done)&l.present&^s.open&^s.expired)
}

// Clean lets go of what is kept in blocks that are over: else that is kept until it is
// overwritten. Its owner calls it when a consumer rests, and once in a while as long as
// consumers are busy. What is over in the leases that consumers have is let go of as it
// ends, or here if a consumer goes on without the lock.
func (t *Table[T]) Clean() {
	if t == nil {
		return
	}
	t.spare.clean()
	for _, l := range t.steps[:t.ahead] {
		l.clearDone(t.slot(l), l.Place())
	}
}

// Spare reports whether there are blocks that Trim would give back.
func (t *Table[T]) Spare() bool {
	return t != nil && t.spare.bytes > 0
}

// Rest is what the owner calls once in a while. It is Trim if nothing was delivered since it
// was called last, as the count of deliveries says. Otherwise the blocks that are over will be
// wanted again, and it is Clean. It reports whether to call it again for what it has kept.
func (t *Table[T]) Rest(delivered uint64) (again bool) {
	if t == nil {
		return false
	}
	if t.rested == delivered {
		t.Trim()
		return false
	}
	t.rested = delivered
	t.clean()
	return t.spare.bytes > 0 || t.Held() == 0 && len(t.steps) == 0
}

// clean is Clean, and closes the block that is filled if it is large.
func (t *Table[T]) clean() {
	t.Clean()
	if t.bulky {
		t.unfill()
	}
}

// Trim is Clean, and gives back the memory of all blocks that are over.
func (t *Table[T]) Trim() {
	if t == nil {
		return
	}
	t.clean()
	if t.Held() > 0 || len(t.steps) > 0 {
		t.spare.trim(0)
		t.spare.heads = nil
		return
	}
	*t = Table[T]{stamps: t.stamps, origin: t.origin, bulky: t.bulky, rested: t.rested, began: t.began, acked: t.acked}
}
