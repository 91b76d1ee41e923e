// Queues, deliveries and subscribers.

package fanout_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/gofanout/fanout"
)

func ExampleDelivery_Ack() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	audit, _ := orders.OpenQueue(ctx, "audit")
	orders.Publish(ctx, "o-17")

	d, _ := audit.Receive(ctx)
	fmt.Println(d.Ack(ctx))
	fmt.Println(d.Ack(ctx))
	depth, _ := audit.Depth(ctx)
	fmt.Println(depth.Unsettled())
	// Output:
	// <nil>
	// fanout: delivery already settled: queue "audit"
	// 0
}

// Once the visibility timeout has passed, the message is somebody else's. Who
// had it can't settle it any more.
func ExampleDelivery_Ack_stale() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	audit, _ := orders.OpenQueue(ctx, "audit")
	orders.Publish(ctx, "o-17")

	slow, _ := audit.Receive(ctx, fanout.WithVisibilityTimeout(time.Millisecond))
	next, _ := audit.Receive(ctx) // waits for the millisecond to pass

	fmt.Println(errors.Is(slow.Ack(ctx), fanout.ErrStale))
	fmt.Println(next.Body, "attempt", next.Attempt(), next.Ack(ctx))
	// Output:
	// true
	// o-17 attempt 2 <nil>
}

func ExampleDelivery_Nack() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	audit, _ := orders.OpenQueue(ctx, "audit", fanout.WithBackoff(fanout.Constant(time.Millisecond)))
	orders.Publish(ctx, "o-17")

	d, _ := audit.Receive(ctx)
	d.Nack(ctx)

	d, _ = audit.Receive(ctx) // after the queue's backoff
	fmt.Println(d.Body, "attempt", d.Attempt())
	d.Ack(ctx)
	// Output:
	// o-17 attempt 2
}

func ExampleDelivery_NackAfter() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	audit, _ := orders.OpenQueue(ctx, "audit")
	orders.Publish(ctx, "o-17")

	d, _ := audit.Receive(ctx)
	d.NackAfter(ctx, 10*time.Minute)

	s := audit.Stats()
	fmt.Println(s.Ready, "ready,", s.Retrying, "retrying")
	// Output:
	// 0 ready, 1 retrying
}

// Settle gives those who receive for themselves the outcomes that handlers have.
func ExampleDelivery_Settle() {
	ctx := context.Background()
	work := func(id string) error {
		switch id {
		case "o-18":
			return fanout.RetryAfter(errors.New("busy"), time.Minute)
		case "o-19":
			return fanout.Permanent(errors.New("no such customer"))
		}
		return nil
	}
	orders, _ := fanout.NewTopic[string]("orders")
	billing, _ := orders.OpenQueue(ctx, "billing")
	for _, id := range []string{"o-17", "o-18", "o-19"} {
		orders.Publish(ctx, id)
	}

	batch, _ := billing.ReceiveBatch(ctx, 3)
	for _, d := range batch {
		if err := d.Settle(ctx, work(d.Body)); err != nil {
			fmt.Println(err)
		}
	}
	s := billing.Stats()
	fmt.Println(s.Acked, "acked,", s.Retrying, "retrying,", s.Dead, "dead")
	// Output:
	// 1 acked, 1 retrying, 1 dead
}

func ExampleDelivery_Extend() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	audit, _ := orders.OpenQueue(ctx, "audit", fanout.WithVisibilityTimeout(time.Minute))
	orders.Publish(ctx, "o-17")

	d, _ := audit.Receive(ctx)
	if err := d.Extend(ctx, time.Hour); err != nil { // from now
		fmt.Println(err)
	}
	fmt.Println(time.Until(d.Deadline()).Round(time.Minute))
	d.Ack(ctx)
	// Output:
	// 1h0m0s
}

func ExampleDelivery_Deadline() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	audit, _ := orders.OpenQueue(ctx, "audit", fanout.WithVisibilityTimeout(5*time.Minute))
	orders.Publish(ctx, "o-17")

	d, _ := audit.Receive(ctx)
	fmt.Println(time.Until(d.Deadline()).Round(time.Minute))
	d.Ack(ctx)
	fmt.Println(d.Deadline().IsZero()) // the message is nobody's any more
	// Output:
	// 5m0s
	// true
}

func ExampleDelivery_ID() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	audit, _ := orders.OpenQueue(ctx, "audit")
	orders.PublishMessages(ctx,
		fanout.Message[string]{Body: "o-17", ID: "payment-4711"},
		fanout.Message[string]{Body: "o-18"},
	)

	d, _ := audit.Receive(ctx)
	fmt.Println(d.ID())
	d.Ack(ctx)
	d, _ = audit.Receive(ctx)
	fmt.Println("a UUID of version", d.ID()[14:15])
	d.Ack(ctx)
	// Output:
	// payment-4711
	// a UUID of version 7
}

func ExampleDelivery_Attribute() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	audit, _ := orders.OpenQueue(ctx, "audit")
	orders.PublishMessages(ctx, fanout.Message[string]{
		Body: "o-17", Attributes: map[string]string{"region": "eu"},
	})

	d, _ := audit.Receive(ctx)
	fmt.Println(d.Attribute("region"))
	fmt.Println(d.Attribute("currency"))
	d.Ack(ctx)
	// Output:
	// eu true
	//  false
}

func ExampleDelivery_Attributes() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	audit, _ := orders.OpenQueue(ctx, "audit")
	orders.PublishMessages(ctx, fanout.Message[string]{
		Body: "o-17", Attributes: map[string]string{"region": "eu", "currency": "EUR"},
	})

	d, _ := audit.Receive(ctx)
	fmt.Println(d.Attributes()) // a copy
	d.Ack(ctx)
	// Output:
	// map[currency:EUR region:eu]
}

func ExampleDelivery_PublishedAt() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	audit, _ := orders.OpenQueue(ctx, "audit")
	orders.Publish(ctx, "o-17")

	d, _ := audit.Receive(ctx)
	if time.Since(d.PublishedAt()) > time.Hour {
		fmt.Println("too old")
	}
	fmt.Println(d.Ack(ctx))
	// Output:
	// <nil>
}

func ExampleDelivery_Attempt() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	orders.Subscribe(ctx, "billing", func(ctx context.Context, d fanout.Delivery[string]) error {
		fmt.Println(d.Body, "attempt", d.Attempt())
		if d.Attempt() < 3 {
			return errors.New("busy")
		}
		return nil
	}, fanout.WithBackoff(fanout.Constant(time.Millisecond)))

	orders.Publish(ctx, "o-17")
	orders.Shutdown(ctx)
	// Output:
	// o-17 attempt 1
	// o-17 attempt 2
	// o-17 attempt 3
}

func ExampleDelivery_History() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	billing, _ := orders.OpenQueue(ctx, "billing")
	orders.Publish(ctx, "o-17")
	for _, err := range []error{errors.New("busy"), errors.New("still busy")} {
		d, _ := billing.Receive(ctx)
		d.Settle(ctx, fanout.RetryAfter(err, time.Millisecond))
	}

	d, _ := billing.Receive(ctx)
	for _, a := range d.History() {
		fmt.Println(a.Number, a.Queue, a.Cause, a.Err)
	}
	d.Ack(ctx)
	// Output:
	// 1 billing failed busy
	// 2 billing failed still busy
}

func ExampleDelivery_Queue() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	handler := func(ctx context.Context, d fanout.Delivery[string]) error {
		fmt.Println(d.Queue(), d.Body)
		return nil
	}
	orders.Subscribe(ctx, "billing", handler)
	orders.Subscribe(ctx, "shipping", handler)

	orders.Publish(ctx, "o-17")
	orders.Shutdown(ctx)
	// Unordered output:
	// billing o-17
	// shipping o-17
}

func ExamplePermanent() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	orders.Subscribe(ctx, "billing", func(ctx context.Context, d fanout.Delivery[string]) error {
		return fanout.Permanent(errors.New("no such customer"))
	})
	billing := orders.Queue("billing")

	orders.Publish(ctx, "o-17")
	orders.Shutdown(ctx)
	fmt.Println(billing.Stats().Dead, "dead after", billing.Stats().Delivered, "attempt")
	// Output:
	// 1 dead after 1 attempt
}

func ExampleRetryAfter() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	orders.Subscribe(ctx, "billing", func(ctx context.Context, d fanout.Delivery[string]) error {
		fmt.Println("attempt", d.Attempt())
		if d.Attempt() == 1 {
			// The bank said when to come back, and knows better than the backoff.
			return fanout.RetryAfter(errors.New("too many requests"), 2*time.Millisecond)
		}
		return nil
	})

	orders.Publish(ctx, "o-17")
	orders.Shutdown(ctx)
	// Output:
	// attempt 1
	// attempt 2
}

func ExampleSnooze() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	var packed atomic.Bool
	done := make(chan struct{})
	orders.Subscribe(ctx, "shipping", func(ctx context.Context, d fanout.Delivery[string]) error {
		if !packed.Swap(true) {
			return fanout.Snooze(time.Millisecond) // not yet; spends no attempt
		}
		fmt.Println("send", d.Body, "at attempt", d.Attempt())
		close(done)
		return nil
	})

	orders.Publish(ctx, "o-17")
	<-done
	// Output:
	// send o-17 at attempt 1
}

// What the handler needs is down: that is not the message's fault.
func ExampleRelease() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	var up atomic.Int32
	done := make(chan struct{})
	orders.Subscribe(ctx, "shipping", func(ctx context.Context, d fanout.Delivery[string]) error {
		if up.Add(1) < 3 {
			return fanout.Release(errors.New("no connection")) // spends no attempt
		}
		fmt.Println("send", d.Body, "at attempt", d.Attempt())
		close(done)
		return nil
	}, fanout.WithMaxAttempts(1), fanout.WithBackoff(fanout.Constant(time.Millisecond)))

	orders.Publish(ctx, "o-17")
	<-done
	// Output:
	// send o-17 at attempt 1
}

// A consumer that stops gives back what it has not begun.
func ExampleDelivery_Release() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	billing, _ := orders.OpenQueue(ctx, "billing")
	for _, order := range []string{"o-17", "o-18", "o-19"} {
		orders.Publish(ctx, order)
	}

	mine, _ := billing.ReceiveBatch(ctx, 2)
	mine[0].Ack(ctx)
	mine[1].Release(ctx)
	next, _ := billing.Receive(ctx)
	fmt.Println(next.Body, "at attempt", next.Attempt())
	// Output:
	// o-18 at attempt 1
}

func ExampleHandler() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")

	// Middleware is a function from Handler to Handler.
	announced := func(h fanout.Handler[string]) fanout.Handler[string] {
		return func(ctx context.Context, d fanout.Delivery[string]) error {
			fmt.Println("begin", d.Body)
			defer fmt.Println("end", d.Body)
			return h(ctx, d)
		}
	}
	bill := func(ctx context.Context, d fanout.Delivery[string]) error {
		fmt.Println("bill", d.Body)
		return nil
	}
	orders.Subscribe(ctx, "billing", announced(bill))

	orders.Publish(ctx, "o-17")
	orders.Shutdown(ctx)
	// Output:
	// begin o-17
	// bill o-17
	// end o-17
}

// A panic is a failed attempt. It stops neither the worker nor the program.
func ExampleHandler_panic() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	orders.Subscribe(ctx, "billing", func(ctx context.Context, d fanout.Delivery[string]) error {
		if d.Attempt() == 1 {
			panic("no ink")
		}
		fmt.Println(d.History()[0].Cause, "with", d.History()[0].Err)
		return nil
	}, fanout.WithBackoff(fanout.Constant(time.Millisecond)))

	orders.Publish(ctx, "o-17")
	orders.Shutdown(ctx)
	// Output:
	// panicked with panic: no ink
}

func ExampleDelivery_OrderingKey() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders", fanout.WithOrdering())
	billing, _ := orders.OpenQueue(ctx, "billing")
	orders.PublishMessages(ctx, fanout.Message[string]{Body: "o-17", OrderingKey: "ann"})

	d, _ := billing.Receive(ctx)
	fmt.Println(d.OrderingKey())
	d.Ack(ctx)
	// Output:
	// ann
}

// A delivery is a value. A copy is the same delivery, and settles it.
func ExampleDelivery() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	billing, _ := orders.OpenQueue(ctx, "billing")
	orders.Publish(ctx, "o-17")

	d, _ := billing.Receive(ctx)
	later := d
	later.Body = "changed" // for nobody else
	fmt.Println(d.Body, later.Ack(ctx))
	fmt.Println(errors.Is(d.Ack(ctx), fanout.ErrSettled))
	// Output:
	// o-17 <nil>
	// true
}

func ExampleErrSettled() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	billing, _ := orders.OpenQueue(ctx, "billing")
	orders.Publish(ctx, "o-17")

	d, _ := billing.Receive(ctx)
	d.Ack(ctx)
	fmt.Println(errors.Is(d.Nack(ctx), fanout.ErrSettled))
	fmt.Println(errors.Is(d.Extend(ctx, time.Minute), fanout.ErrSettled))
	// Output:
	// true
	// true
}

// Whose message was taken by somebody else learns it from any method that settles.
func ExampleErrStale() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	billing, _ := orders.OpenQueue(ctx, "billing", fanout.WithVisibilityTimeout(time.Millisecond))
	orders.Publish(ctx, "o-17")

	d, _ := billing.Receive(ctx)
	billing.Receive(ctx, fanout.WithVisibilityTimeout(time.Minute)) // somebody else, after a millisecond
	if err := d.Extend(ctx, time.Minute); errors.Is(err, fanout.ErrStale) {
		fmt.Println("stop: it is not ours any more")
	}
	// Output:
	// stop: it is not ours any more
}

func ExampleAttempt() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	orders.Subscribe(ctx, "billing", func(ctx context.Context, d fanout.Delivery[string]) error {
		panic("no ink")
	}, fanout.WithMaxAttempts(1))
	billing := orders.Queue("billing")
	orders.Publish(ctx, "o-17")
	orders.Shutdown(ctx)

	letters, _ := billing.DeadLetters().Peek(ctx, 1)
	for _, a := range letters[0].History() {
		fmt.Println(a.Number, a.Queue, a.Cause, a.Err, "with a stack:", a.Stack != "")
	}
	// Output:
	// 1 billing panicked panic: no ink with a stack: true
}

func ExampleQueue_Receive() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	audit, _ := orders.OpenQueue(ctx, "audit")
	orders.Publish(ctx, "o-17")

	d, err := audit.Receive(ctx) // waits for a message
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(d.Body)
	d.Ack(ctx)

	ctx, cancel := context.WithTimeout(ctx, time.Millisecond)
	defer cancel()
	_, err = audit.Receive(ctx)
	fmt.Println(err)
	// Output:
	// o-17
	// fanout: receive from "audit": context deadline exceeded
}

func ExampleQueue_TryReceive() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	audit, _ := orders.OpenQueue(ctx, "audit")
	orders.Publish(ctx, "o-17")

	for {
		d, ok, err := audit.TryReceive(ctx) // doesn't wait
		if err != nil || !ok {
			break
		}
		fmt.Println(d.Body)
		d.Ack(ctx)
	}
	fmt.Println("nothing more")
	// Output:
	// o-17
	// nothing more
}

func ExampleQueue_ReceiveBatch() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	audit, _ := orders.OpenQueue(ctx, "audit")
	for _, id := range []string{"o-17", "o-18", "o-19"} {
		orders.Publish(ctx, id)
	}

	batch, err := audit.ReceiveBatch(ctx, 10) // waits for one, takes what is there
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, d := range batch {
		fmt.Println(d.Body)
		d.Ack(ctx)
	}
	// Output:
	// o-17
	// o-18
	// o-19
}

func ExampleQueue_ReceiveInto() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	audit, _ := orders.OpenQueue(ctx, "audit")
	for _, id := range []string{"o-17", "o-18", "o-19"} {
		orders.Publish(ctx, id)
	}

	room := make([]fanout.Delivery[string], 2) // for all batches
	for range 2 {
		n, err := audit.ReceiveInto(ctx, room)
		if err != nil {
			fmt.Println(err)
			return
		}
		for _, d := range room[:n] {
			fmt.Println(d.Body)
		}
		fmt.Println(n, "done", audit.AckBatch(ctx, room[:n]...))
	}
	// Output:
	// o-17
	// o-18
	// 2 done <nil>
	// o-19
	// 1 done <nil>
}

func ExampleQueue_Deliveries() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	audit, _ := orders.OpenQueue(ctx, "audit")
	for _, id := range []string{"o-17", "o-18", "o-19"} {
		orders.Publish(ctx, id)
	}
	go orders.Shutdown(ctx) // the loop ends when the queue is received empty

	for d, err := range audit.Deliveries(ctx) {
		if err != nil {
			fmt.Println(err) // ctx has ended
			break
		}
		fmt.Println(d.Body)
		d.Ack(ctx)
	}
	// Output:
	// o-17
	// o-18
	// o-19
}

// Several subscribers of one queue compete for its messages.
func ExampleQueue_Subscribe() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	billing, _ := orders.OpenQueue(ctx, "billing")
	handler := func(ctx context.Context, d fanout.Delivery[string]) error {
		fmt.Println("bill", d.Body)
		return nil
	}
	billing.Subscribe(ctx, handler)
	billing.Subscribe(ctx, handler, fanout.WithConcurrency(4))

	orders.Publish(ctx, "o-17")
	orders.Publish(ctx, "o-18")
	orders.Shutdown(ctx)
	// Unordered output:
	// bill o-17
	// bill o-18
}

func ExampleQueue_Peek() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	audit, _ := orders.OpenQueue(ctx, "audit")
	orders.Publish(ctx, "o-17")
	orders.Publish(ctx, "o-18")

	first, _ := audit.Peek(ctx, 1)
	for _, d := range first {
		fmt.Println(d.Body)
	}
	fmt.Println(audit.Stats().Ready, "are still ready")
	// Output:
	// o-17
	// 2 are still ready
}

func ExampleQueue_DeadLetters() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	orders.Subscribe(ctx, "billing", func(ctx context.Context, d fanout.Delivery[string]) error {
		return errors.New("no such customer")
	}, fanout.WithMaxAttempts(2), fanout.WithBackoff(fanout.Constant(time.Millisecond)))
	billing := orders.Queue("billing")

	orders.Publish(ctx, "o-17")
	orders.Shutdown(ctx)

	letters, _ := billing.DeadLetters().Peek(ctx, 10)
	for _, d := range letters {
		fmt.Println(d.Queue(), d.Body)
		for _, a := range d.History() {
			fmt.Println(a.Number, a.Cause, a.Err)
		}
	}
	// Output:
	// billing/dead o-17
	// 1 failed no such customer
	// 2 failed no such customer
}

// A dead-letter queue is a queue like any other: it can be consumed.
func ExampleQueue_DeadLetters_receive() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	billing, _ := orders.OpenQueue(ctx, "billing")
	orders.Publish(ctx, "o-17")
	d, _ := billing.Receive(ctx)
	d.Settle(ctx, fanout.Permanent(errors.New("no such customer")))

	letter, _ := billing.DeadLetters().Receive(ctx)
	fmt.Println(letter.Body, letter.History()[0].Err)
	letter.Ack(ctx)
	fmt.Println(billing.Stats().Dead)
	// Output:
	// o-17 no such customer
	// 0
}

func ExampleQueue_Redrive() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	billing, _ := orders.OpenQueue(ctx, "billing", fanout.WithMaxAttempts(1))
	orders.Publish(ctx, "o-17")
	d, _ := billing.Receive(ctx)
	d.Settle(ctx, errors.New("the bank is down"))
	fmt.Println(billing.Stats().Dead, "dead")

	// The bank is up again.
	moved, err := billing.Redrive(ctx)
	fmt.Println(moved, err)

	d, _ = billing.Receive(ctx)
	fmt.Println(d.Body, "attempt", d.Attempt(), "after", len(d.History()), "before the redrive")
	d.Ack(ctx)
	// Output:
	// 1 dead
	// 1 <nil>
	// o-17 attempt 1 after 1 before the redrive
}

func ExampleRedriveIDs() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	billing, _ := orders.OpenQueue(ctx, "billing", fanout.WithMaxAttempts(1))
	orders.PublishMessages(ctx,
		fanout.Message[string]{Body: "o-17", ID: "payment-4711"},
		fanout.Message[string]{Body: "o-18", ID: "payment-4712"},
	)
	for range 2 {
		d, _ := billing.Receive(ctx)
		d.Nack(ctx)
	}

	moved, err := billing.Redrive(ctx, fanout.RedriveIDs("payment-4712", "payment-4713"))
	d, _ := billing.Receive(ctx)
	fmt.Println(moved, d.Body)
	fmt.Println(err)
	d.Ack(ctx)
	// Output:
	// 1 o-18
	// fanout: redrive of "billing": fanout: invalid option: unknown ID: RedriveIDs("payment-4713"): want IDs of its dead letters that no consumer has in hand
}

func ExampleRedriveIf() {
	ctx := context.Background()
	errBankDown := errors.New("the bank is down")
	orders, _ := fanout.NewTopic[string]("orders")
	billing, _ := orders.OpenQueue(ctx, "billing", fanout.WithMaxAttempts(1))
	orders.Publish(ctx, "o-17")
	orders.Publish(ctx, "o-18")
	for _, err := range []error{errors.New("no such customer"), errBankDown} {
		d, _ := billing.Receive(ctx)
		d.Settle(ctx, err)
	}

	moved, _ := billing.Redrive(ctx, fanout.RedriveIf(func(d fanout.Delivery[string]) bool {
		attempts := d.History()
		return errors.Is(attempts[len(attempts)-1].Err, errBankDown)
	}))
	d, _ := billing.Receive(ctx)
	fmt.Println(moved, d.Body)
	d.Ack(ctx)
	// Output:
	// 1 o-18
}

func ExampleQueue_Stats() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	billing, _ := orders.OpenQueue(ctx, "billing")
	for _, id := range []string{"o-17", "o-18", "o-19"} {
		orders.Publish(ctx, id)
	}
	d, _ := billing.Receive(ctx)
	d.Ack(ctx)
	d, _ = billing.Receive(ctx)
	d.NackAfter(ctx, time.Minute)

	s := billing.Stats()
	fmt.Println(s.Published, "published:", s.Acked, "acked,", s.Retrying, "retrying,", s.Ready, "ready")
	// Output:
	// 3 published: 1 acked, 1 retrying, 1 ready
}

// The age of the oldest ready message says how far consumers are behind.
func ExampleStats_oldestAge() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	billing, _ := orders.OpenQueue(ctx, "billing")
	orders.Publish(ctx, "o-17")
	if age := billing.Stats().OldestAge; age < time.Minute {
		fmt.Println("billing keeps up")
	}
	// Output:
	// billing keeps up
}

func ExampleStats_Unsettled() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	billing, _ := orders.OpenQueue(ctx, "billing", fanout.WithCapacity(10))
	orders.Publish(ctx, "o-17")
	orders.Publish(ctx, "o-18")
	billing.Receive(ctx) // in flight: takes room until it is settled

	s := billing.Stats()
	fmt.Println(s.Unsettled(), "of", s.Capacity)
	// Output:
	// 2 of 10
}

func ExampleQueue_Depth() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	billing, _ := orders.OpenQueue(ctx, "billing")
	orders.Publish(ctx, "o-17")
	orders.Publish(ctx, "o-18")

	billing.Receive(ctx)

	depth, err := billing.Depth(ctx)
	fmt.Println(depth.Ready, "wait,", depth.InFlight, "is being worked on,", depth.Unsettled(), "in all", err)
	// Output:
	// 1 wait, 1 is being worked on, 2 in all <nil>
}

// What an engine can't tell is fanout.Unknown, and is printed as that.
func ExampleDepth_String() {
	d := fanout.Depth{Queue: "billing", Ready: 3, InFlight: 1, Dead: 2, OldestAge: fanout.Unknown}
	fmt.Println(d)
	// Output:
	// queue "billing": 3 ready, 0 delayed, 1 in flight, 2 dead, oldest unknown
}

func ExampleTopic_ListQueues() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	orders.OpenQueue(ctx, "billing")
	orders.OpenQueue(ctx, "audit", fanout.WithDelay(time.Minute))
	orders.Publish(ctx, "o-17")

	depths, _ := orders.ListQueues(ctx)
	for _, d := range depths {
		fmt.Println(d.Queue, d.Ready, d.Delayed)
	}
	// Output:
	// audit 0 1
	// billing 1 0
}

func ExampleQueue_Close() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	audit, _ := orders.OpenQueue(ctx, "audit")

	audit.Close()

	_, err := audit.Receive(ctx)
	fmt.Println(errors.Is(err, fanout.ErrClosed))
	fmt.Println(orders.Publish(ctx, "o-17")) // the topic goes on without it
	// Output:
	// true
	// <nil>
}

func ExampleQueue_Leftovers() {
	ctx := context.Background()
	quiet := fanout.WithLogger(slog.New(slog.DiscardHandler)) // else the loss is logged
	orders, _ := fanout.NewTopic[string]("orders", quiet)
	audit, _ := orders.OpenQueue(ctx, "audit")
	orders.Publish(ctx, "o-17")

	audit.Close()

	// Whoever takes the place of the queue can have what was in it.
	orders.OpenQueue(ctx, "audit")
	fmt.Println(orders.PublishMessages(ctx, audit.Leftovers()...))
	fmt.Println(orders.Queue("audit").Stats().Ready)
	// Output:
	// <nil>
	// 1
}

func ExampleQueue_Name() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	audit, _ := orders.OpenQueue(ctx, "audit")

	fmt.Println(audit.Name(), audit.DeadLetters().Name())
	// Output:
	// audit audit/dead
}

// A paused queue fills, and gives nothing out.
func ExampleQueue_Pause() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	billing, _ := orders.OpenQueue(ctx, "billing")

	if err := billing.Pause(ctx); err != nil {
		fmt.Println(err)
	}
	orders.Publish(ctx, "o-17")
	_, ok, _ := billing.TryReceive(ctx)
	s := billing.Stats()
	fmt.Println("received:", ok, "ready:", s.Ready, "paused:", s.Paused)
	// Output:
	// received: false ready: 1 paused: true
}

func ExampleQueue_Resume() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	billing, _ := orders.Subscribe(ctx, "billing", func(ctx context.Context, d fanout.Delivery[string]) error {
		fmt.Println("bill", d.Body)
		return nil
	})
	billing.Queue().Pause(ctx) // while the bank is being serviced
	orders.Publish(ctx, "o-17")
	fmt.Println(billing.Queue().Stats().Ready, "waiting")

	billing.Queue().Resume(ctx)
	orders.Shutdown(ctx)
	// Output:
	// 1 waiting
	// bill o-17
}

func ExampleQueue_Purge() {
	ctx := context.Background()
	quiet := fanout.WithLogger(slog.New(slog.DiscardHandler)) // else the loss is logged
	orders, _ := fanout.NewTopic[string]("orders", quiet)
	billing, _ := orders.OpenQueue(ctx, "billing")
	for _, id := range []string{"o-17", "o-18", "o-19"} {
		orders.Publish(ctx, id)
	}
	d, _ := billing.Receive(ctx)

	dropped, err := billing.Purge(ctx)
	fmt.Println(dropped, err)
	fmt.Println(d.Ack(ctx)) // what was in flight is gone too
	// Output:
	// 3 <nil>
	// fanout: stale delivery: queue "billing"
}

// One dead-letter queue for all that goes wrong.
func ExampleNewDeadLetterQueue() {
	ctx := context.Background()
	dead, err := fanout.NewDeadLetterQueue[string]("dead", fanout.WithDeadLetterCapacity(10_000))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer dead.Close() // it belongs to whoever made it
	orders, _ := fanout.NewTopic[string]("orders")
	billing, _ := orders.OpenQueue(ctx, "billing", fanout.WithDeadLetterQueue(dead))
	shipping, _ := orders.OpenQueue(ctx, "shipping", fanout.WithDeadLetterQueue(dead))
	orders.Publish(ctx, "o-17")

	for _, q := range []*fanout.Queue[string]{billing, shipping} {
		d, _ := q.Receive(ctx)
		d.Settle(ctx, fanout.Permanent(errors.New("no such customer")))
	}
	letters, _ := dead.Peek(ctx, fanout.Unlimited)
	for _, l := range letters {
		fmt.Println(l.Body, "from", l.History()[0].Queue)
	}
	// Output:
	// o-17 from billing
	// o-17 from shipping
}

// Each letter remembers where it came from: redrive takes a queue's own.
func ExampleWithDeadLetterQueue() {
	ctx := context.Background()
	dead, _ := fanout.NewDeadLetterQueue[string]("dead")
	defer dead.Close()
	orders, _ := fanout.NewTopic[string]("orders")
	billing, _ := orders.OpenQueue(ctx, "billing", fanout.WithMaxAttempts(1), fanout.WithDeadLetterQueue(dead))
	shipping, _ := orders.OpenQueue(ctx, "shipping", fanout.WithMaxAttempts(1), fanout.WithDeadLetterQueue(dead))
	orders.Publish(ctx, "o-17")
	for _, q := range []*fanout.Queue[string]{billing, shipping} {
		d, _ := q.Receive(ctx)
		d.Nack(ctx)
	}

	moved, err := shipping.Redrive(ctx)
	fmt.Println(moved, err)
	fmt.Println(billing.Stats().Ready, shipping.Stats().Ready, dead.Stats().Ready)
	// Output:
	// 1 <nil>
	// 0 1 1
}

func ExampleStats() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	billing, _ := orders.OpenQueue(ctx, "billing", fanout.WithMaxAttempts(1))
	for _, id := range []string{"o-17", "o-18", "o-19"} {
		orders.Publish(ctx, id)
	}
	d, _ := billing.Receive(ctx)
	d.Ack(ctx)
	d, _ = billing.Receive(ctx)
	d.Nack(ctx)

	s := billing.Stats() // of one instant, so that the books balance
	fmt.Println(s.Published, s.Acked, s.DeadLettered, s.Unsettled())
	fmt.Println(uint64(s.Published)+s.Redriven == s.Acked+s.DeadLettered+s.Dropped+s.Left+uint64(s.Unsettled()))
	// Output:
	// 3 1 1 1
	// true
}

// A subscriber that has signed off leaves nothing.
func ExampleQueue_Delete() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders",
		fanout.WithHooks(fanout.Hooks{Dropped: func(e fanout.Event) { fmt.Println(e.Queue, "lost", e.Count, "by", e.Reason) }}),
		fanout.WithLogger(slog.New(slog.DiscardHandler))) // else it is logged too
	billing, _ := orders.OpenQueue(ctx, "billing")
	orders.Publish(ctx, "o-17")
	orders.Publish(ctx, "o-18")
	d, _ := billing.Receive(ctx)
	d.Settle(ctx, fanout.Permanent(errors.New("no such customer")))

	fmt.Println(billing.Delete(ctx), len(billing.Leftovers()))
	again, _ := orders.OpenQueue(ctx, "billing")
	fmt.Println(again.Stats().Ready, again.Stats().Dead)
	// Output:
	// billing lost 1 by delete
	// billing/dead lost 1 by delete
	// <nil> 0
	// 0 0
}

func ExampleTopic_SubscribeBatch() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	orders.SubscribeBatch(ctx, "warehouse", func(ctx context.Context, ds []fanout.Delivery[string]) error {
		fmt.Println("insert", len(ds), "rows, from", ds[0].Body)
		return nil // acknowledges all
	}, fanout.WithBatchSize(100))

	orders.PublishMessages(ctx,
		fanout.Message[string]{Body: "o-17"},
		fanout.Message[string]{Body: "o-18"},
		fanout.Message[string]{Body: "o-19"},
	)
	orders.Shutdown(ctx)
	// Output:
	// insert 3 rows, from o-17
}

// A queue can have been there before its workers.
func ExampleQueue_SubscribeBatch() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	warehouse, _ := orders.OpenQueue(ctx, "warehouse")
	for _, id := range []string{"o-17", "o-18", "o-19"} {
		orders.Publish(ctx, id)
	}

	warehouse.SubscribeBatch(ctx, func(ctx context.Context, ds []fanout.Delivery[string]) error {
		fmt.Println(len(ds), "rows, from", ds[0].Body)
		return nil
	}, fanout.WithBatchSize(2))
	orders.Shutdown(ctx)
	// Output:
	// 2 rows, from o-17
	// 1 rows, from o-19
}

func ExampleWithBatchSize() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	warehouse, _ := orders.OpenQueue(ctx, "warehouse")
	for range 25 {
		orders.Publish(ctx, "o-17")
	}

	warehouse.SubscribeBatch(ctx, func(ctx context.Context, ds []fanout.Delivery[string]) error {
		fmt.Println(len(ds)) // at most; it doesn't wait for more
		return nil
	}, fanout.WithBatchSize(20))
	orders.Shutdown(ctx)
	// Output:
	// 20
	// 5
}

// What the handler settles itself is settled. The error holds for the rest.
func ExampleBatchHandler() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	warehouse, _ := orders.SubscribeBatch(ctx, "warehouse", func(ctx context.Context, ds []fanout.Delivery[string]) error {
		if err := ds[0].Ack(ctx); err != nil {
			return err
		}
		return fanout.Permanent(errors.New("the disk is full"))
	})

	orders.PublishMessages(ctx,
		fanout.Message[string]{Body: "o-17"},
		fanout.Message[string]{Body: "o-18"},
		fanout.Message[string]{Body: "o-19"},
	)
	orders.Shutdown(ctx)
	s := warehouse.Queue().Stats()
	fmt.Println(s.Acked, "acked,", s.Dead, "dead")
	// Output:
	// 1 acked, 2 dead
}

func ExampleWithRateLimit() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	orders.Subscribe(ctx, "mails", func(ctx context.Context, d fanout.Delivery[string]) error {
		return nil
	}, fanout.WithRateLimit(1000)) // a second: one each millisecond

	begin := time.Now()
	for range 4 {
		orders.Publish(ctx, "o-17")
	}
	orders.Shutdown(ctx)
	fmt.Println("4 mails took 3 ms:", time.Since(begin) >= 3*time.Millisecond)
	// Output:
	// 4 mails took 3 ms: true
}

// The queue has a short timeout, so that a lost message is soon found again;
// handlers keep theirs for as long as they run.
func ExampleWithAutoExtend() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	mails, _ := orders.Subscribe(ctx, "mails", func(ctx context.Context, d fanout.Delivery[string]) error {
		time.Sleep(5 * time.Millisecond)
		fmt.Println(d.Body, "attempt", d.Attempt())
		return nil
	}, fanout.WithVisibilityTimeout(time.Millisecond), fanout.WithAutoExtend(fanout.MaxAutoExtend))

	orders.Publish(ctx, "o-17")
	orders.Shutdown(ctx)
	fmt.Println(mails.Queue().Stats().TimedOut, "timed out")
	// Output:
	// o-17 attempt 1
	// 0 timed out
}

func ExampleWithHandlerTimeout() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	mails, _ := orders.Subscribe(ctx, "mails", func(ctx context.Context, d fanout.Delivery[string]) error {
		<-ctx.Done() // the mail server doesn't answer
		fmt.Println(errors.Is(context.Cause(ctx), context.DeadlineExceeded))
		return context.Cause(ctx)
	}, fanout.WithHandlerTimeout(time.Millisecond), fanout.WithMaxAttempts(1))

	orders.Publish(ctx, "o-17")
	orders.Shutdown(ctx)
	// The error counts as any. That is not the visibility timeout.
	s := mails.Queue().Stats()
	fmt.Println(s.Failed, "failed,", s.TimedOut, "timed out")
	// Output:
	// true
	// 1 failed, 0 timed out
}
