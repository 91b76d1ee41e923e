package queue

import (
	"context"
	"fmt"
	"slices"

	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/settings"
)

// What follows is for those who look after topics and queues, and for package fanout, whose
// types stand before those of this package.

// Made reports whether the queue is not the zero Queue.
func (q *Queue[T]) Made() bool { return q.Core != nil }

// IsLetters reports whether the queue is a dead-letter queue.
func (q *Queue[T]) IsLetters() bool { return q.Letters }

// IsShared reports whether the queue is a dead-letter queue that belongs to no topic.
func (q *Queue[T]) IsShared() bool { return q.Letters && q.shared() }

// Blocking reports whether a publish or a redrive waits for room in this queue and is the
// first in its line.
func (q *Queue[T]) Blocking() bool { return q.RoomWanted.Load() != 0 }

// DeadNow returns the dead-letter queue, nil if none has been made.
func (q *Queue[T]) DeadNow() *Queue[T] {
	q.Mu.Lock()
	defer q.Mu.Unlock()
	return q.Dead
}

// Settings are the options of a queue that are in force.
type Settings struct {
	settings.Limits
	Filtered bool
	Shared   string // the name of a dead-letter queue that belongs to no topic
}

// Settings returns the options in force.
func (q *Queue[T]) Settings() Settings {
	q.Mu.Lock()
	defer q.Mu.Unlock()
	s := Settings{Limits: *q.Set, Filtered: q.Filters != nil}
	if q.Letters {
		s.DeadCapacity, s.DeadOverflow = 0, 0
	}
	if q.Keeper != nil {
		s.Capacity = q.Keeper.Capacity()
	}
	if d := q.Dead; d != nil {
		d.Mu.Lock()
		s.DeadCapacity, s.DeadOverflow = d.Set.Capacity, d.Set.Overflow
		d.Mu.Unlock()
		if d.Keeper != nil {
			s.DeadCapacity = d.Keeper.Capacity()
		}
		if d.shared() {
			s.Shared = d.QueueName
		}
	}
	return s
}

// A SubscriberView describes a Subscriber at one instant.
type SubscriberView struct {
	settings.SubscriberLimits
	Site           string // the file and line that subscribed
	Most           int    // messages that the handler gets
	Workers, Stuck int
	Stopping       bool
}

// Subscribers returns the subscribers, those that are being shut down too.
func (q *Queue[T]) Subscribers() []SubscriberView {
	q.Mu.Lock()
	defer q.Mu.Unlock()
	views := make([]SubscriberView, len(q.Subs))
	for k, s := range q.Subs {
		views[k] = SubscriberView{
			SubscriberLimits: *s.Set, Site: s.Site, Most: s.Most, Workers: s.Running, Stuck: s.Stuck, Stopping: s.Stopping,
		}
	}
	return views
}

// DeleteLetters deletes dead letters of this queue: those that c selects. It returns how many.
func (q *Queue[T]) DeleteLetters(ctx context.Context, c *LetterChoice[T]) (deleted int, err error) {
	if err := q.findLetters("delete letters", c); err != nil {
		return 0, err
	}
	if deleted, err = q.At().DeleteLetters(ctx, c); err != nil {
		err = fmt.Errorf("fanout: delete letters of %q: %w", q.QueueName, err)
	}
	return deleted, err
}

// deleteFrom deletes letters in memory.
func (q *Queue[T]) deleteFrom(ctx context.Context, c *LetterChoice[T]) (deleted int, err error) {
	letters, err := q.selectFrom(c)
	if err != nil {
		return 0, err
	}
	for some := range slices.Chunk(letters, lookLen) {
		if ctx.Err() != nil {
			return deleted, message.ContextError(ctx)
		}
		deleted += c.dead.drop(some)
	}
	return deleted, c.Unknown()
}

// drop deletes letters that are still in this dead-letter queue, and not in flight.
func (d *Queue[T]) drop(letters []Delivery[T]) (n int) {
	d.Mu.Lock()
	defer d.Unlock()
	for k := range letters {
		l := &letters[k]
		if !d.hasLetterLocked(l) {
			continue
		}
		it := d.Win.At(l.Ref.Block).Item
		d.Discard(l.Ref.Block)
		d.Counters().Dropped++
		d.NoteItemLocked(notice.Dropped, &it, notice.Event{Reason: notice.DroppedByDelete})
		n++
	}
	d.ArmLocked(d.Core.Now())
	d.HandOnLocked() // a letter that went may have been the head of its key
	d.CheckDrainedLocked()
	return n
}
