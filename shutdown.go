package fanout

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// A ShutdownError is returned by [Topic.Shutdown] when something was left
// undone. It unwraps to the context's error if it was the context that ended
// the wait.
type ShutdownError struct {
	Topic string
	// Queues names the queues with something left, in the order of their names.
	Queues []Left
	// Err is why waiting ended: the context's error with its cause, or nil if all
	// that is waited for was done and only what isn't is left: what is delayed,
	// snoozed, parked, released, paused, or behind one of these.
	Err error
}

// Left is what a shutdown left in one queue. [Topic.Leftovers] hands the
// messages out.
type Left struct {
	Queue    string
	Ready    int // waiting for a consumer
	Retrying int // failed and waiting for their next attempt
	Delayed  int // delayed or snoozed, not due yet
	InFlight int // delivered and not settled
	Parked   int // dead, with no room in the dead-letter queue
	Released int // given back because the topic was closing
	Blocked  int // waiting behind another message with their ordering key
	Running  int // handlers that have not returned yet
}

func (l Left) messages() int {
	return l.Ready + l.Retrying + l.Delayed + l.InFlight + l.Parked + l.Released + l.Blocked
}

func (l Left) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "queue %q:", l.Queue)
	sep := " "
	for _, f := range []struct {
		n    int
		name string
	}{
		{l.Ready, "ready"}, {l.Retrying, "retrying"}, {l.Delayed, "delayed"}, {l.InFlight, "in flight"},
		{l.Parked, "parked"}, {l.Released, "released"}, {l.Blocked, "blocked"},
	} {
		if f.n > 0 {
			fmt.Fprintf(&b, "%s%d %s", sep, f.n, f.name)
			sep = ", "
		}
	}
	if l.Running > 0 {
		b.WriteString(sep + plural(l.Running, "handler") + " running")
	}
	return b.String()
}

// plural counts things.
func plural(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

func (e *ShutdownError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "fanout: shutdown of topic %q left ", e.Topic)
	for i, l := range e.Queues {
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(l.String())
	}
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	return b.String()
}

// Unwrap returns e.Err.
func (e *ShutdownError) Unwrap() error { return e.Err }

// Shutdown ends the topic cleanly. From the call on publishes get [ErrClosed],
// those that wait for room too. Then it waits until the queues are worked off:
// until nothing is ready, in flight or waiting for a retry, and no handler
// runs. Handlers run on with live contexts, and callers of Receive can take
// what is left. It does not wait for what is delayed or snoozed, nor for what
// is parked. A queue that nobody consumes is waited for until ctx ends.
//
// When that is done or ctx ends, the topic is closed as by Close. If anything is
// left, Shutdown returns a [*ShutdownError] that says how much per queue,
// handlers still running included, and [Topic.Leftovers] hands the messages
// out. An attempt that fails with an error that wraps ErrClosed, because it
// published to a topic that was closing, is released, not spent, and is among
// what is left. Dead letters stay in their dead-letter queues, for [Queue.Peek].
//
// Calling it again, or after Close, waits for the same end and returns the same.
// A handler of this topic that calls it waits for itself until ctx ends.
func (t *Topic[T]) Shutdown(ctx context.Context) error {
	if ctx == nil {
		return fmt.Errorf("%w: Shutdown: %w", ErrInvalidOption, errNilContext)
	}
	if err := t.made(); err != nil {
		return err
	}
	t.mu.Lock()
	var waiters []*waiter[T]
	if t.state == topicOpen {
		t.state = topicClosing
		waiters = t.refuseWaitersLocked()
	}
	qs := t.queuesLocked()
	t.mu.Unlock()
	for _, w := range waiters {
		close(w.decided)
	}
	for _, q := range qs {
		q.drain()
	}
	err := t.awaitDrained(ctx, qs)
	if err == nil {
		err = t.awaitDrained(ctx, t.drainDead(qs))
	}
	if t.remote != nil {
		err = t.awaitEmpty(ctx, qs, err)
	}
	t.end(err)
	if t.remote != nil && err == nil {
		select { // the goroutines that received are on their way home
		case <-t.Done():
		case <-ctx.Done():
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.shutdown != nil {
		return t.shutdown
	}
	return nil
}

// drainDead makes the dead-letter queues give out no more letters, and returns them.
func (t *Topic[T]) drainDead(qs []*Queue[T]) []*Queue[T] {
	t.mu.Lock()
	ds := slices.Clone(t.orphans)
	t.mu.Unlock()
	for _, q := range qs {
		q.mu.Lock()
		q.drainingDead = true
		q.mu.Unlock()
		if d := q.deadIfAny(); d != nil {
			ds = append(ds, d)
		}
	}
	for _, d := range ds {
		d.drain()
	}
	return ds
}

// awaitDrained waits until all queues are drained at once, or ctx ends.
func (t *Topic[T]) awaitDrained(ctx context.Context, qs []*Queue[T]) error {
	for again := true; again; {
		again = false
		for _, q := range qs {
			ch := q.awaitDrained()
			if ch == nil {
				continue
			}
			again = true // others may have got something to do meanwhile
			select {
			case <-ch:
			case <-ctx.Done():
				return contextError(ctx)
			}
		}
	}
	return nil
}

// Close ends the topic at once: publishes, receives and settlements get
// [ErrClosed] from now on, running handlers' contexts are cancelled with a
// cause that wraps it, and what the queues hold is lost, counted, told to the
// hooks and the log; [Topic.Leftovers] still hands it out. Close doesn't wait
// for handlers: Done does. Calling it again does nothing. It returns nil.
func (t *Topic[T]) Close() error {
	if err := t.made(); err != nil {
		return err
	}
	t.end(nil)
	return nil
}

// end closes the topic if it is not closed, and keeps what is left for
// Shutdown, with why it did not wait any longer.
func (t *Topic[T]) end(why error) {
	t.mu.Lock()
	if t.state == topicClosed {
		t.mu.Unlock()
		return
	}
	qs := t.queuesLocked()
	t.state = topicClosed
	t.closedQ = qs
	waiters := t.refuseWaitersLocked()
	orphans := t.orphans
	t.orphans, t.open = nil, nil
	clear(t.queues)
	t.filtered.Store(nil)
	t.stopDedupLocked()
	t.retained.ring, t.retained.next = nil, 0 // OpenQueue reads the size without the lock
	for _, q := range t.opening {
		q.gone = true
	}
	left := &ShutdownError{Topic: t.name, Err: why}
	var fx *effects
	for _, q := range qs {
		q.gone = true
		l, more := q.closeNow()
		fx = fx.and(more)
		if q.remote != nil && why != nil { // what the engine holds was not waited for to the end
			l.Ready, l.InFlight = max(l.Ready, q.remote.left.Ready), max(l.InFlight, q.remote.left.InFlight)
		}
		if l.messages() > 0 || l.Running > 0 {
			left.Queues = append(left.Queues, l)
		}
		if d := q.deadIfAny(); d != nil {
			orphans = append(orphans, d)
		}
	}
	for _, d := range orphans {
		_, more := d.closeNow()
		fx = fx.and(more)
	}
	if len(left.Queues) > 0 {
		t.shutdown = left
	}
	t.mu.Unlock()

	for _, w := range waiters {
		close(w.decided)
	}
	defer t.release()
	defer func() {
		for _, q := range append(slices.Clone(qs), orphans...) {
			q.report.stop()
		}
	}()
	fx.perform()
	if t.remote != nil {
		for _, q := range qs {
			_ = q.remote.eq.Close()
		}
		t.remote.close()
	}
}

// awaitEmpty waits until the engine holds nothing that Shutdown waits for. If the
// wait is over already, or ends early, it asks what is left.
func (t *Topic[T]) awaitEmpty(ctx context.Context, qs []*Queue[T], over error) error {
	for _, q := range qs {
		if over == nil {
			over = q.remote.awaitEmpty(ctx)
		}
		if over != nil {
			q.remote.askLeft()
		}
	}
	if over != nil {
		return over
	}
	return t.awaitDrained(ctx, qs)
}

// askLeft asks the engine what it holds of the queue, for the error of a Shutdown.
func (r *remoteQueue[T]) askLeft() {
	ctx, cancel := context.WithTimeout(context.Background(), probeTime)
	defer cancel()
	if s, err := r.eq.Stats(ctx); err == nil {
		r.q.mu.Lock()
		r.left = s
		r.q.mu.Unlock()
	}
}

// Done returns a channel that is closed when the topic is closed and the last
// of its goroutines and timers is gone. Handlers that never return keep it open.
func (t *Topic[T]) Done() <-chan struct{} { return t.awaitable() }

// Leftovers returns what the queues held when the topic was closed, by the
// name of the queue, as messages that can be published again, see
// [Queue.Leftovers]. It returns nil before that.
func (t *Topic[T]) Leftovers() map[string][]Message[T] {
	t.mu.Lock()
	qs := t.closedQ
	t.mu.Unlock()
	var left map[string][]Message[T]
	for _, q := range qs {
		if ms := q.Leftovers(); len(ms) > 0 {
			if left == nil {
				left = make(map[string][]Message[T])
			}
			left[q.name] = ms
		}
	}
	return left
}
