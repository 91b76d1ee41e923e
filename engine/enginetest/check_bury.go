package enginetest

import (
	"context"
	"fmt"
	"time"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/engine"
)

func buryChecks() []check {
	return []check{
		{name: "dead letter with history", rule: "The dead letter carries the message and the whole history of its attempts.", run: promiseLetter},
		{name: "permanent", rule: "Permanent dead-letters the message now.", run: func(x *fixture) {
			top := x.newTopic()
			q := top.queue("q")
			top.send("a")
			x.must(q.nextID("a").Settle(x.ctx, fanout.Permanent(errBusy)), "Settle")
			equal(x, causes(q.dead().nextID("a").History()), said(fanout.PermanentlyFailed), "history of the letter")
			q.empty("the message is dead")
		}},
		{name: "expired", rule: "A message that was not given to a consumer within its time to live is dead-lettered as Expired.", run: promiseExpired},
		{name: "letters are retried for ever", rule: "What fails in a dead-letter queue is retried there for ever.", run: func(x *fixture) {
			q := x.withLetters("a")
			for n := 1; n <= 7; n++ {
				d := q.dead().nextID("a")
				x.must(d.NackAfter(x.ctx, 0), "NackAfter of the letter")
			}
			q.dead().ack(q.dead().nextID("a"))
			q.dead().empty("the letter is acknowledged")
		}},
		{name: "redrive all", rule: "Redrive sends dead letters back to their queue, and to no other; attempts start anew, histories stay.", run: promiseRedriveAll},
		{name: "redrive by ID", rule: "RedriveIDs selects dead letters by the IDs of their messages, and names those that it doesn't know.", run: func(x *fixture) {
			q := x.withLetters("1", "2", "3")
			x.redrive(q, 2, fanout.RedriveIDs("1", "3"))
			q.holds("1", "3")
			_, err := q.Redrive(x.ctx, fanout.RedriveIDs("4"))
			x.mustBe(err, fanout.ErrUnknownID, "Redrive of an ID that no letter has")
			q.dead().holds("2")
		}},
		{name: "redrive if", rule: "RedriveIf selects the dead letters that keep accepts, their histories included.", run: func(x *fixture) {
			q := x.withLetters("1", "2", "3")
			x.redrive(q, 1, fanout.RedriveIf(func(d fanout.Delivery[order]) bool {
				return d.Body.ID == "2" && causes(d.History()) == said(fanout.PermanentlyFailed)
			}))
			q.holds("2")
			q.dead().holds("1", "3")
		}},
		{name: "redrive leaves what is in hand", rule: "Letters that a consumer of the dead-letter queue has in hand are left there.", run: func(x *fixture) {
			q := x.withLetters("1", "2")
			held := q.dead().next()
			x.redrive(q, 1)
			q.next()
			q.dead().ack(held)
			q.dead().empty("one letter was redriven, one acknowledged")
		}},
		{name: "redrive and die again", rule: "Redrive keeps the history and starts a fresh count.", run: promiseDieAgain},
	}
}

// withLetters makes a queue, beside another, whose letters are these.
func (x *fixture) withLetters(ids ...string) queueOf {
	top := x.newTopic()
	q := top.queue("q")
	top.send(ids...)
	for _, d := range q.all(len(ids)) {
		x.must(d.Settle(x.ctx, fanout.Permanent(errBusy)), "Settle of order %q", d.Body.ID)
	}
	return q
}

func (x *fixture) redrive(q queueOf, moved int, options ...fanout.RedriveOption) {
	ctx, cancel := x.within(x.o.patience)
	defer cancel()
	n, err := q.Redrive(ctx, options...)
	x.must(err, "Redrive")
	equal(x, n, moved, "letters redriven")
}

func promiseLetter(x *fixture) {
	top := x.newTopic()
	a, b := top.queue("a", fanout.WithMaxAttempts(2)), top.queue("b")
	m := mail("o-17")
	m.Attributes = map[string]string{"region": "eu"}
	m.Body.Note = "Grüße"
	top.sendMail(m)
	for n := 1; n <= 2; n++ {
		x.must(a.nextID("o-17").Settle(x.ctx, fmt.Errorf("attempt %d: Grüße: %w", n, errBusy)), "Settle")
	}
	d := a.dead().nextID("o-17")
	equal(x, d.ID(), "o-17", "ID of the letter")
	equal(x, d.Body.Note, "Grüße", "body of the letter")
	region, _ := d.Attribute("region")
	equal(x, region, "eu", "attribute of the letter")
	h := d.History()
	equal(x, causes(h), said(fanout.Failed, fanout.Failed), "history of the letter")
	for i, a := range h {
		equal(x, a.Err.Error(), fmt.Sprintf("attempt %d: Grüße: busy", i+1), "error of attempt %d", i+1)
		equal(x, a.Queue, "a", "queue of attempt %d", i+1)
	}
	a.empty("the message is dead")
	b.holds("o-17")
	b.dead().empty("the message died in the other queue")
}

func promiseExpired(x *fixture) {
	top := x.newTopic()
	q := top.queue("q")
	m := mail("a")
	m.TimeToLive = x.o.pace
	top.sendMail(m)
	x.pause(x.o.pace + x.o.pace/4)
	top.send("b")
	q.nextID("b")
	equal(x, causes(q.dead().nextID("a").History()), said(fanout.Expired), "history of the letter")
}

func promiseRedriveAll(x *fixture) {
	top := x.newTopic()
	q, other := top.queue("q"), top.queue("other")
	top.send("1", "2")
	other.holds("1", "2")
	for _, d := range q.all(2) {
		x.must(d.Settle(x.ctx, fanout.Permanent(errBusy)), "Settle")
	}
	x.settledDepth(q.dead(), 2)
	x.redrive(q, 2)
	for _, d := range q.all(2) {
		equal(x, d.Attempt(), 1, "attempt of a redriven message")
		equal(x, causes(d.History()), said(fanout.PermanentlyFailed), "history of a redriven message")
		q.ack(d)
	}
	q.empty("all is acknowledged")
	q.dead().empty("all was redriven")
	other.empty("the letters were not the other queue's")
	x.redrive(q, 0)
}

// redriveOne redrives until a letter has come and moved.
func (x *fixture) redriveOne(q queueOf, options ...fanout.RedriveOption) {
	for deadline := time.Now().Add(x.o.patience); ; x.pause(x.o.pace / 20) {
		n, err := q.Redrive(x.ctx, options...)
		x.must(err, "Redrive")
		if n == 1 {
			return
		}
		if time.Now().After(deadline) {
			x.fail("no letter was redriven within %v", x.o.patience)
		}
	}
}

// settledDepth checks what Depth says, if the engine knows.
func (x *fixture) settledDepth(q queueOf, want int) {
	if !x.caps.Keeps(engine.ExactStats, 0) {
		return
	}
	deadline := time.Now().Add(x.o.patience)
	for {
		d, err := q.Depth(x.ctx)
		x.must(err, "Depth of queue %q", q.Name())
		if d.Unsettled() == want {
			return
		}
		if time.Now().After(deadline) {
			x.fail("%v, not %d in all", d, want)
		}
		x.pause(x.o.pace / 20)
	}
}

func promiseDieAgain(x *fixture) {
	top := x.newTopic()
	got := newInbox()
	top.subscribe("q", func(_ context.Context, d fanout.Delivery[order]) error {
		got <- d
		return errBusy
	}, fanout.WithMaxAttempts(2))
	q := queueOf{top.Queue("q"), x}
	top.send("a")
	for round := 1; round <= 2; round++ {
		for n := 1; n <= 2; n++ {
			equal(x, got.next(x).Attempt(), n, "attempt in round %d", round)
		}
		if round == 2 {
			equal(x, len(q.dead().nextID("a").History()), 4, "attempts in the history of the letter")
			break
		}
		attempts := 0
		x.redriveOne(q, fanout.RedriveIf(func(d fanout.Delivery[order]) bool {
			attempts = len(d.History())
			return true
		}))
		equal(x, attempts, 2, "attempts in the history of the letter that is redriven")
	}
	got.quiet(x, x.quiet(), "the message is dead")
}
