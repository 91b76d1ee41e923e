package model

import (
	"cmp"
	"context"
	"math"
	"slices"
	"time"

	"github.com/gofanout/fanout"
)

// nextInstant returns the next instant at which something happens by itself.
func (m *topic) nextInstant() time.Duration {
	next := time.Duration(math.MaxInt64)
	for q := range m.all {
		for _, x := range q.messages {
			if !q.closed && x.waits() {
				next = min(next, x.until)
			}
		}
	}
	if m.phase == draining || m.phase == burying {
		next = min(next, m.limit)
	}
	if at, ok := m.nextLook(); ok {
		next = min(next, at)
	}
	for _, q := range m.awaited {
		for _, x := range q.messages {
			if at := q.expiry(x); x.canExpire() && at > m.now {
				next = min(next, at)
			}
		}
	}
	var limits []time.Duration
	for _, r := range m.receives {
		limits = append(limits, r.limit)
	}
	for _, o := range m.offers {
		limits = append(limits, o.limit)
	}
	for _, j := range m.joins {
		limits = append(limits, j.limit)
	}
	for _, limit := range limits {
		if limit > 0 {
			next = min(next, limit)
		}
	}
	return next
}

// An action is something that happens by itself now.
type action struct {
	actionID
	do func()
}

type actionID struct {
	kind actionKind
	ref  ref
	call int
}

type actionKind uint8

const (
	ticks actionKind = iota
	expires
	claims
	finds // room for what is parked
	settles
	admits
	ends // of a call
	looks
)

// likeliest puts those behind that another was preferred to before: so it takes
// one choice to say that something comes late.
func (m *topic) likeliest(as []action) []action {
	if len(m.deferred) > 0 {
		slices.SortStableFunc(as, func(a, b action) int { return cmp.Compare(m.late(a), m.late(b)) })
	}
	return as
}

func (m *topic) late(a action) int {
	if slices.Contains(m.deferred, a.actionID) {
		return 1
	}
	return 0
}

// perform does number k of the actions.
func (m *topic) perform(as []action, k int) {
	for _, a := range as[:k] {
		if m.late(a) == 0 {
			m.deferred = append(m.deferred, a.actionID)
		}
	}
	m.deferred = slices.DeleteFunc(m.deferred, func(id actionID) bool { return id == as[k].actionID })
	as[k].do()
}

// actions returns what happens now, in the likeliest order.
func (m *topic) actions() (as []action) {
	for q := range m.all {
		if len(q.overdue(m.now)) > 0 {
			as = append(as, action{actionID{ticks, q.ref, 0}, func() { m.tick(q) }})
		}
	}
	for o, q := range m.awaited {
		if q.hasExpired(m.now) && (!m.handAgeNear(o) || m.seesExpired(q)) {
			as = append(as, action{actionID{expires, q.ref, 0}, func() { m.stirred = true; m.expireAll(q) }})
		}
	}
	for k, r := range m.runs {
		if len(r.ending) > 0 {
			as = append(as, action{actionID{settles, ref{}, r.delivery.body}, func() { m.settleNext(k) }})
		}
	}
	for k, r := range m.receives {
		if r.acking != (deliveryID{}) {
			as = append(as, action{actionID{settles, ref{}, r.acking.body}, func() { m.acknowledges(k) }})
		}
	}
	for _, q := range m.queues { // what is not parked after the step has found room
		if m.unparks(q) && m.parksMore(q) {
			as = append(as, action{actionID{finds, q.ref, 0}, func() { m.send(q, m.parkedOf(q)) }})
		}
	}
	var later []action
	for _, q := range m.allHungry() {
		claim := action{actionID{claims, q.ref, 0}, func() { m.take(q, 0, 0) }}
		switch s := m.seen.stats(q.ref); {
		case s != nil && s.Blocked > q.blockedNow():
			as = append(append(as, claim), m.batchesToEnd(q)...)
		case m.delivers(q):
			as = append(append(as, m.batchesToEnd(q)...), claim)
		default: // something else comes before
			later = append(append(later, m.batchesToEnd(q)...), claim)
		}
	}
	for _, q := range m.queues {
		if m.unparks(q) && !m.parksMore(q) {
			as = append(as, action{actionID{finds, q.ref, 0}, func() { m.send(q, m.parkedOf(q)) }})
		}
	}
	if k := m.admissible(); k >= 0 {
		as = append(as, action{actionID{admits, ref{}, m.offers[k].id}, func() { m.admitWaiting(k) }})
	}
	as = append(as, m.callsToEnd()...)
	if m.shutdownGoesOn() {
		as = append(as, action{actionID{kind: looks}, m.look})
	}
	return append(as, later...)
}

// seesExpired reports whether more of q has expired after the step than so far: if a
// worker's hand has not been looked at, the topic may take another queue for the one
// that an offer waits for.
func (m *topic) seesExpired(q *queue) bool {
	s := m.seen.stats(q.ref)
	return s == nil || s.Expired > q.ended[fanout.Expired]
}

// allHungry returns the queues that have a message for an idle consumer, those
// first whose handlers began first.
func (m *topic) allHungry() (qs []*queue) {
	for q := range m.all {
		if m.hungry(q) {
			qs = append(qs, q)
		}
	}
	if len(qs) > 1 {
		begun := map[*queue]int{}
		for _, q := range qs {
			begun[q] = m.firstBegun(q)
		}
		slices.SortStableFunc(qs, func(a, b *queue) int { return cmp.Compare(begun[a], begun[b]) })
	}
	return qs
}

// firstBegun returns when the first handler began of what is ready in q. Of what
// nobody saw begin, ordinary queues come first.
func (m *topic) firstBegun(q *queue) int {
	first := math.MaxInt
	for _, x := range q.messages {
		if at := m.seen.order[x.nextDelivery()]; at > 0 && x.ready() {
			first = min(first, at)
		}
	}
	if first == math.MaxInt && !q.letters {
		return 0
	}
	return first
}

// batchesToEnd returns, as actions, that batches are what was there: what came
// by itself in this step, because its time had come, or a publish that had waited,
// or a letter, may have come after that.
func (m *topic) batchesToEnd(q *queue) (as []action) {
	for k, r := range m.receives {
		more := slices.ContainsFunc(q.messages, func(x *message) bool {
			return x.ready() && m.seen.taker[x.nextDelivery()] == r.id
		})
		if m.stirred && !more && r.ref == q.ref && 0 < len(r.got) && len(r.got) < r.most {
			as = append(as, action{actionID{ends, q.ref, r.id}, func() { m.receives[k].most = len(r.got) }})
		}
	}
	return as
}

// delivers reports whether a message of q that may be next is seen to be
// delivered, or found to be one that can't be.
func (m *topic) delivers(q *queue) bool {
	for _, x := range m.nextOf(q, 0) {
		head, keyed := q.heads[x.OrderingKey]
		if _, seen := m.seen.taker[x.nextDelivery()]; seen || keyed && head != x.seq || q.expired(x, m.now) {
			return true
		}
	}
	return false
}

func (q *queue) blockedNow() (n int) {
	for _, x := range q.messages {
		if x.state == blocked {
			n++
		}
	}
	return n
}

// settleDown does what happens by itself, until nothing does. Things happen
// concurrently, so any order is right; claims of several queues don't disturb
// each other, unless letters are among them.
func (m *topic) settleDown() {
	for m.wrong == "" {
		as := m.likeliest(m.actions())
		if len(as) == 0 {
			break
		}
		k := 0
		if len(as) > 1 && (len(m.offers) > 0 || slices.ContainsFunc(as, func(a action) bool { return a.kind != claims || a.ref.kind != opened })) {
			k = m.choose(len(as))
		}
		m.perform(as, k)
		if m.exceeds() {
			m.refuse("more happened than was seen")
		}
	}
	m.doubt()
	m.endReceives()
	slices.SortStableFunc(m.results, func(a, b result) int { return cmp.Compare(a.ID, b.ID) })
}

// letHappen does some of what happens by itself, or nothing. The likeliest is nothing,
// but what is parked behind letters finds the room of one that is settled at once.
func (m *topic) letHappen(letters bool) {
	for m.wrong == "" {
		as := m.likeliest(m.actions())
		if len(as) == 0 {
			return
		}
		nothing := 0
		if letters && as[0].kind == finds {
			nothing = 1
		}
		k := m.choose(1 + len(as))
		switch {
		case k == nothing:
			return
		case k > nothing:
			k--
		}
		m.perform(as, k)
	}
}

func (m *topic) sub(id int) int {
	return slices.IndexFunc(m.subs, func(s subscriber) bool { return s.id == id })
}

// callsToEnd returns, as actions, the ends of the calls that wait no longer.
func (m *topic) callsToEnd() (as []action) {
	add := func(id int, f func()) { as = append(as, action{actionID{ends, ref{}, id}, f}) }
	for k, o := range m.offers {
		if o.limit > 0 && m.now >= o.limit {
			add(o.id, func() {
				m.offers = slices.Delete(m.offers, k, k+1)
				m.finishOffer(o, context.DeadlineExceeded)
			})
		}
	}
	for k, r := range m.receives {
		if r.limit > 0 && m.now >= r.limit && len(r.got) == 0 {
			add(r.id, func() {
				m.receives = slices.Delete(m.receives, k, k+1)
				m.finish(result{ID: r.id, Err: context.DeadlineExceeded})
			})
		}
	}
	for k, j := range m.joins {
		if m.running(j.sub) == 0 {
			add(j.id, func() {
				m.joins = slices.Delete(m.joins, k, k+1)
				m.finish(result{ID: j.id})
			})
		}
		// If two give up at once, the handlers may return in between or not.
		if j.limit > 0 && m.now >= j.limit {
			add(-j.id, func() { m.giveUpJoin(k, context.DeadlineExceeded) })
		}
	}
	return as
}

// endReceives ends the calls that got something.
func (m *topic) endReceives() {
	m.receives = slices.DeleteFunc(m.receives, func(r receive) bool {
		if len(r.got) > 0 {
			m.finish(result{ID: r.id, N: len(r.got), Got: r.got})
		}
		return len(r.got) > 0
	})
}

// giveUp ends a call whose context was cancelled.
func (m *topic) giveUp(id int) {
	for k, o := range m.offers {
		if o.id == id {
			m.offers = slices.Delete(m.offers, k, k+1)
			m.finishOffer(o, context.Canceled)
			return
		}
	}
	for k, r := range m.receives {
		if r.id == id {
			m.receives = slices.Delete(m.receives, k, k+1)
			m.finish(result{ID: id, Err: context.Canceled})
			return
		}
	}
	for k, j := range m.joins {
		if j.id == id {
			m.giveUpJoin(k, context.Canceled)
			return
		}
	}
}
