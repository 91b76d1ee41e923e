package queue

import (
	"github.com/gofanout/fanout/internal/core"
	"github.com/gofanout/fanout/internal/settings"
	"github.com/gofanout/fanout/internal/store"
)

// IsDrainedLocked reports whether nothing is left that Shutdown waits for.
func (q *Queue[T]) IsDrainedLocked() bool {
	if q.Store.Closed {
		return true
	}
	busy := q.Store.In(store.InFlight) + q.Store.In(store.InHandler) + int(q.Group.Running+q.Calls) + q.Store.Leases.Counts().InFlight
	if !q.Store.Letters && !q.Paused {
		// What is blocked is waited for only if the head of its line is in one of these
		// states, and else stands behind one that is delayed or put aside.
		busy += q.Store.Ready() + q.Store.In(store.Retrying)
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

// CheckDrainedLocked tells those who wait for that once it is so.
func (q *Queue[T]) CheckDrainedLocked() {
	if q.Drained != nil && q.IsDrainedLocked() {
		close(q.Drained)
		q.Drained = nil
	}
}

// CheckEndedLocked tells the topic once nothing of a closed queue runs.
func (q *Queue[T]) CheckEndedLocked() {
	if q.Store.Closed && !q.ended && q.Group.Running == 0 && q.Alarm.Quiet() && q.Calls == 0 && !q.Polling {
		q.ended = true
		q.Core.Release()
	}
}

// NewQueue returns a queue of topic t, or of none if that is nil, that is in no list yet.
func NewQueue[T any](c *core.Core, t *Home[T], name string, set *settings.Limits) *Queue[T] {
	q := &Queue[T]{Core: c, T: t, IdleAt: NotIdle, Local: c.Calls == nil}
	q.Store.Init(name, set, &c.Clock, &c.Blocks)
	q.Report.Init(&c.To, name)
	return q
}
