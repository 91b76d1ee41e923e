package fanout_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/gofanout/fanout"
)

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
