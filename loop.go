package fanout

import (
	"context"
	"math"
	"sync/atomic"
	"time"

	"github.com/gofanout/fanout/internal/notice"
)

// A range over Deliveries is a consumer that the queue knows for as long as it
// lasts, so it prefetches messages, as a worker does (see hand.go): up to
// handLen of them are copied out of the log under one lock and one reading of
// the clock. What a message costs beside the loop's body is two atomic steps: its
// acknowledgement, which finds the loop by the queue, and the step to the next.
//
// Both change one word, the loop's place. It names the current message by its
// stamp, so that an acknowledgement that comes late or from another goroutine
// can't meet a later message:
//
//   - the current message is in flight until its acknowledgement sets over. That
//     is counted, and its room given back, when somebody asks (countLocked), at
//     the latest when the hand is used up or a millisecond old;
//   - whoever needs more of it picks it up (pickUpLocked): it becomes an entry of
//     the window, found by its stamp as one that has left its lease. So does one
//     that is not settled when the loop asks for the next;
//   - what waits is ready and not yet delivered. Whoever has nothing better to do
//     takes it back, and the queue's timer does after a millisecond.
//
// The last message of a hand, and all of those that are received singly, are
// acknowledged under the lock if somebody may wait for the end of it.
//
// A loop that leaves its messages unsettled (they are settled later, or by other
// goroutines) would make an entry of each: for some time it then receives as
// Receive does.
type loop[T any] struct {
	// Invariants:
	//   - where is 0, or the stamp in it is that of a message of the hand;
	//   - held of the queue counts the hand's messages from counted on;
	//   - only the loop's goroutine changes hand and base, under the queue's mu,
	//     and the stamp in where.

	// Immutable.
	q   *Queue[T]
	vis time.Duration

	where atomic.Uint64 // a place; changed by steps and acknowledgements, and under mu

	// Guarded by the queue's mu; the loop's goroutine reads hand and base without.
	listed  bool     // in the queue's loops
	before  *loop[T] // there
	behind  *loop[T]
	hand    []Delivery[T]
	base    uint64 // stamp of hand[0]
	counted int    // how many are counted as done or were picked up
	told    int    // how many are counted as delivered
	takenAt int64  // when the hand was taken, or a single message
	size    int    // how many to take next
	singly  int    // how many to receive as Receive does before a hand is tried again

	// The loop's goroutine's.
	buffer []Delivery[T]
	one    [1]Delivery[T] // what was received singly
}

const (
	// inLoop is the entry of deliveries made from a loop's hand.
	inLoop = int32(math.MinInt32)
	// singlyAfter is how many messages are received singly after one that was not
	// settled when the next was asked for.
	singlyAfter = 512
)

// A place is where a loop is: the stamp of its current message, how many wait
// behind that, and whether it is acknowledged or picked up.
type place uint64

const (
	placeAcked  = place(1)
	placePicked = place(2)
	placeOver   = placeAcked | placePicked
	placeOne    = place(4) // one that waits
	placeStamp  = place(1024)
)

func (p place) stamp() uint64 { return uint64(p / placeStamp) }
func (p place) waiting() int  { return int(p % placeStamp / placeOne) }
func (p place) over() bool    { return p&placeOver != 0 }

func (l *loop[T]) load() place { return place(l.where.Load()) }
func (l *loop[T]) swap(from, to place) (ok bool) {
	return l.where.CompareAndSwap(uint64(from), uint64(to))
}

// next returns the next message, and waits for one if there is none. It is valid
// until the next call.
func (l *loop[T]) next(ctx context.Context) (*Delivery[T], error) {
	if ctx.Err() == nil {
		if p := l.load(); p&placeOver == placeAcked && p.waiting() > 0 && l.swap(p, p-placeAcked-placeOne+placeStamp) {
			k := p.stamp() - l.base
			l.hand[k].forget()
			return &l.hand[k+1], nil
		}
	}
	q := l.q
	if !q.local {
		ds, err := q.receiveOther(ctx, 1, l.vis)
		copy(l.one[:], ds)
		return &l.one[0], err
	}
	if err := q.await(ctx, l.takeLocked); err != nil {
		return nil, err
	}
	if len(l.hand) > 0 {
		return &l.hand[l.load().stamp()-l.base], nil
	}
	return &l.one[0], nil
}

// takeLocked makes another message the current one: the next of the hand, or the
// first of a new one, or a single one.
func (l *loop[T]) takeLocked() (ok bool) {
	q := l.q
	l.endLocked()
	if p := l.load(); p.waiting() > 0 {
		l.where.Store(uint64(p&^placeOver - placeOne + placeStamp))
		return true
	}
	l.hand = nil
	l.where.Store(0)
	l.enterLocked()
	if !q.servesLocked() || q.readyLocked() == 0 {
		return false
	}
	now := q.core.now()
	if l.holdLocked(now) {
		q.handOnLocked()
		return true
	}
	return q.takeAtLocked(l.one[:], now, l.vis) > 0
}

// endLocked ends what the loop has to do with its current message. If it is not
// settled, it stays in flight.
func (l *loop[T]) endLocked() {
	clear(l.one[:])
	if len(l.hand) == 0 {
		return
	}
	if l.pickUpLocked() {
		l.singly = singlyAfter
	}
	l.hand[l.load().stamp()-l.base].forget()
}

// enterLocked makes the loop known to its queue.
func (l *loop[T]) enterLocked() {
	if !l.listed {
		q := l.q
		l.listed, l.before, l.behind = true, nil, q.loops.Load()
		if l.behind != nil {
			l.behind.before = l
		}
		q.loops.Store(l)
		q.looping++
	}
}

// leave ends the loop. What it has not begun is for others. The loop is of no
// use after that.
func (l *loop[T]) leave() {
	q := l.q
	q.mu.Lock()
	if !l.listed {
		q.mu.Unlock()
		return
	}
	l.endLocked()
	l.takeBackLocked()
	l.unlistLocked()
	q.handOnLocked()
	q.unlock()
}

func (l *loop[T]) unlistLocked() {
	q := l.q
	q.looping--
	if l.before == nil {
		q.loops.Store(l.behind)
	} else {
		l.before.behind = l.behind
	}
	if l.behind != nil {
		l.behind.before = l.before
	}
}

// holdLocked takes a hand from the log, of two messages at least, and makes the
// first the current one. It reports whether there was anything to take so.
func (l *loop[T]) holdLocked(now int64) bool {
	q := l.q
	n := l.sizeLocked(now)
	if n < 2 || q.n[due] > 0 || q.n[backlogged] > 0 || !q.loopsHold(l.vis) {
		return false
	}
	run := q.cursor.Run(n)
	k := plainOf(run)
	if k < 2 {
		return false
	}
	if l.buffer == nil {
		l.buffer = make([]Delivery[T], handLen)
	}
	ds, base := l.buffer[:k], q.win.Reserve(k)
	q.copyOut(ds, run, base, inLoop)
	q.cursor.Step(k)
	q.held += k
	q.backlogsTurn = false
	l.hand, l.base, l.counted, l.told = ds, base, 0, 0
	l.where.Store(uint64(place(base)*placeStamp + place(k-1)*placeOne))
	q.lookByLocked(now, l.lookAge())
	return true
}

// loopsHold reports whether loops may prefetch messages: nobody wants to
// hear of each, and all time out alike.
func (q *Queue[T]) loopsHold(vis time.Duration) bool {
	return !q.direct && q.set.ttl == 0 && vis == q.set.visibility && !q.core.singly && !q.hooked(notice.Settled)
}

// sizeLocked says how many messages to take: more as long as the loop's body takes
// microseconds, and never so many that other consumers find none.
func (l *loop[T]) sizeLocked(now int64) int {
	q := l.q
	switch {
	case l.singly > 0:
		l.singly--
		l.size = 1
	case l.size > 0 && now-l.takenAt < handTime:
		l.size = min(2*l.size, handLen)
	default:
		l.size = max(l.size/4, 1)
	}
	l.takenAt = now
	n := q.inLogLocked()
	if c := q.consumers + int(q.receivers.n) + int(q.looping); c > 1 {
		n /= 2 * c
	}
	return min(l.size, n)
}

// lookAge is how old the hand is when the queue's timer looks at it.
func (l *loop[T]) lookAge() time.Duration { return min(handAge, l.q.set.visibility) }

// lookLocked is the timer's look at the hand, if it has become old by now: it
// lasts longer than it should, and others may need what is in it.
func (l *loop[T]) lookLocked(now int64) {
	q := l.q
	switch at := after(l.takenAt, l.lookAge()); {
	case len(l.hand) == 0:
	case at <= now:
		l.pickUpLocked()
		l.takeBackLocked()
	default:
		q.alarm.checkBy(at)
	}
}

// countLocked counts what is done of the hand, and returns how many wait there.
func (l *loop[T]) countLocked() (waiting int) {
	if len(l.hand) == 0 {
		return 0
	}
	q, p := l.q, l.load() // once: the loop goes on
	done := int(p.stamp() - l.base)
	q.delivered += uint64(done + 1 - l.told)
	l.told = done + 1
	if p&placeAcked != 0 {
		done++
	}
	if n := done - l.counted; n > 0 {
		l.counted = done
		q.held -= n
		q.acked += uint64(n)
		q.allow.Add(int64(n))
	}
	return p.waiting()
}

// waiting counts the messages in the hand that have not been delivered.
func (l *loop[T]) waiting() int { return l.load().waiting() }

// takeBackLocked puts what waits back into the backlog.
func (l *loop[T]) takeBackLocked() {
	q, p := l.q, l.load()
	for p.waiting() > 0 && !l.swap(p, p-p%placeStamp+p&placeOver) {
		p = l.load()
	}
	first := int(p.stamp()-l.base) + 1
	for k := first + p.waiting() - 1; k >= first; k-- {
		i := q.win.Add(held[T]{item: l.hand[k].item()})
		l.hand[k].forget()
		q.held--
		q.putBackLocked(i)
	}
}

// pickUpLocked makes the current message an entry of the window, if it is neither
// acknowledged nor one already, and reports whether it has. It counts what is done.
func (l *loop[T]) pickUpLocked() bool {
	q, p := l.q, l.load()
	if len(l.hand) == 0 {
		return false
	}
	for !p.over() && !l.swap(p, p|placePicked) {
		p = l.load()
	}
	l.countLocked()
	if p.over() {
		return false
	}
	l.counted++
	q.held--
	k := int(p.stamp() - l.base)
	now := q.core.now()
	start := now
	if k == 0 {
		start = l.takenAt
	}
	i := q.win.AddStamped(held[T]{item: l.hand[k].item(), start: start}, p.stamp())
	q.win.Meta(i).State = inFlight
	q.n[inFlight]++
	q.leases.move(p.stamp(), i)
	q.win.Schedule(i, after(start, q.set.visibility))
	q.armLocked(now)
	return true
}

// ackInLoop acknowledges a message that is the current one of a loop, and reports
// whether it was. It is the fast path of Ack.
func (q *Queue[T]) ackInLoop(stamp uint64) bool {
	if l := q.loops.Load(); l != nil {
		p := l.load()
		if p.stamp() == stamp && !p.over() && p.waiting() > 0 && l.swap(p, p|placeAcked) {
			return true
		}
	}
	return q.ackInLoops(stamp)
}

// ackInLoops is ackInLoop for any loop, and for the last message of a hand, whose
// end somebody may wait for.
func (q *Queue[T]) ackInLoops(stamp uint64) bool {
	q.mu.Lock()
	for l := q.loops.Load(); l != nil; l = l.behind {
		p := l.load()
		for p.stamp() == stamp && !p.over() && !l.swap(p, p|placeAcked) {
			p = l.load()
		}
		if p.stamp() == stamp && !p.over() {
			l.countLocked()
			q.checkDrainedLocked()
			q.unlock()
			return true
		}
	}
	q.mu.Unlock()
	return false
}

// entryInLoopLocked returns the entry of a delivery that was made from a loop's
// hand, and inHand if it is over.
func (q *Queue[T]) entryInLoopLocked(stamp uint64) int32 {
	for l := q.loops.Load(); l != nil; l = l.behind {
		if l.load().stamp() == stamp {
			l.pickUpLocked()
		}
	}
	if i, ok := q.leases.moved.of(stamp); ok {
		return i
	}
	return inHand
}

// inLoopsLocked counts the messages in loops' hands that are in flight.
func (q *Queue[T]) inLoopsLocked() (n int) {
	for l := q.loops.Load(); l != nil; l = l.behind {
		if len(l.hand) > 0 && !l.load().over() {
			n++
		}
	}
	return n
}
