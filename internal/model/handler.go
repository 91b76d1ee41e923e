package model

import (
	"context"
	"errors"
	"fmt"
	"runtime"
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
	d       fanout.Delivery[int]
	ctx     context.Context
	looks   bool              // at its context, before that ends
	command chan func() error // the driver sends one; never closed
	home    atomic.Bool       // it has returned, panicked or exited
}

// handle returns the handler of a subscriber.
func (d *driver) handle(r ref, sub int, obeys, looks bool) fanout.Handler[int] {
	return func(ctx context.Context, del fanout.Delivery[int]) error {
		h := &handler{sub: sub, ref: r, d: del, ctx: ctx, looks: looks || obeys, command: make(chan func() error, 1)}
		defer h.home.Store(true)
		d.mu.Lock()
		d.begun = append(d.begun, h)
		d.mu.Unlock()
		if !obeys {
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

// handlerEnds are the ways in which a handler ends: how, and what that means.
var handlerEnds = []struct {
	name string
	do   func(wait time.Duration) error
	outcome
}{
	{"acks", func(time.Duration) error { return nil }, outcome{cause: fanout.Acked}},
	{"acks", func(time.Duration) error { return nil }, outcome{cause: fanout.Acked}},
	{"acks", func(time.Duration) error { return nil }, outcome{cause: fanout.Acked}},
	{"acks", func(time.Duration) error { return nil }, outcome{cause: fanout.Acked}},
	{"fails", func(time.Duration) error { return errBusy }, outcome{fanout.Failed, -1, errBusy}},
	{"fails", func(time.Duration) error { return errBusy }, outcome{fanout.Failed, -1, errBusy}},
	{"retries after", func(wait time.Duration) error { return fmt.Errorf("wrapped: %w", fanout.RetryAfter(errBusy, wait)) }, outcome{fanout.Failed, 0, errBusy}},
	{"snoozes", func(wait time.Duration) error { return fanout.Snooze(wait) }, outcome{fanout.Snoozed, 0, nil}},
	{"fails for ever", func(time.Duration) error { return fanout.Permanent(errBusy) }, outcome{fanout.PermanentlyFailed, 0, errBusy}},
	{"releases", func(time.Duration) error { return fmt.Errorf("publish to another: %w", fanout.ErrClosed) }, outcome{fanout.Released, -1, fanout.ErrClosed}},
	{"panics", func(time.Duration) error { panic(errBoom) }, outcome{fanout.Panicked, -1, errBoom}},
	{"exits", func(time.Duration) error { runtime.Goexit(); return nil }, outcome{fanout.Exited, -1, nil}},
}

// finishHandler has a handler end in the given way.
func (d *driver) finishHandler(h *handler, way int) {
	end := handlerEnds[way]
	var wait time.Duration
	if end.wait == 0 && end.cause != fanout.Acked && end.cause != fanout.PermanentlyFailed {
		wait = time.Duration(d.draw(6)) * time.Millisecond
		end.wait = max(wait, time.Millisecond)
	}
	d.say("handler of %v %s %v", h.id, end.name, wait)
	h.command <- func() error { return end.do(wait) }
	d.erring(nil, func(m *topic) error { m.finishRun(h.ref, h.id, end.outcome); return nil })
}

// A call is one that may wait, in its own goroutine.
type call struct {
	id     int
	ref    ref // of what is received
	do     func(ctx context.Context) (n int, got []fanout.Delivery[int], err error)
	ctx    context.Context
	cancel context.CancelFunc
	n      int
	err    error
	got    []fanout.Delivery[int]
	done   atomic.Bool
}

// run makes the call. Started by driver.call; ends when the call returns, at
// the latest when its queue and topic are closed and its context is cancelled;
// the bubble waits for it.
func (c *call) run() {
	defer c.cancel()
	defer c.done.Store(true)
	c.n, c.got, c.err = c.do(c.ctx)
}

// call starts a call, with a context that may end at an instant of its own: a
// fraction of a millisecond that nothing else happens at.
func (d *driver) call(r ref, fraction time.Duration, do func(ctx context.Context) (int, []fanout.Delivery[int], error)) (id int, limit time.Duration) {
	d.last++
	c := &call{id: d.last, ref: r, do: do}
	if d.draw(4) > 0 {
		wait := d.ms(6) + fraction*time.Microsecond
		limit = d.model.now + wait
		c.ctx, c.cancel = context.WithTimeout(d.ctx, wait)
	} else {
		c.ctx, c.cancel = context.WithCancel(d.ctx)
	}
	d.calls = append(d.calls, c)
	go c.run()
	return c.id, limit
}
