package store

import (
	"math"

	"github.com/gofanout/fanout/internal/message"
)

// Counters returns what is counted on demand, to be changed.
func (s *Store[T]) Counters() *Counters {
	if s.counters == nil {
		s.counters = new(Counters)
	}
	return s.counters
}

// Totals returns a copy of what is counted on demand.
func (s *Store[T]) Totals() (c Counters) {
	if s.counters != nil {
		c = *s.counters
	}
	return c
}

// Expiries counts the messages whose time to live has ended them.
func (s *Store[T]) Expiries() uint64 {
	if s.counters == nil {
		return 0
	}
	return s.counters.Ended[message.Expired]
}

// CountEnd counts an attempt that has ended.
func (s *Store[T]) CountEnd(cause message.Cause) {
	if cause == message.Acked {
		s.Acked++
	} else {
		s.Counters().Ended[cause]++
	}
}

// Tally counts what has begun and was acknowledged in leases since it was last
// called, and gives back its room.
func (s *Store[T]) Tally() {
	began, acked := s.Leases.Tally()
	s.Delivered += uint64(began)
	if acked > 0 {
		s.Acked += uint64(acked)
		s.Allow.Add(int64(acked))
	}
}

// Count counts what consumers in step have done, so that the numbers are those of this
// instant.
func (s *Store[T]) Count() {
	s.Leases.Count()
	s.Tally()
}

// Held counts what it holds beside what stands in the log.
func (s *Store[T]) Held() int { return s.Win.Len() + s.Leases.Held() }

// In counts the entries of a state.
func (s *Store[T]) In(state uint8) int { return int(s.n[state]) }

// CountIn counts entry i in its state. Whoever adds an entry in flight to the window says so.
func (s *Store[T]) CountIn(i int32) { s.n[s.Win.Meta(i).State]++ }

// CountOut says that entry i leaves its state: it gets another, or goes.
func (s *Store[T]) CountOut(i int32) { s.n[s.Win.Meta(i).State]-- }

// Due counts what is due.
func (s *Store[T]) Due() int { return s.In(Due) + s.Leases.TimedOut() }

// Ready counts what could be claimed now.
func (s *Store[T]) Ready() int {
	return s.Due() + s.In(Backlogged) + s.InLog() + s.Leases.Waiting()
}

// InLog counts the backlog that is still in the log. The cursor stands
// past what is published only while a publisher drops what it is publishing.
func (s *Store[T]) InLog() int {
	if s.Direct || s.Closed {
		return 0
	}
	return int(max(s.Log.Published()-s.Cursor.Pos(), 0))
}

// backlogWaits reports whether any of the backlog could start. While
// something is due, nothing of it waits in a lease.
func (s *Store[T]) backlogWaits() bool { return s.n[Backlogged] > 0 || s.InLog() > 0 }

// Room is how many more messages a publisher may add. The log's writer is kept from
// writing, so that it can only grow meanwhile. It is negative if too much has been appended.
func (s *Store[T]) Room() int64 {
	if s.Direct {
		return s.Allow.Load()
	}
	return s.Allow.Load() - s.Log.Head()
}

// Published counts what was published to the queue, given what of it is
// in the log still: publishers don't hold the lock, so that is read once.
func (s *Store[T]) Published(inLog int) uint64 {
	if s.Direct || s.Closed {
		return s.Offered
	}
	return s.Offered + uint64(s.Cursor.Pos()) + uint64(inLog)
}

// Oldest is when the oldest of the ready messages was published. Those in
// the log stand in the order of publication, and those of a lease; the backlog does
// in all but a dead-letter queue.
func (s *Store[T]) Oldest() int64 {
	at := int64(math.MaxInt64)
	if s.InLog() > 0 {
		at = s.Cursor.Peek().At
	}
	for i, ok := s.backlog.First(); ok; i, ok = s.Win.Next(i) {
		if at = min(at, s.Win.At(i).At); !s.Letters {
			break
		}
	}
	for i, ok := s.due.First(); ok; i, ok = s.Win.Next(i) {
		at = min(at, s.Win.At(i).At)
	}
	if oldest, ok := s.Leases.Oldest(); ok {
		at = min(at, oldest)
	}
	return at
}
