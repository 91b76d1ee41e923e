// Package window keeps the messages of a queue that are looked after one by one, by a
// small number each: those that are delayed, wait for a retry, stand behind their
// ordering key or are parked, dead letters, and those of engines. (The others are in the
// log, or in flight in package lease.) It finds the first of a list, the one whose delay
// or backoff is over, and the one that was published first.
//
// Everything here is constant time but for the deadlines that come out of
// order and the search for the oldest, which are O(log n), and for what comes
// out of order into a list that is in order (PushInOrder). Memory is taken as
// messages come and given back as they go. It has no lock, clock or
// goroutine: a queue's lock guards its window.
package window

import (
	"math/bits"
	"unsafe"
)

// chunkLen is how many entries have numbers of one chunk.
const chunkLen = 16

const allFree = 1<<chunkLen - 1

// Where an entry is linked.
const (
	nowhere = iota
	inList  // in a List of the owner's
	inLine  // in the window's line of deadlines
	inHeap  // in the window's heap of deadlines
)

// Meta is what the window keeps of each entry beside its value: 32 bytes.
type Meta struct {
	// Stamp is the fence. It is unique in the window and given anew at every
	// change of state, so that whoever holds an older one no longer owns the
	// entry. Zero while the entry is free.
	Stamp uint64
	// Deadline is the instant that the entry waits for, if it is scheduled.
	Deadline int64

	prev, next int32 // neighbours in a list, their number plus one; 0 is none
	where      uint8

	// The rest is the owner's.
	State  uint8
	Passes uint16 // settlements that spent no attempt
	Spent  uint32 // attempts
}

// A slot has one entry. It is allocated by itself, so that an entry that stays pins nothing
// of those that were taken beside it.
type slot[E any] struct {
	Meta
	val E
}

type chunk[E any] struct {
	free  uint32             // bit i: entry i is free
	at    int32              // its place in open, while it has a free entry
	slots [chunkLen]*slot[E] // nil: free
}

// mostUnused is how many entries, and unusedBytes how many bytes of them, a window keeps to
// be used again.
const (
	mostUnused  = 16
	unusedBytes = 1 << 10
)

// A Window holds values of type E.
//
// Invariants:
//   - an entry is free, or in at most one list, or scheduled, never two of these;
//   - every entry with room in its chunk is found through open;
//   - at most one chunk is entirely free.
//
// The zero Window is empty and ready for use.
type Window[E any] struct {
	*tables[E]
	n     int
	stamp uint64
}

// tables are made with the first entry: many a window never has one.
type tables[E any] struct {
	chunks []*chunk[E] // nil where a chunk was given back
	open   []int32     // numbers of chunks that have a free entry
	holes  []int32     // numbers of chunks that were given back
	spare  int32       // chunks that are entirely free: zero or one
	unused []*slot[E]  // to be used again; each is empty

	line  List     // scheduled, deadlines in order
	heap  lazyHeap // scheduled, the others; by deadline
	elder lazyHeap // ranked by the owner, see Rank

	expiring lazyHeap // by when they expire, see SetExpiry
	order    Order    // see Order
}

// Len is the number of entries held.
func (w *Window[E]) Len() int { return w.n }

// Add takes a free entry, sets its value and returns its number.
func (w *Window[E]) Add(v E) int32 {
	if w.tables == nil {
		w.tables = new(tables[E])
	}
	if len(w.open) == 0 {
		w.grow()
	}
	ci := w.open[len(w.open)-1]
	c := w.chunks[ci]
	if c.free == allFree {
		w.spare--
	}
	bit := bits.TrailingZeros32(c.free)
	c.free &^= 1 << bit
	if c.free == 0 {
		w.open = w.open[:len(w.open)-1]
	}
	w.n++
	w.stamp++
	e := w.slot()
	e.Stamp, e.val = w.stamp, v
	c.slots[bit] = e
	return ci*chunkLen + int32(bit)
}

// Reserve reserves n stamps for entries to come and returns the first.
func (w *Window[E]) Reserve(n int) (first uint64) {
	first = w.stamp + 1
	w.stamp += uint64(n)
	return first
}

func (w *Window[E]) grow() {
	c := &chunk[E]{free: allFree}
	var ci int32
	if n := len(w.holes); n > 0 {
		ci, w.holes = w.holes[n-1], w.holes[:n-1]
		w.chunks[ci] = c
	} else {
		ci = int32(len(w.chunks))
		w.chunks = append(w.chunks, c)
	}
	w.open = append(w.open, ci) // the only one
	w.spare++
}

// slot returns an empty slot.
func (w *Window[E]) slot() *slot[E] {
	last := len(w.unused) - 1
	if last < 0 {
		return new(slot[E])
	}
	e := w.unused[last]
	w.unused[last] = nil
	w.unused = w.unused[:last]
	return e
}

// Remove frees entry i, which is in no list and not scheduled.
func (w *Window[E]) Remove(i int32) {
	ci, bit := i/chunkLen, i%chunkLen
	c := w.chunks[ci]
	e := c.slots[bit]
	c.slots[bit] = nil
	if len(w.unused) < mostUnused && len(w.unused) < unusedBytes/int(unsafe.Sizeof(*e)) {
		*e = slot[E]{}
		w.unused = append(w.unused, e)
	}
	if c.free == 0 {
		c.at = int32(len(w.open))
		w.open = append(w.open, ci)
	}
	c.free |= 1 << bit
	w.n--
	if c.free != allFree {
		return
	}
	if w.spare == 0 {
		w.spare++
		return
	}
	// A second chunk is empty: give it back. Which of the two is open does not
	// matter, so it is the one at hand.
	last := w.open[len(w.open)-1]
	w.open[c.at], w.chunks[last].at = last, c.at
	w.open = w.open[:len(w.open)-1]
	w.chunks[ci] = nil
	w.holes = append(w.holes, ci)
	if len(w.holes) == len(w.chunks)-int(w.spare) && w.n == 0 {
		w.shrink()
	}
}

// shrink gives back the tables of an empty window, so that an idle queue does
// not keep what a flood made it need.
func (w *Window[E]) shrink() {
	for _, c := range w.chunks {
		if c != nil {
			w.chunks, w.open, w.holes = []*chunk[E]{c}, []int32{0}, nil
			w.heap, w.elder, w.expiring, w.order = lazyHeap{}, lazyHeap{}, lazyHeap{}, Order{}
			return
		}
	}
}

// At returns the value of entry i. The pointer is good until the entry is removed.
func (w *Window[E]) At(i int32) *E { return &w.chunks[i/chunkLen].slots[i%chunkLen].val }

// Meta returns entry i's meta. The pointer is good until the entry is removed.
func (w *Window[E]) Meta(i int32) *Meta { return &w.chunks[i/chunkLen].slots[i%chunkLen].Meta }

// Owns reports whether stamp is still entry i's, for any i and stamp that the
// window ever gave out.
func (w *Window[E]) Owns(i int32, stamp uint64) bool {
	e := w.find(i)
	return stamp != 0 && e != nil && e.Stamp == stamp
}

// Holds reports whether entry i, for any i that the window ever gave out, is
// held, be it by the message it was given for or by another.
func (w *Window[E]) Holds(i int32) bool {
	return w.find(i) != nil
}

// find returns entry i, for any i that the window ever gave out, nil if it is free.
func (w *Window[E]) find(i int32) *slot[E] {
	ci := int(i / chunkLen)
	if w.tables == nil || ci >= len(w.chunks) || w.chunks[ci] == nil {
		return nil
	}
	return w.chunks[ci].slots[i%chunkLen]
}

// Restamp gives entry i, which is not scheduled, a new stamp, so that every older one is void, and returns it.
func (w *Window[E]) Restamp(i int32) uint64 {
	w.stamp++
	w.Meta(i).Stamp = w.stamp
	return w.stamp
}

// All calls f with every entry held, in no order, until f returns false.
// f may not add or remove.
func (w *Window[E]) All(f func(i int32) bool) {
	if w.tables == nil {
		return
	}
	for ci, c := range w.chunks {
		if c == nil {
			continue
		}
		for used := ^c.free & allFree; used != 0; used &= used - 1 {
			if !f(int32(ci)*chunkLen + int32(bits.TrailingZeros32(used))) {
				return
			}
		}
	}
}
