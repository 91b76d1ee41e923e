package queue

import (
	"sync"
	"sync/atomic"

	"github.com/gofanout/fanout/internal/alarm"
	"github.com/gofanout/fanout/internal/consumers"
	"github.com/gofanout/fanout/internal/core"
	"github.com/gofanout/fanout/internal/filter"
	"github.com/gofanout/fanout/internal/lease"
	"github.com/gofanout/fanout/internal/log"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/policy"
	"github.com/gofanout/fanout/internal/store"
	"github.com/gofanout/fanout/internal/waitline"
)

// A Queue is one subscription: what package fanout calls so, without its options.
type Queue[T any] struct {
	// Invariants, beside those of its Store:
	//   - if anything is ready and a consumer is idle, one has been woken or
	//     the queue is in its log's list of idle queues;
	//   - the alarm is armed, for the schedule's first instant or the end of a
	//     rate limit's pause or earlier, while there is either; else it is not,
	//     once the last worker has ended.

	// Immutable after OpenQueue.
	Core    *core.Core
	T       *Home[T]                 // nil of a shared dead-letter queue
	Idle    *IdleQueues[T]           // of its log
	Filters *filter.Set[T]           // nil: none
	Policy  *policy.Entry[*Queue[T]] // if the first filter is a policy: in the topic's index
	Report  notice.Reporter
	Keeper  keeper[T] // nil in memory
	Entries bool      // what is in flight stays in entries of the window
	Renews  bool      // automatic extension renews what is in flight on the way
	Local   bool      // in memory, and nothing stands around calls: see around.go of package delivery; false for the zero Queue

	// Guarded by the topic's Mu, as Place, Wait and Source below.
	Closing bool // closed, or about to be
	Blocks  bool // see blocksAnewLocked of package admission

	// RoomWanted is what Allow must reach before a publisher that waits for room here
	// can go on, 0 if none waits. sourcesWait is set by a queue that waits for room
	// in this dead-letter queue. Who makes the room clears them and goes to tell.
	RoomWanted atomic.Int64
	// Ranging is the lease of the range that took one last, found without Mu.
	Ranging     atomic.Pointer[lease.Lease[T]]
	sourcesWait atomic.Bool

	// Guarded by the topic's Mu.
	Place  int32           // in the topic's list that it is in
	Wait   *waitline.Queue // who waits for room here: nil if nobody has
	Source *Queue[T]       // of a dead-letter queue that is not shared: whose letters it gets

	IdleAt int64 // place in the list of idle queues, guarded by its mutex

	Mu      sync.Mutex     // guards the fields below; see Unlock
	Pending notice.Pending // empty while Mu is not locked

	Store store.Store[T] // what it holds, and in which state; its own comments say what needs no lock

	Group consumers.Group[T]
	Calls int32 // of the engine, under way or pending

	Alarm   alarm.Alarm
	Limited int64 // when a rate limit lets the next delivery start; 0: nobody waits for that

	Dead *Queue[T]

	Drained chan struct{} // closes when nothing is left that Shutdown waits for

	Polling bool // the engine is asked for messages
	Paused  bool
	Opening bool // it is asked what it replays
	// DrainingDead is Draining for the dead-letter queue, made or not.
	DrainingDead bool
	ended        bool // closed, and nothing of it runs

	Seq      atomic.Uint64 // of events; a timed worker numbers its own without Mu
	Started  uint64        // worker goroutines
	onDemand *onDemand[T]  // nil while all of it is zero
}

// ReadOwnLog gives q, which is being opened, a log of its own, whose memory it shares with
// others. Its segments hold as many messages as a worker prefetches: there may be many such
// queues.
func (q *Queue[T]) ReadOwnLog(spare *log.Spare[message.Item[T]]) {
	q.Store.Log = log.NewSharing(min(PrefetchLen, log.SegmentOf[message.Item[T]](), q.Store.Set.Capacity/4), spare)
	q.Idle = new(IdleQueues[T])
	q.Store.Cursor = q.Store.Log.Cursor()
}

// onDemand is what few queues need, and not often.
type onDemand[T any] struct {
	left []message.Published[T] // what the queue held when it closed
	// sources are the queues with messages parked for want of room in this dead-letter
	// queue, and isSource holds them too.
	sources  []*Queue[T]
	isSource map[*Queue[T]]bool
}

// onDemandLocked returns what is made on demand, to be changed.
func (q *Queue[T]) onDemandLocked() *onDemand[T] {
	if q.onDemand == nil {
		q.onDemand = new(onDemand[T])
	}
	return q.onDemand
}

// LeftLocked is what a closed queue held; it is changed by KeepLeftLocked.
func (q *Queue[T]) LeftLocked() []message.Published[T] {
	if q.onDemand == nil {
		return nil
	}
	return q.onDemand.left
}

// KeepLeftLocked has the queue keep what it held when it closed, or nothing of it.
func (q *Queue[T]) KeepLeftLocked(left []message.Published[T]) {
	if len(left) > 0 || q.onDemand != nil {
		q.onDemandLocked().left = left
	}
}

// Name is the queue's name.
func (q *Queue[T]) Name() string { return q.Store.QueueName }
