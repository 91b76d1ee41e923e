package fanout

import (
	"context"
	"fmt"
	"time"

	"github.com/gofanout/fanout/internal/deadletter"
	"github.com/gofanout/fanout/internal/view"
)

// A TopicView is a [*Topic] of any type, seen without its T, for a page, metrics or a tool
// that looks after many topics. [Topic.View] returns it. It is no snapshot: each call
// returns what the topic has at that time. All methods may be called concurrently. No other
// type implements it.
type TopicView interface {
	// Name, Stats, ListQueues and Done are those of [Topic], with the same errors.
	Name() string
	Stats() TopicStats
	ListQueues(ctx context.Context) ([]Depth, error)
	Done() <-chan struct{}

	// Engine is the name of the topic's engine, empty in memory. On an engine Stats, of the
	// topic and of its queues, tells of this process alone; Depth and ListQueues ask the engine.
	Engine() string

	// Queues returns the queues of [Topic.Queues], in the order of their names, and Queue
	// that of [Topic.Queue]; nil if there is none. A dead-letter queue is found by the
	// queue that its letters come from.
	Queues() []QueueView
	Queue(name string) QueueView

	// Tap adds hooks to a topic that is in use, until stop is called. They are called as
	// those of [WithHooks] are, and after these, for what happens from now on in the topic's
	// queues and their own dead-letter queues. Calls that have begun when stop is called go
	// on.
	//
	// A tap gets the events of trouble and of what is done about it: DeadLettered, Parked,
	// Redriven, Dropped, Stuck, Stalled, EngineFailed and Late. Without a tap that costs
	// nothing, and with one only the calls. Published, Delivered and Settled would change
	// how every message is delivered; they and StuckStack are [ErrUnsupported]. Give these
	// to WithHooks, or count by Stats.
	Tap(h Hooks) (stop func(), err error)

	view()
}

// A QueueView is a [*Queue] of any type, seen without its T. [Queue.View] and
// [TopicView] return it. Two views of one queue are equal. All methods may be called
// concurrently. No other type implements it.
type QueueView interface {
	// Name, Stats, Depth, Pause, Resume, Purge and Redrive are those of [Queue], with the
	// same errors. Stats is cheap enough to be called for every queue once a second.
	Name() string
	Stats() Stats
	Depth(ctx context.Context) (Depth, error)
	Pause(ctx context.Context) error
	Resume(ctx context.Context) error
	Purge(ctx context.Context) (dropped int, err error)
	Redrive(ctx context.Context, options ...RedriveOption) (moved int, err error)

	// DeleteLetters deletes dead letters of this queue, and of no other: all that are in its
	// dead-letter queue when it is called, or those that the options select, as for Redrive.
	// It returns how many it deleted. A letter that a consumer of the dead-letter queue has
	// received stays there. What is deleted is counted in the dead-letter queue's
	// Stats.Dropped, and told to the hooks and the log as [DroppedByDelete]. In memory it
	// never waits; on an engine it receives the letters, as Redrive does, until ctx ends. It
	// returns the errors of Redrive except [ErrQueueFull].
	DeleteLetters(ctx context.Context, options ...RedriveOption) (deleted int, err error)

	// Peek returns a page of the queue's messages and the cursor of the next page, which is
	// empty after the last page; see [PeekOptions]. It takes no message. It holds the
	// queue's lock for a thousand messages at a time. A message that is in the queue all the
	// time is on exactly one of the pages; messages that come and go meanwhile may be
	// missed.
	//
	// Peek does not see what is in flight, nor what a queue held when it was closed. On an
	// engine it only shows the dead letters of a dead-letter queue, which it receives and
	// gives back as [Queue.Peek] does, and there is only one page: for any other queue, and
	// for a cursor, it returns [ErrUnsupported]. It returns [ErrInvalidOption] for a bad
	// option, and ctx's error.
	Peek(ctx context.Context, o PeekOptions) (page []MessageView, next string, err error)

	// Settings are the options in force.
	Settings() QueueSettings
	// Subscribers returns the subscribers, those that are being shut down too.
	Subscribers() []SubscriberView
	// Blocking reports whether a publish or a redrive waits for room in this queue and is
	// the first in its line. Others may wait behind it; [TopicStats].Waiting counts all of
	// them. On an engine it is false, because publishes wait there in the engine.
	Blocking() bool
	// DeadLetters is the view of [Queue.DeadLetters]. It is nil for a dead-letter queue, and
	// as long as the queue has no dead-letter queue because nothing has died in it.
	DeadLetters() QueueView

	view()
}

// A topicView is a Topic, by the methods of a TopicView.
type topicView[T any] Topic[T]

func (v *topicView[T]) of() *Topic[T] { return (*Topic[T])(v) }

func (v *topicView[T]) Name() string      { return v.of().Name() }
func (v *topicView[T]) Stats() TopicStats { return v.of().Stats() }
func (v *topicView[T]) ListQueues(ctx context.Context) ([]Depth, error) {
	return v.of().ListQueues(ctx)
}
func (v *topicView[T]) Done() <-chan struct{} { return v.of().Done() }

func (v *topicView[T]) view() {}

func (v *topicView[T]) Engine() string { return v.core.Engine() }

func (v *topicView[T]) Queues() []QueueView {
	qs := v.of().Queues()
	views := make([]QueueView, len(qs))
	for k, q := range qs {
		views[k] = q.View()
	}
	return views
}

func (v *topicView[T]) Queue(name string) QueueView {
	if q := v.of().Queue(name); q != nil {
		return q.View()
	}
	return nil
}

func (v *topicView[T]) Tap(h Hooks) (stop func(), err error) {
	if err := v.of().made(); err != nil {
		return nil, err
	}
	for _, no := range []struct {
		name string
		f    func(Event)
	}{{"Published", h.Published}, {"Delivered", h.Delivered}, {"Settled", h.Settled}, {"StuckStack", h.StuckStack}} {
		if no.f != nil {
			return nil, fmt.Errorf("%w: Tap of topic %q with Hooks.%s: give it to NewTopic by WithHooks", ErrUnsupported, v.Name(), no.name)
		}
	}
	return v.core.Tap(h.byKind()), nil
}

// A queueView is a Queue, by the methods of a QueueView.
type queueView[T any] Queue[T]

func (v *queueView[T]) of() *Queue[T] { return (*Queue[T])(v) }

func (v *queueView[T]) Name() string { return v.of().Name() }
func (v *queueView[T]) Stats() Stats { return v.of().Stats() }
func (v *queueView[T]) Depth(ctx context.Context) (Depth, error) {
	return v.of().Depth(ctx)
}
func (v *queueView[T]) Pause(ctx context.Context) error  { return v.of().Pause(ctx) }
func (v *queueView[T]) Resume(ctx context.Context) error { return v.of().Resume(ctx) }
func (v *queueView[T]) Purge(ctx context.Context) (dropped int, err error) {
	return v.of().Purge(ctx)
}
func (v *queueView[T]) Redrive(ctx context.Context, options ...RedriveOption) (moved int, err error) {
	return v.of().Redrive(ctx, options...)
}

func (v *queueView[T]) view() {}

func (v *queueView[T]) Blocking() bool { return v.core.Blocking() }

func (v *queueView[T]) DeadLetters() QueueView {
	if d := v.core.DeadNow(); d != nil {
		return queueOf(d).View()
	}
	return nil
}

// QueueSettings are the options of a queue that are in force: those that were given, and the
// defaults of the others.
type QueueSettings struct {
	// Capacity is how many messages the queue holds at most; on an engine [Unknown] if
	// nothing was asked for: then it is the engine's.
	Capacity          int
	Overflow          Overflow
	VisibilityTimeout time.Duration
	MaxAttempts       int    // Unlimited in a dead-letter queue
	Backoff           string // as Backoff.String has it
	Delay             time.Duration
	TimeToLive        time.Duration // 0: none
	Filtered          bool          // it has a filter
	// DeadLetterQueue is the name of a dead-letter queue that is shared, see
	// WithDeadLetterQueue. It is empty if the queue has its own, or is one.
	DeadLetterQueue string
	// DeadLetterCapacity and DeadLetterOverflow are the dead-letter queue's Capacity and
	// Overflow; zero of one that is itself one.
	DeadLetterCapacity int
	DeadLetterOverflow Overflow
}

func (v *queueView[T]) Settings() QueueSettings {
	s := view.SettingsOf(&v.core)
	return QueueSettings{
		Capacity: s.Capacity, Overflow: Overflow(s.Overflow), VisibilityTimeout: s.Visibility, MaxAttempts: s.MaxAttempts,
		Backoff: s.Backoff.String(), Delay: s.Delay, TimeToLive: s.TTL, Filtered: s.Filtered,
		DeadLetterQueue: s.Shared, DeadLetterCapacity: s.DeadCapacity, DeadLetterOverflow: Overflow(s.DeadOverflow),
	}
}

// A SubscriberView describes a [Subscriber] at one instant.
type SubscriberView struct {
	// Subscriber is the file and line that subscribed, as in [Event].Subscriber. The
	// goroutines of its workers have it as their pprof label "subscriber", beside "topic"
	// and "queue": a goroutine profile has the stacks of its handlers.
	Subscriber     string
	Concurrency    int
	BatchSize      int           // 1 for a Handler
	RateLimit      float64       // deliveries a second; 0: no limit
	AutoExtend     time.Duration // 0: off
	HandlerTimeout time.Duration // 0: none
	Workers        int           // running worker goroutines
	Stuck          int           // handlers that run on past their visibility timeout
	Stopping       bool          // Shutdown was called, or the queue was closed
}

func (v *queueView[T]) Subscribers() []SubscriberView {
	subs := view.Subscribers(&v.core)
	views := make([]SubscriberView, len(subs))
	for k := range subs {
		s := &subs[k]
		views[k] = SubscriberView{
			Subscriber: s.Site, Concurrency: s.Concurrency, BatchSize: s.Most, RateLimit: s.RateLimit(), AutoExtend: s.AutoExtend,
			HandlerTimeout: s.HandlerTimeout, Workers: s.Workers, Stuck: s.Stuck, Stopping: s.Stopping,
		}
	}
	return views
}

func (v *queueView[T]) DeleteLetters(ctx context.Context, options ...RedriveOption) (deleted int, err error) {
	c, err := v.of().chooseLetters(ctx, "DeleteLetters", "delete letters", options)
	if err != nil {
		return 0, err
	}
	return deadletter.Delete(ctx, &v.core, c)
}

// PeekOptions say what [QueueView].Peek returns.
type PeekOptions struct {
	// After is the cursor that the page before was returned with. The first page has none.
	// A cursor is text, and good for as long as the queue exists.
	After string
	// Most is how many messages the page has at most, at least 1.
	Most int
	// Body is how many bytes of a body's text each [MessageView] has; 0 is none. A longer
	// text is cut, with a note of how much was left out; a text of up to 48 bytes is always
	// whole. The text of a string or of bytes is the body itself, on an engine as the codec
	// encoded it. Any other body is written as JSON, or as fmt prints it if that fails. For
	// that Peek calls the body's own methods, such as MarshalJSON, without a lock. If one
	// panics, the text says so.
	Body int
}

// A MessageView is a message in a queue, without its T.
type MessageView struct {
	ID          string
	PublishedAt time.Time
	// Cursor, given as [PeekOptions].After, makes a page that begins with this message, if
	// it is still there. It is empty on an engine.
	Cursor string
	// State is the name of the number in [Stats] that counts the message, in lower case:
	// "ready", "delayed", "retrying", "parked", "released" or "blocked"; of a letter that a
	// consumer had when its dead-letter queue was closed it is "in flight".
	State string
	// DueAt is when a delayed or retrying message is ready again, else zero.
	DueAt time.Time
	// Attempt, OrderingKey, Attributes and History are as [Delivery] has them. Attempt is
	// the number of the attempt to come.
	Attempt     int
	OrderingKey string
	Attributes  map[string]string
	History     []Attempt
	// DiedAt is when a dead letter became one, and Source the queue that it comes from. Both
	// are zero for others, and if the letter has no history. Give the latest DiedAt of
	// what was looked at to [RedriveUntil].
	DiedAt time.Time
	Source string
	// Body is the body as text, as far as [PeekOptions].Body asks for it.
	Body string
}

func (v *queueView[T]) Peek(ctx context.Context, o PeekOptions) (page []MessageView, next string, err error) {
	if err := v.of().made(); err != nil {
		return nil, "", err
	}
	seen, next, err := view.PeekAt(ctx, &v.core, view.PeekOptions(o))
	return sliceOf[MessageView](seen), next, err
}
