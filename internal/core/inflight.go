package core

import (
	"context"
	"fmt"
	"time"

	"github.com/gofanout/fanout/internal/lease"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/settings"
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

// leasesLocked returns the queue's leases, to take messages into them.
func (q *Queue[T]) leasesLocked() *lease.Table[T] {
	if q.leases == nil {
		q.leases = lease.New[T](&q.win, &message.Origin{Clock: &q.core.clock, Queue: q.name, Letter: q.letters})
	}
	return q.leases
}

// heldLocked counts what the queue holds beside what stands in the log.
func (q *Queue[T]) heldLocked() int { return q.win.Len() + q.leases.Held() }

// dueLocked counts what is due.
func (q *Queue[T]) dueLocked() int { return q.n[due] + q.leases.Expired() }

// tallyLocked counts what has begun and was acknowledged in leases since it was last
// called, and gives back its room.
func (q *Queue[T]) tallyLocked() {
	began, acked := q.leases.Tally()
	q.delivered += uint64(began)
	if acked > 0 {
		q.acked += uint64(acked)
		q.allow.Add(int64(acked))
	}
}

// takeAtLocked puts messages in flight for a caller, as many as ds has room for and
// there are. Something is ready. It sees to it that other consumers are woken for what
// remains. It may have buried some that came too late, even if it takes none.
func (q *Queue[T]) takeAtLocked(ds []Delivery[T], now int64, vis time.Duration) (n int) {
	for n < len(ds) {
		k := q.takeSomeLocked(ds[n:], now, vis)
		if k == 0 {
			break
		}
		n += k
	}
	if n > 0 {
		q.tallyLocked()
		q.lookByLocked(now, checkAge)
		if !q.alarm.armed || q.alarm.at > after(now, vis) {
			q.armLocked(now)
		}
		q.handOnLocked()
	}
	return n
}

// takeSomeLocked is takeAtLocked for messages that can be taken in one step.
func (q *Queue[T]) takeSomeLocked(ds []Delivery[T], now int64, vis time.Duration) int {
	if q.entries {
		d, ok := q.claimAtLocked(now, vis, inFlight)
		if !ok {
			return 0
		}
		ds[0] = d
		return 1
	}
	t := q.leasesLocked()
	if q.dueLocked() > 0 && !q.backlogWaitsLocked() && q.expiredFirstLocked() { // else they take turns, and stamps are in that order
		if r, ok := t.TakeExpired(len(ds), int64(vis), now); ok {
			q.backlogsTurn = true
			return q.deliverLocked(ds, &r)
		}
	}
	if run := q.plainRunLocked(len(ds), now); len(run) > 0 {
		r := t.Take(run, len(ds), int64(vis), now)
		q.cursor.Step(len(r.Items))
		q.backlogsTurn = false
		return q.deliverLocked(ds, &r)
	}
	l := t.Fill(1, int64(vis))
	first := l.Len()
	if !q.fillLocked(l, now) {
		q.checkDrainedLocked()
		return 0
	}
	r := t.Run(l, first)
	return q.deliverLocked(ds, &r)
}

// plainRunLocked returns the messages of the log that can be taken in one step, at most so
// many.
func (q *Queue[T]) plainRunLocked(most int, now int64) []item[T] {
	n := min(q.inLogLocked(), most)
	if n == 0 || q.n[backlogged] > 0 {
		return nil
	}
	if q.dueLocked() > 0 {
		if !q.backlogsTurn {
			return nil
		}
		n = 1 // they take turns
	}
	run := q.cursor.Run(n)
	if q.expired(&run[0], now) {
		return nil // the others were published later
	}
	return run[:message.PlainRun(run)]
}

// joins counts the messages of a run of the log before the first that has to be taken by
// itself: it has an ordering key, or its time to live may have passed at the given instant.
func (q *Queue[T]) joins(run []item[T], at int64) (n int) {
	for n < len(run) {
		k := message.PlainRun(run[n:])
		switch {
		case k == 0 && q.joinsAlone(&run[n], at):
			n++
		case k == 0, q.set.TTL > 0 && q.expired(&run[n], at): // the others of those were published later
			return n
		}
		n += k
	}
	return n
}

// joinsAlone is joins for one message.
func (q *Queue[T]) joinsAlone(it *item[T], at int64) bool {
	return (it.Ext == nil || it.Ext.Key == "" && it.Ext.Born == 0) && !q.expired(it, at)
}

// fillLocked takes the next message by itself into a lease, which has room, and reports
// whether there was one. It may have buried some that came too late, even if not.
func (q *Queue[T]) fillLocked(l *lease.Lease[T], now int64) bool {
	i, ok := q.nextLocked(now)
	if !ok {
		return false
	}
	h, m := q.win.At(i), q.win.Meta(i)
	q.leases.AddPast(l, h.item, message.Past{Hist: h.hist, Spent: m.Spent, Passes: m.Passes}, now)
	q.flyLocked(i)
	return true
}

// flyLocked removes entry i, whose message has been put in flight.
func (q *Queue[T]) flyLocked(i int32) {
	if k := q.keys[keyOf(&q.win.At(i).item)]; k != nil && k.head == i {
		k.head = inFlightHead
	}
	q.win.Remove(i)
}

// landLocked makes a message that was in flight an entry of the window, which is in no
// list yet.
func (q *Queue[T]) landLocked(out *lease.Out[T], hist *history, spent uint32, passes uint16) int32 {
	i := q.win.Add(held[T]{item: out.Item, hist: hist})
	m := q.win.Meta(i)
	m.Spent, m.Passes = spent, passes
	if k := q.keys[keyOf(&out.Item)]; k != nil && k.head == inFlightHead {
		k.head = i
	}
	return i
}

// deliverLocked makes deliveries of a run, and returns how many.
func (q *Queue[T]) deliverLocked(ds []Delivery[T], r *lease.Run[T]) int {
	items, ref, hist := r.Items, r.First, r.History
	ds = ds[:len(items)]
	for j := range ds {
		d, it := &ds[j], &items[j] // field by field: a literal would be copied, which costs more than all of this
		d.Body, d.ext, d.seq, d.at = it.Body, it.Ext, it.Seq, it.At
		d.q, d.hist = q, hist
		d.ref.Stamp, d.ref.Block, d.ref.Attempt = ref.Stamp+uint64(j), ref.Block, ref.Attempt
	}
	if q.hooked(notice.Delivered) {
		for j := range ds {
			q.deliveredLocked(&ds[j])
		}
	}
	return len(ds)
}

// ack acknowledges a message that is in flight, if nobody has to hear of that, and
// reports whether it has. It is the fast path of Ack.
func (q *Queue[T]) ack(ref message.Ref) bool {
	if l := q.ranging.Load(); l != nil && l.AckCurrent(ref.Stamp) {
		return true
	}
	q.mu.Lock()
	if q.keys != nil || q.hooked(notice.Settled) || !q.leases.Ack(ref) {
		q.mu.Unlock()
		return false
	}
	q.ackedLocked()
	q.unlock()
	return true
}

// ackedLocked is called when messages were acknowledged in their leases. Nothing
// becomes ready by that, so that nobody has to be woken.
func (q *Queue[T]) ackedLocked() {
	q.tallyLocked()
	if q.alarm.checkAt == 0 && q.leases.Spare() {
		q.lookByLocked(q.core.now(), checkAge)
	}
	if q.leases.Timed() == 0 {
		if !q.alarm.brief { // else the timer comes in a moment, and sees that there is nothing
			q.armLocked(0)
		}
		q.checkDrainedLocked()
	}
}

// AckAll acknowledges deliveries of this queue, and returns the errors of those that it did
// not acknowledge, by their indexes; nil if there are none.
func (q *Queue[T]) AckAll(ctx context.Context, ds []Delivery[T]) (failed map[int]error) {
	var others [16]int // those that are not acknowledged so: each is by itself
	for k := 0; k < len(ds); {
		n := 0
		q.mu.Lock()
		var acks lease.Acks[T]
		leased := q.local && q.keys == nil && !q.hooked(notice.Settled) // a settlement is not logged
		for ; k < len(ds) && n < len(others); k++ {
			if !leased || ds[k].q != q || !acks.Add(q.leases, &ds[k].ref) {
				others[n] = k
				n++
			}
		}
		acks.Done(q.leases)
		q.ackedLocked()
		q.unlock()
		for _, k := range others[:n] {
			d := &ds[k]
			var err error
			if d.q == q || d.q == nil {
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

// landedLocked ends the delivery of a message that has left its lease.
func (q *Queue[T]) landedLocked(out *lease.Out[T], v message.Verdict, now int64) {
	attempt, elapsed := int(out.Past.Spent)+1, time.Duration(now-out.Start)
	q.countEndLocked(v.Cause)
	q.noteItemLocked(notice.Settled, &out.Item, notice.Event{Attempt: attempt, Cause: message.Cause(v.Cause), Err: v.Err, Elapsed: elapsed, Wait: v.Wait})
	if v.Cause == message.Acked {
		q.leaveKeyLocked(&out.Item, inFlightHead)
		q.allow.Add(1)
		q.checkDrainedLocked()
		return
	}
	q.noteUnreturnedLocked(&out.Item, v, attempt, elapsed)
	hist := out.Past.Hist.With(q.attempt(v, out.Start, now))
	then, spent, passes := q.judge(v, out.Past.Spent, out.Past.Passes, q.expired(&out.Item, now))
	q.goOnLocked(q.landLocked(out, hist, spent, passes), then, v, now)
}

// leaseDueLocked times out what of the leases is due, and comes before what is due in
// the window: by their instants, and those of one instant in the order in which they
// were delivered. It reports whether that was anything.
func (q *Queue[T]) leaseDueLocked(now int64) bool {
	at, _, ok := q.leases.NextDue()
	return ok && at <= now && q.timeOutLeaseLocked(now)
}

func (q *Queue[T]) timeOutLeaseLocked(now int64) bool {
	until := lease.Never
	if at, stamp, ok := q.win.FirstDue(); ok {
		until = lease.Instant{At: at, Stamp: stamp}
	}
	e, ok := q.leases.Expire(now, until, q.togetherLocked())
	if !ok {
		return false
	}
	q.tallyLocked()
	if !e.Several {
		q.stale.Add(e.Out.Stamp)
		v := message.Verdict{Cause: message.TimedOut}
		if w, ok := e.Owner.(holder[T]); ok {
			v = w.timedOutLocked(&e.Out.Item, int(e.Out.Past.Spent)+1, e.Out.Start, now, time.Duration(e.At-e.Out.Start))
		}
		q.landedLocked(&e.Out, v, now)
		return true
	}
	q.rareLocked().ended[message.TimedOut] += uint64(e.Len())
	for first, n := range e.Runs() {
		q.stale.AddRun(first, n)
	}
	q.checkDrainedLocked()
	return true
}

// togetherLocked is how many attempts messages must not reach to time out together: 0
// if somebody wants to hear of each, or has to find each by itself.
func (q *Queue[T]) togetherLocked() int {
	if q.hooked(notice.Settled) || q.set.TTL > 0 || q.set.Overflow == settings.DropOldest {
		return 0
	}
	return q.set.MaxAttempts
}

// expiredFirstLocked reports whether what is due first timed out together with others,
// and is in its lease still.
func (q *Queue[T]) expiredFirstLocked() bool {
	rank, ok := q.leases.FirstExpired()
	if !ok {
		return false
	}
	i, found := q.due.First()
	return !found || rank < q.win.Meta(i).Stamp
}

// popDueFirstLocked takes the first message that is due.
func (q *Queue[T]) popDueFirstLocked() int32 {
	if q.expiredFirstLocked() {
		return q.popExpiredLocked()
	}
	i, _ := q.win.Pop(&q.due)
	return i
}

// popExpiredLocked makes the first message that timed out together with others an
// entry that is due and in no list yet.
func (q *Queue[T]) popExpiredLocked() int32 {
	out, _ := q.leases.PopExpired()
	i := q.landLocked(&out, out.Past.Hist, out.Past.Spent, out.Past.Passes)
	m := q.win.Meta(i)
	m.Stamp, m.State = out.Stamp, due
	q.n[due]++
	return i
}

// unfoldLocked makes all that timed out together entries of the window.
func (q *Queue[T]) unfoldLocked() { q.unfoldSomeLocked(q.leases.Expired()) }

// unfoldSomeLocked is unfoldLocked for the first n of them.
func (q *Queue[T]) unfoldSomeLocked(n int) {
	before, found := q.due.Last()
	for ; n > 0; n-- {
		rank, ok := q.leases.FirstExpired()
		if !ok {
			return
		}
		for found && q.win.Meta(before).Stamp > rank {
			before, found = q.win.Prev(before)
		}
		next, more := q.due.First()
		if found {
			next, more = q.win.Next(before)
		}
		for more && q.win.Meta(next).Stamp < rank {
			before, found = next, true
			next, more = q.win.Next(next)
		}
		i := q.popExpiredLocked()
		q.win.PushAfter(&q.due, i, before, found)
		before, found = i, true
	}
}

// takeBackLocked puts what waits in a lease back into the backlog, and lets go of what a
// worker has done of it.
func (q *Queue[T]) takeBackLocked(l *lease.Lease[T]) {
	q.leases.TakeBack(l, func(out lease.Out[T]) {
		q.putBackLocked(q.landLocked(&out, out.Past.Hist, out.Past.Spent, out.Past.Passes))
	})
	q.tallyLocked()
	if w, ok := l.Owner().(holder[T]); ok {
		w.forgetDoneLocked()
	}
}

// lookAtLeasesLocked is the timer's look at the leases that consumers go through. It
// detaches the current messages of those that have become old, and takes back what waits
// there. It gives back memory that is not used.
func (q *Queue[T]) lookAtLeasesLocked(now int64) {
	for _, l := range q.leases.Leases() {
		if !q.leases.Steps() {
			break
		}
		p := l.Place()
		if p == 0 || p.Waiting() == 0 && (p.Acked() || p.Detached()) {
			continue
		}
		if at := l.CheckAt(int64(checkAge)); at > now {
			q.alarm.checkBy(at)
			continue
		}
		q.leases.Detach(l, now)
		q.takeBackLocked(l)
	}
	q.tallyLocked()
	q.leases.Trim()
	if q.leases.Held() == 0 && len(q.leases.Leases()) == 0 {
		q.leases = nil
	}
}

// endAllLocked takes everything that is in flight or waits out of the leases: it ends
// the deliveries, of which it tells f, and which are stale from then on.
func (q *Queue[T]) endAllLocked(f func(out *lease.Out[T], owner lease.Consumer[T])) {
	q.unfoldLocked()
	now := q.core.now()
	for _, l := range q.leases.Leases() {
		q.takeBackLocked(l)
		q.leases.Detach(l, now)
	}
	for _, ref := range q.leases.InFlight() {
		_, owner, _ := q.leases.Lookup(ref)
		if out, ok := q.leases.Extract(ref, now); ok {
			f(&out, owner)
		}
	}
	q.tallyLocked()
	q.leases.Trim()
}
