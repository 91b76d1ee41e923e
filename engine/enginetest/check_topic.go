package enginetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/gofanout/fanout/engine"
)

func topicChecks() []check {
	return []check{
		{name: "no goroutine after close", rule: "An engine keeps no more goroutines than its Topic and Queue values need, and none after the topic's Close.",
			alone: true, run: checkGoroutines},
		{name: "capabilities", rule: "Capabilities says what the engine keeps, and returns the same each time.", run: checkCapabilities},
		{name: "fan-out", rule: "Publish hands ms to every queue that is open.", run: checkFanOut},
		{name: "no queue", rule: "Publish hands ms to every queue that is open: to none is no error.", run: func(x *fixture) {
			x.publish(x.topic(), message("a"))
		}},
		{name: "open again", rule: "OpenTopic makes the topic, or finds it.", run: checkOpenAgain},
		{name: "topics apart", rule: "Publish hands ms to every queue of its own topic, whatever the names of other topics' queues.", run: checkTopicsApart},
		{name: "names", rule: "An engine with stricter rules for names either encodes or refuses what it cannot take.", run: checkNames},
		{name: "published after open", rule: "Messages published after OpenQueue has returned are in the queue.", run: checkPublishedAfterOpen},
		{name: "other settings", rule: "An existing queue with other settings is changed if that harms nobody, and else is ErrMismatch.", run: checkOtherSettings},
		{name: "close queue", rule: "Receives that wait return ErrClosed. Calling Close again does nothing. It closes the dead-letter queue's value too.", run: checkCloseQueue},
		{name: "return after close", rule: "Return works after the queue's Close too, until the topic's: what a Receive returned as the queue was closed fanout gives back.", run: checkReturnAfterClose},
		{name: "closed queue gets messages", rule: "Close lets go of what the process holds of the queue. The queue stays where it is, and gets messages.", run: checkClosedQueueStays},
		{name: "close topic", rule: "ErrClosed is returned after Close.", run: checkCloseTopic},
		{name: "contexts", rule: "All methods end when their context does, and return its error then.", run: checkContexts},
	}
}

func checkCapabilities(x *fixture) {
	if x.e.Name() == "" {
		x.fail("Name is empty")
	}
	first, second := x.e.Capabilities(), x.e.Capabilities()
	if !maps.Equal(first, second) {
		x.fail("first %v, then %v", first, second)
	}
	known := map[engine.Feature]bool{}
	for _, f := range engine.Features() {
		known[f] = true
	}
	for f, s := range first {
		if !known[f] {
			x.fail("an unknown feature, %v", f)
		}
		if s.Most < 0 {
			x.fail("%v with a longest duration of %v", f, s.Most)
		}
	}
	clear(first)
	if !maps.Equal(x.e.Capabilities(), second) {
		x.fail("the caller changed the map it was given, and now it is %v", x.e.Capabilities())
	}
}

func checkFanOut(x *fixture) {
	top := x.topic()
	a, b := x.open(top, "a"), x.open(top, "b")
	x.publish(top, messages("1", "2", "3")...)
	inA := x.collect(a, 3)
	x.mustHold(inA, "1", "2", "3")
	for _, r := range inA {
		x.ack(a, r)
	}
	inB := x.collect(b, 3)
	x.mustHold(inB, "1", "2", "3")
	for id, r := range inB {
		equal(x, r.Deliveries, 1, "Deliveries of message %q in the second queue", id)
		x.ack(b, r)
	}
	x.none(a, x.quiet(), "all is acknowledged in the first queue")
	x.none(b, x.quiet(), "all is acknowledged in the second queue")
}

func checkOpenAgain(x *fixture) {
	spec := engine.TopicSpec{Name: x.unique("topic")}
	first, second := x.openTopic(x.e, spec), x.openTopic(x.e, spec)
	q := x.open(first, "q")
	x.publish(second, message("a"))
	x.receiveID(q, 0, "a")
}

func checkTopicsApart(x *fixture) {
	one, two := x.topic(), x.topic()
	q1, q2 := x.open(one, "q"), x.open(two, "q")
	x.publish(two, message("two")) // first, so that a shared queue shows
	x.publish(one, message("one"))
	x.ack(q1, x.receiveID(q1, 0, "one"))
	x.ack(q2, x.receiveID(q2, 0, "two"))
	x.none(q1, x.quiet(), "the other topic has a queue of the same name")
	x.none(q2, x.quiet(), "the other topic has a queue of the same name")
}

// checkNames opens topics and queues whose names a careless encoding would
// make equal.
func checkNames(x *fixture) {
	unique := x.unique("n")
	names := []string{"a.b", "a-b", "a_b", "a/b", "A.B", "a b", "a*b", "a>b", "ä", "日本", "a" + fmt.Sprintf("%0200d", 7)}
	type opened struct {
		name  string
		topic engine.Topic
		queue engine.Queue
	}
	all := []opened{}
	for _, n := range names {
		ctx, cancel := x.within(x.o.patience)
		top, err := x.e.OpenTopic(ctx, engine.TopicSpec{Name: unique + n})
		if err == nil {
			x.Cleanup(func() { _ = top.Close() })
			var q engine.Queue
			if q, err = top.OpenQueue(ctx, engine.QueueSpec{Name: n, Visibility: x.long()}); err == nil {
				x.Cleanup(func() { _ = q.Close() })
				all = append(all, opened{n, top, q})
			}
		}
		cancel()
	}
	for _, o := range all {
		x.publish(o.topic, message(o.name))
	}
	slices.Reverse(all) // else queues that are one and the same would look right
	for _, o := range all {
		r := x.receive(o.queue, 0)
		equal(x, r.ID, o.name, "what queue %q of topic %q received", o.name, unique+o.name)
		x.ack(o.queue, r)
	}
	for _, o := range all {
		ctx, cancel := x.within(x.quiet() / time.Duration(len(all)))
		if got, _ := o.queue.Receive(ctx, 1, 0); len(got) > 0 {
			x.fail("queue %q got message %q of another topic", o.name, got[0].ID)
		}
		cancel()
	}
}

func checkPublishedAfterOpen(x *fixture) {
	top := x.topic()
	for i := range 5 {
		q := x.open(top, fmt.Sprintf("q%d", i))
		x.publish(top, message(fmt.Sprint(i)))
		x.receiveID(q, 0, fmt.Sprint(i))
	}
}

func checkOtherSettings(x *fixture) {
	top := x.topic()
	spec := engine.QueueSpec{Name: "q", Visibility: x.lease(x.o.pace), MaxAttempts: 5}
	x.must(x.openQueue(top, spec).Close(), "Close")
	spec.Visibility, spec.MaxAttempts = x.lease(2*x.o.pace), 7
	q, err := top.OpenQueue(x.ctx, spec)
	if err != nil {
		x.mustBe(err, engine.ErrMismatch, "OpenQueue with another visibility timeout")
		return
	}
	x.Cleanup(func() { _ = q.Close() })
	x.publish(top, message("a"))
	start := time.Now()
	x.receiveID(q, 0, "a")
	if !x.caps.Keeps(engine.Visibility, spec.Visibility) {
		return
	}
	x.receiveID(q, 0, "a")
	x.notBefore(start, spec.Visibility, "with the queue's new visibility timeout, the second delivery")
}

func checkCloseQueue(x *fixture) {
	top := x.topic()
	q := x.open(top, "q")
	dead := x.dead(q)
	x.publish(top, message("a"))
	held := x.receiveID(q, x.long(), "a")
	receive := func(q engine.Queue) *waiter {
		return x.begin(func() error {
			_, err := q.Receive(x.ctx, 1, 0)
			return err
		})
	}
	inQueue, inDead := receive(q), receive(dead)
	x.pause(x.quiet())
	x.must(q.Close(), "Close")
	x.mustBe(x.end(inQueue, "Receive, when its queue was closed"), engine.ErrClosed, "Receive, when its queue was closed")
	x.mustBe(x.end(inDead, "Receive, when its dead-letter queue was closed"), engine.ErrClosed, "Receive of the dead-letter queue, when the queue was closed")
	x.must(q.Close(), "Close again")
	_, err := q.Receive(x.ctx, 1, 0)
	x.mustBe(err, engine.ErrClosed, "Receive after Close")
	_, err = q.Stats(x.ctx)
	x.mustBe(err, engine.ErrClosed, "Stats after Close")
	x.mustBe(q.Ack(x.ctx, held.Receipt), engine.ErrClosed, "Ack after Close")
}

// checkReturnAfterClose gives back what was received before Close, a letter too: others get
// it long before its lease ends. Once the topic is closed it is too late.
func checkReturnAfterClose(x *fixture) {
	spec := engine.TopicSpec{Name: x.unique("topic")}
	top := x.openTopic(x.e, spec)
	q := x.open(top, "q")
	dead := x.dead(q)
	x.publish(top, messages("a", "b", "c")...)
	x.bury(q, x.receive(q, x.long()), "")
	held, kept := x.receive(q, x.long()), x.receive(q, x.long())
	letter := x.receive(dead, x.long())
	x.must(q.Close(), "Close")
	x.must(q.Return(x.ctx, held.Receipt, 0, nil), "Return after Close")
	x.must(dead.Return(x.ctx, letter.Receipt, 0, nil), "Return of a letter after Close")
	x.mustBe(q.Ack(x.ctx, kept.Receipt), engine.ErrClosed, "Ack after Close")
	if x.caps.Keeps(engine.Fencing, 0) {
		x.mustBe(q.Return(x.ctx, held.Receipt, 0, nil), engine.ErrStale, "Return again, after Close")
	}
	x.must(top.Close(), "Close of the topic")
	x.mustBe(q.Return(x.ctx, kept.Receipt, 0, nil), engine.ErrClosed, "Return after the topic's Close")
	q = x.open(x.openTopic(x.e, spec), "q")
	x.receiveID(q, x.long(), held.ID)
	x.receiveID(x.dead(q), x.long(), letter.ID)
}

func checkClosedQueueStays(x *fixture) {
	top := x.topic()
	q := x.open(top, "q")
	x.publish(top, message("before"))
	x.must(q.Close(), "Close")
	x.publish(top, message("after"))
	q = x.open(top, "q")
	x.mustHold(x.collect(q, 2), "before", "after")
}

func checkCloseTopic(x *fixture) {
	top := x.topic()
	x.must(top.Close(), "Close")
	x.mustBe(top.Publish(x.ctx, messages("a")), engine.ErrClosed, "Publish after Close")
	_, err := top.OpenQueue(x.ctx, engine.QueueSpec{Name: "q", Visibility: x.long()})
	x.mustBe(err, engine.ErrClosed, "OpenQueue after Close")
}

// checkContexts calls everything with a context that has ended. What needs no
// I/O may succeed; what fails must say why.
func checkContexts(x *fixture) {
	top := x.topic()
	q := x.open(top, "q")
	x.publish(top, messages("1", "2", "3", "4", "5")...)
	held := []engine.Received{}
	for _, r := range x.collect(q, 5) {
		held = append(held, r)
	}
	x.bury(q, held[4], "")
	letter := x.receive(x.dead(q), 0)
	wait := time.Duration(0)
	if x.caps.Keeps(engine.RetryDelay, x.o.pace) {
		wait = x.o.pace
	}
	ended, cancel := context.WithCancel(x.ctx)
	cancel()
	calls := map[string]func() error{
		"OpenTopic": func() error {
			t, err := x.e.OpenTopic(ended, engine.TopicSpec{Name: x.unique("topic")})
			if err == nil {
				_ = t.Close()
			}
			return err
		},
		"OpenQueue": func() error {
			q, err := top.OpenQueue(ended, engine.QueueSpec{Name: "other", Visibility: x.long()})
			if err == nil {
				_ = q.Close()
			}
			return err
		},
		"Publish":    func() error { return top.Publish(ended, messages("6")) },
		"Ack":        func() error { return q.Ack(ended, held[0].Receipt) },
		"Return":     func() error { return q.Return(ended, held[1].Receipt, wait, nil) },
		"Extend":     func() error { return q.Extend(ended, held[2].Receipt, x.long()) },
		"DeadLetter": func() error { return q.DeadLetter(ended, held[3].Receipt, held[3].Message) },
		"Redrive":    func() error { return x.dead(q).Redrive(ended, letter.Receipt, letter.Message) },
		"Stats":      func() error { _, err := q.Stats(ended); return err },
		"Purge":      func() error { _, err := q.Purge(ended); return err },
	}
	for name, call := range calls {
		if err := x.end(x.begin(call), name); err != nil {
			x.mustBe(err, context.Canceled, "%s with a context that has ended", name)
		}
	}
	empty := x.open(top, "empty")
	short, cancel := x.within(x.o.pace / 4)
	defer cancel()
	w := x.begin(func() error { _, err := empty.Receive(short, 1, 0); return err })
	if err := x.end(w, "Receive"); !errors.Is(err, context.DeadlineExceeded) {
		x.fail("Receive of an empty queue returned %v when its context ended", err)
	}
}
