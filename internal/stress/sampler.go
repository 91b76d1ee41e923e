package main

import (
	"runtime/metrics"
	"slices"
	"time"

	"github.com/gofanout/fanout"
)

// A sampler looks at all queues all along.
type sampler struct {
	w    *world
	over <-chan struct{}
	open []*book
}

// run samples until over is closed. Started by play; joined by play.
func (s *sampler) run() {
	heap := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	for !ended(s.over) {
		inFlight := 0
		for _, a := range s.w.arenas {
			s.open = s.open[:0]
			a.mu.Lock()
			for _, b := range a.books {
				if b.opened.Load() {
					s.open = append(s.open, b)
				}
			}
			a.mu.Unlock()
			for _, b := range s.open {
				if !b.finished.Load() {
					inFlight += s.look(b)
				}
			}
			s.bounded(a.shared.Stats(), a.name)
		}
		metrics.Read(heap)
		s.w.sum.sample(inFlight, heap[0].Value.Uint64())
		s.w.checkFull()
		wait(2*time.Millisecond, s.over)
	}
}

// look checks that a queue keeps within its bounds and its books balance.
func (s *sampler) look(b *book) int {
	st := b.q.Stats()
	s.bounded(st, b.a.name)
	if !balanced(st) {
		s.w.complain("books", "queue %s of topic %s: %+v", b.name, b.a.name, st)
	}
	if st.Dead > 0 && !b.spec.shared {
		s.bounded(b.q.DeadLetters().Stats(), b.a.name)
	}
	return st.InFlight
}

func (s *sampler) bounded(st fanout.Stats, topic string) {
	if st.Unsettled() > st.Capacity {
		s.w.complain("bounded", "queue %s of topic %s holds %d, more than its capacity: %+v", st.Queue, topic, st.Unsettled(), st)
	}
}

func balanced(st fanout.Stats) bool {
	return uint64(st.Published)+st.Redriven == st.Acked+st.DeadLettered+st.Dropped+st.Left+uint64(st.Unsettled())
}

// learnOrder makes the order of publication of what the witness saw: what it
// got, then what it had not got when it was closed.
func (a *arena) learnOrder() {
	if a.traits.delays {
		return
	}
	seen := make([]bool, len(a.messages))
	a.order = make([]ticket, 0, len(a.messages))
	for _, e := range a.witness.events {
		if (e.deed == got || e.deed == left) && !seen[e.msg] {
			seen[e.msg] = true
			a.order = append(a.order, e.msg)
		}
	}
	a.order = slices.Clip(a.order)
	a.place = places(a.order, len(a.messages))
}

func places(order []ticket, n int) []int32 {
	place := make([]int32, n)
	for k := range place {
		place[k] = -1
	}
	for k, m := range order {
		place[m] = int32(k)
	}
	return place
}
