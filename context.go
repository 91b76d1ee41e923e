package fanout

import (
	"context"
	"sync"
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

	mu    sync.Mutex
	asked bool
	inner context.Context
	end   context.CancelCauseFunc
	cause error
}

// fresh reports whether the context can serve another run: nobody has looked
// at it and it is not cancelled.
func (c *handlerContext) fresh() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.inner == nil && c.cause == nil && !c.asked
}

func (c *handlerContext) cancel(cause error) {
	c.mu.Lock()
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
		c.mu.Lock()
		defer c.mu.Unlock()
		c.asked = true
		return &c.run
	}
	return c.real().Value(key)
}
