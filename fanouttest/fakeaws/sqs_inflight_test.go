package fakeaws

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A long poll that ends as it is given messages returns them: nothing is lost.
func TestALongPollThatEndsAsItIsServedReturnsItsMessages(t *testing.T) {
	for range 100 {
		synctest.Test(t, func(t *testing.T) {
			a := New(t)
			url := "q"
			ctx, cancel := context.WithCancel(t.Context())
			c := &call{cloud: a.cloud, place: place{DefaultAccount, DefaultRegion}, ctx: ctx}
			_, err := c.createQueue(&createQueueInput{QueueName: &url})
			require.NoError(t, err)
			got := make(chan int)
			go func() {
				out, err := c.receiveMessage(&receiveMessageInput{QueueUrl: &url, WaitTimeSeconds: ptr[int32](20)})
				n := 0
				if err == nil {
					n = len(out.Messages)
				}
				got <- n
			}()
			synctest.Wait()
			a.cloud.mu.Lock()
			cancel()
			for range 20 {
				runtime.Gosched() // the poll wakes, and waits for the lock
			}
			q := a.cloud.regions[c.place].queues[url]
			c.sendLocked(q, content{body: "m"}, 0)
			q.serveLocked(a.cloud.clock())
			a.cloud.mu.Unlock()
			n := <-got
			visible := a.Queue(url).Messages()[0].State == Visible
			require.True(t, n == 1 && !visible, "%d received, visible %t", n, visible)
		})
	}
}

// Subject: 120,000 in flight: a short poll of a standard queue gets OverLimit,
// one of a FIFO queue nothing, and a long poll waits.
func TestOneHundredAndTwentyThousandCanBeInFlight(t *testing.T) {
	for _, fifo := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			a := New(t)
			c := func() *call {
				return &call{cloud: a.cloud, place: place{DefaultAccount, DefaultRegion}, ctx: context.Background(), now: time.Now()}
			}
			url := "q"
			attributes := map[string]string{"VisibilityTimeout": "600"}
			if fifo {
				url, attributes["FifoQueue"] = "q.fifo", "true"
			}
			_, err := c().createQueue(&createQueueInput{QueueName: &url, Attributes: attributes})
			require.NoError(t, err)
			for k := range 12_001 {
				in := &sendMessageBatchInput{QueueUrl: &url}
				for j := range 10 {
					e := sendMessageBatchEntry{Id: ptr(fmt.Sprint(j)), MessageBody: ptr("m")}
					if fifo {
						e.MessageGroupId = ptr(fmt.Sprintf("%d-%d", k, j))
						e.MessageDeduplicationId = e.MessageGroupId
					}
					in.Entries = append(in.Entries, e)
				}
				out, err := c().sendMessageBatch(in)
				require.NoError(t, err)
				require.Empty(t, out.Failed)
			}
			receive := func(wait int32) ([]receivedMessage, error) {
				out, err := c().receiveMessage(&receiveMessageInput{QueueUrl: &url, MaxNumberOfMessages: ptr[int32](10), WaitTimeSeconds: &wait})
				if err != nil {
					return nil, err
				}
				return out.Messages, nil
			}
			var last []receivedMessage
			for range 12_000 {
				last, err = receive(0)
				require.NoError(t, err)
				require.Len(t, last, 10)
			}
			none, err := receive(0)
			if e, ok := asAPIError(err); ok != !fifo || ok && e.shape != "OverLimit" {
				t.Fatalf("a short poll: %v", err)
			}
			require.Empty(t, none)
			began := time.Now()
			none, err = receive(3)
			require.NoError(t, err)
			require.Empty(t, none)
			require.Equal(t, 3*time.Second, time.Since(began))
			_, err = c().deleteMessage(&deleteMessageInput{QueueUrl: &url, ReceiptHandle: &last[0].ReceiptHandle})
			require.NoError(t, err)
			one, err := receive(0)
			require.NoError(t, err)
			require.Len(t, one, 1, "there is room for one")
		})
	}
}
