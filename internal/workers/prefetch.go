package workers

import (
	"time"

	"github.com/gofanout/fanout/internal/alarm"
	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/handling"
	"github.com/gofanout/fanout/internal/lease"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/store"
)

// A worker with a handler for single messages prefetches them: it takes up to PrefetchLen
// of them from the log into a lease in step, under one lock and one reading of the clock,
// and makes deliveries of all. Then it runs its handler on one after the other, and what
// that costs beside the handler is one atomic step a message, which says at once that the
// one before is acknowledged and that the next one has begun. If somebody hears of each
// message, or the clock decides when the next may begin, that step is two: see timed.go.
//
// What has an ordering key is taken by itself, and so is what may expire before the timer
// has looked at the lease: see Joins of package store.
//
// All others work on the lease under the queue's Mu, see package lease:
//
//   - what is done is acknowledged; it is counted, and its room given back, when
//     somebody asks (Count of package store), at the latest when the lease is used up or a
//     millisecond old;
//   - the current message is in flight. Whoever needs more of it than that detaches it:
//     then it is in flight by its bit, and the worker, whose next step fails, learns of it;
//   - what waits is ready, and whoever has nothing better to do takes it back into the
//     backlog. So no message waits behind a slow handler while another consumer is idle.
//
// A lease that is a millisecond old is looked at by the queue's timer, which takes back
// what waits, so that newer messages do not overtake it for longer, and detaches the
// current message: its time-out counts from there, at most a millisecond late and never
// early. The first message of a lease began when it was taken, and its time-out is exact.
//
// All other messages, and the batch of a batch handler, are a lease of which all has begun,
// so that the time-outs are exact: see claimLocked.

// prefetchTime is how long what is prefetched should last.
const prefetchTime = int64(50 * time.Microsecond)

// prefetchLocked takes messages from the log, and begins the first, if there is anything
// to take in this way.
func (w *Worker[T]) prefetchLocked(now int64) bool {
	s, q := w.s, w.s.Q
	n := q.Store.InLog()
	if s.Stopping || !q.ServesLocked() || q.Store.Due() > 0 || q.Store.In(store.Backlogged) > 0 {
		return false
	}
	run := q.Store.Cursor.Run(min(n, w.sizeLocked(now, n)))
	k := message.PlainRun(run)
	if k < len(run) || q.Store.Set.TTL > 0 {
		k = q.Store.Joins(run, message.After(now, alarm.CheckAge))
	}
	if k == 0 || w.timed != nil && !w.beginLocked(now) {
		return false
	}
	t := q.Store.OpenLeases()
	if !w.stepping || !t.Again(w.Lease, k, now) {
		w.endLeasesLocked()
		w.Lease, w.stepping = t.InStep(w, k, now, int64(s.visibility())), true
	}
	w.keepLocked(w.roomFor(k), run, now)
	w.giveContextsLocked(k)
	q.LookByLocked(now, min(alarm.CheckAge, q.Store.Set.Visibility))
	return true
}

// keepLocked makes ds, which the worker has room for, deliveries of the first messages of
// run, which are in its lease.
func (w *Worker[T]) keepLocked(ds []delivery.Delivery[T], run []message.Item[T], now int64) {
	q := w.s.Q
	delivery.CopyOut(q, ds, run, q.Store.Leases.First(w.Lease))
	q.Store.Cursor.Step(len(ds))
	w.tookLocked(ds, now)
}

// tookLocked says that the worker has taken what ds are deliveries of.
func (w *Worker[T]) tookLocked(ds []delivery.Delivery[T], now int64) {
	w.ds, w.takenAt = ds, now
	if len(ds) > 1 {
		w.made = len(ds)
	}
	w.s.Q.Store.BacklogsTurn = false
}

// Message returns message k of a lease that the worker has.
func (w *Worker[T]) Message(l *lease.Lease[T], k int) message.Item[T] {
	return w.ds[w.kept(l, k)].Item()
}

// At is when message k of a lease that the worker has was published. forget leaves that alone.
func (w *Worker[T]) At(l *lease.Lease[T], k int) int64 { return w.ds[w.kept(l, k)].At }

// kept is where message k of a lease is among what the worker keeps.
func (w *Worker[T]) kept(l *lease.Lease[T], k int) int {
	for n, other := range w.more {
		if l == other {
			return k + (n+1)*lease.Len // all but the last are full
		}
	}
	return k
}

// sizeLocked says how many messages to take: more as long as the handlers return
// within microseconds, and never so many that other consumers find none.
func (w *Worker[T]) sizeLocked(now int64, ready int) int {
	switch {
	case len(w.ds) == 0:
		w.size = 1
	case now-w.takenAt < prefetchTime:
		w.size = min(2*w.size, queue.PrefetchLen)
	default:
		w.size = max(w.size/4, 1)
	}
	if c := w.s.Q.Group.Consumers + int(w.s.Q.Group.Receivers.N) + int(w.s.Q.Group.Ranges); c > 1 {
		return min(w.size, max(ready/(2*c), 1))
	}
	return w.size
}

// roomFor returns room for n deliveries, some of which may keep what is over.
func (w *Worker[T]) roomFor(n int) []delivery.Delivery[T] {
	if w.made > n || n == 1 {
		w.forget(n)
	}
	if n == 1 {
		return w.one[:]
	}
	b := w.openBuffer()
	if len(b.ds) < n {
		b.ds, b.given, w.made = make([]delivery.Delivery[T], max(n, queue.PrefetchLen)), nil, 0
	}
	return b.ds[:n]
}

// openBuffer returns the worker's buffer.
func (w *Worker[T]) openBuffer() *buffer[T] {
	if w.buffer == nil {
		w.buffer, _ = w.s.Q.Core.Buffers.Get().(*buffer[T])
		if w.buffer == nil {
			w.buffer = new(buffer[T])
		}
	}
	return w.buffer
}

// forget lets go of all deliveries of the worker's buffer but n.
func (w *Worker[T]) forget(n int) {
	if n == 1 {
		n = 0
	}
	if w.made > n {
		clear(w.buffer.ds[n:w.made])
		if w.buffer.given != nil {
			clear(w.buffer.given[n:w.made])
		}
		w.made = n
	}
}

// A buffer is where workers keep what is in their leases, empty between two uses. Of a
// delivery that is no longer in ds, there is no copy in given.
type buffer[T any] struct {
	ds    []delivery.Delivery[T]
	given []delivery.Delivery[T] // what a batch handler is given
}

// runLease runs the handler on what was prefetched, and goes on with more for as long as
// there is any.
func (w *Worker[T]) runLease() {
	ended := false
	w.running = true
	defer func() {
		if ended || !w.running {
			return // a panic of our own is not to be hidden
		}
		v := unreturned(recover())
		w.settleCurrent(&v)
	}()
	for more := true; more; {
		var v *message.Verdict
		if w.timed != nil {
			w.tellDelivered()
		}
		if ctx, err := w.handleLease(); err != nil {
			v = judgedRun(ctx, err)
		} else if w.timed != nil && w.stepTimed() {
			continue
		}
		w.running = false
		more = w.stepOn(v)
		w.running = true
	}
	ended = true
}

// judgedRun is judgeRun for an error. Only a run that failed pays for a verdict: were it
// inlined, the stack of each worker would have to grow.
//
//go:noinline
func judgedRun(ctx *handling.Context, err error) *message.Verdict {
	v := judgeRun(ctx, err)
	return &v
}

// handleLease is the fast path of a delivery: it runs the handler on one message
// after the other until one needs more than to be acknowledged, or somebody has
// detached it, or there is no next. It returns the error of the last run and its
// context. A timed worker runs the handler once, and steps on by itself.
func (w *Worker[T]) handleLease() (ctx *handling.Context, err error) {
	l, handler, ds := w.Lease, w.handlers.one, w.ds
	p, ctxs := l.Word.Place(), w.ctxs[:len(ds)]
	if w.timed != nil {
		p = p.Last()
	}
	for k := int(p.Stamp() - ds[0].Ref.Stamp); k < len(ds); k++ {
		ctx = &ctxs[k]
		if err = handler(ctx, ds[k]); err != nil {
			break
		}
		next, ok := l.Word.Step(p)
		if !ok {
			break
		}
		p = next
	}
	return ctx, err
}

// stepOn settles the current message and begins the next, of this lease or of
// the next one. It reports whether there is one. Without a verdict the message is
// acknowledged.
func (w *Worker[T]) stepOn(v *message.Verdict) bool {
	q := w.s.Q
	if v != nil {
		w.settleCurrent(v)
	}
	q.Mu.Lock()
	if v == nil {
		if w.ackCurrentLocked() {
			w.tellAcked()
		} else if q.Pending.Any() || q.RoomIsWanted() {
			q.Unlock()
			q.Mu.Lock()
		}
	}
	more := w.nextLocked()
	q.Mu.Unlock()
	return more
}

// ackCurrentLocked acknowledges the current message, and reports whether that is to be told.
func (w *Worker[T]) ackCurrentLocked() (told bool) {
	q, d := w.s.Q, &w.ds[w.CurrentLocked()]
	if q.Store.Leases.Ack(d.Ref) && w.timed != nil && q.Hooked(notice.Settled) {
		w.noteAcked(d, q.Seq.Add(1), q.Core.Now())
		told = true
	}
	q.Store.Tally()
	d.Forget()
	w.unstickLocked()
	if q.Drained != nil {
		q.CheckDrainedLocked()
	}
	return told
}

// settleCurrent settles the current message as v says, which is no acknowledgement. Were it
// inlined, the stack of each worker would have to grow.
//
//go:noinline
func (w *Worker[T]) settleCurrent(v *message.Verdict) {
	q := w.s.Q
	w.endTimeout()
	*v = v.Told()
	v.Wait = delivery.WaitAfter(q, *v, 1)
	q.Mu.Lock()
	d := &w.ds[w.CurrentLocked()]
	now := q.Core.Now()
	out, ok := q.Store.Leases.Extract(d.Ref, now)
	late := !ok && !q.Store.Closed
	if ok {
		q.Store.Tally()
		q.LandedLocked(&out, *v, now)
		q.ArmLocked(now)
		q.HandOnLocked()
	}
	told := *d
	d.Forget()
	w.unstickLocked()
	if q.Drained != nil {
		q.CheckDrainedLocked()
	}
	q.Unlock()
	if late {
		w.late(told, *v)
	}
}

// nextLocked begins the next message of the lease, or of a new one.
func (w *Worker[T]) nextLocked() bool {
	q := w.s.Q
	if w.Lease.Word.Place().Waiting() == 0 {
		if q.Store.InLog() == 0 || !w.prefetchLocked(q.Core.Now()) {
			return false
		}
		q.HandOnLocked()
		return true
	}
	if w.timed != nil && !w.beginLocked(q.Core.Now()) {
		return false
	}
	q.Store.Leases.Next(w.Lease)
	q.HandOnLocked()
	return true
}

// CurrentLocked is the place of the current delivery among the worker's. It is the first,
// unless it goes through a lease.
func (w *Worker[T]) CurrentLocked() int {
	if !w.stepping {
		return 0
	}
	return int(w.Lease.Word.Place().Stamp() - w.ds[0].Ref.Stamp)
}

// unstickLocked says that the handler does not run on the message any more.
func (w *Worker[T]) unstickLocked() {
	if w.stuck {
		w.stuck = false
		w.s.Stuck--
	}
}

// endLeasesLocked gives back the worker's leases. What waits there is ready again.
func (w *Worker[T]) endLeasesLocked() {
	q := w.s.Q
	if w.Lease == nil {
		return
	}
	if w.Lease.Word.Place().Waiting() > 0 {
		q.Store.TakeBack(w.Lease)
	}
	for _, l := range w.more {
		q.Store.Leases.End(l, w.takenAt)
	}
	q.Store.Leases.End(w.Lease, w.takenAt)
	q.Store.Tally()
	clear(w.more)
	w.Lease, w.more, w.stepping = nil, w.more[:0], false
}
