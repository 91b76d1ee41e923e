package fanouttest

import (
	"slices"
	"sync"

	"github.com/gofanout/fanout"
)

// kind says which hook told of an event.
type kind uint8

const (
	publishedEvent kind = iota
	deliveredEvent
	settledEvent
	deadEvent
	parkedEvent
	redrivenEvent
	droppedEvent
	kinds
)

// A journal is what the hooks of a topic told.
type journal struct {
	mu     sync.Mutex // guards the fields below
	queues map[string]*page
}

// A page is what happened in one queue.
type page struct {
	events []event
	counts [kinds]uint64 // of messages
}

type event struct {
	kind kind
	fanout.Event
}

func (j *journal) add(k kind, e fanout.Event) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.queues == nil {
		j.queues = make(map[string]*page)
	}
	p := j.queues[e.Queue]
	if p == nil {
		p = &page{}
		j.queues[e.Queue] = p
	}
	p.events = append(p.events, event{k, e})
	p.counts[k] += uint64(e.Count)
}

// of returns the events of a queue, in the order in which they happened.
func (j *journal) of(queue string) []event {
	j.mu.Lock()
	defer j.mu.Unlock()
	p := j.queues[queue]
	if p == nil {
		return nil
	}
	slices.SortStableFunc(p.events, func(a, b event) int {
		switch { // numbers begin anew with a queue of the same name
		case a.Time.Equal(b.Time) && a.Seq < b.Seq, a.Time.Before(b.Time):
			return -1
		case a.Time.Equal(b.Time) && a.Seq > b.Seq, b.Time.Before(a.Time):
			return 1
		}
		return 0
	})
	return slices.Clone(p.events)
}

// behind reports whether the hooks have yet to tell of what s counts: they are
// called after the fact.
func (j *journal) behind(s fanout.Stats) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	var heard [kinds]uint64
	if p := j.queues[s.Queue]; p != nil {
		heard = p.counts
	}
	// An expiry is told as a dead letter only.
	settled := s.Acked + s.Failed + s.Panicked + s.Exited + s.TimedOut + s.Nacked + s.PermanentlyFailed + s.Snoozed + s.ReleasedCount
	return heard[deliveredEvent] < s.Delivered || heard[settledEvent] < settled ||
		heard[deadEvent] < s.DeadLettered || heard[parkedEvent] < s.TimesParked || heard[droppedEvent] < s.Dropped+s.Left
}

// A trail is what is known of one message in one queue.
type trail struct {
	last     event
	attempts []fanout.Attempt
}

// trails follows the messages of a queue.
func (j *journal) trails(queue string) map[string]*trail {
	all := make(map[string]*trail)
	for _, e := range j.of(queue) {
		if e.MessageID == "" { // told of all: what was purged or deleted can't come back
			if e.Reason == fanout.DroppedByPurge || e.Reason == fanout.DroppedByDelete {
				clear(all)
			}
			continue
		}
		tr := all[e.MessageID]
		if tr == nil {
			tr = &trail{}
			all[e.MessageID] = tr
		}
		tr.last = e
		if e.kind == settledEvent {
			tr.attempts = append(tr.attempts, fanout.Attempt{
				Number: len(tr.attempts) + 1, Cause: e.Cause, Queue: e.Queue, Start: e.Time.Add(-e.Elapsed), Elapsed: e.Elapsed, Err: e.Err,
			})
		}
	}
	return all
}
