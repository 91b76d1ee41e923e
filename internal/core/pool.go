package core

import (
	"sync/atomic"
	"time"

	"github.com/gofanout/fanout/internal/handling"
	"github.com/gofanout/fanout/internal/lease"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/settings"
)

// A pool is what a queue knows of a subscriber, whose workers run a handler over it.
//
// Invariants:
//   - running <= concurrency, and running counts the worker goroutines;
//   - busy holds the workers whose handler is running, stuck counts those of them whose
//     delivery has timed out.
type pool[T any] struct {
	// Immutable.
	workers workers[T]
	q       *Queue[T]
	set     *settings.SubscriberLimits
	site    string // file and line that subscribed
	most    int    // messages that the handler gets

	// Guarded by the queue's mu.
	running  int
	stuck    int
	stopping bool
	nextAt   atomic.Int64 // no delivery may start before, for the rate limit; written without mu too
	busy     []holder[T]
	place    int // in the queue's pools

	nextFree, previousFree *pool[T] // see freePools
}

// Workers are what a queue asks a subscriber for. It holds its mu.
type workers[T any] interface {
	// startLocked starts one more worker.
	startLocked()
	// stopLocked makes the workers end, and takes the pool from its queue once they have.
	stopLocked()
	// trimLocked lets go of memory for batches to come.
	trimLocked()
}

// A holder is a worker that has messages. The queue holds its mu.
type holder[T any] interface {
	lease.Consumer[T]

	pooled() *pool[T]
	// handlesLocked reports whether its handler runs, and what it has is not being settled.
	handlesLocked() bool
	// waitsLocked returns the publishes that its handler waits in.
	waitsLocked() []*handling.Wait
	// cancelLocked has the handler's context cancelled after unlocking.
	cancelLocked(cause error)
	// timedOutLocked says that a delivery has timed out which the worker has had for as
	// long as it may, and returns how it ends. It began at start.
	timedOutLocked(it *item[T], attempt int, start, now int64, vis time.Duration) message.Verdict
	// returnWaitingLocked puts what waits in its lease back into the backlog.
	returnWaitingLocked()
	// forgetDoneLocked lets go of the messages that are done.
	forgetDoneLocked()
	// eachLocked calls f with the stamp of each of its deliveries.
	eachLocked(f func(stamp uint64))
	moved(place int) // in busy
}

// freePools is a ring of a queue's pools: each that may start one more
// worker is in it, and others until first meets them. They take turns: last is the one
// that started the latest worker, and the next one follows it. Guarded by the queue's mu.
type freePools[T any] struct{ last *pool[T] }

// mayStart reports whether the pool may start one more worker.
func (s *pool[T]) mayStart() bool { return !s.stopping && s.running < s.set.Concurrency }

// add puts a pool that may start a worker behind all others.
func (f *freePools[T]) add(s *pool[T]) {
	if s.nextFree != nil {
		return
	}
	s.nextFree, s.previousFree = s, s
	if f.last != nil {
		s.previousFree, s.nextFree = f.last, f.last.nextFree
		s.previousFree.nextFree, s.nextFree.previousFree = s, s
	}
	f.last = s
}

// remove takes a pool out, if it is in the ring.
func (f *freePools[T]) remove(s *pool[T]) {
	if s.nextFree == nil {
		return
	}
	s.previousFree.nextFree, s.nextFree.previousFree = s.nextFree, s.previousFree
	if f.last == s {
		f.last = s.previousFree
		if f.last == s {
			f.last = nil
		}
	}
	s.nextFree, s.previousFree = nil, nil
}

// first returns the pool whose turn it is, of those that may start a worker and
// whose rate limits let a message start. If only rate limits prevent it, it returns
// nil and until when.
func (f *freePools[T]) first() (sub *pool[T], limited int64) {
	if f.last == nil {
		return nil, 0
	}
	for s, end := f.last.nextFree, f.last; ; {
		next, atEnd := s.nextFree, s == end
		if !s.mayStart() {
			f.remove(s)
		} else if at := s.limitedLocked(); at == 0 {
			return s, 0
		} else if limited == 0 || at < limited {
			limited = at
		}
		if atEnd {
			return nil, limited
		}
		s = next
	}
}

// limitedLocked returns until when the rate limit lets no delivery start, 0 if
// one may start now.
func (s *pool[T]) limitedLocked() int64 {
	if s.set.Every == 0 {
		return 0
	}
	if now, at := s.q.core.now(), s.nextAt.Load(); !s.mayStartAt(now, at) {
		return at
	}
	return 0
}

// mayStartAt reports whether a delivery may start now, given the instant before which none
// may. One that is too late is of the clock of another bubble.
func (s *pool[T]) mayStartAt(now, at int64) bool {
	return at <= now || at > after(now, time.Duration(s.most)*s.set.Every)
}

// pass says that a delivery starts now, if the rate limit lets one, and reports whether it
// does. Anyone may call it.
func (s *pool[T]) pass(now int64) bool {
	if s.set.Every == 0 {
		return true
	}
	at := s.nextAt.Load()
	return s.mayStartAt(now, at) && s.nextAt.CompareAndSwap(at, after(now, s.set.Every))
}

// passMore says that n more deliveries have started with one that did.
func (s *pool[T]) passMore(n int) { s.nextAt.Add(int64(n) * int64(s.set.Every)) }

// unpass says that the delivery that was to start now has not.
func (s *pool[T]) unpass(now int64) {
	if s.set.Every > 0 {
		s.nextAt.CompareAndSwap(after(now, s.set.Every), now)
	}
}

// handlersLocked returns how many handlers run.
func (s *pool[T]) handlersLocked() (n int) {
	for _, w := range s.busy {
		if w.handlesLocked() {
			n++
		}
	}
	return n
}
