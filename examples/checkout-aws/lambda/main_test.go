package main

import (
	"encoding/json"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/engine/fanoutaws"
	"github.com/gofanout/fanout/examples/checkout/shop"
	"github.com/gofanout/fanout/fanouttest/fakeaws"
)

// TestTheFunctionOnItsQueue feeds the function from its queue, as an event source
// mapping does: what can be read is handled and gone, a duplicate too, and what
// can't is a dead letter.
func TestTheFunctionOnItsQueue(t *testing.T) {
	for _, service := range []string{"inventory", "shipping"} {
		t.Run(service, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { theFunctionOnItsQueue(t, service) })
		})
	}
}

func theFunctionOnItsQueue(t *testing.T, service string) {
	w, err := wiring(service)
	require.NoError(t, err)
	fake := fakeaws.New(t)
	queue, dead := fake.Queue("payments-"+service), fake.Queue("payments-"+service+"-dlq")
	for name, attributes := range map[string]map[string]string{
		"payments-" + service + "-dlq": nil,
		"payments-" + service:          {"VisibilityTimeout": "180"},
	} {
		_, err := fake.SQS().CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: &name, Attributes: attributes})
		require.NoError(t, err)
	}
	_, err = fake.SQS().SetQueueAttributes(t.Context(), &sqs.SetQueueAttributesInput{QueueUrl: aws.String(queue.URL()),
		Attributes: map[string]string{"RedrivePolicy": fmt.Sprintf(`{"deadLetterTargetArn":%q,"maxReceiveCount":1000}`, dead.ARN())}})
	require.NoError(t, err)

	load, err := shop.Load(shop.Sample())
	require.NoError(t, err)
	first, err := json.Marshal(load.Payment(0))
	require.NoError(t, err)
	for _, body := range []string{string(first), string(first), "no JSON"} {
		_, err := fake.SQS().SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: aws.String(queue.URL()), MessageBody: &body})
		require.NoError(t, err)
	}
	f := fake.Lambda(service, fanoutaws.LambdaHandler(fake.SQS(), w), fakeaws.WithTimeout(30*time.Second))
	_, err = queue.Map(f, fakeaws.WithReportBatchItemFailures())
	require.NoError(t, err)
	require.NoError(t, fake.WaitQuiet(t.Context()))

	runs := f.Invocations()
	require.Len(t, runs, 1)
	require.Empty(t, runs[0].Error)
	var got events.SQSEvent
	require.NoError(t, json.Unmarshal(runs[0].Payload, &got))
	require.Len(t, got.Records, 3)
	var response events.SQSEventResponse
	require.NoError(t, json.Unmarshal(runs[0].Response, &response))
	require.Empty(t, response.BatchItemFailures)
	letters := dead.Messages()
	require.Len(t, letters, 1, "what can't be read is a dead letter")
	require.Equal(t, "no JSON", letters[0].Body)
}

func TestTheServiceMustBeNamed(t *testing.T) {
	_, err := wiring("")
	require.EqualError(t, err, `SERVICE "": want inventory or shipping`)
}
