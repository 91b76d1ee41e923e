package fakeaws

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// The limits of messages in flight.
const mostInFlight = 120_000

// A receive is what a consumer asks for.
type receive struct {
	most       int
	visibility instant
	attempt    string              // ReceiveRequestAttemptId, empty if there is none
	fits       func(*message) bool // whether a message is taken, or ends the receive; nil if all are taken
}

// A delivery is one message given to a consumer. It is a copy: the message may
// change as soon as the lock is released.
type delivery struct {
	message
	handle string
}

// A waiter is a long poll.
type waiter struct {
	receive
	ready      chan struct{} // closed when the fields below are set
	deliveries []delivery
	ends       instant
	gone       bool // the queue was deleted
}

// receiveMessage implements ReceiveMessage.
func (c *call) receiveMessage(in *receiveMessageInput) (*receiveMessageOutput, error) {
	c.mu.Lock()
	q, err := c.queueOfLocked(in.QueueUrl)
	if err != nil {
		c.mu.Unlock()
		return nil, err
	}
	r, wait, err := q.checkReceive(in)
	if err != nil {
		c.mu.Unlock()
		return nil, err
	}
	ds, err := c.receiveLocked(q, r, wait)
	if err != nil {
		return nil, err
	}
	out := &receiveMessageOutput{}
	for _, d := range ds {
		out.Messages = append(out.Messages, c.received(&d, in))
	}
	return out, nil
}

// checkReceive checks the parameters of a receive as SQS does.
func (q *queue) checkReceive(in *receiveMessageInput) (r receive, wait instant, err error) {
	r = receive{most: 1, visibility: q.attributes.visibility}
	wait = q.attributes.wait
	if n := in.MaxNumberOfMessages; n != nil {
		if *n < 1 || *n > mostBatch {
			return r, 0, invalidValue(*n, "MaxNumberOfMessages", "Must be between 1 and 10, if provided.")
		}
		r.most = int(*n)
	}
	if n := in.VisibilityTimeout; n != nil {
		if *n < 0 || *n > 43200 {
			return r, 0, invalidValue(*n, "VisibilityTimeout", "Must be >= 0 and <= 43200, if provided.")
		}
		r.visibility = instant(*n) * time.Second
	}
	if n := in.WaitTimeSeconds; n != nil {
		if *n < 0 || *n > 20 {
			return r, 0, invalidValue(*n, "WaitTimeSeconds", "Must be >= 0 and <= 20, if provided.")
		}
		wait = instant(*n) * time.Second
	}
	if id := in.ReceiveRequestAttemptId; id != nil {
		switch {
		case !tokenPattern.MatchString(*id):
			return r, 0, invalidValue(*id, "ReceiveRequestAttemptId", "ReceiveRequestAttemptId can only include alphanumeric and punctuation characters. 1 to 128 in length.")
		case !q.fifo:
			return r, 0, invalidValue(*id, "ReceiveRequestAttemptId", "The request include parameter that is not valid for this queue type.")
		}
		r.attempt = *id
	}
	return r, wait, nil
}

// receiveLocked receives, and waits if there is nothing. It is called with the
// lock held and returns without it. The wait ends with the caller's context,
// with the queue, and with the fake.
func (c *call) receiveLocked(q *queue, r receive, wait instant) ([]delivery, error) {
	now := c.clock()
	q.advanceLocked(now)
	if !q.fifo && wait == 0 && q.counts[inFlight] >= mostInFlight {
		c.mu.Unlock()
		return nil, errOverLimit.with("Too many messages in flight: %d.", q.counts[inFlight])
	}
	ds := q.takeLocked(r, now)
	q.serveLocked(now)
	if len(ds) > 0 || wait == 0 {
		c.mu.Unlock()
		return ds, nil
	}
	w := &waiter{receive: r, ready: make(chan struct{}), ends: now + wait}
	q.waiters = append(q.waiters, w)
	q.armLocked(now)
	c.mu.Unlock()
	return c.await(q, w, wait)
}

// await waits until a long poll has something, or ends.
func (c *call) await(q *queue, w *waiter, wait instant) ([]delivery, error) {
	t := time.NewTimer(wait)
	defer t.Stop()
	var err error
	select {
	case <-w.ready:
	case <-t.C:
	case <-c.ctx.Done():
		err = c.ctx.Err()
	case <-c.closed:
		err = errClosed
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if k := slices.Index(q.waiters, w); k >= 0 {
		// What becomes due at the end of the wait is still received.
		if err == nil {
			q.serveLocked(c.clock())
		}
		if k := slices.Index(q.waiters, w); k >= 0 {
			if err != nil && c.lostPolls && !q.stopped {
				time.AfterFunc(w.ends-c.clock(), func() { q.forget(w) })
				return nil, err
			}
			q.waiters = slices.Delete(q.waiters, k, k+1)
			q.armLocked(c.clock())
		}
	}
	switch {
	case len(w.deliveries) > 0:
		return w.deliveries, nil // also if the wait ended meanwhile: nothing is lost
	case c.ended:
		return nil, errClosed
	case w.gone:
		return nil, errQueueDoesNotExist.with("The specified queue does not exist.")
	}
	return nil, err
}

// forget ends a long poll whose caller went away.
func (q *queue) forget(w *waiter) {
	q.cloud.mu.Lock()
	defer q.cloud.mu.Unlock()
	if k := slices.Index(q.waiters, w); k >= 0 {
		q.waiters = slices.Delete(q.waiters, k, k+1)
		q.armLocked(q.cloud.clock())
	}
}

// serveLocked gives the long polls and the mappings what can be received now,
// those of the dead-letter queues that get something too.
func (q *queue) serveLocked(now instant) {
	c := q.cloud
	c.unserved = append(c.unserved, q)
	for len(c.unserved) > 0 {
		next := c.unserved[0]
		c.unserved = c.unserved[1:]
		next.serveOneLocked(now)
	}
	c.unserved = nil
	c.tellLocked()
}

func (q *queue) serveOneLocked(now instant) {
	q.advanceLocked(now)
	for len(q.waiters) > 0 {
		w := q.waiters[0]
		ds := q.takeLocked(w.receive, now)
		if len(ds) == 0 {
			break
		}
		w.deliveries = ds
		q.waiters[0] = nil
		q.waiters = q.waiters[1:]
		close(w.ready)
	}
	for _, m := range slices.Clone(q.mappings) {
		m.pumpLocked(now)
	}
	q.armLocked(now)
}

// armLocked has the queue served when something becomes due while a long poll
// waits or a function wants its messages.
func (q *queue) armLocked(now instant) {
	next := never
	if (len(q.waiters) > 0 || len(q.mappings) > 0) && !q.stopped {
		next = q.nextLocked()
	}
	if next == never {
		if q.timer != nil {
			q.timer.Stop()
			q.timer = nil
		}
		return
	}
	if q.timer == nil {
		q.timer = time.AfterFunc(next-now, q.serve)
		return
	}
	q.timer.Reset(next - now)
}

// serve is called by the queue's timer.
func (q *queue) serve() {
	q.cloud.mu.Lock()
	defer q.cloud.mu.Unlock()
	if !q.stopped {
		q.serveLocked(q.cloud.clock())
	}
}

// stopLocked ends the queue's long polls and timers.
func (q *queue) stopLocked() {
	q.stopped = true
	for _, w := range q.waiters {
		w.gone = true
		close(w.ready)
	}
	q.waiters = nil
	for _, m := range slices.Clone(q.mappings) {
		m.stopLocked()
	}
	q.armLocked(0)
	if t := q.lastTask(); t != nil && t.status == taskRunning {
		t.endLocked(taskFailed, "AWS.SimpleQueueService.NonExistentQueue")
	}
}

// takeLocked receives what there is. Of a group it takes as many as it may,
// before it goes on to the next. Messages received too often go to the
// dead-letter queue.
func (q *queue) takeLocked(r receive, now instant) (ds []delivery) {
	if ds := q.attempts.againLocked(q, r, now); ds != nil {
		return ds
	}
	var taken []*message
taking:
	for len(q.ready) > 0 && len(taken) < r.most && q.counts[inFlight] < mostInFlight {
		m := q.ready[0]
		for m != nil && m.state == visible && len(taken) < r.most && q.counts[inFlight] < mostInFlight {
			after := m.after // nil in a standard queue
			if q.buryLocked(m, now) {
				m = after
				continue
			}
			if r.fits != nil && !r.fits(m) {
				break taking
			}
			q.receivedLocked(m, now)
			q.hideLocked(m, inFlight, now+r.visibility)
			taken = append(taken, m)
			m = after
		}
	}
	for _, m := range taken {
		ds = append(ds, delivery{message: *m, handle: q.handleOf(m)})
	}
	q.attempts.note(r, taken, now)
	for _, m := range taken {
		if m.due <= now {
			q.showLocked(m)
		}
	}
	return ds
}

// receivedLocked notes that a message is received.
func (q *queue) receivedLocked(m *message, now instant) {
	q.stamps++
	m.stamp, m.received, m.changed = q.stamps, now, false
	m.receivesHere++
	if m.receives++; m.receives == 1 {
		m.firstReceived = now
	}
}

// buryLocked moves a message to the dead-letter queue if it was received as
// often as it may be, and says whether it did.
func (q *queue) buryLocked(m *message, now instant) bool {
	p := q.attributes.redrive
	if p == nil || m.receivesHere < p.most {
		return false
	}
	dead := q.cloud.queueByARNLocked(p.target)
	if dead == nil || dead == q {
		return false // SQS keeps the message if its dead-letter queue was deleted
	}
	q.removeLocked(m)
	letter := &message{content: m.content, id: m.id, sender: m.sender, source: q.arn, sent: m.sent, enqueued: m.enqueued,
		receives: m.receives, firstReceived: m.firstReceived}
	if dead.fifo {
		letter.enqueued = now
		letter.sequence = dead.nextSequence()
		letter.deduplicationID = m.id
	}
	dead.addLocked(letter, now, now)
	q.cloud.unserved = append(q.cloud.unserved, dead)
	return true
}

// received encodes a delivery, with the attributes that were asked for.
func (c *call) received(d *delivery, in *receiveMessageInput) receivedMessage {
	out := receivedMessage{Body: d.body, MD5OfBody: d.bodyMD5, MessageId: d.id, ReceiptHandle: d.handle}
	wanted := slices.Concat(in.MessageSystemAttributeNames, in.AttributeNames)
	if len(wanted) > 0 {
		all := slices.Contains(wanted, "All")
		for name, value := range c.systemAttributes(d) {
			if all || slices.Contains(wanted, name) {
				if out.Attributes == nil {
					out.Attributes = map[string]string{}
				}
				out.Attributes[name] = value
			}
		}
	}
	for name, value := range d.attributes {
		if slices.ContainsFunc(in.MessageAttributeNames, func(pattern string) bool { return wants(pattern, name) }) {
			if out.MessageAttributes == nil {
				out.MessageAttributes = map[string]attributeValue{}
			}
			out.MessageAttributes[name] = value
		}
	}
	out.MD5OfMessageAttributes = md5OfAttributes(out.MessageAttributes)
	return out
}

// wants says whether a name of MessageAttributeNames asks for an attribute.
func wants(pattern, name string) bool {
	if pattern == "All" || pattern == ".*" || pattern == "*" {
		return true
	}
	prefix, ok := strings.CutSuffix(pattern, ".*")
	return ok && strings.HasPrefix(name, prefix) || pattern == name
}

// systemAttributes are what SQS knows of a message.
func (c *call) systemAttributes(d *delivery) map[string]string {
	a := map[string]string{
		"SenderId":                         d.sender,
		"SentTimestamp":                    strconv.FormatInt(c.millis(d.sent), 10),
		"ApproximateReceiveCount":          strconv.Itoa(d.receives),
		"ApproximateFirstReceiveTimestamp": strconv.FormatInt(c.millis(d.firstReceived), 10),
	}
	for name, value := range map[string]string{"MessageGroupId": d.groupID, "MessageDeduplicationId": d.deduplicationID,
		"SequenceNumber": d.sequence, "DeadLetterQueueSourceArn": d.source} {
		if value != "" {
			a[name] = value
		}
	}
	if d.trace != nil {
		a["AWSTraceHeader"] = deref(d.trace.StringValue)
	}
	return a
}
