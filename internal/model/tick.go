package model

import (
	"cmp"
	"slices"
	"time"

	"github.com/gofanout/fanout"
)

// overdue returns the messages whose time has come.
func (q *queue) overdue(now time.Duration) []*message {
	var xs []*message
	for _, x := range q.messages {
		if !q.closed && x.waits() && x.until <= now {
			xs = append(xs, x)
		}
	}
	slices.SortFunc(xs, func(x, y *message) int {
		return cmp.Or(cmp.Compare(x.until, y.until), cmp.Compare(x.turn, y.turn))
	})
	return xs
}

// tick sees to the messages of one queue whose time has come.
func (m *topic) tick(q *queue) {
	m.stirred = true
	xs := q.overdue(m.now)
	matters := q.mayKill(xs) && !m.roomForDead(q, len(xs)) // who dies first
	if matters {
		slices.SortStableFunc(xs, func(x, y *message) int { return cmp.Compare(m.rank(q, x), m.rank(q, y)) })
	}
	for len(xs) > 0 && m.wrong == "" {
		k := 0
		if matters && q.mayKill(xs) {
			k = m.choose(len(xs))
		}
		x := xs[k]
		xs = slices.Delete(xs, k, k+1)
		if x.loose() && m.learn(q, x) && x.until > m.now {
			continue
		}
		if x.state == inFlight {
			id := x.deliveryID()
			m.lost(id, fanout.ErrStale)
			m.timedOut(id)
			m.end(q, x, outcome{cause: fanout.TimedOut})
			if !q.letters && len(xs) > 0 && m.deathsStir(q) && m.choose(2) == 1 {
				return // what happens there comes in between
			}
			continue
		}
		m.turn++
		x.state, x.since, x.turn = due, m.now, m.turn
	}
}

// roomForDead reports whether n letters of q find room in a dead-letter queue in
// which only their order of publication is seen.
func (m *topic) roomForDead(q *queue, n int) bool {
	d := m.deads[q.ref.queue]
	if d != nil {
		n += len(d.messages)
	}
	return !q.set.shared && n <= q.set.deadCapacity
}

// rank says whether x, of q, is likely to have come among the letters before
// others: what is seen there is what came first, if there was not room for all,
// and what came last, if others were dropped for it.
func (m *topic) rank(q *queue, x *message) int {
	d := m.deads[q.ref.queue]
	if q.set.shared {
		d = m.shared
	}
	if d != nil && d.set.overflow == fanout.DropOldest || d == nil && q.set.deadOverflow == fanout.DropOldest {
		return -m.unseen(x)
	}
	return m.unseen(x)
}

// unseen is 0 if x is seen in a dead-letter queue after the step, or delivered
// there, and 1 else.
func (m *topic) unseen(x *message) int {
	if _, ok := m.seen.taker[x.nextDelivery()]; ok || m.seen.letters[x.copyID()] {
		return 0
	}
	return 1
}

// deathsStir reports whether something happens by itself now where what dies in
// q goes.
func (m *topic) deathsStir(q *queue) bool {
	d := m.deads[q.ref.queue]
	if q.set.shared {
		d = m.shared
	}
	return d != nil && (len(d.overdue(m.now)) > 0 || m.hungry(d) || m.endingAt(d) >= 0 || m.ackingAt(d) >= 0)
}

// mayKill reports whether several of xs are in flight, so that more than one
// may die.
func (q *queue) mayKill(xs []*message) bool {
	n := 0
	for _, x := range xs {
		if x.state == inFlight {
			n++
		}
	}
	return n > 1 && !q.letters
}

// timedOut cancels the context of the handler that runs past its time.
func (m *topic) timedOut(id deliveryID) {
	for k := range m.runs {
		if m.runs[k].has(id) {
			m.runs[k].stuck = true
		}
	}
	m.cancel(id, fanout.ErrStale)
}

// cancel cancels the context of the handler that has a delivery, if any. One
// that obeys returns why, and that comes too late unless its subscriber is shut down.
func (m *topic) cancel(id deliveryID, why error) {
	for k, r := range m.runs {
		if !r.has(id) {
			continue
		}
		if r.why == nil {
			m.runs[k].why = why
		}
		switch s := m.subs[m.sub(r.sub)]; {
		case !s.obeys || len(r.ending) > 0:
		case m.owned(m.at(s.ref), r.delivery) != nil:
			o := outcome{fanout.Released, 0, fanout.ErrClosed}
			m.runs[k].returns(o, o)
		default:
			m.runs = slices.Delete(m.runs, k, k+1)
		}
		return
	}
}
