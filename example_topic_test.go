package fanout_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gofanout/fanout"
)

// To be short, these examples don't look at errors that they are not about.

func ExampleNewTopic() {
	orders, err := fanout.NewTopic[string]("orders")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(orders.Name())

	_, err = fanout.NewTopic[string]("")
	fmt.Println(err)
	// Output:
	// orders
	// fanout: invalid option: NewTopic(""): want a name that is not empty
}

func ExampleTopic_Publish() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	billing, _ := orders.OpenQueue(ctx, "billing")
	audit, _ := orders.OpenQueue(ctx, "audit")

	if err := orders.Publish(ctx, "o-17"); err != nil {
		fmt.Println("in no queue:", err)
	}

	for _, q := range []*fanout.Queue[string]{billing, audit} {
		d, _ := q.Receive(ctx)
		fmt.Println(q.Name(), "got", d.Body)
		d.Ack(ctx)
	}
	// Output:
	// billing got o-17
	// audit got o-17
}

// A publish to a full queue waits for room, but not longer than its context.
func ExampleTopic_Publish_backpressure() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	orders.OpenQueue(ctx, "billing", fanout.WithCapacity(1))
	orders.Publish(ctx, "o-17")

	short, cancel := context.WithTimeout(ctx, time.Millisecond)
	defer cancel()
	fmt.Println(orders.Publish(short, "o-18"))
	// Output:
	// fanout: publish to "orders": context deadline exceeded while waiting for room in queue "billing"
}

func ExampleTopic_PublishMessages() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	audit, _ := orders.OpenQueue(ctx, "audit")

	// A batch goes to all queues as a whole, or to none.
	orders.PublishMessages(ctx,
		fanout.Message[string]{Body: "o-17", ID: "payment-4711"},
		fanout.Message[string]{Body: "o-18", Attributes: map[string]string{"region": "eu"}},
		fanout.Message[string]{Body: "o-19", Delay: time.Hour},
	)

	s := audit.Stats()
	fmt.Println(s.Ready, "ready,", s.Delayed, "delayed")
	// Output:
	// 2 ready, 1 delayed
}

func ExampleMessage() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	audit, _ := orders.OpenQueue(ctx, "audit")

	orders.PublishMessages(ctx, fanout.Message[string]{
		Body:       "o-17",
		ID:         "payment-4711",
		Attributes: map[string]string{"region": "eu"},
	})

	d, _ := audit.Receive(ctx)
	region, _ := d.Attribute("region")
	fmt.Println(d.Body, d.ID(), region)
	d.Ack(ctx)
	// Output:
	// o-17 payment-4711 eu
}

func ExampleTopic_TryPublish() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	orders.OpenQueue(ctx, "billing", fanout.WithCapacity(1))

	fmt.Println(orders.TryPublish(ctx, "o-17"))
	if err := orders.TryPublish(ctx, "o-18"); errors.Is(err, fanout.ErrQueueFull) {
		fmt.Println("come back later")
	}
	// Output:
	// <nil>
	// come back later
}

func ExampleTopic_TryPublishMessages() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	billing, _ := orders.OpenQueue(ctx, "billing", fanout.WithCapacity(3))
	orders.Publish(ctx, "o-17")
	orders.Publish(ctx, "o-18")

	err := orders.TryPublishMessages(ctx,
		fanout.Message[string]{Body: "o-19"},
		fanout.Message[string]{Body: "o-20"},
	)
	fmt.Println(errors.Is(err, fanout.ErrQueueFull), billing.Stats().Ready)
	// Output:
	// true 2
}

func ExampleTopic_Subscribe() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	billing, err := orders.Subscribe(ctx, "billing",
		func(ctx context.Context, d fanout.Delivery[string]) error {
			fmt.Println("bill", d.Body)
			return nil
		},
		fanout.WithCapacity(10_000), // for the queue
		fanout.WithConcurrency(1),   // for its workers
	)
	if err != nil {
		fmt.Println(err)
		return
	}

	orders.Publish(ctx, "o-17")
	orders.Publish(ctx, "o-18")
	orders.Shutdown(ctx)
	fmt.Println(billing.Queue().Stats().Acked, "billed")
	// Output:
	// bill o-17
	// bill o-18
	// 2 billed
}

func ExampleTopic_OpenQueue() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	audit, err := orders.OpenQueue(ctx, "audit", fanout.WithCapacity(10_000))
	if err != nil {
		fmt.Println(err)
		return
	}

	orders.Publish(ctx, "o-17")
	d, _ := audit.Receive(ctx)
	fmt.Println(d.Body, d.Ack(ctx))

	_, err = orders.OpenQueue(ctx, "audit")
	fmt.Println(err)
	// Output:
	// o-17 <nil>
	// fanout: invalid option: the name exists: OpenQueue("audit"): want a name that no open queue of the topic has
}

func ExampleTopic_Queue() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	orders.OpenQueue(ctx, "audit")

	fmt.Println(orders.Queue("audit").Name())
	fmt.Println(orders.Queue("billing") == nil)
	// Output:
	// audit
	// true
}

func ExampleTopic_Queues() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	orders.OpenQueue(ctx, "shipping")
	orders.OpenQueue(ctx, "audit", fanout.WithFilter(func(id string) bool { return id == "o-18" }))
	orders.Publish(ctx, "o-17")

	for _, q := range orders.Queues() {
		fmt.Println(q.Name(), q.Stats().Ready)
	}
	// Output:
	// audit 0
	// shipping 1
}

func ExampleTopic_Stats() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	orders.OpenQueue(ctx, "audit")
	orders.Publish(ctx, "o-17")

	fmt.Printf("%+v\n", orders.Stats())
	// Output:
	// {Topic:orders Published:1 Unrouted:0 Waiting:0 Queues:1 Retained:0 Duplicates:0 Remembered:0 Forgotten:0}
}
