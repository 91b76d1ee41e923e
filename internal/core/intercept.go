package core

import (
	"context"
	"fmt"
	"time"

	"github.com/gofanout/fanout/internal/intercept"
	"github.com/gofanout/fanout/internal/message"
)

// handed are deliveries, of a handler or a caller.
type handed[T any] struct {
	q   *Queue[T]
	ds  []Delivery[T]
	one [1]Delivery[T] // room for a single one

	// Of handlers' runs only.
	chain *intercept.Chain
	id    string // of the first
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

func (h *handed[T]) Count() int { return len(h.ds) }

func (h *handed[T]) Body(k int) any { return h.ds[k].Body }

func (h *handed[T]) Ext(k int) *extra { return h.ds[k].ext }

func (h *handed[T]) Attempt(k int) int { return int(h.ds[k].ref.Attempt) }

func (h *handed[T]) PublishedAt(k int) time.Time { return h.q.core.time(h.ds[k].at) }

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

func (m *redrivenCount) Count() int { return int(*m) }

func (*redrivenCount) Body(int) any { return nil }

func (*redrivenCount) ID(int) string { return "" }

func (*redrivenCount) Ext(int) *extra { return nil }

func (*redrivenCount) Attempt(int) int { return 0 }

func (*redrivenCount) PublishedAt(int) time.Time { return time.Time{} }

func (*redrivenCount) Set(int, string, string) bool { return false }
