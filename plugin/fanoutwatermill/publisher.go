package fanoutwatermill

import (
	"context"
	"fmt"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gofanout/fanout"
)

// A Publisher is watermill's publisher to a [Broker]'s topics.
type Publisher struct {
	broker *Broker
	ctx    context.Context // ends when the publisher is closed
	close  context.CancelCauseFunc
}

var _ message.Publisher = (*Publisher)(nil)

// Publish publishes the messages, in their order, all or none: when it returns nil
// all are in the queue of each group, and when it returns an error none is in any,
// see [fanout.Topic.PublishMessages]. It waits while a queue with the Block policy,
// which is the default, is full, until the context of one of the messages ends or
// the publisher is closed. In a handler give the messages the context of the one
// that is handled, so that a publish that could only wait for its own handler gets
// [fanout.ErrWouldDeadlock]: m.SetContext(handled.Context()).
//
// It may be called concurrently.
func (p *Publisher) Publish(topic string, messages ...*message.Message) error {
	if err := p.closed(); err != nil {
		return err
	}
	t, err := p.broker.topic(topic)
	if err != nil {
		return err
	}
	out := make([]fanout.Message[[]byte], len(messages))
	for k, m := range messages {
		if m == nil {
			return fmt.Errorf("%w: message %d for topic %q is nil", fanout.ErrInvalidMessage, k, topic)
		}
		out[k] = fanout.Message[[]byte]{ID: m.UUID, Body: m.Payload, Attributes: m.Metadata}
		if p.broker.settings.fields != nil {
			p.broker.settings.fields(topic, m, &out[k])
		}
	}
	if len(messages) == 0 {
		return nil
	}
	ctx, cancel := context.WithCancel(messages[0].Context())
	defer cancel()
	for _, m := range messages[1:] {
		if m.Context().Done() != nil && m.Context() != messages[0].Context() {
			defer context.AfterFunc(m.Context(), cancel)()
		}
	}
	defer context.AfterFunc(p.ctx, cancel)()
	err = t.PublishMessages(ctx, out...)
	if closed := p.closed(); err != nil && closed != nil {
		return fmt.Errorf("%w: %w", closed, err)
	}
	return err
}

// closed returns an error if the publisher is closed.
func (p *Publisher) closed() error {
	if p.ctx.Err() == nil {
		return nil
	}
	return context.Cause(p.ctx)
}

// Close ends the publisher: publishes that wait for room end, and all later ones
// return [fanout.ErrClosed]. What was published is in the groups' queues already, so
// there is nothing to flush. Topics and other publishers go on. It may be called
// more than once.
func (p *Publisher) Close() error {
	p.broker.mu.Lock()
	delete(p.broker.publishers, p)
	p.broker.mu.Unlock()
	p.close(errClosed("publisher"))
	return nil
}
