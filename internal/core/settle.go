package core

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/settings"
	"github.com/gofanout/fanout/internal/window"
)

// ownedLocked returns nil if stamp still owns entry i in flight, and otherwise
// the error that says why not.
func (q *Queue[T]) ownedLocked(i int32, stamp uint64) error {
	var err error
	switch {
	case q.closed:
		err = message.ErrClosed
	case i >= 0 && q.win.Owns(i, stamp) && (q.win.Meta(i).State == inFlight || q.win.Meta(i).State == inHandler):
		return nil
	case stamp == 0 || q.stale.Has(stamp):
		err = message.ErrStale
	default:
		err = message.ErrSettled
	}
	return fmt.Errorf("%w: queue %q", err, q.name)
}

// settle ends a delivery as v says.
func (q *Queue[T]) settle(ctx context.Context, ref message.Ref, v message.Verdict) error {
	return q.at().settle(ctx, ref, v)
}

// settleHere is settle in memory.
func (q *Queue[T]) settleHere(ref message.Ref, v message.Verdict) error {
	v = v.Told()
	v.Wait = q.waitAfter(v, q.countFor(v, ref))
	q.mu.Lock()
	now := q.core.now()
	if out, ok := q.leases.Extract(ref, now); ok {
		q.tallyLocked()
		q.landedLocked(&out, v, now)
		q.armLocked(now)
		q.handOnLocked()
		q.unlock()
		return nil
	}
	i := ref.Block
	err := q.ownedLocked(i, ref.Stamp)
	if err != nil {
		q.mu.Unlock()
		return err
	}
	if v.Cause != message.Acked || q.hooked(notice.Settled) {
		now = q.core.now() // not before the start, which may have been set just now
	}
	q.settleLocked(i, v, now)
	q.unlock()
	return nil
}

// countFor is what the backoff is asked for when a delivery ends as v says: the
// number of the attempt, or, if it is a release, that of the releases in a row.
func (q *Queue[T]) countFor(v message.Verdict, ref message.Ref) int32 {
	if v.Cause != message.Released || v.Wait != message.FromBackoff {
		return ref.Attempt
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	past, ok := q.leases.Past(ref)
	if !ok {
		i := ref.Block
		if q.ownedLocked(i, ref.Stamp) != nil {
			return 1 // it settles nothing
		}
		past = message.Past{Hist: q.win.At(i).hist, Passes: q.win.Meta(i).Passes}
	}
	return 1 + int32(past.Hist.Releases(int(past.Passes)))
}

// waitAfter is how long a message waits after an attempt that ended as v says.
// It calls the user's backoff: no lock is held.
func (q *Queue[T]) waitAfter(v message.Verdict, attempt int32) time.Duration {
	if v.Wait != message.FromBackoff && (!q.letters || v.Cause != message.PermanentlyFailed) {
		return v.Wait
	}
	if q.letters || !v.Cause.Spends() || q.set.MaxAttempts == message.Unlimited || int64(attempt) < int64(q.set.MaxAttempts) {
		wait, e := q.set.Backoff.Ask(int(attempt))
		if !e.Returned {
			q.core.to.LogApart("fanout: a backoff "+causeOf(e).String(), slog.String("topic", q.core.name), slog.String("queue", q.name),
				slog.Any("panic", e.Panicked), slog.Duration("wait", wait))
		}
		return wait
	}
	return 0
}

// settleLocked ends the delivery of entry i, which is in flight.
func (q *Queue[T]) settleLocked(i int32, v message.Verdict, now int64) {
	q.win.Unschedule(i)
	q.endLocked(i, v, now)
	q.armLocked(now)
	q.handOnLocked()
}

// endLocked ends the delivery of entry i, which is no longer scheduled.
func (q *Queue[T]) endLocked(i int32, v message.Verdict, now int64) {
	if q.keeper != nil {
		q.keeper.endLocked(i, v, now)
		return
	}
	m, h := q.win.Meta(i), q.win.At(i)
	q.countEndLocked(v.Cause)
	q.noteItemLocked(notice.Settled, &h.item, notice.Event{
		Attempt: int(m.Spent) + 1, Cause: message.Cause(v.Cause), Err: v.Err, Elapsed: time.Duration(now - h.start), Wait: v.Wait,
	})
	if v.Cause == message.Acked {
		q.freeLocked(i)
		q.checkDrainedLocked()
		return
	}
	q.noteUnreturnedLocked(&h.item, v, int(m.Spent)+1, time.Duration(now-h.start))
	h.hist = h.hist.With(q.attempt(v, h.start, now))
	q.win.Restamp(i)
	var then fate
	then, m.Spent, m.Passes = q.judge(v, m.Spent, m.Passes, q.expired(&h.item, now))
	q.n[m.State]--
	q.goOnLocked(i, then, v, now)
}

// goOnLocked has entry i, whose state has been left and whose delivery has ended as v
// says, go on.
func (q *Queue[T]) goOnLocked(i int32, then fate, v message.Verdict, now int64) {
	switch then {
	case dies:
		q.buryLocked(i)
	case expires:
		q.expireLocked(i, now)
	default:
		q.retryLocked(i, v, now)
	}
	q.checkDrainedLocked()
}

// A fate is what becomes of a message whose delivery has ended without an
// acknowledgement.
type fate uint8

const (
	retries fate = iota
	dies         // its attempts are spent, or it was given back too often
	expires      // its time to live has passed
)

// judge says what becomes of a message whose delivery ends as v says, and how many
// attempts it has spent then, and how often it was given back. spent and passes are
// those before; expired says whether its time to live has passed. It is the same in
// memory and on an engine.
func (q *Queue[T]) judge(v message.Verdict, spent uint32, passes uint16, expired bool) (then fate, _ uint32, _ uint16) {
	over := false
	if v.Cause.Spends() {
		spent++
		most := q.set.MaxAttempts
		over = v.Cause == message.PermanentlyFailed || most != message.Unlimited && int64(spent) >= int64(most)
	} else if v.Wait > 0 {
		passes = min(passes+1, message.MostPasses)
		over = passes >= message.MostPasses
	}
	switch {
	case q.letters: // a dead-letter queue retries for ever
	case over:
		then = dies
	case expired:
		then = expires
	}
	return then, spent, passes
}

// attempt is what a history keeps of a delivery that began at start and ended now,
// as v says.
func (q *Queue[T]) attempt(v message.Verdict, start, now int64) kept {
	return kept{
		Attempt: message.Attempt{
			Cause: message.Cause(v.Cause), Queue: q.name, Err: v.Err, Stack: v.Stack,
			Start: q.core.time(start), Elapsed: time.Duration(now - start),
		},
		Text: v.Text, Letter: q.letters,
	}
}

// retryLocked puts entry i, whose state has been left, where it waits for its
// next delivery.
func (q *Queue[T]) retryLocked(i int32, v message.Verdict, now int64) {
	switch {
	case v.Cause == message.Released && q.draining:
		q.putLocked(i, released)
	case v.Cause == message.Released && v.Wait <= 0 && !q.letters:
		q.takeAllBackLocked() // it may go before what waits in a lease
		q.putBackLocked(i)
	case v.Wait <= 0:
		q.putLocked(i, due)
	default:
		state := retrying
		if v.Cause == message.Snoozed {
			state = delayed
		}
		q.putLocked(i, state)
		q.win.Schedule(i, after(now, v.Wait))
	}
}

// expired reports whether a message's time to live has passed.
func (q *Queue[T]) expired(it *item[T], now int64) bool {
	at, ok := q.expiry(it)
	return ok && now >= at
}

// expiry returns the instant at which a message's time to live has passed, and
// false if it has none.
func (q *Queue[T]) expiry(it *item[T]) (at int64, ok bool) {
	ttl, born := q.set.TTL, it.At
	if it.Ext != nil {
		if it.Ext.TTL > 0 {
			ttl = it.Ext.TTL
		}
		if it.Ext.Born > 0 {
			born = it.Ext.Born
		}
	}
	return after(born, ttl), ttl > 0 && !q.letters
}

// expireLocked buries entry i, whose state has been left, because its time to
// live has passed.
func (q *Queue[T]) expireLocked(i int32, now int64) {
	h := q.win.At(i)
	q.rareLocked().ended[message.Expired]++
	h.hist = h.hist.With(q.attempt(message.Verdict{Cause: message.Expired}, now, now))
	q.buryLocked(i)
}

// putLocked gives entry i, which is in no list, a state that is not in flight.
// The caller schedules it if the state is one that waits.
func (q *Queue[T]) putLocked(i int32, state uint8) {
	m := q.win.Meta(i)
	m.State = state
	q.n[state]++
	if l := q.listOf(state); l != nil {
		q.win.Push(l, i)
	}
	if state == due {
		q.takeAllBackLocked() // it takes turns with what waits in a lease
	}
	if state != parked {
		q.noteExpiryLocked(i)
	}
	// A backlog is in the order of publication, but letters come as they die.
	if state != parked && (state != backlogged || q.letters) {
		q.rankLocked(i)
	}
}

// becomeDueLocked makes entry i due, whose state has been left. What waits in leases
// since it timed out is before it.
func (q *Queue[T]) becomeDueLocked(i int32) {
	if q.leases.Expired() > 0 {
		q.win.Restamp(i)
	}
	q.putLocked(i, due)
}

// rankLocked makes entry i known to a queue that drops its oldest.
func (q *Queue[T]) rankLocked(i int32) {
	if q.set.Overflow == settings.DropOldest {
		q.win.Rank(i, int64(q.win.At(i).Seq))
	}
}

// takeOutLocked takes entry i, which is not in flight, out of its list or the schedule.
func (q *Queue[T]) takeOutLocked(i int32) {
	state := q.win.Meta(i).State
	if state == blocked {
		q.win.Pull(&q.keys[keyOf(&q.win.At(i).item)].line, i)
	} else if l := q.listOf(state); l != nil {
		q.win.Pull(l, i)
	} else {
		q.win.Unschedule(i)
	}
}

// listOf returns the list that holds the entries of a state, or nil if they are in none.
func (q *Queue[T]) listOf(state uint8) *window.List {
	switch state {
	case backlogged:
		return &q.backlog
	case due:
		return &q.due
	case parked:
		return &q.parked
	}
	return nil
}

// freeLocked removes entry i, which is in no list and not scheduled, and with
// it the message from the queue.
func (q *Queue[T]) freeLocked(i int32) {
	q.n[q.win.Meta(i).State]--
	q.removeLocked(i)
}

// removeLocked is freeLocked for an entry whose state has been left.
func (q *Queue[T]) removeLocked(i int32) {
	q.leaveKeyLocked(&q.win.At(i).item, i)
	q.win.Remove(i)
	q.allow.Add(1)
}

// extend moves the deadline of a delivery.
func (q *Queue[T]) extend(ctx context.Context, ref message.Ref, by time.Duration) error {
	return q.at().extend(ctx, ref, by)
}

// extendHere is extend in memory.
func (q *Queue[T]) extendHere(ref message.Ref, by time.Duration) error {
	q.mu.Lock()
	defer q.unlock() // what a range has acknowledged is tallied on the way
	now := q.core.now()
	if q.leases.Extend(ref, after(now, by), now) {
		q.tallyLocked()
		q.armLocked(now)
		return nil
	}
	i := ref.Block
	if err := q.ownedLocked(i, ref.Stamp); err != nil {
		return err
	}
	now = q.core.now()
	if at := after(now, by); at > q.win.Meta(i).Deadline {
		q.win.Unschedule(i)
		q.win.Schedule(i, at)
		q.armLocked(now)
	}
	return nil
}

func (q *Queue[T]) deadline(ref message.Ref) time.Time {
	q.mu.Lock()
	defer q.unlock() // as in extend
	now := q.core.now()
	if at, ok := q.leases.Deadline(ref, now); ok {
		q.tallyLocked()
		q.armLocked(now)
		return q.core.time(at)
	}
	i := ref.Block
	if q.ownedLocked(i, ref.Stamp) != nil {
		return time.Time{}
	}
	return q.core.time(q.win.Meta(i).Deadline)
}
