package core

import (
	"errors"
	"fmt"
	"time"

	"github.com/gofanout/fanout/internal/handling"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
)

// What a worker tells its queue of itself, see holder.

func (w *worker[T]) pooled() *pool[T] { return &w.s.pool }

func (w *worker[T]) moved(place int) { w.place = place }

func (w *worker[T]) handlesLocked() bool { return !w.returned }

func (w *worker[T]) waitsLocked() []*handling.Wait { return w.ctx().Waits() }

func (w *worker[T]) returnWaitingLocked() {
	if w.lease != nil {
		w.s.q.takeBackLocked(w.lease)
	}
}

func (w *worker[T]) eachLocked(f func(stamp uint64)) {
	for k := range w.ds {
		f(w.ds[k].ref.Stamp)
	}
}

// timedOutLocked says that a delivery which the worker has had for as long as it may has
// timed out, and returns how it ends. It began at start.
func (w *worker[T]) timedOutLocked(it *item[T], attempt int, start, now int64, vis time.Duration) message.Verdict {
	q, v := w.s.q, message.Verdict{Cause: message.TimedOut}
	switch {
	case w.returned:
		v.Err, v.Text = errNotSettled, errNotSettled.Error()
	case !w.stuck:
		w.stuck = true
		w.s.stuck++
		w.cancelLocked(fmt.Errorf("%w: queue %q: the visibility timeout of %v has passed", message.ErrStale, q.name, vis))
		e := notice.Event{
			Attempt: attempt, Elapsed: time.Duration(now - start),
			Subscriber: w.s.site, Goroutine: w.goroutine.Load(),
		}
		q.noteItemLocked(notice.Stuck, it, e)
		q.noteItemLocked(notice.StuckStack, it, e)
	}
	return v
}

// errNotSettled is the error of an attempt whose handler has returned, and whose delivery
// still waited to be settled when its visibility timeout passed.
var errNotSettled = errors.New("fanout: the handler has returned, and its delivery was not settled in time")

// TopicOf returns the core of the topic of a handler that is running now, as r; nil
// if that has ended, or its queue was closed: nobody waits for it then.
func (w *worker[T]) TopicOf(r *handling.Run) any {
	q := w.s.q
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || len(w.ctxs) == 0 {
		return nil
	}
	if !w.ctx().Runs(r) {
		return nil
	}
	return q.core
}

// cancelLocked has the handler's context cancelled after unlocking.
func (w *worker[T]) cancelLocked(cause error) { w.s.q.pending.Cancel(w.ctx().Cancel, cause) }

// forgetDoneLocked lets go of the messages that are done.
func (w *worker[T]) forgetDoneLocked() {
	if len(w.ds) == 0 || !w.stepping {
		return
	}
	for k := range w.currentLocked() {
		w.ds[k].forget()
	}
}
