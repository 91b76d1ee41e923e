package fanoutweb

import (
	"context"
	"time"

	"github.com/gofanout/fanout"
)

const (
	// askEvery is how often an engine is asked while somebody reads, and askFor how long
	// it has to answer for one queue.
	askEvery = 10 * time.Second
	askFor   = 5 * time.Second
)

// An answer is what an engine said that a queue holds.
type answer struct {
	at    time.Time // zero: it wasn't asked yet
	depth fanout.Depth
	err   error
}

// askNow asks an engine what a queue holds, so that what was just done there is seen, if somebody
// reads the page.
func (s *sampler) askNow(t fanout.TopicView, q fanout.QueueView) {
	s.mu.Lock()
	read := s.states[q] != nil
	s.mu.Unlock()
	if read && t.Engine() != "" {
		asker{s: s, topic: t}.ask(q)
	}
}

// An asker asks an engine what the queues of one topic hold, one after the other, while
// somebody reads.
type asker struct {
	s     *sampler
	topic fanout.TopicView
	since time.Time // the first look of the row that it asks for
}

func (a asker) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-a.s.life.Done():
			return
		}
		for _, q := range a.topic.Queues() {
			if !a.s.reading(a.since) || a.s.life.Err() != nil {
				return
			}
			a.ask(q)
		}
		timer.Reset(askEvery)
	}
}

func (a asker) ask(q fanout.QueueView) {
	ctx, cancel := context.WithTimeout(a.s.life, askFor)
	defer cancel()
	d, err := q.Depth(ctx)
	a.s.mu.Lock()
	defer a.s.mu.Unlock()
	if state := a.s.states[q]; state != nil {
		state.asked = answer{time.Now(), d, err}
	}
}
