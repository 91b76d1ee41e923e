package main

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"
)

var many = workload{
	key: "W4", title: "Many subscribers",
	note: "one: ns of a publish while all are idle; burst: of each of 256 back to back; dlv: ns per delivery of the burst; bytes, goroutines: of an idle subscriber with its queue, before its first message; bytes-used: after some.",
	cells: func(o options) (cells []cell) {
		widths := []int{10, 100, 1000, 10000}
		if o.quick {
			widths = widths[2:]
		}
		for _, n := range widths {
			for _, sys := range singly() {
				if sys.polls || sys.widest > 0 && n > sys.widest || sys.costly && (n > 1000 || n > 100 && o.quick) {
					continue
				}
				times := 7
				if o.quick {
					times = 5
				}
				cells = append(cells, cell{at: place{setting: fmt.Sprintf("n%d", n), system: sys.name}, once: n > 100 && sys.costly || n > 1000 && o.quick,
					measure: func() ([]value, error) { return manyQueues(sys, n, times) }})
			}
		}
		return cells
	},
}

func manyQueues(sys system, queues, times int) (_ []value, err error) {
	const burst = 256
	at := make([]int, times+1)
	for k := range times {
		at[k] = k + 1
	}
	at[times] = times + burst
	s := newSteps(queues, at...)

	before := settled()
	bus, err := sys.open(shape{queues: queues, workers: 1, publishers: 1, capacity: capacity, tally: s.tally})
	if err != nil {
		return nil, err
	}
	defer func() {
		if bus != nil {
			err = errors.Join(err, bus.stop())
		}
	}()
	fresh := settled().minus(before)

	defer s.patience(2 * time.Minute)()
	var one []time.Duration
	for k := range times {
		time.Sleep(2*time.Millisecond + time.Duration(queues)*time.Microsecond) // all are parked
		s.begin()
		began := time.Now()
		if err := bus.publish(0, ring[k:][:1]); err != nil {
			return nil, err
		}
		one = append(one, time.Since(began))
		if err := s.wait(); err != nil {
			return nil, err
		}
	}
	used := settled().minus(before)

	s.begin()
	began := time.Now()
	if err := bus.publish(0, ring[times:][:burst]); err != nil {
		return nil, err
	}
	publishing := time.Since(began)
	if err := s.wait(); err != nil {
		return nil, err
	}
	all := time.Since(began)
	if err := bus.stop(); err != nil {
		bus = nil
		return nil, err
	}
	bus = nil
	slices.Sort(one)
	per := func(v int64) float64 { return float64(v) / float64(queues) }
	return []value{
		{"one", "ns", float64(one[len(one)/2])},
		{"burst", "ns", float64(publishing) / burst},
		{"dlv", "ns", per(int64(all)) / burst},
		{"bytes", "B", per(fresh.bytes)},
		{"goroutines", "goroutines", per(fresh.goroutines)},
		{"bytes-used", "B", per(used.bytes)},
	}, s.check()
}

// A footprint is what the process holds.
type footprint struct {
	bytes      int64 // of the heap, and of stacks
	heap       int64
	goroutines int64
}

func (f footprint) minus(g footprint) footprint {
	return footprint{f.bytes - g.bytes, f.heap - g.heap, f.goroutines - g.goroutines}
}

// settled returns the heap and stacks in use once garbage is gone and goroutines
// that were ending have ended.
func settled() footprint {
	for n := -1; n != runtime.NumGoroutine(); {
		n = runtime.NumGoroutine()
		time.Sleep(3 * time.Millisecond)
	}
	runtime.GC()
	var m runtime.MemStats
	inUse := func() int64 {
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc + m.StackInuse)
	}
	bytes := inUse() // finalizers and pools let go of something at each collection
	for range 5 {
		before := bytes
		if bytes = inUse(); before-bytes < 1<<10 {
			break
		}
	}
	return footprint{bytes, int64(m.HeapAlloc), int64(runtime.NumGoroutine())}
}
