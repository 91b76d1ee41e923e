package enginequeue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/onengine"
	"github.com/gofanout/fanout/internal/queue"
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

// A letterKey tells a letter from others, the same message's next death included.
type letterKey struct {
	id              string
	published, died int64 // died is when its last attempt began, 0 if none is known
}

// A heldLetter is a letter that was received.
type heldLetter[T any] struct {
	engine.Received
	key     letterKey
	arrival arrival[T]
	until   time.Time // its lease ends then, or later
	lost    bool      // its lease has ended: there is nothing to give back
	done    bool      // it was moved, or comes again as a new one
}

// A metLetter is what is known of a letter that was received.
type metLetter[T any] struct {
	deliveries int
	letter     *heldLetter[T] // nil if it was moved
}

// A holding is the letters that one Peek or Redrive has met. It belongs to one
// goroutine.
//
// Invariants: met has all of them, letters those that were not moved. Their leases
// are kept up, so that they don't come again. If one does, of a slow engine, it takes
// the place that it had; one that was moved stays where it is.
type holding[T any] struct {
	dead    *Queue[T]
	lease   time.Duration // 0 is the engine's own, which can't be kept up
	letters []*heldLetter[T]
	met     map[letterKey]metLetter[T]
	late    map[letterKey]bool // their leases had ended when they were to be moved
	began   time.Time
	kept    time.Time // when leases were last looked at
	finds   vain      // receives of nothing new
}

// A vain is how often in a row letters came, but none that something could be done
// with.
type vain int

// progress returns an error when that was too often.
func (v *vain) progress(letters int, visibility time.Duration) error {
	*v++
	if letters > 0 {
		*v = 0
	}
	if *v < fruitless {
		return nil
	}
	return fmt.Errorf("letters come again before all are received: the engine is too slow for a visibility timeout of %v", visibility)
}

func (r *Queue[T]) hold() *holding[T] {
	return &holding[T]{dead: r, lease: r.lease(r.q.Set.Visibility), began: time.Now(), met: map[letterKey]metLetter[T]{}, late: map[letterKey]bool{}}
}

// Peek looks at dead letters.
func (r *Queue[T]) Peek(ctx context.Context, most int) (ds []queue.Delivery[T], err error) {
	if !r.q.Letters {
		return nil, r.on.Refuse("Peek", "only dead letters can be looked at there; Depth says how many messages there are")
	}
	h := r.hold()
	for more := true; more && err == nil && len(h.letters) < most; {
		_, more, err = h.next(ctx, most-len(h.letters))
	}
	for _, l := range h.letters {
		ds = append(ds, h.delivery(l))
	}
	slices.SortStableFunc(ds, func(a, b queue.Delivery[T]) int { return cmp.Compare(a.At, b.At) })
	return ds, errors.Join(err, h.giveBack(ctx))
}

// A letterEnd is what becomes of letters that were chosen.
type letterEnd[T any] struct {
	// each does it, and returns the error of each letter.
	each  func(h *holding[T], ctx context.Context, ls []*heldLetter[T]) []error
	q     *queue.Queue[T]        // whose event it is
	count func(l *heldLetter[T]) // counts and notes it. q's mu is held
	not   string                 // what the others were not
}

// Redrive moves dead letters back to the queue.
func (r *Queue[T]) Redrive(ctx context.Context, c *queue.LetterChoice[T]) (moved int, err error) {
	return r.end(ctx, c, letterEnd[T]{each: (*holding[T]).moveEach, q: r.q, not: "moved", count: func(l *heldLetter[T]) {
		r.q.RareLocked().Redriven++
		r.q.NoteLocked(notice.Redriven, notice.Event{MessageID: l.ID, PublishedAt: l.PublishedAt, Count: 1})
	}})
}

// DeleteLetters acknowledges dead letters.
func (r *Queue[T]) DeleteLetters(ctx context.Context, c *queue.LetterChoice[T]) (deleted int, err error) {
	d := r.q.Dead
	return r.end(ctx, c, letterEnd[T]{each: (*holding[T]).ackEach, q: d, not: "deleted", count: func(l *heldLetter[T]) {
		d.RareLocked().Dropped++
		d.NoteLocked(notice.Dropped, notice.Event{MessageID: l.ID, PublishedAt: l.PublishedAt, Count: 1, Reason: notice.DroppedByDelete})
	}})
}

// ackEach has the engine forget letters.
func (h *holding[T]) ackEach(ctx context.Context, ls []*heldLetter[T]) []error {
	return together(len(ls), func(k int) error { return onengine.Error(h.dead.eq.Ack(ctx, ls[k].Receipt)) })
}

// end ends dead letters, a part of them at a time: none waits for so long that its
// lease ends.
func (r *Queue[T]) end(ctx context.Context, c *queue.LetterChoice[T], how letterEnd[T]) (ended int, err error) {
	h := r.dead.hold()
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
		ls = slices.DeleteFunc(ls, func(l *heldLetter[T]) bool { return DiedAfter(began, l.arrival.Hist, back[l.ID]) })
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
			more, err = true, ends.progress(len(done), r.q.Set.Visibility)
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

// part receives as many letters as are moved at once, or fewer if that takes long,
// and returns false if there are no more.
func (h *holding[T]) part(ctx context.Context) (ls []*heldLetter[T], more bool, err error) {
	began, patience := time.Now(), cmp.Or(h.lease, h.dead.q.Set.Visibility)/4
	for more = true; more && err == nil && len(ls) < atOnce && time.Since(began) <= patience; {
		var some []*heldLetter[T]
		some, more, err = h.next(ctx, atOnce-len(ls))
		ls = append(ls, some...)
	}
	return ls, more, err
}

// next receives letters, up to most, and returns those that are new, and false when
// the engine says that nothing is ready. An engine may be slower than a question: an
// empty answer alone proves nothing.
func (h *holding[T]) next(ctx context.Context, most int) (fresh []*heldLetter[T], more bool, err error) {
	eq := h.dead.eq
	for wait := probeTime; ; wait = min(2*wait, 16*probeTime) {
		h.keepUp(ctx)
		until := time.Now().Add(h.lease)
		soon, cancel := context.WithTimeout(ctx, wait)
		got, err := eq.Receive(soon, min(most, mostPolled), h.lease)
		late := soon.Err() != nil
		cancel()
		switch {
		case err == nil:
			fresh = h.add(got, until)
			return fresh, true, h.finds.progress(len(fresh), h.dead.q.Set.Visibility)
		case ctx.Err() != nil:
			return nil, false, message.ContextError(ctx)
		case !late:
			return nil, false, onengine.Error(err)
		}
		s, err := eq.Stats(ctx)
		if err != nil {
			return nil, false, onengine.Error(err)
		}
		if s.Ready <= 0 { // or the engine can't tell
			return nil, false, nil
		}
	}
}

// add enters what was received, and returns what of it is new.
func (h *holding[T]) add(got []engine.Received, until time.Time) (fresh []*heldLetter[T]) {
	for j, a := range h.dead.decode(got) {
		l := &heldLetter[T]{Received: got[j], arrival: a, until: until}
		l.key = letterKey{id: l.ID, published: l.PublishedAt.UnixNano()}
		if a.Hist != nil {
			l.key.died = a.Hist.Last().Start.UnixNano()
		}
		delete(h.late, l.key)
		// Two letters can have all that in common, but the one that comes again has
		// one delivery more.
		m, ok := h.met[l.key]
		switch again := ok && l.Deliveries > m.deliveries; {
		case again && m.letter != nil:
			m.letter.Received, m.letter.until, m.letter.lost = l.Received, until, false
			l = m.letter
		case again:
			h.letters = append(h.letters, l)
		default:
			h.letters = append(h.letters, l)
			fresh = append(fresh, l)
		}
		h.met[l.key] = metLetter[T]{l.Deliveries, l}
	}
	return fresh
}

// delivery is a letter for those who look at it.
func (h *holding[T]) delivery(l *heldLetter[T]) queue.Delivery[T] {
	a := &l.arrival
	return h.dead.q.Delivery(&a.Item, a.Hist, message.Ref{Attempt: int32(a.spent + 1)})
}

// choose returns those that the options select.
func (h *holding[T]) choose(ls []*heldLetter[T], c *queue.LetterChoice[T]) (chosen []*heldLetter[T], err error) {
	for _, l := range ls {
		some, err := queue.SelectLetters([]queue.Delivery[T]{h.delivery(l)}, c)
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
	slices.SortStableFunc(ls, func(a, b *heldLetter[T]) int {
		return cmp.Or(cmp.Compare(a.OrderingKey, b.OrderingKey), cmp.Compare(a.arrival.At, b.arrival.At))
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
				s := onengine.Full{State: onengine.State{Born: time.Now()}, Hist: ls[k].arrival.Hist}
				err = onengine.Error(s.Fit(func(data []byte) error {
					m.State = data
					return h.dead.eq.Redrive(ctx, ls[k].Receipt, m)
				}))
			}
			errs[k] = err
		}
		return err
	})
	return errs
}

// keepUp extends leases of which two thirds are left, by as long as all has taken so
// far and one lease more, so that it extends each a few times, however long it takes.
// What fails is tried again, while the lease lasts.
func (h *holding[T]) keepUp(ctx context.Context) {
	now := time.Now()
	if h.lease <= 0 || now.Sub(h.kept) < h.lease/10 {
		return
	}
	h.kept = now
	lease := h.dead.lease(time.Duration(queue.After(int64(h.dead.q.Set.Visibility), now.Sub(h.began))))
	var old []*heldLetter[T]
	for _, l := range h.letters {
		if !l.lost && l.until.Sub(now) < h.lease*2/3 {
			old = append(old, l)
		}
	}
	together(len(old), func(k int) error {
		now := time.Now()
		err := h.dead.eq.Extend(ctx, old[k].Receipt, lease)
		switch {
		case err == nil:
			old[k].until = now.Add(lease)
		case errors.Is(err, engine.ErrStale):
			old[k].lost = true
		}
		return err
	})
}

// giveBack makes the letters that are still leased ready for others, even if ctx has
// ended. An engine that doesn't answer is told no more: leases end by themselves.
func (h *holding[T]) giveBack(ctx context.Context) error {
	var hangs atomic.Bool
	return summary("were not given back, and are hidden until their leases end", together(len(h.letters), func(k int) error {
		l := h.letters[k]
		if l.lost {
			return nil
		}
		if hangs.Load() {
			return errHangs
		}
		soon, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTime)
		defer cancel()
		err := h.dead.eq.Return(soon, l.Receipt, 0, l.State)
		if soon.Err() != nil {
			hangs.Store(true)
		}
		if errors.Is(err, engine.ErrStale) {
			return nil // it is ready, or somebody else's
		}
		return onengine.Error(err)
	}))
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

// DiedAfter reports whether a letter came after a redrive began: perhaps one that
// the redrive has moved, as it has one with the same ID if moved says so.
func DiedAfter(began time.Time, h *queue.History, moved bool) bool {
	if h == nil {
		return moved
	}
	last := h.Last()
	died := last.Start.Add(last.Elapsed)
	return died.After(began) || moved && !died.Before(began)
}
