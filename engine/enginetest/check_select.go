package enginetest

import (
	"context"
	"fmt"
	"time"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/engine"
)

func selectChecks() []check {
	return []check{
		{name: "filter on bodies", rule: "WithFilter lets only those messages into the queue whose body keep accepts.", run: func(x *fixture) {
			x.filtered([]string{"3", "4"}, fanout.WithFilter(func(o order) bool { return o.Cents > 200 }))
		}},
		{name: "filter on messages", rule: "WithMessageFilter is WithFilter for a predicate on the whole message.", run: func(x *fixture) {
			x.filtered([]string{"1", "3"}, fanout.WithMessageFilter(func(m fanout.Message[order]) bool { return m.Attributes["region"] == "eu" }))
		}},
		{name: "filter policies", rule: "WithFilterPolicy lets only those messages into the queue whose attributes match.", run: func(x *fixture) {
			x.filtered([]string{"3"}, fanout.WithFilterPolicy(`{"region":["eu"],"cents":[{"numeric":[">",200]}]}`))
		}},
		{name: "filters together", rule: "With several filters, those that all accept.", run: func(x *fixture) {
			x.filtered([]string{"3"}, fanout.WithFilter(func(o order) bool { return o.Cents > 200 }), fanout.WithFilterPolicy(`{"region":[{"prefix":"e"}]}`))
		}},
		{name: "a filter spends nothing", rule: "What a filter refuses is not the queue's: no attempt, no dead letter.", run: func(x *fixture) {
			top := x.newTopic()
			q := top.queue("q", fanout.WithFilter(func(o order) bool { return o.ID == "last" }), fanout.WithMaxAttempts(1))
			top.send("1", "2", "last")
			q.ack(q.nextID("last"))
			q.empty("the filter accepts one order")
			q.dead().empty("the filter refused the others")
			equal(x, q.Stats().Delivered, 1, "deliveries counted")
		}},
		{feature: engine.MessageDelay, name: "message delay", rule: "Delay hides the message in every queue for so long after its publication.", run: func(x *fixture) {
			top := x.newTopic()
			a, b := top.queue("a"), top.queue("b")
			m := mail("late")
			m.Delay = 2 * x.o.pace
			start := time.Now()
			top.sendMail(m)
			top.send("now")
			a.nextID("now")
			b.nextID("now")
			equal(x, a.nextID("late").Attempt(), 1, "attempt")
			x.notBefore(start, m.Delay, "the delayed message")
			b.nextID("late")
		}},
		{feature: engine.QueueDelay, name: "queue delay", rule: "WithDelay hides each message in this queue for d after its publication.", run: func(x *fixture) {
			top := x.newTopic()
			slow, fast := top.queue("slow", fanout.WithDelay(2*x.o.pace)), top.queue("fast")
			start := time.Now()
			top.send("a")
			fast.nextID("a")
			slow.nextID("a")
			x.notBefore(start, 2*x.o.pace, "the message")
		}},
		{feature: engine.Deduplication, name: "deduplicate", rule: "While the topic remembers a deduplication ID, publishing it again returns nil and does nothing.", run: promiseDeduplication},
		{feature: engine.Ordering, name: "order of a key", rule: "With an OrderingKey messages are delivered in order, retries included, one at a time, while other keys go on.", run: promiseOrder},
		{feature: engine.Ordering, name: "order with many workers", rule: "With an OrderingKey one message of a key is in flight at a time.", run: promiseOrderPush},
		{feature: engine.Bounded, name: "capacity", rule: "A queue never holds more unsettled messages than its capacity.", run: promiseCapacity},
		{feature: engine.Bounded, name: "all or none of a batch", rule: "When PublishMessages returns an error none of the batch is in any queue.", needs: []engine.Feature{engine.AllOrNone}, run: func(x *fixture) {
			top := x.newTopic()
			small, free := top.queue("small", fanout.WithCapacity(2)), top.queue("free")
			top.send("1")
			ctx, cancel := x.within(x.quiet())
			defer cancel()
			if err := top.PublishMessages(ctx, mail("2"), mail("3")); err == nil {
				x.fail("two more messages were published to a queue with room for one")
			}
			free.holds("1")
			small.holds("1")
		}},
	}
}

// filtered publishes four orders to a queue with these filters, and to one without.
func (x *fixture) filtered(accepted []string, filters ...fanout.QueueOption) {
	top := x.newTopic()
	q, all := top.queue("filtered", filters...), top.queue("all")
	for i, region := range []string{"eu", "us", "eu", "asia"} {
		m := mail(fmt.Sprint(i + 1))
		m.Body.Cents = int64(i+1) * 100
		m.Attributes = map[string]string{"region": region, "cents": fmt.Sprint(m.Body.Cents)}
		top.sendMail(m)
	}
	all.holds("1", "2", "3", "4")
	q.holds(accepted...)
}

func promiseDeduplication(x *fixture) {
	top := x.newTopic(fanout.WithDeduplication(x.o.window, 1000))
	a, b := top.queue("a"), top.queue("b")
	start := time.Now()
	for _, ids := range [][2]string{{"1", "x"}, {"2", "x"}, {"3", "y"}, {"4", ""}, {"5", ""}} {
		m := mail(ids[0])
		m.DeduplicationID = ids[1]
		top.sendMail(m)
	}
	for _, d := range a.all(4) {
		a.ack(d)
	}
	m := mail("6")
	m.DeduplicationID = "x"
	top.sendMail(m)
	x.tooSlow(start, x.o.window)
	b.holds("1", "3", "4", "5")
	a.empty("the ID is remembered though its message is acknowledged")
}

// keyedMail makes messages whose keys are the first letters of their IDs.
func keyedMail(ids ...string) (ms []fanout.Message[order]) {
	for _, id := range ids {
		m := mail(id)
		m.OrderingKey = id[:1]
		ms = append(ms, m)
	}
	return ms
}

func promiseOrder(x *fixture) {
	top := x.newTopic(fanout.WithOrdering())
	q := top.queue("q")
	top.sendMail(keyedMail("a1", "a2", "a3", "b1")...)
	heads := q.all(2)
	a1, ok := heads["a1"]
	if _, b := heads["b1"]; !ok || !b {
		x.fail("the heads of the keys are not a1 and b1: %v", heads)
	}
	equal(x, a1.OrderingKey(), "a", "OrderingKey")
	q.empty("a1 and b1 are in flight")
	x.must(a1.Nack(x.ctx), "Nack")
	again := q.nextID("a1")
	equal(x, again.Attempt(), 2, "attempt")
	x.must(again.Settle(x.ctx, fanout.Permanent(errBusy)), "Settle")
	q.ack(q.nextID("a2"))
	q.ack(q.nextID("a3"))
	q.dead().nextID("a1")
}

func promiseOrderPush(x *fixture) {
	top := x.newTopic(fanout.WithOrdering())
	got := newInbox()
	top.subscribe("q", func(_ context.Context, d fanout.Delivery[order]) error {
		if d.Attempt() == 1 && d.Body.ID[1] == '3' {
			return errBusy
		}
		got <- d
		return nil
	}, fanout.WithConcurrency(8))
	const each = 6
	for i := range each {
		top.sendMail(keyedMail(fmt.Sprint("a", i), fmt.Sprint("b", i), fmt.Sprint("c", i))...)
	}
	next := map[string]int{}
	for range 3 * each {
		d := got.next(x)
		key := d.OrderingKey()
		equal(x, d.Body.ID, fmt.Sprint(key, next[key]), "the next handled order of key %q", key)
		next[key]++
	}
}

func promiseCapacity(x *fixture) {
	top := x.newTopic()
	q := top.queue("q", fanout.WithCapacity(2))
	top.send("1")
	top.send("2")
	d := q.next()
	ctx, cancel := x.within(x.quiet())
	defer cancel()
	if err := top.Publish(ctx, order{ID: "3"}); err == nil {
		x.fail("a third order was published to a queue with a capacity of two")
	}
	w := x.begin(func() error { return top.Publish(x.ctx, order{ID: "4"}) })
	x.pause(x.quiet())
	q.ack(d)
	x.must(x.end(w, "Publish"), "a publish that waits, when there is room")
	if _, ok := q.all(2)["4"]; !ok {
		x.fail("order 4 was published and did not come")
	}
}
