package delivery

import (
	"time"

	"github.com/gofanout/fanout/internal/alarm"
	"github.com/gofanout/fanout/internal/lease"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/store"
)

// TakeAtLocked puts messages in flight for a caller, as many as ds has room for and
// there are. Something is ready. It sees to it that other consumers are woken for what
// remains. It may have dead-lettered some that came too late, even if it takes none.
func TakeAtLocked[T any](q *queue.Queue[T], ds []Delivery[T], now int64, vis time.Duration) (n int) {
	for n < len(ds) {
		k := takeSomeLocked(q, ds[n:], now, vis)
		if k == 0 {
			break
		}
		n += k
	}
	if n > 0 {
		q.Store.Tally()
		q.LookByLocked(now, alarm.CheckAge)
		if !q.Alarm.Armed || q.Alarm.At > message.After(now, vis) {
			q.ArmLocked(now)
		}
		q.HandOnLocked()
	}
	return n
}

// takeSomeLocked is TakeAtLocked for messages that can be taken in one step.
func takeSomeLocked[T any](q *queue.Queue[T], ds []Delivery[T], now int64, vis time.Duration) int {
	if q.Entries {
		d, ok := ClaimAtLocked(q, now, vis, store.InFlight)
		if !ok {
			return 0
		}
		ds[0] = d
		return 1
	}
	t := q.Store.OpenLeases()
	if q.Store.Due() > 0 {
		if r, ok := q.Store.TakeTimedOut(len(ds), int64(vis), now); ok {
			return DeliverLocked(q, ds, &r)
		}
	}
	if run := q.Store.PlainRun(len(ds), now); len(run) > 0 {
		var r lease.Run[T]
		t.Take(&r, run, len(ds), int64(vis), now)
		q.Store.Took(len(r.Items))
		return DeliverLocked(q, ds, &r)
	}
	l := t.Fill(1, int64(vis))
	first := l.Len()
	if !FillLocked(q, l, now) {
		q.CheckDrainedLocked()
		return 0
	}
	r := t.Run(l, first)
	return DeliverLocked(q, ds, &r)
}

// FillLocked takes the next message by itself into a lease, which has room, and reports
// whether there was one. It may have dead-lettered some that came too late, even if not.
func FillLocked[T any](q *queue.Queue[T], l *lease.Lease[T], now int64) bool {
	i, ok := q.NextEntryLocked(now)
	if ok {
		q.Store.Fly(l, i, now)
	}
	return ok
}

// DeliverLocked makes deliveries of a run, and returns how many.
func DeliverLocked[T any](q *queue.Queue[T], ds []Delivery[T], r *lease.Run[T]) int {
	items, ref, hist := r.Items, r.First, r.History
	ds = ds[:len(items)]
	for j := range ds {
		d, it := &ds[j], &items[j] // field by field: a literal would be copied, which costs more than all of this
		d.Body, d.Ext, d.Seq, d.At = it.Body, it.Ext, it.Seq, it.At
		d.Q, d.Hist = q, hist
		d.Ref.Stamp, d.Ref.Block, d.Ref.Attempt = ref.Stamp+uint64(j), ref.Block, ref.Attempt
	}
	if q.Hooked(notice.Delivered) {
		for j := range ds {
			DeliveredLocked(q, &ds[j])
		}
	}
	return len(ds)
}

// CopyOut makes deliveries of what stands in the log, of which the first has the given
// name, and the others follow.
func CopyOut[T any](q *queue.Queue[T], ds []Delivery[T], run []message.Item[T], first message.Ref) {
	run = run[:len(ds)]
	for j := range ds {
		d, it := &ds[j], &run[j] // field by field: a literal would be copied, which costs more than all of this
		d.Body, d.Ext, d.Seq, d.At = it.Body, it.Ext, it.Seq, it.At
		d.Q, d.Hist = q, nil
		d.Ref.Stamp, d.Ref.Block, d.Ref.Attempt = first.Stamp+uint64(j), first.Block, 1
	}
}

// ClaimAtLocked puts the next message, a dead letter or one of an engine, in flight in the
// given state, and leaves the timer to the caller. It may have dead-lettered some that came too
// late, and freed their room, even if it returns none.
func ClaimAtLocked[T any](q *queue.Queue[T], now int64, vis time.Duration, state uint8) (d Delivery[T], ok bool) {
	i, ok := q.NextEntryLocked(now)
	if !ok {
		q.CheckDrainedLocked()
		return d, false
	}
	q.Store.Claim(i, state, now, message.After(now, vis))
	m, h := q.Store.Win.Meta(i), q.Store.Win.At(i)
	d = Of(q, &h.Item, h.Hist, message.Ref{Stamp: m.Stamp, Block: i, Attempt: int32(min(m.Spent+1, 1<<31-1))})
	DeliveredLocked(q, &d)
	return d, true
}

// DeliveredLocked notes that d was made.
func DeliveredLocked[T any](q *queue.Queue[T], d *Delivery[T]) {
	if q.Hooked(notice.Delivered) {
		q.NoteLocked(notice.Delivered, notice.Event{MessageID: d.ID(), PublishedAt: d.PublishedAt(), Attempt: d.Attempt(), Count: 1})
	}
}

// PeekedLocked is entry i for those who look at it.
func PeekedLocked[T any](q *queue.Queue[T], i int32) Delivery[T] {
	m, h := q.Store.Win.Meta(i), q.Store.Win.At(i)
	return Of(q, &h.Item, h.Hist, message.Ref{Block: i, Attempt: int32(min(m.Spent+1, 1<<31-1))})
}

// InLog is a message of the log for those who look at it.
func InLog[T any](q *queue.Queue[T], it *message.Item[T]) Delivery[T] {
	return Of(q, it, nil, message.Ref{Attempt: 1})
}
