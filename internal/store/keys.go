package store

import (
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/window"
)

// keyOf is an item's ordering key, empty if it has none.
func keyOf[T any](it *message.Item[T]) string {
	if it.Ext == nil {
		return ""
	}
	return it.Ext.Key
}

// headOfKey reports whether entry i, which is in no list, may be
// delivered: whether it has no key, or is the head of its key's line. Otherwise
// it has put i in line.
func (s *Store[T]) headOfKey(i int32) bool {
	it := &s.Win.At(i).Item
	key := keyOf(it)
	if key == "" {
		return true
	}
	k := s.Keys.Of(key)
	if k == nil {
		s.Keys.Begin(key, i)
		return true
	}
	if k.Head == i {
		return true
	}
	s.Win.Meta(i).State = Blocked
	s.n[Blocked]++
	if last, found := k.Waiting.Last(); !found || s.Win.At(last).Seq < it.Seq {
		s.Win.Push(&k.Waiting, i)
	} else { // a redriven message may be older than those in line
		if k.Order == nil {
			k.Order = new(window.Order)
		}
		s.Win.PushInOrder(&k.Waiting, k.Order, i, func(i int32) uint64 { return s.Win.At(i).Seq })
	}
	s.rank(i)
	s.noteExpiry(i)
	return false
}

// leaveKey lets a message's key go on, if the message, which is entry i or in
// flight, was its head.
func (s *Store[T]) leaveKey(it *message.Item[T], i int32) {
	key := keyOf(it)
	if key == "" {
		return
	}
	k := s.Keys.Of(key)
	if k == nil || k.Head != i {
		return
	}
	next, ok := s.Win.Pop(&k.Waiting)
	if !ok {
		s.Keys.End(key)
		return
	}
	k.Head = next
	s.n[Blocked]--
	s.Win.Restamp(next) // it is in another list now
	s.becomeDue(next)
}
