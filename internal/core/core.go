package core

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/gofanout/fanout/internal/intercept"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/settings"
)

// A core is what of a topic does not depend on T: its name, its clock, whom it
// tells, and the count of what it still has running.
type core struct {
	// Immutable.
	name   string
	clock  message.Clock           // all instants are of it
	around []intercept.Interceptor // around handlers
	calls  []intercept.Interceptor // around what callers do with queues
	singly bool                    // what callers receive is looked at one by one: by hooks or interceptors

	to      notice.Listeners
	live    lives
	buffers sync.Pool // of workers, not in use: *buffer[T]
}

func newCore(name string, s settings.Topic) (*core, error) {
	clock, err := message.NewClock()
	if err != nil {
		return nil, err
	}
	c := &core{name: name, clock: *clock, around: s.Handling, calls: s.Calls}
	c.to.Topic, c.to.Clock, c.to.Alive, c.to.Logger = name, &c.clock, &c.live, s.Logger
	c.to.Context = logContext
	for _, listen := range s.Listen {
		listen(&c.to)
	}
	c.singly = c.calls != nil || c.to.Wants(notice.Delivered)
	c.live.Add(1)
	return c, nil
}

// lives counts the owners of goroutines and timers: the topic until it is
// closed, each queue until its last worker and its timer are gone, each
// goroutine that wakes others, each pending report, the deduplicator's timer,
// each handler's timeout. Done's channel closes at zero.
type lives struct {
	n atomic.Int64

	mu   sync.Mutex    // guards the fields below, and is a leaf
	done chan struct{} // made when somebody asks: it belongs to the bubble of testing/synctest that it was made in
	over bool
}

// Add says that there are n more. Who calls it knows that something is counted already.
func (l *lives) Add(n int64) { l.n.Add(n) }

// Release says that one owner has nothing running any more.
func (l *lives) Release() {
	if l.n.Add(-1) > 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
	if l.done != nil {
		close(l.done)
	}
}

// awaitable returns the channel that closes once nothing is alive.
func (l *lives) awaitable() <-chan struct{} {
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

func (c *core) release() { c.live.Release() }

// now reads the topic's clock.
func (c *core) now() int64 { return c.clock.Now() }

func (c *core) time(at int64) time.Time { return c.clock.Time(at) }

// after is the instant d after now, or the end of time.
func after(now int64, d time.Duration) int64 {
	if at := now + int64(d); at >= now {
		return at
	}
	return 1<<63 - 1
}

// id is a message's ID: the publisher's, or one that the clock makes.
func (c *core) id(seq uint64, at int64, ext *extra) string {
	if ext != nil && ext.ID != "" {
		return ext.ID
	}
	return c.clock.ID(seq, at, nil)
}
