package topic

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/gofanout/fanout/internal/callback"
	"github.com/gofanout/fanout/internal/filter"
	"github.com/gofanout/fanout/internal/policy"
	"github.com/gofanout/fanout/internal/queue"
)

// A queue with filters does not read the topic's log, but one of its own, to which publishers
// append what its filters accept. So it keeps nothing of what it does not get, and reads its
// log as other queues read the topic's: all that is said of a queue and its log holds for it,
// too. It has a list of idle queues of its own as well, so that only publishes that it gets wake
// it. One that has a delay, too, is direct.
//
// Publishers ask filters before they take any lock. Queues whose first filter is a policy are
// found in an index; all others are asked one by one.

// A filtered is the topic's queues with filters as publishers find them.
type filtered[T any] struct {
	places  []atomic.Pointer[queue.Queue[T]] // of those that are asked one by one
	indexed bool                             // there are others, in the index
}

// policies is the index of the queues whose first filter is a policy. It is changed under the
// topic's Mu and its own.
type policies[T any] struct {
	mu sync.RWMutex // a leaf
	policy.Index[*queue.Queue[T]]
}

// addFilteredLocked adds q to the queues with filters.
func (t *Topic[T]) addFilteredLocked(q *queue.Queue[T]) {
	f := q.Filters
	t.filtersMade++
	f.Number = t.filtersMade
	if p := f.All[0].Policy; p != nil {
		t.policies.mu.Lock()
		q.Policy = t.policies.Add(p, q)
		t.policies.mu.Unlock()
	} else {
		t.filters.add(q)
	}
	t.showFilteredLocked()
}

func (t *Topic[T]) removeFilteredLocked(q *queue.Queue[T]) {
	if e := q.Policy; e != nil {
		t.policies.mu.Lock()
		t.policies.Remove(e)
		t.policies.mu.Unlock()
	} else {
		t.filters.remove(q)
	}
	t.showFilteredLocked()
}

// showFilteredLocked shows publishers the queues with filters.
func (t *Topic[T]) showFilteredLocked() {
	f := &filtered[T]{places: t.filters.places, indexed: t.policies.Len() > 0}
	if t.filters.n == 0 && !f.indexed {
		f = nil
	}
	t.filtered.Store(f)
}

// forgetFilteredLocked removes all queues with filters.
func (t *Topic[T]) forgetFilteredLocked() {
	t.filters = queueList[T]{}
	t.policies.mu.Lock()
	t.policies.Index = policy.Index[*queue.Queue[T]]{}
	t.policies.mu.Unlock()
	t.filtered.Store(nil)
}

// applyFilters asks the filters of the queues that have some. No lock is held.
func (t *Topic[T]) applyFilters(o *offer[T]) (err error) {
	f := t.filtered.Load()
	if f == nil {
		return nil
	}
	var q *queue.Queue[T]
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("filter of queue %q: %w", q.QueueName, callback.Error(r))
		}
	}()
	o.seen = slices.Grow(o.seen, len(o.items))[:len(o.items)]
	if f.indexed {
		t.findByPolicies(o)
		for rest := o.found; len(rest) > 0; {
			q = rest[0].q
			from := len(o.indexes)
			for len(rest) > 0 && rest[0].q == q {
				if k := rest[0].k; filter.Accept(q.Filters.All[1:], &o.items[k], &o.seen[k]) {
					o.indexes = append(o.indexes, k)
				}
				rest = rest[1:]
			}
			o.addRow(q, from)
		}
	}
	indexed := len(o.rows)
	for i := range f.places {
		if q = f.places[i].Load(); q == nil { // it is closed
			continue
		}
		from := len(o.indexes)
		fs := q.Filters
		for k := range o.items {
			ok := false
			if fs.Body != nil { // what accept does, without the call
				ok = fs.Body(o.items[k].Body)
			} else {
				ok = filter.Accept(fs.All, &o.items[k], &o.seen[k])
			}
			if ok {
				o.indexes = append(o.indexes, k)
			}
		}
		o.addRow(q, from)
	}
	if indexed > 0 && indexed < len(o.rows) {
		slices.SortFunc(o.rows, func(a, b row[T]) int { return cmp.Compare(a.q.Filters.Number, b.q.Filters.Number) })
	}
	return nil
}

// findByPolicies finds the queues whose first filter is a policy that accepts some of the
// items, in the order in which they were opened.
func (t *Topic[T]) findByPolicies(o *offer[T]) {
	t.policies.mu.RLock()
	defer t.policies.mu.RUnlock()
	for k := range o.items {
		o.entries = t.policies.Match(filter.AttributesOf(&o.items[k]), o.entries[:0])
		for _, e := range o.entries {
			o.found = append(o.found, found[T]{e.Key, k})
		}
		clear(o.entries)
	}
	if len(o.items) > 1 {
		slices.SortStableFunc(o.found, func(a, b found[T]) int { return cmp.Compare(a.q.Filters.Number, b.q.Filters.Number) })
	}
}

// A found is an item that a queue's first filter, a policy, accepts.
type found[T any] struct {
	q *queue.Queue[T]
	k int // index of the item
}

// addRow adds what q accepted: the indexes from the given one on.
func (o *offer[T]) addRow(q *queue.Queue[T], from int) {
	if n := len(o.indexes); n > from {
		o.rows = append(o.rows, row[T]{q, o.indexes[from:n:n]})
	}
}
