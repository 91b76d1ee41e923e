package store

import (
	"github.com/gofanout/fanout/internal/keyline"
	"github.com/gofanout/fanout/internal/lease"
	"github.com/gofanout/fanout/internal/message"
)

// What is in flight is in leases, see package lease. A delivery's ref names it there.
//
// Messages that time out together stay in their lease, ready to be taken again; they
// stand among what is due by when they timed out, as their stamps say. Whoever wants
// to see them one by one has them made entries of the window (Unfold).
//
// Dead letters, and what an engine keeps, are in entries of the window all the time: who
// redrives them or looks at them finds them there again.

// OpenLeases returns the leases, to take messages into them.
func (s *Store[T]) OpenLeases() *lease.Table[T] {
	if s.Leases == nil {
		s.Leases = lease.New[T](&s.Win, s.pool, &message.Origin{Clock: s.clock, Queue: s.QueueName, Letter: s.Letters})
	}
	return s.Leases
}

// TakeTimedOut puts messages in flight again that timed out together, at most so many, if they
// are next.
func (s *Store[T]) TakeTimedOut(most int, vis, now int64) (r lease.Run[T], ok bool) {
	if s.backlogWaits() || !s.timedOutFirst() { // else they take turns, and stamps are in that order
		return r, false
	}
	if r, ok = s.Leases.TakeTimedOut(most, vis, now); ok {
		s.BacklogsTurn = true
	}
	return r, ok
}

// PlainRun returns the messages of the log that are next and can be taken in one step, at
// most so many. Who takes them, takes them by Take, or as Joins says.
func (s *Store[T]) PlainRun(most int, now int64) []message.Item[T] {
	n := min(s.InLog(), most)
	if n == 0 || s.n[Backlogged] > 0 {
		return nil
	}
	if s.Due() > 0 {
		if !s.BacklogsTurn {
			return nil
		}
		n = 1 // they take turns
	}
	run := s.Cursor.Run(n)
	if (s.Set.TTL > 0 || run[0].Ext != nil) && s.Expired(&run[0], now) {
		return nil // the others were published later
	}
	return run[:message.PlainRun(run)]
}

// Took says that so many messages of the log were taken into a lease.
func (s *Store[T]) Took(n int) {
	s.Cursor.Step(n)
	s.BacklogsTurn = false
}

// Joins counts the messages of a run of the log before the first that has to be taken by
// itself: it has an ordering key, or its time to live may have passed at the given instant.
func (s *Store[T]) Joins(run []message.Item[T], at int64) (n int) {
	for n < len(run) {
		k := message.PlainRun(run[n:])
		switch {
		case k == 0 && s.joinsAlone(&run[n], at):
			n++
		case k == 0, s.Set.TTL > 0 && s.Expired(&run[n], at): // the others of those were published later
			return n
		}
		n += k
	}
	return n
}

// joinsAlone is Joins for one message.
func (s *Store[T]) joinsAlone(it *message.Item[T], at int64) bool {
	return (it.Ext == nil || it.Ext.Key == "" && it.Ext.Born == 0) && !s.Expired(it, at)
}

// AllJoin reports whether the next n messages of the log can be taken together now.
func (s *Store[T]) AllJoin(n int, now int64) bool {
	run := s.Cursor.Run(n)
	if s.Joins(run, now) < len(run) {
		return false
	}
	if n -= len(run); n == 0 {
		return true
	}
	join, skip := true, len(run)
	s.Cursor.Scan(func(it *message.Item[T]) bool {
		if skip > 0 {
			skip--
			return true
		}
		join = s.joinsAlone(it, now)
		n--
		return join && n > 0
	})
	return join
}

// Next takes the next message that may be delivered out of its list or the log, as an entry
// whose state has been left. What has become due and the backlog take turns while both wait.
// If its time to live has passed, the caller has it expire, and asks again.
func (s *Store[T]) Next(now int64) (i int32, expired, ok bool) {
	for {
		wasDue := s.Due() > 0 && (!s.BacklogsTurn || !s.backlogWaits())
		listed := true
		switch {
		case wasDue:
			i = s.popDueFirst()
		case s.n[Backlogged] > 0:
			i, _ = s.Win.Pop(&s.backlog)
		case s.InLog() > 0:
			i, listed = s.Win.Add(Held[T]{Item: *s.Cursor.Next()}), false
		case s.TakeAllBack():
			continue
		default:
			return 0, false, false
		}
		if listed {
			s.CountOut(i)
			s.Win.Restamp(i)
		}
		if s.Expired(&s.Win.At(i).Item, now) {
			return i, true, true
		}
		if s.headOfKey(i) {
			s.BacklogsTurn = wasDue
			return i, false, true
		}
	}
}

// Fly puts entry i, which Next has taken, in flight in a lease that has room.
func (s *Store[T]) Fly(l *lease.Lease[T], i int32, now int64) {
	h, m := s.Win.At(i), s.Win.Meta(i)
	s.Leases.AddPast(l, h.Item, message.Past{Hist: h.Hist, Spent: m.Spent, Passes: m.Passes}, now)
	if k := s.Keys.Of(keyOf(&h.Item)); k != nil && k.Head == i {
		k.Head = keyline.InFlight
	}
	s.Win.Remove(i)
}

// Claim puts entry i, whose state has been left, in flight where it is, in the given state.
// It times out at the given instant.
func (s *Store[T]) Claim(i int32, state uint8, now, until int64) {
	s.Win.Meta(i).State = state
	s.n[state]++
	s.Delivered++
	s.Win.At(i).Start = now
	s.Win.Schedule(i, until)
}

// land makes a message that was in flight an entry of the window, which is in no
// list yet.
func (s *Store[T]) land(out *lease.Out[T], hist *message.History, spent uint32, passes uint16) int32 {
	i := s.Win.Add(Held[T]{Item: out.Item, Hist: hist})
	m := s.Win.Meta(i)
	m.Spent, m.Passes = spent, passes
	if k := s.Keys.Of(keyOf(&out.Item)); k != nil && k.Head == keyline.InFlight {
		k.Head = i
	}
	return i
}

// popDueFirst takes the first message that is due.
func (s *Store[T]) popDueFirst() int32 {
	if s.timedOutFirst() {
		return s.popTimedOut()
	}
	i, _ := s.Win.Pop(&s.due)
	return i
}

// timedOutFirst reports whether what is due first timed out together with others,
// and is in its lease still.
func (s *Store[T]) timedOutFirst() bool {
	rank, ok := s.Leases.FirstTimedOut()
	if !ok {
		return false
	}
	i, found := s.due.First()
	return !found || rank < s.Win.Meta(i).Stamp
}

// popTimedOut makes the first message that timed out together with others an
// entry that is due and in no list yet.
func (s *Store[T]) popTimedOut() int32 {
	out, _ := s.Leases.PopTimedOut()
	i := s.land(&out, out.Past.Hist, out.Past.Spent, out.Past.Passes)
	m := s.Win.Meta(i)
	m.Stamp, m.State = out.Stamp, Due
	s.n[Due]++
	return i
}

// UnfoldAll makes all that timed out together entries of the window.
func (s *Store[T]) UnfoldAll() { s.Unfold(s.Leases.TimedOut()) }

// Unfold is UnfoldAll for the first n of them.
func (s *Store[T]) Unfold(n int) {
	before, found := s.due.Last()
	for ; n > 0; n-- {
		rank, ok := s.Leases.FirstTimedOut()
		if !ok {
			return
		}
		for found && s.Win.Meta(before).Stamp > rank {
			before, found = s.Win.Prev(before)
		}
		next, more := s.due.First()
		if found {
			next, more = s.Win.Next(before)
		}
		for more && s.Win.Meta(next).Stamp < rank {
			before, found = next, true
			next, more = s.Win.Next(next)
		}
		i := s.popTimedOut()
		s.Win.PushAfter(&s.due, i, before, found)
		before, found = i, true
	}
}
