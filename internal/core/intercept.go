package core

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gofanout/fanout/internal/intercept"
	"github.com/gofanout/fanout/internal/message"
)

// fixed makes the IDs of o's items that have none, and returns what interceptors are told
// of their publish. o is its own from here on.
func (t *Topic[T]) fixed(o *offer[T], try bool) *offered[T] {
	for k := range o.items {
		it := &o.items[k]
		if it.Ext == nil {
			it.Ext = new(extra)
		}
		if it.Ext.ID == "" {
			it.Ext.ID = t.id(t.ids.Add(1), t.now(), nil)
		}
	}
	s, ok := t.offereds.Get().(*offered[T])
	if !ok {
		s = &offered[T]{t: t}
		s.next = s.call
	}
	s.offer, s.items, s.try = o, o.items, try
	return s
}

// offered are the items of a publish. Their extras are its own until next has been
// called, which publishes them.
//
// Invariant: one that is not in use is nobody's, as the runs of surrounded are.
type offered[T any] struct {
	t         *Topic[T]
	offer     *offer[T] // whose the items are
	items     []item[T]
	try       bool
	published bool
	err       error // of an attribute that can't be

	next  func(context.Context) error // what the interceptors are given: call, made once
	calls atomic.Int64                // of next, as those of handed
}

// call publishes the items.
func (o *offered[T]) call(ctx context.Context) error {
	o.calls.Add(aCall)
	err := o.publish(ctx)
	o.calls.Add(-1)
	return err
}

// publish publishes a copy of the items: next may be called again.
func (o *offered[T]) publish(ctx context.Context) error {
	if o.err != nil {
		return o.err
	}
	o.published = true
	c := o.t.newOffer()
	c.items = append(c.items, o.items...)
	err := o.t.tryAll(ctx, c, o.try)
	o.t.doneWith(c)
	return err
}

// release says that the interceptors have returned.
func (o *offered[T]) release() {
	c := o.calls.Load()
	if c == 0 || int32(c) != 0 {
		return
	}
	t := o.t
	t.doneWith(o.offer)
	o.offer, o.items, o.published, o.err = nil, nil, false, nil
	o.calls.Store(0)
	t.offereds.Put(o)
}

func (o *offered[T]) info(topic string) intercept.Info {
	info := intercept.Info{Operation: intercept.OpPublish, Topic: topic, Messages: len(o.items), About: o}
	if len(o.items) > 0 {
		info.MessageID = o.items[0].Ext.ID
	}
	return info
}

func (o *offered[T]) Count() int                { return len(o.items) }
func (o *offered[T]) Body(k int) any            { return o.items[k].Body }
func (o *offered[T]) ID(k int) string           { return o.items[k].Ext.ID }
func (o *offered[T]) Ext(k int) *extra          { return o.items[k].Ext }
func (o *offered[T]) Attempt(int) int           { return 0 }
func (o *offered[T]) PublishedAt(int) time.Time { return time.Time{} }

func (o *offered[T]) Set(k int, name, value string) (ok bool) {
	it := &o.items[k]
	if _, has := it.Ext.Attributes[name]; has {
		return false
	}
	if err := checkAttribute(name, value); err != nil {
		if o.err == nil {
			o.err = fmt.Errorf("%w: message %d: an interceptor: %w", message.ErrInvalidMessage, k, err)
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
	h     *handlers[T]
	next  func(context.Context) error // what the interceptors are given: call, made once
	calls atomic.Int64                // of next: how many were made in the upper half, how many run in the lower
}

// aCall is what a call of next adds to calls while it runs.
const aCall = 1<<32 + 1

// call runs the handler.
func (h *handed[T]) call(ctx context.Context) error {
	h.calls.Add(aCall)
	err := h.h.run(ctx, h.ds)
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
	is   []intercept.Interceptor
	h    handlers[T]
	runs sync.Pool // of *handed[T]
}

// one is the handler, if it takes one message at a time.
func (s *surrounded[T]) one(ctx context.Context, d *Delivery[T]) error {
	r := s.run()
	r.one[0] = *d
	r.ds = r.one[:]
	return s.handle(ctx, r)
}

// batch is the handler. The slice is its own.
func (s *surrounded[T]) batch(ctx context.Context, ds []Delivery[T]) error {
	r := s.run()
	r.ds = ds
	return s.handle(ctx, r)
}

func (s *surrounded[T]) run() *handed[T] {
	if r, ok := s.runs.Get().(*handed[T]); ok {
		return r
	}
	r := &handed[T]{q: s.q, h: &s.h}
	r.next = r.call
	return r
}

func (s *surrounded[T]) handle(ctx context.Context, r *handed[T]) error {
	err := intercept.Call(ctx, s.is, r.info(intercept.OpHandle), r.next)
	if c := r.calls.Load(); c != 0 && int32(c) == 0 {
		r.ds, r.one[0] = nil, Delivery[T]{}
		r.calls.Store(0)
		s.runs.Put(r)
	}
	return err
}

// called is a caller's one delivery.
func (q *Queue[T]) called(d *Delivery[T]) *handed[T] {
	r := &handed[T]{q: q, one: [1]Delivery[T]{*d}}
	r.ds = r.one[:]
	return r
}

func (h *handed[T]) info(o intercept.Operation) intercept.Info {
	info := intercept.Info{Operation: o, Topic: h.q.core.name, Queue: h.q.name, Messages: len(h.ds), About: h}
	if len(h.ds) > 0 {
		d := &h.ds[0]
		info.MessageID, info.Attempt, info.PublishedAt = d.ID(), d.Attempt(), d.PublishedAt()
	}
	return info
}

func (h *handed[T]) Count() int                   { return len(h.ds) }
func (h *handed[T]) Body(k int) any               { return h.ds[k].Body }
func (h *handed[T]) ID(k int) string              { return h.ds[k].ID() }
func (h *handed[T]) Ext(k int) *extra             { return h.ds[k].ext }
func (h *handed[T]) Attempt(k int) int            { return h.ds[k].Attempt() }
func (h *handed[T]) PublishedAt(k int) time.Time  { return h.ds[k].PublishedAt() }
func (h *handed[T]) Set(int, string, string) bool { return false }

// What follows is for queues that are not local: those of an engine, those with
// interceptors around them, and the zero Queue.

// receiveOther is ReceiveBatch for such a queue.
func (q *Queue[T]) receiveOther(ctx context.Context, most int, vis time.Duration) ([]Delivery[T], error) {
	receive := func(ctx context.Context) ([]Delivery[T], error) {
		if q.remote != nil {
			return q.remote.receive(ctx, most, vis)
		}
		return q.receiveHere(ctx, most, vis)
	}
	ds, err := q.receiveAround(ctx, most, receive)
	if err == nil && len(ds) == 0 {
		err = q.receiveError(fmt.Errorf("%w: an interceptor neither received nor returned an error", message.ErrUnsupported))
	}
	return ds, err
}

// tryReceiveOther is TryReceive for such a queue.
func (q *Queue[T]) tryReceiveOther(ctx context.Context, vis time.Duration) (d Delivery[T], ok bool, err error) {
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
	info := intercept.Info{Operation: intercept.OpReceive, Topic: q.core.name, Queue: q.name, Messages: most, About: got}
	err := intercept.Call(ctx, q.core.calls, info, func(ctx context.Context) (err error) {
		if ctx == nil {
			return fmt.Errorf("%w: %w", message.ErrInvalidOption, message.ErrNilContext)
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
		_ = h.q.settle(context.Background(), d.ref, message.Verdict{Cause: message.Released}) // it may be lost already
	}
}

// settleOther settles the delivery of such a queue as v says.
func (d *Delivery[T]) settleOther(ctx context.Context, v message.Verdict) error {
	q, ref := d.q, d.ref // not d: it stays on the stack
	settle := func(ctx context.Context) error { return q.settle(ctx, ref, v) }
	if d.q.core.calls == nil {
		return settle(ctx)
	}
	info := d.q.called(d).info(intercept.OpSettle)
	info.Cause = v.Cause
	return intercept.Call(ctx, d.q.core.calls, info, settle)
}

// extendOther extends the delivery of such a queue.
func (d *Delivery[T]) extendOther(ctx context.Context, by time.Duration) error {
	q, ref := d.q, d.ref // not d: it stays on the stack
	extend := func(ctx context.Context) error { return q.extend(ctx, ref, by) }
	if d.q.core.calls == nil {
		return extend(ctx)
	}
	return intercept.Call(ctx, d.q.core.calls, d.q.called(d).info(intercept.OpExtend), extend)
}

// redriveAround calls redriveTo with the interceptors around it.
func (q *Queue[T]) redriveAround(ctx context.Context, c *LetterChoice[T]) (moved int, err error) {
	if q.core.calls == nil {
		return q.redriveTo(ctx, c)
	}
	m := new(redrivenCount)
	info := intercept.Info{Operation: intercept.OpRedrive, Topic: q.core.name, Queue: q.name, About: m}
	err = intercept.Call(ctx, q.core.calls, info, func(ctx context.Context) error {
		if ctx == nil {
			return fmt.Errorf("%w: Redrive: %w", message.ErrInvalidOption, message.ErrNilContext)
		}
		n, err := q.redriveTo(ctx, c)
		*m += redrivenCount(n)
		return err
	})
	return m.Count(), err
}

// A redrivenCount is what is known of letters that have moved.
type redrivenCount int

func (m *redrivenCount) Count() int                 { return int(*m) }
func (*redrivenCount) Body(int) any                 { return nil }
func (*redrivenCount) ID(int) string                { return "" }
func (*redrivenCount) Ext(int) *extra               { return nil }
func (*redrivenCount) Attempt(int) int              { return 0 }
func (*redrivenCount) PublishedAt(int) time.Time    { return time.Time{} }
func (*redrivenCount) Set(int, string, string) bool { return false }
