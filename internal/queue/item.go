package queue

import (
	"maps"
	"time"

	"github.com/gofanout/fanout/internal/message"
)

// What logs and queues keep, see package message.
type (
	Item[T any] = message.Item[T]
	Extra       = message.Extra
	History     = message.History
	Kept        = message.Kept
)

// A Message is what a publisher publishes. It is laid out as package fanout's is.
type Message[T any] struct {
	Body                         T
	ID                           string
	Attributes                   map[string]string
	Delay, TimeToLive            time.Duration
	OrderingKey, DeduplicationID string
}

// Plain reports whether m is nothing but its body.
func (m *Message[T]) Plain() bool {
	return m.ID == "" && len(m.Attributes) == 0 && m.OrderingKey == "" && m.DeduplicationID == "" && m.Delay == 0 && m.TimeToLive == 0
}

// An origin names a queue: that, or the one that is opened again by its name in
// the same topic, redrives its dead letters.
type origin struct {
	topic *Core
	queue string
}

// messageOf returns what would have to be published to have it again.
func messageOf[T any](c *Core, it *Item[T]) Message[T] {
	m := Message[T]{Body: it.Body, ID: c.IDOf(it.Seq, it.At, it.Ext)}
	if it.Ext != nil {
		m.fill(it.Ext)
		m.DeduplicationID = ""
	}
	return m
}

// fill sets what of m is in x, but for the ID and the delay.
func (m *Message[T]) fill(x *Extra) {
	m.Attributes = maps.Clone(x.Attributes)
	m.OrderingKey, m.DeduplicationID, m.TimeToLive = x.Key, x.Dedup, x.TTL
}
