// A program that publishes, and handles in one queue of two.
//
// go get github.com/gofanout/fanout
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/gofanout/fanout"
)

type paid struct{ Order string }

func main() {
	ctx := context.Background()
	payments, err := fanout.NewTopic[paid]("payments")
	check(err)
	handled := make(chan string, 1)
	_, err = payments.Subscribe(ctx, "inventory", func(_ context.Context, d fanout.Delivery[paid]) error {
		handled <- d.Body.Order
		return nil
	}, fanout.WithConcurrency(8))
	check(err)
	audit, err := payments.OpenQueue(ctx, "audit", fanout.WithCapacity(10))
	check(err)
	check(payments.Publish(ctx, paid{"o-17"}))
	d, err := audit.Receive(ctx)
	check(err)
	check(d.Ack(ctx))
	fmt.Fprintln(os.Stdout, "handled", <-handled, "and audited", d.Body.Order)
	check(payments.Shutdown(ctx))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
