package fanout

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"time"

	"github.com/gofanout/fanout/internal/intercept"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/settings"
)

// An Interceptor is called around a publish, a handler, or what a caller does with a queue.
// It can log, measure, trace or refuse. It calls next to go on, with its own context or one
// that comes from it, and returns what next returned or another error. The publisher or
// caller gets that error; around a handler it settles the delivery as the handler's would.
// An interceptor that does not call next publishes nothing, skips the handler, or leaves the
// queue as it is. One that calls next twice publishes twice, with the same IDs. It may return
// while a call of next runs, and calls it no more after that. Interceptors are called concurrently and without a lock. They do not depend on T, so one can serve all
// topics. A panic in one is a panic of the publisher, the caller or the handler.
type Interceptor func(ctx context.Context, info Info, next func(context.Context) error) error

// An Operation says what an [Interceptor] is called around.
type Operation uint8

const (
	OpPublish Operation = iota + 1 // Publish and its siblings
	OpHandle                       // a run of a handler
	OpReceive                      // Receive and its siblings, and each step of a range over Deliveries
	OpSettle                       // Ack, Nack, NackAfter, Release and Settle, and AckBatch for each message
	OpExtend                       // Extend
	OpRedrive                      // Redrive
)

var operationNames = [...]string{"none", "publish", "handle", "receive", "settle", "extend", "redrive"}

// String returns the operation's name.
func (o Operation) String() string {
	if int(o) < len(operationNames) {
		return operationNames[o]
	}
	return fmt.Sprintf("Operation(%d)", uint8(o))
}

// Info says what an [Interceptor] is called around. Only one goroutine may read it at a
// time, and only while the interceptor runs.
type Info struct {
	Operation Operation
	Topic     string
	// Queue is the queue's name, empty around a publish.
	Queue string
	// Messages is how many messages the call publishes, settles or extends, or the
	// handler got. Around a receive it is how many are asked for at most, and around
	// a redrive 0.
	Messages int
	// MessageID, Attempt and PublishedAt are those of the first message, see
	// [Info.Message]. They are not set around a receive or a redrive.
	MessageID   string
	Attempt     int
	PublishedAt time.Time
	// Cause is how a settlement ends the delivery, 0 around all else.
	Cause Cause

	about intercept.About // nil: nothing
}

// Len is the number of messages that [Info.Message] knows: those of the call. Around a
// receive it is 0 before next was called, and after that the number received. Around a
// redrive it is the number of letters that next has moved, of which nothing else is known.
func (i Info) Len() int {
	if i.about == nil {
		return 0
	}
	return i.about.Count()
}

// Message returns message k of the call, in the order of the batch. If k is not below
// [Info.Len], and around a redrive, the methods of the result return nothing.
func (i Info) Message(k int) MessageInfo {
	if k < 0 || k >= i.Len() || i.Operation == OpRedrive {
		return MessageInfo{}
	}
	return MessageInfo{i.about, k}
}

// Body returns the body of the first message: a T. It is nil if there is no message.
// What it points to is shared with the queues.
func (i Info) Body() any { return i.Message(0).Body() }

// Attribute returns an attribute of the first message.
func (i Info) Attribute(name string) (value string, ok bool) { return i.Message(0).Attribute(name) }

// SetAttribute is [MessageInfo.SetAttribute] for each message of a call.
func (i Info) SetAttribute(name, value string) {
	for k := range i.Len() {
		i.Message(k).SetAttribute(name, value)
	}
}

// A MessageInfo is one message of what an [Interceptor] is called around. Reading it
// allocates nothing, with two exceptions: Body may allocate, and so may ID if the ID was not
// fixed at the publication. IDs are fixed if the publisher gave one, if there is a publish
// interceptor, and on an engine.
type MessageInfo struct {
	about intercept.About
	k     int
}

// ID is the message's ID: the same before and after its publication, in all queues and
// at every attempt.
func (m MessageInfo) ID() string {
	if m.about == nil {
		return ""
	}
	return m.about.ID(m.k)
}

// Body returns the message's body: a T. What it points to is shared with the queues.
func (m MessageInfo) Body() any {
	if m.about == nil {
		return nil
	}
	return m.about.Body(m.k)
}

func (m MessageInfo) ext() *message.Extra {
	if m.about == nil {
		return nil
	}
	return m.about.Ext(m.k)
}

// Attribute returns one of the message's attributes.
func (m MessageInfo) Attribute(name string) (value string, ok bool) {
	if x := m.ext(); x != nil {
		value, ok = x.Attributes[name]
	}
	return value, ok
}

// Attributes yields the message's attributes, in no order.
func (m MessageInfo) Attributes() iter.Seq2[string, string] {
	x := m.ext()
	if x == nil {
		return maps.All[map[string]string](nil)
	}
	return maps.All(x.Attributes)
}

// SetAttribute sets an attribute of a message that is about to be published, unless the
// message has one of that name: it never replaces what the publisher has set. It reports
// whether it was set. Call it before next. So a trace travels from publisher to handler. If
// the name or the value is not allowed in a [Message], next returns [ErrInvalidMessage].
// Around anything but a publish it does nothing.
func (m MessageInfo) SetAttribute(name, value string) (ok bool) {
	return m.about != nil && m.about.Set(m.k, name, value)
}

// OrderingKey is the message's ordering key, empty if it has none.
func (m MessageInfo) OrderingKey() string {
	if x := m.ext(); x != nil {
		return x.Key
	}
	return ""
}

// Attempt is the number of the attempt, see [Delivery.Attempt]; 0 around a publish.
func (m MessageInfo) Attempt() int {
	if m.about == nil {
		return 0
	}
	return m.about.Attempt(m.k)
}

// PublishedAt is when the message was published; zero around a publish.
func (m MessageInfo) PublishedAt() time.Time {
	if m.about == nil {
		return time.Time{}
	}
	return m.about.PublishedAt(m.k)
}

// WithPublishInterceptor puts interceptors around each Publish, PublishMessages and their
// Try siblings. The first is the outermost; further options add to them. Messages have their
// IDs before the interceptors are called.
func WithPublishInterceptor(is ...Interceptor) TopicOption {
	return topicOption(func(s *settings.Topic) error {
		if err := checkInterceptors("WithPublishInterceptor", is); err != nil {
			return err
		}
		s.Publishing = append(s.Publishing, around(is)...)
		return nil
	})
}

// WithHandlerInterceptor puts interceptors around each run of a handler. The first is the
// outermost; further options add to them. Given to a topic they are around all its handlers,
// outside of those of the subscribers.
func WithHandlerInterceptor(is ...Interceptor) TopicOrWorkerOption {
	return handlerInterceptors(is)
}

// WithQueueInterceptor puts interceptors around what callers do with the topic's queues and
// their dead-letter queues: Receive and its siblings, each step of a range over Deliveries,
// settling and extending a delivery, and Redrive. The first is the outermost; further
// options add to them. Info.Operation says which call it is. They are not called for what
// workers do by themselves: prefetch, and settle as the handler says. With them a range
// receives one message at a time.
//
// If an interceptor returns an error or panics after next has received messages, these are
// released. It must not return nil without having called next, except around TryReceive,
// where that means that there was no message.
func WithQueueInterceptor(is ...Interceptor) TopicOrDeadLetterOption {
	return sharedTopicOption(func(s *settings.Topic) error {
		if err := checkInterceptors("WithQueueInterceptor", is); err != nil {
			return err
		}
		s.Calls = append(s.Calls, around(is)...)
		return nil
	})
}

type handlerInterceptors []Interceptor

func (o handlerInterceptors) add(to *[]intercept.Interceptor) error {
	if err := checkInterceptors("WithHandlerInterceptor", o); err != nil {
		return err
	}
	*to = append(*to, around(o)...)
	return nil
}
func (o handlerInterceptors) applyTopic(s *settings.Topic) error { return o.add(&s.Handling) }
func (o handlerInterceptors) applyWorker(s *settings.Subscriber) error {
	return o.add(&s.Interceptors)
}
func (o handlerInterceptors) applySubscribe(_ *settings.Queue, s *settings.Subscriber) error {
	return o.add(&s.Interceptors)
}

func checkInterceptors(option string, is []Interceptor) error {
	for _, i := range is {
		if i == nil {
			return invalid(option, nil, "a function")
		}
	}
	return nil
}
