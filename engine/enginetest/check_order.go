package enginetest

import (
	"fmt"

	"github.com/gofanout/fanout/engine"
)

func orderChecks() []check {
	const rule = "Messages with one OrderingKey are delivered in order, one at a time."
	return []check{
		{feature: engine.Ordering, name: "order by key", rule: rule, run: checkOrder},
		{feature: engine.Ordering, name: "order, one at a time", rule: rule, run: checkOneAtATime},
		{feature: engine.Ordering, name: "order through returns", rule: rule, run: func(x *fixture) {
			top, q := x.ordered()
			x.publish(top, keyed("a1", "a2")...)
			x.giveBack(q, x.receiveID(q, x.long(), "a1"), 0, "")
			x.ack(q, x.receiveID(q, x.long(), "a1"))
			x.receiveID(q, x.long(), "a2")
		}},
		{feature: engine.Ordering, name: "order through waits", rule: rule, needs: []engine.Feature{engine.RetryDelay}, run: func(x *fixture) {
			top, q := x.ordered()
			x.publish(top, keyed("a1", "a2", "b1")...)
			all := x.collect(q, 2)
			x.mustHold(all, "a1", "b1")
			x.giveBack(q, all["a1"], x.o.pace, "")
			x.ack(q, x.receiveID(q, x.long(), "a1"))
			x.receiveID(q, x.long(), "a2")
		}},
		{feature: engine.Ordering, name: "order through leases", rule: rule, needs: []engine.Feature{engine.Visibility}, run: func(x *fixture) {
			top, q := x.ordered()
			x.publish(top, keyed("a1", "a2")...)
			x.receiveID(q, x.o.pace, "a1")
			x.ack(q, x.receiveID(q, x.long(), "a1"))
			x.receiveID(q, x.long(), "a2")
		}},
		{feature: engine.Ordering, name: "order after a dead letter", rule: rule + " A dead-lettered head lets its key go on.", run: func(x *fixture) {
			top, q := x.ordered()
			x.publish(top, keyed("a1", "a2")...)
			x.bury(q, x.receiveID(q, x.long(), "a1"), "state")
			r := x.receiveID(q, x.long(), "a2")
			equal(x, r.OrderingKey, "a", "OrderingKey")
			equal(x, x.receiveID(x.dead(q), x.long(), "a1").OrderingKey, "a", "OrderingKey of the letter")
		}},
	}
}

func (x *fixture) ordered() (engine.Topic, engine.Queue) {
	top := x.openTopic(x.e, engine.TopicSpec{Name: x.unique("topic"), Ordering: true})
	return top, x.open(top, "q")
}

// keyed makes messages whose keys are the first letters of their IDs.
func keyed(ids ...string) []engine.Message {
	ms := messages(ids...)
	for i := range ms {
		ms[i].OrderingKey = ms[i].ID[:1]
	}
	return ms
}

// checkOrder publishes keys in a mix, in batches and one by one, and expects each
// key in its order.
func checkOrder(x *fixture) {
	top, q := x.ordered()
	const each = 6
	for i := range each {
		ids := []string{fmt.Sprint("a", i), fmt.Sprint("b", i), fmt.Sprint("c", i)}
		if i%2 == 0 {
			x.publish(top, keyed(ids...)...)
			continue
		}
		for _, m := range keyed(ids...) {
			x.publish(top, m)
		}
	}
	next := map[string]int{}
	for range 3 * each {
		r := x.receive(q, x.long())
		key := r.ID[:1]
		equal(x, r.ID, fmt.Sprint(key, next[key]), "the next message of key %q", key)
		next[key]++
		x.ack(q, r)
	}
}

func checkOneAtATime(x *fixture) {
	top, q := x.ordered()
	x.publish(top, keyed("a1", "a2", "a3", "b1", "b2")...)
	all := x.collect(q, 2)
	x.mustHold(all, "a1", "b1")
	x.none(q, x.quiet(), "a1 and b1 are leased")
	x.ack(q, all["a1"])
	a2 := x.receiveID(q, x.long(), "a2")
	x.none(q, x.quiet(), "a2 and b1 are leased")
	x.ack(q, all["b1"])
	x.receiveID(q, x.long(), "b2")
	x.ack(q, a2)
	x.receiveID(q, x.long(), "a3")
}
