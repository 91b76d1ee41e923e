package fanout_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/gofanout/fanout"
)

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
