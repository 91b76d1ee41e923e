package main

import (
	"context"
	"errors"
	"strconv"

	"github.com/gofanout/fanout"
)

// close collects, after all is over, what the queues say.
func (a *arena) close() {
	for _, b := range a.books {
		if b.q == nil {
			continue
		}
		b.collect()
	}
	_ = a.shared.Close()
	a.collectShared()
	a.learnOrder()
	a.checkAround()
	a.checkShutdown()
}

// collect takes down what the queue held when it closed, and its letters.
func (b *book) collect() {
	a := b.a
	if !b.finished.Load() {
		b.closeCall, b.closeRet = a.endCall, a.endRet
	}
	b.closeCall, b.closeRet = min(b.closeCall, a.endCall), min(b.closeRet, a.endRet)
	for _, m := range b.q.Leftovers() {
		b.events = append(b.events, event{at: b.closeRet, msg: m.Body, deed: left})
		a.bind(m.ID, m.Body)
	}
	b.stats = b.q.Stats()
	b.checkAround()
	for _, c := range b.limited {
		c.provePace()
	}
	if b.spec.shared {
		return
	}
	d := b.q.DeadLetters()
	b.letters = d.Stats()
	ls, err := d.Peek(context.Background(), fanout.Unlimited)
	if err != nil {
		a.w.complain("dead letters", "queue %s: Peek: %v", b.name, err)
	}
	for _, l := range ls {
		b.events = append(b.events, event{at: a.w.now(), msg: l.Body, deed: letterLeft})
	}
}

func (a *arena) collectShared() {
	ls, err := a.shared.Peek(context.Background(), fanout.Unlimited)
	if err != nil {
		a.w.complain("dead letters", "shared of topic %s: Peek: %v", a.name, err)
	}
	held := a.shared.Stats().Unsettled()
	if held != len(ls) {
		a.w.complain("dead letters", "shared of topic %s: holds %d, but Peek finds %d", a.name, held, len(ls))
	}
	for _, l := range ls {
		if b := a.source(l); b != nil {
			b.events = append(b.events, event{at: a.w.now(), msg: l.Body, deed: letterLeft})
		}
	}
}

// source returns the book of the queue that a shared letter comes from.
func (a *arena) source(l fanout.Delivery[ticket]) *book {
	for h := l.History(); len(h) > 0; h = h[:len(h)-1] {
		if v, ok := a.byName.Load(h[len(h)-1].Queue); ok {
			return v.(*book)
		}
	}
	a.w.complain("dead letters", "message %d in shared of topic %s comes from no queue: %v", l.Body, a.name, l.History())
	return nil
}

// checkShutdown compares what Shutdown said was left with what was handed out.
func (a *arena) checkShutdown() {
	var s *fanout.ShutdownError
	if a.endErr == nil {
		if way := a.top.Leftovers(); a.top.Shutdown(context.Background()) == nil && len(way) > 0 {
			a.w.complain("clean end", "topic %s: the end left %v and Shutdown says nothing of it", a.name, len(way))
		}
		return
	}
	if !errors.As(a.endErr, &s) {
		a.w.complain("clean end", "topic %s: Shutdown returned %v", a.name, a.endErr)
		return
	}
	handed := a.top.Leftovers()
	for _, l := range s.Queues {
		n := l.Ready + l.Retrying + l.Delayed + l.InFlight + l.Parked + l.Released + l.Blocked
		if len(handed[l.Queue]) != n {
			a.w.complain("clean end", "topic %s: Shutdown says %v, Leftovers hands out %d", a.name, l, len(handed[l.Queue]))
		}
		delete(handed, l.Queue)
	}
	if len(handed) > 0 {
		a.w.complain("clean end", "topic %s: Leftovers hands out messages of %d queues of which Shutdown says nothing", a.name, len(handed))
	}
}

// bind remembers an ID that the topic made. It is called by the witness's one
// worker, and after the round.
func (a *arena) bind(id string, m ticket) {
	if id[0] != 'm' {
		a.ids[id] = m
	}
}

func idOf(m ticket) string { return "m" + strconv.Itoa(int(m)) }

// ticketOf is the reverse of idOf and bind.
func (j *journal) ticketOf(id string) (ticket, bool) {
	if len(id) > 1 && id[0] == 'm' {
		n, err := strconv.Atoi(id[1:])
		return ticket(n), err == nil
	}
	m, ok := j.ids[id]
	return m, ok
}
