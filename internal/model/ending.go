package model

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/gofanout/fanout"
)

// subscribe adds a subscriber to a queue.
func (m *topic) subscribe(s subscriber) error {
	if m.at(s.ref).closed {
		return fanout.ErrClosed
	}
	m.subs = append(m.subs, s)
	return nil
}

// finishRun has a handler return. What it says counts if its delivery owns its
// message still. others holds for what a batch handler got besides.
func (m *topic) finishRun(r ref, id deliveryID, o, others outcome) {
	k := slices.IndexFunc(m.runs, func(r run) bool { return r.delivery == id })
	if k >= 0 && m.subs[m.sub(m.runs[k].sub)].batch > 0 {
		m.runs[k].returns(m.runs[k].meant(o), m.runs[k].meant(others))
		return
	}
	if k >= 0 {
		o = m.runs[k].meant(o)
	}
	m.runs = slices.DeleteFunc(m.runs, func(r run) bool { return r.delivery == id })
	if m.owned(m.at(r), id) != nil {
		_ = m.settle(r, id, o)
	}
}

// meant is what an outcome means for a handler whose subscriber was shut down: it
// releases at once.
func (r run) meant(o outcome) outcome {
	if r.why == fanout.ErrClosed && o.cause == fanout.Released && o.wait < 0 {
		o.wait = 0
	}
	return o
}

// returns has a batch handler return. Its deliveries are settled one after the
// other, and what happens by itself may come in between.
func (r *run) returns(o, others outcome) {
	r.ending = nil
	for k, id := range r.all() {
		if k > 0 {
			o = others
		}
		r.ending = append(r.ending, runEnd{id, o})
	}
}

// settleNext settles the next delivery of a batch handler that has returned.
func (m *topic) settleNext(k int) {
	m.stirred = true
	r := m.runs[k]
	q := m.subs[m.sub(r.sub)].ref
	if next := r.ending[0]; m.owned(m.at(q), next.deliveryID) != nil {
		_ = m.settle(q, next.deliveryID, next.outcome)
	}
	m.runs[k].ending = r.ending[1:]
	if len(r.ending) == 1 {
		m.runs = slices.Delete(m.runs, k, k+1)
	}
}

// stop begins a Subscriber.Shutdown.
func (m *topic) stop(j join) {
	m.subs[m.sub(j.sub)].stopping = true
	m.joins = append(m.joins, j)
}

// giveUpJoin ends a Subscriber.Shutdown whose context has ended: the handlers are
// cancelled.
func (m *topic) giveUpJoin(k int, why error) {
	j := m.joins[k]
	m.joins = slices.Delete(m.joins, k, k+1)
	for _, r := range slices.Clone(m.runs) {
		if r.sub == j.sub {
			m.cancel(r.delivery, fanout.ErrClosed)
		}
	}
	m.finish(result{ID: j.id, Err: why})
}

// close closes a queue, or a dead-letter queue that outlived its queue.
func (m *topic) close(r ref) error {
	if r.kind == ownDead && !m.queues[r.queue].closed {
		return fanout.ErrUnsupported
	}
	m.closeQueue(m.at(r))
	return nil
}

func (m *topic) closeQueue(q *queue) {
	if q.closed {
		return
	}
	m.expireWaiting(q)
	q.closed = true
	for k, s := range m.subs {
		if s.ref == q.ref {
			m.subs[k].stopping = true
			for _, r := range slices.Clone(m.runs) {
				if r.sub == s.id {
					m.cancel(r.delivery, fanout.ErrClosed)
				}
			}
		}
	}
	m.receives = slices.DeleteFunc(m.receives, func(r receive) bool {
		if r.ref != q.ref || len(r.got) > 0 { // it was quicker
			return false
		}
		m.finish(result{ID: r.id, Err: fanout.ErrClosed})
		return true
	})
	if q.letters {
		return // it keeps its letters, to be looked at
	}
	slices.SortFunc(q.messages, func(x, y *message) int { return cmp.Compare(x.seq, y.seq) })
	q.left = []fanout.Message[int]{}
	for _, x := range q.messages {
		y := x.Message
		y.DeduplicationID, y.Delay = "", 0
		switch {
		case x.OrderingKey != "":
		case x.state == delayed:
			y.Delay = max(x.until-m.now, 1)
		case q.set.delay > 0:
			y.Delay = 1
		}
		if ttl := cmp.Or(x.TimeToLive, q.set.ttl); ttl > 0 {
			y.TimeToLive = max(x.born+ttl-m.now, 1)
		}
		q.left = append(q.left, y)
	}
	q.count.Left = uint64(len(q.left))
	q.messages, q.heads = nil, nil
}

// expireWaiting buries what has expired in a queue that closes, except what is in
// flight or parked.
func (m *topic) expireWaiting(q *queue) {
	if q.letters {
		return
	}
	xs := slices.Clone(q.messages)
	slices.SortFunc(xs, func(x, y *message) int { return cmp.Compare(x.seq, y.seq) })
	for _, x := range xs {
		if x.state != inFlight && x.state != parked && q.expired(x, m.now) {
			m.expire(q, x)
		}
	}
}

// shutdown begins a Shutdown whose context ends at limit.
func (m *topic) shutdown(limit time.Duration) {
	if m.phase != open {
		return
	}
	m.phase, m.limit = draining, limit
	for _, q := range m.queues {
		q.draining = true
	}
	m.refuseOffers()
}

func (m *topic) refuseOffers() {
	for _, o := range m.offers {
		m.finishOffer(o, fanout.ErrClosed)
	}
	m.offers = nil
}

// shutdownGoesOn reports whether Shutdown has waited long enough.
func (m *topic) shutdownGoesOn() bool {
	switch m.phase {
	case draining, burying:
		return m.now >= m.limit || m.drained()
	}
	return false
}

// drained reports whether nothing is left that Shutdown waits for now.
func (m *topic) drained() bool {
	return !slices.ContainsFunc(m.queues, m.busy) && (m.phase == draining || !slices.ContainsFunc(m.deads, m.busy))
}

// look is what Shutdown does then.
func (m *topic) look() {
	switch {
	case m.phase == draining && m.drained():
		m.phase = burying
		for _, d := range m.deads {
			if d != nil {
				d.draining = true
			}
		}
	case m.phase == burying && m.drained():
		m.endAll(nil)
	default:
		m.endAll(context.DeadlineExceeded)
	}
}

// busy reports whether a queue holds anything that Shutdown waits for.
func (m *topic) busy(q *queue) bool {
	if q == nil || q.closed {
		return false
	}
	for _, s := range m.subs {
		if s.ref == q.ref && m.running(s.id) > 0 {
			return true
		}
	}
	for _, x := range q.messages {
		waited := x.state == inFlight
		if !q.letters && !q.paused {
			waited = waited || x.ready() || x.state == retrying
			if x.state == blocked {
				for _, y := range q.messages {
					if y.seq == q.heads[x.OrderingKey] && y.state != delayed && y.state != released {
						waited = true
					}
				}
			}
		}
		if waited {
			return true
		}
	}
	return false
}

// endAll closes the topic. A shared dead-letter queue goes on.
func (m *topic) endAll(why error) {
	if m.phase == ended {
		return
	}
	m.phase = ended
	m.refuseOffers()
	for _, d := range m.deads {
		if d != nil {
			d.draining = true
		}
	}
	qs := slices.Clone(m.queues)
	slices.SortFunc(qs, func(a, b *queue) int { return cmp.Compare(a.name, b.name) })
	for _, q := range qs {
		if !q.closed {
			m.expireWaiting(q)
		}
		s := m.stats(q)
		l := fanout.Left{
			Queue: q.name, Ready: s.Ready, Retrying: s.Retrying, Delayed: s.Delayed, InFlight: s.InFlight,
			Parked: s.Parked, Released: s.Released, Blocked: s.Blocked, Running: s.Workers,
		}
		if !q.closed && l != (fanout.Left{Queue: q.name}) {
			m.lefts = append(m.lefts, l)
			m.why = why
		}
	}
	slices.SortFunc(m.lefts, func(a, b fanout.Left) int { return cmp.Compare(a.Queue, b.Queue) })
	for q := range m.all {
		if q.ref != sharedRef {
			q.last = !q.closed
			m.closeQueue(q)
		}
	}
	m.ids, m.retained = nil, nil
}
