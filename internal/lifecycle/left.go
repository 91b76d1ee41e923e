package lifecycle

import (
	"slices"
	"time"

	"github.com/gofanout/fanout/internal/core"
	"github.com/gofanout/fanout/internal/ending"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/store"
)

// Leftovers returns what the queue held when it was closed, in the order of publication.
func Leftovers[T any](q *queue.Queue[T]) []message.Published[T] {
	q.Mu.Lock()
	defer q.Mu.Unlock()
	if left := q.LeftLocked(); left != nil {
		return slices.Clone(left)
	}
	if q.Store.Closed && !q.Store.Letters {
		return []message.Published[T]{}
	}
	return nil
}

func leftLocked[T any](q *queue.Queue[T]) ending.Left {
	l := ending.Left{
		Queue: q.Name(), Ready: q.Store.Ready(), Retrying: q.Store.In(store.Retrying), Delayed: q.Store.In(store.Delayed),
		InFlight: q.Store.In(store.InFlight) + q.Store.In(store.InHandler), Parked: q.Store.In(store.Parked), Released: q.Store.In(store.Released),
		Blocked: q.Store.In(store.Blocked),
	}
	l.Running = q.Group.HandlersLocked()
	return l
}

// expireWaitingLocked dead-letters the window's messages whose time to live has passed
// and that are neither in flight, which may finish, nor parked, which are dead.
func expireWaitingLocked[T any](q *queue.Queue[T], now int64) {
	for _, i := range q.Store.InOrder() {
		state := q.Store.Win.Meta(i).State
		if state != store.Parked && !q.Store.InFlight(i) && q.Store.Expired(&q.Store.Win.At(i).Item, now) {
			q.Store.TakeOut(i)
			q.ExpireLocked(i, now)
		}
	}
}

// messagesLocked returns the window's messages as they would have to be published,
// with what is left of their delays and times to live: at least 1 ns, as 0 would
// be the queue's own.
func messagesLocked[T any](q *queue.Queue[T], now int64) []message.Published[T] {
	all := q.Store.InOrder()
	ms := make([]message.Published[T], len(all))
	for k, i := range all {
		h, m := q.Store.Win.At(i), q.Store.Win.Meta(i)
		ms[k] = messageOf(q.Core, &h.Item)
		switch {
		case ms[k].OrderingKey != "": // it can't have a delay of its own
		case m.State == store.Delayed:
			ms[k].Delay = time.Duration(max(m.Deadline-now, 1))
		case q.Store.Set.Delay > 0:
			ms[k].Delay = 1 // it has passed
		}
		if until, ok := q.Store.Expiry(&h.Item); ok {
			ms[k].TimeToLive = time.Duration(max(until-now, 1))
		}
	}
	return ms
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
