package workers

import (
	"errors"
	"fmt"
	"time"

	"github.com/gofanout/fanout/internal/consumers"
	"github.com/gofanout/fanout/internal/handling"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
)

// What a worker tells its queue of itself, see holder.

func (w *Worker[T]) Pooled() *consumers.Pool[T] { return &w.s.Pool }

func (w *Worker[T]) Moved(place int) { w.place = place }

func (w *Worker[T]) HandlesLocked() bool { return !w.returned }

func (w *Worker[T]) WaitsLocked() []*handling.Wait { return w.ctx().Waits() }

func (w *Worker[T]) ReturnWaitingLocked() {
	if w.Lease != nil {
		w.s.Q.Store.TakeBack(w.Lease)
	}
}

func (w *Worker[T]) StampsLocked() []uint64 {
	stamps := make([]uint64, len(w.ds))
	for k := range w.ds {
		stamps[k] = w.ds[k].Ref.Stamp
	}
	return stamps
}

// TimedOutLocked says that a delivery which the worker has had for as long as it may has
// timed out, and returns how it ends. It began at start.
func (w *Worker[T]) TimedOutLocked(it *message.Item[T], attempt int, start, now int64, vis time.Duration) message.Verdict {
	q, v := w.s.Q, message.Verdict{Cause: message.TimedOut}
	switch {
	case w.returned:
		v.Err, v.Text = errNotSettled, errNotSettled.Error()
	case !w.stuck:
		w.stuck = true
		w.s.Stuck++
		w.CancelLocked(fmt.Errorf("%w: queue %q: the visibility timeout of %v has passed", message.ErrStale, q.Name(), vis))
		e := notice.Event{
			Attempt: attempt, Elapsed: time.Duration(now - start),
			Subscriber: w.s.Site, Goroutine: w.goroutine.Load(),
		}
		q.NoteItemLocked(notice.Stuck, it, e)
		q.NoteItemLocked(notice.StuckStack, it, e)
	}
	return v
}

// errNotSettled is the error of an attempt whose handler has returned, and whose delivery
// still waited to be settled when its visibility timeout passed.
var errNotSettled = errors.New("fanout: the handler has returned, and its delivery was not settled in time")

// TopicOf returns the core of the topic of a handler that is running now, as r; nil
// if that has ended, or its queue was closed: nobody waits for it then.
func (w *Worker[T]) TopicOf(r *handling.Run) any {
	q := w.s.Q
	q.Mu.Lock()
	defer q.Mu.Unlock()
	if q.Store.Closed || len(w.ctxs) == 0 {
		return nil
	}
	if !w.ctx().Runs(r) {
		return nil
	}
	return q.Core
}

// CancelLocked has the handler's context cancelled after unlocking.
func (w *Worker[T]) CancelLocked(cause error) { w.s.Q.Pending.Cancel(w.ctx().Cancel, cause) }

// ForgetDoneLocked lets go of the messages that are done.
func (w *Worker[T]) ForgetDoneLocked() {
	if len(w.ds) == 0 || !w.stepping {
		return
	}
	for k := range w.CurrentLocked() {
		w.ds[k].Forget()
	}
}
