package core

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

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
	timer *time.Timer // guarded by the queue's mu, under which it is armed
}

// isTimed reports whether the subscriber's workers are timed.
func (s *Subscriber[T]) isTimed() bool {
	return s.set.Every > 0 || s.set.HandlerTimeout > 0 || s.q.hooked(notice.Delivered) || s.q.hooked(notice.Settled)
}

// Began is when the current message of the worker's lease began, now if nobody knows.
func (w *worker[T]) Began(now int64) int64 {
	if w.timed == nil {
		return now
	}
	return w.timed.begun.Load()
}

// beginLocked says that the worker's next delivery begins now, and reports whether it may.
// It becomes the current one after that.
func (w *worker[T]) beginLocked(now int64) bool {
	if !w.s.pass(now) {
		return false
	}
	w.begin(now)
	w.armTimeoutLocked(now)
	if w.s.q.hooked(notice.Delivered) {
		w.timed.delivered = w.s.q.seq.Add(1)
	}
	return true
}

func (w *worker[T]) begin(now int64) {
	t := w.timed
	t.begun.Store(now)
	if d := w.s.set.HandlerTimeout; d > 0 {
		t.due.Store(after(now, d))
	}
}

// stepTimed is a step of a timed worker, whose handler has acknowledged its message. If it
// returns false, what is left of it is done under the lock.
func (w *worker[T]) stepTimed() bool {
	s, q, stamp := w.s, w.s.q, w.lease.Place().Stamp()
	if !w.lease.AckCurrent(stamp) {
		return false
	}
	if q.hooked(notice.Settled) {
		w.noteAcked(&w.ds[stamp-w.ds[0].ref.Stamp], q.seq.Add(1), q.core.now())
		w.running = false
		q.report.CallHook(notice.Settled, &w.timed.event)
	}
	if q.hooked(notice.Delivered) {
		return false // its number is given under the lock
	}
	now := q.core.now()
	if !s.pass(now) {
		return false
	}
	w.begin(now)
	if _, ok := w.lease.Advance(); !ok {
		s.unpass(now)
		return false
	}
	if s.set.HandlerTimeout > 0 && !w.timed.armed.Load() {
		q.Locked(func() { w.armTimeoutLocked(q.core.now()) })
	}
	w.running = true
	return true
}

// noteAcked makes the event that d was acknowledged.
func (w *worker[T]) noteAcked(d *Delivery[T], seq uint64, now int64) {
	e := w.note(d, seq, now)
	e.Cause, e.Elapsed = message.Acked, time.Duration(now-w.timed.begun.Load())
}

// tellAcked tells what noteAcked has made, before all else that is to be told. It is called
// with mu locked, unlocks it, and locks it again. Were it inlined, the stack of each worker
// would have to grow.
//
//go:noinline
func (w *worker[T]) tellAcked() {
	q := w.s.q
	if q.pending.Any() || q.roomIsWanted() {
		q.pending.Add(&q.report, notice.Settled, w.timed.event)
		q.unlock()
	} else {
		q.mu.Unlock()
		q.report.CallHook(notice.Settled, &w.timed.event)
	}
	q.mu.Lock()
}

// note makes an event about d. What it does not set is never set.
func (w *worker[T]) note(d *Delivery[T], seq uint64, now int64) *notice.Event {
	c, t := w.s.q.core, w.timed
	e := &t.event
	e.Seq, e.Time, e.Attempt, e.Count, e.Cause, e.Elapsed = seq, c.time(now), 1, 1, 0, 0
	e.MessageID, e.PublishedAt = t.ids.ID(&c.clock, d.seq, d.at, d.ext), c.time(d.at)
	return e
}

// tellDelivered tells that the current message was delivered, if that is to be told. If a
// hook ends the goroutine, another one runs the handler.
func (w *worker[T]) tellDelivered() {
	t, q := w.timed, w.s.q
	if t.delivered == 0 {
		return
	}
	w.note(&w.ds[w.currentLocked()], t.delivered, t.begun.Load())
	t.delivered = 0
	w.running, w.resume = false, true
	q.report.CallHook(notice.Delivered, &t.event)
	w.running, w.resume = true, false
	if w.s.set.HandlerTimeout > 0 {
		w.beginTimeout()
	}
}

// beginTimeout says that the handler begins now.
func (w *worker[T]) beginTimeout() {
	q := w.s.q
	now := q.core.now()
	w.timed.due.Store(after(now, w.s.set.HandlerTimeout))
	if !w.timed.armed.Load() {
		q.Locked(func() { w.armTimeoutLocked(now) })
	}
}

// endTimeout says that the handler has returned.
func (w *worker[T]) endTimeout() {
	if w.timed != nil {
		w.timed.due.Store(0)
	}
}

// armTimeoutLocked sees to it that the timer comes when the handler's timeout passes.
func (w *worker[T]) armTimeoutLocked(now int64) {
	t := w.timed
	due := t.due.Load()
	if due == 0 || !t.armed.CompareAndSwap(false, true) {
		return
	}
	w.s.q.core.live.Add(1)
	t.timer = time.AfterFunc(time.Duration(max(due-now, 0)), w.timeOut)
}

// stopTimeoutLocked stops the timer of a worker that rests.
func (w *worker[T]) stopTimeoutLocked() {
	t := w.timed
	if t.timer == nil {
		return
	}
	if t.timer.Stop() {
		t.armed.Store(false)
		w.s.q.core.release()
	}
	t.timer = nil // it belongs to the bubble of testing/synctest that it was made in
}

// timeOut is called by the timer. A worker that steps on meanwhile finds the timer not
// armed, and arms it.
func (w *worker[T]) timeOut() {
	q, t := w.s.q, w.timed
	defer q.core.release()
	q.mu.Lock()
	t.armed.Store(false)
	now := q.core.now()
	due, ctx := w.runsUntilLocked()
	if due > now {
		w.armTimeoutLocked(now)
	}
	q.mu.Unlock()
	if due != 0 && due <= now {
		ctx.Cancel(fmt.Errorf("%w: queue %q: the handler timeout of %v has passed", context.DeadlineExceeded, q.name, w.s.set.HandlerTimeout))
	}
}

// runsUntilLocked returns when the timeout of the handler that runs passes, and its
// context; 0 if none runs.
func (w *worker[T]) runsUntilLocked() (due int64, ctx *handling.Context) {
	if len(w.ds) == 0 {
		return 0, nil
	}
	if !w.stepping {
		return w.timed.due.Load(), &w.ctxs[0]
	}
	p := w.lease.Place()
	due = w.timed.due.Load()
	if p.Acked() || w.lease.Place().Stamp() != p.Stamp() {
		return 0, nil
	}
	return due, &w.ctxs[int(p.Stamp()-w.ds[0].ref.Stamp)]
}
