package fanout

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// A handlerContext is the context of one run of a handler, or of many that do
// not look at it: it becomes a real one, with a channel and a cause, when it is
// first asked, so that a handler that never asks costs nothing.
//
// Its mutex guards the fields below it and is a leaf: only package context's
// own locks are taken under it.
type handlerContext struct {
	run run // what it tells to publishes

	used atomic.Bool // somebody looked at it: no other run may have it

	mu    sync.Mutex
	inner context.Context
	end   context.CancelCauseFunc
	cause error
}

func newHandlerContext[T any](q *Queue[T]) *handlerContext {
	return &handlerContext{run: run{queue: q, lock: q.locked}}
}

func (c *handlerContext) cancel(cause error) {
	c.mu.Lock()
	c.used.Store(true)
	first := c.cause == nil
	if first {
		c.cause = cause
	}
	end := c.end
	c.mu.Unlock()
	if first && end != nil {
		end(cause)
	}
}

func (c *handlerContext) real() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.used.Store(true)
	if c.inner == nil {
		c.inner, c.end = context.WithCancelCause(context.Background())
		if c.cause != nil {
			c.end(c.cause)
		}
	}
	return c.inner
}

// Deadline reports none: Extend could not move it.
func (c *handlerContext) Deadline() (time.Time, bool) { return time.Time{}, false }
func (c *handlerContext) Done() <-chan struct{}       { return c.real().Done() }
func (c *handlerContext) Err() error                  { return c.real().Err() }
func (c *handlerContext) Value(key any) any {
	if key == (runKey{}) {
		c.used.Store(true)
		return &c.run
	}
	return c.real().Value(key)
}
