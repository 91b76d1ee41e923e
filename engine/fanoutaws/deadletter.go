package fanoutaws

import (
	"context"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/gofanout/fanout/engine"
)

// DeadLetter sends the letter, then deletes the message.
func (q *queue) DeadLetter(ctx context.Context, r engine.Receipt, m engine.Message) error {
	if q.dead == nil {
		return q.wrap("dead-letter", errors.New("bug: this is a dead-letter queue"))
	}
	own, err := q.live(ctx, r)
	if err != nil {
		return err
	}
	if err := q.dead.put(ctx, m, own.messageID); err != nil {
		return q.wrap("dead-letter", err)
	}
	return q.finish(ctx, own)
}

// Redrive sends the message, then deletes the letter.
func (q *queue) Redrive(ctx context.Context, r engine.Receipt, m engine.Message) error {
	if q.source == nil {
		return q.wrap("redrive", errors.New("bug: this is no dead-letter queue"))
	}
	own, err := q.live(ctx, r)
	if err != nil {
		return err
	}
	if err := q.source.put(ctx, m, own.messageID); err != nil {
		return q.wrap("redrive", err)
	}
	return q.finish(ctx, own)
}

// finish deletes what was sent elsewhere.
func (q *queue) finish(ctx context.Context, own *receipt) error {
	if err := q.delete(ctx, own); err != nil {
		return q.wrap("delete what was moved, and is in both queues now", err)
	}
	q.forget(own)
	return nil
}

// put sends m to this queue only. from is SQS's ID of the message that it
// replaces: a FIFO queue then takes it once, however often a failed move is
// tried within five minutes.
func (q *queue) put(ctx context.Context, m engine.Message, from string) error {
	p := pack{Moved: movedRedriven}
	if q.source != nil {
		p.Moved = movedDead
	}
	w, err := encode(m, p, q.settings.numbers, nil) // SQS filters nothing
	if err != nil {
		return err
	}
	if w.size() > q.place.most() {
		return fmt.Errorf("%w: message %q has %d bytes with its attributes and its state, and %s takes %d",
			engine.ErrTooLarge, m.ID, w.size(), q.place.arn, q.place.most())
	}
	in := &sqstypes.SendMessageBatchRequestEntry{
		MessageBody:       aws.String(w.body),
		MessageAttributes: make(map[string]sqstypes.MessageAttributeValue, len(w.attributes)),
	}
	for name, a := range w.attributes {
		in.MessageAttributes[name] = sqstypes.MessageAttributeValue{DataType: aws.String(a.typ), StringValue: aws.String(a.value)}
	}
	switch {
	case q.fifo:
		key := m.OrderingKey
		if q.source != nil {
			// A letter that is looked at and given back must not hold up the others
			// of its key: they are dead, and in no order.
			key = ""
		}
		in.MessageGroupId = aws.String(groupID(key))
		in.MessageDeduplicationId = aws.String("-from-" + from)
	case q.place.attributes["DelaySeconds"] != "0":
		// SQS's own delay is for what is published. A 0 would not be sent.
		in.DelaySeconds = 1
	}
	return q.sends.do(ctx, settlement{message: in, bytes: w.size()})
}
