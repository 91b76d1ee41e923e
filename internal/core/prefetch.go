package core

import (
	"time"

	"github.com/gofanout/fanout/internal/handling"
	"github.com/gofanout/fanout/internal/lease"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
)

// A worker with a handler for single messages prefetches them: it takes up to prefetchLen
// of them from the log into a lease in step, under one lock and one reading of the clock,
// and makes deliveries of all. Then it runs its handler on one after the other, and what
// that costs beside the handler is one atomic step a message, which says at once that the
// one before is acknowledged and that the next one has begun. If somebody hears of each
// message, or the clock decides when the next may begin, that step is two: see timed.go.
//
// What has an ordering key is taken by itself, and so is what may expire before the timer
// has looked at the lease: see joins.
//
// All others work on the lease under the queue's mu, see package lease:
//
//   - what is done is acknowledged; it is counted, and its room given back, when
//     somebody asks (countLocked), at the latest when the lease is used up or a
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
func (w *worker[T]) prefetchLocked(now int64) bool {
	s, q := w.s, w.s.q
	n := q.inLogLocked()
	if s.stopping || !q.servesLocked() || q.dueLocked() > 0 || q.n[backlogged] > 0 {
		return false
	}
	run := q.cursor.Run(min(n, w.sizeLocked(now, n)))
	k := message.PlainRun(run)
	if k < len(run) || q.set.TTL > 0 {
		k = q.joins(run, after(now, checkAge))
	}
	if k == 0 || w.timed != nil && !w.beginLocked(now) {
		return false
	}
	t := q.leasesLocked()
	if !w.stepping || !t.Again(w.lease, k, now) {
		w.endLeasesLocked()
		w.lease, w.stepping = t.InStep(w, k, now, int64(s.visibility())), true
	}
	w.keepLocked(w.roomFor(k), run, now)
	w.giveContextsLocked(k)
	q.lookByLocked(now, min(checkAge, q.set.Visibility))
	return true
}

// keepLocked makes ds, which the worker has room for, deliveries of the first messages of
// run, which are in its lease.
func (w *worker[T]) keepLocked(ds []Delivery[T], run []item[T], now int64) {
	q := w.s.q
	q.copyOut(ds, run, q.leases.First(w.lease))
	q.cursor.Step(len(ds))
	w.tookLocked(ds, now)
}

// tookLocked says that the worker has taken what ds are deliveries of.
func (w *worker[T]) tookLocked(ds []Delivery[T], now int64) {
	w.ds, w.takenAt = ds, now
	if len(ds) > 1 {
		w.made = len(ds)
	}
	w.s.q.backlogsTurn = false
}

// Message returns message k of a lease that the worker has.
func (w *worker[T]) Message(l *lease.Lease[T], k int) item[T] { return w.ds[w.kept(l, k)].item() }

// At is when message k of a lease that the worker has was published. forget leaves that alone.
func (w *worker[T]) At(l *lease.Lease[T], k int) int64 { return w.ds[w.kept(l, k)].at }

// kept is where message k of a lease is among what the worker keeps.
func (w *worker[T]) kept(l *lease.Lease[T], k int) int {
	for n, other := range w.more {
		if l == other {
			return k + (n+1)*lease.Len // all but the last are full
		}
	}
	return k
}

// sizeLocked says how many messages to take: more as long as the handlers return
// within microseconds, and never so many that other consumers find none.
func (w *worker[T]) sizeLocked(now int64, ready int) int {
	switch {
	case len(w.ds) == 0:
		w.size = 1
	case now-w.takenAt < prefetchTime:
		w.size = min(2*w.size, prefetchLen)
	default:
		w.size = max(w.size/4, 1)
	}
	if c := w.s.q.consumers + int(w.s.q.receivers.n) + int(w.s.q.ranges); c > 1 {
		return min(w.size, max(ready/(2*c), 1))
	}
	return w.size
}

// roomFor returns room for n deliveries, some of which may keep what is over.
func (w *worker[T]) roomFor(n int) []Delivery[T] {
	if w.made > n || n == 1 {
		w.forget(n)
	}
	if n == 1 {
		return w.one[:]
	}
	if w.buffer == nil {
		w.buffer, _ = w.s.q.core.buffers.Get().(*buffer[T])
		if w.buffer == nil {
			w.buffer = new(buffer[T])
		}
	}
	if len(w.buffer.ds) < n {
		w.buffer.ds, w.made = make([]Delivery[T], max(n, prefetchLen)), 0
	}
	return w.buffer.ds[:n]
}

// forget lets go of all deliveries of the worker's buffer but n.
func (w *worker[T]) forget(n int) {
	if n == 1 {
		n = 0
	}
	if w.made > n {
		clear(w.buffer.ds[n:w.made])
		w.made = n
	}
}

// A buffer is where workers keep what is in their leases, empty between two uses.
type buffer[T any] struct{ ds []Delivery[T] }

// runLease runs the handler on what was prefetched, and goes on with more for as long as
// there is any.
func (w *worker[T]) runLease() {
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
func (w *worker[T]) handleLease() (ctx *handling.Context, err error) {
	l, handler, ds := w.lease, w.handlers.one, w.ds
	p, ctxs := l.Place(), w.ctxs[:len(ds)]
	if w.timed != nil {
		p = p.Last()
	}
	for k := int(p.Stamp() - ds[0].ref.Stamp); k < len(ds); k++ {
		ctx = &ctxs[k]
		if err = handler(ctx, ds[k]); err != nil {
			break
		}
		next, ok := l.Step(p)
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
func (w *worker[T]) stepOn(v *message.Verdict) bool {
	q := w.s.q
	if v != nil {
		w.settleCurrent(v)
	}
	q.mu.Lock()
	if v == nil {
		if w.ackCurrentLocked() {
			w.tellAcked()
		} else if q.pending.Any() || q.roomIsWanted() {
			q.unlock()
			q.mu.Lock()
		}
	}
	more := w.nextLocked()
	q.mu.Unlock()
	return more
}

// ackCurrentLocked acknowledges the current message, and reports whether that is to be told.
func (w *worker[T]) ackCurrentLocked() (told bool) {
	q, d := w.s.q, &w.ds[w.currentLocked()]
	if q.leases.Ack(d.ref) && w.timed != nil && q.hooked(notice.Settled) {
		w.noteAcked(d, q.seq.Add(1), q.core.now())
		told = true
	}
	q.tallyLocked()
	d.forget()
	w.unstickLocked()
	if q.drained != nil {
		q.checkDrainedLocked()
	}
	return told
}

// settleCurrent settles the current message as v says, which is no acknowledgement. Were it
// inlined, the stack of each worker would have to grow.
//
//go:noinline
func (w *worker[T]) settleCurrent(v *message.Verdict) {
	q := w.s.q
	w.endTimeout()
	*v = v.Told()
	v.Wait = q.waitAfter(*v, 1)
	q.mu.Lock()
	d := &w.ds[w.currentLocked()]
	now := q.core.now()
	out, ok := q.leases.Extract(d.ref, now)
	late := !ok && !q.closed
	if ok {
		q.tallyLocked()
		q.landedLocked(&out, *v, now)
		q.armLocked(now)
		q.handOnLocked()
	}
	told := *d
	d.forget()
	w.unstickLocked()
	if q.drained != nil {
		q.checkDrainedLocked()
	}
	q.unlock()
	if late {
		w.late(told, *v)
	}
}

// nextLocked begins the next message of the lease, or of a new one.
func (w *worker[T]) nextLocked() bool {
	q := w.s.q
	if w.lease.Place().Waiting() == 0 {
		if q.inLogLocked() == 0 || !w.prefetchLocked(q.core.now()) {
			return false
		}
		q.handOnLocked()
		return true
	}
	if w.timed != nil && !w.beginLocked(q.core.now()) {
		return false
	}
	q.leases.Next(w.lease)
	q.handOnLocked()
	return true
}

// currentLocked is the place of the current delivery among the worker's. It is the first,
// unless it goes through a lease.
func (w *worker[T]) currentLocked() int {
	if !w.stepping {
		return 0
	}
	return int(w.lease.Place().Stamp() - w.ds[0].ref.Stamp)
}

// unstickLocked says that the handler does not run on the message any more.
func (w *worker[T]) unstickLocked() {
	if w.stuck {
		w.stuck = false
		w.s.stuck--
	}
}

// endLeasesLocked gives back the worker's leases. What waits there is ready again.
func (w *worker[T]) endLeasesLocked() {
	q := w.s.q
	if w.lease == nil {
		return
	}
	if w.lease.Place().Waiting() > 0 {
		q.takeBackLocked(w.lease)
	}
	for _, l := range w.more {
		q.leases.End(l, w.takenAt)
	}
	q.leases.End(w.lease, w.takenAt)
	q.tallyLocked()
	clear(w.more)
	w.lease, w.more, w.stepping = nil, w.more[:0], false
}
