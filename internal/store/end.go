package store

import (
	"fmt"
	"time"

	"github.com/gofanout/fanout/internal/keyline"
	"github.com/gofanout/fanout/internal/lease"
	"github.com/gofanout/fanout/internal/message"
)

// Owned returns nil if stamp still owns entry i in flight, and otherwise
// the error that says why not.
func (s *Store[T]) Owned(i int32, stamp uint64) error {
	var err error
	switch {
	case s.Closed:
		err = message.ErrClosed
	case i >= 0 && s.Win.Owns(i, stamp) && s.InFlight(i):
		return nil
	case stamp == 0 || s.Stale.Has(stamp):
		err = message.ErrStale
	default:
		err = message.ErrSettled
	}
	return fmt.Errorf("%w: queue %q", err, s.QueueName)
}

// A Fate is what becomes of a message whose delivery has ended.
type Fate uint8

const (
	Retries Fate = iota // see Retry
	Dies                // its attempts are spent, or it was given back too often
	Expires             // its time to live has passed
	Gone                // acknowledged
)

// An Ended is a delivery that has ended.
type Ended[T any] struct {
	Item    message.Item[T]
	Attempt int // its number
	Elapsed time.Duration
	Then    Fate
	Entry   int32 // of the message, whose state has been left; 0 if it is gone
}

// Settle ends a delivery in flight as v says.
func (s *Store[T]) Settle(ref message.Ref, v message.Verdict, now int64) (e Ended[T], err error) {
	if out, ok := s.Leases.Extract(ref, now); ok {
		s.Tally()
		return s.Land(&out, v, now), nil
	}
	if err := s.Owned(ref.Block, ref.Stamp); err != nil {
		return e, err
	}
	s.Win.Unschedule(ref.Block)
	return s.End(ref.Block, v, now), nil
}

// Land ends, as v says, the delivery of a message that has left its lease.
func (s *Store[T]) Land(out *lease.Out[T], v message.Verdict, now int64) Ended[T] {
	e := Ended[T]{Item: out.Item, Attempt: int(out.Past.Spent) + 1, Elapsed: time.Duration(now - out.Start)}
	s.CountEnd(v.Cause)
	if v.Cause == message.Acked {
		s.leaveKey(&out.Item, keyline.InFlight)
		s.Allow.Add(1)
		e.Then = Gone
		return e
	}
	hist := out.Past.Hist.With(s.Attempt(v, out.Start, now))
	then, spent, passes := s.Judge(v, out.Past.Spent, out.Past.Passes, s.Expired(&out.Item, now))
	e.Then, e.Entry = then, s.land(out, hist, spent, passes)
	return e
}

// End ends, as v says, the delivery of entry i, which is in flight and no longer scheduled.
func (s *Store[T]) End(i int32, v message.Verdict, now int64) Ended[T] {
	m, h := s.Win.Meta(i), s.Win.At(i)
	e := Ended[T]{Item: h.Item, Attempt: int(m.Spent) + 1, Elapsed: time.Duration(now - h.Start)}
	s.CountEnd(v.Cause)
	s.n[m.State]--
	if v.Cause == message.Acked {
		s.Remove(i)
		e.Then = Gone
		return e
	}
	h.Hist = h.Hist.With(s.Attempt(v, h.Start, now))
	s.Win.Restamp(i)
	e.Entry = i
	e.Then, m.Spent, m.Passes = s.Judge(v, m.Spent, m.Passes, s.Expired(&h.Item, now))
	return e
}

// Judge says what becomes of a message whose delivery ends as v says, which is no
// acknowledgement, and how many attempts it has spent then, and how often it was given back.
// spent and passes are those before; expired says whether its time to live has passed. It is
// the same in memory and on an engine.
func (s *Store[T]) Judge(v message.Verdict, spent uint32, passes uint16, expired bool) (then Fate, _ uint32, _ uint16) {
	over := false
	if v.Cause.Spends() {
		spent++
		most := s.Set.MaxAttempts
		over = v.Cause == message.PermanentlyFailed || most != message.Unlimited && int64(spent) >= int64(most)
	} else if v.Wait > 0 {
		passes = min(passes+1, message.MostPasses)
		over = passes >= message.MostPasses
	}
	switch {
	case s.Letters: // a dead-letter queue retries for ever
	case over:
		then = Dies
	case expired:
		then = Expires
	}
	return then, spent, passes
}

// Attempt is what a history keeps of a delivery that began at start and ended now,
// as v says.
func (s *Store[T]) Attempt(v message.Verdict, start, now int64) message.Kept {
	return message.Kept{
		Attempt: message.Attempt{
			Cause: v.Cause, Queue: s.QueueName, Err: v.Err, Stack: v.Stack,
			Start: s.clock.Time(start), Elapsed: time.Duration(now - start),
		},
		Text: v.Text, Letter: s.Letters,
	}
}

// Retry puts entry i, whose state has been left and whose delivery has ended as v says,
// where it waits for its next delivery.
func (s *Store[T]) Retry(i int32, v message.Verdict, now int64) {
	switch {
	case v.Cause == message.Released && s.Draining:
		s.Put(i, Released)
	case v.Cause == message.Released && v.Wait <= 0 && !s.Letters:
		s.TakeAllBack() // it may go before what waits in a lease
		s.putBack(i)
	case v.Wait <= 0:
		s.Put(i, Due)
	default:
		state := Retrying
		if v.Cause == message.Snoozed {
			state = Delayed
		}
		s.Put(i, state)
		s.Win.Schedule(i, message.After(now, v.Wait))
	}
}

// Expire notes that the time to live of entry i, whose state has been left, has passed: it
// is dead.
func (s *Store[T]) Expire(i int32, now int64) {
	h := s.Win.At(i)
	s.Counters().Ended[message.Expired]++
	h.Hist = h.Hist.With(s.Attempt(message.Verdict{Cause: message.Expired}, now, now))
}

// Extend makes a delivery time out at the given instant, unless it does later.
func (s *Store[T]) Extend(ref message.Ref, until, now int64) error {
	if s.Leases.Extend(ref, until, now) {
		s.Tally()
		return nil
	}
	i := ref.Block
	if err := s.Owned(i, ref.Stamp); err != nil {
		return err
	}
	if until > s.Win.Meta(i).Deadline {
		s.Win.Unschedule(i)
		s.Win.Schedule(i, until)
	}
	return nil
}

// Deadline is when a delivery times out. ok is false if it does not own its message.
func (s *Store[T]) Deadline(ref message.Ref, now int64) (at int64, ok bool) {
	if at, ok = s.Leases.Deadline(ref, now); ok {
		s.Tally()
		return at, true
	}
	if s.Owned(ref.Block, ref.Stamp) != nil {
		return 0, false
	}
	return s.Win.Meta(ref.Block).Deadline, true
}

// Past is what the message of a delivery had been through when that began. ok is false if it
// does not own its message.
func (s *Store[T]) Past(ref message.Ref) (p message.Past, ok bool) {
	if p, ok = s.Leases.Past(ref); ok {
		return p, true
	}
	if s.Owned(ref.Block, ref.Stamp) != nil {
		return p, false
	}
	m := s.Win.Meta(ref.Block)
	return message.Past{Hist: s.Win.At(ref.Block).Hist, Spent: m.Spent, Passes: m.Passes}, true
}
