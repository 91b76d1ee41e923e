package model

import (
	"slices"

	"github.com/gofanout/fanout"
)

// admit adds an offer to its queues. It reports whether that is all: a redrive
// may have moved some of its letters only.
func (m *topic) admit(o *offer) bool {
	if o.redrives() {
		return m.redriveSome(o)
	}
	m.duplicates += uint64(o.moved)
	to := m.targets(*o)
	for _, q := range m.inOrder(to) {
		if q.set.drops() && to[q] > q.roomIn() {
			m.expireAll(q)
		}
	}
	for _, x := range o.messages {
		m.seq++
		y := message{Message: x, seq: m.seq, origin: m.seq, at: m.now, born: m.now}
		m.retained = append(m.retained, y)
		m.retained = m.retained[max(len(m.retained)-m.retention, 0):]
		if x.DeduplicationID != "" {
			if len(m.ids) == m.maxIDs {
				m.ids = m.ids[1:]
				m.forgotten++
			}
			m.ids = append(m.ids, rememberedID{x.DeduplicationID, m.now + m.window})
		}
		routed := false
		for _, q := range m.queues {
			if to[q] > 0 && q.set.accepts(x.Body) {
				m.add(q, y)
				routed = true
			}
		}
		if !routed {
			m.unrouted++
		}
	}
	m.doubt() // the next one may have its IDs forgotten again
	return true
}

// admissible returns the first waiting offer whose turn it is and that can go
// on, or -1. Offers become smaller when some of their messages are published by
// others meanwhile. One that could go on for that reason alone, or because one
// before it became smaller, does so when somebody looks at it.
func (m *topic) admissible() int {
	for k, o := range m.offers {
		if !m.isBehind(o, m.offers[:k]) && m.decidable(o) && !m.overlooks(o) {
			return k
		}
		if !m.seen.finished[o.id] {
			continue
		}
		var before []offer
		for _, w := range m.offers[:k] {
			before = append(before, m.smallest(w))
		}
		if o := m.smallest(o); !m.isBehind(o, before) && m.decidable(o) {
			return k
		}
	}
	return -1
}

func (m *topic) isBehind(o offer, before []offer) bool {
	return slices.ContainsFunc(before, func(w offer) bool { return m.keepsWaiting(w, o) })
}

// smallest takes all messages out of an offer that are duplicates or have been.
func (m *topic) smallest(o offer) offer {
	o = m.fresh(o)
	o.messages = slices.DeleteFunc(slices.Clone(o.messages), func(x fanout.Message[int]) bool {
		return slices.Contains(o.doubtful, x.Body)
	})
	return o
}

// decidable reports whether a waiting offer can go on. One that a queue opened
// meanwhile would refuse is refused when somebody looks at it.
func (m *topic) decidable(o offer) bool {
	ok, refusals := m.objections(o)
	if len(refusals) > 0 {
		return m.seen.finished[o.id]
	}
	return ok
}

// admitWaiting lets offer number k go on.
func (m *topic) admitWaiting(k int) {
	o := m.fresh(m.offers[k])
	m.offers = slices.Delete(m.offers, k, k+1)
	o = m.withoutDoubtful(o)
	switch ok, err := m.findRoom(o, false); {
	case err != nil:
		m.finish(result{ID: o.id, Err: err})
		return
	case !ok:
		m.refuse("a publish that waits is let in without room")
		return
	}
	if o.redrives() && m.queues[o.redrive].closed {
		m.finish(result{ID: o.id, N: o.moved, Err: fanout.ErrClosed})
		return
	}
	m.stirred = true
	if !m.admit(&o) {
		m.offers = append(m.offers, o) // behind the others for the rest
		return
	}
	m.finishOffer(o, nil)
}

// withoutDoubtful takes out messages that are no duplicates any more, but may
// have been found to be.
func (m *topic) withoutDoubtful(o offer) offer {
	o.messages = slices.DeleteFunc(slices.Clone(o.messages), func(x fanout.Message[int]) bool {
		out := slices.Contains(o.doubtful, x.Body) && m.choose(2) == 1
		if out {
			o.moved++
		}
		return out
	})
	return o
}

// doubt notes which messages of those who wait are duplicates now.
func (m *topic) doubt() {
	m.forget()
	for k := range m.offers {
		o := &m.offers[k]
		for _, x := range o.messages {
			if m.remembers(x.DeduplicationID) && !slices.Contains(o.doubtful, x.Body) {
				o.doubtful = append(slices.Clip(o.doubtful), x.Body)
			}
		}
	}
}

func (m *topic) finishOffer(o offer, err error) {
	r := result{ID: o.id, Err: err}
	if o.redrives() {
		r.N = o.moved
		r.Err = o.redriven(err)
	}
	m.finish(r)
}

func (m *topic) finish(r result) {
	m.results = append(m.results, r)
	if r.Err != nil {
		m.endLoop(r.ID)
	}
}
