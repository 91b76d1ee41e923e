package fanoutwatermill

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gofanout/fanout"
)

// closeTimeout is how long what a consumer has may take to be settled once its
// subscription ends, unless WithCloseTimeout says otherwise.
const closeTimeout = 5 * time.Second

// A Subscriber is watermill's subscriber to a [Broker]'s topics, for one group.
type Subscriber struct {
	broker       *Broker
	group        string // "": each subscription has a queue of its own
	options      []fanout.WorkerOption
	closeTimeout time.Duration
	bad          error // what was wrong with the options

	mu     sync.Mutex // guards what follows; a leaf
	closed bool
	ending chan struct{}  // closed when the subscriber is
	alive  sync.WaitGroup // subscriptions
}

var (
	_ message.Subscriber           = (*Subscriber)(nil)
	_ message.SubscribeInitializer = (*Subscriber)(nil)
)

// A SubscriberOption configures [Broker.Subscriber].
type SubscriberOption interface {
	apply(*Subscriber) error
}

type subscriberOption func(*Subscriber) error

func (o subscriberOption) apply(s *Subscriber) error { return o(s) }

// WithWorkerOptions gives options to the workers of each subscription:
// fanout.WithConcurrency for messages that are handed out before earlier ones were
// acknowledged, WithAutoExtend for a limit to how long they may take, WithRateLimit.
// Several add up. A bad one is an error of Subscribe.
func WithWorkerOptions(options ...fanout.WorkerOption) SubscriberOption {
	return subscriberOption(func(s *Subscriber) error {
		s.options = append(s.options, options...)
		return nil
	})
}

// WithCloseTimeout sets how long a subscription that ends waits for its consumer to
// settle the messages that it has: they are given back to the group after that. The
// default is 5 seconds; 0 gives them back at once.
func WithCloseTimeout(d time.Duration) SubscriberOption {
	return subscriberOption(func(s *Subscriber) error {
		if d < 0 {
			return invalid("WithCloseTimeout", d, "0 or more")
		}
		s.closeTimeout = d
		return nil
	})
}

// Subscriber returns a subscriber for a group. All subscriptions of a group to a
// topic compete for its messages, those of other Subscribers included. A group's
// queue begins with its first subscription, or with SubscribeInitialize, and stays
// until the broker ends: what is published while nobody is subscribed waits there.
//
// The empty group is that of watermill's GoChannel: each subscription gets all
// messages, while it lasts. It does not work on an engine.
//
// What is wrong with the options is an error of Subscribe.
func (b *Broker) Subscriber(group string, options ...SubscriberOption) *Subscriber {
	s := &Subscriber{broker: b, group: group, closeTimeout: closeTimeout, ending: make(chan struct{}),
		// As watermill has no time-out of a message, none comes for as long as there
		// can be none.
		options: []fanout.WorkerOption{fanout.WithAutoExtend(fanout.MaxAutoExtend)}}
	for _, o := range options {
		if o == nil {
			s.bad = invalid("Subscriber", nil, "options")
		} else if err := o.apply(s); err != nil {
			s.bad = err
		}
	}
	b.mu.Lock()
	s.closed = b.closed
	if !s.closed {
		b.subscribers[s] = struct{}{}
	}
	b.mu.Unlock()
	return s
}

// SubscribeInitialize makes the topic, and the group's queue in it, so that what is
// published from now on waits for a subscription.
func (s *Subscriber) SubscribeInitialize(topic string) error {
	if s.bad != nil {
		return s.bad
	}
	if s.isClosed() {
		return errClosed("subscriber")
	}
	if s.group == "" {
		_, err := s.broker.topic(topic)
		return err
	}
	_, err := s.broker.queue(context.Background(), topic, s.group)
	return err
}

// Subscribe returns a channel of the group's messages. The next one comes when the
// one before was acknowledged or negatively acknowledged; with
// WithWorkerOptions(fanout.WithConcurrency(n)) up to n are out at once. Ack ends a
// message, Nack has it come again after the queue's backoff, as often as
// fanout.WithMaxAttempts says; then it is a dead letter, see [Broker.Topic]. The
// error of a handler is in the letter's history if its router has the middleware
// [Errors].
//
// A message's context has the values of ctx, and ends with it, when the message is
// settled, and when it is given back. It also tells publishes which handler they
// come from, see [Publisher.Publish].
//
// The subscription ends with ctx, with Close, and with the topic: the messages that
// the consumer has may still be settled for a while, see [WithCloseTimeout], then
// the channel is closed. Subscribe returns ctx's error, the errors of
// [fanout.Topic.OpenQueue] and of [fanout.Queue.Subscribe], and fanout.ErrClosed. It
// may be called concurrently.
func (s *Subscriber) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	if s.bad != nil {
		return nil, s.bad
	}
	if ctx == nil {
		return nil, invalid("Subscribe", nil, "a context")
	}
	if s.isClosed() {
		return nil, errClosed("subscriber")
	}
	var q *fanout.Queue[[]byte]
	var err error
	if s.group == "" {
		q, err = s.broker.anonymous(ctx, topic)
	} else {
		q, err = s.broker.queue(ctx, topic, s.group)
	}
	if err != nil {
		return nil, err
	}
	u := &subscription{subscriber: s, ctx: ctx, out: make(chan *message.Message)}
	if u.workers, err = q.Subscribe(ctx, u.handle, s.options...); err != nil {
		return nil, u.leave(q, err)
	}
	s.mu.Lock()
	closed := s.closed
	if !closed {
		s.alive.Go(u.run)
	}
	s.mu.Unlock()
	if closed {
		u.stop()
		return nil, u.leave(q, errClosed("subscriber"))
	}
	return u.out, nil
}

func (s *Subscriber) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// end has all subscriptions end.
func (s *Subscriber) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.closed = true
		close(s.ending)
	}
}

// Close ends all subscriptions, and returns when their channels are closed, which
// can take as long as WithCloseTimeout says: a consumer that calls it before it has
// settled its message waits that long. The group's queue stays, with what it holds.
// It may be called more than once.
func (s *Subscriber) Close() error {
	s.end()
	s.alive.Wait()
	s.broker.mu.Lock()
	delete(s.broker.subscribers, s)
	s.broker.mu.Unlock()
	return nil
}

// A subscription is one channel of messages.
type subscription struct {
	subscriber *Subscriber
	ctx        context.Context // Subscribe's
	workers    *fanout.Subscriber[[]byte]
	out        chan *message.Message
}

// errOver gives a message back that nobody has seen.
var errOver = fanout.Release(errClosed("subscription"))

// run waits for the end of the subscription, and ends it. It is a goroutine of the
// subscriber, whose Close waits for it.
func (u *subscription) run() {
	select {
	case <-u.ctx.Done():
	case <-u.subscriber.ending:
	case <-u.workers.Done():
	}
	u.stop()
	_ = u.leave(u.workers.Queue(), nil)
	close(u.out)
}

// stop returns when no handler runs any more.
func (u *subscription) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), u.subscriber.closeTimeout)
	defer cancel()
	// When ctx ends, the contexts of the handlers end too, and the handlers give back what is left.
	_ = u.workers.Shutdown(ctx)
	<-u.workers.Done()
}

// leave closes a queue that is this subscription's alone, and returns err.
func (u *subscription) leave(q *fanout.Queue[[]byte], err error) error {
	if u.subscriber.group != "" {
		return err
	}
	if closed := q.Close(); err == nil {
		err = closed
	}
	return err
}

// ended says whether no message is to be handed out any more.
func (u *subscription) ended() bool {
	select {
	case <-u.ctx.Done():
	case <-u.subscriber.ending:
	default:
		return false
	}
	return true
}

// handle hands a message to the consumer, and waits until it settles it.
func (u *subscription) handle(run context.Context, d fanout.Delivery[[]byte]) error {
	if u.ended() {
		return errOver
	}
	ctx, cancel := context.WithCancel(u.ctx)
	defer cancel()
	c := &messageContext{Context: ctx, run: run, delivery: d}
	m := message.NewMessageWithContext(c, d.ID(), d.Body)
	maps.Copy(m.Metadata, d.Attributes())
	select {
	case u.out <- m:
	case <-u.ctx.Done():
		return errOver
	case <-u.subscriber.ending:
		return errOver
	case <-run.Done():
		return context.Cause(run)
	}
	select {
	case <-m.Acked():
		return nil
	case <-m.Nacked():
		return c.outcome()
	case <-run.Done():
	}
	select { // both may have come at once
	case <-m.Acked():
		return nil
	case <-m.Nacked():
		return c.outcome()
	default:
		return fmt.Errorf("fanoutwatermill: the message was not settled: %w", context.Cause(run))
	}
}
