package fanout_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/gofanout/fanout"
)

// PaymentSucceeded is what the payment service publishes.
type PaymentSucceeded struct {
	OrderID string
	Cents   int
}

// ErrNoSuchOrder is an error that no further attempt can mend.
var ErrNoSuchOrder = errors.New("no such order")

func reserveStock(ctx context.Context, d fanout.Delivery[PaymentSucceeded]) error {
	if d.Body.OrderID == "" {
		return fanout.Permanent(ErrNoSuchOrder) // to the dead-letter queue, now
	}
	fmt.Println("inventory: reserve the goods of", d.Body.OrderID)
	return nil // acknowledged; any other error would be retried
}

func ship(ctx context.Context, d fanout.Delivery[PaymentSucceeded]) error {
	fmt.Println("shipping: send", d.Body.OrderID)
	return nil
}

// A checkout: the payment service publishes once that a payment succeeded.
// Inventory and shipping each have a queue of their own, so that neither a slow
// nor a failing one disturbs the other.
func Example() {
	ctx := context.Background()

	payments, err := fanout.NewTopic[PaymentSucceeded]("payments")
	if err != nil {
		log.Fatal(err)
	}
	_, err = payments.Subscribe(ctx, "inventory", reserveStock,
		fanout.WithConcurrency(8),
		fanout.WithVisibilityTimeout(time.Minute),
		fanout.WithMaxAttempts(3),
		fanout.WithBackoff(fanout.Exponential(100*time.Millisecond, 10*time.Second)),
	)
	if err != nil {
		log.Fatal(err)
	}
	if _, err = payments.Subscribe(ctx, "shipping", ship); err != nil {
		log.Fatal(err)
	}

	if err := payments.Publish(ctx, PaymentSucceeded{OrderID: "o-17", Cents: 4999}); err != nil {
		log.Fatal(err)
	}

	// Wait until everybody is done, ten seconds at most.
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := payments.Shutdown(ctx); err != nil {
		log.Fatal(err)
	}
	// Unordered output:
	// inventory: reserve the goods of o-17
	// shipping: send o-17
}
