package fanout

import (
	"context"
	"fmt"
	"time"
	"unsafe"

	"github.com/gofanout/fanout/internal/message"
)

// A receiver waits in Receive. Its channel holds one token once it has been woken. It
// is made anew for each wait: a channel that was made in a bubble of
// testing/synctest can't be used outside of it. The rest is used again.
type receiver struct {
	woken          chan struct{}
	listed         bool
	before, behind *receiver
}

// receivers are a queue's receivers in the order of their arrival. Its mu guards them.
type receivers struct {
	first, last *receiver
	spare       *receiver // to be used again, if there is one
	n           int32     // in the list
}

// make returns a receiver that is not listed.
func (l *receivers) make() *receiver {
	r := l.spare
	if r == nil {
		r = new(receiver)
	} else {
		l.spare = nil
	}
	r.woken = make(chan struct{}, 1)
	return r
}

// done says that r, which is not listed, is of no more use to who made it.
func (l *receivers) done(r *receiver) {
	r.woken = nil
	l.spare = r
}

// add puts r at the end.
func (l *receivers) add(r *receiver) {
	r.listed, r.before = true, l.last
	if l.last == nil {
		l.first = r
	} else {
		l.last.behind = r
	}
	l.last = r
	l.n++
}

// addFirst puts r at the front.
func (l *receivers) addFirst(r *receiver) {
	r.listed, r.behind = true, l.first
	if l.first == nil {
		l.last = r
	} else {
		l.first.before = r
	}
	l.first = r
	l.n++
}

// remove takes r out of the list, if it is there.
func (l *receivers) remove(r *receiver) {
	if !r.listed {
		return
	}
	if r.before == nil {
		l.first = r.behind
	} else {
		r.before.behind = r.behind
	}
	if r.behind == nil {
		l.last = r.before
	} else {
		r.behind.before = r.before
	}
	r.listed, r.before, r.behind = false, nil, nil
	l.n--
}

// wake wakes the first, and reports whether there was one.
func (l *receivers) wake() bool {
	r := l.first
	if r == nil {
		return false
	}
	l.remove(r)
	r.woken <- struct{}{} // has room: a receiver is in the list without a token
	return true
}

// Receive takes the next message, and waits for one if there is none. Waiting receivers get
// messages in the order of their arrival. It returns [ErrClosed] once the queue is closed,
// ctx's error if ctx ends first, and [ErrInvalidOption]. A topic that shuts down closes its
// queues when they are drained, so a caller can receive until ErrClosed.
func (q *Queue[T]) Receive(ctx context.Context, options ...ReceiveOption) (d Delivery[T], err error) {
	_, err = q.receiveInto(ctx, oneOf(&d), options)
	return d, err
}

// oneOf returns a slice that is d: a delivery that is made elsewhere and then copied costs
// a quarter of receiving it.
func oneOf[T any](d *Delivery[T]) []Delivery[T] { return unsafe.Slice(d, 1) }

// receiveInto takes as many messages as ds has room for and there are, and waits
// for the first.
func (q *Queue[T]) receiveInto(ctx context.Context, ds []Delivery[T], options []ReceiveOption) (n int, err error) {
	if !q.local {
		got, err := q.receiveWith(ctx, len(ds), options)
		return copy(ds, got), err
	}
	vis, err := q.receiveSettings(ctx, options)
	if err != nil {
		return 0, err
	}
	err = q.await(ctx, func() (ok bool) {
		n = q.takeLocked(ds, vis)
		return n > 0
	})
	return n, err
}

// await calls take, with the queue's mu locked, until it has taken something,
// and waits in between until there may be something to take.
func (q *Queue[T]) await(ctx context.Context, take func() (ok bool)) error {
	ended := ctx.Err() != nil // asks the user's context: before the lock
	q.mu.Lock()
	if q.closed || ended {
		return q.unreceived(ctx)
	}
	if !take() {
		r := q.receivers.make()
		q.receivers.add(r)
		q.handOnLocked()
		return q.awaitTurn(ctx, r, take)
	}
	q.unlock()
	return nil
}

// unreceived returns why nothing was received. It is called with mu locked, and
// unlocks it.
func (q *Queue[T]) unreceived(ctx context.Context) error {
	closed := q.closed
	// Whoever woke this receiver meant it to take a message: wake another.
	q.handOnLocked()
	q.unlock()
	if closed {
		return q.receiveError(errQueueClosed)
	}
	return q.receiveError(contextError(ctx))
}

// awaitTurn is await for r, which stands in line. It is called with mu locked, and
// unlocks it. It asks the user's context and calls hooks: if one of them ends the
// goroutine, or panics, r gives up its place.
func (q *Queue[T]) awaitTurn(ctx context.Context, r *receiver, take func() (ok bool)) error {
	waiting := true
	defer func() {
		if waiting {
			q.mu.Lock()
			if r != nil {
				q.receivers.remove(r)
			}
			q.handOnLocked() // it may have been woken
			q.unlock()
		}
	}()
	for ok := false; ; {
		q.unlock()
		if ok {
			waiting = false
			return nil
		}
		r.wait(ctx)
		ended := ctx.Err() != nil
		q.mu.Lock()
		q.receivers.remove(r)
		if q.closed || ended {
			waiting = false
			q.receivers.done(r)
			return q.unreceived(ctx)
		}
		if ok = take(); ok {
			q.receivers.done(r)
			r = nil
		} else { // woken in vain: somebody was quicker, and it keeps its place
			q.receivers.addFirst(r)
			q.handOnLocked()
		}
	}
}

// wait waits until r has been woken or ctx has ended.
func (r *receiver) wait(ctx context.Context) {
	done := ctx.Done()
	if done == nil { // a select costs several times as much
		<-r.woken
		return
	}
	select {
	case <-r.woken:
	case <-done:
	}
}

// errQueueClosed is ErrClosed from a receive, to be told from one that a
// context was cancelled with.
var errQueueClosed = fmt.Errorf("%w", ErrClosed)

func (q *Queue[T]) receiveError(err error) error {
	return fmt.Errorf("fanout: receive from %q: %w", q.name, err)
}

// TryReceive takes the next message if there is one. ok says whether there was. In memory it
// does not wait; on an engine it waits for the answer, up to a second. It returns the errors
// of Receive.
func (q *Queue[T]) TryReceive(ctx context.Context, options ...ReceiveOption) (d Delivery[T], ok bool, err error) {
	if !q.local {
		return q.tryReceiveWith(ctx, options)
	}
	vis, err := q.receiveSettings(ctx, options)
	if err != nil {
		return d, false, err
	}
	ok, err = q.tryReceiveInto(ctx, oneOf(&d), vis)
	return d, ok, err
}

// tryReceiveHere is TryReceive from memory.
func (q *Queue[T]) tryReceiveHere(ctx context.Context, vis time.Duration) (d Delivery[T], ok bool, err error) {
	ok, err = q.tryReceiveInto(ctx, oneOf(&d), vis)
	return d, ok, err
}

func (q *Queue[T]) tryReceiveInto(ctx context.Context, d []Delivery[T], vis time.Duration) (ok bool, err error) {
	ended := ctx.Err() != nil
	q.mu.Lock()
	switch {
	case q.closed:
		q.mu.Unlock()
		return false, q.receiveError(errQueueClosed)
	case ended:
		q.mu.Unlock()
		return false, q.receiveError(contextError(ctx))
	}
	n := q.takeLocked(d, vis)
	q.unlock()
	return n > 0, nil
}

// ReceiveInto is ReceiveBatch into a slice of the caller's: it takes up to len(ds) messages
// into ds and returns how many. A caller that uses one slice again and again saves the
// allocation of ReceiveBatch, which costs more than all the rest of it. Elements beyond n
// keep the deliveries of earlier calls. A delivery that was copied out of the slice is not
// changed by the next call. ReceiveInto returns [ErrInvalidOption] for an empty slice, and
// otherwise the errors of Receive.
func (q *Queue[T]) ReceiveInto(ctx context.Context, ds []Delivery[T], options ...ReceiveOption) (n int, err error) {
	if len(ds) == 0 {
		return 0, invalid("ReceiveInto", len(ds), "a slice with room for at least 1")
	}
	return q.receiveInto(ctx, ds, options)
}

// ReceiveBatch takes up to most messages. It waits until there is one, and then returns what
// is there. The slice is the caller's. It returns the errors of Receive.
func (q *Queue[T]) ReceiveBatch(ctx context.Context, most int, options ...ReceiveOption) ([]Delivery[T], error) {
	if most < 1 {
		return nil, invalid("ReceiveBatch", most, "at least 1")
	}
	if !q.local {
		return q.receiveWith(ctx, most, options)
	}
	vis, err := q.receiveSettings(ctx, options)
	if err != nil {
		return nil, err
	}
	return q.receiveHere(ctx, most, vis)
}

// receiveHere is ReceiveBatch from memory.
func (q *Queue[T]) receiveHere(ctx context.Context, most int, vis time.Duration) ([]Delivery[T], error) {
	var batch []Delivery[T]
	err := q.await(ctx, func() (ok bool) {
		if !q.servesLocked() {
			return false
		}
		batch = make([]Delivery[T], min(most, q.readyLocked()))
		n := q.takeLocked(batch, vis)
		batch = batch[:n]
		return n > 0
	})
	if err != nil {
		return nil, err
	}
	return batch, nil
}

func (q *Queue[T]) receiveSettings(ctx context.Context, options []ReceiveOption) (time.Duration, error) {
	if ctx == nil {
		return 0, fmt.Errorf("%w: %w", ErrInvalidOption, errNilContext)
	}
	if len(options) == 0 {
		return q.set.visibility, nil
	}
	s := receiveSettings{visibility: q.set.visibility}
	err := applyAll(options, func(o ReceiveOption) error { return o.applyReceive(&s) })
	return s.visibility, err
}

// takeLocked claims messages for a caller, as many as ds has room for, and sees
// to it that other consumers are woken for what remains. It may have buried some
// that came too late, and freed their room, even if it takes none.
func (q *Queue[T]) takeLocked(ds []Delivery[T], vis time.Duration) (n int) {
	if !q.servesLocked() || q.readyLocked() == 0 {
		return 0
	}
	return q.takeAtLocked(ds, q.core.now(), vis)
}

// claimAtLocked puts the next message, a dead letter or one of an engine, in flight in the
// given state, and leaves the timer to the caller. It may have buried some that came too
// late, and freed their room, even if it returns none.
func (q *Queue[T]) claimAtLocked(now int64, vis time.Duration, state uint8) (d Delivery[T], ok bool) {
	i, ok := q.nextLocked(now)
	if !ok {
		q.checkDrainedLocked()
		return d, false
	}
	m, h := q.win.Meta(i), q.win.At(i)
	m.State = state
	q.n[state]++
	q.delivered++
	h.start = now
	q.win.Schedule(i, after(now, vis))
	d = Delivery[T]{
		Body: h.Body, q: q, ext: h.Ext, hist: h.hist, seq: h.Seq, at: h.At,
		ref: message.Ref{Stamp: m.Stamp, Block: i, Attempt: int32(min(m.Spent+1, 1<<31-1))},
	}
	q.deliveredLocked(&d)
	return d, true
}

// nextLocked takes the next message that may be delivered out of its list or
// the log. What has become due and the backlog take turns while both wait.
func (q *Queue[T]) nextLocked(now int64) (i int32, ok bool) {
	for {
		wasDue := q.dueLocked() > 0 && (!q.backlogsTurn || !q.backlogWaitsLocked())
		ok = true
		switch {
		case wasDue:
			i = q.popDueFirstLocked()
		case q.n[backlogged] > 0:
			i, _ = q.win.Pop(&q.backlog)
		case q.inLogLocked() > 0:
			i, ok = q.win.Add(held[T]{item: *q.cursor.Next()}), false
			q.lookByLocked(now, checkAge)
		case q.takeAllBackLocked():
			continue
		default:
			return 0, false
		}
		if ok {
			q.n[q.win.Meta(i).State]--
			q.win.Restamp(i)
		}
		if q.expired(&q.win.At(i).item, now) {
			q.expireLocked(i, now)
		} else if q.headOfKeyLocked(i) {
			q.backlogsTurn = wasDue
			return i, true
		}
	}
}

// backlogWaitsLocked reports whether any of the backlog could start. While
// something is due, nothing of it waits in a lease.
func (q *Queue[T]) backlogWaitsLocked() bool { return q.n[backlogged] > 0 || q.inLogLocked() > 0 }

// handOnLocked keeps the invariant about idle consumers: it wakes one if there
// is something for it, and otherwise sees that the next publish will. Whoever
// is woken calls it again after taking a message, so that as many consumers
// come as there are messages, one after the other.
func (q *Queue[T]) handOnLocked() {
	sub, limited, idle := q.idleLocked()
	if q.limited > 0 && (limited == 0 || q.readyLocked() == 0 && q.remote == nil) {
		q.limited = 0 // nobody waits for that any more
		q.armLocked(q.core.now())
	}
	for idle {
		switch {
		case !q.servesLocked():
			return
		case q.readyLocked() > 0:
			if q.receivers.wake() {
				return
			}
			if sub != nil {
				q.free.last = sub
				sub.startLocked()
			} else {
				q.limited = limited // until when the timer will come
				q.armLocked(q.core.now())
			}
			return
		case q.remote != nil:
			if sub != nil {
				q.remote.pollLocked()
			} else {
				q.limited = limited // until when the timer will come
				q.armLocked(q.core.now())
			}
			return
		case q.direct || !q.t.sleep.add(q):
			return
		case q.log.Published() <= q.cursor.Pos():
			return // a later publish finds the queue in the list
		}
	}
}

// idleLocked reports whether any consumer could take a message, and which
// subscriber's turn it would be; if only their rate limits keep subscribers from it,
// until when.
func (q *Queue[T]) idleLocked() (sub *Subscriber[T], limited int64, ok bool) {
	if int(q.serving) < q.consumers {
		if sub, limited = q.free.first(); sub != nil {
			return sub, 0, true
		}
	}
	return nil, limited, limited > 0 || q.receivers.n > 0
}

// servesLocked reports whether the queue gives out messages: not while it is
// paused or closed, and a dead-letter queue not while its topic shuts down.
func (q *Queue[T]) servesLocked() bool {
	return !q.closed && !q.paused && (!q.letters || !q.draining)
}

// wake is called by whoever took the queue out of the topic's list of sleepers.
func (q *Queue[T]) wake() {
	q.mu.Lock()
	q.handOnLocked()
	q.mu.Unlock()
}
