// Package filter says which messages a queue gets.
//
// It promises that a message is accepted only if each filter of the queue accepts it, and that they are asked in
// their order, until one does not. A message is made for those that want to see all of it once, and only if one does.
//
// It has no lock, clock or goroutine. Filters are the user's code: they are asked while no lock is held. They are not
// changed once their queue is open, so they may be asked by many at once; a Seen belongs to one goroutine.
package filter

import (
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/policy"
)

// A Filter says which messages a queue gets. It is one of these.
type Filter[T any] struct {
	Body    func(body T) bool
	Message func(m *message.Published[T]) bool // must not change m, nor its attributes
	Policy  *policy.Policy                     // one of SNS, which an engine may apply
}

// A Set is the filters of one queue. It is not changed once that is open.
type Set[T any] struct {
	All    []Filter[T]       // all must accept a message
	Body   func(body T) bool // the only one, if it is of the body
	Number uint64            // of the queue among those with filters, as they were opened
}

// New returns the set of all filters of a queue, nil if there are none.
func New[T any](all []Filter[T]) *Set[T] {
	if all == nil {
		return nil
	}
	fs := &Set[T]{All: all}
	if len(all) == 1 {
		fs.Body = all[0].Body
	}
	return fs
}

// A Seen is a message as filters see it, made for the first that wants to see all of it.
type Seen[T any] struct {
	m    message.Published[T]
	Made bool
}

func (s *Seen[T]) message(it *message.Item[T]) *message.Published[T] {
	if !s.Made {
		s.Made = true
		s.m.Body = it.Body
		if x := it.Ext; x != nil {
			s.m.ID, s.m.Attributes, s.m.OrderingKey, s.m.DeduplicationID, s.m.TimeToLive = x.ID, x.Attributes, x.Key, x.Dedup, x.TTL
		}
	}
	return &s.m
}

// Accept reports whether all of the filters accept an item. s is the item as they see it, or
// nil.
func Accept[T any](fs []Filter[T], it *message.Item[T], s *Seen[T]) bool {
	for i := range fs {
		var ok bool
		switch f := &fs[i]; {
		case f.Body != nil:
			ok = f.Body(it.Body)
		case f.Policy != nil:
			ok = f.Policy.Match(AttributesOf(it))
		default:
			if s == nil {
				s = new(Seen[T])
			}
			ok = f.Message(s.message(it))
		}
		if !ok {
			return false
		}
	}
	return true
}

// Accepts reports whether all of the Set accept an item.
func (fs *Set[T]) Accepts(it *message.Item[T]) bool {
	return fs == nil || Accept(fs.All, it, nil)
}

// AttributesOf are an item's attributes, which must not be changed.
func AttributesOf[T any](it *message.Item[T]) map[string]string {
	if it.Ext == nil {
		return nil
	}
	return it.Ext.Attributes
}
