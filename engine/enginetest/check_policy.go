package enginetest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gofanout/fanout/engine"
)

func delayChecks() []check {
	return []check{
		{feature: engine.MessageDelay, name: "delay of a message", rule: "Delay is how long the message is held back from its publication.", run: func(x *fixture) {
			top := x.topic()
			q := x.open(top, "q")
			late, now := message("late"), message("now")
			late.Delay = 2 * x.o.pace
			start := time.Now()
			x.publish(top, late, now)
			x.receiveID(q, x.long(), "now")
			r := x.receiveID(q, x.long(), "late")
			x.notBefore(start, late.Delay, "the delayed message")
			equal(x, r.Deliveries, 1, "Deliveries, since a delay is none")
		}},
		{feature: engine.QueueDelay, name: "delay of a queue", rule: "Delay is how long each message is held back from its publication.", run: func(x *fixture) {
			top := x.topic()
			slow := x.openQueue(top, engine.QueueSpec{Name: "slow", Delay: 2 * x.o.pace})
			fast := x.open(top, "fast")
			start := time.Now()
			x.publish(top, message("a"))
			x.receiveID(fast, x.long(), "a")
			r := x.receiveID(slow, x.long(), "a")
			x.notBefore(start, 2*x.o.pace, "the message in the queue with the delay")
			x.giveBack(slow, r, 0, "")
			x.bury(slow, x.receiveID(slow, x.long(), "a"), "state")
			letter := x.receiveID(x.dead(slow), x.long(), "a")
			x.must(x.dead(slow).Redrive(x.ctx, letter.Receipt, letter.Message), "Redrive")
			x.receiveID(slow, x.long(), "a")
		}},
		{feature: engine.QueueDelay, name: "own delay before the queue's", rule: "The queue's delay holds unless a message has a delay of its own.",
			needs: []engine.Feature{engine.MessageDelay}, run: func(x *fixture) {
				top := x.topic()
				delay := x.long()
				if most := x.caps[engine.QueueDelay].Most; most > 0 {
					delay = min(delay, most)
				}
				q := x.openQueue(top, engine.QueueSpec{Name: "q", Delay: delay})
				m := message("a")
				m.Delay = x.o.pace
				start := time.Now()
				x.publish(top, m)
				x.receiveID(q, x.long(), "a")
				x.notBefore(start, x.o.pace, "the message")
			}},
	}
}

func batchChecks() []check {
	return []check{
		{name: "large batch", rule: "When Publish returns nil the engine has all of them.", run: func(x *fixture) {
			top := x.topic()
			q := x.open(top, "q")
			ids := []string{}
			for i := range x.o.batch {
				ids = append(ids, fmt.Sprintf("%04d", i))
			}
			x.publish(top, messages(ids...)...)
			x.mustHold(x.collect(q, len(ids)), ids...)
		}},
		{name: "empty batch", rule: "Publish of no message is no error.", run: func(x *fixture) {
			top := x.topic()
			q := x.open(top, "q")
			x.publish(top)
			x.none(q, x.quiet(), "nothing was published")
		}},
		{name: "batch refused in part", rule: "An error says that none is known to be published, a *PartialError which ones aren't: the others were.", unless: unlimited, run: checkPartial},
		{feature: engine.AllOrNone, name: "all or none", rule: "A batch is published as a whole or not at all.", unless: unlimited, run: func(x *fixture) {
			top := x.topic()
			q := x.open(top, "q")
			if err := top.Publish(x.ctx, []engine.Message{message("1"), x.refused("2"), message("3")}); err == nil {
				x.fail("a batch with a message that is too large was published")
			}
			x.none(q, x.quiet(), "one message of the batch was refused")
		}},
	}
}

func checkPartial(x *fixture) {
	top := x.topic()
	q := x.open(top, "q")
	err := top.Publish(x.ctx, []engine.Message{message("0"), x.refused("1"), message("2")})
	x.mustBe(err, engine.ErrTooLarge, "Publish of a batch with a message of %d bytes", x.o.tooLarge)
	var partial *engine.PartialError
	if !errors.As(err, &partial) {
		return
	}
	if x.caps.Keeps(engine.AllOrNone, 0) {
		x.fail("an engine that keeps AllOrNone returned %v", err)
	}
	if partial.Failed[1] == nil {
		x.fail("%v does not name message 1", err)
	}
	ids := []string{}
	for i, id := range []string{"0", "1", "2"} {
		if partial.Failed[i] == nil {
			ids = append(ids, id)
		}
	}
	x.mustHold(x.collect(q, len(ids)), ids...)
	x.none(q, x.quiet(), "the others were not published")
}

func boundedChecks() []check {
	return []check{
		{feature: engine.Bounded, name: "bounded", rule: "A queue holds no more than its capacity, and a publish that finds it full waits or fails.", run: checkBounded},
		{feature: engine.Bounded, name: "bounded for all or none", rule: "A batch is published as a whole or not at all, a full queue beside a free one included.",
			needs: []engine.Feature{engine.AllOrNone}, run: func(x *fixture) {
				top := x.topic()
				small := x.openQueue(top, engine.QueueSpec{Name: "small", Capacity: 2})
				free := x.open(top, "free")
				x.publish(top, message("1"))
				x.mustBeFull(top, messages("2", "3")...)
				x.receiveID(free, x.long(), "1")
				x.none(free, x.quiet(), "the other queue had no room for the batch")
				x.receiveID(small, x.long(), "1")
				x.none(small, x.quiet(), "there was no room for the batch")
			}},
		{feature: engine.Bounded, name: "bounded dead letters", rule: "DeadCapacity is how many letters the dead-letter queue may hold; a message is there or here.", run: checkBoundedLetters},
	}
}

// mustBeFull publishes what has no room.
func (x *fixture) mustBeFull(top engine.Topic, ms ...engine.Message) {
	ctx, cancel := x.within(x.quiet())
	defer cancel()
	err := top.Publish(ctx, ms)
	if !errors.Is(err, engine.ErrFull) && !errors.Is(err, context.DeadlineExceeded) {
		x.fail("Publish to a full queue returned %v, neither ErrFull nor its context's error", err)
	}
}

func checkBounded(x *fixture) {
	top := x.topic()
	q := x.openQueue(top, engine.QueueSpec{Name: "q", Capacity: 2})
	x.publish(top, message("1"))
	x.publish(top, message("2"))
	x.mustBeFull(top, message("3"))
	leased := x.receive(q, x.long())
	x.mustBeFull(top, message("3"))
	w := x.begin(func() error {
		ctx, cancel := x.within(x.o.patience)
		defer cancel()
		for {
			err := top.Publish(ctx, messages("4"))
			if !errors.Is(err, engine.ErrFull) {
				return err
			}
			x.pause(x.o.pace / 20)
		}
	})
	x.ack(q, leased)
	x.must(x.end(w, "Publish"), "Publish, when a message was acknowledged")
	all := x.collect(q, 2)
	if _, ok := all["4"]; !ok {
		x.fail("message 4 was published and is not in the queue")
	}
	x.none(q, x.quiet(), "message 3 was refused")
}

func checkBoundedLetters(x *fixture) {
	top := x.topic()
	q := x.openQueue(top, engine.QueueSpec{Name: "q", DeadCapacity: 1})
	x.publish(top, messages("1", "2")...)
	all := x.collect(q, 2)
	x.bury(q, all["1"], "state")
	err := q.DeadLetter(x.ctx, all["2"].Receipt, all["2"].Message)
	x.mustBe(err, engine.ErrFull, "DeadLetter, when the dead-letter queue holds its one letter")
	x.giveBack(q, all["2"], 0, "")
	x.receiveID(q, x.long(), "2")
	x.receiveID(x.dead(q), x.long(), "1")
	x.none(x.dead(q), x.quiet(), "there was room for one letter")
}

func filterChecks() []check {
	const rule = "Publish hands ms to every queue whose filter policy accepts them."
	return []check{
		{feature: engine.FilterPolicy, name: "filter policy", rule: rule, run: checkPolicy},
		{feature: engine.FilterPolicy, name: "filter policy in a batch", rule: rule, run: func(x *fixture) {
			top := x.topic()
			q := x.openQueue(top, engine.QueueSpec{Name: "q", FilterPolicy: `{"region":["eu"]}`})
			ms := messages("1", "2", "3", "4")
			for i, region := range []string{"eu", "us", "eu", "asia"} {
				ms[i].Attributes = map[string]string{"region": region}
			}
			x.publish(top, ms...)
			x.mustHold(x.collect(q, 2), "1", "3")
			x.none(q, x.quiet(), "the policy accepts two of four")
		}},
	}
}

func checkPolicy(x *fixture) {
	top := x.topic()
	policies := map[string]string{
		"exact":   `{"region":["eu","asia"]}`,
		"prefix":  `{"region":[{"prefix":"e"}]}`,
		"but":     `{"region":[{"anything-but":"eu"}]}`,
		"numeric": `{"cents":[{"numeric":[">=",100]}]}`,
		"exists":  `{"cents":[{"exists":true}]}`,
		"both":    `{"region":["eu"],"cents":[{"numeric":["<",100]}]}`,
	}
	accepted := map[string][]string{
		"exact": {"1", "2", "3"}, "prefix": {"1", "2"}, "but": {"3", "4"}, "numeric": {"2"}, "exists": {"1", "2"}, "both": {"1"},
	}
	queues := map[string]engine.Queue{}
	for name, policy := range policies {
		queues[name] = x.openQueue(top, engine.QueueSpec{Name: name, FilterPolicy: policy})
	}
	all := x.open(top, "all")
	ms := messages("1", "2", "3", "4")
	ms[0].Attributes = map[string]string{"region": "eu", "cents": "99"}
	ms[1].Attributes = map[string]string{"region": "eu", "cents": "100"}
	ms[2].Attributes = map[string]string{"region": "asia"}
	ms[3].Attributes = map[string]string{"region": "us"}
	for _, m := range ms {
		x.publish(top, m)
	}
	x.mustHold(x.collect(all, 4), "1", "2", "3", "4")
	for name, q := range queues {
		x.mustHold(x.collect(q, len(accepted[name])), accepted[name]...)
	}
	for name, q := range queues {
		x.none(q, x.quiet()/3, "policy %s", policies[name])
	}
}

func deduplicationChecks() []check {
	const rule = "A DeduplicationID counts once within the window."
	return []check{
		{feature: engine.Deduplication, name: "deduplication", rule: rule, run: checkDeduplication},
		{feature: engine.Deduplication, name: "deduplication in a batch", rule: rule, run: func(x *fixture) {
			top := x.deduplicating()
			q := x.open(top, "q")
			x.publish(top, withID("1", "x"), withID("2", "x"), withID("3", "y"))
			x.mustHold(x.collect(q, 2), "1", "3")
			x.none(q, x.quiet(), "two of three have the same deduplication ID")
		}},
		{feature: engine.Deduplication, name: "deduplication ends", rule: rule, unless: func(x *fixture) string {
			if x.o.window > x.o.patience/2 {
				return fmt.Sprintf("the window of %v is too long to wait for", x.o.window)
			}
			return ""
		}, run: func(x *fixture) {
			top := x.deduplicating()
			q := x.open(top, "q")
			x.publish(top, withID("1", "x"))
			x.ack(q, x.receiveID(q, x.long(), "1"))
			x.pause(x.o.window + x.o.pace)
			x.publish(top, withID("2", "x"))
			x.receiveID(q, x.long(), "2")
		}},
		{feature: engine.Deduplication, name: "deduplication of one topic", rule: rule + " In its topic.", run: func(x *fixture) {
			one, two := x.deduplicating(), x.deduplicating()
			q := x.open(two, "q")
			x.publish(one, withID("1", "x"))
			x.publish(two, withID("2", "x"))
			x.receiveID(q, x.long(), "2")
		}},
	}
}

func (x *fixture) deduplicating() engine.Topic {
	return x.openTopic(x.e, engine.TopicSpec{Name: x.unique("topic"), Deduplication: x.o.window})
}

func withID(id, deduplication string) engine.Message {
	m := message(id)
	m.DeduplicationID = deduplication
	return m
}

func checkDeduplication(x *fixture) {
	top := x.deduplicating()
	a, b := x.open(top, "a"), x.open(top, "b")
	start := time.Now()
	x.publish(top, withID("1", "x"))
	x.publish(top, withID("2", "x"))
	x.tooSlow(start, x.o.window)
	x.publish(top, withID("3", "y"))
	x.publish(top, message("4"))
	x.publish(top, message("5"))
	for _, q := range []engine.Queue{a, b} {
		all := x.collect(q, 4)
		x.mustHold(all, "1", "3", "4", "5")
		for _, r := range all {
			x.ack(q, r)
		}
	}
	x.publish(top, withID("6", "x"))
	x.tooSlow(start, x.o.window)
	x.none(a, x.quiet(), "the ID was published before, though its message is acknowledged")
}
