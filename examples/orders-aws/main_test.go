package main

import (
	"context"
	"flag"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/examples/orders-aws/orders"
	"github.com/gofanout/fanout/fanouttest/fakeaws"
)

// The program on its configuration, with partners behind HTTP, in real time: no
// synctest here, since their connections are real.
func TestTheProgramBillsAndShips(t *testing.T) {
	fake := fakeaws.New(t)
	topic, err := fake.SNS().CreateTopic(t.Context(), &sns.CreateTopicInput{Name: aws.String("orders")})
	require.NoError(t, err)
	for queue, event := range map[string]string{"billing": orders.Placed, "shipping": orders.Paid} {
		_, err := fake.SQS().CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: &queue, Attributes: map[string]string{
			"Policy": `{"Statement":[{"Effect":"Allow","Principal":{"Service":"sns.amazonaws.com"},"Action":"sqs:SendMessage","Resource":"*"}]}`}})
		require.NoError(t, err)
		_, err = fake.SNS().Subscribe(t.Context(), &sns.SubscribeInput{TopicArn: topic.TopicArn, Protocol: aws.String("sqs"), Endpoint: aws.String(fake.Queue(queue).ARN()),
			Attributes: map[string]string{"RawMessageDelivery": "true", "FilterPolicy": `{"event":["` + event + `"]}`}})
		require.NoError(t, err)
	}
	asked := make(chan string, 2)
	partner := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.URL.Path + " " + r.Header.Get("Idempotency-Key")
	}))
	defer partner.Close()

	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	running.Go(func() {
		require.NoError(t, run(ctx, fake.Config(), []string{"-topic", *topic.TopicArn, "-billing", fake.Queue("billing").URL(), "-shipping", fake.Queue("shipping").URL(),
			"-bank", partner.URL + "/bank", "-carrier", partner.URL + "/carrier"}, t.Output()))
	})
	desk := &orders.Desk{Client: fake.SNS(), TopicARN: *topic.TopicArn}
	require.NoError(t, desk.Place(t.Context(), orders.Order{ID: "o-1", Cents: 1}))
	require.Equal(t, "/bank o-1", <-asked)
	require.Equal(t, "/carrier o-1", <-asked)
	require.NoError(t, fake.WaitQuiet(t.Context()))
}

func TestFlags(t *testing.T) {
	var out strings.Builder
	require.ErrorIs(t, run(t.Context(), aws.Config{}, []string{"-h"}, &out), flag.ErrHelp)
	require.Contains(t, out.String(), "-carrier URL")
	require.EqualError(t, run(t.Context(), aws.Config{}, []string{"-topic", "t", "-bank", "b"}, &out), "-billing is missing\n-carrier is missing\n-shipping is missing")
}
