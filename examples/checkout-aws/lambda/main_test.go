package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/engine/fanoutaws"
	"github.com/gofanout/fanout/examples/checkout/shop"
)

const arn = "arn:aws:sqs:us-east-1:123456789012:payments-"

// queues answers as SQS does for the event sources and their dead-letter queues.
type queues struct{ sent, deleted int }

func (q *queues) Do(r *http.Request) (*http.Response, error) {
	body, _ := io.ReadAll(r.Body)
	var in struct {
		QueueName, QueueUrl string
		Entries             []struct {
			ID string `json:"Id"`
		}
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return nil, err
	}
	out := `{}`
	switch op := strings.TrimPrefix(r.Header.Get("X-Amz-Target"), "AmazonSQS."); op {
	case "GetQueueUrl":
		out = `{"QueueUrl":"http://sqs.invalid/` + in.QueueName + `"}`
	case "GetQueueAttributes":
		name := strings.TrimPrefix(in.QueueUrl, "http://sqs.invalid/payments-")
		out = `{"Attributes":{"QueueArn":"` + arn + name + `","DelaySeconds":"0"}}`
		if !strings.HasSuffix(name, "-dlq") {
			out = strings.TrimSuffix(out, "}}") + `,"RedrivePolicy":"{\"deadLetterTargetArn\":\"` + arn + name + `-dlq\",\"maxReceiveCount\":1000}"}}`
		}
	case "SendMessageBatch", "DeleteMessageBatch":
		if op == "DeleteMessageBatch" {
			q.deleted += len(in.Entries)
		} else {
			q.sent += len(in.Entries)
		}
		var done []string
		for _, e := range in.Entries {
			done = append(done, `{"Id":"`+e.ID+`"}`)
		}
		out = `{"Successful":[` + strings.Join(done, ",") + `],"Failed":[]}`
	}
	return &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"application/x-amz-json-1.0"}},
		Body: io.NopCloser(strings.NewReader(out)), Request: r}, nil
}

// TestTheFunctionByAWSsOwnTypes gives an event of aws-lambda-go to the function as
// the Lambda runtime does, and reads its answer by those types.
func TestTheFunctionByAWSsOwnTypes(t *testing.T) {
	for _, service := range []string{"inventory", "shipping"} {
		t.Run(service, func(t *testing.T) {
			w, err := wiring(service)
			require.NoError(t, err)
			q := &queues{}
			client := sqs.New(sqs.Options{Region: "us-east-1", BaseEndpoint: aws.String("http://sqs.invalid"), HTTPClient: q,
				Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
					return aws.Credentials{AccessKeyID: "test", SecretAccessKey: "test"}, nil
				})})
			handler := lambda.NewHandler(fanoutaws.LambdaHandler(client, w))

			load, err := shop.Load(shop.Sample())
			require.NoError(t, err)
			first, err := json.Marshal(load.Payment(0))
			require.NoError(t, err)
			message := func(id, body string) events.SQSMessage {
				return events.SQSMessage{MessageId: id, ReceiptHandle: "of " + id, Body: body, EventSourceARN: arn + service,
					Attributes: map[string]string{"ApproximateReceiveCount": "1", "SentTimestamp": "1545082649183"}}
			}
			payload, err := json.Marshal(events.SQSEvent{Records: []events.SQSMessage{
				message("good", string(first)), message("again", string(first)), message("bad", "no JSON"),
			}})
			require.NoError(t, err)
			answer, err := handler.Invoke(t.Context(), payload)
			require.NoError(t, err)
			var response events.SQSEventResponse
			require.NoError(t, json.Unmarshal(answer, &response))
			require.Empty(t, response.BatchItemFailures)
			require.Equal(t, queues{sent: 1, deleted: 1}, *q, "what can't be read is a dead letter")
		})
	}
}

func TestTheServiceMustBeNamed(t *testing.T) {
	_, err := wiring("")
	require.EqualError(t, err, `SERVICE "": want inventory or shipping`)
}
