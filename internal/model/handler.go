package model

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"github.com/gofanout/fanout"
)

var errBoom = errors.New("boom")

// A handler is one that runs: it waits until the program says how it returns,
// or, if its subscriber obeys, until its context ends.
type handler struct {
	sub     int
	ref     ref
	id      deliveryID
	order   int                    // among what begins
	ds      []fanout.Delivery[int] // one, or a batch
	ctx     context.Context
	looks   bool              // at its context, before that ends
	command chan func() error // the driver sends one; never closed
	home    atomic.Bool       // it has returned, panicked or exited
}

// handle returns the handler of a subscriber.
func (d *driver) handle(s subscriber) fanout.Handler[int] {
	many := d.handleBatch(s)
	return func(ctx context.Context, del fanout.Delivery[int]) error {
		return many(ctx, []fanout.Delivery[int]{del})
	}
}

// handleBatch returns the batch handler of a subscriber.
func (d *driver) handleBatch(s subscriber) fanout.BatchHandler[int] {
	return func(ctx context.Context, ds []fanout.Delivery[int]) error {
		del := ds[0]
		h := &handler{sub: s.id, ref: s.ref, ds: slices.Clone(ds), ctx: ctx, looks: s.looks, command: make(chan func() error, 1)}
		defer h.home.Store(true)
		d.mu.Lock()
		d.order++
		h.order = d.order
		d.begun = append(d.begun, h)
		d.mu.Unlock()
		if way, wait, quick := s.plan(del.Body, del.Attempt()); quick {
			if s.looks && ctx.Err() != nil {
				panic("the context of a handler that has just begun has ended")
			}
			return handlerEnds[way].do(del, wait)
		}
		if !s.obeys {
			return (<-h.command)()
		}
		select {
		case do := <-h.command:
			return do()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// why returns what the handler's context was cancelled with.
func (h *handler) why() error {
	if h.ctx.Err() == nil {
		return nil
	}
	return sentinel(context.Cause(h.ctx))
}

// plan says how a handler ends that returns at once, if this one does.
func (s subscriber) plan(body, attempt int) (way int, wait time.Duration, quick bool) {
	if s.quick == 0 {
		return 0, 0, false
	}
	x := newDraws([]byte{byte(body), byte(body >> 8), byte(attempt), byte(s.id)})
	x.used = len(x.bytes)
	switch n := x.draw(64); {
	case n < []int{0, 0, 1, 6}[s.quick]: // one that blocks
		return 0, 0, false
	case n > []int{0, 64, 60, 32}[s.quick]:
		way = x.draw(len(handlerEnds))
	}
	return way, time.Duration(x.draw(6)) * time.Millisecond, true
}

// A handlerEnd is a way in which a handler ends: how, and what that means.
type handlerEnd struct {
	name string
	do   func(del fanout.Delivery[int], wait time.Duration) error
	outcome
}

// waits reports whether it says itself how long the message waits.
func (e handlerEnd) waits() bool {
	return e.wait == 0 && e.cause != fanout.Acked && e.cause != fanout.PermanentlyFailed
}

// after is what it means if the message is to wait so long.
func (e handlerEnd) after(wait time.Duration) outcome {
	if e.waits() {
		e.outcome.wait = max(wait, time.Millisecond)
	}
	return e.outcome
}

// others is what it means for what a batch handler got besides its first
// delivery, if the message is to wait so long.
func (e handlerEnd) others(wait time.Duration) outcome {
	if e.cause == fanout.Nacked { // it was the first that was given back
		return outcome{fanout.Failed, -1, errBusy}
	}
	return e.after(wait)
}

var handlerEnds = []handlerEnd{
	{"acks", func(fanout.Delivery[int], time.Duration) error { return nil }, outcome{cause: fanout.Acked}},
	{"acks", func(fanout.Delivery[int], time.Duration) error { return nil }, outcome{cause: fanout.Acked}},
	{"acks", func(fanout.Delivery[int], time.Duration) error { return nil }, outcome{cause: fanout.Acked}},
	{"acks", func(fanout.Delivery[int], time.Duration) error { return nil }, outcome{cause: fanout.Acked}},
	{"fails", func(fanout.Delivery[int], time.Duration) error { return errBusy }, outcome{fanout.Failed, -1, errBusy}},
	{"fails", func(fanout.Delivery[int], time.Duration) error { return errBusy }, outcome{fanout.Failed, -1, errBusy}},
	{"retries after", func(_ fanout.Delivery[int], wait time.Duration) error {
		return fmt.Errorf("wrapped: %w", fanout.RetryAfter(errBusy, wait))
	}, outcome{fanout.Failed, 0, errBusy}},
	{"snoozes", func(_ fanout.Delivery[int], wait time.Duration) error { return fanout.Snooze(wait) }, outcome{fanout.Snoozed, 0, nil}},
	{"fails for ever", func(fanout.Delivery[int], time.Duration) error { return fanout.Permanent(errBusy) }, outcome{fanout.PermanentlyFailed, 0, errBusy}},
	{"releases", func(fanout.Delivery[int], time.Duration) error {
		return fmt.Errorf("publish to another: %w", fanout.ErrClosed)
	}, outcome{fanout.Released, -1, fanout.ErrClosed}},
	{"panics", func(fanout.Delivery[int], time.Duration) error { panic(errBoom) }, outcome{fanout.Panicked, -1, errBoom}},
	{"acks itself", func(del fanout.Delivery[int], _ time.Duration) error { _ = del.Ack(context.Background()); return nil }, outcome{cause: fanout.Acked}},
	{"nacks itself", func(del fanout.Delivery[int], _ time.Duration) error {
		_ = del.Nack(context.Background())
		return errBusy
	}, outcome{fanout.Nacked, -1, nil}},
	{"exits", func(fanout.Delivery[int], time.Duration) error { runtime.Goexit(); return nil }, outcome{fanout.Exited, -1, nil}},
}

// finishHandler has a handler end in the given way.
func (d *driver) finishHandler(h *handler, way int) {
	end := handlerEnds[way]
	var wait time.Duration
	if end.waits() {
		wait = time.Duration(d.draw(6)) * time.Millisecond
	}
	d.say("handler of %v %s %v", h.id, end.name, wait)
	h.command <- func() error { return end.do(h.ds[0], wait) }
	d.erring(nil, func(m *topic) error { m.finishRun(h.ref, h.id, end.after(wait), end.others(wait)); return nil })
}

// A call is one that may wait, in its own goroutine.
type call struct {
	id        int
	ref       ref // of what is received
	do        func(ctx context.Context) (n int, got []fanout.Delivery[int], err error)
	ctx       context.Context
	cancel    context.CancelFunc
	n         int
	err       error
	got       []fanout.Delivery[int]
	done      atomic.Bool
	iteration *iteration // of which it is a step, or nil
}

// run makes the call. Started by driver.call and driver.asks; ends when the call returns, at
// the latest when its queue and topic are closed and its context is cancelled;
// the bubble waits for it.
func (c *call) run() {
	defer c.done.Store(true)
	c.n, c.got, c.err = c.do(c.ctx)
}

// call starts a call.
func (d *driver) call(r ref, fraction time.Duration, do func(ctx context.Context) (int, []fanout.Delivery[int], error)) (id int, limit time.Duration) {
	d.last++
	c := &call{id: d.last, ref: r, do: do}
	c.ctx, c.cancel, limit = d.context(6, fraction)
	d.calls = append(d.calls, c)
	go c.run()
	return c.id, limit
}

// context returns a context that may end within so many milliseconds, at an instant
// of its own: a fraction of a millisecond that nothing else happens at.
func (d *driver) context(most int, fraction time.Duration) (ctx context.Context, cancel context.CancelFunc, limit time.Duration) {
	if d.draw(4) == 0 {
		ctx, cancel = context.WithCancel(d.ctx)
		return ctx, cancel, 0
	}
	wait := d.ms(most) + fraction*time.Microsecond
	ctx, cancel = context.WithTimeout(d.ctx, wait)
	return ctx, cancel, d.model.now + wait
}
