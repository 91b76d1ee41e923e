package enginetest

import (
	"time"

	"github.com/gofanout/fanout/engine"
)

func leaseChecks() []check {
	const again = "A message that is not settled within its lease is returned by a later Receive."
	return []check{
		{feature: engine.Visibility, name: "lease ends", rule: again, run: func(x *fixture) {
			x.leaseEnds(x.long(), x.o.pace)
		}},
		{feature: engine.Visibility, name: "lease counts deliveries", rule: "Deliveries is how often the engine has leased the message out, this time included.", run: checkDeliveries},
		{feature: engine.Visibility, name: "lease of the queue", rule: "With lease 0 the queue's own holds.", run: func(x *fixture) {
			x.leaseEnds(2*x.o.pace, 0)
		}},
		{feature: engine.Visibility, name: "lease longer than the queue's", rule: "Each message is hidden from other receivers for lease, not for the queue's.", run: func(x *fixture) {
			x.leaseEnds(x.o.pace, 3*x.o.pace)
		}},
		{feature: engine.Visibility, name: "lease of a dead letter", rule: again + " A queue's dead-letter queue is a Queue too.", run: checkDeadLease},
		{feature: engine.Visibility, name: "lease of one", rule: "The lease is that of a receive, not of the queue.", run: checkLeaseOfOne},
		{feature: engine.Visibility, name: "extend", rule: "Extend makes the lease end after lease, counted from now.", run: checkExtend},
		{feature: engine.Visibility, name: "extend to less", rule: "Extend makes the lease end after lease, counted from now.", run: checkExtendToLess},
		{feature: engine.Visibility, name: "acknowledged in its lease", rule: "Ack ends the message: the queue is done with it.", run: checkAckInLease},
	}
}

// leaseEnds checks that a message that is received with a lease comes again when
// that ends, or the queue's, and not before.
func (x *fixture) leaseEnds(own, lease time.Duration) {
	top := x.topic()
	q := x.openQueue(top, engine.QueueSpec{Name: "q", Visibility: own})
	x.publish(top, message("a"))
	start := time.Now()
	first := x.receiveID(q, lease, "a")
	equal(x, first.Deliveries, 1, "Deliveries of the first")
	second := x.receiveID(q, x.long(), "a")
	held := lease
	if lease == 0 {
		held = own
	}
	x.notBefore(start, held, "the second delivery")
	equal(x, second.Deliveries, 2, "Deliveries of the second")
	x.same(second.Message, first.Message)
	x.ack(q, second)
}

func checkDeliveries(x *fixture) {
	top := x.topic()
	q := x.open(top, "q")
	x.publish(top, message("a"))
	for n := 1; n <= 4; n++ {
		lease := x.o.pace
		if n > 2 {
			lease = x.long()
		}
		r := x.receiveID(q, lease, "a")
		equal(x, r.Deliveries, n, "Deliveries of delivery %d", n)
		if n > 2 {
			x.giveBack(q, r, 0, "")
		}
	}
}

func checkDeadLease(x *fixture) {
	top := x.topic()
	q := x.open(top, "q")
	x.publish(top, message("a"))
	x.bury(q, x.receiveID(q, x.long(), "a"), "state")
	start := time.Now()
	equal(x, x.receiveID(x.dead(q), x.o.pace, "a").Deliveries, 1, "Deliveries of the letter")
	r := x.receiveID(x.dead(q), x.long(), "a")
	x.notBefore(start, x.o.pace, "the letter's second delivery")
	equal(x, r.Deliveries, 2, "Deliveries of the letter, the second time")
}

func checkLeaseOfOne(x *fixture) {
	top := x.topic()
	q := x.open(top, "q")
	x.publish(top, messages("1", "2")...)
	long := x.receive(q, x.long())
	start := time.Now()
	short := x.receive(q, x.o.pace)
	again := x.receive(q, x.long())
	x.notBefore(start, x.o.pace, "the message with the short lease")
	equal(x, again.ID, short.ID, "the message whose lease has ended, while %q has a long one", long.ID)
}

func checkExtend(x *fixture) {
	top := x.topic()
	q := x.open(top, "q")
	x.publish(top, message("a"))
	r := x.receiveID(q, 2*x.o.pace, "a")
	x.pause(x.o.pace)
	start := time.Now()
	x.mustSettle(q.Extend(x.ctx, r.Receipt, 3*x.o.pace), "a", "Extend")
	again := x.receiveID(q, x.long(), "a")
	x.notBefore(start, 3*x.o.pace, "an extended message")
	equal(x, again.Deliveries, 2, "Deliveries, since an extension is none")
}

func checkExtendToLess(x *fixture) {
	top := x.topic()
	q := x.open(top, "q")
	x.publish(top, message("a"))
	r := x.receiveID(q, x.long(), "a")
	start := time.Now()
	x.must(q.Extend(x.ctx, r.Receipt, x.o.pace), "Extend")
	x.receiveID(q, x.long(), "a")
	x.notBefore(start, x.o.pace, "a message whose lease was shortened")
}

func checkAckInLease(x *fixture) {
	top := x.topic()
	q := x.open(top, "q")
	x.publish(top, message("a"))
	x.ack(q, x.receiveID(q, x.o.pace, "a"))
	x.none(q, 2*x.o.pace, "the message was acknowledged and its lease would have ended")
}
