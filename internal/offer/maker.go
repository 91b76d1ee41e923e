package offer

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"unicode/utf8"

	"github.com/gofanout/fanout/internal/message"
)

// A Maker makes the offers of a topic's publishes, and uses them again. All methods may be
// called concurrently.
type Maker[T any] struct {
	// Immutable.
	Topic         string
	Ordering      bool // messages may have ordering keys
	Deduplication bool // and deduplication IDs

	unused sync.Pool // *Offer[T]
}

// offerBytes is about how much room an offer may have that is used again.
const offerBytes = 64 << 10

// New returns an empty offer.
func (m *Maker[T]) New() *Offer[T] {
	if o, ok := m.unused.Get().(*Offer[T]); ok {
		return o
	}
	return new(Offer[T])
}

// Done says that nobody will look at o again, unless it waited.
func (m *Maker[T]) Done(o *Offer[T]) {
	if o.MayWait || uintptr(cap(o.Items)) > offerBytes/o.ItemBytes() || o.Words() > offerBytes/8 {
		return
	}
	o.Reset()
	clear(o.Items)
	o.Delayed, o.Dedup, o.Duplicates = false, false, 0
	o.Items = o.Items[:0]
	m.unused.Put(o)
}

// Of returns an offer of one message that is nothing but its body.
func (m *Maker[T]) Of(body T) *Offer[T] {
	o := m.New()
	o.Items = append(o.Items, message.Item[T]{Body: body})
	return o
}

// OfAll checks messages and returns an offer with what the topic keeps of them.
func (m *Maker[T]) OfAll(messages []message.Published[T]) (*Offer[T], error) {
	o := m.New()
	o.Items = slices.Grow(o.Items, len(messages))
	for k := range messages {
		p := &messages[k]
		if p.Delay < 0 {
			return nil, fmt.Errorf("%w: message %d: Delay is %v: want a duration that is not negative", message.ErrInvalidMessage, k, p.Delay)
		}
		if err := checkAttributes(p.Attributes); err != nil {
			return nil, fmt.Errorf("%w: message %d: %w", message.ErrInvalidMessage, k, err)
		}
		switch {
		case p.TimeToLive < 0:
			return nil, fmt.Errorf("%w: message %d: TimeToLive is %v: want a duration that is not negative", message.ErrInvalidMessage, k, p.TimeToLive)
		case p.OrderingKey != "" && !m.Ordering:
			return nil, m.lacks("WithOrdering", k, "OrderingKey", p.OrderingKey)
		case p.OrderingKey != "" && p.Delay > 0:
			return nil, fmt.Errorf("%w: message %d: Delay is %v and OrderingKey %q: with a key, delay the queue", message.ErrUnsupported, k, p.Delay, p.OrderingKey)
		case p.DeduplicationID != "" && !m.Deduplication:
			return nil, m.lacks("WithDeduplication", k, "DeduplicationID", p.DeduplicationID)
		}
		it := message.Item[T]{Body: p.Body}
		if !p.Plain() {
			it.Ext = &message.Extra{
				ID: p.ID, Attributes: maps.Clone(p.Attributes), Key: p.OrderingKey, Dedup: p.DeduplicationID,
				Delay: p.Delay, TTL: p.TimeToLive,
			}
		}
		o.Items = append(o.Items, it)
	}
	return o, nil
}

// lacks returns the error of message k for a field that needs an option.
func (m *Maker[T]) lacks(option string, k int, field, value string) error {
	return fmt.Errorf("%w: message %d: %s is %q, but topic %q was not made %s", message.ErrUnsupported, k, field, value, m.Topic, option)
}

// checkAttributes returns an error for attributes that no engine and no filter could
// take: without a name, or not of UTF-8.
func checkAttributes(attributes map[string]string) error {
	for name, value := range attributes {
		if err := CheckAttribute(name, value); err != nil {
			return err
		}
	}
	return nil
}

// CheckAttribute is checkAttributes for one.
func CheckAttribute(name, value string) error {
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
