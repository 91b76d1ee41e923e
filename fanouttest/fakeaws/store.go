package fakeaws

import (
	"context"
	"net/http"
	"sync"
	"time"
)

// A cloud is everything that a fake holds: for each account and region its
// queues and topics.
//
// Invariants: nothing blocks, calls user code or logs while mu is held. All
// state below the lock, that of queues and topics included, is guarded by it.
type cloud struct {
	settings
	tb      TB // nil for [Start]
	began   time.Time
	http    http.Client
	closed  chan struct{}   // closed by close
	ctx     context.Context // of what the fake does by itself; ended by close
	cancel  context.CancelFunc
	running sync.WaitGroup // goroutines of the fake, see laterLocked

	mu           sync.Mutex // guards the fields below, and all queues and topics
	ended        bool
	regions      map[place]*region
	faults       []*Injected
	calls        map[string]int       // by operation
	busy         int                  // jobs that wait or run, see laterLocked and WaitQuiet
	jobs         map[*job]struct{}    // those that wait
	changed      chan struct{}        // closed at the next change, nil if nobody waits for it
	endpoints    map[string]*endpoint // by scheme, host and path
	certificates map[string][]byte    // by region
	serials      uint64               // of queues
	unserved     []*queue             // queues whose long polls may have something, see serveLocked
}

// A place is an account in a region.
type place struct{ account, region string }

// A region is what one account has in one region.
type region struct {
	place
	queues    map[string]*queue
	deleted   map[string]instant // queues deleted, and when
	sns       snsRegion
	functions map[string]*Function
}

// regionLocked returns what is kept for a place; it makes it if need be.
func (c *cloud) regionLocked(p place) *region {
	r := c.regions[p]
	if r == nil {
		r = &region{place: p}
		if c.regions == nil {
			c.regions = map[place]*region{}
		}
		c.regions[p] = r
	}
	return r
}

// queueByARNLocked returns the queue with the ARN, nil if there is none.
func (c *cloud) queueByARNLocked(arn string) *queue {
	a, ok := parseARN(arn)
	if !ok || a.service != "sqs" {
		return nil
	}
	r := c.regions[a.place]
	if r == nil {
		return nil
	}
	return r.queues[a.resource]
}

// close ends the fake, and waits for its goroutines.
func (c *cloud) close() {
	c.endOnce()
	c.running.Wait()
}

func (c *cloud) endOnce() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return
	}
	c.ended = true
	close(c.closed)
	c.cancel()
	for j := range c.jobs {
		j.stopLocked()
	}
	for _, r := range c.regions {
		for _, q := range r.queues {
			q.stopLocked()
		}
	}
}
