package fanout

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// Hooks are functions that are called as things happen, as those of
// net/http/httptrace are: set the ones you want. Each is called in the goroutine
// that caused the event, after the fact, with no lock held, possibly
// concurrently with others; a panic in one is recovered and logged. One that calls
// [runtime.Goexit] ends that goroutine, of a worker too, which is replaced; what
// remained to be done is done first. Those that are nil cost nothing.
//
// Since calls may overtake each other, each event carries Seq: the events of
// one queue happened in the order of their numbers.
type Hooks struct {
	// Published is called for each message that a topic accepted.
	// Event.Queue is empty and Event.Seq counts the topic's messages.
	Published func(Event)
	// Delivered is called when a message is handed to a consumer.
	Delivered func(Event)
	// Settled is called when an attempt ended, whatever the Cause. Wait is how
	// long the message waits before it is ready again.
	Settled func(Event)
	// DeadLettered is called when a message went to the dead-letter queue, with
	// the last attempt's Cause and Err.
	DeadLettered func(Event)
	// Parked is called when a dead message found its dead-letter queue full. On an
	// engine that failed to move it EngineFailed says why.
	Parked func(Event)
	// Redriven is called when a dead letter went back to its queue.
	Redriven func(Event)
	// Dropped is called when messages were lost in a way that the user chose,
	// told by Reason. Count says how many; MessageID is set if it is one.
	Dropped func(Event)
	// Stuck is called when a handler is still running as its visibility timeout passes.
	Stuck func(Event)
	// StuckStack is called after Stuck with the handler's stack in Event.Stack.
	// Collecting it stops the world, so it is done only if StuckStack is set, and
	// at most once a minute for each topic; for others that are stuck meanwhile
	// it isn't called.
	StuckStack func(Event)
	// Stalled is called when a publish or redrive has waited long for room in a
	// queue, ten seconds and every ten seconds more, by the one that waits.
	// Elapsed is how long, Stats tells of the queue.
	Stalled func(Event)
	// EngineFailed is called when an engine failed at what the queue does by itself:
	// receiving for its workers, or telling of a time-out or of what a handler
	// returned. It is tried again, or the lease ends and the message comes again.
	// Err says what happened.
	EngineFailed func(Event)
	// Late is called when a handler returned an error, told by Err, after its
	// delivery had been settled or lost, so that nothing could be done with it.
	Late func(Event)
}

// An Event is what a hook is told.
type Event struct {
	Topic, Queue string
	// Seq orders the events of one queue.
	Seq uint64
	// Time is when it happened.
	Time time.Time
	// MessageID is the message's ID, empty if the event is about several.
	MessageID string
	// PublishedAt is when that message was published, zero if there are several.
	PublishedAt time.Time
	// Attempt is the number of the attempt, 0 if there was none.
	Attempt int
	Cause   Cause
	Err     error
	// Elapsed is how long the delivery lasted.
	Elapsed time.Duration
	// Wait is how long until the message is ready again.
	Wait time.Duration
	// Reason is why messages were dropped.
	Reason DropReason
	// Subscriber is the file and line that subscribed, for Stuck and Late.
	Subscriber string
	// Stack is the handler's stack, for StuckStack.
	Stack string
	// Stats is a snapshot of the queue, for Stalled.
	Stats *Stats
	// Count is the number of messages, 1 for most events.
	Count int

	goroutine *string // whose stack StuckStack tells
}

// A DropReason says why messages were lost.
type DropReason uint8

const (
	// DroppedOldest is the [DropOldest] policy of a full queue.
	DroppedOldest DropReason = iota + 1
	// DroppedNewest is the [DropNewest] policy of a full queue.
	DroppedNewest
	// DroppedByClose is a queue or topic that was closed with messages in it.
	DroppedByClose
	// DroppedByPurge is [Queue.Purge].
	DroppedByPurge
	// DroppedByDelete is [Queue.Delete].
	DroppedByDelete

	lastReason = DroppedByDelete
)

func (r DropReason) String() string {
	switch r {
	case 0:
		return "none"
	case DroppedOldest:
		return "drop oldest"
	case DroppedNewest:
		return "drop newest"
	case DroppedByClose:
		return "close"
	case DroppedByPurge:
		return "purge"
	case DroppedByDelete:
		return "delete"
	}
	return fmt.Sprintf("DropReason(%d)", uint8(r))
}

// kind numbers the hooks, and what else can be reported.
type kind uint8

const (
	published kind = iota
	delivered
	settled
	deadLettered
	parkedEvent
	redriven
	dropped
	stuckEvent
	stuckStackEvent
	stalledEvent
	engineFailed
	late
	lateCancelled // late, because the handler heard that it was: hooked, not logged
	panickedEvent // settled by a panic, or by an exit: logged, hooked as settled
	exitedEvent
	kinds
)

func (h *Hooks) byKind() [kinds]func(Event) {
	return [kinds]func(Event){
		h.Published, h.Delivered, h.Settled, h.DeadLettered, h.Parked, h.Redriven, h.Dropped, h.Stuck, h.StuckStack, h.Stalled, h.EngineFailed, h.Late, h.Late,
	}
}

// logLines are the kinds that are logged as well as hooked, with their lines.
var logLines = [kinds]string{
	deadLettered:  "fanout: messages went to the dead-letter queue",
	panickedEvent: "fanout: attempts ended in a panic",
	exitedEvent:   "fanout: attempts ended in runtime.Goexit",
	parkedEvent:   "fanout: the dead-letter queue did not take messages, they are parked",
	dropped:       "fanout: messages dropped",
	stuckEvent:    "fanout: handler is still running after its visibility timeout",
	stalledEvent:  "fanout: a publish waits for room in a queue",
	engineFailed:  "fanout: the engine failed",
	late:          "fanout: handler failed after its delivery had been settled or lost",
}

// pending is what has to be told once the locks are released: events, contexts to be
// cancelled, and calls of engines. It is kept under the lock of the queue or topic that
// it comes from, and performed by whoever unlocks that. The zero value is nothing, and
// costs nothing.
//
// It is performed last: a hook may block, publish, or end its goroutine, and nobody
// else may wait meanwhile for what there is room for.
type pending struct{ list *notices }

type notices struct {
	events  []heldEvent
	cancels []heldCancel
	calls   []func() // of engines
}

type heldEvent struct {
	to   *reporter
	kind kind
	Event
}

type heldCancel struct {
	ctx   *handlerContext
	cause error
}

// any reports whether there is anything.
func (p *pending) any() bool { return p.list != nil }

func (p *pending) get() *notices {
	if p.list == nil {
		p.list = new(notices)
	}
	return p.list
}

// take empties p and returns what it was.
func (p *pending) take() (all pending) {
	if p.list != nil {
		all, p.list = *p, nil
	}
	return all
}

// join adds what more holds, behind what p does.
func (p *pending) join(more pending) {
	if p.list == nil {
		*p = more
		return
	}
	if more.list != nil {
		n := p.list
		n.events = append(n.events, more.list.events...)
		n.cancels = append(n.cancels, more.list.cancels...)
		n.calls = append(n.calls, more.list.calls...)
	}
}

// cancel has a context cancelled.
func (p *pending) cancel(ctx *handlerContext, cause error) {
	n := p.get()
	n.cancels = append(n.cancels, heldCancel{ctx, cause})
}

// call has f called.
func (p *pending) call(f func()) {
	n := p.get()
	n.calls = append(n.calls, f)
}

// event has e told.
func (p *pending) event(to *reporter, k kind, e Event) {
	n := p.get()
	n.events = append(n.events, heldEvent{to, k, e})
}

// perform does all of it. No lock is held.
func (p *pending) perform() {
	if p.list == nil {
		return
	}
	all := p.take()
	all.cancelAll()
	for _, call := range all.list.calls {
		call()
	}
	tellAll(all.list.events)
}

// cancelAll cancels the contexts, which keeps nobody waiting.
func (p *pending) cancelAll() {
	if p.list == nil {
		return
	}
	for _, c := range p.list.cancels {
		c.ctx.cancel(c.cause)
	}
	p.list.cancels = nil
}

// tellAll tells events, all of them even if a hook ends the goroutine.
func tellAll(events []heldEvent) {
	defer func() {
		if len(events) > 0 {
			tellAll(events)
		}
	}()
	for len(events) > 0 {
		e := &events[0]
		events = events[1:]
		e.to.tell(e.kind, e.Event)
	}
}

// hooked reports whether anybody wants to hear of events of kind k.
func (q *Queue[T]) hooked(k kind) bool { return q.core.funcs[k] != nil || logLines[k] != "" }

// noteLocked has an event told, if anybody wants to hear of it.
func (q *Queue[T]) noteLocked(k kind, e Event) {
	if !q.hooked(k) {
		return
	}
	q.seq++
	e.Seq, e.Time = q.seq, time.Now()
	q.pending.event(&q.report, k, e)
}

// noteItemLocked is noteLocked for an event about one message.
func (q *Queue[T]) noteItemLocked(k kind, it *item[T], e Event) {
	if !q.hooked(k) {
		return
	}
	e.MessageID, e.PublishedAt, e.Count = q.core.id(it.seq, it.at, it.ext), q.core.time(it.at), 1
	q.noteLocked(k, e)
}

// noteUnreturnedLocked notes that an attempt ended in a panic or an exit, if it did.
func (q *Queue[T]) noteUnreturnedLocked(it *item[T], v verdict, attempt int, elapsed time.Duration) {
	k := panickedEvent
	switch v.cause {
	case Panicked:
	case Exited:
		k = exitedEvent
	default:
		return
	}
	q.noteItemLocked(k, it, Event{Attempt: attempt, Cause: v.cause, Err: v.err, Stack: v.stack, Elapsed: elapsed})
}

// deliveredLocked notes that d was made.
func (q *Queue[T]) deliveredLocked(d *Delivery[T]) {
	if q.hooked(delivered) {
		q.noteLocked(delivered, Event{MessageID: d.ID(), PublishedAt: d.PublishedAt(), Attempt: d.Attempt(), Count: 1})
	}
}

// A reporter tells a queue's events to the hooks and the log. It keeps the log
// to a line a second for each kind: the first of a kind is logged at once, what
// comes within a second after is counted, and told by a one-shot timer.
//
// Its mutex guards the fields below it, is held for a few stores and is the
// last of all locks.
type reporter struct {
	core  *core
	queue string

	mu      sync.Mutex
	kinds   *[kinds]backlog // made when there is first something to log
	timer   *time.Timer
	armed   bool // a flush is to come
	stopped bool
}

// backlog is what of a kind has not been logged yet.
type backlog struct {
	until int64 // no line before this instant
	count int
	last  Event
}

const logEvery = int64(time.Second)

// tell calls hooks and logs. No lock is held.
func (r *reporter) tell(k kind, e Event) {
	e.Topic, e.Queue = r.core.name, r.queue
	if k == stuckStackEvent {
		if e.Stack = r.core.stackOf(e.goroutine); e.Stack == "" {
			return
		}
	}
	if logLines[k] != "" {
		defer r.toLog(k, e) // even if the hook ends the goroutine
	}
	if f := r.core.funcs[k]; f != nil {
		r.core.call(f, e)
	}
}

// toLog logs an event, now or later.
func (r *reporter) toLog(k kind, e Event) {
	r.mu.Lock()
	if r.kinds == nil {
		r.kinds = new([kinds]backlog)
	}
	b := &r.kinds[k]
	now := r.core.now()
	if now < b.until && b.until <= now+logEvery && !r.stopped { // else the clock is that of another bubble
		b.count += e.Count
		b.last = e
		if !r.armed {
			r.armed = true
			r.core.live.Add(1)
			wait := time.Duration(b.until - now)
			r.timer = time.AfterFunc(wait, r.flush)
		}
		r.mu.Unlock()
		return
	}
	e.Count += b.count
	*b = backlog{until: now + logEvery}
	r.mu.Unlock()
	r.log(k, e)
}

// flush logs what has waited for its second. Run by the timer; stop waits for
// it through the topic's count of what is alive.
func (r *reporter) flush() {
	defer r.core.release()
	r.flushDue(false)
}

func (r *reporter) flushDue(all bool) {
	var due [kinds]backlog
	r.mu.Lock()
	now := r.core.now()
	next := int64(-1)
	for k := range kinds {
		if r.kinds == nil {
			break
		}
		b := &r.kinds[k]
		switch {
		case b.count == 0:
		case all || b.until <= now:
			due[k] = *b
			*b = backlog{until: now + logEvery}
		case next < 0 || b.until < next:
			next = b.until
		}
	}
	if !all {
		r.armed = next >= 0 && !r.stopped // else stop logs the rest
		if r.armed {
			r.core.live.Add(1)
			r.timer = time.AfterFunc(time.Duration(next-now), r.flush)
		}
	}
	r.mu.Unlock()
	each(len(due), func(k int) {
		if b := &due[k]; b.count > 0 {
			b.last.Count = b.count
			r.log(kind(k), b.last)
		}
	})
}

// stop logs what is left, and from now on everything at once.
func (r *reporter) stop() {
	r.mu.Lock()
	r.stopped = true
	ended := r.armed && r.timer.Stop()
	if ended {
		r.armed = false
	}
	r.mu.Unlock()
	if ended {
		defer r.core.release()
	}
	r.flushDue(true)
}

func (r *reporter) log(k kind, e Event) {
	attrs := []slog.Attr{slog.String("topic", e.Topic), slog.String("queue", e.Queue), slog.Int("count", e.Count)}
	if e.Reason != 0 {
		attrs = append(attrs, slog.String("reason", e.Reason.String()))
	}
	if e.MessageID != "" {
		attrs = append(attrs, slog.String("message_id", e.MessageID))
	}
	if e.Subscriber != "" {
		attrs = append(attrs, slog.String("subscriber", e.Subscriber))
	}
	if e.Attempt != 0 {
		attrs = append(attrs, slog.Int("attempt", e.Attempt))
	}
	if e.Cause != 0 {
		attrs = append(attrs, slog.String("cause", e.Cause.String()))
	}
	if e.Elapsed != 0 {
		attrs = append(attrs, slog.Duration("elapsed", e.Elapsed))
	}
	if s := e.Stats; s != nil {
		attrs = append(attrs, slog.Int("depth", s.Unsettled()), slog.Int("ready", s.Ready), slog.Int("in_flight", s.InFlight),
			slog.Int("workers", s.Workers), slog.Int("stuck", s.Stuck))
	}
	if e.Err != nil {
		attrs = append(attrs, slog.Any("error", e.Err))
	}
	if e.Stack != "" {
		attrs = append(attrs, slog.String("stack", e.Stack))
	}
	r.core.log(logLines[k], attrs...)
}

// call runs a hook and survives its panic.
func (c *core) call(f func(Event), e Event) {
	defer func() {
		if p := recover(); p != nil {
			c.log("fanout: a hook panicked", slog.String("topic", e.Topic), slog.String("queue", e.Queue), slog.Any("panic", p))
		}
	}()
	f(e)
}

// both is a hook that calls two, either of which may be nil. However the first
// ends, the second is called.
func (c *core) both(first, second func(Event)) func(Event) {
	if first == nil || second == nil {
		if first == nil {
			return second
		}
		return first
	}
	return func(e Event) {
		defer second(e)
		c.call(first, e)
	}
}

func (c *core) log(line string, attrs ...slog.Attr) {
	defer func() { _ = recover() }() // a log that panics has nobody to tell
	l := c.logger
	if l == nil {
		l = slog.Default()
	}
	l.LogAttrs(context.Background(), slog.LevelWarn, line, attrs...)
}
