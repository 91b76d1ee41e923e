package fanout

import (
	"math/bits"

	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
)

// When a million messages that were leased time out, they do it together: a
// lapse is what of a lease became ready in one step. Its first message is an
// entry of the window in the list of what is due, as if it had timed out alone,
// and leads the others, which stand behind it and stay in the memory of their
// lease. Taken again by a caller they go into a new lease, which shares with
// them what they have been through; taken in any other way they become entries,
// one after the other. Whoever wants to see them all has them made at once
// (unfoldLocked).
type lapse[T any] struct {
	lease  *lease[T]
	left   uint64 // bit k: message k of the lease follows
	at     int64  // when they timed out
	leader int32  // the entry before them; noLeader: it has been taken
	past   *past  // nil until one is leased again
	next   *lapse[T]
}

const noLeader = int32(-1)

// lapses are all lapses of a queue, in the order of their leaders in the list of
// what is due. No leader leaves that list out of its turn.
//
// Invariant: only the first may be without its leader; its messages are the next.
type lapses[T any] struct {
	first, last *lapse[T]
	n           int // messages that follow a leader
}

func (t *lapses[T]) count() int {
	if t == nil {
		return 0
	}
	return t.n
}

// taken returns the lapse whose messages are the next of the queue, or nil.
func (t *lapses[T]) taken() *lapse[T] {
	if t == nil || t.first.leader != noLeader {
		return nil
	}
	return t.first
}

// A past is what the messages of a lease have been through before: they timed
// out together. It is never changed.
type past struct {
	n      int      // attempts, those before included
	shared *history // what deliveries carry
}

// pastLen is how many attempts a past has at most: with the next time-out each
// message gets a history of its own.
const pastLen = 8

func (p *past) count() int {
	if p == nil {
		return 0
	}
	return p.n
}

// history is what one message has been through.
func (p *past) history(seq uint64) *history {
	if p == nil {
		return nil
	}
	return p.shared.Of(seq)
}

// lapsesLocked reports whether messages of a lease may time out together: if
// nobody wants to hear of each, and it kills none.
func (q *Queue[T]) lapsesLocked(l *lease[T]) bool {
	n := l.past.count() + 1
	return !q.hooked(notice.Settled) && n < q.set.maxAttempts && n <= pastLen && q.set.overflow != DropOldest
}

// lapseLocked times out messages of the first lease together, from its first in
// flight on.
func (q *Queue[T]) lapseLocked(late uint64, now int64) {
	s, k := q.firstLeasedLocked()
	l, base := s.lease, s.base
	leader := q.unleaseLocked(s, k)
	q.timeOutLocked(leader, now, nil)
	late &^= 1 << k
	if late == 0 {
		return
	}
	n := bits.OnesCount64(late)
	s.open &^= late
	q.leases.n -= n
	q.n[inFlight] -= n
	q.n[due] += n
	q.rareLocked().ended[TimedOut] += uint64(n)
	for left := late; left != 0; {
		j := bits.TrailingZeros64(left)
		run := bits.TrailingZeros64(^(left >> j))
		q.stale.AddRun(base+uint64(j), run)
		left &^= mask(j, run)
	}
	l.lapses++
	q.addLapseLocked(&lapse[T]{lease: l, left: late, at: now, leader: leader}, n)
	l.forget(s.kept)
	s.kept = 0
	if s.open == 0 {
		q.dropLeaseLocked(l)
	}
	q.checkDrainedLocked()
}

func (q *Queue[T]) addLapseLocked(p *lapse[T], n int) {
	t := q.leases.lapsed
	if t == nil {
		t = new(lapses[T])
		q.leases.lapsed = t
	}
	if t.last == nil {
		t.first = p
	} else {
		t.last.next = p
	}
	t.last = p
	t.n += n
}

// leaseAgainLocked puts messages of the first lapse in flight, for a caller, as
// many as ds has room for.
func (q *Queue[T]) leaseAgainLocked(p *lapse[T], ds []Delivery[T], now int64) (n int) {
	old := p.lease
	if p.past == nil {
		p.past = &past{n: old.past.count() + 1, shared: q.pastOf(old, p.at)}
		old.shared = true
	}
	l := q.lastLeaseLocked(p.past)
	s := q.leases.of(l)
	var over uint64
	for n < len(ds) && p.left != 0 && len(l.msgs) < cap(l.msgs) {
		k, j := bits.TrailingZeros64(p.left), len(l.msgs)
		p.left &= p.left - 1
		over |= 1 << k
		it, d := old.item(k), &ds[n]
		l.msgs = append(l.msgs, leased{seq: it.Seq, at: it.At, start: now})
		l.bodies[j] = it.Body
		if it.Ext != nil {
			l.setExt(j, it.Ext)
		}
		s.open |= 1 << j
		d.Body, d.ext, d.seq, d.at, d.hist = it.Body, it.Ext, it.Seq, it.At, p.past.shared
		d.q, d.stamp, d.entry, d.attempt = q, s.base+uint64(j), q.leases.lastEntry(), int32(p.past.n+1)
		n++
	}
	old.forget(over)
	q.leases.n += n
	q.n[inFlight] += n
	q.n[due] -= n
	q.delivered += uint64(n)
	q.leftLapseLocked(p, n)
	return n
}

// pastOf is the history of messages of a lease that timed out at the given instant.
func (q *Queue[T]) pastOf(l *lease[T], at int64) *history {
	g := message.Group{At: at, Starts: make([]int64, len(l.msgs)), Seqs: make([]uint64, len(l.msgs))}
	for k := range l.msgs {
		g.Starts[k], g.Seqs[k] = l.msgs[k].start, l.msgs[k].seq
	}
	if l.past != nil {
		g.Before = l.past.shared
	}
	return message.Together(&message.Origin{Clock: &q.core.clock, Queue: q.name, Letter: q.letters}, g)
}

// leftLapseLocked is called when n messages have left the first lapse.
func (q *Queue[T]) leftLapseLocked(p *lapse[T], n int) {
	t, l := q.leases.lapsed, p.lease
	t.n -= n
	if p.left != 0 {
		return
	}
	t.first = p.next
	if t.first == nil {
		q.leases.lapsed = nil
	}
	if l.lapses--; l.slot == noSlot {
		q.spareLeaseLocked(l)
	}
}

// popDueFirstLocked takes the first message that is due.
func (q *Queue[T]) popDueFirstLocked() (i int32, ok bool) {
	if p := q.leases.lapsed.taken(); p != nil {
		return q.nextOfLapseLocked(p), true
	}
	i, ok = q.win.Pop(&q.due)
	if t := q.leases.lapsed; t != nil && t.first.leader == i {
		t.first.leader = noLeader
	}
	return i, ok
}

// unfoldLocked makes all that has lapsed entries of the window.
func (q *Queue[T]) unfoldLocked() {
	for q.leases.lapsed != nil {
		q.unfoldFirstLocked()
	}
}

// unfoldFirstLocked is unfoldLocked for the first lapse.
func (q *Queue[T]) unfoldFirstLocked() {
	p := q.leases.lapsed.first
	for before := p.leader; p.left != 0; {
		i := q.nextOfLapseLocked(p)
		q.win.PushAfter(&q.due, i, before, before != noLeader)
		before = i
	}
}

// nextOfLapseLocked makes the next message of the first lapse an entry that is
// due and in no list yet.
func (q *Queue[T]) nextOfLapseLocked(p *lapse[T]) int32 {
	l, k := p.lease, bits.TrailingZeros64(p.left)
	p.left &= p.left - 1
	start, it := l.start(k), l.item(k)
	hist := l.past.history(it.Seq).With(q.attempt(verdict{cause: TimedOut}, start, p.at))
	i := q.win.Add(held[T]{item: it, hist: hist})
	m := q.win.Meta(i)
	m.State, m.Spent = due, uint32(l.past.count()+1)
	l.forget(1 << k)
	q.leftLapseLocked(p, 1)
	return i
}
