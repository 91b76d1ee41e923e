// Package intercept calls interceptors, and has what they are told of what they stand around, in
// types that are not generic.
// It has no lock, clock or goroutine.
package intercept

import (
	"context"
	"sync/atomic"
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
	c := NewChain(is, call)
	c.Info = info
	return is[0](ctx, info, c.Next)
}

// A Chain is a call and what stands around it, made once for runs that follow each other.
//
// Invariant: calls counts the calls of nexts that were made in this run in its upper half,
// and those that run in its lower. It has a bit more if they were not one of each, one
// inside of the other.
type Chain struct {
	Info Info                        // of this run, if there are several interceptors
	Next func(context.Context) error // what the first is given

	is    []Interceptor
	call  func(context.Context) error
	nexts []func(context.Context) error // what each is given
	calls atomic.Int64
}

const (
	aCall = 1<<32 + 1 // what a call adds to calls while it runs
	odd   = 1 << 62
)

// NewChain returns call with is around it; there is one at least.
func NewChain(is []Interceptor, call func(context.Context) error) *Chain {
	c := &Chain{is: is, call: call, nexts: make([]func(context.Context) error, len(is))}
	for k := range is {
		c.nexts[k] = func(ctx context.Context) error { return c.next(ctx, k) }
	}
	c.Next = c.nexts[0]
	return c
}

// Over ends a run. If it returns false, an interceptor may still call what it was given, or
// that may be running still: then the chain, and what Info is about, are not used again.
func (c *Chain) Over() (again bool) { return c.calls.CompareAndSwap(int64(len(c.is))<<32, 0) }

// next runs what stands behind interceptor k.
func (c *Chain) next(ctx context.Context, k int) (err error) {
	if n := c.calls.Add(aCall) >> 32; n != int64(k+1) {
		c.calls.Or(odd)
	}
	if k++; k == len(c.is) {
		err = c.call(ctx)
	} else {
		err = c.is[k](ctx, c.Info, c.nexts[k])
	}
	c.calls.Add(-1)
	return err
}
