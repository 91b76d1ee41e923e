package queue

import (
	"errors"
	"fmt"
	"slices"
)

func (q *Queue[T]) Check() error {
	q.Mu.Lock()
	defer q.Mu.Unlock()
	if err := q.CheckLocked(); err != nil {
		return fmt.Errorf("queue %q: %w", q.QueueName, err)
	}
	return nil
}

func (q *Queue[T]) CheckLocked() error {
	if q.Pending.Any() {
		return errors.New("something was not told")
	}
	if q.Closed {
		return nil
	}
	sum := 0
	line := 0
	consumers := 0
	for _, sub := range q.Subs {
		if !sub.Stopping {
			consumers += sub.Set.Concurrency
		}
		if sub.mayStart() && sub.nextFree == nil {
			return errors.New("a subscriber that may start a worker is not in the ring of those that may")
		}
	}
	if consumers != q.Consumers {
		return fmt.Errorf("subscribers have %d workers, the queue counts %d", consumers, q.Consumers)
	}
	for _, k := range q.Keys {
		line += k.line.Len()
	}
	if line != q.N[blocked] {
		return fmt.Errorf("%d messages stand behind others of their key, %d are blocked", line, q.N[blocked])
	}
	if q.Leases != nil {
		if err := q.Leases.Check(); err != nil {
			return err
		}
	}
	if rank, ok := q.Leases.FirstExpired(); ok {
		later := false
		for i, ok := q.due.First(); ok; i, ok = q.Win.Next(i) {
			s := q.Win.Meta(i).Stamp
			if later && s < rank {
				return fmt.Errorf("stamp %d is due after %d", s, rank)
			}
			later = later || s > rank
		}
	}
	for s, n := range q.N {
		sum += n
		if l := q.ListOf(uint8(s)); l != nil && l.Len() != n {
			return fmt.Errorf("state %d counts %d, its list holds %d", s, n, l.Len())
		}
	}
	if sum != q.Win.Len() {
		return fmt.Errorf("states count %d, the window holds %d", sum, q.Win.Len())
	}
	q.countLocked()
	unsettled := q.Win.Len() + q.InLogLocked() + q.Leases.Held()
	if unsettled > q.Set.Capacity {
		return fmt.Errorf("holds %d, capacity %d", unsettled, q.Set.Capacity)
	}
	capacity := int64(min(q.Set.Capacity, maxCapacity))
	allow := capacity - int64(q.Win.Len()) - int64(q.Leases.Held())
	if !q.Direct {
		allow += q.Cursor.Pos()
		head := q.Log.Head()
		if q.Cursor.Pos() > head {
			return fmt.Errorf("cursor %d is beyond the head %d", q.Cursor.Pos(), head)
		}
		if head != q.Log.Published() {
			return fmt.Errorf("its log has %d, %d are published", head, q.Log.Published())
		}
	}
	if got := q.Allow.Load(); got != allow {
		return fmt.Errorf("allow is %d, want %d", got, allow)
	}
	at, ok := q.Win.NextDue()
	if due, _, found := q.Leases.NextDue(); found && (!ok || due < at) {
		at, ok = due, true
	}
	if q.Limited > 0 && (!ok || q.Limited < at) {
		at, ok = q.Limited, true
	}
	if q.Alarm.CheckAt > 0 && (!ok || q.Alarm.CheckAt < at) {
		at, ok = q.Alarm.CheckAt, true
	}
	_, first, expires := q.Win.FirstExpiry()
	if known, found := q.knownExpiryLocked(); found && q.RoomWanted.Load() != 0 && (!ok || known < at) {
		at, ok = known, true
	}
	var all []int64 // when those expire that can make room
	q.Win.All(func(i int32) bool {
		s := q.Win.Meta(i).State
		if at, ok := q.expiry(&q.Win.At(i).Item); ok && q.Evicts && s != InFlight && s != InHandler && s != parked {
			all = append(all, at)
		}
		return true
	})
	if expires != (len(all) > 0) || expires && first != slices.Min(all) {
		return fmt.Errorf("the first of %d expires at %d, %t", len(all), first, expires)
	}
	if ok && !q.Alarm.Armed || !ok && q.Alarm.Armed && q.Running == 0 && !q.Alarm.Brief || ok && q.Alarm.At > at {
		return fmt.Errorf("timer armed %t for %d; schedule has %t, next at %d", q.Alarm.Armed, q.Alarm.At, ok, at)
	}
	c := q.countersLocked()
	in := q.publishedLocked(q.InLogLocked())
	out := q.Acked + c.Dropped + c.DeadLettered
	if !q.Letters {
		in += c.Redriven
	} else {
		out += c.Redriven
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
	q.Mu.Lock()
	defer q.Mu.Unlock()
	return Inside{Keys: len(q.Keys), TimerArmed: q.Alarm.Armed || q.Report.Armed()}
}
