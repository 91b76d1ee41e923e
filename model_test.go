package fanout

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A model of a topic with its queues, and random programs that do the same to
// the topic and to the model. The model is plain slices and scans over all of
// them; it knows nothing of logs, windows, timers or locks. After each operation
// whatever can be observed of the topic must be what the model says.
//
// Where the documentation allows several things (which of two messages that
// became due at the same instant is delivered first), the model asks choose; any
// choices that explain what was seen are right.

type modelState uint8

const (
	modelBacklog  modelState = iota // ready, in the order of publication
	modelDue                        // ready, before the backlog
	modelDelayed                    // waits for the end of a delay or snooze
	modelRetrying                   // waits for the end of a backoff
	modelInFlight                   // waits for the visibility timeout
	modelParked
	modelReleased
	modelBlocked // behind another message of its key
)

// A modelMessage is one queue's copy of a message.
type modelMessage struct {
	Message[int]
	seq      int           // order of publication
	at, born time.Duration // when it was published, and when its time to live began
	state    modelState
	since    time.Duration // when it became ready
	until    time.Duration // delayed, retrying, in flight: until when
	turn     int           // who waits longer, among equals; only a first guess
	spent    int           // attempts
	start    time.Duration // of the delivery
	delivery int           // its number, while in flight
	redriven bool
	history  []modelAttempt
}

// A modelAttempt is an Attempt whose time is relative to the topic's creation.
type modelAttempt struct {
	Number         int
	Cause          Cause
	Queue          string
	Start, Elapsed time.Duration
	Err            error
}

func (x *modelMessage) waits() bool {
	return x.state == modelDelayed || x.state == modelRetrying || x.state == modelInFlight
}

func (x *modelMessage) ready() bool { return x.state == modelBacklog || x.state == modelDue }

type modelOptions struct {
	capacity, deadCapacity, maxAttempts, replay int
	overflow, deadOverflow                      Overflow
	visibility, backoff, delay, ttl             time.Duration
	modulus, rest                               int // the filter: bodies with body % modulus == rest
}

func (o modelOptions) accepts(body int) bool { return o.modulus == 0 || body%o.modulus == o.rest }

type modelQueue struct {
	name                     string
	set                      modelOptions
	letters                  bool        // it is a dead-letter queue
	dead                     *modelQueue // nil until it is needed
	messages                 []*modelMessage
	heads                    map[string]int // per key the number of the message that may be delivered
	paused, closed, draining bool
	count                    Stats // only what grows
	ended                    [len(causeNames)]uint64
	left                     []Message[int]
}

type modelID struct {
	id    string
	until time.Duration
}

// A modelRef names a queue: the dead-letter queue of the opened one, or that.
type modelRef struct {
	queue int
	dead  bool
}

type modelDelivery struct {
	ref modelRef
	end error // nil while it owns its message, then what settling it returns
}

type modelTopic struct {
	now        time.Duration
	ordering   bool
	window     time.Duration // of deduplication
	maxIDs     int
	retention  int
	queues     []*modelQueue // in the order they were opened, closed ones too
	deliveries []modelDelivery
	ids        []modelID
	retained   []modelMessage
	seq, turn  int
	duplicates uint64
	forgotten  uint64

	phase modelPhase
	limit time.Duration // when the context of Shutdown ends
	why   error
	lefts []Left

	choices []modelChoice
	asked   int
}

type modelPhase uint8

const (
	modelOpen      modelPhase = iota
	modelDraining             // Shutdown waits for the queues
	modelBurying              // Shutdown waits for the dead-letter queues
	modelTopicDone            // closed
)

type modelChoice struct{ of, pick int }

// choose returns a number below n: any is right as far as the documentation says.
func (m *modelTopic) choose(n int) int {
	if n < 2 {
		return 0
	}
	if m.asked == len(m.choices) {
		m.choices = append(m.choices, modelChoice{of: n})
	}
	m.asked++
	return m.choices[m.asked-1].pick
}

// nextChoices returns other choices than those made, or nil if all were tried.
func nextChoices(cs []modelChoice) []modelChoice {
	for k := len(cs) - 1; k >= 0; k-- {
		if cs[k].pick+1 < cs[k].of {
			next := slices.Clone(cs[:k+1])
			next[k].pick++
			return next
		}
	}
	return nil
}

func (m *modelTopic) clone() *modelTopic {
	c := *m
	c.queues = make([]*modelQueue, len(m.queues))
	for k, q := range m.queues {
		c.queues[k] = q.clone()
	}
	c.deliveries = slices.Clone(m.deliveries)
	c.ids, c.retained = slices.Clone(m.ids), slices.Clone(m.retained)
	return &c
}

func (q *modelQueue) clone() *modelQueue {
	c := *q
	if q.dead != nil {
		c.dead = q.dead.clone()
	}
	c.messages = make([]*modelMessage, len(q.messages))
	for k, x := range q.messages {
		y := *x
		y.history = slices.Clip(y.history)
		c.messages[k] = &y
	}
	c.heads = maps.Clone(q.heads)
	return &c
}

// at returns the queue that ref names; looking at a dead-letter queue makes it.
func (m *modelTopic) at(ref modelRef) *modelQueue {
	q := m.queues[ref.queue]
	if !ref.dead {
		return q
	}
	if q.dead == nil {
		set := modelOptions{capacity: q.set.deadCapacity, overflow: q.set.deadOverflow, backoff: q.set.backoff, maxAttempts: Unlimited}
		q.dead = &modelQueue{name: q.name + "/dead", set: set, letters: true, closed: q.closed, draining: m.phase >= modelBurying}
	}
	return q.dead
}

// all yields every queue and dead-letter queue.
func (m *modelTopic) all(yield func(ref modelRef, q *modelQueue) bool) {
	for k, q := range m.queues {
		if !yield(modelRef{queue: k}, q) || q.dead != nil && !yield(modelRef{k, true}, q.dead) {
			return
		}
	}
}

func (m *modelTopic) named(name string) *modelQueue {
	for _, q := range m.queues {
		if q.name == name && !q.closed {
			return q
		}
	}
	return nil
}

// --- publishing ---

// open opens a queue.
func (m *modelTopic) open(name string, set modelOptions) error {
	switch {
	case set.replay > 0 && m.retention == 0:
		return ErrUnsupported
	case m.phase != modelOpen:
		return ErrClosed
	case m.named(name) != nil:
		return ErrInvalidOption
	}
	q := &modelQueue{name: name, set: set}
	m.queues = append(m.queues, q)
	var past []modelMessage
	for _, x := range m.retained {
		if set.accepts(x.Body) && !q.expired(&x, m.now) {
			past = append(past, x)
		}
	}
	for _, x := range past[max(len(past)-min(set.replay, set.capacity), 0):] {
		m.add(q, x)
	}
	return nil
}

// add makes a copy of a published message for one queue, overflow included.
func (m *modelTopic) add(q *modelQueue, x modelMessage) {
	q.count.Published++
	if len(q.messages) >= q.set.capacity && (q.set.overflow == DropNewest || !m.dropOldest(q)) {
		q.count.Dropped++
		return
	}
	x.state = modelBacklog
	if delay := cmp.Or(x.Delay, q.set.delay); delay > 0 {
		x.state, x.until = modelDelayed, x.at+delay
	}
	m.enter(q, &x)
}

func (m *modelTopic) enter(q *modelQueue, x *modelMessage) {
	m.turn++
	x.turn, x.since = m.turn, m.now
	q.messages = append(q.messages, x)
}

// dropOldest drops what was published first of what is neither in flight nor parked.
func (m *modelTopic) dropOldest(q *modelQueue) bool {
	var oldest *modelMessage
	for _, x := range q.messages {
		if x.state != modelInFlight && x.state != modelParked && (oldest == nil || x.seq < oldest.seq) {
			oldest = x
		}
	}
	if oldest == nil {
		return false
	}
	q.count.Dropped++
	m.remove(q, oldest)
	return true
}

// publish publishes a batch. full is what is returned instead of waiting.
func (m *modelTopic) publish(messages []Message[int], full error) error {
	for _, x := range messages {
		switch {
		case x.Delay < 0 || x.TimeToLive < 0:
			return ErrInvalidMessage
		case x.OrderingKey != "" && (!m.ordering || x.Delay > 0), x.DeduplicationID != "" && m.maxIDs == 0:
			return ErrUnsupported
		}
	}
	if m.phase != modelOpen {
		return ErrClosed
	}
	m.forget()
	var fresh []Message[int]
	for _, x := range messages {
		same := func(y Message[int]) bool { return y.DeduplicationID == x.DeduplicationID }
		if x.DeduplicationID == "" || !slices.ContainsFunc(fresh, same) && !m.remembers(x.DeduplicationID) {
			fresh = append(fresh, x)
		}
	}
	// Look at all queues before touching any.
	var refusals []error
	wait := false
	for _, q := range m.queues {
		n := 0
		for _, x := range fresh {
			if !q.closed && q.set.accepts(x.Body) {
				n++
			}
		}
		room := q.set.capacity - len(q.messages)
		switch {
		case n == 0 || q.set.overflow.drops():
		case n > q.set.capacity:
			refusals = append(refusals, ErrBatchTooLarge)
		case n > room && q.set.overflow == Reject:
			refusals = append(refusals, ErrQueueFull)
		case n > room:
			wait = true
		}
	}
	if len(refusals) > 0 {
		return refusals[m.choose(len(refusals))]
	}
	if wait {
		return full
	}
	m.duplicates += uint64(len(messages) - len(fresh))
	for _, x := range fresh {
		m.seq++
		y := modelMessage{Message: x, seq: m.seq, at: m.now, born: m.now}
		m.retained = append(m.retained, y)
		m.retained = m.retained[max(len(m.retained)-m.retention, 0):]
		if x.DeduplicationID != "" {
			if len(m.ids) == m.maxIDs {
				m.ids = m.ids[1:]
				m.forgotten++
			}
			m.ids = append(m.ids, modelID{x.DeduplicationID, m.now + m.window})
		}
		for _, q := range m.queues {
			if !q.closed && q.set.accepts(x.Body) {
				m.add(q, y)
			}
		}
	}
	return nil
}

func (m *modelTopic) remembers(id string) bool {
	return slices.ContainsFunc(m.ids, func(x modelID) bool { return x.id == id })
}

// forget forgets the deduplication IDs whose time has passed.
func (m *modelTopic) forget() {
	m.ids = slices.DeleteFunc(m.ids, func(x modelID) bool { return x.until <= m.now })
}

// --- consuming ---

// receive delivers the next message, or none.
func (m *modelTopic) receive(ref modelRef, visibility time.Duration) (*modelMessage, error) {
	q := m.at(ref)
	if q.closed {
		return nil, ErrClosed
	}
	if q.paused || q.letters && q.draining {
		return nil, nil
	}
	for {
		next := q.next()
		if len(next) == 0 {
			return nil, nil
		}
		x := next[m.choose(len(next))]
		if q.expired(x, m.now) {
			m.expire(q, x)
			continue
		}
		if head, ok := q.heads[x.OrderingKey]; ok && head != x.seq {
			x.state = modelBlocked
			continue
		}
		if x.OrderingKey != "" {
			q.setHead(x)
		}
		m.turn++
		x.state, x.start, x.until, x.turn = modelInFlight, m.now, m.now+visibility, m.turn
		m.deliveries = append(m.deliveries, modelDelivery{ref: ref})
		x.delivery = len(m.deliveries) - 1
		q.count.Delivered++
		return x, nil
	}
}

func (q *modelQueue) setHead(x *modelMessage) {
	if q.heads == nil {
		q.heads = map[string]int{}
	}
	q.heads[x.OrderingKey] = x.seq
}

// next returns the messages whose turn it may be, the likeliest first: what has
// become due goes before the backlog, the earlier first; the backlog goes in
// the order of publication, that of a dead-letter queue as the letters came.
func (q *modelQueue) next() []*modelMessage {
	var next []*modelMessage
	for _, x := range q.messages {
		if !x.ready() {
			continue
		}
		before := 1
		if len(next) > 0 {
			y := next[0]
			before = cmp.Compare(y.state, x.state) // due is the greater one
			if before == 0 && (x.state == modelDue || q.letters) {
				before = cmp.Compare(x.since, y.since)
			} else if before == 0 {
				before = cmp.Compare(x.seq, y.seq)
			}
		} else {
			before = -1
		}
		if before < 0 {
			next = next[:0]
		}
		if before <= 0 {
			next = append(next, x)
		}
	}
	slices.SortFunc(next, func(x, y *modelMessage) int { return cmp.Compare(x.turn, y.turn) })
	// Messages of one key go in the order of publication, but letters as they
	// came. One that was redriven comes late, wherever its turn is.
	all := slices.Clone(next)
	return slices.DeleteFunc(next, func(x *modelMessage) bool {
		_, reached := q.heads[x.OrderingKey]
		return x.OrderingKey != "" && !reached && !q.letters && slices.ContainsFunc(all, func(y *modelMessage) bool {
			return y.OrderingKey == x.OrderingKey && y.seq < x.seq && !y.redriven
		})
	})
}

func (q *modelQueue) expired(x *modelMessage, now time.Duration) bool {
	ttl := cmp.Or(x.TimeToLive, q.set.ttl)
	return ttl > 0 && !q.letters && now >= x.born+ttl
}

// own returns the message that a delivery owns, or why it owns none.
func (m *modelTopic) own(n int) (*modelQueue, *modelMessage, error) {
	d := m.deliveries[n]
	q := m.at(d.ref)
	if q.closed {
		return nil, nil, ErrClosed
	}
	if d.end != nil {
		return nil, nil, d.end
	}
	for _, x := range q.messages {
		if x.state == modelInFlight && x.delivery == n {
			return q, x, nil
		}
	}
	panic("the model lost a message")
}

// settle ends delivery n with a cause, and has the message wait: for the
// queue's backoff if wait is negative.
func (m *modelTopic) settle(n int, cause Cause, wait time.Duration, err error) error {
	q, x, why := m.own(n)
	if why != nil {
		return why
	}
	m.deliveries[n].end = ErrSettled
	if wait < 0 || q.letters && cause == PermanentlyFailed {
		wait = q.set.backoff
	}
	m.end(q, x, cause, wait, err)
	return nil
}

// end ends a delivery.
func (m *modelTopic) end(q *modelQueue, x *modelMessage, cause Cause, wait time.Duration, err error) {
	q.ended[cause]++
	if cause == Acked {
		m.remove(q, x)
		return
	}
	x.note(modelAttempt{Cause: cause, Queue: q.name, Start: x.start, Elapsed: m.now - x.start, Err: err})
	if cause.spends() {
		x.spent++
	}
	m.turn++
	x.turn = m.turn
	switch {
	case !q.letters && cause.spends() && (cause == PermanentlyFailed || x.spent >= q.set.maxAttempts):
		m.bury(q, x)
	case q.expired(x, m.now):
		m.expire(q, x)
	case cause == Released && q.draining:
		x.state = modelReleased
	case wait == 0:
		x.state, x.since = modelDue, m.now
	case cause == Snoozed:
		x.state, x.until = modelDelayed, m.now+wait
	default:
		x.state, x.until = modelRetrying, m.now+wait
	}
}

func (x *modelMessage) note(a modelAttempt) {
	a.Number = len(x.history) + 1
	x.history = append(slices.Clip(x.history), a)
}

// extend moves the deadline of delivery n, never to an earlier one.
func (m *modelTopic) extend(n int, by time.Duration) error {
	if by <= 0 {
		return ErrInvalidOption
	}
	_, x, err := m.own(n)
	if err == nil {
		x.until = max(x.until, m.now+by)
	}
	return err
}

// remove takes a message out of a queue. If it was the head of its key the next
// one is due.
func (m *modelTopic) remove(q *modelQueue, x *modelMessage) {
	q.messages = slices.DeleteFunc(q.messages, func(y *modelMessage) bool { return x == y })
	m.leaveKey(q, x)
}

func (m *modelTopic) leaveKey(q *modelQueue, x *modelMessage) {
	if head, ok := q.heads[x.OrderingKey]; !ok || head != x.seq {
		return
	}
	delete(q.heads, x.OrderingKey)
	var next *modelMessage
	for _, y := range q.messages {
		if y.state == modelBlocked && y.OrderingKey == x.OrderingKey && (next == nil || y.seq < next.seq) {
			next = y
		}
	}
	if next != nil {
		m.turn++
		next.state, next.since, next.turn = modelDue, m.now, m.turn
		q.setHead(next)
	}
}

// --- dead letters ---

func (m *modelTopic) expire(q *modelQueue, x *modelMessage) {
	q.ended[Expired]++
	x.note(modelAttempt{Cause: Expired, Queue: q.name, Start: m.now})
	m.bury(q, x)
}

func (m *modelTopic) deadOf(q *modelQueue) *modelQueue {
	return m.at(modelRef{slices.Index(m.queues, q), true})
}

// bury moves a message to the dead-letter queue, or parks it.
func (m *modelTopic) bury(q *modelQueue, x *modelMessage) {
	if !m.send(q, x) {
		q.count.TimesParked++
		x.state = modelParked
		m.leaveKey(q, x)
	}
}

func (m *modelTopic) send(q *modelQueue, x *modelMessage) bool {
	d := m.deadOf(q)
	if len(d.messages) >= d.set.capacity && (d.set.overflow != DropOldest || !m.dropOldest(d)) {
		return false
	}
	m.remove(q, x)
	q.count.DeadLettered++
	d.count.Published++
	y := *x
	y.state, y.spent = modelBacklog, 0
	m.enter(d, &y)
	return true
}

// parkedOf returns one of the parked messages, or nil.
func (m *modelTopic) parkedOf(q *modelQueue) *modelMessage {
	var parked []*modelMessage
	for _, x := range q.messages {
		if x.state == modelParked {
			parked = append(parked, x)
		}
	}
	if len(parked) == 0 {
		return nil
	}
	slices.SortFunc(parked, func(x, y *modelMessage) int { return cmp.Compare(x.turn, y.turn) })
	return parked[m.choose(len(parked))]
}

// unpark moves what is parked as far as there is room.
func (m *modelTopic) unpark() {
	for _, q := range m.queues {
		for !q.closed {
			if x := m.parkedOf(q); x == nil || !m.send(q, x) {
				break
			}
		}
	}
}

// redrive moves the dead letters of queue k with the given bodies back, or all
// for nil. If some find no room, waiting for it ends with the context.
func (m *modelTopic) redrive(k int, bodies map[int]bool) (moved int, err error) {
	q := m.queues[k]
	if q.closed {
		return 0, ErrClosed
	}
	if q.dead == nil {
		return 0, nil
	}
	letters := slices.DeleteFunc(q.dead.visible(), func(x *modelMessage) bool { return bodies != nil && !bodies[x.Body] })
	if len(letters) == 0 {
		return 0, nil
	}
	if m.phase != modelOpen {
		return 0, ErrClosed
	}
	for _, x := range letters {
		full := len(q.messages) >= q.set.capacity
		var p *modelMessage
		if full {
			if p = m.parkedOf(q); p == nil {
				return moved, context.Canceled
			}
		}
		m.remove(q.dead, x)
		if p != nil { // the two change places
			m.send(q, p)
		}
		y := *x
		y.state, y.spent, y.born, y.redriven = modelDue, 0, m.now, true
		m.enter(q, &y)
		q.count.Redriven++
		q.dead.count.Redriven++
		moved++
	}
	return moved, nil
}

// visible returns what Peek shows, in the order of publication.
func (q *modelQueue) visible() []*modelMessage {
	var xs []*modelMessage
	for _, x := range q.messages {
		if x.state != modelParked && (x.state != modelInFlight || q.closed) {
			xs = append(xs, x)
		}
	}
	slices.SortFunc(xs, func(x, y *modelMessage) int { return cmp.Compare(x.seq, y.seq) })
	return xs
}

// purge drops all that a queue holds.
func (m *modelTopic) purge(ref modelRef) (int, error) {
	q := m.at(ref)
	if q.closed {
		return 0, ErrClosed
	}
	n := len(q.messages)
	for _, x := range q.messages {
		if x.state == modelInFlight {
			m.deliveries[x.delivery].end = ErrStale
		}
	}
	q.messages, q.heads = nil, nil
	q.count.Dropped += uint64(n)
	return n, nil
}

func (m *modelTopic) pause(ref modelRef, paused bool) error {
	q := m.at(ref)
	if q.closed {
		return ErrClosed
	}
	q.paused = paused
	return nil
}

// --- time ---

// nextInstant returns the next instant at which something happens by itself.
func (m *modelTopic) nextInstant() time.Duration {
	next := time.Duration(math.MaxInt64)
	for _, q := range m.all {
		for _, x := range q.messages {
			if !q.closed && x.waits() {
				next = min(next, x.until)
			}
		}
	}
	if m.phase == modelDraining || m.phase == modelBurying {
		next = min(next, m.limit)
	}
	return next
}

// tick sees to what happens now by itself. Queues don't keep step with each
// other; that matters only to a Shutdown, which may look in between.
func (m *modelTopic) tick() {
	var pending []*modelQueue
	for _, q := range m.all {
		if len(q.overdue(m.now)) > 0 {
			pending = append(pending, q)
		}
	}
	for len(pending) > 0 {
		k := 0
		if m.phase != modelOpen {
			k = m.choose(len(pending))
		}
		m.tickQueue(pending[k])
		pending = slices.Delete(pending, k, k+1)
		if m.phase != modelOpen && m.choose(2) == 1 {
			m.look()
		}
	}
}

// overdue returns the messages whose time has come.
func (q *modelQueue) overdue(now time.Duration) []*modelMessage {
	var xs []*modelMessage
	for _, x := range q.messages {
		if !q.closed && x.waits() && x.until <= now {
			xs = append(xs, x)
		}
	}
	slices.SortFunc(xs, func(x, y *modelMessage) int {
		return cmp.Or(cmp.Compare(x.until, y.until), cmp.Compare(x.turn, y.turn))
	})
	return xs
}

func (m *modelTopic) tickQueue(q *modelQueue) {
	xs := q.overdue(m.now)
	for len(xs) > 0 {
		k := 0
		if q.dead != nil { // who dies first matters if there is not room for all
			k = m.choose(len(xs))
		}
		x := xs[k]
		xs = slices.Delete(xs, k, k+1)
		if x.state == modelInFlight {
			m.deliveries[x.delivery].end = ErrStale
			m.end(q, x, TimedOut, 0, nil)
			continue
		}
		m.turn++
		x.state, x.since, x.turn = modelDue, m.now, m.turn
	}
}

// --- ending ---

// close closes a queue, or a dead-letter queue that outlived its queue.
func (m *modelTopic) close(ref modelRef) error {
	q := m.at(ref)
	if ref.dead && !m.queues[ref.queue].closed {
		return ErrUnsupported
	}
	m.closeQueue(q)
	return nil
}

func (m *modelTopic) closeQueue(q *modelQueue) {
	if q.closed {
		return
	}
	q.closed = true
	if q.letters {
		return // it keeps its letters, to be looked at
	}
	slices.SortFunc(q.messages, func(x, y *modelMessage) int { return cmp.Compare(x.seq, y.seq) })
	q.left = []Message[int]{}
	for _, x := range q.messages {
		y := x.Message
		y.DeduplicationID, y.Delay = "", 0
		if x.state == modelDelayed && x.OrderingKey == "" {
			y.Delay = max(x.until-m.now, 0)
		}
		q.left = append(q.left, y)
	}
	q.count.Left = uint64(len(q.left))
	q.messages, q.heads = nil, nil
}

// shutdown begins a Shutdown whose context ends at limit.
func (m *modelTopic) shutdown(limit time.Duration) {
	if m.phase != modelOpen {
		return
	}
	m.phase, m.limit = modelDraining, limit
	for _, q := range m.queues {
		q.draining = true
	}
}

// look is what Shutdown does when something may have changed.
func (m *modelTopic) look() {
	if m.phase == modelDraining && !slices.ContainsFunc(m.queues, (*modelQueue).busy) {
		m.phase = modelBurying
		for _, q := range m.all {
			q.draining = true
		}
	}
	if m.phase == modelBurying {
		busy := false
		for _, q := range m.all {
			busy = busy || q.letters && q.busy()
		}
		if !busy {
			m.endAll(nil)
		}
	}
	if (m.phase == modelDraining || m.phase == modelBurying) && m.now >= m.limit {
		m.endAll(context.DeadlineExceeded)
	}
}

// busy reports whether a queue holds anything that Shutdown waits for.
func (q *modelQueue) busy() bool {
	for _, x := range q.messages {
		waited := x.state == modelInFlight
		if !q.letters && !q.paused {
			waited = waited || x.ready() || x.state == modelRetrying
			if x.state == modelBlocked {
				for _, y := range q.messages {
					if y.seq == q.heads[x.OrderingKey] && y.state != modelDelayed && y.state != modelReleased {
						waited = true
					}
				}
			}
		}
		if waited && !q.closed {
			return true
		}
	}
	return false
}

// endAll closes the topic.
func (m *modelTopic) endAll(why error) {
	if m.phase == modelTopicDone {
		return
	}
	m.phase = modelTopicDone
	for _, q := range m.queues {
		s := q.stats()
		l := Left{
			Queue: q.name, Ready: s.Ready, Retrying: s.Retrying, Delayed: s.Delayed, InFlight: s.InFlight,
			Parked: s.Parked, Released: s.Released, Blocked: s.Blocked,
		}
		if !q.closed && l.messages() > 0 {
			m.lefts = append(m.lefts, l)
			m.why = why
		}
	}
	slices.SortFunc(m.lefts, func(a, b Left) int { return cmp.Compare(a.Queue, b.Queue) })
	for _, q := range m.all {
		m.closeQueue(q)
	}
	m.ids, m.retained = nil, nil
}

// --- what can be seen ---

// A modelView is all that can be seen of a topic.
type modelView struct {
	Now    time.Duration
	Topic  TopicStats
	Queues []modelQueueView
	Until  []time.Duration // the deadlines of the latest deliveries; -1 if they own nothing
	Done   bool
	Left   []Left
	Why    error
	// What the last operation returned.
	Err error
	N   int
	Got []modelMessageView
}

type modelQueueView struct {
	Stats Stats
	Peek  []modelMessageView
	Left  []Message[int]
	Dead  []modelQueueView // one or none
}

type modelMessageView struct {
	Body, Attempt int
	At            time.Duration
	Key           string
	History       []modelAttempt
}

// The latest deliveries whose deadlines are looked at.
const modelLatest = 12

func (q *modelQueue) stats() Stats {
	s := q.count
	s.Topic, s.Queue, s.Capacity, s.Paused = "payments", q.name, q.set.capacity, q.paused
	into := map[modelState]*int{
		modelBacklog: &s.Ready, modelDue: &s.Ready, modelDelayed: &s.Delayed, modelRetrying: &s.Retrying,
		modelInFlight: &s.InFlight, modelParked: &s.Parked, modelReleased: &s.Released, modelBlocked: &s.Blocked,
	}
	for _, x := range q.messages {
		*into[x.state]++
	}
	if q.dead != nil {
		s.Dead = len(q.dead.messages)
	}
	e := q.ended
	s.Acked, s.Failed, s.TimedOut, s.Nacked, s.PermanentlyFailed = e[Acked], e[Failed], e[TimedOut], e[Nacked], e[PermanentlyFailed]
	s.Expired, s.Snoozed, s.ReleasedCount = e[Expired], e[Snoozed], e[Released]
	return s
}

func (q *modelQueue) view() modelQueueView {
	v := modelQueueView{Stats: q.stats(), Left: q.left}
	for _, x := range q.visible() {
		v.Peek = append(v.Peek, x.view())
	}
	if q.dead != nil {
		v.Dead = []modelQueueView{q.dead.view()}
	}
	return v
}

func (x *modelMessage) view() modelMessageView {
	return modelMessageView{Body: x.Body, Attempt: x.spent + 1, At: x.at, Key: x.OrderingKey, History: shortened(x.history)}
}

// shortened leaves of a long history what any queue keeps of it.
func shortened(as []modelAttempt) []modelAttempt {
	if len(as) > 32 {
		return append(slices.Clone(as[:1]), as[len(as)-24:]...)
	}
	return as
}

func (m *modelTopic) view() modelView {
	m.forget()
	v := modelView{Now: m.now, Done: m.phase == modelTopicDone, Left: m.lefts, Why: m.why}
	v.Topic = TopicStats{
		Topic: "payments", Published: uint64(m.seq), Retained: len(m.retained),
		Duplicates: m.duplicates, Remembered: len(m.ids), Forgotten: m.forgotten,
	}
	for _, q := range m.queues {
		if !q.closed {
			v.Topic.Queues++
		}
		v.Queues = append(v.Queues, q.view())
	}
	for n := max(len(m.deliveries)-modelLatest, 0); n < len(m.deliveries); n++ {
		until := time.Duration(-1)
		if _, x, err := m.own(n); err == nil {
			until = x.until
		}
		v.Until = append(v.Until, until)
	}
	return v
}

// --- the topic beside the model ---

// A modelRun runs one program, given as bytes, on a topic and on its model.
type modelRun struct {
	t       *testing.T
	ctx     context.Context
	program []byte
	log     strings.Builder // the program as text

	top        *Topic[int]
	epoch      time.Time
	model      *modelTopic
	queues     []*Queue[int]
	deliveries []Delivery[int]
	bodies     int
	rich       bool           // publishes batches only
	keyed      bool           // and with ordering keys
	asleep     bool           // not looking at the topic's counters, which makes it forget IDs
	ids        map[int]string // of the messages, by their bodies
	shutdown   chan error     // nil before
	left       []Left
	why        error
	done       bool
}

// draw takes a number below n from the program.
func (r *modelRun) draw(n int) int {
	if len(r.program) == 0 {
		return 0
	}
	b := r.program[0]
	r.program = r.program[1:]
	return int(b) % n
}

// oneIn is true once in n times, and never when the program has ended.
func (r *modelRun) oneIn(n int) bool { return r.draw(n) == n-1 }

// ms draws a duration of 1 to n milliseconds: few different ones, so that
// deadlines meet.
func (r *modelRun) ms(n int) time.Duration { return time.Duration(1+r.draw(n)) * time.Millisecond }

func (r *modelRun) say(format string, args ...any) {
	fmt.Fprintf(&r.log, "%8v  %s\n", r.model.now, fmt.Sprintf(format, args...))
}

var modelErrors = []error{
	ErrClosed, ErrQueueFull, ErrBatchTooLarge, ErrInvalidMessage, ErrStale, ErrSettled,
	ErrInvalidOption, ErrUnsupported, context.Canceled, context.DeadlineExceeded, errBusy,
}

// sentinel is the error that callers look for.
func sentinel(err error) error {
	for _, s := range modelErrors {
		if errors.Is(err, s) {
			return s
		}
	}
	return err
}

// agree has the model do what the topic did, with those choices that explain
// what is seen, and fails if there are none.
func (r *modelRun) agree(err error, n int, got []Delivery[int], do func(m *modelTopic) (int, []*modelMessage, error)) {
	r.t.Helper()
	synctest.Wait()
	check(r.t, r.top)
	seen := r.view()
	seen.Err, seen.N = sentinel(err), n
	for _, d := range got {
		seen.Got = append(seen.Got, r.seen(d))
	}
	var first modelView
	var choices []modelChoice
	for tries := 0; tries < 5000; tries++ {
		m := r.model.clone()
		m.choices, m.asked = choices, 0
		n, xs, err := do(m)
		m.unpark()
		m.look()
		want := m.view()
		if r.asleep {
			want.Topic = TopicStats{}
		}
		want.Err, want.N = err, n
		for _, x := range xs {
			want.Got = append(want.Got, x.view())
		}
		if reflect.DeepEqual(want, seen) {
			r.model = m
			return
		}
		if tries == 0 {
			first = want
		}
		if choices = nextChoices(m.choices); choices == nil {
			break
		}
	}
	require.Equal(r.t, first, seen, "the topic does not do what the model does")
}

// erring is agree for operations that only return an error.
func (r *modelRun) erring(err error, do func(m *modelTopic) error) {
	r.t.Helper()
	r.agree(err, 0, nil, func(m *modelTopic) (int, []*modelMessage, error) { return 0, nil, do(m) })
}

// view looks at all that can be seen of the topic.
func (r *modelRun) view() modelView {
	if r.shutdown != nil && !r.done {
		select {
		case err := <-r.shutdown:
			r.ended(err)
		default:
		}
	}
	v := modelView{Now: time.Since(r.epoch), Done: r.done, Left: r.left, Why: r.why}
	if !r.asleep {
		v.Topic = r.top.Stats()
	}
	for _, q := range r.queues {
		v.Queues = append(v.Queues, r.queueView(q))
	}
	for _, d := range r.deliveries[max(len(r.deliveries)-modelLatest, 0):] {
		until := time.Duration(-1)
		if at := d.Deadline(); !at.IsZero() {
			until = at.Sub(r.epoch)
		}
		v.Until = append(v.Until, until)
	}
	return v
}

// ended takes down what Shutdown returned.
func (r *modelRun) ended(err error) {
	r.done = true
	var left *ShutdownError
	if errors.As(err, &left) {
		r.left, r.why = left.Queues, sentinel(left.Err)
	} else {
		require.NoError(r.t, err)
	}
}

func (r *modelRun) queueView(q *Queue[int]) modelQueueView {
	v := modelQueueView{Stats: q.Stats()}
	depth, err := q.Depth(r.ctx)
	require.NoError(r.t, err)
	require.Equal(r.t, v.Stats.Unsettled(), depth)
	ds, err := q.Peek(r.ctx, Unlimited)
	require.NoError(r.t, err)
	for _, d := range ds {
		v.Peek = append(v.Peek, r.seen(d))
	}
	v.Left = r.leftovers(q.Leftovers())
	if d := q.deadIfAny(); d != nil { // asking for it would make it
		v.Dead = []modelQueueView{r.queueView(d)}
	}
	return v
}

// leftovers returns messages without the IDs that the topic gave them.
func (r *modelRun) leftovers(ms []Message[int]) []Message[int] {
	for k := range ms {
		r.know(ms[k].Body, ms[k].ID)
		if !strings.HasPrefix(ms[k].ID, "own-") {
			ms[k].ID = ""
		}
	}
	return ms
}

// know checks that a message has one ID wherever it is met.
func (r *modelRun) know(body int, id string) {
	if r.ids[body] == "" {
		r.ids[body] = id
	}
	require.Equal(r.t, r.ids[body], id, "the ID of message %d", body)
}

func (r *modelRun) seen(d Delivery[int]) modelMessageView {
	r.know(d.Body, d.ID())
	var as []modelAttempt
	for _, a := range d.History() {
		as = append(as, modelAttempt{a.Number, a.Cause, a.Queue, a.Start.Sub(r.epoch), a.Elapsed, sentinel(a.Err)})
	}
	return modelMessageView{
		Body: d.Body, Attempt: d.Attempt(), At: d.PublishedAt().Sub(r.epoch), Key: d.OrderingKey(), History: shortened(as),
	}
}

// patient runs an operation that may wait for room, and has it give up then.
func (r *modelRun) patient(do func(ctx context.Context) error) error {
	ctx, cancel := context.WithCancel(r.ctx)
	result := make(chan error, 1)
	go func() { result <- do(ctx) }()
	synctest.Wait()
	cancel()
	return <-result
}

// --- operations ---

func (r *modelRun) open() {
	name := fmt.Sprintf("q%d", r.draw(5))
	policies := []Overflow{Block, Reject, DropOldest, DropNewest}
	set := modelOptions{
		capacity: 1 + r.draw(6), overflow: policies[r.draw(4)], visibility: r.ms(6), backoff: r.ms(4),
		maxAttempts:  []int{1, 2, 3, Unlimited}[r.draw(4)],
		deadCapacity: 1 + r.draw(3), deadOverflow: []Overflow{Block, DropOldest}[r.draw(2)],
	}
	options := []QueueOption{
		WithCapacity(set.capacity), WithOverflow(set.overflow), WithVisibilityTimeout(set.visibility),
		WithBackoff(Constant(set.backoff)), WithMaxAttempts(set.maxAttempts),
		WithDeadLetterCapacity(set.deadCapacity), WithDeadLetterOverflow(set.deadOverflow),
	}
	if r.oneIn(4) {
		set.delay = r.ms(3)
		options = append(options, WithDelay(set.delay))
	}
	if r.oneIn(4) {
		set.ttl = r.ms(10)
		options = append(options, WithTimeToLive(set.ttl))
	}
	if r.oneIn(4) {
		set.modulus, set.rest = 2+r.draw(2), r.draw(2)
		options = append(options, WithFilter(set.accepts))
	}
	if r.oneIn(3) {
		set.replay = 1 + r.draw(4)
		options = append(options, WithReplay(set.replay))
	}
	q, err := r.top.OpenQueue(r.ctx, name, options...)
	r.say("open %s %+v: %v", name, set, err)
	if err == nil {
		r.queues = append(r.queues, q)
	}
	r.erring(err, func(m *modelTopic) error {
		err := m.open(name, set)
		m.tick() // what is replayed may be due at once
		return err
	})
}

func (r *modelRun) message() Message[int] {
	r.bodies++
	m := Message[int]{Body: r.bodies}
	if !r.keyed && r.oneIn(4) {
		m.Delay = r.ms(4)
	}
	if r.oneIn(4) {
		m.TimeToLive = r.ms(8)
	}
	if r.model.ordering && m.Delay == 0 && (r.keyed || !r.oneIn(3)) || r.oneIn(50) {
		m.OrderingKey = string(rune('a' + r.draw(2)))
	}
	if r.model.maxIDs > 0 && r.oneIn(2) || r.oneIn(50) {
		m.DeduplicationID = fmt.Sprintf("id%d", r.draw(5))
	}
	if r.oneIn(4) {
		m.ID = fmt.Sprintf("own-%d", m.Body)
		m.Attributes = map[string]string{"color": "red"}
	}
	if r.oneIn(100) {
		m.TimeToLive = -1
	}
	return m
}

func (r *modelRun) publish() {
	messages := []Message[int]{}
	if r.oneIn(3) || r.rich {
		for range r.draw(5) {
			messages = append(messages, r.message())
		}
	}
	full := error(ErrQueueFull)
	var err error
	wait := r.oneIn(3)
	switch {
	case len(messages) == 0 && wait:
		r.bodies++
		messages = []Message[int]{{Body: r.bodies}}
		full = context.Canceled
		err = r.patient(func(ctx context.Context) error { return r.top.Publish(ctx, messages[0].Body) })
	case len(messages) == 0:
		r.bodies++
		messages = []Message[int]{{Body: r.bodies}}
		err = r.top.TryPublish(r.ctx, messages[0].Body)
	case wait:
		full = context.Canceled
		err = r.patient(func(ctx context.Context) error { return r.top.PublishMessages(ctx, messages...) })
	default:
		err = r.top.TryPublishMessages(r.ctx, messages...)
	}
	r.say("publish %+v: %v", messages, err)
	r.erring(err, func(m *modelTopic) error { return m.publish(messages, full) })
}

// ref draws a queue. It is a dead-letter queue once in five times.
func (r *modelRun) ref() (modelRef, *Queue[int]) {
	ref := modelRef{r.draw(len(r.queues)), r.oneIn(5)}
	if ref.dead {
		r.model.at(ref) // to ask for it makes it
		return ref, r.queues[ref.queue].DeadLetters()
	}
	return ref, r.queues[ref.queue]
}

func (r *modelRun) receive() {
	ref, q := r.ref()
	visibility := r.model.queues[ref.queue].set.visibility
	var options []ReceiveOption
	if ref.dead || r.oneIn(2) {
		visibility = r.ms(8)
		if ref.dead { // never at the instant when a letter comes: see dropOldest
			visibility += 300 * time.Microsecond
		}
		options = append(options, WithVisibilityTimeout(visibility))
	}
	d, ok, err := q.TryReceive(r.ctx, options...)
	var got []Delivery[int]
	if ok {
		got = append(got, d)
		r.deliveries = append(r.deliveries, d)
	}
	r.say("receive from %s for %v: #%d: %d, %v", q.Name(), visibility, len(r.deliveries)-1, d.Body, err)
	r.agree(err, 0, got, func(m *modelTopic) (int, []*modelMessage, error) {
		x, err := m.receive(ref, visibility)
		if x == nil {
			return 0, nil, err
		}
		return 0, []*modelMessage{x}, err
	})
}

// delivery draws one of the deliveries that own their message or, once in six
// times, any of the latest.
func (r *modelRun) delivery() (n int, ok bool) {
	var live []int
	for n := range r.deliveries {
		if _, _, err := r.model.own(n); err == nil {
			live = append(live, n)
		}
	}
	if r.oneIn(6) || len(live) == 0 {
		if len(r.deliveries) == 0 {
			return 0, false
		}
		return len(r.deliveries) - 1 - r.draw(min(len(r.deliveries), modelLatest)), true
	}
	return live[r.draw(len(live))], true
}

func (r *modelRun) settle() {
	n, ok := r.delivery()
	if !ok {
		return
	}
	d := r.deliveries[n]
	wait := r.ms(5)
	var err, cause error
	var do func(m *modelTopic) error
	say := func(what string) { r.say("%s #%d (%d): %v", what, n, d.Body, err) }
	switch r.draw(11) {
	default:
		err = d.Ack(r.ctx)
		do = func(m *modelTopic) error { return m.settle(n, Acked, 0, nil) }
		say("ack")
	case 3, 4:
		err = d.Nack(r.ctx)
		do = func(m *modelTopic) error { return m.settle(n, Nacked, -1, nil) }
		say("nack")
	case 5:
		if r.oneIn(20) {
			err = d.NackAfter(r.ctx, -1)
			do = func(m *modelTopic) error { return ErrInvalidOption }
			say("nack after -1ns")
			break
		}
		err = d.NackAfter(r.ctx, wait)
		do = func(m *modelTopic) error { return m.settle(n, Nacked, wait, nil) }
		say(fmt.Sprintf("nack after %v", wait))
	case 6:
		err = d.Settle(r.ctx, errBusy)
		do = func(m *modelTopic) error { return m.settle(n, Failed, -1, errBusy) }
		say("fail")
	case 7:
		err = d.Settle(r.ctx, fmt.Errorf("wrapped: %w", RetryAfter(errBusy, wait)))
		do = func(m *modelTopic) error { return m.settle(n, Failed, wait, errBusy) }
		say(fmt.Sprintf("retry after %v", wait))
	case 8:
		err = d.Settle(r.ctx, Snooze(wait))
		do = func(m *modelTopic) error { return m.settle(n, Snoozed, wait, nil) }
		say(fmt.Sprintf("snooze for %v", wait))
	case 9:
		err = d.Settle(r.ctx, Permanent(errBusy))
		do = func(m *modelTopic) error { return m.settle(n, PermanentlyFailed, 0, errBusy) }
		say("fail for ever")
	case 10:
		cause = fmt.Errorf("publish to another: %w", ErrClosed)
		err = d.Settle(r.ctx, cause)
		do = func(m *modelTopic) error { return m.settle(n, Released, -1, ErrClosed) }
		say("release")
	}
	r.erring(err, do)
}

func (r *modelRun) extend() {
	n, ok := r.delivery()
	if !ok {
		return
	}
	by := r.ms(6)
	if r.model.deliveries[n].ref.dead {
		by += 300 * time.Microsecond
	}
	if r.oneIn(20) {
		by = 0
	}
	err := r.deliveries[n].Extend(r.ctx, by)
	r.say("extend #%d by %v: %v", n, by, err)
	r.erring(err, func(m *modelTopic) error { return m.extend(n, by) })
}

// sleep lets time pass, up to a whole millisecond. It stops at each instant at
// which something happens, so that this is seen to happen there.
func (r *modelRun) sleep() {
	d := r.ms(4)
	end := (r.model.now + d).Truncate(time.Millisecond)
	early := r.oneIn(4)
	r.say("sleep until %v", end)
	r.asleep = true
	defer func() { r.asleep = false }()
	for r.model.now < end {
		next := min(r.model.nextInstant(), end)
		if before := next - 1; early && before > r.model.now { // nothing comes early
			time.Sleep(before - r.model.now)
			r.erring(nil, func(m *modelTopic) error { m.now = before; return nil })
		}
		time.Sleep(next - r.model.now)
		r.erring(nil, func(m *modelTopic) error { m.now = next; m.tick(); return nil })
	}
}

func (r *modelRun) pause() {
	ref, q := r.ref()
	paused := r.draw(3) == 0
	act := q.Resume
	if paused {
		act = q.Pause
	}
	err := act(r.ctx)
	r.say("pause %s %t: %v", q.Name(), paused, err)
	r.erring(err, func(m *modelTopic) error { return m.pause(ref, paused) })
}

func (r *modelRun) purge() {
	ref, q := r.ref()
	n, err := q.Purge(r.ctx)
	r.say("purge %s: %d, %v", q.Name(), n, err)
	r.agree(err, n, nil, func(m *modelTopic) (int, []*modelMessage, error) {
		n, err := m.purge(ref)
		return n, nil, err
	})
}

func (r *modelRun) redrive() {
	k := r.draw(len(r.queues))
	var bodies map[int]bool
	var options []RedriveOption
	if d := r.model.queues[k].dead; d != nil && r.oneIn(2) {
		bodies = map[int]bool{-1: true}
		ids := []string{"of no message"}
		for _, x := range d.messages {
			if r.oneIn(2) {
				bodies[x.Body] = true
				ids = append(ids, r.ids[x.Body])
			}
		}
		options = append(options, RedriveIDs(ids...))
	}
	var moved int
	err := r.patient(func(ctx context.Context) (err error) {
		moved, err = r.queues[k].Redrive(ctx, options...)
		return err
	})
	r.say("redrive %s %v: %d, %v", r.queues[k].Name(), bodies, moved, err)
	r.agree(err, moved, nil, func(m *modelTopic) (int, []*modelMessage, error) {
		n, err := m.redrive(k, bodies)
		return n, nil, err
	})
}

// peek looks at some messages, and tries to settle what it sees.
func (r *modelRun) peek() {
	ref, q := r.ref()
	most := r.draw(4)
	ds, err := q.Peek(r.ctx, most)
	r.say("peek at %d of %s: %d, %v", most, q.Name(), len(ds), err)
	r.agree(err, 0, ds, func(m *modelTopic) (int, []*modelMessage, error) {
		if most == 0 {
			return 0, nil, ErrInvalidOption
		}
		xs := m.at(ref).visible()
		return 0, xs[:min(most, len(xs))], nil
	})
	for _, d := range ds {
		want := ErrStale
		if r.model.at(ref).closed {
			want = ErrClosed
		}
		r.erring(d.Ack(r.ctx), func(m *modelTopic) error { return want })
	}
}

func (r *modelRun) closeQueue() {
	ref, q := r.ref()
	err := q.Close()
	r.say("close %s: %v", q.Name(), err)
	r.erring(err, func(m *modelTopic) error { return m.close(ref) })
}

// shutDown begins a Shutdown; the program goes on.
func (r *modelRun) shutDown() {
	if r.shutdown != nil {
		return
	}
	d := r.ms(20) + 77*time.Microsecond // at an instant of its own
	r.say("shutdown within %v", d)
	r.shutdown = make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(r.ctx, d)
		defer cancel()
		r.shutdown <- r.top.Shutdown(ctx)
	}()
	r.erring(nil, func(m *modelTopic) error { m.shutdown(m.now + d); return nil })
}

// finish closes the topic and looks at what is left.
func (r *modelRun) finish() {
	r.say("close")
	require.NoError(r.t, r.top.Close())
	synctest.Wait()
	if !r.done && r.shutdown == nil {
		r.ended(r.top.Shutdown(r.ctx)) // says what was left
	}
	r.erring(nil, func(m *modelTopic) error { m.endAll(nil); return nil })
	want := map[string][]Message[int]{}
	for _, l := range r.model.lefts {
		for _, q := range r.model.queues {
			if q.name == l.Queue { // the last of its name
				want[q.name] = q.left
			}
		}
	}
	got := r.top.Leftovers()
	require.Len(r.t, got, len(want))
	for name, ms := range got {
		require.Equal(r.t, want[name], r.leftovers(ms))
	}
	require.False(r.t, isOpen(r.top.Done()), "something runs still")
}

func (r *modelRun) step() {
	k := r.draw(64)
	if len(r.queues) == 0 {
		k = 0
	}
	switch {
	case k < 2:
		r.open()
	case k < 17:
		r.publish()
	case k < 32:
		r.receive()
	case k < 43:
		r.settle()
	case k < 46:
		r.extend()
	case k < 56:
		r.sleep()
	case k < 58:
		r.pause()
	case k < 61:
		r.redrive()
	case k == 61:
		r.peek()
	case k == 62:
		r.purge()
	case r.oneIn(3):
		r.closeQueue()
	case r.oneIn(6):
		r.shutDown()
	}
}

// runModel runs one program.
func runModel(t *testing.T, program []byte) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		r := &modelRun{t: t, ctx: ctx, program: program, ids: map[int]string{}, epoch: time.Now()}
		defer func() {
			if t.Failed() {
				t.Logf("the program:\n%s", r.log.String())
				r.top.Close()
			}
		}()
		r.model = &modelTopic{window: time.Hour}
		var options []TopicOption
		if r.draw(2) == 1 {
			r.model.ordering = true
			options = append(options, WithOrdering())
			r.keyed = r.oneIn(2)
		}
		r.rich = r.keyed || r.oneIn(4)
		if r.draw(2) == 1 {
			r.model.window, r.model.maxIDs = r.ms(20), 1+r.draw(4)
			options = append(options, WithDeduplication(r.model.window, r.model.maxIDs))
		}
		if r.draw(2) == 1 {
			r.model.retention = 1 + r.draw(5)
			options = append(options, WithRetention(r.model.retention))
		}
		r.top = newTopic[int](t, options...)
		r.say("%+v", *r.model)
		for range r.draw(4) {
			r.open()
		}
		for n := 0; len(r.program) > 0 && n < 1000 && !r.model.past(); n++ {
			r.step()
		}
		r.finish()
	})
}

// past reports whether the topic has been closed for a while.
func (m *modelTopic) past() bool {
	return m.phase == modelTopicDone && m.now > m.limit+5*time.Millisecond
}

func TestModelRandomPrograms(t *testing.T) {
	seed := rand.Uint64()
	for k := range uint64(300) {
		if !t.Run("", func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, k))
			program := make([]byte, 400)
			for i := range program {
				program[i] = byte(rnd.Uint32())
			}
			t.Logf("seed %d, program %d", seed, k)
			runModel(t, program)
		}) {
			return
		}
	}
}

func FuzzModel(f *testing.F) {
	for k := range uint64(8) {
		rnd := rand.New(rand.NewPCG(1, k))
		program := make([]byte, 100+50*k)
		for i := range program {
			program[i] = byte(rnd.Uint32())
		}
		f.Add(program)
	}
	f.Fuzz(runModel)
}

// What the model found.

func TestARefusedPublishCountsNoDuplicates(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t, WithDeduplication(time.Minute, 10))
		openQueue(t, top, "q", WithCapacity(1))
		publish(t, top, 1)
		twice := Message[int]{Body: 2, DeduplicationID: "id"}
		require.ErrorIs(t, top.TryPublishMessages(ctx, twice, twice), ErrQueueFull)
		require.Zero(t, top.Stats().Duplicates)
		top.Close()
	})
}

func TestAClosedTopicThatRetainedIsClosed(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t, WithRetention(1))
		top.Close()
		_, err := top.OpenQueue(ctx, "q", WithReplay(1))
		require.ErrorIs(t, err, ErrClosed)
	})
}

func TestADeadLetterQueueMadeDuringAShutdownGivesOutLetters(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "q")
		publish(t, top, 1, 2)
		done := make(chan error, 1)
		go func() { done <- top.Shutdown(ctx) }()
		synctest.Wait()
		require.NoError(t, receive(t, q).Settle(ctx, Permanent(errBusy)))
		require.NoError(t, receive(t, q.DeadLetters()).Ack(ctx))
		require.NoError(t, receive(t, q).Ack(ctx))
		require.NoError(t, <-done)
	})
}

func TestADeadLetterQueueDropsWhatWasPublishedFirst(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "q", WithDeadLetterCapacity(2), WithDeadLetterOverflow(DropOldest))
		publish(t, top, 1, 2, 3)
		one, two, three := receive(t, q), receive(t, q), receive(t, q)
		for _, d := range []Delivery[int]{two, one, three} { // die in another order
			require.NoError(t, d.Settle(ctx, Permanent(errBusy)))
		}
		require.Equal(t, []int{2, 3}, bodies(t, q.DeadLetters()))
		top.Close()
	})
}
