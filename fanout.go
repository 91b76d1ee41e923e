// Package fanout fans messages out, inside one process, from topics into bounded
// queues, as Amazon SNS and SQS do between services.
//
// The nouns, and how they relate:
//
//   - A [Topic] is where messages of one type are published. Each message goes
//     to every queue of the topic.
//   - A [Queue] is one subscription: it keeps its own copy of each message until
//     a consumer acknowledges it, and holds no more than its capacity.
//   - A [Delivery] is one handing-over of a message to one consumer. It hides the
//     message from the others for a visibility timeout, and ends when it is
//     settled: acknowledged, given back to be retried, or dead-lettered.
//   - A [Subscriber] is a pool of workers that run a [Handler] over a queue.
//     Those who would rather ask call [Queue.Receive] or range over
//     [Queue.Deliveries].
//   - A dead-letter queue is a [Queue] of messages whose attempts are spent,
//     each with the history of its attempts. [Queue.Redrive] sends them back.
//
// A payment is published once; the inventory and the shipping service each work
// from a queue of their own, so neither floods nor fails the other:
//
//	payments, err := fanout.NewTopic[PaymentSucceeded]("payments")
//	_, err = payments.Subscribe(ctx, "inventory", reserveStock, fanout.WithConcurrency(8))
//	_, err = payments.Subscribe(ctx, "shipping", bookCarrier, fanout.WithMaxAttempts(10))
//	err = payments.Publish(ctx, PaymentSucceeded{OrderID: "o-17", Cents: 4999})
//	...
//	err = payments.Shutdown(ctx) // stop intake, work off, wait for handlers
//
// # Delivery guarantees
//
//   - All or none. Publish returns nil: the message is in every queue whose
//     filter accepts it, save where that queue's own Drop policy dropped it. It
//     returns an error: it is in none, and nothing was dropped for it. The same
//     holds for a batch.
//   - Bounded. A queue never holds more unsettled messages than its capacity:
//     ready, delayed, retrying, parked and in flight together. So a retry never
//     fails for want of room.
//   - At least once. An accepted message is delivered until it is acknowledged
//     or dead-lettered. The only losses are those you chose, by a Drop policy or
//     by Close; each is counted, told to a hook, and logged.
//   - A delivery is fenced. Settling one whose visibility timeout has passed
//     returns [ErrStale] and never touches the newer delivery; a second settle
//     returns [ErrSettled].
//   - No poison spin. A failed message waits before it is retried, at least a
//     millisecond, and is dead-lettered after exactly [WithMaxAttempts] spent attempts.
//   - Attempts are counted by cause. Snoozes, and releases by a shutdown, spend
//     none. The dead letter carries the whole history: when, how long, which
//     cause, which error, the stack of a panic.
//   - Nothing is lost on the way to the dead. A message is in its queue or in its
//     dead-letter queue; if that is full it is parked where it is.
//   - Clean end. [Topic.Shutdown] works the queues off and says, queue by queue,
//     what is left; [Topic.Leftovers] hands it out. [Topic.Done] closes when no
//     goroutine and no timer of the topic remains.
//
// What it does not do: messages live in memory and end with the process; there
// is no exactly-once, no priority, no wildcard, no network.
//
// # Concurrency
//
// Every method may be called from any goroutine, from handlers and hooks too.
// No lock is held while user code runs: handlers, filters, backoffs, hooks, loggers.
//
//  1. All queues see one order of messages, and one publisher's messages in the
//     order it published them. Queues are not in step with each other.
//  2. A queue gives out what has become due (retries, delays that end, time-outs)
//     before its backlog, and the backlog in the order of publication. With
//     several consumers, or after a retry, messages can be handled out of order.
//  3. A handler runs in at most [WithConcurrency] goroutines at once, and each of
//     its deliveries belongs to one of them.
//  4. A publish with a full [Block] queue waits in the order of arrival. One that
//     came later goes ahead only if it shares no queue with it.
//  5. A slow, failing, panicking, blocked or exiting handler affects no other
//     subscriber, except by filling its queue, if that blocks publishers.
//
// Less formally: publish from anywhere, and let each subscriber be as slow as it
// must; its queue is what it may cost you.
//
// What is expected of a handler: that it can meet a message twice, and that it
// returns when its context is cancelled. One that doesn't keeps its worker until
// it returns, is counted in [Stats].Stuck, and its message goes to others. A
// handler that publishes should pass its context on: a publish that could only
// wait for handlers that wait for it gets [ErrWouldDeadlock] then. One that needs
// a lock which a publisher holds while it waits can't be helped; such a wait ends
// with its context, and is reported to [Hooks].Stalled and the log while it lasts.
//
// # Testing
//
// The package uses time only through package time, never blocks while it holds a
// mutex, and has no package-level goroutine or timer: in [testing/synctest] its
// time is virtual, and every timeout, retry and delay comes at its exact
// instant. An idle topic owns no goroutine, so that a test that forgets nothing
// ends clean.
package fanout

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Errors returned by this package, to be matched with [errors.Is]. What is
// returned wraps them and names the topic, the queue and the value involved.
var (
	// ErrClosed is returned by every operation on a topic that shuts down or is
	// closed, and on a closed queue. A Publish that returns it has published
	// nothing.
	ErrClosed = errors.New("fanout: closed")

	// ErrQueueFull is returned by a publish when a queue with the [Reject]
	// policy is full, and by TryPublish when it would have to wait for any queue.
	ErrQueueFull = errors.New("fanout: queue full")
	// ErrBatchTooLarge is returned by PublishMessages for a batch with more
	// messages for a [Block] or [Reject] queue than that queue's capacity.
	ErrBatchTooLarge = errors.New("fanout: batch too large")
	// ErrWouldDeadlock is returned by a publish inside a handler that could only
	// wait for ever: for a full queue all of whose consumers are handlers that
	// wait in the same cycle. It names the cycle, over several topics too. The
	// publish must get a context that comes from the handler's.
	ErrWouldDeadlock = errors.New("fanout: would deadlock")
	// ErrInvalidMessage is returned by PublishMessages for a message with a
	// field that can't be; it names the message, the field and the value.
	ErrInvalidMessage = errors.New("fanout: invalid message")

	// ErrStale is returned when a delivery is settled or extended that no longer
	// owns its message: its visibility timeout has passed, or the message was
	// taken back. Nothing has happened to the message.
	ErrStale = errors.New("fanout: stale delivery")
	// ErrSettled is returned when a delivery is settled or extended that was
	// settled before. Nothing has happened to the message.
	ErrSettled = errors.New("fanout: delivery already settled")

	// ErrInvalidOption is returned where options or other arguments are given;
	// it names the option and the value.
	ErrInvalidOption = errors.New("fanout: invalid option")
	// ErrUnsupported is returned for what this topic or queue cannot do.
	ErrUnsupported = errors.New("fanout: unsupported")
)

// Unlimited is the value that stands for no limit, in [WithCapacity],
// [WithMaxAttempts] and [WithDeadLetterCapacity]. Zero never does.
const Unlimited = int(^uint(0) >> 1)

// A Message is what a publisher hands in: a body, and what it wants to say
// about it. It is an input only; what a consumer gets is a [Delivery].
type Message[T any] struct {
	// Body is handed to every queue as it is, not copied: what it points to is
	// shared by all its receivers and should not be changed.
	Body T

	// ID identifies the message in deliveries, dead letters, hooks and logs. By
	// default it is a UUID of version 7, made from the time of publication, a
	// counter and the topic's random bits. IDs are not checked for uniqueness.
	ID string

	// Attributes travel with the message. Publishing copies the map.
	Attributes map[string]string

	// Delay hides the message in every queue for so long after its publication;
	// it then goes before the backlog. Zero leaves it to the queue's
	// [WithDelay]; a negative delay is [ErrInvalidMessage].
	// It can't be combined with an ordering key, as in SQS FIFO: [ErrUnsupported].
	Delay time.Duration

	// TimeToLive limits the start of a delivery: a message that was not given
	// to a consumer within it is dead-lettered as [Expired], and so is one that
	// was, and failed after it. It counts from the publication, or from a
	// redrive. Zero leaves it to the queue's [WithTimeToLive]; a negative one is
	// [ErrInvalidMessage].
	TimeToLive time.Duration

	// OrderingKey orders the message among those with the same key: in each
	// queue one of them at a time is in flight, and they are delivered in the
	// order of publication, retries and snoozes included, while other keys go
	// on. It needs a topic made [WithOrdering], else it is [ErrUnsupported].
	OrderingKey string

	// DeduplicationID makes the topic accept the message once: while it
	// remembers the ID, publishing it again returns nil and does nothing. It
	// needs a topic made [WithDeduplication], else it is [ErrUnsupported].
	DeduplicationID string
}

// A Handler works on one delivery. What it returns settles the delivery, unless
// the handler settled it itself: nil acknowledges, an error makes the queue
// deliver the message again after its backoff, and [Permanent], [RetryAfter]
// and [Snooze] say it more exactly. A panic or [runtime.Goexit] counts as a
// failed attempt and is recorded as such; neither stops the worker.
//
// The context has no deadline, since [Delivery.Extend] can move it, and carries
// no value of the publisher's. It is cancelled, with a cause that wraps
// [ErrStale] or [ErrClosed], when the visibility timeout passes and when the
// subscriber, the queue or the topic stops while the handler runs. It belongs
// to this run of the handler: hand context.WithoutCancel(ctx) to what outlives it.
type Handler[T any] func(ctx context.Context, d Delivery[T]) error

// A Delivery is one handing-over of one message to one consumer. It is a value:
// copies are the same delivery, and changing a copy's Body changes nobody
// else's. It owns its message until it is settled, or until its visibility
// timeout passes, whichever comes first; after that every method that settles
// returns [ErrSettled] or [ErrStale] and touches nothing, a newer delivery of
// the same message least of all. At the very instant of the deadline either may
// come first.
//
// Methods that settle and extend take a context for engines that do I/O. In
// memory they never wait and ignore it, even a cancelled one: work that is done
// can be acknowledged during a shutdown. All methods may be called concurrently.
type Delivery[T any] struct {
	// Body is what was published. It is shared with the other queues' deliveries.
	Body T

	q       *Queue[T]
	ext     *extra
	hist    *history
	seq     uint64
	at      int64
	stamp   uint64
	entry   int32
	attempt int32
}

// ID is the message's ID: the publisher's, or a UUID of version 7. It is the
// same in every queue, at every attempt, and after a redrive.
func (d Delivery[T]) ID() string {
	if d.q == nil {
		return ""
	}
	return d.q.core.id(d.seq, d.at, d.ext)
}

// Attribute returns one of the message's attributes.
func (d Delivery[T]) Attribute(name string) (value string, ok bool) {
	if d.ext == nil {
		return "", false
	}
	value, ok = d.ext.attributes[name]
	return value, ok
}

// Attributes returns a copy of the message's attributes, nil if it has none.
func (d Delivery[T]) Attributes() map[string]string {
	if d.ext == nil {
		return nil
	}
	return maps.Clone(d.ext.attributes)
}

// OrderingKey is the message's ordering key, empty if it has none.
func (d Delivery[T]) OrderingKey() string {
	if d.ext == nil {
		return ""
	}
	return d.ext.key
}

// PublishedAt is when the message was published.
func (d Delivery[T]) PublishedAt() time.Time {
	if d.q == nil {
		return time.Time{}
	}
	return d.q.core.time(d.at)
}

// Attempt is the number of this attempt: 1 for the first delivery, one more for
// each attempt that was spent since the message was published or redriven.
// Snoozes and releases spend none. A dead-letter queue counts its own
// deliveries; how often the letter was tried before is in its History.
func (d Delivery[T]) Attempt() int { return int(d.attempt) }

// History returns how the attempts before this one ended, oldest first, those
// before a redrive included. A message that is retried without limit keeps its
// first attempt and the last few dozen.
func (d Delivery[T]) History() []Attempt {
	if d.hist == nil {
		return nil
	}
	return slices.Clone(d.hist.attempts)
}

// Queue is the name of the queue that made the delivery, or, in a dead-letter
// queue, of that dead-letter queue.
func (d Delivery[T]) Queue() string {
	if d.q == nil {
		return ""
	}
	return d.q.name
}

// Deadline is when the delivery's visibility timeout passes, extensions
// included, or the zero Time if the delivery no longer owns its message.
func (d Delivery[T]) Deadline() time.Time {
	if d.q == nil {
		return time.Time{}
	}
	return d.q.deadline(d.entry, d.stamp)
}

// Ack acknowledges the message: this queue is done with it.
// It returns [ErrStale], [ErrSettled] or [ErrClosed].
func (d Delivery[T]) Ack(ctx context.Context) error {
	return d.settle(verdict{cause: Acked})
}

// Nack gives the message back, to be delivered again after the queue's backoff.
// It spends an attempt. It returns [ErrStale], [ErrSettled] or [ErrClosed].
func (d Delivery[T]) Nack(ctx context.Context) error {
	return d.settle(verdict{cause: Nacked, wait: fromBackoff})
}

// NackAfter gives the message back, to be delivered again after wait, at the
// earliest after a millisecond. It spends an attempt. A negative wait is
// [ErrInvalidOption] and settles nothing; else it returns what Nack does.
func (d Delivery[T]) NackAfter(ctx context.Context, wait time.Duration) error {
	if wait < 0 {
		return fmt.Errorf("%w: NackAfter(%v): want a duration that is not negative", ErrInvalidOption, wait)
	}
	return d.settle(verdict{cause: Nacked, wait: max(wait, minWait)})
}

// Settle settles the delivery as a handler that returned err would: nil
// acknowledges, and [Permanent], [RetryAfter] and [Snooze] are understood. It
// gives those who receive for themselves the outcomes that handlers have, with
// err in the message's history. It returns [ErrStale], [ErrSettled] or [ErrClosed].
func (d Delivery[T]) Settle(ctx context.Context, err error) error {
	return d.settle(judge(err))
}

func (d Delivery[T]) settle(v verdict) error {
	if d.q == nil {
		return fmt.Errorf("%w: the zero Delivery", ErrStale)
	}
	return d.q.settle(d.entry, d.stamp, d.attempt, v)
}

// Extend makes the visibility timeout end by from now, or when it would have
// ended if that is later. As with ChangeMessageVisibility in SQS the time
// counts from the call. A duration that isn't positive is [ErrInvalidOption];
// else it returns [ErrStale], [ErrSettled] or [ErrClosed].
func (d Delivery[T]) Extend(ctx context.Context, by time.Duration) error {
	if by <= 0 {
		return fmt.Errorf("%w: Extend(%v): want a positive duration", ErrInvalidOption, by)
	}
	if d.q == nil {
		return fmt.Errorf("%w: the zero Delivery", ErrStale)
	}
	return d.q.extend(d.entry, d.stamp, by)
}

// Permanent wraps err to say that no further attempt can succeed: the message
// is dead-lettered now. Permanent(nil) is nil.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &outcome{verdict{cause: PermanentlyFailed, err: err}}
}

// RetryAfter wraps err to say that the message should be delivered again after
// wait instead of the queue's backoff, at the earliest after a millisecond. It
// spends an attempt, as any failure. RetryAfter(nil, wait) is nil.
func RetryAfter(err error, wait time.Duration) error {
	if err == nil {
		return nil
	}
	return &outcome{verdict{cause: Failed, wait: max(wait, minWait), err: err}}
}

// Snooze is an outcome, not a failure: the message is not ripe, and should be
// delivered again after wait, at the earliest after a millisecond. It spends no
// attempt, but a message that was snoozed or released a thousand times since it
// was published or redriven is dead-lettered.
func Snooze(wait time.Duration) error {
	return &outcome{verdict{cause: Snoozed, wait: max(wait, minWait)}}
}

// outcome is a verdict as an error, for a handler to return.
type outcome struct{ verdict }

func (o *outcome) Error() string {
	if o.cause == Snoozed {
		return fmt.Sprintf("fanout: snooze for %v", o.wait)
	}
	return o.err.Error()
}

func (o *outcome) Unwrap() error { return o.err }

// A verdict says how a delivery ends.
type verdict struct {
	cause Cause
	wait  time.Duration // until the next delivery; or fromBackoff
	err   error
	stack string
}

const (
	minWait                   = time.Millisecond
	fromBackoff time.Duration = -1
	// passesLimit is after how many snoozes and releases a message is dead.
	passesLimit = 1000
)

// judge turns what a handler returned into a verdict.
func judge(err error) verdict {
	if err == nil {
		return verdict{cause: Acked}
	}
	var o *outcome
	if errors.As(err, &o) {
		v := o.verdict
		if v.cause != Snoozed {
			v.err = err
		}
		return v
	}
	if errors.Is(err, ErrClosed) {
		return verdict{cause: Released, wait: fromBackoff, err: err}
	}
	return verdict{cause: Failed, wait: fromBackoff, err: err}
}

// A Cause says how an attempt ended.
type Cause uint8

// The causes. All but Acked, Snoozed and Released spend one of the message's attempts.
const (
	Acked             Cause = iota + 1 // acknowledged
	Failed                             // the handler returned an error
	Panicked                           // the handler panicked
	Exited                             // the handler called runtime.Goexit
	TimedOut                           // the visibility timeout passed
	Nacked                             // given back by Nack or NackAfter
	PermanentlyFailed                  // the handler returned Permanent
	Expired                            // the message's time to live passed
	Snoozed                            // the handler returned Snooze
	Released                           // given back by a shutdown
)

var causeNames = [...]string{
	"none", "acked", "failed", "panicked", "exited", "timed out", "nacked",
	"permanent", "expired", "snoozed", "released",
}

func (c Cause) String() string {
	if int(c) < len(causeNames) {
		return causeNames[c]
	}
	return fmt.Sprintf("Cause(%d)", uint8(c))
}

func (c Cause) spends() bool { return c != Acked && c != Snoozed && c != Released }

// An Attempt is how one delivery of a message ended.
type Attempt struct {
	// Number is 1 for the message's first delivery and counts on through
	// snoozes, releases and redrives.
	Number int
	// Cause says how it ended.
	Cause Cause
	// Queue is the queue that made the delivery.
	Queue string
	// Start is when the delivery was made, and Elapsed how long it lasted.
	Start   time.Time
	Elapsed time.Duration
	// Err is what the handler returned or panicked with, nil if there was none.
	Err error
	// Stack is where a panic came from, at most 8 KiB of it.
	Stack string
}

// String tells the attempt in one line, without the stack.
func (a Attempt) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "attempt %d: %v after %v", a.Number, a.Cause, a.Elapsed.Round(time.Microsecond))
	if a.Err != nil {
		fmt.Fprintf(&b, ": %v", a.Err)
	}
	return b.String()
}

// A history is what ended attempts left behind. It is never changed, so that a
// delivery can carry it: each attempt makes a new one that shares what came before.
type history struct {
	attempts []Attempt
}

// with returns h and a behind it, numbered. Of more than keep attempts it keeps
// the first and the newer half.
func (h *history) with(a Attempt, keep int) *history {
	if h == nil {
		a.Number = 1
		return &history{attempts: []Attempt{a}}
	}
	old := h.attempts
	a.Number = old[len(old)-1].Number + 1
	if len(old) >= keep {
		kept := make([]Attempt, 0, len(old))
		kept = append(kept, old[0])
		old = append(kept, old[len(old)/2:]...)
	}
	return &history{attempts: append(old, a)}
}

// extra is what few messages have. It is never changed after publication.
type extra struct {
	id         string
	attributes map[string]string
	key        string
	dedup      string
	delay      time.Duration
	ttl        time.Duration

	// Of dead letters and what was redriven from them.
	born   int64  // when the time to live began, on the queue's clock; 0: at publication
	source any    // in a shared dead-letter queue, the *Queue[T] it came from
	seq    uint64 // and the number that it had there
}

// with returns a copy of x, or a new extra if x is nil, that f has changed.
func (x *extra) with(f func(x *extra)) *extra {
	var c extra
	if x != nil {
		c = *x
	}
	f(&c)
	return &c
}

// An item is a message as the log and the queues keep it.
type item[T any] struct {
	seq  uint64 // number of the message in its topic
	at   int64  // when it was published, on the topic's clock
	ext  *extra // nil for most
	body T
}

// message returns what would have to be published to have it again.
func (it *item[T]) message(c *core) Message[T] {
	m := Message[T]{Body: it.body, ID: c.id(it.seq, it.at, it.ext)}
	if it.ext != nil {
		it.fill(&m)
	}
	return m
}

// fill sets what of m is in it's extra, but for the ID and the delay.
func (it *item[T]) fill(m *Message[T]) {
	m.Attributes = maps.Clone(it.ext.attributes)
	m.OrderingKey, m.DeduplicationID, m.TimeToLive = it.ext.key, it.ext.dedup, it.ext.ttl
}

// A ShutdownError is returned by [Topic.Shutdown] when something was left
// undone. It unwraps to the context's error if it was the context that ended
// the wait.
type ShutdownError struct {
	Topic string
	// Queues names the queues with something left, in the order of their names.
	Queues []Left
	// Err is why waiting ended: the context's cause, or nil if all that may be
	// waited for was done and only delayed messages and parked ones are left.
	Err error
}

// Left is what a shutdown left in one queue. [Topic.Leftovers] hands the
// messages out.
type Left struct {
	Queue    string
	Ready    int // waiting for a consumer
	Retrying int // failed and waiting for their next attempt
	Delayed  int // delayed or snoozed, not due yet
	InFlight int // delivered and not settled
	Parked   int // dead, with no room in the dead-letter queue
	Released int // given back because the topic was closing
	Blocked  int // waiting behind another message with their ordering key
	Running  int // handlers that have not returned yet
}

func (l Left) messages() int {
	return l.Ready + l.Retrying + l.Delayed + l.InFlight + l.Parked + l.Released + l.Blocked
}

func (l Left) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "queue %q:", l.Queue)
	sep := " "
	for _, f := range []struct {
		n    int
		name string
	}{
		{l.Ready, "ready"}, {l.Retrying, "retrying"}, {l.Delayed, "delayed"}, {l.InFlight, "in flight"},
		{l.Parked, "parked"}, {l.Released, "released"}, {l.Blocked, "blocked"},
	} {
		if f.n > 0 {
			fmt.Fprintf(&b, "%s%d %s", sep, f.n, f.name)
			sep = ", "
		}
	}
	if l.Running > 0 {
		b.WriteString(sep + plural(l.Running, "handler") + " running")
	}
	return b.String()
}

// plural counts things.
func plural(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

func (e *ShutdownError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "fanout: shutdown of topic %q left ", e.Topic)
	for i, l := range e.Queues {
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(l.String())
	}
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	return b.String()
}

// Unwrap returns e.Err.
func (e *ShutdownError) Unwrap() error { return e.Err }
