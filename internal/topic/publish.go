package topic

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
func (t *Topic[T]) Publish(ctx context.Context, body T) error {
	if t.publishFast(ctx, body) {
		return nil
	}
	return t.publish(ctx, t.offerOf(body), false)
}

// publishFast publishes one message when there is nothing to look at and
// nobody to wait for: one short lock, one append. It reports whether it has.
func (t *Topic[T]) publishFast(ctx context.Context, body T) (done bool) {
	if ctx == nil || ctx.Err() != nil || !t.plain || !t.routes.None() {
		return false
	}
	now := t.Now()
	t.Mu.Lock()
	if t.state != topicOpen || t.lines.Waiting() > 0 || !t.fitsLocked(1) {
		t.Mu.Unlock()
		return false
	}
	t.seq++
	it := message.Item[T]{Seq: t.seq, At: t.timeOf(now), Body: body}
	if t.open.Len() > 0 { // else nobody would read it
		t.log.Append(it)
		t.log.Publish()
	} else {
		t.unrouted++
	}
	t.retained.add(it)
	t.Mu.Unlock()
	t.WakeAll(&t.Idle)
	if t.Core.Hooked[notice.Published] {
		t.TellPublished([]message.Item[T]{it})
	}
	return true
}

// PublishBatch publishes a batch, all or none.
func (t *Topic[T]) PublishBatch(ctx context.Context, messages []message.Published[T]) error {
	if t.publishPlain(ctx, messages) {
		return nil
	}
	o, err := t.offerOfAll(messages)
	if err != nil {
		return t.publishError(err)
	}
	return t.publish(ctx, o, false)
}

// TryPublish is Publish without waiting.
func (t *Topic[T]) TryPublish(ctx context.Context, body T) error {
	if t.publishFast(ctx, body) {
		return nil
	}
	return t.publish(ctx, t.offerOf(body), true)
}

// TryPublishBatch is PublishBatch without waiting.
func (t *Topic[T]) TryPublishBatch(ctx context.Context, messages []message.Published[T]) error {
	if t.publishPlain(ctx, messages) {
		return nil
	}
	o, err := t.offerOfAll(messages)
	if err != nil {
		return t.publishError(err)
	}
	return t.publish(ctx, o, true)
}

// publishPlain is publishFast for a batch of messages that are nothing but
// their bodies.
func (t *Topic[T]) publishPlain(ctx context.Context, messages []message.Published[T]) (done bool) {
	if ctx == nil || ctx.Err() != nil || !t.plain || !t.routes.None() || t.Core.Hooked[notice.Published] || t.retained.size > 0 {
		return false
	}
	for k := range messages {
		if !messages[k].Plain() {
			return false
		}
	}
	n := int64(len(messages))
	now := t.Now()
	t.Mu.Lock()
	if t.state != topicOpen || t.lines.Waiting() > 0 || !t.fitsLocked(n) {
		t.Mu.Unlock()
		return false
	}
	at, seq := t.timeOf(now), t.seq
	t.seq += uint64(n)
	for rest := messages; len(rest) > 0 && t.open.Len() > 0; { // else nobody would read them
		room := t.log.Extend(len(rest))
		for k := range room {
			seq++
			room[k] = message.Item[T]{Seq: seq, At: at, Body: rest[k].Body}
		}
		rest = rest[len(room):]
	}
	if t.open.Len() == 0 {
		t.unrouted += uint64(n)
	}
	t.log.Publish()
	t.Mu.Unlock()
	t.WakeAll(&t.Idle)
	return true
}

// fitsLocked reports whether n messages can be appended without looking at any
// queue. What the topic remembers of the queues may have become better since.
func (t *Topic[T]) fitsLocked(n int64) bool {
	if t.log.Head()+n <= t.limit {
		return true
	}
	if t.limit >= 0 {
		t.relimitLocked()
	}
	return t.log.Head()+n <= t.limit
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
func (t *Topic[T]) offerOf(body T) *offer[T] {
	o := t.newOffer()
	o.items = append(o.items, message.Item[T]{Body: body})
	return o
}

// offerOfAll checks messages and returns an offer with what the topic keeps of them.
func (t *Topic[T]) offerOfAll(messages []message.Published[T]) (*offer[T], error) {
	o := t.newOffer()
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
		case m.OrderingKey != "" && !t.ordering:
			return nil, t.lacks("WithOrdering", k, "OrderingKey", m.OrderingKey)
		case m.OrderingKey != "" && m.Delay > 0:
			return nil, fmt.Errorf("%w: message %d: Delay is %v and OrderingKey %q: with a key, delay the queue", message.ErrUnsupported, k, m.Delay, m.OrderingKey)
		case m.DeduplicationID != "" && t.dedup == nil:
			return nil, t.lacks("WithDeduplication", k, "DeduplicationID", m.DeduplicationID)
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
func (t *Topic[T]) lacks(option string, k int, field, value string) error {
	return fmt.Errorf("%w: message %d: %s is %q, but topic %q was not made %s", message.ErrUnsupported, k, field, value, t.TopicName, option)
}

// publish publishes o, which is not its caller's any more.
func (t *Topic[T]) publish(ctx context.Context, o *offer[T], try bool) error {
	err := t.intercepted(ctx, o, try)
	if err == nil {
		return nil
	}
	return t.publishError(err)
}

func (t *Topic[T]) publishError(err error) error {
	return fmt.Errorf("fanout: publish to %q: %w", t.TopicName, err)
}

func (t *Topic[T]) intercepted(ctx context.Context, o *offer[T], try bool) error {
	if t.plain {
		err := t.tryAll(ctx, o, try)
		t.doneWith(o)
		return err
	}
	s := t.fixed(o, try)
	info := s.info(t.TopicName)
	s.chain.Info = info
	err := t.before[0](ctx, info, s.chain.Next)
	s.release()
	return err
}

// tryAll publishes o.
func (t *Topic[T]) tryAll(ctx context.Context, o *offer[T], try bool) error {
	if ctx == nil {
		return fmt.Errorf("%w: %w", message.ErrInvalidOption, message.ErrNilContext)
	}
	if ctx.Err() != nil {
		return message.ContextError(ctx)
	}
	if t.remote != nil {
		return t.remote.Publish(ctx, o.items, try)
	}
	for k := range o.items {
		if x := o.items[k].Ext; x != nil {
			o.delayed = o.delayed || x.Delay > 0
			o.dedup = o.dedup || x.Dedup != ""
		}
	}
	if err := t.routes.Ask(o.items, &o.Answer); err != nil {
		return err
	}
	err := t.offer(ctx, o, try)
	if err == nil && t.Core.Hooked[notice.Published] {
		t.TellPublished(o.items)
	}
	return err
}

// TellPublished tells hooks of items that were published.
func (t *Topic[T]) TellPublished(items []message.Item[T]) {
	if !t.Core.Hooked[notice.Published] {
		return
	}
	for _, it := range items {
		t.To.Call(notice.Published, &notice.Event{
			Topic: t.TopicName, Seq: it.Seq, Time: t.Time(it.At), MessageID: t.IDOf(it.Seq, it.At, it.Ext), PublishedAt: t.Time(it.At), Count: 1,
		})
	}
}
