package main

import (
	"fmt"
	"sync/atomic"
	"time"
)

// Steps follow what queues are given where a measurement is a sequence of
// publishes, each waited for. Every queue has one worker.
type steps struct {
	tallies []tally
	at      []int  // the counts at which a queue reports, ascending
	sum     uint64 // of all messages, as of the last of at

	left   atomic.Int64  // queues that have not reported in this step
	done   chan struct{} // told when left is 0, and when gaveUp is set
	gaveUp atomic.Bool
	wrong  atomic.Int64 // queues whose sum was wrong in the end
	extra  atomic.Int64
	// each, if not nil, is called by the worker of a queue when it reports.
	each func(queue int)
}

// newSteps returns steps for queues that report at each of the counts. The
// messages are the ring's, from its beginning.
func newSteps(queues int, at ...int) *steps {
	s := &steps{tallies: make([]tally, queues), at: at, sum: sumOf(at[len(at)-1]), done: make(chan struct{}, 1)}
	for q := range s.tallies {
		step := 0
		s.tallies[q].next = uint64(at[0])
		s.tallies[q].reach = func(t *tally) { step = s.reach(t, q, step) }
	}
	return s
}

func (s *steps) reach(t *tally, queue, step int) int {
	if step == len(s.at) {
		s.extra.Add(1)
		t.next = t.count + 1
		return step
	}
	if s.each != nil {
		s.each(queue)
	}
	if step++; step < len(s.at) {
		t.next = uint64(s.at[step])
	} else {
		t.next = t.count + 1
		if t.sum != s.sum {
			s.wrong.Add(1)
		}
	}
	if s.left.Add(-1) == 0 {
		s.done <- struct{}{}
	}
	return step
}

func (s *steps) tally(queue, _ int) *tally { return &s.tallies[queue] }

// begin begins a step: before its first message is published.
func (s *steps) begin() { s.left.Store(int64(len(s.tallies))) }

// patience lets wait fail after d. It returns what ends that.
func (s *steps) patience(d time.Duration) (stop func() bool) {
	return time.AfterFunc(d, func() {
		s.gaveUp.Store(true)
		select {
		case s.done <- struct{}{}:
		default:
		}
	}).Stop
}

// wait waits until all queues have reported. It waits for one channel alone, so
// that its core goes to the consumers at once: a select on a timer would first
// wake the thread that waits for timers, which takes ten microseconds.
func (s *steps) wait() error {
	<-s.done
	if s.gaveUp.Load() {
		return fmt.Errorf("%w: %d of %d queues did not get all", errNotFinished, s.left.Load(), len(s.tallies))
	}
	return nil
}

// check is called after the last step.
func (s *steps) check() error {
	if n := s.wrong.Load(); n > 0 {
		return fmt.Errorf("%w: %d queues got wrong messages", errLost, n)
	}
	if n := s.extra.Load(); n > 0 {
		return fmt.Errorf("%w: %d messages came twice", errLost, n)
	}
	return nil
}

// singly are the systems that publish one by one: where a measurement publishes
// single messages there is nothing to be gained by batches.
func singly() (out []system) {
	for _, s := range everySystem {
		if !s.batches {
			out = append(out, s)
		}
	}
	return out
}
