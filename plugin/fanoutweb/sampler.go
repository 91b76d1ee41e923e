package fanoutweb

import (
	"context"
	"sync"
	"time"

	"github.com/gofanout/fanout"
)

const (
	// lookEvery is how often counters are read while somebody reads the page.
	lookEvery = time.Second
	// lookOn is for how long after the last reader.
	lookOn = time.Minute
)

// A sampler reads the counters of all queues while somebody reads the page. Nothing of it
// runs while nobody does: its goroutine begins with a reader, ends a minute after the
// last, and is joined by close. All methods may be called concurrently.
//
// Invariant: states has the open queues of the last look, which were seen since the first
// look of a row of looks without a pause.
type sampler struct {
	topics []fanout.TopicView
	life   context.Context // of the handler
	work   sync.WaitGroup

	mu      sync.Mutex
	since   time.Time // the first look
	at      time.Time // the last look
	read    time.Time // when the page was read last
	running bool
	closed  bool
	next    chan struct{} // closed by the next look
	tops    []*topicState // of topics
	states  map[fanout.QueueView]*queueState
	deaths  deaths
}

func newSampler(life context.Context, topics []fanout.TopicView) *sampler {
	return &sampler{life: life, topics: topics, next: make(chan struct{})}
}

// A topicState is what is known of a topic.
type topicState struct {
	view   fanout.TopicView
	stats  fanout.TopicStats
	rates  window[fanout.TopicStats]
	ended  bool
	queues []*queueState // in the order of their names
}

// A queueState is what is known of a queue.
type queueState struct {
	topic    *topicState
	view     fanout.QueueView
	settings fanout.QueueSettings
	stats    fanout.Stats // of the last look; only a look changes it
	death    death        // the last one that was heard of
	paused   time.Time    // the first of a row of looks that saw it paused
	dead     fanout.Stats // of the dead-letter queue, if there is one
	blocked  time.Time    // when publishers were last seen to wait for it
	rates    window[fanout.Stats]
	series   series
	asked    answer // what the engine said
}

// A window is the counters of some seconds ago, to tell rates by. It moves on so that it is
// two to four seconds long.
type window[T any] struct {
	then, mid     T
	thenAt, midAt time.Time
}

const windowLen = 2 * time.Second

func (w *window[T]) add(at time.Time, now T) {
	switch {
	case w.thenAt.IsZero():
		w.then, w.thenAt, w.mid, w.midAt = now, at, now, at
	case at.Sub(w.midAt) >= windowLen:
		w.then, w.thenAt, w.mid, w.midAt = w.mid, w.midAt, now, at
	}
}

// seconds is how long the window is that ends at an instant, 0 if there is none yet.
func (w *window[T]) seconds(at time.Time) float64 { return at.Sub(w.thenAt).Seconds() }

// look calls f with all that is known, which is at most a second old. f must not keep any
// of it. It counts as a reader.
func (s *sampler) look(f func(s *sampler)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.read = now
	if now.Sub(s.at) >= lookEvery {
		s.lookLocked(now)
	}
	if !s.running && !s.closed {
		s.running = true
		s.work.Go(s.run)
		for _, t := range s.topics {
			if t.Engine() != "" {
				s.work.Go(asker{s, t, s.since}.run)
			}
			s.deaths.listen(t)
		}
	}
	f(s)
}

// wait returns a channel that is closed when there is something new, and counts as a reader.
func (s *sampler) wait() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.read = time.Now()
	return s.next
}

// run looks, as long as somebody reads.
func (s *sampler) run() {
	timer := time.NewTimer(lookEvery)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-s.life.Done():
			return
		}
		if !s.again(time.Now()) {
			return
		}
		timer.Reset(lookEvery)
	}
}

// again looks once more, and reports whether to go on.
func (s *sampler) again(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Sub(s.read) > lookOn {
		s.running, s.at, s.since, s.tops, s.states = false, time.Time{}, time.Time{}, nil, nil
		s.deaths.stop()
		return false
	}
	s.lookLocked(now)
	return true
}

// reading reports whether somebody still reads, in the row of looks that began then.
func (s *sampler) reading(since time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.running && s.since.Equal(since)
}

// close waits for the goroutines, once life has ended.
func (s *sampler) close() {
	s.mu.Lock()
	s.closed = true
	s.deaths.stop()
	s.mu.Unlock()
	s.work.Wait()
}

func (s *sampler) lookLocked(now time.Time) {
	if s.since.IsZero() {
		s.since = now
		s.tops = make([]*topicState, len(s.topics))
		for k, v := range s.topics {
			s.tops[k] = &topicState{view: v}
		}
	}
	s.at = now
	before := s.states
	s.states = make(map[fanout.QueueView]*queueState, len(before))
	for _, t := range s.tops {
		t.look(s, now, before)
	}
	close(s.next)
	s.next = make(chan struct{})
}

func (t *topicState) look(s *sampler, now time.Time, before map[fanout.QueueView]*queueState) {
	t.stats = t.view.Stats()
	t.rates.add(now, t.stats)
	select {
	case <-t.view.Done():
		t.ended = true
	default:
	}
	t.queues = t.queues[:0]
	for _, v := range t.view.Queues() {
		q := before[v]
		if q == nil {
			q = &queueState{topic: t, view: v, settings: v.Settings()}
		}
		s.states[v] = q
		t.queues = append(t.queues, q)
		q.look(s, now)
	}
}

func (q *queueState) look(s *sampler, now time.Time) {
	since, was := s.since, q.stats
	q.stats = q.view.Stats()
	switch {
	case !q.stats.Paused:
		q.paused = time.Time{}
	case q.paused.IsZero():
		q.paused = now
	}
	if d := s.deaths.of(q.topic.view.Name(), q.view.Name()); !d.at.IsZero() {
		q.death = d
	} else if now.After(since) && was.Queue != "" && q.stats.DeadLettered > was.DeadLettered {
		q.death.at = now
	}
	if q.view.Blocking() {
		q.blocked = now
	}
	if d := q.view.DeadLetters(); d != nil {
		if q.dead.Queue == "" {
			q.settings = q.view.Settings() // it has one now
		}
		q.dead = d.Stats()
	}
	q.rates.add(now, q.stats)
	q.series.add(since, now, &q.stats)
}
