package fakeaws

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// FuzzRequests sends requests of any shape. None may panic or hang, and each
// answer must be of the protocol that it was asked in.
func FuzzRequests(f *testing.F) {
	for operation := range sqsOperations {
		f.Add("POST", "/", sqsTarget+operation, "application/x-amz-json-1.0", `{"QueueUrl":"q","QueueName":"q"}`)
	}
	f.Add("POST", "/", sqsTarget+"ReceiveMessage", "application/x-amz-json-1.0", `{"QueueUrl":"q","WaitTimeSeconds":20,"MaxNumberOfMessages":10,"VisibilityTimeout":0}`)
	f.Add("POST", "/", sqsTarget+"SendMessage", "application/x-amz-json-1.0", `{"QueueUrl":"q.fifo","MessageBody":"m","MessageGroupId":"g","MessageDeduplicationId":"1","MessageAttributes":{"a":{"DataType":"Binary","BinaryValue":"YmxvYg=="}}}`)
	f.Add("POST", "/", sqsTarget+"SendMessageBatch", "application/x-amz-json-1.0", `{"QueueUrl":"q","Entries":[{"Id":"1","MessageBody":"m"},{"Id":"1"}]}`)
	f.Add("POST", "/", sqsTarget+"SetQueueAttributes", "application/x-amz-json-1.0", `{"QueueUrl":"q","Attributes":{"RedrivePolicy":"{\"deadLetterTargetArn\":\"arn:aws:sqs:us-east-1:123456789012:dead\",\"maxReceiveCount\":1}","Policy":"{\"Statement\":{\"Effect\":\"Deny\",\"Principal\":\"*\",\"Action\":\"*\",\"Condition\":{\"StringLike\":{\"aws:SourceArn\":[true]}}}}"}}`)
	f.Add("POST", "/", sqsTarget+"DeleteMessage", "application/x-amz-json-1.0", `{"QueueUrl":"q","ReceiptHandle":"AQEBAAAAAAAAAAEAAAAAAAAAAQAAAAAAAAABAAAAAA=="}`)
	f.Add("POST", "/", "", "application/x-www-form-urlencoded", "Action=Publish&Version=2010-03-31&TopicArn=x&Message=m&MessageAttributes.entry.1.Name=a&MessageAttributes.entry.1.Value.DataType=String")
	for operation := range snsOperations {
		f.Add("POST", "/", "", "application/x-www-form-urlencoded", "Action="+operation+"&TopicArn=arn:aws:sns:us-east-1:123456789012:t&Message=m&Protocol=sqs&Endpoint=arn:aws:sqs:us-east-1:123456789012:q")
	}
	f.Add("POST", "/", "", "application/x-www-form-urlencoded", `Action=Subscribe&TopicArn=arn:aws:sns:us-east-1:123456789012:t&Protocol=sqs&Endpoint=arn:aws:sqs:us-east-1:123456789012:dead&Attributes.entry.1.key=FilterPolicy&Attributes.entry.1.value={"a":{"b":[1]},"$or":[{"c":[]}]}&Attributes.entry.2.key=FilterPolicyScope&Attributes.entry.2.value=MessageBody`)
	f.Add("GET", "/?Action=ConfirmSubscription&Token=x", "", "", "")
	f.Add("GET", "/?Action=ConfirmSubscription&TopicArn=arn:aws:sns:us-east-1:123456789012:t&Token=", "", "", "")
	f.Add("GET", "/?Action=Unsubscribe&SubscriptionArn=arn:aws:sns:us-east-1:123456789012:t:x", "", "", "")
	f.Add("GET", "/SimpleNotificationService-x.pem", "", "", "")
	f.Add("POST", "/", "", "application/x-www-form-urlencoded", `Action=Subscribe&TopicArn=arn:aws:sns:us-east-1:123456789012:t&Protocol=https&Endpoint=https://u:p@shop.example/a?b%23c&ReturnSubscriptionArn=true&Attributes.entry.1.key=RawMessageDelivery&Attributes.entry.1.value=true`)
	for _, policy := range []string{`{"healthyRetryPolicy":{"minDelayTarget":1,"maxDelayTarget":60,"numRetries":50,"numNoDelayRetries":3,"numMinDelayRetries":2,"numMaxDelayRetries":35,"backoffFunction":"exponential"},"throttlePolicy":{"maxReceivesPerSecond":10},"requestPolicy":{"headerContentType":"text/plain;charset=UTF-8"}}`,
		`{"healthyRetryPolicy":null,"throttlePolicy":{"maxReceivesPerSecond":2000000000},"requestPolicy":{}}`} {
		f.Add("POST", "/", "", "application/x-www-form-urlencoded", "Action=Subscribe&TopicArn=arn:aws:sns:us-east-1:123456789012:t&Protocol=https&Endpoint=https://shop.example/hook&Attributes.entry.1.key=DeliveryPolicy&Attributes.entry.1.value="+url.QueryEscape(policy))
	}
	f.Add("POST", "/", "", "application/x-www-form-urlencoded", "Action=SetTopicAttributes&TopicArn=arn:aws:sns:us-east-1:123456789012:t&AttributeName=DeliveryPolicy&AttributeValue="+url.QueryEscape(`{"http":{"defaultHealthyRetryPolicy":{"numRetries":1},"disableSubscriptionOverrides":true,"defaultThrottlePolicy":{},"defaultRequestPolicy":null}}`))
	f.Add("PUT", "/bucket", "", "application/xml", "<x>")
	f.Fuzz(func(t *testing.T, method, path, target, kind, body string) {
		u, err := url.Parse("https://aws.invalid" + path)
		if err != nil {
			return
		}
		synctest.Test(t, func(t *testing.T) {
			a := New(t)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			for name, attributes := range map[string]map[string]string{"q": nil, "dead": nil, "q.fifo": {"FifoQueue": "true"}} {
				c := &call{cloud: a.cloud, place: place{DefaultAccount, DefaultRegion}, ctx: ctx}
				if _, err := c.createQueue(&createQueueInput{QueueName: &name, Attributes: attributes}); err != nil {
					t.Fatal(err)
				}
				for _, m := range []string{"1", "2"} {
					in := &sendMessageInput{QueueUrl: &name, MessageBody: &m}
					if strings.HasSuffix(name, ".fifo") {
						in.MessageGroupId, in.MessageDeduplicationId = &m, &m
					}
					if _, err := c.sendMessage(in); err != nil {
						t.Fatal(err)
					}
				}
			}
			c := &call{cloud: a.cloud, place: place{DefaultAccount, DefaultRegion}, ctx: ctx}
			if _, err := c.createTopic(&createTopicInput{Name: ptr("t")}); err != nil {
				t.Fatal(err)
			}
			if _, err := c.subscribe(&subscribeInput{TopicArn: ptr(a.Topic("t").ARN()), Protocol: ptr("sqs"), Endpoint: ptr(a.Queue("q").ARN()),
				Attributes: map[string]string{"FilterPolicy": `{"a":[1]}`, "FilterPolicyScope": "MessageBody"}}); err != nil {
				t.Fatal(err)
			}
			a.Endpoint("https://shop.example/hook", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }), AutoConfirm())
			for _, endpoint := range []string{"https://shop.example/hook/1", "https://nowhere.example"} {
				if _, err := c.subscribe(&subscribeInput{TopicArn: ptr(a.Topic("t").ARN()), Protocol: ptr("https"), Endpoint: &endpoint}); err != nil {
					t.Fatal(err)
				}
			}
			for range 2 { // a second time in the state that the first one left
				r := (&http.Request{Method: method, URL: u, Host: u.Host, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}).WithContext(ctx)
				if target != "" {
					r.Header.Set("X-Amz-Target", target)
				}
				if kind != "" {
					r.Header.Set("Content-Type", kind)
				}
				out, err := a.HTTPClient().Transport.RoundTrip(r)
				if err != nil {
					if ctx.Err() != nil {
						t.Fatalf("no answer within a minute: %v", err)
					}
					continue
				}
				text, _ := io.ReadAll(out.Body)
				if out.StatusCode >= 500 {
					t.Fatalf("status %d: %s", out.StatusCode, text)
				}
				switch out.Header.Get("Content-Type") {
				case "application/x-amz-json-1.0":
					if !json.Valid(text) {
						t.Fatalf("no JSON: %s", text)
					}
				case "text/xml", "application/xml":
					var any struct{ XMLName xml.Name }
					if err := xml.Unmarshal(text, &any); err != nil {
						t.Fatalf("no XML: %v: %s", err, text)
					}
				}
			}
			m := "m" // and what was subscribed gets something
			if _, err := c.publish(&publishInput{TopicArn: ptr(a.Topic("t").ARN()), Message: &m}); err != nil {
				var e *apiError
				if !errors.As(err, &e) {
					t.Fatal(err)
				}
			}
			time.Sleep(2 * time.Hour)
			for _, q := range a.cloud.regions[place{DefaultAccount, DefaultRegion}].queues {
				if err := checkQueue(q); err != nil {
					t.Fatal(err)
				}
			}
		})
	})
}
