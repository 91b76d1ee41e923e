package queue

import (
	"slices"

	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/settings"
)

// Add puts items, or those of them with the given indexes, into the window of a
// queue that is direct, or that gets messages with a delay of their own. The
// topic's Mu is held.
func (q *Queue[T]) Add(items []Item[T], accepted []int) {
	q.Mu.Lock()
	defer q.UnlockUnder(q.T)
	n := len(items)
	if accepted != nil {
		n = len(accepted)
	}
	q.Offered += uint64(n)
	if q.InLogLocked() > 0 {
		q.spillLocked()
		q.LookByLocked(q.Core.Now(), CheckAge)
	}
	q.countLocked()
	over := n - int(q.Room())
	if over > 0 && q.Expires() {
		q.expireAllLocked(q.Core.Now())
		over = n - int(q.Room())
	}
	if over > 0 {
		q.TakeAllBackLocked()
	}
	for k := range n {
		it := &items[k]
		if accepted != nil {
			it = &items[accepted[k]]
		}
		if q.Set.Overflow == settings.DropNewest && k >= n-over {
			q.dropLocked(it, notice.DroppedNewest)
			continue
		}
		q.AddLocked(it, 0)
	}
	if q.Set.Overflow == settings.DropOldest {
		for ; over > 0; over-- {
			q.DropOldestLocked(0)
		}
	}
	q.ArmLocked(q.Core.Now())
	q.HandOnLocked()
}

// AddLocked adds a message behind all others or, with the stamp that was reserved
// for one that is replayed, at the place of its publication.
func (q *Queue[T]) AddLocked(it *Item[T], stamp uint64) {
	i := q.Win.Add(Held[T]{Item: *it})
	if stamp != 0 {
		q.Win.Meta(i).Stamp = stamp
	}
	q.Allow.Add(-1)
	delay := q.Set.Delay
	if it.Ext != nil && it.Ext.Delay > 0 {
		delay = it.Ext.Delay
	}
	switch {
	case delay > 0:
		q.PutLocked(i, delayed)
		q.Win.Schedule(i, After(min(it.At, q.Core.Now()), delay)) // publication times do not decrease, the clock of another bubble may
	case stamp != 0:
		q.putBackLocked(i)
	default:
		q.PutLocked(i, Backlogged)
	}
}

// spillLocked takes the backlog out of the log into the window, so that what is
// added to the window comes behind it, or so that the cursor can pass what the
// queue does not get.
func (q *Queue[T]) spillLocked() {
	for n := q.InLogLocked(); n > 0; n-- {
		q.PutLocked(q.Win.Add(Held[T]{Item: *q.Cursor.Next()}), Backlogged)
	}
}

// Overflow makes a queue that reads a log, and has too little room for items,
// or for those of them with the given indexes, drop what its policy says. They
// have been appended last and are not visible to consumers yet. The topic's Mu is
// held.
func (q *Queue[T]) Overflow(items []Item[T], accepted []int) {
	q.Mu.Lock()
	defer q.UnlockUnder(q.T)
	n, end := len(items), q.Log.Head()
	if accepted != nil {
		n = len(accepted)
	}
	q.countLocked()
	q.TakeAllBackLocked()
	over := int(end - q.Allow.Load())
	if over > 0 && q.Expires() {
		q.expireAllLocked(q.Core.Now())
		over = int(end - q.Allow.Load())
	}
	if over <= 0 {
		return // there is room, or it was made meanwhile
	}
	if q.Set.Overflow == settings.DropOldest {
		for ; over > 0; over-- {
			q.DropOldestLocked(end)
		}
		q.Cursor.SkipTo(q.Cursor.Pos()) // lets go of the log behind what was dropped
		q.LookByLocked(q.Core.Now(), CheckAge)
		q.ArmLocked(q.Core.Now())
		return
	}
	q.spillLocked()
	for k := range n {
		it := &items[k]
		if accepted != nil {
			it = &items[accepted[k]]
		}
		if k < n-over {
			q.PutLocked(q.Win.Add(Held[T]{Item: *it}), Backlogged)
		} else {
			q.dropLocked(it, notice.DroppedNewest)
			q.Allow.Add(1)
		}
	}
	q.Cursor.SkipTo(end)
	q.LookByLocked(q.Core.Now(), CheckAge)
	q.HandOnLocked()
}

// DropOldestLocked drops what was published first among what is not in flight,
// and reports whether there was anything. The log is read up to end, which may
// be beyond what consumers see.
func (q *Queue[T]) DropOldestLocked(end int64) bool {
	i, seq, ok := q.Win.Lowest()
	if b, found := q.backlog.First(); found && !q.Letters && (!ok || q.Win.At(b).Seq < uint64(seq)) {
		i, seq, ok = b, int64(q.Win.At(b).Seq), true
	}
	if !q.Direct && q.Cursor.Pos() < end {
		if it := q.Cursor.Peek(); !ok || it.Seq < uint64(seq) {
			q.Cursor.Next()
			q.Allow.Add(1)
			q.dropLocked(it, notice.DroppedOldest)
			return true
		}
	}
	if ok {
		q.dropLocked(&q.Win.At(i).Item, notice.DroppedOldest)
		q.takeOutLocked(i)
		q.FreeLocked(i)
	}
	return ok
}

func (q *Queue[T]) dropLocked(it *Item[T], why notice.Reason) {
	q.OnDemandLocked().Dropped++
	q.NoteItemLocked(notice.Dropped, it, notice.Event{Reason: why})
}

// ReplayLocked adds the newest of what the topic retains to a queue without
// filters that is being opened.
func (q *Queue[T]) ReplayLocked(its []Item[T]) {
	now := q.Core.Now()
	live := slices.DeleteFunc(its, func(it Item[T]) bool { return q.Expired(&it, now) })
	live = live[max(len(live)-min(q.Set.Replay, q.Set.Capacity), 0):]
	for k := range live {
		q.AddLocked(&live[k], 0)
	}
	q.Offered += uint64(len(live))
	q.ArmLocked(now)
}
