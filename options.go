package fanout

import (
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"time"

	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/internal/settings"
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
	TopicOption interface {
		applyTopic(*settings.Topic) error
	}
	// A QueueOption configures [Topic.OpenQueue] and the queue of
	// [Topic.Subscribe]: [WithCapacity], [WithOverflow], [WithVisibilityTimeout],
	// [WithMaxAttempts], [WithBackoff], [WithDelay], [WithTimeToLive],
	// [WithFilter], [WithMessageFilter], [WithFilterPolicy], [WithReplay],
	// [WithDeadLetterCapacity], [WithDeadLetterOverflow], [WithDeadLetterQueue].
	QueueOption interface {
		SubscribeOption
		applyQueue(*settings.Queue) error
	}
	// A WorkerOption configures the workers of [Queue.Subscribe] and
	// [Topic.Subscribe]: [WithConcurrency], [WithBatchSize], [WithRateLimit],
	// [WithAutoExtend], [WithHandlerTimeout], [WithHandlerInterceptor].
	WorkerOption interface {
		SubscribeOption
		applyWorker(*settings.Subscriber) error
	}
	// A SubscribeOption is what [Topic.Subscribe] takes: a QueueOption or a WorkerOption.
	SubscribeOption interface {
		applySubscribe(*settings.Queue, *settings.Subscriber) error
	}
	// A DeadLetterOption configures [NewDeadLetterQueue]: [WithDeadLetterCapacity],
	// [WithDeadLetterOverflow], [WithVisibilityTimeout], [WithHooks], [WithLogger],
	// [WithQueueInterceptor].
	DeadLetterOption interface {
		applyDeadLetters(*settings.Topic, *settings.Queue) error
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
	EngineOption interface {
		applyEngine(*settings.Topic) error
	}

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
	return queueOption(func(s *settings.Queue) error {
		return applyGroup("QueueOptions", options, func(o QueueOption) error { return o.applyQueue(s) })
	})
}

// WorkerOptions makes one option of several, to hand them on together, also beside those of
// a queue. They apply in their order. The slice is copied.
func WorkerOptions(options ...WorkerOption) WorkerOption {
	options = slices.Clone(options)
	return workerOption(func(s *settings.Subscriber) error {
		return applyGroup("WorkerOptions", options, func(o WorkerOption) error { return o.applyWorker(s) })
	})
}

// topicOptions are a group. Package fanouttest looks into it for its own options.
type topicOptions []TopicOption

func (o topicOptions) applyTopic(s *settings.Topic) error {
	return applyGroup("TopicOptions", o, func(o TopicOption) error { return o.applyTopic(s) })
}

// Options returns what is in the group.
func (o topicOptions) Options() []TopicOption { return slices.Clone(o) }

// receiveSettings are what a ReceiveOption sets.
type receiveSettings struct{ visibility time.Duration }

// redriveSettings are what a RedriveOption sets.
type redriveSettings struct {
	settings.Letters
	preds []any // each a func(Delivery[T]) bool
}

type (
	topicOption       func(*settings.Topic) error
	queueOption       func(*settings.Queue) error
	sharedTopicOption func(*settings.Topic) error
	deadLetterOption  func(*settings.Queue) error
	workerOption      func(*settings.Subscriber) error
	redriveOption     func(*redriveSettings) error
	engineOption      func(*settings.Topic) error
)

func (o topicOption) applyTopic(s *settings.Topic) error       { return o(s) }
func (o engineOption) applyEngine(s *settings.Topic) error     { return o(s) }
func (o sharedTopicOption) applyTopic(s *settings.Topic) error { return o(s) }
func (o sharedTopicOption) applyDeadLetters(s *settings.Topic, _ *settings.Queue) error {
	return o(s)
}
func (o deadLetterOption) applyQueue(s *settings.Queue) error { return o(s) }
func (o deadLetterOption) applySubscribe(q *settings.Queue, _ *settings.Subscriber) error {
	return o(q)
}
func (o deadLetterOption) applyDeadLetters(_ *settings.Topic, q *settings.Queue) error {
	return o(q)
}
func (o queueOption) applyQueue(s *settings.Queue) error { return o(s) }
func (o queueOption) applySubscribe(q *settings.Queue, _ *settings.Subscriber) error {
	return o(q)
}
func (o workerOption) applyWorker(s *settings.Subscriber) error { return o(s) }
func (o workerOption) applySubscribe(_ *settings.Queue, s *settings.Subscriber) error {
	return o(s)
}
func (o redriveOption) applyRedrive(s *redriveSettings) error { return o(s) }

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
	return sharedTopicOption(func(s *settings.Topic) error {
		s.Listen = append(s.Listen, h.listen)
		return nil
	})
}

// WithLogger sets where losses, dead letters, panics and stalls are reported, as warnings.
// The first of a kind is logged at once, and after that at most one line a second for each
// queue and kind, with a count and the details of the last. Bodies are never logged. The
// context of a line about a message has that message, see [MessageFromContext]. The default
// is slog.Default(). For no log at all give it a logger with slog.DiscardHandler.
func WithLogger(l *slog.Logger) TopicOrDeadLetterOption {
	return sharedTopicOption(func(s *settings.Topic) error {
		if l == nil {
			return invalid("WithLogger", nil, "a logger")
		}
		s.Logger = l
		return nil
	})
}

// WithOrdering lets messages have a [Message].OrderingKey.
func WithOrdering() TopicOption {
	return topicOption(func(s *settings.Topic) error {
		s.Ordering = true
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
	return topicOption(func(s *settings.Topic) error {
		if window <= 0 {
			return invalid("WithDeduplication", window, "a positive window")
		}
		if most < 1 {
			return invalid("WithDeduplication", most, "at least 1 ID")
		}
		s.DedupWindow, s.DedupMax = window, most
		return nil
	})
}

// WithRetention has the topic keep its last n messages for queues that are opened later with
// [WithReplay]. The default is none.
func WithRetention(n int) TopicOption {
	return topicOption(func(s *settings.Topic) error {
		if n < 1 || n == Unlimited {
			return invalid("WithRetention", n, "at least 1 and not Unlimited")
		}
		s.Retention = n
		return nil
	})
}

// WithConcurrency sets how many deliveries the subscriber handles at once. It is a hard
// bound on running handlers: a handler that runs on past its visibility timeout keeps its
// place. The default is 1.
func WithConcurrency(workers int) WorkerOption {
	return workerOption(func(s *settings.Subscriber) error {
		if workers < 1 {
			return invalid("WithConcurrency", workers, "at least 1")
		}
		s.Concurrency = workers
		return nil
	})
}

// WithBatchSize sets how many messages a [BatchHandler] gets at most. The default is 10, as
// in SQS. With a [Handler], which gets one message, it is [ErrInvalidOption].
func WithBatchSize(messages int) WorkerOption {
	return workerOption(func(s *settings.Subscriber) error {
		if messages < 1 {
			return invalid("WithBatchSize", messages, "at least 1")
		}
		s.Batch, s.BatchAsked = messages, true
		return nil
	})
}

// WithRateLimit bounds how many deliveries a second the subscriber starts, evenly spaced. A
// message that waits for that waits in its queue, where others can take it. The default is
// no limit.
func WithRateLimit(perSecond float64) WorkerOption {
	return workerOption(func(s *settings.Subscriber) error {
		every := float64(time.Second) / perSecond
		if !(perSecond > 0) || every < 1 || every > float64(24*365*time.Hour) {
			return invalid("WithRateLimit", perSecond, "a rate between one a year and one a nanosecond")
		}
		s.Every = time.Duration(every)
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
	return workerOption(func(s *settings.Subscriber) error {
		if longest <= 0 || longest > MaxAutoExtend {
			return invalid("WithAutoExtend", longest, fmt.Sprintf("a positive duration up to MaxAutoExtend, %v", MaxAutoExtend))
		}
		s.AutoExtend = longest
		return nil
	})
}

// WithHandlerTimeout cancels the context of a handler that runs longer than d, with a cause
// that wraps [context.DeadlineExceeded]. The delivery stays the handler's: when the handler
// returns, its result counts as always, unless the visibility timeout has passed. The
// default is none.
func WithHandlerTimeout(d time.Duration) WorkerOption {
	return workerOption(func(s *settings.Subscriber) error {
		if d <= 0 {
			return invalid("WithHandlerTimeout", d, "a positive duration")
		}
		s.HandlerTimeout = d
		return nil
	})
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

// A Codec turns bodies into bytes and back, for engines. In memory there is no codec: bodies
// are passed on as they are.
//
// Its methods are called concurrently. Decode gets a pointer to the topic's type. If Encode
// returns an error or panics, the publish fails. If Decode returns an error, the message
// goes to the dead-letter queue at once, which delivers it with the zero Body, see
// [Delivery.Encoded]. If Decode panics or calls [runtime.Goexit], that is a failed attempt
// at the message.
type Codec interface {
	Encode(body any) ([]byte, error)
	Decode(data []byte, body any) error
	// ContentType names the encoding, as in HTTP.
	ContentType() string
}

// JSON is the codec of engines unless [WithCodec] sets another: that of package
// encoding/json. On an engine NewTopic refuses a T with [ErrUnsupported] if JSON can't
// decode it: an interface with methods, a func, a chan or a complex number, as T itself or
// in an exported field at any depth, and a struct without exported fields. It accepts any,
// struct{}, and types that have JSON or text methods of their own. For an interface write a
// codec that says which type a value has.
var JSON Codec = settings.JSON{}

// WithCodec sets how bodies are encoded for an engine. The default is [JSON]. Without
// [WithEngine] nothing is encoded, and the codec is not used. A nil codec is
// [ErrInvalidOption].
func WithCodec(c Codec) TopicOption {
	return topicOption(func(s *settings.Topic) error {
		if c == nil {
			return invalid("WithCodec", nil, "a codec")
		}
		s.Codec = c
		return nil
	})
}

// WithEngine has an engine keep the topic's queues, and not the memory of the process: NATS
// JetStream, Amazon SNS + SQS, or one of your own, see package engine. Handlers, options,
// retries, histories and hooks stay the same, except that the errors in a history are their
// texts, see [Delivery.History].
//
// Two promises are not supported by every engine: that queues are bounded ([engine.Bounded])
// and that a publish is all or none ([engine.AllOrNone]). [Without] names those that you
// give up. If the engine does not support one and you have not named it, NewTopic fails with
// [ErrUnsupported], and the error shows the call to write. Any other option that the engine
// does not support is refused where it is given; the error names the engine and the option,
// and says what would work instead.
func WithEngine(e engine.Engine, options ...EngineOption) TopicOption {
	return topicOption(func(s *settings.Topic) error {
		if e == nil {
			return invalid("WithEngine", nil, "an engine")
		}
		s.Engine, s.Without = e, nil
		return applyAll(options, func(o EngineOption) error { return o.applyEngine(s) })
	})
}

// Without names the promises that the topic gives up because its engine does not support
// them: [engine.Bounded], [engine.AllOrNone] or both. Any other feature is
// [ErrInvalidOption]. If the engine supports a promise that is named here, it holds all the
// same. The default is none.
func Without(features ...engine.Feature) EngineOption {
	features = slices.Clone(features)
	return engineOption(func(s *settings.Topic) error {
		for _, f := range features {
			if _, ok := settings.Dispensable[f]; !ok {
				return invalid("Without", f, "engine.Bounded or engine.AllOrNone")
			}
		}
		s.Without = append(s.Without, features...)
		return nil
	})
}
