// Package log is a log of a topic, or of a queue that does not get all of its topic's
// messages: an append-only sequence in segments, with one writer at a time and any number
// of cursors that read it.
//
// A segment is reachable from the segment before it and from the cursors that
// stand in it or before it, and from nowhere else. That is why only cursors may
// point at segments: whoever wants to keep an element for longer copies it out.
// The last cursor to leave a segment gives it back to be written anew, so that a
// busy log makes no garbage.
package log

import (
	"sync"
	"sync/atomic"
)

// A Log is written under its owner's lock and read without it.
//
// Invariants:
//   - positions grow by one an element and are never given twice;
//   - what stands below the published position never changes, until every cursor
//     has left its segment;
//   - tail is the segment that holds position head-1, or the first one;
//   - a segment's readers counts the cursors that stand in it or before it.
//
// A Log is made by [New] and is not copied.
type Log[E any] struct {
	// Written by the writer alone, under the owner's lock.
	tail    *segment[E]
	head    int64
	size    int
	readers int32 // cursors

	spare *Spare[E]

	mu sync.Mutex // guards where cursors rest; a leaf

	_ [64]byte // published is read by every consumer: it has a cache line of its own

	published atomic.Int64

	_ [56]byte
}

type segment[E any] struct {
	base    int64 // position of items[0]
	items   []E
	next    *segment[E]
	readers atomic.Int32

	// Guarded by the log's mu: for each position how many cursors rest there,
	// made with the first; how many in all; and how many elements are cleared.
	rests   []int32
	resting int32
	cleared int
}

func (s *segment[E]) end() int64 { return s.base + int64(len(s.items)) }

// A Spare keeps segments that no cursor stands in any more, to be written anew. The zero
// Spare is empty. Logs that share one find segments of their own length there only if they
// have the same.
type Spare[E any] struct{ segments sync.Pool } // of *segment[E]

// New returns an empty log whose segments hold size elements.
func New[E any](size int) *Log[E] { return NewSharing(size, new(Spare[E])) }

// NewSharing is [New] for a log that takes segments from spare and gives them back to it.
func NewSharing[E any](size int, spare *Spare[E]) *Log[E] {
	l := &Log[E]{spare: spare}
	l.Resize(size)
	return l
}

// Resize sets how many elements the segments made from now on hold, at most; at
// least one. The writer calls it.
//
// A segment is kept as a whole while any cursor stands in it, so its size is
// also how much that has been consumed can still be pinned.
func (l *Log[E]) Resize(size int) { l.size = max(size, 1) }

// firstSize is the length of the first segment that holds anything. Those that follow
// are longer, up to the log's size, so that a topic that says little keeps little. The
// segment that the first cursor stands in holds nothing, so that there is none of any
// length before the first element.
const firstSize = 8

// grow makes the tail a segment with room.
func (l *Log[E]) grow() {
	size := min(l.size, firstSize)
	if l.tail != nil && len(l.tail.items) > 0 {
		size = min(l.size, 4*len(l.tail.items))
	}
	s, _ := l.spare.segments.Get().(*segment[E])
	if s == nil || len(s.items) != size {
		s = &segment[E]{items: make([]E, size)}
	}
	s.cleared = 0
	s.base = l.head
	s.readers.Store(l.readers)
	if l.tail != nil {
		l.tail.next = s
	}
	l.tail = s
}

// Append adds e behind all others. Readers don't see it before [Log.Publish].
// The writer calls it.
func (l *Log[E]) Append(e E) {
	if l.tail == nil || l.head == l.tail.end() {
		l.grow()
	}
	l.tail.items[l.head-l.tail.base] = e
	l.head++
}

// Extend makes room for at most n elements behind all others, at least for one,
// and returns it for the writer to fill before it calls Publish.
func (l *Log[E]) Extend(n int) []E {
	if l.tail == nil || l.head == l.tail.end() {
		l.grow()
	}
	k := int(l.head - l.tail.base)
	n = min(n, len(l.tail.items)-k)
	l.head += int64(n)
	return l.tail.items[k : k+n]
}

// Publish shows readers all that has been appended. The writer calls it.
func (l *Log[E]) Publish() { l.published.Store(l.head) }

// Head is the position that the next element gets. The writer calls it.
func (l *Log[E]) Head() int64 { return l.head }

// Published is the position below which readers may read. Anyone may call it.
func (l *Log[E]) Published() int64 { return l.published.Load() }

// Forget drops the log's own hold on its last segment. The writer calls it
// when no cursor is left, so that a log that nobody reads keeps nothing.
func (l *Log[E]) Forget() { l.tail = nil }

// Cursor returns a cursor that stands at the head. It is the log's until its
// Close, and is not copied. The writer calls it.
func (l *Log[E]) Cursor() Cursor[E] {
	if l.tail == nil {
		l.tail = &segment[E]{base: l.head}
		l.tail.readers.Store(l.readers)
	}
	l.readers++
	l.tail.readers.Add(1)
	c := Cursor[E]{log: l, seg: l.tail, pos: l.head}
	c.Rest()
	return c
}

// Read reports whether any cursor reads the log. The writer calls it.
func (l *Log[E]) Read() bool { return l.readers > 0 }

// A Cursor is a reader's place in a log. It belongs to one goroutine at a time.
// The zero Cursor reads nothing.
type Cursor[E any] struct {
	log *Log[E]
	seg *segment[E]
	pos int64

	rest int64 // the position where it rests, plus one; 0: nowhere in its segment
}

// Pos is the position of the element that Next would return.
func (c *Cursor[E]) Pos() int64 { return c.pos }

// Next returns the element at the cursor and steps past it. The position must
// be below [Log.Published], or the caller must be the writer and the position
// below [Log.Head]. The element stays valid until the cursor is moved again:
// copy it.
func (c *Cursor[E]) Next() *E {
	e := c.Peek()
	c.pos++
	return e
}

// Peek returns the element at the cursor, as Next does, and stays.
func (c *Cursor[E]) Peek() *E {
	for c.pos >= c.seg.end() {
		c.leave()
	}
	return &c.seg.items[c.pos-c.seg.base]
}

// Run returns the elements from the cursor on that stand together, at most n,
// and stays. What holds for Next holds for all of them.
func (c *Cursor[E]) Run(n int) []E {
	for c.pos >= c.seg.end() {
		c.leave()
	}
	k := int(c.pos - c.seg.base)
	return c.seg.items[k:min(k+n, len(c.seg.items))]
}

// Step steps past the first n elements of a Run.
func (c *Cursor[E]) Step(n int) { c.pos += int64(n) }

// leave moves the cursor to the next segment. The last one to leave a segment
// clears it, for the writer to use again.
func (c *Cursor[E]) leave() {
	s := c.seg
	c.rise()
	c.seg = s.next
	if s.readers.Add(-1) == 0 && len(s.items) > 0 {
		clear(s.items)
		s.next = nil
		c.log.spare.segments.Put(s)
	}
}

// Rest says that the reader is done with what stands before the cursor. What all
// readers are done with is cleared at once, though its segment is read still. It
// costs a lock, so it is not for every element.
func (c *Cursor[E]) Rest() {
	if c.Resting() {
		return
	}
	s := c.seg
	c.log.mu.Lock()
	defer c.log.mu.Unlock()
	if s.rests == nil {
		s.rests = make([]int32, len(s.items)+1)
	}
	c.up()
	c.rest = c.pos + 1
	s.rests[c.pos-s.base]++
	s.resting++
	s.clear()
}

// Resting reports whether the cursor stands where it rests, or is zero.
func (c *Cursor[E]) Resting() bool {
	return c.log == nil || c.rest == c.pos+1
}

// rise takes back where the cursor rests, because it leaves its segment.
func (c *Cursor[E]) rise() {
	if c.rest == 0 {
		return
	}
	c.log.mu.Lock()
	defer c.log.mu.Unlock()
	c.up()
}

// up is rise with the log's mu held.
func (c *Cursor[E]) up() {
	if s := c.seg; c.rest > 0 {
		s.rests[c.rest-1-s.base]--
		s.resting--
		c.rest = 0
	}
}

// clear clears what all cursors have passed, if each rests. The log's mu is held.
func (s *segment[E]) clear() {
	if s.resting == 0 || s.resting < s.readers.Load() {
		return
	}
	from := s.cleared
	for s.rests[s.cleared] == 0 {
		s.cleared++
	}
	clear(s.items[from:s.cleared])
}

// Scan calls f with each element from the cursor to the published position,
// until f returns false. The cursor stays.
func (c *Cursor[E]) Scan(f func(e *E) bool) { c.ScanFrom(c.pos, f) }

// ScanFrom is [Cursor.Scan] from position pos on, if the cursor has not passed that.
func (c *Cursor[E]) ScanFrom(pos int64, f func(e *E) bool) {
	s, end := c.seg, c.log.Published()
	for pos = max(pos, c.pos); pos < end; pos++ {
		for pos >= s.end() {
			s = s.next
		}
		if !f(&s.items[pos-s.base]) {
			return
		}
	}
}

// SkipTo moves the cursor forward to pos, which is at most [Log.Head], and lets
// go of the segments before it. The writer calls it, for a reader that it
// keeps from reading meanwhile.
func (c *Cursor[E]) SkipTo(pos int64) {
	c.pos = pos
	for c.pos >= c.seg.end() && c.seg.next != nil {
		c.leave()
	}
}

// Close makes c the zero Cursor: the log keeps nothing for it any more. The
// writer calls it, for a reader that it keeps from reading meanwhile.
func (c *Cursor[E]) Close() {
	if c.log == nil {
		return
	}
	c.log.readers--
	for c.seg.next != nil {
		c.leave()
	}
	s := c.seg
	c.rise()
	s.readers.Add(-1)
	c.log.mu.Lock()
	s.clear()
	c.log.mu.Unlock()
	*c = Cursor[E]{}
}
