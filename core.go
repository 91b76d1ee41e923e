package fanout

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
)

// A core is what of a topic does not depend on T: its name, its clock, its IDs,
// whom it tells, and the count of what it still has running.
type core struct {
	// Immutable.
	name   string
	epoch  time.Time // the clock's zero; all instants are nanoseconds since
	wall   int64     // epoch in Unix nanoseconds
	random uint64    // 36 bits that tell this topic's IDs from others'
	funcs  [kinds]func(Event)
	around []Interceptor // around handlers
	logger *slog.Logger  // nil: slog.Default() at the time of logging

	// live counts the owners of goroutines and timers: the topic until it is
	// closed, each queue until its last worker and its timer are gone, each
	// goroutine that wakes others, each pending report, the deduplicator's timer,
	// each handler's timeout. Done's channel closes at zero.
	live atomic.Int64

	buffers sync.Pool // of workers, not in use: *buffer[T]

	stacksAt atomic.Int64 // when stacks were last collected, 0: never

	doneMu sync.Mutex    // guards the fields below, and is a leaf
	done   chan struct{} // made when somebody asks: it belongs to the bubble of testing/synctest that it was made in
	over   bool
}

// epochAge is how long before its making a topic's clock begins. In a bubble of
// testing/synctest it is the year 2000, and no instant may be negative or zero.
const epochAge = 64 * 365 * 24 * time.Hour

func newCore(name string, s topicSettings) (*core, error) {
	id, err := uuid.NewRandom()
	if err != nil {
		return nil, err
	}
	c := &core{name: name, around: s.handling, logger: s.logger}
	for _, h := range s.hooks {
		for k, f := range h.byKind() {
			c.funcs[k] = c.both(c.funcs[k], f)
		}
	}
	c.epoch = time.Now().Add(-epochAge)
	c.wall = c.epoch.UnixNano()
	c.random = binary.BigEndian.Uint64(id[8:]) & (1<<36 - 1)
	c.live.Store(1)
	return c, nil
}

// release says that one owner has nothing running any more.
func (c *core) release() {
	if c.live.Add(-1) > 0 {
		return
	}
	c.doneMu.Lock()
	defer c.doneMu.Unlock()
	c.over = true
	if c.done != nil {
		close(c.done)
	}
}

// awaitable returns the channel that closes once nothing of the topic is alive.
func (c *core) awaitable() <-chan struct{} {
	c.doneMu.Lock()
	defer c.doneMu.Unlock()
	if c.done == nil {
		c.done = make(chan struct{})
		if c.over {
			close(c.done)
		}
	}
	return c.done
}

// now reads the topic's clock.
func (c *core) now() int64 { return int64(time.Since(c.epoch)) }

func (c *core) time(at int64) time.Time { return c.epoch.Add(time.Duration(at)) }

// after is the instant d after now, or the end of time.
func after(now int64, d time.Duration) int64 {
	if at := now + int64(d); at >= now {
		return at
	}
	return 1<<63 - 1
}

// id is a message's ID. A UUID of version 7 is made of the time of publication
// (48 bits of milliseconds, 12 bits of their fraction), the message's number
// (26 bits) and the topic's random bits (36), so that IDs sort in the order of
// publication and no message needs randomness, or any memory for its ID.
func (c *core) id(seq uint64, at int64, ext *extra) string {
	if ext != nil && ext.id != "" {
		return ext.id
	}
	ns := uint64(c.wall + at)
	ms, frac := ns/1e6, (ns%1e6)<<12/1e6
	var u uuid.UUID
	binary.BigEndian.PutUint64(u[:8], ms<<16|7<<12|frac)
	binary.BigEndian.PutUint64(u[8:], 2<<62|seq&(1<<26-1)<<36|c.random)
	return u.String()
}

// contextError is the error of a context that has ended: what errors.Is finds
// is both ctx.Err() and, if it was given one, its cause.
func contextError(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if cause == err {
		return err
	}
	return fmt.Errorf("%w: %w", err, cause)
}

// errNilContext is what a nil context gets.
var errNilContext = errors.New("nil context")
