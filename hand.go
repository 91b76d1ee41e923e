package fanout

import (
	"runtime"
	"time"

	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
)

// A worker prefetches messages from the log into its hand, up to handLen at a time,
// copied out under one lock and one reading of the clock. Then it runs its
// handler on one after the other, and what that costs beside the handler is one
// atomic step a message, which says at once that the one before is acknowledged
// and that the next one has begun.
//
// All others see a hand through the worker's progress, and change it under the
// queue's mu:
//
//	       done           current          waiting
//	┌──────────────────┬───────────┬──────────────────────┐
//	0               started-1   started                 limit     of the hand
//
//   - what is done is acknowledged; it is counted, and its room given back, when
//     somebody asks (countLocked), at the latest when the hand is used up or a
//     millisecond old;
//   - current is in flight. Whoever needs more of it than that picks it up
//     (pickUpLocked): then it is an entry of the window as any other, and the
//     worker, whose next step fails, learns of it;
//   - what waits is ready, and whoever has nothing better to do takes it back
//     into the backlog (takeHandBackLocked) by lowering the limit. So no message
//     waits behind a slow handler while another consumer is idle.
//
// A hand that is a millisecond old is looked at by the queue's timer, which
// takes back what waits, so that newer messages do not overtake it for longer,
// and picks up the current message: its time-out counts from there, at most a
// millisecond late and never early. The first message of a hand started when it
// was claimed, and its time-out is exact.
//
// A batch handler's batch is a hand too, all of it current from the start, so
// that the time-out of all is exact; see batch.go.
//
// Only messages of which nothing is kept apart are taken so: no ordering key,
// no time to live, no hooks that want to hear of each, no rate limit, no handler
// timeout around a single handler. The others are entries of the window from
// the start (claimLocked).

const (
	// handLen is the most messages in a hand.
	handLen = 64
	// handTime is how long a hand should last, and handAge when the timer looks
	// at it.
	handTime = int64(50 * time.Microsecond)
	handAge  = time.Millisecond
	// inHand is the entry of deliveries made from a hand.
	inHand = int32(-1)
)

// progress is a worker's place in its hand.
type progress uint64

const pickedUp = progress(1) << 63

func newProgress(started, limit int) progress { return progress(started)<<32 | progress(limit) }

func (p progress) started() int { return int(p &^ pickedUp >> 32) }
func (p progress) limit() int   { return int(uint32(p)) }
func (p progress) waiting() int { return max(p.limit()-p.started(), 0) }
func (p progress) next() progress {
	return p + 1<<32
}

func (w *worker[T]) load() progress { return progress(w.progress.Load()) }
func (w *worker[T]) swap(from, to progress) (ok bool) {
	return w.progress.CompareAndSwap(uint64(from), uint64(to))
}

// canHold reports whether the subscriber's workers may prefetch messages.
func (s *Subscriber[T]) canHold() bool {
	q := s.q
	return !q.direct && q.set.ttl == 0 && s.set.every == 0 && (s.one == nil || s.set.handlerTimeout == 0) &&
		!q.hooked(notice.Delivered) && !q.hooked(notice.Settled)
}

// plainOf counts the items before the first of which something has to be kept apart.
func plainOf[T any](run []item[T]) int {
	for k := range run {
		if !run[k].Ext.Plain() {
			return k
		}
	}
	return len(run)
}

// holdLocked takes a hand from the log, and starts the first message, if there
// is anything to take in this way.
func (w *worker[T]) holdLocked(now int64) bool {
	s, q := w.s, w.s.q
	n := q.inLogLocked()
	if !s.hold || s.stopping || !q.servesLocked() || q.dueLocked() > 0 || q.n[backlogged] > 0 {
		return false
	}
	run := q.cursor.Run(min(n, w.sizeLocked(now, n)))
	k := plainOf(run)
	if k == 0 {
		return false
	}
	ds, base := w.roomFor(k), q.win.Reserve(k)
	q.copyOut(ds, run, base, inHand)
	q.cursor.Step(k)
	w.grasp(ds, base, 1, now)
	return true
}

// copyOut makes deliveries of what stands in the log, with the stamps from base on.
func (q *Queue[T]) copyOut(ds []Delivery[T], run []item[T], base uint64, entry int32) {
	run = run[:len(ds)]
	for j := range ds {
		d, it := &ds[j], &run[j] // field by field: a literal would be copied, which costs more than all of this
		d.Body, d.ext, d.seq, d.at = it.Body, it.Ext, it.Seq, it.At
		d.q, d.hist, d.ref = q, nil, message.Ref{Stamp: base + uint64(j), Block: entry, Attempt: 1}
	}
}

// grasp makes ds the worker's hand, of which the first ones have started.
func (w *worker[T]) grasp(ds []Delivery[T], base uint64, started int, now int64) {
	q := w.s.q
	w.hand, w.base, w.takenAt, w.counted, w.told = ds, base, now, 0, 0
	q.held += len(ds)
	q.backlogsTurn = false
	if w.s.one == nil {
		w.giveContextsLocked(1)
	} else {
		w.giveContextsLocked(len(ds))
	}
	w.progress.Store(uint64(newProgress(started, len(ds))))
	q.lookByLocked(now, min(handAge, w.lookAge()))
}

// lookAge is how old the worker's hand is when the timer looks at it. When a
// batch times out is known from the start.
func (w *worker[T]) lookAge() time.Duration {
	if w.s.one == nil {
		return w.s.visibility()
	}
	return min(handAge, w.s.q.set.visibility)
}

// lookByLocked sees to it that the timer looks at hands when age has passed, and
// lets go of what the cursor has passed. Who moves the cursor calls it.
func (q *Queue[T]) lookByLocked(now int64, age time.Duration) {
	if check := q.alarm.checkAt; check != 0 && check-now <= int64(age) {
		return
	}
	if q.alarm.checkBy(after(now, age)) {
		q.armLocked(now)
	}
}

// current returns the first of the messages that are in flight at p: those from
// it on that have started.
func (w *worker[T]) current(p progress) int {
	if w.s.one == nil {
		return 0
	}
	return p.started() - 1
}

// sizeLocked says how many messages to take: more as long as the handlers return
// within microseconds, and never so many that other consumers find none.
func (w *worker[T]) sizeLocked(now int64, ready int) int {
	switch {
	case len(w.hand) == 0:
		w.size = 1
	case now-w.takenAt < handTime:
		w.size = min(2*w.size, handLen)
	default:
		w.size = max(w.size/4, 1)
	}
	if c := w.s.q.consumers + int(w.s.q.receivers.n) + int(w.s.q.ranges); c > 1 {
		return min(w.size, max(ready/(2*c), 1))
	}
	return w.size
}

// roomFor returns room for a hand of n.
func (w *worker[T]) roomFor(n int) []Delivery[T] {
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
		w.buffer.ds = make([]Delivery[T], max(n, handLen))
	}
	return w.buffer.ds[:n]
}

// A buffer is where workers keep what is in their hands, empty between two uses.
type buffer[T any] struct{ ds []Delivery[T] }

// runHand runs the handler on what is in the worker's hand, and goes on with the
// next for as long as there is one.
func (w *worker[T]) runHand() {
	handling, ended := true, false
	defer func() {
		if ended || !handling {
			return // a panic of our own is not to be hidden
		}
		v := unreturned(recover())
		w.finishHeld(&v)
	}()
	for more := true; more; {
		var v *verdict
		if ctx, err := w.handleHeld(); err != nil {
			v = judgedRun(ctx, err)
		}
		handling = false
		more = w.stepHeld(v)
		handling = true
	}
	ended = true
}

// judgedRun is judgeRun for an error. Only a run that failed pays for a verdict.
func judgedRun(ctx *handlerContext, err error) *verdict {
	v := judgeRun(ctx, err)
	return &v
}

// handleHeld is the fast path of a delivery: it runs the handler on one message
// after the other until one needs more than to be acknowledged, or somebody has
// picked it up, or there is no next. It returns the error of the last run and its
// context.
func (w *worker[T]) handleHeld() (ctx *handlerContext, err error) {
	p, handler, hand := w.load()&^pickedUp, w.s.one, w.hand
	ctxs := w.ctxs[:len(hand)]
	for k := p.started() - 1; ; k++ {
		err = handler(&ctxs[k], hand[k])
		if err != nil || k+1 >= p.limit() || !w.swap(p, p.next()) {
			return &ctxs[k], err
		}
		hand[k].forget()
		p = p.next()
	}
}

// stepHeld settles the current message and starts the next, of this hand or of
// the next one. It reports whether there is one. Without a verdict the message is
// acknowledged.
func (w *worker[T]) stepHeld(v *verdict) bool {
	q := w.s.q
	w.settleHeld(v, true)
	more := w.nextHeldLocked()
	q.mu.Unlock()
	return more
}

// finishHeld settles the current message of a handler that did not return, and
// gives back the rest of the hand.
func (w *worker[T]) finishHeld(v *verdict) { w.settleHeld(v, false) }

// settleHeld settles the current message as v says, or acknowledges it. If again is
// true it returns with the queue's mu locked, and nothing pending.
func (w *worker[T]) settleHeld(v *verdict, again bool) {
	q := w.s.q
	if v == nil {
		v = &acknowledged
	} else if v.cause != Acked {
		*v = v.told()
		v.wait = q.waitAfter(*v, 1)
	}
	q.mu.Lock()
	var late *Delivery[T] // the current message, if v comes too late for it
	if v.cause == Acked && len(w.claims) == 0 {
		started := w.load().started()
		w.countLocked(started, started)
	} else {
		late = w.settlePickedLocked(v)
	}
	w.clearHeldLocked()
	if q.drained != nil {
		q.checkDrainedLocked()
	}
	if late != nil {
		q.mu.Unlock() // nothing is pending: v came too late
		w.late(*late, *v)
		if again {
			q.mu.Lock()
		}
		return
	}
	if !again || q.pending.Any() || q.roomIsWanted() {
		q.unlock()
		if !again {
			return
		}
		q.mu.Lock()
	}
}

// acknowledged is the verdict about a handler that returned no error.
var acknowledged = verdict{cause: Acked}

// settlePickedLocked settles the current message as an entry of the window. If v
// comes too late for it, it returns the message.
func (w *worker[T]) settlePickedLocked(v *verdict) (late *Delivery[T]) {
	q, c := w.s.q, w.pickUpLocked()
	if err := q.ownedLocked(c.entry, c.stamp); err == nil {
		q.settleLocked(c.entry, *v, q.core.now()) // not before the start, which may have been set just now
	} else if v.cause != Acked && !isClosed(err) {
		d := w.hand[w.load().started()-1]
		late = &d
	}
	return late
}

// nextHeldLocked starts the next message of the hand, or of a new hand.
func (w *worker[T]) nextHeldLocked() bool {
	q, p := w.s.q, w.load()
	switch {
	case p.waiting() > 0:
		w.progress.Store(uint64(newProgress(p.started()+1, p.limit())))
	case q.inLogLocked() == 0 || !w.holdLocked(q.core.now()):
		return false
	}
	q.handOnLocked()
	return true
}

// forget lets go of the message, so that a hand does not keep what is done.
func (d *Delivery[T]) forget() {
	var none T
	d.Body, d.ext = none, nil
}

// item is the message that was delivered.
func (d *Delivery[T]) item() item[T] { return item[T]{Seq: d.seq, At: d.at, Ext: d.ext, Body: d.Body} }

// clearHeldLocked says that the current message is dealt with.
func (w *worker[T]) clearHeldLocked() {
	w.hand[w.load().started()-1].forget()
	w.claims = w.claims[:0]
	if w.stuck {
		w.stuck = false
		w.s.stuck--
	}
}

// countLocked counts what was done of the first n messages of the hand, and those
// that have started.
func (w *worker[T]) countLocked(n, started int) {
	q := w.s.q
	if done := n - w.counted; done > 0 {
		w.counted = n
		q.held -= done
		q.acked += uint64(done)
		q.allow.Add(int64(done))
	}
	q.delivered += uint64(started - w.told)
	w.told = started
}

// countHeldLocked counts what is done of all hands, so that the queue's numbers
// are those of this instant. It returns how many messages wait in hands.
func (q *Queue[T]) countHeldLocked() (waiting int) {
	q.leases.Count()
	q.tallyLocked()
	if q.held == 0 {
		return 0
	}
	for _, s := range q.subs {
		for _, w := range s.busy {
			if len(w.hand) > 0 {
				p := w.load() // once: the worker goes on
				w.countLocked(w.current(p), p.started())
				waiting += p.waiting()
			}
		}
	}
	return waiting
}

// countHeld is countHeldLocked for one who needs the room.
func (q *Queue[T]) countHeld() {
	if q.direct {
		return
	}
	q.mu.Lock()
	q.countHeldLocked()
	q.mu.Unlock()
}

// waitingLocked counts the messages in hands whose handlers have not started.
func (q *Queue[T]) waitingLocked() (n int) {
	n = q.leases.Waiting()
	if q.held == 0 {
		return n
	}
	for _, s := range q.subs {
		for _, w := range s.busy {
			n += w.load().waiting()
		}
	}
	return n
}

// currentLocked counts the messages in hands that are in flight, and have not
// been picked up.
func (q *Queue[T]) currentLocked() int {
	waiting := q.countHeldLocked()
	return q.held - waiting
}

// pickUpLocked makes the current messages entries of the window, if they are none
// yet, and returns the claim of the first.
func (w *worker[T]) pickUpLocked() claim {
	q := w.s.q
	if len(w.claims) > 0 {
		return w.claims[0]
	}
	p := w.load()
	for !w.swap(p, p|pickedUp) {
		p = w.load()
	}
	first, started := w.current(p), p.started()
	w.countLocked(first, started)
	w.counted = started
	q.held -= started - first
	now := q.core.now()
	start := now
	if first == 0 {
		start = w.takenAt
	}
	for k := first; k < started; k++ {
		stamp := w.base + uint64(k)
		i := q.win.AddStamped(held[T]{item: w.hand[k].item(), start: start}, stamp)
		q.win.Meta(i).State = handling
		q.n[handling]++
		q.win.Schedule(i, after(start, w.s.visibility()))
		w.claims = append(w.claims, claim{stamp, i})
	}
	q.armLocked(now)
	return w.claims[0]
}

// currentLocked reports whether the worker runs its handler on messages of its hand.
func (w *worker[T]) currentLocked() bool {
	return len(w.hand) > 0 && (len(w.claims) > 0 || w.load().started() > w.counted)
}

// entryOfLocked returns the entry of a delivery that was made from a hand, and
// inHand if it is over.
func (q *Queue[T]) entryOfLocked(stamp uint64) int32 {
	for _, s := range q.subs {
		for _, w := range s.busy {
			if stamp-w.base >= uint64(len(w.hand)) || !w.currentLocked() {
				continue
			}
			first := w.pickUpLocked()
			if k := stamp - first.stamp; k < uint64(len(w.claims)) { // else it is over
				return w.claims[k].entry
			}
		}
	}
	return inHand
}

// takeHandBackLocked puts what waits in w's hand back into the backlog, before all
// else there: it was published earlier.
func (q *Queue[T]) takeHandBackLocked(w *worker[T]) {
	if len(w.hand) == 0 {
		return
	}
	p := w.load()
	for p.waiting() > 0 && !w.swap(p, p&pickedUp|newProgress(p.started(), p.started())) {
		p = w.load()
	}
	for k := p.limit() - 1; k >= p.started(); k-- {
		i := q.win.Add(held[T]{item: w.hand[k].item()})
		w.hand[k].forget()
		q.held--
		q.putBackLocked(i)
	}
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

// takeAllBackLocked takes back what waits in all hands, and reports whether
// that was anything.
func (q *Queue[T]) takeAllBackLocked() bool {
	n := q.n[backlogged]
	for _, l := range q.leases.Leases() {
		q.takeBackLocked(l)
	}
	if q.held == 0 {
		return q.n[backlogged] > n
	}
	for _, s := range q.subs {
		for _, w := range s.busy {
			q.takeHandBackLocked(w)
		}
	}
	return q.n[backlogged] > n
}

// gatherLocked makes all that the queue's workers hold entries of the window.
func (q *Queue[T]) gatherLocked() {
	q.takeAllBackLocked()
	for _, s := range q.subs {
		for _, w := range s.busy {
			if w.currentLocked() {
				w.pickUpLocked()
			}
		}
	}
}

// lookLocked is the timer's look at the log and at the hands. It lets go of what the
// cursor has passed. Of the hands that have become old it
// picks up the current message, and takes back what waits. Others that never run
// out of newer messages would not come to ask for it.
func (q *Queue[T]) lookLocked(now int64) {
	q.alarm.checkAt = 0
	q.cursor.Rest()
	for _, s := range q.subs {
		for _, w := range s.busy {
			switch at := after(w.takenAt, w.lookAge()); {
			case !w.worthALookLocked():
			case at <= now:
				if w.currentLocked() {
					w.pickUpLocked()
				}
				q.takeHandBackLocked(w)
			default:
				q.alarm.checkBy(at)
			}
		}
	}
	q.lookAtLeasesLocked(now)
}

// worthALookLocked reports whether the timer has anything to do with the worker's
// hand. What waits there may do so behind a message that was picked up by its own
// handler, or that is settled while a hook keeps the worker.
func (w *worker[T]) worthALookLocked() bool {
	return len(w.hand) > 0 && (w.load().waiting() > 0 || len(w.claims) == 0 && w.currentLocked())
}

// awaitHands gives other workers a moment to finish what waits in their hands,
// before the caller takes it back from them.
func (q *Queue[T]) awaitHands() {
	for range 8 {
		runtime.Gosched()
		q.mu.Lock()
		waiting := q.waitingLocked()
		q.mu.Unlock()
		if waiting == 0 {
			return
		}
	}
}
