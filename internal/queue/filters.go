package queue

import (
	"github.com/gofanout/fanout/internal/log"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/policy"
)

// A Filter says which messages a queue gets. It is one of these.
type Filter[T any] struct {
	Body    func(body T) bool
	Message func(m *message.Published[T]) bool // must not change m, nor its attributes
	Policy  *policy.Policy                     // one of SNS, which an engine may apply
}

// filters are those of one queue. They are not changed once it is open.
type filters[T any] struct {
	All    []Filter[T]              // all must accept a message
	Body   func(body T) bool        // the only one, if it is of the body
	Number uint64                   // of the queue among those with filters, as they were opened
	Entry  *policy.Entry[*Queue[T]] // if the first is a policy: in the topic's index
}

func NewFilters[T any](all []Filter[T]) *filters[T] {
	if all == nil {
		return nil
	}
	fs := &filters[T]{All: all}
	if len(all) == 1 {
		fs.Body = all[0].Body
	}
	return fs
}

// ownSegment is the most messages that a segment of a queue's own log holds: as many as a
// worker prefetches. There may be many such queues.
const ownSegment = PrefetchLen

// ReadOwnLog gives q, which is being opened, a log of its own, whose memory it shares with
// others.
func (q *Queue[T]) ReadOwnLog(spare *log.Spare[message.Item[T]]) {
	q.Log = log.NewSharing(min(ownSegment, SegmentOf[T](), q.Set.Capacity/4), spare)
	q.Idle = new(IdleQueues[T])
	q.Cursor = q.Log.Cursor()
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
		ok := false
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

// Accepts reports whether the queue's filters accept an item. No lock is held.
func (q *Queue[T]) Accepts(it *message.Item[T]) bool {
	return q.Filters == nil || Accept(q.Filters.All, it, nil)
}

// AttributesOf are an item's attributes, which must not be changed.
func AttributesOf[T any](it *message.Item[T]) map[string]string {
	if it.Ext == nil {
		return nil
	}
	return it.Ext.Attributes
}
