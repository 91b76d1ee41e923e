package store

import (
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/settings"
	"github.com/gofanout/fanout/internal/window"
)

// Enter adds a message behind all others or, with the stamp that was reserved for one that
// is replayed, at the place of its publication. It takes one of the room.
func (s *Store[T]) Enter(it *message.Item[T], stamp uint64, now int64) {
	i := s.Win.Add(Held[T]{Item: *it})
	if stamp != 0 {
		s.Win.Meta(i).Stamp = stamp
	}
	s.Allow.Add(-1)
	delay := s.Set.Delay
	if it.Ext != nil && it.Ext.Delay > 0 {
		delay = it.Ext.Delay
	}
	switch {
	case delay > 0:
		s.Put(i, Delayed)
		s.Win.Schedule(i, message.After(min(it.At, now), delay)) // publication times do not decrease, the clock of another bubble may
	case stamp != 0:
		s.putBack(i)
	default:
		s.Put(i, Backlogged)
	}
}

// Admit adds a message that comes from another queue, as Backlogged or Due. It takes one of
// the room.
func (s *Store[T]) Admit(h Held[T], state uint8) {
	s.Allow.Add(-1)
	s.Put(s.Win.Add(h), state)
}

// Append adds a message to the backlog in the window. It had its room in the log.
func (s *Store[T]) Append(it *message.Item[T]) {
	s.Put(s.Win.Add(Held[T]{Item: *it}), Backlogged)
}

// Spill takes the backlog out of the log into the window, so that what is
// added to the window comes behind it, or so that the cursor can pass what the
// queue does not get.
func (s *Store[T]) Spill() {
	for n := s.InLog(); n > 0; n-- {
		s.Append(s.Cursor.Next())
	}
}

// Put gives entry i, which is in no list, a state that is not in flight.
// The caller schedules it if the state is one that waits.
func (s *Store[T]) Put(i int32, state uint8) {
	m := s.Win.Meta(i)
	m.State = state
	s.n[state]++
	if l := s.list(state); l != nil {
		s.Win.Push(l, i)
	}
	if state == Due {
		s.TakeAllBack() // it takes turns with what waits in a lease
	}
	if state != Parked {
		s.noteExpiry(i)
	}
	// A backlog is in the order of publication, but letters come as they die.
	if state != Parked && (state != Backlogged || s.Letters) {
		s.rank(i)
	}
}

// becomeDue makes entry i due, whose state has been left. What waits in leases
// since it timed out is before it.
func (s *Store[T]) becomeDue(i int32) {
	if s.Leases.TimedOut() > 0 {
		s.Win.Restamp(i)
	}
	s.Put(i, Due)
}

// putBack puts entry i into the backlog at the place of its publication.
func (s *Store[T]) putBack(i int32) {
	s.Win.Meta(i).State = Backlogged
	s.CountIn(i)
	s.Win.PushInOrder(&s.backlog, s.Win.Order(), i, func(i int32) uint64 { return s.Win.At(i).Seq })
	s.noteExpiry(i)
}

// rank makes entry i known to a queue that drops its oldest.
func (s *Store[T]) rank(i int32) {
	if s.Set.Overflow == settings.DropOldest {
		s.Win.Rank(i, int64(s.Win.At(i).Seq))
	}
}

// list returns the list that holds the entries of a state, or nil if they are in none.
func (s *Store[T]) list(state uint8) *window.List {
	switch state {
	case Backlogged:
		return &s.backlog
	case Due:
		return &s.due
	case Parked:
		return &s.parked
	}
	return nil
}

// TakeOut takes entry i, whose delivery does not go on, out of its list or the schedule, and
// of its state.
func (s *Store[T]) TakeOut(i int32) {
	state := s.Win.Meta(i).State
	if state == Blocked {
		s.Win.Pull(&s.Keys.Of(keyOf(&s.Win.At(i).Item)).Waiting, i)
	} else if l := s.list(state); l != nil {
		s.Win.Pull(l, i)
	} else {
		s.Win.Unschedule(i)
	}
	s.n[state]--
}

// PopReady takes a message that is ready out of its list, first those that are due. The
// others of its state still count it.
func (s *Store[T]) PopReady() (i int32, ok bool) {
	if i, ok = s.Win.Pop(&s.due); !ok {
		if i, ok = s.Win.Pop(&s.backlog); !ok {
			return 0, false
		}
	}
	s.Win.Restamp(i)
	return i, true
}

// Remove removes entry i, whose state has been left, and with it the message from the queue.
// It makes room.
func (s *Store[T]) Remove(i int32) {
	s.Forget(i)
	s.Allow.Add(1)
}

// Discard removes entry i, whose delivery does not go on, from wherever it is.
func (s *Store[T]) Discard(i int32) {
	s.TakeOut(i)
	s.Remove(i)
}

// Forget is Remove of a message that took no room: an engine keeps it.
func (s *Store[T]) Forget(i int32) {
	s.leaveKey(&s.Win.At(i).Item, i)
	s.Win.Remove(i)
}

// Park puts entry i, whose state has been left, aside: it is dead, and there is no room for
// it elsewhere.
func (s *Store[T]) Park(i int32) {
	s.leaveKey(&s.Win.At(i).Item, i)
	s.Put(i, Parked)
}

// FirstParked returns what was parked first of what is.
func (s *Store[T]) FirstParked() (i int32, ok bool) { return s.parked.First() }

// InFlight reports whether an entry is in flight. Nothing is once the store is closed.
func (s *Store[T]) InFlight(i int32) bool {
	state := s.Win.Meta(i).State
	return (state == InFlight || state == InHandler) && !s.Closed
}
