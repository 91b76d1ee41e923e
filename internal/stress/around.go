package main

import (
	"context"
	"runtime"

	"github.com/gofanout/fanout"
)

// What the interceptors of a topic and of a subscriber hand to a handler in its
// context: what they were told of it.
type (
	aroundTopic struct{}
	aroundQueue struct{}
)

// aroundPublish is around each publish to the topic.
func (a *arena) aroundPublish(ctx context.Context, info fanout.Info, next func(context.Context) error) error {
	if info.Topic != a.name || info.Queue != "" {
		a.w.complain("interceptors", "a publish to topic %s: told %+v", a.name, info)
	}
	pause(a.passed.Add(int64(info.Messages)))
	return next(ctx)
}

// aroundHandler is around each handler of the topic.
func (a *arena) aroundHandler(ctx context.Context, info fanout.Info, next func(context.Context) error) error {
	pause(a.handled.Add(1))
	return next(context.WithValue(ctx, aroundTopic{}, info))
}

// around is around the subscriber's handlers, inside of the topic's.
func (c *consumer) around(ctx context.Context, info fanout.Info, next func(context.Context) error) error {
	if outside := ctx.Value(aroundTopic{}) != nil; outside != c.b.a.traits.around {
		c.b.a.w.complain("interceptors", "queue %s: the topic's came around the subscriber's: %v", c.b.name, outside)
	}
	pause(c.b.passed.Add(1))
	return next(context.WithValue(ctx, aroundQueue{}, info))
}

// pause lets others go first now and then.
func pause(n int64) {
	if n%16 == 0 {
		runtime.Gosched()
	}
}

// through checks that a run of a handler came through the interceptors there
// are, and that they were told of what it got.
func (c *consumer) through(ctx context.Context, ds ...fanout.Delivery[ticket]) {
	b := c.b
	b.ran.Add(1)
	if b.a.traits.around {
		c.told(ctx.Value(aroundTopic{}), ds)
	}
	if b.spec.around {
		c.told(ctx.Value(aroundQueue{}), ds)
	}
}

func (c *consumer) told(info any, ds []fanout.Delivery[ticket]) {
	b := c.b
	i, _ := info.(fanout.Info)
	if i.Topic != b.a.name || i.Queue != b.name || i.Messages != len(ds) || i.Body() != any(ds[0].Body) ||
		i.MessageID != ds[0].ID() || i.Attempt != ds[0].Attempt() {
		b.a.w.complain("interceptors", "queue %s: a handler got %d messages, first %d, attempt %d; told %+v",
			b.name, len(ds), ds[0].Body, ds[0].Attempt(), info)
	}
}

// checkAround proves that each publish and each run of a handler went through
// its interceptors once, and nothing else did.
func (a *arena) checkAround() {
	if !a.traits.around {
		return
	}
	if offered, passed := a.offered.Load(), a.passed.Load(); offered != passed {
		a.w.complain("interceptors", "topic %s: %d messages were offered, %d told to the interceptor", a.name, offered, passed)
	}
	ran := int64(0)
	for _, b := range a.books {
		ran += b.ran.Load()
	}
	if n := a.handled.Load(); n != ran {
		a.w.complain("interceptors", "topic %s: %d runs of handlers, the topic's interceptor was called %d times", a.name, ran, n)
	}
}

// checkAround is the arena's for the interceptor of a queue's subscribers.
func (b *book) checkAround() {
	if ran, passed := b.ran.Load(), b.passed.Load(); b.spec.around && ran != passed {
		b.a.w.complain("interceptors", "queue %s: %d runs of handlers, their interceptor was called %d times", b.name, ran, passed)
	}
}
