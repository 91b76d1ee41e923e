package deadletter

import (
	"context"
	"fmt"
	"time"

	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/intercept"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/store"
)

// Redrive sends dead letters back to this queue: those that c selects. It returns how many
// moved. Interceptors are called around it.
func Redrive[T any](ctx context.Context, q *queue.Queue[T], c *Choice[T]) (moved int, err error) {
	if q.Core.Calls == nil {
		return redriveTo(ctx, q, c)
	}
	m := new(redrivenCount)
	info := intercept.Info{Operation: intercept.OpRedrive, Topic: q.Core.TopicName, Queue: q.Name(), About: m}
	err = intercept.Call(ctx, q.Core.Calls, info, func(ctx context.Context) error {
		if ctx == nil {
			return fmt.Errorf("%w: Redrive: %w", message.ErrInvalidOption, message.ErrNilContext)
		}
		n, err := redriveTo(ctx, q, c)
		*m += redrivenCount(n)
		return err
	})
	return m.Count(), err
}

// A redrivenCount is what is known of letters that have moved.
type redrivenCount int

func (m *redrivenCount) Count() int { return int(*m) }

func (*redrivenCount) Body(int) any { return nil }

func (*redrivenCount) ID(int) string { return "" }

func (*redrivenCount) Ext(int) *message.Extra { return nil }

func (*redrivenCount) Attempt(int) int { return 0 }

func (*redrivenCount) PublishedAt(int) time.Time { return time.Time{} }

func (*redrivenCount) Set(int, string, string) bool { return false }

// redriveTo is Redrive with nothing around it.
func redriveTo[T any](ctx context.Context, q *queue.Queue[T], c *Choice[T]) (moved int, err error) {
	if err := find(q, "redrive", c); err != nil {
		return 0, err
	}
	if e, ok := q.Keeper.(Elsewhere[T]); ok {
		moved, err = e.Redrive(ctx, c)
	} else if c.dead == nil {
		err = c.Unknown()
	} else {
		moved, err = redriveFrom(ctx, q, c)
	}
	if err != nil {
		err = fmt.Errorf("fanout: redrive of %q: %w", q.Name(), err)
	}
	return moved, err
}

// redriveFrom redrives letters in memory.
func redriveFrom[T any](ctx context.Context, q *queue.Queue[T], c *Choice[T]) (moved int, err error) {
	chosen, err := selectFrom(q, c)
	if err != nil {
		return 0, err
	}
	letters := lettersOf(chosen)
	unknown := c.Unknown()
	if len(letters) == 0 {
		return 0, unknown
	}
	if moved, err = q.T.Admission.RedriveLetters(ctx, q, letters); err == nil {
		err = unknown
	} else if unknown != nil {
		err = fmt.Errorf("%w; %w", err, unknown)
	}
	return moved, err
}

// RedriveLocked moves letters back as far as there is room. A letter takes the
// place of a parked message if it must, which takes the letter's: a queue that
// is full of parked messages and its full dead-letter queue could otherwise wait
// for each other for ever. It returns the letters that remain, and how many
// moved. The topic's Mu is held.
func RedriveLocked[T any](q *queue.Queue[T], letters []queue.Letter) (rest []queue.Letter, moved int) {
	q.Mu.Lock()
	defer q.UnlockUnder(q.T)
	now := q.Core.Now()
	d := q.Dead
	d.Mu.Lock()
	defer d.UnlockUnder(q.T)
	for len(letters) > 0 && (q.Store.Room() > 0 || q.Store.In(store.Parked) > 0) {
		l := letters[0]
		letters = letters[1:]
		if !hasLetterLocked(d, l) {
			continue
		}
		h := *d.Store.Win.At(l.Entry)
		d.Store.Discard(l.Entry)
		d.Store.Counters().Redriven++
		if q.Store.Room() <= 0 {
			p, _ := q.Store.FirstParked()
			q.SendBothLocked(d, p)
			q.Store.Discard(p)
		}
		q.Store.Admit(store.Held[T]{Item: fromLetter(q, d, h.Item, now), Hist: h.Hist}, store.Due)
		q.Store.Counters().Redriven++
		moved++
		q.NoteItemLocked(notice.Redriven, &h.Item, notice.Event{})
	}
	d.ArmLocked(d.Core.Now())
	d.HandOnLocked() // a letter that went may have been the head of its key
	q.HandOnLocked()
	return letters, moved
}

// lettersOf names letters that were looked at.
func lettersOf[T any](ds []delivery.Delivery[T]) []queue.Letter {
	letters := make([]queue.Letter, len(ds))
	for k := range ds {
		letters[k] = queue.Letter{Seq: ds[k].Seq, Entry: ds[k].Ref.Block}
	}
	return letters
}

// hasLetterLocked reports whether a letter that was looked at is still there. It may
// have been taken, settled or redriven meanwhile.
func hasLetterLocked[T any](d *queue.Queue[T], l queue.Letter) bool {
	return !d.Store.Closed && d.Store.Win.Holds(l.Entry) && d.Store.Win.At(l.Entry).Seq == l.Seq && !d.Store.InFlight(l.Entry)
}

// CanSwap reports whether a redrive could change places with something parked.
func CanSwap[T any](q *queue.Queue[T]) bool {
	q.Mu.Lock()
	defer q.Mu.Unlock()
	return q.Store.In(store.Parked) > 0
}

// fromLetter is the reverse of what a queue does when its message dies, for a message whose time to live begins anew.
func fromLetter[T any](q, d *queue.Queue[T], it message.Item[T], now int64) message.Item[T] {
	if d.Shared() {
		it.Seq = it.Ext.Seq
		it.At = q.Core.Clock.At(d.Core.Time(it.At))
	}
	if it.Ext != nil || q.Store.Set.TTL > 0 {
		it.Ext = it.Ext.With(func(x *message.Extra) { x.Born, x.Source, x.Seq = now, nil, 0 })
	}
	return it
}
