package fanout

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/gofanout/fanout/internal/ending"
	"github.com/gofanout/fanout/internal/message"
)

// Errors returned by this package, to be matched with [errors.Is]. What is
// returned wraps them and names the topic, the queue and the value involved.
var (
	// ErrClosed is returned by publishes and OpenQueue once the topic shuts down,
	// and by what needs an open queue once that is closed: Peek, Stats, Depth and
	// Leftovers still answer. A Publish that returns it has published nothing.
	ErrClosed = message.ErrClosed

	// ErrQueueFull is returned by a publish when a queue with the [Reject]
	// policy is full, and by TryPublish when it would have to wait for any queue.
	ErrQueueFull = message.ErrQueueFull
	// ErrUnconfirmed is returned by a publish on an engine that was sent and not confirmed,
	// because ctx ended or the engine did not answer. The messages may be in the queues or
	// not. It wraps the reason, such as ctx's error. Publishing such a message again is safe
	// only if it has a DeduplicationID; without one it may be in the queues twice. After any
	// other error nothing was published, except that a [*PublishError] says what was. In
	// memory there is no ErrUnconfirmed.
	ErrUnconfirmed = message.ErrUnconfirmed
	// ErrBatchTooLarge is returned by PublishMessages for a batch with more messages for a
	// [Block] or [Reject] queue than that queue's capacity.
	ErrBatchTooLarge = message.ErrBatchTooLarge
	// ErrWouldDeadlock is returned by a publish or a Redrive inside a handler that could
	// only wait for ever: for a full queue whose consumers are all handlers that wait in the
	// same cycle. It names the cycle, which may lead over several topics. Only a call whose
	// context comes from the handler's context can be recognized.
	ErrWouldDeadlock = message.ErrWouldDeadlock
	// ErrInvalidMessage is returned by PublishMessages for a message with a value that is
	// not allowed. It names the message, the field and the value.
	ErrInvalidMessage = message.ErrInvalidMessage

	// ErrStale is returned when a delivery is settled or extended that no longer owns its
	// message: its visibility timeout has passed, or the message was taken back. Nothing has
	// happened to the message. A queue remembers which deliveries lost their messages, in at
	// least 2,048 ranges. A delivery that is older than that gets ErrStale too, even if it
	// was settled.
	ErrStale = message.ErrStale
	// ErrSettled is returned when a delivery is settled or extended that its owner has
	// settled before. Nothing has happened to the message. A delivery that lost its message
	// never gets ErrSettled, however late it is settled, but [ErrStale].
	ErrSettled = message.ErrSettled

	// ErrInvalidOption is returned for a bad option or another bad argument. It names the
	// option and the value. The methods of a zero Topic, Queue or Subscriber return it too.
	ErrInvalidOption = message.ErrInvalidOption
	// ErrExists is returned for the name of a queue that is open in this topic. It
	// wraps ErrInvalidOption. The name is free again once that queue is closed.
	ErrExists = message.ErrExists
	// ErrUnknownID is returned by Redrive for IDs that no dead letter has, see [RedriveIDs].
	// It names them. It wraps ErrInvalidOption. The letters with the other IDs have been
	// moved all the same.
	ErrUnknownID = message.ErrUnknownID
	// ErrUnsupported is returned for what this topic, queue or engine does not support.
	ErrUnsupported = message.ErrUnsupported
)

// A ShutdownError is returned by [Shutdown] and [Topic.Shutdown] if something was left
// undone in a topic. If the wait was ended by a context, it unwraps to that context's error.
type ShutdownError struct {
	Topic string
	// Queues names the queues with something left, in the order of their names.
	Queues []Left
	// Err is why waiting ended: the context's error with its cause. It is nil if everything
	// that Shutdown waits for was done, and only messages are left that it does not wait
	// for: delayed, snoozed, parked, released or paused ones, and those behind one of these.
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

// String returns what is left in one line, without the numbers that are 0.
func (l Left) String() string { return ending.Left(l).String() }

// Error names the topic, and says for each queue what is left.
func (e *ShutdownError) Error() string { return e.core().Error() }

// core is e, as it was made.
func (e *ShutdownError) core() *ending.ShutdownError {
	return &ending.ShutdownError{Topic: e.Topic, Queues: sliceOf[ending.Left](e.Queues), Err: e.Err}
}

// Unwrap returns e.Err.
func (e *ShutdownError) Unwrap() error { return e.Err }

// A PublishError is returned by PublishMessages on an engine that published some messages of
// a batch and not the others. It unwraps to the errors of those.
type PublishError struct {
	Topic string
	// Failed has an error for the index of each message that was not published.
	Failed map[int]error
	err    error
}

// Error says how many messages were not published, and why.
func (e *PublishError) Error() string { return e.err.Error() }

// Unwrap returns what the engine said.
func (e *PublishError) Unwrap() error { return e.err }

// A BatchError is returned by [Queue.AckBatch] when some of the deliveries were not
// acknowledged. The others were. It unwraps to the errors in Failed, in the order of their
// indexes, so that errors.Is finds [ErrStale] if any of them is that.
type BatchError struct {
	Queue string
	// Failed has an error for the index of each delivery that was not
	// acknowledged, which names its message.
	Failed map[int]error
}

// mostTold is how many of its errors a BatchError's text has.
const mostTold = 10

// Error says how many failed, and names the first ten.
func (e *BatchError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "fanout: batch of queue %q: %d not acknowledged", e.Queue, len(e.Failed))
	sep := ": "
	for n, k := range e.indexes() {
		if n == mostTold {
			fmt.Fprintf(&b, "; and %d more", len(e.Failed)-n)
			break
		}
		fmt.Fprintf(&b, "%s%d: %v", sep, k, e.Failed[k])
		sep = "; "
	}
	return b.String()
}

// Unwrap returns the errors in the order of their indexes.
func (e *BatchError) Unwrap() []error {
	errs := make([]error, 0, len(e.Failed))
	for _, k := range e.indexes() {
		errs = append(errs, e.Failed[k])
	}
	return errs
}

func (e *BatchError) indexes() []int { return slices.Sorted(maps.Keys(e.Failed)) }

// invalid is the error for a bad option or argument.
func invalid(option string, value any, want string) error {
	return message.Invalid(option, value, want)
}

// zeroValue is the error for a zero Topic, Queue or Subscriber, given a pointer to it.
func zeroValue(of any, maker string) error {
	return fmt.Errorf("%w: a zero %s: want one made by %s", ErrInvalidOption, strings.TrimPrefix(fmt.Sprintf("%T", of), "*"), maker)
}
