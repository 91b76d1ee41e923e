package fakeaws_test

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go"
	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/fanouttest/fakeaws"
)

// bubble runs a test in virtual time.
func bubble(t *testing.T, f func(t *testing.T, a *fakeaws.AWS)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, fakeaws.New(t)) })
}

// newQueue creates a queue, with attributes given as name, value, name, value.
func newQueue(t testing.TB, a *fakeaws.AWS, name string, attributes ...string) string {
	t.Helper()
	in := &sqs.CreateQueueInput{QueueName: &name, Attributes: pairs(attributes)}
	out, err := a.SQS().CreateQueue(t.Context(), in)
	require.NoError(t, err)
	return *out.QueueUrl
}

func pairs(nameValue []string) map[string]string {
	m := map[string]string{}
	for k := 0; k < len(nameValue); k += 2 {
		m[nameValue[k]] = nameValue[k+1]
	}
	return m
}

func send(t testing.TB, a *fakeaws.AWS, queue, body string, change ...func(*sqs.SendMessageInput)) *sqs.SendMessageOutput {
	t.Helper()
	in := &sqs.SendMessageInput{QueueUrl: &queue, MessageBody: &body}
	for _, f := range change {
		f(in)
	}
	out, err := a.SQS().SendMessage(t.Context(), in)
	require.NoError(t, err)
	return out
}

func receive(t testing.TB, a *fakeaws.AWS, queue string, change ...func(*sqs.ReceiveMessageInput)) []sqstypes.Message {
	t.Helper()
	in := &sqs.ReceiveMessageInput{QueueUrl: &queue, MaxNumberOfMessages: 10,
		MessageSystemAttributeNames: []sqstypes.MessageSystemAttributeName{"All"}, MessageAttributeNames: []string{"All"}}
	for _, f := range change {
		f(in)
	}
	out, err := a.SQS().ReceiveMessage(t.Context(), in)
	require.NoError(t, err)
	return out.Messages
}

// wait makes a receive a long poll.
func wait(seconds int32) func(*sqs.ReceiveMessageInput) {
	return func(in *sqs.ReceiveMessageInput) { in.WaitTimeSeconds = seconds }
}

func hide(seconds int32) func(*sqs.ReceiveMessageInput) {
	return func(in *sqs.ReceiveMessageInput) { in.VisibilityTimeout = seconds }
}

func bodies(ms []sqstypes.Message) []string {
	bs := []string{}
	for _, m := range ms {
		bs = append(bs, *m.Body)
	}
	return bs
}

// code is the code of an error, empty if there is none.
func code(err error) string {
	if err == nil {
		return ""
	}
	var e smithy.APIError
	if !errors.As(err, &e) {
		return err.Error()
	}
	return e.ErrorCode()
}

func TestALongPollIsWokenByAMessageAtTheInstantItIsSent(t *testing.T) {
	bubble(t, func(t *testing.T, a *fakeaws.AWS) {
		q := newQueue(t, a, "orders")
		began := time.Now()
		time.AfterFunc(15*time.Second, func() { send(t, a, q, "o-17") })
		require.Equal(t, []string{"o-17"}, bodies(receive(t, a, q, wait(20))))
		require.Equal(t, 15*time.Second, time.Since(began))
		require.Empty(t, receive(t, a, q, wait(20)))
		require.Equal(t, 35*time.Second, time.Since(began), "an empty poll waits its time")
	})
}

func TestAMessageComesAgainAfterExactlyTwelveHours(t *testing.T) {
	bubble(t, func(t *testing.T, a *fakeaws.AWS) {
		q := newQueue(t, a, "orders", "VisibilityTimeout", "43200")
		send(t, a, q, "o-17")
		began := time.Now()
		first := receive(t, a, q)
		require.Len(t, first, 1)
		for polls := 0; ; polls++ {
			ms := receive(t, a, q, wait(20))
			if len(ms) == 0 {
				continue
			}
			require.Equal(t, 12*time.Hour, time.Since(began))
			require.Equal(t, "2", ms[0].Attributes["ApproximateReceiveCount"])
			require.NotEqual(t, *first[0].ReceiptHandle, *ms[0].ReceiptHandle)
			require.Equal(t, 2159, polls)
			_, err := a.SQS().DeleteMessage(t.Context(), &sqs.DeleteMessageInput{QueueUrl: &q, ReceiptHandle: ms[0].ReceiptHandle})
			require.NoError(t, err)
			return
		}
	})
}

func TestALongPollEndsWithItsContext(t *testing.T) {
	bubble(t, func(t *testing.T, a *fakeaws.AWS) {
		q := newQueue(t, a, "orders")
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		began := time.Now()
		_, err := a.SQS().ReceiveMessage(ctx, &sqs.ReceiveMessageInput{QueueUrl: &q, WaitTimeSeconds: 20})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 3*time.Second, time.Since(began))
		send(t, a, q, "later")
		require.Len(t, receive(t, a, q), 1, "nobody took it")
	})
}

func TestUnknownOperationsAndServicesAreRefused(t *testing.T) {
	a := fakeaws.New(t)
	_, err := a.SNS().ListSMSSandboxPhoneNumbers(t.Context(), &sns.ListSMSSandboxPhoneNumbersInput{})
	require.Equal(t, "InvalidAction", code(err))

	_, err = a.SQS().ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: aws.String("https://sqs.us-east-1.amazonaws.com/123456789012/none")})
	require.Equal(t, "AWS.SimpleQueueService.NonExistentQueue", code(err))
	var typed *sqstypes.QueueDoesNotExist
	require.ErrorAs(t, err, &typed)

	r, err := a.HTTPClient().Get("https://sns.us-east-1.amazonaws.com/?Action=NoSuch")
	require.NoError(t, err)
	require.Equal(t, http.StatusBadRequest, r.StatusCode)
}

func TestRegionsAndAccountsAreApart(t *testing.T) {
	a := fakeaws.New(t)
	eu := a.In("eu-west-1")
	newQueue(t, eu, "orders")
	other := newQueue(t, a.Account("210987654321"), "orders")
	require.Equal(t, "https://sqs.us-east-1.amazonaws.com/210987654321/orders", other)
	_, err := a.SQS().SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: aws.String("https://sqs.us-east-1.amazonaws.com/123456789012/orders"), MessageBody: aws.String("x")})
	require.Equal(t, "AWS.SimpleQueueService.NonExistentQueue", code(err))
	_, err = a.SQS().SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: aws.String("https://sqs.eu-west-1.amazonaws.com/123456789012/orders"), MessageBody: aws.String("x")})
	require.Equal(t, "InvalidAddress", code(err))
}
