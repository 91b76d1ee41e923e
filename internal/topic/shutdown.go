package topic

import (
	"context"
	"slices"

	"github.com/gofanout/fanout/internal/callback"
	"github.com/gofanout/fanout/internal/ending"
	"github.com/gofanout/fanout/internal/lifecycle"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/queue"
)

// An endingOf is a topic that is being ended, with its queues.
type endingOf[T any] struct {
	t    *Topic[T]
	qs   []*queue.Queue[T]
	dead []*queue.Queue[T] // dead-letter queues that are drained too
}

// Identity is what the runs of the topic's handlers say their topic is.
func (t *Topic[T]) Identity() any { return t.In.Core }

// BeginShutdown makes the topic accept no publishes but those of running handlers of the
// topics in with, and drains its queues.
func (t *Topic[T]) BeginShutdown(with map[any]bool) ending.Ending {
	t.In.Mu.Lock()
	tell := t.In.BeginClosingLocked(with)
	qs := t.queuesLocked()
	var p notice.Pending
	t.In.UnlockTo(&p) // those behind the refused are admitted
	tell()
	for _, q := range qs {
		lifecycle.Drain(q)
	}
	p.Perform()
	return &endingOf[T]{t: t, qs: qs}
}

// Published counts the messages that the topic has accepted.
func (e *endingOf[T]) Published() uint64 { return e.t.In.Published() }

// Await waits until the queues have been drained, each at some instant, and the engine, if
// there is one, holds nothing more.
func (e *endingOf[T]) Await(ctx context.Context) error {
	err := awaitDrained(ctx, e.qs, e.dead)
	if e.t.remote == nil {
		return err
	}
	for _, q := range e.qs {
		if err == nil {
			err = q.Keeper.AwaitEmpty(ctx)
		}
	}
	if err != nil {
		return err
	}
	return awaitDrained(ctx, e.qs, e.dead)
}

// awaitDrained waits until each queue has been drained, or ctx ends.
func awaitDrained[T any](ctx context.Context, lists ...[]*queue.Queue[T]) error {
	for _, qs := range lists {
		for _, q := range qs {
			for ch := lifecycle.AwaitDrained(q); ch != nil; ch = lifecycle.AwaitDrained(q) {
				select {
				case <-ch:
				case <-ctx.Done():
					return message.ContextError(ctx)
				}
			}
		}
	}
	return nil
}

// IsDrained reports whether all queues are drained now.
func (e *endingOf[T]) IsDrained() bool {
	for _, qs := range [][]*queue.Queue[T]{e.qs, e.dead} {
		for _, q := range qs {
			drained := false
			q.Locked(func() { drained = q.IsDrainedLocked() })
			if !drained {
				return false
			}
		}
	}
	return true
}

// DrainDead makes the dead-letter queues give out no more letters; Await and IsDrained look at
// them from then on.
func (e *endingOf[T]) DrainDead() {
	e.t.In.Mu.Lock()
	defer e.t.In.Mu.Unlock()
	e.dead = e.t.drainDeadLocked(e.qs)
}

// orphansLocked returns the dead-letter queues that have outlived their queues, in the
// order of their names.
func (t *Topic[T]) orphansLocked() []*queue.Queue[T] {
	qs := make([]*queue.Queue[T], 0, len(t.orphans))
	for _, q := range t.orphans {
		qs = append(qs, q)
	}
	sortByName(qs)
	return qs
}

// drainDeadLocked makes the dead-letter queues give out no more letters, and
// returns them.
func (t *Topic[T]) drainDeadLocked(qs []*queue.Queue[T]) []*queue.Queue[T] {
	ds := t.orphansLocked()
	for _, q := range qs {
		q.Mu.Lock()
		q.DrainingDead = true
		q.Mu.Unlock()
		if d := lifecycle.DeadIfAny(q); d != nil {
			ds = append(ds, d)
		}
	}
	for _, d := range ds {
		lifecycle.Drain(d)
	}
	return ds
}

// OnEngine reports whether the topic is on an engine.
func (e *endingOf[T]) OnEngine() bool { return e.t.remote != nil }

// AskLeft asks the engine what it holds.
func (e *endingOf[T]) AskLeft() {
	for _, q := range e.qs {
		q.Keeper.AskLeft()
	}
}

// CloseNow closes the topic.
func (e *endingOf[T]) CloseNow(why error) (finish func()) { return e.t.endNow(why) }

// AwaitDone waits for the goroutines that received from the engine, which are about
// to end.
func (e *endingOf[T]) AwaitDone(ctx context.Context) {
	if e.t.remote == nil {
		return
	}
	select {
	case <-e.t.Done():
	case <-ctx.Done():
	}
}

// Result returns what ending the topic left, or nil.
func (e *endingOf[T]) Result() *ending.ShutdownError {
	e.t.In.Mu.Lock()
	defer e.t.In.Mu.Unlock()
	return e.t.shutdown
}

// Close ends the topic at once.
func (t *Topic[T]) Close() error {
	t.endNow(nil)()
	return nil
}

// endNow closes the topic if it is not closed, and keeps what is left for
// Shutdown, with why it did not wait any longer. What it returns tells of it and
// lets the engine go: it calls hooks, and may block.
func (t *Topic[T]) endNow(why error) (finish func()) {
	t.In.Mu.Lock()
	if t.In.IsClosedLocked() {
		t.In.Mu.Unlock()
		return func() {}
	}
	qs := t.queuesLocked()
	tell := t.In.CloseLocked()
	t.closedQ = qs
	t.drainDeadLocked(qs) // what expires now is there to be looked at
	orphans := t.orphansLocked()
	t.orphans = nil
	clear(t.queues)
	for _, q := range t.opening {
		q.Closing = true
	}
	left := &ending.ShutdownError{Topic: t.In.TopicName, Err: why}
	for _, q := range qs {
		q.Closing = true
		l := lifecycle.CloseNow(q, false)
		if why != nil && t.remote != nil { // what an engine holds was not waited for to the end
			ready, inFlight := q.Keeper.Left()
			l.Ready, l.InFlight = max(l.Ready, ready), max(l.InFlight, inFlight)
		}
		if l.Messages() > 0 || l.Running > 0 {
			left.Queues = append(left.Queues, l)
		}
		if d := lifecycle.DeadIfAny(q); d != nil {
			orphans = append(orphans, d)
		}
	}
	for _, d := range orphans {
		lifecycle.CloseNow(d, false)
	}
	if len(left.Queues) > 0 {
		t.shutdown = left
	}
	var p notice.Pending
	t.In.UnlockTo(&p)

	tell()
	p.CancelAll()
	return func() {
		// A hook may end the goroutine.
		defer t.In.Release()
		ended := append(slices.Clone(qs), orphans...)
		defer callback.Each(len(ended), func(k int) { ended[k].Report.Stop() })
		if t.remote != nil {
			t.In.Live.Add(1)
			defer func() { go t.letGo() }()
			for _, q := range qs {
				defer q.Keeper.LetGo()
			}
		}
		p.Perform()
	}
}

// letGo closes the engine's topic, which waits for what is under way between its queues
// and the engine. Started by endNow, if the topic is on an engine; Done waits for it.
func (t *Topic[T]) letGo() {
	defer t.In.Release()
	t.remote.Close()
}

// Done returns a channel that is closed when the topic is closed and the last of its
// goroutines and timers is gone.
func (t *Topic[T]) Done() <-chan struct{} { return t.In.Live.Awaitable() }

// Leftovers returns what the queues held when the topic was closed; nil before that.
func (t *Topic[T]) Leftovers() map[string][]message.Published[T] {
	t.In.Mu.Lock()
	qs := t.closedQ
	t.In.Mu.Unlock()
	var left map[string][]message.Published[T]
	for _, q := range qs {
		if ms := lifecycle.Leftovers(q); len(ms) > 0 {
			if left == nil {
				left = make(map[string][]message.Published[T])
			}
			left[q.Name()] = ms
		}
	}
	return left
}
