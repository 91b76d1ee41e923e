package admission

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/gofanout/fanout/internal/handling"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/offer"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/view"
	"github.com/gofanout/fanout/internal/waitline"
)

// A waiter is an offer that waits for room. decided is closed, by whoever
// decided about it, after err was set; both belong to the topic's Mu until then.
type waiter[T any] struct {
	*offer.Offer[T]
	waitline.Waiter

	decided chan struct{}
	err     error
	run     *handling.Run // of the handler that publishes, or nil
	// again gets a token when the waiter was looked at and has to wait on,
	// perhaps for another queue.
	again chan struct{}

	// Guarded by the topic's Mu.
	full *queue.Queue[T] // what it was found to wait for
}

// lookAgain has w look for a deadlock again.
func (w *waiter[T]) lookAgain() {
	select {
	case w.again <- struct{}{}:
	default: // it will
	}
}

// offer adds o to the queues, and waits for its turn if it must and may.
func (a *Admission[T]) offer(ctx context.Context, o *offer.Offer[T], try bool) error {
	var r *handling.Run
	if o.Redrive != nil { // before it has moved letters: it asks the user's context
		r = handling.RunOf(ctx)
		o.MayWait = true
	}
	a.Mu.Lock()
	full, err := a.firstLookLocked(o, r)
	if o.Redrive == nil && (a.state == topicClosing || full != nil && !try) { // it counts whether a handler publishes
		a.Unlock()              // tells of what had expired
		r = handling.RunOf(ctx) // asks the user's context: without a lock
		o.MayWait = !try
		a.Mu.Lock()
		full, err = a.firstLookLocked(o, r)
	}
	var w *waiter[T]
	if full != nil && !try {
		w = &waiter[T]{Offer: o, run: r, decided: make(chan struct{}), again: make(chan struct{}, 1), full: full}
		w.Of, w.InHandler = w, r != nil
		a.enterLocked(w)
	}
	var p notice.Pending
	a.UnlockTo(&p) // admits those whose deduplication IDs are published now, or who wait where messages expired
	if w != nil {
		return a.stand(ctx, w, full, &p)
	}
	if err == nil && full == nil {
		a.after(o)
	}
	p.Perform()
	if err != nil {
		return err
	}
	if full != nil {
		return fmt.Errorf("%w: queue %q", message.ErrQueueFull, full.Name())
	}
	return nil
}

// stand performs p and waits for w's turn. It asks the user's context and calls hooks:
// if one of them ends the goroutine, or panics, w gives up its place as if its context
// had ended.
func (a *Admission[T]) stand(ctx context.Context, w *waiter[T], full *queue.Queue[T], p *notice.Pending) error {
	awaited := false
	defer func() {
		if !awaited {
			a.giveUp(w)
		}
	}()
	p.Perform()
	err := a.await(ctx, w, full)
	awaited = true
	if a.giveUp(w) {
		return err
	}
	<-w.decided // perhaps just now: what was decided is what happened
	return w.err
}

// giveUp takes w out of the line, and reports whether it was there still.
func (a *Admission[T]) giveUp(w *waiter[T]) bool {
	a.Mu.Lock()
	if !w.Waits() {
		a.Mu.Unlock()
		return false
	}
	a.leaveLocked(w)
	a.Unlock() // admits those behind this one, who may not share the queue it waited for
	return true
}

// StallAfter is how long a publish waits before it is reported, and how long
// until it is reported again.
const StallAfter = 10 * time.Second

// await waits until w is decided, and returns early with an error if ctx ends
// or if it would wait for ever.
func (a *Admission[T]) await(ctx context.Context, w *waiter[T], full *queue.Queue[T]) error {
	since := a.Now()
	hw := &handling.Wait{Blockers: func() []handling.Queue { return a.blockersOf(w) }}
	run := w.run
	if run != nil {
		run.Add(hw)
		defer run.Remove(hw)
	}
	stalled := time.NewTimer(StallAfter)
	defer stalled.Stop()
	for {
		if run != nil {
			if err := run.Deadlock(hw); err != nil {
				return err
			}
		}
		select {
		case <-w.decided:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("%w while waiting for room in queue %q", message.ContextError(ctx), full.Name())
		case <-w.again:
		case <-stalled.C:
			if qs := a.blockersOf(w); len(qs) > 0 {
				full = qs[0].(*queue.Queue[T]) // it may have become another
			}
			view.ReportStall(full, time.Duration(a.Now()-since))
			stalled.Reset(StallAfter)
		}
	}
}

// firstLookLocked admits a new offer, unless one that came before it waits for
// a queue that this one wants too. It returns the queue to wait for. r is the run
// that publishes, or nil.
func (a *Admission[T]) firstLookLocked(o *offer.Offer[T], r *handling.Run) (full *queue.Queue[T], err error) {
	if !a.takesLocked(o, r) {
		return nil, message.ErrClosed
	}
	a.dropDuplicatesLocked(o)
	if a.lines.Waiting() > 0 && (o.Redrive != nil || len(o.Items) > 0) {
		if w := a.lines.First(o, a.open.Len() > 0, math.MaxUint64); w != nil {
			if err = a.refusedLocked(o); err != nil {
				return nil, err
			}
			return waiterOf[T](w).full, nil
		}
	}
	return a.admitLocked(o)
}

// after does what remains once an offer was admitted. No lock is held.
func (a *Admission[T]) after(o *offer.Offer[T]) {
	if o.Redrive != nil {
		return
	}
	for _, r := range o.Rows {
		if r.Q.Idle != nil { // else it is direct
			a.WakeAll(r.Q.Idle)
		}
	}
	a.WakeAll(&a.Idle)
}

// admitWaiters admits those whose turn it is to be looked at, in the order of their
// arrival, after room was made in a queue, if that is not nil. One that still has to
// wait holds back those behind it that share a queue with it, and no others. A
// redrive that moved some of its letters goes behind the others for the rest. No lock is
// held; what has to be told is left in p.
func (a *Admission[T]) admitWaiters(room *queue.Queue[T], p *notice.Pending) {
	var admitted, decided []*waiter[T]
	anew := false // somebody waits for what he did not wait for before
	a.Mu.Lock()
	if room != nil {
		a.TurnsOfLocked(room)
	}
	for w := a.nextTurnLocked(); w != nil; w = a.nextTurnLocked() {
		if !a.takesLocked(w.Offer, w.run) { // its handler has returned, and Shutdown was called
			w.err = message.ErrClosed
			decided = append(decided, w)
			a.leaveLocked(w)
			continue
		}
		a.dropDuplicatesLocked(w.Offer)
		if w.Redrive == nil && len(w.Items) == 0 { // published by another meanwhile
			a.countDuplicatesLocked(w.Offer)
			decided = append(decided, w)
			a.leaveLocked(w)
			continue
		}
		if w.Dedup { // duplicates were taken out of it
			a.lines.Narrow(&w.Waiter, w.Offer)
		}
		if a.standsBehind(w) {
			anew = true
			continue
		}
		moved := w.Moved
		unwantLocked(w.Offer)
		full, err := a.admitLocked(w.Offer)
		if full == nil && err == nil {
			admitted = append(admitted, w)
		}
		switch {
		case full == nil:
			w.err = err
			decided = append(decided, w)
			a.leaveLocked(w)
		case w.Moved > moved:
			a.leaveLocked(w)
			a.enterLocked(w)
			a.lines.Turn(&w.Waiter) // if it is the first again, it has to say that it waits
		default:
			w.full = full
			anew = a.blocksAnewLocked(w) || anew
		}
	}
	var inHandlers []*waiter[T]
	if anew && a.lines.InHandlers() > 0 {
		for w := range a.everyWaiter() {
			if w.run != nil {
				inHandlers = append(inHandlers, w)
			}
		}
	}
	made := a.TakeLocked(p)
	a.Mu.Unlock()
	for _, w := range decided {
		close(w.decided)
	}
	for _, w := range inHandlers {
		w.lookAgain()
	}
	for _, w := range admitted {
		a.after(w.Offer)
	}
	for _, q := range made {
		q.TellRoom(p)
	}
}
