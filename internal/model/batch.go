package model

import "slices"

// A batch is what a batch handler gets besides its first delivery, in order.
type batch struct{ left []deliveryID }

func (b *batch) has(id deliveryID) bool { return len(b.left) > 0 && b.left[0] == id }

// takeBatch has a batch handler begin whose first message is x. It gets at once
// what else is ready, as much as it takes.
func (m *topic) takeBatch(q *queue, x *message, s subscriber) {
	r := run{sub: s.id, delivery: x.deliveryID()}
	others, ok := m.seen.batches[r.delivery]
	if !ok || len(others) >= s.batch {
		m.refuse("a batch is larger than it may be, or began with another message")
		return
	}
	r.others = others
	b := &batch{others}
	for range s.batch - 1 {
		y := m.takeFor(q, 0, 0, b) // the last one finds nothing, if the batch is not full
		if y == nil {
			break
		}
		b.left = b.left[1:]
	}
	if len(b.left) > 0 {
		m.refuse("a batch is larger than what was ready")
	}
	if way, wait, quick := s.plan(x.Body, x.spent+1); quick {
		m.stirred = true
		r.returns(handlerEnds[way].after(wait), handlerEnds[way].others(wait))
	}
	m.runs = append(m.runs, r)
}

// fillsBatches reports whether somebody waits for several of the letters of q: then
// it matters what comes between two of them.
func (m *topic) fillsBatches(q *queue) bool {
	d := m.deads[q.ref.queue]
	if q.set.shared {
		d = m.shared
	}
	return !q.letters && d != nil && slices.ContainsFunc(m.receives, func(r receive) bool { return r.ref == d.ref && r.most > 1 })
}

// inBatch reports whether the next delivery of x is seen in a batch, and whether
// that is one that could be larger.
func (m *topic) inBatch(x *message) (in, small bool) {
	id := x.nextDelivery()
	n := m.sub(m.seen.taker[id])
	if n < 0 || m.subs[n].batch == 0 {
		return false, false
	}
	others, first := m.seen.batches[id]
	return true, first && len(others)+1 < m.subs[n].batch
}
