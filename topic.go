package fanout

import (
	"context"
	"errors"
	"fmt"
	"reflect"

	"github.com/gofanout/fanout/internal/ending"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/settings"
	"github.com/gofanout/fanout/internal/topic"
)

// A Topic is where messages of type T are published. Each message goes to every queue of the
// topic whose filter accepts it. A topic without queues accepts messages and forgets them.
//
// All methods may be called concurrently, from handlers and hooks too. [NewTopic] makes a
// topic; [Topic.Shutdown] or [Topic.Close] ends it.
type Topic[T any] struct{ core topic.Topic[T] }

// NewTopic returns a topic. It does no I/O and starts no goroutine. The name appears in
// errors, hooks and logs; it need not be unique. It returns [ErrInvalidOption] for an empty
// name or a bad option. It returns [ErrUnsupported] for an option that the engine does not
// support, and for a T that the engine's codec can't decode, see [JSON].
func NewTopic[T any](name string, options ...TopicOption) (*Topic[T], error) {
	if name == "" {
		return nil, invalid("NewTopic", `""`, "a name that is not empty")
	}
	set := settings.Topic{Partial: partial}
	err := applyAll(options, func(o TopicOption) error { return o.applyTopic(&set) })
	if err != nil {
		return nil, err
	}
	t, err := topic.New[T](name, set)
	if err != nil {
		return nil, err
	}
	return topicOf(t), nil
}

// partial is the error for a batch of which an engine published a part.
func partial(topic string, failed map[int]error, err error) error {
	return &PublishError{Topic: topic, Failed: failed, err: err}
}

// made returns an error if t was not made by NewTopic.
func (t *Topic[T]) made() error {
	if !t.core.Made() {
		return zeroValue(t, "NewTopic")
	}
	return nil
}

// Name is the topic's name.
func (t *Topic[T]) Name() string { return t.core.Name() }

// Publish hands body to every queue whose filter accepts it. The body is shared and not
// copied: do not change what it points to any more.
//
// It is all or none. If Publish returns nil, the message is in all these queues, except
// where a queue's own Drop policy dropped it. If it returns an error, the message is in
// none, nothing was dropped for it, and the publish can be tried again. On an engine that
// holds unless the error is [ErrUnconfirmed]. If no queue is open, or no filter accepts the
// message, no queue gets it: Publish returns nil, and [TopicStats].Unrouted counts it.
//
// While a queue with the [Block] policy is full, Publish waits until there is room or ctx
// ends. Publishes wait in the order of their arrival. It returns ctx's error, [ErrClosed],
// [ErrQueueFull], or an error that names the queue whose filter panicked.
func (t *Topic[T]) Publish(ctx context.Context, body T) error {
	if err := t.made(); err != nil {
		return err
	}
	return t.core.In.Publish(ctx, body)
}

// PublishMessages publishes a batch, all or none. If it returns nil, all messages are in all
// queues whose filters accept them, in the order given, and no other publisher's message is
// between them. If it returns an error, none is in any queue. It returns what Publish
// returns, [ErrInvalidMessage], and [ErrBatchTooLarge] if a [Block] or [Reject] queue would
// have to take more messages than its capacity. A batch of no messages is no error.
func (t *Topic[T]) PublishMessages(ctx context.Context, messages ...Message[T]) error {
	if err := t.made(); err != nil {
		return err
	}
	return t.core.In.PublishBatch(ctx, coreMessages(messages))
}

// TryPublish is Publish without waiting: it returns [ErrQueueFull] where Publish would wait.
func (t *Topic[T]) TryPublish(ctx context.Context, body T) error {
	if err := t.made(); err != nil {
		return err
	}
	return t.core.In.TryPublish(ctx, body)
}

// TryPublishMessages is PublishMessages without waiting: it returns [ErrQueueFull] where
// PublishMessages would wait.
func (t *Topic[T]) TryPublishMessages(ctx context.Context, messages ...Message[T]) error {
	if err := t.made(); err != nil {
		return err
	}
	return t.core.In.TryPublishBatch(ctx, coreMessages(messages))
}

// OpenQueue makes a queue that gets every message published from now on that its filter
// accepts. A Publish that is under way may or may not reach it. ctx bounds the set-up only.
//
// A queue opened [WithReplay] in memory has its filters called for each message that the
// topic retained at that time, once and without a lock. What is published meanwhile comes
// after what is replayed. If ctx ends between two such calls, OpenQueue returns its error
// and nothing of the queue is left.
//
// OpenQueue returns [ErrClosed]; [ErrExists] if a queue of that name is open;
// [ErrInvalidOption] for a bad option, for an empty name or one that ends in "/dead", and
// for a filter for another T; [ErrUnsupported] for what the topic or its engine does not
// support; and ctx's error if that has ended.
func (t *Topic[T]) OpenQueue(ctx context.Context, name string, options ...QueueOption) (*Queue[T], error) {
	set := settings.DefaultQueue()
	if err := applyAll(options, func(o QueueOption) error { return o.applyQueue(&set) }); err != nil {
		return nil, err
	}
	return t.open(ctx, name, set)
}

// open is OpenQueue with its options.
func (t *Topic[T]) open(ctx context.Context, name string, set settings.Queue) (*Queue[T], error) {
	if err := t.made(); err != nil {
		return nil, err
	}
	filters, err := filtersOf[T](set.Filters)
	if err != nil {
		return nil, err
	}
	var dead *queue.Queue[T]
	if set.DeadLetters != nil {
		ds, err := typed[*Queue[T]]("WithDeadLetterQueue", []any{set.DeadLetters}, reflect.TypeFor[T]())
		if err != nil {
			return nil, err
		}
		dead = &ds[0].core
	}
	q, err := t.core.Open(ctx, name, set, filters, dead)
	if err != nil {
		return nil, err
	}
	return queueOf(q), nil
}

// Subscribe opens a queue and runs h over it by a pool of workers: it is OpenQueue and
// Queue.Subscribe in one, with the errors of both. ctx bounds the set-up only: the workers
// go on when it ends, and handlers have contexts of their own. [Subscriber.Shutdown] stops
// the workers. The queue stays open after that, and fills, until it is closed.
func (t *Topic[T]) Subscribe(ctx context.Context, name string, h Handler[T], options ...SubscribeOption) (*Subscriber[T], error) {
	return t.subscribe(ctx, name, h, nil, options)
}

// SubscribeBatch is [Topic.Subscribe] for a handler that takes several messages
// at a time.
func (t *Topic[T]) SubscribeBatch(ctx context.Context, name string, h BatchHandler[T], options ...SubscribeOption) (*Subscriber[T], error) {
	return t.subscribe(ctx, name, nil, h, options)
}

func (t *Topic[T]) subscribe(ctx context.Context, name string, one Handler[T], h BatchHandler[T], options []SubscribeOption) (*Subscriber[T], error) {
	set, sub := settings.DefaultQueue(), settings.DefaultSubscriber()
	if err := applyAll(options, func(o SubscribeOption) error { return o.applySubscribe(&set, &sub) }); err != nil {
		return nil, err
	}
	if err := checkSubscribe(ctx, one, h, &sub); err != nil {
		return nil, err
	}
	q, err := t.open(ctx, name, set)
	if err != nil {
		return nil, err
	}
	return q.start(one, h, sub)
}

// Queue returns the open queue of that name, or nil if there is none. When the topic is
// closed it returns the queue that was open then.
func (t *Topic[T]) Queue(name string) *Queue[T] { return queueOf(t.core.Queue(name)) }

// Queues returns the topic's open queues in the order of their names. When the topic is
// closed it returns those that were open then.
func (t *Topic[T]) Queues() []*Queue[T] {
	qs := t.core.Queues()
	all := make([]*Queue[T], len(qs))
	for k, q := range qs {
		all[k] = queueOf(q)
	}
	return all
}

// TopicStats is a snapshot of a topic's counters.
type TopicStats struct {
	Topic     string
	Published uint64 // messages published; on an engine those of this process that it confirmed
	// Unrouted counts those of them that no queue took, for want of a queue or of a
	// filter that accepts them. On an engine it is [Unknown].
	Unrouted int
	Waiting  int // publishes and redrives that wait for room
	Queues   int // open queues
	Retained int // messages kept for queues opened later

	// On an engine [Unknown], if there is deduplication.
	Duplicates int // messages not published, for their deduplication ID
	Remembered int // deduplication IDs remembered
	Forgotten  int // deduplication IDs forgotten before their time, for want of room
}

// Stats returns a snapshot of the topic's counters. Those of its queues are
// taken one by one, by [Queue.Stats].
func (t *Topic[T]) Stats() TopicStats { return TopicStats(t.core.Stats()) }

// ListQueues returns what each of the topic's queues holds, in the order of their names. In
// memory these are the queues of [Topic.Queues], there is no error, and ctx is ignored. On
// an engine it asks the engine, until ctx ends. There the list includes queues that no
// process has open: they get messages until they are deleted, see [Queue.Delete]. Their
// depths are read one after the other. ListQueues returns the engine's errors,
// [ErrUnsupported] if the engine does not support [engine.Listing], [ErrClosed] once the
// topic is closed there, and [ErrInvalidOption] for a zero Topic.
func (t *Topic[T]) ListQueues(ctx context.Context) ([]Depth, error) {
	if err := t.made(); err != nil {
		return nil, err
	}
	ds, err := t.core.ListQueues(ctx)
	return sliceOf[Depth](ds), err
}

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

// Close ends the topic at once. Publishes, receives and settlements get [ErrClosed] from now
// on, and the contexts of running handlers are cancelled with a cause that wraps it. What
// the queues hold is lost; it is counted and told to the hooks and the log, and
// [Topic.Leftovers] returns it. Close doesn't wait for handlers: wait for Done. A second
// call does nothing. Close returns nil.
func (t *Topic[T]) Close() error {
	if err := t.made(); err != nil {
		return err
	}
	return t.core.Close()
}

// Done returns a channel that is closed when the topic is closed and the last
// of its goroutines and timers is gone. Handlers that never return keep it open.
func (t *Topic[T]) Done() <-chan struct{} { return t.core.Done() }

// Leftovers returns what the queues held when the topic was closed, by the names of the
// queues, as messages that can be published again; see [Queue.Leftovers]. Before that it
// returns nil.
func (t *Topic[T]) Leftovers() map[string][]Message[T] {
	var all map[string][]Message[T]
	for name, ms := range t.core.Leftovers() {
		if all == nil {
			all = make(map[string][]Message[T])
		}
		all[name] = messages(ms)
	}
	return all
}

// View returns a view of the topic that needs no T.
func (t *Topic[T]) View() TopicView { return (*topicView[T])(t) }

// inner is the topic for package topic, nil if NewTopic did not make it.
func (t *Topic[T]) inner() ending.Topic {
	if t == nil || !t.core.Made() {
		return nil
	}
	return &t.core
}

// AnyTopic is a [*Topic] of any type, for [Shutdown] and [TopicView]. No other type
// implements it.
type AnyTopic interface {
	Name() string
	Close() error
	Done() <-chan struct{}
	Stats() TopicStats
	View() TopicView

	inner() ending.Topic
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
		return fmt.Errorf("%w: Shutdown: %w", ErrInvalidOption, message.ErrNilContext)
	}
	inner := make([]ending.Topic, len(topics))
	for k, t := range topics {
		if t != nil {
			inner[k] = t.inner()
		}
		if inner[k] == nil {
			return fmt.Errorf("%w: Shutdown: topic %d: want a topic made by NewTopic", ErrInvalidOption, k)
		}
	}
	var left []error
	for _, l := range ending.End(ctx, inner...) {
		left = append(left, &ShutdownError{Topic: l.Topic, Queues: sliceOf[Left](l.Queues), Err: l.Err})
	}
	if len(left) == 1 {
		return left[0]
	}
	return errors.Join(left...)
}
