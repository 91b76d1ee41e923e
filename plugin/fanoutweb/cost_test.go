package fanoutweb

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
)

// What a reader costs the workers of the queue that is read: go test -run WhatAReaderCosts -rounds 20 -v

var rounds = flag.Int("rounds", 0, "measure what a reader costs in `n` rounds")

// A readerOf reads pages as somebody does who looks for something: the live flow, and a search now
// and then, or only the flow.
type readerOf struct {
	h     *Handler
	every time.Duration // 0: it does not search
}

const measured = time.Second // of one measurement

// start begins to read, until the function that it returns is called.
func (r readerOf) start(t *testing.T) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var reading sync.WaitGroup
	reading.Go(func() {
		r.h.ServeHTTP(nowhere{http.Header{}}, httptest.NewRequestWithContext(ctx, http.MethodGet, "/events?page=flow", nil))
	})
	reading.Go(func() {
		timer := time.NewTimer(0)
		defer timer.Stop()
		for r.every > 0 {
			select {
			case <-timer.C:
				r.h.ServeHTTP(nowhere{http.Header{}}, httptest.NewRequestWithContext(ctx, http.MethodGet, "/letters?topic=orders&queue=billing&text=nowhere", nil))
				timer.Reset(r.every)
			case <-ctx.Done():
				return
			}
		}
	})
	return func() {
		cancel()
		reading.Wait()
	}
}

// nowhere is a ResponseWriter that takes all.
type nowhere struct{ head http.Header }

func (w nowhere) Header() http.Header         { return w.head }
func (w nowhere) Write(p []byte) (int, error) { return len(p), nil }
func (w nowhere) WriteHeader(int)             {}
func (w nowhere) Flush()                      {}

// A load is workers that are kept busy by a publisher.
type load struct {
	topic   *fanout.Topic[string]
	handled atomic.Int64
}

// done is what was done in a while: messages a second, and how many processors the process had.
type done struct{ messages, processors float64 }

func (l *load) measure(t *testing.T, d time.Duration) done {
	n, began, cpu := l.handled.Load(), time.Now(), cpuTime()
	for end := began.Add(d); time.Now().Before(end); {
		for range 1000 {
			require.NoError(t, l.topic.Publish(t.Context(), "o-17"))
		}
	}
	took, used := time.Since(began).Seconds(), (cpuTime() - cpu).Seconds()
	messages := float64(l.handled.Load() - n)
	return done{messages / took, used / took}
}

func TestWhatAReaderCosts(t *testing.T) {
	if *rounds == 0 {
		t.Log("not part of this run: -rounds 20 measures it")
		return
	}
	busy := &load{topic: full(t, 100_000)} // the workers' queue has the letters
	_, err := busy.topic.Queue("billing").Subscribe(t.Context(), func(context.Context, fanout.Delivery[string]) error {
		busy.handled.Add(1)
		return nil
	}, fanout.WithConcurrency(2))
	require.NoError(t, err)
	many := func(name string, queues int) *fanout.Topic[string] {
		topic, err := fanout.NewTopic[string](name)
		require.NoError(t, err)
		t.Cleanup(func() { _ = topic.Close() })
		for k := range queues {
			_, err := topic.OpenQueue(t.Context(), fmt.Sprintf("%s-%04d", name, k))
			require.NoError(t, err)
		}
		return topic
	}
	page := func(topics ...fanout.AnyTopic) *Handler {
		h, err := New(Options{Allow: AllowAll}, topics...)
		require.NoError(t, err)
		t.Cleanup(h.Close)
		return h
	}
	hundred, all := page(busy.topic, many("hundred", 99)), page(busy.topic, many("thousands", 1999))
	type kind struct {
		name  string
		start func(*testing.T) func()
	}
	kinds := []kind{
		{"nobody", func(*testing.T) func() { return func() {} }},
		{"nobody, again", func(*testing.T) func() { return func() {} }},
		{"a live page of 2,000 queues", readerOf{h: all}.start},
		{"that, and a search in 100,000 letters every second", readerOf{all, time.Second}.start},
	}
	var text strings.Builder
	for _, kind := range append(kinds, kind{"a live page of 100 queues", readerOf{h: hundred}.start}) { // alone, to tell what it takes of a processor itself
		stop, began, cpu := kind.start(t), time.Now(), cpuTime()
		time.Sleep(3 * time.Second)
		used := cpuTime() - cpu
		fmt.Fprintf(&text, "\n%-52s  alone uses %.1f%% of a processor", kind.name, used.Seconds()/time.Since(began).Seconds()*100)
		stop()
	}
	busy.measure(t, time.Second)
	lost, more := make([][]float64, len(kinds)), make([][]float64, len(kinds))
	for round := range *rounds {
		got := make([]done, len(kinds))
		for k := range kinds { // each is first as often as the others
			k = (k + round) % len(kinds)
			stop := kinds[k].start(t)
			got[k] = busy.measure(t, measured)
			stop()
		}
		for k := range kinds {
			lost[k] = append(lost[k], (1-got[k].messages/got[0].messages)*100)
			// beside what the messages would have taken with nobody
			more[k] = append(more[k], (got[k].processors-got[k].messages*got[0].processors/got[0].messages)*100)
		}
	}
	for k := range kinds {
		slices.Sort(lost[k])
		slices.Sort(more[k])
		at := func(sorted []float64, share float64) float64 { return sorted[int(share*float64(len(sorted)-1))] }
		fmt.Fprintf(&text, "\n%-52s", kinds[k].name)
		fmt.Fprintf(&text, "  takes %.1f%% of a processor beside busy workers (quartiles %.1f%%, %.1f%%)", at(more[k], .5), at(more[k], .25), at(more[k], .75))
		fmt.Fprintf(&text, "; workers did %.1f%% less (%.1f%%, %.1f%%)", at(lost[k], .5), at(lost[k], .25), at(lost[k], .75))
	}
	t.Log(text.String())
}
