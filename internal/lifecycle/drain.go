package lifecycle

import "github.com/gofanout/fanout/internal/queue"

// Drain tells the queue that its topic shuts down.
func Drain[T any](q *queue.Queue[T]) {
	q.Mu.Lock()
	q.Store.Draining = true
	q.Mu.Unlock()
}

// AwaitDrained returns nil if nothing is left that Shutdown waits for, and
// otherwise a channel that is closed when that is so.
func AwaitDrained[T any](q *queue.Queue[T]) <-chan struct{} {
	q.Mu.Lock()
	defer q.Mu.Unlock()
	if q.IsDrainedLocked() {
		return nil
	}
	if q.Drained == nil {
		q.Drained = make(chan struct{})
	}
	return q.Drained
}
