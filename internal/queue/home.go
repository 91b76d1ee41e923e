package queue

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/gofanout/fanout/internal/core"
	"github.com/gofanout/fanout/internal/notice"
)

// A Home is what queues have of their topic, and all that they know of it: what they tell
// it, and what they ask its admission and its owner for. A dead-letter queue that is shared has none.
type Home[T any] struct {
	*core.Core
	Admission admission[T]
	Owner     owner[T]

	Idle     IdleQueues[T]
	Expiring atomic.Uint64 // the latest message that has a time to live of its own; read without Mu

	Mu       sync.Mutex     // the topic's; see Unlock
	Pending  notice.Pending // what its queues left; empty while Mu is not locked
	RoomMade []*Queue[T]    // in which room was made for those who wait; none while Mu is not locked
}

// An admission is the way into the topic's queues. "Locked" methods are called with Mu held.
type admission[T any] interface {
	// LetIn has those go on who waited for room in a queue, or, if that is nil, whose
	// turn it is. No lock is held. It returns what has to be told.
	LetIn(room *Queue[T]) notice.Pending
	// HasTurnsLocked reports whether it is anybody's turn.
	HasTurnsLocked() bool
	// TurnsOfLocked makes it the turn of those who may be waiting for room in q.
	TurnsOfLocked(q *Queue[T])

	// RedriveLetters adds letters to q, and waits for room. It returns how many moved.
	RedriveLetters(ctx context.Context, q *Queue[T], letters []Letter) (moved int, err error)
}

// An owner of queues is a topic.
type owner[T any] interface {
	// EndQueue closes a queue. If it is to be deleted nothing of it is left.
	EndQueue(q *Queue[T], deleting bool) error
	// TakeOrphanLocked returns a dead-letter queue that has outlived its queue, nil if
	// there is none, which is then no orphan any more.
	TakeOrphanLocked(name string) *Queue[T]
}

// A Letter names a message of a dead-letter queue that was looked at, and may be gone since.
type Letter struct {
	Seq   uint64
	Entry int32
}
