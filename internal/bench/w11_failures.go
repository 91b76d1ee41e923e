package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/gofanout/fanout"
)

var failures = workload{
	key: "W11", title: "Failures: one publisher, 4 queues with one subscriber each; 1% of the messages fail twice, 0.1% die",
	note:     "A message is tried three times, a millisecond apart, and then goes to a dead-letter queue. Ratios are to plain, where nothing fails, of the same round. hand-written is a channel, a map and a timer, with retries by timers and a slice of the dead.",
	baseline: plain,
	cells: func(o options) (cells []cell) {
		s := shape{queues: 4, workers: 1, publishers: 1, capacity: capacity}
		for _, sys := range []system{
			channels, renamed(find(ours, push), plain), failingSystem("fanout-failing", false), failingSystem("fanout-failing64", true),
			renamed(handWritten, "hand-written-plain"), handFailing, renamed(find(ours, push), plain+"-again"), channelsAgain,
		} {
			cells = append(cells, flowCell(o, "s4", sys, s))
		}
		return cells
	},
}

var errAttempt = errors.New("the attempt failed")

const retryAfter = time.Millisecond

func failingSystem(name string, batches bool) system {
	gives := "1% fail twice, 0.1% die, published one by one"
	if batches {
		gives = "1% fail twice, 0.1% die, published in batches of 64"
	}
	return way{name: name, gives: gives, batches: batches, consume: failingPush, check: checkDead,
		topic: []fanout.TopicOption{silent},
		queue: queueOptions(fanout.WithMaxAttempts(attempts), fanout.WithBackoff(fanout.Constant(retryAfter)), fanout.WithDeadLetterCapacity(fanout.Unlimited)),
	}.system()
}

// failingPush counts a message when its last attempt ends.
func failingPush(b *fanoutBus, s shape, q *fanout.Queue[*payload], queue int) error {
	return subscribeEach(b, s, q, queue, func(t *tally) fanout.Handler[*payload] {
		return func(_ context.Context, d fanout.Delivery[*payload]) error {
			m := d.Body
			if m.fails == 0 {
				t.take(m.word)
				return nil
			}
			attempt := uint32(d.Attempt())
			if attempt > m.fails || attempt == attempts {
				t.take(m.word)
			}
			if attempt <= m.fails {
				return errAttempt
			}
			return nil
		}
	})
}

// checkDead compares the dead with those that had to die.
func checkDead(qs []*fanout.Queue[*payload]) error {
	for _, q := range qs {
		s := q.Stats()
		die, twice := dying(int(s.Published))
		if s.Dead != die || int(s.Failed) != attempts*die+2*twice {
			return fmt.Errorf("%w: of %d messages in queue %s %d died after %d failed attempts, not %d after %d",
				errLost, s.Published, q.Name(), s.Dead, s.Failed, die, attempts*die+2*twice)
		}
	}
	return nil
}

// dying is how many of the first n messages die, and how many others fail twice.
func dying(n int) (die, twice int) {
	die, _ = choice(func(_ int, m *payload) bool { return m.fails == attempts }).chosen(0, n)
	twice, _ = choice(func(_ int, m *payload) bool { return m.fails == 2 }).chosen(0, n)
	return die, twice
}

// handFailing is handWritten with retries.
var handFailing = system{
	name: "hand-written-failing", gives: "ack, timeout, retries; no fence", drains: true,
	open: func(s shape) (bus, error) {
		b := &handFailingBus{}
		for q := range s.queues {
			f := &failingQueue{ch: make(chan attempt, s.capacity), pending: map[uint64]*time.Timer{}}
			b.queues = append(b.queues, f)
			t := s.tally(q, 0)
			b.wg.Go(func() { f.consume(t) })
		}
		return b, nil
	},
}

// An attempt is a message and how often it has been tried.
type attempt struct {
	m *payload
	n uint32
}

type failingQueue struct {
	ch chan attempt

	mu      sync.Mutex // guards the fields below
	next    uint64
	pending map[uint64]*time.Timer
	dead    []*payload
}

func (f *failingQueue) consume(t *tally) {
	for a := range f.ch {
		f.mu.Lock()
		f.next++
		id := f.next
		f.pending[id] = time.AfterFunc(30*time.Second, func() { f.ch <- a })
		f.mu.Unlock()
		a.n++
		failed := a.n <= a.m.fails
		if !failed || a.n == attempts {
			t.take(a.m.word)
		}
		f.mu.Lock()
		f.pending[id].Stop()
		delete(f.pending, id)
		if failed && a.n == attempts {
			f.dead = append(f.dead, a.m)
		}
		f.mu.Unlock()
		if failed && a.n < attempts {
			time.AfterFunc(retryAfter, func() { f.ch <- a })
		}
	}
}

type handFailingBus struct {
	queues []*failingQueue
	wg     sync.WaitGroup
}

func (b *handFailingBus) publish(_ int, ms []*payload) error {
	for _, m := range ms {
		for _, f := range b.queues {
			f.ch <- attempt{m: m}
		}
	}
	return nil
}

// stop is called when all messages have been counted, so that no retry waits.
func (b *handFailingBus) stop() error {
	for _, f := range b.queues {
		close(f.ch)
	}
	b.wg.Wait()
	return nil
}
