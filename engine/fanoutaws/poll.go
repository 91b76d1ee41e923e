package fanoutaws

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/gofanout/fanout/engine"
)

// A poll asks SQS for messages on behalf of a Receive. It outlives one whose
// context ends: breaking off the request could lose messages that SQS hands
// out in that instant, until their lease ends. So the next Receive adopts it;
// and what it gets while nobody waits, it makes visible again.
type poll struct {
	q     *queue
	most  int
	lease time.Duration

	out chan polled // one result, sent by run, if a Receive waits
}

type polled struct {
	messages []engine.Received
	err      error
}

// Receive asks for up to ten messages a request, and of a FIFO queue for one:
// SQS would give out several of one key.
func (q *queue) Receive(ctx context.Context, most int, lease time.Duration) ([]engine.Received, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if lease > visibleMost {
		return nil, q.wrap("receive", fmt.Errorf("a lease of %v: SQS takes 12 hours", lease))
	}
	if most = min(most, batchMost); q.fifo {
		most = min(most, 1)
	}
	if lease <= 0 {
		lease = q.visibility
	}
	p := q.adopt(most, lease)
	if p == nil {
		return nil, engine.ErrClosed
	}
	return p.await(ctx)
}

// await waits for p's result, which is given back if the queue has been closed.
func (p *poll) await(ctx context.Context) ([]engine.Received, error) {
	var r polled
	answered := false
	select {
	case r = <-p.out:
		answered = true
	case <-ctx.Done():
	case <-p.q.ctx.Done():
	}
	if !answered && !p.q.abandon(p) {
		r, answered = <-p.out, true
	}
	switch {
	case p.q.ctx.Err() != nil:
		soon, cancel := context.WithTimeout(context.Background(), closeMost)
		defer cancel()
		p.release(soon, r.messages)
		return nil, engine.ErrClosed
	case answered && (len(r.messages) > 0 || ctx.Err() == nil):
		return r.messages, r.err
	}
	return nil, ctx.Err()
}

// adopt returns a poll that nobody waits for, or starts one; nil after Close.
func (q *queue) adopt(most int, lease time.Duration) *poll {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return nil
	}
	for k, p := range q.orphans {
		if p.most <= most && p.lease == lease {
			q.orphans = slices.Delete(q.orphans, k, k+1)
			return p
		}
	}
	p := &poll{q: q, most: most, lease: lease, out: make(chan polled, 1)}
	q.startLocked(p.run)
	return p
}

// abandon leaves p to the next Receive. It reports false if p's result is there.
func (q *queue) abandon(p *poll) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(p.out) > 0 {
		return false
	}
	if !q.closed {
		q.orphans = append(q.orphans, p)
	}
	return true
}

// deliver hands r to the Receive that waits for p, and reports false if there is none.
func (p *poll) deliver(r polled) bool {
	p.q.mu.Lock()
	defer p.q.mu.Unlock()
	if k := slices.Index(p.q.orphans, p); k >= 0 {
		p.q.orphans = slices.Delete(p.q.orphans, k, k+1)
		return false
	}
	if p.q.closed {
		return false
	}
	p.out <- r // has room: it is sent once
	return true
}

// waited reports if a Receive waits for p, and else ends p.
func (p *poll) waited() bool {
	p.q.mu.Lock()
	defer p.q.mu.Unlock()
	if k := slices.Index(p.q.orphans, p); k >= 0 {
		p.q.orphans = slices.Delete(p.q.orphans, k, k+1)
		return false
	}
	return !p.q.closed
}

// run asks until there are messages or an error, and as long as somebody
// waits. Started by Receive; ends with an answer, an abandoned request or within
// closeMost of Close; joined by the queue's end.
func (p *poll) run() {
	for {
		messages, err := p.request()
		if len(messages) == 0 && err == nil {
			if !p.waited() {
				return
			}
			continue
		}
		if !p.deliver(polled{messages, err}) {
			p.release(p.q.polls, messages)
		}
		return
	}
}

// request asks once, and returns the messages that are due.
func (p *poll) request() ([]engine.Received, error) {
	// More than the long poll takes, so that a connection that died in silence
	// doesn't stop a queue.
	ctx, cancel := context.WithTimeout(p.q.polls, p.q.settings.poll+requestMost)
	defer cancel()
	out, err := p.q.sqs.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{
		QueueUrl:                    aws.String(p.q.place.url),
		MaxNumberOfMessages:         int32(p.most),
		WaitTimeSeconds:             seconds(p.q.settings.poll),
		VisibilityTimeout:           seconds(p.lease), // 0 is not sent: the queue's own
		MessageAttributeNames:       []string{"All"},
		MessageSystemAttributeNames: []sqstypes.MessageSystemAttributeName{sqstypes.MessageSystemAttributeNameAll},
	})
	switch {
	case isMissing(err):
		return nil, fmt.Errorf("fanoutaws: %s: receive: %w: %w", p.q.place.arn, engine.ErrClosed, err)
	case err != nil:
		return nil, p.q.wrap("receive", err)
	}
	received := time.Now()
	messages := make([]engine.Received, 0, len(out.Messages))
	early := make(map[string]int32) // handle: seconds to hide it for
	for _, m := range out.Messages {
		r := &receipt{handle: aws.ToString(m.ReceiptHandle), messageID: aws.ToString(m.MessageId), received: received}
		r.ends.Store(int64(p.lasts()))
		e, wait := p.q.read(m, received, p.q.delay)
		if wait > 0 {
			early[r.handle] = seconds(wait)
			continue
		}
		e.Receipt = r
		messages = append(messages, e)
	}
	p.hide(p.q.polls, early)
	return messages, nil
}

// lasts is how long a lease does. It is SQS's default if nobody has said.
func (p *poll) lasts() time.Duration {
	if p.lease > 0 {
		return time.Duration(seconds(p.lease)) * time.Second
	}
	if n, err := strconv.Atoi(p.q.place.attributes["VisibilityTimeout"]); err == nil {
		return time.Duration(n) * time.Second
	}
	return 30 * time.Second
}

// read makes of m what fanout gets, and how long it must stay hidden before. What SNS
// itself wants of the queue's owner is nobody's message: it is logged, and hidden until
// its retention ends it. A message that can't be read is given out as it is: fanout's codec will
// refuse it, and it comes to the dead letters.
func (q *queue) read(m sqstypes.Message, now time.Time, delay time.Duration) (engine.Received, time.Duration) {
	attributes := make(map[string]attribute, len(m.MessageAttributes))
	for name, a := range m.MessageAttributes {
		value := aws.ToString(a.StringValue)
		if a.BinaryValue != nil {
			value = string(a.BinaryValue)
		}
		attributes[name] = attribute{aws.ToString(a.DataType), value}
	}
	_, ours := attributes[packName]
	if e, ok := isConfirmation(aws.ToString(m.Body), ours); ok {
		q.settings.log().Warn("fanoutaws: SNS asks the queue's owner to confirm a subscription", "queue", q.place.arn,
			"type", e.Type, "topic", e.TopicARN, "visit", e.SubscribeURL, "messageId", aws.ToString(m.MessageId))
		return engine.Received{}, visibleMost - time.Minute
	}
	d, err := decode(aws.ToString(m.Body), attributes, engine.Message{
		ID: aws.ToString(m.MessageId), PublishedAt: milliseconds(m.Attributes["SentTimestamp"]),
	})
	if err != nil {
		q.settings.log().Warn("fanoutaws: a message can't be read", "queue", q.place.arn, "messageId", aws.ToString(m.MessageId), "error", err)
	}
	if d.moved == movedDead && q.source == nil {
		d.State = nil // see pack.Moved
	}
	due := q.due(d, milliseconds(m.Attributes["SentTimestamp"]), delay)
	count, _ := strconv.Atoi(m.Attributes["ApproximateReceiveCount"])
	if milliseconds(m.Attributes["ApproximateFirstReceiveTimestamp"]).Before(due) {
		count-- // when it was hidden
	}
	q.mu.Lock()
	count -= q.unmade[aws.ToString(m.MessageId)]
	q.mu.Unlock()
	return engine.Received{Message: d.Message, Deliveries: max(1, count)}, due.Sub(now)
}

// due is when a message may be given out: after its own delay, or else after
// delay, the queue's. It counts from when SQS got it: PublishedAt is what the publisher
// says.
func (q *queue) due(d decoded, sent time.Time, delay time.Duration) time.Time {
	switch {
	case d.moved != "" || q.source != nil:
		return time.Time{}
	case d.Delay > 0:
		return sent.Add(d.Delay)
	case delay > 0:
		return sent.Add(delay)
	}
	return time.Time{}
}

// milliseconds reads a time of SQS; the zero Time if there is none.
func milliseconds(text string) time.Time {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return time.Time{}
	}
	return time.UnixMilli(n).UTC()
}

// hide puts off messages that are not due. One that can't be put off comes
// again when its lease ends, and is tried again then.
func (p *poll) hide(ctx context.Context, handles map[string]int32) {
	ctx, cancel := context.WithTimeout(ctx, requestMost)
	defer cancel()
	ss := make([]*settlement, 0, len(handles))
	for handle, wait := range handles {
		ss = append(ss, &settlement{handle: handle, seconds: wait})
	}
	if len(ss) > 0 {
		_ = p.q.changeBatch(ctx, ss)
	}
}

// unmadeMost bounds what a queue remembers of released messages. One that it
// forgets, or that another process gets, has one delivery too many.
const unmadeMost = 1000

// release makes messages visible that nobody waits for. SQS has counted a
// receive; this process takes it off again.
func (p *poll) release(ctx context.Context, messages []engine.Received) {
	handles := make(map[string]int32, len(messages))
	p.q.mu.Lock()
	if p.q.unmade == nil || len(p.q.unmade) > unmadeMost {
		p.q.unmade = make(map[string]int)
	}
	for _, m := range messages {
		r := m.Receipt.(*receipt)
		handles[r.handle] = 0
		p.q.unmade[r.messageID]++
	}
	p.q.mu.Unlock()
	p.hide(ctx, handles)
}
