package fanout_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gofanout/fanout"
)

// One message of a key is in flight at a time, and other keys go on meanwhile.
func ExampleWithOrdering() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders", fanout.WithOrdering())
	billing, _ := orders.OpenQueue(ctx, "billing")
	orders.PublishMessages(ctx,
		fanout.Message[string]{Body: "ann's first", OrderingKey: "ann"},
		fanout.Message[string]{Body: "ann's second", OrderingKey: "ann"},
		fanout.Message[string]{Body: "bob's first", OrderingKey: "bob"},
	)

	ann, _ := billing.Receive(ctx)
	bob, _ := billing.Receive(ctx)
	fmt.Println(ann.Body, "and", bob.Body, "are in flight")
	_, more, _ := billing.TryReceive(ctx)
	fmt.Println("another one:", more)

	ann.Ack(ctx) // lets the key go on
	ann, _ = billing.Receive(ctx)
	fmt.Println(ann.Body)
	// Output:
	// ann's first and bob's first are in flight
	// another one: false
	// ann's second
}

// A message that is retried keeps its place before the others of its key.
func ExampleMessage_orderingKey() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders", fanout.WithOrdering())
	orders.Subscribe(ctx, "billing", func(ctx context.Context, d fanout.Delivery[string]) error {
		if d.Attempt() == 1 && d.Body == "placed" {
			fmt.Println(d.Body, "fails")
			return errors.New("busy")
		}
		fmt.Println(d.Body)
		return nil
	}, fanout.WithConcurrency(4), fanout.WithBackoff(fanout.Constant(time.Millisecond)))

	for _, what := range []string{"placed", "paid", "shipped"} {
		orders.PublishMessages(ctx, fanout.Message[string]{Body: what, OrderingKey: "o-17"})
	}
	orders.Shutdown(ctx)
	// Output:
	// placed fails
	// placed
	// paid
	// shipped
}

func ExampleWithDeduplication() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders", fanout.WithDeduplication(5*time.Minute, 100_000))
	billing, _ := orders.OpenQueue(ctx, "billing")

	// A publisher that doesn't know whether its first try arrived tries again.
	m := fanout.Message[string]{Body: "o-17", DeduplicationID: "payment-4711"}
	fmt.Println(orders.PublishMessages(ctx, m))
	fmt.Println(orders.PublishMessages(ctx, m)) // no error: the message is there

	fmt.Println(billing.Stats().Ready, "ready,", orders.Stats().Duplicates, "duplicate")
	// Output:
	// <nil>
	// <nil>
	// 1 ready, 1 duplicate
}

func ExampleMessage_deduplicationID() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders", fanout.WithDeduplication(5*time.Minute, 100_000))
	billing, _ := orders.OpenQueue(ctx, "billing")
	orders.PublishMessages(ctx, fanout.Message[string]{Body: "o-17", DeduplicationID: "payment-4711"})

	// The ID is remembered after the message is done.
	d, _ := billing.Receive(ctx)
	d.Ack(ctx)
	orders.PublishMessages(ctx, fanout.Message[string]{Body: "o-17", DeduplicationID: "payment-4711"})
	fmt.Println(billing.Stats().Ready, "ready,", orders.Stats().Remembered, "remembered")
	// Output:
	// 0 ready, 1 remembered
}

func ExampleMessage_delay() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	reminders, _ := orders.OpenQueue(ctx, "reminders")
	orders.PublishMessages(ctx, fanout.Message[string]{Body: "o-17", Delay: 24 * time.Hour})
	orders.PublishMessages(ctx, fanout.Message[string]{Body: "o-18", Delay: 2 * time.Millisecond})

	d, _ := reminders.Receive(ctx) // waits for the 2 ms to pass
	fmt.Println(d.Body)
	d.Ack(ctx)
	// Output:
	// o-18
}

// What nobody took in time is dead, and says why.
func ExampleMessage_timeToLive() {
	ctx := context.Background()
	offers, _ := fanout.NewTopic[string]("offers")
	mails, _ := offers.OpenQueue(ctx, "mails")
	offers.PublishMessages(ctx,
		fanout.Message[string]{Body: "today only", TimeToLive: time.Millisecond},
		fanout.Message[string]{Body: "all year"},
	)
	time.Sleep(2 * time.Millisecond)

	d, _ := mails.Receive(ctx)
	fmt.Println(d.Body)
	d.Ack(ctx)
	letters, _ := mails.DeadLetters().Peek(ctx, 10)
	for _, l := range letters {
		fmt.Println(l.Body, "is dead:", l.History()[0].Cause)
	}
	// Output:
	// all year
	// today only is dead: expired
}

// A field that the topic was not made for is an error, and nothing is published.
func ExampleErrUnsupported() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")

	err := orders.PublishMessages(ctx, fanout.Message[string]{Body: "o-17", OrderingKey: "ann"})
	fmt.Println(errors.Is(err, fanout.ErrUnsupported))
	fmt.Println(err)
	// Output:
	// true
	// fanout: publish to "orders": fanout: unsupported: message 0: OrderingKey is "ann", but topic "orders" was not made WithOrdering
}

func ExampleErrInvalidMessage() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")

	err := orders.PublishMessages(ctx,
		fanout.Message[string]{Body: "o-17"},
		fanout.Message[string]{Body: "o-18", Delay: -time.Second},
	)
	fmt.Println(errors.Is(err, fanout.ErrInvalidMessage), orders.Stats().Published)
	fmt.Println(err)
	// Output:
	// true 0
	// fanout: publish to "orders": fanout: invalid message: message 1: Delay is -1s: want a duration that is not negative
}

func ExampleErrInvalidOption() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")

	_, err := orders.OpenQueue(ctx, "billing", fanout.WithVisibilityTimeout(0))
	fmt.Println(errors.Is(err, fanout.ErrInvalidOption))
	fmt.Println(err)
	// Output:
	// true
	// fanout: invalid option: WithVisibilityTimeout(0s): want a positive duration
}

func ExampleErrBatchTooLarge() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	orders.OpenQueue(ctx, "billing", fanout.WithCapacity(1))

	// It would never fit, so nobody waits for it.
	err := orders.PublishMessages(ctx, fanout.Message[string]{Body: "o-17"}, fanout.Message[string]{Body: "o-18"})
	fmt.Println(errors.Is(err, fanout.ErrBatchTooLarge))
	fmt.Println(err)
	// Output:
	// true
	// fanout: publish to "orders": fanout: batch too large: 2 messages for queue "billing", which has a capacity of 1
}

// Each handler of the queue would wait for room that only it can make.
func ExampleErrWouldDeadlock() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	done := make(chan struct{})
	orders.Subscribe(ctx, "splitting", func(ctx context.Context, d fanout.Delivery[string]) error {
		defer close(done)
		err := orders.Publish(ctx, "o-17/1") // with the handler's context
		fmt.Println(errors.Is(err, fanout.ErrWouldDeadlock))
		fmt.Println(err)
		return nil
	}, fanout.WithCapacity(1))

	orders.Publish(ctx, "o-17")
	<-done
	// Output:
	// true
	// fanout: publish to "orders": fanout: would deadlock: handlers of each queue would wait for room in the next: "splitting" of topic "orders" -> "splitting" of topic "orders"
}

// Retention lets a queue that is opened later begin with what has been.
func ExampleWithRetention() {
	ctx := context.Background()
	prices, _ := fanout.NewTopic[int]("prices", fanout.WithRetention(100))
	for _, cents := range []int{4999, 5999, 3999} {
		prices.Publish(ctx, cents)
	}
	fmt.Println(prices.Stats().Retained, "retained")

	report, _ := prices.OpenQueue(ctx, "report", fanout.WithReplay(100))
	fmt.Println(report.Stats().Ready, "replayed")
	// Output:
	// 3 retained
	// 3 replayed
}

func ExampleWithReplay() {
	ctx := context.Background()
	prices, _ := fanout.NewTopic[int]("prices", fanout.WithRetention(100))
	for _, cents := range []int{4999, 5999, 3999} {
		prices.Publish(ctx, cents)
	}

	latest, _ := prices.OpenQueue(ctx, "latest", fanout.WithReplay(2))
	prices.Publish(ctx, 2999)
	batch, _ := latest.ReceiveBatch(ctx, 10)
	for _, d := range batch {
		fmt.Println(d.Body)
		d.Ack(ctx)
	}
	// Output:
	// 5999
	// 3999
	// 2999
}

func ExampleTopicStats() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders", fanout.WithRetention(2), fanout.WithDeduplication(5*time.Minute, 2))
	orders.OpenQueue(ctx, "billing")
	for _, id := range []string{"o-17", "o-18", "o-18", "o-19"} {
		orders.PublishMessages(ctx, fanout.Message[string]{Body: id, DeduplicationID: id})
	}

	s := orders.Stats()
	fmt.Println(s.Published, "published to", s.Queues, "queue,", s.Retained, "retained")
	fmt.Println(s.Duplicates, "duplicate,", s.Remembered, "remembered,", s.Forgotten, "forgotten")
	// Output:
	// 3 published to 1 queue, 2 retained
	// 1 duplicate, 2 remembered, 1 forgotten
}

func ExampleTopic_Name() {
	orders, _ := fanout.NewTopic[string]("orders")
	fmt.Println(orders.Name())
	// Output:
	// orders
}

func ExampleErrQueueFull() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	orders.OpenQueue(ctx, "billing", fanout.WithCapacity(1))
	orders.Publish(ctx, "o-17")

	err := orders.TryPublish(ctx, "o-18")
	fmt.Println(errors.Is(err, fanout.ErrQueueFull))
	// Output:
	// true
}
