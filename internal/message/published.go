package message

import (
	"maps"
	"time"
)

// A Published is what a publisher publishes. It is laid out as package fanout's is.
type Published[T any] struct {
	Body                         T
	ID                           string
	Attributes                   map[string]string
	Delay, TimeToLive            time.Duration
	OrderingKey, DeduplicationID string
}

// Plain reports whether m is nothing but its body.
func (m *Published[T]) Plain() bool {
	return m.ID == "" && len(m.Attributes) == 0 && m.OrderingKey == "" && m.DeduplicationID == "" && m.Delay == 0 && m.TimeToLive == 0
}

// Fill sets what of m is in x, but for the ID and the delay.
func (m *Published[T]) Fill(x *Extra) {
	m.Attributes = maps.Clone(x.Attributes)
	m.OrderingKey, m.DeduplicationID, m.TimeToLive = x.Key, x.Dedup, x.TTL
}
