package model

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/gofanout/fanout"
)

// serves reports whether a queue gives out messages.
func (q *queue) serves() bool {
	return !q.closed && !q.paused && !(q.letters && q.draining)
}

// take delivers the next message to whoever the witness says, who must be idle,
// or to the caller of TryReceive. It reports whether there was one.
func (m *topic) take(q *queue, caller int, visibility time.Duration) (x *message) {
	return m.takeFor(q, caller, visibility, nil)
}

// takeFor is take, or takes what one batch handler gets besides its first
// delivery.
func (m *topic) takeFor(q *queue, caller int, visibility time.Duration, batch *batch) (x *message) {
	for q.serves() && m.wrong == "" {
		next := m.nextOf(q, caller)
		if len(next) == 0 {
			return nil
		}
		x := next[m.pick(q, next, batch)]
		if q.expired(x, m.now) {
			m.letConsume(m.deadOf(q))
			m.expire(q, x)
			continue
		}
		if head, ok := q.heads[x.OrderingKey]; ok && head != x.seq {
			x.state = blocked
			continue
		}
		to, ok := m.seen.taker[x.nextDelivery()]
		var end *outcome
		switch {
		case batch != nil && !batch.has(x.nextDelivery()):
			m.refuse("a batch is smaller than what was ready, or of something else")
			return nil
		case batch != nil:
			visibility = q.set.visibility
		case !ok:
			m.refuse(fmt.Sprintf("a consumer of %s is idle though message %d is ready", q.name, x.Body))
			return nil
		case caller != 0 && to != caller:
			m.refuse("another consumer got the message")
			return nil
		case caller == 0:
			visibility, end = m.hand(q, x, to)
		}
		m.deliver(q, x, visibility)
		if k := m.sub(to); caller == 0 && to > 0 && k >= 0 && batch == nil {
			if n := m.subs[k].batch; n > 0 {
				m.takeBatch(q, x, m.subs[k])
				return x
			}
			m.loosen(q, x)
			m.beginning()
		} else if k := m.loop(to); caller == 0 && k >= 0 {
			m.loopTook(k, q, x)
		}
		if end != nil { // the handler has returned already
			m.stirred = true
			if !m.endMatters(q, x) {
				_ = m.settle(q.ref, x.deliveryID(), *end)
			} else if m.loop(to) >= 0 {
				k := slices.IndexFunc(m.receives, func(r receive) bool { return r.id == to })
				m.receives[k].acking = x.deliveryID()
			} else {
				r := run{sub: to, delivery: x.deliveryID()}
				r.returns(*end, *end)
				m.runs = append(m.runs, r)
			}
		}
		return x
	}
	return nil
}

// endMatters reports whether it may be seen that something came between the
// delivery of x to a handler that returns at once, and its end: what was parked
// meanwhile lets a redrive in, others get less in a batch, others of its key are
// passed over, or a dead-letter queue has nothing that it could drop.
func (m *topic) endMatters(q *queue, x *message) bool {
	return len(m.offers) > 0 || m.fillsBatches(q) || x.OrderingKey != "" && m.competing(q, 0) ||
		q.letters && q.set.overflow == fanout.DropOldest
}

// hand has consumer number to get x, and returns the visibility timeout, and
// how a handler that returns at once ends.
func (m *topic) hand(q *queue, x *message, to int) (visibility time.Duration, end *outcome) {
	id := x.nextDelivery()
	for _, s := range m.idleSubs(q.ref) {
		if s.id == to && s.batch > 0 {
			return q.set.visibility, nil // the rest is for takeBatch
		}
		if s.id == to {
			if way, wait, quick := s.plan(x.Body, x.spent+1); quick {
				o := handlerEnds[way].after(wait)
				return q.set.visibility, &o
			}
			m.runs = append(m.runs, run{sub: s.id, delivery: id})
			return q.set.visibility, nil
		}
	}
	// Receivers are woken in the order of their arrival, but one that was woken
	// later may be quicker.
	for k := range m.receives {
		r := &m.receives[k]
		if r.ref != q.ref || !r.waits() {
			continue
		}
		if r.id == to && r.loop {
			visibility = r.visibility // before r is taken out
			return visibility, m.yield(k, deliveryView{id: id, messageView: x.view()})
		}
		if r.id == to {
			r.got = append(r.got, deliveryView{id: id, messageView: x.view()})
			return r.visibility, nil
		}
	}
	m.refuse("a consumer got a message that was not idle")
	return time.Millisecond, nil
}

// deliver puts x in flight.
func (m *topic) deliver(q *queue, x *message, visibility time.Duration) {
	if x.OrderingKey != "" {
		q.setHead(x)
	}
	m.turn++
	q.backlogsTurn = x.state == due
	x.state, x.start, x.until, x.turn = inFlight, m.now, m.now+visibility, m.turn
	x.visibility, x.slack, x.most, x.extended = visibility, 0, x.until, 0
	x.nth++
	q.count.Delivered++
}

// idleSubs returns the subscribers of a queue that could handle one more.
func (m *topic) idleSubs(r ref) (idle []subscriber) {
	for _, s := range m.subs {
		if s.ref == r && !s.stopping && m.running(s.id) < s.concurrency {
			idle = append(idle, s)
		}
	}
	return idle
}

func (m *topic) running(sub int) (n int) {
	for _, r := range m.runs {
		if r.sub == sub {
			n++
		}
	}
	return n
}

// hungry reports whether a queue has a message for a consumer that is idle.
func (m *topic) hungry(q *queue) bool {
	if !q.serves() || !slices.ContainsFunc(q.messages, (*message).ready) {
		return false
	}
	return len(m.idleSubs(q.ref)) > 0 || slices.ContainsFunc(m.receives, func(r receive) bool {
		return r.ref == q.ref && r.waits()
	})
}

func (q *queue) setHead(x *message) {
	if q.heads == nil {
		q.heads = map[string]int{}
	}
	q.heads[x.OrderingKey] = x.seq
}

// nextOf returns the messages whose turn it may be. Several consumers prefetch, so
// one that stands later may begin first.
func (m *topic) nextOf(q *queue, caller int) []*message {
	next := q.next()
	if len(next) == 0 || next[0].state != backlog || q.letters || !m.competing(q, caller) {
		return next
	}
	for _, x := range q.messages {
		_, seen := m.seen.taker[x.nextDelivery()]
		head, keyed := q.heads[x.OrderingKey]
		if (seen || q.expired(x, m.now) || keyed && head != x.seq) && x.state == backlog && x != next[0] && q.firstOfKey(x) {
			next = append(next, x)
		}
	}
	return next
}

// firstOfKey reports whether x is the first of its key in the backlog, if it has one.
func (q *queue) firstOfKey(x *message) bool {
	return x.OrderingKey == "" || !slices.ContainsFunc(q.messages, func(y *message) bool {
		return y.state == backlog && y.OrderingKey == x.OrderingKey && y.seq < x.seq
	})
}

// next returns the messages whose turn it may be, the likeliest first. What has
// become due and the backlog take turns. Of what is due the earlier goes first. The
// backlog goes in the order of publication, that of a dead-letter queue as the letters
// came: in one that is shared their numbers tell that, else only the instant.
func (q *queue) next() []*message {
	var next []*message
	for _, x := range q.messages {
		if !x.ready() {
			continue
		}
		before := -1
		if len(next) > 0 {
			y := next[0]
			before = cmp.Compare(y.state, x.state) // due is the greater one
			if q.backlogsTurn {
				before = -before
			}
			if before == 0 && (x.state == due || q.letters && q.ref != sharedRef) {
				before = cmp.Compare(x.since, y.since)
			} else if before == 0 {
				before = cmp.Compare(x.seq, y.seq)
			}
		}
		if before < 0 {
			next = next[:0]
		}
		if before <= 0 {
			next = append(next, x)
		}
	}
	if len(next) < 2 {
		return next
	}
	slices.SortStableFunc(next, func(x, y *message) int { return cmp.Compare(x.turn, y.turn) })
	// Messages of one key go in the order of publication, but letters as they
	// came. One that was redriven comes late, wherever its turn is.
	all := slices.Clone(next)
	return slices.DeleteFunc(next, func(x *message) bool {
		_, reached := q.heads[x.OrderingKey]
		return x.OrderingKey != "" && !reached && !q.letters && slices.ContainsFunc(all, func(y *message) bool {
			return y.OrderingKey == x.OrderingKey && y.seq < x.seq && !y.redriven
		})
	})
}

func (q *queue) expired(x *message, now time.Duration) bool {
	return now >= q.expiry(x)
}

// expiry returns when x expires; never, if it does not.
func (q *queue) expiry(x *message) time.Duration {
	ttl := cmp.Or(x.TimeToLive, q.set.ttl)
	if ttl == 0 || q.letters {
		return math.MaxInt64
	}
	return x.born + ttl
}

// lost says that a delivery owns nothing any more.
func (m *topic) lost(id deliveryID, err error) {
	m.endings = append(m.endings, ending{id, err})
}

// endingsMost is how many are kept though nobody may ask for them any more.
const endingsMost = 64

// forgetEndings forgets how deliveries ended that are not held.
func (m *topic) forgetEndings(hs []held) {
	if len(m.endings) < endingsMost+len(hs) {
		return
	}
	m.endings = slices.DeleteFunc(slices.Clone(m.endings), func(e ending) bool {
		return !slices.ContainsFunc(hs, func(h held) bool { return h.id == e.id })
	})
}

// owned returns the message that a delivery of q owns, or nil.
func (m *topic) owned(q *queue, id deliveryID) *message {
	for _, x := range q.messages {
		if !q.closed && x.state == inFlight && x.deliveryID() == id {
			return x
		}
	}
	return nil
}

// owner returns the message that a delivery of q owns, or why it owns none.
func (m *topic) owner(q *queue, id deliveryID) (*message, error) {
	if q.closed {
		return nil, fanout.ErrClosed
	}
	if x := m.owned(q, id); x != nil {
		return x, nil
	}
	for k := len(m.endings) - 1; k >= 0; k-- {
		if m.endings[k].id == id {
			return nil, m.endings[k].err
		}
	}
	m.refuse("a delivery was made that could not be")
	return nil, nil
}

// remove takes a message out of a queue. If it was the head of its key the next
// one is due.
func (m *topic) remove(q *queue, x *message) {
	q.messages = slices.DeleteFunc(q.messages, func(y *message) bool { return x == y })
	m.leaveKey(q, x)
}

func (m *topic) leaveKey(q *queue, x *message) {
	if head, ok := q.heads[x.OrderingKey]; !ok || head != x.seq {
		return
	}
	delete(q.heads, x.OrderingKey)
	var next *message
	for _, y := range q.messages {
		if y.state == blocked && y.OrderingKey == x.OrderingKey && (next == nil || y.seq < next.seq) {
			next = y
		}
	}
	if next != nil {
		m.turn++
		next.state, next.since, next.turn = due, m.now, m.turn
		q.setHead(next)
	}
}
