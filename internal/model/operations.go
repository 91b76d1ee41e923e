package model

import (
	"context"
	"fmt"
	"time"

	"github.com/gofanout/fanout"
)

// step does one operation.
func (d *driver) step() {
	k := d.draw(98)
	switch {
	case k < 12:
		d.publish()
	case k < 24:
		d.receive()
	case k < 34:
		d.settle()
	case k < 46:
		d.returns()
	case k < 57:
		d.sleep()
	case k < 60:
		d.subscribe()
	case k < 63:
		d.receiveWaiting()
	case k < 65:
		d.extend()
	case k < 67:
		d.open()
	case k < 69:
		d.pause()
	case k < 73:
		d.redrive()
	case k < 74:
		d.giveUp()
	case k < 76:
		d.stop()
	case k == 76:
		d.peek()
	case k == 77:
		d.purge()
	case k < 82:
		d.iterate()
	case k < 92:
		d.goOn()
	case k < 96:
		d.ackBatch()
	case d.oneIn(3):
		d.closeQueue()
	case d.oneIn(6):
		d.shutDown()
	}
}

func (d *driver) message1() fanout.Message[int] {
	d.bodies++
	m := fanout.Message[int]{Body: d.bodies}
	if !d.keyed && d.oneIn(4) {
		m.Delay = d.ms(4)
	}
	if d.oneIn(4) {
		m.TimeToLive = d.ms(8)
	}
	if d.model.ordering && m.Delay == 0 && (d.keyed || !d.oneIn(3)) || d.oneIn(50) {
		m.OrderingKey = string(rune('a' + d.draw(2)))
	}
	if d.model.maxIDs > 0 && d.oneIn(2) || d.oneIn(50) {
		m.DeduplicationID = fmt.Sprintf("id%d", d.draw(5))
	}
	if d.oneIn(4) {
		m.ID = fmt.Sprintf("own-%d", m.Body)
		m.Attributes = map[string]string{"color": "red"}
	}
	if d.oneIn(100) {
		m.TimeToLive = -1
	}
	return m
}

func (d *driver) publish() {
	try := d.draw(2) == 0 || d.quick && len(d.model.offers) > 1
	var messages []fanout.Message[int]
	if d.rich || d.oneIn(3) {
		for range d.draw(5) {
			messages = append(messages, d.message1())
		}
	}
	if d.quick && d.oneIn(4) {
		messages = nil
		for range 1 + d.draw(100)*d.draw(3) {
			d.bodies++
			messages = append(messages, fanout.Message[int]{Body: d.bodies})
		}
	}
	batch := len(messages) > 0
	if !batch {
		d.bodies++
		messages = []fanout.Message[int]{{Body: d.bodies}}
	}
	if try {
		var err error
		if batch {
			err = d.top.TryPublishMessages(d.ctx, messages...)
		} else {
			err = d.top.TryPublish(d.ctx, messages[0].Body)
		}
		d.say("try to publish %v: %v", messages, err)
		d.erring(err, func(m *topic) error {
			_, err := m.publish(offer{messages: messages}, true)
			return err
		})
		return
	}
	id, limit := d.call(ref{}, 13, func(ctx context.Context) (int, []fanout.Delivery[int], error) {
		if batch {
			return 0, nil, d.top.PublishMessages(ctx, messages...)
		}
		return 0, nil, d.top.Publish(ctx, messages[0].Body)
	})
	d.say("call %d: publish %v until %v", id, messages, limit)
	d.erring(nil, func(m *topic) error {
		if done, err := m.publish(offer{id: id, messages: messages, limit: limit}, false); done {
			m.finish(result{ID: id, Err: err})
		}
		return nil
	})
}

// ref draws a queue. It is a dead-letter queue once in five times.
func (d *driver) queue() (ref, *fanout.Queue[int]) {
	if len(d.queues) == 0 {
		return ref{}, nil
	}
	k := d.draw(len(d.queues))
	if !d.oneIn(5) {
		return ref{queue: k}, d.queues[k]
	}
	if d.model.queues[k].set.shared {
		return sharedRef, d.shared
	}
	r := ref{k, ownDead}
	d.model.at(r) // to ask for it makes it
	return r, d.queues[k].DeadLetters()
}

// settle settles a delivery, perhaps that of a handler that runs.
func (d *driver) settle() {
	h, ok := d.delivery()
	if !ok {
		return
	}
	wait := time.Duration(d.draw(6)) * time.Millisecond
	waits := max(wait, time.Millisecond)
	var err error
	var o outcome
	switch d.draw(11) {
	default:
		err = h.Ack(d.ctx)
		o = outcome{cause: fanout.Acked}
	case 3, 4:
		err = h.Nack(d.ctx)
		o = outcome{fanout.Nacked, -1, nil}
	case 5:
		if d.oneIn(20) {
			d.erring(h.NackAfter(d.ctx, -1), func(m *topic) error { return fanout.ErrInvalidOption })
			return
		}
		err = h.NackAfter(d.ctx, wait)
		o = outcome{fanout.Nacked, waits, nil}
	case 6:
		err = h.Settle(d.ctx, errBusy)
		o = outcome{fanout.Failed, -1, errBusy}
	case 7:
		err = h.Settle(d.ctx, fmt.Errorf("wrapped: %w", fanout.RetryAfter(errBusy, wait)))
		o = outcome{fanout.Failed, waits, errBusy}
	case 8:
		err = h.Settle(d.ctx, fanout.Snooze(wait))
		o = outcome{fanout.Snoozed, waits, nil}
	case 9:
		err = h.Settle(d.ctx, fanout.Permanent(errBusy))
		o = outcome{fanout.PermanentlyFailed, 0, errBusy}
	case 10:
		o = outcome{fanout.Released, -1, fanout.ErrClosed}
		if wait%(2*time.Millisecond) == 0 {
			err = h.Release(d.ctx)
			o = outcome{cause: fanout.Released}
		} else {
			err = h.Settle(d.ctx, fmt.Errorf("publish to another: %w", fanout.ErrClosed))
		}
	}
	d.say("%v %v of %v, wait %v: %v", o.cause, h.id, h.ref, o.wait, err)
	d.erring(err, func(m *topic) error { return m.settle(h.ref, h.id, o) })
}

func (d *driver) extend() {
	h, ok := d.delivery()
	if !ok {
		return
	}
	by := d.ms(6)
	if d.oneIn(20) {
		by = 0
	}
	err := h.Extend(d.ctx, by)
	d.say("extend %v by %v: %v", h.id, by, err)
	d.erring(err, func(m *topic) error { return m.extend(h.ref, h.id, by) })
}

// sleep lets time pass, up to a whole millisecond. It stops at each instant at
// which something happens, so that this is seen to happen there.
func (d *driver) sleep() {
	end := (d.model.now + d.ms(4)).Truncate(time.Millisecond)
	early := d.oneIn(4)
	d.say("sleep until %v", end)
	d.asleep = true
	defer func() { d.asleep = false }()
	for d.model.now < end {
		next := min(d.model.nextInstant(), end)
		if before := next - 1; early && before > d.model.now { // nothing comes early
			sleep(before - d.model.now)
			d.erring(nil, func(m *topic) error { m.now = before; return nil })
		}
		sleep(next - d.model.now)
		d.erring(nil, func(m *topic) error { m.now = next; return nil })
	}
}

func (d *driver) pause() {
	r, q := d.queue()
	if q == nil {
		return
	}
	paused := d.draw(3) == 0
	act := q.Resume
	if paused {
		act = q.Pause
	}
	err := act(d.ctx)
	d.say("pause %v %t: %v", r, paused, err)
	d.erring(err, func(m *topic) error { return m.pause(r, paused) })
}

func (d *driver) purge() {
	r, q := d.queue()
	if q == nil {
		return
	}
	n, err := q.Purge(d.ctx)
	d.say("purge %v: %d, %v", r, n, err)
	d.agree(err, n, nil, func(m *topic) (int, []messageView, error) {
		n, err := m.purge(r)
		return n, nil, err
	})
}

// redrive begins a redrive: of all, by ID or by a predicate.
func (d *driver) redrive() {
	if len(d.queues) == 0 {
		return
	}
	k := d.draw(len(d.queues))
	dead := d.model.deads[k]
	if d.model.queues[k].set.shared {
		dead = d.model.shared
	}
	if q := d.model.queues[k]; d.quick && dead != nil && (len(d.model.offers) > 0 || len(dead.messages) > q.set.capacity-len(q.messages)) {
		return // it would take turns with others at every bit of room that quick handlers make
	}
	var bodies map[int]bool
	var options []fanout.RedriveOption
	unknown := false
	switch by := d.draw(4); {
	case by == 1 && dead != nil:
		bodies, unknown = map[int]bool{}, true
		ids := []string{"of no message"}
		ds, err := d.queues[k].DeadLetters().Peek(d.ctx, fanout.Unlimited)
		d.noError(err)
		for _, del := range ds {
			d.know(del.Body, del.ID())
		}
		for _, x := range dead.messages {
			if d.oneIn(2) {
				bodies[x.Body] = true
				ids = append(ids, d.ids[x.Body])
			}
		}
		options = append(options, fanout.RedriveIDs(ids...))
	case by == 2 && dead != nil:
		bodies = map[int]bool{}
		for _, x := range dead.messages {
			bodies[x.Body] = x.Body%2 == 0
		}
		options = append(options, fanout.RedriveIf(func(l fanout.Delivery[int]) bool { return l.Body%2 == 0 }))
	}
	q := d.queues[k]
	id, limit := d.call(ref{}, 17, func(ctx context.Context) (int, []fanout.Delivery[int], error) {
		n, err := q.Redrive(ctx, options...)
		return n, nil, err
	})
	d.say("call %d: redrive queue %d %v until %v", id, k, bodies, limit)
	d.erring(nil, func(m *topic) error {
		o := offer{id: id, limit: limit, unknown: unknown}
		if done, n, err := m.redrive(k, bodies, o); done {
			m.finish(result{ID: id, N: n, Err: o.redriven(err)})
		}
		return nil
	})
}

// giveUp cancels the context of a call that waits.
func (d *driver) giveUp() {
	if len(d.calls) == 0 {
		return
	}
	c := d.calls[d.draw(len(d.calls))]
	c.cancel()
	d.say("cancel call %d", c.id)
	d.erring(nil, func(m *topic) error { m.giveUp(c.id); return nil })
}

// peek looks at some messages, and tries to settle what it sees.
func (d *driver) peek() {
	r, q := d.queue()
	if q == nil {
		return
	}
	most := d.draw(4)
	ds, err := q.Peek(d.ctx, most)
	d.say("peek at %d of %v: %d, %v", most, r, len(ds), err)
	var got []messageView
	for _, del := range ds {
		got = append(got, d.message(del))
	}
	d.agree(err, len(got), nil, func(m *topic) (int, []messageView, error) {
		if most == 0 {
			return 0, nil, fanout.ErrInvalidOption
		}
		xs := m.at(r).visible()
		xs = xs[:min(most, len(xs))]
		for k, x := range xs {
			if k < len(got) && !x.view().fits(got[k]) {
				m.refuse("peek shows another message")
			}
		}
		return len(xs), nil, nil
	})
	for _, del := range ds {
		want := fanout.ErrStale
		if d.model.at(r).closed {
			want = fanout.ErrClosed
		}
		d.erring(del.Ack(d.ctx), func(m *topic) error { return want })
	}
}
