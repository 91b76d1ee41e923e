package fanoutaws

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/gofanout/fanout/engine"
)

// An Engine keeps topics on SNS and queues on SQS. Make one by [New] and give it
// to fanout.WithEngine; it serves any number of topics. It owns no goroutine and
// needs no Close.
type Engine struct {
	sns *sns.Client
	sqs *sqs.Client
	settings

	mu      sync.Mutex           // guards the fields below
	used    map[string]string    // SQS queues, and whose they are
	deleted map[string]time.Time // when queues were deleted here, by their names in SQS
}

var _ engine.Engine = (*Engine)(nil)

// New returns an engine that works with the clients given: their region,
// credentials, endpoint and retries. It does no I/O. Requests that fail are
// retried as the clients are configured to, and no more.
func New(topics *sns.Client, queues *sqs.Client, options ...Option) (*Engine, error) {
	if topics == nil || queues == nil {
		return nil, errors.New("fanoutaws: New needs a client of SNS and one of SQS")
	}
	e := &Engine{sns: topics, sqs: queues, settings: defaults(), used: make(map[string]string), deleted: make(map[string]time.Time)}
	for _, o := range options {
		if err := o.apply(&e.settings); err != nil {
			return nil, err
		}
	}
	return e, nil
}

// Name returns "Amazon SNS + SQS".
func (e *Engine) Name() string { return "Amazon SNS + SQS" }

// Capabilities says what SNS and SQS keep.
func (e *Engine) Capabilities() engine.Capabilities {
	caps := engine.Capabilities{
		engine.Visibility: {Kept: true, Most: visibleMost,
			Note: "SQS's visibility timeout, in whole seconds; 12 hours from the receipt in all, extensions included"},
		engine.MessageDelay: {Kept: true, Most: delayMost,
			Note: "SNS has none: the receiver hides the message until it is due; for later than 15 minutes publish it when it is due"},
		engine.QueueDelay: {Kept: true, Most: delayMost,
			Note: "as a message's; a queue that was made with DelaySeconds has that as its shortest; for more, return the message with a wait"},
		engine.RetryDelay: {Kept: true, Most: visibleMost,
			Note: "ChangeMessageVisibility, in whole seconds; a wait is cut to what is left of 12 hours from the receipt"},
		engine.AllOrNone: {Note: "SNS takes batches of ten and may take them in part: publish again those that PublishError names"},
		engine.Bounded:   {Note: "SQS never refuses for want of room: watch Depth, and alarm on ApproximateAgeOfOldestMessage"},
		engine.Ordering: {Kept: true,
			Note: "a FIFO topic and FIFO queues, the key is the message group; a queue hands out one message a request"},
		engine.Deduplication: {Kept: true, Most: dedupWindow,
			Note: "a FIFO topic; its window is 5 minutes, neither less nor more"},
		engine.FilterPolicy: {Kept: true,
			Note: "the subscription's filter policy; numbers need WithNumberAttributes; a change takes SNS up to 15 minutes"},
		engine.State: {Note: "SQS can't change a message that it keeps: a history is in the process until the message is dead, " +
			"attempts are counted by SQS's receives"},
		engine.Fencing: {Note: "standard queues let a late settlement of another process through, FIFO queues refuse it: " +
			"give handlers a visibility timeout that they keep, or WithAutoExtend"},
		engine.ExactStats:  {Note: "SQS's counts are approximate, and about a minute old"},
		engine.Durable:     {Kept: true, Note: "for 4 days unless WithRetention says otherwise, letters for 14"},
		engine.Distributed: {Kept: true},
		engine.Listing:     {Kept: true, Note: "the queues that are subscribed to the topic"},
		engine.Deletion: {Kept: true,
			Note: "SQS makes no queue of that name for 60 seconds: opening it again waits"},
	}
	if e != nil && e.existing {
		caps[engine.Deletion] = engine.Support{Note: "WithExisting deletes nothing: delete the queue with what made it"}
	}
	return caps
}

// OpenTopic makes the SNS topic, or finds it.
func (e *Engine) OpenTopic(ctx context.Context, spec engine.TopicSpec) (engine.Topic, error) {
	if spec.Deduplication != 0 && spec.Deduplication != dedupWindow {
		return nil, fmt.Errorf("fanoutaws: topic %q: a window of deduplication of %v: SNS's is 5 minutes, neither less nor more",
			spec.Name, spec.Deduplication)
	}
	fifo := spec.Ordering || spec.Deduplication != 0
	topicARN, err := e.topicARN(ctx, spec.Name, fifo)
	if err != nil {
		return nil, fmt.Errorf("fanoutaws: topic %q: %w", spec.Name, err)
	}
	size, err := e.ensureSize(ctx, topicARN)
	if err != nil {
		return nil, fmt.Errorf("fanoutaws: topic %q: %w", spec.Name, err)
	}
	return &topic{e: e, name: spec.Name, arn: topicARN, fifo: fifo, size: size, filters: newFilters()}, nil
}

// claim refuses queues that would share an SQS queue: names are put together,
// so that different ones can come out alike. Of other processes it knows
// nothing; there the queue's policy tells topics apart. source and dead are
// names or ARNs.
func (e *Engine) claim(topic, queue, source, dead string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	ours, letters := claimants(topic, queue)
	if other := e.used[source]; other != "" && other != ours {
		return fmt.Errorf("%s is %s already; WithNames can say another name", source, other)
	}
	if other := e.used[dead]; other != "" && other != letters {
		return fmt.Errorf("%s is %s already; WithNames can say another name", dead, other)
	}
	e.used[source], e.used[dead] = ours, letters
	return nil
}

// claimants are whose a queue and its dead-letter queue are, in words.
func claimants(topic, queue string) (ours, letters string) {
	ours = fmt.Sprintf("queue %q of topic %q", queue, topic)
	return ours, "the dead letters of " + ours
}
