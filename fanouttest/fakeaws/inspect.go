package fakeaws

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// A Queue looks into one queue of the fake, without taking anything from it. It
// can be made before the queue is created. Its methods may be called
// concurrently.
type Queue struct {
	cloud *cloud
	place place
	name  string
}

// Queue returns a look into the queue with the name, in the region and account
// of the view.
func (a *AWS) Queue(name string) *Queue {
	return &Queue{cloud: a.cloud, place: place{account: a.account, region: a.region}, name: name}
}

// A State says where a message is.
type State string

// The states of messages.
const (
	Visible  State = "visible"   // can be received, or waits behind another one of its group
	Delayed  State = "delayed"   // cannot be received yet
	InFlight State = "in flight" // received, and not deleted
)

// A Message is a copy of a message in a queue, as it was at one instant.
type Message struct {
	ID         string
	Body       string
	Attributes map[string]Attribute
	State      State
	// Due is when Delayed or InFlight ends, zero for a visible message.
	Due time.Time
	// Sent is when the message was sent, to another queue if this is a
	// dead-letter queue.
	Sent time.Time
	// Receives is how often it was received, in all queues.
	Receives int
	// Group and DeduplicationID are those that the sender gave. Without an ID
	// DeduplicationID is the SHA-256 of the body, if the queue deduplicates by
	// content.
	Group           string
	DeduplicationID string
	// Sequence is the message's number in a FIFO queue.
	Sequence string
	// Source is the ARN of the queue whose dead letter the message is.
	Source string
	// ReceiptHandle is that of the last receive, empty if there was none.
	ReceiptHandle string
}

// String returns the message in one line, without its body.
func (m Message) String() string {
	s := fmt.Sprintf("%s: %s, received %d times", m.ID, m.State, m.Receives)
	if !m.Due.IsZero() {
		s += fmt.Sprintf(", until %s", m.Due.Format(time.RFC3339Nano))
	}
	if m.Group != "" {
		s += ", group " + m.Group
	}
	return s
}

// An Attribute is a message attribute.
type Attribute struct {
	Type   string // such as String, Number or Binary
	String string
	Binary []byte
}

// exported returns a copy of the message for users.
func (q *queue) exportedLocked(m *message) Message {
	out := Message{ID: m.id, Body: m.body, State: []State{Visible, Delayed, InFlight}[m.state], Sent: q.cloud.wall(m.sent), Receives: m.receives,
		Group: m.groupID, DeduplicationID: m.deduplicationID, Sequence: m.sequence, Source: m.source}
	if m.state != visible {
		out.Due = q.cloud.wall(m.due)
	}
	if m.stamp != 0 {
		out.ReceiptHandle = q.handleOf(m)
	}
	if len(m.attributes) > 0 {
		out.Attributes = map[string]Attribute{}
		for name, a := range m.attributes {
			out.Attributes[name] = Attribute{Type: deref(a.DataType), String: deref(a.StringValue), Binary: slices.Clone(a.BinaryValue)}
		}
	}
	return out
}

// look calls f with the queue, if it exists.
func (q *Queue) look(f func(*queue)) {
	q.cloud.mu.Lock()
	defer q.cloud.mu.Unlock()
	r := q.cloud.regions[q.place]
	if r == nil || r.queues[q.name] == nil {
		return
	}
	found := r.queues[q.name]
	found.advanceLocked(q.cloud.clock())
	f(found)
}

// Exists says whether there is such a queue.
func (q *Queue) Exists() (ok bool) {
	q.look(func(*queue) { ok = true })
	return ok
}

// URL returns the queue's URL as clients in process get it, empty if there is
// no such queue.
func (q *Queue) URL() (url string) {
	q.look(func(found *queue) { url = (&call{cloud: q.cloud}).queueURL(found) })
	return url
}

// ARN returns the queue's ARN.
func (q *Queue) ARN() string { return arn{"sqs", q.place, q.name}.String() }

// Messages returns copies of the queue's messages in the order in which they
// were sent, those delayed and in flight too. It takes nothing. It returns nil
// if there is no such queue.
func (q *Queue) Messages() (ms []Message) {
	q.look(func(found *queue) {
		all := make([]*message, 0, len(found.byNumber))
		for _, m := range found.byNumber {
			all = append(all, m)
		}
		slices.SortFunc(all, func(a, b *message) int { return cmp.Compare(a.number, b.number) })
		for _, m := range all {
			ms = append(ms, found.exportedLocked(m))
		}
	})
	return ms
}

// Sent returns copies of all messages that the queue has accepted since it was
// created, as they were when they came, also those that are deleted: by
// SendMessage, from a topic, from another queue as a dead letter or by a move
// task. Duplicates that a FIFO queue dropped are not among them. Fakes of
// [Start] keep no such history: there it is always empty.
func (q *Queue) Sent() (ms []Message) {
	q.look(func(found *queue) { ms = slices.Clone(found.history) })
	return ms
}

// Len returns the number of the queue's messages, delayed and in flight too.
func (q *Queue) Len() (n int) {
	q.look(func(found *queue) { n = len(found.byNumber) })
	return n
}

// Shuffle makes a standard queue give out its messages in a random order from
// now on, as SQS may do. The seed makes the order the same in each run. FIFO
// queues keep their order.
func (q *Queue) Shuffle(seed uint64) {
	q.look(func(found *queue) {
		if found.fifo {
			return
		}
		found.shuffle = rand.New(rand.NewPCG(seed, seed))
		ready := found.ready
		found.ready = nil
		for _, m := range ready {
			m.readyAt = -1
		}
		for _, m := range ready {
			found.offerLocked(m)
		}
	})
}

// WaitQuiet waits until nothing is left to do: all queues are empty, no move task runs, and
// no delivery of a topic and no invocation of a function is under way or waits to be tried
// again. It ignores dead-letter queues of queues and subscriptions, and failure destinations
// of functions. It looks at all accounts and regions. If ctx ends first, it returns an error
// that says what is left.
func (a *AWS) WaitQuiet(ctx context.Context) error {
	c := a.cloud
	for {
		c.mu.Lock()
		now := c.clock()
		left, next := c.leftLocked(now)
		changed := c.changedLocked()
		c.mu.Unlock()
		if left == "" {
			return nil
		}
		var timer <-chan time.Time
		if next != never {
			t := time.NewTimer(next - now)
			defer t.Stop()
			timer = t.C
		}
		select {
		case <-changed:
		case <-timer:
		case <-c.closed:
			return errClosed
		case <-ctx.Done():
			return fmt.Errorf("fakeaws: not quiet: %s: %w", left, ctx.Err())
		}
	}
}

// leftLocked says what is left to do, and when that may change by itself. It is
// empty if there is nothing.
func (c *cloud) leftLocked(now instant) (left string, next instant) {
	next = never
	if c.busy > 0 {
		return fmt.Sprintf("%d deliveries under way", c.busy), never
	}
	dead := c.deadLettersLocked()
	for _, r := range c.regions {
		for _, q := range r.queues {
			q.advanceLocked(now)
			if t := q.lastTask(); t != nil && t.status == taskRunning {
				left = "a move task runs from queue " + q.name
			}
			if len(q.byNumber) > 0 && !dead[q.arn] {
				left = fmt.Sprintf("queue %s has %d messages (%d visible, %d delayed, %d in flight)",
					q.name, len(q.byNumber), q.counts[visible], q.counts[delayed], q.counts[inFlight])
				next = min(next, q.ages[0].enqueued+q.attributes.retention())
			}
		}
	}
	return left, next
}

// deadLettersLocked returns the ARNs of the queues for what could not be handled:
// those of queues, subscriptions and functions.
func (c *cloud) deadLettersLocked() map[string]bool {
	dead := map[string]bool{}
	for _, r := range c.regions {
		for _, q := range r.queues {
			if p := q.attributes.redrive; p != nil {
				dead[p.target] = true
			}
		}
		for _, t := range r.sns.topics {
			for _, s := range t.subscriptions {
				dead[s.dead] = true
			}
		}
		for _, f := range r.functions {
			dead[f.settings.destination] = true
		}
	}
	return dead
}

// changedLocked returns a channel that is closed at the next change.
func (c *cloud) changedLocked() <-chan struct{} {
	if c.changed == nil {
		c.changed = make(chan struct{})
	}
	return c.changed
}

// tellLocked wakes those who wait for a change.
func (c *cloud) tellLocked() {
	if c.changed != nil {
		close(c.changed)
		c.changed = nil
	}
}
