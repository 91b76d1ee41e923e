package store

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/settings"
)

// A model is a queue as a plain list of records, and what the promises say of it. It has
// neither a log nor leases.
type model struct {
	set      settings.Limits
	letters  bool
	draining bool
	turn     bool // the backlog's

	all     []*record            // in the order of publication
	due     []*record            // in the order they became so
	heads   map[string]*record   // of ordering keys
	lines   map[string][]*record // behind the heads, in the order of publication
	refs    map[uint64]string    // by stamp: "", "settled" or "lost"
	order   int                  // of what came last
	began   uint64
	acked   uint64
	ended   [message.Causes]uint64
	dropped uint64
	dead    uint64
}

// nowhere is the state of a record that is in none.
const nowhere = States

// A record is a message.
type record struct {
	seq      uint64
	at       int64
	key      string
	ttl      int64
	born     int64 // again, when it was redriven
	state    uint8 // Backlogged, also in the log and while it waits in a lease
	waiting  bool  // in a lease in step
	inStep   bool  // it is the current one of a lease in step: nobody waits for its time-out
	order    int   // in which it came to wait for an instant
	instant  int64 // that it waits for
	unplaced bool  // it was extended, or replayed
	start    int64
	ref      message.Ref
	spent    uint32
	passes   uint16
}

func (m *model) expiry(r *record) int64 {
	ttl := r.ttl
	if ttl == 0 {
		ttl = int64(m.set.TTL)
	}
	if ttl == 0 || m.letters {
		return math.MaxInt64
	}
	return max(r.at, r.born) + ttl
}

func (m *model) find(seq uint64) *record {
	k, ok := slices.BinarySearchFunc(m.all, seq, func(r *record, seq uint64) int { return cmp.Compare(r.seq, seq) })
	if !ok {
		return nil
	}
	return m.all[k]
}

func (m *model) add(r *record) {
	k, _ := slices.BinarySearchFunc(m.all, r.seq, func(o *record, seq uint64) int { return cmp.Compare(o.seq, seq) })
	m.all = slices.Insert(m.all, k, r)
	m.order++
	r.order = m.order
}

// remove takes a record whose state has been left out of the queue.
func (m *model) remove(r *record) {
	m.leaveKey(r)
	m.all = slices.DeleteFunc(m.all, func(o *record) bool { return o == r })
}

func (m *model) count(states ...uint8) (n int) {
	for _, r := range m.all {
		if slices.Contains(states, r.state) {
			n++
		}
	}
	return n
}

// waits reports whether any of the backlog waits where everybody can take it.
func (m *model) backlog() (first *record) {
	for _, r := range m.all {
		if r.state == Backlogged && !r.waiting {
			return r
		}
	}
	return nil
}

// takeBack puts what waits in leases back into the backlog, and reports whether that was
// anything.
func (m *model) takeBack() (any bool) {
	for _, r := range m.all {
		any = any || r.waiting
		r.waiting = false
	}
	return any
}

// becomes puts a record that is nowhere into a state.
func (m *model) becomes(r *record, state uint8) {
	r.state = state
	if state == Due {
		m.due = append(m.due, r)
		m.takeBack()
	}
}

// leaves takes a record out of the lists that it is in.
func (m *model) leaves(r *record) {
	is := func(o *record) bool { return o == r }
	m.due = slices.DeleteFunc(m.due, is)
	if r.state == Blocked {
		m.lines[r.key] = slices.DeleteFunc(m.lines[r.key], is)
	}
	r.state, r.waiting, r.inStep = nowhere, false, false
}

func (m *model) leaveKey(r *record) {
	if r.key == "" || m.heads[r.key] != r {
		return
	}
	delete(m.heads, r.key)
	if line := m.lines[r.key]; len(line) > 0 {
		m.heads[r.key], m.lines[r.key] = line[0], line[1:]
		m.becomes(line[0], Due)
	}
}

// next takes the message that starts next, or has expired.
func (m *model) next(now int64) (r *record, expired bool) {
	for {
		wasDue := len(m.due) > 0 && (!m.turn || m.backlog() == nil)
		if wasDue {
			r = m.due[0]
		} else if r = m.backlog(); r == nil {
			if m.takeBack() {
				continue
			}
			return nil, false
		}
		m.leaves(r)
		if m.expiry(r) <= now {
			return r, true
		}
		if h := m.heads[r.key]; r.key != "" && h != nil && h != r {
			r.state = Blocked
			line := append(m.lines[r.key], r)
			slices.SortFunc(line, func(a, b *record) int { return cmp.Compare(a.seq, b.seq) })
			m.lines[r.key] = line
			continue
		}
		if r.key != "" {
			m.heads[r.key] = r
		}
		m.turn = wasDue
		return r, false
	}
}

// begins puts a record in flight.
func (m *model) begins(r *record, ref message.Ref, now, vis int64, inStep bool) {
	m.leaves(r)
	m.began++
	r.state, r.ref, r.start, r.instant, r.inStep, r.unplaced = InFlight, ref, now, now+vis, inStep, false
	m.refs[ref.Stamp] = ""
}

func (m *model) inFlight() (rs []*record) {
	for _, r := range m.all {
		if r.state == InFlight {
			rs = append(rs, r)
		}
	}
	return rs
}

// ends ends a delivery, and says what becomes of the message.
func (m *model) ends(r *record, v message.Verdict, now int64) Fate {
	m.leaves(r)
	m.refs[r.ref.Stamp] = "settled"
	if v.Cause == message.TimedOut {
		m.refs[r.ref.Stamp] = "lost"
	}
	if v.Cause == message.Acked {
		m.acked++
		m.remove(r)
		return Gone
	}
	m.ended[v.Cause]++
	m.order++
	r.order, r.unplaced = m.order, false
	died := false
	if v.Cause.Spends() {
		r.spent++
		died = v.Cause == message.PermanentlyFailed || m.set.MaxAttempts > 0 && int(r.spent) >= m.set.MaxAttempts
	} else if v.Wait > 0 {
		r.passes++
	}
	switch {
	case m.letters:
	case died:
		return Dies
	case m.expiry(r) <= now:
		return Expires
	}
	return Retries
}

// retries puts a record whose delivery has ended where it waits for the next.
func (m *model) retries(r *record, v message.Verdict, now int64) {
	switch {
	case v.Cause == message.Released && m.draining:
		m.becomes(r, Released)
	case v.Cause == message.Released && v.Wait <= 0 && !m.letters:
		m.takeBack()
		m.becomes(r, Backlogged)
	case v.Wait <= 0:
		m.becomes(r, Due)
	case v.Cause == message.Snoozed:
		m.becomes(r, Delayed)
		r.instant = now + int64(v.Wait)
	default:
		m.becomes(r, Retrying)
		r.instant = now + int64(v.Wait)
	}
}

func (r *record) String() string {
	return fmt.Sprintf("\nmessage %d: state %d, waiting %t, in step %t, until %d, order %d, stamp %d, spent %d", r.seq, r.state, r.waiting, r.inStep, r.instant, r.order, r.ref.Stamp, r.spent)
}

// timed reports whether a record waits for an instant.
func (r *record) timed() bool {
	return r.state == Delayed || r.state == Retrying || r.state == InFlight && !r.inStep
}

// nextDue is the first instant that anything waits for.
func (m *model) nextDue() (at int64, ok bool) {
	at = math.MaxInt64
	for _, r := range m.all {
		if r.timed() {
			at, ok = min(at, r.instant), true
		}
	}
	return at, ok
}

// comes reports whether it is a record's turn to come by time: nothing of an earlier instant
// waits, and of the same instant no delivery with a lower stamp, or none that ended before. What
// is unplaced has no place among others of one instant.
func (m *model) comes(r *record, now int64) bool {
	if !r.timed() || r.instant > now {
		return false
	}
	for _, o := range m.all {
		switch {
		case !o.timed() || o.instant > r.instant:
		case o.instant < r.instant:
			return false
		case o.unplaced || r.unplaced || (o.state == InFlight) != (r.state == InFlight):
		case r.state == InFlight && o.ref.Stamp < r.ref.Stamp:
			return false
		case r.state != InFlight && o.order < r.order:
			return false
		}
	}
	return true
}

// oldest is the first message, of those that may be dropped to make room.
func (m *model) oldest() *record {
	for _, r := range m.all {
		if r.state != InFlight && r.state != Parked {
			return r
		}
	}
	return nil
}
