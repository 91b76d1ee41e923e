package enginetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/engine"
)

func groupChecks() []check {
	return []check{
		{name: "batch handler", rule: "A batch handler gets at most WithBatchSize messages; nil acknowledges those that it left unsettled.", run: promiseBatchHandler},
		{name: "batch handler fails", rule: "An error of a batch handler fails the messages that it left unsettled, and no others.", run: promiseBatchFails},
		{name: "publish a batch", rule: "When PublishMessages returns nil all the messages are in all queues.", run: func(x *fixture) {
			top := x.newTopic()
			a, b := top.queue("a"), top.queue("b")
			n := min(x.o.batch, 500)
			ids := []string{}
			for i := range n {
				ids = append(ids, fmt.Sprint(i))
			}
			top.send(ids...)
			a.holds(ids...)
			b.holds(ids...)
		}},
		{name: "interceptors", rule: "Interceptors stand around each publish and each run of a handler; attributes that they set travel with the message.", run: promiseInterceptors},
		{name: "queue interceptors", rule: "Interceptors stand around each receive, each settlement and each redrive of a caller, and see the IDs, attributes and attempts of the messages.", run: promiseQueueInterceptors},
		{name: "refusing interceptor", rule: "An interceptor that does not call next publishes nothing.", run: func(x *fixture) {
			top := x.newTopic(fanout.WithPublishInterceptor(func(context.Context, fanout.Info, func(context.Context) error) error { return errBusy }))
			q := top.queue("q")
			x.mustBe(top.Publish(x.ctx, order{ID: "a"}), errBusy, "Publish, refused by an interceptor")
			q.empty("nothing was published")
		}},
		{name: "hooks", rule: "Hooks are called as things happen.", run: promiseHooks},
	}
}

func lifeChecks() []check {
	return []check{
		{name: "pause and resume", rule: "Pause makes the queue give out no messages until Resume; publishes go on.", run: promisePause},
		{name: "purge a queue", rule: "Purge drops all that the queue holds, what is in flight too, whose settling returns ErrStale. Dead letters stay.", run: promisePurge},
		{name: "closed queue", rule: "Close ends the queue at once: receives and settlements get ErrClosed.", run: promiseClosedQueue},
		{feature: engine.Deletion, name: "delete a queue", rule: "Delete ends the queue as Close does, and what it held is gone, its dead letters too.", run: promiseDelete},
		{name: "subscriber's shutdown", rule: "Subscriber.Shutdown waits for running handlers and takes no other message; the queue stays open.", run: promiseSubscriberShutdown},
		{name: "shutdown", rule: "Shutdown waits until the queues are drained; publishes get ErrClosed from then on.", run: promiseShutdown},
		{name: "shutdown's leftovers", rule: "If anything is left, Shutdown returns a *ShutdownError that says how much per queue, handlers still running included.", run: promiseLeftovers},
		{name: "closed topic", rule: "Close ends the topic at once: publishes and receives get ErrClosed. Calling it again does nothing.", run: func(x *fixture) {
			top := x.newTopic()
			q := top.queue("q")
			w := x.begin(func() error { _, err := q.Receive(x.ctx); return err })
			x.pause(x.quiet())
			x.must(top.Close(), "Close")
			x.mustBe(x.end(w, "Receive"), fanout.ErrClosed, "a Receive that waits when the topic is closed")
			x.mustBe(top.Publish(x.ctx, order{}), fanout.ErrClosed, "Publish after Close")
			_, err := top.OpenQueue(x.ctx, "other")
			x.mustBe(err, fanout.ErrClosed, "OpenQueue after Close")
			x.must(top.Close(), "Close again")
		}},
		{feature: engine.ExactStats, name: "depth", rule: "Depth returns what the queue holds.", run: func(x *fixture) {
			top := x.newTopic()
			q := top.queue("q")
			x.settledDepth(q, 0)
			top.send("1", "2", "3")
			x.settledDepth(q, 3)
			d := q.next()
			x.settledDepth(q, 3)
			q.ack(d)
			x.settledDepth(q, 2)
		}},
		{name: "unlimited", rule: "Unlimited, and Block beside it, is what every engine keeps; so is a codec in memory, which is not used there.", run: func(x *fixture) {
			top := x.newTopic(fanout.WithCodec(fanout.JSON))
			q := top.queue("q", fanout.WithCapacity(fanout.Unlimited), fanout.WithOverflow(fanout.Block), fanout.WithDeadLetterCapacity(fanout.Unlimited))
			top.send("1", "2")
			d := q.next()
			x.must(d.Settle(x.ctx, fanout.Permanent(errBusy)), "Settle")
			q.ack(q.next())
			q.dead().holds(d.Body.ID)
		}},
		{name: "undecodable letter", rule: "A letter that can't be decoded has no body, and Encoded returns its bytes: in Peek, Receive and handlers. In memory nothing is encoded.", run: promiseUndecodable},
		{feature: engine.Listing, name: "list the topic's queues", rule: "ListQueues returns what each queue holds, as Depth does; on an engine those that nobody has open, too.", run: promiseListQueues},
	}
}

func promiseBatchHandler(x *fixture) {
	top := x.newTopic()
	sizes, got := make(chan int, 100), newInbox()
	q := top.queue("q")
	ids := []string{"1", "2", "3", "4", "5", "6", "7"}
	top.send(ids...)
	_, err := q.SubscribeBatch(x.ctx, func(_ context.Context, ds []fanout.Delivery[order]) error {
		sizes <- len(ds)
		for _, d := range ds {
			got <- d
		}
		return nil
	}, fanout.WithBatchSize(3))
	x.must(err, "SubscribeBatch")
	seen := []string{}
	for range ids {
		seen = append(seen, got.next(x).Body.ID)
	}
	slices.Sort(seen)
	if !slices.Equal(seen, ids) {
		x.fail("the handler got %q, not %q", seen, ids)
	}
	for range len(sizes) {
		if n := <-sizes; n < 1 || n > 3 {
			x.fail("the handler got %d messages at once, not 1 to 3", n)
		}
	}
	got.quiet(x, x.quiet(), "the handler returned nil")
}

func promiseBatchFails(x *fixture) {
	top := x.newTopic()
	q := top.queue("q")
	got := newInbox()
	top.send("1", "2", "3")
	_, err := q.SubscribeBatch(x.ctx, func(ctx context.Context, ds []fanout.Delivery[order]) error {
		again := false
		for _, d := range ds {
			got <- d
			again = again || d.Attempt() > 1
			if d.Body.ID == "2" {
				_ = d.Ack(ctx)
			}
		}
		if again {
			return nil
		}
		return errBusy
	}, fanout.WithBatchSize(3))
	x.must(err, "SubscribeBatch")
	attempts := map[string]int{}
	for range 5 {
		attempts[got.next(x).Body.ID]++
	}
	if attempts["1"] != 2 || attempts["2"] != 1 || attempts["3"] != 2 {
		x.fail("deliveries by order: %v", attempts)
	}
	got.quiet(x, x.quiet(), "the second attempts succeeded")
}

func promiseInterceptors(x *fixture) {
	var mu sync.Mutex
	log := []string{}
	note := func(s string) {
		mu.Lock()
		defer mu.Unlock()
		log = append(log, s)
	}
	top := x.newTopic(
		fanout.WithPublishInterceptor(func(ctx context.Context, info fanout.Info, next func(context.Context) error) error {
			note(fmt.Sprint("publish ", info.Messages))
			info.SetAttribute("trace", "t-17")
			return next(ctx)
		}),
		fanout.WithHandlerInterceptor(func(ctx context.Context, info fanout.Info, next func(context.Context) error) error {
			trace, _ := info.Attribute("trace")
			note(fmt.Sprint("handle ", info.Queue, " ", info.MessageID, " ", info.Attempt, " ", trace))
			err := next(ctx)
			note(fmt.Sprint("handled ", err))
			return err
		}))
	got := newInbox()
	top.subscribe("q", func(_ context.Context, d fanout.Delivery[order]) error {
		if d.Attempt() == 1 {
			return errBusy
		}
		got <- d
		return nil
	})
	top.send("a")
	trace, _ := got.next(x).Attribute("trace")
	equal(x, trace, "t-17", "the attribute that the interceptor set")
	x.must(top.Shutdown(x.ctx), "Shutdown")
	mu.Lock()
	defer mu.Unlock()
	equal(x, fmt.Sprint(log), "[publish 1 handle q a 1 t-17 handled busy handle q a 2 t-17 handled <nil>]", "what the interceptors saw")
}

func promiseQueueInterceptors(x *fixture) {
	log := []string{}
	top := x.newTopic(
		fanout.WithPublishInterceptor(func(ctx context.Context, info fanout.Info, next func(context.Context) error) error {
			for k := range info.Len() {
				m := info.Message(k)
				log = append(log, fmt.Sprint("publish ", m.ID(), " ", m.SetAttribute("trace", "of "+m.ID())))
			}
			return next(ctx)
		}),
		fanout.WithQueueInterceptor(func(ctx context.Context, info fanout.Info, next func(context.Context) error) error {
			err := next(ctx)
			line := info.Operation.String()
			if info.Operation == fanout.OpSettle {
				line += " " + info.Cause.String()
			}
			for k := range info.Len() {
				m := info.Message(k)
				trace, _ := m.Attribute("trace")
				line += fmt.Sprint(" ", m.ID(), " ", m.Attempt(), " ", trace)
			}
			if err != nil {
				line += " failed"
			}
			log = append(log, line)
			return err
		}))
	q := top.queue("q", fanout.WithMaxAttempts(2))
	x.must(top.PublishMessages(x.ctx, fanout.Message[order]{Body: order{ID: "a"}, ID: "a", Attributes: map[string]string{"trace": "mine"}}), "PublishMessages")
	ctx, cancel := context.WithTimeout(x.ctx, x.o.patience)
	defer cancel()
	first, err := q.Receive(ctx)
	x.must(err, "Receive")
	x.must(first.Nack(x.ctx), "Nack")
	for d, err := range q.Deliveries(ctx) {
		x.must(err, "a step of Deliveries")
		x.must(d.Settle(x.ctx, errBusy), "Settle")
		break
	}
	x.redriveOne(q)
	batch, err := q.ReceiveBatch(ctx, 2)
	x.must(err, "ReceiveBatch")
	x.must(batch[0].Ack(x.ctx), "Ack")
	log = slices.DeleteFunc(log, func(line string) bool { return line == "redrive" || line == "redrive failed" }) // of nothing: it takes time until letters are seen
	equal(x, fmt.Sprintf("%q", log), fmt.Sprintf("%q", []string{"publish a false", "receive a 1 mine", "settle nacked a 1 mine", "receive a 2 mine",
		"settle failed a 2 mine", "redrive  0 ", "receive a 1 mine", "settle acked a 1 mine"}), "what the interceptors saw")
}

func promiseHooks(x *fixture) {
	events := make(chan string, 100)
	hook := func(name string) func(fanout.Event) {
		return func(e fanout.Event) {
			s := name + " " + e.MessageID
			if name == "settled" || name == "dead" {
				s += " " + e.Cause.String()
			}
			events <- s
		}
	}
	top := x.newTopic(fanout.WithHooks(fanout.Hooks{
		Published: hook("published"), Delivered: hook("delivered"), Settled: hook("settled"), DeadLettered: hook("dead"), Redriven: hook("redriven"),
	}))
	q := top.queue("q", fanout.WithMaxAttempts(2))
	top.send("a")
	x.must(q.nextID("a").Nack(x.ctx), "Nack")
	x.must(q.nextID("a").Settle(x.ctx, errBusy), "Settle")
	x.redriveOne(q)
	q.ack(q.nextID("a"))
	want := map[string]int{"published a": 1, "delivered a": 3, "settled a " + fanout.Nacked.String(): 1, "settled a " + fanout.Failed.String(): 1,
		"settled a " + fanout.Acked.String(): 1, "dead a " + fanout.Failed.String(): 1, "redriven a": 1}
	got := map[string]int{}
	for len(events) > 0 {
		got[<-events]++
	}
	for e, n := range want {
		if got[e] != n {
			x.fail("event %q came %d times, not %d; all: %v", e, got[e], n, got)
		}
	}
}

func promisePause(x *fixture) {
	top := x.newTopic()
	got := newInbox()
	top.subscribe("q", func(_ context.Context, d fanout.Delivery[order]) error {
		got <- d
		return nil
	})
	q := top.Queue("q")
	top.send("1")
	got.next(x)
	x.must(q.Pause(x.ctx), "Pause")
	top.send("2")
	got.quiet(x, x.quiet(), "the queue is paused")
	x.must(q.Resume(x.ctx), "Resume")
	equal(x, got.next(x).Body.ID, "2", "the order handled after Resume")
}

func promisePurge(x *fixture) {
	top := x.newTopic()
	q, other := top.queue("q"), top.queue("other")
	top.send("1", "2", "3")
	x.must(q.next().Settle(x.ctx, fanout.Permanent(errBusy)), "Settle")
	held := q.next()
	n, err := q.Purge(x.ctx)
	x.must(err, "Purge")
	if x.caps.Keeps(engine.ExactStats, 0) {
		equal(x, n, 2, "messages purged: one ready, one in flight")
	}
	x.mustBe(held.Ack(x.ctx), fanout.ErrStale, "Ack of a delivery that was purged")
	q.empty("the queue was purged")
	other.holds("1", "2", "3")
	q.dead().next()
	top.send("4")
	q.holds("4")
}

func promiseClosedQueue(x *fixture) {
	top := x.newTopic()
	q, other := top.queue("q"), top.queue("other")
	top.send("1")
	held := q.next()
	w := x.begin(func() error { _, err := q.Receive(x.ctx); return err })
	x.pause(x.quiet())
	x.must(q.Close(), "Close")
	x.mustBe(x.end(w, "Receive"), fanout.ErrClosed, "a Receive that waits when its queue is closed")
	x.mustBe(held.Ack(x.ctx), fanout.ErrClosed, "Ack when the queue is closed")
	top.send("2")
	other.holds("1", "2")
}

func promiseSubscriberShutdown(x *fixture) {
	top := x.newTopic()
	got := newInbox()
	release := make(chan struct{})
	s := top.subscribe("q", func(_ context.Context, d fanout.Delivery[order]) error {
		got <- d
		select {
		case <-release:
		case <-x.ctx.Done():
		}
		return nil
	})
	q := queueOf{s.Queue(), x}
	top.send("1")
	got.next(x)
	w := x.begin(func() error { return s.Shutdown(x.ctx) })
	x.pause(x.quiet())
	if len(w.done) > 0 {
		x.fail("Shutdown returned %v while a handler runs", <-w.done)
	}
	top.send("2")
	close(release)
	x.must(x.end(w, "Shutdown"), "Shutdown of the subscriber")
	got.quiet(x, x.quiet(), "the subscriber was shut down")
	q.holds("2")
}

func promiseShutdown(x *fixture) {
	top := x.newTopic()
	got := newInbox()
	top.subscribe("q", func(_ context.Context, d fanout.Delivery[order]) error {
		got <- d
		if d.Attempt() == 1 {
			return errBusy
		}
		return nil
	}, fanout.WithConcurrency(2))
	top.send("1", "2", "3", "4", "5")
	ctx, cancel := x.within(x.o.patience)
	defer cancel()
	x.must(top.Shutdown(ctx), "Shutdown")
	equal(x, len(got), 10, "handlers run: five orders, two attempts each")
	x.mustBe(top.Publish(x.ctx, order{}), fanout.ErrClosed, "Publish after Shutdown")
	select {
	case <-top.Done(): // a timer that fired just before may run for a moment still
	case <-ctx.Done():
		x.fail("Done is open %v after Shutdown returned nil", x.o.patience)
	}
}

func promiseLeftovers(x *fixture) {
	top := x.newTopic()
	got := newInbox()
	top.subscribe("slow", func(_ context.Context, d fanout.Delivery[order]) error {
		got <- d
		<-x.ctx.Done() // whatever its own context says
		return nil
	})
	top.queue("nobody")
	top.send("1", "2")
	got.next(x)
	ctx, cancel := x.within(x.quiet())
	defer cancel()
	err := top.Shutdown(ctx)
	var left *fanout.ShutdownError
	if !errors.As(err, &left) || !errors.Is(err, context.DeadlineExceeded) {
		x.fail("Shutdown returned %v, no *ShutdownError that wraps its context's error", err)
	}
	by := map[string]fanout.Left{}
	for _, l := range left.Queues {
		by[l.Queue] = l
	}
	equal(x, by["slow"].Running, 1, "handlers that run on in queue slow, of %v", err)
	if x.caps.Keeps(engine.ExactStats, 0) {
		equal(x, by["nobody"].Ready, 2, "messages ready in queue nobody, of %v", err)
	}
}

func promiseListQueues(x *fixture) {
	top := x.newTopic()
	b, a := top.queue("b"), top.queue("a")
	top.send("1", "2", "3")
	x.must(a.next().Settle(x.ctx, fanout.Permanent(errBusy)), "Settle")
	a.next()
	// An engine is given a moment to count.
	list := func(want ...string) {
		deadline := time.Now().Add(x.o.patience)
		for {
			depths, err := top.ListQueues(x.ctx)
			x.must(err, "ListQueues")
			got := []string{}
			for _, d := range depths {
				text := d.Queue
				if x.caps.Keeps(engine.ExactStats, 0) {
					text = fmt.Sprint(d.Queue, d.Ready, d.Delayed, d.InFlight, d.Dead)
				}
				got = append(got, text)
			}
			if !x.caps.Keeps(engine.ExactStats, 0) {
				for i, w := range want {
					want[i] = w[:1]
				}
			}
			if slices.Equal(got, want) {
				return
			}
			if time.Now().After(deadline) {
				x.fail("ListQueues returned %v, not queues like %q", depths, want)
			}
			x.pause(x.o.pace / 20)
		}
	}
	list(fmt.Sprint("a", 1, 0, 1, 1), fmt.Sprint("b", 3, 0, 0, 0))
	if d, err := a.Depth(x.ctx); err != nil || x.caps.Keeps(engine.ExactStats, 0) && (d.Dead != 1 || d.InFlight != 1) {
		x.fail("Depth: %v, %v", d, err)
	}
	x.must(b.Close(), "Close")
	if x.e == nil { // in memory a queue ends when it is closed
		list(fmt.Sprint("a", 1, 0, 1, 1))
		return
	}
	top.send("4")
	list(fmt.Sprint("a", 2, 0, 1, 1), fmt.Sprint("b", 4, 0, 0, 0))
}

// A pickyCodec refuses to decode bodies of orders with the ID "odd".
type pickyCodec struct{ fanout.Codec }

func (c pickyCodec) Decode(data []byte, body any) error {
	if bytes.Contains(data, []byte(`"odd"`)) {
		return errBusy
	}
	return c.Codec.Decode(data, body)
}

func promiseUndecodable(x *fixture) {
	const raw = `{"id":"odd"}`
	top := x.newTopic(fanout.WithCodec(pickyCodec{fanout.JSON}))
	q := top.queue("q")
	if x.e == nil {
		top.send("odd")
		if d := q.nextID("odd"); d.Encoded() != nil {
			x.fail("Encoded is %q", d.Encoded())
		}
		return
	}
	top.send("odd", "even")
	d := q.nextID("even")
	equal(x, string(d.Encoded()), `{"id":"even"}`, "Encoded of a message that is well")
	q.ack(d)
	q.empty("the other message can't be decoded")
	var letters []fanout.Delivery[order]
	for deadline := time.Now().Add(x.o.patience); len(letters) == 0; x.pause(x.o.pace / 20) {
		var err error
		letters, err = q.DeadLetters().Peek(x.ctx, 10)
		x.must(err, "Peek")
		if time.Now().After(deadline) {
			x.fail("there is no letter within %v", x.o.patience)
		}
	}
	received := q.dead().next()
	x.must(received.Release(x.ctx), "Release")
	got := newInbox()
	_, err := q.DeadLetters().Subscribe(x.ctx, func(_ context.Context, d fanout.Delivery[order]) error {
		got <- d
		return nil
	})
	x.must(err, "Subscribe to the dead letters")
	for how, d := range map[string]fanout.Delivery[order]{"Peek": letters[0], "Receive": received, "a handler": got.next(x)} {
		equal(x, d.Body.ID, "", "the body of the letter, by %s", how)
		equal(x, string(d.Encoded()), raw, "Encoded of the letter, by %s", how)
	}
}
