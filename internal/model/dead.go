package model

import (
	"cmp"
	"slices"
	"time"

	"github.com/gofanout/fanout"
)

func (m *topic) expire(q *queue, x *message) {
	q.ended[fanout.Expired]++
	x.note(attempt{Cause: fanout.Expired, Queue: q.name, Start: m.now})
	m.bury(q, x)
}

// canExpire reports whether a message that expires makes room: what is in flight may
// succeed still, and what is parked is dead.
func (x *message) canExpire() bool { return x.state != inFlight && x.state != parked }

// hasExpired reports whether anything in q could make room, as it has expired.
func (q *queue) hasExpired(now time.Duration) bool {
	return slices.ContainsFunc(q.messages, func(x *message) bool { return x.canExpire() && q.expired(x, now) })
}

// expireAll has what has expired make room, what did so first before the others.
func (m *topic) expireAll(q *queue) {
	var xs []*message
	for _, x := range q.messages {
		if x.canExpire() && q.expired(x, m.now) {
			xs = append(xs, x)
		}
	}
	matters := len(xs) > 1 && !m.roomForDead(q, len(xs))
	slices.SortStableFunc(xs, func(x, y *message) int {
		before := cmp.Compare(q.expiry(x), q.expiry(y))
		if before == 0 && matters {
			before = cmp.Compare(m.rank(q, x), m.rank(q, y))
		}
		return before
	})
	for len(xs) > 0 && m.wrong == "" {
		same := 1
		for same < len(xs) && q.expiry(xs[same]) == q.expiry(xs[0]) {
			same++
		}
		k := 0
		if matters {
			k = m.choose(same)
		}
		x := xs[k]
		xs = slices.Delete(xs, k, k+1)
		m.letConsume(m.deadOf(q))
		m.expire(q, x)
	}
}

// bury moves a message to the dead-letter queue, or parks it.
func (m *topic) bury(q *queue, x *message) {
	if !m.send(q, x) {
		q.count.TimesParked++
		x.state = parked
		m.leaveKey(q, x)
	}
}

// letConsume has consumers of the letters in d, if it is full, be quicker than the
// next letter that comes: they take some, and handlers end.
func (m *topic) letConsume(d *queue) {
	for m.wrong == "" && len(d.messages) >= d.set.capacity {
		var can []func()
		if m.hungry(d) {
			can = append(can, func() { m.take(d, 0, 0) })
		}
		if k := m.endingAt(d); k >= 0 {
			can = append(can, func() { m.settleNext(k) })
		}
		if k := m.ackingAt(d); k >= 0 {
			can = append(can, func() { m.acknowledges(k) })
		}
		k := m.choose(1 + len(can))
		if k == 0 {
			return
		}
		can[k-1]()
	}
}

// endingAt returns the first run of a handler of q that has returned, or -1.
func (m *topic) endingAt(q *queue) int {
	return slices.IndexFunc(m.runs, func(r run) bool { return len(r.ending) > 0 && m.subs[m.sub(r.sub)].ref == q.ref })
}

// ackingAt returns the first range over q that is about to acknowledge what it got, or -1.
func (m *topic) ackingAt(q *queue) int {
	return slices.IndexFunc(m.receives, func(r receive) bool { return r.acking != (deliveryID{}) && r.ref == q.ref })
}

func (m *topic) send(q *queue, x *message) bool {
	d := m.deadOf(q)
	if d.set.overflow == fanout.DropOldest {
		m.letConsume(d)
	}
	if d.closed || len(d.messages) >= d.set.capacity && (d.set.overflow != fanout.DropOldest || !m.dropOldest(d)) {
		return false
	}
	m.stirred = true
	m.remove(q, x)
	q.count.DeadLettered++
	d.count.Published++
	y := *x
	y.state, y.spent, y.passes = backlog, 0, 0
	y.deaths++
	if d.ref == sharedRef {
		d.letter++
		y.seq = d.letter
	}
	m.enter(d, &y)
	for m.wrong == "" && m.hungry(d) && m.smallBatch(d) && m.choose(2) == 0 {
		m.take(d, 0, 0) // before the next letter comes
	}
	return true
}

// smallBatch reports whether a batch that could be larger is seen of what is ready
// in q.
func (m *topic) smallBatch(q *queue) bool {
	ready := map[deliveryID]bool{}
	for _, x := range q.messages {
		if x.ready() {
			ready[x.nextDelivery()] = true
		}
	}
	for _, x := range q.messages {
		if _, small := m.inBatch(x); !x.ready() || !small {
			continue
		}
		if !slices.ContainsFunc(m.seen.batches[x.nextDelivery()], func(id deliveryID) bool { return !ready[id] }) {
			return true
		}
	}
	return false
}

func (q *queue) parks() bool {
	return slices.ContainsFunc(q.messages, func(x *message) bool { return x.state == parked })
}

func (q *queue) parkedNow() (n int) {
	for _, x := range q.messages {
		if x.state == parked {
			n++
		}
	}
	return n
}

// parkedOf returns one of the parked messages, or nil.
func (m *topic) parkedOf(q *queue) *message {
	var all []*message
	for _, x := range q.messages {
		if x.state == parked {
			all = append(all, x)
		}
	}
	if len(all) == 0 {
		return nil
	}
	slices.SortFunc(all, func(x, y *message) int {
		return cmp.Or(cmp.Compare(m.rank(q, x), m.rank(q, y)), cmp.Compare(x.turn, y.turn))
	})
	return all[m.choose(len(all))]
}

// unparks reports whether a parked message of q finds room.
func (m *topic) unparks(q *queue) bool {
	if q.closed || !q.parks() {
		return false
	}
	d := m.deadOf(q)
	if d.closed {
		return false
	}
	return len(d.messages) < d.set.capacity || d.set.overflow == fanout.DropOldest && len(d.visible()) > 0
}

// redrive begins to move dead letters of queue k with the given bodies back, or
// all for nil.
func (m *topic) redrive(k int, bodies map[int]bool, o offer) (done bool, moved int, err error) {
	q := m.queues[k]
	if q.closed {
		return true, 0, fanout.ErrClosed
	}
	d := m.deads[k]
	if q.set.shared {
		d = m.shared
	}
	if d == nil {
		return true, 0, nil
	}
	o.redrive = k
	for _, x := range d.visible() {
		if x.root == k && (bodies == nil || bodies[x.Body]) {
			o.letters = append(o.letters, letter{x.copyID(), x.deaths})
		}
	}
	if len(o.letters) == 0 {
		return true, 0, nil
	}
	before := q.count.Redriven
	done, err = m.begin(o, false)
	return done, int(q.count.Redriven - before), err
}

// redriven is the error of a redrive that has ended in err.
func (o offer) redriven(err error) error {
	if err == nil && o.unknown {
		return fanout.ErrUnknownID
	}
	return err
}

// redriveSome moves letters as far as there is room. It reports whether none is
// left to move.
func (m *topic) redriveSome(o *offer) bool {
	q := m.queues[o.redrive]
	d := m.deadOf(q)
	for len(o.letters) > 0 {
		if q.roomIn() == 0 && !q.parks() {
			m.expireAll(q)
		}
		if q.roomIn() == 0 && !q.parks() {
			break
		}
		l := o.letters[0]
		o.letters = o.letters[1:]
		k := slices.IndexFunc(d.messages, func(x *message) bool { return x.copyID() == l.copyID })
		if d.closed || k < 0 || d.messages[k].state == inFlight {
			continue // taken, settled or redriven meanwhile
		}
		x := d.messages[k]
		if x.deaths != l.deaths && m.choose(2) == 0 {
			continue // it was redriven and has died again
		}
		var p *message
		if len(q.messages) >= q.set.capacity {
			p = m.parkedOf(q)
		}
		m.remove(d, x)
		if p != nil { // the two change places
			m.send(q, p)
		}
		y := *x
		y.state, y.spent, y.passes, y.born, y.redriven, y.seq = due, 0, 0, m.now, true, y.origin
		m.enter(q, &y)
		q.count.Redriven++
		d.count.Redriven++
		o.moved++
	}
	return len(o.letters) == 0
}

// visible returns what Peek shows, in the order of publication.
func (q *queue) visible() []*message {
	var xs []*message
	for _, x := range q.messages {
		if x.state != parked && (x.state != inFlight || q.closed) {
			xs = append(xs, x)
		}
	}
	slices.SortFunc(xs, func(x, y *message) int { return cmp.Compare(x.seq, y.seq) })
	return xs
}

// purge drops all that a queue holds.
func (m *topic) purge(r ref) (int, error) {
	q := m.at(r)
	if q.closed {
		return 0, fanout.ErrClosed
	}
	n := len(q.messages)
	for _, x := range q.messages {
		if x.state == inFlight {
			m.lost(x.deliveryID(), fanout.ErrStale)
			m.cancel(x.deliveryID(), fanout.ErrStale)
		}
	}
	q.messages, q.heads = nil, nil
	q.count.Dropped += uint64(n)
	return n, nil
}

func (m *topic) pause(r ref, paused bool) error {
	q := m.at(r)
	if q.closed {
		return fanout.ErrClosed
	}
	q.paused = paused
	return nil
}
