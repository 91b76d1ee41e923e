package fakeaws

import (
	"container/heap"
	"math/rand/v2"
	"time"
)

// instant is a point in time, as the time since the fake began. It is monotonic
// and exact.
type instant = time.Duration

// never is an instant that does not come.
const never = instant(1<<63 - 1)

// clock returns the instant that is now.
func (c *cloud) clock() instant { return time.Since(c.began) }

// wall returns the time of an instant.
func (c *cloud) wall(i instant) time.Time { return c.began.Add(i) }

// millis is the time of an instant as SQS writes it.
func (c *cloud) millis(i instant) int64 { return c.wall(i).UnixMilli() }

// A queue is one queue of SQS. See design.md for why it is not one of fanout's.
//
//	send ─▶ delayed ─due─▶ visible ─receive─▶ in flight ─delete─▶ gone
//	                          ▲                  │
//	                          └── visibility ends┘
//
// Invariants: each message is in byNumber and ages. It is in waiting if it is
// delayed or in flight. A visible one is in ready if the queue is standard; in
// a FIFO queue ready has the first message of each group, if that is visible.
// counts has the number of messages by state. All is guarded by the cloud's
// lock.
type queue struct {
	cloud  *cloud
	region *region
	name   string
	arn    string
	fifo   bool
	serial uint64 // distinguishes queues of the same name, for receipt handles

	attributes queueAttributes
	rules      readPolicy
	tags       map[string]string
	created    instant
	modified   instant
	purged     instant // of the last purge, negative if there was none
	stopped    bool    // deleted, or the fake was closed

	numbers  uint64 // of messages sent
	stamps   uint64 // of receives
	turns    uint64 // of messages that became ready, in a FIFO queue
	byNumber map[uint64]*message
	ready    readyHeap
	waiting  dueHeap
	ages     ageHeap
	counts   [3]int            // by state
	groups   map[string]*group // of a FIFO queue, those that have messages
	recent   recentIDs         // of a FIFO queue
	attempts attempts          // of a FIFO queue

	history []Message  // all that were added, if the fake keeps it
	shuffle *rand.Rand // nil if the order is that of sending

	waiters  []*waiter   // long polls, the oldest first
	mappings []*Mapping  // the oldest first
	timer    *time.Timer // runs if there are waiters or mappings, and something is due
	tasks    []*moveTask // the newest last
}

// A state is where a message is in its life.
type state uint8

const (
	visible state = iota
	delayed
	inFlight
)

// A message is one message in a queue.
type message struct {
	content
	number   uint64 // in its queue: the order of sending
	turn     uint64 // the order in ready
	id       string
	sequence string // of a FIFO queue
	sender   string
	group    *group // of a FIFO queue
	source   string // the ARN of the queue whose dead letter it is

	sent     instant // when it was sent to its first queue
	enqueued instant // retention counts from it
	state    state
	due      instant // when delayed or inFlight ends

	receives      int // in all queues
	receivesHere  int // in this one
	firstReceived instant
	received      instant // the last receive
	stamp         uint64  // of the last receive
	changed       bool    // its visibility was changed since

	readyAt, waitingAt, agesAt int // places in the heaps, -1 if not there
	before, after              *message
}

// content is what a message is made of by its sender.
type content struct {
	body             string
	attributes       map[string]attributeValue
	trace            *attributeValue // AWSTraceHeader
	groupID          string
	deduplicationID  string
	bodyMD5          string
	attributesMD5    string
	systemMD5        string
	size             int
	deduplicationKey string
}

// A group is the messages of a FIFO queue that have the same group ID. Those
// before the first one that is not visible can be received, in order.
type group struct {
	id          string
	first, last *message
}

func newQueue(c *cloud, r *region, name string) *queue {
	return &queue{cloud: c, region: r, name: name, arn: arn{"sqs", r.place, name}.String(),
		byNumber: map[uint64]*message{}, purged: -time.Hour}
}

// addLocked puts a message into the queue, delayed until due if that is in the
// future. It numbers the message.
func (q *queue) addLocked(m *message, now, due instant) {
	q.numbers++
	m.number, m.turn = q.numbers, q.numbers
	m.readyAt, m.waitingAt, m.agesAt = -1, -1, -1
	q.byNumber[m.number] = m
	heap.Push(&q.ages, m)
	if q.fifo {
		g := q.groups[m.groupID]
		if g == nil {
			g = &group{id: m.groupID}
			if q.groups == nil {
				q.groups = map[string]*group{}
			}
			q.groups[m.groupID] = g
		}
		m.group, m.before = g, g.last
		if g.last != nil {
			g.last.after = m
		} else {
			g.first = m
		}
		g.last = m
	}
	m.state = visible
	q.counts[visible]++
	if due > now {
		q.hideLocked(m, delayed, due)
	} else {
		q.offerLocked(m)
	}
	if q.cloud.tb != nil {
		q.history = append(q.history, q.exportedLocked(m))
	}
}

// offerLocked puts into ready what can be received because m is visible.
func (q *queue) offerLocked(m *message) {
	if !q.fifo {
		if m.readyAt < 0 {
			if q.shuffle != nil {
				m.turn = q.shuffle.Uint64()
			}
			heap.Push(&q.ready, m)
		}
		return
	}
	q.offerGroupLocked(m.group)
}

// offerGroupLocked puts the first message of a group into ready if it is
// visible, behind the other groups.
func (q *queue) offerGroupLocked(g *group) {
	if f := g.first; f.state == visible && f.readyAt < 0 {
		q.turns++
		f.turn = q.turns
		heap.Push(&q.ready, f)
	}
}

// hideLocked makes a visible message delayed or in flight until due.
func (q *queue) hideLocked(m *message, s state, due instant) {
	if m.readyAt >= 0 {
		heap.Remove(&q.ready, m.readyAt)
	}
	q.counts[m.state]--
	q.counts[s]++
	m.state, m.due = s, due
	heap.Push(&q.waiting, m)
}

// showLocked makes a message that is delayed or in flight visible.
func (q *queue) showLocked(m *message) {
	heap.Remove(&q.waiting, m.waitingAt)
	q.counts[m.state]--
	q.counts[visible]++
	m.state = visible
	q.offerLocked(m)
}

// removeLocked takes a message out of the queue.
func (q *queue) removeLocked(m *message) {
	if m.readyAt >= 0 {
		heap.Remove(&q.ready, m.readyAt)
	}
	if m.waitingAt >= 0 {
		heap.Remove(&q.waiting, m.waitingAt)
	}
	heap.Remove(&q.ages, m.agesAt)
	delete(q.byNumber, m.number)
	q.counts[m.state]--
	g := m.group
	if g == nil {
		return
	}
	if m.before != nil {
		m.before.after = m.after
	} else {
		g.first = m.after
	}
	if m.after != nil {
		m.after.before = m.before
	} else {
		g.last = m.before
	}
	m.before, m.after, m.group = nil, nil, nil
	if g.first == nil {
		delete(q.groups, g.id)
		return
	}
	q.offerGroupLocked(g)
}

// advanceLocked does what has become due: delays and visibility timeouts end,
// and messages that are too old go.
func (q *queue) advanceLocked(now instant) {
	for len(q.ages) > 0 && q.ages[0].enqueued+q.attributes.retention() <= now {
		q.removeLocked(q.ages[0])
	}
	for len(q.waiting) > 0 && q.waiting[0].due <= now {
		q.showLocked(q.waiting[0])
	}
}

// nextLocked is when advanceLocked has something to do.
func (q *queue) nextLocked() instant {
	next := never
	if len(q.waiting) > 0 {
		next = q.waiting[0].due
	}
	if len(q.ages) > 0 {
		next = min(next, q.ages[0].enqueued+q.attributes.retention())
	}
	return next
}

// clearLocked takes all messages out of the queue.
func (q *queue) clearLocked() {
	clear(q.byNumber)
	q.attempts, q.recent = nil, recentIDs{}
	q.ready, q.waiting, q.ages, q.groups, q.counts = nil, nil, nil, nil, [3]int{}
}

// A readyHeap has the message on top that was sent first, or, in a FIFO queue,
// the first one of the group that has waited longest.
type readyHeap []*message

func (h readyHeap) Len() int           { return len(h) }
func (h readyHeap) Less(i, j int) bool { return h[i].turn < h[j].turn }
func (h readyHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i]; h[i].readyAt, h[j].readyAt = i, j }
func (h *readyHeap) Push(x any)        { m := x.(*message); m.readyAt = len(*h); *h = append(*h, m) }
func (h *readyHeap) Pop() any {
	m := (*h)[len(*h)-1]
	(*h)[len(*h)-1] = nil
	*h = (*h)[:len(*h)-1]
	m.readyAt = -1
	return m
}

// A dueHeap has the message on top whose delay or visibility timeout ends first.
type dueHeap []*message

func (h dueHeap) Len() int { return len(h) }
func (h dueHeap) Less(i, j int) bool {
	return h[i].due < h[j].due || h[i].due == h[j].due && h[i].number < h[j].number
}
func (h dueHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i]; h[i].waitingAt, h[j].waitingAt = i, j }
func (h *dueHeap) Push(x any)   { m := x.(*message); m.waitingAt = len(*h); *h = append(*h, m) }
func (h *dueHeap) Pop() any {
	m := (*h)[len(*h)-1]
	(*h)[len(*h)-1] = nil
	*h = (*h)[:len(*h)-1]
	m.waitingAt = -1
	return m
}

// An ageHeap has the message on top that was enqueued first.
type ageHeap []*message

func (h ageHeap) Len() int { return len(h) }
func (h ageHeap) Less(i, j int) bool {
	return h[i].enqueued < h[j].enqueued || h[i].enqueued == h[j].enqueued && h[i].number < h[j].number
}
func (h ageHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i]; h[i].agesAt, h[j].agesAt = i, j }
func (h *ageHeap) Push(x any)   { m := x.(*message); m.agesAt = len(*h); *h = append(*h, m) }
func (h *ageHeap) Pop() any {
	m := (*h)[len(*h)-1]
	(*h)[len(*h)-1] = nil
	*h = (*h)[:len(*h)-1]
	m.agesAt = -1
	return m
}
