package block

import (
	"math/bits"

	"github.com/gofanout/fanout/internal/message"
)

// together is how often messages may time out together. With the next time-out
// each gets a history of its own.
const together = 8

// Pasts is what the messages of a block have been through, by their places. The zero Pasts:
// nothing.
type Pasts struct {
	own    []message.Past   // nil: no message had any when it was put there
	shared *message.History // what all went through together, on top of that
	spent  uint32           // how many attempts that were
}

// Put says what a message had been through when it was put into one of so many places.
func (ps *Pasts) Put(p, places int, past message.Past) {
	if ps.own == nil {
		if past == (message.Past{}) {
			return
		}
		ps.own = make([]message.Past, places)
	}
	ps.own[p] = past
}

// Fit reports whether there are as many as there are places, or none.
func (ps *Pasts) Fit(places int) bool { return ps.own == nil || len(ps.own) == places }

// Spent is how many attempts the message at place p has spent.
func (ps *Pasts) Spent(p int) uint32 {
	if ps.own == nil {
		return ps.spent
	}
	return ps.spent + ps.own[p].Spent
}

// History is that of the message at place p; it may be shared.
func (ps *Pasts) History(p int) *message.History {
	if ps.shared != nil || ps.own == nil {
		return ps.shared
	}
	return ps.own[p].Hist
}

// Of is what the message at place p, with that number, has been through, as its own.
func (ps *Pasts) Of(p int, seq uint64) (past message.Past) {
	if ps.own != nil {
		past = ps.own[p]
	}
	past.Spent = ps.Spent(p)
	past.Hist = ps.History(p).Of(seq)
	return past
}

// Alike returns the end of those that stand together from place p on, up to end, and have the
// same history and spent as many attempts.
func (ps *Pasts) Alike(p, end int) int {
	if ps.own == nil {
		return end
	}
	n := p + 1
	for n < end && ps.History(n) == ps.History(p) && ps.own[n].Spent == ps.own[p].Spent {
		n++
	}
	return n
}

// MayTimeOut reports whether messages of some bits, none of which was extended, may time out
// together: with this attempt each has spent fewer than most, and their histories are short.
func MayTimeOut[T any](b *Block[T], ps *Pasts, open uint64, most int) bool {
	if ps.spent >= together {
		return false
	}
	spent := ps.spent
	if ps.own != nil {
		for ; open != 0; open &= open - 1 {
			p := b.Place(bits.TrailingZeros64(open))
			if len(ps.own[p].Hist.Kept()) > 2*together { // it would be copied
				return false
			}
			spent = max(spent, ps.Spent(p))
		}
	}
	return uint64(spent)+1 < uint64(most)
}

// TimeOut says that the messages of some bits timed out together at an instant. They are all
// that is left of the block, and have one history from now on.
func TimeOut[T any](b *Block[T], ps *Pasts, late uint64, at int64, o *message.Origin) {
	first := b.Start(bits.TrailingZeros64(late))
	g := message.Group{At: at, Start: first, Before: ps.shared}
	own := ps.own != nil && ps.shared == nil
	if own || first != b.Start(63-bits.LeadingZeros64(late)) {
		n := bits.OnesCount64(late)
		g.Starts, g.Seqs = make([]int64, 0, n), make([]uint64, 0, n)
		for ; late != 0; late &= late - 1 {
			p := b.Place(bits.TrailingZeros64(late))
			g.Starts = append(g.Starts, b.StartAt(p))
			g.Seqs = append(g.Seqs, b.Items[p].Seq)
			if own {
				g.Befores = append(g.Befores, ps.own[p].Hist)
			}
		}
	}
	ps.shared = message.Together(o, g)
	ps.spent++
}
