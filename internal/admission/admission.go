package admission

import (
	"context"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/internal/core"
	"github.com/gofanout/fanout/internal/dedup"
	"github.com/gofanout/fanout/internal/intercept"
	"github.com/gofanout/fanout/internal/log"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/offer"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/routing"
	"github.com/gofanout/fanout/internal/settings"
	"github.com/gofanout/fanout/internal/waitline"
)

// An Admission is the way into the queues of a topic, which has it by value.
type Admission[T any] struct {
	// A topic is a log, a queue is a window over it: one append puts a message
	// into every queue, all at once and in one order. A queue with filters has a
	// log of its own, see package routing. Whether messages may be appended is decided
	// under Mu; see offer.go. The lock order is topic, queue, dead-letter queue;
	// the mutexes of policies, lists of idle queues, reporters and handler contexts are
	// leaves. Nothing waits under any of them.
	//
	// Invariants:
	//   - limit <= q.Allow for every queue q that reads this log, so that an
	//     append below limit finds room in all of them; it is -1 if some queue
	//     must be looked at for every message;
	//   - messages enter a queue in the order of their seq, only under Mu;
	//   - no waiter is left that could be admitted.

	queue.Home[T]

	// Immutable.
	engine Engine[T]               // nil in memory
	before []intercept.Interceptor // around publishes
	plain  bool                    // made, and nothing stands around publishes

	log *log.Log[message.Item[T]] // appended to under Mu

	// Guarded by Mu.
	state    topicState
	dedup    *deduplicator // nil without WithDeduplication
	retained retained[T]

	seq uint64 // messages published
	// unrouted counts those that no queue took.
	unrouted uint64
	last     int64 // when the latest was; publication times never decrease
	limit    int64 // head may grow to this without looking at any queue
	// segment is the length of the log's segments. A segment stays as long as
	// any queue reads in it, and with it what was consumed before: a quarter of
	// the smallest capacity keeps that in proportion.
	segment int
	open    routing.List[T]   // without a filter
	routes  routing.Routes[T] // to the queues with filters; what is shown is read without Mu
	directs int               // how many of open are direct
	short   map[int]int       // how many of the others want which segments, if that is less than most

	endsWith []map[any]bool // the topics of each Shutdown that ends this one

	lines waitline.Lines // of those who wait for room

	ids atomic.Uint64 // IDs made before publication, for interceptors

	// At the end, as a publish of one plain message needs none of them.
	spare    log.Spare[message.Item[T]] // of the logs of queues
	offers   offer.Maker[T]
	offereds sync.Pool // not in use: *offered[T]
	tellers  sync.Pool // not in use: *teller
}

// An Engine gets what is published, if the topic is on one.
type Engine[T any] interface {
	Publish(ctx context.Context, items []message.Item[T], try bool) error
}

// Init makes a zero Admission one that has no queues. Whoever has it sets Owner.
func (a *Admission[T]) Init(c *core.Core, set settings.Topic) {
	a.Core, a.Admission = c, a
	a.before, a.plain = set.Publishing, len(set.Publishing) == 0
	a.log, a.segment = log.New[message.Item[T]](1), log.SegmentOf[message.Item[T]]()
	a.retained.size = set.Retention
	a.offers.Topic, a.offers.Ordering, a.offers.Deduplication = c.TopicName, set.Ordering, set.DedupMax > 0
	a.limit = math.MaxInt64
	if set.DedupMax > 0 {
		a.dedup = &deduplicator{IDs: dedup.New(set.DedupWindow, set.DedupMax)}
	}
}

// PublishBy has an engine get what is published, and queues get nothing.
func (a *Admission[T]) PublishBy(e Engine[T]) {
	a.engine = e
	a.limit = -1 // so that publishes come to look, and find the engine
}

// Connect gives a queue that is not added yet the log that it will read, unless it is direct.
func (a *Admission[T]) Connect(q *queue.Queue[T]) {
	switch {
	case q.Store.Direct:
	case q.Filters != nil:
		q.ReadOwnLog(&a.spare)
	default:
		q.Store.Log, q.Idle = a.log, &a.Idle
	}
}

// AddLocked has a queue get what is published from now on. Nobody else has it yet, or the
// caller has its lock, too.
func (a *Admission[T]) AddLocked(q *queue.Queue[T]) {
	if q.Filters != nil {
		a.routes.Add(q)
		return
	}
	a.open.Add(q)
	if q.Store.Direct {
		a.directs++
		a.limit = -1
		return
	}
	if n := q.Store.Set.Capacity / 4; n < log.SegmentOf[message.Item[T]]() {
		if a.short == nil {
			a.short = make(map[int]int)
		}
		a.short[n]++
		a.segment = min(a.segment, n)
	}
	a.log.Resize(a.segment)
	q.Store.Cursor = a.log.Cursor()
	began := q.Store.Cursor.Pos()
	q.Store.Offered -= uint64(began)
	q.Store.Allow.Add(began)
	a.limit = min(a.limit, q.Store.Allow.Load())
}

// RemoveLocked has a queue that was added get nothing any more. It is closed. The limit
// may stay as it is, if it is not that of direct queues: it is below what any of the
// others allows, and chosen anew when the log has grown to it.
func (a *Admission[T]) RemoveLocked(q *queue.Queue[T]) {
	if q.Filters != nil {
		a.routes.Remove(q)
		return
	}
	a.open.Remove(q)
	if !a.log.Read() {
		a.log.Forget()
	}
	if q.Store.Direct {
		if a.directs--; a.directs == 0 {
			a.limit = 0
		}
		return
	}
	n := q.Store.Set.Capacity / 4
	if n >= log.SegmentOf[message.Item[T]]() {
		return
	}
	if a.short[n]--; a.short[n] > 0 {
		return
	}
	delete(a.short, n)
	a.segment = log.SegmentOf[message.Item[T]]()
	for n := range a.short {
		a.segment = min(a.segment, n)
	}
	a.log.Resize(a.segment)
}

// relimitLocked keeps the invariant about limit, after anything but settling
// has changed what a queue holds.
func (a *Admission[T]) relimitLocked() {
	a.limit = math.MaxInt64
	if a.directs > 0 {
		a.limit = -1
		return
	}
	for q := range a.open.All() {
		a.limit = min(a.limit, q.Store.Allow.Load())
	}
}

// Published counts the messages that the topic has accepted.
func (a *Admission[T]) Published() uint64 {
	a.Mu.Lock()
	defer a.Mu.Unlock()
	return a.seq
}

// Stats is a snapshot of a topic's counters. Package fanout explains them.
type Stats struct {
	Topic                               string
	Published                           uint64
	Unrouted, Waiting, Queues, Retained int
	Duplicates, Remembered, Forgotten   int
}

// StatsLocked returns the topic's counters in memory, but for its queues.
func (a *Admission[T]) StatsLocked() Stats {
	s := Stats{
		Topic: a.TopicName, Published: a.seq, Unrouted: int(a.unrouted), Waiting: a.lines.Waiting(), Retained: len(a.retained.ring),
	}
	switch d := a.dedup; {
	case d == nil:
	case a.engine != nil:
		s.Duplicates, s.Remembered, s.Forgotten = engine.Unknown, engine.Unknown, engine.Unknown
	default:
		d.Expire(a.Now())
		s.Duplicates, s.Remembered, s.Forgotten = int(d.duplicates), d.Len(), int(d.Forgotten())
	}
	return s
}

// timeOf gives the messages published now their time, which never decreases but
// when the clock is another: that of a bubble of testing/synctest, or of another.
func (a *Admission[T]) timeOf(now int64) int64 {
	if a.last-now > clockSlack {
		a.last = now
	}
	a.last = max(a.last, now)
	return a.last
}

// clockSlack is more than passes between a reading of the clock and its use.
const clockSlack = int64(time.Minute)
