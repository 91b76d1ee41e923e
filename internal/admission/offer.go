package admission

import (
	"context"
	"fmt"

	"github.com/gofanout/fanout/internal/deadletter"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/offer"
	"github.com/gofanout/fanout/internal/overflow"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/settings"
)

// refusedLocked returns the error of an offer that waiting would not help. What has
// expired is dead then, whatever becomes of the offer.
func (a *Admission[T]) refusedLocked(o *offer.Offer[T]) error {
	if o.Redrive != nil {
		return nil
	}
	for q, n := range o.Targets(&a.open) {
		if q.Store.Set.Overflow.Drops() {
			continue
		}
		if n > q.Store.Set.Capacity {
			return fmt.Errorf("%w: %d messages for queue %q, which has a capacity of %d", message.ErrBatchTooLarge, n, q.Name(), q.Store.Set.Capacity)
		}
		if q.Store.Set.Overflow == settings.Reject && !overflow.FindRoom(q, int64(n)) {
			return fmt.Errorf("%w: queue %q holds %d", message.ErrQueueFull, q.Name(), q.Store.Set.Capacity-int(max(q.Store.Room(), 0)))
		}
	}
	return nil
}

// admitLocked adds o to all its queues if there is room in all of them, or
// returns a full one to wait for, or an error; then it has changed nothing, but
// that a redrive may have moved some of its letters, and that what has expired may
// be dead.
func (a *Admission[T]) admitLocked(o *offer.Offer[T]) (full *queue.Queue[T], err error) {
	if o.Redrive != nil {
		return a.admitRedriveLocked(o)
	}
	n := len(o.Items)
	if n == 0 {
		a.countDuplicatesLocked(o)
		return nil, nil
	}
	if !o.Delayed && a.log.Head()+int64(n) <= a.limit && o.Fit() {
		a.stampLocked(o)
		a.appendLocked(o)
		a.showLocked(o)
		return nil, nil
	}

	// Look at all before touching any.
	if err = a.refusedLocked(o); err != nil {
		return nil, err
	}
	for q, n := range o.Targets(&a.open) {
		if q.Store.Set.Overflow == settings.Block && !hasRoomOrWants(o, q, int64(n)) {
			return q, nil
		}
	}

	// Nothing can fail from here on.
	a.stampLocked(o)
	if !o.Delayed {
		a.appendLocked(o)
	}
	for q := range a.open.All() {
		switch {
		case q.Store.Direct || o.Delayed:
			overflow.Add(q, o.Items, nil)
		case q.Store.Room() < 0:
			overflow.Drop(q, o.Items, nil)
		}
	}
	for _, r := range o.Rows {
		switch {
		case r.Q.Closing:
		case r.Q.Store.Direct || o.Delayed:
			overflow.Add(r.Q, o.Items, r.Accepted)
		case r.Q.Store.Room() < 0:
			overflow.Drop(r.Q, o.Items, r.Accepted)
		}
	}
	a.showLocked(o)
	for q := range o.Targets(&a.open) {
		if q.Store.Set.Overflow.Drops() && q.RoomWanted.Load() != 0 { // a redrive waits for what expires
			a.TurnsOfLocked(q)
		}
	}
	a.relimitLocked()
	return nil, nil
}

// hasRoomOrWants reports whether there is room for n messages of o. If not, and o
// waits, whoever makes some will come to admit waiters. RoomWanted is set before the
// last look: who makes room and does not see it has made it before that look.
func hasRoomOrWants[T any](o *offer.Offer[T], q *queue.Queue[T], n int64) bool {
	if q.Store.Room() >= n {
		return true
	}
	if !o.MayWait {
		return overflow.FindRoom(q, n)
	}
	target := n
	if !q.Store.Direct {
		target += q.Store.Log.Head()
	}
	o.Wants = q
	q.RoomWanted.Store(target)
	if !overflow.FindRoom(q, n) {
		return false
	}
	unwantLocked(o)
	return true
}

func (a *Admission[T]) stampLocked(o *offer.Offer[T]) {
	if a.open.Len() == 0 {
		a.unrouted += o.Unaccepted(len(o.Items))
	}
	at := a.timeOf(a.Now())
	for k := range o.Items {
		it := &o.Items[k]
		a.seq++
		it.Seq, it.At = a.seq, at
		a.retained.add(*it)
		if it.Ext != nil && it.Ext.TTL > 0 {
			a.Expiring.Store(it.Seq)
		}
		if it.Ext != nil && it.Ext.Dedup != "" {
			a.dedup.Remember(it.Ext.Dedup, at)
			a.lines.Published(it.Ext.Dedup)
		}
	}
	if o.Dedup {
		a.countDuplicatesLocked(o)
		a.armDedupLocked(at)
	}
}

// appendLocked appends o's items to the log, if any queue reads it, and to those of the
// queues whose filters accept them. None has a delay.
func (a *Admission[T]) appendLocked(o *offer.Offer[T]) {
	if a.log.Read() {
		for _, it := range o.Items {
			a.log.Append(it)
		}
	}
	o.Append(o.Items)
}

// RedriveLetters adds letters to q, and waits for room.
func (a *Admission[T]) RedriveLetters(ctx context.Context, q *queue.Queue[T], letters []queue.Letter) (moved int, err error) {
	o := &offer.Offer[T]{Redrive: q, Letters: letters}
	err = a.offer(ctx, o, false)
	return o.Moved, err
}

// showLocked shows consumers what was appended: all of it has been. Who finds a message in a
// queue without filters finds it in those with filters, too.
func (a *Admission[T]) showLocked(o *offer.Offer[T]) {
	o.Show()
	a.log.Publish()
}

func (a *Admission[T]) admitRedriveLocked(o *offer.Offer[T]) (full *queue.Queue[T], err error) {
	q := o.Redrive
	if q.Closing {
		return nil, fmt.Errorf("%w: queue %q", message.ErrClosed, q.Name())
	}
	for again := true; again; again = len(o.Letters) > 0 && (hasRoomOrWants(o, q, 1) || deadletter.CanSwap(q)) {
		var moved int
		o.Letters, moved = deadletter.RedriveLocked(q, o.Letters)
		o.Moved += moved
	}
	if a.limit >= 0 && q.Store.Log == a.log { // it can only have become less
		a.limit = min(a.limit, q.Store.Allow.Load())
	}
	if len(o.Letters) > 0 {
		return q, nil
	}
	unwantLocked(o) // it may have gone on by changing places
	return nil, nil
}

// unwantLocked says that o does not wait for room any more, or not where it did. The
// topic's Mu is held.
func unwantLocked[T any](o *offer.Offer[T]) {
	q := o.Wants
	if q == nil {
		return
	}
	o.Wants = nil
	q.RoomWanted.Store(0) // it was for o: of those who want room in q only the first waits for it
	if q.Expires() {
		q.Mu.Lock()
		q.ArmLocked(q.Core.Now())
		q.Mu.Unlock()
	}
}
