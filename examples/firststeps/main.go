// Firststeps is the program that stands in the README.
package main

import (
	"context"
	"fmt"
	"log"

	"github.com/gofanout/fanout"
)

type Payment struct{ Order string }

func main() {
	ctx := context.Background()
	payments, err := fanout.NewTopic[Payment]("payments")
	if err != nil {
		log.Fatal(err)
	}
	for _, service := range []string{"inventory", "shipping"} {
		if _, err := payments.Subscribe(ctx, service, func(_ context.Context, d fanout.Delivery[Payment]) error {
			fmt.Println(service, "handles", d.Body.Order)
			return nil // acknowledges; an error is retried after a backoff
		}); err != nil {
			log.Fatal(err)
		}
	}
	if err := payments.Publish(ctx, Payment{Order: "o-17"}); err != nil {
		log.Fatal(err) // in memory: the message is in no queue
	}
	if err := payments.Shutdown(ctx); err != nil {
		log.Fatal(err) // names what was not handled, queue by queue
	}
}
