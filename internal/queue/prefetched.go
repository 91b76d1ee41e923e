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

// CopyOut makes deliveries of what stands in the log, of which the first has the given
// name, and the others follow.
func (q *Queue[T]) CopyOut(ds []Delivery[T], run []message.Item[T], first message.Ref) {
	run = run[:len(ds)]
	for j := range ds {
		d, it := &ds[j], &run[j] // field by field: a literal would be copied, which costs more than all of this
		d.Body, d.Ext, d.Seq, d.At = it.Body, it.Ext, it.Seq, it.At
		d.Q, d.Hist = q, nil
		d.Ref.Stamp, d.Ref.Block, d.Ref.Attempt = first.Stamp+uint64(j), first.Block, 1
	}
}

// Item is the message that was delivered.
func (d *Delivery[T]) Item() message.Item[T] {
	return message.Item[T]{Seq: d.Seq, At: d.At, Ext: d.Ext, Body: d.Body}
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

// Forget lets go of the message, so that what is done is not kept.
func (d *Delivery[T]) Forget() {
	var none T
	d.Body, d.Ext = none, nil
}

// countDone counts what consumers in step have done, for one who needs the room.
func (q *Queue[T]) countDone() {
	if q.Direct {
		return
	}
	q.Mu.Lock()
	q.Count()
	q.Mu.Unlock()
}

// lookLocked is the timer's look at the log and at the leases. It lets go of what the
// cursor has passed.
func (q *Queue[T]) lookLocked(now int64) {
	q.Alarm.CheckAt = 0
	if again := q.Rest(now, int64(alarm.CheckAge)); again > 0 {
		q.Alarm.CheckBy(again)
	}
}

// AwaitOthers gives other consumers a moment to finish what waits in their leases,
// before the caller takes it back from them.
func (q *Queue[T]) AwaitOthers() {
	for range 8 {
		runtime.Gosched()
		q.Mu.Lock()
		waiting := q.Leases.Waiting()
		q.Mu.Unlock()
		if waiting == 0 {
			return
		}
	}
}
