// Topics, messages, and how they end.

package fanout_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
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

func ExampleTopic_Shutdown() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	orders.Subscribe(ctx, "billing", func(ctx context.Context, d fanout.Delivery[string]) error {
		fmt.Println("bill", d.Body)
		return nil
	})
	orders.Publish(ctx, "o-17")
	orders.Publish(ctx, "o-18")

	// Everything published is drained. Bound the wait by ctx's deadline.
	fmt.Println("left undone:", orders.Shutdown(ctx))
	fmt.Println(errors.Is(orders.Publish(ctx, "o-19"), fanout.ErrClosed))
	// Output:
	// bill o-17
	// bill o-18
	// left undone: <nil>
	// true
}

// The handlers of two topics publish to each other: neither can be ended first.
func ExampleShutdown() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	payments, _ := fanout.NewTopic[int]("payments")
	orders.Subscribe(ctx, "billing", func(ctx context.Context, d fanout.Delivery[string]) error {
		if d.Body == "o-17 is paid" {
			fmt.Println(d.Body)
			return nil
		}
		return payments.Publish(ctx, 4999) // the handler's context says that a handler publishes
	})
	payments.Subscribe(ctx, "orders", func(ctx context.Context, d fanout.Delivery[int]) error {
		return orders.Publish(ctx, "o-17 is paid")
	})
	orders.Publish(ctx, "o-17")

	fmt.Println("left undone:", fanout.Shutdown(ctx, orders, payments))
	// Output:
	// o-17 is paid
	// left undone: <nil>
}

func ExampleShutdownError() {
	quiet := fanout.WithLogger(slog.New(slog.DiscardHandler))
	orders, _ := fanout.NewTopic[string]("orders", quiet)
	ctx, cancel := context.WithCancel(context.Background())
	orders.OpenQueue(ctx, "audit")
	orders.Publish(ctx, "o-17")
	orders.Publish(ctx, "o-18")

	cancel() // no time to wait
	err := orders.Shutdown(ctx)

	var left *fanout.ShutdownError
	if errors.As(err, &left) {
		for _, q := range left.Queues {
			fmt.Println(q.Queue, q.Ready)
		}
	}
	fmt.Println(errors.Is(err, context.Canceled))
	fmt.Println(err)
	// Output:
	// audit 2
	// true
	// fanout: shutdown of topic "orders" left queue "audit": 2 ready: context canceled
}

func ExampleTopic_Close() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	audit, _ := orders.OpenQueue(ctx, "audit")

	orders.Close()

	fmt.Println(orders.Publish(ctx, "o-17"))
	_, err := audit.Receive(ctx)
	fmt.Println(err)
	// Output:
	// fanout: publish to "orders": fanout: closed
	// fanout: receive from "audit": fanout: closed
}

func ExampleTopic_Leftovers() {
	ctx := context.Background()
	quiet := fanout.WithLogger(slog.New(slog.DiscardHandler)) // else the loss is logged
	orders, _ := fanout.NewTopic[string]("orders", quiet)
	orders.OpenQueue(ctx, "audit")
	orders.PublishMessages(ctx, fanout.Message[string]{Body: "o-17", ID: "payment-4711"})

	orders.Close()

	for queue, messages := range orders.Leftovers() {
		for _, m := range messages {
			fmt.Println(queue, m.ID, m.Body)
		}
	}
	// Output:
	// audit payment-4711 o-17
}

func ExampleTopic_Done() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	started := make(chan struct{})
	orders.Subscribe(ctx, "billing", func(ctx context.Context, d fanout.Delivery[string]) error {
		d.Ack(ctx)
		close(started)
		<-ctx.Done()
		fmt.Println("stopped:", context.Cause(ctx))
		return nil
	})
	orders.Publish(ctx, "o-17")
	<-started

	orders.Close()  // doesn't wait for the handler
	<-orders.Done() // does
	fmt.Println("nothing runs any more")
	// Output:
	// stopped: fanout: closed: queue "billing"
	// nothing runs any more
}

func ExampleSubscriber_Shutdown() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	billing, _ := orders.Subscribe(ctx, "billing", func(ctx context.Context, d fanout.Delivery[string]) error {
		return nil
	})

	// The workers stop. Their queue stays open, and fills.
	if err := billing.Shutdown(ctx); err != nil {
		fmt.Println(err)
	}
	orders.Publish(ctx, "o-17")
	fmt.Println(billing.Queue().Stats().Ready)
	// Output:
	// 1
}

func ExampleSubscriber_Done() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	billing, _ := orders.Subscribe(ctx, "billing", func(ctx context.Context, d fanout.Delivery[string]) error {
		fmt.Println("bill", d.Body)
		return nil
	})
	orders.Publish(ctx, "o-17")

	go orders.Shutdown(ctx)
	<-billing.Done()
	fmt.Println("the last handler has returned")
	// Output:
	// bill o-17
	// the last handler has returned
}

func ExampleSubscriber_Queue() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	billing, _ := orders.Subscribe(ctx, "billing", func(ctx context.Context, d fanout.Delivery[string]) error {
		return nil
	})

	fmt.Println(billing.Queue().Name(), billing.Queue().Stats().Capacity)
	// Output:
	// billing 1024
}

func ExampleLeft_String() {
	ctx := context.Background()
	quiet := fanout.WithLogger(slog.New(slog.DiscardHandler))
	orders, _ := fanout.NewTopic[string]("orders", quiet)
	orders.OpenQueue(ctx, "reminders")
	orders.PublishMessages(ctx, fanout.Message[string]{Body: "o-17", Delay: time.Hour})

	// Everything else is done, and what is delayed isn't waited for.
	err := orders.Shutdown(ctx)
	var left *fanout.ShutdownError
	if errors.As(err, &left) {
		fmt.Println(left.Queues[0], left.Err)
	}
	// Output:
	// queue "reminders": 1 delayed <nil>
}

func ExampleErrClosed() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	orders.Close()

	_, err := orders.OpenQueue(ctx, "audit")
	fmt.Println(errors.Is(err, fanout.ErrClosed), errors.Is(orders.Publish(ctx, "o-17"), fanout.ErrClosed))
	// Output:
	// true true
}

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
