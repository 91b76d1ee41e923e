package delivery

import (
	"context"
	"time"
	"unsafe"

	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/queue"
)

// TakeOne takes the next message into d, and waits for one if there is none. vis is its
// visibility timeout.
func TakeOne[T any](ctx context.Context, q *queue.Queue[T], d *Delivery[T], vis time.Duration) error {
	_, err := TakeInto(ctx, q, unsafe.Slice(d, 1), vis)
	return err
}

// TakeInto takes as many messages as ds has room for and there are, and waits
// for the first.
func TakeInto[T any](ctx context.Context, q *queue.Queue[T], ds []Delivery[T], vis time.Duration) (n int, err error) {
	if !q.Local {
		got, err := ReceiveOther(ctx, q, len(ds), vis)
		return copy(ds, got), err
	}
	err = Await(ctx, q, func() (ok bool) {
		n = takeLocked(q, ds, vis)
		return n > 0
	})
	return n, err
}

// TryTake takes the next message into d if there is one, and reports whether there was.
func TryTake[T any](ctx context.Context, q *queue.Queue[T], d *Delivery[T], vis time.Duration) (ok bool, err error) {
	if !q.Local {
		*d, ok, err = tryReceiveOther(ctx, q, vis)
		return ok, err
	}
	return tryReceiveInto(ctx, q, unsafe.Slice(d, 1), vis)
}

// tryReceiveHere is TryReceive from memory.
func tryReceiveHere[T any](ctx context.Context, q *queue.Queue[T], vis time.Duration) (d Delivery[T], ok bool, err error) {
	ok, err = tryReceiveInto(ctx, q, unsafe.Slice(&d, 1), vis)
	return d, ok, err
}

func tryReceiveInto[T any](ctx context.Context, q *queue.Queue[T], d []Delivery[T], vis time.Duration) (ok bool, err error) {
	ended := ctx.Err() != nil
	q.Mu.Lock()
	switch {
	case q.Store.Closed:
		q.Mu.Unlock()
		return false, ReceiveError(q, ErrQueueClosed)
	case ended:
		q.Mu.Unlock()
		return false, ReceiveError(q, message.ContextError(ctx))
	}
	n := takeLocked(q, d, vis)
	q.Unlock()
	return n > 0, nil
}

// TakeBatch takes up to most messages, and waits for the first.
func TakeBatch[T any](ctx context.Context, q *queue.Queue[T], most int, vis time.Duration) ([]Delivery[T], error) {
	if !q.Local {
		return ReceiveOther(ctx, q, most, vis)
	}
	return receiveHere(ctx, q, most, vis)
}

// receiveHere is ReceiveBatch from memory.
func receiveHere[T any](ctx context.Context, q *queue.Queue[T], most int, vis time.Duration) ([]Delivery[T], error) {
	var batch []Delivery[T]
	err := Await(ctx, q, func() (ok bool) {
		if !q.ServesLocked() {
			return false
		}
		batch = make([]Delivery[T], min(most, q.Store.Ready()))
		n := takeLocked(q, batch, vis)
		batch = batch[:n]
		return n > 0
	})
	if err != nil {
		return nil, err
	}
	return batch, nil
}

// takeLocked claims messages for a caller, as many as ds has room for, and sees
// to it that other consumers are woken for what remains. It may have dead-lettered some
// that came too late, and freed their room, even if it takes none.
func takeLocked[T any](q *queue.Queue[T], ds []Delivery[T], vis time.Duration) (n int) {
	if !q.ServesLocked() || q.Store.InLog() == 0 && q.Store.Ready() == 0 {
		return 0
	}
	return TakeAtLocked(q, ds, q.Core.Now(), vis)
}
