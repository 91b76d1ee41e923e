package topic

import (
	"context"
	"slices"

	"github.com/gofanout/fanout/internal/queue"
	"golang.org/x/sync/errgroup"
)

// AnyTopic is a Topic of any type.
type AnyTopic interface {
	base() *queue.Core
	// beginShutdown makes the topic accept no publishes but those of running
	// handlers of the topics in with.
	beginShutdown(with map[*queue.Core]bool) ending
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
	// onEngine reports whether the topic is on an engine; AskLeft asks it what it
	// holds, for the error.
	onEngine() bool
	askLeft()
	// close closes the topic and returns what remains to be done, without which
	// nobody else has to wait.
	close(why error) (finish func())
	// awaitDone waits until what uses the engine is gone, or ctx ends.
	awaitDone(ctx context.Context)
	// result returns what ending the topic left, or nil.
	result() *queue.ShutdownError
}

// End ends several topics as one, which package fanout explains. It returns what was
// left in each. No topic is nil; one that is named twice counts once.
func End(ctx context.Context, topics ...AnyTopic) (left []*queue.ShutdownError) {
	with := make(map[*queue.Core]bool, len(topics))
	var distinct []AnyTopic
	for _, t := range topics {
		if c := t.base(); !with[c] {
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
	for _, t := range g {
		if l := t.result(); l != nil {
			left = append(left, l)
		}
	}
	return left
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
