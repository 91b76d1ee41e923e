package queue

import (
	"runtime"
	"time"

	"github.com/gofanout/fanout/internal/alarm"
	"github.com/gofanout/fanout/internal/lease"
	"github.com/gofanout/fanout/internal/message"
)

// What is prefetched is in leases in step, of workers and ranges. This file has what the
// queue does with them: it counts what is done, takes back what waits, and looks at them
// when they have become old.

// PrefetchLen is the most messages that are prefetched at a time.
const PrefetchLen = lease.Len

// Locked runs f while it holds the queue's lock.
func (q *Queue[T]) Locked(f func()) {
	q.Mu.Lock()
	defer q.Mu.Unlock()
	f()
}

// LookByLocked sees to it that the timer looks at leases when age has passed, and
// lets go of what the cursor has passed. Who moves the cursor calls it.
func (q *Queue[T]) LookByLocked(now int64, age time.Duration) {
	if check := q.Alarm.CheckAt; check != 0 && check-now <= int64(age) {
		return
	}
	if q.Alarm.CheckBy(message.After(now, age)) {
		q.ArmLocked(now)
	}
}

// lookLocked is the timer's look at the log and at the leases. It lets go of what the
// cursor has passed.
func (q *Queue[T]) lookLocked(now int64) {
	q.Alarm.CheckAt = 0
	if again := q.Store.Rest(now, int64(alarm.CheckAge), int64(alarm.SpareAge)); again > 0 {
		q.Alarm.CheckBy(again)
	}
}

// AwaitOthers gives other consumers a moment to finish what waits in their leases,
// before the caller takes it back from them.
func (q *Queue[T]) AwaitOthers() {
	for range 8 {
		runtime.Gosched()
		q.Mu.Lock()
		waiting := q.Store.Leases.Waiting()
		q.Mu.Unlock()
		if waiting == 0 {
			return
		}
	}
}
