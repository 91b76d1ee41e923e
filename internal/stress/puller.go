package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/gofanout/fanout"
)

// A puller receives from a queue in all ways.
type puller struct {
	c   *consumer
	r   *rand.Rand
	ctx context.Context

	most int // messages at once
	room []fanout.Delivery[ticket]
	open []fanout.Delivery[ticket] // to be acknowledged with others
	past []bygone                  // some deliveries that were settled, came too late or were forgotten
}

// A bygone delivery is one that AckBatch should find ended.
type bygone struct {
	d    fanout.Delivery[ticket]
	kind fateKind
}

// lent is a delivery for pullers of other queues.
type lent struct {
	b *book
	d fanout.Delivery[ticket]
}

// run receives until the queue is closed. Started by live; joined by play.
func (p *puller) run() {
	for {
		ds, err := p.receive()
		if errors.Is(err, fanout.ErrClosed) {
			p.acknowledge()
			return
		}
		p.work(ds)
	}
}

// work does with ds what is done with messages. What is to be acknowledged it
// acknowledges together, now and then with what comes next: that may be too late.
func (p *puller) work(ds []fanout.Delivery[ticket]) {
	b, worker := p.c.b, p.c.number<<8
	for k := range ds {
		b.got(worker, &ds[k], got)
	}
	for k := range ds {
		d := &ds[k]
		done, err := b.act(p.ctx, worker, d, received)
		switch {
		case done && errors.Is(err, errForgotten):
			p.remember(*d, free)
		case done:
		case err == nil:
			p.open = append(p.open, *d)
		default:
			b.settle(worker, d, err, fanout.Cause(verdict(err)))
		}
	}
	if b.spec.temper == calm || len(p.open) >= 12 || p.r.IntN(4) > 0 {
		p.acknowledge()
	}
}

// acknowledge acknowledges what is open, in one call but now and then, and mixes
// in what must be refused.
func (p *puller) acknowledge() {
	b, worker, r := p.c.b, p.c.number<<8, p.r
	if len(p.open) == 0 {
		return
	}
	if r.IntN(4) == 0 {
		for k := range p.open {
			b.ack(worker, &p.open[k])
		}
		p.open = p.open[:0]
		return
	}
	call := &ackBatch{b: b, worker: worker}
	for k, d := range p.open {
		call.add(d, fate{})
		switch r.IntN(12) {
		case 0:
			call.addAgain(len(call.ds) - 1)
		case 1, 2:
			p.mixIn(call)
		case 3:
			if l := b.a.lent.Load(); l != nil && l.b != b {
				call.add(l.d, fate{kind: strange})
			}
			b.a.lent.Store(&lent{b: b, d: p.open[k]})
		}
	}
	for k, as := range call.call() {
		switch {
		case call.must[k].kind != free:
		case as == 0:
			p.remember(call.ds[k], hadAcked)
		case as == stale:
			p.remember(call.ds[k], hadEnded)
		}
	}
	p.open = p.open[:0]
}

// mixIn adds a delivery that ended before. One that was forgotten must be
// refused only if its time is up for certain.
func (p *puller) mixIn(call *ackBatch) {
	if len(p.past) == 0 {
		return
	}
	k := p.r.IntN(len(p.past))
	e := p.past[k]
	p.past = slices.Delete(p.past, k, k+1)
	if e.kind == free && e.d.Deadline().IsZero() {
		e.kind = hadEnded
	}
	call.add(e.d, fate{kind: e.kind})
}

// remember keeps a delivery that has ended, or will, for a later call.
func (p *puller) remember(d fanout.Delivery[ticket], kind fateKind) {
	if len(p.past) < 8 {
		p.past = append(p.past, bygone{d, kind})
	} else if p.r.IntN(4) == 0 {
		p.past[p.r.IntN(len(p.past))] = bygone{d, kind}
	}
}

// receive takes what there is, in one of five ways. It is gone at the next call.
func (p *puller) receive() ([]fanout.Delivery[ticket], error) {
	q, r := p.c.b.q, p.r
	ctx := p.ctx
	if r.IntN(2) == 0 {
		short, cancel := context.WithTimeout(p.ctx, micros(r, 50_000)+time.Microsecond)
		defer cancel()
		ctx = short
	}
	var d fanout.Delivery[ticket]
	var err error
	switch r.IntN(6) {
	case 0:
		most := 1 + r.IntN(p.most)
		if r.IntN(2) == 0 {
			return q.ReceiveBatch(ctx, most)
		}
		if most > len(p.room) {
			p.room = make([]fanout.Delivery[ticket], most)
		}
		n, err := q.ReceiveInto(ctx, p.room[:most])
		return p.room[:n], err
	case 1:
		var ok bool
		if d, ok, err = q.TryReceive(ctx); !ok {
			wait(micros(r, 500)+time.Microsecond, nil)
			return nil, err
		}
	case 2:
		err = fanout.ErrClosed // only a closed queue ends the loop without an error
		most := r.IntN(300)
		for d, err = range q.Deliveries(ctx) {
			if most == 0 || err != nil {
				break
			}
			most--
			p.work([]fanout.Delivery[ticket]{d})
			err = fanout.ErrClosed
		}
	default:
		d, err = q.Receive(ctx)
	}
	if err != nil {
		return nil, err
	}
	return []fanout.Delivery[ticket]{d}, nil
}
