// Package store has what one queue holds, and in which state: the state machine of its
// messages, with retries, delays, ordering keys (keys.go) and times to live (expiry.go), and
// without what drives it.
//
// It promises that each message is in one place, in the state that the counts say; that what
// is due and the backlog take turns, and each keeps its own order; that a delivery is ended
// once, by who owns it; and that Allow says at any instant how far the log may grow.
//
// A Store owns a queue's cursor in the log, its window, its leases and its books. It has no
// lock, clock, goroutine or hook. Its owner, a Queue of package queue, holds a lock whenever
// it is used, and gives it the instant where that matters. It calls nobody but the consumers
// of its leases.
//
// A method returns what others have to do or to hear of: that a delivery has ended, and what
// becomes of its message; which message is dead, as the store can't reach a dead-letter queue;
// which one was dropped. The caller arms the timer, wakes consumers for what has become
// ready, and lets in those who wait for the room that was made.
package store

import (
	"math"
	"sync/atomic"

	"github.com/gofanout/fanout/internal/block"
	"github.com/gofanout/fanout/internal/keyline"
	"github.com/gofanout/fanout/internal/lease"
	"github.com/gofanout/fanout/internal/log"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/settings"
	"github.com/gofanout/fanout/internal/window"
)

// The life of a message in one queue. The states in brackets all count against the
// capacity. A claim is Next or, of what stands together, a step of a lease (take.go; package
// workers prefetches); an end is Land or End, and Judge says what follows (end.go).
//
//	                    ┌──────────────── due (PopDue) ───────────────┐
//	                    ▼                                             │
//	publish ─▶ [ready: log ─▶ backlog ─▶ due]                 [delayed│retrying]
//	              │            ▲                                      ▲
//	            claim          │ timed out, released                  │ failed, nacked (backoff);
//	              ▼            │                                      │ snoozed
//	          [in flight] ─────┴──────────── end ─────────────────────┘
//	              │  │
//	              │  └─ attempts spent, permanent ─▶ dies ─▶ dead-letter queue ─▶ redrive ─▶ ready
//	             ack                                  └──▶ [parked] ─▶ unpark ──▲
//	              ▼
//	            gone
//
// While the topic shuts down, what is released goes to [released] and stays.
const (
	// Backlogged and Due are ready, and take turns while both wait.
	Backlogged = uint8(iota)
	Due
	// Delayed and Retrying wait in the schedule: for the end of a delay or
	// snooze, and for that of a backoff.
	Delayed
	Retrying
	// InFlight and InHandler wait in the schedule for the visibility timeout:
	// received by a caller, and given to a handler.
	InFlight
	InHandler
	// Parked is dead with no room in the dead-letter queue.
	Parked
	// Released was given back while the topic was closing.
	Released
	// Blocked stands in line behind another message of its ordering key.
	Blocked
	// States is one more than the last.
	States
)

// Held is a message that has left the log.
type Held[T any] struct {
	message.Item[T]
	Hist  *message.History
	Start int64 // of the delivery, while in flight
}

// A Store is what one queue holds. It is a window over its log, which is the topic's or, if
// the queue has filters, its own: what stands in the log from Cursor on is its backlog, and
// everything else it holds is in Win or Leases. One that is direct (the queue has a delay, is
// a dead-letter queue, or is kept by an engine) reads no log: publishers add to its window.
//
// Invariants, until it is closed (see Check):
//   - published - cursor + Win.Len() + Leases.Held() <= capacity (the first
//     term is 0 of a direct one); Allow is cursor + capacity less the others;
//   - an entry is in the list or the schedule that its state says, and n counts the
//     entries of each state;
//   - of what is due, that has the higher stamp which became so after what waits in
//     a lease since it timed out;
//   - the entries that can make room by their times to live are those that have an expiry;
//   - what was offered or redriven to it was acknowledged, dead-lettered or dropped, or is
//     held.
//
// A Store is made by Init, and is not copied.
type Store[T any] struct {
	// Immutable once the queue is open, but see Resize.
	Log     *log.Log[message.Item[T]] // nil if it is direct
	Set     *settings.Limits          // shared with queues that have the same
	Direct  bool
	Letters bool // of a dead-letter queue
	Evicts  bool // what has expired is looked for when room is wanted

	Closed   bool
	Draining bool // what is released stays so: the topic shuts down
	// BacklogsTurn says that what started last was due: the backlog's turn is next.
	BacklogsTurn bool

	// Allow is how far the log may grow before this queue is full; for a direct
	// queue it is the room left. Written by who has the lock, read by publishers without.
	Allow atomic.Int64

	// Of the books.
	Delivered uint64
	Acked     uint64
	Offered   uint64    // messages added other than through the log, less where the cursor began
	counters  *Counters // nil while all of it is zero

	Leases *lease.Table[T] // what is in flight, see take.go; nil: nothing
	Keys   keyline.Lines
	Cursor log.Cursor[message.Item[T]]

	Win     window.Window[Held[T]]
	backlog window.List // ready, in the order of publication
	due     window.List // ready, in the order they became so
	parked  window.List
	n       [States]int32 // entries of each state
	Stale   window.Spans  // deliveries that lost their message
	scan    logScan       // see FirstExpiry

	QueueName string         // immutable, as the clock
	clock     *message.Clock // says which time an instant is
	pool      *block.Pool
}

// Counters are the parts of the books that only grow, but for those of a message that is
// delivered and acknowledged: many a queue never needs the others.
type Counters struct {
	DeadLettered, Redriven, Dropped, Parked uint64
	Ended                                   [message.Causes]uint64
}

// Init makes the zero Store that of a queue. The clock, which it does not read, says which
// time an instant is. Leases have their places from pool.
func (s *Store[T]) Init(name string, set *settings.Limits, clock *message.Clock, pool *block.Pool) {
	s.QueueName, s.Set, s.clock, s.pool, s.Evicts = name, set, clock, pool, true
	s.Allow.Store(room(set.Capacity))
}

// Resize gives it another capacity, or that of what it holds if that is more, and another
// policy.
func (s *Store[T]) Resize(capacity int, overflow settings.Overflow) {
	capacity, ranked := max(capacity, s.Held()), s.Set.Overflow == settings.DropOldest
	s.Allow.Add(room(capacity) - room(s.Set.Capacity))
	s.Set.Capacity, s.Set.Overflow = capacity, overflow
	if ranked || overflow != settings.DropOldest {
		return
	}
	s.Win.All(func(i int32) bool {
		if !s.InFlight(i) {
			s.rank(i)
		}
		return true
	})
}

// Close ends it: it reads no log any more. What the window holds stays there. The log's
// writer is kept from writing.
func (s *Store[T]) Close() {
	if !s.Letters {
		s.Cursor.Close()
		if !s.Direct && !s.Log.Read() {
			s.Log.Forget()
		}
		s.Stale = window.Spans{}
	}
	if len(s.Leases.Leases()) == 0 {
		s.Leases = nil
	}
	s.Closed = true
}

// room is what a capacity is to calculate with.
func room(capacity int) int64 { return int64(min(capacity, maxCapacity)) }

// maxCapacity is what Unlimited means for a capacity, with room to calculate.
const maxCapacity = math.MaxInt / 4
