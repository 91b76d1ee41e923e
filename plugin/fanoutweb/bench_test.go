package fanoutweb

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
)

// What the page costs: go test -run '^$' -bench . ./plugin/fanoutweb

func manyQueues(b *testing.B, n int) (*fanout.Topic[string], *Handler) {
	var names []string
	for k := range n {
		names = append(names, fmt.Sprintf("queue-%04d", k))
	}
	topic, h := tested(b, Options{}, names...)
	b.Cleanup(func() { h.Close(); _ = topic.Close() })
	for range 100 {
		require.NoError(b, topic.Publish(b.Context(), "o-17"))
	}
	return topic, h
}

// A look at all counters, once a second, and a page, at each request.
func BenchmarkFlow(b *testing.B) {
	for _, n := range []int{100, 2000} {
		_, h := manyQueues(b, n)
		b.Run(fmt.Sprintf("look/queues=%d", n), func(b *testing.B) {
			for b.Loop() {
				h.sampler.mu.Lock()
				h.sampler.lookLocked(time.Now())
				h.sampler.mu.Unlock()
			}
		})
		b.Run(fmt.Sprintf("page/queues=%d", n), func(b *testing.B) {
			for b.Loop() {
				get(b, h, "/")
			}
		})
	}
}

// A search in 100,000 letters: the first 50 matches, and one that finds nothing, which ends
// after 150 ms and goes on by request.
func BenchmarkSearch(b *testing.B) {
	topic := full(b, 100_000)
	h, err := New(Options{Allow: AllowAll}, topic)
	require.NoError(b, err)
	defer h.Close()
	for name, query := range map[string]string{"first page": "", "text in each": "&text=order", "text in the last": "&text=o-99999", "cause": "&cause=failed", "newest": "&order=newest", "confirmation": "confirm", "confirmation of a filter": "confirm&cause=permanent"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if filter, confirm := strings.CutPrefix(query, "confirm"); confirm {
					get(b, h, "/confirm?topic=orders&queue=billing&do=redrive"+filter)
				} else {
					get(b, h, "/letters?topic=orders&queue=billing"+query)
				}
			}
		})
	}
}

// The pause of everything else while the stacks of 10,000 goroutines are collected.
func BenchmarkStacks(b *testing.B) {
	leave := make(chan struct{})
	var all sync.WaitGroup
	for range 10_000 {
		all.Go(func() { <-leave })
	}
	var longest, stop atomic.Int64
	all.Go(func() {
		for last := time.Now(); stop.Load() == 0; {
			now := time.Now()
			longest.Store(max(longest.Load(), int64(now.Sub(last))))
			last = now
		}
	})
	var pauses []float64
	for b.Loop() {
		longest.Store(0)
		stacksOf("orders", "billing")
		pauses = append(pauses, float64(longest.Load())/1e6)
	}
	stop.Store(1)
	close(leave)
	all.Wait()
	slices.Sort(pauses)
	b.ReportMetric(pauses[len(pauses)/2], "ms-median-pause")
}

// Workers with no page, and with a reader who gets 2,000 queues and a search every second.
func BenchmarkWorkers(b *testing.B) {
	for _, reader := range []bool{false, true} {
		b.Run(fmt.Sprintf("reader=%v", reader), func(b *testing.B) {
			topic, h := manyQueues(b, 100)
			work, err := fanout.NewTopic[int]("work")
			require.NoError(b, err)
			defer work.Close()
			var done sync.WaitGroup
			s, err := work.Subscribe(b.Context(), "q", func(context.Context, fanout.Delivery[int]) error { done.Done(); return nil })
			require.NoError(b, err)
			end, read := make(chan struct{}), sync.WaitGroup{}
			if reader {
				read.Go(func() {
					timer := time.NewTimer(0)
					defer timer.Stop()
					for {
						select {
						case <-timer.C:
							get(b, h, "/")
							timer.Reset(time.Second)
						case <-end:
							return
						}
					}
				})
			}
			for b.Loop() {
				done.Add(1)
				if err := work.Publish(b.Context(), 1); err != nil {
					b.Fatal(err)
				}
			}
			done.Wait()
			close(end)
			read.Wait()
			_, _ = topic, s
		})
	}
}
