package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/gofanout/fanout"
)

// A publisher publishes in all ways, with contexts that end at any moment.
type publisher struct {
	a *arena
	n uint32
	r *rand.Rand
}

// run publishes until there are no more tickets or the round ends. Started by
// populate; ends when the topic ends at the latest; joined by play.
func (p *publisher) run() {
	a, r := p.a, p.r
	for a.publishing.Err() == nil {
		size := 1
		if r.IntN(3) == 0 {
			size = 1 + r.IntN(6)
			if r.IntN(400) == 0 {
				size = 70 // more than many queues take
			}
		}
		first, ok := a.take(size)
		if !ok {
			return
		}
		ctx, cancel := p.context()
		err := p.publish(ctx, first, size)
		cancel()
		switch {
		case errors.Is(err, fanout.ErrClosed):
			return
		case errors.Is(err, fanout.ErrQueueFull), r.IntN(16) == 0:
			wait(micros(r, 200), a.stop)
		}
	}
}

// publish publishes the messages from first on, in one of four ways, and notes
// what became of them.
func (p *publisher) publish(ctx context.Context, first ticket, size int) error {
	a, r := p.a, p.r
	try, single := r.IntN(4) == 0, size == 1 && r.IntN(2) == 0
	unique := !single && a.traits.dedup && r.IntN(2) == 0
	ms := make([]fanout.Message[ticket], size)
	for k := range ms {
		m := first + ticket(k)
		e := &a.messages[m]
		*e = message{publisher: p.n, batch: uint32(first), key: -1, state: underWay}
		ms[k] = fanout.Message[ticket]{Body: m}
		if r.IntN(8) > 0 {
			ms[k].ID = idOf(m)
		}
		if unique {
			ms[k].DeduplicationID = idOf(m)
		}
		switch {
		case single:
		case a.traits.keys && r.IntN(3) > 0:
			e.key = int16(r.IntN(8))
			ms[k].OrderingKey = strconv.Itoa(int(e.key))
		case a.traits.delays && r.IntN(4) == 0:
			ms[k].Delay = micros(r, 3000)
		}
	}
	a.offered.Add(int64(size))
	call := a.w.now()
	var err error
	switch {
	case unique && r.IntN(8) == 0:
		err = p.race(ctx, ms)
	case single && try:
		err = a.top.TryPublish(ctx, first)
	case single:
		err = a.top.Publish(ctx, first)
	case try:
		err = a.top.TryPublishMessages(ctx, ms...)
	default:
		err = a.top.PublishMessages(ctx, ms...)
	}
	a.note(first, size, call, err)
	if unique && r.IntN(3) == 0 {
		return p.again(first, ms, err)
	}
	return err
}

// race publishes the same messages twice at once. One of the two is a duplicate of
// the other, unless that fails.
func (p *publisher) race(ctx context.Context, ms []fanout.Message[ticket]) error {
	p.a.offered.Add(int64(len(ms)))
	rival := &rival{a: p.a, ms: slices.Clone(ms), after: micros(p.r, 50)}
	var home sync.WaitGroup
	home.Go(rival.run)
	err := p.a.top.PublishMessages(ctx, ms...)
	home.Wait()
	if rival.err == nil {
		return nil
	}
	return err
}

type rival struct {
	a     *arena
	ms    []fanout.Message[ticket]
	after time.Duration
	err   error
}

// run publishes. Started and joined by race.
func (v *rival) run() {
	wait(v.after, v.a.stop)
	v.err = v.a.top.PublishMessages(v.a.publishing, v.ms...)
}

// again publishes messages once more that were published, or refused, as err says.
// If they were published it does nothing; else it is as if they never had been.
func (p *publisher) again(first ticket, ms []fanout.Message[ticket], err error) error {
	a := p.a
	a.offered.Add(int64(len(ms)))
	call := a.w.now()
	next := a.top.PublishMessages(a.publishing, ms...)
	if err != nil {
		a.note(first, len(ms), call, next)
		return next
	}
	a.w.sum.repeated.Add(uint64(len(ms)))
	if next != nil && !errors.Is(next, fanout.ErrClosed) && !errors.Is(next, context.Canceled) {
		a.w.complain("deduplication", "topic %s: message %d, which was published, published again: %v", a.name, first, next)
	}
	return next
}

// note writes into the journal how a publish ended.
func (a *arena) note(first ticket, size int, call int64, err error) {
	ret := a.w.now()
	state := accepted
	if err != nil {
		state = refused
		if !expected(err) {
			a.w.complain("errors", "publish of message %d to topic %s: %v", first, a.name, err)
		}
	}
	a.w.sum.publish(err, size)
	for k := range size {
		e := &a.messages[first+ticket(k)]
		e.call, e.ret, e.state = call, ret, state
	}
}

// expected reports whether err may be returned by a publish here.
func expected(err error) bool {
	for _, e := range []error{
		fanout.ErrClosed, fanout.ErrQueueFull, fanout.ErrBatchTooLarge, fanout.ErrWouldDeadlock, context.Canceled, context.DeadlineExceeded,
		fanout.ErrStale, // the cause of a handler's context
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// context returns a context that never ends, ends soon, is cancelled at any
// instant, or has ended.
func (p *publisher) context() (context.Context, context.CancelFunc) {
	ctx := p.a.publishing
	switch n := p.r.IntN(20); {
	case n < 12:
		return ctx, func() {}
	case n < 16:
		return context.WithTimeout(ctx, micros(p.r, 20_000))
	case n < 19:
		ctx, cancel := context.WithCancel(ctx)
		t := time.AfterFunc(micros(p.r, 5000), cancel)
		return ctx, func() { t.Stop(); cancel() }
	}
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	return ctx, cancel
}

// echo publishes one message to the other topic from inside a handler.
func (a *arena) echo(ctx context.Context, dice *dice) error {
	m, ok := a.take(1)
	if !ok {
		return nil
	}
	a.messages[m] = message{batch: uint32(m), key: -1, state: underWay}
	a.offered.Add(1)
	call := a.w.now()
	var err error
	if dice.roll(2) == 0 {
		err = a.top.TryPublish(ctx, m)
	} else {
		short, cancel := context.WithTimeout(ctx, 5*time.Millisecond)
		err = a.top.Publish(short, m)
		cancel()
	}
	a.note(m, 1, call, err)
	return err
}
