package model

import (
	"cmp"
	"slices"

	"github.com/gofanout/fanout"
)

// open opens a queue.
func (m *topic) open(name string, set settings) error {
	switch {
	case set.replay > 0 && m.retention == 0:
		return fanout.ErrUnsupported
	case m.phase != open:
		return fanout.ErrClosed
	case m.named(name) != nil:
		return fanout.ErrInvalidOption
	}
	q := &queue{ref: ref{queue: len(m.queues)}, topic: topicName, name: name, set: set}
	m.queues, m.deads = append(m.queues, q), append(m.deads, nil)
	var past []message
	for _, x := range m.retained {
		if set.accepts(x.Body) && !q.expired(&x, m.now) {
			past = append(past, x)
		}
	}
	for _, x := range past[max(len(past)-min(set.replay, set.capacity), 0):] {
		m.add(q, x)
	}
	return nil
}

// add makes a copy of a published message for one queue, overflow included.
func (m *topic) add(q *queue, x message) {
	q.count.Published++
	if len(q.messages) >= q.set.capacity && (q.set.overflow == fanout.DropNewest || !m.dropOldest(q)) {
		q.count.Dropped++
		return
	}
	x.root, x.state = q.ref.queue, backlog
	if delay := cmp.Or(x.Delay, q.set.delay); delay > 0 {
		x.state, x.until = delayed, x.at+delay
	}
	m.enter(q, &x)
}

func (m *topic) enter(q *queue, x *message) {
	m.turn++
	x.turn, x.since = m.turn, m.now
	q.messages = append(q.messages, x)
}

// dropOldest drops what was published first of what is neither in flight nor parked.
func (m *topic) dropOldest(q *queue) bool {
	var oldest *message
	for _, x := range q.messages {
		if x.state != inFlight && x.state != parked && (oldest == nil || x.seq < oldest.seq) {
			oldest = x
		}
	}
	if oldest == nil {
		return false
	}
	q.count.Dropped++
	m.remove(q, oldest)
	return true
}

// publish begins a publish. If it has to wait it does, unless try is set. Then
// done is false.
func (m *topic) publish(o offer, try bool) (done bool, err error) {
	for _, x := range o.messages {
		switch {
		case x.Delay < 0 || x.TimeToLive < 0:
			return true, fanout.ErrInvalidMessage
		case x.OrderingKey != "" && (!m.ordering || x.Delay > 0), x.DeduplicationID != "" && m.maxIDs == 0:
			return true, fanout.ErrUnsupported
		}
	}
	o.known = len(m.queues)
	return m.begin(o, try)
}

// begin admits a new offer, unless it has to wait.
func (m *topic) begin(o offer, try bool) (done bool, err error) {
	if m.phase != open {
		return true, fanout.ErrClosed
	}
	o = m.fresh(o)
	behind := m.isBehind(o, m.offers)
	if behind {
		var smaller []offer
		for _, w := range m.offers {
			smaller = append(smaller, m.smallest(w))
		}
		if !m.isBehind(o, smaller) { // whether they have become so by now
			behind = m.choose(2) == 0
		}
	}
	room, err := m.findRoom(o, behind)
	switch {
	case err != nil:
		return true, err
	case room && !behind:
		if m.admit(&o) {
			return true, nil
		}
	}
	if try {
		return true, fanout.ErrQueueFull
	}
	m.offers = append(m.offers, o)
	return false, nil
}

// fresh takes the duplicates out of a publish and counts them later.
func (m *topic) fresh(o offer) offer {
	if o.redrives() {
		return o
	}
	m.forget()
	var fresh []fanout.Message[int]
	for _, x := range o.messages {
		same := func(y fanout.Message[int]) bool { return y.DeduplicationID == x.DeduplicationID }
		if x.DeduplicationID == "" || !slices.ContainsFunc(fresh, same) && !m.remembers(x.DeduplicationID) {
			fresh = append(fresh, x)
		}
	}
	o.moved += len(o.messages) - len(fresh) // of a publish: its duplicates
	o.messages = fresh
	return o
}

// targets counts what an offer would add to each queue.
func (m *topic) targets(o offer) map[*queue]int {
	to := map[*queue]int{}
	if o.redrives() {
		if q := m.queues[o.redrive]; !q.closed {
			to[q] = 1
		}
		return to
	}
	for k, q := range m.queues {
		for _, x := range o.messages {
			// A queue that was opened while the offer waits gets it if it takes all.
			if !q.closed && q.set.accepts(x.Body) && (k < o.known || !q.set.filtered()) {
				to[q]++
			}
		}
	}
	return to
}

// keepsWaiting reports whether w, which waits, comes before o: whether they
// share a queue. Nobody waits for a queue that drops but a redrive, and for
// that no publish does.
func (m *topic) keepsWaiting(w, o offer) bool {
	to := m.targets(o)
	for q := range m.targets(w) {
		if to[q] > 0 && !(w.redrives() && q.set.drops()) {
			return true
		}
	}
	return false
}

// inOrder returns the queues that an offer would add to in the order in which they
// are looked at: those without a filter first, of each kind the one opened first.
func (m *topic) inOrder(to map[*queue]int) (qs []*queue) {
	for _, filtered := range []bool{false, true} {
		for _, q := range m.queues {
			if to[q] > 0 && q.set.filtered() == filtered {
				qs = append(qs, q)
			}
		}
	}
	return qs
}

// roomIn returns how many more messages a queue has room for.
func (q *queue) roomIn() int { return q.set.capacity - len(q.messages) }

// findRoom reports whether all queues have room for an offer, a redrive's for one
// letter. What has expired makes room in those that are looked at: first in those that
// would refuse it, until one does, and then, if it is not behind another, in those
// that it would wait for, until it has to. An error says that waiting would not help.
func (m *topic) findRoom(o offer, behind bool) (ok bool, err error) {
	if o.redrives() {
		q := m.queues[o.redrive]
		if !behind && !q.closed && q.roomIn() == 0 && !q.parks() {
			m.expireAll(q)
		}
		return q.closed || q.roomIn() > 0 || q.parks(), nil
	}
	to := m.targets(o)
	qs := m.inOrder(to)
	for _, q := range qs {
		switch n := to[q]; {
		case q.set.drops():
		case n > q.set.capacity:
			return false, fanout.ErrBatchTooLarge
		case q.set.overflow == fanout.Reject && n > q.roomIn():
			if m.expireAll(q); n > q.roomIn() {
				return false, fanout.ErrQueueFull
			}
		}
	}
	for _, q := range qs {
		if n := to[q]; !behind && q.set.overflow == fanout.Block && n > q.roomIn() {
			if m.expireAll(q); n > q.roomIn() {
				return false, nil
			}
		}
	}
	return !behind, nil
}

// waitsFor returns the queue that offer number k, which is behind no other, waits for:
// that which it was found to wait for, as long as that has no room, and then the first
// that has none. There messages make room at the instant they expire. They do so in a
// queue that would refuse the offer, too, when that is looked at.
func (m *topic) waitsFor(k int) *queue {
	o := &m.offers[k]
	if o.redrives() {
		if q := m.queues[o.redrive]; !q.closed && q.roomIn() == 0 && !q.parks() {
			return q
		}
		return nil
	}
	to := m.targets(m.fresh(*o))
	if o.gate > 0 {
		if q := m.queues[o.gate-1]; to[q] > q.roomIn() {
			return q
		}
	}
	qs := m.inOrder(to)
	for _, q := range qs {
		switch n := to[q]; {
		case q.set.drops():
		case n > q.set.capacity:
			return nil // it is refused
		case q.set.overflow == fanout.Reject && n > q.roomIn() && q.hasExpired(m.now):
			return q
		}
	}
	for _, q := range qs {
		if q.set.overflow == fanout.Block && to[q] > q.roomIn() {
			o.gate = q.ref.queue + 1
			return q
		}
	}
	return nil
}

// awaited yields the queues that offers wait for.
func (m *topic) awaited(yield func(o offer, q *queue) bool) {
	for k, o := range m.offers {
		if m.isBehind(o, m.offers[:k]) {
			continue
		}
		if q := m.waitsFor(k); q != nil && !yield(o, q) {
			return
		}
	}
}

// objections reports whether all queues have room for an offer now, and returns the
// errors that would refuse it.
func (m *topic) objections(o offer) (ok bool, refusals []error) {
	if o.redrives() {
		q := m.queues[o.redrive]
		return q.closed || len(q.messages) < q.set.capacity || q.parks(), nil
	}
	ok = true
	to := m.targets(o)
	for _, q := range m.queues {
		n, room := to[q], q.set.capacity-len(q.messages)
		switch {
		case n == 0 || q.set.drops():
		case n > q.set.capacity:
			refusals = append(refusals, fanout.ErrBatchTooLarge)
		case n > room && q.set.overflow == fanout.Reject:
			refusals = append(refusals, fanout.ErrQueueFull)
		case n > room:
			ok = false
		}
	}
	return ok, refusals
}

func (m *topic) remembers(id string) bool {
	return slices.ContainsFunc(m.ids, func(x rememberedID) bool { return x.id == id })
}

// forget forgets the deduplication IDs whose time has passed.
func (m *topic) forget() {
	m.ids = slices.DeleteFunc(m.ids, func(x rememberedID) bool { return x.until <= m.now })
}
