package core

import (
	"github.com/gofanout/fanout/internal/lease"
	"github.com/gofanout/fanout/internal/notice"
)

// A batch is a lease of which all has begun, several if it is longer, and is acknowledged
// in one step when the handler returns nil.
//
// The slice that a handler is given is its to keep and to change, so it is
// neither what the worker settles nor what it uses again. Such slices are cut
// from slabs while batches come quickly one after the other. A slab keeps all in
// memory that any of its batches holds, so it is dropped a millisecond later.

// slabLen is how many deliveries a slab has room for.
const slabLen = 4 * prefetchLen

// A slab is room for batches to come. The queue's mu guards it.
type slab[T any] struct {
	room  []Delivery[T]
	cutAt int64 // when the last batch was cut from it
}

// claimLocked claims as many messages as the handler takes, if the subscriber may have
// any, and reports whether it has.
func (w *worker[T]) claimLocked() bool {
	s, q := w.s, w.s.q
	if s.stopping || s.limitedLocked() > 0 || !q.servesLocked() {
		return false
	}
	n := min(s.most, q.readyLocked())
	if n < s.most && q.takeAllBackLocked() { // it was published earlier
		n = min(s.most, q.readyLocked())
	}
	if n == 0 {
		return false
	}
	now := q.core.now()
	if !s.pass(now) {
		return false
	}
	ds := w.roomFor(n)
	if w.takeBatchLocked(ds, now) {
		s.passMore(n - 1)
		w.giveContextsLocked(1)
		w.giveLocked(ds, now)
		return true
	}
	w.endLeasesLocked()
	w.forget(0)
	if q.entries {
		n = w.claimEntriesLocked(ds, now)
	} else {
		n = w.claimLeasesLocked(ds, now)
	}
	if n == 0 {
		s.unpass(now)
		q.checkDrainedLocked()
		return false
	}
	s.passMore(n - 1)
	q.armLocked(now)
	w.giveContextsLocked(1)
	w.giveLocked(ds[:n], now)
	return true
}

// takeBatchLocked takes messages from the log into leases, if all are there and can be taken together. That
// is what claimLeasesLocked would do, but at a lower price.
func (w *worker[T]) takeBatchLocked(ds []Delivery[T], now int64) bool {
	s, q := w.s, w.s.q
	if !s.prefetches || q.dueLocked() > 0 || q.n[backlogged] > 0 || q.inLogLocked() < len(ds) || !q.joinLocked(len(ds), now) {
		return false
	}
	t, vis := q.leasesLocked(), int64(s.visibility())
	if w.stepping || len(w.more) > 0 || len(ds) > lease.Len || w.lease != nil && !t.Again(w.lease, len(ds), now) {
		w.endLeasesLocked()
	}
	for n := 0; n < len(ds); n += lease.Len {
		part := ds[n:min(n+lease.Len, len(ds))]
		l := w.lease
		if n > 0 {
			l = t.Whole(w, len(part), now, vis)
			w.more = append(w.more, l)
		} else if l == nil {
			l = t.Whole(w, len(part), now, vis)
			w.lease = l
		}
		first := t.First(l)
		for k := 0; k < len(part); {
			run := q.cursor.Run(len(part) - k)
			q.copyOut(part[k:k+len(run)], run, first.Next(k))
			q.cursor.Step(len(run))
			k += len(run)
		}
	}
	w.tookLocked(ds, now)
	if q.hooked(notice.Delivered) {
		for k := range ds {
			q.deliveredLocked(&ds[k])
		}
	}
	q.tallyLocked()
	q.lookByLocked(now, checkAge)
	if !q.alarm.armed || q.alarm.at > after(now, s.visibility()) {
		q.armLocked(now)
	}
	return true
}

// claimEntriesLocked claims messages that are entries of the window all the time.
func (w *worker[T]) claimEntriesLocked(ds []Delivery[T], now int64) (n int) {
	for ; n < len(ds); n++ {
		d, ok := w.s.q.claimAtLocked(now, w.s.visibility(), inHandler)
		if !ok {
			break
		}
		ds[n] = d
	}
	return n
}

// claimLeasesLocked claims messages in leases.
func (w *worker[T]) claimLeasesLocked(ds []Delivery[T], now int64) (n int) {
	q := w.s.q
	t := q.leasesLocked()
	for n < len(ds) {
		l := t.Gather(w, len(ds)-n, int64(w.s.visibility()))
		for l.Room() > 0 {
			if run := q.plainRunLocked(l.Room(), now); len(run) > 0 {
				q.cursor.Step(t.Add(l, run, now))
				q.backlogsTurn = false
			} else if !q.fillLocked(l, now) {
				break
			}
		}
		if l.Len() == 0 {
			t.End(l, now)
			break
		}
		if w.lease == nil {
			w.lease, w.takenAt = l, now
		} else {
			w.more = append(w.more, l)
		}
		for k := 0; k < l.Len(); {
			r := t.Run(l, k)
			q.deliverLocked(ds[n:], &r)
			k += len(r.Items)
			n += len(r.Items)
		}
		if l.Room() > 0 {
			break
		}
	}
	if n > 0 {
		q.tallyLocked()
		q.lookByLocked(now, checkAge)
	}
	return n
}

// giveLocked makes ds the worker's deliveries, and what its handler is given.
func (w *worker[T]) giveLocked(ds []Delivery[T], now int64) {
	w.ds, w.given = ds, ds
	if w.s.keeps {
		w.given = w.s.slab.cut(len(ds), now)
		copy(w.given, ds)
	}
}

// cut returns a slice of n deliveries that nobody else has.
func (s *slab[T]) cut(n int, now int64) []Delivery[T] {
	quick := now-s.cutAt < int64(checkAge)
	s.cutAt = now
	switch {
	case len(s.room) >= n:
	case !quick || n > slabLen/2:
		return make([]Delivery[T], n)
	default:
		s.room = make([]Delivery[T], slabLen)
	}
	ds := s.room[:n:n]
	s.room = s.room[n:]
	if len(s.room) == 0 {
		s.room = nil // an empty slice would keep the array too
	}
	return ds
}

// drop lets go of the room that is left.
func (s *slab[T]) drop() {
	if s != nil {
		s.room = nil
	}
}

// ackBatch acknowledges what the worker has if all of it is in flight still and nobody
// has to hear of each, and reports whether it has. If not, some may be.
func (w *worker[T]) ackBatch() bool {
	q := w.s.q
	q.mu.Lock()
	if w.lease == nil || q.keys != nil || q.hooked(notice.Settled) {
		q.mu.Unlock()
		return false
	}
	ok := q.leases.AckWhole(w.lease)
	for _, l := range w.more {
		ok = q.leases.AckWhole(l) && ok
	}
	q.ackedLocked()
	q.unlock()
	return ok
}
