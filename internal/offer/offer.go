package offer

import (
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/routing"
	"github.com/gofanout/fanout/internal/waitline"
)

// An Offer is what one call wants to add to the queues: messages published, or
// dead letters redriven to one queue. It is the call's until it waits for room, and
// used again after a publish that did not.
type Offer[T any] struct {
	routing.Answer[T] // of the filters, to Items

	Items   []message.Item[T]
	Delayed bool // some item has a delay of its own
	Dedup   bool // some item has a deduplication ID
	// Duplicates counts the items taken out for theirs.
	Duplicates uint64
	MayWait    bool            // if there is no room, it will wait
	Wants      *queue.Queue[T] // whose RoomWanted says how much room it waits for; nil: none

	Redrive *queue.Queue[T]
	Letters []queue.Letter
	Moved   int
}

// Look notes what its items have of delays and deduplication IDs.
func (o *Offer[T]) Look() {
	for k := range o.Items {
		if x := o.Items[k].Ext; x != nil {
			o.Delayed = o.Delayed || x.Delay > 0
			o.Dedup = o.Dedup || x.Dedup != ""
		}
	}
}

// Targets yields the queues that an offer goes to with the number of messages
// that each would get. Open are those without a filter. The topic's Mu is held.
func (o *Offer[T]) Targets(open *routing.List[T]) func(yield func(q *queue.Queue[T], n int) bool) {
	return func(yield func(*queue.Queue[T], int) bool) {
		if o.Redrive != nil {
			if !o.Redrive.Closing {
				yield(o.Redrive, 1)
			}
			return
		}
		for q := range open.All() {
			if len(o.Items) == 0 || !yield(q, len(o.Items)) {
				return
			}
		}
		for _, r := range o.Rows {
			if !r.Q.Closing && !yield(r.Q, len(r.Accepted)) {
				return
			}
		}
	}
}

// MakeLines returns a queue's lines, and makes them if there are none.
func MakeLines[T any](q *queue.Queue[T]) *waitline.Queue {
	if q.Wait == nil {
		q.Wait = &waitline.Queue{Filtered: q.Filters != nil, Drops: q.Store.Set.Overflow.Drops()}
	}
	return q.Wait
}

// Redrives reports whether o is a redrive. It and what follows is for package waitline.
func (o *Offer[T]) Redrives() bool { return o.Redrive != nil }

// Queues is how many queues o names: a publish those with a filter.
func (o *Offer[T]) Queues() int {
	if o.Redrive != nil {
		return 1
	}
	return len(o.Rows)
}

// Queue returns the lines of one of o's queues, nil if it is closed or, of a publish, if
// nobody has waited for room in it. The topic's Mu is held.
func (o *Offer[T]) Queue(k int) *waitline.Queue {
	switch {
	case o.Redrive == nil && o.Rows[k].Q.Closing, o.Redrive != nil && o.Redrive.Closing:
		return nil
	case o.Redrive != nil:
		return MakeLines(o.Redrive)
	}
	return o.Rows[k].Q.Wait
}
