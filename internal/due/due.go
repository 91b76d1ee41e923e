// Package due has the order in which a queue's leases time out, and that of those which have
// timed out and wait. Retries and delays wait in package window.
//
// It promises that a node comes up in the order of its instant, and that of two at one time the
// one with the lower stamp is first. Entering in order, leaving and finding the first are a few
// stores. What is entered out of order costs the logarithm of how many such there are.
//
// A Schedule owns the order, and its nodes while they are in it; Ranks own what was added to
// them. Their owner's lock guards all.
// Here is no lock, clock or goroutine: the owner says what time it is.
package due

import (
	"fmt"
	"math"
)

// An Instant is a deadline and the stamp that it belongs to. Of two at one time the
// lower stamp is first.
type Instant struct {
	At    int64
	Stamp uint64
}

// Never is after every instant.
var Never = Instant{math.MaxInt64, math.MaxUint64}

// Before reports whether i comes up before j.
func (i Instant) Before(j Instant) bool {
	return i.At < j.At || i.At == j.At && i.Stamp < j.Stamp
}

// A Node is what stands in a Schedule for something that has deadlines: at its first one, or
// earlier. Whoever has it looks when it comes up.
type Node struct {
	When       Instant // its At is 0 while the node is in no schedule
	prev, next *Node   // in the line
	at         int32   // place in the heap plus one
	ID         int32   // its owner's name for it
}

// A Schedule has nodes in the order in which they come up. The zero Schedule is empty.
//
// Nearly all are entered in the order of their deadlines: those stand in a line. One that is
// not first or last there goes to a heap, in which it knows its place, so that it can leave at
// once too.
type Schedule struct {
	first, last *Node
	heap        []*Node
}

// Enter sees to it that a node comes up no later than at the given instant.
func (s *Schedule) Enter(n *Node, at int64, stamp uint64) {
	when := Instant{at, stamp}
	if n.When.At != 0 {
		if !when.Before(n.When) {
			return // it comes up earlier
		}
		s.Leave(n)
	}
	n.When = when
	switch {
	case s.last == nil:
		s.first, s.last = n, n
	case s.last.When.Before(when):
		s.last.next, n.prev, s.last = n, s.last, n
	case when.Before(s.first.When):
		s.first.prev, n.next, s.first = n, s.first, n
	default:
		s.heap = append(s.heap, n)
		s.up(len(s.heap) - 1)
	}
}

// Leave takes a node out, if it is in.
func (s *Schedule) Leave(n *Node) {
	switch {
	case n.When.At == 0:
		return
	case n.at != 0:
		s.leaveHeap(int(n.at - 1))
	default:
		if n.prev == nil {
			s.first = n.next
		} else {
			n.prev.next = n.next
		}
		if n.next == nil {
			s.last = n.prev
		} else {
			n.next.prev = n.prev
		}
		n.prev, n.next = nil, nil
	}
	n.When.At = 0
}

// First returns the node that comes up first, nil if there is none.
func (s *Schedule) First() *Node {
	n := s.first
	if len(s.heap) > 0 && (n == nil || s.heap[0].When.Before(n.When)) {
		n = s.heap[0]
	}
	return n
}

func (s *Schedule) up(k int) {
	h, n := s.heap, s.heap[k]
	for k > 0 && n.When.Before(h[(k-1)/2].When) {
		h[k] = h[(k-1)/2]
		h[k].at = int32(k + 1)
		k = (k - 1) / 2
	}
	h[k] = n
	n.at = int32(k + 1)
}

func (s *Schedule) down(k int) {
	h, n := s.heap, s.heap[k]
	for c := 2*k + 1; c < len(h); c = 2*k + 1 {
		if c+1 < len(h) && h[c+1].When.Before(h[c].When) {
			c++
		}
		if !h[c].When.Before(n.When) {
			break
		}
		h[k] = h[c]
		h[k].at = int32(k + 1)
		k = c
	}
	h[k] = n
	n.at = int32(k + 1)
}

func (s *Schedule) leaveHeap(k int) {
	last := len(s.heap) - 1
	s.heap[k].at = 0
	moved := s.heap[last]
	s.heap[last] = nil
	s.heap = s.heap[:last]
	if k < last {
		s.heap[k] = moved
		s.up(k)
		s.down(int(moved.at - 1))
	}
	if last == 0 {
		s.heap = nil
	}
}

// Outside is how much memory the schedule has beside its nodes, in bytes. Tests call it.
func (s *Schedule) Outside() int { return 8 * cap(s.heap) }

// Check walks the order and returns the first thing that is wrong in it. Want is how many nodes
// there are. Tests call it.
func (s *Schedule) Check(want int) error {
	n, prev := 0, (*Node)(nil)
	for at := s.first; at != nil; prev, at, n = at, at.next, n+1 {
		switch {
		case at.When.At == 0 || at.at != 0 || at.prev != prev:
			return fmt.Errorf("%d does not belong where it stands in the line", at.ID)
		case prev != nil && !prev.When.Before(at.When):
			return fmt.Errorf("%d stands before %d, which is due earlier", prev.ID, at.ID)
		}
	}
	if s.last != prev {
		return fmt.Errorf("the line does not end with its last")
	}
	for k, at := range s.heap {
		if int(at.at) != k+1 || at.When.At == 0 || k > 0 && at.When.Before(s.heap[(k-1)/2].When) {
			return fmt.Errorf("%d does not belong where it is in the heap", at.ID)
		}
	}
	if n+len(s.heap) != want {
		return fmt.Errorf("%d are scheduled, %d say so", n+len(s.heap), want)
	}
	return nil
}
