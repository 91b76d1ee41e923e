package lease

import (
	"math/bits"

	"github.com/gofanout/fanout/internal/block"
	"github.com/gofanout/fanout/internal/due"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/slots"
)

// The life of a message in its block. What is waiting, current or has a bit is in
// the table; over is not.
//
//	                 Step, Next                 Detach
//	  ┌─ waiting ───────────────▶ current ───────────────▶ open ──────────▶ extracted
//	  │     ▲                        │                     ▲  │   Extract       ▲
//	  │     │ InStep                 │ AckCurrent, Step,   │  │ Ack, AckWhole   │ PopTimedOut;
//	  │   (taken) ── Whole; Add ─────┼─────────────────────┘  ▼                 │ TimeOut, of one
//	  │                              └─────────────────────▶ over               │
//	  └─ TakeBack ──▶ (backlog)                                                 │
//	                               open ── TimeOut, of a block ─▶ timed out ─────┘
//	                                 ▲────────── TakeTimedOut ────────┘
//
// "In step" is waiting and current: the lease's word says which. "By bits" is the
// rest: the slot's bits say which.

// Stamps gives out the stamps of a queue, in order. A window does.
type Stamps interface {
	// Reserve reserves n stamps that follow each other and returns the first.
	Reserve(n int) (first uint64)
}

// A Table is all leases of a queue.
//
// Invariants, beside those of Lease and of its slots:
//   - a lease has a slot from its opening until nothing of it is in flight or
//     timed out and no consumer has it; the lease that is filled keeps it longer;
//   - the first ahead of steps are those whose consumers may go on without the lock: in
//     them something waits, or did when they were looked at last. The words of all others
//     change under the lock only, and what they say is counted;
//   - inStep counts what waits or is current and not counted yet, open and
//     timedOut the bits of all slots;
//   - ranked lists each block with timed-out messages once, by rank. It may name
//     blocks, or ranks of a block, that have nothing timed out any more.
//
// A Table is made by [New]. A nil Table is empty: it can be asked what it holds.
type Table[T any] struct {
	stamps Stamps
	origin *message.Origin

	slots  slots.Table[*Lease[T]]
	steps  []*Lease[T] // that a consumer has, in step or not
	ahead  int         // see Table
	ranked due.Ranks
	due    due.Schedule

	filling  *Lease[T]              // where callers' messages go; nil: begin another
	fillSlot *slots.Slot[*Lease[T]] // its slot

	inStep, open, timedOut int
	began, acked           int // since they were last asked for

	pool  *block.Pool
	heads []*Lease[T] // leases that are over, without places
	warm  bool        // a block of callers' was filled: the next is a large one
	bulky bool        // a large block is more than a table that is idle may keep

	rested uint64 // what Rest was told last

	// room is where the first of each stand: a queue that was idle for some milliseconds begins
	// a new table, which should not be many allocations.
	room struct {
		steps [2]*Lease[T]
		heads [2]*Lease[T]
		slots slots.First[*Lease[T]]
		head  Lease[T]
	}
}

// New returns an empty table whose blocks get their stamps from stamps and their places from
// pool, and whose messages tell, in their histories, of the origin.
func New[T any](stamps Stamps, pool *block.Pool, origin *message.Origin) *Table[T] {
	t := &Table[T]{stamps: stamps, pool: pool, origin: origin, bulky: Len*block.PlaceLen[T]() > fewBytes}
	r := &t.room
	t.slots.Begin(&r.slots)
	t.steps, t.heads = r.steps[:0], append(r.heads[:0], &r.head)
	return t
}

// InStep opens a lease of n messages, at most [Len], for a consumer that keeps them and
// goes through them one after the other. The first is the current one: it has begun, and
// the others wait. None has an ordering key or a past. Each times out vis after it began, once
// it is detached.
func (t *Table[T]) InStep(c Consumer[T], n int, now, vis int64) *Lease[T] {
	l := t.lend(c, t.head(), vis, 0)
	t.keep(l, n, now, true)
	return l
}

// Whole opens a lease of n messages, at most [Len], for a consumer that keeps them and has
// begun all of them. None has an ordering key or a past. Each is in flight by its bit.
func (t *Table[T]) Whole(c Consumer[T], n int, now, vis int64) *Lease[T] {
	l := t.lend(c, t.head(), vis, 0)
	t.keep(l, n, now, false)
	return l
}

// Gather opens a lease with room for so many messages, at most [Len], for a consumer that
// begins each as it is added. Each is in flight by its bit.
func (t *Table[T]) Gather(c Consumer[T], room int, vis int64) *Lease[T] {
	room = min(max(room, 1), Len)
	return t.lend(c, t.begin(room), vis, room)
}

func (t *Table[T]) lend(c Consumer[T], l *Lease[T], vis int64, room int) *Lease[T] {
	t.enter(l, vis, room)
	l.owner = c
	t.steps = append(t.steps, l)
	l.step = int32(len(t.steps))
	return l
}

// Again takes n more messages into a lease that InStep or Whole opened, as that did, if
// nothing of it is left. If it returns false, the consumer ends the lease and opens another.
func (t *Table[T]) Again(l *Lease[T], n int, now int64) bool {
	s, p := t.slot(l), l.Word.Place()
	if s.Open|s.TimedOut != 0 || l.block.Items != nil || l.more != nil || p != 0 && (!p.Over() || p.Waiting() > 0) {
		return false // what is over in step, the last message included, is counted
	}
	t.due.Leave(&l.due)
	t.keep(l, n, now, p != 0)
	return true
}

// keep says that a lease, of which nothing is left, has n messages that its consumer keeps.
func (t *Table[T]) keep(l *Lease[T], n int, now int64, inStep bool) {
	s := t.slot(l)
	s.Base, s.Dead = t.stamps.Reserve(n), 0
	l.n, l.begun, l.counted = uint8(n), 0, 0
	l.taken, l.block.Began = now, now
	if inStep {
		t.inStep += n
		l.Word.Begin(s.Base, n-1)
		if n > 1 {
			t.goAhead(l)
		} else {
			t.count(l)
		}
		return
	}
	s.Open = mask(0, n)
	t.open += n
	t.began += n
	t.due.Enter(&l.due, after(now, l.vis), s.Base)
}

// own copies messages of a lease that its consumer keeps into a block: those that are
// given are all that is left of it.
func (t *Table[T]) own(l *Lease[T], s *slots.Slot[*Lease[T]], left uint64) {
	items := t.places(bits.OnesCount64(left))
	for n, x := 0, left; x != 0; x &= x - 1 {
		k := bits.TrailingZeros64(x)
		items[n] = l.owner.Message(l, k)
		if !items[n].Ext.Plain() {
			l.alone = true
		}
		n++
	}
	l.block.Items, l.block.Present = items, left
	s.Dead = 0
}

// First names the delivery of the first message of a lease that its consumer keeps. The
// others follow.
func (t *Table[T]) First(l *Lease[T]) message.Ref {
	return message.Ref{Stamp: t.slot(l).Base, Block: l.due.ID, Attempt: 1}
}

// Fill returns the lease that callers' messages go to, which has room for at
// least one. Wanted is how many there are to come. What is added is in flight by
// its bit. All that is over of it is let go at once.
func (t *Table[T]) Fill(wanted int, vis int64) *Lease[T] {
	l := t.filling
	if l != nil && l.Room() > 0 && l.vis == vis {
		return l
	}
	t.unfill()
	t.filling = t.begin(t.roomFor(wanted))
	t.enter(t.filling, vis, t.filling.Room())
	t.fillSlot = t.slot(t.filling)
	return t.filling
}

// unfill says that no more messages go to the lease that is filled.
func (t *Table[T]) unfill() {
	if l := t.filling; l != nil {
		t.filling, t.fillSlot = nil, nil
		t.warm = t.warm || l.Room() == 0
		s := t.slot(l)
		s.Dead |= gone(s) // those included that were cleared while it was filled
		t.tidy(s)
	}
}

// begin returns a lease with so many places, which has no slot yet.
func (t *Table[T]) begin(room int) *Lease[T] {
	l := t.head()
	l.block.Items = block.Places[T](t.pool, max(room, least[T]()))[:room]
	return l
}

// enter gives a block a slot, and so many stamps.
func (t *Table[T]) enter(l *Lease[T], vis int64, room int) {
	l.due.ID = t.slots.Add(slots.Slot[*Lease[T]]{Base: t.stamps.Reserve(room), Lease: l})
	l.vis, l.block.Present = vis, ^uint64(0)
}

// Take adds items that are plain and have no past to the lease that is filled, as many as
// that has room for, and says in r which they are. Wanted is how many there are to come.
func (t *Table[T]) Take(r *Run[T], items []message.Item[T], wanted int, vis, now int64) {
	l := t.Fill(wanted, vis)
	first, n := int(l.n), 1
	if len(items) == 1 { // a call less
		l.block.Items[first] = items[0]
	} else {
		n = copy(l.block.Items[first:], items)
	}
	t.added(l, first, n, now)
	// Field by field: a Run that is returned is copied before its parts have been stored.
	r.Items, r.History = l.block.Items[first:first+n], nil
	r.First.Stamp, r.First.Block, r.First.Attempt = t.fillSlot.Base+uint64(first), l.due.ID, 1
}

// Add takes items that are plain and have no past into a lease, as many as it has room for, and
// returns how many. The lease is one that gathers, or is filled. Now never decreases.
func (t *Table[T]) Add(l *Lease[T], items []message.Item[T], now int64) int {
	first := int(l.n)
	n := copy(l.block.Items[first:], items)
	t.added(l, first, n, now)
	return n
}

// AddPast is Add of one message that may have been through something (it was retried,
// redriven, or timed out alone) or is not plain. The lease has room.
func (t *Table[T]) AddPast(l *Lease[T], it message.Item[T], p message.Past, now int64) {
	k := int(l.n)
	l.block.Items[k] = it
	l.alone = l.alone || !it.Ext.Plain()
	if l.more != nil || p != (message.Past{}) {
		l.moreOf().pasts.Put(k, len(l.block.Items), p)
	}
	t.added(l, k, 1, now)
}

func (t *Table[T]) added(l *Lease[T], first, n int, now int64) {
	l.n += uint8(n)
	if first == 0 {
		l.block.Began = now
	} else {
		l.block.Begin(first, n, first, now)
	}
	s := t.fillSlot
	if l != t.filling {
		s = t.slot(l)
	}
	s.Open |= mask(first, n)
	t.open += n
	t.began += n
	if at := after(now, l.vis); l.due.When.At == 0 || l.due.When.At >= at { // else it comes up earlier
		t.due.Enter(&l.due, at, s.Base+uint64(first))
	}
}

// A Run is messages of one lease that stand together and have the same past.
type Run[T any] struct {
	Items   []message.Item[T] // good until the lock is released
	First   message.Ref       // names the delivery of the first; the others follow
	History *message.History  // of all
}

// Run returns what stands together from message k of a lease on. All of them have
// just been added, or were not touched since.
func (t *Table[T]) Run(l *Lease[T], k int) Run[T] {
	s, n := t.slot(l), int(l.n)
	m := l.more
	if m == nil { // most often
		return Run[T]{l.block.Items[k:n], message.Ref{Stamp: s.Base + uint64(k), Block: l.due.ID, Attempt: 1}, nil}
	}
	n = m.pasts.Alike(k, n)
	return Run[T]{l.block.Items[k:n], t.ref(s, k), m.pasts.History(k)}
}

// ref names the delivery of message k.
func (t *Table[T]) ref(s *slots.Slot[*Lease[T]], k int) message.Ref {
	l, spent := s.Lease, uint32(0)
	if l.more != nil {
		spent = l.more.pasts.Spent(l.block.Place(k))
	}
	return message.Ref{Stamp: s.Base + uint64(k), Block: l.due.ID, Attempt: int32(min(spent, 1<<31-2)) + 1}
}

func (t *Table[T]) slot(l *Lease[T]) *slots.Slot[*Lease[T]] { return t.slots.At(l.due.ID) }
