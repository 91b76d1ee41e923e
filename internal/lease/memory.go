package lease

import (
	"math/bits"

	"github.com/gofanout/fanout/internal/block"
	"github.com/gofanout/fanout/internal/instep"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/slots"
)

// What is over must not pin much. A block has four sizes. One that has been taken
// by callers, or left by its consumer, moves what is left of it to a smaller one
// whenever no more than a quarter of its places is in use: so each message is moved
// at most three times, and what is left alone pins little more than itself. The
// block that is filled does so once it is full, or with Trim if its places are large.
//
// The places of blocks that are over go to the pool, empty.

const (
	// fewBytes is how much a table that is idle may keep for a block that is hardly used.
	fewBytes = 4 << 10
	// largeBytes is more than a block for a few messages may take if only one is wanted.
	largeBytes = 64 << 10
	// headsLen is how many leases without places are kept.
	headsLen = 16
	// deadEach bounds how many messages that are over the block that is filled
	// keeps, for each that is in flight: fewer than so many, and none for one.
	deadEach = 7
)

// least is how many places the smallest block has that is begun: one of large messages, few
// of others.
func least[T any]() int {
	if block.Small*block.PlaceLen[T]() > largeBytes {
		return 1
	}
	return block.Small
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
	return int(block.SizeFor[min(room, Len)])
}

// sparse reports whether a block may have too many places for what is left of it.
// It looks at the slot alone, of which something has just ended.
func sparse[T any](s *slots.Slot[*Lease[T]]) bool {
	left := bits.OnesCount64(s.Open | s.TimedOut)
	return 4*left <= int(block.SizeFor[left+bits.OnesCount64(s.Dead)])
}

// tidyFilling is tidy for the lease that is filled: nothing of it has timed out.
func (t *Table[T]) tidyFilling(s *slots.Slot[*Lease[T]]) {
	l, left := s.Lease, bits.OnesCount64(s.Open)
	if left == 0 && l.Room() == 0 {
		t.filling, t.fillSlot = nil, nil
		t.warm = true
		t.tidy(s)
		return
	}
	if left <= 1 || bits.OnesCount64(s.Dead) >= deadEach*left {
		l.block.Clear(s.Dead)
		s.Dead = 0
	}
}

// tidy sees that what is over of a block does not pin much, and gives the block
// back if nothing is left of it. A lease in step is its consumer's as long as it has
// a current message.
func (t *Table[T]) tidy(s *slots.Slot[*Lease[T]]) {
	l := s.Lease
	if l.block.Items == nil {
		return // its consumer keeps the messages, and gives it back
	}
	if p := l.Word.Place(); p != 0 {
		if p.Waiting() > 0 || !p.Over() {
			return
		}
		s.Dead |= gone(s)
	}
	left := bits.OnesCount64(s.Open | s.TimedOut)
	switch n := cap(l.block.Items); {
	case left == 0 && l.step == 0:
		t.drop(s)
	case left > 0 && (n >= 4*left || left == 1 && n > 1 || n > int(block.SizeFor[l.n])):
		t.shrink(s, left)
	}
}

// drop gives back a block of which nothing is left.
func (t *Table[T]) drop(s *slots.Slot[*Lease[T]]) {
	l := s.Lease
	t.due.Leave(&l.due)
	t.slots.Remove(l.due.ID)
	if l.block.Items != nil {
		l.block.Drop(t.pool, int(l.n))
	}
	t.giveHead(l)
}

// shrink moves what is left of a block to one that is hardly larger.
func (t *Table[T]) shrink(s *slots.Slot[*Lease[T]], left int) {
	l, live := s.Lease, s.Open|s.TimedOut
	var ps *block.Pasts
	if l.more != nil {
		ps = &l.more.pasts
	}
	l.block.Move(t.pool, t.places(left), live, ps)
	s.Dead = 0
}

// places returns empty ones for so many messages: no more than that of large ones.
func (t *Table[T]) places(n int) []message.Item[T] {
	if t.bulky {
		return block.Exactly[T](t.pool, n)
	}
	return block.Places[T](t.pool, n)[:n]
}

// head returns an empty lease without places.
func (t *Table[T]) head() *Lease[T] {
	n := len(t.heads)
	if n == 0 {
		return new(Lease[T])
	}
	l := t.heads[n-1]
	t.heads[n-1] = nil
	t.heads = t.heads[:n-1]
	return l
}

// giveHead keeps a lease that is over, without its places. It never becomes another table's:
// whoever acknowledges by its word knows it by a stamp of this queue.
func (t *Table[T]) giveHead(l *Lease[T]) {
	l.more = nil
	l.n, l.begun, l.counted, l.alone = 0, 0, 0, false
	if len(t.heads) < headsLen {
		t.heads = append(t.heads, l)
	}
}

// clearDone lets go of the messages of a lease in step that are over, of which the table
// has a copy.
func (l *Lease[T]) clearDone(s *slots.Slot[*Lease[T]], p instep.Place) {
	if l.block.Items == nil || p == 0 {
		return
	}
	done := int(p.Stamp() - s.Base)
	if p.Acked() {
		done++
	}
	l.block.Clear(mask(0, done) & l.block.Present &^ s.Open &^ s.TimedOut)
}

// Clean lets go of what is over in the leases that consumers have and go through without the
// lock. All else is let go of as it ends. Its owner calls it when a consumer rests.
func (t *Table[T]) Clean() {
	if t == nil {
		return
	}
	for _, l := range t.steps[:t.ahead] {
		l.clearDone(t.slot(l), l.Word.Place())
	}
}

// Spare reports whether nobody uses the table, so that all of it is memory to give back.
func (t *Table[T]) Spare() bool { return t != nil && t.Held() == 0 && len(t.steps) == 0 }

// Rest is what the owner calls once in a while. It is Trim if nothing was delivered since it
// was called last, as the count of deliveries says, and otherwise Clean. It reports whether to
// call it again for what it has kept.
func (t *Table[T]) Rest(delivered uint64) (again bool) {
	if t == nil {
		return false
	}
	if t.rested == delivered {
		t.Trim()
		return false
	}
	t.rested = delivered
	t.Clean()
	if t.bulky {
		t.unfill()
	}
	return t.Spare()
}

// Trim is Clean, and gives back all memory that is not in use.
func (t *Table[T]) Trim() {
	if t == nil {
		return
	}
	t.Clean()
	held := t.Held() > 0 || len(t.steps) > 0
	if t.bulky || !held {
		t.unfill()
	}
	t.heads = nil
	if !held {
		*t = Table[T]{stamps: t.stamps, origin: t.origin, pool: t.pool, bulky: t.bulky, rested: t.rested, began: t.began, acked: t.acked}
	}
}
