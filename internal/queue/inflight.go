package queue

import (
	"context"
	"fmt"
	"time"

	"github.com/gofanout/fanout/internal/lease"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
)

// What is in flight is in the queue's leases, see package lease. This file takes
// messages into them, and ends their deliveries. A delivery's ref names it there.
//
// Messages that time out together stay in their lease, ready to be taken again; they
// stand among what is due by when they timed out, as their stamps say. Whoever wants
// to see them one by one has them made entries of the window (unfoldLocked).
//
// Dead letters are in entries of the window all the time: who redrives them or looks at
// them finds them there again.

// LeasesLocked returns the queue's leases, to take messages into them.
func (q *Queue[T]) LeasesLocked() *lease.Table[T] {
	if q.Leases == nil {
		q.Leases = lease.New[T](&q.Win, &message.Origin{Clock: &q.Core.Clock, Queue: q.QueueName, Letter: q.Letters})
	}
	return q.Leases
}

// HeldLocked counts what the queue holds beside what stands in the log.
func (q *Queue[T]) HeldLocked() int { return q.Win.Len() + q.Leases.Held() }

// DueLocked counts what is due.
func (q *Queue[T]) DueLocked() int { return q.N[Due] + q.Leases.Expired() }

// TallyLocked counts what has begun and was acknowledged in leases since it was last
// called, and gives back its room.
func (q *Queue[T]) TallyLocked() {
	began, acked := q.Leases.Tally()
	q.Delivered += uint64(began)
	if acked > 0 {
		q.Acked += uint64(acked)
		q.Allow.Add(int64(acked))
	}
}

// TakeAtLocked puts messages in flight for a caller, as many as ds has room for and
// there are. Something is ready. It sees to it that other consumers are woken for what
// remains. It may have dead-lettered some that came too late, even if it takes none.
func (q *Queue[T]) TakeAtLocked(ds []Delivery[T], now int64, vis time.Duration) (n int) {
	for n < len(ds) {
		k := q.takeSomeLocked(ds[n:], now, vis)
		if k == 0 {
			break
		}
		n += k
	}
	if n > 0 {
		q.TallyLocked()
		q.LookByLocked(now, CheckAge)
		if !q.Alarm.Armed || q.Alarm.At > After(now, vis) {
			q.ArmLocked(now)
		}
		q.HandOnLocked()
	}
	return n
}

// takeSomeLocked is TakeAtLocked for messages that can be taken in one step.
func (q *Queue[T]) takeSomeLocked(ds []Delivery[T], now int64, vis time.Duration) int {
	if q.Entries {
		d, ok := q.ClaimAtLocked(now, vis, InFlight)
		if !ok {
			return 0
		}
		ds[0] = d
		return 1
	}
	t := q.LeasesLocked()
	if q.DueLocked() > 0 && !q.backlogWaitsLocked() && q.expiredFirstLocked() { // else they take turns, and stamps are in that order
		if r, ok := t.TakeExpired(len(ds), int64(vis), now); ok {
			q.BacklogsTurn = true
			return q.DeliverLocked(ds, &r)
		}
	}
	if run := q.PlainRunLocked(len(ds), now); len(run) > 0 {
		var r lease.Run[T]
		t.Take(&r, run, len(ds), int64(vis), now)
		q.Cursor.Step(len(r.Items))
		q.BacklogsTurn = false
		return q.DeliverLocked(ds, &r)
	}
	l := t.Fill(1, int64(vis))
	first := l.Len()
	if !q.FillLocked(l, now) {
		q.CheckDrainedLocked()
		return 0
	}
	r := t.Run(l, first)
	return q.DeliverLocked(ds, &r)
}

// PlainRunLocked returns the messages of the log that can be taken in one step, at most so
// many.
func (q *Queue[T]) PlainRunLocked(most int, now int64) []Item[T] {
	n := min(q.InLogLocked(), most)
	if n == 0 || q.N[Backlogged] > 0 {
		return nil
	}
	if q.DueLocked() > 0 {
		if !q.BacklogsTurn {
			return nil
		}
		n = 1 // they take turns
	}
	run := q.Cursor.Run(n)
	if q.Expired(&run[0], now) {
		return nil // the others were published later
	}
	return run[:message.PlainRun(run)]
}

// Joins counts the messages of a run of the log before the first that has to be taken by
// itself: it has an ordering key, or its time to live may have passed at the given instant.
func (q *Queue[T]) Joins(run []Item[T], at int64) (n int) {
	for n < len(run) {
		k := message.PlainRun(run[n:])
		switch {
		case k == 0 && q.joinsAlone(&run[n], at):
			n++
		case k == 0, q.Set.TTL > 0 && q.Expired(&run[n], at): // the others of those were published later
			return n
		}
		n += k
	}
	return n
}

// joinsAlone is joins for one message.
func (q *Queue[T]) joinsAlone(it *Item[T], at int64) bool {
	return (it.Ext == nil || it.Ext.Key == "" && it.Ext.Born == 0) && !q.Expired(it, at)
}

// FillLocked takes the next message by itself into a lease, which has room, and reports
// whether there was one. It may have dead-lettered some that came too late, even if not.
func (q *Queue[T]) FillLocked(l *lease.Lease[T], now int64) bool {
	i, ok := q.nextLocked(now)
	if !ok {
		return false
	}
	h, m := q.Win.At(i), q.Win.Meta(i)
	q.Leases.AddPast(l, h.Item, message.Past{Hist: h.Hist, Spent: m.Spent, Passes: m.Passes}, now)
	q.flyLocked(i)
	return true
}

// flyLocked removes entry i, whose message has been put in flight.
func (q *Queue[T]) flyLocked(i int32) {
	if k := q.Keys[keyOf(&q.Win.At(i).Item)]; k != nil && k.head == i {
		k.head = inFlightHead
	}
	q.Win.Remove(i)
}

// landLocked makes a message that was in flight an entry of the window, which is in no
// list yet.
func (q *Queue[T]) landLocked(out *lease.Out[T], hist *History, spent uint32, passes uint16) int32 {
	i := q.Win.Add(Held[T]{Item: out.Item, Hist: hist})
	m := q.Win.Meta(i)
	m.Spent, m.Passes = spent, passes
	if k := q.Keys[keyOf(&out.Item)]; k != nil && k.head == inFlightHead {
		k.head = i
	}
	return i
}

// DeliverLocked makes deliveries of a run, and returns how many.
func (q *Queue[T]) DeliverLocked(ds []Delivery[T], r *lease.Run[T]) int {
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
			q.DeliveredLocked(&ds[j])
		}
	}
	return len(ds)
}

// ack acknowledges a message that is in flight, if nobody has to hear of that, and
// reports whether it has. It is the fast path of Ack.
func (q *Queue[T]) ack(ref message.Ref) bool {
	if l := q.Ranging.Load(); l != nil && l.AckCurrent(ref.Stamp) {
		return true
	}
	q.Mu.Lock()
	if q.Keys != nil || q.Hooked(notice.Settled) || !q.Leases.Ack(ref) {
		q.Mu.Unlock()
		return false
	}
	q.AckedLocked()
	q.Unlock()
	return true
}

// AckedLocked is called when messages were acknowledged in their leases. Nothing
// becomes ready by that, so that nobody has to be woken.
func (q *Queue[T]) AckedLocked() {
	q.TallyLocked()
	if q.Alarm.CheckAt == 0 && q.Leases.Spare() {
		q.LookByLocked(q.Core.Now(), CheckAge)
	}
	if q.Leases.Timed() == 0 {
		if !q.Alarm.Brief { // else the timer comes in a moment, and sees that there is nothing
			q.ArmLocked(0)
		}
		q.CheckDrainedLocked()
	}
}

// AckAll acknowledges deliveries of this queue, and returns the errors of those that it did
// not acknowledge, by their indexes; nil if there are none.
func (q *Queue[T]) AckAll(ctx context.Context, ds []Delivery[T]) (failed map[int]error) {
	var others [16]int // those that are not acknowledged so: each is by itself
	for k := 0; k < len(ds); {
		n := 0
		q.Mu.Lock()
		var acks lease.Acks[T]
		leased := q.Local && q.Keys == nil && !q.Hooked(notice.Settled) // a settlement is not logged
		for ; k < len(ds) && n < len(others); k++ {
			if !leased || ds[k].Q != q || !acks.Add(q.Leases, &ds[k].Ref) {
				others[n] = k
				n++
			}
		}
		acks.Done(q.Leases)
		q.AckedLocked()
		q.Unlock()
		for _, k := range others[:n] {
			d := &ds[k]
			var err error
			if d.Q == q || d.Q == nil {
				err = d.Ack(ctx)
			} else {
				err = fmt.Errorf("%w: a delivery of queue %q", message.ErrInvalidOption, d.Queue())
			}
			if err != nil {
				if failed == nil {
					failed = make(map[int]error)
				}
				failed[k] = fmt.Errorf("message %s: %w", d.ID(), err)
			}
		}
	}
	return failed
}

// LandedLocked ends the delivery of a message that has left its lease.
func (q *Queue[T]) LandedLocked(out *lease.Out[T], v message.Verdict, now int64) {
	attempt, elapsed := int(out.Past.Spent)+1, time.Duration(now-out.Start)
	q.CountEndLocked(v.Cause)
	q.NoteItemLocked(notice.Settled, &out.Item, notice.Event{Attempt: attempt, Cause: message.Cause(v.Cause), Err: v.Err, Elapsed: elapsed, Wait: v.Wait})
	if v.Cause == message.Acked {
		q.LeaveKeyLocked(&out.Item, inFlightHead)
		q.Allow.Add(1)
		q.CheckDrainedLocked()
		return
	}
	q.NoteUnreturnedLocked(&out.Item, v, attempt, elapsed)
	hist := out.Past.Hist.With(q.Attempt(v, out.Start, now))
	then, spent, passes := q.Judge(v, out.Past.Spent, out.Past.Passes, q.Expired(&out.Item, now))
	q.goOnLocked(q.landLocked(out, hist, spent, passes), then, v, now)
}

// TakeBackLocked puts what waits in a lease back into the backlog, and lets go of what a
// worker has done of it.
func (q *Queue[T]) TakeBackLocked(l *lease.Lease[T]) {
	q.Leases.TakeBack(l, func(out lease.Out[T]) {
		q.putBackLocked(q.landLocked(&out, out.Past.Hist, out.Past.Spent, out.Past.Passes))
	})
	q.TallyLocked()
	if w, ok := l.Owner().(holder[T]); ok {
		w.ForgetDoneLocked()
	}
}

// lookAtLeasesLocked is the timer's look at the leases that consumers go through. It
// detaches the current messages of those that have become old, and takes back what waits
// there. It gives back memory that is not used.
func (q *Queue[T]) lookAtLeasesLocked(now int64) {
	for _, l := range q.Leases.Leases() {
		if !q.Leases.Steps() {
			break
		}
		p := l.Place()
		if p == 0 || p.Waiting() == 0 && (p.Acked() || p.Detached()) {
			continue
		}
		if at := l.CheckAt(int64(CheckAge)); at > now {
			q.Alarm.checkBy(at)
			continue
		}
		q.Leases.Detach(l, now)
		q.TakeBackLocked(l)
	}
	q.TallyLocked()
	q.Leases.Trim()
	if q.Leases.Held() == 0 && len(q.Leases.Leases()) == 0 {
		q.Leases = nil
	}
}

// endAllLocked takes everything that is in flight or waits out of the leases: it ends
// the deliveries, of which it tells f, and which are stale from then on.
func (q *Queue[T]) endAllLocked(f func(out *lease.Out[T], owner lease.Consumer[T])) {
	q.unfoldLocked()
	now := q.Core.Now()
	for _, l := range q.Leases.Leases() {
		q.TakeBackLocked(l)
		q.Leases.Detach(l, now)
	}
	for _, ref := range q.Leases.InFlight() {
		_, owner, _ := q.Leases.Lookup(ref)
		if out, ok := q.Leases.Extract(ref, now); ok {
			f(&out, owner)
		}
	}
	q.TallyLocked()
	q.Leases.Trim()
}
