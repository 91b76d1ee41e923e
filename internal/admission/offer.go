package admission

import (
	"context"
	"fmt"

	"github.com/gofanout/fanout/internal/deadletter"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/routing"
	"github.com/gofanout/fanout/internal/settings"
)

// An offer is what one call wants to add to the queues: messages published, or
// dead letters redriven to one queue. It is the call's until it waits for room, and
// used again after a publish that did not.
type offer[T any] struct {
	routing.Answer[T] // of the filters, to items

	items   []message.Item[T]
	delayed bool // some item has a delay of its own
	dedup   bool // some item has a deduplication ID
	// duplicates counts the items taken out for theirs.
	duplicates uint64
	waits      bool            // if there is no room, it will wait
	wants      *queue.Queue[T] // whose RoomWanted says how much room it waits for; nil: none

	redrive *queue.Queue[T]
	letters []queue.Delivery[T]
	moved   int
}

// offerBytes is about how much room an offer may have that is used again.
const offerBytes = 64 << 10

// newOffer returns an empty offer.
func (a *Admission[T]) newOffer() *offer[T] {
	if o, ok := a.offers.Get().(*offer[T]); ok {
		return o
	}
	return new(offer[T])
}

// doneWith says that nobody will look at o again, unless it waited.
func (a *Admission[T]) doneWith(o *offer[T]) {
	if o.waits || uintptr(cap(o.items)) > offerBytes/o.ItemBytes() || o.Words() > offerBytes/8 {
		return
	}
	o.Reset()
	clear(o.items)
	o.delayed, o.dedup, o.duplicates = false, false, 0
	o.items = o.items[:0]
	a.offers.Put(o)
}

// targets yields the queues that an offer goes to with the number of messages
// that each would get. The topic's Mu is held.
func (a *Admission[T]) targets(o *offer[T]) func(yield func(q *queue.Queue[T], n int) bool) {
	return func(yield func(*queue.Queue[T], int) bool) {
		if o.redrive != nil {
			if !o.redrive.Closing {
				yield(o.redrive, 1)
			}
			return
		}
		for q := range a.open.All() {
			if len(o.items) == 0 || !yield(q, len(o.items)) {
				return
			}
		}
		for _, r := range o.Rows {
			if !r.Q.Closing && !yield(r.Q, len(r.Accepted)) {
				return
			}
		}
	}
}

// refusedLocked returns the error of an offer that waiting would not help. What has
// expired is dead then, whatever becomes of the offer.
func (a *Admission[T]) refusedLocked(o *offer[T]) error {
	if o.redrive != nil {
		return nil
	}
	for q, n := range a.targets(o) {
		if q.Set.Overflow.Drops() {
			continue
		}
		if n > q.Set.Capacity {
			return fmt.Errorf("%w: %d messages for queue %q, which has a capacity of %d", message.ErrBatchTooLarge, n, q.QueueName, q.Set.Capacity)
		}
		if q.Set.Overflow == settings.Reject && !q.FindRoom(int64(n)) {
			return fmt.Errorf("%w: queue %q holds %d", message.ErrQueueFull, q.QueueName, q.Set.Capacity-int(max(q.Room(), 0)))
		}
	}
	return nil
}

// admitLocked adds o to all its queues if there is room in all of them, or
// returns a full one to wait for, or an error; then it has changed nothing, but
// that a redrive may have moved some of its letters, and that what has expired may
// be dead.
func (a *Admission[T]) admitLocked(o *offer[T]) (full *queue.Queue[T], err error) {
	if o.redrive != nil {
		return a.admitRedriveLocked(o)
	}
	n := len(o.items)
	if n == 0 {
		a.countDuplicatesLocked(o)
		return nil, nil
	}
	if !o.delayed && a.log.Head()+int64(n) <= a.limit && o.Fit() {
		a.stampLocked(o)
		a.appendLocked(o)
		a.showLocked(o)
		return nil, nil
	}

	// Look at all before touching any.
	if err = a.refusedLocked(o); err != nil {
		return nil, err
	}
	for q, n := range a.targets(o) {
		if q.Set.Overflow == settings.Block && !o.hasRoomOrWants(q, int64(n)) {
			return q, nil
		}
	}

	// Nothing can fail from here on.
	a.stampLocked(o)
	if !o.delayed {
		a.appendLocked(o)
	}
	for q := range a.open.All() {
		switch {
		case q.Direct || o.delayed:
			q.Add(o.items, nil)
		case q.Room() < 0:
			q.Overflow(o.items, nil)
		}
	}
	for _, r := range o.Rows {
		switch {
		case r.Q.Closing:
		case r.Q.Direct || o.delayed:
			r.Q.Add(o.items, r.Accepted)
		case r.Q.Room() < 0:
			r.Q.Overflow(o.items, r.Accepted)
		}
	}
	a.showLocked(o)
	for q := range a.targets(o) {
		if q.Set.Overflow.Drops() && q.RoomWanted.Load() != 0 { // a redrive waits for what expires
			a.TurnsOfLocked(q)
		}
	}
	a.relimitLocked()
	return nil, nil
}

// hasRoomOrWants reports whether there is room for n messages of o. If not, and o
// waits, whoever makes some will come to admit waiters. RoomWanted is set before the
// last look: who makes room and does not see it has made it before that look.
func (o *offer[T]) hasRoomOrWants(q *queue.Queue[T], n int64) bool {
	if q.Room() >= n {
		return true
	}
	if !o.waits {
		return q.FindRoom(n)
	}
	target := n
	if !q.Direct {
		target += q.Log.Head()
	}
	o.wants = q
	q.RoomWanted.Store(target)
	if !q.FindRoom(n) {
		return false
	}
	o.unwantLocked()
	return true
}

func (a *Admission[T]) stampLocked(o *offer[T]) {
	if a.open.Len() == 0 {
		a.unrouted += o.Unaccepted(len(o.items))
	}
	at := a.timeOf(a.Now())
	for k := range o.items {
		it := &o.items[k]
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
	if o.dedup {
		a.countDuplicatesLocked(o)
		a.armDedupLocked(at)
	}
}

// appendLocked appends o's items to the log, if any queue reads it, and to those of the
// queues whose filters accept them. None has a delay.
func (a *Admission[T]) appendLocked(o *offer[T]) {
	if a.log.Read() {
		for _, it := range o.items {
			a.log.Append(it)
		}
	}
	o.Append(o.items)
}

// RedriveLetters adds letters to q, and waits for room.
func (a *Admission[T]) RedriveLetters(ctx context.Context, q *queue.Queue[T], letters []queue.Delivery[T]) (moved int, err error) {
	o := &offer[T]{redrive: q, letters: letters}
	err = a.offer(ctx, o, false)
	return o.moved, err
}

// showLocked shows consumers what was appended: all of it has been. Who finds a message in a
// queue without filters finds it in those with filters, too.
func (a *Admission[T]) showLocked(o *offer[T]) {
	o.Show()
	a.log.Publish()
}

func (a *Admission[T]) admitRedriveLocked(o *offer[T]) (full *queue.Queue[T], err error) {
	q := o.redrive
	if q.Closing {
		return nil, fmt.Errorf("%w: queue %q", message.ErrClosed, q.QueueName)
	}
	for again := true; again; again = len(o.letters) > 0 && (o.hasRoomOrWants(q, 1) || q.CanSwap()) {
		var moved int
		o.letters, moved = deadletter.RedriveLocked(q, o.letters)
		o.moved += moved
	}
	if a.limit >= 0 && q.Log == a.log { // it can only have become less
		a.limit = min(a.limit, q.Allow.Load())
	}
	if len(o.letters) > 0 {
		return q, nil
	}
	o.unwantLocked() // it may have gone on by changing places
	return nil, nil
}

// unwantLocked says that o does not wait for room any more, or not where it did. The
// topic's Mu is held.
func (o *offer[T]) unwantLocked() {
	q := o.wants
	if q == nil {
		return
	}
	o.wants = nil
	q.RoomWanted.Store(0) // it was for o: of those who want room in q only the first waits for it
	if q.Expires() {
		q.Mu.Lock()
		q.ArmLocked(q.Core.Now())
		q.Mu.Unlock()
	}
}
