package topic

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gofanout/fanout/internal/dedup"
	"github.com/gofanout/fanout/internal/enginequeue"
	"github.com/gofanout/fanout/internal/filter"
	"github.com/gofanout/fanout/internal/intercept"
	"github.com/gofanout/fanout/internal/log"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/onengine"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/routing"
	"github.com/gofanout/fanout/internal/settings"
	"github.com/gofanout/fanout/internal/waitline"
)

// A Topic is where messages of type T are published: what package fanout calls so, without
// its options.
type Topic[T any] struct {
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

	remote   *enginequeue.Topic[T] // nil in memory
	ordering bool
	before   []intercept.Interceptor   // around publishes
	plain    bool                      // made, and nothing stands around publishes
	log      *log.Log[message.Item[T]] // appended to under Mu

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
	queues  map[string]*queue.Queue[T]
	opening map[string]*queue.Queue[T] // those whose filters are asked about what they replay
	limits  *settings.Limits           // of the queue opened last
	open    routing.List[T]            // without a filter
	routes  routing.Routes[T]          // to the queues with filters; what is shown is read without Mu
	directs int                        // how many of open are direct
	short   map[int]int                // how many of the others want which segments, if that is less than most
	orphans map[string]*queue.Queue[T] // dead-letter queues that outlived their queue, by their names
	closedQ []*queue.Queue[T]          // the queues that Close or Shutdown closed, in the order of their names

	endsWith []map[any]bool // the topics of each Shutdown that ends this one

	lines waitline.Lines // of those who wait for room

	shutdown *queue.ShutdownError // what ending the topic left; set with state closed

	ids atomic.Uint64 // IDs made before publication, for interceptors

	// At the end, as a publish of one plain message needs none of them.
	spare    log.Spare[message.Item[T]] // of the logs of queues
	offers   sync.Pool                  // not in use: *offer[T]
	offereds sync.Pool                  // not in use: *offered[T]
}

type topicState uint8

const (
	topicOpen    topicState = iota
	topicClosing            // Shutdown was called: new messages come from handlers only
	topicClosed
)

// New returns a topic.
func New[T any](name string, set settings.Topic) (*Topic[T], error) {
	on, err := onengine.New(name, set, reflect.TypeFor[T]())
	if err != nil {
		return nil, err
	}
	c, err := queue.NewCore(name, set)
	if err != nil {
		return nil, fmt.Errorf("fanout: topic %q: %w", name, err)
	}
	t := &Topic[T]{
		Home:     queue.Home[T]{Core: c},
		ordering: set.Ordering,
		before:   set.Publishing,
		plain:    len(set.Publishing) == 0,
		log:      log.New[message.Item[T]](1),
		retained: retained[T]{size: set.Retention},
		limit:    math.MaxInt64,
		segment:  log.SegmentOf[message.Item[T]](),
		queues:   map[string]*queue.Queue[T]{},
	}
	t.Owner = t
	if on != nil {
		t.remote = &enginequeue.Topic[T]{Topic: on, Home: &t.Home, Host: t}
		t.limit = -1 // so that publishes come to look, and find the engine
	}
	if set.DedupMax > 0 {
		t.dedup = &deduplicator{IDs: dedup.New(set.DedupWindow, set.DedupMax)}
	}
	return t, nil
}

// Name is the topic's name.
func (t *Topic[T]) Name() string { return t.TopicName }

// Open makes a queue that gets every message published from now on that its filters
// accept. Its dead letters go to dead, if that is not nil.
func (t *Topic[T]) Open(ctx context.Context, name string, set settings.Queue, filters []filter.Filter[T], dead *queue.Queue[T]) (*queue.Queue[T], error) {
	if ctx == nil {
		return nil, fmt.Errorf("%w: %w", message.ErrInvalidOption, message.ErrNilContext)
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("fanout: open queue %q of topic %q: %w", name, t.TopicName, message.ContextError(ctx))
	}
	if name == "" || strings.HasSuffix(name, queue.DeadSuffix) {
		return nil, message.Invalid("OpenQueue", fmt.Sprintf("%q", name), "a name that is not empty and does not end in "+queue.DeadSuffix)
	}
	if t.remote != nil {
		q, err := t.remote.OpenQueue(ctx, name, set, filters, dead != nil)
		if err != nil {
			return nil, fmt.Errorf("fanout: open queue %q of topic %q: %w", name, t.TopicName, err)
		}
		return q, nil
	}
	q := queue.NewQueue(t.Core, &t.Home, name, &set.Limits)
	q.Filters = filter.New(filters)
	switch {
	case set.Delay > 0:
		q.Direct = true
	case q.Filters != nil:
		q.ReadOwnLog(&t.spare)
	default:
		q.Log, q.Idle = t.log, &t.Idle
	}
	if dead != nil && set.Asked.LettersOwn != "" {
		return nil, fmt.Errorf("%w: %s beside WithDeadLetterQueue: give it to NewDeadLetterQueue", message.ErrInvalidOption, set.Asked.LettersOwn)
	}
	q.Dead = dead
	if set.Replay > 0 && t.retained.size == 0 {
		return nil, fmt.Errorf("%w: WithReplay(%v): topic %q retains nothing, make it WithRetention", message.ErrUnsupported, message.Limit(set.Replay), t.TopicName)
	}

	t.Mu.Lock()
	if err := t.mayOpenLocked(name); err != nil {
		t.Mu.Unlock()
		return nil, err
	}
	if t.limits == nil || *t.limits != *q.Set {
		own := *q.Set // not the filters with it
		t.limits = &own
	}
	q.Set = t.limits
	if q.Filters != nil && set.Replay > 0 {
		r := t.beginReplayLocked(q)
		t.Mu.Unlock()
		if err := t.replay(ctx, r); err != nil {
			return nil, fmt.Errorf("fanout: open queue %q of topic %q: %w", name, t.TopicName, err)
		}
		return q, nil
	}
	defer t.Mu.Unlock()
	q.Mu.Lock() // what is replayed may be due at once, and the timer begin
	defer q.Mu.Unlock()
	t.Live.Add(1)
	q.AdoptLocked()
	t.queues[name] = q
	if set.Replay > 0 {
		q.ReplayLocked(t.retained.all())
	}
	if q.Filters != nil {
		t.routes.Add(q)
		return q, nil
	}
	t.open.Add(q)
	if q.Direct {
		t.directs++
		t.limit = -1
		return q, nil
	}
	if n := set.Capacity / 4; n < log.SegmentOf[message.Item[T]]() {
		if t.short == nil {
			t.short = make(map[int]int)
		}
		t.short[n]++
		t.segment = min(t.segment, n)
	}
	t.log.Resize(t.segment)
	q.Cursor = t.log.Cursor()
	began := q.Cursor.Pos()
	q.Offered -= uint64(began)
	q.Allow.Add(began)
	t.limit = min(t.limit, q.Allow.Load())
	return q, nil
}

// mayOpenLocked returns the error that keeps a queue of that name from being opened.
func (t *Topic[T]) mayOpenLocked(name string) error {
	switch {
	case t.state != topicOpen:
		return fmt.Errorf("fanout: open queue %q of topic %q: %w", name, t.TopicName, message.ErrClosed)
	case t.queues[name] != nil || t.opening[name] != nil:
		return nameExists(name)
	}
	return nil
}

// nameExists is the error for a name that an open queue has.
func nameExists(name string) error {
	return fmt.Errorf("%w: OpenQueue(%q): want a name that no open queue of the topic has", message.ErrExists, name)
}

// removeOpenLocked takes a queue without a filter out of those that are open. The limit
// may stay as it is, if it is not that of direct queues: it is below what any of the
// others allows, and chosen anew when the log has grown to it.
func (t *Topic[T]) removeOpenLocked(q *queue.Queue[T]) {
	t.open.Remove(q)
	if !t.log.Read() {
		t.log.Forget()
	}
	if q.Direct {
		if t.directs--; t.directs == 0 {
			t.limit = 0
		}
		return
	}
	n := q.Set.Capacity / 4
	if n >= log.SegmentOf[message.Item[T]]() {
		return
	}
	if t.short[n]--; t.short[n] > 0 {
		return
	}
	delete(t.short, n)
	t.segment = log.SegmentOf[message.Item[T]]()
	for n := range t.short {
		t.segment = min(t.segment, n)
	}
	t.log.Resize(t.segment)
}

// relimitLocked keeps the invariant about limit, after anything but settling
// has changed what a queue holds.
func (t *Topic[T]) relimitLocked() {
	if t.remote != nil {
		return
	}
	t.limit = math.MaxInt64
	if !t.log.Read() {
		t.log.Forget()
	}
	if t.directs > 0 {
		t.limit = -1
		return
	}
	for q := range t.open.All() {
		t.limit = min(t.limit, q.Allow.Load())
	}
}

// Queue returns the open queue of that name, or nil if there is none. When the topic is
// closed it returns the queue that was open then.
func (t *Topic[T]) Queue(name string) *queue.Queue[T] {
	t.Mu.Lock()
	defer t.Mu.Unlock()
	if k, ok := slices.BinarySearchFunc(t.closedQ, name, func(q *queue.Queue[T], name string) int { return cmp.Compare(q.QueueName, name) }); ok {
		return t.closedQ[k]
	}
	return t.queues[name]
}

// Queues returns the topic's open queues in the order of their names. When the topic is
// closed it returns those that were open then.
func (t *Topic[T]) Queues() []*queue.Queue[T] {
	t.Mu.Lock()
	defer t.Mu.Unlock()
	return t.queuesLocked()
}

func (t *Topic[T]) queuesLocked() []*queue.Queue[T] {
	qs := slices.Clone(t.closedQ)
	if t.state != topicClosed {
		qs = slices.Collect(maps.Values(t.queues))
	}
	slices.SortFunc(qs, func(a, b *queue.Queue[T]) int {
		if a.QueueName < b.QueueName {
			return -1
		}
		return 1
	})
	return qs
}

// TopicStats is a snapshot of a topic's counters. Package fanout explains them.
type TopicStats struct {
	Topic                               string
	Published                           uint64
	Unrouted, Waiting, Queues, Retained int
	Duplicates, Remembered, Forgotten   int
}

// Stats returns a snapshot of the topic's counters. Those of its queues are
// taken one by one, by [Queue.Stats].
func (t *Topic[T]) Stats() TopicStats {
	t.Mu.Lock()
	defer t.Mu.Unlock()
	s := TopicStats{
		Topic: t.TopicName, Published: t.seq, Unrouted: int(t.unrouted), Waiting: t.lines.Waiting(), Queues: len(t.queues), Retained: len(t.retained.ring),
	}
	if d := t.dedup; d != nil {
		d.Expire(t.Now())
		s.Duplicates, s.Remembered, s.Forgotten = int(d.duplicates), d.Len(), int(d.Forgotten())
	}
	if t.remote != nil {
		s.Published, s.Unrouted = t.remote.Published.Load(), queue.Unknown
		if t.dedup != nil {
			s.Duplicates, s.Remembered, s.Forgotten = queue.Unknown, queue.Unknown, queue.Unknown
		}
	}
	return s
}

// timeOf gives the messages published now their time, which never decreases but
// when the clock is another: that of a bubble of testing/synctest, or of another.
func (t *Topic[T]) timeOf(now int64) int64 {
	if t.last-now > clockSlack {
		t.last = now
	}
	t.last = max(t.last, now)
	return t.last
}

// clockSlack is more than passes between a reading of the clock and its use.
const clockSlack = int64(time.Minute)
