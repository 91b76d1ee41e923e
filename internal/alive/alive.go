// Package alive counts what a topic still has running, so that its end can be awaited.
//
// It promises that the channel closes once, when the count comes to zero, and that a channel belongs to the
// bubble of testing/synctest in which somebody first asked for it.
//
// A Count has a mutex, a leaf, for its channel alone; counting takes none. It starts no goroutine.
package alive

import (
	"sync"
	"sync/atomic"
)

// A Count counts the owners of goroutines and timers: the topic until it is
// closed, each queue until its last worker and its timer are gone, each
// goroutine that wakes others, each pending report, the deduplicator's timer,
// each handler's timeout. Its channel closes at zero.
type Count struct {
	N atomic.Int64

	mu   sync.Mutex    // guards the fields below, and is a leaf
	done chan struct{} // made when somebody asks: it belongs to the bubble of testing/synctest that it was made in
	over bool
}

// Add says that there are n more. Who calls it knows that something is counted already.
func (l *Count) Add(n int64) { l.N.Add(n) }

// Release says that one owner has nothing running any more.
func (l *Count) Release() {
	if l.N.Add(-1) > 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
	if l.done != nil {
		close(l.done)
	}
}

// Awaitable returns the channel that closes once nothing is alive.
func (l *Count) Awaitable() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.done == nil {
		l.done = make(chan struct{})
		if l.over {
			close(l.done)
		}
	}
	return l.done
}
