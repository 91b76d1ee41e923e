package program

import (
	"fmt"
	"runtime/metrics"
	"time"
)

// heapPeak remembers the most heap that was live, as each garbage collection
// found it, and the most that objects took at any time, dead ones included.
type heapPeak struct {
	live, objects uint64
	next          time.Time
}

// sample looks at the heap, a few dozen times a second at most.
func (h *heapPeak) sample() {
	now := time.Now()
	if now.Before(h.next) {
		return
	}
	h.next = now.Add(25 * time.Millisecond)
	s := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(s)
	h.live = max(h.live, value(s[0]))
	h.objects = max(h.objects, value(s[1]))
}

func value(s metrics.Sample) uint64 {
	if s.Value.Kind() != metrics.KindUint64 {
		return 0 // a runtime that has no such metric
	}
	return s.Value.Uint64()
}

func (h *heapPeak) String() string {
	if h.live == 0 { // what is live is known once garbage was collected
		return "peak heap " + mebibytes(h.objects)
	}
	return fmt.Sprintf("peak live heap %s (%s with garbage)", mebibytes(h.live), mebibytes(h.objects))
}

func mebibytes(n uint64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }
