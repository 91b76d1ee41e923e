package fanoutnats_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/engine/fanoutnats"
	"github.com/gofanout/fanout/engine/fanoutnats/embedded"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

type Payment struct {
	OrderID string
	Cents   int
}

// A message is published, its process ends, and the next one handles it.
func Example() {
	dir, err := os.MkdirTemp("", "fanoutnats")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	ctx := context.Background()

	process := func(work func(*fanout.Topic[Payment], *fanout.Queue[Payment]) error) {
		e, err := embedded.Open(dir)
		if err != nil {
			log.Fatal(err)
		}
		defer e.Close() // after the topic
		payments, err := fanout.NewTopic[Payment]("payments", fanout.WithEngine(e, fanout.Without(engine.Bounded)))
		if err != nil {
			log.Fatal(err)
		}
		defer payments.Close()
		shipping, err := payments.OpenQueue(ctx, "shipping")
		if err != nil {
			log.Fatal(err)
		}
		if err := work(payments, shipping); err != nil {
			log.Fatal(err)
		}
	}

	process(func(payments *fanout.Topic[Payment], _ *fanout.Queue[Payment]) error {
		return payments.Publish(ctx, Payment{OrderID: "o-17", Cents: 4999})
	})
	process(func(payments *fanout.Topic[Payment], shipping *fanout.Queue[Payment]) error {
		_, err := shipping.Subscribe(ctx, func(_ context.Context, d fanout.Delivery[Payment]) error {
			fmt.Printf("%s: %d cents\n", d.Body.OrderID, d.Body.Cents)
			return nil
		})
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		return payments.Shutdown(ctx) // when the queue is empty
	})
	// Output: o-17: 4999 cents
}

// On a cluster: the connection is yours.
func ExampleNew() {
	nc, err := nats.Connect("nats://a:4222,nats://b:4222,nats://c:4222", fanoutnats.ConnectOptions()...)
	if err != nil {
		log.Fatal(err)
	}
	defer nc.Close() // after the topics
	js, err := jetstream.New(nc)
	if err != nil {
		log.Fatal(err)
	}
	e, err := fanoutnats.New(js, fanoutnats.WithReplicas(3))
	if err != nil {
		log.Fatal(err)
	}
	payments, err := fanout.NewTopic[Payment]("payments", fanout.WithEngine(e, fanout.Without(engine.Bounded)))
	if err != nil {
		log.Fatal(err)
	}
	defer payments.Close()
}
