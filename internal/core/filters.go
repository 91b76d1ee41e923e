package core

import (
	"github.com/gofanout/fanout/internal/log"
	"github.com/gofanout/fanout/internal/policy"
)

// A Filter says which messages a queue gets. It is one of these.
type Filter[T any] struct {
	Body    func(body T) bool
	Message func(m *Message[T]) bool // must not change m, nor its attributes
	Policy  *policy.Policy           // one of SNS, which an engine may apply
}

// filters are those of one queue. They are not changed once it is open.
type filters[T any] struct {
	all    []Filter[T]              // all must accept a message
	body   func(body T) bool        // the only one, if it is of the body
	number uint64                   // of the queue among those with filters, as they were opened
	entry  *policy.Entry[*Queue[T]] // if the first is a policy: in the topic's index
}

func newFilters[T any](all []Filter[T]) *filters[T] {
	if all == nil {
		return nil
	}
	fs := &filters[T]{all: all}
	if len(all) == 1 {
		fs.body = all[0].Body
	}
	return fs
}

// ownSegment is the most messages that a segment of a queue's own log holds: as many as a
// worker prefetches. There may be many such queues.
const ownSegment = prefetchLen

// readOwnLog gives q, which is being opened, a log of its own, whose memory it shares with
// others.
func (q *Queue[T]) readOwnLog(spare *log.Spare[item[T]]) {
	q.log = log.NewSharing(min(ownSegment, segmentOf[T](), q.set.Capacity/4), spare)
	q.sleep = new(sleepers[T])
	q.cursor = q.log.Cursor()
}

// A seen is a message as filters see it, made for the first that wants to see all of it.
type seen[T any] struct {
	m    Message[T]
	made bool
}

func (s *seen[T]) message(it *item[T]) *Message[T] {
	if !s.made {
		s.made = true
		s.m.Body = it.Body
		if x := it.Ext; x != nil {
			s.m.ID, s.m.Attributes, s.m.OrderingKey, s.m.DeduplicationID, s.m.TimeToLive = x.ID, x.Attributes, x.Key, x.Dedup, x.TTL
		}
	}
	return &s.m
}

// accept reports whether all of the filters accept an item. s is the item as they see it, or
// nil.
func accept[T any](fs []Filter[T], it *item[T], s *seen[T]) bool {
	for i := range fs {
		ok := false
		switch f := &fs[i]; {
		case f.Body != nil:
			ok = f.Body(it.Body)
		case f.Policy != nil:
			ok = f.Policy.Match(attributesOf(it))
		default:
			if s == nil {
				s = new(seen[T])
			}
			ok = f.Message(s.message(it))
		}
		if !ok {
			return false
		}
	}
	return true
}

// accepts reports whether the queue's filters accept an item. No lock is held.
func (q *Queue[T]) accepts(it *item[T]) bool {
	return q.filters == nil || accept(q.filters.all, it, nil)
}

// attributesOf are an item's attributes, which must not be changed.
func attributesOf[T any](it *item[T]) map[string]string {
	if it.Ext == nil {
		return nil
	}
	return it.Ext.Attributes
}
