package fanout

import (
	"context"
	"fmt"
	"maps"
	"time"

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

	q    *Queue[T]
	ext  *extra
	hist *history
	seq  uint64
	at   int64
	ref  message.Ref
}

// Encoded returns the body as the engine carried it. It is for dead letters that can't be
// decoded: they have the zero Body, in Peek, Receive and handlers of a dead-letter queue,
// and nothing but these bytes. Without [WithEngine] nothing is encoded, and Encoded returns
// nil; so it does for the zero Delivery. The bytes may be kept after the delivery was
// settled, but must not be changed: if the message becomes a dead letter, that has the same
// bytes.
func (d Delivery[T]) Encoded() []byte {
	l := leaseOf(d.ext)
	if l == nil {
		return nil
	}
	return l.msg.Body
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
	value, ok = d.ext.Attributes[name]
	return value, ok
}

// Attributes returns a copy of the message's attributes, nil if it has none.
func (d Delivery[T]) Attributes() map[string]string {
	if d.ext == nil {
		return nil
	}
	return maps.Clone(d.ext.Attributes)
}

// OrderingKey is the message's ordering key, empty if it has none.
func (d Delivery[T]) OrderingKey() string {
	if d.ext == nil {
		return ""
	}
	return d.ext.Key
}

// PublishedAt is when the message was published.
func (d Delivery[T]) PublishedAt() time.Time {
	if d.q == nil {
		return time.Time{}
	}
	return d.q.core.time(d.at)
}

// Attempt is the number of this attempt: 1 for the first delivery, and one more for each
// attempt that was spent since the message was published or redriven. Snoozes and releases
// spend none. A dead-letter queue counts its own deliveries; History tells how often the
// letter was tried before.
func (d Delivery[T]) Attempt() int { return int(d.ref.Attempt) }

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
func (d Delivery[T]) History() []Attempt {
	if d.hist == nil {
		return nil
	}
	return attemptsOf(d.hist, d.seq)
}

// Queue is the name of the queue that made the delivery. In a dead-letter queue it is that
// queue's own name.
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
	return d.q.deadline(d.ref)
}

// Ack acknowledges the message: this queue is done with it.
// It returns [ErrStale], [ErrSettled] or [ErrClosed].
func (d Delivery[T]) Ack(ctx context.Context) error {
	if d.q != nil && d.q.local && d.q.ack(d.ref) {
		return nil
	}
	return d.settle(ctx, verdict{cause: Acked})
}

// Nack gives the message back, to be delivered again after the queue's backoff.
// It spends an attempt. It returns [ErrStale], [ErrSettled] or [ErrClosed].
func (d Delivery[T]) Nack(ctx context.Context) error {
	return d.settle(ctx, verdict{cause: Nacked, wait: fromBackoff})
}

// NackAfter gives the message back, to be delivered again after wait. A wait of less than a
// millisecond is a millisecond. It spends an attempt. A negative wait is [ErrInvalidOption]
// and settles nothing. Otherwise NackAfter returns what Nack does.
func (d Delivery[T]) NackAfter(ctx context.Context, wait time.Duration) error {
	if wait < 0 {
		return fmt.Errorf("%w: NackAfter(%v): want a duration that is not negative", ErrInvalidOption, wait)
	}
	return d.settle(ctx, verdict{cause: Nacked, wait: max(wait, minWait)})
}

// Release gives the message back as if it had not been taken: it is ready at once, at its
// old place in the backlog. A dead-letter queue does not keep the places of its letters;
// there it is as if the delivery had timed out. Release is for a consumer that stops, or
// that has taken more than it can handle. It spends no attempt, and it does not count
// towards the thousand snoozes and releases after which a message is dead-lettered. So a
// consumer that takes and releases the same message again and again never ends: if it can't
// work now, it should call Settle with [Release], which waits. What is released while the
// topic shuts down is left over. Release returns [ErrStale], [ErrSettled] or [ErrClosed].
func (d Delivery[T]) Release(ctx context.Context) error {
	return d.settle(ctx, verdict{cause: Released})
}

// Settle settles the delivery as a handler that returned err would. So a consumer that
// receives for itself has the outcomes of a handler: nil acknowledges, [Permanent],
// [RetryAfter], [Snooze] and [Release] work, and err is in the message's history. It returns
// [ErrStale], [ErrSettled] or [ErrClosed].
func (d Delivery[T]) Settle(ctx context.Context, err error) error {
	return d.settle(ctx, judge(err))
}

func (d Delivery[T]) settle(ctx context.Context, v verdict) error {
	if d.q == nil {
		return fmt.Errorf("%w: the zero Delivery", ErrStale)
	}
	if !d.q.local {
		return d.settleOther(ctx, v)
	}
	return d.q.settleHere(d.ref, v)
}

// Extend makes the visibility timeout pass after by, counted from the call, as
// ChangeMessageVisibility in SQS does. It never makes it shorter. A duration that isn't
// positive is [ErrInvalidOption]; otherwise Extend returns [ErrStale], [ErrSettled] or
// [ErrClosed].
func (d Delivery[T]) Extend(ctx context.Context, by time.Duration) error {
	if by <= 0 {
		return fmt.Errorf("%w: Extend(%v): want a positive duration", ErrInvalidOption, by)
	}
	if d.q == nil {
		return fmt.Errorf("%w: the zero Delivery", ErrStale)
	}
	if !d.q.local {
		return d.extendOther(ctx, by)
	}
	return d.q.extend(ctx, d.ref, by)
}
