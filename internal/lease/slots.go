package lease

import "math/bits"

// A slots is the table of slots, in chunks that are given back when none of a
// chunk is in use.
//
// Invariants: every chunk with a free slot is found through roomy; holes are the
// numbers of chunks that were given back.
type slots[T any] struct {
	chunks []*chunk[T]
	roomy  []int32
	holes  []int32
}

const chunkLen = 16

type chunk[T any] struct {
	slots [chunkLen]slot[T]
	free  uint32 // bit i: slot i is free
	at    int32  // its place in roomy, while it has a free slot
}

// at returns the slot of a block that there is.
func (s *slots[T]) at(id int32) *slot[T] { return &s.chunks[id/chunkLen].slots[id%chunkLen] }

// find returns the slot of any block that there ever was, nil if it is gone.
func (s *slots[T]) find(id int32) *slot[T] {
	if c := int(uint32(id) / chunkLen); c < len(s.chunks) && s.chunks[c] != nil {
		return &s.chunks[c].slots[id%chunkLen]
	}
	return nil
}

func (s *slots[T]) add(v slot[T]) int32 {
	if len(s.roomy) == 0 {
		c := &chunk[T]{free: 1<<chunkLen - 1}
		ci := int32(len(s.chunks))
		if n := len(s.holes); n > 0 {
			ci, s.holes = s.holes[n-1], s.holes[:n-1]
			s.chunks[ci] = c
		} else {
			s.chunks = append(s.chunks, c)
		}
		s.roomy = append(s.roomy, ci)
	}
	ci := s.roomy[len(s.roomy)-1]
	c := s.chunks[ci]
	i := bits.TrailingZeros32(c.free)
	if c.free &= c.free - 1; c.free == 0 {
		s.roomy = s.roomy[:len(s.roomy)-1]
	}
	c.slots[i] = v
	return ci*chunkLen + int32(i)
}

func (s *slots[T]) remove(id int32) {
	ci := id / chunkLen
	c := s.chunks[ci]
	c.slots[id%chunkLen] = slot[T]{}
	if c.free == 0 {
		c.at = int32(len(s.roomy))
		s.roomy = append(s.roomy, ci)
	}
	if c.free |= 1 << (id % chunkLen); c.free != 1<<chunkLen-1 || len(s.roomy) == 1 {
		return
	}
	last := s.roomy[len(s.roomy)-1]
	s.roomy[c.at], s.chunks[last].at = last, c.at
	s.roomy = s.roomy[:len(s.roomy)-1]
	s.chunks[ci] = nil
	s.holes = append(s.holes, ci)
	if len(s.holes) == len(s.chunks)-1 && len(s.chunks) > 1 && s.idle(s.roomy[0]) {
		*s = slots[T]{} // the next lease begins anew
	}
}

// idle reports whether no slot of a chunk is in use.
func (s *slots[T]) idle(ci int32) bool { return s.chunks[ci].free == 1<<chunkLen-1 }
