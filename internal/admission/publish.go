package admission

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"unicode/utf8"

	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
)

// Publish publishes one message.
func (a *Admission[T]) Publish(ctx context.Context, body T) error {
	if a.publishFast(ctx, body) {
		return nil
	}
	return a.publish(ctx, a.offerOf(body), false)
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
	o, err := a.offerOfAll(messages)
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
	return a.publish(ctx, a.offerOf(body), true)
}

// TryPublishBatch is PublishBatch without waiting.
func (a *Admission[T]) TryPublishBatch(ctx context.Context, messages []message.Published[T]) error {
	if a.publishPlain(ctx, messages) {
		return nil
	}
	o, err := a.offerOfAll(messages)
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

// checkAttributes returns an error for attributes that no engine and no filter could
// take: without a name, or not of UTF-8.
func checkAttributes(attributes map[string]string) error {
	for name, value := range attributes {
		if err := checkAttribute(name, value); err != nil {
			return err
		}
	}
	return nil
}

func checkAttribute(name, value string) error {
	switch {
	case name == "":
		return fmt.Errorf("an attribute without a name has the value %q: want a name", value)
	case !utf8.ValidString(name):
		return fmt.Errorf("attribute %q: want a name of UTF-8", name)
	case !utf8.ValidString(value):
		return fmt.Errorf("attribute %q is %q: want a value of UTF-8", name, value)
	}
	return nil
}

// offerOf returns an offer of one message that is nothing but its body.
func (a *Admission[T]) offerOf(body T) *offer[T] {
	o := a.newOffer()
	o.items = append(o.items, message.Item[T]{Body: body})
	return o
}

// offerOfAll checks messages and returns an offer with what the topic keeps of them.
func (a *Admission[T]) offerOfAll(messages []message.Published[T]) (*offer[T], error) {
	o := a.newOffer()
	o.items = slices.Grow(o.items, len(messages))
	for k := range messages {
		m := &messages[k]
		if m.Delay < 0 {
			return nil, fmt.Errorf("%w: message %d: Delay is %v: want a duration that is not negative", message.ErrInvalidMessage, k, m.Delay)
		}
		if err := checkAttributes(m.Attributes); err != nil {
			return nil, fmt.Errorf("%w: message %d: %w", message.ErrInvalidMessage, k, err)
		}
		switch {
		case m.TimeToLive < 0:
			return nil, fmt.Errorf("%w: message %d: TimeToLive is %v: want a duration that is not negative", message.ErrInvalidMessage, k, m.TimeToLive)
		case m.OrderingKey != "" && !a.ordering:
			return nil, a.lacks("WithOrdering", k, "OrderingKey", m.OrderingKey)
		case m.OrderingKey != "" && m.Delay > 0:
			return nil, fmt.Errorf("%w: message %d: Delay is %v and OrderingKey %q: with a key, delay the queue", message.ErrUnsupported, k, m.Delay, m.OrderingKey)
		case m.DeduplicationID != "" && a.dedup == nil:
			return nil, a.lacks("WithDeduplication", k, "DeduplicationID", m.DeduplicationID)
		}
		it := message.Item[T]{Body: m.Body}
		if !m.Plain() {
			it.Ext = &message.Extra{
				ID: m.ID, Attributes: maps.Clone(m.Attributes), Key: m.OrderingKey, Dedup: m.DeduplicationID,
				Delay: m.Delay, TTL: m.TimeToLive,
			}
		}
		o.items = append(o.items, it)
	}
	return o, nil
}

// lacks returns the error of message k for a field that needs an option.
func (a *Admission[T]) lacks(option string, k int, field, value string) error {
	return fmt.Errorf("%w: message %d: %s is %q, but topic %q was not made %s", message.ErrUnsupported, k, field, value, a.TopicName, option)
}

// publish publishes o, which is not its caller's any more.
func (a *Admission[T]) publish(ctx context.Context, o *offer[T], try bool) error {
	err := a.intercepted(ctx, o, try)
	if err == nil {
		return nil
	}
	return a.publishError(err)
}

func (a *Admission[T]) publishError(err error) error {
	return fmt.Errorf("fanout: publish to %q: %w", a.TopicName, err)
}

func (a *Admission[T]) intercepted(ctx context.Context, o *offer[T], try bool) error {
	if a.plain {
		err := a.tryAll(ctx, o, try)
		a.doneWith(o)
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
func (a *Admission[T]) tryAll(ctx context.Context, o *offer[T], try bool) error {
	if ctx == nil {
		return fmt.Errorf("%w: %w", message.ErrInvalidOption, message.ErrNilContext)
	}
	if ctx.Err() != nil {
		return message.ContextError(ctx)
	}
	if a.engine != nil {
		return a.engine.Publish(ctx, o.items, try)
	}
	for k := range o.items {
		if x := o.items[k].Ext; x != nil {
			o.delayed = o.delayed || x.Delay > 0
			o.dedup = o.dedup || x.Dedup != ""
		}
	}
	if err := a.routes.Ask(o.items, &o.Answer); err != nil {
		return err
	}
	err := a.offer(ctx, o, try)
	if err == nil && a.Core.Hooked[notice.Published] {
		a.TellPublished(o.items)
	}
	return err
}

// TellPublished tells hooks of items that were published.
func (a *Admission[T]) TellPublished(items []message.Item[T]) {
	if !a.Core.Hooked[notice.Published] {
		return
	}
	for _, it := range items {
		a.To.Call(notice.Published, &notice.Event{
			Topic: a.TopicName, Seq: it.Seq, Time: a.Time(it.At), MessageID: a.IDOf(it.Seq, it.At, it.Ext), PublishedAt: a.Time(it.At), Count: 1,
		})
	}
}
