package fanout

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/gofanout/fanout/internal/callback"
	"github.com/gofanout/fanout/internal/notice"
)

// A ShutdownError is returned by [Shutdown] and [Topic.Shutdown] if something was left
// undone in a topic. If the wait was ended by a context, it unwraps to that context's error.
type ShutdownError struct {
	Topic string
	// Queues names the queues with something left, in the order of their names.
	Queues []Left
	// Err is why waiting ended: the context's error with its cause. It is nil if everything
	// that Shutdown waits for was done, and only messages are left that it does not wait
	// for: delayed, snoozed, parked, released or paused ones, and those behind one of these.
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

// String returns what is left in one line, without the numbers that are 0.
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

// Error names the topic, and says for each queue what is left.
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

// Shutdown ends the topic cleanly. It is [Shutdown] of this topic alone, which says what it
// waits for. From now on a publish gets [ErrClosed], also one that waits for room. Only a
// running handler of this topic can go on publishing to it, with its own context or one that
// comes from it.
//
// Shut topics down first, and then what their handlers use: databases, connections, and
// topics that they publish to. Topics that publish to each other are shut down together, by
// [Shutdown]. Give it a context with a timeout, as handlers can hang.
//
// If anything is left, Shutdown returns a [*ShutdownError] that says how much in which
// queue, running handlers included, and [Topic.Leftovers] returns the messages. It returns
// [ErrInvalidOption] for a nil ctx. A second call, or one after Close, waits for the same
// end and returns the same.
func (t *Topic[T]) Shutdown(ctx context.Context) error {
	if err := t.made(); err != nil {
		return err
	}
	return Shutdown(ctx, t)
}

// AnyTopic is a [*Topic] of any type, for [Shutdown] and [TopicView]. No other type
// implements it.
type AnyTopic interface {
	Name() string
	Close() error
	Done() <-chan struct{}
	Stats() TopicStats
	View() TopicView

	// base returns the topic's core, nil if it has none: if NewTopic did not make it.
	base() *core
	// beginShutdown makes the topic accept no publishes but those of running
	// handlers of the topics in with.
	beginShutdown(with map[*core]bool) ending
}

// An ending is a topic that Shutdown ends, as seen without its T.
type ending interface {
	// published counts the messages that the topic has accepted.
	published() uint64
	// await waits until the queues have been drained, each at some instant, and the
	// engine, if there is one, holds nothing more. It returns ctx's error.
	await(ctx context.Context) error
	// isDrained reports whether all queues are drained now.
	isDrained() bool
	// drainDead makes the dead-letter queues give out no more letters, and has await
	// and isDrained look at them too.
	drainDead()
	// onEngine reports whether the topic is on an engine; askLeft asks it what it
	// holds, for the error.
	onEngine() bool
	askLeft()
	// close closes the topic and returns what remains to be done, without which
	// nobody else has to wait.
	close(why error) (finish func())
	// awaitDone waits until what uses the engine is gone, or ctx ends.
	awaitDone(ctx context.Context)
	// result returns what ending the topic left, or nil.
	result() error
}

// Shutdown ends several topics as one. It is for topics whose handlers publish to each
// other, in a line or in a circle, as those of a saga do. The topics can have different
// types. A topic that is named twice counts once.
//
// From now on these topics accept a publish only from a running handler of one of them, with
// its context or one that comes from it. All other publishes get [ErrClosed], also those
// that wait for room. Redrives and new queues are refused.
//
// Shutdown waits until all queues of these topics are drained: nothing is ready, in flight
// or waiting for a retry, no handler runs, and no topic has accepted a message while
// Shutdown looked. Handlers go on with live contexts, and callers of Receive can take what
// is left. Then the dead-letter queues give out no more letters, and Shutdown waits for
// handlers of letters too. It does not wait for messages that are delayed, snoozed or
// parked, or in a paused queue. It waits until ctx ends for a queue that nobody consumes,
// and for handlers that never stop publishing to each other.
//
// When that is done, or ctx has ended, all topics are closed, as by [Topic.Close]. If
// anything is left, Shutdown returns a [*ShutdownError] for each topic that has something
// left, several of them joined in the order of the topics. An attempt is not spent but
// released if it fails with an error that wraps ErrClosed because it published to a topic
// that was closing; its message is left. Dead letters stay in their dead-letter queues,
// where [Queue.Peek] sees them.
//
// Shutdown returns [ErrInvalidOption] for a nil ctx or a topic that [NewTopic] did not make,
// and then changes nothing. It may be called concurrently, for the same topics too: the call
// that first finds its own topics drained, or whose ctx ends first, closes a topic. A
// handler of one of the topics that calls Shutdown waits for itself until ctx ends.
func Shutdown(ctx context.Context, topics ...AnyTopic) error {
	if ctx == nil {
		return fmt.Errorf("%w: Shutdown: %w", ErrInvalidOption, errNilContext)
	}
	with := make(map[*core]bool, len(topics))
	var distinct []AnyTopic
	for k, t := range topics {
		var c *core
		if t != nil {
			c = t.base()
		}
		if c == nil {
			return fmt.Errorf("%w: Shutdown: topic %d: want a topic made by NewTopic", ErrInvalidOption, k)
		}
		if !with[c] {
			with[c] = true
			distinct = append(distinct, t)
		}
	}
	g := make(group, len(distinct))
	for k, t := range distinct {
		g[k] = t.beginShutdown(with)
	}
	why := g.drain(ctx)
	g.close(why)
	if why == nil {
		for _, t := range g {
			t.awaitDone(ctx)
		}
	}
	var left []error
	for _, t := range g {
		if err := t.result(); err != nil {
			left = append(left, err)
		}
	}
	if len(left) == 1 {
		return left[0]
	}
	return errors.Join(left...)
}

// A group is the topics that one Shutdown ends.
type group []ending

// drain waits until the group is drained, dead-letter queues included.
func (g group) drain(ctx context.Context) error {
	if err := g.await(ctx); err != nil {
		return err
	}
	for _, t := range g {
		t.drainDead()
	}
	return g.await(ctx)
}

// await waits until the group is drained. One look from topic to topic proves
// nothing by itself: a handler of a topic that has not been looked at yet may
// publish to one that has. But only running handlers of the group publish, and the
// first of them would run on a message that was there when the look began, unless
// that was delayed. So the look holds if meanwhile no topic took a message.
func (g group) await(ctx context.Context) error {
	before := make([]uint64, len(g))
	for {
		var waits errgroup.Group // an error of one topic ends no other's wait
		for k, t := range g {
			before[k] = t.published()
		}
		for _, t := range g {
			waits.Go(func() error { return t.await(ctx) })
		}
		if err := waits.Wait(); err != nil {
			return err
		}
		if g.isDrained(before) {
			return nil
		}
	}
}

// isDrained reports whether every queue is drained now, and no topic has accepted a
// message since the counts were taken.
func (g group) isDrained(before []uint64) bool {
	for _, t := range g {
		if !t.isDrained() {
			return false
		}
	}
	for k, t := range g {
		if t.published() != before[k] {
			return false
		}
	}
	return true
}

// close closes all topics, before any hook is called: one may block. Topics on
// engines come last, if these have to be asked what is left.
func (g group) close(why error) {
	var asked errgroup.Group
	var finish []func()
	var last group
	for _, t := range g {
		if why != nil && t.onEngine() {
			last = append(last, t)
			continue
		}
		finish = append(finish, t.close(why))
	}
	for _, t := range last {
		asked.Go(func() error { t.askLeft(); return nil })
	}
	_ = asked.Wait()
	for _, t := range last {
		finish = append(finish, t.close(why))
	}
	for _, f := range slices.Backward(finish) {
		defer f() // a hook may end the goroutine
	}
}

// An endingOf is a topic that is being ended, with its queues.
type endingOf[T any] struct {
	*Topic[T]
	qs   []*Queue[T]
	dead []*Queue[T] // dead-letter queues that are drained too
}

func (t *Topic[T]) base() *core {
	if t == nil {
		return nil
	}
	return t.core
}

func (t *Topic[T]) beginShutdown(with map[*core]bool) ending {
	t.mu.Lock()
	var refused []*waiter[T]
	if t.state != topicClosed {
		t.state = topicClosing
		t.endsWith = append(t.endsWith, with)
		refused = t.refuseWaitersLocked()
	}
	qs := t.queuesLocked()
	var p notice.Pending
	t.unlockTo(&p) // those behind them are admitted
	for _, w := range refused {
		close(w.decided)
	}
	for _, q := range qs {
		q.drain()
	}
	p.Perform()
	return &endingOf[T]{Topic: t, qs: qs}
}

// mayPublishLocked reports whether the topic's state lets a publish in, whose
// context comes from run r, nil if it comes from no handler.
func (t *Topic[T]) mayPublishLocked(r *run) bool {
	switch t.state {
	case topicOpen:
		return true
	case topicClosing:
		if r == nil {
			return false
		}
		c := r.worker.topicOf(r)
		return c != nil && slices.ContainsFunc(t.endsWith, func(with map[*core]bool) bool { return with[c] })
	}
	return false
}

// topicOf returns the core of the topic of a handler that is running now, as r; nil
// if that has ended, or its queue was closed: nobody waits for it then.
func (w *worker[T]) topicOf(r *run) *core {
	q := w.s.q
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || len(w.ctxs) == 0 {
		return nil
	}
	if state := w.ctx().state(); state == nil || &state.run != r {
		return nil
	}
	return q.core
}

func (e *endingOf[T]) published() uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.seq
}

func (e *endingOf[T]) await(ctx context.Context) error {
	err := awaitDrained(ctx, e.qs, e.dead)
	if e.remote == nil {
		return err
	}
	for _, q := range e.qs {
		if err == nil {
			err = q.remote.awaitEmpty(ctx)
		}
	}
	if err != nil {
		return err
	}
	return awaitDrained(ctx, e.qs, e.dead)
}

// awaitDrained waits until each queue has been drained, or ctx ends.
func awaitDrained[T any](ctx context.Context, lists ...[]*Queue[T]) error {
	for _, qs := range lists {
		for _, q := range qs {
			for ch := q.awaitDrained(); ch != nil; ch = q.awaitDrained() {
				select {
				case <-ch:
				case <-ctx.Done():
					return contextError(ctx)
				}
			}
		}
	}
	return nil
}

func (e *endingOf[T]) isDrained() bool {
	for _, qs := range [][]*Queue[T]{e.qs, e.dead} {
		for _, q := range qs {
			drained := false
			q.locked(func() { drained = q.isDrainedLocked() })
			if !drained {
				return false
			}
		}
	}
	return true
}

func (e *endingOf[T]) drainDead() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.dead = e.drainDeadLocked(e.qs)
}

// orphansLocked returns the dead-letter queues that have outlived their queues, in the
// order of their names.
func (t *Topic[T]) orphansLocked() []*Queue[T] {
	return slices.SortedFunc(maps.Values(t.orphans), func(a, b *Queue[T]) int { return cmp.Compare(a.name, b.name) })
}

// drainDeadLocked makes the dead-letter queues give out no more letters, and
// returns them.
func (t *Topic[T]) drainDeadLocked(qs []*Queue[T]) []*Queue[T] {
	ds := t.orphansLocked()
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

func (e *endingOf[T]) onEngine() bool { return e.remote != nil }

func (e *endingOf[T]) askLeft() {
	for _, q := range e.qs {
		q.remote.askLeft()
	}
}

func (e *endingOf[T]) close(why error) (finish func()) { return e.endNow(why) }

// awaitDone waits for the goroutines that received from the engine, which are about
// to end.
func (e *endingOf[T]) awaitDone(ctx context.Context) {
	if e.remote == nil {
		return
	}
	select {
	case <-e.Done():
	case <-ctx.Done():
	}
}

func (e *endingOf[T]) result() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.shutdown != nil {
		return e.shutdown
	}
	return nil
}

// Close ends the topic at once. Publishes, receives and settlements get [ErrClosed] from now
// on, and the contexts of running handlers are cancelled with a cause that wraps it. What
// the queues hold is lost; it is counted and told to the hooks and the log, and
// [Topic.Leftovers] returns it. Close doesn't wait for handlers: wait for Done. A second
// call does nothing. Close returns nil.
func (t *Topic[T]) Close() error {
	if err := t.made(); err != nil {
		return err
	}
	t.endNow(nil)()
	return nil
}

// endNow closes the topic if it is not closed, and keeps what is left for
// Shutdown, with why it did not wait any longer. What it returns tells of it and
// lets the engine go: it calls hooks, and may block.
func (t *Topic[T]) endNow(why error) (finish func()) {
	t.mu.Lock()
	if t.state == topicClosed {
		t.mu.Unlock()
		return func() {}
	}
	qs := t.queuesLocked()
	t.state = topicClosed
	t.closedQ = qs
	waiters := t.refuseWaitersLocked()
	t.drainDeadLocked(qs) // what expires now is there to be looked at
	orphans := t.orphansLocked()
	t.orphans, t.endsWith, t.turns = nil, nil, nil
	t.open, t.filters, t.directs, t.short = queueList[T]{}, queueList[T]{}, 0, nil
	clear(t.queues)
	t.filtered.Store(nil)
	t.stopDedupLocked()
	t.retained.ring, t.retained.next = nil, 0 // OpenQueue reads the size without the lock
	for _, q := range t.opening {
		q.gone = true
	}
	left := &ShutdownError{Topic: t.name, Err: why}
	for _, q := range qs {
		q.gone = true
		l := q.closeNow(false)
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
		d.closeNow(false)
	}
	t.log.Forget()
	if len(left.Queues) > 0 {
		t.shutdown = left
	}
	var p notice.Pending
	t.unlockTo(&p)

	for _, w := range waiters {
		close(w.decided)
	}
	p.CancelAll()
	return func() {
		// A hook may end the goroutine.
		defer t.release()
		ended := append(slices.Clone(qs), orphans...)
		defer callback.Each(len(ended), func(k int) { ended[k].report.Stop() })
		if t.remote != nil {
			t.live.Add(1)
			defer func() { go t.letGo() }()
			for _, q := range qs {
				defer q.remote.eq.Close() //nolint:errcheck // the queues are closed here, whatever the engine says
			}
		}
		p.Perform()
	}
}

// letGo closes the engine's topic, which waits for what is under way between its queues
// and the engine. Started by endNow, if the topic is on an engine; Done waits for it.
func (t *Topic[T]) letGo() {
	defer t.release()
	t.remote.close()
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
func (t *Topic[T]) Done() <-chan struct{} { return t.live.awaitable() }

// Leftovers returns what the queues held when the topic was closed, by the names of the
// queues, as messages that can be published again; see [Queue.Leftovers]. Before that it
// returns nil.
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
