package view

import (
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/settings"
)

// Settings are the options of a queue that are in force.
type Settings struct {
	settings.Limits
	Filtered bool
	Shared   string // the name of a dead-letter queue that belongs to no topic
}

// SettingsOf returns the options in force.
func SettingsOf[T any](q *queue.Queue[T]) Settings {
	q.Mu.Lock()
	defer q.Mu.Unlock()
	s := Settings{Limits: *q.Store.Set, Filtered: q.Filters != nil}
	if q.Store.Letters {
		s.DeadCapacity, s.DeadOverflow = 0, 0
	}
	if q.Keeper != nil {
		s.Capacity = q.Keeper.Capacity()
	}
	if d := q.Dead; d != nil {
		d.Mu.Lock()
		s.DeadCapacity, s.DeadOverflow = d.Store.Set.Capacity, d.Store.Set.Overflow
		d.Mu.Unlock()
		if d.Keeper != nil {
			s.DeadCapacity = d.Keeper.Capacity()
		}
		if d.Shared() {
			s.Shared = d.Name()
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
func Subscribers[T any](q *queue.Queue[T]) []SubscriberView {
	q.Mu.Lock()
	defer q.Mu.Unlock()
	views := make([]SubscriberView, len(q.Group.Subs))
	for k, s := range q.Group.Subs {
		views[k] = SubscriberView{
			SubscriberLimits: *s.Set, Site: s.Site, Most: s.Most, Workers: int(s.Running), Stuck: int(s.Stuck), Stopping: s.Stopping,
		}
	}
	return views
}
