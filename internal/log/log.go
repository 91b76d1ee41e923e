// Package log is a topic's log: an append-only sequence in segments, with one
// writer at a time and any number of cursors that read it.
//
// Nothing here deletes. A segment is reachable from the segment before it and
// from the cursors that stand in it, so the garbage collector takes it once
// every cursor has passed. That is why only cursors may point at segments:
// whoever wants to keep an element for longer copies it out.
package log

import "sync/atomic"

// A Log is written under its owner's lock and read without it.
//
// Invariants:
//   - positions grow by one an element and are never given twice;
//   - what stands below the published position never changes;
//   - tail is the segment that holds position head-1, or the first one.
//
// A Log is made by [New] and is not copied.
type Log[E any] struct {
	// Written by the writer alone, under the owner's lock.
	tail *segment[E]
	head int64
	size int

	_ [64]byte // published is read by every consumer: it has a cache line of its own

	published atomic.Int64

	_ [56]byte
}

type segment[E any] struct {
	base  int64 // position of items[0]
	items []E
	next  *segment[E]
}

func (s *segment[E]) end() int64 { return s.base + int64(len(s.items)) }

// New returns an empty log whose segments hold size elements.
func New[E any](size int) *Log[E] {
	l := &Log[E]{}
	l.Resize(size)
	return l
}

// Resize sets how many elements the segments made from now on hold; at least
// one. The writer calls it.
//
// A segment is kept as a whole while any cursor stands in it, so its size is
// also how much that has been consumed can still be pinned.
func (l *Log[E]) Resize(size int) { l.size = max(size, 1) }

// Append adds e behind all others. Readers don't see it before [Log.Publish].
// The writer calls it.
func (l *Log[E]) Append(e E) {
	if l.tail == nil || l.head == l.tail.end() {
		s := &segment[E]{base: l.head, items: make([]E, l.size)}
		if l.tail != nil {
			l.tail.next = s
		}
		l.tail = s
	}
	l.tail.items[l.head-l.tail.base] = e
	l.head++
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

// Cursor returns a cursor that stands at the head. The writer calls it.
func (l *Log[E]) Cursor() Cursor[E] {
	if l.tail == nil {
		l.tail = &segment[E]{base: l.head, items: make([]E, l.size)}
	}
	return Cursor[E]{seg: l.tail, pos: l.head}
}

// A Cursor is a reader's place in a log. It belongs to one goroutine at a time.
type Cursor[E any] struct {
	seg *segment[E]
	pos int64
}

// Pos is the position of the element that Next would return.
func (c *Cursor[E]) Pos() int64 { return c.pos }

// Next returns the element at the cursor and steps past it. The position must
// be below [Log.Published], or the caller must be the writer and the position
// below [Log.Head]. The element stays valid, but pins its segment: copy it.
func (c *Cursor[E]) Next() *E {
	e := c.Peek()
	c.pos++
	return e
}

// Peek returns the element at the cursor, as Next does, and stays.
func (c *Cursor[E]) Peek() *E {
	for c.pos >= c.seg.end() {
		c.seg = c.seg.next
	}
	return &c.seg.items[c.pos-c.seg.base]
}

// SkipTo moves the cursor forward to pos, which is at most [Log.Head], and lets
// go of the segments before it. The writer calls it, for a reader that it
// keeps from reading meanwhile.
func (c *Cursor[E]) SkipTo(pos int64) {
	c.pos = pos
	for c.pos >= c.seg.end() && c.seg.next != nil {
		c.seg = c.seg.next
	}
}
