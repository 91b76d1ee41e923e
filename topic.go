package fanout

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/gofanout/fanout/internal/dedup"
	"github.com/gofanout/fanout/internal/log"
	"github.com/gofanout/fanout/internal/notice"
)

// A Topic is where messages of type T are published. Each message goes to every queue of the
// topic whose filter accepts it. A topic without queues accepts messages and forgets them.
//
// All methods may be called concurrently, from handlers and hooks too. [NewTopic] makes a
// topic; [Topic.Shutdown] or [Topic.Close] ends it.
type Topic[T any] struct {
	// A topic is a log, a queue is a window over it: one append puts a message
	// into every queue, all at once and in one order. Whether it may be appended
	// is decided under mu; see offer.go. The lock order is topic, queue,
	// dead-letter queue; the mutexes of sleepers, reporters and handler contexts
	// are leaves. Nothing waits under any of them.
	//
	// Invariants:
	//   - limit <= q.allow for every queue q that reads the log, so that an
	//     append below limit finds room in all of them; it is -1 if some queue
	//     must be looked at for every message;
	//   - messages enter a queue in the order of their seq, only under mu;
	//   - no waiter is left that could be admitted.

	*core

	remote   *remoteTopic // nil in memory
	ordering bool
	before   []Interceptor     // around publishes
	plain    bool              // made, and nothing stands around publishes
	log      *log.Log[item[T]] // appended to under mu
	sleep    sleepers[T]
	filtered atomic.Pointer[[]atomic.Pointer[Queue[T]]] // places of filters; nil if none. Replaced under mu

	mu       sync.Mutex     // guards the fields below; see unlock
	pending  notice.Pending // what its queues left; empty while mu is not locked
	roomMade []*Queue[T]    // in which room was made for those who wait; none while mu is not locked

	state    topicState
	dedup    *deduplicator // nil without WithDeduplication
	retained retained[T]

	seq uint64 // messages published
	// unrouted counts those that no queue took.
	unrouted uint64
	expiring atomic.Uint64 // the latest that had a time to live of its own; read without mu
	last     int64         // when the latest was; publication times never decrease
	limit    int64         // head may grow to this without looking at any queue
	// segment is the length of the log's segments. A segment stays as long as
	// any queue reads in it, and with it what was consumed before: a quarter of
	// the smallest capacity keeps that in proportion.
	segment int
	queues  map[string]*Queue[T]
	opening map[string]*Queue[T] // those whose filters are asked about what they replay
	limits  *queueLimits         // of the queue opened last
	open    queueList[T]         // without a filter
	directs int                  // how many of open are direct
	short   map[int]int          // how many of the others want which segments, if that is less than most
	filters queueList[T]         // queues with a filter
	orphans map[string]*Queue[T] // dead-letter queues that outlived their queue, by their names
	closedQ []*Queue[T]          // the queues that Close or Shutdown closed, in the order of their names

	endsWith []map[*core]bool // the topics of each Shutdown that ends this one

	waitLines[T]

	shutdown *ShutdownError // what ending the topic left; set with state closed

	ids atomic.Uint64 // IDs made before publication, for interceptors
}

type topicState uint8

const (
	topicOpen    topicState = iota
	topicClosing            // Shutdown was called: new messages come from handlers only
	topicClosed
)

// NewTopic returns a topic. It does no I/O and starts no goroutine. The name appears in
// errors, hooks and logs; it need not be unique. It returns [ErrInvalidOption] for an empty
// name or a bad option. It returns [ErrUnsupported] for an option that the engine does not
// support, and for a T that the engine's codec can't decode, see [JSON].
func NewTopic[T any](name string, options ...TopicOption) (*Topic[T], error) {
	if name == "" {
		return nil, invalid("NewTopic", `""`, "a name that is not empty")
	}
	var set topicSettings
	err := applyAll(options, func(o TopicOption) error { return o.applyTopic(&set) })
	if err != nil {
		return nil, err
	}
	remote, err := newRemoteTopic(name, set, reflect.TypeFor[T]())
	if err != nil {
		return nil, err
	}
	c, err := newCore(name, set)
	if err != nil {
		return nil, fmt.Errorf("fanout: topic %q: %w", name, err)
	}
	t := &Topic[T]{
		remote:   remote,
		core:     c,
		ordering: set.ordering,
		before:   set.publishing,
		plain:    set.publishing == nil,
		log:      log.New[item[T]](1),
		retained: retained[T]{size: set.retention},
		limit:    math.MaxInt64,
		segment:  segmentOf[T](),
		queues:   map[string]*Queue[T]{},
	}
	if remote != nil {
		t.limit = -1 // so that publishes come to look, and find the engine
	}
	if set.dedupMax > 0 {
		t.dedup = &deduplicator{IDs: dedup.New(set.dedupWindow, set.dedupMax)}
	}
	return t, nil
}

// Name is the topic's name.
func (t *Topic[T]) Name() string { return t.name }

// OpenQueue makes a queue that gets every message published from now on that its filter
// accepts. A Publish that is under way may or may not reach it. ctx bounds the set-up only.
//
// A queue opened [WithReplay] in memory has its filters called for each message that the
// topic retained at that time, once and without a lock. What is published meanwhile comes
// after what is replayed. If ctx ends between two such calls, OpenQueue returns its error
// and nothing of the queue is left.
//
// OpenQueue returns [ErrClosed]; [ErrExists] if a queue of that name is open;
// [ErrInvalidOption] for a bad option, for an empty name or one that ends in "/dead", and
// for a filter for another T; [ErrUnsupported] for what the topic or its engine does not
// support; and ctx's error if that has ended.
func (t *Topic[T]) OpenQueue(ctx context.Context, name string, options ...QueueOption) (*Queue[T], error) {
	set := defaultQueueSettings()
	if err := applyAll(options, func(o QueueOption) error { return o.applyQueue(&set) }); err != nil {
		return nil, err
	}
	return t.openQueue(ctx, name, set)
}

// Subscribe opens a queue and runs h over it by a pool of workers: it is OpenQueue and
// Queue.Subscribe in one, with the errors of both. ctx bounds the set-up only: the workers
// go on when it ends, and handlers have contexts of their own. [Subscriber.Shutdown] stops
// the workers. The queue stays open after that, and fills, until it is closed.
func (t *Topic[T]) Subscribe(ctx context.Context, name string, h Handler[T], options ...SubscribeOption) (*Subscriber[T], error) {
	return t.subscribe(ctx, name, h == nil, h, single(h), options)
}

// SubscribeBatch is [Topic.Subscribe] for a handler that takes several messages
// at a time.
func (t *Topic[T]) SubscribeBatch(ctx context.Context, name string, h BatchHandler[T], options ...SubscribeOption) (*Subscriber[T], error) {
	return t.subscribe(ctx, name, h == nil, nil, h, options)
}

func (t *Topic[T]) subscribe(ctx context.Context, name string, none bool, one Handler[T], h BatchHandler[T], options []SubscribeOption) (*Subscriber[T], error) {
	set, sub := defaultQueueSettings(), defaultSubscriberSettings()
	if err := applyAll(options, func(o SubscribeOption) error { return o.applySubscribe(&set, &sub) }); err != nil {
		return nil, err
	}
	if err := checkSubscribe(ctx, none, one == nil, &sub); err != nil {
		return nil, err
	}
	q, err := t.openQueue(ctx, name, set)
	if err != nil {
		return nil, err
	}
	return q.start(one, h, sub)
}

func (t *Topic[T]) openQueue(ctx context.Context, name string, set queueSettings) (*Queue[T], error) {
	if err := t.made(); err != nil {
		return nil, err
	}
	if ctx == nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalidOption, errNilContext)
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("fanout: open queue %q of topic %q: %w", name, t.name, contextError(ctx))
	}
	if name == "" || strings.HasSuffix(name, deadSuffix) {
		return nil, invalid("OpenQueue", fmt.Sprintf("%q", name), "a name that is not empty and does not end in "+deadSuffix)
	}
	filters, err := filtersOf[T](set.filters)
	if err != nil {
		return nil, err
	}
	if t.remote != nil {
		q, err := t.openRemote(ctx, name, set, filters)
		if err != nil {
			return nil, fmt.Errorf("fanout: open queue %q of topic %q: %w", name, t.name, err)
		}
		return q, nil
	}
	q := newQueue(t.core, t, name, &set.queueLimits)
	q.filters = filters
	q.direct = filters != nil || set.delay > 0
	q.log = t.log
	if set.deadLetters != nil {
		ds, err := typed[*Queue[T]]("WithDeadLetterQueue", []any{set.deadLetters}, reflect.TypeFor[T]())
		if err != nil {
			return nil, err
		}
		q.dead = ds[0]
		if set.asked.lettersOwn != "" {
			return nil, fmt.Errorf("%w: %s beside WithDeadLetterQueue: give it to NewDeadLetterQueue", ErrInvalidOption, set.asked.lettersOwn)
		}
	}
	if set.replay > 0 && t.retained.size == 0 {
		return nil, fmt.Errorf("%w: WithReplay(%v): topic %q retains nothing, make it WithRetention", ErrUnsupported, limit(set.replay), t.name)
	}

	t.mu.Lock()
	if err := t.mayOpenLocked(name); err != nil {
		t.mu.Unlock()
		return nil, err
	}
	if t.limits == nil || *t.limits != *q.set {
		own := *q.set // not the filters with it
		t.limits = &own
	}
	q.set = t.limits
	if q.filters != nil && set.replay > 0 {
		r := t.beginReplayLocked(q)
		t.mu.Unlock()
		if err := t.replay(ctx, r); err != nil {
			return nil, fmt.Errorf("fanout: open queue %q of topic %q: %w", name, t.name, err)
		}
		return q, nil
	}
	defer t.mu.Unlock()
	q.mu.Lock() // what is replayed may be due at once, and the timer begin
	defer q.mu.Unlock()
	t.live.Add(1)
	q.adoptLocked()
	t.queues[name] = q
	if set.replay > 0 {
		q.replayLocked(t.retained.all())
	}
	if q.filters != nil {
		t.addFilteredLocked(q)
		return q, nil
	}
	t.open.add(q)
	if q.direct {
		t.directs++
		t.limit = -1
		return q, nil
	}
	if n := set.capacity / 4; n < segmentOf[T]() {
		if t.short == nil {
			t.short = make(map[int]int)
		}
		t.short[n]++
		t.segment = min(t.segment, n)
	}
	t.log.Resize(t.segment)
	q.cursor = t.log.Cursor()
	began := q.cursor.Pos()
	q.offered -= uint64(began)
	q.allow.Add(began)
	t.limit = min(t.limit, q.allow.Load())
	return q, nil
}

// mayOpenLocked returns the error that keeps a queue of that name from being opened.
func (t *Topic[T]) mayOpenLocked(name string) error {
	switch {
	case t.state != topicOpen:
		return fmt.Errorf("fanout: open queue %q of topic %q: %w", name, t.name, ErrClosed)
	case t.queues[name] != nil || t.opening[name] != nil:
		return nameExists(name)
	}
	return nil
}

// nameExists is the error for a name that an open queue has.
func nameExists(name string) error {
	return fmt.Errorf("%w: OpenQueue(%q): want a name that no open queue of the topic has", ErrExists, name)
}

// made returns an error if t was not made by NewTopic.
func (t *Topic[T]) made() error {
	if t.core == nil {
		return zeroValue(t, "NewTopic")
	}
	return nil
}

func newQueue[T any](c *core, t *Topic[T], name string, set *queueLimits) *Queue[T] {
	q := &Queue[T]{core: c, t: t, name: name, set: set, sleepAt: awake, local: c.calls == nil}
	q.report.Init(&c.to, name)
	q.allow.Store(int64(min(set.capacity, maxCapacity)))
	return q
}

// maxCapacity is what Unlimited means for a capacity, with room to calculate.
const maxCapacity = math.MaxInt / 4

// addFilteredLocked adds q to the queues with a filter.
func (t *Topic[T]) addFilteredLocked(q *Queue[T]) {
	t.filters.add(q)
	t.showFilteredLocked()
}

func (t *Topic[T]) removeFilteredLocked(q *Queue[T]) {
	t.filters.remove(q)
	t.showFilteredLocked()
}

// showFilteredLocked shows publishers the queues with a filter.
func (t *Topic[T]) showFilteredLocked() {
	if t.filters.n == 0 {
		t.filtered.Store(nil)
		return
	}
	places := t.filters.places
	t.filtered.Store(&places)
}

// maxSegment is the most messages that a segment of the log holds, and segmentBytes
// the most bytes, if that is more than one message.
const (
	maxSegment   = 256
	segmentBytes = 8 << 10
)

func segmentOf[T any]() int {
	return min(max(segmentBytes/int(unsafe.Sizeof(item[T]{})), 1), maxSegment)
}

// removeOpenLocked takes a queue without a filter out of those that are open. The limit
// may stay as it is, if it is not that of direct queues: it is below what any of the
// others allows, and chosen anew when the log has grown to it.
func (t *Topic[T]) removeOpenLocked(q *Queue[T]) {
	t.open.remove(q)
	if !t.log.Read() {
		t.log.Forget()
	}
	if q.direct {
		if t.directs--; t.directs == 0 {
			t.limit = 0
		}
		return
	}
	n := q.set.capacity / 4
	if n >= segmentOf[T]() {
		return
	}
	if t.short[n]--; t.short[n] > 0 {
		return
	}
	delete(t.short, n)
	t.segment = segmentOf[T]()
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
	for q := range t.open.all() {
		t.limit = min(t.limit, q.allow.Load())
	}
}

// Queue returns the open queue of that name, or nil if there is none. When the topic is
// closed it returns the queue that was open then.
func (t *Topic[T]) Queue(name string) *Queue[T] {
	t.mu.Lock()
	defer t.mu.Unlock()
	if k, ok := slices.BinarySearchFunc(t.closedQ, name, func(q *Queue[T], name string) int { return cmp.Compare(q.name, name) }); ok {
		return t.closedQ[k]
	}
	return t.queues[name]
}

// Queues returns the topic's open queues in the order of their names. When the topic is
// closed it returns those that were open then.
func (t *Topic[T]) Queues() []*Queue[T] {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.queuesLocked()
}

func (t *Topic[T]) queuesLocked() []*Queue[T] {
	qs := slices.Clone(t.closedQ)
	if t.state != topicClosed {
		qs = slices.Collect(maps.Values(t.queues))
	}
	slices.SortFunc(qs, func(a, b *Queue[T]) int {
		if a.name < b.name {
			return -1
		}
		return 1
	})
	return qs
}

// TopicStats is a snapshot of a topic's counters.
type TopicStats struct {
	Topic     string
	Published uint64 // messages published; on an engine those of this process that it confirmed
	// Unrouted counts those of them that no queue took, for want of a queue or of a
	// filter that accepts them. On an engine it is [Unknown].
	Unrouted int
	Waiting  int // publishes and redrives that wait for room
	Queues   int // open queues
	Retained int // messages kept for queues opened later

	// On an engine [Unknown], if there is deduplication.
	Duplicates int // messages not published, for their deduplication ID
	Remembered int // deduplication IDs remembered
	Forgotten  int // deduplication IDs forgotten before their time, for want of room
}

// Stats returns a snapshot of the topic's counters. Those of its queues are
// taken one by one, by [Queue.Stats].
func (t *Topic[T]) Stats() TopicStats {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := TopicStats{
		Topic: t.name, Published: t.seq, Unrouted: int(t.unrouted), Waiting: t.waiting, Queues: len(t.queues), Retained: len(t.retained.ring),
	}
	if d := t.dedup; d != nil {
		d.Expire(t.now())
		s.Duplicates, s.Remembered, s.Forgotten = int(d.duplicates), d.Len(), int(d.Forgotten())
	}
	if t.remote != nil {
		s.Published, s.Unrouted = t.remote.published.Load(), Unknown
		if t.dedup != nil {
			s.Duplicates, s.Remembered, s.Forgotten = Unknown, Unknown, Unknown
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

// zeroValue is the error for a zero Topic, Queue or Subscriber, given a pointer to it.
func zeroValue(of any, maker string) error {
	return fmt.Errorf("%w: a zero %s: want one made by %s", ErrInvalidOption, strings.TrimPrefix(fmt.Sprintf("%T", of), "*"), maker)
}

func isClosed(err error) bool { return errors.Is(err, ErrClosed) }
