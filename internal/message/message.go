// Package message says what a message is and what it has been through: the item
// that logs and queues keep, the name of a delivery, how deliveries end, and the
// history that is left of those that ended. It also has what every other package
// needs to speak of them: the errors of the library and the topic's clock.
//
// It owns nothing, starts nothing and has no lock. Its values are not changed
// once they are shared: Extra and History return a copy instead. The Clock reads
// the time through package time.
package message

import (
	"maps"
	"time"
)

// An Item is a message as the log and the queues keep it.
type Item[T any] struct {
	Seq  uint64 // number of the message in its topic
	At   int64  // when it was published, on the topic's clock
	Ext  *Extra // nil for most
	Body T
}

// Extra is what few messages have. It is never changed after publication.
type Extra struct {
	// What every delivery looks at is in the first cache line.

	ID         string
	Key        string // ordering key
	TTL        time.Duration
	Born       int64 // of dead letters and what was redriven: when the time to live began, on the queue's clock; 0: at publication
	Attributes map[string]string
	Delay      time.Duration

	Dedup string // deduplication ID

	// Of dead letters and what was redriven from them.
	Source any    // in a shared dead-letter queue, the queue it came from
	Seq    uint64 // and the number that it had there

	Receipt any // what an engine gave with the message, nil in memory
}

// With returns a copy of x, or a new Extra if x is nil, that f has changed.
func (x *Extra) With(f func(x *Extra)) *Extra {
	var c Extra
	if x != nil {
		c = *x
	}
	f(&c)
	return &c
}

// Plain reports whether a message with x can be delivered and settled without a
// look at x: it has no ordering key and no time to live of its own.
func (x *Extra) Plain() bool {
	return x == nil || x.Key == "" && x.TTL == 0 && x.Born == 0
}

// OrderingKey is x's ordering key, empty if x is nil.
func (x *Extra) OrderingKey() string {
	if x == nil {
		return ""
	}
	return x.Key
}

// Attribute returns one attribute. x may be nil.
func (x *Extra) Attribute(name string) (value string, ok bool) {
	if x == nil {
		return "", false
	}
	value, ok = x.Attributes[name]
	return value, ok
}

// CopyAttributes returns a copy of the attributes, nil if there are none. x may be nil.
func (x *Extra) CopyAttributes() map[string]string {
	if x == nil {
		return nil
	}
	return maps.Clone(x.Attributes)
}

// PlainRun counts the items before the first that is not plain.
func PlainRun[T any](items []Item[T]) int {
	for k := range items {
		if x := items[k].Ext; x != nil && !x.Plain() { // nil is asked for here: Plain is not inlined
			return k
		}
	}
	return len(items)
}

// A Ref names a delivery: the block that holds its message, and the stamp, which
// is unique in the queue and is the fence against late settlements.
type Ref struct {
	Stamp   uint64
	Block   int32
	Attempt int32 // 1 for the first delivery
}

// Next is the name of the delivery that is n places further in the same block, of
// a message with as many attempts.
func (r Ref) Next(n int) Ref {
	r.Stamp += uint64(n)
	return r
}
