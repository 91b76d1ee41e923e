package enginetest

import (
	"context"
	"fmt"
	"time"

	"github.com/gofanout/fanout/engine"
)

func settleChecks() []check {
	return []check{
		{name: "ack", rule: "Ack ends the message: the queue is done with it.", run: checkAck},
		{name: "return at once", rule: "Return makes the message available again after wait, which may be 0.", run: checkReturnAtOnce},
		{name: "return one of many", rule: "Return makes the message available again, and no other.", run: checkReturnOne},
		{name: "returned message wakes", rule: "Receive waits until there is a message.", run: checkReturnWakes},
		{feature: engine.RetryDelay, name: "return after a wait", rule: "Return makes the message available again after wait.", run: checkReturnWait},
		{feature: engine.RetryDelay, name: "wait of a dead letter", rule: "Return makes the message available again after wait. A queue's dead-letter queue is a Queue too.", run: checkReturnLetter},
	}
}

func checkAck(x *fixture) {
	top := x.topic()
	q := x.open(top, "q")
	x.publish(top, messages("1", "2")...)
	all := x.collect(q, 2)
	x.ack(q, all["1"])
	x.giveBack(q, all["2"], 0, "")
	x.ack(q, x.receiveID(q, x.long(), "2"))
	x.none(q, x.quiet(), "both are acknowledged")
}

func checkReturnAtOnce(x *fixture) {
	top := x.topic()
	q, other := x.open(top, "q"), x.open(top, "other")
	x.publish(top, message("a"))
	for n := 1; n <= 3; n++ {
		r := x.receiveID(q, x.long(), "a")
		equal(x, r.Deliveries, n, "Deliveries of delivery %d", n)
		x.giveBack(q, r, 0, "")
	}
	r := x.receiveID(other, x.long(), "a")
	equal(x, r.Deliveries, 1, "Deliveries in the other queue")
	x.ack(other, r)
	x.none(other, x.quiet(), "what was returned to one queue is not the other's")
}

func checkReturnOne(x *fixture) {
	top := x.topic()
	q := x.open(top, "q")
	x.publish(top, messages("1", "2", "3")...)
	all := x.collect(q, 3)
	x.giveBack(q, all["2"], 0, "")
	x.receiveID(q, x.long(), "2")
	x.none(q, x.quiet(), "the others are leased")
}

func checkReturnWakes(x *fixture) {
	top := x.topic()
	q := x.open(top, "q")
	x.publish(top, message("a"))
	r := x.receiveID(q, x.long(), "a")
	w := x.begin(func() error {
		ctx, cancel := x.within(x.o.patience)
		defer cancel()
		got, err := q.Receive(ctx, 1, x.long())
		if err == nil && (len(got) != 1 || got[0].ID != "a") {
			err = fmt.Errorf("received %v", got)
		}
		return err
	})
	x.pause(x.quiet())
	x.giveBack(q, r, 0, "")
	x.must(x.end(w, "Receive"), "a Receive that waits while the message is returned")
}

func checkReturnWait(x *fixture) {
	top := x.topic()
	q := x.open(top, "q")
	x.publish(top, messages("1", "2")...)
	all := x.collect(q, 2)
	start := time.Now()
	x.giveBack(q, all["1"], 3*x.o.pace, "")
	x.giveBack(q, all["2"], x.o.pace, "")
	first := x.receive(q, x.long())
	if first.ID == "1" {
		x.tooSlow(start, 3*x.o.pace-x.o.early) // both may have been ready by then
	}
	equal(x, first.ID, "2", "the message with the shorter wait")
	x.notBefore(start, x.o.pace, "the message with the shorter wait")
	r := x.receiveID(q, x.long(), "1")
	x.notBefore(start, 3*x.o.pace, "the message with the longer wait")
	equal(x, r.Deliveries, 2, "Deliveries, since the wait is none")
}

func checkReturnLetter(x *fixture) {
	top := x.topic()
	q := x.open(top, "q")
	dead := x.dead(q)
	x.publish(top, message("a"))
	x.bury(q, x.receiveID(q, x.long(), "a"), "state")
	start := time.Now()
	x.giveBack(dead, x.receiveID(dead, x.long(), "a"), x.o.pace, "state")
	r := x.receiveID(dead, x.long(), "a")
	x.notBefore(start, x.o.pace, "the letter")
	x.ack(dead, r)
	x.none(dead, x.quiet(), "the letter is acknowledged")
}

func deadLetterChecks() []check {
	return []check{
		{name: "dead letter", rule: "DeadLetter moves the message to the queue's dead-letter queue, with m, which is the message with its state.", run: checkDeadLetter},
		{name: "dead letters of no one else", rule: "DeadLetter moves the message to the queue's dead-letter queue.", run: checkDeadLetterOfOne},
		{name: "no dead letters of dead letters", rule: "DeadLetters returns nil for a queue that is a dead-letter queue. It does no I/O.", run: func(x *fixture) {
			d := x.dead(x.open(x.topic(), "q"))
			if again := d.DeadLetters(); again != nil {
				x.fail("DeadLetters of a dead-letter queue is a %T", again)
			}
		}},
		{name: "never in neither", rule: "First it is there, then it is gone here, so that a crash in between leaves two and never none.", run: checkNeverNone},
		{name: "redrive", rule: "Redrive moves a letter back to the queue that it came from, and to no other, with m, which is the letter with its new state.", run: checkRedrive},
		{name: "redrive and die again", rule: "Deliveries counts since the last Redrive.", run: checkRedriveAgain},
		{name: "redriven letters leave the others", rule: "Redrive moves a letter, and no other.", run: checkRedriveOne},
	}
}

func checkDeadLetter(x *fixture) {
	top := x.topic()
	q := x.open(top, "q")
	m := message("a")
	m.Attributes = map[string]string{"region": "eu"}
	x.publish(top, m)
	x.giveBack(q, x.receiveID(q, x.long(), "a"), 0, "once")
	x.bury(q, x.receiveID(q, x.lease(x.o.pace), "a"), "spent: Grüße")
	letter := x.receive(x.dead(q), x.long())
	equal(x, letter.Deliveries, 1, "Deliveries of the letter")
	m.State = []byte("spent: Grüße")
	x.same(letter.Message, m)
	x.none(q, 2*x.o.pace, "the message is a dead letter")
	x.ack(x.dead(q), letter)
	x.none(x.dead(q), x.quiet(), "the letter is acknowledged")
}

func checkDeadLetterOfOne(x *fixture) {
	top := x.topic()
	a, b := x.open(top, "a"), x.open(top, "b")
	x.publish(top, message("m"))
	x.bury(a, x.receiveID(a, x.long(), "m"), "state")
	x.receiveID(x.dead(a), x.long(), "m")
	r := x.receiveID(b, x.long(), "m")
	equal(x, string(r.State), "", "State of the message in the other queue")
	x.none(x.dead(b), x.quiet(), "the message is dead in the other queue only")
}

// checkNeverNone lets the context of the move end while it is under way: the
// message must be somewhere, in the one queue, the other or both.
func checkNeverNone(x *fixture) {
	top := x.topic()
	q := x.openQueue(top, engine.QueueSpec{Name: "q", Visibility: x.lease(x.o.pace)})
	const n = 10
	ids := []string{}
	for i := range n {
		ids = append(ids, fmt.Sprint(i))
	}
	x.publish(top, messages(ids...)...)
	for range n {
		r := x.receive(q, 0)
		ctx, cancel := context.WithCancel(x.ctx)
		w := x.begin(func() error { return q.DeadLetter(ctx, r.Receipt, r.Message) })
		cancel()
		_ = x.end(w, "DeadLetter")
	}
	found := map[string]bool{}
	for deadline := time.Now().Add(x.o.patience); len(found) < n; {
		if time.Now().After(deadline) {
			x.fail("of %d messages only %d are in the queue or in the dead-letter queue", n, len(found))
		}
		for _, q := range []engine.Queue{x.dead(q), q} {
			for _, r := range x.take(q, 10) {
				found[r.ID] = true
			}
		}
	}
}

func checkRedrive(x *fixture) {
	top := x.topic()
	q, other := x.open(top, "q"), x.open(top, "other")
	m := message("a")
	m.Attributes = map[string]string{"region": "eu"}
	x.publish(top, m)
	x.ack(other, x.receiveID(other, x.long(), "a"))
	x.bury(q, x.receiveID(q, x.long(), "a"), "spent")
	letter := x.receiveID(x.dead(q), x.lease(x.o.pace), "a")
	letter.State = []byte("fresh")
	x.mustSettle(x.dead(q).Redrive(x.ctx, letter.Receipt, letter.Message), "a", "Redrive")
	r := x.receiveID(q, x.long(), "a")
	m.State = []byte("fresh")
	x.same(r.Message, m)
	equal(x, r.Deliveries, 1, "Deliveries after the redrive")
	x.ack(q, r)
	x.none(other, x.quiet(), "the letter was redriven to another queue")
	x.none(x.dead(q), 2*x.o.pace, "the letter was redriven")
	x.none(q, x.quiet(), "the message is acknowledged")
}

func checkRedriveAgain(x *fixture) {
	top := x.topic()
	q := x.open(top, "q")
	x.publish(top, message("a"))
	for round := range 3 {
		r := x.receiveID(q, x.long(), "a")
		equal(x, r.Deliveries, 1, "Deliveries after %d redrives", round)
		x.bury(q, r, fmt.Sprint("died ", round))
		letter := x.receiveID(x.dead(q), x.long(), "a")
		equal(x, string(letter.State), fmt.Sprint("died ", round), "State of the letter")
		equal(x, letter.Deliveries, 1, "Deliveries of the letter, which is new there")
		x.must(x.dead(q).Redrive(x.ctx, letter.Receipt, letter.Message), "Redrive")
	}
	x.receiveID(q, x.long(), "a")
}

func checkRedriveOne(x *fixture) {
	top := x.topic()
	q := x.open(top, "q")
	x.publish(top, messages("1", "2")...)
	for _, r := range x.collect(q, 2) {
		x.bury(q, r, "state of "+r.ID)
	}
	letters := x.collect(x.dead(q), 2)
	x.mustHold(letters, "1", "2")
	x.must(x.dead(q).Redrive(x.ctx, letters["1"].Receipt, letters["1"].Message), "Redrive")
	x.giveBack(x.dead(q), letters["2"], 0, "state of 2")
	x.receiveID(q, x.long(), "1")
	x.none(q, x.quiet(), "only one letter was redriven")
	equal(x, string(x.receiveID(x.dead(q), x.long(), "2").State), "state of 2", "State of the letter that stayed")
}

func ruleChecks() []check {
	return []check{
		{name: "purge", rule: "Purge drops all that the queue holds.", run: checkPurge},
		{name: "purge dead letters", rule: "Purge drops all that the queue holds. A queue's dead-letter queue is a Queue too.", run: func(x *fixture) {
			top := x.topic()
			q := x.open(top, "q")
			x.publish(top, messages("1", "2")...)
			x.bury(q, x.receive(q, x.long()), "state")
			_, err := x.dead(q).Purge(x.ctx)
			x.must(err, "Purge")
			x.none(x.dead(q), x.quiet(), "the dead-letter queue was purged")
			x.receive(q, x.long())
		}},
		{name: "stats", rule: "Stats asks the engine what the queue holds.", run: func(x *fixture) {
			q := x.open(x.topic(), "q")
			for _, q := range []engine.Queue{q, x.dead(q)} {
				s, err := q.Stats(x.ctx)
				x.must(err, "Stats")
				if s.Ready < 0 || s.Delayed < 0 || s.InFlight < 0 {
					x.fail("%+v", s)
				}
			}
		}},
	}
}

func checkPurge(x *fixture) {
	top := x.topic()
	q, other := x.open(top, "q"), x.open(top, "other")
	x.publish(top, messages("1", "2", "3", "4")...)
	x.bury(q, x.receive(q, x.long()), "state")
	leased := x.receive(q, x.lease(x.o.pace))
	waiting := x.receive(q, x.long())
	if x.caps.Keeps(engine.RetryDelay, x.o.pace) {
		x.giveBack(q, waiting, x.o.pace, "")
	}
	n, err := q.Purge(x.ctx)
	x.must(err, "Purge")
	if x.caps.Keeps(engine.ExactStats, 0) {
		equal(x, n, 3, "messages dropped: one ready, one leased, one waiting")
	}
	x.none(q, 2*x.o.pace, "the queue was purged, and its leases and waits have ended")
	if x.caps.Keeps(engine.Fencing, 0) {
		x.mustBe(q.Ack(x.ctx, leased.Receipt), engine.ErrStale, "Ack of a message that was purged")
	}
	x.receive(x.dead(q), x.long())
	x.collect(other, 4)
	x.publish(top, message("5"))
	x.receiveID(q, x.long(), "5")
}
