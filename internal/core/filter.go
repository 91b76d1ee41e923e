package core

import "fmt"

// A Filter says which messages a queue gets.
type Filter[T any] struct {
	Keep   func(it *item[T]) bool
	Policy bool // it is one of SNS, which an engine may apply
}

// applyFilters asks the filters of the queues that have one. No lock is held.
func (t *Topic[T]) applyFilters(o *offer[T]) (err error) {
	p := t.filtered.Load()
	if p == nil {
		return nil
	}
	var q *Queue[T]
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("filter of queue %q: %w", q.name, panicError(r))
		}
	}()
	for k := range *p {
		if q = (*p)[k].Load(); q == nil { // it is closed
			continue
		}
		r := row[T]{q: q}
		for k := range o.items {
			if q.accepts(&o.items[k]) {
				r.accepted = append(r.accepted, k)
			}
		}
		if len(r.accepted) > 0 {
			o.rows = append(o.rows, r)
		}
	}
	return nil
}

func (q *Queue[T]) accepts(it *item[T]) bool {
	for _, f := range q.filters {
		if !f.Keep(it) {
			return false
		}
	}
	return true
}
