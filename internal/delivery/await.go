package delivery

import (
	"context"
	"fmt"

	"github.com/gofanout/fanout/internal/consumers"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/queue"
)

// Await calls take, with the queue's Mu locked, until it has taken something,
// and waits in between until there may be something to take.
func Await[T any](ctx context.Context, q *queue.Queue[T], take func() (ok bool)) error {
	ended := ctx.Err() != nil // asks the user's context: before the lock
	q.Mu.Lock()
	if q.Store.Closed || ended {
		return unreceived(ctx, q)
	}
	if !take() {
		r := q.Group.Receivers.Make()
		q.Group.Receivers.Add(r)
		q.HandOnLocked()
		return awaitTurn(ctx, q, r, take)
	}
	q.Unlock()
	return nil
}

// unreceived returns why nothing was received. It is called with Mu locked, and
// unlocks it.
func unreceived[T any](ctx context.Context, q *queue.Queue[T]) error {
	closed := q.Store.Closed
	// Whoever woke this receiver meant it to take a message: wake another.
	q.HandOnLocked()
	q.Unlock()
	if closed {
		return ReceiveError(q, ErrQueueClosed)
	}
	return ReceiveError(q, message.ContextError(ctx))
}

// awaitTurn is Await for r, which stands in line. It is called with Mu locked, and
// unlocks it. It asks the user's context and calls hooks: if one of them ends the
// goroutine, or panics, r gives up its place.
func awaitTurn[T any](ctx context.Context, q *queue.Queue[T], r *consumers.Receiver, take func() (ok bool)) error {
	waiting := true
	defer func() {
		if waiting {
			q.Mu.Lock()
			if r != nil {
				q.Group.Receivers.Remove(r)
			}
			q.HandOnLocked() // it may have been woken
			q.Unlock()
		}
	}()
	for ok := false; ; {
		q.Unlock()
		if ok {
			waiting = false
			return nil
		}
		r.Wait(ctx)
		ended := ctx.Err() != nil
		q.Mu.Lock()
		q.Group.Receivers.Remove(r)
		if q.Store.Closed || ended {
			waiting = false
			q.Group.Receivers.Done(r)
			return unreceived(ctx, q)
		}
		if ok = take(); ok {
			q.Group.Receivers.Done(r)
			r = nil
		} else { // woken in vain: somebody was quicker, and it keeps its place
			q.Group.Receivers.AddFirst(r)
			q.HandOnLocked()
		}
	}
}

// ErrQueueClosed is ErrClosed from a receive, to be told from one that a
// context was cancelled with.
var ErrQueueClosed = fmt.Errorf("%w", message.ErrClosed)

// ReceiveError says that err is of a receive from q.
func ReceiveError[T any](q *queue.Queue[T], err error) error {
	return fmt.Errorf("fanout: receive from %q: %w", q.Name(), err)
}
