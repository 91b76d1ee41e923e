package core

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
func (q *Queue[T]) Made() bool { return q.core != nil }

// IsLetters reports whether the queue is a dead-letter queue.
func (q *Queue[T]) IsLetters() bool { return q.letters }

// IsShared reports whether the queue is a dead-letter queue that belongs to no topic.
func (q *Queue[T]) IsShared() bool { return q.letters && q.shared() }

// Blocking reports whether a publish or a redrive waits for room in this queue and is the
// first in its line.
func (q *Queue[T]) Blocking() bool { return q.gate.Load() != 0 }

// DeadNow returns the dead-letter queue, nil if none has been made.
func (q *Queue[T]) DeadNow() *Queue[T] {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.dead
}

// Settings are the options of a queue that are in force.
type Settings struct {
	settings.Limits
	Filtered bool
	Shared   string // the name of a dead-letter queue that belongs to no topic
}

// Settings returns the options in force.
func (q *Queue[T]) Settings() Settings {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := Settings{Limits: *q.set, Filtered: q.filters != nil}
	if q.letters {
		s.DeadCapacity, s.DeadOverflow = 0, 0
	}
	if q.keeper != nil {
		s.Capacity = q.keeper.capacity()
	}
	if d := q.dead; d != nil {
		d.mu.Lock()
		s.DeadCapacity, s.DeadOverflow = d.set.Capacity, d.set.Overflow
		d.mu.Unlock()
		if d.keeper != nil {
			s.DeadCapacity = d.keeper.capacity()
		}
		if d.shared() {
			s.Shared = d.name
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
	q.mu.Lock()
	defer q.mu.Unlock()
	views := make([]SubscriberView, len(q.subs))
	for k, s := range q.subs {
		views[k] = SubscriberView{
			SubscriberLimits: *s.set, Site: s.site, Most: s.most, Workers: s.running, Stuck: s.stuck, Stopping: s.stopping,
		}
	}
	return views
}

// DeleteLetters deletes dead letters of this queue: those that c selects. It returns how many.
func (q *Queue[T]) DeleteLetters(ctx context.Context, c *LetterChoice[T]) (deleted int, err error) {
	if err := q.findLetters("delete letters", c); err != nil {
		return 0, err
	}
	if deleted, err = q.at().deleteLetters(ctx, c); err != nil {
		err = fmt.Errorf("fanout: delete letters of %q: %w", q.name, err)
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
	d.mu.Lock()
	defer d.unlock()
	for k := range letters {
		l := &letters[k]
		if !d.hasLetterLocked(l) {
			continue
		}
		it := d.win.At(l.ref.Block).item
		d.takeOutLocked(l.ref.Block)
		d.freeLocked(l.ref.Block)
		d.rareLocked().dropped++
		d.noteItemLocked(notice.Dropped, &it, notice.Event{Reason: notice.DroppedByDelete})
		n++
	}
	d.armLocked(d.core.now())
	d.handOnLocked() // a letter that went may have been the head of its key
	d.checkDrainedLocked()
	return n
}
