package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gofanout/fanout"
)

// timeOut lets the handler timeout or the visibility timeout pass, and then
// tries to acknowledge.
func (b *book) timeOut(ctx context.Context, worker uint32, d *fanout.Delivery[ticket], by whom, dc *dice) (bool, error) {
	switch {
	case by == received:
		return true, errForgotten
	case by == inBatch && b.spec.handlerTimeout == 0:
		return false, nil
	}
	deadline := d.Deadline()
	<-ctx.Done()
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, context.DeadlineExceeded):
		return b.timedOut(ctx, worker, d, deadline, dc)
	case errors.Is(cause, fanout.ErrClosed) && dc.roll(2) == 0:
		return false, fmt.Errorf("%w: %w", errOther, ctx.Err()) // which releases it
	case errors.Is(cause, fanout.ErrClosed):
		return b.ackOwned(worker, d, deadline), errOther // until its deadline, unless the queue is closed too
	case by == alone: // a batch handler's may have ended for another delivery
		b.mustNot(worker, d)
	}
	return false, errOther
}

// timedOut is for a handler whose timeout has passed: it still owns its
// delivery, until deadline at least. What it returns counts, and so does what it
// settles.
func (b *book) timedOut(ctx context.Context, worker uint32, d *fanout.Delivery[ticket], deadline time.Time, dc *dice) (bool, error) {
	b.a.w.sum.timedOut.Add(1)
	s := b.spec
	switch started := deadline.Add(-s.visibility); {
	case s.handlerTimeout == 0:
		b.a.w.complain("handler timeout", "queue %s: a handler without one: %v", b.name, context.Cause(ctx))
	case !deadline.IsZero() && time.Since(started) < s.handlerTimeout:
		b.a.w.complain("handler timeout", "queue %s: one of %v came after %v", b.name, s.handlerTimeout, time.Since(started))
	}
	switch dc.roll(3) {
	case 0:
		return false, fmt.Errorf("%w: %w", errOther, context.Cause(ctx))
	case 1:
		return false, nil
	}
	return b.ackOwned(worker, d, deadline), errOther
}

// ackOwned acknowledges a delivery whose handler's context has ended. The handler
// owns it until deadline, as long as the queue is open and nobody purges it.
func (b *book) ackOwned(worker uint32, d *fanout.Delivery[ticket], deadline time.Time) bool {
	r := refusal(d.Ack(context.Background()))
	if r == stale && time.Now().Before(deadline) && !b.spec.purges {
		b.enter(worker, d, wronglyDone, r)
		return false
	}
	return b.noted(worker, d, r, fanout.Acked)
}

// mustNot tries to acknowledge a delivery that has ended.
func (b *book) mustNot(worker uint32, d *fanout.Delivery[ticket]) {
	r := refusal(d.Ack(context.Background()))
	what := refusedAs
	if r != stale && r != closed {
		what = wronglyDone
	}
	b.enter(worker, d, what, r)
}

// checkHistory proves that the attempt before, if it timed out, had all the time
// that was its due.
func (b *book) checkHistory(d *fanout.Delivery[ticket]) {
	h := d.History()
	if len(h) == 0 {
		return
	}
	last, due := h[len(h)-1], max(b.spec.visibility, b.spec.autoExtend)
	if last.Queue == b.name && last.Cause == fanout.TimedOut && last.Elapsed < due {
		b.a.w.complain("visibility timeout", "queue %s, message %d: an attempt timed out after %v, not %v", b.name, d.Body, last.Elapsed, due)
	}
}
