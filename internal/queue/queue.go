package queue

import (
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gofanout/fanout/internal/lease"
	"github.com/gofanout/fanout/internal/log"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/settings"
	"github.com/gofanout/fanout/internal/window"
)

// The life of a message in one queue. The states in brackets all count against the
// capacity. A claim is nextLocked (receive.go) or, of what stands together, a step of a
// lease (inflight.go; package workers prefetches); an end is landedLocked (inflight.go) or
// endLocked (settle.go), and Judge says what follows; what dies goes by deadLetterLocked
// (deadletter.go).
//
//	                    ┌──────────────── due (by tick) ──────────────┐
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
	// Backlogged and due are ready, and take turns while both wait.
	Backlogged = uint8(iota + 1)
	Due
	// delayed and retrying wait in the schedule: for the end of a delay or
	// snooze, and for that of a backoff.
	delayed
	retrying
	// InFlight and InHandler wait in the schedule for the visibility timeout:
	// received by a caller, and given to a handler.
	InFlight
	InHandler
	// parked is dead with no room in the dead-letter queue.
	parked
	// released was given back while the topic was closing.
	released
	// blocked stands in line behind another message of its ordering key.
	blocked
	states
)

// Held is a message that has left the log.
type Held[T any] struct {
	Item[T]
	Hist  *History
	Start int64 // of the delivery, while in flight
}

// A Queue is one subscription: what package fanout calls so, without its options.
type Queue[T any] struct {
	// A queue is a window over its log, which is the topic's or, if it has
	// filters, its own: what stands in the log from cursor on is its backlog,
	// and everything else it holds is in win. A queue that is direct (it has a
	// delay, is a dead-letter queue, or is kept by an engine) reads no log:
	// publishers add to its window.
	//
	// Invariants:
	//   - published - cursor + Win.Len() + Leases.Held() <= capacity (the first
	//     term is 0 for a direct queue); Allow is cursor + capacity less the others;
	//   - an entry is in the list or the schedule that its state says, and n
	//     counts the entries of each state;
	//   - of what is due, that has the higher stamp which became so after what waits in
	//     a lease since it timed out;
	//   - if anything is ready and a consumer is idle, one has been woken or
	//     the queue is in its log's list of idle queues;
	//   - the alarm is armed, for the schedule's first instant or the end of a
	//     rate limit's pause or earlier, while there is either; else it is not,
	//     once the last worker has ended.

	// Immutable after OpenQueue.
	Core      *Core
	T         *Home[T]          // nil of a shared dead-letter queue
	Log       *log.Log[Item[T]] // nil if it is direct
	Idle      *IdleQueues[T]    // of that log
	QueueName string
	Set       *settings.Limits // shared with queues that have the same
	Filters   *filters[T]      // nil: none
	Report    notice.Reporter
	Keeper    keeper[T] // nil in memory
	Direct    bool
	Letters   bool // this is a dead-letter queue
	Entries   bool // what is in flight stays in entries of the window
	Evicts    bool // what has expired is looked for when room is wanted
	Renews    bool // automatic extension renews what is in flight on the way
	Local     bool // in memory, and nothing stands around calls: see intercept.go; false for the zero Queue

	// Guarded by the topic's Mu, as place, wait and source below.
	Closing bool // closed, or about to be
	Blocks  bool // see blocksAnewLocked of package topic

	// Allow is how far the log may grow before this queue is full; for a direct
	// queue it is the room left. Written under Mu, read by publishers without.
	Allow atomic.Int64
	// RoomWanted is what allow must reach before a publisher that waits for room here
	// can go on, 0 if none waits. sourcesWait is set by a queue that waits for room
	// in this dead-letter queue. Who makes the room clears them and goes to tell.
	RoomWanted atomic.Int64
	// Ranging is the lease of the range that took one last, found without Mu.
	Ranging     atomic.Pointer[lease.Lease[T]]
	sourcesWait atomic.Bool

	// Guarded by the topic's Mu.
	Place  int32     // in the topic's list that it is in
	Wait   any       // who waits for room here: the topic's, nil if nobody has
	Source *Queue[T] // of a dead-letter queue that is not shared: whose letters it gets

	IdleAt int64 // place in sleep, guarded by its mutex

	Mu      sync.Mutex     // guards the fields below; see Unlock
	Pending notice.Pending // empty while Mu is not locked

	Cursor  log.Cursor[Item[T]]
	Win     window.Window[Held[T]]
	backlog window.List // ready, in the order of publication
	due     window.List // ready, in the order they became so
	parked  window.List
	N       [states]int
	Stale   window.Spans // deliveries that lost their message
	Keys    map[string]*keyLine

	Receivers receivers
	Subs      []*Pool[T]
	Free      freePools[T]
	Running   int32           // worker goroutines of all subscribers
	Ranges    int32           // over Deliveries
	Calls     int32           // of the engine, under way or pending
	Polling   bool            // the engine is asked for messages
	Serving   int32           // of running, those of subscribers that are not stopping
	Consumers int             // how many there may be
	Leases    *lease.Table[T] // what is in flight, see inflight.go; nil: nothing

	Alarm   alarm
	Limited int64 // when a rate limit lets the next delivery start; 0: nobody waits for that

	Dead *Queue[T]

	Drained chan struct{} // closes when nothing is left that Shutdown waits for

	Paused bool
	// BacklogsTurn says that what started last was due: the backlog's turn is next.
	BacklogsTurn bool
	Opening      bool // it is asked what it replays
	draining     bool // the topic shuts down
	// DrainingDead is draining for the dead-letter queue, made or not.
	DrainingDead bool
	Closed       bool
	ended        bool // closed, and nothing of it runs

	Offered   uint64        // messages added other than through the log, less where the cursor began
	Seq       atomic.Uint64 // of events; a timed worker numbers its own without Mu
	Started   uint64        // worker goroutines
	Delivered uint64
	Acked     uint64
	onDemand  *onDemand[T] // nil while all of it is zero
	scan      logScan      // see firstExpiryLocked
}

// onDemand is what few queues need, and not often.
type onDemand[T any] struct {
	counters
	left []Message[T] // what the queue held when it closed
	// sources are the queues with messages parked for want of room in this dead-letter
	// queue, and isSource holds them too.
	sources  []*Queue[T]
	isSource map[*Queue[T]]bool
}

// counters are the parts of Stats that only grow, but for those of a message
// that is delivered and acknowledged: many a queue never needs the others.
type counters struct {
	DeadLettered, Redriven, Dropped, Parked uint64
	Ended                                   [message.Causes]uint64
}

// OnDemandLocked returns what is made on demand, to be changed.
func (q *Queue[T]) OnDemandLocked() *onDemand[T] {
	if q.onDemand == nil {
		q.onDemand = new(onDemand[T])
	}
	return q.onDemand
}

// CountEndLocked counts an attempt that has ended.
func (q *Queue[T]) CountEndLocked(cause message.Cause) {
	if cause == message.Acked {
		q.Acked++
	} else {
		q.OnDemandLocked().Ended[cause]++
	}
}

// countersLocked returns a copy of the counters made on demand.
func (q *Queue[T]) countersLocked() (c counters) {
	if q.onDemand != nil {
		c = q.onDemand.counters
	}
	return c
}

func (q *Queue[T]) ExpiredLocked() uint64 {
	if q.onDemand == nil {
		return 0
	}
	return q.onDemand.Ended[message.Expired]
}

// Stats is a snapshot of a queue. Package fanout explains the numbers.
type Stats struct {
	Topic, Queue string
	Capacity     int

	Ready, Delayed, Retrying, InFlight, Parked, Released, Blocked int

	Paused         bool
	OldestAge      time.Duration
	Dead           int
	Workers, Stuck int

	Published                                                     int
	Delivered, DeadLettered, Redriven, Dropped, Left, TimesParked uint64

	WorkersStarted uint64

	Acked, Failed, Panicked, Exited, TimedOut, Nacked  uint64
	PermanentlyFailed, Expired, Snoozed, ReleasedCount uint64
}

// Unsettled is the number of messages that count against the capacity; on an engine it is
// [Unknown].
func (s Stats) Unsettled() int {
	if s.Ready == Unknown {
		return Unknown
	}
	return s.Ready + s.Delayed + s.Retrying + s.InFlight + s.Parked + s.Released + s.Blocked
}

// Name is the queue's name.
func (q *Queue[T]) Name() string { return q.QueueName }

// Stats returns a snapshot of the queue's counters.
func (q *Queue[T]) Stats() Stats {
	now := q.Core.Now()
	q.Mu.Lock()
	inLog := q.InLogLocked()
	leased := q.Leases.Counts()
	q.TallyLocked()
	c := q.countersLocked()
	s := Stats{
		Topic: q.Core.TopicName, Queue: q.QueueName, Capacity: q.Set.Capacity,
		Ready: q.N[Due] + q.N[Backlogged] + inLog + leased.Waiting + leased.Expired, Delayed: q.N[delayed], Retrying: q.N[retrying],
		InFlight: q.N[InFlight] + q.N[InHandler] + leased.InFlight, Parked: q.N[parked], Released: q.N[released],
		Blocked: q.N[blocked], Paused: q.Paused,
		Workers: int(q.Running), WorkersStarted: q.Started,
		Published:    int(q.publishedLocked(inLog)),
		Delivered:    q.Delivered,
		DeadLettered: c.DeadLettered, Redriven: c.Redriven,
		Dropped: c.Dropped, Left: uint64(len(q.leftoversLocked())), TimesParked: c.Parked,
	}
	if s.Ready > 0 {
		s.OldestAge = time.Duration(max(now-q.oldestLocked(), 0))
	}
	e := c.Ended
	s.Acked, s.Failed, s.Panicked, s.Exited, s.TimedOut = q.Acked, e[message.Failed], e[message.Panicked], e[message.Exited], e[message.TimedOut]
	s.Nacked, s.PermanentlyFailed, s.Expired, s.Snoozed = e[message.Nacked], e[message.PermanentlyFailed], e[message.Expired], e[message.Snoozed]
	s.ReleasedCount = e[message.Released]
	for _, sub := range q.Subs {
		s.Stuck += sub.Stuck
	}
	d := q.Dead
	if d != nil {
		d.Mu.Lock()
		s.Dead = d.HeldLocked()
		d.Mu.Unlock()
	}
	q.Unlock() // what handlers and ranges have acknowledged was tallied
	if q.Keeper != nil {
		q.Keeper.Hide(&s)
	}
	return s
}

// oldestLocked is when the oldest of the ready messages was published. Those in
// the log stand in the order of publication, and those of a lease; the backlog does
// in all but a dead-letter queue.
func (q *Queue[T]) oldestLocked() int64 {
	at := int64(math.MaxInt64)
	if q.InLogLocked() > 0 {
		at = q.Cursor.Peek().At
	}
	for i, ok := q.backlog.First(); ok; i, ok = q.Win.Next(i) {
		if at = min(at, q.Win.At(i).At); !q.Letters {
			break
		}
	}
	for i, ok := q.due.First(); ok; i, ok = q.Win.Next(i) {
		at = min(at, q.Win.At(i).At)
	}
	if oldest, ok := q.Leases.Oldest(); ok {
		at = min(at, oldest)
	}
	return at
}

// publishedLocked counts what was published to the queue, given what of it is
// in the log still: publishers don't hold Mu, so that is read once.
func (q *Queue[T]) publishedLocked(inLog int) uint64 {
	if q.Direct || q.Closed {
		return q.Offered
	}
	return q.Offered + uint64(q.Cursor.Pos()) + uint64(inLog)
}

// ReadyLocked counts what could be claimed now.
func (q *Queue[T]) ReadyLocked() int {
	return q.DueLocked() + q.N[Backlogged] + q.InLogLocked() + q.Leases.Waiting()
}

// InLogLocked counts the backlog that is still in the log. The cursor stands
// past what is published only while a publisher drops what it is publishing.
func (q *Queue[T]) InLogLocked() int {
	if q.Direct || q.Closed {
		return 0
	}
	return int(max(q.Log.Published()-q.Cursor.Pos(), 0))
}

// Room is how many more messages a publisher may add. The topic's Mu is held,
// so that it can only grow meanwhile. It is negative if too much has been appended.
func (q *Queue[T]) Room() int64 {
	if q.Direct {
		return q.Allow.Load()
	}
	return q.Allow.Load() - q.Log.Head()
}
