package core

import (
	"errors"
	"fmt"
	"slices"
)

// Check returns an error if an invariant that stands above Topic, Queue or waitLines does not
// hold. It is for tests. Nothing else may run on the topic meanwhile but consumers.
func (t *Topic[T]) Check() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if head := t.log.Head(); head != t.log.Published() {
		return fmt.Errorf("the log has %d, %d are published", head, t.log.Published())
	}
	if t.pending.Any() || t.roomMade != nil {
		return errors.New("something was not told")
	}
	if err := t.checkWaitersLocked(); err != nil {
		return err
	}
	for _, q := range t.queues {
		if err := q.check(); err != nil {
			return err
		}
		if q.log == t.log && t.limit > q.allow.Load() {
			return fmt.Errorf("queue %q allows %d, the topic's limit is %d", q.name, q.allow.Load(), t.limit)
		}
		if d := q.DeadNow(); d != nil {
			if err := d.check(); err != nil {
				return err
			}
		}
	}
	return nil
}

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
	if expires && q.gate.Load() != 0 && (!ok || first < at) {
		at, ok = first, true
	}
	var all []int64 // when those expire that can make room
	q.win.All(func(i int32) bool {
		s := q.win.Meta(i).State
		if at, ok := q.expiry(&q.win.At(i).item); ok && q.remote == nil && s != inFlight && s != inHandler && s != parked {
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

// checkWaitersLocked checks the lines of those who wait for room.
func (t *Topic[T]) checkWaitersLocked() error {
	waiting, inHandlers := 0, 0
	for w := range t.everyWaiter() {
		waiting++
		if w.run != nil {
			inHandlers++
		}
		if len(w.places) == 0 {
			return errors.New("one who waits stands nowhere")
		}
		for k := range w.places {
			if err := w.checkPlace(&w.places[k]); err != nil {
				return err
			}
		}
	}
	if waiting != t.waiting || inHandlers != t.inHandlers {
		return fmt.Errorf("%d wait, %d in handlers; counted are %d and %d", waiting, inHandlers, t.waiting, t.inHandlers)
	}
	for id, l := range t.wanted {
		if l.first == nil {
			return fmt.Errorf("nobody wants ID %q any more", id)
		}
	}
	return nil
}

func (w *waiter[T]) checkPlace(p *standing[T]) error {
	switch {
	case p.w != w:
		return errors.New("a place is another's")
	case p.in == nil && p.q == nil:
		return errors.New("a line was left that is not that of a queue which is gone")
	case p.in == nil:
		return nil
	case p.before == nil && p.in.first != p, p.before != nil && p.before.behind != p, p.behind == nil && p.in.last != p:
		return errors.New("a line is broken")
	case p.before != nil && p.before.w.number >= w.number:
		return errors.New("a line is not in the order of arrival")
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
