package main

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"
	"time"
)

var latency = workload{
	key: "W3", title: "Latency when idle: publish to the start of the handler, a message each 50 us",
	note: "yield: the publisher yields its core while it waits for the next, and blocks when it has published; busy: it keeps its core, and the other one is asleep. Of all S deliveries, in ns.",
	cells: func(o options) (cells []cell) {
		modes := []string{"yield", "busy"}
		if runtime.GOMAXPROCS(0) == 1 {
			modes = modes[:1] // nobody could run meanwhile
		}
		for _, mode := range modes {
			for _, s := range []int{1, 10} {
				for _, sys := range singly() {
					if sys.polls {
						continue // how long it sleeps is known
					}
					most, span := 4000, 400*time.Millisecond
					if o.quick {
						most, span = 1000, 80*time.Millisecond
					}
					cells = append(cells, cell{at: place{setting: fmt.Sprintf("%s-s%d", mode, s), system: sys.name},
						measure: func() ([]value, error) { return latencies(sys, s, mode == "busy", most, span) }})
				}
			}
		}
		return cells
	},
}

// latencies publishes up to most messages, and for no longer than span.
func latencies(sys system, queues int, busy bool, most int, span time.Duration) (_ []value, err error) {
	const every = 50 * time.Microsecond
	at := make([]int, most)
	for k := range at {
		at[k] = k + 1
	}
	s := newSteps(queues, at...)
	base := time.Now()
	var published atomic.Int64 // when, after base
	samples := make([][]int64, queues)
	for q := range samples {
		samples[q] = make([]int64, 0, most)
	}
	s.each = func(q int) { samples[q] = append(samples[q], int64(time.Since(base))-published.Load()) }
	bus, err := sys.open(shape{queues: queues, workers: 1, publishers: 1, capacity: capacity, tally: s.tally})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, bus.stop()) }()
	defer s.patience(span + 20*time.Second)()
	n := 0
	for ; n < most && (time.Since(base) < span || n < 100); n++ {
		for began := time.Now(); time.Since(began) < every; {
			if !busy {
				runtime.Gosched()
			}
			// Else it keeps its core, and that of the consumers is asleep.
		}
		s.begin()
		published.Store(int64(time.Since(base)))
		if err := bus.publish(0, ring[n%ringSize:][:1]); err != nil {
			return nil, err
		}
		for busy && s.left.Load() > 0 && time.Since(base) < span+20*time.Second {
			// Keeps its core here too.
		}
		if err := s.wait(); err != nil {
			return nil, err
		}
	}
	if n == most { // else the sums are of fewer messages than was planned
		if err := s.check(); err != nil {
			return nil, err
		}
	}
	var all []int64
	for _, of := range samples {
		all = append(all, of[min(n/10, len(of)):n]...) // without the first, which find nothing warm
	}
	slices.Sort(all)
	return []value{
		{"p50", "ns", float64(all[len(all)/2])},
		{"p99", "ns", float64(all[len(all)*99/100])},
	}, nil
}
