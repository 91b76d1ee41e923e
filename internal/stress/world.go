package main

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gofanout/fanout"
)

// A world is what lives for one round: two topics whose handlers publish to
// each other's, and all who use them.
type world struct {
	c     config
	seed  uint64
	began time.Time
	sum   *summary

	arenas     [2]*arena
	budget     uint64 // deliveries after which the end may come
	deliveries atomic.Uint64
	full       chan struct{} // closed by checkFull, when budget is reached
	fullOnce   sync.Once
	filled     int64 // when the end began
	together   bool  // the topics end at the same time

	others sync.WaitGroup // what settles late
	sample sync.WaitGroup

	mu       sync.Mutex
	problems []violation
}

func (w *world) now() int64 { return int64(time.Since(w.began)) }

// complain notes what was found wrong at once.
func (w *world) complain(promise, format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.problems = append(w.problems, violation{promise: promise, what: fmt.Sprintf(format, args...)})
}

// An arena is a topic with its queues, its publishers and its ledgers.
type arena struct {
	w      *world
	n      uint64
	name   string
	top    *fanout.Topic[ticket]
	traits traits
	shared *fanout.Queue[ticket]
	other  *arena

	journal
	next    atomic.Int64 // the next ticket
	witness *book
	lent    atomic.Pointer[lent]
	offered atomic.Int64 // messages, to publish calls
	passed  atomic.Int64 // of them through the publish interceptor
	handled atomic.Int64 // runs of handlers through the topic's interceptor

	byName sync.Map // of the queue, or its dead-letter queue, to *book
	mu     sync.Mutex
	books  []*book

	// publishing ends when no more is to be published, stop is closed when
	// queues come and go no more, and done when the topic is closed.
	publishing    context.Context
	endPublishing context.CancelFunc
	stop, done    chan struct{}

	publishers, slots, consumers sync.WaitGroup
	// What Topic.Shutdown or Close said, and when it was called and returned.
	endCall, endRet int64
	endErr          error
	// patient: Shutdown had time enough to work all off, if the machine was quick.
	patient bool
}

// newWorld makes the topics of round n, with nobody in them.
func newWorld(c config, n int, budget uint64, sum *summary) (*world, error) {
	w := &world{c: c, seed: mix(c.seed, uint64(n)), began: time.Now(), sum: sum, budget: budget, full: make(chan struct{})}
	r := stream(w.seed, forWorld)
	for k, name := range []string{"main", "echo"} {
		a := &arena{w: w, n: uint64(k), name: name, traits: randomTraits(r), stop: make(chan struct{}), done: make(chan struct{})}
		a.messages = make([]message, most(budget, a.traits.wide))
		a.ids = make(map[string]ticket)
		a.publishing, a.endPublishing = context.WithCancel(context.Background())
		var o []fanout.TopicOption
		o = append(o, fanout.WithLogger(slog.New(slog.DiscardHandler)))
		if a.traits.hooks || a.traits.drops {
			o = append(o, fanout.WithHooks(a.hooks()))
		}
		if a.traits.around {
			o = append(o, fanout.WithPublishInterceptor(a.aroundPublish), fanout.WithHandlerInterceptor(a.aroundHandler))
		}
		if a.traits.keys {
			o = append(o, fanout.WithOrdering())
		}
		if a.traits.dedup {
			o = append(o, fanout.WithDeduplication(time.Hour, len(a.messages)+1))
		}
		if a.traits.retain > 0 {
			o = append(o, fanout.WithRetention(a.traits.retain))
		}
		var err error
		if a.top, err = fanout.NewTopic[ticket](name, o...); err != nil {
			return nil, err
		}
		a.shared, err = fanout.NewDeadLetterQueue[ticket](name+" shared", fanout.WithDeadLetterCapacity(2+r.IntN(6)),
			fanout.WithVisibilityTimeout(20*time.Millisecond), fanout.WithLogger(slog.New(slog.DiscardHandler)))
		if err != nil {
			return nil, err
		}
		w.arenas[k] = a
	}
	w.arenas[0].other, w.arenas[1].other = w.arenas[1], w.arenas[0]
	return w, nil
}

// most is how many messages a topic gets at most.
func most(budget uint64, wide bool) int {
	n := budget / 6
	if wide {
		n = budget / 30
	}
	return int(max(n, 500))
}

// take hands out n tickets, if there are so many.
func (a *arena) take(n int) (ticket, bool) {
	end := a.next.Add(int64(n))
	return ticket(end - int64(n)), end <= int64(len(a.messages))
}

// play lets the round happen, until all is over but the proof.
func (w *world) play() error {
	r := stream(w.seed, forWorld, 1)
	over := make(chan struct{})
	for _, a := range w.arenas {
		if err := a.openWitness(); err != nil {
			return err
		}
	}
	for _, a := range w.arenas { // only now: their handlers publish to each other's topics
		a.populate(r)
	}
	s := sampler{w: w, over: over}
	w.sample.Go(s.run)
	published := make(chan struct{})
	p := &awaiter{wait: w.awaitPublishers, done: published}
	w.others.Go(p.run)
	limit := time.NewTimer(longestRound)
	defer limit.Stop()
	select {
	case <-w.full:
	case <-published:
	case <-limit.C:
	}
	w.filled = w.now()
	w.together = r.IntN(2) == 0
	if err := within("the end of the topics", w.end); err != nil {
		return err
	}
	for _, a := range w.arenas {
		if err := within("Done of topic "+a.name, a.awaitDone); err != nil {
			return err
		}
		close(a.done)
	}
	for _, a := range w.arenas {
		for who, wg := range map[string]*sync.WaitGroup{"publishers": &a.publishers, "queues": &a.slots, "consumers": &a.consumers} {
			if err := within(who+" of topic "+a.name, wg.Wait); err != nil {
				return err
			}
		}
	}
	if err := within("late settlements", w.others.Wait); err != nil {
		return err
	}
	close(over)
	w.sample.Wait()
	return nil
}

// end ends the topics, together or one after the other.
func (w *world) end() {
	var ends sync.WaitGroup
	for _, a := range w.arenas {
		e := &ending{a: a, r: stream(w.seed, forWorld, 2, a.n)}
		ends.Go(e.run)
		if !w.together {
			ends.Wait() // the other topic goes on meanwhile
		}
	}
	ends.Wait()
}

// longestRound ends a round that has come to rest before it has had its
// deliveries, for want of consumers, say.
const longestRound = 20 * time.Second

func (w *world) awaitPublishers() {
	for _, a := range w.arenas {
		a.publishers.Wait()
	}
}

func (a *arena) awaitDone() { <-a.top.Done() }

// checkFull ends the round when it has had its deliveries.
func (w *world) checkFull() {
	if w.deliveries.Load() >= w.budget {
		w.fullOnce.Do(func() { close(w.full) })
	}
}

// An awaiter turns a wait into a channel.
type awaiter struct {
	wait func()
	done chan struct{}
}

// run closes done. Started by within and play; ends with what it waits for;
// nobody joins it if that never ends, which is a violation.
func (a *awaiter) run() {
	a.wait()
	close(a.done)
}

// within runs f and fails if it takes unreasonably long.
func within(who string, f func()) error {
	a := &awaiter{wait: f, done: make(chan struct{})}
	go a.run()
	t := time.NewTimer(time.Minute)
	defer t.Stop()
	select {
	case <-a.done:
		return nil
	case <-t.C:
		return fmt.Errorf("%s: did not end within a minute", who)
	}
}

// openWitness opens the queue that gets everything.
func (a *arena) openWitness() error {
	s := spec{capacity: fanout.Unlimited, visibility: time.Hour, keep: 1, inOrder: true, temper: calm, push: 1, concurrency: 1, attempts: 5}
	a.witness = a.newBook("witness", s, 0)
	c := &consumer{b: a.witness, number: a.witness.consumers.Add(1), limit: 1}
	sub, err := a.top.Subscribe(context.Background(), "witness", c.witness,
		fanout.WithCapacity(fanout.Unlimited), fanout.WithVisibilityTimeout(time.Hour))
	if err != nil {
		return err
	}
	a.witness.q = sub.Queue()
	a.witness.openRet = a.w.now()
	a.witness.opened.Store(true)
	return nil
}

// populate starts publishers and queues.
func (a *arena) populate(r *rand.Rand) {
	slots := 2 + r.IntN(max(a.w.c.queues/4, 1))
	if a.traits.wide {
		slots = max(a.w.c.queues/2-r.IntN(max(a.w.c.queues/6, 1)), 1)
	}
	for k := range slots {
		s := &slot{a: a, n: uint64(k), r: stream(a.w.seed, forSlot, a.n, uint64(k)), constant: k%4 == 0}
		a.slots.Go(s.run)
	}
	for k := range max(1, a.w.c.publishers/2-r.IntN(max(a.w.c.publishers/4, 1))) {
		p := &publisher{a: a, n: uint32(k + 1), r: stream(a.w.seed, forPublisher, a.n, uint64(k))}
		a.publishers.Go(p.run)
	}
	for k := range 3 {
		l := &letterReader{q: a.shared, a: a, r: stream(a.w.seed, forLetters, a.n, uint64(k)), stop: a.done}
		a.consumers.Go(l.run)
	}
}

// An ending is how a topic ends.
type ending struct {
	a *arena
	r *rand.Rand
}

// run ends the topic in one of several ways. Started and joined by end; ends
// when the topic is closed.
func (e *ending) run() {
	a := e.a
	patience := micros(e.r, 20_000)
	switch way := e.r.IntN(4); way {
	case 0, 1: // with those who publish and those who come and go at home
		a.endPublishing()
		a.publishers.Wait()
		close(a.stop)
		a.slots.Wait()
		if way == 0 {
			patience, a.patient = 3*time.Second, true
		}
		e.shutdown(patience)
	case 2: // while all go on
		e.shutdown(patience)
		a.endPublishing()
		close(a.stop)
	default:
		a.endCall = a.w.now()
		a.endErr = a.top.Close()
		a.endRet = a.w.now()
		a.endPublishing()
		close(a.stop)
	}
}

func (e *ending) shutdown(patience time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	a := e.a
	a.endCall = a.w.now()
	a.endErr = a.top.Shutdown(ctx)
	a.endRet = a.w.now()
}
