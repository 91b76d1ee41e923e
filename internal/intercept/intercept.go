// Package intercept says what interceptors are called around, without its T, and calls them.
// It has no lock, clock or goroutine.
package intercept

import (
	"context"
	"time"

	"github.com/gofanout/fanout/internal/message"
)

// An Interceptor is called around a publish, a handler, or what a caller does with a queue.
type Interceptor func(ctx context.Context, info Info, next func(context.Context) error) error

// An Operation says what an Interceptor is called around.
type Operation uint8

const (
	OpPublish Operation = iota + 1
	OpHandle
	OpReceive
	OpSettle
	OpExtend
	OpRedrive
)

// Info says what an Interceptor is called around. Package fanout's explains it.
type Info struct {
	Operation    Operation
	Topic, Queue string
	Messages     int
	MessageID    string
	Attempt      int
	PublishedAt  time.Time
	Cause        message.Cause
	About        About // nil: nothing
}

// About is what the interceptors stand around: items or deliveries, whose T Info
// does not know.
type About interface {
	Count() int
	Body(k int) any
	ID(k int) string
	Ext(k int) *message.Extra
	Attempt(k int) int
	PublishedAt(k int) time.Time
	Set(k int, name, value string) (ok bool)
}

// Call runs call with is around it.
func Call(ctx context.Context, is []Interceptor, info Info, call func(context.Context) error) error {
	switch len(is) {
	case 0:
		return call(ctx)
	case 1:
		return is[0](ctx, info, call)
	}
	c := &chain{is, info, call}
	return c.step(ctx, 0)
}

// A chain is a call and what stands around it.
type chain struct {
	is   []Interceptor
	info Info
	call func(context.Context) error
}

// step runs the interceptors from k on, and the call.
func (c *chain) step(ctx context.Context, k int) error {
	if k == len(c.is)-1 {
		return c.is[k](ctx, c.info, c.call)
	}
	return c.is[k](ctx, c.info, func(ctx context.Context) error { return c.step(ctx, k+1) })
}
