package fanoutaws

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/gofanout/fanout/engine"
)

// topicARN makes the topic or finds it.
func (e *Engine) topicARN(ctx context.Context, name string, fifo bool) (string, error) {
	called := e.names.Topic(name)
	if a, ok := parseARN(called); ok {
		if err := inReach("topic", called, a, "sns", e.sns.Options().Region); err != nil {
			return "", err
		}
		if strings.HasSuffix(a.name, fifoSuffix) != fifo {
			return "", mismatch("topic "+a.name, "being a FIFO topic", !fifo, fifo)
		}
		return called, nil
	}
	called, err := awsName("topic", called, fifo, 256)
	if err != nil {
		return "", err
	}
	if e.existing {
		return e.findTopic(ctx, called)
	}
	in := &sns.CreateTopicInput{Name: aws.String(called)}
	if fifo {
		in.Attributes = map[string]string{"FifoTopic": "true"}
	}
	out, err := e.sns.CreateTopic(ctx, in)
	if err != nil {
		return "", err
	}
	return aws.ToString(out.TopicArn), nil
}

// findTopic looks through the account's topics: there is no request that
// finds one by its name without making it.
func (e *Engine) findTopic(ctx context.Context, called string) (string, error) {
	pages := sns.NewListTopicsPaginator(e.sns, &sns.ListTopicsInput{})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return "", err
		}
		for _, t := range page.Topics {
			if a, ok := parseARN(aws.ToString(t.TopicArn)); ok && a.name == called {
				return aws.ToString(t.TopicArn), nil
			}
		}
	}
	return "", fmt.Errorf("SNS has no topic %s; without WithExisting it would be made, and WithNames can say another, or its ARN", called)
}

const sizeAttribute = "MaximumMessageSize"

// ensureSize returns how large the topic's messages may be. If a size was asked for
// it sees to it that the topic takes as much. A topic says its size only if it isn't the
// default. Who may only publish can't ask for it: for him it is the default.
func (e *Engine) ensureSize(ctx context.Context, topicARN string) (int, error) {
	out, err := e.sns.GetTopicAttributes(ctx, &sns.GetTopicAttributesInput{TopicArn: aws.String(topicARN)})
	switch {
	case err != nil && !e.sized && isDenied(err):
		return e.size, nil
	case err != nil:
		return 0, err
	}
	have := snsDefault
	if n, err := strconv.Atoi(out.Attributes[sizeAttribute]); err == nil {
		have = n
	}
	switch {
	case have >= e.size || !e.sized:
		return min(have, e.size), nil
	case e.existing:
		return 0, mismatch("topic "+topicARN, sizeAttribute, have, e.size)
	}
	_, err = e.sns.SetTopicAttributes(ctx, &sns.SetTopicAttributesInput{
		TopicArn: aws.String(topicARN), AttributeName: aws.String(sizeAttribute), AttributeValue: aws.String(strconv.Itoa(e.size)),
	})
	return e.size, err
}

// A place is an SQS queue that exists.
type place struct {
	url, arn   string
	attributes map[string]string
}

// most is how many bytes a message in the queue may have. A queue that doesn't say
// takes what SQS does.
func (p place) most() int {
	if n, err := strconv.Atoi(p.attributes[sizeAttribute]); err == nil {
		return n
	}
	return sqsMost
}

// ensureSizes sees to it that the queues take messages as large as was asked for, and
// that whatever the queue takes can become a letter.
func (t *topic) ensureSizes(ctx context.Context, source, dead place) error {
	for _, p := range []place{dead, source} { // in this order: else a letter might not fit meanwhile
		switch {
		case !t.e.sized || p.most() >= t.e.size:
			continue
		case t.e.existing:
			return mismatch("queue "+p.arn, sizeAttribute, p.most(), t.e.size)
		}
		size := strconv.Itoa(t.e.size)
		if _, err := t.e.sqs.SetQueueAttributes(ctx, &sqs.SetQueueAttributesInput{
			QueueUrl: aws.String(p.url), Attributes: map[string]string{sizeAttribute: size},
		}); err != nil {
			return err
		}
		p.attributes[sizeAttribute] = size
	}
	if dead.most() < source.most() {
		return mismatch("dead-letter queue "+dead.arn, sizeAttribute, dead.most(), fmt.Sprintf("no less than its queue's, %d", source.most()))
	}
	return nil
}

// findPlace looks a queue up by its name or its ARN.
func (e *Engine) findPlace(ctx context.Context, called string) (place, error) {
	in := &sqs.GetQueueUrlInput{QueueName: aws.String(called)}
	if a, ok := parseARN(called); ok {
		in.QueueName, in.QueueOwnerAWSAccountId = aws.String(a.name), aws.String(a.account)
	}
	out, err := e.sqs.GetQueueUrl(ctx, in)
	if err != nil {
		return place{}, err
	}
	p, err := e.describe(ctx, aws.ToString(out.QueueUrl))
	if _, ok := parseARN(called); ok && err == nil && p.arn != called {
		err = mismatch("queue "+called, "the ARN that SQS gives", p.arn, called)
	}
	return p, err
}

// inReach refuses an ARN of another service or region: requests go to the client's
// region, where there may be something else of that name.
func inReach(what, called string, a arn, service, region string) error {
	switch {
	case a.service != service:
		return mismatch(what+" "+called, "the service", a.service, service)
	case region != "" && a.region != region:
		return mismatch(what+" "+called, "the region", a.region, region+", which the client has")
	}
	return nil
}

func (e *Engine) describe(ctx context.Context, url string) (place, error) {
	out, err := e.sqs.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{
		QueueUrl: aws.String(url), AttributeNames: []sqstypes.QueueAttributeName{sqstypes.QueueAttributeNameAll},
	})
	if err != nil {
		return place{}, err
	}
	return place{url, out.Attributes["QueueArn"], out.Attributes}, nil
}

// ensurePlace makes a queue with the attributes wanted, or finds the one that
// is there. It doesn't compare.
func (e *Engine) ensurePlace(ctx context.Context, called string, want map[string]string) (p place, made bool, err error) {
	p, err = e.findPlace(ctx, called)
	if !isMissing(err) || e.existing {
		return p, false, missing(err, called)
	}
	if _, isARN := parseARN(called); isARN {
		return p, false, missing(err, called)
	}
	out, err := e.createQueue(ctx, called, want)
	var exists *sqstypes.QueueNameExists
	if errors.As(err, &exists) { // somebody made it meanwhile, with other attributes
		p, err = e.findPlace(ctx, called)
		return p, false, err
	}
	if err != nil {
		return p, false, fmt.Errorf("making %s: %w", called, err)
	}
	p, err = e.describe(ctx, aws.ToString(out.QueueUrl))
	return p, true, err
}

// createQueue makes a queue. If another process has just deleted one of that name, it waits
// until SQS makes it.
func (e *Engine) createQueue(ctx context.Context, called string, want map[string]string) (*sqs.CreateQueueOutput, error) {
	for began, said := time.Now(), false; ; {
		out, err := e.sqs.CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: aws.String(called), Attributes: want})
		var recently *sqstypes.QueueDeletedRecently
		switch {
		case said && ctx.Err() != nil:
			return nil, errName(called, ctx.Err())
		case !errors.As(err, &recently):
			return out, err
		case time.Since(began) >= nameTries:
			return nil, errName(called, err)
		}
		if !said {
			e.sayWait(called)
			said = true
		}
		if err := e.pauseForName(ctx, called, namePause); err != nil {
			return nil, err
		}
	}
}

func missing(err error, called string) error {
	if isMissing(err) {
		return fmt.Errorf("SQS has no queue %s; without WithExisting it would be made, and WithNames can say another, or its ARN: %w", called, err)
	}
	return err
}

// sourceName is what a queue is called in SQS, deadName its dead-letter queue:
// names or ARNs.
func (e *Engine) sourceName(topicName, queueName string, fifo bool) (string, error) {
	return e.checkQueueName(e.names.Queue(topicName, queueName), fifo)
}

func (e *Engine) deadName(topicName, queueName string, fifo bool) (string, error) {
	return e.checkQueueName(e.names.DeadLetters(topicName, queueName), fifo)
}

func (e *Engine) checkQueueName(called string, fifo bool) (string, error) {
	a, ok := parseARN(called)
	if !ok {
		return awsName("queue", called, fifo, 80)
	}
	if err := inReach("queue", called, a, "sqs", e.sqs.Options().Region); err != nil {
		return "", err
	}
	switch {
	case strings.HasSuffix(a.name, fifoSuffix) != fifo:
		return "", mismatch("queue "+a.name, "being a FIFO queue", !fifo, fifo)
	}
	return called, nil
}

// findQueues returns a queue and its dead-letter queue, which must exist: the
// one that the redrive policy names, or the one of that name.
func (e *Engine) findQueues(ctx context.Context, topicName, queueName string, fifo bool) (source, dead place, err error) {
	called, err := e.sourceName(topicName, queueName, fifo)
	if err != nil {
		return source, dead, err
	}
	if source, err = e.findPlace(ctx, called); err != nil {
		return source, dead, missing(err, called)
	}
	r, err := parseRedrive(source.attributes[redriveAttribute])
	if err != nil {
		return source, dead, err
	}
	if called = r.Target; called == "" {
		if called, err = e.deadName(topicName, queueName, fifo); err != nil {
			return source, dead, err
		}
	}
	dead, err = e.findPlace(ctx, called)
	return source, dead, missing(err, called)
}

// ensureQueues makes the two queues of spec, or compares them.
func (t *topic) ensureQueues(ctx context.Context, spec engine.QueueSpec) (source, dead place, err error) {
	if t.e.existing {
		if source, dead, err = t.e.findQueues(ctx, t.name, spec.Name, t.fifo); err == nil {
			err = t.compare(ctx, source, dead, spec)
		}
		return source, dead, err
	}
	sourceName, err := t.e.sourceName(t.name, spec.Name, t.fifo)
	if err != nil {
		return source, dead, err
	}
	deadName, err := t.e.deadName(t.name, spec.Name, t.fifo)
	if err != nil {
		return source, dead, err
	}
	if sourceName == deadName {
		return source, dead, fmt.Errorf("the queue and its dead-letter queue are both called %s", sourceName)
	}
	if err := t.e.claim(t.name, spec.Name, sourceName, deadName); err != nil {
		return source, dead, err
	}
	for _, called := range []string{sourceName, deadName} {
		if err := t.e.awaitName(ctx, called); err != nil {
			return source, dead, err
		}
	}
	want := map[string]string{"MessageRetentionPeriod": wholeSeconds(deadRetention)}
	if t.fifo {
		want["FifoQueue"] = "true"
	}
	if dead, _, err = t.e.ensurePlace(ctx, deadName, want); err != nil {
		return source, dead, err
	}
	// The policy is there when the queue begins to exist: a policy that is set
	// later takes SQS up to a minute, in which SNS's messages would be lost.
	if want, err = t.sourceAttributes(sourceName, dead, spec); err != nil {
		return source, dead, err
	}
	source, made, err := t.e.ensurePlace(ctx, sourceName, want)
	if err == nil && !made {
		err = t.compare(ctx, source, dead, spec)
	}
	return source, dead, err
}

// sourceAttributes are those that a queue is made with.
func (t *topic) sourceAttributes(called string, dead place, spec engine.QueueSpec) (map[string]string, error) {
	sourceARN := called
	if _, ok := parseARN(called); !ok {
		a, ok := parseARN(dead.arn)
		if !ok {
			return nil, fmt.Errorf("SQS says that the ARN of %s is %q", dead.url, dead.arn)
		}
		a.name = called
		sourceARN = a.String()
	}
	want := map[string]string{
		// Requests say how long they wait, but other readers may not.
		"ReceiveMessageWaitTimeSeconds": "20",
		"Policy":                        newQueuePolicy(sourceARN, t.arn),
	}
	if spec.Visibility > 0 {
		want["VisibilityTimeout"] = wholeSeconds(spec.Visibility)
	}
	if t.e.retention > 0 {
		want["MessageRetentionPeriod"] = wholeSeconds(t.e.retention)
	}
	if needsNet(spec) {
		want[redriveAttribute] = newRedrive(dead.arn)
	}
	if t.fifo {
		want["FifoQueue"] = "true"
		// SNS hands its deduplication IDs on, so this decides nothing there; some
		// emulators want it.
		want["ContentBasedDeduplication"] = "true"
	}
	return want, nil
}

// wholeSeconds writes d as SQS wants it, rounded up.
func wholeSeconds(d time.Duration) string { return strconv.Itoa(int(seconds(d))) }

// seconds rounds d up, as a lease or a wait must not be shorter than asked.
func seconds(d time.Duration) int32 { return int32((d + time.Second - 1) / time.Second) }
