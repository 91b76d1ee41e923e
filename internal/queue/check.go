package queue

import (
	"errors"
	"fmt"
)

func (q *Queue[T]) Check() error {
	q.Mu.Lock()
	defer q.Mu.Unlock()
	if err := q.CheckLocked(); err != nil {
		return fmt.Errorf("queue %q: %w", q.Name(), err)
	}
	return nil
}

func (q *Queue[T]) CheckLocked() error {
	if q.Pending.Any() {
		return errors.New("something was not told")
	}
	if q.Store.Closed {
		return nil
	}
	if err := q.Group.CheckConsumers(); err != nil {
		return err
	}
	if err := q.Store.Check(); err != nil {
		return err
	}
	at, ok := q.Store.NextDue()
	if q.Limited > 0 && (!ok || q.Limited < at) {
		at, ok = q.Limited, true
	}
	if q.Alarm.CheckAt > 0 && (!ok || q.Alarm.CheckAt < at) {
		at, ok = q.Alarm.CheckAt, true
	}
	if known, found := q.Store.KnownExpiry(); found && q.RoomWanted.Load() != 0 && (!ok || known < at) {
		at, ok = known, true
	}
	if ok && !q.Alarm.Armed || !ok && q.Alarm.Armed && q.Group.Running == 0 && !q.Alarm.Brief || ok && q.Alarm.At > at {
		return fmt.Errorf("timer armed %t for %d; schedule has %t, next at %d", q.Alarm.Armed, q.Alarm.At, ok, at)
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
	return Inside{Keys: q.Store.Keys.Len(), TimerArmed: q.Alarm.Armed || q.Report.Armed()}
}
