// Checkout-aws is the checkout of examples/checkout with its topic on Amazon SNS
// and its queues on Amazon SQS. The services are the same code; what differs is
// how the topic is made.
//
//	go run .                                    # a fake of AWS in this process
//	go run . -endpoint aws                      # AWS, as the environment says
//	go run . -endpoint http://127.0.0.1:5001    # a server that stands for it
//	go run . -h                                 # all flags
//
// It makes the topic "payments" with the queues "payments-inventory" and
// "payments-shipping" and their dead-letter queues, unless they are there, and
// leaves them. Both queues are emptied first: give it an account to play in.
package main

import (
	"context"
	"flag"
	"log"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/engine/fanoutaws"
	"github.com/gofanout/fanout/examples/checkout/program"
	"github.com/gofanout/fanout/fanouttest/fakeaws"
)

func main() {
	fake, err := fakeaws.Start()
	if err != nil {
		log.Fatal(err)
	}
	program.Main(where(fake))
}

// where puts the checkout's queues on SQS: on the fake, unless an endpoint is
// given.
func where(fake *fakeaws.AWS) program.Where {
	var endpoint string
	var existing bool
	return program.Where{
		Command: "go run .",
		Flags: func(fs *flag.FlagSet) {
			fs.StringVar(&endpoint, "endpoint", "", "`URL` of a server that stands for AWS, which gets made-up credentials; aws for AWS itself; a fake in this process if empty")
			fs.BoolVar(&existing, "existing", false, "make nothing: use what deploy/terraform made")
		},
		Open: func(ctx context.Context) (fanout.TopicOption, func() error, error) {
			cfg, err := configure(ctx, fake, endpoint)
			if err != nil {
				return nil, nil, err
			}
			var options []fanoutaws.Option
			if existing {
				options = append(options, fanoutaws.WithExisting())
			}
			e, err := fanoutaws.New(sns.NewFromConfig(cfg), sqs.NewFromConfig(cfg), options...)
			if err != nil {
				return nil, nil, err
			}
			return fanout.WithEngine(e, fanout.Without(engine.Bounded, engine.AllOrNone)), func() error { return nil }, nil
		},
	}
}

// connections is how many requests of a service are under way at once: a worker's,
// and those of a poll. The SDK keeps ten idle ones, and a connection that is made
// anew for each request costs more than the request.
const connections = 256

// configure takes everything from the fake, or from the environment, but for a
// server on loopback that checks no credentials.
func configure(ctx context.Context, fake *fakeaws.AWS, endpoint string) (aws.Config, error) {
	if endpoint == "" {
		return fake.Config(), nil
	}
	client := awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
		t.MaxIdleConns, t.MaxIdleConnsPerHost = connections, connections
	})
	if endpoint == "aws" {
		return config.LoadDefaultConfig(ctx, config.WithHTTPClient(client))
	}
	keys := aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{AccessKeyID: "test", SecretAccessKey: "test"}, nil
	})
	return aws.Config{Region: "us-east-1", BaseEndpoint: &endpoint, Credentials: keys, HTTPClient: client}, nil
}
