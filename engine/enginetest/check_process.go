package enginetest

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/engine"
)

func processChecks() []check {
	const shared = "Several processes can share a topic and its queues."
	const durable = "Messages outlive the process."
	return []check{
		{feature: engine.Distributed, name: "two processes compete", rule: shared, run: func(x *fixture) {
			here, there := x.twoProcesses()
			a, b := here.queue("q"), there.queue("q")
			here.send("1", "2")
			there.send("3", "4")
			got := map[string]bool{}
			for range 2 {
				for _, q := range []queueOf{a, b} {
					d := q.next()
					if got[d.Body.ID] {
						x.fail("order %q came to both", d.Body.ID)
					}
					got[d.Body.ID] = true
					q.ack(d)
				}
			}
			a.empty("all four came")
		}},
		{feature: engine.Distributed, name: "history of another process", rule: "The dead letter carries the whole history, of all processes.",
			needs: []engine.Feature{engine.State}, run: func(x *fixture) {
				here, there := x.twoProcesses()
				a, b := here.queue("q", fanout.WithMaxAttempts(3)), there.queue("q", fanout.WithMaxAttempts(3))
				here.send("a")
				for n, q := range []queueOf{a, b, a} {
					d := q.nextID("a")
					equal(x, d.Attempt(), n+1, "attempt")
					x.must(d.Settle(x.ctx, fmt.Errorf("attempt %d", n+1)), "Settle")
				}
				letter := b.dead().nextID("a")
				equal(x, causes(letter.History()), said(fanout.Failed, fanout.Failed, fanout.Failed), "history of the letter")
				equal(x, letter.History()[1].Err.Error(), "attempt 2", "error of the second attempt")
			}},
		{feature: engine.Distributed, name: "queue deleted by another process", rule: "Delete removes the queue for all processes, whose receives end with ErrClosed.",
			needs: []engine.Feature{engine.Deletion}, run: func(x *fixture) {
				here, there := x.twoProcesses()
				a, b := here.queue("q"), there.queue("q")
				w := x.begin(func() error { _, err := b.Receive(x.ctx); return err })
				x.pause(x.quiet())
				x.must(a.Delete(x.ctx), "Delete")
				x.mustBe(x.end(w, "Receive"), fanout.ErrClosed, "a Receive that waits when another process deletes the queue")
			}},
		{feature: engine.Distributed, name: "redrive from another process", rule: shared, run: func(x *fixture) {
			here, there := x.twoProcesses()
			a, b := here.queue("q"), there.queue("q")
			here.send("a")
			x.must(a.nextID("a").Settle(x.ctx, fanout.Permanent(errBusy)), "Settle")
			x.redrive(b, 1)
			equal(x, a.nextID("a").Attempt(), 1, "attempt")
		}},
		{feature: engine.Durable, name: "go on after a crash", rule: durable + " What was unsettled comes again.", needs: []engine.Feature{engine.Visibility}, run: promiseReopen},
		{feature: engine.Durable, name: "attempts after a crash", rule: durable + " Its attempts and its history go on.", needs: []engine.Feature{engine.State}, run: func(x *fixture) {
			name := x.unique("topic")
			top := x.newTopicOn(x.e, name)
			q := top.queue("q", fanout.WithMaxAttempts(2))
			top.send("a")
			x.must(q.nextID("a").Settle(x.ctx, errBusy), "Settle")
			q = x.afterCrash(name).queue("q", fanout.WithMaxAttempts(2))
			d := q.nextID("a")
			equal(x, d.Attempt(), 2, "attempt")
			equal(x, causes(d.History()), said(fanout.Failed), "history")
		}},
	}
}

func (x *fixture) twoProcesses() (here, there topicOf) {
	name := x.unique("topic")
	return x.newTopicOn(x.e, name), x.newTopicOn(x.another(), name)
}

// afterCrash ends the engine's process and opens the topic in a new one.
func (x *fixture) afterCrash(name string) topicOf {
	x.reopenEngine()
	return x.newTopicOn(x.e, name)
}

func promiseReopen(x *fixture) {
	name := x.unique("topic")
	top := x.newTopicOn(x.e, name)
	q := top.queue("q", fanout.WithVisibilityTimeout(x.o.pace))
	top.send("1", "2", "3")
	got := q.all(3)
	q.ack(got["1"])
	x.must(got["2"].Settle(x.ctx, fanout.Permanent(errBusy)), "Settle")
	q = x.afterCrash(name).queue("q", fanout.WithVisibilityTimeout(x.o.pace))
	q.ack(q.nextID("3"))
	q.dead().ack(q.dead().nextID("2"))
	q.emptyFor(2*x.o.pace, "the others are acknowledged or dead")
}

// refusalChecks are of what an engine does not keep, and of what nobody could.
func refusalChecks() []check {
	const rule = "What a user sets explicitly and the engine does not support is refused with an error that names the option and the engine, never ignored."
	refused := func(f engine.Feature, option string, try func(x *fixture) error) check {
		return check{name: "refuses " + option, rule: rule, unless: func(x *fixture) string {
			if x.caps.Keeps(f, 0) {
				return fmt.Sprintf("the engine keeps %q", f)
			}
			return ""
		}, run: func(x *fixture) { x.mustRefuse(try(x), option) }}
	}
	tooLong := func(f engine.Feature, option string, try func(x *fixture, d time.Duration) error) check {
		return check{feature: f, name: "refuses a longer " + option, rule: rule, unless: func(x *fixture) string {
			if x.caps[f].Most == 0 {
				return fmt.Sprintf("the engine keeps any %v", f)
			}
			return ""
		}, run: func(x *fixture) { x.mustRefuse(try(x, x.caps[f].Most+time.Second), option) }}
	}
	message := func(change func(m *fanout.Message[order]), options ...fanout.TopicOption) func(x *fixture) error {
		return func(x *fixture) error {
			top, err := x.tryTopic(x.e, x.unique("topic"), options...)
			if err != nil {
				return err
			}
			top.queue("q")
			m := mail("a")
			change(&m)
			return top.PublishMessages(x.ctx, m)
		}
	}
	return []check{
		{name: "bad options", rule: "A bad value is ErrInvalidOption, naming the option and the value.", run: promiseBadOptions},
		refused(engine.Ordering, "WithOrdering", message(func(m *fanout.Message[order]) { m.OrderingKey = "k" }, fanout.WithOrdering())),
		refused(engine.Deduplication, "WithDeduplication", message(func(m *fanout.Message[order]) { m.DeduplicationID = "x" }, fanout.WithDeduplication(time.Minute, 100))),
		refused(engine.Bounded, "WithCapacity", openWith(fanout.WithCapacity(10))),
		refused(engine.QueueDelay, "WithDelay", openWith(fanout.WithDelay(time.Second))),
		refused(engine.RetryDelay, "WithBackoff", openWith(fanout.WithBackoff(fanout.Constant(time.Minute)))),
		refused(engine.MessageDelay, "Delay", message(func(m *fanout.Message[order]) { m.Delay = time.Second })),
		refused(engine.Deletion, "Delete", func(x *fixture) error {
			top := x.newTopic()
			q := top.queue("q")
			err := q.Delete(x.ctx)
			top.send("a")
			q.holds("a") // it stays open
			return err
		}),
		refused(engine.Listing, "ListQueues", func(x *fixture) error {
			_, err := x.newTopic().ListQueues(x.ctx)
			return err
		}),
		tooLong(engine.Visibility, "WithVisibilityTimeout", func(x *fixture, d time.Duration) error {
			return openWith(fanout.WithVisibilityTimeout(d))(x)
		}),
		tooLong(engine.QueueDelay, "WithDelay", func(x *fixture, d time.Duration) error { return openWith(fanout.WithDelay(d))(x) }),
		tooLong(engine.MessageDelay, "Delay", func(x *fixture, d time.Duration) error {
			return message(func(m *fanout.Message[order]) { m.Delay = d })(x)
		}),
	}
}

func openWith(option fanout.QueueOption) func(x *fixture) error {
	return func(x *fixture) error {
		_, err := x.newTopic().OpenQueue(x.ctx, "q", option)
		return err
	}
}

// mustRefuse ends the check if err doesn't refuse the option by name.
func (x *fixture) mustRefuse(err error, option string) {
	if err == nil {
		x.fail("%s was accepted", option)
	}
	if !errors.Is(err, fanout.ErrUnsupported) && !errors.Is(err, fanout.ErrInvalidOption) {
		x.fail("using %s returned %v, neither ErrUnsupported nor ErrInvalidOption", option, err)
	}
	for _, word := range []string{x.e.Name(), option} {
		if !strings.Contains(err.Error(), word) {
			x.fail("the error %q doesn't name %q", err, word)
		}
	}
}

func promiseBadOptions(x *fixture) {
	top := x.newTopic()
	bad := map[string]fanout.QueueOption{
		"WithCapacity": fanout.WithCapacity(-3), "WithMaxAttempts": fanout.WithMaxAttempts(0), "WithVisibilityTimeout": fanout.WithVisibilityTimeout(-1),
		"WithDelay": fanout.WithDelay(-time.Second), "WithFilterPolicy": fanout.WithFilterPolicy(`{"region":[]}`),
		"WithFilter": fanout.WithFilter(func(int) bool { return true }),
	}
	for name, option := range bad {
		_, err := top.OpenQueue(x.ctx, "q", option)
		x.mustBe(err, fanout.ErrInvalidOption, "OpenQueue with a bad %s", name)
		if !strings.Contains(err.Error(), name) {
			x.fail("the error %q doesn't name %q", err, name)
		}
	}
	top.queue("q")
	_, err := top.OpenQueue(x.ctx, "q")
	x.mustBe(err, fanout.ErrInvalidOption, "OpenQueue with the name of a queue that is open")
	x.mustBe(err, fanout.ErrExists, "OpenQueue with the name of a queue that is open")
	m := mail("a")
	m.OrderingKey = "k"
	x.mustBe(top.PublishMessages(x.ctx, m), fanout.ErrUnsupported, "an ordering key on a topic without WithOrdering")
	m = mail("a")
	m.DeduplicationID = "x"
	x.mustBe(top.PublishMessages(x.ctx, m), fanout.ErrUnsupported, "a deduplication ID on a topic without WithDeduplication")
	m = mail("a")
	m.Delay = -time.Second
	x.mustBe(top.PublishMessages(x.ctx, m), fanout.ErrInvalidMessage, "a negative delay")
}
