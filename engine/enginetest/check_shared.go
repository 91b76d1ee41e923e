package enginetest

import (
	"runtime"
	"strings"
	"time"

	"github.com/gofanout/fanout/engine"
)

func reopenChecks() []check {
	const rule = "Messages outlive the process: what Publish returned nil for, the engine has for good."
	return []check{
		{feature: engine.Durable, name: "reopen", rule: rule, run: checkReopen},
		{feature: engine.Durable, name: "reopen dead letters", rule: rule, run: func(x *fixture) {
			spec, q, top := x.durable()
			x.publish(top, message("a"))
			x.bury(q, x.receiveID(q, x.long(), "a"), "dead")
			q, _ = x.again(spec)
			letter := x.receiveID(x.dead(q), x.long(), "a")
			equal(x, string(letter.State), "dead", "State of the letter, after reopening")
			x.must(x.dead(q).Redrive(x.ctx, letter.Receipt, letter.Message), "Redrive")
			x.receiveID(q, x.long(), "a")
		}},
		{feature: engine.Durable, name: "reopen and lease", rule: rule + " What was leased comes when its lease ends.", needs: []engine.Feature{engine.Visibility},
			run: func(x *fixture) {
				spec, q, top := x.durable()
				x.publish(top, message("a"))
				start := time.Now()
				x.receiveID(q, x.o.pace, "a")
				q, _ = x.again(spec)
				r := x.receiveID(q, x.long(), "a")
				x.notBefore(start, x.o.pace, "the message leased by the process that ended")
				equal(x, r.Deliveries, 2, "Deliveries, after reopening")
			}},
		{feature: engine.Durable, name: "reopen and state", rule: rule, needs: []engine.Feature{engine.State}, run: func(x *fixture) {
			spec, q, top := x.durable()
			x.publish(top, message("a"))
			x.giveBack(q, x.receiveID(q, x.long(), "a"), 0, "one")
			q, _ = x.again(spec)
			equal(x, string(x.receiveID(q, x.long(), "a").State), "one", "State, after reopening")
		}},
	}
}

func (x *fixture) durable() (engine.TopicSpec, engine.Queue, engine.Topic) {
	spec := engine.TopicSpec{Name: x.unique("topic")}
	top := x.openTopic(x.e, spec)
	return spec, x.open(top, "q"), top
}

// again ends the process and opens the topic and the queue anew.
func (x *fixture) again(spec engine.TopicSpec) (engine.Queue, engine.Topic) {
	x.reopenEngine()
	top := x.openTopic(x.e, spec)
	return x.open(top, "q"), top
}

// reopenEngine ends the engine's process and makes the engine of a new one.
func (x *fixture) reopenEngine() {
	reopen := x.o.reopen
	if reopen == nil {
		reopen = x.o.sibling
	}
	if reopen == nil {
		x.fail("the engine declares %q; the option Reopen or Sibling must say how it is opened again", engine.Durable)
	}
	x.e = reopen(x.TB, x.e)
}

func checkReopen(x *fixture) {
	spec, q, top := x.durable()
	x.publish(top, messages("1", "2", "3")...)
	all := x.collect(q, 3)
	x.ack(q, all["1"])
	x.giveBack(q, all["2"], 0, "")
	x.giveBack(q, all["3"], 0, "")
	q, top = x.again(spec)
	x.publish(top, message("4"))
	x.mustHold(x.collect(q, 3), "2", "3", "4")
	x.none(q, x.quiet(), "message 1 was acknowledged before the process ended")
}

func siblingChecks() []check {
	const rule = "Several processes can share a topic and its queues."
	return []check{
		{feature: engine.Distributed, name: "publish elsewhere", rule: "Publish hands ms to every queue that is open, here or elsewhere.", run: func(x *fixture) {
			here, there := x.twoTopics()
			a := x.open(here, "a")
			b := x.open(there, "b")
			x.publish(here, message("1"))
			x.publish(there, message("2"))
			x.mustHold(x.collect(a, 2), "1", "2")
			x.mustHold(x.collect(b, 2), "1", "2")
		}},
		{feature: engine.Distributed, name: "compete", rule: rule + " A message is hidden from other receivers, here and elsewhere.", run: func(x *fixture) {
			here, there := x.twoTopics()
			a, b := x.open(here, "q"), x.open(there, "q")
			c := x.compete(60, 2, a, b)
			x.publishConcurrently(here, "here", 2, 15)
			x.publishConcurrently(there, "there", 2, 15)
			c.end()
			x.none(a, x.quiet(), "all is acknowledged")
		}},
		{feature: engine.Distributed, name: "lease of another", rule: "A message that is not settled within its lease is returned by a later Receive, here or elsewhere.",
			needs: []engine.Feature{engine.Visibility}, run: func(x *fixture) {
				here, there := x.twoTopics()
				a, b := x.open(here, "q"), x.open(there, "q")
				x.publish(here, message("m"))
				start := time.Now()
				x.receiveID(a, x.o.pace, "m")
				x.must(a.Close(), "Close")
				r := x.receiveID(b, x.long(), "m")
				x.notBefore(start, x.o.pace, "the message that another process leased")
				equal(x, r.Deliveries, 2, "Deliveries")
			}},
		{feature: engine.Distributed, name: "dead letters of another", rule: rule, run: func(x *fixture) {
			here, there := x.twoTopics()
			a, b := x.open(here, "q"), x.open(there, "q")
			x.publish(here, message("m"))
			x.bury(a, x.receiveID(a, x.long(), "m"), "dead")
			letter := x.receiveID(x.dead(b), x.long(), "m")
			equal(x, string(letter.State), "dead", "State of the letter, elsewhere")
			x.must(x.dead(b).Redrive(x.ctx, letter.Receipt, letter.Message), "Redrive")
			x.receiveID(a, x.long(), "m")
		}},
		{feature: engine.Distributed, name: "stale elsewhere", rule: "The engine itself refuses to settle a lease that has ended.",
			needs: []engine.Feature{engine.Fencing, engine.Visibility}, run: func(x *fixture) {
				here, there := x.twoTopics()
				a, b := x.open(here, "q"), x.open(there, "q")
				x.publish(here, message("m"))
				old := x.receiveID(a, x.o.pace, "m")
				r := x.receiveID(b, x.long(), "m")
				x.mustBe(a.Ack(x.ctx, old.Receipt), engine.ErrStale, "Ack of a message that another process has now")
				x.ack(b, r)
			}},
		{feature: engine.Distributed, name: "deduplicate elsewhere", rule: "A DeduplicationID counts once within the window.",
			needs: []engine.Feature{engine.Deduplication}, run: func(x *fixture) {
				spec := engine.TopicSpec{Name: x.unique("topic"), Deduplication: x.o.window}
				here, there := x.openTopic(x.e, spec), x.openTopic(x.another(), spec)
				q := x.open(here, "q")
				start := time.Now()
				x.publish(here, withID("1", "x"))
				x.publish(there, withID("2", "x"))
				x.tooSlow(start, x.o.window)
				x.receiveID(q, x.long(), "1")
				x.none(q, x.quiet(), "another process published the ID before")
			}},
	}
}

// twoTopics opens a topic here and in another process.
func (x *fixture) twoTopics() (here, there engine.Topic) {
	spec := engine.TopicSpec{Name: x.unique("topic")}
	return x.openTopic(x.e, spec), x.openTopic(x.another(), spec)
}

// another makes the engine of another process.
func (x *fixture) another() engine.Engine {
	if x.o.sibling == nil {
		x.fail("the engine declares %q; the option Sibling must say how another process has it", engine.Distributed)
	}
	return x.o.sibling(x.TB, x.e)
}

// checkGoroutines uses an engine once, so that its client is warm, then counts the
// goroutines that a second use leaves. It runs alone.
func checkGoroutines(x *fixture) {
	x.useAndClose()
	before := x.goroutines()
	for range 3 {
		x.useAndClose()
	}
	if x.o.virtual {
		return // the bubble sees to it
	}
	deadline := time.Now().Add(x.o.patience / 3)
	for {
		after := x.goroutines()
		if len(after) <= len(before) {
			return
		}
		if time.Now().After(deadline) {
			x.fail("%d goroutines before, %d after three topics were used and closed; the last:\n%s", len(before), len(after), after[len(after)-1])
		}
		x.pause(10 * time.Millisecond)
	}
}

// useAndClose opens a topic, has receivers wait, moves a message through, and
// closes all.
func (x *fixture) useAndClose() {
	top := x.topic()
	a, b := x.open(top, "a"), x.open(top, "b")
	receive := func() error { _, err := b.Receive(x.ctx, 1, 0); return err }
	first := x.begin(receive)
	x.publish(top, message("m"))
	x.must(x.end(first, "Receive"), "Receive")
	w := x.begin(receive)
	x.bury(a, x.receive(a, 0), "")
	x.receive(x.dead(a), 0)
	x.must(a.Close(), "Close")
	x.must(b.Close(), "Close")
	x.mustBe(x.end(w, "Receive, when its queue was closed"), engine.ErrClosed, "Receive, when its queue was closed")
	x.must(top.Close(), "Close of the topic")
}

// goroutines returns the stacks of those that could be the engine's.
func (x *fixture) goroutines() (stacks []string) {
	b := make([]byte, 1<<20)
	b = b[:runtime.Stack(b, true)]
next:
	for s := range strings.SplitSeq(string(b), "\n\n") {
		for _, foreign := range x.o.foreign {
			if strings.Contains(s, foreign) {
				continue next
			}
		}
		stacks = append(stacks, s)
	}
	return stacks
}
