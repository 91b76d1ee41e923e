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
			Note: "SQS counts whole seconds, and hides a message for 12 hours from its receipt at most, extensions included"},
		engine.MessageDelay: {Kept: true, Most: delayMost,
			Note: "SNS has no delays: the consumer that receives the message hides it until it is due; " +
				"if it should wait for longer than 15 minutes, publish it later"},
		engine.QueueDelay: {Kept: true, Most: delayMost,
			Note: "works like the delay of a message; a queue that was made with DelaySeconds delays by at least that; " +
				"if messages should wait for longer, have the handler return fanout.Snooze"},
		engine.RetryDelay: {Kept: true, Most: visibleMost,
			Note: "SQS counts whole seconds; a wait ends 12 hours after the receipt at the latest"},
		engine.AllOrNone: {Note: "SNS takes ten messages a request, and may refuse some of them: PublishError names those to publish again"},
		engine.Bounded:   {Note: "SQS takes messages without limit: watch Depth, and set an alarm on ApproximateAgeOfOldestMessage"},
		engine.Ordering: {Kept: true,
			Note: "by a FIFO topic and FIFO queues, with the key as message group; each request receives one message"},
		engine.Deduplication: {Kept: true, Most: dedupWindow,
			Note: "by a FIFO topic; the window is always 5 minutes"},
		engine.FilterPolicy: {Kept: true,
			Note: "SNS applies the policy of the subscription; numbers need WithNumberAttributes; " +
				"SNS may take 15 minutes to apply a change"},
		engine.State: {Note: "SQS stores nothing beside a message: a dead letter has the history of the process that gave it up, " +
			"and attempts are counted by SQS's receives"},
		engine.Fencing: {Note: "a standard queue accepts a late settlement from another process, a FIFO queue refuses it: " +
			"choose a visibility timeout that is long enough for the handlers, or WithAutoExtend"},
		engine.ExactStats:  {Note: "SQS's counts are approximate and about a minute old"},
		engine.Durable:     {Kept: true, Note: "messages for 4 days, or as WithRetention says, and dead letters for 14"},
		engine.Distributed: {Kept: true},
		engine.Listing:     {Kept: true, Note: "lists the queues that are subscribed to the topic"},
		engine.Deletion: {Kept: true,
			Note: "SQS makes no queue of the same name for 60 seconds, so opening it again waits"},
	}
	if e != nil && e.existing {
		caps[engine.Deletion] = engine.Support{Note: "WithExisting deletes nothing: delete the queue with the tool that made it"}
	}
	return caps
}

// OpenTopic makes the SNS topic, or finds it.
func (e *Engine) OpenTopic(ctx context.Context, spec engine.TopicSpec) (engine.Topic, error) {
	if spec.Deduplication != 0 && spec.Deduplication != dedupWindow {
		return nil, fmt.Errorf("fanoutaws: topic %q: a deduplication window of %v: SNS's is always 5 minutes",
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
