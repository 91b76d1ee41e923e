package core

import (
	"slices"

	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/settings"
)

// add puts items, or those of them with the given indexes, into the window of a
// queue that is direct, or that gets messages with a delay of their own. The
// topic's mu is held.
func (q *Queue[T]) add(items []item[T], accepted []int) {
	q.mu.Lock()
	defer q.unlockUnder(q.t)
	n := len(items)
	if accepted != nil {
		n = len(accepted)
	}
	q.offered += uint64(n)
	if q.inLogLocked() > 0 {
		q.spillLocked()
		q.lookByLocked(q.core.now(), checkAge)
	}
	q.countLocked()
	over := n - int(q.room())
	if over > 0 && q.expires() {
		q.expireAllLocked(q.core.now())
		over = n - int(q.room())
	}
	if over > 0 {
		q.takeAllBackLocked()
	}
	for k := range n {
		it := &items[k]
		if accepted != nil {
			it = &items[accepted[k]]
		}
		if q.set.Overflow == settings.DropNewest && k >= n-over {
			q.dropLocked(it, notice.DroppedNewest)
			continue
		}
		q.addLocked(it, 0)
	}
	if q.set.Overflow == settings.DropOldest {
		for ; over > 0; over-- {
			q.dropOldestLocked(0)
		}
	}
	q.armLocked(q.core.now())
	q.handOnLocked()
}

// addLocked adds a message behind all others or, with the stamp that was reserved
// for one that is replayed, at the place of its publication.
func (q *Queue[T]) addLocked(it *item[T], stamp uint64) {
	i := q.win.Add(held[T]{item: *it})
	if stamp != 0 {
		q.win.Meta(i).Stamp = stamp
	}
	q.allow.Add(-1)
	delay := q.set.Delay
	if it.Ext != nil && it.Ext.Delay > 0 {
		delay = it.Ext.Delay
	}
	switch {
	case delay > 0:
		q.putLocked(i, delayed)
		q.win.Schedule(i, after(min(it.At, q.core.now()), delay)) // publication times do not decrease, the clock of another bubble may
	case stamp != 0:
		q.putBackLocked(i)
	default:
		q.putLocked(i, backlogged)
	}
}

// spillLocked takes the backlog out of the log into the window, so that what is
// added to the window comes behind it, or so that the cursor can pass what the
// queue does not get.
func (q *Queue[T]) spillLocked() {
	for n := q.inLogLocked(); n > 0; n-- {
		q.putLocked(q.win.Add(held[T]{item: *q.cursor.Next()}), backlogged)
	}
}

// overflow makes a queue that reads a log, and has too little room for items,
// or for those of them with the given indexes, drop what its policy says. They
// have been appended last and are not visible to consumers yet. The topic's mu is
// held.
func (q *Queue[T]) overflow(items []item[T], accepted []int) {
	q.mu.Lock()
	defer q.unlockUnder(q.t)
	n, end := len(items), q.log.Head()
	if accepted != nil {
		n = len(accepted)
	}
	q.countLocked()
	q.takeAllBackLocked()
	over := int(end - q.allow.Load())
	if over > 0 && q.expires() {
		q.expireAllLocked(q.core.now())
		over = int(end - q.allow.Load())
	}
	if over <= 0 {
		return // there is room, or it was made meanwhile
	}
	if q.set.Overflow == settings.DropOldest {
		for ; over > 0; over-- {
			q.dropOldestLocked(end)
		}
		q.cursor.SkipTo(q.cursor.Pos()) // lets go of the log behind what was dropped
		q.lookByLocked(q.core.now(), checkAge)
		q.armLocked(q.core.now())
		return
	}
	q.spillLocked()
	for k := range n {
		it := &items[k]
		if accepted != nil {
			it = &items[accepted[k]]
		}
		if k < n-over {
			q.putLocked(q.win.Add(held[T]{item: *it}), backlogged)
		} else {
			q.dropLocked(it, notice.DroppedNewest)
			q.allow.Add(1)
		}
	}
	q.cursor.SkipTo(end)
	q.lookByLocked(q.core.now(), checkAge)
	q.handOnLocked()
}

// dropOldestLocked drops what was published first among what is not in flight,
// and reports whether there was anything. The log is read up to end, which may
// be beyond what consumers see.
func (q *Queue[T]) dropOldestLocked(end int64) bool {
	i, seq, ok := q.win.Lowest()
	if b, found := q.backlog.First(); found && !q.letters && (!ok || q.win.At(b).Seq < uint64(seq)) {
		i, seq, ok = b, int64(q.win.At(b).Seq), true
	}
	if !q.direct && q.cursor.Pos() < end {
		if it := q.cursor.Peek(); !ok || it.Seq < uint64(seq) {
			q.cursor.Next()
			q.allow.Add(1)
			q.dropLocked(it, notice.DroppedOldest)
			return true
		}
	}
	if ok {
		q.dropLocked(&q.win.At(i).item, notice.DroppedOldest)
		q.takeOutLocked(i)
		q.freeLocked(i)
	}
	return ok
}

func (q *Queue[T]) dropLocked(it *item[T], why notice.Reason) {
	q.rareLocked().dropped++
	q.noteItemLocked(notice.Dropped, it, notice.Event{Reason: why})
}

// replayLocked adds the newest of what the topic retains to a queue without
// filters that is being opened.
func (q *Queue[T]) replayLocked(its []item[T]) {
	now := q.core.now()
	live := slices.DeleteFunc(its, func(it item[T]) bool { return q.expired(&it, now) })
	live = live[max(len(live)-min(q.set.Replay, q.set.Capacity), 0):]
	for k := range live {
		q.addLocked(&live[k], 0)
	}
	q.offered += uint64(len(live))
	q.armLocked(now)
}
