package fanoutaws

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/gofanout/fanout/engine"
)

// An invocation is one call of a function: an engine whose one topic has one
// queue, which holds the messages of the event. So fanout's own machinery runs
// over them, and what it does becomes Lambda's answer:
//
//   - an acknowledged message is not among the failures: Lambda deletes it
//   - a returned one is made visible after its wait, and is a failure
//   - a dead letter is sent and deleted here, and is no failure
//   - one that nobody came to is a failure
//
// Of a FIFO queue the messages are given out one after the other, and none
// after the first failure.
//
// Invariants:
//   - a record is waiting, out, done or failed, and never goes back;
//   - finished is closed when none is waiting or out.
type invocation struct {
	q       *queue // the event source: all but receiving and acknowledging is its
	records []SQSRecord

	mu     sync.Mutex // guards the fields below
	states []recordState
	open   int // waiting or out
	opened bool
	delay  time.Duration // of messages that have none of their own
	closed bool

	changed  chan struct{} // has a token when a Receive may find something; sent by all
	ended    chan struct{} // closed by Close
	finished chan struct{} // closed by settle
}

type recordState uint8

const (
	waiting recordState = iota
	out
	done
	failed
)

func newInvocation(q *queue, records []SQSRecord) *invocation {
	return &invocation{
		q: q, records: records, states: make([]recordState, len(records)), open: len(records),
		changed: make(chan struct{}, 1), ended: make(chan struct{}), finished: make(chan struct{}),
	}
}

// end says what is not done, and refuses what comes after.
func (i *invocation) end() SQSResponse {
	_ = i.Close()
	i.mu.Lock()
	defer i.mu.Unlock()
	r := SQSResponse{BatchItemFailures: []SQSItemFailure{}}
	for k, s := range i.states {
		if s != done {
			r.BatchItemFailures = append(r.BatchItemFailures, SQSItemFailure{i.records[k].MessageID})
		}
	}
	return r
}

// An eventReceipt is the lease of a record.
type eventReceipt struct {
	receipt
	k int
}

// Name says what it is.
func (i *invocation) Name() string { return "Amazon SQS by Lambda" }

// Capabilities are those of the engine, but that nothing can be published.
func (i *invocation) Capabilities() engine.Capabilities {
	caps := maps.Clone((*Engine)(nil).Capabilities())
	note := "a function only receives: publish to a topic made with fanoutaws.New"
	for _, f := range []engine.Feature{engine.AllOrNone, engine.Bounded, engine.Deduplication, engine.FilterPolicy, engine.MessageDelay} {
		caps[f] = engine.Support{Note: note}
	}
	caps[engine.Listing] = engine.Support{Note: "a function has one queue, its event source"}
	caps[engine.Deletion] = engine.Support{Note: "a function doesn't delete its event source"}
	return caps
}

// OpenTopic returns the invocation.
func (i *invocation) OpenTopic(context.Context, engine.TopicSpec) (engine.Topic, error) {
	return eventTopic{i}, nil
}

// An eventTopic is an invocation as a topic.
type eventTopic struct{ i *invocation }

func (t eventTopic) Publish(context.Context, []engine.Message) error {
	return errors.New("fanoutaws: a function's topic only receives: publish to a topic made with fanoutaws.New")
}

func (t eventTopic) OpenQueue(_ context.Context, spec engine.QueueSpec) (engine.Queue, error) {
	t.i.mu.Lock()
	defer t.i.mu.Unlock()
	if t.i.opened {
		return nil, fmt.Errorf("fanoutaws: queue %q: a function has one queue, its event source", spec.Name)
	}
	t.i.opened, t.i.delay = true, spec.Delay
	return t.i, nil
}

func (t eventTopic) Close() error { return nil }

// Receive gives out records, and waits for its end when there are none.
func (i *invocation) Receive(ctx context.Context, most int, _ time.Duration) ([]engine.Received, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		ks, err := i.take(most)
		if err != nil {
			return nil, err
		}
		rs := make([]engine.Received, 0, len(ks))
		for _, k := range ks {
			r, wait := i.read(k)
			if wait > 0 {
				// It is not due: as any that failed, but before its time.
				_ = i.Return(ctx, r.Receipt, wait, nil)
				continue
			}
			rs = append(rs, r)
		}
		if len(rs) > 0 {
			return rs, nil
		}
		select {
		case <-i.changed:
		case <-i.ended:
		case <-ctx.Done():
		}
	}
}

// take takes up to most records that wait; of a FIFO queue one, and none while
// one is out.
func (i *invocation) take(most int) (ks []int, err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.closed {
		return nil, engine.ErrClosed
	}
	for k, s := range i.states {
		if i.q.fifo && s == out {
			break
		}
		if s != waiting || len(ks) == most {
			continue
		}
		i.states[k] = out
		if ks = append(ks, k); i.q.fifo {
			break
		}
	}
	return ks, nil
}

func (i *invocation) read(k int) (engine.Received, time.Duration) {
	rec := i.records[k]
	m := sqstypes.Message{
		MessageId: aws.String(rec.MessageID), ReceiptHandle: aws.String(rec.ReceiptHandle), Body: aws.String(rec.Body),
		Attributes: rec.Attributes, MessageAttributes: make(map[string]sqstypes.MessageAttributeValue, len(rec.MessageAttributes)),
	}
	for name, a := range rec.MessageAttributes {
		m.MessageAttributes[name] = sqstypes.MessageAttributeValue{DataType: aws.String(a.DataType), StringValue: a.StringValue, BinaryValue: a.BinaryValue}
	}
	now := time.Now()
	i.mu.Lock()
	delay := i.delay
	i.mu.Unlock()
	received, wait := i.q.read(m, now, delay)
	r := &eventReceipt{k: k}
	r.handle, r.messageID, r.received = rec.ReceiptHandle, rec.MessageID, now
	r.ends.Store(int64(visibleMost)) // hidden for as long as the function may run
	received.Receipt = r
	return received, wait
}

// settle ends a record, and everything if a FIFO queue's has failed. It reports
// false if it comes too late.
func (i *invocation) settle(r engine.Receipt, s recordState) bool {
	own, ok := r.(*eventReceipt)
	if !ok {
		return false
	}
	i.mu.Lock()
	if i.closed {
		i.mu.Unlock()
		return false
	}
	i.endLocked(own.k, s)
	if s == failed && i.q.fifo {
		for k := range i.states {
			i.endLocked(k, failed)
		}
	}
	i.mu.Unlock()
	select {
	case i.changed <- struct{}{}:
	default:
	}
	return true
}

func (i *invocation) endLocked(k int, s recordState) {
	if i.states[k] == done || i.states[k] == failed {
		return
	}
	i.states[k] = s
	if i.open--; i.open == 0 {
		close(i.finished)
	}
}

func inner(r engine.Receipt) engine.Receipt {
	if own, ok := r.(*eventReceipt); ok {
		return &own.receipt
	}
	return r
}

// Ack leaves the message to Lambda to delete.
func (i *invocation) Ack(ctx context.Context, r engine.Receipt) error {
	own, err := i.q.live(ctx, inner(r))
	if err != nil {
		return err
	}
	if !i.settle(r, done) {
		return engine.ErrClosed // the answer has gone to Lambda
	}
	own.ends.Store(0)
	return nil
}

// Return makes the message visible after wait. If that fails it becomes so when
// the queue's visibility timeout ends.
func (i *invocation) Return(ctx context.Context, r engine.Receipt, wait time.Duration, state []byte) error {
	err := i.q.Return(ctx, inner(r), wait, state)
	i.settle(r, failed)
	return err
}

// Extend has nothing to do: Lambda takes only queues whose visibility timeout is
// no shorter than the function's.
func (i *invocation) Extend(ctx context.Context, r engine.Receipt, _ time.Duration) error {
	_, err := i.q.live(ctx, inner(r))
	return err
}

// DeadLetter sends the letter and deletes the message.
func (i *invocation) DeadLetter(ctx context.Context, r engine.Receipt, m engine.Message) error {
	if i.q.dead == nil {
		i.settle(r, failed)
		return fmt.Errorf("fanoutaws: %s has no redrive policy, which names its dead-letter queue", i.q.place.arn)
	}
	if err := i.q.DeadLetter(ctx, inner(r), m); err != nil {
		i.settle(r, failed)
		return err
	}
	i.settle(r, done)
	return nil
}

// DeadLetters returns the dead-letter queue of the event source.
func (i *invocation) DeadLetters() engine.Queue { return i.q.DeadLetters() }

// Redrive is for dead-letter queues.
func (i *invocation) Redrive(ctx context.Context, r engine.Receipt, m engine.Message) error {
	return i.q.Redrive(ctx, inner(r), m)
}

// Stats are those of the event source.
func (i *invocation) Stats(ctx context.Context) (engine.Stats, error) { return i.q.Stats(ctx) }

// Purge is for the queue's owner.
func (i *invocation) Purge(context.Context) (int, error) {
	return 0, errors.New("fanoutaws: a function doesn't purge its event source")
}

// Delete is for the queue's owner.
func (i *invocation) Delete(context.Context) (dropped, letters int, err error) {
	return 0, 0, errors.New("fanoutaws: a function doesn't delete its event source")
}

// Close ends what waits. The queue is left to the next invocation.
func (i *invocation) Close() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if !i.closed {
		i.closed = true
		close(i.ended)
	}
	return nil
}

// A source finds the queue that events come from, once.
type source struct {
	e *Engine

	mu    sync.Mutex // guards the field below
	queue *queue
}

// of returns the queue with that ARN. Finding it is tried again at the next
// event if it failed.
func (s *source) of(ctx context.Context, queueARN string) (*queue, error) {
	s.mu.Lock()
	q := s.queue
	s.mu.Unlock()
	if q != nil && q.place.arn == queueARN {
		return q, nil
	}
	place, err := s.e.findPlace(ctx, queueARN)
	if err != nil {
		return nil, missing(err, queueARN)
	}
	q = s.e.newQueue(place, strings.HasSuffix(queueARN, fifoSuffix), 0)
	r, err := parseRedrive(place.attributes[redriveAttribute])
	if err != nil {
		return nil, err
	}
	if r.Target != "" {
		dead, err := s.e.findPlace(ctx, r.Target)
		if err != nil {
			return nil, missing(err, r.Target)
		}
		q.dead = s.e.newQueue(dead, q.fifo, 0)
		q.dead.source = q
	}
	s.mu.Lock()
	s.queue = q
	s.mu.Unlock()
	return q, nil
}

// closeToEnd is ctx with a bit less time, so that the answer still reaches
// Lambda: a function that runs out of time has failed with all its messages.
func closeToEnd(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	return context.WithDeadline(ctx, deadline.Add(-min(time.Second, time.Until(deadline)/10)))
}
