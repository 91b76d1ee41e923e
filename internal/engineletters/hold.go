package engineletters

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/onengine"
)

// A letterKey tells a letter from others, the same message's next death included.
type letterKey struct {
	id              string
	published, died int64 // died is when its last attempt began, 0 if none is known
}

// A heldLetter is a letter that was received.
type heldLetter[T any] struct {
	engine.Received
	key    letterKey
	letter Letter[T]
	until  time.Time // its lease ends then, or later
	lost   bool      // its lease has ended: there is nothing to give back
	done   bool      // it was moved, or comes again as a new one
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
	dead    *Source[T]
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

func (s *Source[T]) hold() *holding[T] {
	return &holding[T]{dead: s, lease: s.Lease(s.Q.Store.Set.Visibility), began: time.Now(), met: map[letterKey]metLetter[T]{}, late: map[letterKey]bool{}}
}

// part receives as many letters as are moved at once, or fewer if that takes long,
// and returns false if there are no more.
func (h *holding[T]) part(ctx context.Context) (ls []*heldLetter[T], more bool, err error) {
	began, patience := time.Now(), cmp.Or(h.lease, h.dead.Q.Store.Set.Visibility)/4
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
	eq := h.dead.Engine
	for wait := onengine.ProbeTime; ; wait = min(2*wait, 16*onengine.ProbeTime) {
		h.keepUp(ctx)
		until := time.Now().Add(h.lease)
		soon, cancel := context.WithTimeout(ctx, wait)
		got, err := eq.Receive(soon, min(most, onengine.MostPolled), h.lease)
		late := soon.Err() != nil
		cancel()
		switch {
		case err == nil:
			fresh = h.add(got, until)
			return fresh, true, h.finds.progress(len(fresh), h.dead.Q.Store.Set.Visibility)
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
	for j, a := range h.dead.Decode(got) {
		l := &heldLetter[T]{Received: got[j], letter: a, until: until}
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
func (h *holding[T]) delivery(l *heldLetter[T]) delivery.Delivery[T] {
	a := &l.letter
	return delivery.Of(h.dead.Q, &a.Item, a.Hist, message.Ref{Attempt: int32(a.Spent + 1)})
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
	lease := h.dead.Lease(time.Duration(message.After(int64(h.dead.Q.Store.Set.Visibility), now.Sub(h.began))))
	var old []*heldLetter[T]
	for _, l := range h.letters {
		if !l.lost && l.until.Sub(now) < h.lease*2/3 {
			old = append(old, l)
		}
	}
	together(len(old), func(k int) error {
		now := time.Now()
		err := h.dead.Engine.Extend(ctx, old[k].Receipt, lease)
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
		soon, cancel := context.WithTimeout(context.WithoutCancel(ctx), onengine.SettleTime)
		defer cancel()
		err := h.dead.Engine.Return(soon, l.Receipt, 0, l.State)
		if soon.Err() != nil {
			hangs.Store(true)
		}
		if errors.Is(err, engine.ErrStale) {
			return nil // it is ready, or somebody else's
		}
		return onengine.Error(err)
	}))
}
