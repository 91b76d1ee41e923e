package queue

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/gofanout/fanout/internal/core"
	"github.com/gofanout/fanout/internal/ending"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/settings"
	"github.com/gofanout/fanout/internal/store"
)

// Close ends the queue at once.
func (q *Queue[T]) Close() error {
	return q.At().Close()
}

// Delete ends the queue as Close does, and removes all that it held and its own dead letters.
func (q *Queue[T]) Delete(ctx context.Context) error {
	if err := q.At().Delete(ctx); err != nil {
		return fmt.Errorf("fanout: delete of %q: %w", q.QueueName, err)
	}
	return nil
}

// end closes a queue in memory. If it is to be deleted nothing of it is left.
func (q *Queue[T]) end(deleting bool) error {
	if q.T == nil {
		return q.endShared(deleting)
	}
	return q.T.Owner.EndQueue(q, deleting)
}

// endShared is end for a dead-letter queue that belongs to no topic.
func (q *Queue[T]) endShared(deleting bool) error {
	q.Mu.Lock()
	if q.Closed && !deleting {
		q.Mu.Unlock()
		return nil
	}
	if !q.Closed {
		q.Core.Live.Add(1) // the reporter may arm a timer until it is stopped
		defer q.Core.Release()
	}
	q.closeLocked(deleting)
	defer q.Report.Stop()
	q.Unlock()
	return nil
}

// SourceIsOpen is the error for ending the dead-letter queue d before its queue.
func SourceIsOpen[T any](d *Queue[T], deleting bool) error {
	if deleting {
		return fmt.Errorf("%w: deleting the dead-letter queue %q: delete %q", message.ErrUnsupported, d.QueueName, d.Source.QueueName)
	}
	return fmt.Errorf("%w: closing the dead-letter queue %q: close %q first", message.ErrUnsupported, d.QueueName, d.Source.QueueName)
}

// DeadIfAny returns the queue's own dead-letter queue, if it has been made.
func (q *Queue[T]) DeadIfAny() *Queue[T] {
	q.Mu.Lock()
	defer q.Mu.Unlock()
	if q.Dead == nil || q.Dead.Shared() {
		return nil
	}
	return q.Dead
}

// Leftovers returns what the queue held when it was closed, in the order of publication.
func (q *Queue[T]) Leftovers() []message.Published[T] {
	q.Mu.Lock()
	defer q.Mu.Unlock()
	return slices.Clone(q.LeftoversLocked())
}

func (q *Queue[T]) LeftoversLocked() []message.Published[T] {
	if q.onDemand != nil && len(q.onDemand.left) > 0 {
		return q.onDemand.left
	}
	if q.Closed && !q.Letters {
		return []message.Published[T]{}
	}
	return nil
}

// CloseNow closes the queue and says what was left in it. The topic's Mu is held. A
// dead-letter queue keeps its letters, to be looked at, unless it is being deleted.
func (q *Queue[T]) CloseNow(deleting bool) ending.Left {
	q.Mu.Lock()
	defer q.UnlockUnder(q.T)
	return q.closeLocked(deleting)
}

func (q *Queue[T]) closeLocked(deleting bool) (l ending.Left) {
	if q.Closed {
		if deleting {
			q.forgetLocked()
		}
		return l
	}
	q.LandAll(q.Core.Now())
	q.Offered = q.Published(q.InLog())
	now := q.Core.Now()
	if q.Keeper == nil && !q.Letters {
		q.Spill()
		q.expireWaitingLocked(now)
	}
	l = q.leftLocked()
	switch {
	case q.Keeper != nil:
		// What no worker has begun with goes back: others get it at once.
		for i, ok := q.PopReady(); ok; i, ok = q.PopReady() {
			q.Keeper.EndLocked(i, message.Verdict{Cause: message.Released, Unstarted: true}, now)
		}
		q.Empty()
	case deleting:
		q.dropAllLocked()
	case q.Letters:
	default:
		left := q.messagesLocked(now)
		if n := len(left); n > 0 {
			q.OnDemandLocked().left = left
			q.NoteLocked(notice.Dropped, notice.Event{Reason: notice.DroppedByClose, Count: n})
		}
		q.Empty()
	}
	q.Store.Close()
	q.ChangedLocked()
	if !q.Direct {
		q.Idle.Remove(q)
	}
	for _, s := range slices.Clone(q.Subs) {
		for _, w := range s.Busy {
			w.CancelLocked(fmt.Errorf("%w: queue %q", message.ErrClosed, q.QueueName))
		}
		s.Workers.TrimLocked()
		s.Workers.StopLocked()
	}
	for q.Receivers.Wake() {
	}
	q.ArmLocked(0)
	q.CheckDrainedLocked()
	q.CheckEndedLocked()
	return l
}

// dropAllLocked drops all that the window holds, because the queue is being deleted.
func (q *Queue[T]) dropAllLocked() {
	n := q.Win.Len()
	q.Empty()
	if n == 0 {
		return
	}
	q.Counters().Dropped += uint64(n)
	q.NoteLocked(notice.Dropped, notice.Event{Reason: notice.DroppedByDelete, Count: n})
}

// forgetLocked drops what a closed queue still holds: letters, or its leftovers, of which
// was told when it was closed.
func (q *Queue[T]) forgetLocked() {
	switch {
	case q.Letters:
		q.dropAllLocked()
	case q.onDemand != nil:
		q.Counters().Dropped += uint64(len(q.onDemand.left))
		q.onDemand.left = nil
	}
}

func (q *Queue[T]) leftLocked() ending.Left {
	l := ending.Left{
		Queue: q.QueueName, Ready: q.Ready(), Retrying: q.In(store.Retrying), Delayed: q.In(store.Delayed),
		InFlight: q.In(store.InFlight) + q.In(store.InHandler), Parked: q.In(store.Parked), Released: q.In(store.Released),
		Blocked: q.In(store.Blocked),
	}
	l.Running = q.HandlersLocked()
	return l
}

// expireWaitingLocked dead-letters the window's messages whose time to live has passed
// and that are neither in flight, which may finish, nor parked, which are dead.
func (q *Queue[T]) expireWaitingLocked(now int64) {
	for _, i := range q.InOrder() {
		state := q.Win.Meta(i).State
		if state != store.Parked && !q.InFlight(i) && q.Expired(&q.Win.At(i).Item, now) {
			q.TakeOut(i)
			q.ExpireLocked(i, now)
		}
	}
}

// messagesLocked returns the window's messages as they would have to be published,
// with what is left of their delays and times to live: at least 1 ns, as 0 would
// be the queue's own.
func (q *Queue[T]) messagesLocked(now int64) []message.Published[T] {
	all := q.InOrder()
	ms := make([]message.Published[T], len(all))
	for k, i := range all {
		h, m := q.Win.At(i), q.Win.Meta(i)
		ms[k] = messageOf(q.Core, &h.Item)
		switch {
		case ms[k].OrderingKey != "": // it can't have a delay of its own
		case m.State == store.Delayed:
			ms[k].Delay = time.Duration(max(m.Deadline-now, 1))
		case q.Set.Delay > 0:
			ms[k].Delay = 1 // it has passed
		}
		if until, ok := q.Expiry(&h.Item); ok {
			ms[k].TimeToLive = time.Duration(max(until-now, 1))
		}
	}
	return ms
}

// Drain tells the queue that its topic shuts down.
func (q *Queue[T]) Drain() {
	q.Mu.Lock()
	q.Draining = true
	q.Mu.Unlock()
}

// AwaitDrained returns nil if nothing is left that Shutdown waits for, and
// otherwise a channel that is closed when that is so.
func (q *Queue[T]) AwaitDrained() <-chan struct{} {
	q.Mu.Lock()
	defer q.Mu.Unlock()
	if q.IsDrainedLocked() {
		return nil
	}
	if q.Drained == nil {
		q.Drained = make(chan struct{})
	}
	return q.Drained
}

func (q *Queue[T]) IsDrainedLocked() bool {
	if q.Closed {
		return true
	}
	busy := q.In(store.InFlight) + q.In(store.InHandler) + int(q.Running+q.Calls) + q.Leases.Counts().InFlight
	if !q.Letters && !q.Paused {
		// What is blocked is waited for only if the head of its line is in one of these
		// states, and else stands behind one that is delayed or put aside.
		busy += q.Ready() + q.In(store.Retrying)
	}
	return busy == 0
}

// ChangedLocked tells the queue's keeper, if it has one, that the queue was paused, resumed
// or closed, or that a subscriber has stopped.
func (q *Queue[T]) ChangedLocked() {
	if q.Keeper != nil {
		q.Keeper.ChangedLocked()
	}
}

func (q *Queue[T]) CheckDrainedLocked() {
	if q.Drained != nil && q.IsDrainedLocked() {
		close(q.Drained)
		q.Drained = nil
	}
}

// CheckEndedLocked tells the topic once nothing of a closed queue runs.
func (q *Queue[T]) CheckEndedLocked() {
	if q.Closed && !q.ended && q.Running == 0 && q.Alarm.Quiet() && q.Calls == 0 && !q.Polling {
		q.ended = true
		q.Core.Release()
	}
}

func NewQueue[T any](c *core.Core, t *Home[T], name string, set *settings.Limits) *Queue[T] {
	q := &Queue[T]{Core: c, T: t, IdleAt: NotIdle, Local: c.Calls == nil}
	q.Init(name, set, &c.Clock, &c.Blocks)
	q.Report.Init(&c.To, name)
	return q
}

// messageOf returns what would have to be published to have it again.
func messageOf[T any](c *core.Core, it *message.Item[T]) message.Published[T] {
	m := message.Published[T]{Body: it.Body, ID: c.IDOf(it.Seq, it.At, it.Ext)}
	if it.Ext != nil {
		m.Fill(it.Ext)
		m.DeduplicationID = ""
	}
	return m
}
