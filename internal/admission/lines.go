package admission

import (
	"iter"
	"slices"

	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/offer"
	"github.com/gofanout/fanout/internal/overflow"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/routing"
	"github.com/gofanout/fanout/internal/settings"
	"github.com/gofanout/fanout/internal/waitline"
)

// Who waits for room stands in the lines of package waitline. Those of a topic are in
// lines, those of a queue in its Wait. This file says which lines an offer wants, and who
// is looked at when something changes.

// waiterOf is the waiter that stands in line.
func waiterOf[T any](w *waitline.Waiter) *waiter[T] { return w.Of.(*waiter[T]) }

// enterLocked puts w at the end of its lines.
func (a *Admission[T]) enterLocked(w *waiter[T]) {
	var ids []string
	if w.Redrive == nil {
		w.Rows = slices.DeleteFunc(w.Rows, func(r routing.Row[T]) bool { return r.Q.Closing })
		for _, r := range w.Rows {
			offer.MakeLines(r.Q)
		}
		for k := 0; w.Dedup && k < len(w.Items); k++ {
			if x := w.Items[k].Ext; x != nil && x.Dedup != "" {
				ids = append(ids, x.Dedup)
			}
		}
	}
	a.lines.Enter(&w.Waiter, w.Offer, ids...)
}

// leaveLocked takes w out of all its lines.
func (a *Admission[T]) leaveLocked(w *waiter[T]) {
	a.lines.Leave(&w.Waiter)
	unwantLocked(w.Offer)
}

// nextTurnLocked returns the next who is to be looked at, or nil.
func (a *Admission[T]) nextTurnLocked() *waiter[T] {
	if w := a.lines.Next(); w != nil {
		return waiterOf[T](w)
	}
	return nil
}

// LetIn is admitWaiters that returns what has to be told.
func (a *Admission[T]) LetIn(room *queue.Queue[T]) (p notice.Pending) {
	a.admitWaiters(room, &p)
	return p
}

// HasTurnsLocked reports whether anybody is to be looked at.
func (a *Admission[T]) HasTurnsLocked() bool { return a.lines.HasTurns() }

// TurnsOfLocked has those looked at who may be waiting for room in q.
func (a *Admission[T]) TurnsOfLocked(q *queue.Queue[T]) { a.lines.RoomMade(q.Wait, q.Filters != nil) }

// TurnsWithoutLocked has those looked at who wait for q no longer, since it is closed.
func (a *Admission[T]) TurnsWithoutLocked(q *queue.Queue[T]) {
	a.lines.Closed(q.Wait, q.Filters != nil, a.open.Len() > 0)
}

// standsBehind reports whether w has to wait for another to go on first.
func (a *Admission[T]) standsBehind(w *waiter[T]) bool {
	return a.lines.First(w.Offer, a.open.Len() > 0, w.Number()) != nil
}

// everyWaiter yields all who wait. The topic's Mu is held.
func (a *Admission[T]) everyWaiter() iter.Seq[*waiter[T]] {
	return func(yield func(*waiter[T]) bool) {
		for w := range a.lines.All() {
			if !yield(waiterOf[T](w)) {
				return
			}
		}
	}
}

// blocksAnewLocked reports whether w, which stands behind nobody, may wait for a queue
// that those in handlers were not known to wait for, so that they have to look for a
// deadlock again. A queue is blocking if whoever has looked since has found it full.
func (a *Admission[T]) blocksAnewLocked(w *waiter[T]) (anew bool) {
	if a.lines.InHandlers() == 0 {
		return false
	}
	if w.Redrive != nil || len(w.Rows) > 0 {
		return true // others may not want this queue, and have not looked at it
	}
	for q, n := range w.Targets(&a.open) {
		if q.Store.Set.Overflow == settings.Block && !q.Blocks && !overflow.HasRoom(q, int64(n)) {
			q.Blocks, anew = true, true
		}
	}
	return anew
}
