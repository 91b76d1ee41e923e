package queue

import (
	"sync"
	"sync/atomic"
	"time"

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
	calls     []intercept.Interceptor // around what callers do with queues
	Hooked    [notice.Kinds]bool      // kinds of events that there are hooks for
	Singly    bool                    // what callers receive is looked at one by one: by hooks or interceptors

	To      notice.Listeners
	Live    lives
	Buffers sync.Pool // of workers, not in use: *buffer[T]
}

func NewCore(name string, s settings.Topic) (*Core, error) {
	clock, err := message.NewClock()
	if err != nil {
		return nil, err
	}
	c := &Core{TopicName: name, Clock: *clock, Around: s.Handling, calls: s.Calls}
	c.To.Topic, c.To.Clock, c.To.Alive, c.To.Logger = name, &c.Clock, &c.Live, s.Logger
	for _, listen := range s.Listen {
		listen(&c.To)
	}
	for k := range c.Hooked {
		c.Hooked[k] = c.To.Hooked(notice.Kind(k))
	}
	c.Singly = c.calls != nil || c.Hooked[notice.Delivered]
	c.Live.Add(1)
	return c, nil
}

// lives counts the owners of goroutines and timers: the topic until it is
// closed, each queue until its last worker and its timer are gone, each
// goroutine that wakes others, each pending report, the deduplicator's timer,
// each handler's timeout. Done's channel closes at zero.
type lives struct {
	N atomic.Int64

	mu   sync.Mutex    // guards the fields below, and is a leaf
	done chan struct{} // made when somebody asks: it belongs to the bubble of testing/synctest that it was made in
	over bool
}

// Add says that there are n more. Who calls it knows that something is counted already.
func (l *lives) Add(n int64) { l.N.Add(n) }

// Release says that one owner has nothing running any more.
func (l *lives) Release() {
	if l.N.Add(-1) > 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
	if l.done != nil {
		close(l.done)
	}
}

// Awaitable returns the channel that closes once nothing is alive.
func (l *lives) Awaitable() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.done == nil {
		l.done = make(chan struct{})
		if l.over {
			close(l.done)
		}
	}
	return l.done
}

func (c *Core) Release() { c.Live.Release() }

// Now reads the topic's clock.
func (c *Core) Now() int64 { return c.Clock.Now() }

func (c *Core) Time(at int64) time.Time { return c.Clock.Time(at) }

// IDOf is a message's ID: the publisher's, or one that the clock makes.
func (c *Core) IDOf(seq uint64, at int64, ext *message.Extra) string {
	if ext != nil && ext.ID != "" {
		return ext.ID
	}
	return c.Clock.ID(seq, at, nil)
}
