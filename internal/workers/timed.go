package workers

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/handling"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
)

// A worker is timed if somebody hears of each delivery, or if it has a rate limit or a
// handler timeout. It goes through its lease as any other does, but acknowledges and begins
// in two steps, and reads the clock for them: between them it tells that the message is
// settled, and asks the rate limit, while what waits can still be taken back. It knows when
// its delivery began, so that nothing that is told or times out is late.

// timed is what a timed worker has beside the others.
type timed struct {
	// begun is when the worker's delivery began. It is set before that is the current one.
	begun atomic.Int64
	event notice.Event // what is told next; used again
	ids   message.IDs
	// delivered says that the current delivery is to be told of, with its number. The
	// goroutine's.
	delivered uint64

	// due is when the handler's timeout passes; 0: none runs, or it has no timeout. There is
	// one timer for all runs: while it is armed it comes when that of one of them passes, or
	// earlier, and is armed again for the one that runs then.
	due   atomic.Int64
	armed atomic.Bool
	timer *time.Timer // guarded by the queue's Mu, under which it is armed
}

// isTimed reports whether the subscriber's workers are timed.
func (s *Subscriber[T]) isTimed() bool {
	return s.Set.Every > 0 || s.Set.HandlerTimeout > 0 || s.Q.Hooked(notice.Delivered) || s.Q.Hooked(notice.Settled)
}

// Began is when the current message of the worker's lease began, now if nobody knows.
func (w *Worker[T]) Began(now int64) int64 {
	if w.timed == nil {
		return now
	}
	return w.timed.begun.Load()
}

// beginLocked says that the worker's next delivery begins now, and reports whether it may.
// It becomes the current one after that.
func (w *Worker[T]) beginLocked(now int64) bool {
	if !w.s.Pass(now) {
		return false
	}
	w.begin(now)
	w.armTimeoutLocked(now)
	if w.s.Q.Hooked(notice.Delivered) {
		w.timed.delivered = w.s.Q.Seq.Add(1)
	}
	return true
}

func (w *Worker[T]) begin(now int64) {
	t := w.timed
	t.begun.Store(now)
	if d := w.s.Set.HandlerTimeout; d > 0 {
		t.due.Store(message.After(now, d))
	}
}

// stepTimed is a step of a timed worker, whose handler has acknowledged its message. If it
// returns false, what is left of it is done under the lock.
func (w *Worker[T]) stepTimed() bool {
	s, q, stamp := w.s, w.s.Q, w.Lease.Word.Place().Stamp()
	if !w.Lease.Word.AckCurrent(stamp) {
		return false
	}
	if q.Hooked(notice.Settled) {
		w.noteAcked(&w.ds[stamp-w.ds[0].Ref.Stamp], q.Seq.Add(1), q.Core.Now())
		w.running = false
		q.Report.CallHook(notice.Settled, &w.timed.event)
	}
	if q.Hooked(notice.Delivered) {
		return false // its number is given under the lock
	}
	now := q.Core.Now()
	if !s.Pass(now) {
		return false
	}
	w.begin(now)
	if _, ok := w.Lease.Word.Advance(); !ok {
		s.Unpass(now)
		return false
	}
	if s.Set.HandlerTimeout > 0 && !w.timed.armed.Load() {
		q.Locked(func() { w.armTimeoutLocked(q.Core.Now()) })
	}
	w.running = true
	return true
}

// noteAcked makes the event that d was acknowledged.
func (w *Worker[T]) noteAcked(d *delivery.Delivery[T], seq uint64, now int64) {
	e := w.note(d, seq, now)
	e.Cause, e.Elapsed = message.Acked, time.Duration(now-w.timed.begun.Load())
}

// tellAcked tells what noteAcked has made, before all else that is to be told. It is called
// with Mu locked, unlocks it, and locks it again. Were it inlined, the stack of each worker
// would have to grow.
//
//go:noinline
func (w *Worker[T]) tellAcked() {
	q := w.s.Q
	if q.Pending.Any() || q.RoomIsWanted() {
		q.Pending.Add(&q.Report, notice.Settled, w.timed.event)
		q.Unlock()
	} else {
		q.Mu.Unlock()
		q.Report.CallHook(notice.Settled, &w.timed.event)
	}
	q.Mu.Lock()
}

// note makes an event about d. What it does not set is never set.
func (w *Worker[T]) note(d *delivery.Delivery[T], seq uint64, now int64) *notice.Event {
	c, t := w.s.Q.Core, w.timed
	e := &t.event
	e.Seq, e.Time, e.Attempt, e.Count, e.Cause, e.Elapsed = seq, c.Time(now), 1, 1, 0, 0
	e.MessageID, e.PublishedAt = t.ids.ID(&c.Clock, d.Seq, d.At, d.Ext), c.Time(d.At)
	return e
}

// tellDelivered tells that the current message was delivered, if that is to be told. If a
// hook ends the goroutine, another one runs the handler.
func (w *Worker[T]) tellDelivered() {
	t, q := w.timed, w.s.Q
	if t.delivered == 0 {
		return
	}
	w.note(&w.ds[w.CurrentLocked()], t.delivered, t.begun.Load())
	t.delivered = 0
	w.running, w.resume = false, true
	q.Report.CallHook(notice.Delivered, &t.event)
	w.running, w.resume = true, false
	if w.s.Set.HandlerTimeout > 0 {
		w.beginTimeout()
	}
}

// beginTimeout says that the handler begins now.
func (w *Worker[T]) beginTimeout() {
	q := w.s.Q
	now := q.Core.Now()
	w.timed.due.Store(message.After(now, w.s.Set.HandlerTimeout))
	if !w.timed.armed.Load() {
		q.Locked(func() { w.armTimeoutLocked(now) })
	}
}

// endTimeout says that the handler has returned.
func (w *Worker[T]) endTimeout() {
	if w.timed != nil {
		w.timed.due.Store(0)
	}
}

// armTimeoutLocked sees to it that the timer comes when the handler's timeout passes.
func (w *Worker[T]) armTimeoutLocked(now int64) {
	t := w.timed
	due := t.due.Load()
	if due == 0 || !t.armed.CompareAndSwap(false, true) {
		return
	}
	w.s.Q.Core.Live.Add(1)
	t.timer = time.AfterFunc(time.Duration(max(due-now, 0)), w.timeOut)
}

// stopTimeoutLocked stops the timer of a worker that rests.
func (w *Worker[T]) stopTimeoutLocked() {
	t := w.timed
	if t.timer == nil {
		return
	}
	if t.timer.Stop() {
		t.armed.Store(false)
		w.s.Q.Core.Release()
	}
	t.timer = nil // it belongs to the bubble of testing/synctest that it was made in
}

// timeOut is called by the timer. A worker that steps on meanwhile finds the timer not
// armed, and arms it.
func (w *Worker[T]) timeOut() {
	q, t := w.s.Q, w.timed
	defer q.Core.Release()
	q.Mu.Lock()
	t.armed.Store(false)
	now := q.Core.Now()
	due, ctx := w.runsUntilLocked()
	if due > now {
		w.armTimeoutLocked(now)
	}
	q.Mu.Unlock()
	if due != 0 && due <= now {
		ctx.Cancel(fmt.Errorf("%w: queue %q: the handler timeout of %v has passed", context.DeadlineExceeded, q.Name(), w.s.Set.HandlerTimeout))
	}
}

// runsUntilLocked returns when the timeout of the handler that runs passes, and its
// context; 0 if none runs.
func (w *Worker[T]) runsUntilLocked() (due int64, ctx *handling.Context) {
	if len(w.ds) == 0 {
		return 0, nil
	}
	if !w.stepping {
		return w.timed.due.Load(), &w.ctxs[0]
	}
	p := w.Lease.Word.Place()
	due = w.timed.due.Load()
	if p.Acked() || w.Lease.Word.Place().Stamp() != p.Stamp() {
		return 0, nil
	}
	return due, &w.ctxs[int(p.Stamp()-w.ds[0].Ref.Stamp)]
}
