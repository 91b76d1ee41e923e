package enginetest

import (
	"slices"
	"strings"
	"time"

	"github.com/gofanout/fanout/engine"
)

func stateChecks() []check {
	const rule = "What is given to Return comes back with the message."
	return []check{
		{feature: engine.State, name: "state", rule: rule, run: checkState},
		{feature: engine.State, name: "state after a lease", rule: rule, needs: []engine.Feature{engine.Visibility}, run: func(x *fixture) {
			top := x.topic()
			q := x.open(top, "q")
			x.publish(top, message("a"))
			x.giveBack(q, x.receiveID(q, x.long(), "a"), 0, "one")
			x.receiveID(q, x.o.pace, "a")
			equal(x, string(x.receiveID(q, x.long(), "a").State), "one", "State, after a lease that ended")
		}},
		{feature: engine.State, name: "state of one queue", rule: rule, run: func(x *fixture) {
			top := x.topic()
			a, b := x.open(top, "a"), x.open(top, "b")
			x.publish(top, message("m"))
			x.giveBack(a, x.receiveID(a, x.long(), "m"), 0, "of a")
			equal(x, string(x.receiveID(b, x.long(), "m").State), "", "State in the other queue")
			equal(x, string(x.receiveID(a, x.long(), "m").State), "of a", "State in the queue it was returned to")
		}},
		{feature: engine.State, name: "state of a letter", rule: rule + " A queue's dead-letter queue is a Queue too.", run: func(x *fixture) {
			top := x.topic()
			q := x.open(top, "q")
			x.publish(top, message("m"))
			x.bury(q, x.receiveID(q, x.long(), "m"), "dead")
			x.giveBack(x.dead(q), x.receiveID(x.dead(q), x.long(), "m"), 0, "looked at")
			equal(x, string(x.receiveID(x.dead(q), x.long(), "m").State), "looked at", "State of the letter")
		}},
	}
}

func checkState(x *fixture) {
	top := x.topic()
	q := x.open(top, "q")
	x.publish(top, message("a"))
	r := x.receiveID(q, x.long(), "a")
	equal(x, string(r.State), "", "State of a new message")
	states := []string{"one", `{"error":"Grüße 日本 🐟"}`, "\x00\x01\xff binary", strings.Repeat("history ", 1000), "short", ""}
	for _, state := range states {
		x.giveBack(q, r, 0, state)
		r = x.receiveID(q, x.long(), "a")
		equal(x, string(r.State), state, "State after a return")
	}
	equal(x, string(r.Body), `{"id":"a"}`, "the body, after returns with states")
}

func fencingChecks() []check {
	const rule = "The engine itself refuses to settle a lease that has ended: ErrStale, and nothing happens to the message."
	settles := map[string]func(q engine.Queue, x *fixture, r engine.Received) error{
		"ack": func(q engine.Queue, x *fixture, r engine.Received) error { return q.Ack(x.ctx, r.Receipt) },
		"return": func(q engine.Queue, x *fixture, r engine.Received) error {
			return q.Return(x.ctx, r.Receipt, 0, []byte("stale"))
		},
		"extend": func(q engine.Queue, x *fixture, r engine.Received) error {
			return q.Extend(x.ctx, r.Receipt, 50*x.o.pace)
		},
		"dead-letter": func(q engine.Queue, x *fixture, r engine.Received) error {
			return q.DeadLetter(x.ctx, r.Receipt, r.Message)
		},
	}
	all := []check{}
	for _, name := range []string{"ack", "return", "extend", "dead-letter"} {
		settle := settles[name]
		all = append(all,
			check{feature: engine.Fencing, name: "stale " + name, rule: rule, needs: []engine.Feature{engine.Visibility}, run: func(x *fixture) { checkStale(x, settle) }},
			check{feature: engine.Fencing, name: "stale " + name + " before the next delivery", rule: rule, needs: []engine.Feature{engine.Visibility},
				run: func(x *fixture) { checkStaleEarly(x, settle) }})
	}
	return append(all,
		check{feature: engine.Fencing, name: "stale after a return", rule: rule, run: func(x *fixture) {
			top := x.topic()
			q := x.open(top, "q")
			x.publish(top, message("a"))
			first := x.receiveID(q, x.long(), "a")
			x.giveBack(q, first, 0, "")
			x.mustBe(q.Ack(x.ctx, first.Receipt), engine.ErrStale, "Ack after Return")
			second := x.receiveID(q, x.long(), "a")
			x.mustBe(q.Ack(x.ctx, first.Receipt), engine.ErrStale, "Ack after Return, when another has the message")
			x.ack(q, second)
			x.mustBe(q.Ack(x.ctx, second.Receipt), engine.ErrStale, "Ack after Ack")
		}},
		check{feature: engine.Fencing, name: "stale redrive", rule: rule, needs: []engine.Feature{engine.Visibility}, run: func(x *fixture) {
			top := x.topic()
			q := x.open(top, "q")
			x.publish(top, message("a"))
			x.bury(q, x.receiveID(q, x.long(), "a"), "state")
			old := x.receiveID(x.dead(q), x.o.pace, "a")
			x.receiveID(x.dead(q), x.long(), "a")
			x.mustBe(x.dead(q).Redrive(x.ctx, old.Receipt, old.Message), engine.ErrStale, "Redrive of a letter whose lease has ended")
			x.none(q, x.quiet(), "the redrive was refused")
		}})
}

// checkStale settles the first lease while the second runs.
func checkStale(x *fixture, settle func(q engine.Queue, x *fixture, r engine.Received) error) {
	top := x.topic()
	q := x.open(top, "q")
	x.publish(top, message("a"))
	first := x.receiveID(q, x.o.pace, "a")
	start := time.Now()
	second := x.receiveID(q, 3*x.o.pace, "a")
	x.mustBe(settle(q, x, first), engine.ErrStale, "settling a lease that has ended, while another runs")
	third := x.receiveID(q, x.long(), "a")
	x.notBefore(start, 3*x.o.pace, "the delivery after the second lease")
	equal(x, third.Deliveries, second.Deliveries+1, "Deliveries, after the second lease ended")
	equal(x, string(third.State), "", "State, since the stale settlement did nothing")
	x.ack(q, third)
	x.none(x.dead(q), x.quiet(), "a stale settlement did nothing")
}

// checkStaleEarly settles a lease that has ended when nobody took the message yet.
func checkStaleEarly(x *fixture, settle func(q engine.Queue, x *fixture, r engine.Received) error) {
	top := x.topic()
	q := x.open(top, "q")
	x.publish(top, message("a"))
	first := x.receiveID(q, x.o.pace, "a")
	x.pause(x.o.pace + x.o.pace/4 + x.o.early)
	x.mustBe(settle(q, x, first), engine.ErrStale, "settling a lease that has ended, before another began")
	equal(x, x.receiveID(q, x.long(), "a").Deliveries, 2, "Deliveries")
}

func statsChecks() []check {
	const rule = "Stats are exact when nothing happens."
	return []check{
		{feature: engine.ExactStats, name: "exact stats", rule: rule, run: checkExactStats},
		{name: "oldest age", rule: "OldestAge is how long ago the oldest of the ready messages was published, by its PublishedAt, or Unknown.", run: checkOldestAge},
		{feature: engine.Listing, name: "list queues", rule: "ListQueues returns the queues of the topic, those that no process has open included, each once, in the order of their names.",
			run: checkListQueues},
		{feature: engine.ExactStats, name: "exact stats of delays", rule: rule, needs: []engine.Feature{engine.MessageDelay}, run: func(x *fixture) {
			top := x.topic()
			q := x.open(top, "q")
			m := message("late")
			m.Delay = 2 * x.o.pace
			start := time.Now()
			x.publish(top, m)
			s, err := q.Stats(x.ctx)
			x.must(err, "Stats")
			if s.OldestAge = 0; s != (engine.Stats{Delayed: 1}) && time.Since(start) < m.Delay {
				x.fail("one message is delayed: got %+v", s)
			}
			x.pause(m.Delay + x.o.pace)
			x.stats(q, engine.Stats{Ready: 1}, "the delay has passed")
		}},
	}
}

// stats waits until the engine says want, as it may take a moment for the dust
// to settle.
func (x *fixture) stats(q engine.Queue, want engine.Stats, when string) {
	deadline := time.Now().Add(x.o.patience / 4)
	for {
		got, err := q.Stats(x.ctx)
		x.must(err, "Stats")
		if got.OldestAge = 0; got == want { // that has a check of its own
			return
		}
		if time.Now().After(deadline) {
			x.fail("%s: got %+v, not %+v", when, got, want)
		}
		x.pause(x.o.pace / 20)
	}
}

// agedBy waits until the engine says that the oldest ready message is as old as its
// PublishedAt says, or that it doesn't know.
func (x *fixture) agedBy(q engine.Queue, published time.Time, when string) {
	deadline := time.Now().Add(x.o.patience / 4)
	for {
		least := time.Since(published)
		s, err := q.Stats(x.ctx)
		x.must(err, "Stats")
		if most := time.Since(published); s.OldestAge == engine.Unknown || least <= s.OldestAge && s.OldestAge <= most {
			return
		}
		if time.Now().After(deadline) {
			x.fail("%s: OldestAge is %v, and the message was published %v before", when, s.OldestAge, least)
		}
		x.pause(x.o.pace / 20)
	}
}

func checkOldestAge(x *fixture) {
	top := x.topic()
	q := x.open(top, "q")
	old, young := message("old"), message("young")
	young.PublishedAt = young.PublishedAt.Add(30 * time.Second)
	x.publish(top, old)
	x.agedBy(q, old.PublishedAt, "one message is ready")
	x.publish(top, young)
	x.agedBy(q, old.PublishedAt, "two messages are ready")
	r := x.receive(q, x.long())
	oldest := map[string]engine.Message{"old": young, "young": old}[r.ID]
	x.agedBy(q, oldest.PublishedAt, "one of two was received")
	x.giveBack(q, r, 0, "")
	x.agedBy(q, old.PublishedAt, "it was returned")
}

func checkListQueues(x *fixture) {
	top := x.topic()
	l, ok := top.(engine.Lister)
	if !ok {
		x.fail("the topic of an engine that keeps %q is a %T, no engine.Lister", engine.Listing, top)
	}
	x.lists(l, nil, "the topic is new")
	b, a := x.open(top, "b"), x.open(top, "a")
	x.publish(top, messages("1", "2", "3")...)
	x.bury(a, x.receive(a, x.long()), "state")
	x.receive(a, x.long())
	want := []engine.QueueInfo{
		{Name: "a", Stats: engine.Stats{Ready: 1, InFlight: 1}, Letters: engine.Stats{Ready: 1}},
		{Name: "b", Stats: engine.Stats{Ready: 3}},
	}
	x.lists(l, want, "two queues are open")
	x.must(b.Close(), "Close")
	x.publish(top, message("4"))
	want[0].Stats.Ready, want[1].Stats.Ready = 2, 4
	x.lists(l, want, "one of two queues was closed")
	other, ok := x.topic().(engine.Lister)
	if !ok {
		x.fail("one topic is an engine.Lister, another is not")
	}
	x.lists(other, nil, "the queues are another topic's")
	if x.caps.Keeps(engine.Deletion, 0) {
		_, _, err := b.Delete(x.ctx)
		x.must(err, "Delete")
		x.lists(l, want[:1], "one of two queues was deleted")
	}
}

// lists waits until the engine lists the queues that are wanted. What they hold counts
// where the engine knows it exactly.
func (x *fixture) lists(l engine.Lister, want []engine.QueueInfo, when string) {
	exact := x.caps.Keeps(engine.ExactStats, 0)
	same := func(got, want engine.QueueInfo) bool {
		got.Stats.OldestAge, got.Letters.OldestAge = 0, 0
		return got.Name == want.Name && (!exact || got == want)
	}
	ctx, cancel := x.within(x.o.patience)
	defer cancel()
	for {
		got, err := l.ListQueues(ctx)
		x.must(err, "ListQueues")
		if slices.EqualFunc(got, want, same) {
			return
		}
		x.pause(x.o.pace / 20)
		if ctx.Err() != nil {
			x.fail("%s: got %+v, not %+v", when, got, want)
		}
	}
}

func checkExactStats(x *fixture) {
	top := x.topic()
	q := x.open(top, "q")
	x.stats(q, engine.Stats{}, "the queue is new")
	x.publish(top, messages("1", "2", "3", "4")...)
	x.stats(q, engine.Stats{Ready: 4}, "four messages were published")
	all := []engine.Received{}
	for range 3 {
		all = append(all, x.receive(q, x.long()))
	}
	x.stats(q, engine.Stats{Ready: 1, InFlight: 3}, "three of four were received")
	x.ack(q, all[0])
	x.stats(q, engine.Stats{Ready: 1, InFlight: 2}, "one was acknowledged")
	x.giveBack(q, all[1], 0, "")
	x.stats(q, engine.Stats{Ready: 2, InFlight: 1}, "one was returned")
	x.bury(q, all[2], "state")
	x.stats(q, engine.Stats{Ready: 2}, "one was dead-lettered")
	x.stats(x.dead(q), engine.Stats{Ready: 1}, "there is one letter")
	letter := x.receive(x.dead(q), x.long())
	x.stats(x.dead(q), engine.Stats{InFlight: 1}, "the letter was received")
	x.must(x.dead(q).Redrive(x.ctx, letter.Receipt, letter.Message), "Redrive")
	x.stats(q, engine.Stats{Ready: 3}, "the letter was redriven")
	x.stats(x.dead(q), engine.Stats{}, "the letter was redriven")
	n, err := q.Purge(x.ctx)
	x.must(err, "Purge")
	equal(x, n, 3, "messages purged")
	x.stats(q, engine.Stats{}, "the queue was purged")
}
