package fakeaws_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/fanouttest/fakeaws"
)

// TestTheSDKDoesNotTryAgainAfterClose: a long poll ends at once, and so does what comes later.
func TestTheSDKDoesNotTryAgainAfterClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := fakeaws.New(t)
		q, err := a.SQS().CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: aws.String("orders")})
		require.NoError(t, err)
		ended := make(chan error)
		receive := func() error {
			_, err := a.SQS().ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: q.QueueUrl, WaitTimeSeconds: 20})
			return err
		}
		go func() { ended <- receive() }()
		synctest.Wait()
		closed := time.Now()
		a.Close()
		require.ErrorContains(t, <-ended, "fakeaws: closed")
		require.ErrorContains(t, receive(), "fakeaws: closed")
		_, err = a.SNS().ListTopics(t.Context(), &sns.ListTopicsInput{})
		require.ErrorContains(t, err, "fakeaws: closed")
		require.Zero(t, time.Since(closed))
	})
}
