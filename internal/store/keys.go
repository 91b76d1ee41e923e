package store

import (
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/window"
)

// A keyLine keeps the messages of one ordering key in order: one of them, the
// head, may be delivered, and the others that were reached stand in line. The
// head keeps its place through retries, snoozes and time-outs, until it is
// gone, dead or parked; then the first in line takes it.
//
// There is a keyLine for each key of which a reached message is held, and none for keys
// that are idle.
type keyLine struct {
	head  int32         // its entry; inFlightHead while it is in a lease
	line  window.List   // in the order of publication, in state Blocked
	order *window.Order // of line, if older ones have come in before others
}

// inFlightHead is the head of a line while that is in flight.
const inFlightHead = int32(-1)

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
	k := s.Keys[key]
	if k == nil {
		if s.Keys == nil {
			s.Keys = make(map[string]*keyLine)
		}
		s.Keys[key] = &keyLine{head: i}
		return true
	}
	if k.head == i {
		return true
	}
	s.Win.Meta(i).State = Blocked
	s.n[Blocked]++
	if last, found := k.line.Last(); !found || s.Win.At(last).Seq < it.Seq {
		s.Win.Push(&k.line, i)
	} else { // a redriven message may be older than those in line
		if k.order == nil {
			k.order = new(window.Order)
		}
		s.Win.PushInOrder(&k.line, k.order, i, func(i int32) uint64 { return s.Win.At(i).Seq })
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
	k := s.Keys[key]
	if k == nil || k.head != i {
		return
	}
	next, ok := s.Win.Pop(&k.line)
	if !ok {
		delete(s.Keys, key)
		if len(s.Keys) == 0 {
			s.Keys = nil // a map does not shrink
		}
		return
	}
	k.head = next
	s.n[Blocked]--
	s.Win.Restamp(next) // it is in another list now
	s.becomeDue(next)
}
