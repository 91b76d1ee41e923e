package fanoutaws_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/engine/fanoutaws"
)

// PaymentSucceeded says that an order is paid.
type PaymentSucceeded struct {
	OrderID string
	Cents   int64
}

func reserveStock(_ context.Context, d fanout.Delivery[PaymentSucceeded]) error {
	fmt.Println("reserving stock for", d.Body.OrderID)
	return nil
}

// cfg is what config.LoadDefaultConfig returns.
var cfg aws.Config

// A topic on SNS with a subscriber on SQS. It needs AWS, or a server that stands
// for it.
func Example() {
	ctx := context.Background()
	e, err := fanoutaws.New(sns.NewFromConfig(cfg), sqs.NewFromConfig(cfg))
	if err != nil {
		log.Fatal(err)
	}
	payments, err := fanout.NewTopic[PaymentSucceeded]("payments", fanout.WithEngine(e, fanout.Without(engine.Bounded, engine.AllOrNone)))
	if err != nil {
		log.Fatal(err)
	}
	defer payments.Close()
	if _, err := payments.Subscribe(ctx, "inventory", reserveStock); err != nil {
		log.Fatal(err)
	}
	if err := payments.Publish(ctx, PaymentSucceeded{OrderID: "o-17", Cents: 4999}); err != nil {
		log.Fatal(err)
	}
}

func wire(ctx context.Context, e engine.Engine) (*fanout.Topic[PaymentSucceeded], error) {
	payments, err := fanout.NewTopic[PaymentSucceeded]("payments", fanout.WithEngine(e, fanout.Without(engine.Bounded, engine.AllOrNone)))
	if err == nil {
		_, err = payments.Subscribe(ctx, "inventory", reserveStock, fanout.WithConcurrency(10))
	}
	return payments, err
}

// The same wiring makes a Lambda function. In a main function the last line is
// lambda.Start(handle), of aws-lambda-go.
func ExampleLambdaHandler() {
	handle := fanoutaws.LambdaHandler(sqs.NewFromConfig(cfg), wire)
	_, _ = handle(context.Background(), fanoutaws.SQSEvent{})
}

// TestTheReadmeCompiles finds the lines of the README's Go in this file, but for
// those of modules that this one doesn't need.
func TestTheReadmeCompiles(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	here, err := os.ReadFile("example_test.go")
	require.NoError(t, err)
	compiled := map[string]bool{}
	for line := range strings.Lines(string(here)) {
		compiled[strings.TrimSpace(line)] = true
	}
	checked := 0
	for k, block := range strings.Split(string(readme), "```go\n") {
		block, _, _ = strings.Cut(block, "```")
		if k == 0 {
			continue
		}
		for line := range strings.Lines(block) {
			line = strings.TrimSpace(line)
			if line == "" || strings.Contains(line, "config.LoadDefaultConfig") || strings.Contains(line, "lambda.Start") {
				continue
			}
			require.True(t, compiled[line], "of the README, and not compiled: %s", line)
			checked++
		}
	}
	require.Greater(t, checked, 5)
}
