package workers

import (
	"github.com/gofanout/fanout/internal/alarm"
	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/lease"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/store"
)

// A batch is a lease of which all has begun, several if it is longer, and is acknowledged
// in one step when the handler returns nil.
//
// The handler may change the slice that it is given, so what the worker settles is another
// one. Both are the buffer's, and used again when the handler has returned.

// claimLocked claims as many messages as the handler takes, if the subscriber may have
// any, and reports whether it has.
func (w *Worker[T]) claimLocked() bool {
	s, q := w.s, w.s.Q
	if s.Stopping || s.LimitedLocked() > 0 || !q.ServesLocked() {
		return false
	}
	n := min(s.Most, q.Store.Ready())
	if n == 0 {
		return false
	}
	if n < s.Most {
		q.Store.TakeAllBack() // what waits there was published earlier
	}
	now := q.Core.Now()
	if !s.Pass(now) {
		return false
	}
	ds := w.roomFor(n)
	if w.takeBatchLocked(ds, now) {
		s.PassMore(n - 1)
		w.giveContextsLocked(1)
		w.giveLocked(ds)
		return true
	}
	w.endLeasesLocked()
	w.forget(0)
	if q.Entries {
		n = w.claimEntriesLocked(ds, now)
	} else {
		n = w.claimLeasesLocked(ds, now)
	}
	if n == 0 {
		s.Unpass(now)
		return false
	}
	s.PassMore(n - 1)
	q.ArmLocked(now)
	w.giveContextsLocked(1)
	w.giveLocked(ds[:n])
	return true
}

// takeBatchLocked takes messages from the log into leases, if all are there and can be taken together. That
// is what claimLeasesLocked would do, but at a lower price.
func (w *Worker[T]) takeBatchLocked(ds []delivery.Delivery[T], now int64) bool {
	s, q := w.s, w.s.Q
	if q.Store.Due() > 0 || q.Store.In(store.Backlogged) > 0 || q.Store.InLog() < len(ds) || !q.Store.AllJoin(len(ds), now) {
		return false
	}
	t, vis := q.Store.OpenLeases(), int64(s.visibility())
	if w.stepping || len(ds) > lease.Len || w.Lease != nil && !t.Again(w.Lease, len(ds), now) {
		w.endLeasesLocked()
	}
	for n := 0; n < len(ds); n += lease.Len {
		part := ds[n:min(n+lease.Len, len(ds))]
		l := w.Lease
		if n > 0 {
			l = t.Whole(w, len(part), now, vis)
			w.more = append(w.more, l)
		} else if l == nil {
			l = t.Whole(w, len(part), now, vis)
			w.Lease = l
		}
		first := t.First(l)
		for k := 0; k < len(part); {
			run := q.Store.Cursor.Run(len(part) - k)
			delivery.CopyOut(q, part[k:k+len(run)], run, first.Next(k))
			q.Store.Cursor.Step(len(run))
			k += len(run)
		}
	}
	w.tookLocked(ds, now)
	if q.Hooked(notice.Delivered) {
		for k := range ds {
			delivery.DeliveredLocked(q, &ds[k])
		}
	}
	q.Store.Tally()
	q.LookByLocked(now, min(alarm.CheckAge, s.visibility()))
	return true
}

// claimEntriesLocked claims messages that are entries of the window all the time.
func (w *Worker[T]) claimEntriesLocked(ds []delivery.Delivery[T], now int64) (n int) {
	for ; n < len(ds); n++ {
		d, ok := delivery.ClaimAtLocked(w.s.Q, now, w.s.visibility(), store.InHandler)
		if !ok {
			return n
		}
		ds[n] = d
	}
	return n
}

// claimLeasesLocked claims messages in leases.
func (w *Worker[T]) claimLeasesLocked(ds []delivery.Delivery[T], now int64) (n int) {
	q := w.s.Q
	t := q.Store.OpenLeases()
	for n < len(ds) {
		l := t.Gather(w, len(ds)-n, int64(w.s.visibility()))
		for l.Room() > 0 {
			if run := q.Store.PlainRun(l.Room(), now); len(run) > 0 {
				q.Store.Took(t.Add(l, run, now))
			} else if !delivery.FillLocked(q, l, now) {
				break
			}
		}
		if l.Len() == 0 {
			t.End(l, now)
			break
		}
		if w.Lease == nil {
			w.Lease, w.takenAt = l, now
		} else {
			w.more = append(w.more, l)
		}
		for k := 0; k < l.Len(); {
			r := t.Run(l, k)
			delivery.DeliverLocked(q, ds[n:], &r)
			k += len(r.Items)
			n += len(r.Items)
		}
		if l.Room() > 0 {
			break
		}
	}
	if n > 0 {
		q.Store.Tally()
		q.LookByLocked(now, alarm.CheckAge)
	}
	return n
}

// giveLocked makes ds the worker's deliveries, and what its handler is given.
func (w *Worker[T]) giveLocked(ds []delivery.Delivery[T]) {
	w.ds, w.given = ds, ds
	if w.s.one == nil {
		w.given = w.copyOf(ds)
	}
}

// copyOf returns a copy of ds in the worker's buffer.
func (w *Worker[T]) copyOf(ds []delivery.Delivery[T]) []delivery.Delivery[T] {
	b, n := w.openBuffer(), len(ds)
	if len(b.given) < n {
		b.given = make([]delivery.Delivery[T], max(n, queue.PrefetchLen, len(b.ds)))
	}
	copy(b.given, ds)
	return b.given[:n:n]
}

// ackBatch acknowledges what the worker has if all of it is in flight still and nobody
// has to hear of each, and reports whether it has. If not, some may be.
func (w *Worker[T]) ackBatch() bool {
	q := w.s.Q
	q.Mu.Lock()
	if w.Lease == nil || q.Store.Keys.Len() > 0 || q.Hooked(notice.Settled) {
		q.Mu.Unlock()
		return false
	}
	ok := q.Store.Leases.AckWhole(w.Lease)
	for _, l := range w.more {
		ok = q.Store.Leases.AckWhole(l) && ok
	}
	delivery.AckedLocked(q)
	q.Unlock()
	return ok
}
