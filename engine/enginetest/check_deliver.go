package enginetest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/engine"
)

func deliverChecks() []check {
	return []check{
		{name: "every queue its own copy", rule: "Each message goes to every queue of the topic; settling it in one leaves the others alone.", run: promiseFanOut},
		{name: "what was published arrives", rule: "Body, ID, attributes and time of publication arrive as they were published, in every queue, at every attempt.", run: promiseRoundTrip},
		{name: "push", rule: "A handler that returns nil acknowledges.", run: promisePush},
		{name: "iterate", rule: "Deliveries receives one message after the other, and ends without an error when the queue is closed.", run: promiseIterate},
		{name: "receive waits for its context", rule: "Receive waits for a message, until its context ends.", run: func(x *fixture) {
			q := x.newTopic().queue("q")
			q.empty("nothing was published")
			ctx, cancel := context.WithCancel(x.ctx)
			cancel()
			_, err := q.Receive(ctx)
			x.mustBe(err, context.Canceled, "Receive with a context that has ended")
		}},
		{name: "receive a batch", rule: "ReceiveBatch takes up to most messages; it waits until there is one.", run: promiseReceiveBatch},
		{name: "settled is settled", rule: "A second settle returns ErrSettled and does nothing.", run: promiseSettled},
		{feature: engine.Visibility, name: "time-out", rule: "When the visibility timeout passes unsettled, the message is ready again and an attempt is spent.", run: promiseTimeOut},
		{feature: engine.Visibility, name: "time-out of one receive", rule: "A visibility timeout given to Receive holds for that delivery.", run: func(x *fixture) {
			top := x.newTopic()
			q := top.queue("q")
			top.send("a")
			start := time.Now()
			q.nextID("a", fanout.WithVisibilityTimeout(x.o.pace))
			d := q.nextID("a")
			x.notBefore(start, x.o.pace, "the second delivery")
			equal(x, causes(d.History()), said(fanout.TimedOut), "history")
		}},
		{feature: engine.Visibility, name: "stale settles", rule: "Settling a delivery whose visibility timeout has passed returns ErrStale and never touches the newer delivery.", run: promiseStale},
		{feature: engine.Visibility, name: "extend a delivery", rule: "Extend makes the visibility timeout end by from now.", run: promiseExtend},
		{feature: engine.Visibility, name: "auto-extend", rule: "WithAutoExtend extends the visibility timeout for as long as the handler runs.", run: promiseAutoExtend},
		{feature: engine.Visibility, name: "handler's context at time-out", rule: "The handler's context is cancelled, with a cause that wraps ErrStale, when the visibility timeout passes.", run: promiseHandlerContext},
		{name: "concurrency", rule: "WithConcurrency is a hard bound on running handlers, and as many do run.", run: promiseConcurrency},
	}
}

func promiseFanOut(x *fixture) {
	top := x.newTopic()
	a, b := top.queue("a"), top.queue("b")
	top.send("1", "2", "3")
	a.holds("1", "2", "3")
	for _, d := range b.all(3) {
		equal(x, d.Attempt(), 1, "attempt of order %q in the second queue", d.Body.ID)
		equal(x, d.Queue(), "b", "Delivery.Queue")
		b.ack(d)
	}
	b.empty("all is acknowledged")
}

func promiseRoundTrip(x *fixture) {
	top := x.newTopic()
	a, b := top.queue("a"), top.queue("b")
	m := fanout.Message[order]{
		Body:       order{ID: "o-17", Cents: 1<<53 + 1, Note: "Grüße, 日本 🐟 <&>\n", Lines: []string{"", "x"}, Meta: map[string]string{"k": "v"}},
		Attributes: map[string]string{"region": "eu", "note": "Grüße, 日本"},
	}
	before := time.Now()
	top.sendMail(m)
	after := time.Now()
	first := a.next()
	x.must(first.Nack(x.ctx), "Nack")
	ds := []fanout.Delivery[order]{first, a.next(), b.next()}
	for i, d := range ds {
		if !reflect.DeepEqual(d.Body, m.Body) {
			x.fail("delivery %d: body %+v, not %+v", i, d.Body, m.Body)
		}
		if !reflect.DeepEqual(d.Attributes(), m.Attributes) {
			x.fail("delivery %d: attributes %q, not %q", i, d.Attributes(), m.Attributes)
		}
		if d.ID() == "" || d.ID() != ds[0].ID() {
			x.fail("delivery %d: ID %q, and %q in the first", i, d.ID(), ds[0].ID())
		}
		if at := d.PublishedAt(); at.Before(before.Add(-time.Millisecond)) || at.After(after.Add(time.Millisecond)) {
			x.fail("delivery %d: published at %v, not between %v and %v", i, at, before, after)
		}
	}
}

func promisePush(x *fixture) {
	top := x.newTopic()
	got := newInbox()
	for _, name := range []string{"a", "b"} {
		top.subscribe(name, func(_ context.Context, d fanout.Delivery[order]) error {
			got <- d
			return nil
		}, fanout.WithConcurrency(3))
	}
	const n = 20
	for i := range n {
		top.send(fmt.Sprint(i))
	}
	seen := map[string]int{}
	for range 2 * n {
		d := got.next(x)
		seen[d.Queue()+" "+d.Body.ID]++
	}
	equal(x, len(seen), 2*n, "different orders handled by the two queues")
	got.quiet(x, x.quiet(), "all handlers returned nil")
}

func promiseIterate(x *fixture) {
	top := x.newTopic()
	q := top.queue("q")
	top.send("1", "2", "3")
	n := 0
	w := x.begin(func() error {
		for d, err := range q.Deliveries(x.ctx) {
			if err != nil {
				return err
			}
			if err := d.Ack(x.ctx); err != nil {
				return err
			}
			if n++; n == 3 {
				if err := q.Close(); err != nil {
					return err
				}
			}
		}
		return nil
	})
	x.must(x.end(w, "ranging over Deliveries"), "ranging over Deliveries")
	equal(x, n, 3, "deliveries")
}

func promiseReceiveBatch(x *fixture) {
	top := x.newTopic()
	q := top.queue("q")
	top.send("1", "2", "3", "4", "5")
	got := map[string]bool{}
	for len(got) < 5 {
		ctx, cancel := x.within(x.o.patience)
		ds, err := q.ReceiveBatch(ctx, 3)
		cancel()
		x.must(err, "ReceiveBatch, after %d of 5", len(got))
		if len(ds) < 1 || len(ds) > 3 {
			x.fail("ReceiveBatch of at most 3 returned %d", len(ds))
		}
		for _, d := range ds {
			got[d.Body.ID] = true
			q.ack(d)
		}
	}
	q.empty("all is acknowledged")
}

func promiseSettled(x *fixture) {
	top := x.newTopic()
	q := top.queue("q")
	top.send("a")
	d := q.nextID("a")
	x.must(d.Nack(x.ctx), "Nack")
	x.mustBe(d.Ack(x.ctx), fanout.ErrSettled, "Ack after Nack")
	again := q.nextID("a")
	x.mustBe(d.Nack(x.ctx), fanout.ErrSettled, "Nack again, when there is a newer delivery")
	q.ack(again)
	x.mustBe(again.Ack(x.ctx), fanout.ErrSettled, "Ack after Ack")
	x.mustBe(again.Extend(x.ctx, time.Minute), fanout.ErrSettled, "Extend after Ack")
	q.empty("the message is acknowledged")
}

func promiseTimeOut(x *fixture) {
	top := x.newTopic()
	q := top.queue("q", fanout.WithVisibilityTimeout(x.o.pace), fanout.WithMaxAttempts(3))
	top.send("a")
	start := time.Now()
	for n := 1; n <= 3; n++ {
		equal(x, q.nextID("a").Attempt(), n, "attempt")
		x.notBefore(start, time.Duration(n-1)*x.o.pace, fmt.Sprint("attempt ", n))
	}
	letter := q.dead().nextID("a")
	equal(x, causes(letter.History()), said(fanout.TimedOut, fanout.TimedOut, fanout.TimedOut), "history of the letter")
}

func promiseStale(x *fixture) {
	top := x.newTopic()
	q := top.queue("q")
	top.send("a")
	old := q.nextID("a", fanout.WithVisibilityTimeout(x.o.pace))
	d := q.nextID("a")
	x.mustBe(old.Ack(x.ctx), fanout.ErrStale, "Ack after the visibility timeout")
	x.mustBe(old.Nack(x.ctx), fanout.ErrStale, "Nack after the visibility timeout")
	x.mustBe(old.Extend(x.ctx, time.Minute), fanout.ErrStale, "Extend after the visibility timeout")
	equal(x, d.Attempt(), 2, "attempt of the newer delivery")
	q.ack(d)
	q.empty("the newer delivery acknowledged the message")
}

func promiseExtend(x *fixture) {
	top := x.newTopic()
	q := top.queue("q")
	top.send("a")
	received := time.Now()
	d := q.nextID("a", fanout.WithVisibilityTimeout(2*x.o.pace))
	x.pause(x.o.pace)
	start := time.Now()
	err := d.Extend(x.ctx, 3*x.o.pace)
	if err != nil {
		x.tooSlow(received, 2*x.o.pace)
	}
	x.must(err, "Extend")
	again := q.nextID("a")
	x.notBefore(start, 3*x.o.pace, "an extended message")
	equal(x, again.Attempt(), 2, "attempt, since an extension is none")
	x.mustBe(again.Extend(x.ctx, 0), fanout.ErrInvalidOption, "Extend by 0")
}

func promiseAutoExtend(x *fixture) {
	top := x.newTopic()
	got := newInbox()
	top.subscribe("q", func(ctx context.Context, d fanout.Delivery[order]) error {
		got <- d
		wait, cancel := context.WithTimeout(ctx, 5*x.o.pace)
		defer cancel()
		<-wait.Done()
		return context.Cause(ctx)
	}, fanout.WithVisibilityTimeout(3*x.o.pace), fanout.WithAutoExtend(100*x.o.pace), fanout.WithConcurrency(2))
	top.send("a")
	got.next(x)
	got.quiet(x, 6*x.o.pace, "the handler runs longer than the visibility timeout, and it is extended")
}

func promiseHandlerContext(x *fixture) {
	top := x.newTopic()
	cause := make(chan error, 10)
	attempts := newInbox()
	top.subscribe("q", func(ctx context.Context, d fanout.Delivery[order]) error {
		attempts <- d
		if d.Attempt() > 1 {
			return nil
		}
		select {
		case <-ctx.Done():
			cause <- context.Cause(ctx)
		case <-x.ctx.Done():
		}
		return errors.New("too late")
	}, fanout.WithVisibilityTimeout(x.o.pace), fanout.WithConcurrency(2))
	start := time.Now()
	top.send("a")
	attempts.next(x)
	d := attempts.next(x)
	x.notBefore(start, x.o.pace, "the second attempt")
	equal(x, causes(d.History()), said(fanout.TimedOut), "history")
	x.mustBe(x.end(&waiter{done: cause}, "the handler's context"), fanout.ErrStale, "the cause of the handler's context")
	attempts.quiet(x, x.quiet(), "the second attempt succeeded")
}

func promiseConcurrency(x *fixture) {
	top := x.newTopic()
	got := newInbox()
	release := make(chan struct{})
	top.subscribe("q", func(_ context.Context, d fanout.Delivery[order]) error {
		got <- d
		select {
		case <-release:
		case <-x.ctx.Done():
		}
		return nil
	}, fanout.WithConcurrency(3))
	top.send("1", "2", "3", "4", "5")
	for range 3 {
		got.next(x)
	}
	got.quiet(x, x.quiet(), "three handlers run and the bound is three")
	close(release)
	for range 2 {
		got.next(x)
	}
}
