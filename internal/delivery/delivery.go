package delivery

import (
	"context"
	"fmt"
	"maps"
	"time"

	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/queue"
)

// A Delivery gives one message to one consumer. It is laid out as package fanout's is,
// which stands before it: the body, and then the receipt.
type Delivery[T any] struct {
	Body T
	Receipt[T]
}

// A Receipt is all of a delivery but the body. All methods may be called concurrently, also
// those of the zero Receipt.
type Receipt[T any] struct {
	Q    *queue.Queue[T]
	Ext  *message.Extra
	Hist *message.History
	Seq  uint64
	At   int64
	Ref  message.Ref
}

// Of is a delivery of a message of the queue.
func Of[T any](q *queue.Queue[T], it *message.Item[T], hist *message.History, ref message.Ref) Delivery[T] {
	return Delivery[T]{it.Body, Receipt[T]{Q: q, Ext: it.Ext, Hist: hist, Seq: it.Seq, At: it.At, Ref: ref}}
}

// Encoded returns the body as the engine carried it; nil in memory.
func (d Receipt[T]) Encoded() []byte {
	data, _ := EncodedOf(d.Ext)
	return data
}

// An encoded is what an engine gave with a message.
type encoded interface{ Encoded() []byte }

// EncodedOf returns a body as the engine carried it. ok is false in memory.
func EncodedOf(x *message.Extra) (data []byte, ok bool) {
	if x == nil || x.Receipt == nil {
		return nil, false
	}
	return x.Receipt.(encoded).Encoded(), true
}

// ID is the message's ID.
func (d Receipt[T]) ID() string {
	if d.Q == nil {
		return ""
	}
	return d.Q.Core.IDOf(d.Seq, d.At, d.Ext)
}

// Attribute returns one of the message's attributes.
func (d Receipt[T]) Attribute(name string) (value string, ok bool) {
	if d.Ext == nil {
		return "", false
	}
	value, ok = d.Ext.Attributes[name]
	return value, ok
}

// Attributes returns a copy of the message's attributes, nil if it has none.
func (d Receipt[T]) Attributes() map[string]string {
	if d.Ext == nil {
		return nil
	}
	return maps.Clone(d.Ext.Attributes)
}

// OrderingKey is the message's ordering key, empty if it has none.
func (d Receipt[T]) OrderingKey() string {
	if d.Ext == nil {
		return ""
	}
	return d.Ext.Key
}

// PublishedAt is when the message was published.
func (d Receipt[T]) PublishedAt() time.Time {
	if d.Q == nil {
		return time.Time{}
	}
	return d.Q.Core.Time(d.At)
}

// Attempt is the number of this attempt.
func (d Receipt[T]) Attempt() int { return int(d.Ref.Attempt) }

// Sequence is the number of the message in its topic.
func (d Receipt[T]) Sequence() uint64 { return d.Seq }

// History returns how the attempts before this one ended, oldest first.
func (d Receipt[T]) History() []message.Attempt {
	if d.Hist == nil {
		return nil
	}
	return d.Hist.Attempts(d.Seq)
}

// Queue is the name of the queue that made the delivery.
func (d Receipt[T]) Queue() string {
	if d.Q == nil {
		return ""
	}
	return d.Q.Name()
}

// Deadline is when the delivery's visibility timeout passes, or the zero Time if the
// delivery no longer owns its message.
func (d Receipt[T]) Deadline() time.Time {
	if d.Q == nil {
		return time.Time{}
	}
	return deadline(d.Q, d.Ref)
}

// Ack acknowledges the message.
func (d Delivery[T]) Ack(ctx context.Context) error {
	if AckHere(d.Q, d.Ref) {
		return nil
	}
	return d.settle(ctx, message.Verdict{Cause: message.Acked})
}

// Nack gives the message back, to be delivered again after the queue's backoff.
func (d Delivery[T]) Nack(ctx context.Context) error {
	return d.settle(ctx, message.Verdict{Cause: message.Nacked, Wait: message.FromBackoff})
}

// NackAfter gives the message back, to be delivered again after wait.
func (d Delivery[T]) NackAfter(ctx context.Context, wait time.Duration) error {
	if wait < 0 {
		return fmt.Errorf("%w: NackAfter(%v): want a duration that is not negative", message.ErrInvalidOption, wait)
	}
	return d.settle(ctx, message.Verdict{Cause: message.Nacked, Wait: max(wait, message.MinWait)})
}

// Release gives the message back as if it had not been taken.
func (d Delivery[T]) Release(ctx context.Context) error {
	return d.settle(ctx, message.Verdict{Cause: message.Released})
}

// Settle settles the delivery as a handler that returned err would.
func (d Delivery[T]) Settle(ctx context.Context, err error) error {
	return d.settle(ctx, message.Judge(err))
}

func (d Delivery[T]) settle(ctx context.Context, v message.Verdict) error {
	if d.Q == nil {
		return fmt.Errorf("%w: the zero Delivery", message.ErrStale)
	}
	if !d.Q.Local {
		return d.settleOther(ctx, v)
	}
	return settleHere(d.Q, d.Ref, v)
}

// Extend makes the visibility timeout pass after by, counted from the call. It never makes
// it shorter.
func (d Delivery[T]) Extend(ctx context.Context, by time.Duration) error {
	if by <= 0 {
		return fmt.Errorf("%w: Extend(%v): want a positive duration", message.ErrInvalidOption, by)
	}
	if d.Q == nil {
		return fmt.Errorf("%w: the zero Delivery", message.ErrStale)
	}
	if !d.Q.Local {
		return d.extendOther(ctx, by)
	}
	return extend(ctx, d.Q, d.Ref, by)
}

// Item is the message that was delivered.
func (d *Delivery[T]) Item() message.Item[T] {
	return message.Item[T]{Seq: d.Seq, At: d.At, Ext: d.Ext, Body: d.Body}
}

// Forget lets go of the message, so that what is done is not kept.
func (d *Delivery[T]) Forget() {
	var none T
	d.Body, d.Ext = none, nil
}
