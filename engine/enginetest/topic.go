package enginetest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/engine"
)

// An order is what the promises' topics carry.
type order struct {
	ID    string            `json:"id"`
	Cents int64             `json:"cents,omitempty"`
	Note  string            `json:"note,omitempty"`
	Lines []string          `json:"lines,omitempty"`
	Meta  map[string]string `json:"meta,omitempty"`
}

// A topicOf is a topic with what its checks need of it.
type topicOf struct {
	*fanout.Topic[order]
	x *fixture
}

// newTopic makes a topic on the check's engine, with a name of its own.
func (x *fixture) newTopic(options ...fanout.TopicOption) topicOf {
	return x.newTopicOn(x.e, x.unique("topic"), options...)
}

func (x *fixture) newTopicOn(e engine.Engine, name string, options ...fanout.TopicOption) topicOf {
	top, err := x.tryTopic(e, name, options...)
	x.must(err, "NewTopic")
	return top
}

// tryTopic makes a topic, or returns why not. Whatever the check did, Close ends
// the topic and Done says so: that is a promise too.
func (x *fixture) tryTopic(e engine.Engine, name string, options ...fanout.TopicOption) (topicOf, error) {
	base, err := engineOptions(e)
	if err != nil {
		return topicOf{}, err
	}
	base = append(base, fanout.WithLogger(slog.New(slog.DiscardHandler)))
	top, err := fanout.NewTopic[order](name, append(base, options...)...)
	if err != nil {
		return topicOf{}, err
	}
	x.Cleanup(func() {
		_ = top.Close()
		ctx, cancel := context.WithTimeout(context.Background(), x.o.patience)
		defer cancel()
		select {
		case <-top.Done():
		case <-ctx.Done():
			x.Errorf("after Close, Done does not say that the topic's goroutines are gone")
		}
	})
	return topicOf{top, x}, nil
}

// queue opens a queue whose deliveries don't time out by themselves.
func (t topicOf) queue(name string, options ...fanout.QueueOption) queueOf {
	q, err := t.OpenQueue(t.x.ctx, name, append(t.x.patient(), options...)...)
	t.x.must(err, "OpenQueue(%q)", name)
	return queueOf{q, t.x}
}

// patient is the options for a queue whose deliveries don't time out, if the
// engine keeps a visibility timeout of the user's.
func (x *fixture) patient() []fanout.QueueOption {
	if long := x.long(); long > 0 {
		return []fanout.QueueOption{fanout.WithVisibilityTimeout(long)}
	}
	return nil
}

// subscribe runs a handler over a new queue.
func (t topicOf) subscribe(name string, h fanout.Handler[order], options ...fanout.SubscribeOption) *fanout.Subscriber[order] {
	all := []fanout.SubscribeOption{}
	for _, o := range t.x.patient() {
		all = append(all, o)
	}
	s, err := t.Subscribe(t.x.ctx, name, h, append(all, options...)...)
	t.x.must(err, "Subscribe(%q)", name)
	return s
}

// send publishes orders with these IDs, which are their messages' IDs too.
func (t topicOf) send(ids ...string) {
	ms := []fanout.Message[order]{}
	for _, id := range ids {
		ms = append(ms, mail(id))
	}
	t.sendMail(ms...)
}

func (t topicOf) sendMail(ms ...fanout.Message[order]) {
	ctx, cancel := t.x.within(t.x.o.patience)
	defer cancel()
	t.x.must(t.PublishMessages(ctx, ms...), "PublishMessages of %d", len(ms))
}

func mail(id string) fanout.Message[order] {
	return fanout.Message[order]{ID: id, Body: order{ID: id}}
}

// A queueOf is a queue with what its checks need of it.
type queueOf struct {
	*fanout.Queue[order]
	x *fixture
}

func (q queueOf) dead() queueOf { return queueOf{q.DeadLetters(), q.x} }

// next takes a delivery, which must come.
func (q queueOf) next(options ...fanout.ReceiveOption) fanout.Delivery[order] {
	ctx, cancel := q.x.within(q.x.o.patience)
	defer cancel()
	d, err := q.Receive(ctx, options...)
	q.x.must(err, "Receive from queue %q, waiting for a message", q.Name())
	return d
}

// nextID takes a delivery, which must be of this order.
func (q queueOf) nextID(id string, options ...fanout.ReceiveOption) fanout.Delivery[order] {
	d := q.next(options...)
	equal(q.x, d.Body.ID, id, "the order received from queue %q", q.Name())
	return d
}

// all takes n deliveries of different messages.
func (q queueOf) all(n int) map[string]fanout.Delivery[order] {
	got := map[string]fanout.Delivery[order]{}
	for len(got) < n {
		d := q.next()
		if _, twice := got[d.Body.ID]; twice {
			q.x.fail("order %q came twice from queue %q, at attempt %d, after %d of %d", d.Body.ID, q.Name(), d.Attempt(), len(got), n)
		}
		got[d.Body.ID] = d
	}
	return got
}

// holds takes as many deliveries as there are IDs, which must be these, and nothing
// may come after them. It acknowledges them.
func (q queueOf) holds(ids ...string) {
	got := q.all(len(ids))
	for _, id := range ids {
		d, ok := got[id]
		if !ok {
			q.x.fail("queue %q held %d orders, but not %q", q.Name(), len(got), id)
		}
		q.ack(d)
	}
	q.empty("it was received empty")
}

// empty ends the check if something comes.
func (q queueOf) empty(why string, args ...any) {
	q.emptyFor(q.x.quiet(), why, args...)
}

func (q queueOf) emptyFor(d time.Duration, why string, args ...any) {
	ctx, cancel := q.x.within(d)
	defer cancel()
	got, err := q.Receive(ctx)
	if err == nil {
		q.x.fail("%s, yet queue %q gave out order %q, attempt %d", fmt.Sprintf(why, args...), q.Name(), got.Body.ID, got.Attempt())
	}
	if !errors.Is(err, context.DeadlineExceeded) {
		q.x.fail("%s: Receive from queue %q returned %v, not its context's error", fmt.Sprintf(why, args...), q.Name(), err)
	}
}

func (q queueOf) ack(d fanout.Delivery[order]) {
	q.x.must(d.Ack(q.x.ctx), "Ack of order %q", d.Body.ID)
}

// causes says how attempts ended, in words.
func causes(as []fanout.Attempt) string {
	cs := []string{}
	for _, a := range as {
		cs = append(cs, a.Cause.String())
	}
	return fmt.Sprint(cs)
}

func said(cs ...fanout.Cause) string {
	as := []fanout.Attempt{}
	for _, c := range cs {
		as = append(as, fanout.Attempt{Cause: c})
	}
	return causes(as)
}

// An inbox is where handlers tell what they got.
type inbox chan fanout.Delivery[order]

func newInbox() inbox { return make(inbox, 4096) }

// next waits for what a handler got.
func (i inbox) next(x *fixture) fanout.Delivery[order] {
	ctx, cancel := x.within(x.o.patience)
	defer cancel()
	select {
	case d := <-i:
		return d
	case <-ctx.Done():
		x.fail("no handler got a message within %v", x.o.patience)
		return fanout.Delivery[order]{}
	}
}

// quiet ends the check if a handler gets something.
func (i inbox) quiet(x *fixture, d time.Duration, why string) {
	ctx, cancel := x.within(d)
	defer cancel()
	select {
	case d := <-i:
		x.fail("%s, yet a handler got order %q, attempt %d", why, d.Body.ID, d.Attempt())
	case <-ctx.Done():
	}
}
