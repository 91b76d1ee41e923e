package fanout

import (
	"fmt"
	"reflect"
	"time"

	"github.com/gofanout/fanout/internal/filter"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/policy"
	"github.com/gofanout/fanout/internal/settings"
)

// WithCapacity bounds the messages that the queue holds unsettled: ready, delayed, retrying,
// parked and in flight together. Memory for them is allocated as they come. The default is
// 1,024; [Unlimited] is no bound. On an engine that does not support [engine.Bounded] only
// Unlimited is allowed, and any other capacity is [ErrUnsupported].
func WithCapacity(messages int) QueueOption {
	return queueOption(func(s *settings.Queue) error {
		if messages < 1 {
			return invalid("WithCapacity", messages, "at least 1")
		}
		s.Capacity, s.Asked.Capacity = messages, true
		return nil
	})
}

// Overflow says what a publish does when a queue is full. Expired messages make room first,
// see [WithTimeToLive].
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

// String returns the policy's name, such as "DropOldest".
func (o Overflow) String() string { return settings.Overflow(o).String() }

// MarshalText returns the policy's name as in the source code, such as "DropOldest". A
// number that is not a policy, 0 included, is [ErrInvalidOption].
func (o Overflow) MarshalText() ([]byte, error) {
	return namedText(o, Block, DropNewest, Overflow.String)
}

// UnmarshalText reads what MarshalText writes, so that an Overflow can stand in a
// configuration, or be a flag by [flag.TextVar]. Any other text is [ErrInvalidOption],
// naming the text.
func (o *Overflow) UnmarshalText(text []byte) (err error) {
	read, err := fromName(text, Block, DropNewest, Overflow.String)
	if err == nil {
		*o = read
	}
	return err
}

// WithOverflow sets what a publish does when the queue is full. The default is [Block]. No
// engine drops messages. On an engine that does not support [engine.Bounded] no queue is
// ever full: there only Block is allowed, together with WithCapacity([Unlimited]), and
// anything else is [ErrUnsupported].
func WithOverflow(o Overflow) QueueOption {
	return queueOption(func(s *settings.Queue) error {
		if o < Block || o > DropNewest {
			return invalid("WithOverflow", o, "Block, Reject, DropOldest or DropNewest")
		}
		s.Overflow, s.Asked.Overflow = settings.Overflow(o), true
		return nil
	})
}

// WithVisibilityTimeout sets how long a delivery hides its message from other consumers. If
// the delivery is not settled by then, an attempt is spent, and the message is ready again
// at once. Given to a queue it applies to all its deliveries; given to Receive, to the
// deliveries of that call. For a handler it counts from the handler's start and may come up
// to a millisecond late, never early. The default is 30 seconds, as in SQS.
func WithVisibilityTimeout(d time.Duration) ReceiveOption {
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
func (o visibilityTimeout) applyQueue(s *settings.Queue) error {
	s.Asked.Visibility = true
	return o.set(&s.Visibility)
}
func (o visibilityTimeout) applySubscribe(q *settings.Queue, _ *settings.Subscriber) error {
	return o.applyQueue(q)
}
func (o visibilityTimeout) applyDeadLetters(_ *settings.Topic, q *settings.Queue) error {
	return o.set(&q.Visibility)
}
func (o visibilityTimeout) applyReceive(s *receiveSettings) error { return o.set(&s.visibility) }

// WithMaxAttempts sets after how many spent attempts a message is dead-lettered: exactly n,
// as with maxReceiveCount in SQS. Snoozes and releases spend none. The default is 5; with
// [Unlimited] messages are retried for ever.
func WithMaxAttempts(n int) QueueOption {
	return queueOption(func(s *settings.Queue) error {
		if n < 1 {
			return invalid("WithMaxAttempts", n, "at least 1")
		}
		s.MaxAttempts = n
		return nil
	})
}

// WithDelay hides each message in this queue for d after its publication, for
// messages that set no [Message].Delay of their own. The default is none.
func WithDelay(d time.Duration) QueueOption {
	return queueOption(func(s *settings.Queue) error {
		if d < 0 {
			return invalid("WithDelay", d, "a duration that is not negative")
		}
		s.Delay = d
		return nil
	})
}

// WithTimeToLive limits how long a message may wait in this queue for a delivery to start.
// It applies to messages that set no [Message].TimeToLive of their own. A delivery that
// started in time may finish; if it fails after the time, the message is dead-lettered as
// [Expired]. The default is none.
//
// An expired message is dead-lettered when its turn comes. In a full queue it is
// dead-lettered earlier, to make room: at the instant it expires if a publish or a redrive
// waits, and otherwise before a publish is refused or a message is dropped, even if the
// publish then fails. If the dead-letter queue is full, the expired message is parked and
// makes no room.
func WithTimeToLive(d time.Duration) QueueOption {
	return queueOption(func(s *settings.Queue) error {
		if d <= 0 {
			return invalid("WithTimeToLive", d, "a positive duration")
		}
		s.TTL = d
		return nil
	})
}

// WithReplay begins the queue with messages that were published before it was opened: the
// last n that its filter accepts, oldest first, but no more than the topic retains
// ([WithRetention]) and than the queue's capacity. Expired messages are left out. On a topic
// that retains nothing it is [ErrUnsupported].
func WithReplay(n int) QueueOption {
	return queueOption(func(s *settings.Queue) error {
		if n < 1 {
			return invalid("WithReplay", n, "at least 1")
		}
		s.Replay = n
		return nil
	})
}

// WithDeadLetterQueue sends the queue's dead messages to d, which [NewDeadLetterQueue] made
// and other queues can share. OpenQueue fails if d is for another T, and if
// [WithDeadLetterCapacity] or [WithDeadLetterOverflow] is given too: give these to
// NewDeadLetterQueue.
func WithDeadLetterQueue[T any](d *Queue[T]) QueueOption {
	return queueOption(func(s *settings.Queue) error {
		if d == nil || !d.core.IsShared() {
			return invalid("WithDeadLetterQueue", d.describe(), "a queue made by NewDeadLetterQueue")
		}
		s.DeadLetters = d
		return nil
	})
}

func (q *Queue[T]) describe() string {
	if q == nil {
		return "nil"
	}
	return fmt.Sprintf("%q", q.Name())
}

// WithDeadLetterCapacity bounds the queue's dead-letter queue. When that is full, dead
// messages are parked in their own queue, see [Queue.DeadLetters]. The default is 1,024;
// [Unlimited] is no bound. On engines the same values are allowed as for [WithCapacity].
func WithDeadLetterCapacity(messages int) QueueOrDeadLetterOption {
	return deadLetterOption(func(s *settings.Queue) error {
		if messages < 1 {
			return invalid("WithDeadLetterCapacity", messages, "at least 1")
		}
		s.DeadCapacity, s.Asked.DeadCapacity = messages, true
		s.Asked.LettersOwn = fmt.Sprintf("WithDeadLetterCapacity(%v)", message.Limit(messages))
		return nil
	})
}

// WithDeadLetterOverflow sets what happens to a dead message when the
// dead-letter queue is full. Block, the default, parks it in its own queue;
// [DropOldest] drops the oldest dead letter.
func WithDeadLetterOverflow(o Overflow) QueueOrDeadLetterOption {
	return deadLetterOption(func(s *settings.Queue) error {
		if o != Block && o != DropOldest {
			return invalid("WithDeadLetterOverflow", o, "Block or DropOldest")
		}
		s.DeadOverflow = settings.Overflow(o)
		s.Asked.LettersOwn = fmt.Sprintf("WithDeadLetterOverflow(%v)", o)
		return nil
	})
}

// WithBackoff sets how long a failed message waits before it is delivered
// again. The default is Exponential(100*time.Millisecond, 30*time.Second).
func WithBackoff(b Backoff) QueueOption {
	return queueOption(func(s *settings.Queue) error {
		if b.rule == nil {
			return invalid("WithBackoff", "Backoff{}", "Constant, Exponential or BackoffFunc")
		}
		if err := b.rule.Err(); err != nil {
			return fmt.Errorf("%w: WithBackoff: %w", ErrInvalidOption, err)
		}
		s.Backoff = b.rule
		return nil
	})
}

// A Backoff says how long to wait after a failed attempt. [Constant], [Exponential] and
// [BackoffFunc] make one. A message always waits at least a millisecond, so that none is
// retried in a tight loop.
type Backoff struct{ rule *settings.Backoff }

// String is the call that made b, as "Exponential(100ms, 30s)".
func (b Backoff) String() string {
	if b.rule == nil {
		return "Backoff{}"
	}
	return b.rule.String()
}

// Constant waits d after each attempt, exactly. d must be positive.
func Constant(d time.Duration) Backoff { return Backoff{settings.Constant(d)} }

// Exponential waits about first after the first attempt and twice as long
// after each further one, up to longest. With w for that time, the wait is
// uniform in [w/2, w], so that what failed together does not return together.
// Both must be positive and longest not below first.
func Exponential(first, longest time.Duration) Backoff {
	return Backoff{settings.Exponential(first, longest)}
}

// BackoffFunc waits for the time that f returns for the number of attempts spent, 1 or more.
// f is called without a lock, possibly concurrently, in a goroutine of its own, and the
// settlement waits for it. If f panics or calls [runtime.Goexit], that is logged and the
// default backoff is used.
func BackoffFunc(f func(attempt int) time.Duration) Backoff { return Backoff{settings.BackoffFunc(f)} }

// WithMessageFilter is [WithFilter] for a function of the whole message, with its attributes
// and ordering key. The ID is empty unless the publisher set one. keep must not change the
// attributes: all filters and the queues share them.
func WithMessageFilter[T any](keep func(m Message[T]) bool) QueueOption {
	return queueOption(func(s *settings.Queue) error {
		if keep == nil {
			return invalid("WithMessageFilter", nil, "a function")
		}
		s.Filters = append(s.Filters, messageFilter{keep})
		return nil
	})
}

// A messageFilter is a func(Message[T]) bool, told from one that is given to
// [WithFilter].
type messageFilter struct{ keep any }

// WithFilterPolicy lets only those messages into the queue whose attributes match an SNS
// filter policy, in JSON:
//
//	{"region": ["eu", {"prefix": "us-"}], "cents": [{"numeric": [">=", 10000]}]}
//
// All keys must match, and of the list of a key one condition must. The conditions are exact
// strings, numbers, true, false and null, anything-but, prefix, suffix, equals-ignore-case,
// numeric, exists, cidr, and $or, within SNS's limits of 5 keys and 150 combinations.
// Attributes are strings here. An attribute that reads as a number also matches numeric
// conditions, and one that is a JSON array matches if one of its elements does. A bad policy
// is [ErrInvalidOption], which names the key and says what SNS would say.
func WithFilterPolicy(json string) QueueOption {
	return queueOption(func(s *settings.Queue) error {
		p, err := policy.Parse(json)
		if err != nil {
			return fmt.Errorf("%w: WithFilterPolicy: %w", ErrInvalidOption, err)
		}
		s.Policies = append(s.Policies, json)
		s.Filters = append(s.Filters, p)
		return nil
	})
}

// WithFilter lets only those messages into the queue whose body keep accepts. With several
// filters all must accept it. keep decides what T is; if that is not the topic's T,
// OpenQueue fails.
//
// keep is called once for each message, in the publisher, before any lock is taken. It must
// not change what the body points to, which the queues share. A queue that doesn't accept a
// message never delays or refuses it. If keep panics, the publish fails with an error that
// names the queue.
func WithFilter[T any](keep func(body T) bool) QueueOption {
	return queueOption(func(s *settings.Queue) error {
		if keep == nil {
			return invalid("WithFilter", nil, "a function")
		}
		s.Filters = append(s.Filters, keep)
		return nil
	})
}

// filtersOf gives filters their type back.
func filtersOf[T any](held []any) (fs []filter.Filter[T], err error) {
	for _, h := range held {
		f := filter.Filter[T]{}
		switch h := h.(type) {
		case func(T) bool:
			f.Body = h
		case messageFilter:
			keep, err := typed[func(Message[T]) bool]("WithMessageFilter", []any{h.keep}, reflect.TypeFor[T]())
			if err != nil {
				return nil, err
			}
			f.Message = func(m *message.Published[T]) bool { return keep[0](Message[T](*m)) }
		case *policy.Policy:
			f.Policy = h
		default:
			return nil, fmt.Errorf("%w: WithFilter was given a %T, but the topic carries %v", ErrInvalidOption, h, reflect.TypeFor[T]())
		}
		fs = append(fs, f)
	}
	return fs, nil
}

// RedriveIDs selects dead letters by the IDs of their messages. Several such options add up.
// No ID at all selects nothing. Beside [RedriveIf] a letter must meet both.
//
// If no dead letter of the queue has one of the IDs, Redrive returns [ErrUnknownID], which
// names it, and moves the others. A letter that a consumer of the dead-letter queue has
// received counts as missing. If Redrive fails on an engine before it has seen all letters,
// it calls no ID unknown.
func RedriveIDs(ids ...string) RedriveOption {
	return redriveOption(func(s *redriveSettings) error {
		if s.IDs == nil {
			s.IDs = make(map[string]bool, len(ids))
		}
		for _, id := range ids {
			s.IDs[id] = false
		}
		return nil
	})
}

// RedriveUntil selects the dead letters that had died by newest: those that somebody has
// looked at, and none that died later, not even the same message again. A letter dies when
// the attempt ends that makes it dead. A letter without a history is not selected. Of
// several such options the last counts. The zero Time is [ErrInvalidOption].
func RedriveUntil(newest time.Time) RedriveOption {
	return redriveOption(func(s *redriveSettings) error {
		if newest.IsZero() {
			return invalid("RedriveUntil", newest, "a time that is not zero")
		}
		s.Until = newest
		return nil
	})
}

// RedriveIf selects the dead letters that keep accepts. With several such options all must
// accept a letter. The delivery given to keep can be read, its history included, but not
// settled. On an engine the errors in a history are texts, in which errors.Is and errors.As
// find nothing: look at the Cause or the text. keep is called without a lock. If it panics,
// Redrive fails before anything has moved.
func RedriveIf[T any](keep func(d Delivery[T]) bool) RedriveOption {
	return redriveOption(func(s *redriveSettings) error {
		if keep == nil {
			return invalid("RedriveIf", nil, "a function")
		}
		s.preds = append(s.preds, keep)
		return nil
	})
}
