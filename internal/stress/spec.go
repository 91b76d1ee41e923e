package main

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/gofanout/fanout"
)

// How handlers behave.
const (
	calm  = iota // acknowledge
	mixed        // now and then something else
	wild         // often
)

// A spec is what a queue is like.
type spec struct {
	capacity   int
	overflow   fanout.Overflow
	visibility time.Duration
	attempts   int
	delay      time.Duration
	ttl        time.Duration
	keep       int // of the messages one in so many is accepted, 1 is all

	deadCapacity int
	deadOverflow fanout.Overflow
	shared       bool // its dead letters go to the topic's shared dead-letter queue

	temper      int
	push, pull  int // consumers
	batch       int // 0: a handler of one message
	concurrency int
	letters     bool // the dead letters are consumed
	redrives    bool
	purges      bool
	pauses      bool
	unsubscribe bool

	// Of its subscribers.
	handlerTimeout time.Duration // 0: none
	autoExtend     time.Duration // 0: off; else nobody receives, and a handler may last so long
	rate           float64       // messages a second, 0: no limit
	around         bool          // their handlers have an interceptor

	// inOrder: one worker and no retry, so all must come in the order of
	// publication.
	inOrder bool

	replay int // of the topic's last messages it begins with so many, of those that it retains
	retain int
}

func (s spec) String() string {
	type plain spec
	return fmt.Sprintf("%+v", plain(s))
}

// traits are what the queues of a world have in common.
type traits struct {
	keys    bool // messages have ordering keys
	delays  bool // messages have delays of their own
	filters bool
	hooks   bool // all hooks are listened to
	drops   bool // queues may have Drop policies
	wide    bool // many queues, few messages
	around  bool // publishes and handlers have interceptors
	tiny    bool // queues may hold one message only, so that batches are refused
	dedup   bool // messages have deduplication IDs, and some are published again
	retain  int  // messages that the topic retains for queues that are opened later
}

func randomTraits(r *rand.Rand) traits {
	t := traits{
		keys:    r.IntN(3) == 0,
		filters: r.IntN(2) == 0,
		hooks:   r.IntN(4) == 0,
		drops:   r.IntN(3) > 0,
		wide:    r.IntN(2) == 0,
		tiny:    r.IntN(3) == 0,
		around:  r.IntN(5) == 0,
	}
	t.delays = !t.keys && r.IntN(4) == 0
	t.dedup = r.IntN(3) == 0
	if r.IntN(3) == 0 {
		t.retain = 1 + r.IntN(200)
	}
	return t
}

func randomSpec(r *rand.Rand, t traits) spec {
	s := spec{
		capacity:     8 + r.IntN(60),
		overflow:     fanout.Block,
		visibility:   time.Duration(15+r.IntN(25)) * time.Millisecond,
		attempts:     1 + r.IntN(4),
		keep:         1,
		deadCapacity: 1 + r.IntN(8),
		deadOverflow: fanout.Block,
		temper:       mixed,
		push:         1 + r.IntN(2),
		concurrency:  1 + r.IntN(4),
		letters:      r.IntN(8) > 0,
		redrives:     r.IntN(4) == 0,
		purges:       r.IntN(12) == 0,
		pauses:       r.IntN(6) == 0,
		unsubscribe:  r.IntN(4) == 0,
	}
	if t.tiny && r.IntN(10) == 0 {
		s.capacity = 1 + r.IntN(3)
	}
	switch n := r.IntN(20); {
	case n == 0:
		s.overflow = fanout.Reject
		s.capacity += 64
	case n < 8 && t.drops:
		s.overflow = fanout.DropOldest + fanout.Overflow(n%2)
	}
	if n := r.IntN(10); n < 2 {
		s.temper = wild
	} else if n < 5 {
		s.temper = calm
	}
	switch r.IntN(6) {
	case 0:
		s.push, s.pull = 0, 1+r.IntN(3)
	case 1:
		s.pull = 1
	case 2:
		s.batch = 1 + r.IntN(8)
	}
	if t.drops && r.IntN(8) == 0 {
		s.deadOverflow = fanout.DropOldest
	}
	if r.IntN(8) == 0 {
		s.shared, s.deadOverflow = true, fanout.Block
	}
	if t.filters && r.IntN(5) == 0 {
		s.keep = 2 + r.IntN(4)
	}
	if t.filters && r.IntN(12) == 0 {
		s.delay = micros(r, 2000) + 1
	}
	if r.IntN(12) == 0 {
		s.ttl = time.Duration(2+r.IntN(30)) * time.Millisecond
	}
	if r.IntN(5) == 0 {
		s.handlerTimeout = s.visibility * time.Duration(1+r.IntN(3)) / 5
	}
	if r.IntN(6) == 0 && s.handlerTimeout == 0 && s.push > 0 {
		s.autoExtend, s.pull = s.visibility*time.Duration(2+r.IntN(3)), 0
	} else if r.IntN(12) == 0 {
		s.rate = float64(4000 + r.IntN(16_000))
	}
	s.around = r.IntN(6) == 0
	if r.IntN(6) == 0 {
		s.strict(r)
		if t.keys {
			s.batch = 0 // of a batch the second with the same key comes later
		}
	}
	if t.retain > 0 && s.ttl == 0 && r.IntN(3) == 0 {
		s.replay, s.retain = 1+r.IntN(2*t.retain), t.retain // what has expired is not replayed, so it has no time to live
	}
	return s
}

// strict makes s a queue that nothing happens to, so that the order is known.
func (s *spec) strict(r *rand.Rand) {
	s.inOrder, s.temper, s.visibility, s.ttl, s.delay = true, calm, time.Hour, 0, 0
	s.handlerTimeout, s.autoExtend = 0, 0
	s.push, s.pull, s.concurrency = 1, 0, 1
	if r.IntN(3) == 0 {
		s.push, s.pull, s.batch = 0, 1, 0
	}
	s.redrives, s.unsubscribe = false, false
}

// options returns what makes such a queue.
func (s spec) options(shared *fanout.Queue[ticket]) []fanout.QueueOption {
	o := []fanout.QueueOption{
		fanout.WithCapacity(s.capacity), fanout.WithOverflow(s.overflow), fanout.WithVisibilityTimeout(s.visibility),
		fanout.WithMaxAttempts(s.attempts), fanout.WithBackoff(fanout.Exponential(time.Millisecond, 8*time.Millisecond)),
	}
	if s.shared {
		o = append(o, fanout.WithDeadLetterQueue(shared))
	} else {
		o = append(o, fanout.WithDeadLetterCapacity(s.deadCapacity), fanout.WithDeadLetterOverflow(s.deadOverflow))
	}
	if s.delay > 0 {
		o = append(o, fanout.WithDelay(s.delay))
	}
	if s.ttl > 0 {
		o = append(o, fanout.WithTimeToLive(s.ttl))
	}
	if s.keep > 1 {
		o = append(o, fanout.WithFilter(s.accepts))
	}
	if s.replay > 0 {
		o = append(o, fanout.WithReplay(s.replay))
	}
	return o
}

// subscriberOptions returns what its subscribers are like.
func (s spec) subscriberOptions() []fanout.WorkerOption {
	o := []fanout.WorkerOption{fanout.WithConcurrency(s.concurrency)}
	if s.handlerTimeout > 0 {
		o = append(o, fanout.WithHandlerTimeout(s.handlerTimeout))
	}
	if s.autoExtend > 0 {
		o = append(o, fanout.WithAutoExtend(s.autoExtend))
	}
	if s.rate > 0 {
		o = append(o, fanout.WithRateLimit(s.rate))
	}
	return o
}

// accepts is the queue's filter.
func (s spec) accepts(m ticket) bool { return s.keep <= 1 || int(m)%s.keep == 0 }
