package enginetest

import (
	"context"
	"sync"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/engine"
)

func deletionChecks() []check {
	return []check{
		{feature: engine.Deletion, name: "delete", rule: "Delete removes the queue and its dead-letter queue from the engine, with all that they hold.", run: checkDelete},
		{feature: engine.Deletion, name: "delete and open again", rule: "A queue that is opened under the name of a deleted one is a new one.", run: checkDeletedName},
		{feature: engine.Deletion, name: "delete again", rule: "To delete a queue that is gone is no error.", run: func(x *fixture) {
			top := x.topic()
			q := x.open(top, "q")
			x.publish(top, message("a"))
			x.must(q.Close(), "Close")
			for _, nth := range []string{"first", "second"} {
				_, _, err := q.Delete(x.ctx)
				x.must(err, "Delete, the %s time", nth)
			}
		}},
		{feature: engine.Deletion, name: "delete and context", rule: "All methods end when their context does, and return its error then.", run: func(x *fixture) {
			q := x.open(x.topic(), "q")
			x.must(q.Close(), "Close")
			ended, cancel := context.WithCancel(x.ctx)
			cancel()
			if _, _, err := q.Delete(ended); err != nil {
				x.mustBe(err, context.Canceled, "Delete with a context that has ended")
			}
			_, _, err := q.Delete(x.ctx)
			x.must(err, "Delete after one that failed")
		}},
		{feature: engine.Deletion, name: "deleted elsewhere", rule: "Receives of other processes, those that wait and later ones, return ErrClosed.",
			needs: []engine.Feature{engine.Distributed}, run: func(x *fixture) {
				here, there := x.twoTopics()
				a, b := x.open(here, "q"), x.open(there, "q")
				w := x.begin(func() error { _, err := b.Receive(x.ctx, 1, 0); return err })
				x.pause(x.quiet())
				x.must(a.Close(), "Close")
				_, _, err := a.Delete(x.ctx)
				x.must(err, "Delete")
				x.mustBe(x.end(w, "Receive, when another process deleted the queue"), engine.ErrClosed, "Receive, when another process deleted the queue")
				_, err = b.Receive(x.ctx, 1, 0)
				x.mustBe(err, engine.ErrClosed, "Receive after another process deleted the queue")
			}},
	}
}

func checkDelete(x *fixture) {
	top := x.topic()
	q, other := x.open(top, "q"), x.open(top, "other")
	x.publish(top, messages("1", "2", "3")...)
	x.bury(q, x.receive(q, x.long()), "")
	x.receive(q, x.long())
	x.must(q.Close(), "Close")
	dropped, letters, err := q.Delete(x.ctx)
	x.must(err, "Delete")
	if x.caps.Keeps(engine.ExactStats, 0) {
		equal(x, dropped, 2, "messages dropped: one ready, one leased")
		equal(x, letters, 1, "letters dropped")
	}
	x.publish(top, message("4"))
	x.mustHold(x.collect(other, 4), "1", "2", "3", "4")
}

func checkDeletedName(x *fixture) {
	top := x.topic()
	q := x.open(top, "q")
	x.publish(top, messages("1", "2")...)
	x.bury(q, x.receive(q, x.long()), "")
	x.must(q.Close(), "Close")
	_, _, err := q.Delete(x.ctx)
	x.must(err, "Delete")
	q = x.open(top, "q")
	x.publish(top, message("3"))
	x.ack(q, x.receiveID(q, x.long(), "3"))
	x.none(q, x.quiet(), "the queue of that name is a new one")
	x.none(x.dead(q), x.quiet(), "the dead letters were deleted with their queue")
}

func promiseDelete(x *fixture) {
	var mu sync.Mutex
	lost := 0
	top := x.newTopic(fanout.WithHooks(fanout.Hooks{Dropped: func(e fanout.Event) {
		mu.Lock()
		defer mu.Unlock()
		if e.Reason == fanout.DroppedByDelete {
			lost += e.Count
		}
	}}))
	q, other := top.queue("q"), top.queue("other")
	top.send("1", "2", "3")
	x.must(q.next().Settle(x.ctx, fanout.Permanent(errBusy)), "Settle")
	held := q.next()
	x.must(q.Delete(x.ctx), "Delete")
	x.mustBe(held.Ack(x.ctx), fanout.ErrClosed, "Ack of a delivery of a queue that was deleted")
	_, err := q.Receive(x.ctx)
	x.mustBe(err, fanout.ErrClosed, "Receive after Delete")
	equal(x, len(q.Leftovers()), 0, "leftovers of a queue that was deleted")
	x.must(q.Delete(x.ctx), "Delete again")
	if x.caps.Keeps(engine.ExactStats, 0) {
		mu.Lock()
		equal(x, lost, 3, "messages and letters that the hook was told of")
		mu.Unlock()
	}
	top.send("4")
	other.holds("1", "2", "3", "4")
	q = top.queue("q")
	top.send("5")
	q.holds("5")
	q.dead().empty("the dead letters were deleted with their queue")
}
