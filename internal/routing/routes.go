package routing

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/gofanout/fanout/internal/callback"
	"github.com/gofanout/fanout/internal/filter"
	"github.com/gofanout/fanout/internal/message"
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

// Routes are a topic's queues with filters.
type Routes[T any] struct {
	shown    atomic.Pointer[filtered[T]] // nil: no queue has filters. Replaced under the topic's lock
	filters  List[T]                     // those that are asked one by one
	made     uint64                      // queues with filters that were opened
	policies policies[T]
}

// None reports whether no queue has filters.
func (r *Routes[T]) None() bool { return r.shown.Load() == nil }

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

// Add adds q, which has filters. The topic's lock is held.
func (r *Routes[T]) Add(q *queue.Queue[T]) {
	f := q.Filters
	r.made++
	f.Number = r.made
	if p := f.All[0].Policy; p != nil {
		r.policies.mu.Lock()
		q.Policy = r.policies.Add(p, q)
		r.policies.mu.Unlock()
	} else {
		r.filters.Add(q)
	}
	r.show()
}

// Remove takes q out. The topic's lock is held.
func (r *Routes[T]) Remove(q *queue.Queue[T]) {
	if e := q.Policy; e != nil {
		r.policies.mu.Lock()
		r.policies.Remove(e)
		r.policies.mu.Unlock()
	} else {
		r.filters.Remove(q)
	}
	r.show()
}

// show shows publishers the queues with filters.
func (r *Routes[T]) show() {
	f := &filtered[T]{places: r.filters.places, indexed: r.policies.Len() > 0}
	if r.filters.n == 0 && !f.indexed {
		f = nil
	}
	r.shown.Store(f)
}

// Forget removes all queues. The topic's lock is held.
func (r *Routes[T]) Forget() {
	r.filters = List[T]{}
	r.policies.mu.Lock()
	r.policies.Index = policy.Index[*queue.Queue[T]]{}
	r.policies.mu.Unlock()
	r.shown.Store(nil)
}

// Ask asks the filters of all queues about items, and has o.Rows say what they accept. No lock
// is held.
func (r *Routes[T]) Ask(items []message.Item[T], o *Answer[T]) (err error) {
	f := r.shown.Load()
	if f == nil {
		return nil
	}
	var q *queue.Queue[T]
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("filter of queue %q: %w", q.Name(), callback.Error(r))
		}
	}()
	o.seen = slices.Grow(o.seen, len(items))[:len(items)]
	if f.indexed {
		r.findByPolicies(items, o)
		for rest := o.found; len(rest) > 0; {
			q = rest[0].q
			from := len(o.indexes)
			for len(rest) > 0 && rest[0].q == q {
				if k := rest[0].k; filter.Accept(q.Filters.All[1:], &items[k], &o.seen[k]) {
					o.indexes = append(o.indexes, k)
				}
				rest = rest[1:]
			}
			o.addRow(q, from)
		}
	}
	indexed := len(o.Rows)
	for i := range f.places {
		if q = f.places[i].Load(); q == nil { // it is closed
			continue
		}
		from := len(o.indexes)
		fs := q.Filters
		for k := range items {
			var ok bool
			if fs.Body != nil { // what accept does, without the call
				ok = fs.Body(items[k].Body)
			} else {
				ok = filter.Accept(fs.All, &items[k], &o.seen[k])
			}
			if ok {
				o.indexes = append(o.indexes, k)
			}
		}
		o.addRow(q, from)
	}
	if indexed > 0 && indexed < len(o.Rows) {
		slices.SortFunc(o.Rows, func(a, b Row[T]) int { return cmp.Compare(a.Q.Filters.Number, b.Q.Filters.Number) })
	}
	return nil
}

// findByPolicies finds the queues whose first filter is a policy that accepts some of the
// items, in the order in which they were opened.
func (r *Routes[T]) findByPolicies(items []message.Item[T], o *Answer[T]) {
	r.policies.mu.RLock()
	defer r.policies.mu.RUnlock()
	for k := range items {
		o.entries = r.policies.Match(filter.AttributesOf(&items[k]), o.entries[:0])
		for _, e := range o.entries {
			o.found = append(o.found, found[T]{e.Key, k})
		}
		clear(o.entries)
	}
	if len(items) > 1 {
		slices.SortStableFunc(o.found, func(a, b found[T]) int { return cmp.Compare(a.q.Filters.Number, b.q.Filters.Number) })
	}
}
