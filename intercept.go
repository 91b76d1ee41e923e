package fanout

import (
	"context"
	"maps"
	"time"
)

// An Interceptor is called around a publish or around a handler, to log, to
// measure, to trace, or to refuse. It calls next to go on, with its own context
// or one that comes from it, and returns what next returned or an error of its
// own: around a publish the publisher gets it, around a handler it settles the
// delivery as the handler's would. One that does not call next publishes
// nothing, or skips the handler; one that calls it again publishes again. It is
// called without a lock, concurrently; it doesn't mention T, so one serves all
// topics. A panic is the publisher's, or the handler's.
type Interceptor func(ctx context.Context, info Info, next func(context.Context) error) error

// Info tells an [Interceptor] what it stands around.
type Info struct {
	Topic string
	// Queue is the handler's queue, empty around a publish.
	Queue string
	// Messages is how many messages the call publishes, or the handler got.
	Messages int
	// MessageID and Attempt are those of the handler's message, of the first of
	// a batch. Around a publish MessageID is the publisher's, empty if the topic
	// makes one.
	MessageID string
	Attempt   int
	// PublishedAt is when that message was published, zero around a publish.
	PublishedAt time.Time

	about about // nil: nothing
}

// about is what the interceptors stand around: items or deliveries, whose T Info
// does not know.
type about interface {
	body() any
	attribute(name string) (string, bool)
	setAttribute(name, value string)
}

// Body returns the message's body, of the first of a batch: a T. It is nil if
// there is no message. What it points to is shared with the queues.
func (i Info) Body() any {
	if i.about == nil {
		return nil
	}
	return i.about.body()
}

// Attribute returns an attribute of the message, of the first of a batch.
func (i Info) Attribute(name string) (value string, ok bool) {
	if i.about == nil {
		return "", false
	}
	return i.about.attribute(name)
}

// SetAttribute sets an attribute of all messages that a call publishes, before
// next is called; so a trace travels from publisher to handler. Around a handler
// it does nothing.
func (i Info) SetAttribute(name, value string) {
	if i.about != nil {
		i.about.setAttribute(name, value)
	}
}

// WithPublishInterceptor puts interceptors around each Publish, PublishMessages
// and their Try siblings, the first one outermost; further options add to them.
func WithPublishInterceptor(is ...Interceptor) TopicOption {
	return topicOption(func(s *topicSettings) error {
		if err := checkInterceptors("WithPublishInterceptor", is); err != nil {
			return err
		}
		s.publishing = append(s.publishing, is...)
		return nil
	})
}

// WithHandlerInterceptor puts interceptors around each run of a handler, the
// first one outermost; further options add to them. Given to a topic they stand
// around all its handlers, outside of the subscriber's own.
func WithHandlerInterceptor(is ...Interceptor) TopicOrWorkerOption {
	return handlerInterceptors(is)
}

type handlerInterceptors []Interceptor

func (o handlerInterceptors) add(to *[]Interceptor) error {
	if err := checkInterceptors("WithHandlerInterceptor", o); err != nil {
		return err
	}
	*to = append(*to, o...)
	return nil
}
func (o handlerInterceptors) applyTopic(s *topicSettings) error { return o.add(&s.handling) }
func (o handlerInterceptors) applyWorker(s *subscriberSettings) error {
	return o.add(&s.interceptors)
}
func (o handlerInterceptors) applySubscribe(_ *queueSettings, s *subscriberSettings) error {
	return o.add(&s.interceptors)
}

func checkInterceptors(option string, is []Interceptor) error {
	for _, i := range is {
		if i == nil {
			return invalid(option, nil, "a function")
		}
	}
	return nil
}

// intercept runs call with is around it.
func intercept(ctx context.Context, is []Interceptor, info Info, call func(context.Context) error) error {
	if len(is) == 0 {
		return call(ctx)
	}
	return is[0](ctx, info, func(ctx context.Context) error { return intercept(ctx, is[1:], info, call) })
}

// publishing returns what interceptors are told of a publish of items, whose
// attributes they may set.
func (t *Topic[T]) publishing(items []item[T]) Info {
	info := Info{Topic: t.name, Messages: len(items)}
	if len(items) == 0 {
		return info
	}
	info.about = offered[T](items)
	if items[0].ext != nil {
		info.MessageID = items[0].ext.id
	}
	return info
}

// offered are the items of a publish, at least one.
type offered[T any] []item[T]

func (o offered[T]) body() any { return o[0].body }

func (o offered[T]) attribute(name string) (value string, ok bool) {
	if o[0].ext != nil {
		value, ok = o[0].ext.attributes[name]
	}
	return value, ok
}

func (o offered[T]) setAttribute(name, value string) {
	for k := range o {
		o[k].ext = o[k].ext.with(func(x *extra) {
			x.attributes = maps.Clone(x.attributes)
			if x.attributes == nil {
				x.attributes = make(map[string]string)
			}
			x.attributes[name] = value
		})
	}
}

// infoOf returns what interceptors are told of a handler's run.
func infoOf[T any](ds []Delivery[T]) Info {
	d := ds[0]
	return Info{
		Topic: d.q.core.name, Queue: d.q.name, Messages: len(ds),
		MessageID: d.ID(), Attempt: d.Attempt(), PublishedAt: d.PublishedAt(), about: handed[T](ds),
	}
}

// handed are the deliveries of a handler, at least one.
type handed[T any] []Delivery[T]

func (h handed[T]) body() any                            { return h[0].Body }
func (h handed[T]) attribute(name string) (string, bool) { return h[0].Attribute(name) }
func (h handed[T]) setAttribute(string, string)          {}
