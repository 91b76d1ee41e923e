package enginequeue

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/onengine"
	"github.com/gofanout/fanout/internal/store"
)

// A ending is how a lease ends, as the engine is told.
type ending struct {
	ack, deadLetter bool
	wait            time.Duration
	state           onengine.Full
	dead            notice.Event // of a message that is to be a dead letter
	again           bool         // it was parked before
}

// planLocked says how the delivery of entry i ends by v: what the engine is told, and
// how many attempts are spent then. It changes nothing.
func (r *Queue[T]) planLocked(i int32, v message.Verdict, now int64) (end ending, spent uint32) {
	q := r.q
	m, h := q.Store.Win.Meta(i), q.Store.Win.At(i)
	if v.Cause == message.Acked {
		return ending{ack: true}, m.Spent
	}
	hist := h.Hist
	if !v.Unstarted {
		hist = hist.With(q.Store.Attempt(v, h.Start, now))
	}
	end.wait = max(v.Wait, 0)
	then, spent, passes := q.Store.Judge(v, m.Spent, m.Passes, v.Cause != message.Released && q.Store.Expired(&h.Item, now))
	if then == store.Expires {
		hist = hist.With(q.Store.Attempt(message.Verdict{Cause: message.Expired}, now, now))
	}
	end.deadLetter = then != store.Retries
	if most := r.on.Caps[engine.RetryDelay].Most; most > 0 {
		end.wait = min(end.wait, most)
	}
	s := onengine.State{Spent: int32(min(spent, math.MaxInt32)), Passes: passes, Dead: end.deadLetter, Deliveries: leaseOf(h.Ext).deliveries, Born: leaseOf(h.Ext).born}
	end.state = onengine.Full{State: s, Hist: hist}
	if end.deadLetter {
		last := hist.Last()
		end.dead = notice.Event{Attempt: int(spent), Cause: last.Cause, Err: last.Err, Elapsed: last.Elapsed}
	}
	return end, spent
}

// do tells the engine how a lease ends. A message that finds no way to the dead
// letters is parked: it comes again, and tries again.
func (r *Queue[T]) do(ctx context.Context, l *leased, end ending) (parked bool, err error) {
	wait := end.wait
	var refused error // by the dead-letter queue, and not because it is full
	switch {
	case end.ack:
		return false, onengine.Error(r.eq.Ack(ctx, l.receipt))
	case end.deadLetter:
		m := l.msg
		err = end.state.Fit(func(data []byte) error {
			m.State = data
			return r.eq.DeadLetter(ctx, l.receipt, m)
		})
		if err == nil || errors.Is(err, engine.ErrStale) {
			return false, onengine.Error(err)
		}
		if !errors.Is(err, engine.ErrFull) {
			refused = r.refusal(&m, err)
		}
		parked, wait = true, parkedWait
		if errors.Is(err, engine.ErrTooLarge) {
			wait, _ = r.q.Store.Set.Backoff.Ask(math.MaxInt32)
		}
		if most := r.on.Caps[engine.RetryDelay].Most; most > 0 {
			wait = min(wait, most)
		}
	}
	if !r.on.Caps[engine.State].Kept {
		data := end.state.Encode(onengine.MostState)
		r.q.Mu.Lock()
		r.memories.Put(l.msg.ID, data)
		r.q.Mu.Unlock()
	}
	err = onengine.Error(end.state.Fit(func(data []byte) error { return r.eq.Return(ctx, l.receipt, wait, data) }))
	if err == nil && refused != nil {
		r.failedAt("dead-letter", refused)
	}
	return parked, err
}

// parkedWait is when a message that was refused by the dead-letter queue tries again. One
// that is too large for it, which somebody else has published, waits as long as the backoff
// does at the longest: it tries in case the limit is raised, or until the engine's own
// limit of deliveries ends it.
const parkedWait = 5 * time.Second

// mostOversized bounds the messages of which a queue remembers that they are too large.
const mostOversized = 1000

// refusal returns the error to be told of a message that the dead-letter queue refused:
// nil for one that is too large and was told of before.
func (r *Queue[T]) refusal(m *engine.Message, err error) error {
	if errors.Is(err, engine.ErrTooLarge) {
		r.q.Mu.Lock()
		defer r.q.Mu.Unlock()
		if r.oversized[m.ID] {
			return nil
		}
		if r.oversized == nil || len(r.oversized) >= mostOversized {
			r.oversized = make(map[string]bool)
		}
		r.oversized[m.ID] = true
	}
	return fmt.Errorf("message %q: %w", m.ID, onengine.Error(err))
}

// Settle ends the delivery as v says, for whoever has it. If
// the engine fails, the delivery is as it was before. A ctx without a deadline
// gets one, so that no worker hangs on an engine that does not answer.
func (r *Queue[T]) Settle(ctx context.Context, ref message.Ref, v message.Verdict) error {
	q, i, stamp := r.q, ref.Block, ref.Stamp
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, onengine.SettleTime)
		defer cancel()
	}
	v = v.Told()
	v.Wait = delivery.WaitAfter(q, v, delivery.CountFor(q, v, ref))
	q.Mu.Lock()
	now, err := r.awaitOwnedLocked(ctx, i, stamp)
	if err != nil {
		q.Mu.Unlock()
		return err
	}
	m, h := q.Store.Win.Meta(i), q.Store.Win.At(i)
	deadline, lease, it, start := m.Deadline, leaseOf(h.Ext), h.Item, h.Start
	q.Store.Win.Unschedule(i)
	during := q.Store.Win.Restamp(i) // whoever settles it meanwhile waits, and comes second
	end, spent := r.planLocked(i, v, now)
	q.Calls++
	ended := make(chan struct{})
	if r.ending == nil {
		r.ending = make(map[uint64]chan struct{})
	}
	r.ending[stamp] = ended
	q.Mu.Unlock()
	parked, err := r.do(ctx, lease, end)
	var late message.Verdict // if the visibility timeout has passed meanwhile
	if err != nil {
		late = message.Verdict{Cause: message.TimedOut, Err: fmt.Errorf("settle: %w", err)}.Told()
	}
	q.Mu.Lock()
	q.Calls--
	delete(r.ending, stamp)
	close(ended)
	owns := !q.Store.Closed && q.Store.Win.Owns(i, during)
	if err != nil && (!owns || errors.Is(err, message.ErrStale)) {
		q.Store.Stale.Add(stamp) // nobody has settled it, and nobody can
	}
	if owns {
		switch now := q.Core.Now(); {
		case err != nil && !errors.Is(err, message.ErrStale) && now < deadline:
			m := q.Store.Win.Meta(i)
			m.Stamp = stamp
			q.Store.Win.Schedule(i, deadline)
			q.ArmLocked(now)
		case err != nil && !errors.Is(err, message.ErrStale):
			q.Store.Stale.Add(stamp)
			r.EndLocked(i, late, now)
		default:
			if err == nil {
				r.countLocked(&it, v, end, spent, time.Duration(now-start))
				if end.deadLetter {
					r.deadLetteredLocked(&it, end.dead, parked)
				}
			}
			q.Store.CountOut(i)
			q.Store.Forget(i)
		}
	}
	q.CheckDrainedLocked()
	q.CheckEndedLocked()
	q.HandOnLocked()
	q.Unlock()
	if err != nil {
		return fmt.Errorf("queue %q: %w", q.Name(), err)
	}
	return nil
}

// awaitOwnedLocked returns nil, and the time, if stamp owns entry i now. While the
// engine is told of another settlement of the delivery it waits for how that
// ends, without the lock: the delivery may be as it was before.
func (r *Queue[T]) awaitOwnedLocked(ctx context.Context, i int32, stamp uint64) (now int64, err error) {
	q := r.q
	for !q.Store.Closed && r.ending[stamp] != nil {
		ended := r.ending[stamp]
		q.Mu.Unlock()
		select {
		case <-ended:
			q.Mu.Lock()
		case <-ctx.Done():
			q.Mu.Lock()
			return 0, fmt.Errorf("fanout: queue %q: another settlement of the delivery has not ended: %w", q.Name(), message.ContextError(ctx))
		}
	}
	now = q.Core.Now()
	err = q.Store.Owned(i, stamp)
	if err == nil && now > q.Store.Win.Meta(i).Deadline {
		err = fmt.Errorf("%w: queue %q", message.ErrStale, q.Name())
	}
	return now, err
}

// countLocked counts and notes how an attempt ended.
func (r *Queue[T]) countLocked(it *message.Item[T], v message.Verdict, end ending, spent uint32, elapsed time.Duration) {
	q := r.q
	q.Store.CountEnd(v.Cause)
	attempt := int(spent)
	if !v.Cause.Spends() { // else spent has it already
		attempt++
	}
	q.NoteItemLocked(notice.Settled, it, notice.Event{Attempt: attempt, Cause: message.Cause(v.Cause), Err: v.Err, Elapsed: elapsed, Wait: end.wait})
	q.NoteUnreturnedLocked(it, v, attempt, elapsed)
	if end.deadLetter && end.dead.Cause == message.Expired {
		q.Store.Counters().Ended[message.Expired]++
	}
}

// deadLetteredLocked counts and notes that a dead message is with the engine's dead letters,
// or found no way there.
func (r *Queue[T]) deadLetteredLocked(it *message.Item[T], dead notice.Event, parked bool) {
	q := r.q
	if parked {
		q.Store.Counters().Parked++
		q.NoteItemLocked(notice.Parked, it, dead)
		return
	}
	q.Store.Counters().DeadLettered++
	q.NoteItemLocked(notice.DeadLettered, it, dead)
}

// EndLocked ends the delivery of entry i, which is no longer scheduled, for nobody who
// could wait: the entry is gone, and the engine is told after unlocking.
func (r *Queue[T]) EndLocked(i int32, v message.Verdict, now int64) {
	q := r.q
	h := q.Store.Win.At(i)
	end, spent := r.planLocked(i, v, now)
	r.countLocked(&h.Item, v, end, spent, time.Duration(now-h.Start))
	q.Store.CountOut(i)
	r.tell(i, end)
	q.Store.Forget(i)
}

// DeadLetterLocked has entry i, whose state has been left, go to the engine's dead-letter queue.
func (r *Queue[T]) DeadLetterLocked(i int32) { r.deadLetterAgainLocked(i, false) }

// deadLetterAgainLocked is DeadLetterLocked for a message that could not go there before, if again is
// true.
func (r *Queue[T]) deadLetterAgainLocked(i int32, again bool) {
	q := r.q
	m, h := q.Store.Win.Meta(i), q.Store.Win.At(i)
	s := onengine.State{Spent: int32(m.Spent), Passes: m.Passes, Dead: true, Deliveries: leaseOf(h.Ext).deliveries, Born: leaseOf(h.Ext).born}
	r.tell(i, ending{deadLetter: true, state: onengine.Full{State: s, Hist: h.Hist}, dead: q.LastAttempt(i), again: again})
	q.Store.Forget(i)
}

// tell has the engine told, after unlocking, how the lease of entry i ends, and counts a
// dead message once the engine has it. The queue's Mu is held.
func (r *Queue[T]) tell(i int32, end ending) {
	it := r.q.Store.Win.At(i).Item
	r.later("settle", func(ctx context.Context) (then func(), err error) {
		parked, err := r.do(ctx, leaseOf(it.Ext), end)
		switch {
		case errors.Is(err, message.ErrStale):
			return nil, nil // it is with somebody else, or about to be
		case err != nil || !end.deadLetter || parked && end.again:
			return nil, err
		}
		return func() { r.deadLetteredLocked(&it, end.dead, parked) }, nil
	})
}

// later has f done after unlocking, which the queue's end waits for, and then, with the
// queue's Mu held, what f returns. The queue's Mu is held.
func (r *Queue[T]) later(what string, f func(ctx context.Context) (then func(), err error)) {
	r.q.Calls++
	r.q.Pending.Call(func() {
		q := r.q
		ctx, cancel := context.WithTimeout(context.Background(), onengine.SettleTime)
		defer cancel()
		then, err := f(ctx)
		q.Mu.Lock()
		if then != nil {
			then()
		}
		q.Calls--
		q.CheckDrainedLocked()
		q.CheckEndedLocked()
		q.Unlock()
		if err != nil && !message.IsClosed(err) {
			r.failedAt(what, err)
		}
	})
}

// failedAt tells that the engine failed at what the queue does by itself.
func (r *Queue[T]) failedAt(what string, err error) {
	r.q.Report.Tell(notice.EngineFailed, notice.Event{Time: time.Now(), Err: fmt.Errorf("%s: %w", what, err), Count: 1})
}

// Failed tells so of a worker's settlement that ended in err, and reports whether
// it was the engine that failed: not if the worker came too late.
func (r *Queue[T]) Failed(err error) bool {
	if errors.Is(err, message.ErrStale) || errors.Is(err, message.ErrSettled) {
		return false
	}
	r.failedAt("settle", err)
	return true
}

// Extend moves the deadline of the delivery, here and in the
// engine.
func (r *Queue[T]) Extend(ctx context.Context, ref message.Ref, by time.Duration) error {
	q, i, stamp := r.q, ref.Block, ref.Stamp
	q.Mu.Lock()
	now, err := r.awaitOwnedLocked(ctx, i, stamp)
	var lease *leased
	if err == nil {
		lease = leaseOf(q.Store.Win.At(i).Ext)
	}
	at := message.After(now, by)
	enough := err == nil && at <= q.Store.Win.Meta(i).Deadline
	q.Mu.Unlock()
	if err == nil && !enough {
		err = r.on.Need(true, fmt.Sprintf("Extend(%v)", by), engine.Visibility, by)
	}
	if err != nil || enough {
		return err
	}
	if err := r.eq.Extend(ctx, lease.receipt, r.lease(by)); err != nil {
		return fmt.Errorf("queue %q: %w", q.Name(), onengine.Error(err))
	}
	q.Mu.Lock()
	defer q.Mu.Unlock()
	if err := q.Store.Owned(i, stamp); err != nil {
		return err
	}
	if at > q.Store.Win.Meta(i).Deadline {
		q.Store.Win.Unschedule(i)
		q.Store.Win.Schedule(i, at)
		q.ArmLocked(q.Core.Now())
	}
	return nil
}

// ExtendLocked has the engine extend the lease of entry i, after unlocking.
func (r *Queue[T]) ExtendLocked(i int32, by time.Duration) {
	lease := leaseOf(r.q.Store.Win.At(i).Ext)
	r.later("extend", func(ctx context.Context) (func(), error) {
		return nil, onengine.Error(r.eq.Extend(ctx, lease.receipt, r.lease(by)))
	})
}
