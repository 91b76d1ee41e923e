package main

import (
	"cmp"
	"slices"

	"github.com/gofanout/fanout"
)

// order proves that the queue's messages came in the order of publication, where
// nothing may change it, and that those of an ordering key did in any case. It
// goes by deliveries that were seen to own their message after they had been
// entered: these were entered in the order in which they were made.
func (p *proof) order() {
	j, r := p.j, p.r
	if j.order == nil {
		return
	}
	p.interval()
	last := int32(-1)
	keys := map[int16]int32{}
	for _, e := range r.events {
		if e.deed != got || e.detail == 0 {
			continue
		}
		place := j.place[e.msg]
		if place < 0 {
			p.broken("order", e.msg, "the witness never saw it")
			return
		}
		if r.spec.inOrder && place <= last {
			p.broken("order", e.msg, "it came after message %d, which was published later", j.order[last])
			return
		}
		last = place
		key := j.messages[e.msg].key
		if key < 0 || r.spec.redrives {
			continue
		}
		if before, ok := keys[key]; ok && place < before {
			p.broken("order of a key", e.msg, "it came after message %d with the same key, which was published later", j.order[before])
			return
		}
		keys[key] = place
	}
}

// interval proves that a queue got all that it accepts and that was published
// between its first message and its last: the order of publication has no holes.
func (p *proof) interval() {
	first, last := int32(-1), int32(-1)
	for k := range p.tallies {
		if !p.tallies[k].in() && !p.must(&p.j.messages[k], ticket(k)) {
			continue
		}
		place := p.j.place[k]
		if place < 0 {
			continue // told by order
		}
		if first < 0 || place < first {
			first = place
		}
		last = max(last, place)
	}
	if first < 0 {
		return
	}
	n := uint64(0)
	for _, m := range p.j.order[first : last+1] {
		// A publish that was under way when the queue was opened may have asked the
		// filters before.
		if p.r.accepts(m) && (p.r.spec.keep <= 1 || p.tallies[m].in() || p.j.messages[m].call > p.r.openRet) {
			n++
		}
	}
	if n > uint64(p.r.stats.Published) {
		p.wrong("order", "from its first message to its last it accepts %d, but only %d were published to it", n, p.r.stats.Published)
	}
}

// provePublication proves that the order that all queues saw is one that the
// publishers could expect: that of each publisher, of calls that did not
// overlap, and with nothing inside a batch.
func (j *journal) provePublication(r *record) []violation {
	p := &proof{j: j, r: r}
	if j.order == nil {
		return nil
	}
	latest, latestOne := int64(-1), ticket(0) // the call that began last, so far
	own := map[uint32]ticket{}
	for k, n := range j.order {
		m := &j.messages[n]
		if m.ret < latest {
			p.broken("order", n, "its publish had returned before message %d, which all got earlier, was published", latestOne)
		}
		if m.call > latest {
			latest, latestOne = m.call, n
		}
		if before, ok := own[m.publisher]; ok && m.publisher != 0 && before > n {
			p.broken("order", n, "its publisher published message %d later, which all got earlier", before)
		}
		own[m.publisher] = n
		if k > 0 && m.batch != uint32(n) && j.order[k-1] != n-1 {
			p.broken("batches", n, "it does not follow the one before it in its batch, but message %d", j.order[k-1])
		}
		if len(p.found) > 0 {
			break
		}
	}
	for k := range j.messages {
		if m := &j.messages[k]; m.state == accepted && j.place[k] < 0 {
			p.broken("all or none", ticket(k), "its publish succeeded, but the witness never saw it")
			break
		}
	}
	return p.found
}

// What the hooks' events say of a message.
const (
	waits = iota
	inFlight
	parked
	dead
	gone
)

var stateNames = [...]string{"waiting", "in flight", "parked", "dead", "gone"}

// automaton proves that the hooks' events, in their order, are those of a
// message's life, and agree with the counters.
func (p *proof) automaton() {
	if !p.r.hooked {
		return
	}
	events := slices.DeleteFunc(slices.Clone(p.r.told), func(t told) bool { return t.letters })
	slices.SortFunc(events, func(a, b told) int { return cmp.Compare(a.seq, b.seq) })
	type life struct {
		state uint8
		spent int32
	}
	lives := make([]life, len(p.tallies))
	var ended [16]uint64
	var delivered, deaths uint64
	for k, e := range events {
		if k > 0 && events[k-1].seq == e.seq {
			p.wrong("hooks", "two events have number %d", e.seq)
			return
		}
		if e.id == "" { // dropped by purge or close
			for m := range lives {
				if lives[m].state < dead {
					if lives[m].state == waits && !p.tallies[m].in() {
						continue
					}
					lives[m].state = waits // published before or after: unknown
				}
			}
			continue
		}
		m, ok := p.j.ticketOf(e.id)
		if !ok || int(m) >= len(lives) {
			p.wrong("hooks", "%v is of message %q, which nobody knows", e, e.id)
			return
		}
		l := &lives[m]
		before, expected := *l, false
		switch e.what {
		case toldDelivered:
			delivered++
			expected = l.state == waits && e.attempt == l.spent+1 && l.spent < int32(p.r.spec.attempts)
			l.state = inFlight
		case toldSettled:
			ended[e.cause]++
			expected = l.state == inFlight && e.attempt == l.spent+1
			l.state = waits
			switch e.cause {
			case fanout.Acked:
				l.state = gone
			case fanout.Snoozed, fanout.Released:
			default:
				l.spent++
			}
		case toldParked:
			expected = l.state == waits
			l.state = parked
		case toldDead:
			deaths++
			expected = l.state == waits || l.state == parked
			l.state = dead
		case toldRedriven:
			expected = l.state == dead
			*l = life{}
		case toldDropped:
			expected = l.state == waits
			l.state = gone
		}
		if !expected {
			p.broken("a message's life", m, "%v, when it was %s after %d attempts", e, stateNames[before.state], before.spent)
			return
		}
	}
	st := p.r.stats
	if delivered != st.Delivered || deaths != st.DeadLettered {
		p.wrong("books", "the hooks were told of %d deliveries and %d dead letters", delivered, deaths)
	}
	for c, n := range causes(st) {
		if c != fanout.Expired && n != ended[c] {
			p.wrong("books", "the hooks were told of %d attempts that ended as %v, Stats of %d", ended[c], c, n)
		}
	}
}
