package fanout

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gofanout/fanout/internal/log"
	"github.com/gofanout/fanout/internal/window"
)

// The life of a message in one queue. Each arrow is one function below; the
// states in brackets all count against the capacity.
//
//	                    ┌──────────────── due (wakeDue) ──────────────┐
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
	// backlogged and due are ready; what is due goes first.
	backlogged = uint8(iota + 1)
	due
	// delayed and retrying wait in the schedule: for the end of a delay or
	// snooze, and for that of a backoff.
	delayed
	retrying
	// inFlight and handling wait in the schedule for the visibility timeout:
	// received by a caller, and given to a handler.
	inFlight
	handling
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

// A Queue is one subscription's bounded queue: it gets its own copy of every
// message published to its topic that its filter accepts, and keeps it until it
// is acknowledged or dead. Consumers compete for its messages: those who call
// Receive and its siblings, and the workers of its subscribers.
//
// A dead-letter queue is a Queue too: it can be received from, subscribed to
// and looked into. It has no dead-letter queue of its own and retries for ever.
//
// All methods may be called concurrently. A queue is made by [Topic.OpenQueue].
type Queue[T any] struct {
	// A queue is a window over its topic's log: what stands in the log from
	// cursor on is its backlog, and everything else it holds is in win. A queue
	// that is direct (it has a filter or a delay, or is a dead-letter queue)
	// leaves the log alone: publishers add to its window.
	//
	// Invariants:
	//   - published - cursor + win.Len() <= capacity (the first term is 0 for a
	//     direct queue); allow is cursor + capacity - win.Len();
	//   - an entry is in the list or the schedule that its state says, and n
	//     counts the entries of each state;
	//   - if anything is ready and a consumer is idle, one has been woken or
	//     the queue is in the topic's list of sleepers;
	//   - the timer is armed, for the schedule's first instant or the end of a
	//     rate limit's pause or earlier, while there is either; else it is not,
	//     once the last worker has ended.

	// Immutable after OpenQueue.
	core    *core
	t       *Topic[T]
	log     *log.Log[item[T]]
	name    string
	set     queueSettings
	keep    int // attempts to keep of a history
	filters []func(*item[T]) bool
	direct  bool
	letters bool      // this is a dead-letter queue
	source  *Queue[T] // the only queue whose dead letters it gets, or nil
	report  reporter

	// allow is how far the log may grow before this queue is full; for a direct
	// queue it is the room left. Written under mu, read by publishers without.
	allow atomic.Int64
	// gated is set by a publisher that waits for room here, and starving by the
	// source that waits for room in this dead-letter queue. Who makes room
	// clears it and goes to tell them.
	gated, starving atomic.Bool

	// Guarded by the topic's mu.
	gone bool   // closed, or about to be
	mark uint64 // of the last pass over the waiters that claims this queue

	sleepAt int // place in the topic's list of sleepers, guarded by its mutex

	mu sync.Mutex // guards the fields below

	cursor   log.Cursor[item[T]]
	win      window.Window[held[T]]
	backlog  window.List // ready, in the order of publication
	due      window.List // ready, before the backlog, in the order they became so
	parked   window.List
	released window.List
	n        [states]int
	stale    window.Spans // deliveries that lost their message
	keys     map[string]*keyLine

	receivers []*receiver
	subs      []*Subscriber[T]
	nextSub   int
	running   int // worker goroutines of all subscribers

	timer   *time.Timer
	timerAt int64
	armed   bool
	limited int64 // when a rate limit lets the next delivery start; 0: nobody waits for that
	ticking int   // goroutines of the timer that have begun and not ended

	dead    *Queue[T]
	starved []*Queue[T] // with messages parked for want of room here

	paused   bool
	draining bool          // the topic shuts down
	drained  chan struct{} // closes when nothing is left that Shutdown waits for
	closed   bool
	home     bool         // closed, and nothing of it runs
	left     []Message[T] // what it held when it closed

	joined   int64  // the log's head when the queue was opened
	offered  uint64 // messages added other than through the log
	seq      uint64 // of events
	counters counters
}

// counters are the parts of Stats that only grow.
type counters struct {
	delivered, deadLettered, redriven, dropped, parked uint64
	ended                                              [len(causeNames)]uint64
}

// A receiver waits in Receive. ready holds one token once it has been woken.
type receiver struct{ ready chan struct{} }

// Stats is a snapshot of a queue. All its numbers belong to one instant:
// Published + Redriven = Acked + DeadLettered + Dropped + Left + Unsettled().
// In a dead-letter queue Published counts the letters that came, and Redriven
// those that went back.
type Stats struct {
	Topic, Queue string
	Capacity     int

	// What the queue holds.
	Ready    int // could be delivered now
	Delayed  int // delayed or snoozed, not due yet
	Retrying int // failed, waiting for the next attempt
	InFlight int // delivered, neither settled nor timed out
	Parked   int // dead, waiting for room in the dead-letter queue
	Released int // given back by a shutdown
	Blocked  int // waiting behind another message with their ordering key
	Paused   bool

	// Dead is what the dead-letter queue holds.
	Dead int

	// Workers is the number of running worker goroutines, Stuck the number of
	// handlers that run on past their visibility timeout.
	Workers, Stuck int

	// Counts since the queue was opened.
	Published    uint64 // messages published to the queue, those it dropped included
	Delivered    uint64 // deliveries made
	DeadLettered uint64
	Redriven     uint64
	Dropped      uint64 // by a Drop policy
	Left         uint64 // held when the queue was closed, see Leftovers
	TimesParked  uint64 // messages that had to be parked

	// Attempts that ended, by cause.
	Acked, Failed, Panicked, Exited, TimedOut, Nacked  uint64
	PermanentlyFailed, Expired, Snoozed, ReleasedCount uint64
}

// Unsettled is the number of messages that count against the capacity.
func (s Stats) Unsettled() int {
	return s.Ready + s.Delayed + s.Retrying + s.InFlight + s.Parked + s.Released + s.Blocked
}

// Name is the queue's name.
func (q *Queue[T]) Name() string { return q.name }

// Stats returns a snapshot of the queue's counters.
func (q *Queue[T]) Stats() Stats {
	q.mu.Lock()
	inLog := q.inLogLocked()
	s := Stats{
		Topic: q.core.name, Queue: q.name, Capacity: q.set.capacity,
		Ready: q.n[due] + q.n[backlogged] + inLog, Delayed: q.n[delayed], Retrying: q.n[retrying],
		InFlight: q.n[inFlight] + q.n[handling], Parked: q.n[parked], Released: q.n[released],
		Blocked: q.n[blocked], Paused: q.paused,
		Workers:      q.running,
		Published:    q.publishedLocked(inLog),
		Delivered:    q.counters.delivered,
		DeadLettered: q.counters.deadLettered, Redriven: q.counters.redriven,
		Dropped: q.counters.dropped, Left: uint64(len(q.left)), TimesParked: q.counters.parked,
	}
	e := q.counters.ended
	s.Acked, s.Failed, s.Panicked, s.Exited, s.TimedOut = e[Acked], e[Failed], e[Panicked], e[Exited], e[TimedOut]
	s.Nacked, s.PermanentlyFailed, s.Expired, s.Snoozed = e[Nacked], e[PermanentlyFailed], e[Expired], e[Snoozed]
	s.ReleasedCount = e[Released]
	for _, sub := range q.subs {
		s.Stuck += sub.stuck
	}
	d := q.dead
	if d != nil {
		d.mu.Lock()
		s.Dead = d.win.Len()
		d.mu.Unlock()
	}
	q.mu.Unlock()
	return s
}

// Depth returns how many messages the queue holds unsettled. Unlike the local
// counters of Stats it asks the engine, and may do I/O there; in memory the two
// agree and there is no error.
func (q *Queue[T]) Depth(ctx context.Context) (int, error) {
	return q.Stats().Unsettled(), nil
}

// publishedLocked counts what was published to the queue, given what of it is
// in the log still: publishers don't hold mu, so that is read once.
func (q *Queue[T]) publishedLocked(inLog int) uint64 {
	if q.direct || q.closed {
		return q.offered
	}
	return q.offered + uint64(q.cursor.Pos()-q.joined) + uint64(inLog)
}

// readyLocked counts what could be claimed now.
func (q *Queue[T]) readyLocked() int {
	return q.n[due] + q.n[backlogged] + q.inLogLocked()
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
// so that it can only grow meanwhile.
func (q *Queue[T]) room(head int64) int64 {
	if q.direct {
		return q.allow.Load()
	}
	return q.allow.Load() - head
}

// --- consuming ---

// Receive takes the next message, and waits for one if there is none. It
// returns [ErrClosed] once the queue is closed (a topic that shuts down closes
// its queues when they are drained, so they can be received empty), the
// context's error when ctx ends first, and [ErrInvalidOption]. Waiting
// receivers are woken in the order of their arrival.
func (q *Queue[T]) Receive(ctx context.Context, options ...ReceiveOption) (Delivery[T], error) {
	vis, err := q.receiveSettings(ctx, options)
	if err != nil {
		return Delivery[T]{}, err
	}
	return q.receive(ctx, vis)
}

func (q *Queue[T]) receive(ctx context.Context, vis time.Duration) (Delivery[T], error) {
	var r *receiver
	for {
		q.mu.Lock()
		if r != nil {
			if k := slices.Index(q.receivers, r); k >= 0 {
				q.receivers = slices.Delete(q.receivers, k, k+1)
			}
		}
		switch {
		case q.closed:
			q.mu.Unlock()
			return Delivery[T]{}, q.receiveError(errQueueClosed)
		case ctx.Err() != nil:
			// Whoever woke this receiver meant it to take a message: wake another.
			q.handOnLocked()
			q.mu.Unlock()
			return Delivery[T]{}, q.receiveError(contextError(ctx))
		}
		d, fx, ok := q.takeLocked(vis)
		if !ok {
			if r == nil {
				r = &receiver{ready: make(chan struct{}, 1)}
				q.receivers = append(q.receivers, r)
			} else { // woken in vain: somebody was quicker, and it keeps its place
				q.receivers = slices.Insert(q.receivers, 0, r)
			}
			q.handOnLocked()
		}
		q.mu.Unlock()
		fx.and(q.madeRoom()).perform()
		if ok {
			return d, nil
		}
		select {
		case <-r.ready:
		case <-ctx.Done():
		}
	}
}

// errQueueClosed is ErrClosed from a receive, to be told from one that a
// context was cancelled with.
var errQueueClosed = fmt.Errorf("%w", ErrClosed)

func (q *Queue[T]) receiveError(err error) error {
	return fmt.Errorf("fanout: receive from %q: %w", q.name, err)
}

// TryReceive takes the next message if there is one; it doesn't wait. ok says
// whether there was. It returns the errors of Receive.
func (q *Queue[T]) TryReceive(ctx context.Context, options ...ReceiveOption) (d Delivery[T], ok bool, err error) {
	vis, err := q.receiveSettings(ctx, options)
	if err != nil {
		return d, false, err
	}
	q.mu.Lock()
	switch {
	case q.closed:
		q.mu.Unlock()
		return d, false, q.receiveError(errQueueClosed)
	case ctx.Err() != nil:
		q.mu.Unlock()
		return d, false, q.receiveError(contextError(ctx))
	}
	d, fx, ok := q.takeLocked(vis)
	q.mu.Unlock()
	fx.and(q.madeRoom()).perform()
	return d, ok, nil
}

// ReceiveBatch takes up to most messages. It waits until there is one, then
// returns what is there. It returns the errors of Receive.
func (q *Queue[T]) ReceiveBatch(ctx context.Context, most int, options ...ReceiveOption) ([]Delivery[T], error) {
	if most < 1 {
		return nil, invalid("ReceiveBatch", most, "at least 1")
	}
	vis, err := q.receiveSettings(ctx, options)
	if err != nil {
		return nil, err
	}
	d, err := q.receive(ctx, vis)
	if err != nil {
		return nil, err
	}
	q.mu.Lock()
	batch := make([]Delivery[T], 1, 1+min(most-1, q.readyLocked()))
	batch[0] = d
	var fx *effects
	for len(batch) < most {
		d, more, ok := q.takeLocked(vis)
		fx = fx.and(more)
		if !ok {
			break
		}
		batch = append(batch, d)
	}
	q.mu.Unlock()
	fx.and(q.madeRoom()).perform()
	return batch, nil
}

// Deliveries returns an iterator that receives one message after the other:
//
//	for d, err := range q.Deliveries(ctx) {
//
// It ends without an error when the queue is closed, as ranging over a closed
// channel does. Any other error is yielded once, with the zero Delivery, and
// ends it: ctx's, or [ErrInvalidOption]. Each delivery is the loop's to settle.
func (q *Queue[T]) Deliveries(ctx context.Context, options ...ReceiveOption) iter.Seq2[Delivery[T], error] {
	return func(yield func(Delivery[T], error) bool) {
		vis, err := q.receiveSettings(ctx, options)
		for err == nil {
			var d Delivery[T]
			if d, err = q.receive(ctx, vis); err == nil && !yield(d, nil) {
				return
			}
		}
		if !errors.Is(err, errQueueClosed) {
			yield(Delivery[T]{}, err)
		}
	}
}

func (q *Queue[T]) receiveSettings(ctx context.Context, options []ReceiveOption) (time.Duration, error) {
	if ctx == nil {
		return 0, fmt.Errorf("%w: %w", ErrInvalidOption, errNilContext)
	}
	if len(options) == 0 {
		return q.set.visibility, nil
	}
	s := receiveSettings{visibility: q.set.visibility}
	err := applyAll(options, func(o ReceiveOption) error { return o.applyReceive(&s) })
	return s.visibility, err
}

// takeLocked claims a message for a caller and sees to it that other consumers
// are woken for what remains.
func (q *Queue[T]) takeLocked(vis time.Duration) (d Delivery[T], fx *effects, ok bool) {
	d, fx, ok = q.claimLocked(vis, inFlight)
	if ok {
		q.handOnLocked()
	}
	return d, fx, ok
}

// claimLocked puts the next message in flight, in the given state. It may have
// buried some that came too late, and freed their room, even if it returns none.
func (q *Queue[T]) claimLocked(vis time.Duration, state uint8) (d Delivery[T], fx *effects, ok bool) {
	if !q.servesLocked() || q.readyLocked() == 0 {
		return d, nil, false
	}
	now := q.core.now()
	i, fx, ok := q.nextLocked(now)
	if !ok {
		q.checkDrainedLocked()
		return d, fx, false
	}
	m, h := q.win.Meta(i), q.win.At(i)
	m.State = state
	q.n[state]++
	q.counters.delivered++
	h.start = now
	q.win.Schedule(i, after(now, vis))
	q.armLocked(now)
	d = Delivery[T]{
		Body: h.body, q: q, ext: h.ext, hist: h.hist, seq: h.seq, at: h.at,
		stamp: m.Stamp, entry: i, attempt: int32(min(m.Spent+1, 1<<31-1)),
	}
	return d, fx.and(q.deliveredLocked(&d)), true
}

// nextLocked takes the next message that may be delivered out of its list or
// the log: what has become due goes before the backlog.
func (q *Queue[T]) nextLocked(now int64) (i int32, fx *effects, ok bool) {
	for {
		i, ok = q.win.Pop(&q.due)
		if !ok {
			i, ok = q.win.Pop(&q.backlog)
		}
		switch {
		case ok:
			q.n[q.win.Meta(i).State]--
			q.win.Restamp(i)
		case q.inLogLocked() > 0:
			i = q.win.Add(held[T]{item: *q.cursor.Next()})
		default:
			return 0, fx, false
		}
		if q.expired(&q.win.At(i).item, now) {
			fx = q.expireLocked(i, now, fx)
		} else if q.headOfKeyLocked(i) {
			return i, fx, true
		}
	}
}

// --- waking ---

// handOnLocked keeps the invariant about idle consumers: it wakes one if there
// is something for it, and otherwise sees that the next publish will. Whoever
// is woken calls it again after taking a message, so that as many consumers
// come as there are messages, one after the other.
func (q *Queue[T]) handOnLocked() {
	sub, limited, idle := q.idleLocked()
	for idle {
		switch {
		case !q.servesLocked():
			return
		case q.readyLocked() > 0:
			if len(q.receivers) > 0 {
				r := q.receivers[0]
				q.receivers = slices.Delete(q.receivers, 0, 1)
				r.ready <- struct{}{} // has room: a receiver is in the list without a token
			} else if sub != nil {
				sub.startLocked()
			} else {
				q.limited = limited // until when the timer will come
				q.armLocked(q.core.now())
			}
			return
		case q.direct || !q.t.sleep.add(q):
			return
		case q.log.Published() <= q.cursor.Pos():
			return // a later publish finds the queue in the list
		}
	}
}

// idleLocked reports whether any consumer could take a message, and which
// subscriber's turn it would be; if only their rate limits keep subscribers
// from it, until when.
func (q *Queue[T]) idleLocked() (sub *Subscriber[T], limited int64, ok bool) {
	for k := range q.subs {
		s := q.subs[(q.nextSub+k)%len(q.subs)]
		if s.stopping || s.running >= s.set.concurrency {
			continue
		}
		at := s.limitedLocked()
		if at == 0 {
			q.nextSub = (q.nextSub + k + 1) % len(q.subs)
			return s, 0, true
		}
		if limited == 0 || at < limited {
			limited = at
		}
	}
	return nil, limited, limited > 0 || len(q.receivers) > 0
}

// servesLocked reports whether the queue gives out messages: not while it is
// paused or closed, and a dead-letter queue not while its topic shuts down.
func (q *Queue[T]) servesLocked() bool {
	return !q.closed && !q.paused && (!q.letters || !q.draining)
}

// wake is called by whoever took the queue out of the topic's list of sleepers.
func (q *Queue[T]) wake() {
	q.mu.Lock()
	q.handOnLocked()
	q.mu.Unlock()
}

// --- settling ---

// ownedLocked returns nil if stamp still owns entry i in flight, and otherwise
// the error that says why not.
func (q *Queue[T]) ownedLocked(i int32, stamp uint64) error {
	var err error
	switch {
	case q.closed:
		err = ErrClosed
	case q.win.Owns(i, stamp) && (q.win.Meta(i).State == inFlight || q.win.Meta(i).State == handling):
		return nil
	case stamp == 0 || q.stale.Has(stamp):
		err = ErrStale
	default:
		err = ErrSettled
	}
	return fmt.Errorf("%w: queue %q", err, q.name)
}

// settle ends the delivery with the given stamp as v says.
func (q *Queue[T]) settle(i int32, stamp uint64, attempt int32, v verdict) error {
	if v.wait == fromBackoff || q.letters && v.cause == PermanentlyFailed {
		v.wait = 0
		if q.letters || !v.cause.spends() || int64(attempt) < int64(q.set.maxAttempts) {
			v.wait = q.set.backoff.after(int(attempt)) // the user's code: before the lock
		}
	}
	var now int64
	if v.cause != Acked || q.hooked(settled) {
		now = q.core.now()
	}
	q.mu.Lock()
	if err := q.ownedLocked(i, stamp); err != nil {
		q.mu.Unlock()
		return err
	}
	q.win.Unschedule(i)
	fx := q.endLocked(i, v, now)
	q.armLocked(now)
	q.handOnLocked()
	q.mu.Unlock()
	fx.and(q.madeRoom()).perform()
	return nil
}

// endLocked ends the delivery of entry i, which is no longer scheduled.
func (q *Queue[T]) endLocked(i int32, v verdict, now int64) *effects {
	m, h := q.win.Meta(i), q.win.At(i)
	q.counters.ended[v.cause]++
	var fx *effects
	fx = q.noteItemLocked(fx, settled, &h.item, Event{
		Attempt: int(m.Spent) + 1, Cause: v.cause, Err: v.err, Elapsed: time.Duration(now - h.start), Wait: v.wait,
	})
	if v.cause == Acked {
		q.freeLocked(i)
		q.checkDrainedLocked()
		return fx
	}
	h.hist = h.hist.with(Attempt{
		Cause: v.cause, Queue: q.name, Err: v.err, Stack: v.stack,
		Start: q.core.time(h.start), Elapsed: time.Duration(now - h.start),
	}, q.keep)
	q.win.Restamp(i)
	spent := false
	if v.cause.spends() {
		m.Spent++
		spent = v.cause == PermanentlyFailed || v.cause == Expired || int64(m.Spent) >= int64(q.set.maxAttempts)
	} else if v.wait > 0 || v.cause == Snoozed {
		m.Passes++
		spent = m.Passes >= passesLimit
	}
	q.n[m.State]--
	switch {
	case q.letters: // a dead-letter queue retries for ever
		q.retryLocked(i, v, now)
	case spent:
		fx = q.buryLocked(i, fx)
	case q.expired(&h.item, now):
		fx = q.expireLocked(i, now, fx)
	default:
		q.retryLocked(i, v, now)
	}
	q.checkDrainedLocked()
	return fx
}

// retryLocked puts entry i, whose state has been left, where it waits for its
// next delivery.
func (q *Queue[T]) retryLocked(i int32, v verdict, now int64) {
	switch {
	case v.cause == Released && q.draining:
		q.putLocked(i, released)
	case v.wait <= 0:
		q.putLocked(i, due)
	default:
		state := retrying
		if v.cause == Snoozed {
			state = delayed
		}
		q.putLocked(i, state)
		q.win.Schedule(i, after(now, v.wait))
	}
}

// expired reports whether a message's time to live has passed.
func (q *Queue[T]) expired(it *item[T], now int64) bool {
	ttl, born := q.set.ttl, it.at
	if it.ext != nil {
		if it.ext.ttl > 0 {
			ttl = it.ext.ttl
		}
		if it.ext.born > 0 {
			born = it.ext.born
		}
	}
	return ttl > 0 && !q.letters && now >= after(born, ttl)
}

// expireLocked buries entry i, whose state has been left, because its time to
// live has passed.
func (q *Queue[T]) expireLocked(i int32, now int64, fx *effects) *effects {
	h := q.win.At(i)
	q.counters.ended[Expired]++
	h.hist = h.hist.with(Attempt{Cause: Expired, Queue: q.name, Start: q.core.time(now)}, q.keep)
	return q.buryLocked(i, fx)
}

// putLocked gives entry i, which is in no list, a state that is not in flight.
// The caller schedules it if the state is one that waits.
func (q *Queue[T]) putLocked(i int32, state uint8) {
	m := q.win.Meta(i)
	m.State = state
	q.n[state]++
	if l := q.listOf(state); l != nil {
		q.win.Push(l, i)
	}
	if state != backlogged && state != parked {
		q.rankLocked(i)
	}
}

// rankLocked makes entry i known to a queue that drops its oldest.
func (q *Queue[T]) rankLocked(i int32) {
	if q.set.overflow == DropOldest {
		q.win.Rank(i, int64(q.win.At(i).seq))
	}
}

// takeOutLocked takes entry i, which is not in flight, out of its list or the schedule.
func (q *Queue[T]) takeOutLocked(i int32) {
	state := q.win.Meta(i).State
	if state == blocked {
		q.win.Pull(&q.keys[keyOf(&q.win.At(i).item)].line, i)
	} else if l := q.listOf(state); l != nil {
		q.win.Pull(l, i)
	} else {
		q.win.Unschedule(i)
	}
}

// listOf returns the list that holds the entries of a state, or nil if they are scheduled.
func (q *Queue[T]) listOf(state uint8) *window.List {
	switch state {
	case backlogged:
		return &q.backlog
	case due:
		return &q.due
	case parked:
		return &q.parked
	case released:
		return &q.released
	}
	return nil
}

// freeLocked removes entry i, which is in no list and not scheduled, and with
// it the message from the queue.
func (q *Queue[T]) freeLocked(i int32) {
	q.n[q.win.Meta(i).State]--
	q.removeLocked(i)
}

// removeLocked is freeLocked for an entry whose state has been left.
func (q *Queue[T]) removeLocked(i int32) {
	q.leaveKeyLocked(i)
	q.win.Remove(i)
	q.allow.Add(1)
}

// madeRoom lets those in who wait for room, if there are any. No lock is held.
func (q *Queue[T]) madeRoom() (fx *effects) {
	if q.gated.Load() && q.gated.CompareAndSwap(true, false) {
		fx = q.t.admitWaiters()
	}
	if q.starving.Load() && q.starving.CompareAndSwap(true, false) {
		q.mu.Lock()
		starved := q.starved
		q.starved = nil
		q.mu.Unlock()
		for _, source := range starved {
			fx = fx.and(source.unpark())
		}
	}
	return fx
}

// extend moves the deadline of the delivery with the given stamp.
func (q *Queue[T]) extend(i int32, stamp uint64, by time.Duration) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := q.ownedLocked(i, stamp); err != nil {
		return err
	}
	now := q.core.now()
	if at := after(now, by); at > q.win.Meta(i).Deadline {
		q.win.Unschedule(i)
		q.win.Schedule(i, at)
		q.armLocked(now)
	}
	return nil
}

func (q *Queue[T]) deadline(i int32, stamp uint64) time.Time {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.ownedLocked(i, stamp) != nil {
		return time.Time{}
	}
	return q.core.time(q.win.Meta(i).Deadline)
}

// --- time ---

// armLocked keeps the invariant about the timer. A timer that is armed for an
// instant that no longer matters is left alone: it costs less to let it fire.
func (q *Queue[T]) armLocked(now int64) {
	at, ok := q.win.NextDue()
	if q.limited > 0 && (!ok || q.limited < at) {
		at, ok = q.limited, true
	}
	switch {
	case !ok || q.closed:
		// A worker that goes on will need it in a moment: stopping and starting a
		// timer costs more than all the rest of a delivery.
		if q.armed && (q.running == 0 || q.closed) && q.timer.Stop() {
			q.armed = false
		}
		return
	case q.armed && (q.timerAt <= at || !q.timer.Stop()):
		return // it comes in time, or it is about to run and arms itself again
	}
	q.armed, q.timerAt = true, at
	wait := time.Duration(max(at-now, 0))
	if q.timer == nil {
		q.timer = time.AfterFunc(wait, q.tick)
	} else {
		q.timer.Reset(wait)
	}
}

// tickLen bounds how many entries one tick sees to: for more, the timer fires
// again at once, so that none waits for the hooks of others.
const tickLen = 1024

// tick sees to those whose time has come: what waited for it is ready, and what
// was in flight has timed out. It runs in the timer's goroutine, which the
// queue's close waits for through armed and ticking.
func (q *Queue[T]) tick() {
	q.mu.Lock()
	q.armed = false
	q.ticking++
	defer q.ticked() // even if a hook ends the goroutine
	var fx *effects
	now := q.core.now()
	if q.limited <= now {
		q.limited = 0
	}
	for n := 0; n < tickLen && !q.closed; n++ {
		i, ok := q.win.PopDue(now)
		if !ok {
			break
		}
		if state := q.win.Meta(i).State; state == inFlight || state == handling {
			fx = fx.and(q.timeOutLocked(i, now))
		} else {
			q.n[state]--
			q.putLocked(i, due)
		}
	}
	q.handOnLocked()
	q.armLocked(now)
	q.mu.Unlock()
	fx.and(q.madeRoom()).perform()
}

func (q *Queue[T]) ticked() {
	q.mu.Lock()
	q.ticking--
	q.checkHomeLocked()
	q.mu.Unlock()
}

// timeOutLocked ends the delivery of entry i because its visibility timeout has
// passed, or extends it if its subscriber says so. If a handler has it, its
// context is cancelled and it counts as stuck until it returns.
func (q *Queue[T]) timeOutLocked(i int32, now int64) *effects {
	m, h := q.win.Meta(i), q.win.At(i)
	var w *worker[T]
	if m.State == handling {
		w = q.workerOf(m.Stamp)
	}
	if w != nil && w.s.set.autoExtend > 0 {
		if until := after(h.start, w.s.set.autoExtend); now < until {
			q.win.Schedule(i, min(after(now, q.set.visibility), until))
			return nil
		}
	}
	q.stale.Add(m.Stamp)
	var fx *effects
	if w != nil {
		if !w.stuck {
			w.stuck = true
			w.s.stuck++
			cause := fmt.Errorf("%w: queue %q: the visibility timeout of %v has passed", ErrStale, q.name, time.Duration(m.Deadline-h.start))
			fx = w.cancelLocked(fx, cause)
			e := Event{
				Attempt: int(m.Spent) + 1, Elapsed: time.Duration(now - h.start),
				Subscriber: w.s.site, goroutine: w.goroutine.Load(),
			}
			fx = q.noteItemLocked(fx, stuckEvent, &h.item, e)
			fx = q.noteItemLocked(fx, stuckStackEvent, &h.item, e)
		}
	}
	return fx.and(q.endLocked(i, verdict{cause: TimedOut}, now))
}

// workerOf returns the worker whose delivery has the given stamp.
func (q *Queue[T]) workerOf(stamp uint64) *worker[T] {
	for _, s := range q.subs {
		for _, w := range s.busy {
			for _, c := range w.claims {
				if c.stamp == stamp {
					return w
				}
			}
		}
	}
	return nil
}
