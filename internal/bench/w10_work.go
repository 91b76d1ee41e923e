package main

import (
	"sync"
	"time"
)

var realWork = workload{
	key: "W10", title: "Real work: one publisher, one queue, 4 workers whose handlers do something",
	note: "compute-2us and compute-200us: handlers that compute for about so long; wait-200us: handlers that sleep for so long, which really takes a millisecond on an idle machine. ns per delivery; cpu is the processor time for one, the handler's work included.",
	cells: func(o options) (cells []cell) {
		for _, st := range []struct {
			setting string
			works   time.Duration
			work    func(time.Duration)
		}{
			{"compute-2us", 2 * time.Microsecond, compute},
			{"compute-200us", 200 * time.Microsecond, compute},
			{"wait-200us", 200 * time.Microsecond, time.Sleep},
		} {
			s := shape{queues: 1, workers: 4, publishers: 1, capacity: capacity, work: func() { st.work(st.works) }, works: st.works}
			for _, sys := range []system{
				channels, channelsContext, handWritten, find(ours, push), find(ours, push64), find(ours, pull), find(ours, into64),
				watermillFree, jetStream, gocloud, channelsAgain,
			} {
				cells = append(cells, flowCell(o, st.setting, sys, s))
			}
		}
		return cells
	},
}

// compute keeps a core busy for about d: with a number of steps that was found
// out once, so that it is the same work everywhere.
func compute(d time.Duration) {
	var x uint64 = 88172645463325252
	for range int(float64(d) * stepsPerNanosecond()) {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
	}
	if x == 0 { // it never is: the steps must not be left out
		panic("xorshift is 0")
	}
}

var stepsPerNanosecond = sync.OnceValue(func() float64 {
	const steps = 1 << 20
	best := time.Hour
	for range 10 {
		began := time.Now()
		var x uint64 = 88172645463325252
		for range steps {
			x ^= x << 13
			x ^= x >> 7
			x ^= x << 17
		}
		if x == 0 {
			panic("xorshift is 0")
		}
		best = min(best, time.Since(began))
	}
	return steps / float64(best)
})
