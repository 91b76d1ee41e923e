package fanout

import (
	"fmt"
	"reflect"

	"github.com/gofanout/fanout/internal/policy"
)

// WithMessageFilter is [WithFilter] for a function of the whole message, with its attributes
// and ordering key. The ID is empty unless the publisher set one.
func WithMessageFilter[T any](keep func(m Message[T]) bool) QueueOption {
	return queueOption(func(s *queueSettings) error {
		if keep == nil {
			return invalid("WithMessageFilter", nil, "a function")
		}
		s.filters = append(s.filters, messageFilter{keep})
		return nil
	})
}

// A messageFilter is a func(Message[T]) bool, told from one that is given to
// [WithFilter].
type messageFilter struct{ keep any }

// WithFilterPolicy lets only those messages into the queue whose attributes match an SNS
// filter policy, in JSON:
//
//	{"region": ["eu", {"prefix": "us-"}], "cents": [{"numeric": [">=", 10000]}]}
//
// All keys must match, and of the list of a key one condition must. The conditions are exact
// strings, numbers, true, false and null, anything-but, prefix, suffix, equals-ignore-case,
// numeric, exists, cidr, and $or, within SNS's limits of 5 keys and 150 combinations.
// Attributes are strings here. An attribute that reads as a number also matches numeric
// conditions, and one that is a JSON array matches if one of its elements does. A bad policy
// is [ErrInvalidOption], which names the key and says what SNS would say.
func WithFilterPolicy(json string) QueueOption {
	return queueOption(func(s *queueSettings) error {
		p, err := policy.Parse(json)
		if err != nil {
			return fmt.Errorf("%w: WithFilterPolicy: %w", ErrInvalidOption, err)
		}
		s.policies = append(s.policies, json)
		s.filters = append(s.filters, func(x *extra) bool {
			if x == nil {
				return p.Match(nil)
			}
			return p.Match(x.Attributes)
		})
		return nil
	})
}

// WithFilter lets only those messages into the queue whose body keep accepts. With several
// filters all must accept it. keep decides what T is; if that is not the topic's T,
// OpenQueue fails.
//
// keep is called once for each message, in the publisher, before any lock is taken. It must
// not change what the body points to, which the queues share. A queue that doesn't accept a
// message never delays or refuses it. If keep panics, the publish fails with an error that
// names the queue.
func WithFilter[T any](keep func(body T) bool) QueueOption {
	return queueOption(func(s *queueSettings) error {
		if keep == nil {
			return invalid("WithFilter", nil, "a function")
		}
		s.filters = append(s.filters, keep)
		return nil
	})
}

// filtersOf gives filters their type back.
func filtersOf[T any](held []any) (fs []func(*item[T]) bool, err error) {
	for _, h := range held {
		switch h := h.(type) {
		case func(T) bool:
			fs = append(fs, func(it *item[T]) bool { return h(it.Body) })
		case messageFilter:
			keep, err := typed[func(Message[T]) bool]("WithMessageFilter", []any{h.keep}, reflect.TypeFor[T]())
			if err != nil {
				return nil, err
			}
			fs = append(fs, func(it *item[T]) bool {
				m := Message[T]{Body: it.Body}
				if it.Ext != nil {
					m.ID = it.Ext.ID
					m.fill(it.Ext)
				}
				return keep[0](m)
			})
		case func(*extra) bool:
			fs = append(fs, func(it *item[T]) bool { return h(it.Ext) })
		default:
			return nil, fmt.Errorf("%w: WithFilter was given a %T, but the topic carries %v", ErrInvalidOption, h, reflect.TypeFor[T]())
		}
	}
	return fs, nil
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
		if !f(it) {
			return false
		}
	}
	return true
}
