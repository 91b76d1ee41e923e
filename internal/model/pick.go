package model

import (
	"cmp"
	"slices"
)

// pick chooses among messages whose turn it may be. One that was not seen to be
// delivered can only be one that is never delivered.
func (m *topic) pick(q *queue, next []*message, batch *batch) int {
	var can []int
	expired := false
	for k, x := range next {
		switch {
		case q.behind(x): // it is not delivered now, and may be later
		case m.early(q, x.nextDelivery()):
			continue
		case m.begins(x.nextDelivery(), batch):
		case !q.expired(x, m.now) || expired && len(next) > 8: // of many it hardly matters which is first
			continue
		default:
			expired = true
		}
		can = append(can, k)
	}
	if len(can) == 0 {
		return 0
	}
	m.asBegun(q, next, can)
	most := 2
	if len(next) > 8 {
		most = 1 // the order of so many is hardly ever seen
	}
	if s := m.seen.stats(q.ref); s != nil {
		more := s.Blocked > q.blockedNow() // some were looked at that can't be delivered
		if m.asReached(q, next, can, more, s.Delivered-q.count.Delivered <= 1) || more {
			most++
		}
	}
	switch {
	case next[0].state == backlog && !q.letters: // the order of publication, or in which they began
	case len(next) > 8:
		most++
	default:
		most = len(can)
	}
	if len(can) > most {
		can, m.cut = can[:most], true
	}
	k := m.choose(len(can))
	for _, c := range can[:k] {
		if q.behind(next[c]) {
			m.passed = append(m.passed, next[c].copyID())
		}
	}
	return can[k]
}

// early reports whether a call is seen to get a delivery of q behind another that
// it has not got yet.
func (m *topic) early(q *queue, id deliveryID) bool {
	before, ok := m.seen.before[id]
	return ok && slices.ContainsFunc(m.receives, func(r receive) bool {
		n := len(r.got)
		return r.ref == q.ref && r.id == m.seen.taker[id] && (n == 0 || r.got[n-1].id != before)
	})
}

// begins reports whether a delivery is seen that begins a batch or is of none, or
// continues the given batch.
func (m *topic) begins(id deliveryID, batch *batch) bool {
	if batch != nil {
		return batch.has(id)
	}
	to, seen := m.seen.taker[id]
	if k := m.sub(to); seen && k >= 0 && m.subs[k].batch > 0 {
		_, seen = m.seen.batches[id]
	}
	return seen
}

// asBegun puts those of next, by their indexes, whose handlers were seen to begin
// in the order in which they did; the others keep their places. A batch that is not
// full was taken when nothing else was left: after the batches of what was published
// before, though its handler may have begun before theirs.
func (m *topic) asBegun(q *queue, next []*message, can []int) {
	begun := func(k int) int {
		if q.expired(next[k], m.now) {
			return 0 // if it was delivered, then as a letter
		}
		x := next[k]
		at := m.seen.order[x.nextDelivery()]
		if _, small := m.inBatch(x); small {
			for _, j := range can {
				if in, _ := m.inBatch(next[j]); in && next[j].seq < x.seq {
					at = max(at, m.seen.order[next[j].nextDelivery()])
				}
			}
		}
		return at
	}
	var places, ks []int
	for place, k := range can {
		if begun(k) > 0 {
			places, ks = append(places, place), append(ks, k)
		}
	}
	slices.SortStableFunc(ks, func(a, b int) int { return cmp.Compare(begun(a), begun(b)) })
	for i, place := range places {
		can[place] = ks[i]
	}
}

// asReached puts one that can't be delivered, because it is behind another one
// of its key, where it was most likely looked at, if more of them were than so far:
// after what its turn comes after, and at the latest before the last delivery of
// the step. One that was passed over stays behind for the rest of the step: so one
// choice says that it was not looked at. It reports whether one may have been looked at
// now: it may be due and delivered before the step ends, when the one before it is done.
func (m *topic) asReached(q *queue, next []*message, can []int, more, last bool) bool {
	first, late := -1, false // of those behind others, by its place in can
	free := -1
	for place, k := range can {
		x := next[k]
		if !q.behind(x) {
			if free < 0 {
				free = place
			}
			continue
		}
		_, seen := m.seen.taker[x.nextDelivery()]
		passed := !more && !seen || slices.Contains(m.passed, x.copyID())
		if first < 0 || late && !passed || late == passed && k < can[first] {
			first, late = place, passed
		}
	}
	if first < 0 || free < 0 {
		return first >= 0
	}
	x, y := can[first], can[free]
	rest := slices.DeleteFunc(slices.Clone(can), func(k int) bool { return k == x || k == y })
	if !late && (x < y || last) {
		can[0], can[1] = x, y
	} else {
		can[0], can[1] = y, x
	}
	copy(can[2:], rest)
	return true
}

// behind reports whether x can't be delivered, for another one of its key.
func (q *queue) behind(x *message) bool {
	head, keyed := q.heads[x.OrderingKey]
	return keyed && head != x.seq
}
