// A program on watermill's interfaces.
//
// go get github.com/gofanout/fanout/plugin/fanoutwatermill
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gofanout/fanout/plugin/fanoutwatermill"
)

func main() {
	b, err := fanoutwatermill.NewBroker()
	check(err)
	var pub message.Publisher = b.Publisher()
	var sub message.Subscriber = b.Subscriber("inventory")
	in, err := sub.Subscribe(context.Background(), "payments")
	check(err)
	check(pub.Publish("payments", message.NewMessage("o-17", nil)))
	m := <-in
	m.Ack()
	check(b.Close())
	fmt.Fprintln(os.Stdout, "received", m.UUID)
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
