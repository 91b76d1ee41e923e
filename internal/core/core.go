// Package core has the parts of a topic that are not generic: its name, its clock, whom it
// tells, and the count of its goroutines and timers.
//
// It promises that whatever is of one topic has one name, one clock, one list of whom it
// tells, and one count of what runs.
//
// A Core is made once and never changed. What it has that changes has locks of its own, which
// are leaves: the count of what is alive, and the pools.
package core

import (
	"sync"
	"time"

	"github.com/gofanout/fanout/internal/alive"
	"github.com/gofanout/fanout/internal/block"
	"github.com/gofanout/fanout/internal/intercept"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/settings"
)

// A Core is what of a topic does not depend on T: its name, its clock, whom it
// tells, and the count of what it still has running.
type Core struct {
	// Immutable.
	TopicName string
	Clock     message.Clock           // all instants are of it
	Around    []intercept.Interceptor // around handlers
	Calls     []intercept.Interceptor // around what callers do with queues
	Hooked    [notice.Kinds]bool      // kinds of events that there are hooks for
	Singly    bool                    // what callers receive is looked at one by one: by hooks or interceptors

	To      notice.Listeners
	Live    alive.Count
	Buffers sync.Pool  // of workers, not in use: *buffer[T]
	Blocks  block.Pool // of leases
}

// New returns the core of a topic, which counts as alive until its Release.
func New(name string, s settings.Topic) (*Core, error) {
	clock, err := message.NewClock()
	if err != nil {
		return nil, err
	}
	c := &Core{TopicName: name, Clock: *clock, Around: s.Handling, Calls: s.Calls}
	c.To.Topic, c.To.Clock, c.To.Alive, c.To.Logger = name, &c.Clock, &c.Live, s.Logger
	for _, listen := range s.Listen {
		listen(&c.To)
	}
	for k := range c.Hooked {
		c.Hooked[k] = c.To.Hooked(notice.Kind(k))
	}
	c.Singly = c.Calls != nil || c.Hooked[notice.Delivered]
	c.Live.Add(1)
	return c, nil
}

// Release ends what was counted as alive.
func (c *Core) Release() { c.Live.Release() }

// Now reads the topic's clock.
func (c *Core) Now() int64 { return c.Clock.Now() }

// Time is an instant of the clock.
func (c *Core) Time(at int64) time.Time { return c.Clock.Time(at) }

// IDOf is a message's ID: the publisher's, or one that the clock makes.
func (c *Core) IDOf(seq uint64, at int64, ext *message.Extra) string {
	if ext != nil && ext.ID != "" {
		return ext.ID
	}
	return c.Clock.ID(seq, at, nil)
}

// An Origin names a queue: that, or the one that is opened again by its name in
// the same topic, redrives its dead letters.
type Origin struct {
	Topic *Core
	Queue string
}
