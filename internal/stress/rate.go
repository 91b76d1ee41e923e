package main

import (
	"slices"
	"sync"
	"time"

	"github.com/gofanout/fanout"
)

// A pace is what is known of when a subscriber with a rate limit started its
// handlers.
type pace struct {
	mu     sync.Mutex
	starts []start
}

// A start is when a handler got n messages, as their deadline tells it: the
// handler itself may run later.
type start struct {
	at time.Duration // since the round began
	n  int
}

// started notes the start of a handler.
func (c *consumer) started(ds ...fanout.Delivery[ticket]) {
	s := c.b.spec
	if s.rate == 0 {
		return
	}
	deadline := ds[0].Deadline()
	if deadline.IsZero() {
		return // it is late itself
	}
	c.pace.mu.Lock()
	c.pace.starts = append(c.pace.starts, start{deadline.Add(-s.visibility).Sub(c.b.a.w.began), len(ds)})
	c.pace.mu.Unlock()
}

// provePace proves that a subscriber's starts are as far apart as its rate
// demands.
func (c *consumer) provePace() {
	rate, starts := c.b.spec.rate, c.pace.starts
	if rate == 0 {
		return
	}
	every := time.Duration(float64(time.Second) / rate)
	slices.SortFunc(starts, func(a, b start) int { return int(a.at - b.at) })
	for k := 1; k < len(starts); k++ {
		before, s := starts[k-1], starts[k]
		if apart := s.at - before.at; apart < every*time.Duration(before.n) {
			c.b.a.w.complain("rate", "queue %s, consumer %d: %d messages at %v, the next %v later, at a rate of %v a second",
				c.b.name, c.number, before.n, before.at, apart, rate)
			return
		}
	}
}
