// A test of a program on the plain AWS SDK.
//
// go get github.com/gofanout/fanout/fanouttest/fakeaws
package outside

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/gofanout/fanout/fanouttest/fakeaws"
)

func TestALongPollEndsAfterTwentySeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := fakeaws.New(t)
		q, err := a.SQS().CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: aws.String("orders")})
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if _, err := a.SQS().ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: q.QueueUrl, WaitTimeSeconds: 20}); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took != 20*time.Second {
			t.Fatal(took)
		}
	})
}
