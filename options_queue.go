package fanout

import (
	"fmt"
	"time"
)

// WithCapacity bounds the messages that the queue holds unsettled: ready, delayed, retrying,
// parked and in flight together. Memory for them is allocated as they come. The default is
// 1,024; [Unlimited] is no bound. On an engine that does not support [engine.Bounded] only
// Unlimited is allowed, and any other capacity is [ErrUnsupported].
func WithCapacity(messages int) QueueOption {
	return queueOption(func(s *queueSettings) error {
		if messages < 1 {
			return invalid("WithCapacity", messages, "at least 1")
		}
		s.capacity, s.asked.capacity = messages, true
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
// engine drops messages. On an engine that does not support [engine.Bounded] no queue is
// ever full: there only Block is allowed, together with WithCapacity([Unlimited]), and
// anything else is [ErrUnsupported].
func WithOverflow(o Overflow) QueueOption {
	return queueOption(func(s *queueSettings) error {
		if o < Block || o > DropNewest {
			return invalid("WithOverflow", o, "Block, Reject, DropOldest or DropNewest")
		}
		s.overflow, s.asked.overflow = o, true
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

// WithMaxAttempts sets after how many spent attempts a message is dead-lettered: exactly n,
// as with maxReceiveCount in SQS. Snoozes and releases spend none. The default is 5; with
// [Unlimited] messages are retried for ever.
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
	return queueOption(func(s *queueSettings) error {
		if d <= 0 {
			return invalid("WithTimeToLive", d, "a positive duration")
		}
		s.ttl = d
		return nil
	})
}

// WithReplay begins the queue with messages that were published before it was opened: the
// last n that its filter accepts, oldest first, but no more than the topic retains
// ([WithRetention]) and than the queue's capacity. Expired messages are left out. On a topic
// that retains nothing it is [ErrUnsupported].
func WithReplay(n int) QueueOption {
	return queueOption(func(s *queueSettings) error {
		if n < 1 {
			return invalid("WithReplay", n, "at least 1")
		}
		s.replay = n
		return nil
	})
}

// WithDeadLetterQueue sends the queue's dead messages to d, which [NewDeadLetterQueue] made
// and other queues can share. OpenQueue fails if d is for another T, and if
// [WithDeadLetterCapacity] or [WithDeadLetterOverflow] is given too: give these to
// NewDeadLetterQueue.
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

// WithDeadLetterCapacity bounds the queue's dead-letter queue. When that is full, dead
// messages are parked in their own queue, see [Queue.DeadLetters]. The default is 1,024;
// [Unlimited] is no bound. On engines the same values are allowed as for [WithCapacity].
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
