// Lambda is a service of the checkout as a Lambda function, whose event source is
// the service's SQS queue. SERVICE says which one it is: inventory or shipping.
//
// The handler is that of the shop, as in the container. An inventory has shelves:
// these are in the memory of the function here, filled from the sample that comes
// with the shop, so each instance has its own. A real one asks a database.
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/engine/fanoutaws"
	"github.com/gofanout/fanout/examples/checkout/shop"
)

func main() {
	cfg, err := config.LoadDefaultConfig(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	w, err := wiring(os.Getenv("SERVICE"))
	if err != nil {
		log.Fatal(err)
	}
	lambda.Start(fanoutaws.LambdaHandler(sqs.NewFromConfig(cfg), w))
}

// A wire makes the topic of an invocation.
type wire func(ctx context.Context, e engine.Engine) (*fanout.Topic[shop.PaymentSucceeded], error)

// wiring opens the shop and connects one of its services.
func wiring(service string) (wire, error) {
	load, err := shop.Load(shop.Sample())
	if err != nil {
		return nil, err
	}
	world := shop.NewWorld(1, 0, shop.Instant)
	var handle fanout.Handler[shop.PaymentSucceeded]
	switch service {
	case "inventory":
		handle = shop.NewInventory(load, world).Handle
	case "shipping":
		handle = shop.NewShipping(load, world).Handle
	default:
		return nil, fmt.Errorf("SERVICE %q: want inventory or shipping", service)
	}
	return func(ctx context.Context, e engine.Engine) (*fanout.Topic[shop.PaymentSucceeded], error) {
		payments, err := fanout.NewTopic[shop.PaymentSucceeded]("payments", fanout.WithEngine(e, fanout.Without(engine.Bounded, engine.AllOrNone)))
		if err == nil {
			_, err = payments.Subscribe(ctx, service, handle, fanout.WithConcurrency(10), fanout.WithMaxAttempts(5))
		}
		return payments, err
	}, nil
}
