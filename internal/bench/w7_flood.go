package main

import (
	"runtime/metrics"
	"sync"
	"time"
)

var flood = workload{
	key: "W7", title: "A flood into 100 queues of 1,024: is memory flat?",
	note: "10 million messages, 1 million with -quick, a tenth for channels. growth: the greatest heap in the last quarter to that in the first; peak: of heap and stacks.",
	cells: func(o options) (cells []cell) {
		for _, sys := range []system{channels, find(ours, "fanout-push64")} {
			n := 10_000_000
			if o.quick {
				n /= 10
			}
			if sys.name == channels.name {
				n /= 10
			}
			cells = append(cells, cell{at: place{setting: "flood", system: sys.name}, once: true,
				measure: func() ([]value, error) { return flooded(sys, 100, n) }})
		}
		return cells
	},
}

func flooded(sys system, queues, n int) ([]value, error) {
	n = n / chunk * chunk
	settled() // of what ran before nothing may be counted
	w := watchMemory()
	vs, _, err := flow(sys, shape{queues: queues, workers: 1, publishers: 1, capacity: capacity}, n, 20*time.Minute)
	samples := w.stop()
	if err != nil {
		return nil, err
	}
	growth := float64(most(samples[len(samples)*3/4:])) / float64(most(samples[:len(samples)/4+1]))
	out := []value{vs[0], {"growth", "times", growth}, {"peak", "B", float64(most(samples))}}
	for _, s := range thin(samples, 200) {
		out = append(out, value{"heap", seriesUnit, float64(s)})
	}
	return out, nil
}

func most(samples []uint64) (m uint64) {
	for _, s := range samples {
		m = max(m, s)
	}
	return m
}

// thin keeps about n of the samples: the greatest of each group.
func thin(samples []uint64, n int) (out []uint64) {
	size := max(1, len(samples)/n)
	for k := 0; k < len(samples); k += size {
		out = append(out, most(samples[k:min(k+size, len(samples))]))
	}
	return out
}

// A memoryWatch samples heap and stacks.
type memoryWatch struct {
	done    chan struct{}
	wg      sync.WaitGroup
	samples []uint64
}

func watchMemory() *memoryWatch {
	w := &memoryWatch{done: make(chan struct{})}
	w.wg.Go(w.watch)
	return w
}

// watch is the goroutine. Started by watchMemory; ends with stop, which joins it.
func (w *memoryWatch) watch() {
	s := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/stacks:bytes"}}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		metrics.Read(s)
		w.samples = append(w.samples, s[0].Value.Uint64()+s[1].Value.Uint64())
		select {
		case <-tick.C:
		case <-w.done:
			return
		}
	}
}

func (w *memoryWatch) stop() []uint64 {
	close(w.done)
	w.wg.Wait()
	return w.samples
}
