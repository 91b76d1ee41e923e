package fanout

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"reflect"
	"time"

	"github.com/gofanout/fanout/internal/policy"
)

// Options come in scopes, so that one in the wrong place does not compile:
// a [TopicOption] goes to NewTopic, a [QueueOption] to OpenQueue and
// Topic.Subscribe, a [SubscriberOption] to Queue.Subscribe and Topic.Subscribe,
// a [ReceiveOption] to Receive and its siblings, a [RedriveOption] to Redrive.
// None needs T to be spelled. Order doesn't matter; of two equal ones the last wins.
type (
	// A TopicOption configures [NewTopic]: [WithOrdering], [WithDeduplication],
	// [WithRetention], [WithHooks], [WithLogger], [WithPublishInterceptor],
	// [WithHandlerInterceptor].
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
	// A SubscriberOption configures [Queue.Subscribe] and the workers of
	// [Topic.Subscribe]: [WithConcurrency], [WithBatchSize], [WithRateLimit],
	// [WithAutoExtend], [WithHandlerTimeout], [WithHandlerInterceptor].
	SubscriberOption interface {
		SubscribeOption
		applySubscriber(*subscriberSettings) error
	}
	// A SubscribeOption is what [Topic.Subscribe] takes: a QueueOption or a SubscriberOption.
	SubscribeOption interface {
		applySubscribe(*queueSettings, *subscriberSettings) error
	}
	// A ReceiveOption configures [Queue.Receive], TryReceive, ReceiveBatch and
	// Deliveries: [WithVisibilityTimeout].
	ReceiveOption interface{ applyReceive(*receiveSettings) error }
	// A DeadLetterOption configures [NewDeadLetterQueue]: [WithDeadLetterCapacity],
	// [WithDeadLetterOverflow], [WithVisibilityTimeout], [WithHooks], [WithLogger].
	DeadLetterOption interface {
		applyDeadLetters(*topicSettings, *queueSettings) error
	}
	// A RedriveOption selects what [Queue.Redrive] moves: [RedriveIDs], [RedriveIf].
	RedriveOption interface{ applyRedrive(*redriveSettings) error }
)

// Settings are what options write to. They never mention T: what depends on T
// is held as an any and given its type back once, in OpenQueue or Redrive.
type (
	topicSettings struct {
		hooks       Hooks
		logger      *slog.Logger
		ordering    bool
		dedupWindow time.Duration
		dedupMax    int
		retention   int
		publishing  []Interceptor
		handling    []Interceptor
	}
	queueSettings struct {
		capacity     int
		overflow     Overflow
		visibility   time.Duration
		maxAttempts  int
		backoff      Backoff
		delay        time.Duration
		ttl          time.Duration
		replay       int
		filters      []any // each a func(T) bool, a func(Message[T]) bool or a func(*extra) bool
		deadLetters  any   // a *Queue[T], or nil
		deadCapacity int
		deadOverflow Overflow
	}
	subscriberSettings struct {
		concurrency    int
		batch          int           // most messages of a batch handler
		every          time.Duration // between two deliveries; 0: no limit
		autoExtend     time.Duration // 0: off
		handlerTimeout time.Duration // 0: none
		interceptors   []Interceptor
	}
	receiveSettings struct {
		visibility time.Duration
	}
	redriveSettings struct {
		ids   map[string]bool
		preds []any // each a func(Delivery[T]) bool
	}
)

func defaultQueueSettings() queueSettings {
	return queueSettings{
		capacity:     1024,
		overflow:     Block,
		visibility:   30 * time.Second,
		maxAttempts:  5,
		backoff:      Exponential(100*time.Millisecond, 30*time.Second),
		deadCapacity: 1024,
		deadOverflow: Block,
	}
}

type (
	topicOption       func(*topicSettings) error
	queueOption       func(*queueSettings) error
	sharedTopicOption func(*topicSettings) error
	deadLetterOption  func(*queueSettings) error
	subscriberOption  func(*subscriberSettings) error
	redriveOption     func(*redriveSettings) error
)

func (o topicOption) applyTopic(s *topicSettings) error       { return o(s) }
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
func (o subscriberOption) applySubscriber(s *subscriberSettings) error { return o(s) }
func (o subscriberOption) applySubscribe(_ *queueSettings, s *subscriberSettings) error {
	return o(s)
}
func (o redriveOption) applyRedrive(s *redriveSettings) error { return o(s) }

func invalid(option string, value any, want string) error {
	return fmt.Errorf("%w: %s(%v): want %s", ErrInvalidOption, option, value, want)
}

// applyAll gives each option to apply and refuses nil ones.
func applyAll[O any](options []O, apply func(O) error) error {
	for i, o := range options {
		if any(o) == nil {
			return fmt.Errorf("%w: option %d is nil", ErrInvalidOption, i)
		}
		if err := apply(o); err != nil {
			return err
		}
	}
	return nil
}

// WithHooks has the functions of h called as things happen, see [Hooks].
// h is copied. The default is none.
func WithHooks(h Hooks) interface {
	TopicOption
	DeadLetterOption
} {
	return sharedTopicOption(func(s *topicSettings) error {
		s.hooks = h
		return nil
	})
}

// WithLogger sets where losses and stalls are reported, at most one line a
// second for each queue and kind, with a count; bodies are never logged. The
// default is slog.Default(); for silence give it a logger with slog.DiscardHandler.
func WithLogger(l *slog.Logger) interface {
	TopicOption
	DeadLetterOption
} {
	return sharedTopicOption(func(s *topicSettings) error {
		if l == nil {
			return invalid("WithLogger", nil, "a logger")
		}
		s.logger = l
		return nil
	})
}

// WithCapacity bounds the messages that the queue holds unsettled: ready,
// delayed, retrying, parked and in flight together. Memory for them is taken
// as they come. The default is 1,024; [Unlimited] is none.
func WithCapacity(messages int) QueueOption {
	return queueOption(func(s *queueSettings) error {
		if messages < 1 {
			return invalid("WithCapacity", messages, "at least 1")
		}
		s.capacity = messages
		return nil
	})
}

// Overflow says what a publish does when a queue is full.
type Overflow uint8

const (
	// Block makes the publish wait for room, until its context ends. Publishes
	// wait in the order of their arrival. This is the default.
	Block Overflow = iota + 1
	// Reject makes the publish fail with [ErrQueueFull], for all queues.
	Reject
	// DropOldest drops what was published first among the queue's messages that
	// are neither in flight nor parked; if all are, it drops the new one.
	DropOldest
	// DropNewest drops the new message, for this queue only.
	DropNewest
)

func (o Overflow) String() string {
	switch o {
	case Block:
		return "Block"
	case Reject:
		return "Reject"
	case DropOldest:
		return "DropOldest"
	case DropNewest:
		return "DropNewest"
	}
	return fmt.Sprintf("Overflow(%d)", uint8(o))
}

func (o Overflow) drops() bool { return o == DropOldest || o == DropNewest }

// WithOverflow sets what a publish does when the queue is full. The default is [Block].
func WithOverflow(o Overflow) QueueOption {
	return queueOption(func(s *queueSettings) error {
		if o < Block || o > DropNewest {
			return invalid("WithOverflow", o, "Block, Reject, DropOldest or DropNewest")
		}
		s.overflow = o
		return nil
	})
}

// WithVisibilityTimeout sets how long a delivery hides its message from other
// consumers: when it passes unsettled, the message is ready again at once and
// an attempt is spent. Given to a queue it holds for all its deliveries; given
// to Receive, for those. For a handler it counts from the handler's start. The
// default is 30 seconds, as in SQS.
func WithVisibilityTimeout(d time.Duration) interface {
	QueueOption
	ReceiveOption
	DeadLetterOption
} {
	return visibilityTimeout(d)
}

type visibilityTimeout time.Duration

func (o visibilityTimeout) set(d *time.Duration) error {
	if o <= 0 {
		return invalid("WithVisibilityTimeout", time.Duration(o), "a positive duration")
	}
	*d = time.Duration(o)
	return nil
}
func (o visibilityTimeout) applyQueue(s *queueSettings) error { return o.set(&s.visibility) }
func (o visibilityTimeout) applySubscribe(q *queueSettings, _ *subscriberSettings) error {
	return o.set(&q.visibility)
}
func (o visibilityTimeout) applyDeadLetters(_ *topicSettings, q *queueSettings) error {
	return o.set(&q.visibility)
}
func (o visibilityTimeout) applyReceive(s *receiveSettings) error { return o.set(&s.visibility) }

// WithMaxAttempts sets after how many spent attempts a message is dead-lettered:
// exactly n, as with maxReceiveCount in SQS. The default is 5; [Unlimited] is never.
func WithMaxAttempts(n int) QueueOption {
	return queueOption(func(s *queueSettings) error {
		if n < 1 {
			return invalid("WithMaxAttempts", n, "at least 1")
		}
		s.maxAttempts = n
		return nil
	})
}

// WithBackoff sets how long a failed message waits before it is delivered
// again. The default is Exponential(100*time.Millisecond, 30*time.Second).
func WithBackoff(b Backoff) QueueOption {
	return queueOption(func(s *queueSettings) error {
		if b.err != nil {
			return fmt.Errorf("%w: WithBackoff: %w", ErrInvalidOption, b.err)
		}
		if b.wait == nil {
			return invalid("WithBackoff", "Backoff{}", "Constant, Exponential or BackoffFunc")
		}
		s.backoff = b
		return nil
	})
}

// A Backoff says how long to wait after a failed attempt. Make one by
// [Constant], [Exponential] or [BackoffFunc]. Whatever it says, a message waits
// at least a millisecond, so that none can spin.
type Backoff struct {
	wait func(attempt int) time.Duration
	err  error
}

// Constant waits d after each attempt, exactly. d must be positive.
func Constant(d time.Duration) Backoff {
	b := Backoff{wait: func(int) time.Duration { return d }}
	if d <= 0 {
		b.err = fmt.Errorf("Constant(%v): want a positive duration", d)
	}
	return b
}

// Exponential waits about first after the first attempt and twice as long
// after each further one, up to longest. With w for that time, the wait is
// uniform in [w/2, w], so that what failed together does not return together.
// Both must be positive and longest not below first.
func Exponential(first, longest time.Duration) Backoff {
	b := Backoff{wait: func(attempt int) time.Duration {
		w := longest
		if shift := max(attempt, 1) - 1; shift < 63 && first <= longest>>shift {
			w = first << shift
		}
		return w/2 + rand.N(w-w/2+1)
	}}
	switch {
	case first <= 0:
		b.err = fmt.Errorf("Exponential(%v, %v): want a positive first wait", first, longest)
	case longest < first:
		b.err = fmt.Errorf("Exponential(%v, %v): want a longest wait that is not below the first", first, longest)
	}
	return b
}

// BackoffFunc waits what f returns for the number of attempts spent, 1 or more.
// f is called without a lock, possibly concurrently, in the goroutine that
// settles; if it panics, the wait is the default backoff's.
func BackoffFunc(f func(attempt int) time.Duration) Backoff {
	if f == nil {
		return Backoff{err: fmt.Errorf("BackoffFunc(nil): want a function")}
	}
	return Backoff{wait: f}
}

// after is how long to wait after the given number of spent attempts.
func (b Backoff) after(attempt int) (d time.Duration) {
	defer func() {
		if recover() != nil {
			d = defaultQueueSettings().backoff.wait(attempt)
		}
		d = max(d, minWait)
	}()
	return b.wait(attempt)
}

// WithDelay hides each message in this queue for d after its publication, for
// messages that set no [Message].Delay of their own. The default is none.
func WithDelay(d time.Duration) QueueOption {
	return queueOption(func(s *queueSettings) error {
		if d < 0 {
			return invalid("WithDelay", d, "a duration that is not negative")
		}
		s.delay = d
		return nil
	})
}

// WithTimeToLive limits how long a message may wait in this queue for a
// delivery to start, for messages that set no [Message].TimeToLive of their own.
// One in flight may finish; if it fails after that, it dies as [Expired]. What
// has expired is dead-lettered when its turn comes. The default is none.
func WithTimeToLive(d time.Duration) QueueOption {
	return queueOption(func(s *queueSettings) error {
		if d <= 0 {
			return invalid("WithTimeToLive", d, "a positive duration")
		}
		s.ttl = d
		return nil
	})
}

// WithReplay begins the queue with the last n messages that were published
// before it and that its filter accepts, oldest first: at most what the topic
// retains, see [WithRetention], and at most the queue's capacity. What has
// expired is skipped. On a topic that retains nothing it is [ErrUnsupported].
func WithReplay(n int) QueueOption {
	return queueOption(func(s *queueSettings) error {
		if n < 1 {
			return invalid("WithReplay", n, "at least 1")
		}
		s.replay = n
		return nil
	})
}

// WithDeadLetterQueue has the queue's dead messages go to d, made by
// [NewDeadLetterQueue], which other queues can share. T must be the topic's,
// else OpenQueue fails.
func WithDeadLetterQueue[T any](d *Queue[T]) QueueOption {
	return queueOption(func(s *queueSettings) error {
		if d == nil || !d.letters || d.t != nil {
			return invalid("WithDeadLetterQueue", d.describe(), "a queue made by NewDeadLetterQueue")
		}
		s.deadLetters = d
		return nil
	})
}

func (q *Queue[T]) describe() string {
	if q == nil {
		return "nil"
	}
	return fmt.Sprintf("%q", q.name)
}

// WithOrdering lets messages have an [Message].OrderingKey.
func WithOrdering() TopicOption {
	return topicOption(func(s *topicSettings) error {
		s.ordering = true
		return nil
	})
}

// WithDeduplication lets messages have a [Message].DeduplicationID. The topic
// remembers each for window after it was published, after the message was
// acknowledged too, but not more than most of them: then it forgets the oldest,
// which [TopicStats].Forgotten counts. In SQS FIFO the window is 5 minutes.
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

// WithRetention has the topic keep its last n messages for queues that are
// opened later [WithReplay]. The default is none.
func WithRetention(n int) TopicOption {
	return topicOption(func(s *topicSettings) error {
		if n < 1 || n == Unlimited {
			return invalid("WithRetention", n, "at least 1 and not Unlimited")
		}
		s.retention = n
		return nil
	})
}

// WithMessageFilter is [WithFilter] for a predicate on the whole message: body,
// attributes, ordering key. Its ID is empty unless the publisher set one.
func WithMessageFilter[T any](keep func(m Message[T]) bool) QueueOption {
	return queueOption(func(s *queueSettings) error {
		if keep == nil {
			return invalid("WithMessageFilter", nil, "a function")
		}
		s.filters = append(s.filters, keep)
		return nil
	})
}

// WithFilterPolicy lets only those messages into the queue whose attributes
// match an SNS filter policy, in JSON:
//
//	{"region": ["eu", {"prefix": "us-"}], "cents": [{"numeric": [">=", 10000]}]}
//
// Keys must all match, of a list one condition is enough. It knows exact strings,
// numbers, true, false and null, anything-but, prefix, suffix,
// equals-ignore-case, numeric, exists, cidr, and $or, within SNS's limits: 5 keys,
// 150 combinations. Attributes are strings here: one that reads as a number also
// meets numeric conditions, and one that is a JSON array matches if one of its
// elements does. A bad policy is [ErrInvalidOption] that names the key and says
// what SNS would say.
func WithFilterPolicy(json string) QueueOption {
	return queueOption(func(s *queueSettings) error {
		p, err := policy.Parse(json)
		if err != nil {
			return fmt.Errorf("%w: WithFilterPolicy: %w", ErrInvalidOption, err)
		}
		s.filters = append(s.filters, func(x *extra) bool {
			if x == nil {
				return p.Match(nil)
			}
			return p.Match(x.attributes)
		})
		return nil
	})
}

// WithFilter lets only those messages into the queue whose body keep accepts;
// with several filters, those that all accept. T is taken from keep and must be
// the topic's, else OpenQueue fails.
//
// keep runs once for each message, in the publisher, before any lock is taken.
// A queue that doesn't accept a message never delays or refuses it. If keep
// panics, the publish fails with an error that names the queue.
func WithFilter[T any](keep func(body T) bool) QueueOption {
	return queueOption(func(s *queueSettings) error {
		if keep == nil {
			return invalid("WithFilter", nil, "a function")
		}
		s.filters = append(s.filters, keep)
		return nil
	})
}

// WithDeadLetterCapacity bounds the queue's dead-letter queue. When that is
// full, dead messages are parked in their own queue, see [Queue.DeadLetters].
// The default is 1,024; [Unlimited] is none.
func WithDeadLetterCapacity(messages int) interface {
	QueueOption
	DeadLetterOption
} {
	return deadLetterOption(func(s *queueSettings) error {
		if messages < 1 {
			return invalid("WithDeadLetterCapacity", messages, "at least 1")
		}
		s.deadCapacity = messages
		return nil
	})
}

// WithDeadLetterOverflow sets what happens to a dead message when the
// dead-letter queue is full. Block, the default, parks it in its own queue;
// [DropOldest] drops the oldest dead letter.
func WithDeadLetterOverflow(o Overflow) interface {
	QueueOption
	DeadLetterOption
} {
	return deadLetterOption(func(s *queueSettings) error {
		if o != Block && o != DropOldest {
			return invalid("WithDeadLetterOverflow", o, "Block or DropOldest")
		}
		s.deadOverflow = o
		return nil
	})
}

// WithConcurrency sets how many deliveries the subscriber handles at once. It is
// a hard bound on running handlers: one that is stuck past its visibility
// timeout keeps its place. The default is 1.
func WithConcurrency(workers int) SubscriberOption {
	return subscriberOption(func(s *subscriberSettings) error {
		if workers < 1 {
			return invalid("WithConcurrency", workers, "at least 1")
		}
		s.concurrency = workers
		return nil
	})
}

// WithBatchSize sets how many messages a [BatchHandler] gets at most. The
// default is 10, as in SQS. Other handlers get one.
func WithBatchSize(messages int) SubscriberOption {
	return subscriberOption(func(s *subscriberSettings) error {
		if messages < 1 {
			return invalid("WithBatchSize", messages, "at least 1")
		}
		s.batch = messages
		return nil
	})
}

// WithRateLimit bounds how many deliveries a second the subscriber starts,
// evenly spaced. A message waits in its queue meanwhile, for anybody. The
// default is no limit.
func WithRateLimit(perSecond float64) SubscriberOption {
	return subscriberOption(func(s *subscriberSettings) error {
		every := float64(time.Second) / perSecond
		if !(perSecond > 0) || every < 1 || every > float64(24*365*time.Hour) {
			return invalid("WithRateLimit", perSecond, "a rate between one a year and one a nanosecond")
		}
		s.every = time.Duration(every)
		return nil
	})
}

// MaxAutoExtend is as long as SQS lets a message be in flight. It is what
// [WithAutoExtend] is usually given.
const MaxAutoExtend = 12 * time.Hour

// WithAutoExtend extends the visibility timeout for as long as the handler
// runs, up to longest after its start: then a long handler needs no long
// timeout. In memory nothing can happen to the handler but its end, so this
// makes the timeout longest; on an engine it renews the lease. The default is off.
func WithAutoExtend(longest time.Duration) SubscriberOption {
	return subscriberOption(func(s *subscriberSettings) error {
		if longest <= 0 {
			return invalid("WithAutoExtend", longest, "a positive duration")
		}
		s.autoExtend = longest
		return nil
	})
}

// WithHandlerTimeout cancels the context of a handler that runs longer than d,
// with a cause that wraps context.DeadlineExceeded. The delivery goes on until
// the handler returns, whose error then counts as any, or until the visibility
// timeout passes, which is another thing. The default is none.
func WithHandlerTimeout(d time.Duration) SubscriberOption {
	return subscriberOption(func(s *subscriberSettings) error {
		if d <= 0 {
			return invalid("WithHandlerTimeout", d, "a positive duration")
		}
		s.handlerTimeout = d
		return nil
	})
}

func defaultSubscriberSettings() subscriberSettings {
	return subscriberSettings{concurrency: 1, batch: 10}
}

// RedriveIDs selects dead letters by the IDs of their messages.
func RedriveIDs(ids ...string) RedriveOption {
	return redriveOption(func(s *redriveSettings) error {
		if s.ids == nil {
			s.ids = make(map[string]bool, len(ids))
		}
		for _, id := range ids {
			s.ids[id] = true
		}
		return nil
	})
}

// RedriveIf selects the dead letters that keep accepts; several options select
// what all of them accept. The delivery given to keep can be read, its history
// included, but not settled. keep runs without a lock; a panic in it makes
// Redrive fail before anything has moved.
func RedriveIf[T any](keep func(d Delivery[T]) bool) RedriveOption {
	return redriveOption(func(s *redriveSettings) error {
		if keep == nil {
			return invalid("RedriveIf", nil, "a function")
		}
		s.preds = append(s.preds, keep)
		return nil
	})
}

// filtersOf gives filters their type back.
func filtersOf[T any](held []any) (fs []func(*item[T]) bool, err error) {
	for _, h := range held {
		switch keep := h.(type) {
		case func(T) bool:
			fs = append(fs, func(it *item[T]) bool { return keep(it.body) })
		case func(Message[T]) bool:
			fs = append(fs, func(it *item[T]) bool {
				m := Message[T]{Body: it.body}
				if it.ext != nil {
					m.ID = it.ext.id
					it.fill(&m)
				}
				return keep(m)
			})
		case func(*extra) bool:
			fs = append(fs, func(it *item[T]) bool { return keep(it.ext) })
		default:
			return nil, fmt.Errorf("%w: WithFilter was given a %T, but the topic carries %v", ErrInvalidOption, h, reflect.TypeFor[T]())
		}
	}
	return fs, nil
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
