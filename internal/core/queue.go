package core

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

// The life of a message in one queue. Each arrow is one function below; the
// states in brackets all count against the capacity.
//
//	                    ┌──────────────── due (by tick) ──────────────┐
//	                    ▼                                             │
//	publish ─▶ [ready: log ─▶ backlog ─▶ due]                 [delayed│retrying]
//	              │            ▲                                      ▲
//	            claim          │ timed out, released                  │ failed, nacked (backoff);
//	              ▼            │                                      │ snoozed
//	          [in flight] ─────┴──────────── end ─────────────────────┘
//	              │  │
//	              │  └─ attempts spent, permanent ─▶ bury ─▶ dead-letter queue ─▶ redrive ─▶ ready
//	             ack                                  └──▶ [parked] ─▶ unpark ──▲
//	              ▼
//	            gone
//
// While the topic shuts down, what is released goes to [released] and stays.
const (
	// backlogged and due are ready, and take turns while both wait.
	backlogged = uint8(iota + 1)
	due
	// delayed and retrying wait in the schedule: for the end of a delay or
	// snooze, and for that of a backoff.
	delayed
	retrying
	// inFlight and inHandler wait in the schedule for the visibility timeout:
	// received by a caller, and given to a handler.
	inFlight
	inHandler
	// parked is dead with no room in the dead-letter queue.
	parked
	// released was given back while the topic was closing.
	released
	// blocked stands in line behind another message of its ordering key.
	blocked
	states
)

// held is a message that has left the log.
type held[T any] struct {
	item[T]
	hist  *history
	start int64 // of the delivery, while in flight
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
	//   - published - cursor + win.Len() + leases.Held() <= capacity (the first
	//     term is 0 for a direct queue); allow is cursor + capacity less the others;
	//   - an entry is in the list or the schedule that its state says, and n
	//     counts the entries of each state;
	//   - of what is due, that has the higher stamp which became so after what waits in
	//     a lease since it timed out;
	//   - if anything is ready and a consumer is idle, one has been woken or
	//     the queue is in its log's list of sleepers;
	//   - the alarm is armed, for the schedule's first instant or the end of a
	//     rate limit's pause or earlier, while there is either; else it is not,
	//     once the last worker has ended.

	// Immutable after OpenQueue.
	core    *core
	t       *home[T]          // nil of a shared dead-letter queue
	log     *log.Log[item[T]] // nil if it is direct
	sleep   *sleepers[T]      // of that log
	name    string
	set     *settings.Limits // shared with queues that have the same
	filters *filters[T]      // nil: none
	report  notice.Reporter
	keeper  keeper[T] // nil in memory
	direct  bool
	letters bool // this is a dead-letter queue
	entries bool // what is in flight stays in entries of the window
	evicts  bool // what has expired is looked for when room is wanted
	renews  bool // automatic extension renews what is in flight on the way
	local   bool // in memory, and nothing stands around calls: see intercept.go; false for the zero Queue

	// Guarded by the topic's mu, as place, wait and source below.
	gone     bool // closed, or about to be
	blocking bool // see blocksAnewLocked

	// allow is how far the log may grow before this queue is full; for a direct
	// queue it is the room left. Written under mu, read by publishers without.
	allow atomic.Int64
	// gate is what allow must reach before a publisher that waits for room here
	// can go on, 0 if none waits. starving is set by a source that waits for room
	// in this dead-letter queue. Who makes the room clears them and goes to tell.
	gate atomic.Int64
	// ranging is the lease of the range that took one last, found without mu.
	ranging  atomic.Pointer[lease.Lease[T]]
	starving atomic.Bool

	// Guarded by the topic's mu.
	place  int32     // in the topic's list that it is in
	wait   any       // who waits for room here: the topic's, nil if nobody has
	source *Queue[T] // of a dead-letter queue that is not shared: whose letters it gets

	sleepAt int64 // place in sleep, guarded by its mutex

	mu      sync.Mutex     // guards the fields below; see unlock
	pending notice.Pending // empty while mu is not locked

	cursor  log.Cursor[item[T]]
	win     window.Window[held[T]]
	backlog window.List // ready, in the order of publication
	due     window.List // ready, in the order they became so
	parked  window.List
	n       [states]int
	stale   window.Spans // deliveries that lost their message
	keys    map[string]*keyLine

	receivers receivers
	subs      []*pool[T]
	free      freePools[T]
	putAt     int32           // entry that was put last at its place in the backlog, which may be gone
	running   int32           // worker goroutines of all subscribers
	ranges    int32           // over Deliveries
	calls     int32           // of the engine, under way or pending
	polling   bool            // the engine is asked for messages
	serving   int32           // of running, those of subscribers that are not stopping
	consumers int             // how many there may be
	leases    *lease.Table[T] // what is in flight, see inflight.go; nil: nothing

	alarm   alarm
	limited int64 // when a rate limit lets the next delivery start; 0: nobody waits for that

	dead *Queue[T]

	drained chan struct{} // closes when nothing is left that Shutdown waits for

	paused bool
	// backlogsTurn says that what started last was due: the backlog's turn is next.
	backlogsTurn bool
	opening      bool // it is asked what it replays
	draining     bool // the topic shuts down
	// drainingDead is draining for the dead-letter queue, made or not.
	drainingDead bool
	closed       bool
	home         bool // closed, and nothing of it runs

	offered   uint64        // messages added other than through the log, less where the cursor began
	seq       atomic.Uint64 // of events; a timed worker numbers its own without mu
	started   uint64        // worker goroutines
	delivered uint64
	acked     uint64
	rare      *rare[T] // nil while all of it is zero
	scan      logScan  // see firstExpiryLocked
}

// rare is what few queues need, and not often.
type rare[T any] struct {
	counters
	left []Message[T] // what the queue held when it closed
	// starving are the queues with messages parked for want of room in this dead-letter
	// queue, and starved holds them too.
	starving []*Queue[T]
	starved  map[*Queue[T]]bool
}

// counters are the parts of Stats that only grow, but for those of a message
// that is delivered and acknowledged: many a queue never needs the others.
type counters struct {
	deadLettered, redriven, dropped, parked uint64
	ended                                   [message.Causes]uint64
}

// rareLocked returns what is rare, to be changed.
func (q *Queue[T]) rareLocked() *rare[T] {
	if q.rare == nil {
		q.rare = new(rare[T])
	}
	return q.rare
}

// countEndLocked counts an attempt that has ended.
func (q *Queue[T]) countEndLocked(cause message.Cause) {
	if cause == message.Acked {
		q.acked++
	} else {
		q.rareLocked().ended[cause]++
	}
}

// countersLocked returns a copy of the rare counters.
func (q *Queue[T]) countersLocked() (c counters) {
	if q.rare != nil {
		c = q.rare.counters
	}
	return c
}

func (q *Queue[T]) expiredLocked() uint64 {
	if q.rare == nil {
		return 0
	}
	return q.rare.ended[message.Expired]
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
func (q *Queue[T]) Name() string { return q.name }

// Stats returns a snapshot of the queue's counters.
func (q *Queue[T]) Stats() Stats {
	now := q.core.now()
	q.mu.Lock()
	inLog := q.inLogLocked()
	leased := q.leases.Counts()
	q.tallyLocked()
	c := q.countersLocked()
	s := Stats{
		Topic: q.core.name, Queue: q.name, Capacity: q.set.Capacity,
		Ready: q.n[due] + q.n[backlogged] + inLog + leased.Waiting + leased.Expired, Delayed: q.n[delayed], Retrying: q.n[retrying],
		InFlight: q.n[inFlight] + q.n[inHandler] + leased.InFlight, Parked: q.n[parked], Released: q.n[released],
		Blocked: q.n[blocked], Paused: q.paused,
		Workers: int(q.running), WorkersStarted: q.started,
		Published:    int(q.publishedLocked(inLog)),
		Delivered:    q.delivered,
		DeadLettered: c.deadLettered, Redriven: c.redriven,
		Dropped: c.dropped, Left: uint64(len(q.leftoversLocked())), TimesParked: c.parked,
	}
	if s.Ready > 0 {
		s.OldestAge = time.Duration(max(now-q.oldestLocked(), 0))
	}
	e := c.ended
	s.Acked, s.Failed, s.Panicked, s.Exited, s.TimedOut = q.acked, e[message.Failed], e[message.Panicked], e[message.Exited], e[message.TimedOut]
	s.Nacked, s.PermanentlyFailed, s.Expired, s.Snoozed = e[message.Nacked], e[message.PermanentlyFailed], e[message.Expired], e[message.Snoozed]
	s.ReleasedCount = e[message.Released]
	for _, sub := range q.subs {
		s.Stuck += sub.stuck
	}
	d := q.dead
	if d != nil {
		d.mu.Lock()
		s.Dead = d.heldLocked()
		d.mu.Unlock()
	}
	q.unlock() // what handlers and ranges have acknowledged was tallied
	if q.keeper != nil {
		q.keeper.hide(&s)
	}
	return s
}

// oldestLocked is when the oldest of the ready messages was published. Those in
// the log stand in the order of publication, and those of a lease; the backlog does
// in all but a dead-letter queue.
func (q *Queue[T]) oldestLocked() int64 {
	at := int64(math.MaxInt64)
	if q.inLogLocked() > 0 {
		at = q.cursor.Peek().At
	}
	for i, ok := q.backlog.First(); ok; i, ok = q.win.Next(i) {
		if at = min(at, q.win.At(i).At); !q.letters {
			break
		}
	}
	for i, ok := q.due.First(); ok; i, ok = q.win.Next(i) {
		at = min(at, q.win.At(i).At)
	}
	if oldest, ok := q.leases.Oldest(); ok {
		at = min(at, oldest)
	}
	return at
}

// publishedLocked counts what was published to the queue, given what of it is
// in the log still: publishers don't hold mu, so that is read once.
func (q *Queue[T]) publishedLocked(inLog int) uint64 {
	if q.direct || q.closed {
		return q.offered
	}
	return q.offered + uint64(q.cursor.Pos()) + uint64(inLog)
}

// readyLocked counts what could be claimed now.
func (q *Queue[T]) readyLocked() int {
	return q.dueLocked() + q.n[backlogged] + q.inLogLocked() + q.leases.Waiting()
}

// inLogLocked counts the backlog that is still in the log. The cursor stands
// past what is published only while a publisher drops what it is publishing.
func (q *Queue[T]) inLogLocked() int {
	if q.direct || q.closed {
		return 0
	}
	return int(max(q.log.Published()-q.cursor.Pos(), 0))
}

// room is how many more messages a publisher may add. The topic's mu is held,
// so that it can only grow meanwhile. It is negative if too much has been appended.
func (q *Queue[T]) room() int64 {
	if q.direct {
		return q.allow.Load()
	}
	return q.allow.Load() - q.log.Head()
}
