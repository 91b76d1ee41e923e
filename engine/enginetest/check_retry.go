package enginetest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"time"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/engine"
)

var errBusy = errors.New("busy")

func retryChecks() []check {
	return []check{
		{name: "attempts by cause", rule: "Attempts are counted by cause, and the history says how each ended.", run: promiseCauses},
		{name: "max attempts", rule: "A message is dead-lettered after exactly WithMaxAttempts spent attempts.", run: promiseMaxAttempts},
		{name: "unlimited attempts", rule: "With Unlimited attempts a message is never dead-lettered for them.", run: func(x *fixture) {
			top := x.newTopic()
			q := top.queue("q", fanout.WithMaxAttempts(fanout.Unlimited))
			top.send("a")
			for n := 1; n <= 7; n++ {
				d := q.nextID("a")
				equal(x, d.Attempt(), n, "attempt")
				x.must(d.NackAfter(x.ctx, 0), "NackAfter")
			}
		}},
		{name: "no poison spin", rule: "A failed message waits before it is retried; others go on meanwhile.", run: promiseNoSpin},
		{feature: engine.RetryDelay, name: "backoff", rule: "A failed message waits its backoff before it is delivered again.", run: promiseBackoff},
		{feature: engine.RetryDelay, name: "backoff by attempt", rule: "A Backoff is asked with the number of attempts spent.", run: promiseBackoffFunc},
		{feature: engine.RetryDelay, name: "nack after", rule: "NackAfter gives the message back, to be delivered again after wait. It spends an attempt.", run: func(x *fixture) {
			x.waits(func(d fanout.Delivery[order]) error { return d.NackAfter(x.ctx, 2*x.o.pace) }, 2, fanout.Nacked)
		}},
		{feature: engine.RetryDelay, name: "retry after", rule: "RetryAfter delivers the message again after wait. It spends an attempt.", run: func(x *fixture) {
			x.waits(func(d fanout.Delivery[order]) error { return d.Settle(x.ctx, fanout.RetryAfter(errBusy, 2*x.o.pace)) }, 2, fanout.Failed)
		}},
		{feature: engine.RetryDelay, name: "snooze", rule: "Snooze delivers the message again after wait. It spends no attempt.", run: func(x *fixture) {
			x.waits(func(d fanout.Delivery[order]) error { return d.Settle(x.ctx, fanout.Snooze(2*x.o.pace)) }, 1, fanout.Snoozed)
		}},
		{name: "isolation", rule: "A failing, panicking, blocked or exiting handler affects no other subscriber.", run: promiseIsolation},
	}
}

func promiseCauses(x *fixture) {
	top := x.newTopic()
	got := newInbox()
	top.subscribe("q", func(_ context.Context, d fanout.Delivery[order]) error {
		got <- d
		switch len(d.History()) {
		case 0:
			return errBusy
		case 1:
			panic("out of order")
		case 2:
			runtime.Goexit()
		case 3:
			return d.Nack(x.ctx)
		case 4:
			return fanout.Snooze(time.Millisecond)
		case 5:
			return fanout.Permanent(errors.New("no such order"))
		}
		return nil
	}, fanout.WithMaxAttempts(20))
	top.send("a")
	for i, attempt := range []int{1, 2, 3, 4, 5, 5} {
		equal(x, got.next(x).Attempt(), attempt, "attempt of delivery %d", i+1)
	}
	q := queueOf{top.Queue("q"), x}
	h := q.dead().nextID("a").History()
	equal(x, causes(h), said(fanout.Failed, fanout.Panicked, fanout.Exited, fanout.Nacked, fanout.Snoozed, fanout.PermanentlyFailed), "history of the letter")
	for i, a := range h {
		equal(x, a.Number, i+1, "number of attempt %d", i+1)
		equal(x, a.Queue, "q", "queue of attempt %d", i+1)
		if a.Start.IsZero() || a.Elapsed < 0 {
			x.fail("attempt %d started at %v and lasted %v", i+1, a.Start, a.Elapsed)
		}
	}
	for i, text := range map[int]string{0: "busy", 1: "out of order", 5: "no such order"} {
		if h[i].Err == nil || !strings.Contains(h[i].Err.Error(), text) {
			x.fail("the error of attempt %d is %v, without %q", i+1, h[i].Err, text)
		}
	}
	if !strings.Contains(h[1].Stack, "promiseCauses") {
		x.fail("the stack of the panic doesn't show where it came from:\n%s", h[1].Stack)
	}
	// The letter is there before it is gone here, and is counted after both.
	ctx, cancel := x.within(x.o.patience)
	defer cancel()
	s := q.Stats()
	for ; s.DeadLettered == 0 && ctx.Err() == nil; s = q.Stats() {
		x.pause(10 * time.Millisecond)
	}
	if s.Failed != 1 || s.Panicked != 1 || s.Exited != 1 || s.Nacked != 1 || s.Snoozed != 1 || s.PermanentlyFailed != 1 || s.DeadLettered != 1 {
		x.fail("stats %+v", s)
	}
}

func promiseMaxAttempts(x *fixture) {
	top := x.newTopic()
	got := newInbox()
	top.subscribe("q", func(_ context.Context, d fanout.Delivery[order]) error {
		got <- d
		return fmt.Errorf("attempt %d: %w", d.Attempt(), errBusy)
	}, fanout.WithMaxAttempts(3))
	top.send("a")
	for n := 1; n <= 3; n++ {
		d := got.next(x)
		equal(x, d.Attempt(), n, "attempt")
		equal(x, len(d.History()), n-1, "attempts in the history of attempt %d", n)
	}
	letter := queueOf{top.Queue("q"), x}.dead().nextID("a")
	equal(x, causes(letter.History()), said(fanout.Failed, fanout.Failed, fanout.Failed), "history of the letter")
	got.quiet(x, x.quiet(), "three attempts were spent, and there are three")
}

func promiseNoSpin(x *fixture) {
	top := x.newTopic()
	got := newInbox()
	top.subscribe("q", func(_ context.Context, d fanout.Delivery[order]) error {
		got <- d
		if d.Body.ID == "poison" && d.Attempt() == 1 {
			return errBusy
		}
		return nil
	})
	start := time.Now()
	top.send("poison", "2", "3")
	seen := map[string]int{}
	for range 4 {
		d := got.next(x)
		seen[d.Body.ID]++
		if d.Attempt() == 2 {
			x.notBefore(start, time.Millisecond, "the second attempt")
		}
	}
	if seen["poison"] != 2 || seen["2"] != 1 || seen["3"] != 1 {
		x.fail("deliveries by order: %v", seen)
	}
}

func promiseBackoff(x *fixture) {
	top := x.newTopic()
	q := top.queue("q", fanout.WithBackoff(fanout.Constant(2*x.o.pace)))
	top.send("a")
	d := q.nextID("a")
	start := time.Now()
	x.must(d.Nack(x.ctx), "Nack")
	again := q.nextID("a")
	x.notBefore(start, 2*x.o.pace, "the retry")
	equal(x, again.Attempt(), 2, "attempt")
}

func promiseBackoffFunc(x *fixture) {
	top := x.newTopic()
	asked := make(chan int, 100)
	q := top.queue("q", fanout.WithBackoff(fanout.BackoffFunc(func(attempt int) time.Duration {
		asked <- attempt
		return time.Duration(attempt) * x.o.pace
	})))
	top.send("a")
	d := q.nextID("a")
	for n := 1; n <= 2; n++ {
		start := time.Now()
		x.must(d.Settle(x.ctx, errBusy), "Settle")
		d = q.nextID("a")
		x.notBefore(start, time.Duration(n)*x.o.pace, fmt.Sprint("retry ", n))
		equal(x, <-asked, n, "what the backoff was asked with")
	}
}

// waits settles the first delivery and expects the second after two paces.
func (x *fixture) waits(settle func(d fanout.Delivery[order]) error, attempt int, cause fanout.Cause) {
	top := x.newTopic()
	q := top.queue("q")
	top.send("a")
	d := q.nextID("a")
	start := time.Now()
	x.must(settle(d), "settling the delivery")
	again := q.nextID("a")
	x.notBefore(start, 2*x.o.pace, "the second delivery")
	equal(x, again.Attempt(), attempt, "attempt")
	equal(x, causes(again.History()), said(cause), "history")
}

func promiseIsolation(x *fixture) {
	top := x.newTopic()
	got := newInbox()
	bad := map[string]fanout.Handler[order]{
		"failing":   func(context.Context, fanout.Delivery[order]) error { return errBusy },
		"panicking": func(context.Context, fanout.Delivery[order]) error { panic("out of order") },
		"exiting":   func(context.Context, fanout.Delivery[order]) error { runtime.Goexit(); return nil },
		"blocked":   func(ctx context.Context, _ fanout.Delivery[order]) error { <-ctx.Done(); return ctx.Err() },
	}
	for name, h := range bad {
		top.subscribe(name, h)
	}
	top.subscribe("good", func(_ context.Context, d fanout.Delivery[order]) error {
		got <- d
		return nil
	})
	for i := range 10 {
		top.send(fmt.Sprint(i))
	}
	for range 10 {
		got.next(x)
	}
	got.quiet(x, x.quiet(), "each order was handled once")
}
