package fanoutwatermill

import (
	"context"
	"sync/atomic"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gofanout/fanout"
)

// A messageContext is the context of a message: that of its subscription, with what
// is known of its delivery. What its values don't answer, the context of the
// delivery's handler does: by that a publish knows where it comes from.
type messageContext struct {
	context.Context
	run      context.Context
	delivery fanout.Delivery[[]byte]
	failed   atomic.Pointer[error] // what the handler returned, see Errors
}

type contextKey struct{}

func (c *messageContext) Value(key any) any {
	if key == (contextKey{}) {
		return c
	}
	if v := c.Context.Value(key); v != nil {
		return v
	}
	return c.run.Value(key)
}

// outcome settles a message that was negatively acknowledged.
func (c *messageContext) outcome() error {
	if err := c.failed.Load(); err != nil {
		return *err
	}
	return c.delivery.Nack(c.run)
}

func contextOf(m *message.Message) (*messageContext, bool) {
	c, is := m.Context().Value(contextKey{}).(*messageContext)
	return c, is
}

// DeliveryOf returns the delivery that a message of a [Subscriber] is, for what
// watermill has no word for: its attempt, its history, when it was published, its
// ordering key, Extend. It is the message that should be settled, not the delivery.
// Of any other message it returns false, and of one whose context was replaced by a
// context that does not come from it.
func DeliveryOf(m *message.Message) (d fanout.Delivery[[]byte], ok bool) {
	if c, is := contextOf(m); is {
		return c.delivery, true
	}
	return d, false
}

// Errors is a middleware of watermill's router that has a message's history tell
// with which error its handler failed, and heeds errors that say more:
// fanout.Permanent makes the message a dead letter now, RetryAfter and Snooze say
// when it comes again. Without it a message that failed was negatively acknowledged,
// and no more is known. Messages of other subscribers pass through.
//
//	router.AddMiddleware(fanoutwatermill.Errors, middleware.Recoverer)
func Errors(h message.HandlerFunc) message.HandlerFunc {
	return func(m *message.Message) ([]*message.Message, error) {
		produced, err := h(m)
		if c, is := contextOf(m); is && err != nil {
			c.failed.Store(&err)
		}
		return produced, err
	}
}
