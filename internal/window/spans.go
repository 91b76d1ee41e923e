package window

import "slices"

// maxSpans bounds what Spans remembers: 16 bytes each.
const maxSpans = 4096

// Spans is a set of stamps, kept as ranges. It remembers which deliveries lost
// their message, so that a late settlement can be told from a second one:
// stamps are given in order and time-outs come in order, so a million that time
// out together are a few ranges. When it holds more than a few thousand ranges
// it forgets the older half, and says of every stamp below its end that it is in
// the set: that is too long ago to tell.
//
// Invariant: ranges are disjoint, not adjacent, in order, and not below floor.
// The zero Spans is empty.
type Spans struct {
	ranges []span
	floor  uint64 // every stamp below it is in the set
}

type span struct{ lo, hi uint64 } // both ends included

// Add puts stamp into the set.
func (s *Spans) Add(stamp uint64) { s.AddRun(stamp, 1) }

// AddRun puts n stamps, from the given one on, into the set, which has none of
// them yet or all of them.
func (s *Spans) AddRun(from uint64, n int) {
	last := from + uint64(n) - 1
	if last < s.floor {
		return
	}
	from = max(from, s.floor)
	k := s.search(from)
	if k < len(s.ranges) && s.ranges[k].lo <= from {
		return
	}
	joinsNext := k < len(s.ranges) && s.ranges[k].lo == last+1
	joinsPrev := k > 0 && s.ranges[k-1].hi+1 == from
	switch {
	case joinsNext && joinsPrev:
		s.ranges[k-1].hi = s.ranges[k].hi
		s.ranges = slices.Delete(s.ranges, k, k+1)
	case joinsNext:
		s.ranges[k].lo = from
	case joinsPrev:
		s.ranges[k-1].hi = last
	default:
		if len(s.ranges) == maxSpans {
			s.floor = s.ranges[maxSpans/2-1].hi + 1
			s.ranges = slices.Delete(s.ranges, 0, maxSpans/2)
			s.AddRun(from, int(last-from)+1)
			return
		}
		s.ranges = slices.Insert(s.ranges, k, span{from, last})
	}
}

// Has reports whether stamp is in the set, or so old that it may have been.
func (s *Spans) Has(stamp uint64) bool {
	if stamp < s.floor {
		return true
	}
	k := s.search(stamp)
	return k < len(s.ranges) && s.ranges[k].lo <= stamp
}

// search returns the first range that does not end before stamp.
func (s *Spans) search(stamp uint64) int {
	k, _ := slices.BinarySearchFunc(s.ranges, stamp, func(r span, x uint64) int {
		switch {
		case r.hi < x:
			return -1
		case r.hi > x:
			return 1
		}
		return 0
	})
	return k
}
