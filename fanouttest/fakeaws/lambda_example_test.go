package fakeaws_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/gofanout/fanout/fanouttest/fakeaws"
)

// A function that a topic invokes fails, and Lambda tries it again after one
// minute and after two more.
func ExampleAWS_Lambda() {
	test(func(t *testing.T) {
		a := fakeaws.New(t)
		began := time.Now()
		resize := a.Lambda("resize", func(ctx context.Context, e events.SNSEvent) error {
			fmt.Println(e.Records[0].SNS.Message, "after", time.Since(began))
			if time.Since(began) < 3*time.Minute {
				return errors.New("the disk is full")
			}
			return nil
		}, fakeaws.WithTimeout(30*time.Second))
		photos, err := a.SNS().CreateTopic(t.Context(), &sns.CreateTopicInput{Name: aws.String("photos")})
		if err != nil {
			t.Fatal(err)
		}
		_, err = a.SNS().Subscribe(t.Context(), &sns.SubscribeInput{TopicArn: photos.TopicArn, Protocol: aws.String("lambda"), Endpoint: aws.String(resize.ARN())})
		if err != nil {
			t.Fatal(err)
		}
		_, err = a.SNS().Publish(t.Context(), &sns.PublishInput{TopicArn: photos.TopicArn, Message: aws.String("p-17")})
		if err != nil {
			t.Fatal(err)
		}
		if err := a.WaitQuiet(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
	// Output:
	// p-17 after 0s
	// p-17 after 1m0s
	// p-17 after 3m0s
}

// A function handles what is in a queue, and says which messages shall come
// again: they do when their visibility timeout ends.
func ExampleQueue_Map() {
	test(func(t *testing.T) {
		a := fakeaws.New(t)
		began := time.Now()
		handle := a.Lambda("handle", func(ctx context.Context, e events.SQSEvent) (out events.SQSEventResponse, err error) {
			for _, r := range e.Records {
				count := r.Attributes["ApproximateReceiveCount"]
				fmt.Println(r.Body, "after", time.Since(began), "for the", count, "time")
				if r.Body == "o-2" && count == "1" {
					out.BatchItemFailures = append(out.BatchItemFailures, events.SQSBatchItemFailure{ItemIdentifier: r.MessageId})
				}
			}
			return out, nil
		}, fakeaws.WithTimeout(10*time.Second))
		orders, err := a.SQS().CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: aws.String("orders"), Attributes: map[string]string{"VisibilityTimeout": "90"}})
		if err != nil {
			t.Fatal(err)
		}
		_, err = a.Queue("orders").Map(handle, fakeaws.WithBatchingWindow(20*time.Second), fakeaws.WithReportBatchItemFailures())
		if err != nil {
			t.Fatal(err)
		}
		for _, body := range []string{"o-1", "o-2"} {
			_, err := a.SQS().SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: orders.QueueUrl, MessageBody: &body})
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := a.WaitQuiet(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
	// Output:
	// o-1 after 20s for the 1 time
	// o-2 after 20s for the 1 time
	// o-2 after 1m50s for the 2 time
}
