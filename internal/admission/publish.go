package admission

import (
	"context"
	"fmt"

	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/offer"
)

// Publish publishes one message.
func (a *Admission[T]) Publish(ctx context.Context, body T) error {
	if a.publishFast(ctx, body) {
		return nil
	}
	return a.publish(ctx, a.offers.Of(body), false)
}

// publishFast publishes one message when there is nothing to look at and
// nobody to wait for: one short lock, one append. It reports whether it has.
func (a *Admission[T]) publishFast(ctx context.Context, body T) (done bool) {
	if ctx == nil || ctx.Err() != nil || !a.plain || !a.routes.None() {
		return false
	}
	now := a.Now()
	a.Mu.Lock()
	if a.state != topicOpen || a.lines.Waiting() > 0 || !a.fitsLocked(1) {
		a.Mu.Unlock()
		return false
	}
	a.seq++
	it := message.Item[T]{Seq: a.seq, At: a.timeOf(now), Body: body}
	if a.open.Len() > 0 { // else nobody would read it
		a.log.Append(it)
		a.log.Publish()
	} else {
		a.unrouted++
	}
	a.retained.add(it)
	a.Mu.Unlock()
	a.WakeAll(&a.Idle)
	if a.Core.Hooked[notice.Published] {
		a.TellPublished([]message.Item[T]{it})
	}
	return true
}

// PublishBatch publishes a batch, all or none.
func (a *Admission[T]) PublishBatch(ctx context.Context, messages []message.Published[T]) error {
	if a.publishPlain(ctx, messages) {
		return nil
	}
	o, err := a.offers.OfAll(messages)
	if err != nil {
		return a.publishError(err)
	}
	return a.publish(ctx, o, false)
}

// TryPublish is Publish without waiting.
func (a *Admission[T]) TryPublish(ctx context.Context, body T) error {
	if a.publishFast(ctx, body) {
		return nil
	}
	return a.publish(ctx, a.offers.Of(body), true)
}

// TryPublishBatch is PublishBatch without waiting.
func (a *Admission[T]) TryPublishBatch(ctx context.Context, messages []message.Published[T]) error {
	if a.publishPlain(ctx, messages) {
		return nil
	}
	o, err := a.offers.OfAll(messages)
	if err != nil {
		return a.publishError(err)
	}
	return a.publish(ctx, o, true)
}

// publishPlain is publishFast for a batch of messages that are nothing but
// their bodies.
func (a *Admission[T]) publishPlain(ctx context.Context, messages []message.Published[T]) (done bool) {
	if ctx == nil || ctx.Err() != nil || !a.plain || !a.routes.None() || a.Core.Hooked[notice.Published] || a.retained.size > 0 {
		return false
	}
	for k := range messages {
		if !messages[k].Plain() {
			return false
		}
	}
	n := int64(len(messages))
	now := a.Now()
	a.Mu.Lock()
	if a.state != topicOpen || a.lines.Waiting() > 0 || !a.fitsLocked(n) {
		a.Mu.Unlock()
		return false
	}
	at, seq := a.timeOf(now), a.seq
	a.seq += uint64(n)
	for rest := messages; len(rest) > 0 && a.open.Len() > 0; { // else nobody would read them
		room := a.log.Extend(len(rest))
		for k := range room {
			seq++
			room[k] = message.Item[T]{Seq: seq, At: at, Body: rest[k].Body}
		}
		rest = rest[len(room):]
	}
	if a.open.Len() == 0 {
		a.unrouted += uint64(n)
	}
	a.log.Publish()
	a.Mu.Unlock()
	a.WakeAll(&a.Idle)
	return true
}

// fitsLocked reports whether n messages can be appended without looking at any
// queue. What the topic remembers of the queues may have become better since.
func (a *Admission[T]) fitsLocked(n int64) bool {
	if a.log.Head()+n <= a.limit {
		return true
	}
	if a.limit >= 0 {
		a.relimitLocked()
	}
	return a.log.Head()+n <= a.limit
}

// publish publishes o, which is not its caller's any more.
func (a *Admission[T]) publish(ctx context.Context, o *offer.Offer[T], try bool) error {
	err := a.intercepted(ctx, o, try)
	if err == nil {
		return nil
	}
	return a.publishError(err)
}

func (a *Admission[T]) publishError(err error) error {
	return fmt.Errorf("fanout: publish to %q: %w", a.TopicName, err)
}

func (a *Admission[T]) intercepted(ctx context.Context, o *offer.Offer[T], try bool) error {
	if a.plain {
		err := a.tryAll(ctx, o, try)
		a.offers.Done(o)
		return err
	}
	s := a.fixed(o, try)
	info := s.info(a.TopicName)
	s.chain.Info = info
	err := a.before[0](ctx, info, s.chain.Next)
	s.release()
	return err
}

// tryAll publishes o.
func (a *Admission[T]) tryAll(ctx context.Context, o *offer.Offer[T], try bool) error {
	if ctx == nil {
		return fmt.Errorf("%w: %w", message.ErrInvalidOption, message.ErrNilContext)
	}
	if ctx.Err() != nil {
		return message.ContextError(ctx)
	}
	if a.engine != nil {
		return a.engine.Publish(ctx, o.Items, try)
	}
	o.Look()
	if err := a.routes.Ask(o.Items, &o.Answer); err != nil {
		return err
	}
	err := a.offer(ctx, o, try)
	if err == nil && a.Core.Hooked[notice.Published] {
		a.TellPublished(o.Items)
	}
	return err
}

// TellPublished tells hooks of items that were published.
func (a *Admission[T]) TellPublished(items []message.Item[T]) {
	if !a.Core.Hooked[notice.Published] {
		return
	}
	t, ok := a.tellers.Get().(*teller)
	if !ok {
		t = new(teller)
	}
	for _, it := range items {
		at := a.Time(it.At)
		t.event = notice.Event{
			Topic: a.TopicName, Seq: it.Seq, Time: at, MessageID: t.ids.ID(&a.Clock, it.Seq, it.At, it.Ext), PublishedAt: at, Count: 1,
		}
		a.To.Call(notice.Published, &t.event)
	}
	t.event.MessageID = "" // it may be the publisher's
	a.tellers.Put(t)
}

// A teller is what a publish needs to tell hooks of its messages. If a hook ends the
// goroutine, it isn't used again.
type teller struct {
	event notice.Event
	ids   message.IDs
}
