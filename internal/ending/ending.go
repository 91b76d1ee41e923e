// Package ending has Shutdown: of one topic, and of several whose handlers publish to each
// other, as one. It drains the queues, then their dead-letter queues, then closes all.
//
// It promises that a topic is closed only when all of them are drained and none has taken a
// message since they were looked at, or when the context has ended; and that all are closed
// before anybody is told of it.
//
// It owns nothing and has no lock: it calls topics, which it knows by what they are asked.
package ending

import (
	"context"
	"slices"

	"golang.org/x/sync/errgroup"
)

// A Topic can be ended with others.
type Topic interface {
	// Identity is what the runs of its handlers say their topic is.
	Identity() any
	// BeginShutdown makes the topic accept no publishes but those of running
	// handlers of the topics in with, which has their identities.
	BeginShutdown(with map[any]bool) Ending
}

// An Ending is a topic that is being ended.
type Ending interface {
	// Published counts the messages that the topic has accepted.
	Published() uint64
	// Await waits until the queues have been drained, each at some instant, and the
	// engine, if there is one, holds nothing more. It returns ctx's error.
	Await(ctx context.Context) error
	// IsDrained reports whether all queues are drained now.
	IsDrained() bool
	// DrainDead makes the dead-letter queues give out no more letters, and has Await
	// and IsDrained look at them too.
	DrainDead()
	// OnEngine reports whether the topic is on an engine; AskLeft asks it what it
	// holds, for the error.
	OnEngine() bool
	AskLeft()
	// CloseNow closes the topic and returns what remains to be done, without which
	// nobody else has to wait.
	CloseNow(why error) (finish func())
	// AwaitDone waits until what uses the engine is gone, or ctx ends.
	AwaitDone(ctx context.Context)
	// Result returns what ending the topic left, or nil.
	Result() *ShutdownError
}

// End ends several topics as one, which package fanout explains. It returns what was
// left in each. No topic is nil; one that is named twice counts once.
func End(ctx context.Context, topics ...Topic) (left []*ShutdownError) {
	with := make(map[any]bool, len(topics))
	var distinct []Topic
	for _, t := range topics {
		if c := t.Identity(); !with[c] {
			with[c] = true
			distinct = append(distinct, t)
		}
	}
	g := make(group, len(distinct))
	for k, t := range distinct {
		g[k] = t.BeginShutdown(with)
	}
	why := g.drain(ctx)
	g.close(why)
	if why == nil {
		for _, t := range g {
			t.AwaitDone(ctx)
		}
	}
	for _, t := range g {
		if l := t.Result(); l != nil {
			left = append(left, l)
		}
	}
	return left
}

// A group is the topics that one Shutdown ends.
type group []Ending

// drain waits until the group is drained, dead-letter queues included.
func (g group) drain(ctx context.Context) error {
	if err := g.await(ctx); err != nil {
		return err
	}
	for _, t := range g {
		t.DrainDead()
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
			before[k] = t.Published()
		}
		for _, t := range g {
			waits.Go(func() error { return t.Await(ctx) })
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
		if !t.IsDrained() {
			return false
		}
	}
	for k, t := range g {
		if t.Published() != before[k] {
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
		if why != nil && t.OnEngine() {
			last = append(last, t)
			continue
		}
		finish = append(finish, t.CloseNow(why))
	}
	for _, t := range last {
		asked.Go(func() error { t.AskLeft(); return nil })
	}
	_ = asked.Wait()
	for _, t := range last {
		finish = append(finish, t.CloseNow(why))
	}
	for _, f := range slices.Backward(finish) {
		defer f() // a hook may end the goroutine
	}
}
