package fakeaws

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"sort"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

var (
	modelOperations = flag.Int("operations", 100_000, "how many operations the model of a queue runs")
	modelSeed       = flag.Uint64("seed", 1, "of the model of a queue")
)

// A naiveQueue is a queue of SQS as a plain list, written from the rules and not
// from the code: every question is answered by looking at all messages.
type naiveQueue struct {
	fifo       bool
	visibility time.Duration
	retention  time.Duration
	delay      time.Duration
	most       int // maxReceiveCount, 0 for none

	messages []*naiveMessage // in the order of sending
	arrivals map[string]time.Duration
	receipts int
	dead     []string // bodies of dead letters
}

type naiveMessage struct {
	body, group string
	sent        time.Duration
	hidden      time.Duration // until then
	flies       bool          // hidden because it was received
	receipt     int           // of the last receive
	received    time.Duration
	receives    int
}

// tick forgets what is too old.
func (q *naiveQueue) tick(now time.Duration) {
	q.messages = slices.DeleteFunc(q.messages, func(m *naiveMessage) bool { return m.sent+q.retention <= now })
}

func (m *naiveMessage) available(now time.Duration) bool { return m.hidden <= now }

// receive returns the bodies of what a receive gives. order is the order of
// groups that the queue is seen to have; all of that the rules leave open.
func (q *naiveQueue) receive(now time.Duration, most int, visibility time.Duration, order []string) (got []*naiveMessage) {
	take := func(m *naiveMessage) bool { // says whether it was buried
		if q.most > 0 && m.receives >= q.most {
			q.messages = slices.DeleteFunc(q.messages, func(o *naiveMessage) bool { return o == m })
			q.dead = append(q.dead, m.body)
			return true
		}
		q.receipts++
		m.receives++
		m.receipt, m.received, m.hidden, m.flies = q.receipts, now, now+visibility, visibility > 0
		got = append(got, m)
		return false
	}
	if !q.fifo {
		for _, m := range slices.Clone(q.messages) {
			if len(got) < most && m.available(now) {
				take(m)
			}
		}
		return got
	}
	for _, group := range order {
		for _, m := range slices.Clone(q.messages) {
			if m.group != group {
				continue
			}
			if len(got) == most || !m.available(now) {
				break
			}
			take(m)
		}
	}
	return got
}

func (q *naiveQueue) byReceipt(receipt int) *naiveMessage {
	for _, m := range q.messages {
		if m.receipt == receipt {
			return m
		}
	}
	return nil
}

// checkQueue walks a queue's invariants.
func checkQueue(q *queue) error {
	var counts [3]int
	for _, m := range q.byNumber {
		counts[m.state]++
		if m.agesAt < 0 || q.ages[m.agesAt] != m {
			return fmt.Errorf("message %d is not in ages", m.number)
		}
		if (m.waitingAt >= 0) != (m.state != visible) {
			return fmt.Errorf("message %d: waiting %d in state %d", m.number, m.waitingAt, m.state)
		}
		ready := m.state == visible && (!q.fifo || m.group.first == m)
		if (m.readyAt >= 0) != ready {
			return fmt.Errorf("message %d: ready %d in state %d, first %t", m.number, m.readyAt, m.state, ready)
		}
	}
	switch {
	case counts != q.counts:
		return fmt.Errorf("counts %v, want %v", q.counts, counts)
	case len(q.ages) != len(q.byNumber), len(q.waiting) != counts[delayed]+counts[inFlight]:
		return fmt.Errorf("%d in ages, %d in waiting, of %d", len(q.ages), len(q.waiting), len(q.byNumber))
	case q.timer != nil && len(q.waiters)+len(q.mappings) == 0:
		return fmt.Errorf("a timer, and nobody waits")
	}
	for id, g := range q.groups {
		n := 0
		for m := g.first; m != nil; m = m.after {
			if m.group != g || m.after != nil && (m.after.before != m || m.after.number < m.number) {
				return fmt.Errorf("group %s is out of order", id)
			}
			n++
		}
		if n == 0 {
			return fmt.Errorf("group %s is empty", id)
		}
	}
	return nil
}

// TestAQueueIsWhatTheModelSays runs random operations against a queue and
// against the naive one, in virtual time: what can be seen must be the same
// after each.
func TestAQueueIsWhatTheModelSays(t *testing.T) {
	n, seed := *modelOperations, *modelSeed
	if testing.Short() {
		n /= 5
	}
	done, deliveries, letters := 0, 0, 0
	for program := uint64(0); done < n; program++ {
		synctest.Test(t, func(t *testing.T) {
			p := &randomProgram{t: t, random: rand.New(rand.NewPCG(seed, program))}
			p.run(500)
			done += p.done
			deliveries += p.model.receipts
			letters += len(p.model.dead)
		})
		if t.Failed() {
			t.Fatalf("seed %d, program %d", seed, program)
		}
	}
	t.Logf("%d operations, %d deliveries, %d dead letters", done, deliveries, letters)
	if deliveries == 0 || letters == 0 {
		t.Fatal("the programs deliver nothing, or no dead letter")
	}
}

// randomProgram is one random program.
type randomProgram struct {
	t      *testing.T
	random *rand.Rand
	a      *AWS
	q      *queue
	began  time.Time
	model  *naiveQueue
	dead   string // name of the dead-letter queue
	held   []heldReceipt
	log    []string
	done   int
}

type heldReceipt struct {
	handle  string
	receipt int
	body    string
}

func (p *randomProgram) now() time.Duration { return time.Since(p.began) }

func (p *randomProgram) call(operation string) *call {
	return &call{cloud: p.a.cloud, place: place{DefaultAccount, DefaultRegion}, ctx: context.Background(), operation: operation, now: time.Now()}
}

func (p *randomProgram) must(err error) {
	if err != nil {
		p.fail("%v", err)
	}
}

func (p *randomProgram) fail(format string, args ...any) {
	p.t.Fatalf("%s\n%s", fmt.Sprintf(format, args...), strings.Join(p.log, "\n"))
}

func (p *randomProgram) note(format string, args ...any) {
	p.log = append(p.log, fmt.Sprintf("%8.3fs ", p.now().Seconds())+fmt.Sprintf(format, args...))
}

func (p *randomProgram) run(n int) {
	p.dead = "dead"
	p.a = New(p.t)
	p.began = p.a.cloud.began
	r := p.random
	m := &naiveQueue{fifo: r.IntN(2) == 0, visibility: time.Duration(r.IntN(20)) * time.Second, retention: time.Duration(60+r.IntN(300)) * time.Second,
		arrivals: map[string]time.Duration{}}
	if r.IntN(2) == 0 {
		m.most = 1 + r.IntN(4)
	}
	if r.IntN(3) == 0 {
		m.delay = time.Duration(r.IntN(10)) * time.Second
	}
	p.model = m
	attributes := map[string]string{"VisibilityTimeout": fmt.Sprint(m.visibility.Seconds()), "MessageRetentionPeriod": fmt.Sprint(m.retention.Seconds()), "DelaySeconds": fmt.Sprint(m.delay.Seconds())}
	name := "q"
	deadAttributes := map[string]string{}
	if m.fifo {
		name, p.dead = "q.fifo", "dead.fifo"
		attributes["FifoQueue"], deadAttributes["FifoQueue"] = "true", "true"
	}
	_, err := p.call("CreateQueue").createQueue(&createQueueInput{QueueName: &p.dead, Attributes: deadAttributes})
	p.must(err)
	if m.most > 0 {
		attributes["RedrivePolicy"] = fmt.Sprintf(`{"deadLetterTargetArn":%q,"maxReceiveCount":%d}`, p.a.Queue(p.dead).ARN(), m.most)
	}
	_, err = p.call("CreateQueue").createQueue(&createQueueInput{QueueName: &name, Attributes: attributes})
	p.must(err)
	p.q = p.a.cloud.regions[place{DefaultAccount, DefaultRegion}].queues[name]
	p.note("fifo %t %v, at most %d receives", m.fifo, attributes, m.most)
	for range n {
		p.step()
		p.done++
		p.compare()
	}
	if ds := p.a.Queue(p.dead).Messages(); len(ds) != len(m.dead) {
		p.fail("%d dead letters, the model has %d", len(ds), len(m.dead))
	}
}

func (p *randomProgram) step() {
	r, m, url := p.random, p.model, &p.q.name
	pick := func() (h heldReceipt, ok bool) {
		if len(p.held) == 0 {
			return h, false
		}
		return p.held[max(0, len(p.held)-1-r.IntN(12))], true
	}
	switch k := r.IntN(100); {
	case k < 30: // send
		in := &sendMessageInput{QueueUrl: url, MessageBody: ptr(fmt.Sprint("m", p.done)), MessageDeduplicationId: nil}
		delay := m.delay
		if m.fifo {
			in.MessageGroupId, in.MessageDeduplicationId = ptr(string(rune('a'+r.IntN(4)))), ptr(fmt.Sprint(r.IntN(200)))
		} else if r.IntN(3) == 0 {
			in.DelaySeconds = ptr(int32(r.IntN(15)))
			delay = time.Duration(*in.DelaySeconds) * time.Second
		}
		p.note("send %s to %q, ID %q, delay %v", *in.MessageBody, deref(in.MessageGroupId), deref(in.MessageDeduplicationId), delay)
		_, err := p.call("SendMessage").sendMessage(in)
		p.must(err)
		m.tick(p.now())
		if id := deref(in.MessageDeduplicationId); m.fifo {
			if at, ok := m.arrivals[id]; ok && p.now() < at+5*time.Minute {
				return
			}
			m.arrivals[id] = p.now()
		}
		m.messages = append(m.messages, &naiveMessage{body: *in.MessageBody, group: deref(in.MessageGroupId), sent: p.now(), hidden: p.now() + delay})
	case k < 60: // receive
		in := &receiveMessageInput{QueueUrl: url, MaxNumberOfMessages: ptr(int32(1 + r.IntN(10)))}
		visibility := m.visibility
		if r.IntN(2) == 0 {
			in.VisibilityTimeout = ptr(int32(r.IntN(30)))
			visibility = time.Duration(*in.VisibilityTimeout) * time.Second
		}
		wait := time.Duration(0)
		if r.IntN(4) == 0 {
			in.WaitTimeSeconds = ptr(int32(r.IntN(21)))
			wait = time.Duration(*in.WaitTimeSeconds) * time.Second
		}
		p.receive(in, visibility, wait)
	case k < 75: // delete
		h, ok := pick()
		if !ok {
			return
		}
		m.tick(p.now())
		p.note("delete %s, receipt %d", h.body, h.receipt)
		_, err := p.call("DeleteMessage").deleteMessage(&deleteMessageInput{QueueUrl: url, ReceiptHandle: &h.handle})
		there := slices.ContainsFunc(m.messages, func(o *naiveMessage) bool { return o.body == h.body })
		current := m.byReceipt(h.receipt)
		refused := m.fifo && there && (current == nil || current.available(p.now()))
		if (err != nil) != refused {
			p.fail("delete: %v, want refused %t", err, refused)
		}
		if current != nil && !refused {
			m.messages = slices.DeleteFunc(m.messages, func(o *naiveMessage) bool { return o == current })
		}
	case k < 88: // change visibility
		h, ok := pick()
		if !ok {
			return
		}
		m.tick(p.now())
		seconds := int32(r.IntN(25))
		if r.IntN(3) == 0 {
			seconds = 0
		}
		p.note("change %s, receipt %d, to %d s", h.body, h.receipt, seconds)
		_, err := p.call("ChangeMessageVisibility").changeMessageVisibility(&changeMessageVisibilityInput{QueueUrl: url, ReceiptHandle: &h.handle, VisibilityTimeout: &seconds})
		current := m.byReceipt(h.receipt)
		allowed := current != nil && !current.available(p.now())
		if (err == nil) != allowed {
			p.fail("change: %v, want allowed %t", err, allowed)
		}
		if allowed {
			current.hidden = p.now() + time.Duration(seconds)*time.Second
			current.flies = seconds > 0
		}
	case k < 97: // time
		d := time.Duration(r.IntN(12_000)) * time.Millisecond
		if r.IntN(30) == 0 {
			d = time.Duration(r.IntN(400)) * time.Second
		}
		time.Sleep(d)
	case k < 98:
		_, err := p.call("PurgeQueue").purgeQueue(&queueInput{QueueUrl: url})
		p.note("purge: %v", err)
		if err == nil {
			m.messages, m.arrivals = nil, map[string]time.Duration{}
		}
	default: // change an attribute
		m.visibility = time.Duration(r.IntN(20)) * time.Second
		m.retention = time.Duration(60+r.IntN(300)) * time.Second
		p.note("visibility %v, retention %v", m.visibility, m.retention)
		m.tick(p.now())
		_, err := p.call("SetQueueAttributes").setQueueAttributes(&setQueueAttributesInput{QueueUrl: url, Attributes: map[string]string{
			"VisibilityTimeout": fmt.Sprint(m.visibility.Seconds()), "MessageRetentionPeriod": fmt.Sprint(m.retention.Seconds())}})
		p.must(err)
	}
}

// receive receives, and holds what comes and when against the model.
func (p *randomProgram) receive(in *receiveMessageInput, visibility, wait time.Duration) {
	m := p.model
	began := p.now()
	buried := uint64(len(p.a.Queue(p.dead).Sent()))
	out, err := p.call("ReceiveMessage").receiveMessage(in)
	p.must(err)
	var got []string
	// What the rules leave open is the order of groups: those of which there are
	// dead letters alone come first, then those that were given out, then others.
	var order []string
	for _, letter := range p.lettersOf(p.now(), buried) {
		if !slices.ContainsFunc(out.Messages, func(g receivedMessage) bool { return p.groupOf(g.Body) == letter }) {
			order = append(order, letter)
		}
	}
	for _, g := range out.Messages {
		got = append(got, g.Body)
		if group := p.groupOf(g.Body); !slices.Contains(order, group) {
			order = append(order, group)
		}
	}
	for _, o := range m.messages {
		if !slices.Contains(order, o.group) {
			order = append(order, o.group)
		}
	}
	// A long poll gets something at the first instant at which there is something.
	at := began
	var want []*naiveMessage
	for {
		m.tick(at)
		want = m.receive(at, int(*in.MaxNumberOfMessages), visibility, order)
		if len(want) > 0 || at >= began+wait {
			break
		}
		next := began + wait
		for _, o := range m.messages {
			if o.hidden > at {
				next = min(next, o.hidden)
			}
			if o.sent+m.retention > at {
				next = min(next, o.sent+m.retention)
			}
		}
		at = next
	}
	p.note("receive at most %d for %v, wait %v: %v", *in.MaxNumberOfMessages, visibility, wait, got)
	var bodies []string
	for _, o := range want {
		bodies = append(bodies, o.body)
	}
	if !slices.Equal(got, bodies) {
		p.fail("received %v, the model %v", got, bodies)
	}
	if p.now() != at {
		p.fail("received after %v, the model after %v", p.now()-began, at-began)
	}
	for k, g := range out.Messages {
		p.held = append(p.held, heldReceipt{g.ReceiptHandle, want[k].receipt, g.Body})
	}
}

// lettersOf returns the groups of the dead letters of an instant, without the
// first ones.
func (p *randomProgram) lettersOf(at time.Duration, first uint64) (groups []string) {
	if !p.model.fifo {
		return nil
	}
	p.a.cloud.mu.Lock()
	defer p.a.cloud.mu.Unlock()
	for _, m := range p.a.cloud.regions[place{DefaultAccount, DefaultRegion}].queues[p.dead].byNumber {
		if m.enqueued == at && m.number > first {
			groups = append(groups, m.groupID)
		}
	}
	return groups
}

func (p *randomProgram) groupOf(body string) string {
	for _, o := range p.model.messages {
		if o.body == body {
			return o.group
		}
	}
	return ""
}

// compare holds the queue's messages and their states against the model's.
func (p *randomProgram) compare() {
	now := p.now()
	p.model.tick(now)
	var want, got []string
	for _, o := range p.model.messages {
		s := Visible
		if !o.available(now) {
			s = Delayed
			if o.flies {
				s = InFlight
			}
		}
		want = append(want, fmt.Sprintf("%s %s %d", o.body, s, o.receives))
	}
	for _, o := range p.a.Queue(p.q.name).Messages() {
		got = append(got, fmt.Sprintf("%s %s %d", o.Body, o.State, o.Receives))
	}
	if !slices.Equal(want, got) {
		sort.Strings(want)
		sort.Strings(got)
		p.fail("the queue has\n%s\nthe model\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	p.a.cloud.mu.Lock()
	err := checkQueue(p.q)
	p.a.cloud.mu.Unlock()
	p.must(err)
}
