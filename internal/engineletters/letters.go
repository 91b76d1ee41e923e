package engineletters

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/internal/deadletter"
	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/onengine"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/store"
)

// Dead letters in an engine are looked at by receiving them, and then giving them
// back; they are redriven by receiving them, part after part, moving those that are
// selected, and giving back the others. What is to be given back stays leased until
// the end, so that each letter is met once.

const (
	// atOnce is how many letters are moved or given back at the same time. An engine
	// that sends batches makes them of these.
	atOnce = 64
	// fruitless is how often in a row only letters may come that are known: then
	// leases end faster than letters are received.
	fruitless = 8
)

// A Source is the dead letters of a queue on an engine.
type Source[T any] struct {
	Q      *queue.Queue[T] // the dead-letter queue
	Engine engine.Queue    // the engine's
	// Lease is what the engine is asked for a visibility timeout: 0, its own, if it keeps none.
	Lease func(visibility time.Duration) time.Duration
	// Decode decodes what was received. It calls the user's code: no lock is held.
	Decode func(got []engine.Received) []Letter[T]
}

// A Letter is a dead letter that was received and decoded.
type Letter[T any] struct {
	store.Held[T]
	Spent uint32 // attempts, since it died
}

// Peek looks at dead letters.
func (s *Source[T]) Peek(ctx context.Context, most int) (ds []delivery.Delivery[T], err error) {
	h := s.hold()
	for more := true; more && err == nil && len(h.letters) < most; {
		_, more, err = h.next(ctx, most-len(h.letters))
	}
	for _, l := range h.letters {
		ds = append(ds, h.delivery(l))
	}
	sort.SliceStable(ds, func(j, k int) bool { return ds[j].At < ds[k].At })
	return ds, errors.Join(err, h.giveBack(ctx))
}

// A letterEnd is what becomes of letters that were chosen.
type letterEnd[T any] struct {
	// each does it, and returns the error of each letter.
	each       func(h *holding[T], ctx context.Context, ls []*heldLetter[T]) []error
	q          *queue.Queue[T]        // whose event it is
	count      func(l *heldLetter[T]) // counts and notes it. q's Mu is held
	not        string                 // what the others were not
	visibility time.Duration          // of the queue whose letters they are
}

// Redrive moves dead letters back to q, whose letters they are.
func (s *Source[T]) Redrive(ctx context.Context, q *queue.Queue[T], c *deadletter.Choice[T]) (moved int, err error) {
	return s.end(ctx, c, letterEnd[T]{each: (*holding[T]).moveEach, q: q, not: "moved", visibility: q.Store.Set.Visibility, count: func(l *heldLetter[T]) {
		q.Store.Counters().Redriven++
		q.NoteLocked(notice.Redriven, notice.Event{MessageID: l.ID, PublishedAt: l.PublishedAt, Count: 1})
	}})
}

// Delete acknowledges dead letters of q.
func (s *Source[T]) Delete(ctx context.Context, q *queue.Queue[T], c *deadletter.Choice[T]) (deleted int, err error) {
	d := s.Q
	return s.end(ctx, c, letterEnd[T]{each: (*holding[T]).ackEach, q: d, not: "deleted", visibility: q.Store.Set.Visibility, count: func(l *heldLetter[T]) {
		d.Store.Counters().Dropped++
		d.NoteLocked(notice.Dropped, notice.Event{MessageID: l.ID, PublishedAt: l.PublishedAt, Count: 1, Reason: notice.DroppedByDelete})
	}})
}

// ackEach has the engine forget letters.
func (h *holding[T]) ackEach(ctx context.Context, ls []*heldLetter[T]) []error {
	return together(len(ls), func(k int) error { return onengine.Error(h.dead.Engine.Ack(ctx, ls[k].Receipt)) })
}

// end ends dead letters, a part of them at a time: none waits for so long that its
// lease ends.
func (s *Source[T]) end(ctx context.Context, c *deadletter.Choice[T], how letterEnd[T]) (ended int, err error) {
	h := s.hold()
	over := false
	defer func() {
		if !over { // the user's code has ended the goroutine
			_ = h.giveBack(ctx)
		}
	}()
	began, back := time.Now(), map[string]bool{} // IDs of those that were ended
	var ends vain
	for more := true; more && err == nil; {
		var ls []*heldLetter[T]
		if ls, more, err = h.part(ctx); err != nil {
			break
		}
		ls = slices.DeleteFunc(ls, func(l *heldLetter[T]) bool { return diedAfter(began, l.letter.Hist, back[l.ID]) })
		if ls, err = h.choose(ls, c); err != nil {
			break
		}
		var done []*heldLetter[T]
		done, err = h.endAll(ctx, ls, how)
		for _, l := range done {
			back[l.ID] = true
		}
		ended += len(done)
		if late := len(ls) - len(done); late > 0 && err == nil {
			more, err = true, ends.progress(len(done), how.visibility)
		}
	}
	if late := len(h.late); late > 0 && err == nil {
		err = fmt.Errorf("%d letters were not %s, and are in other hands: %w", late, how.not, message.ErrStale)
	}
	if err == nil {
		err = c.Unknown()
	}
	over = true
	return ended, errors.Join(err, h.giveBack(ctx))
}

// choose returns those that the options select.
func (h *holding[T]) choose(ls []*heldLetter[T], c *deadletter.Choice[T]) (chosen []*heldLetter[T], err error) {
	for _, l := range ls {
		some, err := deadletter.Select([]delivery.Delivery[T]{h.delivery(l)}, c)
		if err != nil {
			return nil, err
		}
		if len(some) > 0 {
			chosen = append(chosen, l)
		}
	}
	return chosen, nil
}

// endAll has the engine end letters, and returns those that it has ended. Those whose
// leases have ended come again, and are new then.
func (h *holding[T]) endAll(ctx context.Context, ls []*heldLetter[T], how letterEnd[T]) (ended []*heldLetter[T], err error) {
	errs := how.each(h, ctx, ls)
	for k, l := range ls {
		switch {
		case errs[k] == nil:
			l.done = true
			h.met[l.key] = metLetter[T]{deliveries: l.Deliveries}
			ended = append(ended, l)
		case errors.Is(errs[k], message.ErrStale):
			l.done, errs[k] = true, nil
			delete(h.met, l.key)
			h.late[l.key] = true
		}
	}
	h.letters = slices.DeleteFunc(h.letters, func(l *heldLetter[T]) bool { return l.done })
	how.q.Mu.Lock()
	for _, l := range ended {
		how.count(l)
	}
	how.q.Unlock()
	return ended, summary("were not "+how.not, errs)
}

// moveEach has the engine move letters, and sorts them: those of one key are moved
// one after the other, in the order of publication, up to one that fails.
func (h *holding[T]) moveEach(ctx context.Context, ls []*heldLetter[T]) []error {
	sort.SliceStable(ls, func(j, k int) bool {
		a, b := ls[j], ls[k]
		return a.OrderingKey < b.OrderingKey || a.OrderingKey == b.OrderingKey && a.letter.At < b.letter.At
	})
	var bounds []int // of those of one key, or of one without
	for k, l := range ls {
		if k == 0 || l.OrderingKey == "" || l.OrderingKey != ls[k-1].OrderingKey {
			bounds = append(bounds, k)
		}
	}
	bounds = append(bounds, len(ls))
	errs := make([]error, len(ls))
	together(len(bounds)-1, func(j int) (err error) {
		for k := bounds[j]; k < bounds[j+1]; k++ {
			if err == nil || errors.Is(err, message.ErrStale) {
				m := ls[k].Message
				state := onengine.Full{State: onengine.State{Born: time.Now()}, Hist: ls[k].letter.Hist}
				err = onengine.Error(state.Fit(func(data []byte) error {
					m.State = data
					return h.dead.Engine.Redrive(ctx, ls[k].Receipt, m)
				}))
			}
			errs[k] = err
		}
		return err
	})
	return errs
}

var errHangs = errors.New("fanout: the engine does not answer")

// mostErrs is how many errors of letters one error tells.
const mostErrs = 3

// summary is one error for those of many letters: how many there are, and the first
// few.
func summary(what string, errs []error) error {
	errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	if len(errs) == 0 {
		return nil
	}
	return fmt.Errorf("%d letters %s: %w", len(errs), what, errors.Join(errs[:min(len(errs), mostErrs)]...))
}

// together calls do with 0 to n-1, up to atOnce of them at a time, and returns what
// each returned.
func together(n int, do func(k int) error) []error {
	errs := make([]error, n)
	var calls errgroup.Group
	calls.SetLimit(atOnce)
	for k := range n {
		calls.Go(func() error { errs[k] = do(k); return nil })
	}
	_ = calls.Wait()
	return errs
}

// diedAfter reports whether a letter came after a redrive began: perhaps one that
// the redrive has moved, as it has one with the same ID if moved says so.
func diedAfter(began time.Time, h *message.History, moved bool) bool {
	if h == nil {
		return moved
	}
	last := h.Last()
	died := last.Start.Add(last.Elapsed)
	return died.After(began) || moved && !died.Before(began)
}
