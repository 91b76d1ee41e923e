package queue

import (
	"context"
	"fmt"
	"math"

	"github.com/gofanout/fanout/internal/callback"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/settings"
	"github.com/gofanout/fanout/internal/store"
)

// offerSwapLocked has a redrive that waits for room here looked at, since it can
// change places with what is parked: it makes RoomWanted as low as no allow is,
// so that the next Unlock goes to tell.
func (q *Queue[T]) offerSwapLocked() {
	for g := q.RoomWanted.Load(); g != 0 && !q.RoomWanted.CompareAndSwap(g, math.MinInt64); {
		g = q.RoomWanted.Load()
	}
}

// CanSwap reports whether a redrive could change places with something parked.
func (q *Queue[T]) CanSwap() bool {
	q.Mu.Lock()
	defer q.Mu.Unlock()
	return q.In(store.Parked) > 0
}

// RedriveLetters sends dead letters back to this queue: those that c selects. It returns how many
// moved.
func (q *Queue[T]) RedriveLetters(ctx context.Context, c *LetterChoice[T]) (moved int, err error) {
	return q.redriveAround(ctx, c)
}

// redriveTo is Redrive with its options, and nothing around it.
func (q *Queue[T]) redriveTo(ctx context.Context, c *LetterChoice[T]) (moved int, err error) {
	if err := q.findLetters("redrive", c); err != nil {
		return 0, err
	}
	if moved, err = q.At().Redrive(ctx, c); err != nil {
		err = fmt.Errorf("fanout: redrive of %q: %w", q.QueueName, err)
	}
	return moved, err
}

// A LetterChoice says which letters of a queue are meant. It is good for one call.
type LetterChoice[T any] struct {
	dead *Queue[T] // nil: none has died
	settings.Letters
	Keep []func(*Delivery[T]) bool // all must accept a letter
}

// findLetters finds the dead-letter queue of c, for a call that does what.
func (q *Queue[T]) findLetters(what string, c *LetterChoice[T]) error {
	q.Mu.Lock()
	defer q.Mu.Unlock()
	c.dead = q.Dead
	if q.Closed {
		return fmt.Errorf("fanout: %s of %q: %w", what, q.QueueName, message.ErrClosed)
	}
	return nil
}

// redriveFrom redrives letters in memory.
func (q *Queue[T]) redriveFrom(ctx context.Context, c *LetterChoice[T]) (moved int, err error) {
	letters, err := q.selectFrom(c)
	if err != nil {
		return 0, err
	}
	unknown := c.Unknown()
	if len(letters) == 0 {
		return 0, unknown
	}
	if moved, err = q.T.Owner.RedriveLetters(ctx, q, letters); err == nil {
		err = unknown
	} else if unknown != nil {
		err = fmt.Errorf("%w; %w", err, unknown)
	}
	return moved, err
}

// selectFrom returns the queue's letters that are chosen, in the order of publication. It
// looks at lookLen of them under one lock. One that came meanwhile, or that a consumer has
// taken, is not among them.
func (q *Queue[T]) selectFrom(c *LetterChoice[T]) (letters []Delivery[T], err error) {
	d := c.dead
	var newer uint64 // stamp of what is
	for from, more := int32(0), true; more; {
		var some []Delivery[T]
		d.Mu.Lock()
		if newer == 0 {
			newer = d.Win.Reserve(1)
		}
		from, more = d.Win.Scan(from, lookLen, func(i int32) {
			if d.Win.Meta(i).Stamp < newer && !d.InFlight(i) && (!d.shared() || d.Win.At(i).Ext.Source == q.origin()) {
				some = append(some, d.peekedLocked(i))
			}
		})
		d.Mu.Unlock()
		if some, err = SelectLetters(some, c); err != nil {
			return nil, err
		}
		letters = append(letters, some...)
	}
	inOrder(letters)
	return letters, nil
}

// SelectLetters applies the options, with no lock held. Of the IDs asked for it notes
// those that a letter has.
func SelectLetters[T any](letters []Delivery[T], c *LetterChoice[T]) (kept []Delivery[T], err error) {
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

// RedriveLocked moves letters back as far as there is room. A letter takes the
// place of a parked message if it must, which takes the letter's: a queue that
// is full of parked messages and its full dead-letter queue could otherwise wait
// for each other for ever. It returns the letters that remain, and how many
// moved. The topic's Mu is held.
func (q *Queue[T]) RedriveLocked(letters []Delivery[T]) (rest []Delivery[T], moved int) {
	q.Mu.Lock()
	defer q.UnlockUnder(q.T)
	now := q.Core.Now()
	d := q.Dead
	d.Mu.Lock()
	defer d.UnlockUnder(q.T)
	for len(letters) > 0 && (q.Room() > 0 || q.In(store.Parked) > 0) {
		l := letters[0]
		letters = letters[1:]
		if !d.hasLetterLocked(&l) {
			continue
		}
		h := *d.Win.At(l.Ref.Block)
		d.Discard(l.Ref.Block)
		d.Counters().Redriven++
		if q.Room() <= 0 {
			p, _ := q.FirstParked()
			q.sendBothLocked(d, p)
			q.Discard(p)
		}
		q.Admit(store.Held[T]{Item: q.fromLetter(d, h.Item, now), Hist: h.Hist}, store.Due)
		q.Counters().Redriven++
		moved++
		q.NoteItemLocked(notice.Redriven, &h.Item, notice.Event{})
	}
	d.ArmLocked(d.Core.Now())
	d.HandOnLocked() // a letter that went may have been the head of its key
	q.HandOnLocked()
	return letters, moved
}

// hasLetterLocked reports whether a letter that was looked at is still there. It may
// have been taken, settled or redriven meanwhile.
func (d *Queue[T]) hasLetterLocked(l *Delivery[T]) bool {
	return !d.Closed && d.Win.Holds(l.Ref.Block) && d.Win.At(l.Ref.Block).Seq == l.Seq && !d.InFlight(l.Ref.Block)
}
