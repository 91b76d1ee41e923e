// Package deadletter has what is done with dead letters: which are meant, sending them back, deleting them.
//
// It promises that a letter is moved in one step, under the locks of both queues, and only if it is still
// there; and that a letter takes the place of a message that is parked for want of room among the dead
// letters, if it must, so that two full queues do not wait for each other.
//
// It owns nothing and has no lock or goroutine: it takes those of the topic, the queue and its dead-letter
// queue, in this order. The user's predicates and interceptors are called without one. How a message dies
// and is parked is package queue's. Of a queue on an engine it asks the keeper, as Elsewhere.
package deadletter

import (
	"context"
	"fmt"

	"github.com/gofanout/fanout/internal/callback"
	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/settings"
	"github.com/gofanout/fanout/internal/view"
)

// A Choice says which letters of a queue are meant. It is good for one call.
type Choice[T any] struct {
	dead *queue.Queue[T] // nil: none has died
	settings.Letters
	Keep []func(*delivery.Delivery[T]) bool // all must accept a letter
}

// find finds the dead-letter queue of c, for a call that does what.
func find[T any](q *queue.Queue[T], what string, c *Choice[T]) error {
	q.Mu.Lock()
	defer q.Mu.Unlock()
	c.dead = q.Dead
	if q.Store.Closed {
		return fmt.Errorf("fanout: %s of %q: %w", what, q.Name(), message.ErrClosed)
	}
	return nil
}

// selectFrom returns the queue's letters that are chosen, in the order of publication. It
// looks at view.LookLen of them under one lock. One that came meanwhile, or that a consumer has
// taken, is not among them.
func selectFrom[T any](q *queue.Queue[T], c *Choice[T]) (letters []delivery.Delivery[T], err error) {
	d := c.dead
	var newer uint64 // stamp of what is
	for from, more := int32(0), true; more; {
		var some []delivery.Delivery[T]
		d.Mu.Lock()
		if newer == 0 {
			newer = d.Store.Win.Reserve(1)
		}
		from, more = d.Store.Win.Scan(from, view.LookLen, func(i int32) {
			if d.Store.Win.Meta(i).Stamp < newer && !d.Store.InFlight(i) && (!d.Shared() || d.Store.Win.At(i).Ext.Source == q.Origin()) {
				some = append(some, delivery.PeekedLocked(d, i))
			}
		})
		d.Mu.Unlock()
		if some, err = Select(some, c); err != nil {
			return nil, err
		}
		letters = append(letters, some...)
	}
	view.InOrder(letters)
	return letters, nil
}

// Select applies the options, with no lock held. Of the IDs asked for it notes
// those that a letter has.
func Select[T any](letters []delivery.Delivery[T], c *Choice[T]) (kept []delivery.Delivery[T], err error) {
	defer func() {
		if p := recover(); p != nil {
			kept, err = nil, fmt.Errorf("fanout: RedriveIf: %w", callback.Error(p))
		}
	}()
	for _, l := range letters {
		keep := (c.IDs == nil || c.Met(l.ID())) && c.InTime(l.Hist)
		for _, pred := range c.Keep {
			keep = keep && pred(&l)
		}
		if keep {
			kept = append(kept, l)
		}
	}
	return kept, nil
}

// Elsewhere is the keeper of a queue whose messages an engine keeps, which has to be asked for
// its dead letters. No lock is held; ctx is not nil and has not ended.
type Elsewhere[T any] interface {
	Redrive(ctx context.Context, c *Choice[T]) (moved int, err error)
	DeleteLetters(ctx context.Context, c *Choice[T]) (deleted int, err error)
}
