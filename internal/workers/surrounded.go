package workers

import (
	"context"

	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/intercept"
	"github.com/gofanout/fanout/internal/message"
)

// surrounded is a worker's handler with interceptors around it. The worker's goroutine has
// it.
type surrounded[T any] struct {
	worker *Worker[T]
	ids    *message.IDs // the worker's
	// handed is what the next run uses; nil: a new one. An interceptor may leave behind a
	// next that it did not call, or that is running still, and has the deliveries then.
	handed *delivery.Handed[T]
}

// surround puts the subscriber's interceptors around the worker's handlers.
func (w *Worker[T]) surround() {
	r := &surrounded[T]{worker: w, ids: new(message.IDs)}
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
func (w *surrounded[T]) one(ctx context.Context, d delivery.Delivery[T]) error {
	r := w.take()
	one := &r.One[0] // field by field: a literal would be copied
	one.Body, one.Q, one.Ext, one.Hist, one.Seq, one.At, one.Ref = d.Body, d.Q, d.Ext, d.Hist, d.Seq, d.At, d.Ref
	err := w.handle(ctx, r)
	if w.handed != nil {
		r.One[0].Forget()
	}
	return err
}

// batch is the handler. The worker uses the slice again only if nobody has it.
func (w *surrounded[T]) batch(ctx context.Context, ds []delivery.Delivery[T]) error {
	r, room := w.take(), w.worker.buffer.given
	r.Ds, w.worker.buffer.given = ds, nil
	err := w.handle(ctx, r)
	if w.handed != nil {
		r.Ds, w.worker.buffer.given = nil, room
	}
	return err
}

// take returns what the run uses. Nobody else has it.
func (w *surrounded[T]) take() *delivery.Handed[T] {
	if r := w.handed; r != nil {
		w.handed = nil // until it is known that it can be used again
		return r
	}
	r := &delivery.Handed[T]{Q: w.worker.s.Q}
	r.Ds = r.One[:]
	h := &w.worker.s.handlers
	r.Chain = intercept.NewChain(*w.worker.s.interceptors, func(ctx context.Context) error { return h.run(ctx, r.Ds) })
	return r
}

func (w *surrounded[T]) handle(ctx context.Context, r *delivery.Handed[T]) error {
	is, q, d := *w.worker.s.interceptors, r.Q, &r.Ds[0]
	r.FirstID = w.ids.ID(&q.Core.Clock, d.Seq, d.At, d.Ext)
	info := intercept.Info{
		Operation: intercept.OpHandle, Topic: q.Core.TopicName, Queue: q.Name(), Messages: len(r.Ds), About: r,
		MessageID: r.FirstID, Attempt: int(d.Ref.Attempt), PublishedAt: q.Core.Time(d.At),
	}
	if len(is) > 1 {
		r.Chain.Info = info
	}
	err := is[0](ctx, info, r.Chain.Next)
	if r.Chain.Over() {
		w.handed = r
	}
	return err
}
