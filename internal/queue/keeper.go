package queue

import (
	"context"
	"time"

	"github.com/gofanout/fanout/internal/message"
)

// A keeper keeps the messages of a queue that is on an engine. What the queue has
// received is in entries of its window, with the states and time-outs that all messages
// have. What ends is told to the engine, which then forgets it, or delivers it again.
//
// What has "Locked" in its name is called with the queue's Mu held, and leaves calls of
// the engine pending. Calls and Polling of the queue count what is under way.
type keeper[T any] interface {
	// What callers do with queues and deliveries. No lock is held; ctx is not nil and has
	// not ended.

	Settle(ctx context.Context, ref message.Ref, v message.Verdict) error
	Extend(ctx context.Context, ref message.Ref, by time.Duration) error

	Purge(ctx context.Context) (dropped int, err error)
	Close() error
	Delete(ctx context.Context) error

	// For the topic's end: AwaitEmpty waits until nothing of the queue is kept
	// elsewhere; AskLeft asks what that is, for Left, which then tells; LetGo ends the
	// use of the engine's queue.
	AwaitEmpty(ctx context.Context) error
	AskLeft()
	Left() (ready, inFlight int)
	LetGo()

	// WantLocked says that a worker is free and nothing is ready.
	WantLocked()
	// ChangedLocked says that the queue was paused, resumed or closed, or that a
	// subscriber has stopped.
	ChangedLocked()
	// EndLocked ends the delivery of entry i, which is no longer scheduled, as v says.
	// Nobody waits for that.
	EndLocked(i int32, v message.Verdict, now int64)
	// DeadLetterLocked has entry i, whose state has been left, go to the dead letters.
	DeadLetterLocked(i int32)
	// ExtendLocked makes the engine's lease of entry i end after by at the earliest.
	ExtendLocked(i int32, by time.Duration)

	// Failed tells that the engine failed at a worker's settlement, unless err says
	// that the worker came too late, and reports which it is.
	Failed(err error) bool
	// Capacity is what the user asked for, Unknown if he asked for nothing.
	Capacity() int
}
