package delivery

import (
	"context"
	"fmt"
	"time"

	"github.com/gofanout/fanout/internal/intercept"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/queue"
)

// Handed are deliveries, of a handler or a caller.
type Handed[T any] struct {
	Q   *queue.Queue[T]
	Ds  []Delivery[T]
	One [1]Delivery[T] // room for a single one

	// Of handlers' runs only.
	Chain   *intercept.Chain
	FirstID string // of the first
}

// called is a caller's one delivery.
func called[T any](q *queue.Queue[T], d *Delivery[T]) *Handed[T] {
	r := &Handed[T]{Q: q, One: [1]Delivery[T]{*d}}
	r.Ds = r.One[:]
	return r
}

func (h *Handed[T]) info(o intercept.Operation) intercept.Info {
	info := intercept.Info{Operation: o, Topic: h.Q.Core.TopicName, Queue: h.Q.Name(), Messages: len(h.Ds), About: h}
	if len(h.Ds) > 0 {
		info.MessageID, info.Attempt, info.PublishedAt = h.ID(0), h.Attempt(0), h.PublishedAt(0)
	}
	return info
}

func (h *Handed[T]) Count() int { return len(h.Ds) }

func (h *Handed[T]) Body(k int) any { return h.Ds[k].Body }

func (h *Handed[T]) Ext(k int) *message.Extra { return h.Ds[k].Ext }

func (h *Handed[T]) Attempt(k int) int { return int(h.Ds[k].Ref.Attempt) }

func (h *Handed[T]) PublishedAt(k int) time.Time { return h.Q.Core.Time(h.Ds[k].At) }

func (h *Handed[T]) Set(int, string, string) bool { return false }

func (h *Handed[T]) ID(k int) string {
	if k == 0 && h.Chain != nil {
		return h.FirstID
	}
	d := &h.Ds[k]
	return h.Q.Core.IDOf(d.Seq, d.At, d.Ext)
}

// What follows is for queues that are not local: those of an engine, those with
// interceptors around them, and the zero Queue.

// An Elsewhere receives what an engine keeps: a keeper that can't is none. No lock is held;
// ctx is not nil and has not ended.
type Elsewhere[T any] interface {
	Receive(ctx context.Context, most int, vis time.Duration) ([]Delivery[T], error)
	TryReceive(ctx context.Context, vis time.Duration) (d Delivery[T], ok bool, err error)
}

// ReceiveOther is ReceiveBatch for such a queue.
func ReceiveOther[T any](ctx context.Context, q *queue.Queue[T], most int, vis time.Duration) ([]Delivery[T], error) {
	receive := func(ctx context.Context) ([]Delivery[T], error) {
		if e, ok := q.Keeper.(Elsewhere[T]); ok {
			return e.Receive(ctx, most, vis)
		}
		return receiveHere(ctx, q, most, vis)
	}
	ds, err := receiveAround(ctx, q, most, receive)
	if err == nil && len(ds) == 0 {
		err = ReceiveError(q, fmt.Errorf("%w: an interceptor neither received nor returned an error", message.ErrUnsupported))
	}
	return ds, err
}

// tryReceiveOther is TryReceive for such a queue.
func tryReceiveOther[T any](ctx context.Context, q *queue.Queue[T], vis time.Duration) (d Delivery[T], ok bool, err error) {
	ds, err := receiveAround(ctx, q, 1, func(ctx context.Context) ([]Delivery[T], error) {
		d, ok, err := tryAny(ctx, q, vis)
		if !ok {
			return nil, err
		}
		return []Delivery[T]{d}, nil
	})
	if err != nil || len(ds) == 0 {
		return d, false, err
	}
	return ds[0], true, nil
}

// tryAny is TryReceive wherever the queue's messages are, with nothing around it.
func tryAny[T any](ctx context.Context, q *queue.Queue[T], vis time.Duration) (d Delivery[T], ok bool, err error) {
	if e, ok := q.Keeper.(Elsewhere[T]); ok {
		return e.TryReceive(ctx, vis)
	}
	return tryReceiveHere(ctx, q, vis)
}

// receiveAround calls receive with the interceptors around it.
func receiveAround[T any](ctx context.Context, q *queue.Queue[T], most int, receive func(context.Context) ([]Delivery[T], error)) ([]Delivery[T], error) {
	if q.Core.Calls == nil {
		return receive(ctx)
	}
	got := &Handed[T]{Q: q}
	keep := false
	defer func() {
		if !keep {
			got.release()
		}
	}()
	info := intercept.Info{Operation: intercept.OpReceive, Topic: q.Core.TopicName, Queue: q.Name(), Messages: most, About: got}
	err := intercept.Call(ctx, q.Core.Calls, info, func(ctx context.Context) (err error) {
		if ctx == nil {
			return fmt.Errorf("%w: %w", message.ErrInvalidOption, message.ErrNilContext)
		}
		got.release() // next was called before
		got.Ds, err = receive(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	keep = true
	return got.Ds, nil
}

// release gives back what was received for nobody.
func (h *Handed[T]) release() {
	ds := h.Ds
	h.Ds = nil
	for _, d := range ds {
		_ = Settle(context.Background(), h.Q, d.Ref, message.Verdict{Cause: message.Released}) // it may be lost already
	}
}

// settleOther settles the delivery of such a queue as v says.
func (d *Delivery[T]) settleOther(ctx context.Context, v message.Verdict) error {
	q, ref := d.Q, d.Ref // not d: it stays on the stack
	settle := func(ctx context.Context) error { return Settle(ctx, q, ref, v) }
	if d.Q.Core.Calls == nil {
		return settle(ctx)
	}
	info := called(d.Q, d).info(intercept.OpSettle)
	info.Cause = v.Cause
	return intercept.Call(ctx, d.Q.Core.Calls, info, settle)
}

// extendOther extends the delivery of such a queue.
func (d *Delivery[T]) extendOther(ctx context.Context, by time.Duration) error {
	q, ref := d.Q, d.Ref // not d: it stays on the stack
	extend := func(ctx context.Context) error { return extend(ctx, q, ref, by) }
	if d.Q.Core.Calls == nil {
		return extend(ctx)
	}
	return intercept.Call(ctx, d.Q.Core.Calls, called(d.Q, d).info(intercept.OpExtend), extend)
}
