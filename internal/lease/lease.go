// Package lease keeps the messages of one queue that are in flight, or about to
// be, in blocks of up to 64 in the order in which they were taken. A message
// stays in its block until it is acknowledged, fails, times out or is given back, and
// its delivery is named by the block and by a stamp that no other delivery of the queue ever has.
//
// It promises that each message has one owner: of all who acknowledge it, extract
// it or time it out exactly one is told so; that messages time out in the order
// of their instants, those of one instant in the order of their stamps; that
// nothing here is linear in what is in flight; and that a message left over keeps
// little more than itself in memory.
//
// A Table owns its blocks and all that is in them; their places go back to the topic's
// pool (package block), empty. It has no lock, clock, goroutine or hook: its owner's lock
// guards it and its leases, and its owner says what time it is. Only a lease's word (package
// instep) is changed without the lock: by a consumer that goes through a block, and by
// whoever acknowledges a range's current message. So a consumer builds its
// deliveries while it holds the lock, and reads nothing of the block without.
//
// A consumer that prefetches keeps the messages in its deliveries, and the lease has no copy.
// So messages are copied once. The table asks the consumer for what is wanted elsewhere.
package lease

import (
	"github.com/gofanout/fanout/internal/block"
	"github.com/gofanout/fanout/internal/due"
	"github.com/gofanout/fanout/internal/instep"
	"github.com/gofanout/fanout/internal/message"
)

// Len is the most messages of a lease.
const Len = block.Len

// A Consumer keeps the messages that it has taken into its leases, until they are over
// or it has left the lease.
type Consumer[T any] interface {
	// Message returns message k of a lease. It is called while the table's owner holds
	// its lock, for messages that are in flight or wait.
	Message(l *Lease[T], k int) message.Item[T]
	// At is when message k of a lease was published. It is called under that lock for a
	// message that waited: the consumer may have gone past it meanwhile, and let it go.
	At(l *Lease[T], k int) int64
	// Began is when the current message of its lease in step began, or now if the consumer
	// does not know. It is called under that lock.
	Began(now int64) int64
}

// A Lease is a block of messages, taken for one consumer or for callers.
//
// Invariants, while it is in its table:
//   - without places in block the consumer keeps the messages;
//   - all that are in flight by their bits, or timed out, began when block says;
//   - starts of messages in flight never decrease;
//   - in step, the current message has no bit until the word says detached, and
//     what waits has none; otherwise the word is zero;
//   - due is scheduled for a lower bound of its first deadline, while any message is in
//     flight by its bit.
type Lease[T any] struct {
	// Word says where a consumer in step stands.
	Word instep.Word

	// The owner's lock guards the rest.
	due     due.Node // its ID is the number of the slot
	step    int32    // place among the leases that a consumer has, plus one
	n       uint8    // messages taken
	begun   uint8    // of those in step: counted as begun
	counted uint8    // of those in step: counted as acknowledged, or detached
	alone   bool     // some message in block is not plain: each times out alone

	block block.Block[T]
	vis   int64       // visibility timeout
	taken int64       // when it was, for a consumer that keeps the messages
	more  *more       // nil for most
	owner Consumer[T] // the consumer that has it; nil: none
}

// more is what few leases have.
type more struct {
	pasts block.Pasts
	taken bool // messages of timedOut belong to the present stamps

	timedOutAt int64
	rank       uint64 // a stamp: which of two that became due was first

	extended uint64  // bit k: the deadline of message k is in until
	until    []int64 // by message
}

// Owner is the consumer that the lease was opened for, nil if it has left it.
func (l *Lease[T]) Owner() Consumer[T] { return l.owner }

// Kept reports whether the lease's messages are with its consumer.
func (l *Lease[T]) Kept() bool { return l.block.Items == nil }

// Len is how many messages were taken into the lease.
func (l *Lease[T]) Len() int { return int(l.n) }

// CheckAt is when so much time has passed since the lease was taken, or its visibility
// timeout if that is less.
func (l *Lease[T]) CheckAt(age int64) int64 { return after(l.taken, min(age, l.vis)) }

// Room is how many more messages the lease has places for.
func (l *Lease[T]) Room() int { return max(len(l.block.Items)-int(l.n), 0) }

// moreOf returns what few leases have, to be changed.
func (l *Lease[T]) moreOf() *more {
	if l.more == nil {
		l.more = new(more)
	}
	return l.more
}

// deadline is when message k times out.
func (l *Lease[T]) deadline(k int) int64 {
	if l.more != nil && l.more.extended&bit(k) != 0 {
		return l.more.until[k]
	}
	return after(l.block.Start(k), l.vis)
}

// item is message k.
func (l *Lease[T]) item(k int) message.Item[T] {
	if l.block.Items == nil {
		return l.owner.Message(l, k)
	}
	return l.block.Items[l.block.Place(k)]
}

// These are generic only so that the compiler inlines them in the programs of users: see instep.

func bit[I int](k I) uint64        { return 1 << k }
func mask[I int](from, n I) uint64 { return (1<<n - 1) << from }

func after[I int64](now, d I) I {
	if at := now + d; at >= now {
		return at
	}
	return 1<<63 - 1
}
