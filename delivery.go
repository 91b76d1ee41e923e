package fanout

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/message"
)

// A Delivery gives one message to one consumer. It is a value: copies are the same delivery,
// and changing a copy's Body changes it for nobody else. It owns its message until it is
// settled or its visibility timeout passes, whichever comes first. After that every method
// that settles returns [ErrSettled] or [ErrStale] and does nothing, in particular nothing to
// a newer delivery of the same message. A settlement at the very instant of the deadline may
// come before it or after it.
//
// Methods that settle and extend take a context for engines, where they do I/O. In memory
// they never wait and ignore the context, even a cancelled one, so that finished work can be
// acknowledged during a shutdown. All methods may be called concurrently.
type Delivery[T any] struct {
	// Body is what was published, not a copy of it: what it points to is shared with
	// the publisher, the other queues' deliveries and later attempts at this
	// message, and should not be changed.
	Body T

	receipt delivery.Receipt[T] // all but the body, see layout.go
}

// core is the delivery as package delivery has it.
func (d *Delivery[T]) core() *delivery.Delivery[T] {
	return &delivery.Delivery[T]{Body: d.Body, Receipt: d.receipt}
}

// Encoded returns the body as the engine carried it. It is for dead letters that can't be
// decoded: they have the zero Body, in Peek, Receive and handlers of a dead-letter queue,
// and nothing but these bytes. Without [WithEngine] nothing is encoded, and Encoded returns
// nil; so it does for the zero Delivery. The bytes may be kept after the delivery was
// settled, but must not be changed: if the message becomes a dead letter, that has the same
// bytes.
func (d Delivery[T]) Encoded() []byte { return d.receipt.Encoded() }

// ID is the message's ID: the publisher's, or a UUID of version 7. It is the
// same in every queue, at every attempt, and after a redrive.
func (d Delivery[T]) ID() string { return d.receipt.ID() }

// Attribute returns one of the message's attributes.
func (d Delivery[T]) Attribute(name string) (value string, ok bool) { return d.receipt.Attribute(name) }

// Attributes returns a copy of the message's attributes, nil if it has none.
func (d Delivery[T]) Attributes() map[string]string { return d.receipt.Attributes() }

// OrderingKey is the message's ordering key, empty if it has none.
func (d Delivery[T]) OrderingKey() string { return d.receipt.OrderingKey() }

// PublishedAt is when the message was published.
func (d Delivery[T]) PublishedAt() time.Time { return d.receipt.PublishedAt() }

// Attempt is the number of this attempt: 1 for the first delivery, and one more for each
// attempt that was spent since the message was published or redriven. Snoozes and releases
// spend none. A dead-letter queue counts its own deliveries; History tells how often the
// letter was tried before.
func (d Delivery[T]) Attempt() int { return d.receipt.Attempt() }

// History returns how the attempts before this one ended, oldest first. It includes those
// before a redrive. Of more than 1,000 attempts it has the first 500 and the last 500, and
// attempts in a dead-letter queue are left out first. It keeps at most 8 KiB of the text of
// an error or a stack, and 256 KiB of text for a message, the newest; a note says how many
// bytes were left out. On an engine the limits are 32 attempts, 2 KiB and 32 KiB.
//
// In memory an attempt's error is the one that the handler returned, so that errors.Is and
// errors.As work. If its text was shortened, only those of the errors that it wraps are kept
// that are short; if its text was left out, none is. On an engine an error is its text
// alone.
func (d Delivery[T]) History() []Attempt { return attemptsOf(d.receipt.History()) }

// Queue is the name of the queue that made the delivery. In a dead-letter queue it is that
// queue's own name.
func (d Delivery[T]) Queue() string { return d.receipt.Queue() }

// Deadline is when the delivery's visibility timeout passes, extensions
// included, or the zero Time if the delivery no longer owns its message.
func (d Delivery[T]) Deadline() time.Time { return d.receipt.Deadline() }

// Ack acknowledges the message: this queue is done with it.
// It returns [ErrStale], [ErrSettled] or [ErrClosed].
func (d Delivery[T]) Ack(ctx context.Context) error {
	if delivery.AckHere(d.receipt.Q, d.receipt.Ref) {
		return nil
	}
	return d.core().Ack(ctx)
}

// Nack gives the message back, to be delivered again after the queue's backoff.
// It spends an attempt. It returns [ErrStale], [ErrSettled] or [ErrClosed].
func (d Delivery[T]) Nack(ctx context.Context) error { return d.core().Nack(ctx) }

// NackAfter gives the message back, to be delivered again after wait. A wait of less than a
// millisecond is a millisecond. It spends an attempt. A negative wait is [ErrInvalidOption]
// and settles nothing. Otherwise NackAfter returns what Nack does.
func (d Delivery[T]) NackAfter(ctx context.Context, wait time.Duration) error {
	return d.core().NackAfter(ctx, wait)
}

// Release gives the message back as if it had not been taken: it is ready at once, at its
// old place in the backlog. A dead-letter queue does not keep the places of its letters;
// there it is as if the delivery had timed out. Release is for a consumer that stops, or
// that has taken more than it can handle. It spends no attempt, and it does not count
// towards the thousand snoozes and releases after which a message is dead-lettered. So a
// consumer that takes and releases the same message again and again never ends: if it can't
// work now, it should call Settle with [Release], which waits. What is released while the
// topic shuts down is left over. Release returns [ErrStale], [ErrSettled] or [ErrClosed].
func (d Delivery[T]) Release(ctx context.Context) error { return d.core().Release(ctx) }

// Settle settles the delivery as a handler that returned err would. So a consumer that
// receives for itself has the outcomes of a handler: nil acknowledges, [Permanent],
// [RetryAfter], [Snooze] and [Release] work, and err is in the message's history. It returns
// [ErrStale], [ErrSettled] or [ErrClosed].
func (d Delivery[T]) Settle(ctx context.Context, err error) error { return d.core().Settle(ctx, err) }

// Extend makes the visibility timeout pass after by, counted from the call, as
// ChangeMessageVisibility in SQS does. It never makes it shorter. A duration that isn't
// positive is [ErrInvalidOption]; otherwise Extend returns [ErrStale], [ErrSettled] or
// [ErrClosed].
func (d Delivery[T]) Extend(ctx context.Context, by time.Duration) error {
	return d.core().Extend(ctx, by)
}

// An Attempt is how one delivery of a message ended.
type Attempt struct {
	// Number is 1 for the message's first delivery and counts on through
	// snoozes, releases and redrives.
	Number int
	// Cause says how it ended.
	Cause Cause
	// Queue is the queue that made the delivery.
	Queue string
	// Start is when the delivery was made, and Elapsed how long it lasted. If a worker took
	// several messages at once, Start may be up to a millisecond late, and Elapsed that much
	// too short.
	Start   time.Time
	Elapsed time.Duration
	// Err is what the handler returned or panicked with, nil if there was none. If its text
	// is longer than 8 KiB, the beginning is kept, and of the errors that it wraps only
	// those with short texts. On an engine it is the text alone. See [Delivery.History].
	Err error
	// Stack is where a panic came from, at most 8 KiB of it.
	Stack string
}

// String returns the attempt in one line, without the stack.
func (a Attempt) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "attempt %d: %v after %v", a.Number, a.Cause, a.Elapsed.Round(time.Microsecond))
	if a.Err != nil {
		fmt.Fprintf(&b, ": %v", a.Err)
	}
	return b.String()
}

// attemptsOf is what a delivery shows of the attempts that were kept.
func attemptsOf(kept []message.Attempt) []Attempt {
	return sliceOf[Attempt](kept)
}

// attemptJSON is an Attempt in JSON.
type attemptJSON struct {
	Number  int       `json:"number"`
	Cause   Cause     `json:"cause"`
	Queue   string    `json:"queue"`
	Start   time.Time `json:"start"`
	Elapsed string    `json:"elapsed"`
	Error   *string   `json:"error,omitempty"`
	Stack   string    `json:"stack,omitempty"`
}

// MarshalJSON writes the attempt as an object with the fields number, cause (its name),
// queue, start (in RFC 3339), elapsed (as [time.Duration] prints it: "1.5s"), and, where
// there is one, error (its text) and stack.
func (a Attempt) MarshalJSON() ([]byte, error) {
	j := attemptJSON{Number: a.Number, Cause: a.Cause, Queue: a.Queue, Start: a.Start, Elapsed: a.Elapsed.String(), Stack: a.Stack}
	if a.Err != nil {
		text := fmt.Sprint(a.Err) // a text that panics is said to, as in String
		j.Error = &text
	}
	return json.Marshal(j)
}

// UnmarshalJSON reads what MarshalJSON writes. An error comes back as its text, in which
// errors.Is and errors.As find nothing. A value that is not valid, such as an unknown cause,
// is an error that names it, and the attempt stays as it was.
func (a *Attempt) UnmarshalJSON(data []byte) error {
	if string(data) == "null" {
		return nil // as package json has it
	}
	j := attemptJSON{Elapsed: "0s"}
	if err := json.Unmarshal(data, &j); err != nil {
		return fmt.Errorf("fanout: attempt: %w", err)
	}
	elapsed, err := time.ParseDuration(j.Elapsed)
	if err != nil {
		return fmt.Errorf("fanout: attempt: elapsed: %w", err)
	}
	*a = Attempt{Number: j.Number, Cause: j.Cause, Queue: j.Queue, Start: j.Start, Elapsed: elapsed, Stack: j.Stack}
	if j.Error != nil {
		a.Err = errors.New(*j.Error)
	}
	return nil
}
