package main

import (
	"context"
	"errors"
	"math/bits"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/gofanout/fanout"
)

// A consumer is a subscriber or a goroutine that receives.
type consumer struct {
	b      *book
	number uint32
	limit  int // handlers at once
	busy   atomic.Uint64
	pace   pace
}

// enter gives a running handler the lowest free number. That there is always
// one proves that the subscriber's concurrency is a bound.
func (c *consumer) enter() (worker uint32, leave func()) {
	for {
		old := c.busy.Load()
		n := bits.TrailingZeros64(^old)
		if n >= c.limit {
			c.b.a.w.complain("bounded", "queue %s, consumer %d: more than %d handlers run at once", c.b.name, c.number, c.limit)
		}
		if c.busy.CompareAndSwap(old, old|1<<n) {
			return c.number<<8 | uint32(n), func() { c.busy.And(^uint64(1 << n)) }
		}
	}
}

var (
	errBusy      = errors.New("busy")
	errFatal     = errors.New("fatal")
	errOther     = errors.New("other")
	errForgotten = errors.New("forgotten") // it is nobody's until its time is up
)

// witness is the handler that sees everything, and only looks.
func (c *consumer) witness(ctx context.Context, d fanout.Delivery[ticket]) error {
	c.through(ctx, d)
	c.b.got(c.number<<8, &d, got)
	c.b.a.bind(d.ID(), d.Body)
	c.b.ack(c.number<<8, &d)
	return nil
}

// one is the handler of one message.
func (c *consumer) one(ctx context.Context, d fanout.Delivery[ticket]) error {
	worker, leave := c.enter()
	defer leave()
	c.through(ctx, d)
	c.started(d)
	c.b.got(worker, &d, got)
	done, err := c.b.act(ctx, worker, &d, alone)
	if !done {
		c.b.enter(worker, &d, returned, verdict(err))
	}
	return err
}

// several is the handler of several messages: what it leaves unsettled is
// settled as the last one says.
func (c *consumer) several(ctx context.Context, ds []fanout.Delivery[ticket]) error {
	worker, leave := c.enter()
	defer leave()
	c.through(ctx, ds...)
	c.started(ds...)
	for k := range ds {
		c.b.got(worker, &ds[k], got)
	}
	var open []*fanout.Delivery[ticket]
	var last error
	together := c.b.together(worker, ds)
	for k := range ds {
		done, err := c.b.act(ctx, worker, &ds[k], inBatch)
		switch {
		case done:
		case together != nil && err == nil:
			together.add(ds[k], fate{})
		default:
			open, last = append(open, &ds[k]), err
		}
	}
	if together != nil {
		for k, as := range together.call() {
			if as != 0 { // what the handler returns may count still
				open = append(open, &together.ds[k])
			}
		}
	}
	for _, d := range open {
		c.b.enter(worker, d, returned, verdict(last))
	}
	return last
}

// verdict is the cause that an error stands for. What is not told apart by its
// type is by what act returns.
func verdict(err error) uint8 {
	switch {
	case err == nil:
		return uint8(fanout.Acked)
	case errors.Is(err, errFatal):
		return uint8(fanout.PermanentlyFailed)
	case errors.Is(err, errBusy):
		return uint8(fanout.Failed)
	case errors.Is(err, fanout.ErrClosed):
		return uint8(fanout.Released)
	case errors.Is(err, errOther):
		return uint8(fanout.Failed)
	}
	return uint8(fanout.Snoozed)
}

// per returns how likely a queue does what is out of the ordinary, in 1000.
func (s spec) per() int {
	switch s.temper {
	case calm:
		return 0
	case mixed:
		return 30
	}
	return 250
}

// whom says by whom a delivery is handled.
type whom uint8

const (
	alone    whom = iota // a handler of one message
	inBatch              // a handler of several
	received             // somebody who received it
)

// act does with a delivery what consumers do: what, depends on the queue, the
// message and the attempt alone. It reports whether it has settled it; if not,
// the error is to. In a handler of one message it may panic or exit.
func (b *book) act(ctx context.Context, worker uint32, d *fanout.Delivery[ticket], by whom) (done bool, err error) {
	dc := dice(mix(b.a.w.seed, forHandler, b.a.n, b.n, uint64(d.Body), uint64(d.Attempt()), uint64(len(d.History()))))
	if dc.roll(1000) >= b.spec.per() {
		if dc.roll(2) == 0 || b.spec.inOrder {
			return b.ack(worker, d), nil
		}
		return false, nil
	}
	switch n := dc.roll(100); {
	case n < 18:
		return false, errBusy
	case n < 24 && by == alone:
		b.enter(worker, d, returned, uint8(fanout.Panicked))
		panic(errBusy)
	case n < 30 && by == alone:
		b.enter(worker, d, returned, uint8(fanout.Exited))
		runtime.Goexit()
	case n < 36:
		return false, fanout.Permanent(errFatal)
	case n < 46:
		return false, fanout.Snooze(time.Duration(dc.roll(4)) * time.Millisecond)
	case n < 52:
		return false, fanout.RetryAfter(errBusy, time.Duration(dc.roll(4))*time.Millisecond)
	case n < 54, n < 70 && b.spec.handlerTimeout > 0:
		return b.timeOut(ctx, worker, d, by, &dc)
	case n < 70 && b.spec.autoExtend > 0:
		wait(b.spec.visibility*5/4, ctx.Done())
		return b.ack(worker, d), nil
	case n < 62:
		b.later(worker, d, time.Duration(dc.roll(20))*time.Millisecond)
		if by == received {
			b.contested(worker, d, d.Nack(context.Background()), fanout.Nacked)
			return true, nil
		}
		return false, errBusy
	case n < 70:
		return b.twice(worker, d)
	case n < 76:
		return b.extend(ctx, worker, d, &dc)
	case n < 82:
		return b.nack(worker, d, time.Duration(dc.roll(3))*time.Millisecond), errBusy
	case n < 86:
		return b.settle(worker, d, fanout.Snooze(time.Millisecond), fanout.Snoozed), nil
	case n < 90:
		return b.settle(worker, d, fanout.Permanent(errFatal), fanout.PermanentlyFailed), nil
	}
	err = b.a.other.echo(ctx, &dc)
	if errors.Is(err, fanout.ErrClosed) {
		return false, err
	}
	return false, nil
}

func refusal(err error) uint8 {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, fanout.ErrStale):
		return stale
	case errors.Is(err, fanout.ErrSettled):
		return settled
	case errors.Is(err, fanout.ErrClosed):
		return closed
	case errors.Is(err, fanout.ErrInvalidOption):
		return foreign
	}
	return otherwise
}

// note enters how a settlement went that is the delivery's first, and reports whether it has settled. If it
// came too late, what the handler returns may count still: a handler is late
// once its timer has come, a call at the deadline.
func (b *book) note(worker uint32, d *fanout.Delivery[ticket], err error, cause fanout.Cause) bool {
	return b.noted(worker, d, refusal(err), cause)
}

// noted is note of a settlement that was refused as r, or not, if it is 0.
func (b *book) noted(worker uint32, d *fanout.Delivery[ticket], r uint8, cause fanout.Cause) bool {
	switch r {
	case 0:
		b.enter(worker, d, settledAs, uint8(cause))
	case stale, closed:
		b.enter(worker, d, refusedAs, r)
	default:
		b.enter(worker, d, wronglyDone, r)
	}
	return r == 0
}

func (b *book) ack(worker uint32, d *fanout.Delivery[ticket]) bool {
	return b.note(worker, d, d.Ack(context.Background()), fanout.Acked)
}

func (b *book) nack(worker uint32, d *fanout.Delivery[ticket], after time.Duration) bool {
	if after == 0 {
		return b.note(worker, d, d.Nack(context.Background()), fanout.Nacked)
	}
	return b.note(worker, d, d.NackAfter(context.Background(), after), fanout.Nacked)
}

func (b *book) settle(worker uint32, d *fanout.Delivery[ticket], as error, cause fanout.Cause) bool {
	return b.note(worker, d, d.Settle(context.Background(), as), cause)
}

// twice settles a delivery two times. The second must find it settled, or the
// queue closed; if the first came too late, so does the second.
func (b *book) twice(worker uint32, d *fanout.Delivery[ticket]) (bool, error) {
	first := d.Ack(context.Background())
	b.note(worker, d, first, fanout.Acked)
	second := d.Nack(context.Background())
	r := refusal(second)
	what := refusedAs
	if first == nil && r != settled && r != closed || r == 0 || r == otherwise {
		what = wronglyDone
	}
	b.enter(worker, d, what, r)
	return first == nil, errBusy
}

// extend asks for more time, and takes it.
func (b *book) extend(ctx context.Context, worker uint32, d *fanout.Delivery[ticket], dc *dice) (bool, error) {
	by := 2 * b.spec.visibility
	if dc.roll(3) == 0 {
		by = time.Hour // what is in flight so when all ends must leave no timer
	}
	if d.Extend(ctx, by) == nil {
		b.enter(worker, d, extended, 0)
	}
	if dc.roll(8) == 0 {
		wait(b.spec.visibility*5/4, ctx.Done())
	}
	return b.ack(worker, d), nil
}

// later settles a delivery from another goroutine after a while.
func (b *book) later(worker uint32, d *fanout.Delivery[ticket], after time.Duration) {
	l := &lateOne{b: b, worker: worker, d: *d, after: after}
	b.a.w.others.Go(l.run)
}

type lateOne struct {
	b      *book
	worker uint32
	d      fanout.Delivery[ticket]
	after  time.Duration
}

// run acknowledges late. Started by later; ends after a while; joined by play.
func (l *lateOne) run() {
	wait(l.after, l.b.a.done)
	l.b.contested(l.worker, &l.d, l.d.Ack(context.Background()), fanout.Acked)
}

// contested enters how a settlement went of a delivery that another goroutine
// settles too: it may have been quicker. That one of them settled it, and not
// both, is proven by where the message ended.
func (b *book) contested(worker uint32, d *fanout.Delivery[ticket], err error, cause fanout.Cause) {
	if refusal(err) == settled {
		b.enter(worker, d, refusedAs, settled)
		return
	}
	b.note(worker, d, err, cause)
}
