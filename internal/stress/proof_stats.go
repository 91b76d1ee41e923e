package main

import "github.com/gofanout/fanout"

// causes returns the counters of how attempts ended.
func causes(s fanout.Stats) map[fanout.Cause]uint64 {
	return map[fanout.Cause]uint64{
		fanout.Acked: s.Acked, fanout.Failed: s.Failed, fanout.Panicked: s.Panicked, fanout.Exited: s.Exited,
		fanout.TimedOut: s.TimedOut, fanout.Nacked: s.Nacked, fanout.PermanentlyFailed: s.PermanentlyFailed,
		fanout.Expired: s.Expired, fanout.Snoozed: s.Snoozed, fanout.Released: s.ReleasedCount,
	}
}

// statistics proves that what the queue counted is what the ledger says.
func (p *proof) statistics() {
	st, r := p.r.stats, p.r
	equal := func(what string, stats, ledger uint64) {
		if stats != ledger {
			p.wrong("books", "Stats says %d %s, the ledger %d", stats, what, ledger)
		}
	}
	equal("deliveries", st.Delivered, p.got)
	equal("left over", st.Left, p.left)
	equal("redriven", st.Redriven, uint64(r.moved))
	equal("dropped", st.Dropped, p.dropped+uint64(r.purged))
	if !balanced(st) || st.Unsettled() != 0 {
		p.wrong("books", "the books of the closed queue do not balance")
	}
	var ended uint64
	for c, n := range causes(st) {
		if c == fanout.Expired {
			continue // not only deliveries expire
		}
		ended += n
		if c == fanout.TimedOut || c == fanout.Released {
			continue // that is the queue's own doing
		}
		if n < p.certain[c] || n > p.certain[c]+p.intended[c] {
			p.wrong("books", "Stats says %d %v, the ledger %d for certain and %d perhaps", n, c, p.certain[c], p.intended[c])
		}
	}
	if open := st.Delivered - ended; ended > st.Delivered || open > st.Left+uint64(r.purged) {
		p.wrong("books", "of %d deliveries %d ended, and no more than %d can have been in flight when they were taken away",
			st.Delivered, ended, st.Left+uint64(r.purged))
	}
	if !r.ownLetter {
		return
	}
	l := r.letters
	equal("dead letters that came", uint64(l.Published), st.DeadLettered)
	equal("dead letters that went back", l.Redriven, uint64(r.moved))
	equal("dead letters delivered", l.Delivered, p.lettersGot)
	equal("dead letters acknowledged", l.Acked, p.lettersAcked)
	equal("dead letters dropped", l.Dropped, p.lettersDropped)
	equal("dead letters at the end", uint64(l.Unsettled()), p.lettersLeft)
	if uint64(l.Published) != l.Acked+l.Redriven+l.Dropped+uint64(l.Unsettled()) {
		p.wrong("books", "the books of the dead-letter queue do not balance")
	}
}
