package model

import (
	"slices"
	"time"
)

// What a worker prefetches is known less exactly: when a delivery that is
// not the first of a hand began is known only once the topic has looked at it,
// at most a millisecond late. The model keeps the bounds (x.until to x.most)
// until a deadline is seen.

// handAge is how late the topic may look at a delivery out of a hand.
const handAge = time.Millisecond

// byHand reports whether deliveries of x to subscribers may be out of a hand.
func (m *topic) byHand(q *queue, x *message) bool {
	return !q.letters && x.visibility == q.set.visibility && x.OrderingKey == "" && x.spent == 0
}

// loosen says that the delivery of x that begins now may be out of a hand.
func (m *topic) loosen(q *queue, x *message) {
	x.slack, x.most = 0, x.until
	if m.byHand(q, x) {
		x.slack = min(handAge, q.set.visibility)
		x.most = x.until + x.slack
	}
}

// loose reports whether it is not known until when x is in flight.
func (x *message) loose() bool { return x.state == inFlight && x.most > x.until }

// learn takes over the deadline of x that was seen, if any. It reports whether x
// is in flight still, as far as is known.
func (m *topic) learn(q *queue, x *message) bool {
	if !x.loose() {
		return true
	}
	until, looked := m.seen.deadlines[x.deliveryID()]
	switch {
	case !looked:
		return true
	case until < 0:
		return false
	case until < x.until || until > x.most || x.extended == 0 && until > m.now+x.visibility:
		m.refuse("a deadline is outside of its range")
		return true
	}
	if until > x.extended { // then it tells the start
		x.start, x.slack = until-x.visibility, 0
	}
	x.until, x.most = until, until
	return true
}

// learnAll learns from all deadlines that were seen.
func (m *topic) learnAll() {
	for q := range m.all {
		if q.closed {
			continue
		}
		for _, x := range q.messages {
			m.learn(q, x)
		}
	}
}

// doubts reports whether deliveries that are not known exactly may have timed
// out by now: then their deadlines are to be looked at.
func (m *topic) doubts(now time.Duration) bool {
	for q := range m.all {
		if !q.closed && slices.ContainsFunc(q.messages, func(x *message) bool { return x.loose() && x.until <= now }) {
			return true
		}
	}
	return false
}

// overlooks reports whether the room for a waiting offer was not noticed yet: it
// may be that of what is done of a hand, whose handler runs on. The end of the
// hand or the look at it tells, at the latest handAge after it was taken.
func (m *topic) overlooks(o offer) bool {
	if m.seen.finished[o.id] || !m.handAgeNear(o) {
		return false
	}
	if o.redrives() {
		q := m.queues[o.redrive]
		s := m.seen.stats(q.ref)
		return s == nil || s.Redriven <= q.count.Redriven
	}
	return true
}

// handAgeNear reports whether a worker of one of the offer's queues has a hand
// that may not have been looked at.
func (m *topic) handAgeNear(o offer) bool {
	for q := range m.targets(o) {
		if slices.ContainsFunc(m.loops, func(l loop) bool { return l.ref == q.ref && l.had && m.now < l.took+handAge }) {
			return true
		}
		for _, r := range m.runs {
			s := m.subs[m.sub(r.sub)]
			if s.ref != q.ref || s.batch > 0 {
				continue
			}
			if x := m.owned(q, r.delivery); x != nil && m.byHand(q, x) && m.now < x.start+handAge {
				return true
			}
		}
	}
	return false
}

// nextLook returns the next instant at which a hand may be looked at for the room
// that offers wait for.
func (m *topic) nextLook() (next time.Duration, ok bool) {
	for k, o := range m.offers {
		if m.isBehind(o, m.offers[:k]) || !m.handAgeNear(o) {
			continue
		}
		expired := false
		if q := m.waitsFor(k); q != nil {
			expired = q.hasExpired(m.now)
		}
		if room, refusals := m.objections(o); !room && len(refusals) == 0 && !expired {
			continue
		}
		for _, at := range m.began {
			if at += handAge; at > m.now && (!ok || at < next) {
				next, ok = at, true
			}
		}
	}
	return next, ok
}

// beginning takes down when handlers begin: the hands that they are in may be
// that old.
func (m *topic) beginning() {
	if n := len(m.began); n > 0 && m.began[n-1] == m.now {
		return
	}
	m.began = slices.DeleteFunc(slices.Clone(m.began), func(at time.Duration) bool { return at+handAge <= m.now })
	m.began = append(m.began, m.now)
}

// competing reports whether several consumers take from q, so that one may have
// a later message than another is about to get out of its hand. The caller of
// TryReceive is one.
func (m *topic) competing(q *queue, caller int) bool {
	n := 0
	if caller != 0 {
		n++
	}
	for _, s := range m.subs {
		if s.ref == q.ref {
			n += s.concurrency
		}
	}
	for _, r := range m.receives {
		if r.ref == q.ref && !r.loop {
			n++
		}
	}
	for _, l := range m.loops { // in their bodies they may have a hand for a while
		waits := slices.ContainsFunc(m.receives, func(r receive) bool { return r.id == l.id })
		if l.ref == q.ref && (waits || l.had && m.now <= l.took+handAge) {
			n++
		}
	}
	return n > 1
}
