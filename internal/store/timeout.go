package store

import (
	"time"

	"github.com/gofanout/fanout/internal/due"
	"github.com/gofanout/fanout/internal/lease"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/settings"
)

// NextDue returns the first instant at which something times out, or is due.
func (s *Store[T]) NextDue() (at int64, ok bool) {
	at, ok = s.Win.NextDue()
	if due, _, found := s.Leases.NextDue(); found && (!ok || due < at) {
		at, ok = due, true
	}
	return at, ok
}

// TimeOutLease times out what of the leases is due, and comes before what is due in
// the window: by their instants, and those of one instant in the order in which they
// were delivered. One message that has left its lease is to be landed. Several stay there,
// due; not if somebody wants to hear of each. ok is false if nothing is due.
func (s *Store[T]) TimeOutLease(now int64, each bool) (e lease.TimedOut[T], ok bool) {
	until := due.Never
	if at, stamp, found := s.Win.FirstDue(); found {
		until = due.Instant{At: at, Stamp: stamp}
	}
	if e, ok = s.Leases.TimeOut(now, until, s.together(each)); !ok {
		return e, false
	}
	s.Tally()
	for first, n := range e.Runs() {
		s.Stale.AddRun(first, n)
	}
	if e.Several {
		s.Counters().Ended[message.TimedOut] += uint64(e.Len())
	}
	return e, true
}

// together is how many attempts messages must not reach to time out together: 0
// if somebody wants to hear of each, or has to find each by itself.
func (s *Store[T]) together(each bool) int {
	if each || s.Set.TTL > 0 || s.Set.Overflow == settings.DropOldest {
		return 0
	}
	return s.Set.MaxAttempts
}

// PopDue takes the first entry whose time has come. If it has timed out, its delivery is to
// be ended, or scheduled again; else it has become due. TimeOutLease comes before.
func (s *Store[T]) PopDue(now int64) (i int32, timedOut, ok bool) {
	i, ok = s.Win.PopDue(now)
	if !ok {
		return 0, false, false
	}
	state := s.Win.Meta(i).State
	if state == InFlight || state == InHandler {
		return i, true, true
	}
	s.n[state]--
	s.becomeDue(i)
	return i, false, true
}

// TakeBack puts what waits in a lease back into the backlog, and has its consumer let go of
// what is done of it.
func (s *Store[T]) TakeBack(l *lease.Lease[T]) {
	s.Leases.TakeBack(l, func(out lease.Out[T]) {
		s.putBack(s.land(&out, out.Past.Hist, out.Past.Spent, out.Past.Passes))
	})
	s.Tally()
	if w, ok := l.Owner().(forgetter); ok {
		w.ForgetDoneLocked()
	}
}

// A forgetter is a consumer that keeps the messages of its lease until it has room for others.
// It is called as other consumers are, with the lock held.
type forgetter interface {
	// ForgetDoneLocked lets go of the messages that are done.
	ForgetDoneLocked()
}

// TakeAllBack takes back what waits in all leases, and reports whether that was
// anything.
func (s *Store[T]) TakeAllBack() bool {
	if !s.Leases.Steps() {
		return false
	}
	n := s.n[Backlogged]
	for l := s.Leases.FirstAhead(); l != nil; l = s.Leases.FirstAhead() {
		s.TakeBack(l)
	}
	return s.n[Backlogged] > n
}

// Rest lets go of what the cursor has passed, and looks at the leases that consumers go
// through. It detaches the current messages of those that have reached an age, and takes back
// what waits there. It gives back memory that is not used, unless something was delivered since
// the last look: if it may be needed in a moment, Rest asks to look again when spare has passed.
// It returns when to look again; 0: nothing has to be looked at.
func (s *Store[T]) Rest(now, age, spare int64) (again int64) {
	s.Keys.Rest()
	s.Cursor.Rest()
	for _, l := range s.Leases.Leases() {
		if !s.Leases.Steps() {
			break
		}
		p := l.Word.Place()
		if p == 0 || p.Waiting() == 0 && (p.Acked() || p.Detached()) {
			continue
		}
		if at := l.CheckAt(age); at > now {
			if again == 0 || at < again {
				again = at
			}
			continue
		}
		s.Leases.Detach(l, now)
		s.TakeBack(l)
	}
	s.Tally()
	if s.Leases.Rest(s.Delivered) { // nobody has a lease
		return message.After(now, time.Duration(spare))
	}
	if s.Leases.Held() == 0 && len(s.Leases.Leases()) == 0 {
		s.Leases = nil
	}
	return again
}
