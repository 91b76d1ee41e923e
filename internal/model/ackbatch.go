package model

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/gofanout/fanout"
)

// ackBatch acknowledges several deliveries of one queue, with others of all kinds
// among them.
func (d *driver) ackBatch() {
	r, q := d.queue()
	if q == nil {
		return
	}
	if d.oneIn(3) { // what was just received
		for range 1 + d.draw(5) {
			d.receiveFrom(r, q, d.model.at(r).set.visibility, nil)
		}
	} else if h, ok := d.delivery(); ok && !d.oneIn(8) {
		r, q = h.ref, d.at(h.ref)
	}
	var live []held
	for _, h := range d.held {
		if h.ref == r && d.model.owned(d.model.at(r), h.id) != nil {
			live = append(live, h)
		}
	}
	n := d.draw(6)
	if d.oneIn(8) {
		n = d.draw(40)
	}
	first := d.draw(max(len(live), 1))
	var batch []held
	for k := range n {
		switch by := d.draw(12); {
		case by == 11:
			batch = append(batch, held{})
		case by < 9 && len(live) > 0: // one after the other, and then again
			batch = append(batch, live[(first+k)%len(live)])
		case len(d.held) > 0:
			batch = append(batch, d.held[d.draw(len(d.held))])
		}
	}
	var ids []string
	var ds []fanout.Delivery[int]
	for _, h := range batch {
		ids = append(ids, fmt.Sprint(h.ref, h.id))
		ds = append(ds, h.Delivery)
	}
	err := d.batchFailed(q, q.AckBatch(d.ctx, ds...))
	d.say("acknowledge a batch of %v %v: %v", r, ids, err)
	d.erring(err, func(m *topic) error { return m.ackBatch(r, batch) })
}

// at returns the queue that r names.
func (d *driver) at(r ref) *fanout.Queue[int] {
	switch r.kind {
	case sharedDead:
		return d.shared
	case ownDead:
		return d.queues[r.queue].DeadLetters()
	}
	return d.queues[r.queue]
}

// batchErrors are those of a BatchError, in a form that can be compared: the
// index and the error of each.
type batchErrors string

func (e batchErrors) Error() string { return string(e) }

func newBatchErrors(failed map[int]error) error {
	if len(failed) == 0 {
		return nil
	}
	var lines []string
	for k, err := range failed {
		lines = append(lines, fmt.Sprintf("%3d: %v", k, sentinel(err)))
	}
	slices.Sort(lines)
	return batchErrors(strings.Join(lines, "; "))
}

// batchFailed takes down what AckBatch returned.
func (d *driver) batchFailed(q *fanout.Queue[int], err error) error {
	var failed *fanout.BatchError
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &failed) || failed.Queue != q.Name() || len(failed.Failed) == 0:
		d.fail("a batch of %s returns %#v", q.Name(), err)
	}
	return newBatchErrors(failed.Failed)
}

// ackBatch acknowledges those deliveries that are of queue r and own their messages.
// Between two of them others may get the room, and once the last message is acknowledged a
// topic that shuts down may end at any time.
func (m *topic) ackBatch(r ref, batch []held) error {
	failed, acked := map[int]error{}, false
	for k, h := range batch {
		err := fanout.ErrInvalidOption
		switch {
		case h.id == deliveryID{}: // the zero Delivery
			err = fanout.ErrStale
		case h.ref == r:
			err = m.settle(r, h.id, outcome{cause: fanout.Acked})
		}
		if err != nil {
			failed[k] = err
		}
		if acked = acked || err == nil; k+1 < len(batch) && (err == nil || acked && m.phase >= draining) {
			m.letHappen(m.at(r).letters)
		}
	}
	return newBatchErrors(failed)
}
