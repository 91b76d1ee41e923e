// Package view has what is seen of a queue by those who look after it: its numbers, its settings and
// subscribers, and its messages, in pages and in types that are not generic.
//
// It promises that nothing is taken by looking; that a page has the messages behind its cursor in the
// order of publication, each once; and that no more than LookLen of them are looked at under one lock.
//
// It owns nothing and has no lock or goroutine: it takes the queue's lock for each look, and calls the
// methods of bodies without it. Of a queue on an engine it asks the keeper, as Elsewhere.
package view

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/onengine"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/store"
)

// A Depth is what a queue holds. Package fanout explains the numbers.
type Depth struct {
	Queue                          string
	Ready, Delayed, InFlight, Dead int
	OldestAge                      time.Duration
}

// DepthOf returns what the queue holds. On an engine it asks the engine.
func DepthOf[T any](ctx context.Context, q *queue.Queue[T]) (Depth, error) {
	e, ok := elsewhere(q)
	if !ok {
		return DepthHere(q), nil
	}
	d, err := e.Depth(ctx)
	if err != nil {
		return Depth{}, fmt.Errorf("fanout: depth of %q: %w", q.Name(), onengine.Error(err))
	}
	return d, nil
}

// DepthHere is Depth in memory.
func DepthHere[T any](q *queue.Queue[T]) Depth {
	s := StatsOf(q)
	return Depth{
		Queue: q.Name(), Ready: s.Ready + s.Blocked + s.Released, Delayed: s.Delayed + s.Retrying + s.Parked, InFlight: s.InFlight,
		Dead: s.Dead, OldestAge: s.OldestAge,
	}
}

// ReportStall tells that a publish has been waiting for room.
func ReportStall[T any](q *queue.Queue[T], waited time.Duration) {
	s := StatsOf(q)
	q.Mu.Lock()
	q.NoteLocked(notice.Stalled, notice.Event{Elapsed: waited, Count: 1, Stats: &s, Logged: []slog.Attr{
		slog.Int("depth", s.Unsettled()), slog.Int("ready", s.Ready), slog.Int("in_flight", s.InFlight),
		slog.Int("workers", s.Workers), slog.Int("stuck", s.Stuck),
	}})
	q.Unlock()
}

// Stats is a snapshot of a queue. Package fanout explains the numbers.
type Stats struct {
	Topic, Queue string
	Capacity     int

	Ready, Delayed, Retrying, InFlight, Parked, Released, Blocked int

	Paused         bool
	OldestAge      time.Duration
	Dead           int
	Workers, Stuck int

	Published                                                     int
	Delivered, DeadLettered, Redriven, Dropped, Left, TimesParked uint64

	WorkersStarted uint64

	Acked, Failed, Panicked, Exited, TimedOut, Nacked  uint64
	PermanentlyFailed, Expired, Snoozed, ReleasedCount uint64
}

// Unsettled is the number of messages that count against the capacity; on an engine it is
// [Unknown].
func (s Stats) Unsettled() int {
	if s.Ready == engine.Unknown {
		return engine.Unknown
	}
	return s.Ready + s.Delayed + s.Retrying + s.InFlight + s.Parked + s.Released + s.Blocked
}

// StatsOf returns a snapshot of the queue's counters.
func StatsOf[T any](q *queue.Queue[T]) Stats {
	now := q.Core.Now()
	q.Mu.Lock()
	inLog := q.Store.InLog()
	leased := q.Store.Leases.Counts()
	q.Store.Tally()
	c := q.Store.Totals()
	s := Stats{
		Topic: q.Core.TopicName, Queue: q.Name(), Capacity: q.Store.Set.Capacity,
		Ready: q.Store.In(store.Due) + q.Store.In(store.Backlogged) + inLog + leased.Waiting + leased.TimedOut, Delayed: q.Store.In(store.Delayed), Retrying: q.Store.In(store.Retrying),
		InFlight: q.Store.In(store.InFlight) + q.Store.In(store.InHandler) + leased.InFlight, Parked: q.Store.In(store.Parked), Released: q.Store.In(store.Released),
		Blocked: q.Store.In(store.Blocked), Paused: q.Paused,
		Workers: int(q.Group.Running), WorkersStarted: q.Started,
		Published:    int(q.Store.Published(inLog)),
		Delivered:    q.Store.Delivered,
		DeadLettered: c.DeadLettered, Redriven: c.Redriven,
		Dropped: c.Dropped, Left: uint64(len(q.LeftLocked())), TimesParked: c.Parked,
	}
	if s.Ready > 0 {
		s.OldestAge = time.Duration(max(now-q.Store.Oldest(), 0))
	}
	e := c.Ended
	s.Acked, s.Failed, s.Panicked, s.Exited, s.TimedOut = q.Store.Acked, e[message.Failed], e[message.Panicked], e[message.Exited], e[message.TimedOut]
	s.Nacked, s.PermanentlyFailed, s.Expired, s.Snoozed = e[message.Nacked], e[message.PermanentlyFailed], e[message.Expired], e[message.Snoozed]
	s.ReleasedCount = e[message.Released]
	for _, sub := range q.Group.Subs {
		s.Stuck += int(sub.Stuck)
	}
	d := q.Dead
	if d != nil {
		d.Mu.Lock()
		s.Dead = d.Store.Held()
		d.Mu.Unlock()
	}
	q.Unlock() // what handlers and ranges have acknowledged was tallied
	if e, ok := elsewhere(q); ok {
		e.Hide(&s)
	}
	return s
}
