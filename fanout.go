// Package fanout fans messages out, inside one process, from topics into bounded
// queues, as Amazon SNS and SQS do between services.
//
// The nouns, and how they relate:
//
//   - A [Topic] is where messages of one type are published. Each message goes
//     to every queue of the topic.
//   - A [Queue] is one subscription: it keeps each message until a consumer of
//     its own acknowledges it, and holds no more than its capacity. Bodies are
//     shared between queues, not copied.
//   - A [Delivery] is a message that one consumer has received. It hides the
//     message from the others for a visibility timeout, and ends when it is
//     settled: acknowledged, given back to be retried, or dead-lettered.
//   - A [Subscriber] is a pool of workers that run a [Handler] over a queue. To receive
//     messages yourself, call [Queue.Receive] or range over [Queue.Deliveries].
//   - A dead-letter queue is a [Queue] of messages that have failed too often, each
//     with the history of its attempts. [Queue.Redrive] moves them back.
//
// A payment is published once. The inventory and the shipping service each work
// through a queue of their own:
//
//	payments, err := fanout.NewTopic[PaymentSucceeded]("payments")
//	_, err = payments.Subscribe(ctx, "inventory", reserveStock, fanout.WithConcurrency(8))
//	_, err = payments.Subscribe(ctx, "shipping", bookCarrier, fanout.WithMaxAttempts(10))
//	err = payments.Publish(ctx, PaymentSucceeded{OrderID: "o-17", Cents: 4999})
//	...
//	err = payments.Shutdown(ctx) // stop intake, drain, wait for handlers
//
// # Guarantees
//
//   - All or none. If Publish returns nil, the message is in every queue whose filter
//     accepts it, except where that queue's own Drop policy dropped it. If it returns
//     an error, the message is in no queue, and nothing was dropped for it. The same
//     holds for a batch. On an engine the error [ErrUnconfirmed] means that it is unknown.
//   - Bounded. A queue holds no more unsettled messages than its capacity, whether they
//     are ready, delayed, retrying, in flight, or dead without room in the dead-letter
//     queue. So a retry never fails for want of room.
//   - At least once. An accepted message is delivered until it is acknowledged or
//     dead-lettered. A message is lost only if a Drop policy of a queue or of a
//     dead-letter queue drops it, or if you call Purge, Close or Delete. You choose each
//     of them. Each is counted, told to a hook, and logged. A message whose time to live
//     has passed becomes a dead letter.
//   - Late settlements are refused. Settling a delivery whose visibility timeout has
//     passed returns [ErrStale], and does nothing to the newer delivery. Settling it
//     twice returns [ErrSettled].
//   - Failed messages wait at least a millisecond before they are retried. They are
//     dead-lettered after as many attempts as [WithMaxAttempts] says. Snooze and
//     Release use up no attempt, but a message that was snoozed or released a thousand
//     times is dead-lettered too. The dead letter has the history of all attempts, or of
//     the first 500 and the last 500.
//   - A full dead-letter queue loses nothing. Dead messages stay in their queue until
//     there is room.
//   - Clean end. [Topic.Shutdown] drains the queues and says, queue by queue, what is
//     left, such as delayed messages and those of a paused queue; [Topic.Leftovers]
//     returns it. [Shutdown] ends topics whose handlers publish to each other.
//     [Topic.Done] closes when no goroutine and no timer remains.
//
// Without an engine ([WithEngine]) messages live in memory and are lost when the process
// ends. There is no exactly-once delivery, no priority, no wildcard, and no network.
//
// # Concurrency
//
// Every method may be called from any goroutine, from handlers and hooks too. No lock
// is held while user code runs: handlers, filters, backoffs, hooks, loggers.
//
//  1. All queues get messages in the same order, and each publisher's messages keep
//     their order. Queues are not in step with each other.
//  2. A queue delivers fresh messages in the order of publication, and those that have
//     become due (retries, delays, timeouts) in the order in which they became due.
//     While both wait, it takes from them in turn. With several consumers, or after a
//     retry, messages can be handled out of order, unless they have an ordering key.
//  3. A handler runs in at most [WithConcurrency] goroutines at once.
//  4. Publishes that wait for a full [Block] queue are served first come, first served.
//     A later publish overtakes one that waits only if it goes to none of the same queues.
//  5. A slow, failing, panicking, blocked or exiting handler affects no other
//     subscriber, except when its full queue makes publishers wait or refuses messages.
//
// A handler can get the same message twice. It should return when its context is cancelled:
// one that does not keeps its worker until it returns and is counted in [Stats].Stuck,
// while its message goes to others. A handler that publishes should pass its context
// on. If that publish could only wait for the handler itself, perhaps by way of other
// handlers, it returns [ErrWouldDeadlock]. Do not hold a lock during Publish that a
// handler needs: fanout can't detect that. Such a publish waits until its context ends,
// and [Hooks].Stalled and the log report it.
//
// # Testing
//
// The package takes time only from package time, never blocks while it holds a mutex,
// and has no package-level goroutine or timer. So time is virtual in [testing/synctest]:
// every timeout, retry and delay comes at its exact instant, except that a handler's
// visibility timeout may come up to a millisecond late, see [WithVisibilityTimeout].
//
// Make a topic inside the bubble of synctest that uses it. Several bubbles may use a topic
// in memory one after the other. Between two bubbles the topic must be idle and no timer
// armed: no call waits, no handler runs, and no message is in flight, delayed or waiting for
// a retry. Also wait for one second after the last event that was logged, because logging
// has a timer, and [WithDeduplication] until the topic has forgotten all IDs. Call
// [Topic.Done] in one bubble only: its channel belongs to the bubble that calls it first. If
// two bubbles use a topic at the same time, the Go runtime ends the program.
package fanout

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/internal/message"
)

// Unlimited is the value that stands for no limit, in [WithCapacity],
// [WithMaxAttempts] and [WithDeadLetterCapacity]. Zero never does.
const Unlimited = int(^uint(0) >> 1)

// Unknown, which is -1, stands in [Depth], [Stats] and [TopicStats] for a number that only
// an engine knows, or that it can't tell. In memory nothing is unknown.
const Unknown = engine.Unknown

// A Message is what a publisher publishes: a body and what belongs to it. A consumer gets a
// [Delivery].
type Message[T any] struct {
	// Body is handed to every queue as it is, not copied. What it points to is shared by all
	// its receivers and should not be changed.
	Body T

	// ID identifies the message in deliveries, dead letters, hooks and logs. By
	// default it is a UUID of version 7, made from the time of publication, a
	// counter and the topic's random bits. IDs are not checked for uniqueness.
	ID string

	// Attributes travel with the message. Publishing copies the map. A name that is empty,
	// and a name or a value that is not UTF-8, is [ErrInvalidMessage].
	Attributes map[string]string

	// Delay hides the message in every queue for that long after its publication. After that
	// a queue takes it in turn with its backlog. With 0 the queue's [WithDelay] applies; a
	// negative delay is [ErrInvalidMessage]. As in SQS FIFO, a message with an ordering key
	// can't have a delay: [ErrUnsupported].
	Delay time.Duration

	// TimeToLive limits how long the message may wait for a delivery, from its publication
	// or redrive on. If no delivery has started by then, the message is dead-lettered as
	// [Expired]. A delivery that started in time may finish; if it fails later, the message
	// is dead-lettered as [Expired] too. With 0 the queue's [WithTimeToLive] applies, which
	// says more; a negative time is [ErrInvalidMessage].
	TimeToLive time.Duration

	// OrderingKey orders the message among those with the same key. In each queue only one
	// of them is in flight at a time, and they are delivered in the order of publication,
	// after retries and snoozes too. Messages with other keys go on meanwhile. The topic
	// must be made [WithOrdering]; otherwise it is [ErrUnsupported].
	OrderingKey string

	// DeduplicationID makes the topic accept the message once. As long as the topic
	// remembers the ID, publishing it again returns nil and does nothing, even if the first
	// message was purged. The topic must be made [WithDeduplication]; otherwise it is
	// [ErrUnsupported].
	DeduplicationID string
}

// A Handler works on one delivery. What it returns settles the delivery, unless the handler
// has settled it itself. Nil acknowledges the message. An error makes the queue deliver it
// again after its backoff. [Permanent], [RetryAfter], [Snooze] and [Release] make other
// outcomes. A panic or [runtime.Goexit] counts as a failed attempt and is recorded as such;
// neither stops the worker. An error that wraps [ErrClosed], such as that of a publish to a
// closed topic, gives the message back as [Release] does.
//
// The context has no deadline, because [Delivery.Extend] can move it, and no values of the
// publisher's context. It is cancelled when the visibility timeout passes, with a cause that
// wraps [ErrStale]. It is cancelled with a cause that wraps [ErrClosed] when the queue or
// the topic is closed, which a Shutdown does when its own context ends, and when the context
// of its subscriber's Shutdown ends. It ends with this run of the handler: give
// context.WithoutCancel(ctx) to work that goes on after that.
type Handler[T any] func(ctx context.Context, d Delivery[T]) error

// A BatchHandler works on several deliveries at once: as many as were ready, at least one
// and at most [WithBatchSize]. What it returns settles all deliveries that it has not
// settled itself, as a [Handler]'s result settles its one: nil acknowledges them, and an
// error, Permanent, RetryAfter, Snooze, Release, a panic or runtime.Goexit applies to each.
// Everything else is as for a Handler. The slice is the handler's until it returns, and is
// used again for the next batch: what keeps deliveries for longer copies them out of it
// (slices.Clone).
type BatchHandler[T any] func(ctx context.Context, ds []Delivery[T]) error

// Permanent wraps err to say that no further attempt can succeed: the message
// is dead-lettered now. Permanent(nil) is nil.
func Permanent(err error) error { return message.Permanent(err) }

// RetryAfter wraps err to say that the message should be delivered again after wait, and not
// after the queue's backoff. A wait of less than a millisecond is a millisecond. It spends
// an attempt, as any failure does. RetryAfter(nil, wait) is nil.
func RetryAfter(err error, wait time.Duration) error { return message.RetryAfter(err, wait) }

// Snooze says that it is too early for this message, which is not a failure: it should be
// delivered again after wait. A wait of less than a millisecond is a millisecond. Snooze
// spends no attempt, but a message that was snoozed or released a thousand times since it
// was published or redriven is dead-lettered.
func Snooze(wait time.Duration) error { return message.Snooze(wait) }

// Release wraps err to say that the attempt should not count, because the message is not to
// blame: something that the handler needs is closed, or not there yet. The message is
// delivered again after the queue's backoff ([WithBackoff]), by the number of releases in a
// row and not by the number of attempts. Release spends no attempt, but a message that was
// snoozed or released a thousand times since it was published or redriven is dead-lettered.
// A message that is released while its topic shuts down is left over. An error that wraps
// [ErrClosed] needs no Release around it. Release(nil) is nil, which acknowledges.
func Release(err error) error { return message.Release(err) }

// CauseOf returns the cause with which a handler's attempt ends if the handler returns err:
// Acked for nil, PermanentlyFailed, Snoozed or Released for what [Permanent], [Snooze] and
// [Release] return, Released for an error that wraps [ErrClosed], and Failed for any other.
// It is for interceptors that count or trace attempts. It does not know whether the attempt
// has lost its message meanwhile.
func CauseOf(err error) Cause { return Cause(message.CauseOf(err)) }

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
	Released                           // given back by Release, or by an error that wraps ErrClosed
)

// String returns the cause's name, such as "timed out".
func (c Cause) String() string { return message.Cause(c).String() }

// MarshalText returns what [Cause.String] does, so that a cause is a name in JSON, in
// configurations and in logs. The zero Cause is "none". A number that is not a Cause is
// [ErrInvalidOption].
func (c Cause) MarshalText() ([]byte, error) { return namedText(c, 0, Released, Cause.String) }

// UnmarshalText reads what MarshalText writes. Any other text is [ErrInvalidOption],
// naming the text.
func (c *Cause) UnmarshalText(text []byte) (err error) {
	read, err := fromName(text, 0, Released, Cause.String)
	if err == nil {
		*c = read
	}
	return err
}

// namedText is the name of a value from first to last.
func namedText[E ~uint8](e, first, last E, name func(E) string) ([]byte, error) {
	if e < first || e > last {
		return nil, fmt.Errorf("%w: %T(%d): want one that has a name", ErrInvalidOption, e, uint8(e))
	}
	return []byte(name(e)), nil
}

// fromName returns the value from first to last that has that name.
func fromName[E ~uint8](text []byte, first, last E, name func(E) string) (E, error) {
	var names []string
	for e := first; e <= last; e++ {
		if name(e) == string(text) {
			return e, nil
		}
		names = append(names, name(e))
	}
	return 0, invalid(strings.TrimPrefix(fmt.Sprintf("%T", first), "fanout."), fmt.Sprintf("%q", text), "one of "+strings.Join(names, ", "))
}
