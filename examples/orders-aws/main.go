// Orders-aws bills and ships the orders of a shop. The orders are on an Amazon
// SNS topic, with an SQS queue for each step; see package orders.
//
//	go run . -topic arn:aws:sns:.. -billing https://sqs... -shipping https://sqs... -bank https://.. -carrier https://..
//
// It takes region and credentials from the environment, as all AWS programs do,
// and runs until it is interrupted.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/gofanout/fanout/examples/orders-aws/orders"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cfg, err := config.LoadDefaultConfig(ctx)
	if err == nil {
		err = run(ctx, cfg, os.Args[1:], os.Stderr)
	}
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "orders-aws:", err)
		os.Exit(1)
	}
}

// run bills and ships until ctx ends, and returns when everything under way is
// settled.
func run(ctx context.Context, cfg aws.Config, arguments []string, out io.Writer) error {
	flags := flag.NewFlagSet("orders-aws", flag.ContinueOnError)
	flags.SetOutput(out)
	topic := flags.String("topic", "", "`ARN` of the topic")
	billing := flags.String("billing", "", "`URL` of the queue billing")
	shipping := flags.String("shipping", "", "`URL` of the queue shipping")
	bank := flags.String("bank", "", "`URL` that charges customers")
	carrier := flags.String("carrier", "", "`URL` that takes parcels")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	var missing error
	flags.VisitAll(func(f *flag.Flag) {
		if f.Value.String() == "" {
			missing = errors.Join(missing, fmt.Errorf("-%s is missing", f.Name))
		}
	})
	if missing != nil {
		return missing
	}

	client := &http.Client{Timeout: time.Minute}
	desk := &orders.Desk{Client: sns.NewFromConfig(cfg), TopicARN: *topic}
	log := slog.New(slog.NewTextHandler(out, nil))
	consumer := func(queue string, handle orders.Handler) *orders.Consumer {
		return &orders.Consumer{Client: sqs.NewFromConfig(cfg), QueueURL: queue, Handle: handle, Log: log,
			Concurrency: 20, Visibility: time.Minute, Grace: 20 * time.Second}
	}
	consumers := []*orders.Consumer{
		consumer(*billing, (&orders.Billing{Bank: &orders.Remote{URL: *bank, Client: client}, Desk: desk}).Handle),
		consumer(*shipping, (&orders.Shipping{Carrier: &orders.Remote{URL: *carrier, Client: client}}).Handle),
	}
	var running sync.WaitGroup
	for _, c := range consumers {
		running.Go(func() { c.Run(ctx) })
	}
	running.Wait()
	return nil
}
