package routing

import (
	"unsafe"

	"github.com/gofanout/fanout/internal/filter"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/policy"
	"github.com/gofanout/fanout/internal/queue"
)

// An Answer is what the filters said of a batch, in Rows, and what they were asked with. It
// can be used again.
type Answer[T any] struct {
	Rows []Row[T]

	seen    []filter.Seen[T] // items
	entries []*policy.Entry[*queue.Queue[T]]
	found   []found[T]
	indexes []int // of rows
}

// A Row says which items of a batch a queue's filters accepted.
type Row[T any] struct {
	Q        *queue.Queue[T]
	Accepted []int // indexes of items
}

// A found is an item that a queue's first filter, a policy, accepts.
type found[T any] struct {
	q *queue.Queue[T]
	k int // index of the item
}

// addRow adds what q accepted: the indexes from the given one on.
func (o *Answer[T]) addRow(q *queue.Queue[T], from int) {
	if n := len(o.indexes); n > from {
		o.Rows = append(o.Rows, Row[T]{q, o.indexes[from:n:n]})
	}
}

// ItemBytes is about how much room an answer and its batch have for each item.
func (*Answer[T]) ItemBytes() uintptr {
	return unsafe.Sizeof(message.Item[T]{}) + unsafe.Sizeof(filter.Seen[T]{})
}

// Words counts the words that an answer has beside that.
func (o *Answer[T]) Words() int { return cap(o.found) + cap(o.indexes) }

// Reset makes the answer empty. It keeps its room, and nothing of what was in it.
func (o *Answer[T]) Reset() {
	clear(o.Rows)
	clear(o.found)
	for k := range o.seen {
		if o.seen[k].Made {
			o.seen[k] = filter.Seen[T]{}
		}
	}
	o.Rows, o.seen, o.found, o.indexes = o.Rows[:0], o.seen[:0], o.found[:0], o.indexes[:0]
}

// Renumber says that the batch's items have other indexes now, given by their old ones: -1 if
// an item is gone. Queues that get nothing any more are left out.
func (o *Answer[T]) Renumber(moved []int) {
	rows := o.Rows[:0]
	for _, r := range o.Rows {
		accepted := r.Accepted[:0]
		for _, k := range r.Accepted {
			if moved[k] >= 0 {
				accepted = append(accepted, moved[k])
			}
		}
		if r.Accepted = accepted; len(accepted) > 0 {
			rows = append(rows, r)
		}
	}
	clear(o.Rows[len(rows):])
	o.Rows = rows
}

// Fit reports whether each queue has room for what it accepted, in its log, without looking at
// what it holds. The topic's lock is held.
func (o *Answer[T]) Fit() bool {
	for _, r := range o.Rows {
		if !r.Q.Closing && (r.Q.Store.Direct || r.Q.Store.Room() < int64(len(r.Accepted))) {
			return false
		}
	}
	return true
}

// Append appends what queues accepted of items to their logs. The topic's lock is held.
func (o *Answer[T]) Append(items []message.Item[T]) {
	for _, r := range o.Rows {
		if r.Q.Store.Direct || r.Q.Closing {
			continue
		}
		for _, k := range r.Accepted {
			r.Q.Store.Log.Append(items[k])
		}
	}
}

// Show shows consumers what Append appended. The topic's lock is held.
func (o *Answer[T]) Show() {
	for _, r := range o.Rows {
		if !r.Q.Store.Direct && !r.Q.Closing {
			r.Q.Store.Log.Publish()
		}
	}
}

// Unaccepted counts those of n items that no open queue accepted. The topic's lock is held.
func (o *Answer[T]) Unaccepted(n int) (lost uint64) {
	if n == 1 { // in each row
		for _, r := range o.Rows {
			if !r.Q.Closing {
				return 0
			}
		}
		return 1
	}
	var few [16]bool // stays on the stack
	taken := few[:min(n, len(few))]
	if n > len(few) {
		taken = make([]bool, n)
	}
	for _, r := range o.Rows {
		for _, k := range r.Accepted {
			taken[k] = taken[k] || !r.Q.Closing
		}
	}
	for _, is := range taken {
		if !is {
			lost++
		}
	}
	return lost
}
