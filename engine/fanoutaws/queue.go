package fanoutaws

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/gofanout/fanout/engine"
)

// A queue is an SQS queue: one that is subscribed to a topic, or the
// dead-letter queue of one that is.
//
// Invariants:
//   - every goroutine of the queue is counted in wg, which grows only under mu
//     and only while closed is false;
//   - until Close a poll is in orphans or has a Receive that waits for it, never both;
//     then nobody waits.
type queue struct {
	sqs        *sqs.Client
	settings   settings
	topic      *topic // nil if no topic has opened it: of a function, or a dead-letter queue
	name       string // as the user calls it, if a topic has
	place      place
	fifo       bool
	visibility time.Duration // the lease if a Receive asks for none
	delay      time.Duration // of what has none of its own
	dead       *queue        // nil in a dead-letter queue
	source     *queue        // nil in any other
	deletes    *collector
	changes    *collector
	sends      *collector // of what was dead-lettered or redriven to this queue

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	// What polls do ends when they have ended after Close, or with their time after it.
	polls    context.Context
	endPolls context.CancelFunc
	home     *sync.WaitGroup // of what outlives Close; the topic's, which waits for it

	held int // what it held when it was deleted; Delete's alone

	mu      sync.Mutex // guards the fields below
	closed  bool
	orphans []*poll        // nobody waits for them at present
	unmade  map[string]int // receives that were no deliveries, by SQS's message ID
	wg      sync.WaitGroup
}

// OpenQueue makes the two queues and the subscription, or compares them.
func (t *topic) OpenQueue(ctx context.Context, spec engine.QueueSpec) (engine.Queue, error) {
	if t.closed.Load() {
		return nil, engine.ErrClosed
	}
	q, err := t.openQueue(ctx, spec)
	if err != nil {
		return nil, fmt.Errorf("fanoutaws: queue %q of topic %q: %w", spec.Name, t.name, err)
	}
	return q, nil
}

func (t *topic) openQueue(ctx context.Context, spec engine.QueueSpec) (*queue, error) {
	switch {
	case spec.Visibility > visibleMost:
		return nil, fmt.Errorf("a visibility timeout of %v: SQS takes 12 hours", spec.Visibility)
	case spec.Delay > delayMost:
		return nil, fmt.Errorf("a delay of %v: SQS takes 15 minutes", spec.Delay)
	}
	source, dead, err := t.ensureQueues(ctx, spec)
	if err != nil {
		return nil, err
	}
	if err := t.e.claim(t.name, spec.Name, source.arn, dead.arn); err != nil {
		return nil, err
	}
	if err := t.ensureSizes(ctx, source, dead); err != nil {
		return nil, err
	}
	if err := t.ensureSubscription(ctx, source.arn, spec.FilterPolicy); err != nil {
		return nil, err
	}
	q, d := t.e.newQueue(source, t.fifo, spec.Visibility), t.e.newQueue(dead, t.fifo, spec.Visibility)
	q.delay = spec.Delay
	q.dead, d.source = d, q
	q.topic, q.name = t, spec.Name
	q.home, d.home = &t.home, &t.home
	t.opened.Store(source.arn, spec.Name)
	t.limit(source)
	return q, nil
}

func (e *Engine) newQueue(p place, fifo bool, visibility time.Duration) *queue {
	q := &queue{sqs: e.sqs, settings: e.settings, place: p, fifo: fifo, visibility: visibility}
	q.ctx, q.cancel = context.WithCancel(context.Background())
	q.polls, q.endPolls = context.WithCancel(context.Background())
	q.home = new(sync.WaitGroup)
	q.deletes, q.changes, q.sends = newCollector(q, settleMost, q.deleteBatch), newCollector(q, settleMost, q.changeBatch), newCollector(q, requestMost, q.sendBatch)
	q.changes.late = true
	return q
}

// A receipt is one lease of one message.
type receipt struct {
	handle    string
	messageID string // SQS's
	received  time.Time

	// ends is when the lease does, as time since received; 0 once it was settled.
	ends atomic.Int64
}

// live returns the receipt as ours, or an error if its lease has ended by this
// process's clock.
func (q *queue) live(ctx context.Context, r engine.Receipt) (*receipt, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if q.ctx.Err() != nil {
		return nil, engine.ErrClosed
	}
	return q.leased(ctx, r)
}

// leased is live, also after Close, until the topic's.
func (q *queue) leased(ctx context.Context, r engine.Receipt) (*receipt, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	own, ok := r.(*receipt)
	switch {
	case !ok:
		return nil, fmt.Errorf("fanoutaws: bug: a receipt of type %T", r)
	case q.topicClosed():
		return nil, engine.ErrClosed
	case time.Since(own.received) >= time.Duration(own.ends.Load()):
		return nil, engine.ErrStale
	}
	return own, nil
}

func (q *queue) topicClosed() bool {
	t := q.topic
	if q.source != nil {
		t = q.source.topic
	}
	return t != nil && t.closed.Load()
}

// Ack deletes the message.
func (q *queue) Ack(ctx context.Context, r engine.Receipt) error {
	own, err := q.live(ctx, r)
	if err != nil {
		return err
	}
	if err := q.delete(ctx, own); err != nil {
		return q.wrap("delete", err)
	}
	q.forget(own)
	return nil
}

// delete deletes a message. What SQS has no time for now, or gives no answer to, is
// tried again while the lease has time: a message that is not deleted is handled twice.
func (q *queue) delete(ctx context.Context, own *receipt) error {
	return q.persist(ctx, q.ctx, own, passing, func(ctx context.Context) error {
		return q.deletes.do(ctx, settlement{handle: own.handle})
	})
}

// persist calls do again, after 100 ms and twice as long each time, while it fails in a
// way that again knows and the lease of own has time, until open ends.
func (q *queue) persist(ctx, open context.Context, own *receipt, again func(error) bool, do func(ctx context.Context) error) error {
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		err := do(ctx)
		if err == nil || !again(err) || time.Since(own.received)+wait >= time.Duration(own.ends.Load()) {
			return err
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
		case <-open.Done():
		}
		timer.Stop()
		if ctx.Err() != nil || open.Err() != nil {
			return err
		}
	}
}

// forget ends a receipt whose message is gone.
func (q *queue) forget(own *receipt) {
	own.ends.Store(0)
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.unmade, own.messageID)
}

// Return makes the message visible after wait, or as near to that as SQS lets
// it: at the end of the 12 hours after the receipt. SQS has no place for state.
// It works after Close, and Close breaks none off: what a Receive returned as the queue was
// closed would be hidden until its lease ends.
func (q *queue) Return(ctx context.Context, r engine.Receipt, wait time.Duration, _ []byte) error {
	own, err := q.leased(ctx, r)
	if err != nil {
		return err
	}
	// A second is left for the way there, since SQS refuses what is above.
	wait = max(0, min(wait, visibleMost-time.Since(own.received)-2*time.Second))
	// One that may have been done is not tried again: by now the message may be with
	// somebody else.
	if err := q.persist(ctx, context.Background(), own, busy, func(ctx context.Context) error {
		return q.changes.do(ctx, settlement{handle: own.handle, seconds: seconds(wait)})
	}); err != nil {
		return q.wrap("return", err)
	}
	own.ends.Store(0)
	return nil
}

// Extend makes the message visible after lease.
func (q *queue) Extend(ctx context.Context, r engine.Receipt, lease time.Duration) error {
	own, err := q.live(ctx, r)
	if err != nil {
		return err
	}
	since := time.Since(own.received)
	if lease <= 0 || since+lease > visibleMost {
		return q.wrap("extend", fmt.Errorf("by %v, %v after the receipt: SQS hides a message for 12 hours in all", lease, since))
	}
	if err := q.persist(ctx, q.ctx, own, passing, func(ctx context.Context) error {
		since = time.Since(own.received) // not later than SQS counts from
		return q.changes.do(ctx, settlement{handle: own.handle, seconds: seconds(min(lease, visibleMost-since))})
	}); err != nil {
		return q.wrap("extend", err)
	}
	own.ends.Store(int64(since + lease))
	return nil
}

// Stats asks SQS for its counts.
func (q *queue) Stats(ctx context.Context) (engine.Stats, error) {
	if q.ctx.Err() != nil {
		return engine.Stats{}, engine.ErrClosed
	}
	s, err := q.counts(ctx)
	if err != nil {
		return engine.Stats{}, q.wrap("stats", err)
	}
	return s, nil
}

// counts is Stats, also after Close.
func (q *queue) counts(ctx context.Context) (engine.Stats, error) {
	out, err := q.sqs.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{
		QueueUrl: aws.String(q.place.url),
		AttributeNames: []sqstypes.QueueAttributeName{
			sqstypes.QueueAttributeNameApproximateNumberOfMessages,
			sqstypes.QueueAttributeNameApproximateNumberOfMessagesDelayed,
			sqstypes.QueueAttributeNameApproximateNumberOfMessagesNotVisible,
		},
	})
	if err != nil {
		return engine.Stats{}, err
	}
	return readStats(out.Attributes)
}

// readStats reads SQS's counts.
func readStats(attributes map[string]string) (engine.Stats, error) {
	s := engine.Stats{OldestAge: engine.Unknown}
	for name, n := range map[sqstypes.QueueAttributeName]*int{
		sqstypes.QueueAttributeNameApproximateNumberOfMessages:           &s.Ready,
		sqstypes.QueueAttributeNameApproximateNumberOfMessagesDelayed:    &s.Delayed,
		sqstypes.QueueAttributeNameApproximateNumberOfMessagesNotVisible: &s.InFlight,
	} {
		var err error
		if *n, err = strconv.Atoi(attributes[string(name)]); err != nil {
			return engine.Stats{}, fmt.Errorf("%s: %w", name, err)
		}
	}
	return s, nil
}

// Purge has SQS drop everything, which takes it up to a minute, and may take
// what comes meanwhile too. SQS does it once a minute at most.
func (q *queue) Purge(ctx context.Context) (dropped int, err error) {
	s, err := q.Stats(ctx)
	if err != nil {
		return 0, err
	}
	if _, err := q.sqs.PurgeQueue(ctx, &sqs.PurgeQueueInput{QueueUrl: aws.String(q.place.url)}); err != nil {
		return 0, q.wrap("purge", err)
	}
	return s.Ready + s.Delayed + s.InFlight, nil
}

// DeadLetters returns the dead-letter queue.
func (q *queue) DeadLetters() engine.Queue {
	if q.dead == nil {
		return nil
	}
	return q.dead
}

// closeMost is for how long a queue that was closed still answers for its polls.
const closeMost = 5 * time.Second

// Close ends what waits, and returns at once. SQS may hand messages to a poll that it has
// not answered yet, even if that is broken off: so polls go on for up to closeMost, and
// give back what they get. The topic's Close waits for that.
func (q *queue) Close() error {
	if q.dead != nil {
		_ = q.dead.Close() // it never fails
	}
	q.mu.Lock()
	first := !q.closed
	q.closed = true
	q.mu.Unlock()
	if first {
		q.cancel()
		q.home.Go(q.end)
	}
	return nil
}

// end sees to the end of the queue's goroutines. Started by Close; ends within closeMost;
// joined by the topic's Close.
func (q *queue) end() {
	timer := time.AfterFunc(closeMost, q.endPolls)
	defer q.endPolls()
	defer timer.Stop()
	q.wg.Wait()
}

// start runs f in a goroutine that end waits for, unless the queue is closed.
func (q *queue) start(f func()) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.startLocked(f)
}

func (q *queue) startLocked(f func()) bool {
	if q.closed {
		return false
	}
	q.wg.Go(f)
	return true
}

// wrap names the queue and what failed. What fails since the queue was
// closed is ErrClosed.
func (q *queue) wrap(what string, err error) error {
	switch {
	case errors.Is(err, engine.ErrClosed):
		return engine.ErrClosed
	case q.ctx.Err() != nil && errors.Is(err, context.Canceled):
		return engine.ErrClosed
	}
	return fmt.Errorf("fanoutaws: %s: %s: %w", q.place.arn, what, settleError(err))
}
