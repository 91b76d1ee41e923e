package fanout

import (
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strconv"
	"time"

	"github.com/gofanout/fanout/engine"
)

// Options come in scopes, so that one in the wrong place does not compile:
// a [TopicOption] goes to NewTopic, a [QueueOption] to OpenQueue and
// Topic.Subscribe, a [WorkerOption] to Queue.Subscribe and Topic.Subscribe,
// a [ReceiveOption] to Receive and its siblings, a [RedriveOption] to Redrive.
// None needs T to be spelled. Order doesn't matter; of two equal ones the last wins,
// except that hooks, interceptors and filters add up. [TopicOptions], [QueueOptions]
// and [WorkerOptions] make one option of many. A nil option is [ErrInvalidOption].
type (
	// A TopicOption configures [NewTopic]: [WithOrdering], [WithDeduplication],
	// [WithRetention], [WithHooks], [WithLogger], [WithPublishInterceptor],
	// [WithHandlerInterceptor], [WithQueueInterceptor], [WithEngine], [WithCodec].
	TopicOption interface{ applyTopic(*topicSettings) error }
	// A QueueOption configures [Topic.OpenQueue] and the queue of
	// [Topic.Subscribe]: [WithCapacity], [WithOverflow], [WithVisibilityTimeout],
	// [WithMaxAttempts], [WithBackoff], [WithDelay], [WithTimeToLive],
	// [WithFilter], [WithMessageFilter], [WithFilterPolicy], [WithReplay],
	// [WithDeadLetterCapacity], [WithDeadLetterOverflow], [WithDeadLetterQueue].
	QueueOption interface {
		SubscribeOption
		applyQueue(*queueSettings) error
	}
	// A WorkerOption configures the workers of [Queue.Subscribe] and
	// [Topic.Subscribe]: [WithConcurrency], [WithBatchSize], [WithRateLimit],
	// [WithAutoExtend], [WithHandlerTimeout], [WithHandlerInterceptor].
	WorkerOption interface {
		SubscribeOption
		applyWorker(*subscriberSettings) error
	}
	// A SubscribeOption is what [Topic.Subscribe] takes: a QueueOption or a WorkerOption.
	SubscribeOption interface {
		applySubscribe(*queueSettings, *subscriberSettings) error
	}
	// A DeadLetterOption configures [NewDeadLetterQueue]: [WithDeadLetterCapacity],
	// [WithDeadLetterOverflow], [WithVisibilityTimeout], [WithHooks], [WithLogger],
	// [WithQueueInterceptor].
	DeadLetterOption interface {
		applyDeadLetters(*topicSettings, *queueSettings) error
	}
	// A ReceiveOption configures [Queue.Receive], TryReceive, ReceiveBatch,
	// ReceiveInto and Deliveries: [WithVisibilityTimeout]. Given to a queue it
	// holds for all its deliveries.
	ReceiveOption interface {
		QueueOrDeadLetterOption
		applyReceive(*receiveSettings) error
	}
	// A RedriveOption selects what [Queue.Redrive] moves: [RedriveIDs], [RedriveIf],
	// [RedriveUntil]. [QueueView] has them select what DeleteLetters deletes, too.
	RedriveOption interface{ applyRedrive(*redriveSettings) error }
	// An EngineOption configures [WithEngine]: [Without].
	EngineOption interface{ applyEngine(*topicSettings) error }

	// A TopicOrDeadLetterOption is one for [NewTopic] and for [NewDeadLetterQueue].
	TopicOrDeadLetterOption interface {
		TopicOption
		DeadLetterOption
	}
	// A TopicOrWorkerOption is one for [NewTopic] and for the workers of a queue.
	TopicOrWorkerOption interface {
		TopicOption
		WorkerOption
	}
	// A QueueOrDeadLetterOption is one for a queue and for [NewDeadLetterQueue].
	QueueOrDeadLetterOption interface {
		QueueOption
		DeadLetterOption
	}
)

// TopicOptions makes one option of several, to hand them on together. They apply in their
// order. The slice is copied.
func TopicOptions(options ...TopicOption) TopicOption {
	return topicOptions(slices.Clone(options))
}

// QueueOptions makes one option of several, to hand them on together, also beside those of
// workers. They apply in their order. The slice is copied.
func QueueOptions(options ...QueueOption) QueueOption {
	options = slices.Clone(options)
	return queueOption(func(s *queueSettings) error {
		return applyGroup("QueueOptions", options, func(o QueueOption) error { return o.applyQueue(s) })
	})
}

// WorkerOptions makes one option of several, to hand them on together, also beside those of
// a queue. They apply in their order. The slice is copied.
func WorkerOptions(options ...WorkerOption) WorkerOption {
	options = slices.Clone(options)
	return workerOption(func(s *subscriberSettings) error {
		return applyGroup("WorkerOptions", options, func(o WorkerOption) error { return o.applyWorker(s) })
	})
}

// topicOptions are a group. Package fanouttest looks into it for its own options.
type topicOptions []TopicOption

func (o topicOptions) applyTopic(s *topicSettings) error {
	return applyGroup("TopicOptions", o, func(o TopicOption) error { return o.applyTopic(s) })
}

// Options returns what is in the group.
func (o topicOptions) Options() []TopicOption { return slices.Clone(o) }

// Settings are what options write to. They never mention T: what depends on T
// is held as an any and given its type back once, in OpenQueue or Redrive.
type (
	topicSettings struct {
		hooks       []Hooks
		logger      *slog.Logger
		ordering    bool
		dedupWindow time.Duration
		dedupMax    int
		retention   int
		engine      engine.Engine
		without     []engine.Feature
		codec       Codec
		publishing  []Interceptor
		handling    []Interceptor
		calls       []Interceptor
	}
	queueSettings struct {
		queueLimits
		filters     []any    // each a func(T) bool, a messageFilter or a func(*extra) bool
		deadLetters any      // a *Queue[T], or nil
		policies    []string // those of filters that are SNS's
		asked       asked
	}
	// queueLimits are the settings that a queue goes on asking for. They are
	// never changed, so that queues with equal ones share them.
	queueLimits struct {
		capacity     int
		overflow     Overflow
		visibility   time.Duration
		maxAttempts  int
		backoff      Backoff
		delay        time.Duration
		ttl          time.Duration
		replay       int
		deadCapacity int
		deadOverflow Overflow
	}
	// asked says what a user set that can't be ignored silently: by an engine, or
	// by a queue whose dead-letter queue is shared (lettersOwn is the option).
	asked struct {
		capacity, overflow, visibility, deadCapacity bool
		lettersOwn                                   string
	}
	subscriberSettings struct {
		subscriberLimits
		interceptors []Interceptor
		batchAsked   bool // WithBatchSize was given
	}
	// subscriberLimits are those that a subscriber goes on asking for, never changed.
	subscriberLimits struct {
		concurrency    int
		batch          int           // most messages of a batch handler
		every          time.Duration // between two deliveries; 0: no limit
		autoExtend     time.Duration // 0: off
		handlerTimeout time.Duration // 0: none
	}
	receiveSettings struct {
		visibility time.Duration
	}
	redriveSettings struct {
		ids   map[string]bool // by ID asked for, whether a letter has it; nil asks for all
		preds []any           // each a func(Delivery[T]) bool
		until time.Time       // zero: any
	}
)

func defaultQueueSettings() queueSettings {
	return queueSettings{queueLimits: queueLimits{
		capacity:     1024,
		overflow:     Block,
		visibility:   30 * time.Second,
		maxAttempts:  5,
		backoff:      defaultBackoff,
		deadCapacity: 1024,
		deadOverflow: Block,
	}}
}

var defaultBackoff = Exponential(100*time.Millisecond, 30*time.Second)

type (
	topicOption       func(*topicSettings) error
	queueOption       func(*queueSettings) error
	sharedTopicOption func(*topicSettings) error
	deadLetterOption  func(*queueSettings) error
	workerOption      func(*subscriberSettings) error
	redriveOption     func(*redriveSettings) error
	engineOption      func(*topicSettings) error
)

func (o topicOption) applyTopic(s *topicSettings) error       { return o(s) }
func (o engineOption) applyEngine(s *topicSettings) error     { return o(s) }
func (o sharedTopicOption) applyTopic(s *topicSettings) error { return o(s) }
func (o sharedTopicOption) applyDeadLetters(s *topicSettings, _ *queueSettings) error {
	return o(s)
}
func (o deadLetterOption) applyQueue(s *queueSettings) error { return o(s) }
func (o deadLetterOption) applySubscribe(q *queueSettings, _ *subscriberSettings) error {
	return o(q)
}
func (o deadLetterOption) applyDeadLetters(_ *topicSettings, q *queueSettings) error {
	return o(q)
}
func (o queueOption) applyQueue(s *queueSettings) error { return o(s) }
func (o queueOption) applySubscribe(q *queueSettings, _ *subscriberSettings) error {
	return o(q)
}
func (o workerOption) applyWorker(s *subscriberSettings) error { return o(s) }
func (o workerOption) applySubscribe(_ *queueSettings, s *subscriberSettings) error {
	return o(s)
}
func (o redriveOption) applyRedrive(s *redriveSettings) error { return o(s) }

func invalid(option string, value any, want string) error {
	if n, ok := value.(int); ok {
		value = limit(n)
	}
	return fmt.Errorf("%w: %s(%v): want %s", ErrInvalidOption, option, value, want)
}

// A limit is a number that is printed as [Unlimited] if it is that.
type limit int

func (l limit) String() string {
	if l == limit(Unlimited) {
		return "Unlimited"
	}
	return strconv.Itoa(int(l))
}

// applyAll gives each option to apply and refuses nil ones.
func applyAll[O any](options []O, apply func(O) error) error {
	return applyGroup("", options, apply)
}

// applyGroup is applyAll for options of a group.
func applyGroup[O any](group string, options []O, apply func(O) error) error {
	for i, o := range options {
		if any(o) == nil {
			if group != "" {
				return invalid(group, "nil", fmt.Sprintf("an option at index %d", i))
			}
			return fmt.Errorf("%w: option %d is nil", ErrInvalidOption, i)
		}
		if err := apply(o); err != nil {
			return err
		}
	}
	return nil
}

// WithHooks sets functions that are called when things happen, see [Hooks]. h is copied.
// Further options add hooks, which are called after those of earlier ones. The default is
// none.
func WithHooks(h Hooks) TopicOrDeadLetterOption {
	return sharedTopicOption(func(s *topicSettings) error {
		s.hooks = append(s.hooks, h)
		return nil
	})
}

// WithLogger sets where losses, dead letters, panics and stalls are reported, as warnings.
// The first of a kind is logged at once, and after that at most one line a second for each
// queue and kind, with a count and the details of the last. Bodies are never logged. The
// context of a line about a message has that message, see [MessageFromContext]. The default
// is slog.Default(). For no log at all give it a logger with slog.DiscardHandler.
func WithLogger(l *slog.Logger) TopicOrDeadLetterOption {
	return sharedTopicOption(func(s *topicSettings) error {
		if l == nil {
			return invalid("WithLogger", nil, "a logger")
		}
		s.logger = l
		return nil
	})
}

// WithOrdering lets messages have a [Message].OrderingKey.
func WithOrdering() TopicOption {
	return topicOption(func(s *topicSettings) error {
		s.ordering = true
		return nil
	})
}

// WithDeduplication lets messages have a [Message].DeduplicationID. The topic remembers each
// ID for window after its publication, also after the message was acknowledged. It remembers
// no more than most IDs: then it forgets the oldest, which [TopicStats].Forgotten counts. In
// SQS FIFO the window is 5 minutes.
//
// The IDs belong to the topic, not to a queue: Purge, Close and Delete of a queue make it
// forget none. To publish again what was purged, give it another ID or none, as
// [Queue.Leftovers] does.
func WithDeduplication(window time.Duration, most int) TopicOption {
	return topicOption(func(s *topicSettings) error {
		if window <= 0 {
			return invalid("WithDeduplication", window, "a positive window")
		}
		if most < 1 {
			return invalid("WithDeduplication", most, "at least 1 ID")
		}
		s.dedupWindow, s.dedupMax = window, most
		return nil
	})
}

// WithRetention has the topic keep its last n messages for queues that are opened later with
// [WithReplay]. The default is none.
func WithRetention(n int) TopicOption {
	return topicOption(func(s *topicSettings) error {
		if n < 1 || n == Unlimited {
			return invalid("WithRetention", n, "at least 1 and not Unlimited")
		}
		s.retention = n
		return nil
	})
}

// WithConcurrency sets how many deliveries the subscriber handles at once. It is a hard
// bound on running handlers: a handler that runs on past its visibility timeout keeps its
// place. The default is 1.
func WithConcurrency(workers int) WorkerOption {
	return workerOption(func(s *subscriberSettings) error {
		if workers < 1 {
			return invalid("WithConcurrency", workers, "at least 1")
		}
		s.concurrency = workers
		return nil
	})
}

// WithBatchSize sets how many messages a [BatchHandler] gets at most. The default is 10, as
// in SQS. With a [Handler], which gets one message, it is [ErrInvalidOption].
func WithBatchSize(messages int) WorkerOption {
	return workerOption(func(s *subscriberSettings) error {
		if messages < 1 {
			return invalid("WithBatchSize", messages, "at least 1")
		}
		s.batch, s.batchAsked = messages, true
		return nil
	})
}

// WithRateLimit bounds how many deliveries a second the subscriber starts, evenly spaced. A
// message that waits for that waits in its queue, where others can take it. The default is
// no limit.
func WithRateLimit(perSecond float64) WorkerOption {
	return workerOption(func(s *subscriberSettings) error {
		every := float64(time.Second) / perSecond
		if !(perSecond > 0) || every < 1 || every > float64(24*365*time.Hour) {
			return invalid("WithRateLimit", perSecond, "a rate between one a year and one a nanosecond")
		}
		s.every = time.Duration(every)
		return nil
	})
}

// MaxAutoExtend is as long as SQS lets a message be in flight. It is the most
// that [WithAutoExtend] takes, and what it is usually given.
const MaxAutoExtend = 12 * time.Hour

// WithAutoExtend extends the visibility timeout for as long as the handler runs, up to
// longest after its start. So a long handler needs no long timeout. In memory this makes the
// timeout longest, because there a handler can't disappear; on an engine it renews the
// lease. The default is off. More than [MaxAutoExtend] is [ErrInvalidOption].
func WithAutoExtend(longest time.Duration) WorkerOption {
	return workerOption(func(s *subscriberSettings) error {
		if longest <= 0 || longest > MaxAutoExtend {
			return invalid("WithAutoExtend", longest, fmt.Sprintf("a positive duration up to MaxAutoExtend, %v", MaxAutoExtend))
		}
		s.autoExtend = longest
		return nil
	})
}

// WithHandlerTimeout cancels the context of a handler that runs longer than d, with a cause
// that wraps [context.DeadlineExceeded]. The delivery stays the handler's: when the handler
// returns, its result counts as always, unless the visibility timeout has passed. The
// default is none.
func WithHandlerTimeout(d time.Duration) WorkerOption {
	return workerOption(func(s *subscriberSettings) error {
		if d <= 0 {
			return invalid("WithHandlerTimeout", d, "a positive duration")
		}
		s.handlerTimeout = d
		return nil
	})
}

func defaultSubscriberSettings() subscriberSettings {
	return subscriberSettings{subscriberLimits: defaultSubscriber}
}

var defaultSubscriber = subscriberLimits{concurrency: 1, batch: 10}

// shared returns the limits, which are most often everybody's.
func (l subscriberLimits) shared() *subscriberLimits {
	if l == defaultSubscriber {
		return &defaultSubscriber
	}
	return &l
}

// typed gives options that were held without T their type back. This is the
// only type assertion on what users hand in.
func typed[F any](option string, held []any, carries reflect.Type) ([]F, error) {
	var fs []F
	for _, h := range held {
		f, ok := h.(F)
		if !ok {
			return nil, fmt.Errorf("%w: %s was given a %T, but the topic carries %v", ErrInvalidOption, option, h, carries)
		}
		fs = append(fs, f)
	}
	return fs, nil
}
