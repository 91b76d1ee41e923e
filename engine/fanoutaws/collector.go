package fanoutaws

import (
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/gofanout/fanout/engine"
)

const (
	// requestMost is how long a request may take before it is given up.
	requestMost = 30 * time.Second
	// flushersMost is how many requests of one kind a queue has under way. One
	// more settlement goes at once, as long as there are fewer; what comes while
	// all are busy goes in the next one's, ten at a time. So a settlement waits
	// for no timer, and a busy queue pays for a tenth of the requests.
	flushersMost = 2
	// settleMost is how long a request may take that deletes messages or changes their
	// visibility timeouts. It does no harm twice: one that hangs is given up soon enough
	// for another one, within the ten seconds that fanout waits for a settlement.
	settleMost = 4 * time.Second
)

// A settlement is a deletion, a change of a visibility timeout, or the sending of a
// message to a dead-letter queue or back.
type settlement struct {
	handle  string
	seconds int32
	message *sqstypes.SendMessageBatchRequestEntry // its Id is set by sendBatch
	bytes   int                                    // of the message
	done    chan error                             // one, sent by flush
}

// A collector sends settlements that meet in one request.
type collector struct {
	q    *queue
	most time.Duration                              // of one request
	send func(context.Context, []*settlement) error // sets no done; may fail as a whole or by [entryErrors]
	late bool                                       // it goes on after the queue's Close, for what is returned; set before use

	mu       sync.Mutex // guards the fields below
	pending  []*settlement
	flushers int
}

func newCollector(q *queue, most time.Duration, send func(context.Context, []*settlement) error) *collector {
	return &collector{q: q, most: most, send: send}
}

// do performs s, and returns when SQS has answered or ctx ends; then it may
// still be performed.
func (c *collector) do(ctx context.Context, s settlement) error {
	s.done = make(chan error, 1)
	open, closed := c.q.ctx, c.q.ctx.Done()
	if c.late {
		open, closed = c.q.polls, nil // whoever flushes says how it ended
	}
	if c.add(&s) && !c.q.start(func() { c.flush(open) }) {
		if !c.late {
			return engine.ErrClosed
		}
		c.flush(context.WithoutCancel(ctx)) // no goroutine is begun any more
	}
	select {
	case err := <-s.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-closed:
		return engine.ErrClosed
	}
}

// add enters s, and reports if one more flusher is needed.
func (c *collector) add(s *settlement) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pending = append(c.pending, s)
	if c.flushers == flushersMost {
		return false
	}
	c.flushers++
	return true
}

// take returns up to ten settlements, and of messages no more than SQS takes in a
// request; nil if there are none, and then it counts the flusher out.
func (c *collector) take() []*settlement {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, bytes := 0, 0
	for n < min(len(c.pending), batchMost) {
		if bytes += c.pending[n].bytes; bytes > sqsMost && n > 0 {
			break
		}
		n++
	}
	if n == 0 {
		c.pending = nil
		c.flushers--
		return nil
	}
	ss := c.pending[:n:n]
	c.pending = c.pending[n:]
	return ss
}

// flush sends what is pending, with open for its time. Started by do; ends when nothing is;
// joined by the queue's end. After Close the caller of do runs it.
func (c *collector) flush(open context.Context) {
	for ss := c.take(); ss != nil; ss = c.take() {
		ctx, cancel := context.WithTimeout(open, c.most)
		err := c.send(ctx, ss)
		cancel()
		failed, perEntry := err.(entryErrors)
		for _, s := range ss {
			if perEntry {
				s.done <- failed[s]
			} else {
				s.done <- err
			}
		}
	}
}

// entryErrors are the errors of the settlements of a batch that failed in part.
type entryErrors map[*settlement]error

func (e entryErrors) Error() string {
	for _, err := range e {
		return strconv.Itoa(len(e)) + " of a batch failed; one: " + err.Error()
	}
	return "none of a batch failed"
}

// deleteBatch deletes messages.
func (q *queue) deleteBatch(ctx context.Context, ss []*settlement) error {
	in := &sqs.DeleteMessageBatchInput{QueueUrl: aws.String(q.place.url)}
	for k, s := range ss {
		in.Entries = append(in.Entries, sqstypes.DeleteMessageBatchRequestEntry{
			Id: aws.String(strconv.Itoa(k)), ReceiptHandle: aws.String(s.handle),
		})
	}
	out, err := q.sqs.DeleteMessageBatch(ctx, in)
	if err != nil {
		return err
	}
	done := make([]*string, 0, len(out.Successful))
	for _, e := range out.Successful {
		done = append(done, e.Id)
	}
	return perEntry(ss, done, out.Failed)
}

// changeBatch changes visibility timeouts. A 0 is sent, which it would not be
// in a ReceiveMessage.
func (q *queue) changeBatch(ctx context.Context, ss []*settlement) error {
	in := &sqs.ChangeMessageVisibilityBatchInput{QueueUrl: aws.String(q.place.url)}
	for k, s := range ss {
		in.Entries = append(in.Entries, sqstypes.ChangeMessageVisibilityBatchRequestEntry{
			Id: aws.String(strconv.Itoa(k)), ReceiptHandle: aws.String(s.handle), VisibilityTimeout: s.seconds,
		})
	}
	out, err := q.sqs.ChangeMessageVisibilityBatch(ctx, in)
	if err != nil {
		return err
	}
	done := make([]*string, 0, len(out.Successful))
	for _, e := range out.Successful {
		done = append(done, e.Id)
	}
	return perEntry(ss, done, out.Failed)
}

// sendBatch sends messages to the queue.
func (q *queue) sendBatch(ctx context.Context, ss []*settlement) error {
	in := &sqs.SendMessageBatchInput{QueueUrl: aws.String(q.place.url)}
	for k, s := range ss {
		s.message.Id = aws.String(strconv.Itoa(k))
		in.Entries = append(in.Entries, *s.message)
	}
	out, err := q.sqs.SendMessageBatch(ctx, in)
	if err != nil {
		return err
	}
	done := make([]*string, 0, len(out.Successful))
	for _, e := range out.Successful {
		done = append(done, e.Id)
	}
	return perEntry(ss, done, out.Failed)
}

// perEntry sorts an answer by settlement; nil if all succeeded.
func perEntry(ss []*settlement, done []*string, failed []sqstypes.BatchResultErrorEntry) error {
	errs := make(entryErrors, len(ss))
	for _, s := range ss {
		errs[s] = errNoAnswer
	}
	for _, id := range done {
		if k, err := strconv.Atoi(aws.ToString(id)); err == nil && 0 <= k && k < len(ss) {
			delete(errs, ss[k])
		}
	}
	for _, f := range failed {
		if k, err := strconv.Atoi(aws.ToString(f.Id)); err == nil && 0 <= k && k < len(ss) {
			errs[ss[k]] = sqsEntryError(f)
		}
	}
	if len(errs) == 0 {
		return nil
	}
	return errs
}
