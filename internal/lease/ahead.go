package lease

import (
	"math/bits"

	"github.com/gofanout/fanout/internal/slots"
)

// Nothing here is linear in how many consumers there are: a consumer in whose lease nothing
// waits can't go on without the lock, so that all it has done is counted. Only those that
// are ahead are looked at.

// FirstAhead returns a lease in which messages wait for its consumer, nil if there is none.
func (t *Table[T]) FirstAhead() *Lease[T] {
	if t == nil {
		return nil
	}
	for t.ahead > 0 {
		if t.lookAhead(t.ahead-1) > 0 {
			return t.steps[t.ahead-1]
		}
	}
	return nil
}

// Count counts what the consumers in step have done, so that Counts and Tally
// are of this instant.
func (t *Table[T]) Count() {
	if t == nil {
		return
	}
	for k := t.ahead - 1; k >= 0; k-- {
		t.lookAhead(k)
	}
}

// lookAhead counts what is done of one of those that are ahead, and returns how many
// messages wait in it. If none does, the lease is not ahead any more.
func (t *Table[T]) lookAhead(k int) int {
	l := t.steps[k]
	n := t.count(l).Waiting()
	if n == 0 {
		l.clearDone(t.slot(l), l.Word.Place())
		t.ahead--
		t.exchange(l, t.ahead)
	}
	return n
}

// goAhead enters a lease among those that are ahead.
func (t *Table[T]) goAhead(l *Lease[T]) {
	if int(l.step) > t.ahead {
		t.exchange(l, t.ahead)
		t.ahead++
	}
}

// exchange has a lease and that at place k of steps change places.
func (t *Table[T]) exchange(l *Lease[T], k int) {
	other := t.steps[k]
	t.steps[k], t.steps[l.step-1] = l, other
	l.step, other.step = other.step, l.step
}

// Counts are how many messages of a table are in which state.
type Counts struct {
	Waiting  int // for a consumer in step to begin them
	InFlight int
	TimedOut int // timed out in their blocks, to be taken again
}

// Counts counts. It looks once at each consumer that something waits for.
func (t *Table[T]) Counts() (c Counts) {
	if t == nil {
		return c
	}
	for k := t.ahead - 1; k >= 0; k-- {
		c.Waiting += t.lookAhead(k)
	}
	c.InFlight, c.TimedOut = t.open+t.inStep-c.Waiting, t.timedOut
	return c
}

// Waiting is how many messages wait for consumers in step to begin them.
func (t *Table[T]) Waiting() (n int) {
	if t == nil {
		return 0
	}
	for k := t.ahead - 1; k >= 0; k-- {
		n += t.lookAhead(k)
	}
	return n
}

// Oldest is when the first was published of the messages that wait, or are to be
// taken again. It looks at all that timed out. ok is false if there are none.
func (t *Table[T]) Oldest() (at int64, ok bool) {
	if t == nil {
		return 0, false
	}
	see := func(l *Lease[T], s *slots.Slot[*Lease[T]], k int) {
		var published int64
		if l.block.Items == nil {
			published = l.owner.At(l, k)
		} else {
			published = l.block.Items[l.block.Place(k)].At
		}
		if !ok || published < at {
			at, ok = published, true
		}
	}
	for _, l := range t.steps[:t.ahead] {
		if p := l.Word.Place(); p.Waiting() > 0 {
			s := t.slot(l)
			see(l, s, int(p.Stamp()-s.Base)+1)
		}
	}
	if t.timedOut == 0 {
		return at, ok
	}
	for _, s := range t.slots.All {
		for b := s.TimedOut; b != 0; b &= b - 1 {
			see(s.Lease, s, bits.TrailingZeros64(b))
		}
	}
	return at, ok
}
