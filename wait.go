package fanout

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// A waiter is an offer that waits for room. decided is closed, by whoever
// decided about it, after err was set; both belong to the topic's mu until then.
type waiter[T any] struct {
	*offer[T]
	decided chan struct{}
	err     error
	run     *run // of the handler that publishes, or nil
	// again gets a token when the waiter was looked at and has to wait on,
	// perhaps for another queue.
	again chan struct{}
}

// lookAgain has w look for a deadlock again.
func (w *waiter[T]) lookAgain() {
	select {
	case w.again <- struct{}{}:
	default: // it will
	}
}

// offer adds o to the queues, and waits for its turn if it must and may.
func (t *Topic[T]) offer(ctx context.Context, o *offer[T], try bool) error {
	var r *run
	if o.redrive != nil { // before it has moved letters: it asks the user's context
		r = runOf(ctx)
	}
	t.mu.Lock()
	full, fx, err := t.firstLookLocked(o, r)
	if o.redrive == nil && (t.state == topicClosing || full != nil && !try) { // it counts whether a handler publishes
		t.mu.Unlock()
		r = runOf(ctx) // asks the user's context: without a lock
		t.mu.Lock()
		full, fx, err = t.firstLookLocked(o, r)
	}
	var w *waiter[T]
	if full != nil && !try {
		w = &waiter[T]{offer: o, run: r, decided: make(chan struct{}), again: make(chan struct{}, 1)}
		t.waiters = append(t.waiters, w)
	}
	moved := o.moved
	t.mu.Unlock()
	if err != nil {
		return err
	}
	if w != nil {
		return t.stand(ctx, w, full, fx, moved > 0)
	}
	if full == nil || moved > 0 {
		fx.and(t.after(o)).perform()
	}
	if full != nil {
		return fmt.Errorf("%w: queue %q", ErrQueueFull, full.name)
	}
	return nil
}

// stand waits for w's turn. Some of it has been admitted already if moved is true.
// It asks the user's context and calls hooks: if one of them ends the goroutine,
// or panics, w gives up its place as if its context had ended.
func (t *Topic[T]) stand(ctx context.Context, w *waiter[T], full *Queue[T], fx *effects, moved bool) error {
	awaited := false
	defer func() {
		if !awaited {
			t.giveUp(w)
		}
	}()
	if moved {
		fx.and(t.after(w.offer)).perform()
	}
	err := t.await(ctx, w, full)
	awaited = true
	if t.giveUp(w) {
		return err
	}
	<-w.decided // perhaps just now: what was decided is what happened
	return w.err
}

// giveUp takes w out of the line, and reports whether it was there still.
func (t *Topic[T]) giveUp(w *waiter[T]) bool {
	t.mu.Lock()
	k := slices.Index(t.waiters, w)
	if k < 0 {
		t.mu.Unlock()
		return false
	}
	t.waiters = slices.Delete(t.waiters, k, k+1)
	t.mu.Unlock()
	t.admitWaiters().perform() // those behind this one may not share the queue it waited for
	return true
}

// stallAfter is how long a publish waits before it is reported, and how long
// until it is reported again.
const stallAfter = 10 * time.Second

// await waits until w is decided, and returns early with an error if ctx ends
// or if it would wait for ever.
func (t *Topic[T]) await(ctx context.Context, w *waiter[T], full *Queue[T]) error {
	since := t.now()
	hw := &handlerWait{blockers: func() []waitQueue { return t.blockersOf(w) }}
	run := w.run
	if run != nil {
		run.add(hw)
		defer run.remove(hw)
	}
	stalled := time.NewTimer(stallAfter)
	defer stalled.Stop()
	for {
		if run != nil {
			if err := run.deadlock(hw); err != nil {
				return err
			}
		}
		select {
		case <-w.decided:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("%w while waiting for room in queue %q", contextError(ctx), full.name)
		case <-w.again:
		case <-stalled.C:
			if qs := t.blockersOf(w); len(qs) > 0 {
				full = qs[0].(*Queue[T]) // it may have become another
			}
			full.reportStall(time.Duration(t.now() - since))
			stalled.Reset(stallAfter)
		}
	}
}

// reportStall tells that a publish has been waiting for room.
func (q *Queue[T]) reportStall(waited time.Duration) {
	s := q.Stats()
	q.mu.Lock()
	fx := q.noteLocked(nil, stalledEvent, Event{Elapsed: waited, Count: 1, Stats: &s})
	q.mu.Unlock()
	fx.perform()
}

// firstLookLocked admits a new offer, unless one that came before it waits for
// a queue that this one wants too. It returns the queue to wait for. r is the run
// that publishes, or nil.
func (t *Topic[T]) firstLookLocked(o *offer[T], r *run) (full *Queue[T], fx *effects, err error) {
	if !t.takesLocked(o, r) {
		return nil, nil, ErrClosed
	}
	t.dropDuplicatesLocked(o)
	if len(t.waiters) > 0 && (o.redrive != nil || len(o.items) > 0) {
		t.pass++
		for _, w := range t.waiters {
			t.claimLocked(w.offer)
		}
		if q := t.claimedLocked(o); q != nil {
			if err := t.refusedLocked(o); err != nil {
				return nil, nil, err
			}
			return q, nil, nil
		}
	}
	return t.admitLocked(o)
}

// takesLocked reports whether the topic's state lets an offer of run r in.
func (t *Topic[T]) takesLocked(o *offer[T], r *run) bool {
	return t.state == topicOpen || o.redrive == nil && t.mayPublishLocked(r)
}

// claimLocked marks the targets of an offer that waits: who comes later and
// wants one of them waits behind it. Nobody waits for a queue that drops, so
// that a redrive to one, which does wait, keeps no publish waiting.
func (t *Topic[T]) claimLocked(o *offer[T]) {
	for q := range t.targets(o) {
		if o.redrive == nil || !q.set.overflow.drops() {
			q.mark = t.pass
		}
	}
}

// claimedLocked returns a target of o that one who came before waits for.
func (t *Topic[T]) claimedLocked(o *offer[T]) *Queue[T] {
	for q := range t.targets(o) {
		if q.mark == t.pass {
			return q
		}
	}
	return nil
}

// after does what remains once an offer was admitted, as a whole or in part. No
// lock is held; an offer admitted in part is a waiter's again, so that only what
// of it never changes may be looked at.
func (t *Topic[T]) after(o *offer[T]) *effects {
	if o.redrive != nil {
		return o.redrive.DeadLetters().madeRoom()
	}
	t.wakeAll()
	return nil
}

// admitWaiters admits those who wait for room, in the order of their arrival.
// One that still has to wait holds back those behind it that share a queue
// with it, and no others. A redrive that moved some of its letters goes behind
// the others for the rest.
func (t *Topic[T]) admitWaiters() (fx *effects) {
	var admitted, decided, waiting, again []*waiter[T]
	t.mu.Lock()
	t.pass++
	for _, w := range t.waiters {
		if !t.takesLocked(w.offer, w.run) { // its handler has returned, and Shutdown was called
			w.err = ErrClosed
			decided = append(decided, w)
			continue
		}
		t.dropDuplicatesLocked(w.offer)
		if w.redrive == nil && len(w.items) == 0 { // published by another meanwhile
			t.countDuplicatesLocked(w.offer)
			decided = append(decided, w)
			continue
		}
		if t.claimedLocked(w.offer) != nil {
			t.claimLocked(w.offer)
			waiting = append(waiting, w)
			continue
		}
		moved := w.moved
		full, more, err := t.admitLocked(w.offer)
		fx = fx.and(more)
		if full == nil && err == nil || w.moved > moved {
			admitted = append(admitted, w)
		}
		switch {
		case full == nil:
			w.err = err
			decided = append(decided, w)
		case w.moved > moved:
			again = append(again, w)
		default:
			t.claimLocked(w.offer)
			waiting = append(waiting, w)
		}
	}
	t.waiters = append(waiting, again...)
	var inHandlers []*waiter[T]
	for _, w := range t.waiters {
		if w.run != nil {
			inHandlers = append(inHandlers, w)
		}
	}
	t.mu.Unlock()
	for _, w := range decided {
		close(w.decided)
	}
	for _, w := range inHandlers {
		w.lookAgain()
	}
	for _, w := range admitted {
		fx = fx.and(t.after(w.offer))
	}
	return fx
}

// refuseWaitersLocked decides about the waiters whom the topic's state does not let
// in that it is closed. The caller closes their decided.
func (t *Topic[T]) refuseWaitersLocked() (refused []*waiter[T]) {
	t.waiters = slices.DeleteFunc(t.waiters, func(w *waiter[T]) bool {
		if t.takesLocked(w.offer, w.run) {
			return false
		}
		w.err = ErrClosed
		refused = append(refused, w)
		return true
	})
	return refused
}
