package fanout

import (
	"context"
	"fmt"
	"maps"
	"time"
)

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
	// Body is what was published, not a copy of it: what it points to is shared with
	// the publisher, the other queues' deliveries and later attempts at this
	// message, and should not be changed.
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

// Encoded returns the body as the engine carried it, of any message, and also of a letter
// that can't be decoded: its Body is the zero value, in Peek, Receive and handlers of a
// dead-letter queue, and these bytes are all that there is of it. Without [WithEngine]
// nothing is encoded, and it is nil; so it is for the zero Delivery. It may be kept, after
// the delivery was settled too, but must not be changed: the letter that the message
// becomes has the same bytes.
func (d Delivery[T]) Encoded() []byte {
	if d.ext == nil || d.ext.lease == nil {
		return nil
	}
	return d.ext.lease.msg.Body
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
// before a redrive included. Of more than 1,000 it has the first 500 and the last
// 500; what a dead-letter queue did makes way first. Of the text of an error or of
// a stack at most 8 KiB are kept, and of all of a message 256 KiB, without the
// oldest texts; a note says how many bytes were left out. On an engine it is 32
// attempts, 2 KiB and 32 KiB.
//
// In memory an attempt's error is the one that the handler returned, for errors.Is
// and errors.As, unless its text was cut: then it is what it wraps, as far as that
// is short, and nothing once the text was left out. On an engine it has its text alone.
func (d Delivery[T]) History() []Attempt {
	if d.hist == nil {
		return nil
	}
	return d.hist.of(d.seq)
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
	switch {
	case d.entry == inLoop:
		if d.q.ackInLoop(d.stamp) {
			return nil
		}
	case d.entry < inHand:
		if d.q.ackLeased(d.entry, d.stamp) {
			return nil
		}
	}
	return d.settle(ctx, verdict{cause: Acked})
}

// Nack gives the message back, to be delivered again after the queue's backoff.
// It spends an attempt. It returns [ErrStale], [ErrSettled] or [ErrClosed].
func (d Delivery[T]) Nack(ctx context.Context) error {
	return d.settle(ctx, verdict{cause: Nacked, wait: fromBackoff})
}

// NackAfter gives the message back, to be delivered again after wait, at the
// earliest after a millisecond. It spends an attempt. A negative wait is
// [ErrInvalidOption] and settles nothing; else it returns what Nack does.
func (d Delivery[T]) NackAfter(ctx context.Context, wait time.Duration) error {
	if wait < 0 {
		return fmt.Errorf("%w: NackAfter(%v): want a duration that is not negative", ErrInvalidOption, wait)
	}
	return d.settle(ctx, verdict{cause: Nacked, wait: max(wait, minWait)})
}

// Release gives the message back as if it had not been taken: it is ready at once,
// at its place in the backlog; in a dead-letter queue, which does not keep its
// letters' places, as if it had timed out. It is for a consumer that stops, or has
// taken more than it can do: it spends no attempt and does not count towards the thousand
// snoozes and releases after which a message is dead-lettered, so that a consumer
// that takes the message again and again gets it again and again. One that can't
// work now settles with [Release], which waits. While the topic shuts down what is
// released is left over. It returns [ErrStale], [ErrSettled] or [ErrClosed].
func (d Delivery[T]) Release(ctx context.Context) error {
	return d.settle(ctx, verdict{cause: Released})
}

// Settle settles the delivery as a handler that returned err would: nil
// acknowledges, and [Permanent], [RetryAfter], [Snooze] and [Release] are understood. It
// gives those who receive for themselves the outcomes that handlers have, with
// err in the message's history. It returns [ErrStale], [ErrSettled] or [ErrClosed].
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
	return d.q.settleHere(d.entry, d.stamp, d.attempt, v)
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
	if !d.q.local {
		return d.extendOther(ctx, by)
	}
	return d.q.extend(ctx, d.entry, d.stamp, by)
}
