package model

import (
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/gofanout/fanout"
)

var errBusy = errors.New("busy")

type state uint8

const (
	backlog  state = iota // ready, in the order of publication
	due                   // ready; takes turns with the backlog
	delayed               // waits for the end of a delay or snooze
	retrying              // waits for the end of a backoff
	inFlight              // waits for the visibility timeout
	parked
	released
	blocked // behind another message of its key
)

// A copyID names one queue's copy of a message, wherever it goes: into the
// queue's dead-letter queue and back.
type copyID struct{ root, body int }

// A deliveryID names a delivery: the nth of a copy.
type deliveryID struct {
	copyID
	nth int
}

// A message is one queue's copy of a message.
type message struct {
	fanout.Message[int]
	root     int           // the queue that got it
	seq      int           // order of publication, in a shared dead-letter queue of arrival
	origin   int           // order of publication
	at, born time.Duration // when it was published, and when its time to live began
	state    state
	since    time.Duration // when it became ready
	until    time.Duration // delayed, retrying, in flight: until when
	turn     int           // who waits longer, among equals; only a first guess
	spent    int           // attempts
	passes   int           // snoozes and releases that had to wait
	nth      int           // deliveries made
	deaths   int           // times that it went to a dead-letter queue
	start    time.Duration // of the delivery
	// A delivery out of a hand may have started up to slack later, as far as the
	// topic knows, and then end later, but not after most.
	slack, most time.Duration
	visibility  time.Duration // of the delivery
	extended    time.Duration // an extension until then, if any
	redriven    bool
	history     []attempt
}

func (x *message) copyID() copyID         { return copyID{x.root, x.Body} }
func (x *message) deliveryID() deliveryID { return deliveryID{x.copyID(), x.nth} }

func (x *message) nextDelivery() deliveryID {
	return deliveryID{x.copyID(), x.nth + 1}
}

func (x *message) waits() bool {
	return x.state == delayed || x.state == retrying || x.state == inFlight
}

func (x *message) ready() bool { return x.state == backlog || x.state == due }

// An attempt is a fanout.Attempt whose time is relative to the topic's creation.
type attempt struct {
	Number         int
	Cause          fanout.Cause
	Queue          string
	Start, Elapsed time.Duration
	Err            error
	slack          time.Duration // the start may be seen up to so much later
}

// backoffKind says how a queue's backoff grows.
type backoffKind uint8

const (
	constant    backoffKind = iota
	linear                  // the first wait times the attempt
	exponential             // about the first wait, doubled each time, up to four times
	standard                // the library's default
)

type settings struct {
	capacity, deadCapacity, maxAttempts, replay int
	overflow, deadOverflow                      fanout.Overflow
	visibility, delay, ttl                      time.Duration
	backoff                                     time.Duration
	kind                                        backoffKind
	modulus, rest                               int // the filter: bodies with body % modulus == rest
	shared                                      bool
}

func (s settings) filtered() bool { return s.modulus > 0 }

func (s settings) accepts(body int) bool { return s.modulus == 0 || body%s.modulus == s.rest }

func (s settings) drops() bool {
	return s.overflow == fanout.DropOldest || s.overflow == fanout.DropNewest
}

// waits returns the shortest and the longest wait after an attempt.
func (s settings) waits(attempt int) (shortest, longest time.Duration) {
	first, most := s.backoff, 4*s.backoff
	switch s.kind {
	case constant:
		return first, first
	case linear:
		return first * time.Duration(attempt), first * time.Duration(attempt)
	case standard:
		first, most = 100*time.Millisecond, 30*time.Second
	}
	w := first
	for range attempt - 1 {
		w = min(2*w, most)
	}
	return max(w/2, time.Millisecond), max(w, time.Millisecond)
}

type queue struct {
	ref                      ref
	topic, name              string
	set                      settings
	letters                  bool // it is a dead-letter queue
	messages                 []*message
	heads                    map[string]int // per key the number of the message that may be delivered
	paused, closed, draining bool
	backlogsTurn             bool         // what was delivered last was due
	letter                   int          // the number of the latest letter, if it is shared
	count                    fanout.Stats // only what grows
	ended                    [fanout.Released + 1]uint64
	left                     []fanout.Message[int]
	last                     bool // it was closed with its topic
}

// A ref names a queue: one that was opened, its own dead-letter queue, or the
// one that is shared.
type ref struct {
	queue int
	kind  kind
}

type kind uint8

const (
	opened kind = iota
	ownDead
	sharedDead
)

var sharedRef = ref{kind: sharedDead}

type rememberedID struct {
	id    string
	until time.Duration
}

type phase uint8

const (
	open     phase = iota
	draining       // Shutdown waits for the queues
	burying        // Shutdown waits for the dead-letter queues too
	ended          // closed
)

// A subscriber of the model has no workers: it has runs.
type subscriber struct {
	id          int
	ref         ref
	concurrency int
	obeys       bool // its handlers return when their contexts end
	quick       int  // how its handlers return at once, if they do
	looks       bool // the driver looks at their contexts before that
	batch       int  // what they get at most, if they take several at a time
	stopping    bool
}

// A run is a handler that runs.
type run struct {
	sub      int
	delivery deliveryID
	others   []deliveryID // of a batch: what it got besides
	ending   []runEnd     // of a handler that has returned: what is to be settled
	stuck    bool
	why      error // its context was cancelled with
}

// A runEnd is how a delivery of a handler that has returned is to end.
type runEnd struct {
	deliveryID
	outcome
}

// all are the deliveries of the run.
func (r run) all() []deliveryID { return append([]deliveryID{r.delivery}, r.others...) }

func (r run) has(id deliveryID) bool { return r.delivery == id || slices.Contains(r.others, id) }

// A receive is a caller of Receive, ReceiveBatch or ReceiveInto that waits.
type receive struct {
	id         int
	ref        ref
	visibility time.Duration
	most       int
	limit      time.Duration // when its context ends; never if 0
	got        []deliveryView
	loop       bool       // a step of a range
	acks       int        // it acknowledges so many itself, and goes on
	leaves     bool       // after that
	acking     deliveryID // of which it is about to, if any
}

func (r receive) waits() bool { return len(r.got) < r.most && r.acking == deliveryID{} }

// A letter is a message at one of its times in a dead-letter queue.
type letter struct {
	copyID
	deaths int
}

// An offer is a publish or a redrive that waits for room.
type offer struct {
	id       int
	messages []fanout.Message[int]
	known    int // queues that were open when it began
	gate     int // 1 + the queue that it was found to wait for, or 0
	limit    time.Duration
	// doubtful lists the bodies of messages that were duplicates at some time
	// while the offer waited, and were taken out if somebody looked then.
	doubtful []int
	redrive  int // the queue, if letters are redriven
	letters  []letter
	unknown  bool // by IDs of which one is nobody's
	moved    int
}

func (o offer) redrives() bool { return o.letters != nil }

// A join is a caller of Subscriber.Shutdown that waits.
type join struct {
	id, sub int
	limit   time.Duration
}

// A result is what a call that may have waited returned.
type result struct {
	ID  int
	N   int
	Err error
	Got []deliveryView
}

// An ending says what settling a delivery returns that owns nothing.
type ending struct {
	id  deliveryID
	err error
}

type topic struct {
	now        time.Duration
	ordering   bool
	hooked     bool          // hooks hear of each delivery: nothing is prefetched
	window     time.Duration // of deduplication
	maxIDs     int
	retention  int
	queues     []*queue // in the order they were opened, closed ones too
	deads      []*queue // their own dead-letter queues, nil until needed
	shared     *queue   // or nil
	ids        []rememberedID
	retained   []message
	seq, turn  int
	unrouted   uint64
	duplicates uint64
	forgotten  uint64

	subs     []subscriber
	runs     []run
	receives []receive
	loops    []loop
	began    []time.Duration // of late, when handlers began
	offers   []offer
	joins    []join
	endings  []ending
	results  []result // of this step

	phase phase
	limit time.Duration // when the context of Shutdown ends
	why   error
	lefts []fanout.Left

	seen     *witness
	stirred  bool // messages have come by themselves in this step
	choices  []choice
	deferred []actionID
	passed   []copyID // looked at late, if at all
	asked    int
	wrong    string // why these choices can't be, if they can't
	cut      bool   // some choices were left out, as they are many
}

func (m *topic) clone() *topic {
	c := *m
	c.queues = make([]*queue, len(m.queues))
	c.deads = make([]*queue, len(m.deads))
	for k, q := range m.queues {
		c.queues[k] = q.clone()
		c.deads[k] = m.deads[k].clone()
	}
	c.shared = m.shared.clone()
	c.ids, c.retained = slices.Clone(m.ids), slices.Clone(m.retained)
	c.subs, c.runs, c.joins = slices.Clone(m.subs), slices.Clone(m.runs), slices.Clone(m.joins)
	c.receives, c.loops, c.offers = slices.Clone(m.receives), slices.Clone(m.loops), slices.Clone(m.offers)
	for k := range c.receives {
		c.receives[k].got = slices.Clip(c.receives[k].got)
	}
	c.endings = slices.Clone(m.endings)
	c.results = nil
	return &c
}

func (q *queue) clone() *queue {
	if q == nil {
		return nil
	}
	c := *q
	c.messages = make([]*message, len(q.messages))
	copies := make([]message, len(q.messages))
	for k, x := range q.messages {
		copies[k] = *x
		copies[k].history = slices.Clip(x.history)
		c.messages[k] = &copies[k]
	}
	c.heads = maps.Clone(q.heads)
	return &c
}

// at returns the queue that r names; looking at a dead-letter queue makes it.
func (m *topic) at(r ref) *queue {
	switch r.kind {
	case sharedDead:
		return m.shared
	case opened:
		return m.queues[r.queue]
	}
	return m.deadOf(m.queues[r.queue])
}

// deadOf returns a queue's dead-letter queue.
func (m *topic) deadOf(q *queue) *queue {
	if q.set.shared {
		return m.shared
	}
	k := q.ref.queue
	if m.deads[k] == nil {
		set := settings{
			capacity: q.set.deadCapacity, overflow: q.set.deadOverflow, visibility: q.set.visibility,
			backoff: q.set.backoff, kind: q.set.kind, maxAttempts: fanout.Unlimited,
		}
		m.deads[k] = &queue{
			ref: ref{k, ownDead}, topic: q.topic, name: q.name + "/dead", set: set, letters: true,
			closed: q.closed, draining: m.phase >= burying,
		}
	}
	return m.deads[k]
}

// all yields every queue and dead-letter queue.
func (m *topic) all(yield func(q *queue) bool) {
	for k, q := range m.queues {
		if !yield(q) || m.deads[k] != nil && !yield(m.deads[k]) {
			return
		}
	}
	if m.shared != nil {
		yield(m.shared)
	}
}

func (m *topic) named(name string) *queue {
	for _, q := range m.queues {
		if q.name == name && !q.closed {
			return q
		}
	}
	return nil
}
