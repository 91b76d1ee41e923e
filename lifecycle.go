package fanout

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/gofanout/fanout/internal/log"
	"github.com/gofanout/fanout/internal/window"
)

// Close ends the queue at once: no message reaches it any more, a publish that
// waits for room in it waits for it no longer, receives and settlements get
// [ErrClosed], and running handlers' contexts are cancelled with a cause that
// wraps it. What the queue held is lost, counted, and told to the hooks and the
// log; [Queue.Leftovers] still hands it out. Its dead letters stay where they
// are, and its name is free again. Close doesn't wait for handlers. Calling it
// again does nothing.
//
// A dead-letter queue ends with its topic; closing it while its queue is open
// is [ErrUnsupported].
func (q *Queue[T]) Close() error {
	t := q.t
	t.mu.Lock()
	if q.gone {
		t.mu.Unlock()
		return nil
	}
	if q.source != nil && !q.source.gone {
		t.mu.Unlock()
		return fmt.Errorf("%w: closing the dead-letter queue %q: close %q first", ErrUnsupported, q.name, q.source.name)
	}
	q.gone = true
	_, fx := q.closeNow()
	if q.source != nil {
		t.orphans = without(t.orphans, q)
	} else {
		delete(t.queues, q.name)
		if q.filters != nil {
			t.setFilteredLocked(without(t.filteredQueues(), q))
		}
		t.open = without(t.open, q)
		t.resizeLocked()
		t.relimitLocked()
		if d := q.deadIfAny(); d != nil {
			t.orphans = append(t.orphans, d)
		}
	}
	t.mu.Unlock()
	fx.perform()
	q.report.stop()
	t.admitWaiters()
	return nil
}

func without[E comparable](list []E, e E) []E {
	if k := slices.Index(list, e); k >= 0 {
		return slices.Delete(list, k, k+1)
	}
	return list
}

func (q *Queue[T]) deadIfAny() *Queue[T] {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.dead
}

// Leftovers returns what the queue held when it was closed, in the order of
// publication, as messages that can be published again: with their IDs and
// attributes. It returns nil before that.
func (q *Queue[T]) Leftovers() []Message[T] {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.Clone(q.left)
}

// closeNow closes the queue and says what was left in it. The topic's mu is
// held. A dead-letter queue keeps its letters, to be looked at.
func (q *Queue[T]) closeNow() (l Left, fx *effects) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return l, nil
	}
	l = q.leftLocked()
	q.offered = q.publishedLocked()
	if q.source == nil {
		q.spillLocked()
		q.left = q.messagesLocked()
		if n := len(q.left); n > 0 {
			fx = q.noteLocked(fx, dropped, Event{Reason: DroppedByClose, Count: n})
		}
		q.win = window.Window[held[T]]{}
		q.cursor = log.Cursor[item[T]]{}
		q.backlog, q.due, q.parked, q.released = window.List{}, window.List{}, window.List{}, window.List{}
		clear(q.n[:])
	}
	q.closed = true
	q.t.sleep.remove(q)
	for _, s := range slices.Clone(q.subs) {
		for _, w := range s.busy {
			fx = fx.cancel(w.ctx, fmt.Errorf("%w: queue %q", ErrClosed, q.name))
		}
		s.stopLocked()
	}
	for _, r := range q.receivers {
		r.ready <- struct{}{} // has room: a receiver is in the list without a token
	}
	q.receivers = nil
	q.armLocked(0)
	q.checkDrainedLocked()
	q.checkHomeLocked()
	return l, fx
}

func (q *Queue[T]) leftLocked() Left {
	l := Left{
		Queue: q.name, Ready: q.readyLocked(), Retrying: q.n[retrying], Delayed: q.n[delayed],
		InFlight: q.n[inFlight] + q.n[handling], Parked: q.n[parked], Released: q.n[released],
	}
	for _, s := range q.subs {
		l.Running += len(s.busy)
	}
	return l
}

func (q *Queue[T]) messagesLocked() []Message[T] {
	its := make([]*item[T], 0, q.win.Len())
	q.win.All(func(i int32) bool {
		its = append(its, &q.win.At(i).item)
		return true
	})
	slices.SortFunc(its, func(a, b *item[T]) int { return cmp.Compare(a.seq, b.seq) })
	ms := make([]Message[T], len(its))
	for k, it := range its {
		ms[k] = it.message(q.core)
	}
	return ms
}

// drain tells the queue that its topic shuts down.
func (q *Queue[T]) drain() {
	q.mu.Lock()
	q.draining = true
	q.mu.Unlock()
}

// awaitDrained returns nil if nothing is left that Shutdown waits for, and
// otherwise a channel that is closed when that is so.
func (q *Queue[T]) awaitDrained() <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.isDrainedLocked() {
		return nil
	}
	if q.drained == nil {
		q.drained = make(chan struct{})
	}
	return q.drained
}

func (q *Queue[T]) isDrainedLocked() bool {
	if q.closed {
		return true
	}
	busy := q.n[inFlight] + q.n[handling] + q.running
	if q.source == nil {
		busy += q.readyLocked() + q.n[retrying]
	}
	return busy == 0
}

func (q *Queue[T]) checkDrainedLocked() {
	if q.drained != nil && q.isDrainedLocked() {
		close(q.drained)
		q.drained = nil
	}
}

// checkHomeLocked tells the topic once nothing of a closed queue runs.
func (q *Queue[T]) checkHomeLocked() {
	if q.closed && !q.home && q.running == 0 && !q.armed {
		q.home = true
		q.core.release()
	}
}
