package main

import (
	"sync"
	"sync/atomic"

	"github.com/gofanout/fanout"
)

// A book is the ledger of one queue while it lives.
type book struct {
	a *arena
	q *fanout.Queue[ticket]
	n uint64 // of the topic's queues, for the streams

	record // closed by the end of the round; before, guarded by mu but for what never changes

	mu    sync.Mutex
	acked []uint64 // a bit for each message

	consumers atomic.Uint32
	limited   []*consumer  // with a rate limit; its slot's until the end
	ran       atomic.Int64 // runs of handlers
	passed    atomic.Int64 // through the subscribers' interceptor
	opened    atomic.Bool  // q is set
	finished  atomic.Bool  // closed by its slot
}

func (a *arena) newBook(name string, s spec, n uint64) *book {
	b := &book{a: a, n: n, acked: make([]uint64, (len(a.messages)+63)/64)}
	b.record = record{
		topic: a.name, name: name, spec: s, accepts: s.accepts, openCall: a.w.now(), hooked: a.traits.hooks, ownLetter: !s.shared,
	}
	a.mu.Lock()
	a.books = append(a.books, b)
	a.mu.Unlock()
	a.byName.Store(name, b)
	if !s.shared {
		a.byName.Store(name+"/dead", b)
	}
	return b
}

// enter writes into the ledger.
func (b *book) enter(worker uint32, d *fanout.Delivery[ticket], what deed, detail uint8) {
	e := event{msg: d.Body, worker: worker, attempt: uint16(d.Attempt()), deed: what, detail: detail}
	b.mu.Lock()
	e.at = b.a.w.now()
	b.events = append(b.events, e)
	if what == settledAs && detail == uint8(fanout.Acked) || what == letterAcked {
		b.acked[e.msg/64] |= 1 << (e.msg % 64)
	}
	b.mu.Unlock()
}

// got enters that a consumer got a message. A delivery that comes after the
// message's acknowledgement is wrong only if it owns the message: a worker may
// start late, when its delivery has timed out and the message was acknowledged
// by another. Where the order is proven, all deliveries are asked, since the
// order of entries says something of those only.
func (b *book) got(worker uint32, d *fanout.Delivery[ticket], what deed) {
	m := d.Body
	b.checkHistory(d)
	b.a.w.sum.deliveries.Add(1)
	b.a.w.deliveries.Add(1)
	e := event{msg: m, worker: worker, attempt: uint16(d.Attempt()), deed: what}
	b.mu.Lock()
	e.at = b.a.w.now()
	k := len(b.events)
	b.events = append(b.events, e)
	before := b.acked[m/64]&(1<<(m%64)) != 0
	b.mu.Unlock()
	if !before && (what != got || !b.spec.inOrder && !b.a.traits.keys) {
		return
	}
	if d.Deadline().IsZero() {
		return
	}
	if before {
		b.enter(worker, d, gotAcked, 0)
		return
	}
	b.mu.Lock()
	b.events[k].detail = 1
	b.mu.Unlock()
}

// tell is the hooks' entry.
func (a *arena) tell(what hook) func(fanout.Event) {
	return func(e fanout.Event) {
		v, ok := a.byName.Load(e.Queue)
		if !ok {
			a.w.complain("stray", "a hook names a queue that there is not: %+v", e)
			return
		}
		b := v.(*book)
		b.mu.Lock()
		b.told = append(b.told, told{
			seq: e.Seq, id: e.MessageID, count: int32(e.Count), attempt: int32(e.Attempt), what: what, cause: e.Cause, reason: e.Reason,
			letters: e.Queue != b.name,
		})
		b.mu.Unlock()
	}
}

func (a *arena) hooks() fanout.Hooks {
	h := fanout.Hooks{Dropped: a.tell(toldDropped)}
	if a.traits.hooks {
		h.Delivered, h.Settled, h.DeadLettered = a.tell(toldDelivered), a.tell(toldSettled), a.tell(toldDead)
		h.Parked, h.Redriven = a.tell(toldParked), a.tell(toldRedriven)
	}
	return h
}
