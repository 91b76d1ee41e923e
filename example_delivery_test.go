package fanout_test

import (
	"context"
	"errors"
	"fmt"
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
