package queue

import (
	"math"

	"github.com/gofanout/fanout/internal/core"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/settings"
	"github.com/gofanout/fanout/internal/store"
)

// DeadSuffix makes the name of a queue's own dead-letter queue. No other queue
// may have such a name.
const DeadSuffix = "/dead"

// DeadLetters returns the queue's dead-letter queue, and makes it if there is none.
func (q *Queue[T]) DeadLetters() *Queue[T] {
	if q.Store.Letters {
		return q
	}
	q.Mu.Lock()
	defer q.Mu.Unlock()
	return q.deadLocked()
}

func (q *Queue[T]) deadLocked() *Queue[T] {
	if q.Dead == nil {
		set := settings.DefaultQueue().Limits
		set.Capacity, set.Overflow = q.Store.Set.DeadCapacity, q.Store.Set.DeadOverflow
		set.Visibility, set.Backoff = q.Store.Set.Visibility, q.Store.Set.Backoff
		q.Dead = NewDeadLetterQueue(q.Core, q.T, q.Name()+DeadSuffix, set)
		q.Dead.Source = q
		q.Dead.Store.Closed, q.Dead.Store.Draining = q.Store.Closed, q.DrainingDead
		if !q.Store.Closed {
			q.Core.Live.Add(1)
		}
	}
	return q.Dead
}

// Shared reports whether a dead-letter queue belongs to no topic.
func (q *Queue[T]) Shared() bool { return q.T == nil }

func (q *Queue[T]) Origin() core.Origin { return core.Origin{Topic: q.Core, Queue: q.Name()} }

// AdoptLocked makes q, which is being opened, the owner of the dead-letter queue
// that a closed queue of its name has left, if there is one. Others may be using
// that: it keeps its settings, except its capacity and overflow, which are only
// read under its mutex. The topic's Mu and q's are held.
func (q *Queue[T]) AdoptLocked() {
	if q.Dead != nil {
		return
	}
	d := q.T.Owner.TakeOrphanLocked(q.Name() + DeadSuffix)
	if d == nil {
		return
	}
	q.Dead, d.Source = d, q
	d.Mu.Lock()
	defer d.Mu.Unlock()
	d.Store.Resize(q.Store.Set.DeadCapacity, q.Store.Set.DeadOverflow)
}

// NewDeadLetterQueue returns a dead-letter queue of topic t, or a shared one if that is nil.
func NewDeadLetterQueue[T any](c *core.Core, t *Home[T], name string, set settings.Limits) *Queue[T] {
	set.MaxAttempts = message.Unlimited
	d := NewQueue(c, t, name, &set)
	d.Store.Letters, d.Store.Direct, d.Entries, d.Store.Evicts = true, true, true, false
	return d
}

// deadLetterLocked moves entry i, whose state has been left, to the dead-letter
// queue, or parks it. The lock of a queue comes before that of its dead-letter
// queue, so that the move is one step for everybody else.
func (q *Queue[T]) deadLetterLocked(i int32) {
	if q.Keeper != nil {
		q.Keeper.DeadLetterLocked(i)
		return
	}
	if q.sendLocked(i) {
		q.Store.Remove(i)
		return
	}
	q.Store.Park(i)
	q.Store.Counters().Parked++
	q.offerSwapLocked()
	q.NoteItemLocked(notice.Parked, &q.Store.Win.At(i).Item, q.LastAttempt(i))
}

// offerSwapLocked has a redrive that waits for room here looked at, since it can
// change places with what is parked: it makes RoomWanted as low as no allow is,
// so that the next Unlock goes to tell.
func (q *Queue[T]) offerSwapLocked() {
	for g := q.RoomWanted.Load(); g != 0 && !q.RoomWanted.CompareAndSwap(g, math.MinInt64); {
		g = q.RoomWanted.Load()
	}
}

// sendLocked copies entry i's message to the dead-letter queue if there is room.
func (q *Queue[T]) sendLocked(i int32) bool {
	d := q.deadLocked()
	d.Mu.Lock()
	defer d.Mu.Unlock()
	return q.SendBothLocked(d, i)
}

// SendBothLocked is sendLocked with the lock of the dead-letter queue d held, too.
// What is pending in d then is left to q's unlock.
func (q *Queue[T]) SendBothLocked(d *Queue[T], i int32) bool {
	if d.Store.Closed {
		return false
	}
	if d.Store.Held() >= d.Store.Set.Capacity {
		if d.Store.Set.Overflow != settings.DropOldest || !d.DropOldestLocked(0) {
			if r := d.onDemandLocked(); !r.isSource[q] {
				if r.isSource == nil {
					r.isSource = make(map[*Queue[T]]bool)
				}
				r.isSource[q] = true
				r.sources = append(r.sources, q)
			}
			d.sourcesWait.Store(true)
			return false
		}
		q.Pending.Join(d.Pending.Take())
		d.ArmLocked(d.Core.Now())
	}
	d.Store.Offered++
	h := q.Store.Win.At(i)
	d.Store.Admit(store.Held[T]{Item: q.toLetter(d, h.Item), Hist: h.Hist}, store.Backlogged)
	d.HandOnLocked()
	q.Store.Counters().DeadLettered++
	q.NoteItemLocked(notice.DeadLettered, &h.Item, q.LastAttempt(i))
	return true
}

// toLetter returns q's message as dead-letter queue d keeps it. In one that is
// shared, times, numbers and IDs of several topics come together: they become
// d's own, and the message takes its ID and its origin along.
func (q *Queue[T]) toLetter(d *Queue[T], it message.Item[T]) message.Item[T] {
	if !d.Shared() {
		return it
	}
	it.Ext = it.Ext.With(func(x *message.Extra) {
		x.ID = q.Core.IDOf(it.Seq, it.At, it.Ext)
		x.Source, x.Seq = q.Origin(), it.Seq
	})
	it.At = d.Core.Clock.At(q.Core.Time(it.At))
	it.Seq = d.Store.Offered
	return it
}

// LastAttempt is what an event says of the attempt that made a message dead.
func (q *Queue[T]) LastAttempt(i int32) notice.Event {
	h := q.Store.Win.At(i).Hist
	a := h.Last()
	return notice.Event{Attempt: int(q.Store.Win.Meta(i).Spent), Cause: a.Cause, Err: a.Err, Elapsed: a.Elapsed}
}

// unpark moves what is parked to the dead-letter queue, as far as there is room.
// What has to be told is left in p.
func (q *Queue[T]) unpark(p *notice.Pending) {
	q.Mu.Lock()
	for !q.Store.Closed {
		i, ok := q.Store.FirstParked()
		if !ok || !q.sendLocked(i) {
			break
		}
		q.Store.Discard(i)
	}
	q.CheckDrainedLocked()
	q.UnlockTo(p)
}
