// Package engine is the contract between package fanout and what keeps its
// queues when that isn't the memory of the process: a broker, a database, a
// file. Package fanout asks an engine for little: to take encoded messages, to
// lease them out and to forget them. Workers, handlers, interceptors, attempts,
// backoff, histories, hooks, filters on T and times to live are fanout's own,
// the same for every engine.
//
// Whoever uses fanout needs of this package only the names of features, for
// fanout.WithEngine, and the errors: an engine is made by its own package.
// Whoever writes an engine implements [Engine], [Topic] and [Queue], states in
// [Capabilities] what they keep, and runs the conformance tests of package
// enginetest.
//
// # Rules for all methods
//
// All may be called concurrently. All end when their context does, and return
// its error then. An engine keeps no more goroutines than its Topic and Queue
// values need, and none after the topic's Close. What an engine returns is the
// caller's to keep and to change.
package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Errors that an engine wraps, so that fanout and its users can tell them.
var (
	// ErrStale is returned for a receipt whose lease has ended, if the engine can
	// tell.
	ErrStale = errors.New("engine: the lease has ended")
	// ErrFull is returned by a publish that found no room and must not wait.
	ErrFull = errors.New("engine: a queue is full")
	// ErrClosed is returned after Close.
	ErrClosed = errors.New("engine: closed")
	// ErrTooLarge is returned for a message, or a batch, above the engine's limits.
	ErrTooLarge = errors.New("engine: too large")
	// ErrInvalid is returned for a message that the engine can't carry, for its attributes
	// say.
	ErrInvalid = errors.New("engine: invalid message")
	// ErrUnconfirmed is returned by a publish that was sent and not confirmed: what it
	// published may be in the queues or not, all of it or a part.
	ErrUnconfirmed = errors.New("engine: not confirmed")
	// ErrMismatch is returned when a topic or queue exists with other settings
	// than those asked for.
	ErrMismatch = errors.New("engine: exists with other settings")
)

// MinState is how many bytes the shortest State of a message has, at most: without a
// history. An engine whose messages are limited refuses, with [ErrTooLarge], to publish
// a message that would not fit with a State of that length, since it could not become a
// dead letter.
const MinState = 320

// An Engine makes topics. It is what a user gives to fanout.WithEngine.
type Engine interface {
	// Name names the engine in errors and in documentation: "NATS JetStream".
	Name() string

	// Capabilities says what the engine keeps. It does no I/O and returns the same
	// each time.
	Capabilities() Capabilities

	// OpenTopic makes the topic, or finds it. fanout calls it before the first use
	// of a topic (making a fanout.Topic does no I/O) and again at the next use if
	// it failed.
	OpenTopic(ctx context.Context, spec TopicSpec) (Topic, error)
}

// A TopicSpec says what a topic has to be.
type TopicSpec struct {
	// Name is the name that the user gave. An engine with stricter rules for
	// names either encodes or refuses what it cannot take.
	Name string
	// Ordering says that messages may carry an OrderingKey.
	Ordering bool
	// Deduplication is the window in which a DeduplicationID counts once; 0 is
	// off.
	Deduplication time.Duration
}

// A Topic publishes messages to its queues.
type Topic interface {
	// Publish hands ms to every queue that is open, here or elsewhere, and whose
	// filter policy accepts them, in the order given. When it returns nil the
	// engine has all of them and, if it is durable, has them for good. A
	// [*PartialError] says which ones aren't published, [ErrUnconfirmed] that it is not
	// known, and any other error that none is. fanout does not retry: the publisher
	// does, or doesn't.
	Publish(ctx context.Context, ms []Message) error

	// OpenQueue makes the queue with its dead-letter queue, or finds it. Messages
	// published after it has returned are in the queue. It is called once for each
	// name, until Close. An existing queue with other settings is changed if that
	// harms nobody, and else is [ErrMismatch], naming the setting with both values.
	OpenQueue(ctx context.Context, spec QueueSpec) (Queue, error)

	// Close lets go of what the process holds of the topic. What is published stays
	// where it is. It waits, for a few seconds at most, until what its queues had under
	// way has ended: a request that a broker may still answer with messages, say. It returns
	// an error if that has not ended by then: what such a request brings comes again only
	// when its lease ends. fanout
	// calls it last, after it has closed all queues, once, and keeps only those waiting
	// who wait for fanout.Topic.Done.
	Close() error
}

// A Lister is a [Topic] that can list its queues: each topic of an engine that keeps
// [Listing] is one.
type Lister interface {
	// ListQueues returns the queues of the topic, those that no process has open
	// included, each once, in the order of their names. A dead-letter queue is not among
	// them: what it holds is with its queue. A queue that is opened or deleted meanwhile
	// may be there or not. A topic without queues has none, and that is no error.
	ListQueues(ctx context.Context) ([]QueueInfo, error)
}

// A QueueInfo is a queue as it is listed.
type QueueInfo struct {
	Name string // as in its QueueSpec
	// Stats are what the queue holds, and Letters what its dead-letter queue does.
	Stats, Letters Stats
}

// A QueueSpec says what a queue has to be. What a user has not asked for, and
// the engine does not need, is zero.
type QueueSpec struct {
	Name string
	// Visibility is the lease that most receives will ask for.
	Visibility time.Duration
	// MaxAttempts is after how many attempts fanout dead-letters a message; 0 is
	// never. An engine with a limit of its own sets it well above, as a net.
	MaxAttempts int
	// Delay is how long each message is held back from its publication, unless it
	// has a delay of its own.
	Delay time.Duration
	// Capacity is how many messages the queue may hold, 0 if the user didn't say, and
	// math.MaxInt for one who asked for fanout.Unlimited. It is set only if the engine keeps [Bounded].
	Capacity int
	// FilterPolicy is an SNS filter policy on attributes, "" for none. It is set
	// only if the engine keeps [FilterPolicy]; else fanout filters what it receives.
	FilterPolicy string
	// DeadCapacity is how many letters the dead-letter queue may hold, as Capacity
	// has it. It is set only if the engine keeps [Bounded].
	DeadCapacity int
}

// A Queue leases messages out. A queue's dead-letter queue is a Queue too.
type Queue interface {
	// Receive waits until there is a message or ctx ends, and returns at least one
	// and at most most, each hidden from other receivers for lease. It returns
	// ctx's error only if it returns no message. fanout calls it in a loop, for
	// as many messages as it can start work on at once, and waits between calls
	// that fail. With lease 0 the queue's own holds.
	//
	// A message that is not settled within its lease is returned by a later
	// Receive, here or elsewhere.
	Receive(ctx context.Context, most int, lease time.Duration) ([]Received, error)

	// Ack ends the message: the queue is done with it. fanout calls it once for a
	// receipt, does not retry it, and gives its error to whoever acknowledged: the
	// message may come again.
	Ack(ctx context.Context, r Receipt) error

	// Return makes the message available again after wait, which may be 0. If the
	// engine keeps [State], state comes back with the next Receive; else fanout
	// remembers it while it can. Called as Ack is, but for one thing: an engine that has
	// no room for state returns [ErrTooLarge], the lease stays as it was, and fanout
	// calls again with a shorter one, down to [MinState] bytes. It works after the queue's
	// Close too, until the topic's: what a Receive returned as the queue was closed fanout
	// gives back. No other settlement does: they return [ErrClosed].
	Return(ctx context.Context, r Receipt, wait time.Duration, state []byte) error

	// Extend makes the lease end after lease, counted from now. fanout calls it
	// for a delivery that its user extends, for those whose handlers run on with
	// WithAutoExtend, and for dead letters while it looks at many.
	Extend(ctx context.Context, r Receipt, lease time.Duration) error

	// DeadLetter moves the message to the queue's dead-letter queue, with m, which
	// is the message with its state: first it is there, then it is gone here, so
	// that a crash in between leaves two and never none. On a dead-letter queue
	// it is not called. If there is no room for m with its State it returns
	// [ErrTooLarge], as Return does.
	DeadLetter(ctx context.Context, r Receipt, m Message) error

	// DeadLetters returns the queue's dead-letter queue, and nil for one that is
	// one. It does no I/O.
	DeadLetters() Queue

	// Redrive moves a letter back to the queue that it came from, and to no other,
	// with m, which is the letter with its new state: first it is there, then it
	// is gone here. It is called on a dead-letter queue only, with a receipt of its,
	// and for up to 64 letters at once: an engine that sends batches can make them. If
	// there is no room for m with its State it returns [ErrTooLarge], as Return does.
	Redrive(ctx context.Context, r Receipt, m Message) error

	// Stats asks the engine what the queue holds.
	Stats(ctx context.Context) (Stats, error)

	// Purge drops all that the queue holds and says how many that were, as far as
	// the engine knows.
	Purge(ctx context.Context) (dropped int, err error)

	// Delete removes the queue and its dead-letter queue from the engine, with all that
	// they hold, and says how many messages and how many letters those were, as far as the
	// engine knows. What is published later goes to the other queues; a queue that is
	// opened by its name is a new one. Receives of other processes, those that wait and
	// later ones, return [ErrClosed]. fanout calls it after Close and before the topic's
	// Close, again if it failed, and not while it opens a queue of the topic. To delete a
	// queue that is gone is no error. On a dead-letter queue, and if the engine does not
	// keep [Deletion], it is not called.
	Delete(ctx context.Context) (dropped, letters int, err error)

	// Close lets go of what the process holds of the queue. The queue stays where
	// it is, and gets messages. Receives that wait return [ErrClosed]. It does not wait
	// for the broker: what it leaves under way the topic's Close waits for. What a broker
	// hands out after it is given back, so that others get it soon; what Receive has
	// returned can be given back by Return. Calling it again does nothing. It closes the dead-letter queue's value too.
	Close() error
}

// A Message is what an engine carries, encoded.
type Message struct {
	// ID is never empty. An engine carries it as it is; it need not be unique.
	ID string
	// Body is what the topic's codec made of the user's value, and ContentType
	// how it says that is encoded: "application/json".
	Body        []byte
	ContentType string
	// Attributes are the user's. An engine that can hold fewer, or other
	// characters, refuses the message with an error that says so.
	Attributes map[string]string
	// OrderingKey and DeduplicationID are empty unless the topic's spec allows
	// them.
	OrderingKey     string
	DeduplicationID string
	// Delay is the message's own, 0 if it has none.
	Delay time.Duration
	// PublishedAt and TimeToLive are carried; fanout sees to what they mean.
	PublishedAt time.Time
	TimeToLive  time.Duration
	// State is fanout's bookkeeping: attempts and their history. An engine
	// carries it with the message to the dead-letter queue and back.
	State []byte
}

// A Receipt names one lease of one message. It is the engine's to make and to
// understand; fanout hands it back to the Queue that made it, at most once to
// a method that ends the lease.
type Receipt any

// Received is a message with its lease.
type Received struct {
	Message
	Receipt Receipt
	// Deliveries is how often the engine has leased the message out, this time
	// included, 1 for the first. Since the last Redrive.
	Deliveries int
}

// Unknown stands in [Stats] for a number that the engine can't tell.
const Unknown = -1

// Stats is what a queue holds, as the engine knows it. Each number that it can't tell is
// [Unknown]. fanout's Shutdown waits until Ready and InFlight are 0: an engine that can't
// tell them lets it wait until its context ends.
type Stats struct {
	Ready    int // could be received now
	Delayed  int // published with a delay that has not passed
	InFlight int // leased, or returned with a wait that has not passed
	// OldestAge is how long ago the oldest of the ready messages was published, by its
	// PublishedAt; 0 if none is ready.
	OldestAge time.Duration
}

// Sum is how many messages the queue holds, Unknown if any of the numbers is.
func (s Stats) Sum() int {
	if s.Ready < 0 || s.Delayed < 0 || s.InFlight < 0 {
		return Unknown
	}
	return s.Ready + s.Delayed + s.InFlight
}

// A PartialError says which messages of a Publish were not published. The
// others were.
type PartialError struct {
	// Failed has an error for the index of each message that was not published.
	Failed map[int]error
}

func (e *PartialError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "engine: %d messages were not published", len(e.Failed))
	least := -1
	for k := range e.Failed {
		if least < 0 || k < least {
			least = k
		}
	}
	if least >= 0 {
		fmt.Fprintf(&b, "; message %d: %v", least, e.Failed[least])
	}
	return b.String()
}

// Unwrap returns the errors of the messages.
func (e *PartialError) Unwrap() []error {
	errs := make([]error, 0, len(e.Failed))
	for _, err := range e.Failed {
		errs = append(errs, err)
	}
	return errs
}
