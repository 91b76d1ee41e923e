package admission

import (
	"slices"

	"github.com/gofanout/fanout/internal/message"
)

// retained is the last messages of a topic, for queues that are opened later:
// a ring that grows up to its size. The topic's Mu guards it.
type retained[T any] struct {
	size int
	ring []message.Item[T]
	next int // where the next message goes, once the ring has its size
}

func (r *retained[T]) add(it message.Item[T]) {
	switch {
	case r.size == 0:
	case len(r.ring) < r.size:
		r.ring = append(r.ring, it)
	default:
		r.ring[r.next] = it
		r.next = (r.next + 1) % r.size
	}
}

// all returns a copy of what is retained, oldest first.
func (r *retained[T]) all() []message.Item[T] {
	return append(slices.Clone(r.ring[r.next:]), r.ring[:r.next]...)
}

// Retains reports whether the topic retains messages.
func (a *Admission[T]) Retains() bool { return a.retained.size > 0 }

// RetainedLocked returns a copy of what the topic retains, oldest first.
func (a *Admission[T]) RetainedLocked() []message.Item[T] { return a.retained.all() }
