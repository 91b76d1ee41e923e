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
	"errors"
	"fmt"
	"time"

	"github.com/gofanout/fanout/internal/message"
)

// Errors returned by this package, to be matched with [errors.Is]. What is
// returned wraps them and names the topic, the queue and the value involved.
var (
	// ErrClosed is returned by publishes and OpenQueue once the topic shuts down,
	// and by what needs an open queue once that is closed: Peek, Stats, Depth and
	// Leftovers still answer. A Publish that returns it has published nothing.
	ErrClosed = errors.New("fanout: closed")

	// ErrQueueFull is returned by a publish when a queue with the [Reject]
	// policy is full, and by TryPublish when it would have to wait for any queue.
	ErrQueueFull = errors.New("fanout: queue full")
	// ErrUnconfirmed is returned by a publish on an engine that was sent and not confirmed,
	// because ctx ended or the engine did not answer. The messages may be in the queues or
	// not. It wraps the reason, such as ctx's error. Publishing such a message again is safe
	// only if it has a DeduplicationID; without one it may be in the queues twice. After any
	// other error nothing was published, except that a [*PublishError] says what was. In
	// memory there is no ErrUnconfirmed.
	ErrUnconfirmed = errors.New("fanout: not confirmed")
	// ErrBatchTooLarge is returned by PublishMessages for a batch with more messages for a
	// [Block] or [Reject] queue than that queue's capacity.
	ErrBatchTooLarge = errors.New("fanout: batch too large")
	// ErrWouldDeadlock is returned by a publish or a Redrive inside a handler that could
	// only wait for ever: for a full queue whose consumers are all handlers that wait in the
	// same cycle. It names the cycle, which may lead over several topics. Only a call whose
	// context comes from the handler's context can be recognized.
	ErrWouldDeadlock = errors.New("fanout: would deadlock")
	// ErrInvalidMessage is returned by PublishMessages for a message with a value that is
	// not allowed. It names the message, the field and the value.
	ErrInvalidMessage = errors.New("fanout: invalid message")

	// ErrStale is returned when a delivery is settled or extended that no longer owns its
	// message: its visibility timeout has passed, or the message was taken back. Nothing has
	// happened to the message. A queue remembers which deliveries lost their messages, in at
	// least 2,048 ranges. A delivery that is older than that gets ErrStale too, even if it
	// was settled.
	ErrStale = errors.New("fanout: stale delivery")
	// ErrSettled is returned when a delivery is settled or extended that its owner has
	// settled before. Nothing has happened to the message. A delivery that lost its message
	// never gets ErrSettled, however late it is settled, but [ErrStale].
	ErrSettled = errors.New("fanout: delivery already settled")

	// ErrInvalidOption is returned for a bad option or another bad argument. It names the
	// option and the value. The methods of a zero Topic, Queue or Subscriber return it too.
	ErrInvalidOption = errors.New("fanout: invalid option")
	// ErrExists is returned for the name of a queue that is open in this topic. It
	// wraps ErrInvalidOption. The name is free again once that queue is closed.
	ErrExists = fmt.Errorf("%w: the name exists", ErrInvalidOption)
	// ErrUnknownID is returned by Redrive for IDs that no dead letter has, see [RedriveIDs].
	// It names them. It wraps ErrInvalidOption. The letters with the other IDs have been
	// moved all the same.
	ErrUnknownID = fmt.Errorf("%w: unknown ID", ErrInvalidOption)
	// ErrUnsupported is returned for what this topic, queue or engine does not support.
	ErrUnsupported = errors.New("fanout: unsupported")
)

// Unlimited is the value that stands for no limit, in [WithCapacity],
// [WithMaxAttempts] and [WithDeadLetterCapacity]. Zero never does.
const Unlimited = int(^uint(0) >> 1)

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

// Permanent wraps err to say that no further attempt can succeed: the message
// is dead-lettered now. Permanent(nil) is nil.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &outcome{verdict{cause: PermanentlyFailed, err: err}}
}

// RetryAfter wraps err to say that the message should be delivered again after wait, and not
// after the queue's backoff. A wait of less than a millisecond is a millisecond. It spends
// an attempt, as any failure does. RetryAfter(nil, wait) is nil.
func RetryAfter(err error, wait time.Duration) error {
	if err == nil {
		return nil
	}
	return &outcome{verdict{cause: Failed, wait: max(wait, minWait), err: err}}
}

// Snooze says that it is too early for this message, which is not a failure: it should be
// delivered again after wait. A wait of less than a millisecond is a millisecond. Snooze
// spends no attempt, but a message that was snoozed or released a thousand times since it
// was published or redriven is dead-lettered.
func Snooze(wait time.Duration) error {
	return &outcome{verdict{cause: Snoozed, wait: max(wait, minWait)}}
}

// Release wraps err to say that the attempt should not count, because the message is not to
// blame: something that the handler needs is closed, or not there yet. The message is
// delivered again after the queue's backoff ([WithBackoff]), by the number of releases in a
// row and not by the number of attempts. Release spends no attempt, but a message that was
// snoozed or released a thousand times since it was published or redriven is dead-lettered.
// A message that is released while its topic shuts down is left over. An error that wraps
// [ErrClosed] needs no Release around it. Release(nil) is nil, which acknowledges.
func Release(err error) error {
	if err == nil {
		return nil
	}
	return &outcome{verdict{cause: Released, wait: fromBackoff, err: err}}
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
	text  string // err's; see told
	stack string
	// unstarted says that no consumer had the message: there was no attempt.
	unstarted bool
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

// CauseOf returns the cause with which a handler's attempt ends if the handler returns err:
// Acked for nil, PermanentlyFailed, Snoozed or Released for what [Permanent], [Snooze] and
// [Release] return, Released for an error that wraps [ErrClosed], and Failed for any other.
// It is for interceptors that count or trace attempts. It does not know whether the attempt
// has lost its message meanwhile.
func CauseOf(err error) Cause { return judge(err).cause }

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

func (c Cause) spends() bool { return message.Cause(c).Spends() }
