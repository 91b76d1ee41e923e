package fanout

import (
	"fmt"
	"time"
)

// WithCapacity bounds the messages that the queue holds unsettled: ready,
// delayed, retrying, parked and in flight together. Memory for them is taken
// as they come. The default is 1,024; [Unlimited] is none. An engine that keeps no
// [engine.Bounded] bounds nothing: there only Unlimited is taken, and any other capacity is
// [ErrUnsupported].
func WithCapacity(messages int) QueueOption {
	return queueOption(func(s *queueSettings) error {
		if messages < 1 {
			return invalid("WithCapacity", messages, "at least 1")
		}
		s.capacity, s.asked.capacity = messages, true
		return nil
	})
}

// Overflow says what a publish does when a queue is full, though what has expired has
// made room, see [WithTimeToLive].
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

// WithOverflow sets what a publish does when the queue is full. The default is [Block]. No
// engine drops, and on one that keeps no [engine.Bounded] no queue is full: Block is taken
// there beside WithCapacity([Unlimited]) only, and all else is [ErrUnsupported].
func WithOverflow(o Overflow) QueueOption {
	return queueOption(func(s *queueSettings) error {
		if o < Block || o > DropNewest {
			return invalid("WithOverflow", o, "Block, Reject, DropOldest or DropNewest")
		}
		s.overflow, s.asked.overflow = o, true
		return nil
	})
}

// WithVisibilityTimeout sets how long a delivery hides its message from other
// consumers: when it passes unsettled, the message is ready again at once and
// an attempt is spent. Given to a queue it holds for all its deliveries; given
// to Receive, for those. For a handler it counts from the handler's start, and
// may come up to a millisecond late, never early. The default is 30 seconds, as
// in SQS.
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
func (o visibilityTimeout) applyQueue(s *queueSettings) error {
	s.asked.visibility = true
	return o.set(&s.visibility)
}
func (o visibilityTimeout) applySubscribe(q *queueSettings, _ *subscriberSettings) error {
	return o.applyQueue(q)
}
func (o visibilityTimeout) applyDeadLetters(_ *topicSettings, q *queueSettings) error {
	return o.set(&q.visibility)
}
func (o visibilityTimeout) applyReceive(s *receiveSettings) error { return o.set(&s.visibility) }

// WithMaxAttempts sets after how many spent attempts a message is dead-lettered:
// exactly n, as with maxReceiveCount in SQS. Snoozes and releases spend none. The
// default is 5; [Unlimited] is never.
func WithMaxAttempts(n int) QueueOption {
	return queueOption(func(s *queueSettings) error {
		if n < 1 {
			return invalid("WithMaxAttempts", n, "at least 1")
		}
		s.maxAttempts = n
		return nil
	})
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
// has expired is dead-lettered when its turn comes, and before that if somebody wants
// room in the full queue: at the instant it expires if a publish or a redrive
// waits, and before a publish is refused or a message is dropped. That is so even if
// the publish then fails. If the dead-letter queue is full, what has expired
// is parked and makes no room. The default is none.
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
// [NewDeadLetterQueue], which other queues can share. T must be the topic's, and
// d's capacity and overflow are its own, else OpenQueue fails.
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

// WithDeadLetterCapacity bounds the queue's dead-letter queue. When that is
// full, dead messages are parked in their own queue, see [Queue.DeadLetters].
// The default is 1,024; [Unlimited] is none. Engines take what they take of [WithCapacity].
func WithDeadLetterCapacity(messages int) QueueOrDeadLetterOption {
	return deadLetterOption(func(s *queueSettings) error {
		if messages < 1 {
			return invalid("WithDeadLetterCapacity", messages, "at least 1")
		}
		s.deadCapacity, s.asked.deadCapacity = messages, true
		s.asked.lettersOwn = fmt.Sprintf("WithDeadLetterCapacity(%v)", limit(messages))
		return nil
	})
}

// WithDeadLetterOverflow sets what happens to a dead message when the
// dead-letter queue is full. Block, the default, parks it in its own queue;
// [DropOldest] drops the oldest dead letter.
func WithDeadLetterOverflow(o Overflow) QueueOrDeadLetterOption {
	return deadLetterOption(func(s *queueSettings) error {
		if o != Block && o != DropOldest {
			return invalid("WithDeadLetterOverflow", o, "Block or DropOldest")
		}
		s.deadOverflow = o
		s.asked.lettersOwn = fmt.Sprintf("WithDeadLetterOverflow(%v)", o)
		return nil
	})
}
