package queue

import (
	"github.com/gofanout/fanout/internal/message"
)

// An origin names a queue: that, or the one that is opened again by its name in
// the same topic, redrives its dead letters.
type origin struct {
	topic *Core
	queue string
}

// messageOf returns what would have to be published to have it again.
func messageOf[T any](c *Core, it *message.Item[T]) message.Published[T] {
	m := message.Published[T]{Body: it.Body, ID: c.IDOf(it.Seq, it.At, it.Ext)}
	if it.Ext != nil {
		m.Fill(it.Ext)
		m.DeduplicationID = ""
	}
	return m
}
