package workers

import (
	"context"
	"errors"
	"runtime/pprof"
	"sync/atomic"

	"github.com/gofanout/fanout/internal/callback"
	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/handling"
	"github.com/gofanout/fanout/internal/lease"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
)

// A Worker is what one worker goroutine has of its own. Its fields but s are
// the goroutine's, except where said.
type Worker[T any] struct {
	// Immutable.
	s        *Subscriber[T]
	handlers handlers[T] // the subscriber's, with interceptors around them
	timed    *timed      // nil for most; see there

	// Guarded by the queue's Mu; the worker reads lease and ds without.
	place int // in busy
	stuck bool
	// returned says that the handler has, and that what it left is being settled. It is
	// set only where that may take long: for a batch, and on an engine.
	returned bool
	stepping bool // it goes through the lease

	// The goroutine's. resume says that what was claimed is to be handled still: hooks are
	// being told of it, and may end the goroutine. running says that the handler runs, of a
	// worker that goes through its lease.
	resume, running bool

	// Guarded by the queue's Mu, as above.
	Lease   *lease.Lease[T]        // what it has, see prefetch.go; nil: nothing, or entries
	more    []*lease.Lease[T]      // the others of a long batch
	ds      []delivery.Delivery[T] // what it has; empty between two runs
	takenAt int64                  // when it took the lease
	size    int                    // how many to prefetch next
	ctxs    []handling.Context     // of what was prefetched, or one: see package handling
	fresh   []handling.Context     // for runs to come
	buffer  *buffer[T]
	made    int                    // how many of the buffer may keep a message, see forget; the others are empty
	given   []delivery.Delivery[T] // what the handler is given, unless it goes through a lease

	one       [1]delivery.Delivery[T] // where a single delivery is kept
	goroutine atomic.Pointer[string]
}

// StartLocked starts one more worker.
func (s *Subscriber[T]) StartLocked() {
	var w *Worker[T]
	if n := len(s.idle); n > 0 {
		w, s.idle = s.idle[n-1], s.idle[:n-1]
	} else {
		w = &Worker[T]{s: s, handlers: s.handlers}
		if s.timed {
			w.timed = new(timed)
		}
		if s.interceptors != nil {
			w.surround()
		}
	}
	if s.labels == nil {
		s.labels = pprof.WithLabels(context.Background(), pprof.Labels("topic", s.Q.Core.TopicName, "queue", s.Q.Name(), "subscriber", s.Site))
	}
	s.Running++
	s.Q.Group.Running++
	s.Q.Group.Serving++
	s.Q.Started++
	go w.work()
}

// work is the worker's goroutine. Started by StartLocked; ends when nothing is
// ready or its subscriber stops; the subscriber's done waits for it, as does
// the queue's close.
func (w *Worker[T]) work() {
	pprof.SetGoroutineLabels(w.s.labels)
	w.goroutine.Store(w.s.Q.Core.To.Goroutine())
	ended := false
	defer func() {
		if !ended {
			// The handler, or a hook, called runtime.Goexit, which cannot be
			// stopped: another goroutine takes this one's place.
			w.s.Q.Locked(func() { w.s.Q.Started++ })
			go w.work()
		}
	}()
	for {
		if !w.resume && !w.next() { // if not, the worker is another goroutine's from now on
			ended = true
			return
		}
		w.resume = false
		if w.stepping {
			w.runLease()
		} else {
			w.handle(&w.ctxs[0])
		}
	}
}

// next prefetches messages, or claims as many as the handler takes,
// or gives the worker back and returns false.
func (w *Worker[T]) next() bool {
	s, q := w.s, w.s.Q
	q.Mu.Lock()
	w.putDownLocked()
	if s.prefetches {
		if s.one != nil && q.Store.InLog() > 0 && w.prefetchLocked(q.Core.Now()) {
			w.startedLocked()
			q.Mu.Unlock() // nothing is pending
			return true
		}
		if n := q.Store.Leases.Waiting(); n > 0 && n == q.Store.Ready() {
			q.Mu.Unlock()
			q.AwaitOthers()
			q.Mu.Lock()
		}
	}
	expired := q.Store.Expiries()
	ok := w.claimLocked()
	for !ok && q.Store.Expiries() != expired {
		// Some came too late: that is told while the worker still counts.
		q.Unlock()
		q.Mu.Lock()
		expired = q.Store.Expiries()
		ok = w.claimLocked()
	}
	if !ok {
		w.restLocked()
		q.Mu.Unlock() // nothing is pending, and no hook may end the goroutine now
		return false
	}
	w.startedLocked()
	w.resume = true
	q.Unlock()
	return true
}

// restLocked gives the worker, which found nothing, back.
func (w *Worker[T]) restLocked() {
	s, q := w.s, w.s.Q
	w.endLeasesLocked()
	if w.timed != nil {
		w.stopTimeoutLocked()
	}
	w.forget(0)
	if w.buffer != nil {
		q.Core.Buffers.Put(w.buffer)
		w.buffer = nil
	}
	s.Running--
	q.Group.Running--
	if !s.Stopping {
		q.Group.Serving--
		q.Group.Free.Add(&s.Pool)
	}
	s.idle = append(s.idle, w)
	if q.Store.Leases == nil && q.Store.Cursor.Resting() {
		q.Alarm.CheckAt = 0
	}
	q.Store.Leases.Clean()
	if _, ok := q.Store.Win.NextDue(); !ok && q.Store.Leases.Timed() == 0 && q.Group.Running == 0 && q.Limited == 0 || q.UnwatchedLocked() {
		q.ArmLocked(0) // stops the timer, or has it look at the leases
	}
	s.checkDoneLocked()
	q.CheckDrainedLocked()
	q.CheckEndedLocked()
	q.HandOnLocked()
}

// startedLocked enters a worker that has something in flight among the busy ones.
func (w *Worker[T]) startedLocked() {
	s, q := w.s, w.s.Q
	w.place = len(s.Busy)
	s.Busy = append(s.Busy, w)
	q.HandOnLocked()
}

// putDownLocked says that the worker's handler runs no longer.
func (w *Worker[T]) putDownLocked() {
	if len(w.ds) == 0 {
		return
	}
	s := w.s
	if w.Lease != nil && (len(w.more) > 0 || !s.Q.Store.Leases.Done(w.Lease)) {
		w.endLeasesLocked() // else it may be used again
	}
	if w.made == 0 {
		clear(w.ds) // else it is overwritten, or let go of at rest
		if w.buffer != nil && w.buffer.given != nil {
			clear(w.given)
		}
	}
	w.ds, w.given, w.ctxs, w.returned = nil, nil, nil, false
	w.endTimeout()
	w.unstickLocked()
	last := len(s.Busy) - 1
	s.Busy[w.place] = s.Busy[last]
	s.Busy[w.place].Moved(w.place)
	s.Busy[last] = nil
	s.Busy = s.Busy[:last]
}

// handle runs the handler on the batch and settles it as it says.
func (w *Worker[T]) handle(ctx *handling.Context) {
	if w.s.Set.HandlerTimeout > 0 {
		w.beginTimeout()
	}
	returned := false
	defer func() {
		if returned {
			return // a panic from here on is ours, and not to be hidden
		}
		v := unreturned(recover())
		w.endTimeout()
		w.finish(v)
	}()
	err := w.handlers.run(ctx, w.given)
	if err == nil {
		returned = true
		w.endTimeout()
		if !w.ackBatch() {
			w.finish(message.Verdict{Cause: message.Acked})
		}
		return
	}
	v := judgedRun(ctx, err) // an error that panics when it is looked at is the handler's
	returned = true
	w.endTimeout()
	w.finish(*v)
}

// judgeRun is message.Judge for a handler that has returned. If its subscriber's Shutdown
// has cancelled its context, and it says so, its message is ready again at once.
func judgeRun(ctx *handling.Context, err error) message.Verdict {
	v := message.Judge(err)
	if v.Wait == message.FromBackoff && ctx.CancelledFor(message.ErrClosed) && (errors.Is(err, message.ErrClosed) || errors.Is(err, context.Canceled)) {
		v.Cause, v.Wait = message.Released, 0
	}
	return v
}

// finish settles the batch. The handler may have done so itself, or come too
// late: what it says then is told, not done.
func (w *Worker[T]) finish(v message.Verdict) {
	w.s.Q.Locked(w.returnedLocked)
	w.settleFrom(0, v)
}

// returnedLocked says that the worker's handler runs no longer, though what it had is
// not settled.
func (w *Worker[T]) returnedLocked() {
	w.returned = true
	w.unstickLocked()
}

// settleFrom settles the batch from delivery k on, even if a hook ends the goroutine.
func (w *Worker[T]) settleFrom(k int, v message.Verdict) {
	q, ds := w.s.Q, w.ds
	defer func() {
		if k < len(ds) {
			w.settleFrom(k, v)
		}
	}()
	for k < len(ds) {
		d := &ds[k]
		k++
		err := delivery.Settle(context.Background(), q, d.Ref, v)
		if err == nil || message.IsClosed(err) || q.Keeper != nil && q.Keeper.Failed(err) || v.Cause == message.Acked || len(ds) > 1 && errors.Is(err, message.ErrSettled) {
			continue
		}
		w.late(*d, v)
	}
}

// late tells what a handler said too late.
func (w *Worker[T]) late(d delivery.Delivery[T], v message.Verdict) {
	k, q := lateKind(v.Err), w.s.Q
	v = v.Told()
	q.Mu.Lock()
	q.NoteLocked(k, notice.Event{
		MessageID: d.ID(), PublishedAt: d.PublishedAt(), Attempt: d.Attempt(), Cause: message.Cause(v.Cause), Err: v.Err, Subscriber: w.s.Site, Count: 1,
	})
	q.Unlock()
}

// lateKind says whether a handler that was late failed for having heard so.
func lateKind(err error) notice.Kind {
	if heardOfIt(err) {
		return notice.LateCancelled
	}
	return notice.Late
}

// heardOfIt reports whether err says that the handler's context was cancelled.
func heardOfIt(err error) (heard bool) {
	if err != nil {
		callback.Apart(func() { heard = errors.Is(err, message.ErrStale) || errors.Is(err, context.Canceled) })
	}
	return heard
}

// unreturned is the verdict about a handler that did not return: p is what it
// panicked with, nil if it called runtime.Goexit.
func unreturned(p any) message.Verdict {
	if p == nil {
		return message.Verdict{Cause: message.Exited, Wait: message.FromBackoff}
	}
	return message.Verdict{Cause: message.Panicked, Wait: message.FromBackoff, Stack: message.Stack(), Err: callback.Error(p)}
}

// giveContextsLocked gives contexts to the next n runs of the worker.
func (w *Worker[T]) giveContextsLocked(n int) {
	if len(w.fresh) < n {
		w.fresh = handling.NewContexts(w.s.Q, w).All[:]
	}
	w.ctxs, w.fresh = w.fresh[:n:n], w.fresh[n:]
}

// ctx is the context of the current run.
func (w *Worker[T]) ctx() *handling.Context { return &w.ctxs[w.CurrentLocked()] }
