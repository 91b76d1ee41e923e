package lease

import (
	"fmt"
	"math/bits"

	"github.com/gofanout/fanout/internal/due"
	"github.com/gofanout/fanout/internal/instep"
	"github.com/gofanout/fanout/internal/slots"
)

// Check walks the invariants of a table and returns the first that does not hold.
// No consumer in step may go on meanwhile. Tests call it.
func (t *Table[T]) Check() error {
	if err := t.slots.Check(); err != nil {
		return err
	}
	var open, timedOut, inStep, owned, scheduled int
	for id, s := range t.slots.All {
		l := s.Lease
		if err := t.checkLease(l, s); err != nil {
			return fmt.Errorf("block %d: %w", id, err)
		}
		if l.due.ID != id {
			return fmt.Errorf("block %d has slot %d", l.due.ID, id)
		}
		open += bits.OnesCount64(s.Open)
		timedOut += bits.OnesCount64(s.TimedOut)
		if l.step != 0 {
			owned++
			if int(l.step) > len(t.steps) || t.steps[l.step-1] != l {
				return fmt.Errorf("block %d is not where it says among the consumers'", id)
			}
		}
		if p := l.Word.Place(); p.Waiting() > 0 && int(l.step) > t.ahead {
			return fmt.Errorf("in block %d %d wait, and it is not ahead", id, p.Waiting())
		}
		if l.Word.Place() != 0 {
			inStep += int(l.n) - int(l.counted)
		}
		if l.due.When.At != 0 {
			scheduled++
		}
	}
	switch {
	case open != t.open || timedOut != t.timedOut || inStep != t.inStep:
		return fmt.Errorf("%d open, %d timed out, %d in step; counted are %d, %d, %d", open, timedOut, inStep, t.open, t.timedOut, t.inStep)
	case owned != len(t.steps):
		return fmt.Errorf("%d leases have a consumer, %d are known", owned, len(t.steps))
	}
	if err := t.due.Check(scheduled); err != nil {
		return err
	}
	return t.checkRanking()
}

func (t *Table[T]) checkLease(l *Lease[T], s *slots.Slot[*Lease[T]]) error {
	live := s.Open | s.TimedOut
	p := l.Word.Place()
	switch left := bits.OnesCount64(live); {
	case s.Open&s.TimedOut != 0 || live&s.Dead != 0:
		return fmt.Errorf("open %x, timed out %x and dead %x are not apart", s.Open, s.TimedOut, s.Dead)
	case (live|s.Dead)&^mask(0, int(l.n)) != 0 || (live|s.Dead)&^l.block.Present != 0:
		return fmt.Errorf("bits %x beyond %d messages or present %x", live|s.Dead, l.n, l.block.Present)
	case l.more != nil && !l.more.pasts.Fit(len(l.block.Items)):
		return fmt.Errorf("not as many pasts as there are %d items", len(l.block.Items))
	case l.block.Present != ^uint64(0) && bits.OnesCount64(l.block.Present) != len(l.block.Items):
		return fmt.Errorf("%d places for present %x", len(l.block.Items), l.block.Present)
	case s.Open != 0 && l.due.When.At == 0:
		return fmt.Errorf("open %x, and not scheduled", s.Open)
	case p != 0 && l.step == 0:
		return fmt.Errorf("in step without a consumer")
	case l.step == 0 && l.block.Items == nil:
		return fmt.Errorf("its messages are with nobody")
	case l.step == 0 && left == 0 && (l != t.filling || l.Room() == 0):
		return fmt.Errorf("nothing is left of it")
	case l.step == 0 && l != t.filling && (cap(l.block.Items) > 4*left || left == 1 && cap(l.block.Items) > 1):
		return fmt.Errorf("%d places for %d messages", cap(l.block.Items), left)
	}
	start := int64(0)
	for b := s.Open; b != 0; b &= b - 1 {
		k := bits.TrailingZeros64(b)
		if at := l.block.Start(k); at < start {
			return fmt.Errorf("message %d began at %d, one before it at %d", k, at, start)
		} else {
			start = at
		}
		if at := (due.Instant{At: l.deadline(k), Stamp: s.Base + uint64(k)}); at.Before(l.due.When) {
			return fmt.Errorf("message %d is due at %v, the block at %v", k, at, l.due.When)
		}
	}
	return l.checkPlace(s, p)
}

// checkPlace checks the word of a lease in step against the bits.
func (l *Lease[T]) checkPlace(s *slots.Slot[*Lease[T]], p instep.Place) error {
	if p == 0 {
		return nil
	}
	k := int(p.Stamp() - s.Base)
	switch {
	case k < 0 || k+1+p.Waiting() != int(l.n):
		return fmt.Errorf("message %d is current and %d wait, of %d", k, p.Waiting(), l.n)
	case p.Waiting() > 0 && s.Open>>(k+1) != 0:
		return fmt.Errorf("of what waits behind %d some is open: %x", k, s.Open)
	case !p.Detached() && s.Open&bit(k) != 0:
		return fmt.Errorf("message %d is current and open, and not detached", k)
	}
	return nil
}

func (t *Table[T]) checkRanking() error {
	left, rank := t.timedOut, uint64(0)
	for _, b := range t.ranked.All() {
		if b.Rank <= rank {
			return fmt.Errorf("rank %d comes after %d", b.Rank, rank)
		}
		rank = b.Rank
		if s := t.slots.Find(b.ID); s != nil && s.TimedOut != 0 && s.Lease.more.rank == rank {
			left -= bits.OnesCount64(s.TimedOut)
		}
	}
	if left != 0 {
		return fmt.Errorf("%d of %d timed-out messages are in no ranked block", left, t.timedOut)
	}
	return nil
}
