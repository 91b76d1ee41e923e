// Package fanoutwatermill is a Publisher and a Subscriber for watermill over
// topics of fanout, for programs that have watermill's routers and middleware.
//
// A [Broker] has the topics, by their names. A topic of watermill is a
// [fanout.Topic]; a consumer group is one of its queues. So each group gets every
// message that is published after it was made, subscriptions of one group compete,
// queues are bounded, and what fails is retried later and ends as a dead letter.
//
//	b, err := fanoutwatermill.NewBroker()
//	router.AddConsumerHandler("reserve", "payments", b.Subscriber("inventory"), reserve)
//	err = b.Publisher().Publish("payments", message.NewMessage(watermill.NewUUID(), body))
//
// The payload of a message is the body, its metadata are the attributes, its UUID
// is the ID. An empty UUID becomes one of fanout's. Payloads are shared by groups
// and attempts, not copied.
//
// Coming-from-gochannel.md, beside this file, says what is different for those
// who have used watermill's GoChannel.
package fanoutwatermill

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/engine"
)

// A Broker has the topics that its publishers and subscribers name, and the
// groups' queues. A topic is made when it is first named. Messages are kept in
// memory, and end with the Broker, unless it was made [WithEngine].
//
// All methods may be called concurrently.
type Broker struct {
	settings settings

	mu sync.Mutex // guards what follows; a leaf
	// topics are those that were named, until the broker ends.
	topics      map[string]*topic
	publishers  map[*Publisher]struct{}  // not closed
	subscribers map[*Subscriber]struct{} // not closed
	closed      bool
}

// A topic is one of a broker's topics.
type topic struct {
	*fanout.Topic[[]byte]
	// turn is taken by who opens a queue: one at a time.
	turn chan struct{}
}

type settings struct {
	topic  []fanout.TopicOption
	queue  []fanout.QueueOption
	queues map[group][]fanout.QueueOption
	fields func(topic string, from *message.Message, to *fanout.Message[[]byte])
	engine bool
}

type group struct{ topic, name string }

// An Option configures [NewBroker].
type Option interface {
	apply(*settings) error
}

type option func(*settings) error

func (o option) apply(s *settings) error { return o(s) }

func invalid(option string, value any, want string) error {
	return fmt.Errorf("%w: %s(%v): want %s", fanout.ErrInvalidOption, option, value, want)
}

// WithTopicOptions gives options to every topic: fanout.WithOrdering,
// WithDeduplication, WithRetention, WithHooks, WithLogger and the like. Several
// add up. A bad one is an error of what names a topic first.
func WithTopicOptions(options ...fanout.TopicOption) Option {
	return option(func(s *settings) error {
		s.topic = append(s.topic, options...)
		return nil
	})
}

// WithQueueOptions gives options to the queue of every group: fanout.WithCapacity,
// WithOverflow, WithMaxAttempts, WithBackoff and the like. Several add up. A bad
// one is an error of Subscribe and SubscribeInitialize.
func WithQueueOptions(options ...fanout.QueueOption) Option {
	return option(func(s *settings) error {
		s.queue = append(s.queue, options...)
		return nil
	})
}

// WithQueue gives options to the queue of one group in one topic, beside those of
// [WithQueueOptions], over which they win.
func WithQueue(topic, name string, options ...fanout.QueueOption) Option {
	return option(func(s *settings) error {
		if topic == "" || name == "" {
			return invalid("WithQueue", fmt.Sprintf("%q, %q", topic, name), "the names of a topic and a group")
		}
		at := group{topic, name}
		s.queues[at] = append(s.queues[at], options...)
		return nil
	})
}

// WithMessageFields has set called for each message before it is published. It may
// set what messages of watermill don't have: OrderingKey, DeduplicationID, Delay and
// TimeToLive, from the metadata for example. ID, Body and Attributes are set
// already; Attributes are the message's own Metadata. It is called concurrently.
//
// An ordering key needs WithTopicOptions(fanout.WithOrdering()), a deduplication
// ID fanout.WithDeduplication.
func WithMessageFields(set func(topic string, from *message.Message, to *fanout.Message[[]byte])) Option {
	return option(func(s *settings) error {
		if set == nil {
			return invalid("WithMessageFields", nil, "a function")
		}
		s.fields = set
		return nil
	})
}

// WithEngine has an engine keep all topics, as [fanout.WithEngine] does: payloads
// are handed to it as they are. Groups need names there, and what they are
// subscribed by stays when the process ends.
func WithEngine(e engine.Engine, options ...fanout.EngineOption) Option {
	return option(func(s *settings) error {
		if e == nil {
			return invalid("WithEngine", nil, "an engine")
		}
		s.engine = true
		s.topic = append(s.topic, fanout.WithEngine(e, options...), fanout.WithCodec(raw{}))
		return nil
	})
}

// NewBroker makes a broker without topics. It returns [fanout.ErrInvalidOption].
func NewBroker(options ...Option) (*Broker, error) {
	b := &Broker{
		settings:    settings{queues: map[group][]fanout.QueueOption{}},
		topics:      map[string]*topic{},
		publishers:  map[*Publisher]struct{}{},
		subscribers: map[*Subscriber]struct{}{},
	}
	for _, o := range options {
		if o == nil {
			return nil, invalid("NewBroker", nil, "options")
		}
		if err := o.apply(&b.settings); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// errClosed is what a closed broker, publisher or subscriber returns.
func errClosed(what string) error {
	return fmt.Errorf("fanoutwatermill: %s: %w", what, fanout.ErrClosed)
}

// Topic returns the topic of that name, and makes it if nobody has named it yet:
// for its queues, their dead letters and statistics. It returns the errors of
// [fanout.NewTopic], and [fanout.ErrClosed].
func (b *Broker) Topic(name string) (*fanout.Topic[[]byte], error) {
	t, err := b.topic(name)
	if err != nil {
		return nil, err
	}
	return t.Topic, nil
}

func (b *Broker) topic(name string) (*topic, error) {
	b.mu.Lock()
	t, closed := b.topics[name], b.closed
	b.mu.Unlock()
	if closed {
		return nil, errClosed("broker")
	}
	if t != nil {
		return t, nil
	}
	// Options are the user's code, so a topic is made without the lock. Of two
	// that are made at once the later one is dropped: it has nothing yet.
	made, err := fanout.NewTopic[[]byte](name, b.settings.topic...)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	t, closed = b.topics[name], b.closed
	if t == nil && !closed {
		t = &topic{Topic: made, turn: make(chan struct{}, 1)}
		b.topics[name] = t
	}
	b.mu.Unlock()
	if closed {
		return nil, errors.Join(errClosed("broker"), made.Close())
	}
	if t.Topic != made {
		if err := made.Close(); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// queue returns the queue of a group, and opens it if it isn't.
func (b *Broker) queue(ctx context.Context, topic, name string) (*fanout.Queue[[]byte], error) {
	t, err := b.topic(topic)
	if err != nil {
		return nil, err
	}
	select {
	case t.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer t.leave()
	if q := t.Queue(name); q != nil {
		return q, nil
	}
	options := append([]fanout.QueueOption{}, b.settings.queue...)
	return t.OpenQueue(ctx, name, append(options, b.settings.queues[group{topic, name}]...)...)
}

func (t *topic) leave() { <-t.turn }

// anonymous opens a queue for one subscription alone.
func (b *Broker) anonymous(ctx context.Context, topic string) (*fanout.Queue[[]byte], error) {
	if b.settings.engine {
		return nil, fmt.Errorf("%w: a subscriber without a group, to topic %q: an engine keeps what is subscribed, name a group", fanout.ErrUnsupported, topic)
	}
	t, err := b.topic(topic)
	if err != nil {
		return nil, err
	}
	return t.OpenQueue(ctx, "anonymous-"+watermill.NewUUID(), b.settings.queue...)
}

// Publisher returns a publisher to the broker's topics.
func (b *Broker) Publisher() *Publisher {
	p := &Publisher{broker: b}
	p.ctx, p.close = context.WithCancelCause(context.Background())
	b.mu.Lock()
	closed := b.closed
	if !closed {
		b.publishers[p] = struct{}{}
	}
	b.mu.Unlock()
	if closed {
		p.close(errClosed("broker"))
	}
	return p
}

// Shutdown takes no more messages, except from handlers that run, waits until all
// groups' queues are drained, as [fanout.Shutdown] does for all its topics, and
// closes the broker. Its error says, queue by queue, what was left when ctx ended.
// It returns fanout.ErrInvalidOption for a nil ctx, and changes nothing then.
func (b *Broker) Shutdown(ctx context.Context) error {
	if ctx == nil {
		return invalid("Shutdown", nil, "a context")
	}
	b.mu.Lock()
	var topics []fanout.AnyTopic
	for _, t := range b.topics {
		topics = append(topics, t.Topic)
	}
	b.mu.Unlock()
	err := fanout.Shutdown(ctx, topics...)
	return errors.Join(err, b.Close())
}

// Close closes all publishers and subscribers, as their Close does, and then the
// topics: what their queues hold in memory is lost, and logged. It may be called
// more than once.
func (b *Broker) Close() error {
	b.mu.Lock()
	b.closed = true
	var publishers []*Publisher
	for p := range b.publishers {
		publishers = append(publishers, p)
	}
	var subscribers []*Subscriber
	for s := range b.subscribers {
		subscribers = append(subscribers, s)
	}
	var topics []*topic
	for _, t := range b.topics {
		topics = append(topics, t)
	}
	b.mu.Unlock()
	var errs []error
	for _, p := range publishers {
		errs = append(errs, p.Close())
	}
	for _, s := range subscribers {
		s.end()
	}
	for _, s := range subscribers {
		errs = append(errs, s.Close())
	}
	for _, t := range topics {
		errs = append(errs, t.Close())
	}
	return errors.Join(errs...)
}
