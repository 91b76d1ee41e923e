package fanoutwatermill_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/message/router/middleware"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/plugin/fanoutwatermill"
)

// A router with two groups: each gets all payments.
func Example() {
	b, err := fanoutwatermill.NewBroker()
	check(err)
	router, err := message.NewRouter(message.RouterConfig{}, watermill.NopLogger{})
	check(err)
	router.AddMiddleware(fanoutwatermill.Errors, middleware.Recoverer)
	done := make(chan string, 2)
	for _, service := range []string{"inventory", "shipping"} {
		router.AddConsumerHandler(service, "payments", b.Subscriber(service), func(m *message.Message) error {
			done <- service + ": " + string(m.Payload)
			return nil
		})
	}
	ended := make(chan error, 1)
	go func() { ended <- router.Run(context.Background()) }()
	<-router.Running()
	check(b.Publisher().Publish("payments", message.NewMessage(watermill.NewUUID(), []byte("o-17"))))
	fmt.Println(<-done)
	fmt.Println(<-done)
	check(router.Close())
	check(<-ended)
	check(b.Close())
	// Unordered output:
	// inventory: o-17
	// shipping: o-17
}

// A message that can't be handled is a dead letter, with the error of its handler.
func ExampleErrors() {
	ctx := context.Background()
	b, err := fanoutwatermill.NewBroker()
	check(err)
	in, err := b.Subscriber("billing").Subscribe(ctx, "payments")
	check(err)
	check(b.Publisher().Publish("payments", message.NewMessage("o-17", nil)))

	handler := fanoutwatermill.Errors(func(*message.Message) ([]*message.Message, error) {
		return nil, fanout.Permanent(errors.New("no such account"))
	})
	m := <-in
	if _, err := handler(m); err != nil { // as a router does
		m.Nack()
	}
	topic, err := b.Topic("payments")
	check(err)
	letters := topic.Queue("billing").DeadLetters()
	letter, err := letters.Receive(ctx)
	check(err)
	fmt.Println(letter.ID(), letter.History()[0].Err)
	check(letter.Ack(ctx))
	check(b.Close())
	// Output: o-17 no such account
}

// Messages of one customer come in order, however often they fail.
func ExampleWithMessageFields() {
	b, err := fanoutwatermill.NewBroker(
		fanoutwatermill.WithTopicOptions(fanout.WithOrdering()),
		fanoutwatermill.WithMessageFields(func(_ string, from *message.Message, to *fanout.Message[[]byte]) {
			to.OrderingKey = from.Metadata.Get("customer")
		}))
	check(err)
	in, err := b.Subscriber("billing", fanoutwatermill.WithWorkerOptions(fanout.WithConcurrency(8))).Subscribe(context.Background(), "orders")
	check(err)
	for _, id := range []string{"ann-1", "ann-2", "ann-3"} {
		m := message.NewMessage(id, nil)
		m.Metadata.Set("customer", "ann")
		check(b.Publisher().Publish("orders", m))
	}
	for range 3 {
		m := <-in
		fmt.Println(m.UUID)
		m.Ack()
	}
	check(b.Close())
	// Output:
	// ann-1
	// ann-2
	// ann-3
}

// What watermill has no word for is the delivery's.
func ExampleDeliveryOf() {
	b, err := fanoutwatermill.NewBroker(fanoutwatermill.WithQueueOptions(fanout.WithBackoff(fanout.Constant(time.Millisecond))))
	check(err)
	in, err := b.Subscriber("billing").Subscribe(context.Background(), "payments")
	check(err)
	check(b.Publisher().Publish("payments", message.NewMessage("o-17", nil)))
	(<-in).Nack()
	m := <-in
	d, _ := fanoutwatermill.DeliveryOf(m)
	fmt.Println("attempt", d.Attempt())
	m.Ack()
	check(b.Close())
	// Output: attempt 2
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
