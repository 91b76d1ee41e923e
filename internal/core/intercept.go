package core

import (
	"context"
	"fmt"
	"maps"
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
		s.chain = intercept.NewChain(t.before, s.publish)
	}
	s.offer, s.items, s.try = o, o.items, try
	return s
}

// offered are the items of a publish. Their extras are its own until next has been
// called, which publishes them.
//
// Invariant: one that is not in use is nobody's, as what a surrounded handler uses again.
type offered[T any] struct {
	t         *Topic[T]
	offer     *offer[T] // whose the items are
	items     []item[T]
	try       bool
	published bool
	err       error // of an attribute that can't be
	chain     *intercept.Chain
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
	if !o.chain.Over() {
		return
	}
	t := o.t
	t.doneWith(o.offer)
	o.offer, o.items, o.published, o.err = nil, nil, false, nil
	o.chain.Info = intercept.Info{}
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

	// Of handlers' runs only.
	chain *intercept.Chain
	id    string // of the first
}

// surrounded is a worker's handler with interceptors around it. The worker's goroutine has
// it.
type surrounded[T any] struct {
	s   *Subscriber[T]
	ids *message.IDs // the worker's
	// handed is what the next run uses; nil: a new one. An interceptor may leave behind a
	// next that it did not call, or that is running still, and has the deliveries then.
	handed *handed[T]
}

// surround puts the subscriber's interceptors around the worker's handlers.
func (w *worker[T]) surround() {
	r := &surrounded[T]{s: w.s, ids: new(message.IDs)}
	if w.timed != nil {
		r.ids = &w.timed.ids
	}
	if w.s.one != nil {
		w.handlers.one = r.one
	} else {
		w.handlers.batch = r.batch
	}
}

// one is the handler, if it takes one message at a time.
func (w *surrounded[T]) one(ctx context.Context, d Delivery[T]) error {
	r := w.take()
	one := &r.one[0] // field by field: a literal would be copied
	one.Body, one.q, one.ext, one.hist, one.seq, one.at, one.ref = d.Body, d.q, d.ext, d.hist, d.seq, d.at, d.ref
	err := w.handle(ctx, r)
	if w.handed != nil {
		r.one[0].forget()
	}
	return err
}

// batch is the handler. The slice is its own.
func (w *surrounded[T]) batch(ctx context.Context, ds []Delivery[T]) error {
	r := w.take()
	r.ds = ds
	err := w.handle(ctx, r)
	if w.handed != nil {
		r.ds = nil
	}
	return err
}

// take returns what the run uses. Nobody else has it.
func (w *surrounded[T]) take() *handed[T] {
	if r := w.handed; r != nil {
		w.handed = nil // until it is known that it can be used again
		return r
	}
	r := &handed[T]{q: w.s.q}
	r.ds = r.one[:]
	h := &w.s.handlers
	r.chain = intercept.NewChain(*w.s.interceptors, func(ctx context.Context) error { return h.run(ctx, r.ds) })
	return r
}

func (w *surrounded[T]) handle(ctx context.Context, r *handed[T]) error {
	is, q, d := *w.s.interceptors, r.q, &r.ds[0]
	r.id = w.ids.ID(&q.core.clock, d.seq, d.at, d.ext)
	info := intercept.Info{
		Operation: intercept.OpHandle, Topic: q.core.name, Queue: q.name, Messages: len(r.ds), About: r,
		MessageID: r.id, Attempt: int(d.ref.Attempt), PublishedAt: q.core.time(d.at),
	}
	if len(is) > 1 {
		r.chain.Info = info
	}
	err := is[0](ctx, info, r.chain.Next)
	if r.chain.Over() {
		w.handed = r
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
		info.MessageID, info.Attempt, info.PublishedAt = h.ID(0), h.Attempt(0), h.PublishedAt(0)
	}
	return info
}

func (h *handed[T]) Count() int                   { return len(h.ds) }
func (h *handed[T]) Body(k int) any               { return h.ds[k].Body }
func (h *handed[T]) Ext(k int) *extra             { return h.ds[k].ext }
func (h *handed[T]) Attempt(k int) int            { return int(h.ds[k].ref.Attempt) }
func (h *handed[T]) PublishedAt(k int) time.Time  { return h.q.core.time(h.ds[k].at) }
func (h *handed[T]) Set(int, string, string) bool { return false }

func (h *handed[T]) ID(k int) string {
	if k == 0 && h.chain != nil {
		return h.id
	}
	d := &h.ds[k]
	return h.q.core.id(d.seq, d.at, d.ext)
}

// What follows is for queues that are not local: those of an engine, those with
// interceptors around them, and the zero Queue.

// receiveOther is ReceiveBatch for such a queue.
func (q *Queue[T]) receiveOther(ctx context.Context, most int, vis time.Duration) ([]Delivery[T], error) {
	receive := func(ctx context.Context) ([]Delivery[T], error) { return q.at().receive(ctx, most, vis) }
	ds, err := q.receiveAround(ctx, most, receive)
	if err == nil && len(ds) == 0 {
		err = q.receiveError(fmt.Errorf("%w: an interceptor neither received nor returned an error", message.ErrUnsupported))
	}
	return ds, err
}

// tryReceiveOther is TryReceive for such a queue.
func (q *Queue[T]) tryReceiveOther(ctx context.Context, vis time.Duration) (d Delivery[T], ok bool, err error) {
	ds, err := q.receiveAround(ctx, 1, func(ctx context.Context) ([]Delivery[T], error) {
		d, ok, err := q.at().tryReceive(ctx, vis)
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
