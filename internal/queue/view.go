package queue

import "time"

// What follows is for those who look after topics and queues, and for package fanout, whose
// types stand before those of this package.

// Made reports whether the queue is not the zero Queue.
func (q *Queue[T]) Made() bool { return q.Core != nil }

// IsLetters reports whether the queue is a dead-letter queue.
func (q *Queue[T]) IsLetters() bool { return q.Store.Letters }

// IsShared reports whether the queue is a dead-letter queue that belongs to no topic.
func (q *Queue[T]) IsShared() bool { return q.Store.Letters && q.Shared() }

// Blocking reports whether a publish or a redrive waits for room in this queue and is the
// first in its line.
func (q *Queue[T]) Blocking() bool { return q.RoomWanted.Load() != 0 }

// DeadNow returns the dead-letter queue, nil if none has been made.
func (q *Queue[T]) DeadNow() *Queue[T] {
	q.Mu.Lock()
	defer q.Mu.Unlock()
	return q.Dead
}

// Visibility is how long a delivery hides its message, if a receive says nothing else.
func (q *Queue[T]) Visibility() time.Duration { return q.Store.Set.Visibility }
