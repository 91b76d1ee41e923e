package fanoutaws

import (
	"fmt"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/fanouttest/fakeaws"
)

// listed returns the topic's queues, in words.
func listed(t *testing.T, top *topic) (all []string) {
	t.Helper()
	infos, err := top.ListQueues(t.Context())
	require.NoError(t, err)
	for _, i := range infos {
		all = append(all, fmt.Sprintf("%s: %d %d %d, dead %d", i.Name, i.Stats.Ready, i.Stats.Delayed, i.Stats.InFlight, i.Letters.Sum()))
	}
	return all
}

// subscribe subscribes a queue of somebody else.
func subscribe(t *testing.T, top *topic, queueARN string) {
	t.Helper()
	_, err := top.e.sns.Subscribe(t.Context(), &sns.SubscribeInput{TopicArn: &top.arn, Protocol: ptr("sqs"), Endpoint: &queueARN})
	require.NoError(t, err)
}

// TestListQueues: those that nobody has open, and those of others, each with its letters.
func TestListQueues(t *testing.T) {
	for name, ordering := range map[string]bool{"standard": false, "FIFO": true} {
		t.Run(name, func(t *testing.T) {
			inFake(t, func(t *testing.T) {
				spec := engine.TopicSpec{Name: "p", Ordering: ordering}
				top := newTopic(t, newEngine(t), spec)
				require.Empty(t, listed(t, top), "a topic without queues has none")
				q := holdingThree(t, top, "q")
				later := openQueue(t, top, engine.QueueSpec{Name: "a-b", MaxAttempts: 2000}) // too many for a redrive policy
				publish(t, top, message("4", "4"))
				if !ordering {
					theirs := createQueue(t, top.e, "theirs", map[string]string{"DelaySeconds": "0"})
					subscribe(t, top, theirs.arn)
				}
				require.NoError(t, q.Close())
				require.NoError(t, later.Close())
				want := []string{"a-b: 1 0 0, dead 0", "q: 2 0 1, dead 1"}
				if !ordering {
					want = append(want, "theirs: 0 0 0, dead 0")
				}
				require.Equal(t, want, listed(t, top))
				require.Equal(t, want, listed(t, newTopic(t, newEngine(t), spec)), "in another process")
				require.NoError(t, top.Close())
				_, err := top.ListQueues(t.Context())
				require.ErrorIs(t, err, engine.ErrClosed)
			})
		})
	}
}

// TestListQueuesGoesThroughAllPages: SNS lists a hundred subscriptions a page.
func TestListQueuesGoesThroughAllPages(t *testing.T) {
	inFake(t, func(t *testing.T) {
		top := newTopic(t, newEngine(t), engine.TopicSpec{Name: "p"})
		var want []string
		for k := range 230 {
			subscribe(t, top, createQueue(t, top.e, fmt.Sprintf("p-%03d", k), nil).arn)
			want = append(want, fmt.Sprintf("%03d: 0 0 0, dead 0", k))
		}
		require.Equal(t, want, listed(t, top))
	})
}

// TestListQueuesByOtherNames: what a queue is called is found by WithNames, if that can be.
func TestListQueuesByOtherNames(t *testing.T) {
	arnOf := func(name string) string {
		return "arn:aws:sqs:" + fakeaws.DefaultRegion + ":" + fakeaws.DefaultAccount + ":" + name
	}
	for name, c := range map[string]struct {
		queue   func(topic, queue string) string
		called  string // the SQS queue of "inventory"
		unknown string // to a process that has not opened it, if it can't be found
	}{
		"prefix and suffix": {func(_, q string) string { return "prod-" + q + "-v1" }, "prod-inventory-v1", "inventory"},
		"ARNs":              {func(_, q string) string { return arnOf("x-" + q) }, "x-inventory", "inventory"},
		"a table":           {func(_, q string) string { return map[string]string{"inventory": "q17"}[q] }, "q17", "q17"},
		"no inverse":        {func(_, q string) string { return strings.ToUpper(q) }, "INVENTORY", "INVENTORY"},
	} {
		t.Run(name, func(t *testing.T) {
			inFake(t, func(t *testing.T) {
				names := WithNames(Names{Queue: c.queue})
				e := newEngine(t, names)
				if name == "ARNs" {
					createQueue(t, e, c.called, nil)
				}
				top := newTopic(t, e, engine.TopicSpec{Name: "p"})
				openQueue(t, top, engine.QueueSpec{Name: "inventory"})
				require.Equal(t, []string{"inventory: 0 0 0, dead 0"}, listed(t, top))
				require.Equal(t, []string{c.unknown + ": 0 0 0, dead 0"}, listed(t, newTopic(t, newEngine(t, names), engine.TopicSpec{Name: "p"})))
			})
		})
	}
}

// TestListQueuesSaysWhatItMayNotSee: and leaves out queues of which only subscriptions are left.
func TestListQueuesSaysWhatItMayNotSee(t *testing.T) {
	inFake(t, func(t *testing.T) {
		top := newTopic(t, newEngine(t), engine.TopicSpec{Name: "p"})
		q := holdingThree(t, top, "q")
		openQueue(t, top, engine.QueueSpec{Name: "gone"})
		url := fakeOf(t).Queue("p-gone").URL()
		_, err := top.e.sqs.DeleteQueue(t.Context(), &sqs.DeleteQueueInput{QueueUrl: &url})
		require.NoError(t, err)
		require.Equal(t, []string{"q: 1 0 1, dead 1"}, listed(t, top))
		fakeOf(t).Inject(fakeaws.Fault{Operation: "GetQueueAttributes", Resource: "p-q", Error: &fakeaws.AccessDenied})
		require.Equal(t, []string{"q: -1 -1 -1, dead 1"}, listed(t, top))
		fakeOf(t).Inject(fakeaws.Fault{Operation: "GetQueueAttributes", Error: &fakeaws.Error{Code: "InvalidAddress"}})
		_, err = top.ListQueues(t.Context())
		require.ErrorContains(t, err, "InvalidAddress")
		require.ErrorContains(t, err, `topic "p"`)
		require.NoError(t, q.Close())
		_, _, err = q.Delete(t.Context())
		require.NoError(t, err)
		require.Empty(t, listed(t, top))
	})
}
