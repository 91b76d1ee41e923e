// Package handling has the contexts that handlers run with, one for each run, and finds the
// cycles in which handlers that publish would wait for each other for ever.
//
// A context's state has a mutex of its own, which is a leaf: under it only package context's
// own locks are taken. The waits of a run are guarded by its queue's Mu.
package handling

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"
)

// A Context is the context of one run of a handler, and of no other: who
// keeps it sees nothing of what the worker does later. It is its own place in a
// chunk of contexts, which are given out once each, so that a handler that does
// not look at its context costs a byte. What a run needs beyond that is made when
// somebody asks for it, or cancels the run.
//
// Once Done was asked, or the run was cancelled, all is answered by a context of
// package context: so context.Cause finds the cause, and the contexts that are
// derived from it need no goroutine.
type Context uint8

// Contexts are the contexts of runs of one worker.
//
// Invariant: all[k] is k, so that a context finds the chunk that it is in.
type Contexts struct {
	queue  Queue
	worker Worker

	mu sync.Mutex // held to add a state; a leaf
	// states are those of the runs that have one, the latest run first.
	states atomic.Pointer[runState]

	All [1 << 8]Context
}

// places is what a chunk's contexts are.
var places = func() (all [1 << 8]Context) {
	for k := range all {
		all[k] = Context(k)
	}
	return all
}()

func NewContexts(q Queue, w Worker) *Contexts {
	return &Contexts{queue: q, worker: w, All: places}
}

// chunk returns the contexts that c is one of.
func (c *Context) chunk() *Contexts {
	return (*Contexts)(unsafe.Add(unsafe.Pointer(c), -int(unsafe.Offsetof(Contexts{}.All))-int(*c)))
}

// A runState is what is known of a run beside that there is one.
//
// Its mutex guards the fields below it and is a leaf: only package context's
// own locks are taken under it.
type runState struct {
	place Context
	next  atomic.Pointer[runState] // of an earlier run
	run   Run                      // what it tells to publishes

	mu    sync.Mutex
	inner context.Context // nil until it is needed
	end   context.CancelCauseFunc
	cause error
}

// state returns the run's state, or nil if it has none.
func (c *Context) state() *runState {
	_, s := c.find(c.chunk())
	return s
}

// find returns the run's state, or nil, and where it is or would be linked.
func (c *Context) find(all *Contexts) (at *atomic.Pointer[runState], s *runState) {
	at = &all.states
	for s = at.Load(); s != nil && s.place > *c; s = at.Load() {
		at = &s.next
	}
	if s != nil && s.place != *c {
		s = nil
	}
	return at, s
}

// get returns the run's state, and makes it if there is none.
func (c *Context) get() *runState {
	all := c.chunk()
	if _, s := c.find(all); s != nil {
		return s
	}
	all.mu.Lock()
	defer all.mu.Unlock()
	at, s := c.find(all)
	if s == nil {
		s = &runState{place: *c, run: Run{queue: all.queue, worker: all.worker}}
		s.next.Store(at.Load())
		at.Store(s)
	}
	return s
}

func (c *Context) Cancel(cause error) {
	s := c.get()
	s.mu.Lock()
	first := s.cause == nil
	if first {
		s.cause = cause
	}
	end := s.end
	s.mu.Unlock()
	if first && end != nil {
		end(cause)
	}
}

// CancelledFor reports whether the run was cancelled for the given error.
func (c *Context) CancelledFor(err error) bool {
	s := c.state()
	if s == nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Is(s.cause, err)
}

// realLocked returns the context that answers for the run.
func (s *runState) realLocked() context.Context {
	if s.inner == nil {
		s.inner, s.end = context.WithCancelCause(context.Background())
		if s.cause != nil {
			s.end(s.cause)
		}
	}
	return s.inner
}

// Deadline reports none: Extend could not move it.
func (c *Context) Deadline() (time.Time, bool) { return time.Time{}, false }

func (c *Context) Done() <-chan struct{} {
	s := c.get()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.realLocked().Done()
}

func (c *Context) Err() error {
	s := c.state()
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.inner != nil:
		return s.inner.Err()
	case s.cause != nil:
		return context.Canceled
	}
	return nil
}

func (c *Context) Value(key any) any {
	if key == (runKey{}) {
		return &c.get().run
	}
	s := c.state()
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inner == nil && s.cause == nil {
		return nil
	}
	return s.realLocked().Value(key)
}

// Runs reports whether the context is that of r.
func (c *Context) Runs(r *Run) bool {
	s := c.state()
	return s != nil && &s.run == r
}

// Hold runs f while the context can't be cancelled. It is for tests.
func (c *Context) Hold(f func()) {
	s := c.get()
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// Waits returns the publishes that wait inside the run. The queue's mu is held.
func (c *Context) Waits() []*Wait {
	if s := c.state(); s != nil {
		return s.run.waits
	}
	return nil
}
