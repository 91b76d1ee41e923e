package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/examples/checkout/program"
	"github.com/gofanout/fanout/fanouttest/fakeaws"
)

// TestTheSampleBalancesItsBooks runs the whole checkout: publish, retry, dead
// letters, restock, redrive. Run fails if the books don't balance.
func TestTheSampleBalancesItsBooks(t *testing.T) { synctest.Test(t, theSampleBalancesItsBooks) }

func theSampleBalancesItsBooks(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var out bytes.Buffer
	require.NoError(t, program.Run(ctx, where(fakeaws.New(t)), []string{"-speed", "20"}, &out), &out)
	for _, line := range []string{
		`(?m)^inventory +40 = +40 \+ +0 \+ +0   balanced$`,
		`(?m)^shipping +40 = +40 \+ +0 \+ +0   balanced$`,
		`(?m)^stock .* balanced$`,
		`attempt \d: permanent after .* wanted, \d+ in stock`, // a history that went through SQS
		`inventory: redrove [1-9]\d* of [1-9]`,
	} {
		require.Regexp(t, line, out.String())
	}
}

// TestTheTerraformModulesQueuesAreTaken makes what deploy/terraform/main.tf makes,
// by hand, and runs the checkout on it. It makes nothing itself then.
func TestTheTerraformModulesQueuesAreTaken(t *testing.T) {
	synctest.Test(t, theTerraformModulesQueuesAreTaken)
}

func theTerraformModulesQueuesAreTaken(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	fake := fakeaws.New(t)
	var out bytes.Buffer
	args := []string{"-existing", "-speed", "20"}
	require.Error(t, program.Run(ctx, where(fake), args, &out), "there is nothing yet")

	topics, queues := fake.SNS(), fake.SQS()
	topic, err := topics.CreateTopic(ctx, &sns.CreateTopicInput{Name: aws.String("payments")})
	require.NoError(t, err)
	makeQueue := func(name string, attributes map[string]string) (arn string) {
		q, err := queues.CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: &name, Attributes: attributes})
		require.NoError(t, err)
		a, err := queues.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{QueueUrl: q.QueueUrl, AttributeNames: []sqstypes.QueueAttributeName{"QueueArn"}})
		require.NoError(t, err)
		return a.Attributes["QueueArn"]
	}
	for _, service := range []string{"inventory", "shipping"} {
		dead := makeQueue("payments-"+service+"-dlq", map[string]string{"MessageRetentionPeriod": "1209600"})
		arn := "arn:aws:sqs:us-east-1:123456789012:payments-" + service
		queue := makeQueue("payments-"+service, map[string]string{
			"VisibilityTimeout": "180", "MessageRetentionPeriod": "345600", "ReceiveMessageWaitTimeSeconds": "20",
			"RedrivePolicy": fmt.Sprintf(`{"deadLetterTargetArn":%q,"maxReceiveCount":1000}`, dead),
			"Policy": fmt.Sprintf(`{"Version":"2012-10-17","Statement":[{"Sid":"FanoutTopicSends","Effect":"Allow","Action":"sqs:SendMessage",`+
				`"Resource":%q,"Principal":{"Service":"sns.amazonaws.com"},"Condition":{"ArnEquals":{"aws:SourceArn":%q}}}]}`, arn, *topic.TopicArn),
		})
		require.Equal(t, arn, queue)
		_, err := topics.Subscribe(ctx, &sns.SubscribeInput{TopicArn: topic.TopicArn, Protocol: aws.String("sqs"), Endpoint: &queue,
			Attributes: map[string]string{"RawMessageDelivery": "true"}})
		require.NoError(t, err)
	}
	require.NoError(t, program.Run(ctx, where(fake), args, &out), &out)
	require.Regexp(t, `(?m)^inventory +40 = +40 \+ +0 \+ +0   balanced$`, out.String())
	require.Regexp(t, `(?m)^shipping +40 = +40 \+ +0 \+ +0   balanced$`, out.String())
}

func TestAnEndpointThatDoesNotAnswerIsAnError(t *testing.T) {
	t.Setenv("AWS_MAX_ATTEMPTS", "1")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	url := "http://" + l.Addr().String()
	require.NoError(t, l.Close())
	var out bytes.Buffer
	err = program.Run(t.Context(), where(fakeaws.New(t)), []string{"-endpoint", url}, &out)
	require.ErrorContains(t, err, strings.TrimPrefix(url, "http://"))
}
