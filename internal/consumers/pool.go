// Package consumers has who waits for a queue's messages, and whose turn it is.
//
// It promises that receivers are woken in the order of their arrival, before any worker is
// started; that subscribers take turns, each as often as it has workers to start and as its rate
// limit lets it; and that nobody who can't take a message is woken.
//
// A Group is the receivers of a queue, its subscribers, as Pools, and their workers, as Holders of
// messages. It has no lock: the queue's guards it, except that anyone may ask a Pool's rate limit.
// It starts no goroutine: Workers do, which a subscriber is. It reads the clock for rate limits.
package consumers

import (
	"sync/atomic"
	"time"

	"github.com/gofanout/fanout/internal/handling"
	"github.com/gofanout/fanout/internal/lease"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/settings"
)

// A Pool is what a queue knows of a subscriber, whose workers run a handler over it.
//
// Invariants:
//   - running <= concurrency, and running counts the worker goroutines;
//   - busy holds the workers whose handler is running, stuck counts those of them whose
//     delivery has timed out.
type Pool[T any] struct {
	// Immutable.
	Workers Workers[T]
	Clock   *message.Clock
	Set     *settings.SubscriberLimits
	Site    string // file and line that subscribed
	Most    int    // messages that the handler gets

	// Guarded by the queue's Mu.
	Running  int32
	Stuck    int32
	Place    int32 // in the queue's pools
	Stopping bool
	nextAt   atomic.Int64 // no delivery may start before, for the rate limit; written without Mu too
	Busy     []Holder[T]

	nextFree, previousFree *Pool[T] // see Ring
}

// Workers are what a queue asks a subscriber for. It holds its Mu.
type Workers[T any] interface {
	// StartLocked starts one more worker.
	StartLocked()
	// StopLocked makes the workers end, and takes the pool from its queue once they have.
	StopLocked()
}

// A Holder is a worker that has messages. The queue holds its Mu.
type Holder[T any] interface {
	lease.Consumer[T]

	Pooled() *Pool[T]
	// HandlesLocked reports whether its handler runs, and what it has is not being settled.
	HandlesLocked() bool
	// WaitsLocked returns the publishes that its handler waits in.
	WaitsLocked() []*handling.Wait
	// CancelLocked has the handler's context cancelled after unlocking.
	CancelLocked(cause error)
	// TimedOutLocked says that a delivery has timed out which the worker has had for as
	// long as it may, and returns how it ends. It began at start.
	TimedOutLocked(it *message.Item[T], attempt int, start, now int64, vis time.Duration) message.Verdict
	// ReturnWaitingLocked puts what waits in its lease back into the backlog.
	ReturnWaitingLocked()
	// ForgetDoneLocked lets go of the messages that are done.
	ForgetDoneLocked()
	// StampsLocked returns the stamps of its deliveries.
	StampsLocked() []uint64
	Moved(place int) // in busy
}

// A Ring has a queue's pools: each that may start one more
// worker is in it, and others until First meets them. They take turns: last is the one
// that started the latest worker, and the next one follows it. Guarded by the queue's Mu.
type Ring[T any] struct{ last *Pool[T] }

// MayStart reports whether the pool may start one more worker.
func (s *Pool[T]) MayStart() bool { return !s.Stopping && int(s.Running) < s.Set.Concurrency }

// Add puts a pool that may start a worker behind all others.
func (f *Ring[T]) Add(s *Pool[T]) {
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

// Remove takes a pool out, if it is in the ring.
func (f *Ring[T]) Remove(s *Pool[T]) {
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

// First returns the pool whose turn it is, of those that may start a worker and
// whose rate limits let a message start. If only rate limits prevent it, it returns
// nil and until when.
func (f *Ring[T]) First() (sub *Pool[T], limited int64) {
	if f.last == nil {
		return nil, 0
	}
	for s, end := f.last.nextFree, f.last; ; {
		next, atEnd := s.nextFree, s == end
		if !s.MayStart() {
			f.Remove(s)
		} else if at := s.LimitedLocked(); at == 0 {
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

// LimitedLocked returns until when the rate limit lets no delivery start, 0 if
// one may start now.
func (s *Pool[T]) LimitedLocked() int64 {
	if s.Set.Every == 0 {
		return 0
	}
	if now, at := s.Clock.Now(), s.nextAt.Load(); !s.mayStartAt(now, at) {
		return at
	}
	return 0
}

// mayStartAt reports whether a delivery may start now, given the instant before which none
// may. One that is too late is of the clock of another bubble.
func (s *Pool[T]) mayStartAt(now, at int64) bool {
	return at <= now || at > message.After(now, time.Duration(s.Most)*s.Set.Every)
}

// Pass says that a delivery starts now, if the rate limit lets one, and reports whether it
// does. Anyone may call it.
func (s *Pool[T]) Pass(now int64) bool {
	if s.Set.Every == 0 {
		return true
	}
	at := s.nextAt.Load()
	return s.mayStartAt(now, at) && s.nextAt.CompareAndSwap(at, message.After(now, s.Set.Every))
}

// PassMore says that n more deliveries have started with one that did.
func (s *Pool[T]) PassMore(n int) { s.nextAt.Add(int64(n) * int64(s.Set.Every)) }

// Unpass says that the delivery that was to start now has not.
func (s *Pool[T]) Unpass(now int64) {
	if s.Set.Every > 0 {
		s.nextAt.CompareAndSwap(message.After(now, s.Set.Every), now)
	}
}

// HandlersLocked returns how many handlers run.
func (s *Pool[T]) HandlersLocked() (n int) {
	for _, w := range s.Busy {
		if w.HandlesLocked() {
			n++
		}
	}
	return n
}
