package queue

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

// OwnedLocked returns nil if stamp still owns entry i in flight, and otherwise
// the error that says why not.
func (q *Queue[T]) OwnedLocked(i int32, stamp uint64) error {
	var err error
	switch {
	case q.Closed:
		err = message.ErrClosed
	case i >= 0 && q.Win.Owns(i, stamp) && (q.Win.Meta(i).State == InFlight || q.Win.Meta(i).State == InHandler):
		return nil
	case stamp == 0 || q.Stale.Has(stamp):
		err = message.ErrStale
	default:
		err = message.ErrSettled
	}
	return fmt.Errorf("%w: queue %q", err, q.QueueName)
}

// Settle ends a delivery as v says.
func (q *Queue[T]) Settle(ctx context.Context, ref message.Ref, v message.Verdict) error {
	return q.At().Settle(ctx, ref, v)
}

// settleHere is Settle in memory.
func (q *Queue[T]) settleHere(ref message.Ref, v message.Verdict) error {
	v = v.Told()
	v.Wait = q.WaitAfter(v, q.CountFor(v, ref))
	q.Mu.Lock()
	now := q.Core.Now()
	if out, ok := q.Leases.Extract(ref, now); ok {
		q.TallyLocked()
		q.LandedLocked(&out, v, now)
		q.ArmLocked(now)
		q.HandOnLocked()
		q.Unlock()
		return nil
	}
	i := ref.Block
	err := q.OwnedLocked(i, ref.Stamp)
	if err != nil {
		q.Mu.Unlock()
		return err
	}
	if v.Cause != message.Acked || q.Hooked(notice.Settled) {
		now = q.Core.Now() // not before the start, which may have been set just now
	}
	q.settleLocked(i, v, now)
	q.Unlock()
	return nil
}

// CountFor is what the backoff is asked for when a delivery ends as v says: the
// number of the attempt, or, if it is a release, that of the releases in a row.
func (q *Queue[T]) CountFor(v message.Verdict, ref message.Ref) int32 {
	if v.Cause != message.Released || v.Wait != message.FromBackoff {
		return ref.Attempt
	}
	q.Mu.Lock()
	defer q.Mu.Unlock()
	past, ok := q.Leases.Past(ref)
	if !ok {
		i := ref.Block
		if q.OwnedLocked(i, ref.Stamp) != nil {
			return 1 // it settles nothing
		}
		past = message.Past{Hist: q.Win.At(i).Hist, Passes: q.Win.Meta(i).Passes}
	}
	return 1 + int32(past.Hist.Releases(int(past.Passes)))
}

// WaitAfter is how long a message waits after an attempt that ended as v says.
// It calls the user's backoff: no lock is held.
func (q *Queue[T]) WaitAfter(v message.Verdict, attempt int32) time.Duration {
	if v.Wait != message.FromBackoff && (!q.Letters || v.Cause != message.PermanentlyFailed) {
		return v.Wait
	}
	if q.Letters || !v.Cause.Spends() || q.Set.MaxAttempts == message.Unlimited || int64(attempt) < int64(q.Set.MaxAttempts) {
		wait, e := q.Set.Backoff.Ask(int(attempt))
		if !e.Returned {
			q.Core.To.LogApart("fanout: a backoff "+CauseOf(e).String(), slog.String("topic", q.Core.TopicName), slog.String("queue", q.QueueName),
				slog.Any("panic", e.Panicked), slog.Duration("wait", wait))
		}
		return wait
	}
	return 0
}

// settleLocked ends the delivery of entry i, which is in flight.
func (q *Queue[T]) settleLocked(i int32, v message.Verdict, now int64) {
	q.Win.Unschedule(i)
	q.endLocked(i, v, now)
	q.ArmLocked(now)
	q.HandOnLocked()
}

// endLocked ends the delivery of entry i, which is no longer scheduled.
func (q *Queue[T]) endLocked(i int32, v message.Verdict, now int64) {
	if q.Keeper != nil {
		q.Keeper.EndLocked(i, v, now)
		return
	}
	m, h := q.Win.Meta(i), q.Win.At(i)
	q.CountEndLocked(v.Cause)
	q.NoteItemLocked(notice.Settled, &h.Item, notice.Event{
		Attempt: int(m.Spent) + 1, Cause: message.Cause(v.Cause), Err: v.Err, Elapsed: time.Duration(now - h.Start), Wait: v.Wait,
	})
	if v.Cause == message.Acked {
		q.FreeLocked(i)
		q.CheckDrainedLocked()
		return
	}
	q.NoteUnreturnedLocked(&h.Item, v, int(m.Spent)+1, time.Duration(now-h.Start))
	h.Hist = h.Hist.With(q.Attempt(v, h.Start, now))
	q.Win.Restamp(i)
	var then Fate
	then, m.Spent, m.Passes = q.Judge(v, m.Spent, m.Passes, q.Expired(&h.Item, now))
	q.N[m.State]--
	q.goOnLocked(i, then, v, now)
}

// goOnLocked has entry i, whose state has been left and whose delivery has ended as v
// says, go on.
func (q *Queue[T]) goOnLocked(i int32, then Fate, v message.Verdict, now int64) {
	switch then {
	case Dies:
		q.deadLetterLocked(i)
	case Expires:
		q.ExpireLocked(i, now)
	default:
		q.retryLocked(i, v, now)
	}
	q.CheckDrainedLocked()
}

// A Fate is what becomes of a message whose delivery has ended without an
// acknowledgement.
type Fate uint8

const (
	Retries Fate = iota
	Dies         // its attempts are spent, or it was given back too often
	Expires      // its time to live has passed
)

// Judge says what becomes of a message whose delivery ends as v says, and how many
// attempts it has spent then, and how often it was given back. spent and passes are
// those before; expired says whether its time to live has passed. It is the same in
// memory and on an engine.
func (q *Queue[T]) Judge(v message.Verdict, spent uint32, passes uint16, expired bool) (then Fate, _ uint32, _ uint16) {
	over := false
	if v.Cause.Spends() {
		spent++
		most := q.Set.MaxAttempts
		over = v.Cause == message.PermanentlyFailed || most != message.Unlimited && int64(spent) >= int64(most)
	} else if v.Wait > 0 {
		passes = min(passes+1, message.MostPasses)
		over = passes >= message.MostPasses
	}
	switch {
	case q.Letters: // a dead-letter queue retries for ever
	case over:
		then = Dies
	case expired:
		then = Expires
	}
	return then, spent, passes
}

// Attempt is what a history keeps of a delivery that began at start and ended now,
// as v says.
func (q *Queue[T]) Attempt(v message.Verdict, start, now int64) Kept {
	return Kept{
		Attempt: message.Attempt{
			Cause: message.Cause(v.Cause), Queue: q.QueueName, Err: v.Err, Stack: v.Stack,
			Start: q.Core.Time(start), Elapsed: time.Duration(now - start),
		},
		Text: v.Text, Letter: q.Letters,
	}
}

// retryLocked puts entry i, whose state has been left, where it waits for its
// next delivery.
func (q *Queue[T]) retryLocked(i int32, v message.Verdict, now int64) {
	switch {
	case v.Cause == message.Released && q.draining:
		q.PutLocked(i, released)
	case v.Cause == message.Released && v.Wait <= 0 && !q.Letters:
		q.TakeAllBackLocked() // it may go before what waits in a lease
		q.putBackLocked(i)
	case v.Wait <= 0:
		q.PutLocked(i, Due)
	default:
		state := retrying
		if v.Cause == message.Snoozed {
			state = delayed
		}
		q.PutLocked(i, state)
		q.Win.Schedule(i, After(now, v.Wait))
	}
}

// Expired reports whether a message's time to live has passed.
func (q *Queue[T]) Expired(it *Item[T], now int64) bool {
	at, ok := q.expiry(it)
	return ok && now >= at
}

// expiry returns the instant at which a message's time to live has passed, and
// false if it has none.
func (q *Queue[T]) expiry(it *Item[T]) (at int64, ok bool) {
	ttl, born := q.Set.TTL, it.At
	if it.Ext != nil {
		if it.Ext.TTL > 0 {
			ttl = it.Ext.TTL
		}
		if it.Ext.Born > 0 {
			born = it.Ext.Born
		}
	}
	return After(born, ttl), ttl > 0 && !q.Letters
}

// ExpireLocked dead-letters entry i, whose state has been left, because its time to
// live has passed.
func (q *Queue[T]) ExpireLocked(i int32, now int64) {
	h := q.Win.At(i)
	q.OnDemandLocked().Ended[message.Expired]++
	h.Hist = h.Hist.With(q.Attempt(message.Verdict{Cause: message.Expired}, now, now))
	q.deadLetterLocked(i)
}

// PutLocked gives entry i, which is in no list, a state that is not in flight.
// The caller schedules it if the state is one that waits.
func (q *Queue[T]) PutLocked(i int32, state uint8) {
	m := q.Win.Meta(i)
	m.State = state
	q.N[state]++
	if l := q.ListOf(state); l != nil {
		q.Win.Push(l, i)
	}
	if state == Due {
		q.TakeAllBackLocked() // it takes turns with what waits in a lease
	}
	if state != parked {
		q.noteExpiryLocked(i)
	}
	// A backlog is in the order of publication, but letters come as they die.
	if state != parked && (state != Backlogged || q.Letters) {
		q.rankLocked(i)
	}
}

// becomeDueLocked makes entry i due, whose state has been left. What waits in leases
// since it timed out is before it.
func (q *Queue[T]) becomeDueLocked(i int32) {
	if q.Leases.Expired() > 0 {
		q.Win.Restamp(i)
	}
	q.PutLocked(i, Due)
}

// rankLocked makes entry i known to a queue that drops its oldest.
func (q *Queue[T]) rankLocked(i int32) {
	if q.Set.Overflow == settings.DropOldest {
		q.Win.Rank(i, int64(q.Win.At(i).Seq))
	}
}

// takeOutLocked takes entry i, which is not in flight, out of its list or the schedule.
func (q *Queue[T]) takeOutLocked(i int32) {
	state := q.Win.Meta(i).State
	if state == blocked {
		q.Win.Pull(&q.Keys[keyOf(&q.Win.At(i).Item)].line, i)
	} else if l := q.ListOf(state); l != nil {
		q.Win.Pull(l, i)
	} else {
		q.Win.Unschedule(i)
	}
}

// ListOf returns the list that holds the entries of a state, or nil if they are in none.
func (q *Queue[T]) ListOf(state uint8) *window.List {
	switch state {
	case Backlogged:
		return &q.backlog
	case Due:
		return &q.due
	case parked:
		return &q.parked
	}
	return nil
}

// FreeLocked removes entry i, which is in no list and not scheduled, and with
// it the message from the queue.
func (q *Queue[T]) FreeLocked(i int32) {
	q.N[q.Win.Meta(i).State]--
	q.removeLocked(i)
}

// removeLocked is FreeLocked for an entry whose state has been left.
func (q *Queue[T]) removeLocked(i int32) {
	q.LeaveKeyLocked(&q.Win.At(i).Item, i)
	q.Win.Remove(i)
	q.Allow.Add(1)
}

// extend moves the deadline of a delivery.
func (q *Queue[T]) extend(ctx context.Context, ref message.Ref, by time.Duration) error {
	return q.At().Extend(ctx, ref, by)
}

// extendHere is extend in memory.
func (q *Queue[T]) extendHere(ref message.Ref, by time.Duration) error {
	q.Mu.Lock()
	defer q.Unlock() // what a range has acknowledged is tallied on the way
	now := q.Core.Now()
	if q.Leases.Extend(ref, After(now, by), now) {
		q.TallyLocked()
		q.ArmLocked(now)
		return nil
	}
	i := ref.Block
	if err := q.OwnedLocked(i, ref.Stamp); err != nil {
		return err
	}
	now = q.Core.Now()
	if at := After(now, by); at > q.Win.Meta(i).Deadline {
		q.Win.Unschedule(i)
		q.Win.Schedule(i, at)
		q.ArmLocked(now)
	}
	return nil
}

func (q *Queue[T]) deadline(ref message.Ref) time.Time {
	q.Mu.Lock()
	defer q.Unlock() // as in extend
	now := q.Core.Now()
	if at, ok := q.Leases.Deadline(ref, now); ok {
		q.TallyLocked()
		q.ArmLocked(now)
		return q.Core.Time(at)
	}
	i := ref.Block
	if q.OwnedLocked(i, ref.Stamp) != nil {
		return time.Time{}
	}
	return q.Core.Time(q.Win.Meta(i).Deadline)
}
