package consumers

import (
	"errors"
	"fmt"
)

// A Group is the consumers of a queue. The queue's lock guards it.
//
// Invariants:
//   - Consumers counts the workers that the pools which are not stopping may have;
//   - each pool that may start a worker is in the ring of those that may.
type Group[T any] struct {
	Receivers Line
	Subs      []*Pool[T]
	Free      Ring[T]
	Running   int32 // worker goroutines of all pools
	Ranges    int32 // over Deliveries
	Serving   int32 // of running, those of pools that are not stopping
	Consumers int32 // how many workers there may be
}

// NextLocked reports whether any consumer could take a message, and which
// subscriber's turn it would be; if only their rate limits keep subscribers from it,
// until when.
func (g *Group[T]) NextLocked() (sub *Pool[T], limited int64, ok bool) {
	if g.Serving < g.Consumers {
		if sub, limited = g.Free.First(); sub != nil {
			return sub, 0, true
		}
	}
	return nil, limited, limited > 0 || g.Receivers.N > 0
}

// StartLocked starts a worker of the pool whose turn it is.
func (g *Group[T]) StartLocked(sub *Pool[T]) {
	g.Free.last = sub
	sub.Workers.StartLocked()
}

// HandlersLocked returns how many handlers run, of all pools.
func (g *Group[T]) HandlersLocked() (n int) {
	for _, s := range g.Subs {
		n += s.HandlersLocked()
	}
	return n
}

// Finder returns a function that finds the worker whose delivery has a stamp, or nil.
// It looks at all workers once, when it is first called: it is good as long as the
// queue's lock is held.
func (g *Group[T]) Finder() func(stamp uint64) Holder[T] {
	var workers map[uint64]Holder[T]
	return func(stamp uint64) Holder[T] {
		if workers == nil {
			workers = make(map[uint64]Holder[T])
			for _, s := range g.Subs {
				for _, w := range s.Busy {
					for _, stamp := range w.StampsLocked() {
						workers[stamp] = w
					}
				}
			}
		}
		return workers[stamp]
	}
}

// CheckConsumers checks the invariants.
func (g *Group[T]) CheckConsumers() error {
	consumers := int32(0)
	for _, sub := range g.Subs {
		if !sub.Stopping {
			consumers += int32(sub.Set.Concurrency)
		}
		if sub.MayStart() && sub.nextFree == nil {
			return errors.New("a subscriber that may start a worker is not in the ring of those that may")
		}
	}
	if consumers != g.Consumers {
		return fmt.Errorf("subscribers have %d workers, the queue counts %d", consumers, g.Consumers)
	}
	return nil
}
