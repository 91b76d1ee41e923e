package store

import (
	"sort"

	"github.com/gofanout/fanout/internal/lease"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/window"
)

// DropOldest drops what was published first among what is not in flight, and returns it. ok
// is false if there is nothing. The log is read up to end, which may be beyond what consumers
// see.
func (s *Store[T]) DropOldest(end int64) (it message.Item[T], ok bool) {
	i, seq, ok := s.Win.Lowest()
	if b, found := s.backlog.First(); found && !s.Letters && (!ok || s.Win.At(b).Seq < uint64(seq)) {
		i, seq, ok = b, int64(s.Win.At(b).Seq), true
	}
	if !s.Direct && s.Cursor.Pos() < end {
		if next := s.Cursor.Peek(); !ok || next.Seq < uint64(seq) {
			it = *s.Cursor.Next()
			s.Allow.Add(1)
			s.Counters().Dropped++
			return it, true
		}
	}
	if ok {
		it = s.Win.At(i).Item
		s.Discard(i)
		s.Counters().Dropped++
	}
	return it, ok
}

// EndLeases takes everything that is in flight or waits out of the leases: it ends
// the deliveries, of which it tells f, and which are stale from then on.
func (s *Store[T]) EndLeases(now int64, f func(out *lease.Out[T], owner lease.Consumer[T])) {
	s.UnfoldAll()
	for _, l := range s.Leases.Leases() {
		s.TakeBack(l)
		s.Leases.Detach(l, now)
	}
	for _, ref := range s.Leases.InFlight() {
		_, owner, _ := s.Leases.Lookup(ref)
		if out, ok := s.Leases.Extract(ref, now); ok {
			f(&out, owner)
		}
	}
	s.Tally()
	s.Leases.Trim()
}

// LandAll makes all that is in leases entries of the window, what was in flight by InFlight.
func (s *Store[T]) LandAll(now int64) {
	s.EndLeases(now, func(out *lease.Out[T], _ lease.Consumer[T]) {
		i := s.land(out, out.Past.Hist, out.Past.Spent, out.Past.Passes)
		s.Win.Meta(i).State = InFlight
		s.n[InFlight]++
	})
}

// Purge drops all that it holds, and returns how much that was. It tells lost of the deliveries
// that lose their messages so, of each by its stamp and its owner, if it is in a lease.
func (s *Store[T]) Purge(now int64, lost func(stamp uint64, owner lease.Consumer[T])) (n int) {
	s.EndLeases(now, func(out *lease.Out[T], owner lease.Consumer[T]) {
		n++
		s.Stale.Add(out.Stamp)
		lost(out.Stamp, owner)
	})
	n += s.Win.Len() + s.InLog()
	if n == 0 {
		return 0
	}
	for _, i := range s.entries() {
		if stamp := s.Win.Meta(i).Stamp; s.InFlight(i) {
			s.Stale.Add(stamp)
			lost(stamp, nil)
		}
		s.TakeOut(i)
		s.Win.Remove(i)
	}
	s.Keys.Clear()
	if !s.Direct {
		s.Cursor.SkipTo(s.Log.Published())
		s.Cursor.Rest()
	}
	s.Allow.Store(room(s.Set.Capacity) + s.Cursor.Pos())
	s.Counters().Dropped += uint64(n)
	return n
}

// Empty lets go of all that the window holds.
func (s *Store[T]) Empty() {
	s.Win = window.Window[Held[T]]{}
	s.backlog, s.due, s.parked = window.List{}, window.List{}, window.List{}
	s.Keys.Clear()
	clear(s.n[:])
}

// InOrder returns the window's entries in the order of publication.
func (s *Store[T]) InOrder() []int32 {
	all := s.entries()
	sort.Slice(all, func(j, k int) bool { return s.Win.At(all[j]).Seq < s.Win.At(all[k]).Seq })
	return all
}

func (s *Store[T]) entries() []int32 {
	all := make([]int32, 0, s.Win.Len())
	s.Win.All(func(i int32) bool {
		all = append(all, i)
		return true
	})
	return all
}
