package model

import (
	"context"
	"time"

	"github.com/gofanout/fanout"
)

func (d *driver) subscribe() {
	if r, q := d.queue(); q != nil {
		d.subscribeTo(r, q)
	}
}

func (d *driver) subscribeTo(r ref, q *fanout.Queue[int]) {
	d.last++
	s := subscriber{id: d.last, ref: r, concurrency: 1 + d.draw(3), obeys: d.oneIn(3)}
	s.looks = s.obeys || d.draw(2) == 1
	if d.quick && d.draw(4) > 0 || d.oneIn(8) {
		s.quick = 1 + d.draw(3)
	}
	var sub *fanout.Subscriber[int]
	var err error
	if d.oneIn(5) {
		s.batch, s.obeys = 1+d.draw(4), false
		sub, err = q.SubscribeBatch(d.ctx, d.handleBatch(s), fanout.WithConcurrency(s.concurrency), fanout.WithBatchSize(s.batch))
	} else {
		options := []fanout.WorkerOption{fanout.WithConcurrency(s.concurrency)}
		if s.id%3 == 0 { // its workers read the clock at each step
			options = append(options, fanout.WithHandlerTimeout(24*time.Hour))
		}
		sub, err = q.Subscribe(d.ctx, d.handle(s), options...)
	}
	d.say("subscribe %+v: %v", s, err)
	if err == nil {
		d.subs = append(d.subs, sub)
	}
	d.erring(err, func(m *topic) error { return m.subscribe(s) })
}

// returns has a handler return.
func (d *driver) returns() {
	if len(d.handlers) == 0 {
		return
	}
	h := d.handlers[d.draw(len(d.handlers))]
	d.finishHandler(h, d.draw(len(handlerEnds)))
}

// stop begins a Subscriber.Shutdown.
func (d *driver) stop() {
	if len(d.subs) == 0 {
		return
	}
	k := d.draw(len(d.subs))
	s, id := d.subs[k], d.model.subs[k].id
	call, limit := d.call(ref{}, 43, func(ctx context.Context) (int, []fanout.Delivery[int], error) {
		return 0, nil, s.Shutdown(ctx)
	})
	d.say("call %d: shutdown of subscriber %d until %v", call, id, limit)
	d.erring(nil, func(m *topic) error { m.stop(join{id: call, sub: id, limit: limit}); return nil })
}

func (d *driver) closeQueue() {
	r, q := d.queue()
	if q == nil {
		return
	}
	err := q.Close()
	d.say("close %v: %v", r, err)
	d.erring(err, func(m *topic) error { return m.close(r) })
}

// shutDown begins a Shutdown; the program goes on.
func (d *driver) shutDown() {
	if d.shutdown != nil {
		return
	}
	limit := d.ms(20) + 77*time.Microsecond // at an instant of its own
	d.say("shutdown within %v", limit)
	d.shutdown = make(chan error, 1)
	go d.runShutdown(limit)
	d.erring(nil, func(m *topic) error { m.shutdown(m.now + limit); return nil })
}

// runShutdown shuts the topic down. Started by shutDown; ends when the topic is
// closed; the bubble waits for it.
func (d *driver) runShutdown(limit time.Duration) {
	ctx, cancel := context.WithTimeout(d.ctx, limit)
	defer cancel()
	d.shutdown <- d.top.Shutdown(ctx)
}
