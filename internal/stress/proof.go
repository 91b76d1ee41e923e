package main

import (
	"fmt"
	"slices"

	"github.com/gofanout/fanout"
)

// A tally is what the ledger of a queue says of one message.
type tally struct {
	got, nils int32
	// places is in how many places the message ended: acknowledged, dropped,
	// left over, or in the dead-letter queue and what follows there.
	places            int32
	letters, dropped  bool
	left              bool
	started, heldTill int64 // heldTill: it was certainly held until then
	starter           uint32
}

func (t *tally) in() bool { return t.got > 0 || t.places > 0 || t.letters }

// A proof goes through the ledger of one queue.
type proof struct {
	j       *journal
	r       *record
	tallies []tally
	// By cause: settlements that were said to have succeeded, and what handlers
	// returned, which counts if it came in time.
	certain, intended        [16]uint64
	got, left                uint64
	lettersGot, lettersAcked uint64
	lettersLeft              uint64
	dropped, lettersDropped  uint64

	found []violation
}

// broken notes a violation about a message.
func (p *proof) broken(promise string, m ticket, format string, args ...any) {
	p.found = append(p.found, violation{
		promise: promise,
		what:    fmt.Sprintf("topic %s, queue %s, message %d: ", p.r.topic, p.r.name, m) + fmt.Sprintf(format, args...),
		ledger:  p.r.tell(p.j, m),
	})
}

// wrong notes a violation about the whole queue.
func (p *proof) wrong(promise, format string, args ...any) {
	p.found = append(p.found, violation{
		promise: promise,
		what:    fmt.Sprintf("topic %s, queue %s: ", p.r.topic, p.r.name) + fmt.Sprintf(format, args...),
		ledger:  fmt.Sprintf("  %v\n  %+v\n  letters %+v\n", p.r.spec, p.r.stats, p.r.letters),
	})
}

// prove returns what was wrong with a queue. scratch is reused.
func (j *journal) prove(r *record, scratch *[]tally) []violation {
	if cap(*scratch) < len(j.messages) {
		*scratch = make([]tally, len(j.messages))
	}
	p := &proof{j: j, r: r, tallies: (*scratch)[:len(j.messages)]}
	clear(p.tallies)
	p.count()
	p.countDrops()
	p.whereabouts()
	p.replayed()
	p.statistics()
	p.bound()
	p.order()
	p.automaton()
	return p.found
}

// count goes through the events.
func (p *proof) count() {
	for _, e := range p.r.events {
		t := &p.tallies[e.msg]
		switch e.deed {
		case got:
			t.got++
			p.got++
			t.started, t.starter = e.at, e.worker
		case gotAcked:
			p.broken("no delivery after the acknowledgement", e.msg, "delivered to its owner after it was acknowledged")
		case settledAs:
			p.certain[e.detail]++
			if e.detail == uint8(fanout.Acked) {
				t.places++
			}
			if e.worker == t.starter {
				t.heldTill = t.started
			}
		case returned:
			p.intended[e.detail]++
			if e.detail == uint8(fanout.Acked) {
				t.nils++
			}
		case wronglyDone:
			p.broken("fenced", e.msg, "a settlement had the wrong result: %s", refusalNames[e.detail])
		case letterGot:
			p.lettersGot++
			t.letters = true
		case letterAcked:
			p.lettersAcked++
			t.letters = true
			t.places++
		case letterLeft:
			p.lettersLeft++
			t.letters = true
			t.places++
		case left:
			p.left++
			t.left = true
			t.places++
		}
	}
}

// countDrops goes through what the hooks told of drops.
func (p *proof) countDrops() {
	for _, e := range p.r.told {
		if e.what != toldDropped || e.reason != fanout.DroppedOldest && e.reason != fanout.DroppedNewest {
			continue
		}
		m, ok := p.j.ticketOf(e.id)
		if !ok || int(m) >= len(p.tallies) {
			p.wrong("hooks", "dropped message %q, of which nobody else knows", e.id)
			continue
		}
		t := &p.tallies[m]
		t.places++
		if e.letters {
			t.letters = true
			p.lettersDropped++
		} else {
			t.dropped = true
			p.dropped++
		}
	}
}

// must reports whether a message was published for certain while the queue
// was open.
func (p *proof) must(m *message, k ticket) bool {
	return m.state == accepted && m.call > p.r.openRet && m.ret < p.r.closeCall && p.r.accepts(k)
}

// mayNot reports whether a message cannot be in the queue, and why.
func (p *proof) mayNot(m *message, k ticket) (promise, why string) {
	switch {
	case m.state != accepted:
		return "all or none", "it is in the queue though its publish did not succeed"
	case !p.r.accepts(k):
		return "filters", "the queue does not accept it"
	case m.ret < p.r.openCall && p.r.spec.replay == 0:
		return "stray", "it was published before the queue was opened"
	case m.call > p.r.closeRet:
		return "stray", "it was published after the queue was closed"
	}
	return "", ""
}

// whereabouts proves that each message that must be in the queue was there, that
// no other was, and that each ended in one place.
func (p *proof) whereabouts() {
	in, missing, maybe := uint64(0), []ticket(nil), []ticket(nil)
	for k := range p.tallies {
		m, t := &p.j.messages[k], &p.tallies[k]
		if !t.in() {
			if p.must(m, ticket(k)) {
				in++
				missing = append(missing, ticket(k))
			}
			continue
		}
		in++
		if promise, why := p.mayNot(m, ticket(k)); why != "" {
			p.broken(promise, ticket(k), "%s", why)
		}
		switch {
		case t.places > 1:
			p.broken("one end", ticket(k), "it ended %d times", t.places)
		case t.places == 1:
		case t.nils > 0:
			maybe = append(maybe, ticket(k))
		default:
			missing = append(missing, ticket(k))
		}
	}
	st := p.r.stats
	byReturn := st.Acked - p.certain[fanout.Acked]
	unseen, purged := uint64(st.Published)-in, uint64(p.r.purged)
	switch {
	case uint64(st.Published) < in || unseen > purged:
		p.wrong("nothing lost", "Stats.Published is %d, but %d messages were in it, and %d purged", st.Published, in, purged)
	case uint64(len(missing))+uint64(len(maybe))+unseen == byReturn+purged && byReturn <= uint64(len(maybe)):
		return
	}
	what := fmt.Sprintf("%d are nowhere, %d more unless what their handlers returned acknowledged them; %d were acknowledged so, %d purged",
		len(missing), len(maybe), byReturn, purged)
	if len(missing) > 0 {
		p.broken("nothing lost", missing[0], "it ended nowhere: %s", what)
	} else if len(maybe) > 0 {
		p.broken("nothing lost", maybe[0], "it, or another, ended nowhere: %s", what)
	} else {
		p.wrong("nothing lost", "%s", what)
	}
}

// replayed proves that the queue began with the last messages that were published
// before it, and with no more than it asked for.
func (p *proof) replayed() {
	s, j := p.r.spec, p.j
	if s.replay == 0 || j.order == nil {
		return
	}
	// The last that may have been published when the queue was opened, and so the
	// first that was retained then for certain.
	newest := int32(-1)
	for k := range j.messages {
		if m := &j.messages[k]; m.state == accepted && m.call <= p.r.openRet {
			newest = max(newest, j.place[k])
		}
	}
	retained := newest - int32(s.retain) + 1
	most := min(s.replay, s.retain, s.capacity)
	certain, in, began := 0, 0, 0
	for k := range j.messages {
		m := &j.messages[k]
		if m.state != accepted || !p.r.accepts(ticket(k)) {
			continue
		}
		there, before := p.tallies[k].in(), m.ret < p.r.openCall
		if before && j.place[k] >= retained {
			certain++
		}
		if before && there {
			in++
		}
		if there && m.call <= p.r.openRet {
			began++
		}
	}
	if in > most {
		p.wrong("replay", "it began with %d messages, of at most %d", in, most)
	}
	if least := min(certain, most); began < least && p.r.purged == 0 {
		p.wrong("replay", "it began with at most %d messages, of %d", began, least)
	}
}

// bound proves from the publishers' and consumers' entries alone that the queue
// never held more than its capacity: from when its publish had returned until a
// consumer had it that then settled it, or until it was left over, a message was
// in the queue.
func (p *proof) bound() {
	if p.r.moved > 0 {
		return // dead letters that came back were in it more than once
	}
	var from, to []int64
	for k := range p.tallies {
		t, m := &p.tallies[k], &p.j.messages[k]
		end := t.heldTill
		if t.left {
			end = p.r.closeCall
		}
		if t.in() && !t.dropped && end > m.ret {
			from, to = append(from, m.ret), append(to, end)
		}
	}
	slices.Sort(from)
	slices.Sort(to)
	gone := 0
	for k, at := range from {
		for to[gone] <= at {
			gone++
		}
		if held := k + 1 - gone; held > p.r.spec.capacity {
			p.wrong("bounded", "it held at least %d messages at %d ns, with a capacity of %d", held, at, p.r.spec.capacity)
			return
		}
	}
}
