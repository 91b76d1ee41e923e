// Package slots has the table of a queue's leases: for each of them the bits that say which of
// its messages are in flight, timed out or over.
//
// It promises that finding a slot, taking one and giving it back cost the same however many
// there are; that a slot stays where it is in memory until it is given back; and that memory
// follows what is in use, by chunks of sixteen slots.
//
// A Table owns its slots. Its owner's lock guards it. Here is no lock, clock or goroutine.
package slots

import (
	"fmt"
	"math/bits"
	"unsafe"
)

// A Slot says which of a lease's messages, at most 64, are in which state: an acknowledgement out
// of order reads it and little else.
//
// Invariants: Open, TimedOut and Dead have no bit in common; none is beyond what
// was taken; Base to Base+63 meets no stamp of another lease that was given out.
type Slot[L any] struct {
	Base     uint64 // stamp of message 0
	Open     uint64 // bit k: message k is in flight
	TimedOut uint64 // bit k: it timed out and is to be taken again
	Dead     uint64 // bit k: it is over, and still has its place, which may not be cleared
	Lease    L
}

// A Table has slots, in chunks that are given back when none of a chunk is in use. The zero
// Table is empty. L is a pointer: the compiler makes one Table for all pointers.
//
// Invariants: every chunk with a free slot is found through roomy; holes are the
// numbers of chunks that were given back.
type Table[L any] struct {
	chunks []*chunk[L]
	roomy  []int32
	holes  []int32
}

const chunkLen = 16

type chunk[L any] struct {
	slots [chunkLen]Slot[L]
	free  uint32 // bit i: slot i is free
	at    int32  // its place in roomy, while it has a free slot
}

// A First is the memory of a table's first chunk.
type First[L any] struct {
	chunks [1]*chunk[L]
	roomy  [1]int32
	chunk  chunk[L]
}

// Begin has an empty table put its first slots into f, which no table had before: that is
// no allocation.
func (t *Table[L]) Begin(f *First[L]) {
	f.chunk.free = 1<<chunkLen - 1
	t.chunks, t.roomy = append(f.chunks[:0], &f.chunk), append(f.roomy[:0], 0)
}

// At returns a slot that is in use.
func (t *Table[L]) At(number int32) *Slot[L] {
	return &t.chunks[number/chunkLen].slots[number%chunkLen]
}

// Find returns a slot that is or was in use; nil or a zero one if it is not any more.
func (t *Table[L]) Find(number int32) *Slot[L] {
	if c := int(uint32(number) / chunkLen); c < len(t.chunks) && t.chunks[c] != nil {
		return &t.chunks[c].slots[number%chunkLen]
	}
	return nil
}

// Add puts what has a lease into a free slot and returns its number.
func (t *Table[L]) Add(v Slot[L]) int32 {
	if len(t.roomy) == 0 {
		c := &chunk[L]{free: 1<<chunkLen - 1}
		ci := int32(len(t.chunks))
		if n := len(t.holes); n > 0 {
			ci, t.holes = t.holes[n-1], t.holes[:n-1]
			t.chunks[ci] = c
		} else {
			t.chunks = append(t.chunks, c)
		}
		t.roomy = append(t.roomy, ci)
	}
	ci := t.roomy[len(t.roomy)-1]
	c := t.chunks[ci]
	i := bits.TrailingZeros32(c.free)
	if c.free &= c.free - 1; c.free == 0 {
		t.roomy = t.roomy[:len(t.roomy)-1]
	}
	c.slots[i] = v
	return ci*chunkLen + int32(i)
}

// Remove empties a slot that is in use and gives it back.
func (t *Table[L]) Remove(number int32) {
	ci := number / chunkLen
	c := t.chunks[ci]
	c.slots[number%chunkLen] = Slot[L]{}
	if c.free == 0 {
		c.at = int32(len(t.roomy))
		t.roomy = append(t.roomy, ci)
	}
	if c.free |= 1 << (number % chunkLen); c.free != 1<<chunkLen-1 || len(t.roomy) == 1 {
		return
	}
	last := t.roomy[len(t.roomy)-1]
	t.roomy[c.at], t.chunks[last].at = last, c.at
	t.roomy = t.roomy[:len(t.roomy)-1]
	t.chunks[ci] = nil
	t.holes = append(t.holes, ci)
	if len(t.holes) == len(t.chunks)-1 && len(t.chunks) > 1 && t.idle(t.roomy[0]) {
		*t = Table[L]{} // the next slot begins anew
	}
}

// idle reports whether no slot of a chunk is in use.
func (t *Table[L]) idle(ci int32) bool { return t.chunks[ci].free == 1<<chunkLen-1 }

// All yields the slots that are in use, in the order of their numbers.
func (t *Table[L]) All(yield func(number int32, s *Slot[L]) bool) {
	for ci, c := range t.chunks {
		if c == nil {
			continue
		}
		for used := ^c.free & (1<<chunkLen - 1); used != 0; used &= used - 1 {
			i := bits.TrailingZeros32(used)
			if !yield(int32(ci*chunkLen+i), &c.slots[i]) {
				return
			}
		}
	}
}

// Bytes is how much memory the table has. Tests call it.
func (t *Table[L]) Bytes() int {
	n := 8*cap(t.chunks) + 4*cap(t.roomy) + 4*cap(t.holes)
	for _, c := range t.chunks {
		if c != nil {
			n += int(unsafe.Sizeof(*c))
		}
	}
	return n
}

// Check walks the invariants and returns the first that does not hold. Tests call it.
func (t *Table[L]) Check() error {
	var nobody L
	roomy, holes := 0, 0
	for ci, c := range t.chunks {
		if c == nil {
			holes++
			continue
		}
		if c.free != 0 {
			roomy++
		}
		for i := range c.slots {
			if free := c.free&(1<<i) != 0; free != (any(c.slots[i].Lease) == any(nobody)) || free && any(c.slots[i]) != any(Slot[L]{}) {
				return fmt.Errorf("slot %d is free: %v, and has %+v", ci*chunkLen+i, free, c.slots[i])
			}
		}
	}
	if roomy != len(t.roomy) || holes != len(t.holes) {
		return fmt.Errorf("%d chunks have room and %d are gone, known are %d and %d", roomy, holes, len(t.roomy), len(t.holes))
	}
	for _, ci := range t.roomy {
		if t.chunks[ci] == nil || t.chunks[ci].free == 0 {
			return fmt.Errorf("chunk %d has no room", ci)
		}
	}
	return nil
}
