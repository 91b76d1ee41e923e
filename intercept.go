package fanout

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
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

	about about // nil: nothing
}

// about is what the interceptors stand around: items or deliveries, whose T Info
// does not know.
type about interface {
	count() int
	body(k int) any
	id(k int) string
	ext(k int) *extra
	attempt(k int) int
	publishedAt(k int) time.Time
	set(k int, name, value string) (ok bool)
}

// Len is the number of messages that [Info.Message] knows: those of the call. Around a
// receive it is 0 before next was called, and after that the number received. Around a
// redrive it is the number of letters that next has moved, of which nothing else is known.
func (i Info) Len() int {
	if i.about == nil {
		return 0
	}
	return i.about.count()
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
	about about
	k     int
}

// ID is the message's ID: the same before and after its publication, in all queues and
// at every attempt.
func (m MessageInfo) ID() string {
	if m.about == nil {
		return ""
	}
	return m.about.id(m.k)
}

// Body returns the message's body: a T. What it points to is shared with the queues.
func (m MessageInfo) Body() any {
	if m.about == nil {
		return nil
	}
	return m.about.body(m.k)
}

func (m MessageInfo) ext() *extra {
	if m.about == nil {
		return nil
	}
	return m.about.ext(m.k)
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
	return m.about != nil && m.about.set(m.k, name, value)
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
	return m.about.attempt(m.k)
}

// PublishedAt is when the message was published; zero around a publish.
func (m MessageInfo) PublishedAt() time.Time {
	if m.about == nil {
		return time.Time{}
	}
	return m.about.publishedAt(m.k)
}

// WithPublishInterceptor puts interceptors around each Publish, PublishMessages and their
// Try siblings. The first is the outermost; further options add to them. Messages have their
// IDs before the interceptors are called.
func WithPublishInterceptor(is ...Interceptor) TopicOption {
	return topicOption(func(s *topicSettings) error {
		if err := checkInterceptors("WithPublishInterceptor", is); err != nil {
			return err
		}
		s.publishing = append(s.publishing, is...)
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
	return sharedTopicOption(func(s *topicSettings) error {
		if err := checkInterceptors("WithQueueInterceptor", is); err != nil {
			return err
		}
		s.calls = append(s.calls, is...)
		return nil
	})
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
	switch len(is) {
	case 0:
		return call(ctx)
	case 1:
		return is[0](ctx, info, call)
	}
	c := &chain{is, info, call}
	return c.step(ctx, 0)
}

// A chain is a call and what stands around it.
type chain struct {
	is   []Interceptor
	info Info
	call func(context.Context) error
}

// step runs the interceptors from k on, and the call.
func (c *chain) step(ctx context.Context, k int) error {
	if k == len(c.is)-1 {
		return c.is[k](ctx, c.info, c.call)
	}
	return c.is[k](ctx, c.info, func(ctx context.Context) error { return c.step(ctx, k+1) })
}

// fixed makes the IDs of items that have none, and returns what interceptors are told
// of their publish.
func (t *Topic[T]) fixed(items []item[T]) *offered[T] {
	for k := range items {
		it := &items[k]
		if it.Ext == nil {
			it.Ext = new(extra)
		}
		if it.Ext.ID == "" {
			it.Ext.ID = t.id(t.ids.Add(1), t.now(), nil)
		}
	}
	return &offered[T]{items: items}
}

// offered are the items of a publish. Their extras are its own until next has been
// called, which publishes them.
type offered[T any] struct {
	items     []item[T]
	first     [1]item[T] // of a single item the copy that is published first
	published bool
	err       error // of an attribute that can't be
}

// copied returns the items for one call of next.
func (o *offered[T]) copied() []item[T] {
	again := o.published
	o.published = true
	if again || len(o.items) != 1 {
		return slices.Clone(o.items)
	}
	o.first[0] = o.items[0]
	return o.first[:]
}

func (o *offered[T]) info(topic string) Info {
	info := Info{Operation: OpPublish, Topic: topic, Messages: len(o.items), about: o}
	if len(o.items) > 0 {
		info.MessageID = o.items[0].Ext.ID
	}
	return info
}

func (o *offered[T]) count() int                { return len(o.items) }
func (o *offered[T]) body(k int) any            { return o.items[k].Body }
func (o *offered[T]) id(k int) string           { return o.items[k].Ext.ID }
func (o *offered[T]) ext(k int) *extra          { return o.items[k].Ext }
func (o *offered[T]) attempt(int) int           { return 0 }
func (o *offered[T]) publishedAt(int) time.Time { return time.Time{} }

func (o *offered[T]) set(k int, name, value string) (ok bool) {
	it := &o.items[k]
	if _, has := it.Ext.Attributes[name]; has {
		return false
	}
	if err := checkAttribute(name, value); err != nil {
		if o.err == nil {
			o.err = fmt.Errorf("%w: message %d: an interceptor: %w", ErrInvalidMessage, k, err)
		}
		return false
	}
	if o.published { // it is the queues' too
		it.Ext = it.Ext.With(func(x *extra) { x.Attributes = maps.Clone(x.Attributes) })
	}
	if it.Ext.Attributes == nil {
		it.Ext.Attributes = make(map[string]string)
	}
	it.Ext.Attributes[name] = value
	return true
}

// handed are deliveries, of a handler or a caller.
type handed[T any] struct {
	q   *Queue[T]
	ds  []Delivery[T]
	one [1]Delivery[T] // room for a single one

	// Of a handler's run only.
	h     BatchHandler[T]
	next  func(context.Context) error // what the interceptors are given: call, made once
	calls atomic.Int64                // of next: how many were made in the upper half, how many run in the lower
}

// aCall is what a call of next adds to calls while it runs.
const aCall = 1<<32 + 1

// call runs the handler.
func (h *handed[T]) call(ctx context.Context) error {
	h.calls.Add(aCall)
	err := h.h(ctx, h.ds)
	h.calls.Add(-1)
	return err
}

// surrounded is a handler with interceptors around it.
//
// Invariant: a run in runs is nobody's. One whose next was not called, or may be running
// still, is not put there: an interceptor may leave that behind, and has the deliveries
// then.
type surrounded[T any] struct {
	q    *Queue[T]
	is   []Interceptor
	h    BatchHandler[T]
	runs sync.Pool // of *handed[T]
}

// one is the handler, if it takes one message at a time.
func (s *surrounded[T]) one(ctx context.Context, d Delivery[T]) error {
	r := s.run()
	r.one[0] = d
	r.ds = r.one[:]
	return s.handle(ctx, r)
}

// batch is the handler. The slice is its own.
func (s *surrounded[T]) batch(ctx context.Context, ds []Delivery[T]) error {
	r := s.run()
	r.ds = ds
	return s.handle(ctx, r)
}

// single is the handler for a slice with one delivery, which is the worker's.
func (s *surrounded[T]) single(ctx context.Context, ds []Delivery[T]) error { return s.one(ctx, ds[0]) }

func (s *surrounded[T]) run() *handed[T] {
	if r, ok := s.runs.Get().(*handed[T]); ok {
		return r
	}
	r := &handed[T]{q: s.q, h: s.h}
	r.next = r.call
	return r
}

func (s *surrounded[T]) handle(ctx context.Context, r *handed[T]) error {
	err := intercept(ctx, s.is, r.info(OpHandle), r.next)
	if c := r.calls.Load(); c != 0 && int32(c) == 0 {
		r.ds, r.one[0] = nil, Delivery[T]{}
		r.calls.Store(0)
		s.runs.Put(r)
	}
	return err
}

// called is a caller's one delivery.
func (q *Queue[T]) called(d Delivery[T]) *handed[T] {
	r := &handed[T]{q: q, one: [1]Delivery[T]{d}}
	r.ds = r.one[:]
	return r
}

func (h *handed[T]) info(o Operation) Info {
	info := Info{Operation: o, Topic: h.q.core.name, Queue: h.q.name, Messages: len(h.ds), about: h}
	if len(h.ds) > 0 {
		d := &h.ds[0]
		info.MessageID, info.Attempt, info.PublishedAt = d.ID(), d.Attempt(), d.PublishedAt()
	}
	return info
}

func (h *handed[T]) count() int                   { return len(h.ds) }
func (h *handed[T]) body(k int) any               { return h.ds[k].Body }
func (h *handed[T]) id(k int) string              { return h.ds[k].ID() }
func (h *handed[T]) ext(k int) *extra             { return h.ds[k].ext }
func (h *handed[T]) attempt(k int) int            { return h.ds[k].Attempt() }
func (h *handed[T]) publishedAt(k int) time.Time  { return h.ds[k].PublishedAt() }
func (h *handed[T]) set(int, string, string) bool { return false }

// What follows is for queues that are not local: those of an engine, those with
// interceptors around them, and the zero Queue.

// receiveWith is ReceiveBatch for such a queue.
func (q *Queue[T]) receiveWith(ctx context.Context, most int, options []ReceiveOption) ([]Delivery[T], error) {
	if err := q.made(); err != nil {
		return nil, err
	}
	vis, err := q.receiveSettings(ctx, options)
	if err != nil {
		return nil, err
	}
	return q.receiveOther(ctx, most, vis)
}

// receiveOther is receiveWith, with its options.
func (q *Queue[T]) receiveOther(ctx context.Context, most int, vis time.Duration) ([]Delivery[T], error) {
	receive := func(ctx context.Context) ([]Delivery[T], error) {
		if q.remote != nil {
			return q.remote.receive(ctx, most, vis)
		}
		return q.receiveHere(ctx, most, vis)
	}
	ds, err := q.receiveAround(ctx, most, receive)
	if err == nil && len(ds) == 0 {
		err = q.receiveError(fmt.Errorf("%w: an interceptor neither received nor returned an error", ErrUnsupported))
	}
	return ds, err
}

// tryReceiveWith is TryReceive for such a queue.
func (q *Queue[T]) tryReceiveWith(ctx context.Context, options []ReceiveOption) (d Delivery[T], ok bool, err error) {
	if err := q.made(); err != nil {
		return d, false, err
	}
	vis, err := q.receiveSettings(ctx, options)
	if err != nil {
		return d, false, err
	}
	ds, err := q.receiveAround(ctx, 1, func(ctx context.Context) ([]Delivery[T], error) {
		try := q.tryReceiveHere
		if q.remote != nil {
			try = q.remote.tryReceive
		}
		d, ok, err := try(ctx, vis)
		if !ok {
			return nil, err
		}
		return []Delivery[T]{d}, err
	})
	if err != nil || len(ds) == 0 {
		return d, false, err
	}
	return ds[0], true, nil
}

// receiveAround calls receive with the interceptors around it.
func (q *Queue[T]) receiveAround(ctx context.Context, most int, receive func(context.Context) ([]Delivery[T], error)) ([]Delivery[T], error) {
	if q.core.calls == nil {
		return receive(ctx)
	}
	got := &handed[T]{q: q}
	keep := false
	defer func() {
		if !keep {
			got.release()
		}
	}()
	info := Info{Operation: OpReceive, Topic: q.core.name, Queue: q.name, Messages: most, about: got}
	err := intercept(ctx, q.core.calls, info, func(ctx context.Context) (err error) {
		if ctx == nil {
			return fmt.Errorf("%w: %w", ErrInvalidOption, errNilContext)
		}
		got.release() // next was called before
		got.ds, err = receive(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	keep = true
	return got.ds, nil
}

// release gives back what was received for nobody.
func (h *handed[T]) release() {
	ds := h.ds
	h.ds = nil
	for _, d := range ds {
		_ = h.q.settle(context.Background(), d.ref, verdict{cause: Released}) // it may be lost already
	}
}

// settleOther settles the delivery of such a queue as v says.
func (d Delivery[T]) settleOther(ctx context.Context, v verdict) error {
	settle := func(ctx context.Context) error { return d.q.settle(ctx, d.ref, v) }
	if d.q.core.calls == nil {
		return settle(ctx)
	}
	info := d.q.called(d).info(OpSettle)
	info.Cause = v.cause
	return intercept(ctx, d.q.core.calls, info, settle)
}

// extendOther extends the delivery of such a queue.
func (d Delivery[T]) extendOther(ctx context.Context, by time.Duration) error {
	extend := func(ctx context.Context) error { return d.q.extend(ctx, d.ref, by) }
	if d.q.core.calls == nil {
		return extend(ctx)
	}
	return intercept(ctx, d.q.core.calls, d.q.called(d).info(OpExtend), extend)
}

// redriveAround calls redriveTo with the interceptors around it.
func (q *Queue[T]) redriveAround(ctx context.Context, c *letterChoice[T]) (moved int, err error) {
	if q.core.calls == nil {
		return q.redriveTo(ctx, c)
	}
	m := new(redrivenCount)
	info := Info{Operation: OpRedrive, Topic: q.core.name, Queue: q.name, about: m}
	err = intercept(ctx, q.core.calls, info, func(ctx context.Context) error {
		if ctx == nil {
			return fmt.Errorf("%w: Redrive: %w", ErrInvalidOption, errNilContext)
		}
		n, err := q.redriveTo(ctx, c)
		*m += redrivenCount(n)
		return err
	})
	return m.count(), err
}

// A redrivenCount is what is known of letters that have moved.
type redrivenCount int

func (m *redrivenCount) count() int                 { return int(*m) }
func (*redrivenCount) body(int) any                 { return nil }
func (*redrivenCount) id(int) string                { return "" }
func (*redrivenCount) ext(int) *extra               { return nil }
func (*redrivenCount) attempt(int) int              { return 0 }
func (*redrivenCount) publishedAt(int) time.Time    { return time.Time{} }
func (*redrivenCount) set(int, string, string) bool { return false }
