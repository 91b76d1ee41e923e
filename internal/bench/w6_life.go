package main

import (
	"errors"
	"runtime"
	"time"
)

var life = workload{
	key: "W6", title: "The life of a topic: made, one subscriber, one message handled, closed",
	note: "ns and allocations of a life; left: goroutines left after all of them.",
	cells: func(o options) (cells []cell) {
		for _, sys := range singly() {
			if sys.polls {
				continue
			}
			cells = append(cells, cell{at: place{setting: "one", system: sys.name},
				measure: func() ([]value, error) { return lives(sys, o.span) }})
		}
		return cells
	},
}

// lives counts how many lives fit into span.
func lives(sys system, span time.Duration) ([]value, error) {
	goroutines := runtime.NumGoroutine()
	s := newSteps(1, 1)
	defer s.patience(patience(span))()
	before := used()
	n := 0
	for ; n == 0 || time.Since(before.at) < span; n++ {
		if err := oneLife(sys, s); err != nil {
			return nil, err
		}
	}
	wall, _, mallocs := before.since()
	left := runtime.NumGoroutine() - goroutines
	for k := 0; left > 0 && k < 100; k++ { // those that are about to end
		time.Sleep(time.Millisecond)
		left = runtime.NumGoroutine() - goroutines
	}
	return []value{
		{"ns", "ns", float64(wall) / float64(n)},
		{"allocs", "allocs", float64(mallocs) / float64(n)},
		{"left", "goroutines", float64(max(left, 0))},
	}, s.check()
}

func oneLife(sys system, s *steps) error {
	*s.tally(0, 0) = tally{next: 1, reach: func(t *tally) {
		if t.sum != ring[0].word {
			s.wrong.Add(1)
		}
		t.next = t.count + 1
		if t.count > 1 {
			s.extra.Add(1)
			return
		}
		s.done <- struct{}{}
	}}
	bus, err := sys.open(shape{queues: 1, workers: 1, publishers: 1, capacity: capacity, tally: s.tally})
	if err != nil {
		return err
	}
	if err := bus.publish(0, ring[:1]); err != nil {
		return errors.Join(err, bus.stop())
	}
	return errors.Join(s.wait(), bus.stop())
}
