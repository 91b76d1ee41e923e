package core

import (
	"context"

	"github.com/gofanout/fanout/internal/intercept"
	"github.com/gofanout/fanout/internal/message"
)

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
