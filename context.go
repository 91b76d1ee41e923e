package fanout

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"
)

// A handlerContext is the context of one run of a handler, and of no other: who
// keeps it sees nothing of what the worker does later. It is its own place in a
// chunk of contexts, which are given out once each, so that a handler that does
// not look at its context costs a byte. What a run needs beyond that is made when
// somebody asks for it, or cancels the run.
//
// Once Done was asked, or the run was cancelled, all is answered by a context of
// package context: so context.Cause finds the cause, and the contexts that are
// derived from it need no goroutine.
type handlerContext uint8

// contexts are the contexts of runs of one worker.
//
// Invariant: all[k] is k, so that a context finds the chunk that it is in.
type contexts struct {
	queue  waitQueue
	worker runner

	mu sync.Mutex // held to add a state; a leaf
	// states are those of the runs that have one, the latest run first.
	states atomic.Pointer[runState]

	all [1 << 8]handlerContext
}

// places is what a chunk's contexts are.
var places = func() (all [1 << 8]handlerContext) {
	for k := range all {
		all[k] = handlerContext(k)
	}
	return all
}()

func newContexts(q waitQueue, w runner) *contexts {
	return &contexts{queue: q, worker: w, all: places}
}

// chunk returns the contexts that c is one of.
func (c *handlerContext) chunk() *contexts {
	return (*contexts)(unsafe.Add(unsafe.Pointer(c), -int(unsafe.Offsetof(contexts{}.all))-int(*c)))
}

// A runState is what is known of a run beside that there is one.
//
// Its mutex guards the fields below it and is a leaf: only package context's
// own locks are taken under it.
type runState struct {
	place handlerContext
	next  atomic.Pointer[runState] // of an earlier run
	run   run                      // what it tells to publishes

	mu    sync.Mutex
	inner context.Context // nil until it is needed
	end   context.CancelCauseFunc
	cause error
}

// state returns the run's state, or nil if it has none.
func (c *handlerContext) state() *runState {
	_, s := c.find(c.chunk())
	return s
}

// find returns the run's state, or nil, and where it is or would be linked.
func (c *handlerContext) find(all *contexts) (at *atomic.Pointer[runState], s *runState) {
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
func (c *handlerContext) get() *runState {
	all := c.chunk()
	if _, s := c.find(all); s != nil {
		return s
	}
	all.mu.Lock()
	defer all.mu.Unlock()
	at, s := c.find(all)
	if s == nil {
		s = &runState{place: *c, run: run{queue: all.queue, worker: all.worker}}
		s.next.Store(at.Load())
		at.Store(s)
	}
	return s
}

func (c *handlerContext) cancel(cause error) {
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

// cancelledFor reports whether the run was cancelled for the given error.
func (c *handlerContext) cancelledFor(err error) bool {
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
func (c *handlerContext) Deadline() (time.Time, bool) { return time.Time{}, false }

func (c *handlerContext) Done() <-chan struct{} {
	s := c.get()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.realLocked().Done()
}

func (c *handlerContext) Err() error {
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

func (c *handlerContext) Value(key any) any {
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

// waits returns the publishes that wait inside the run. The queue's mu is held.
func (c *handlerContext) waits() []*handlerWait {
	if s := c.state(); s != nil {
		return s.run.waits
	}
	return nil
}

// giveContextsLocked gives contexts to the next n runs of the worker.
func (w *worker[T]) giveContextsLocked(n int) {
	if len(w.fresh) < n {
		w.fresh = newContexts(w.s.q, w).all[:]
	}
	w.ctxs, w.fresh = w.fresh[:n:n], w.fresh[n:]
}

// ctx is the context of the current run.
func (w *worker[T]) ctx() *handlerContext { return &w.ctxs[w.currentLocked()] }
