package core

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/gofanout/fanout/internal/notice"
)

// A home is what queues have of their topic, and all that they know of it: what they tell
// it, and what they ask its owner for. A dead-letter queue that is shared has none.
type home[T any] struct {
	*core
	owner owner[T]

	sleep    sleepers[T]
	expiring atomic.Uint64 // the latest message that has a time to live of its own; read without mu

	mu       sync.Mutex     // the topic's; see unlock
	pending  notice.Pending // what its queues left; empty while mu is not locked
	roomMade []*Queue[T]    // in which room was made for those who wait; none while mu is not locked
}

// An owner of queues is a topic. "Locked" methods are called with its mu held.
type owner[T any] interface {
	// letIn has those go on who waited for room in a queue, or, if that is nil, whose
	// turn it is. No lock is held. It returns what has to be told.
	letIn(room *Queue[T]) notice.Pending
	// hasTurnsLocked reports whether it is anybody's turn.
	hasTurnsLocked() bool
	// turnsOfLocked makes it the turn of those who may be waiting for room in q.
	turnsOfLocked(q *Queue[T])

	// redriveLetters adds letters to q, and waits for room. It returns how many moved.
	redriveLetters(ctx context.Context, q *Queue[T], letters []Delivery[T]) (moved int, err error)
	// endQueue closes a queue. If it is to be deleted nothing of it is left.
	endQueue(q *Queue[T], deleting bool) error
	// takeOrphanLocked returns a dead-letter queue that has outlived its queue, nil if
	// there is none, which is then no orphan any more.
	takeOrphanLocked(name string) *Queue[T]
}
