package fakeaws_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/gofanout/fanout/fanouttest/fakeaws"
)

// A consumer crashes, and twelve hours later its message comes again. In a test
// the whole would be inside synctest.Test, as here; it takes milliseconds.
func Example() {
	test(func(t *testing.T) {
		a := fakeaws.New(t)
		orders, err := a.SQS().CreateQueue(t.Context(), &sqs.CreateQueueInput{
			QueueName:  aws.String("orders"),
			Attributes: map[string]string{"VisibilityTimeout": "43200"},
		})
		if err != nil {
			t.Fatal(err)
		}
		_, err = a.SQS().SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: orders.QueueUrl, MessageBody: aws.String("o-17")})
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		for deliveries := 0; deliveries < 2; {
			out, err := a.SQS().ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: orders.QueueUrl, WaitTimeSeconds: 20})
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range out.Messages {
				deliveries++
				fmt.Println(*m.Body, "after", time.Since(began))
			}
		}
	})
	// Output:
	// o-17 after 0s
	// o-17 after 12h0m0s
}

// Programs that make their own clients get a finished aws.Config.
func ExampleAWS_Config() {
	a, err := fakeaws.Start()
	if err != nil {
		log.Fatal(err)
	}
	defer a.Close()
	client := sqs.NewFromConfig(a.Config())
	out, err := client.CreateQueue(context.Background(), &sqs.CreateQueueInput{QueueName: aws.String("orders")})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(*out.QueueUrl)
	// Output: https://sqs.us-east-1.amazonaws.com/123456789012/orders
}

// Regions and accounts are views of one fake.
func ExampleAWS_In() {
	a, err := fakeaws.Start()
	if err != nil {
		log.Fatal(err)
	}
	defer a.Close()
	frankfurt := a.In("eu-central-1").Account("210987654321")
	out, err := frankfurt.SQS().CreateQueue(context.Background(), &sqs.CreateQueueInput{QueueName: aws.String("orders")})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(*out.QueueUrl)
	fmt.Println(a.Queue("orders").Exists(), frankfurt.Queue("orders").Exists())
	// Output:
	// https://sqs.eu-central-1.amazonaws.com/210987654321/orders
	// false true
}

// Look into a queue without taking anything from it.
func ExampleQueue_Messages() {
	test(func(t *testing.T) {
		a := fakeaws.New(t)
		client := a.SQS()
		orders, _ := client.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: aws.String("orders")})
		for _, body := range []string{"o-1", "o-2"} {
			_, _ = client.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: orders.QueueUrl, MessageBody: &body})
		}
		_, _ = client.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: orders.QueueUrl, MessageBody: aws.String("o-3"), DelaySeconds: 60})
		_, _ = client.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: orders.QueueUrl})
		for _, m := range a.Queue("orders").Messages() {
			line := fmt.Sprintf("%s %s, received %d times", m.Body, m.State, m.Receives)
			if !m.Due.IsZero() {
				line += fmt.Sprintf(", for %v", time.Until(m.Due))
			}
			fmt.Println(line)
		}
	})
	// Output:
	// o-1 in flight, received 1 times, for 30s
	// o-2 visible, received 0 times
	// o-3 delayed, received 0 times, for 1m0s
}

// The second SendMessage is throttled twice; the SDK's client waits and tries
// again.
func ExampleAWS_Inject() {
	test(func(t *testing.T) {
		a := fakeaws.New(t)
		orders, _ := a.SQS().CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: aws.String("orders")})
		fault := a.Inject(fakeaws.Fault{Operation: "SendMessage", After: 1, Times: 2, Error: &fakeaws.Throttled})
		for k := range 3 {
			_, err := a.SQS().SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: orders.QueueUrl, MessageBody: aws.String(fmt.Sprint("o-", k))})
			fmt.Println(err)
		}
		fmt.Println(fault.Hits(), "throttled,", a.Calls("SendMessage"), "calls,", a.Queue("orders").Len(), "messages")
	})
	// Output:
	// <nil>
	// <nil>
	// <nil>
	// 2 throttled, 5 calls, 3 messages
}

// Wait until every message is handled.
func ExampleAWS_WaitQuiet() {
	test(func(t *testing.T) {
		a := fakeaws.New(t)
		orders, _ := a.SQS().CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: aws.String("orders")})
		_, _ = a.SQS().SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: orders.QueueUrl, MessageBody: aws.String("o-17")})
		began := time.Now()
		go func() {
			out, _ := a.SQS().ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: orders.QueueUrl})
			time.Sleep(7 * time.Second) // the work
			_, _ = a.SQS().DeleteMessage(t.Context(), &sqs.DeleteMessageInput{QueueUrl: orders.QueueUrl, ReceiptHandle: out.Messages[0].ReceiptHandle})
		}()
		fmt.Println(a.WaitQuiet(t.Context()), "after", time.Since(began))
	})
	// Output: <nil> after 7s
}

// A web hook takes the messages of a topic. It fails at first, and SNS tries
// again by its delivery policy.
func ExampleAWS_Endpoint() {
	test(func(t *testing.T) {
		a := fakeaws.New(t)
		began, calls := time.Now(), 0
		a.Endpoint("https://shop.example/hook", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			calls++
			fmt.Println(r.Header.Get("x-amz-sns-message-type"), "after", time.Since(began))
			if calls == 1 {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
		}), fakeaws.AutoConfirm())
		topic, err := a.SNS().CreateTopic(t.Context(), &sns.CreateTopicInput{Name: aws.String("orders")})
		if err != nil {
			t.Fatal(err)
		}
		_, err = a.SNS().Subscribe(t.Context(), &sns.SubscribeInput{TopicArn: topic.TopicArn, Protocol: aws.String("https"), Endpoint: aws.String("https://shop.example/hook")})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.SNS().Publish(t.Context(), &sns.PublishInput{TopicArn: topic.TopicArn, Message: aws.String("o-17")}); err != nil {
			t.Fatal(err)
		}
		if err := a.WaitQuiet(t.Context()); err != nil {
			t.Fatal(err)
		}
		fmt.Println(a.Topic("orders").Published()[0].Deliveries[0].Outcome)
	})
	// Output:
	// Notification after 0s
	// Notification after 20s
	// delivered
}

// Programs in other languages reach the fake through a socket.
func ExampleAWS_Handler() {
	a, err := fakeaws.Start()
	if err != nil {
		log.Fatal(err)
	}
	defer a.Close()
	server := httptest.NewServer(a.Handler())
	defer server.Close()
	r, _ := http.NewRequest("POST", server.URL, strings.NewReader(`{"QueueName":"orders"}`))
	r.Header.Set("X-Amz-Target", "AmazonSQS.CreateQueue")
	out, err := http.DefaultClient.Do(r)
	if err != nil {
		log.Fatal(err)
	}
	defer out.Body.Close()
	fmt.Println(out.StatusCode, a.Queue("orders").Exists())
	// Output: 200 true
}

// test stands for a test function: examples have no testing.T. What package
// testing prints of it is left out.
func test(f func(t *testing.T)) {
	out := os.Stdout
	defer func() { os.Stdout = out }()
	os.Stdout, _ = os.Open(os.DevNull)
	ran := false // with -count it would run as often for each
	testing.RunTests(func(string, string) (bool, error) { return true, nil }, []testing.InternalTest{{Name: "Test", F: func(t *testing.T) {
		if ran {
			return
		}
		ran = true
		os.Stdout = out
		synctest.Test(t, f)
	}}})
}
