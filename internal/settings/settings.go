// Package settings has what options set: the settings of topics, queues and subscribers, and
// backoffs. Package fanout checks them, and nothing changes them after that. It has no lock,
// clock or goroutine, but for the goroutine in which a BackoffFunc is called.
package settings

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/internal/intercept"
	"github.com/gofanout/fanout/internal/notice"
)

// Settings are what options set. Package fanout has checked them.
type (
	// Topic are those of a topic, or of a dead-letter queue that belongs to none.
	Topic struct {
		Listen      []func(*notice.Listeners) // has hooks listen
		Logger      *slog.Logger
		Ordering    bool
		DedupWindow time.Duration
		DedupMax    int
		Retention   int
		Engine      engine.Engine
		Without     []engine.Feature
		Codec       Codec
		Publishing  []intercept.Interceptor
		Handling    []intercept.Interceptor
		Calls       []intercept.Interceptor

		// Partial makes the error for a batch of which an engine published a part.
		Partial func(topic string, failed map[int]error, err error) error
	}
	// Queue are those of a queue.
	Queue struct {
		Limits
		Policies []string // filter policies of SNS

		// Filters and DeadLetters are held without their T for package fanout, which
		// gives it back.
		Filters     []any
		DeadLetters any
		Asked       Asked
	}
	// Limits are the settings that a queue goes on asking for. They are
	// never changed, so that queues with equal ones share them.
	Limits struct {
		Capacity     int
		Overflow     Overflow
		Visibility   time.Duration
		MaxAttempts  int
		Backoff      *Backoff
		Delay        time.Duration
		TTL          time.Duration
		Replay       int
		DeadCapacity int
		DeadOverflow Overflow
	}
	// Asked says what a user set that can't be ignored silently: by an engine, or
	// by a queue whose dead-letter queue is shared (LettersOwn is the option).
	Asked struct {
		Capacity, Overflow, Visibility, DeadCapacity bool
		LettersOwn                                   string
	}
	// Subscriber are those of a subscriber.
	Subscriber struct {
		SubscriberLimits
		Interceptors []intercept.Interceptor
		BatchAsked   bool // WithBatchSize was given
	}
	// SubscriberLimits are those that a subscriber goes on asking for, never changed.
	SubscriberLimits struct {
		Concurrency    int
		Batch          int           // most messages of a batch handler
		Every          time.Duration // between two deliveries; 0: no limit
		AutoExtend     time.Duration // 0: off
		HandlerTimeout time.Duration // 0: none
	}
	// Letters say which dead letters are meant.
	Letters struct {
		IDs   map[string]bool // by ID asked for, whether a letter has it; nil asks for all
		Until time.Time       // zero: any
	}
)

// DefaultQueue returns the settings of a queue for which nothing was set.
func DefaultQueue() Queue {
	return Queue{Limits: Limits{
		Capacity:     1024,
		Overflow:     Block,
		Visibility:   30 * time.Second,
		MaxAttempts:  5,
		Backoff:      defaultBackoff,
		DeadCapacity: 1024,
		DeadOverflow: Block,
	}}
}

var defaultBackoff = Exponential(100*time.Millisecond, 30*time.Second)

// DefaultSubscriber returns the settings of a subscriber for which nothing was set.
func DefaultSubscriber() Subscriber {
	return Subscriber{SubscriberLimits: defaultSubscriber}
}

var defaultSubscriber = SubscriberLimits{Concurrency: 1, Batch: 10}

// Shared returns the limits, which are most often everybody's.
func (l SubscriberLimits) Shared() *SubscriberLimits {
	if l == defaultSubscriber {
		return &defaultSubscriber
	}
	return &l
}

// RateLimit is the deliveries a second of a subscriber that is limited to one in every; 0 for
// no limit.
func (l *SubscriberLimits) RateLimit() float64 {
	if l.Every <= 0 {
		return 0
	}
	return float64(time.Second) / float64(l.Every)
}

// Overflow says what a publish does when a queue is full.
type Overflow uint8

const (
	Block Overflow = iota + 1
	Reject
	DropOldest
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

func (o Overflow) Drops() bool { return o == DropOldest || o == DropNewest }
