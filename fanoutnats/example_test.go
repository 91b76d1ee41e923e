package fanoutnats_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/fanoutnats/embedded"
)

// A message is published, its process ends, and the next one receives it. This is the
// contract that package fanout is built on; with it, give the engine to
// fanout.WithEngine.
func Example() {
	dir, err := os.MkdirTemp("", "fanoutnats")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	ctx := context.Background()

	open := func() (*embedded.Engine, engine.Topic, engine.Queue) {
		e, err := embedded.Open(dir)
		if err != nil {
			log.Fatal(err)
		}
		payments, err := e.OpenTopic(ctx, engine.TopicSpec{Name: "payments"})
		if err != nil {
			log.Fatal(err)
		}
		shipping, err := payments.OpenQueue(ctx, engine.QueueSpec{Name: "shipping"})
		if err != nil {
			log.Fatal(err)
		}
		return e, payments, shipping
	}

	e, payments, _ := open()
	if err := payments.Publish(ctx, []engine.Message{{ID: "o-17", Body: []byte("4999 cents")}}); err != nil {
		log.Fatal(err)
	}
	if err := e.Close(); err != nil {
		log.Fatal(err)
	}

	e, _, shipping := open()
	defer e.Close()
	rs, err := shipping.Receive(ctx, 10, 0)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s: %s\n", rs[0].ID, rs[0].Body)
	if err := shipping.Ack(ctx, rs[0].Receipt); err != nil {
		log.Fatal(err)
	}
	// Output: o-17: 4999 cents
}
