package model

import (
	"context"
	"time"

	"github.com/gofanout/fanout"
)

// visibility draws the option of a receive, if any.
func (d *driver) visibility(r ref) (time.Duration, []fanout.ReceiveOption) {
	if d.draw(2) == 0 {
		return d.model.at(r).set.visibility, nil
	}
	v := d.ms(8)
	return v, []fanout.ReceiveOption{fanout.WithVisibilityTimeout(v)}
}

func (d *driver) receive() {
	r, q := d.queue()
	if q == nil {
		return
	}
	visibility, options := d.visibility(r)
	d.receiveFrom(r, q, visibility, options)
}

func (d *driver) receiveFrom(r ref, q *fanout.Queue[int], visibility time.Duration, options []fanout.ReceiveOption) {
	del, ok, err := q.TryReceive(d.ctx, options...)
	var got []held
	if ok {
		got = append(got, d.hold(r, del, true))
	}
	d.say("receive from %v for %v: %d %t, %v", r, visibility, del.Body, ok, err)
	d.agree(err, 0, got, func(m *topic) (int, []messageView, error) {
		q := m.at(r)
		if q.closed {
			return 0, nil, fanout.ErrClosed
		}
		x := m.take(q, caller, visibility)
		if x == nil {
			return 0, nil, nil
		}
		return 0, []messageView{x.view()}, nil
	})
}

// receiveWaiting begins a Receive, ReceiveBatch or ReceiveInto.
func (d *driver) receiveWaiting() {
	r, q := d.queue()
	if q == nil {
		return
	}
	visibility, options := d.visibility(r)
	most := 1 + d.draw(3)
	id, limit := d.call(r, 29, func(ctx context.Context) (int, []fanout.Delivery[int], error) {
		switch most {
		case 2:
			room := make([]fanout.Delivery[int], most)
			n, err := q.ReceiveInto(ctx, room, options...)
			return n, room[:n], err
		case 3:
			got, err := q.ReceiveBatch(ctx, most, options...)
			return len(got), got, err
		}
		del, err := q.Receive(ctx, options...)
		if err != nil {
			return 0, nil, err
		}
		return 1, []fanout.Delivery[int]{del}, nil
	})
	d.say("call %d: receive %d from %v for %v until %v", id, most, r, visibility, limit)
	d.erring(nil, func(m *topic) error {
		m.ask(receive{id: id, ref: r, visibility: visibility, most: most, limit: limit}, nil)
		return nil
	})
}

// delivery draws one of the deliveries that own their message or, once in six
// times, any of those in hand.
func (d *driver) delivery() (h held, ok bool) {
	var live []held
	for _, h := range d.held {
		if d.model.owned(d.model.at(h.ref), h.id) != nil {
			live = append(live, h)
		}
	}
	if d.oneIn(6) || len(live) == 0 {
		live = d.held
	}
	if len(live) == 0 {
		return h, false
	}
	return live[d.draw(len(live))], true
}
