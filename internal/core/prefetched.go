package core

import (
	"runtime"
	"time"

	"github.com/gofanout/fanout/internal/lease"
	"github.com/gofanout/fanout/internal/message"
)

// What is prefetched is in leases in step, of workers and ranges. This file has what the
// queue does with them: it counts what is done, takes back what waits, and looks at them
// when they have become old.

const (
	// prefetchLen is the most messages that are prefetched at a time.
	prefetchLen = lease.Len
	// checkAge is when the timer looks at what was prefetched.
	checkAge = time.Millisecond
)

// locked runs f while it holds the queue's lock.
func (q *Queue[T]) Locked(f func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	f()
}

// joinLocked reports whether the next n messages of the log can be taken together now.
func (q *Queue[T]) joinLocked(n int, now int64) bool {
	run := q.cursor.Run(n)
	if q.joins(run, now) < len(run) {
		return false
	}
	if n -= len(run); n == 0 {
		return true
	}
	join, skip := true, len(run)
	q.cursor.Scan(func(it *item[T]) bool {
		if skip > 0 {
			skip--
			return true
		}
		join = q.joinsAlone(it, now)
		n--
		return join && n > 0
	})
	return join
}

// copyOut makes deliveries of what stands in the log, of which the first has the given
// name, and the others follow.
func (q *Queue[T]) copyOut(ds []Delivery[T], run []item[T], first message.Ref) {
	run = run[:len(ds)]
	for j := range ds {
		d, it := &ds[j], &run[j] // field by field: a literal would be copied, which costs more than all of this
		d.Body, d.ext, d.seq, d.at = it.Body, it.Ext, it.Seq, it.At
		d.q, d.hist = q, nil
		d.ref.Stamp, d.ref.Block, d.ref.Attempt = first.Stamp+uint64(j), first.Block, 1
	}
}

// item is the message that was delivered.
func (d *Delivery[T]) item() item[T] { return item[T]{Seq: d.seq, At: d.at, Ext: d.ext, Body: d.Body} }

// lookByLocked sees to it that the timer looks at leases when age has passed, and
// lets go of what the cursor has passed. Who moves the cursor calls it.
func (q *Queue[T]) lookByLocked(now int64, age time.Duration) {
	if check := q.alarm.checkAt; check != 0 && check-now <= int64(age) {
		return
	}
	if q.alarm.checkBy(after(now, age)) {
		q.armLocked(now)
	}
}

// forget lets go of the message, so that what is done is not kept.
func (d *Delivery[T]) forget() {
	var none T
	d.Body, d.ext = none, nil
}

// countLocked counts what consumers in step have done, so that the queue's numbers are
// those of this instant.
func (q *Queue[T]) countLocked() {
	q.leases.Count()
	q.tallyLocked()
}

// countDone is countLocked for one who needs the room.
func (q *Queue[T]) countDone() {
	if q.direct {
		return
	}
	q.mu.Lock()
	q.countLocked()
	q.mu.Unlock()
}

// putBackLocked puts entry i into the backlog at the place of its publication. It
// looks for that from where the last one was put: most often they come in one order.
func (q *Queue[T]) putBackLocked(i int32) {
	seq := q.win.At(i).Seq
	before, behind := q.putAt, q.win.Holds(q.putAt) && q.win.Meta(q.putAt).State == backlogged && q.win.Listed(q.putAt)
	for behind && q.win.At(before).Seq > seq {
		before, behind = q.win.Prev(before)
	}
	next, found := q.backlog.First()
	if behind {
		next, found = q.win.Next(before)
	}
	for found && q.win.At(next).Seq < seq {
		before, behind = next, true
		next, found = q.win.Next(next)
	}
	q.putAt = i
	q.win.Meta(i).State = backlogged
	q.n[backlogged]++
	q.win.PushAfter(&q.backlog, i, before, behind)
	q.noteExpiryLocked(i)
}

// takeAllBackLocked takes back what waits in all leases, and reports whether that was
// anything.
func (q *Queue[T]) takeAllBackLocked() bool {
	if !q.leases.Steps() {
		return false
	}
	n := q.n[backlogged]
	for l := q.leases.FirstAhead(); l != nil; l = q.leases.FirstAhead() {
		q.takeBackLocked(l)
	}
	return q.n[backlogged] > n
}

// lookLocked is the timer's look at the log and at the leases. It lets go of what the
// cursor has passed.
func (q *Queue[T]) lookLocked(now int64) {
	q.alarm.checkAt = 0
	q.cursor.Rest()
	q.lookAtLeasesLocked(now)
}

// awaitOthers gives other consumers a moment to finish what waits in their leases,
// before the caller takes it back from them.
func (q *Queue[T]) awaitOthers() {
	for range 8 {
		runtime.Gosched()
		q.mu.Lock()
		waiting := q.leases.Waiting()
		q.mu.Unlock()
		if waiting == 0 {
			return
		}
	}
}
