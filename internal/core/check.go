package core

import (
	"errors"
	"fmt"
	"slices"
)

func (q *Queue[T]) check() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := q.checkLocked(); err != nil {
		return fmt.Errorf("queue %q: %w", q.name, err)
	}
	return nil
}

func (q *Queue[T]) checkLocked() error {
	if q.pending.Any() {
		return errors.New("something was not told")
	}
	if q.closed {
		return nil
	}
	sum := 0
	line := 0
	consumers := 0
	for _, sub := range q.subs {
		if !sub.stopping {
			consumers += sub.set.Concurrency
		}
		if sub.mayStart() && sub.nextFree == nil {
			return errors.New("a subscriber that may start a worker is not in the ring of those that may")
		}
	}
	if consumers != q.consumers {
		return fmt.Errorf("subscribers have %d workers, the queue counts %d", consumers, q.consumers)
	}
	for _, k := range q.keys {
		line += k.line.Len()
	}
	if line != q.n[blocked] {
		return fmt.Errorf("%d messages stand behind others of their key, %d are blocked", line, q.n[blocked])
	}
	if q.leases != nil {
		if err := q.leases.Check(); err != nil {
			return err
		}
	}
	if rank, ok := q.leases.FirstExpired(); ok {
		later := false
		for i, ok := q.due.First(); ok; i, ok = q.win.Next(i) {
			s := q.win.Meta(i).Stamp
			if later && s < rank {
				return fmt.Errorf("stamp %d is due after %d", s, rank)
			}
			later = later || s > rank
		}
	}
	for s, n := range q.n {
		sum += n
		if l := q.listOf(uint8(s)); l != nil && l.Len() != n {
			return fmt.Errorf("state %d counts %d, its list holds %d", s, n, l.Len())
		}
	}
	if sum != q.win.Len() {
		return fmt.Errorf("states count %d, the window holds %d", sum, q.win.Len())
	}
	q.countLocked()
	unsettled := q.win.Len() + q.inLogLocked() + q.leases.Held()
	if unsettled > q.set.Capacity {
		return fmt.Errorf("holds %d, capacity %d", unsettled, q.set.Capacity)
	}
	capacity := int64(min(q.set.Capacity, maxCapacity))
	allow := capacity - int64(q.win.Len()) - int64(q.leases.Held())
	if !q.direct {
		allow += q.cursor.Pos()
		head := q.log.Head()
		if q.cursor.Pos() > head {
			return fmt.Errorf("cursor %d is beyond the head %d", q.cursor.Pos(), head)
		}
		if head != q.log.Published() {
			return fmt.Errorf("its log has %d, %d are published", head, q.log.Published())
		}
	}
	if got := q.allow.Load(); got != allow {
		return fmt.Errorf("allow is %d, want %d", got, allow)
	}
	at, ok := q.win.NextDue()
	if due, _, found := q.leases.NextDue(); found && (!ok || due < at) {
		at, ok = due, true
	}
	if q.limited > 0 && (!ok || q.limited < at) {
		at, ok = q.limited, true
	}
	if q.alarm.checkAt > 0 && (!ok || q.alarm.checkAt < at) {
		at, ok = q.alarm.checkAt, true
	}
	_, first, expires := q.win.FirstExpiry()
	if known, found := q.knownExpiryLocked(); found && q.gate.Load() != 0 && (!ok || known < at) {
		at, ok = known, true
	}
	var all []int64 // when those expire that can make room
	q.win.All(func(i int32) bool {
		s := q.win.Meta(i).State
		if at, ok := q.expiry(&q.win.At(i).item); ok && q.evicts && s != inFlight && s != inHandler && s != parked {
			all = append(all, at)
		}
		return true
	})
	if expires != (len(all) > 0) || expires && first != slices.Min(all) {
		return fmt.Errorf("the first of %d expires at %d, %t", len(all), first, expires)
	}
	if ok && !q.alarm.armed || !ok && q.alarm.armed && q.running == 0 && !q.alarm.brief || ok && q.alarm.at > at {
		return fmt.Errorf("timer armed %t for %d; schedule has %t, next at %d", q.alarm.armed, q.alarm.at, ok, at)
	}
	c := q.countersLocked()
	in := q.publishedLocked(q.inLogLocked())
	out := q.acked + c.dropped + c.deadLettered
	if !q.letters {
		in += c.redriven
	} else {
		out += c.redriven
	}
	if in != out+uint64(unsettled) {
		return fmt.Errorf("the books don't balance: %d in, %d out, %d held", in, out, unsettled)
	}
	return nil
}

// Inside is what tests are shown of a queue beside Check.
type Inside struct {
	Keys       int  // ordering keys that it keeps
	TimerArmed bool // its timer is armed, or that of its log lines
}

// Inside returns what tests are shown of the queue.
func (q *Queue[T]) Inside() Inside {
	q.mu.Lock()
	defer q.mu.Unlock()
	return Inside{Keys: len(q.keys), TimerArmed: q.alarm.armed || q.report.Armed()}
}
