package fanout

import (
	"maps"
	"time"
)

// extra is what few messages have. It is never changed after publication.
type extra struct {
	id         string
	attributes map[string]string
	key        string
	dedup      string
	delay      time.Duration
	ttl        time.Duration

	// Of dead letters and what was redriven from them.
	born   int64  // when the time to live began, on the queue's clock; 0: at publication
	source origin // in a shared dead-letter queue, the queue it came from
	seq    uint64 // and the number that it had there

	lease *remoteLease // of a message that an engine keeps
}

// An origin names a queue: that, or the one that is opened again by its name in
// the same topic, redrives its dead letters.
type origin struct {
	topic *core
	queue string
}

// with returns a copy of x, or a new extra if x is nil, that f has changed.
func (x *extra) with(f func(x *extra)) *extra {
	var c extra
	if x != nil {
		c = *x
	}
	f(&c)
	return &c
}

// An item is a message as the log and the queues keep it.
type item[T any] struct {
	seq  uint64 // number of the message in its topic
	at   int64  // when it was published, on the topic's clock
	ext  *extra // nil for most
	body T
}

// message returns what would have to be published to have it again.
func (it *item[T]) message(c *core) Message[T] {
	m := Message[T]{Body: it.body, ID: c.id(it.seq, it.at, it.ext)}
	if it.ext != nil {
		it.fill(&m)
		m.DeduplicationID = ""
	}
	return m
}

// fill sets what of m is in it's extra, but for the ID and the delay.
func (it *item[T]) fill(m *Message[T]) {
	m.Attributes = maps.Clone(it.ext.attributes)
	m.OrderingKey, m.DeduplicationID, m.TimeToLive = it.ext.key, it.ext.dedup, it.ext.ttl
}
