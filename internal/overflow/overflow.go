package overflow

import (
	"slices"

	"github.com/gofanout/fanout/internal/alarm"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/settings"
)

// Add puts items, or those of them with the given indexes, into the window of a
// queue that is direct, or that gets messages with a delay of their own. The
// topic's Mu is held.
func Add[T any](q *queue.Queue[T], items []message.Item[T], accepted []int) {
	q.Mu.Lock()
	defer q.UnlockUnder(q.T)
	n := len(items)
	if accepted != nil {
		n = len(accepted)
	}
	q.Store.Offered += uint64(n)
	now := q.Core.Now()
	if q.Store.InLog() > 0 {
		q.Store.Spill()
		q.LookByLocked(now, alarm.CheckAge)
	}
	q.Store.Count()
	over := n - int(q.Store.Room())
	if over > 0 && q.Expires() {
		expireAllLocked(q, now)
		over = n - int(q.Store.Room())
	}
	if over > 0 {
		q.Store.TakeAllBack()
	}
	for k := range n {
		it := &items[k]
		if accepted != nil {
			it = &items[accepted[k]]
		}
		if q.Store.Set.Overflow == settings.DropNewest && k >= n-over {
			dropNewestLocked(q, it)
			continue
		}
		q.Store.Enter(it, 0, now)
	}
	if q.Store.Set.Overflow == settings.DropOldest {
		for ; over > 0; over-- {
			q.DropOldestLocked(0)
		}
	}
	q.ArmLocked(now)
	q.HandOnLocked()
}

// Drop makes a queue that reads a log, and has too little room for items,
// or for those of them with the given indexes, drop what its policy says. They
// have been appended last and are not visible to consumers yet. The topic's Mu is
// held.
func Drop[T any](q *queue.Queue[T], items []message.Item[T], accepted []int) {
	q.Mu.Lock()
	defer q.UnlockUnder(q.T)
	n, end := len(items), q.Store.Log.Head()
	if accepted != nil {
		n = len(accepted)
	}
	q.Store.Count()
	q.Store.TakeAllBack()
	over := int(end - q.Store.Allow.Load())
	if over > 0 && q.Expires() {
		expireAllLocked(q, q.Core.Now())
		over = int(end - q.Store.Allow.Load())
	}
	if over <= 0 {
		return // there is room, or it was made meanwhile
	}
	if q.Store.Set.Overflow == settings.DropOldest {
		for ; over > 0; over-- {
			q.DropOldestLocked(end)
		}
		q.Store.Cursor.SkipTo(q.Store.Cursor.Pos()) // lets go of the log behind what was dropped
		q.LookByLocked(q.Core.Now(), alarm.CheckAge)
		q.ArmLocked(q.Core.Now())
		return
	}
	q.Store.Spill()
	for k := range n {
		it := &items[k]
		if accepted != nil {
			it = &items[accepted[k]]
		}
		if k < n-over {
			q.Store.Append(it)
		} else {
			dropNewestLocked(q, it)
			q.Store.Allow.Add(1)
		}
	}
	q.Store.Cursor.SkipTo(end)
	q.LookByLocked(q.Core.Now(), alarm.CheckAge)
	q.HandOnLocked()
}

// dropNewestLocked drops a message that is being added.
func dropNewestLocked[T any](q *queue.Queue[T], it *message.Item[T]) {
	q.Store.Counters().Dropped++
	q.NoteItemLocked(notice.Dropped, it, notice.Event{Reason: notice.DroppedNewest})
}

// ReplayLocked adds the newest of what the topic retains to a queue without
// filters that is being opened.
func ReplayLocked[T any](q *queue.Queue[T], its []message.Item[T]) {
	now := q.Core.Now()
	live := slices.DeleteFunc(its, func(it message.Item[T]) bool { return q.Store.Expired(&it, now) })
	live = live[max(len(live)-min(q.Store.Set.Replay, q.Store.Set.Capacity), 0):]
	for k := range live {
		q.Store.Enter(&live[k], 0, now)
	}
	q.Store.Offered += uint64(len(live))
	q.ArmLocked(now)
}
