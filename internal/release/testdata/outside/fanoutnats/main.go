// A program on NATS JetStream, in this process.
//
// go get github.com/gofanout/fanout/engine/fanoutnats
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/engine/fanoutnats/embedded"
)

func main() {
	dir, err := os.MkdirTemp("", "outside")
	check(err)
	defer os.RemoveAll(dir)
	ctx := context.Background()
	e, err := embedded.Open(dir)
	check(err)
	payments, err := fanout.NewTopic[string]("payments", fanout.WithEngine(e, fanout.Without(engine.Bounded)))
	check(err)
	audit, err := payments.OpenQueue(ctx, "audit")
	check(err)
	check(payments.Publish(ctx, "o-17"))
	d, err := audit.Receive(ctx)
	check(err)
	check(d.Ack(ctx))
	check(payments.Close())
	check(e.Close())
	fmt.Fprintln(os.Stdout, "received", d.Body, "from a directory")
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
