// Package notice tells what has happened in queues to hooks and to the log. A queue adds
// events to its Pending while it is locked, and performs that once no lock is held. Events
// go through the queue's Reporter, which keeps the log to a line a second for each kind,
// to the topic's Listeners.
//
// A Pending has no lock: it belongs to whoever holds the lock of the queue that it is of,
// and then to whoever has taken it. Listeners do not change once the topic has been made,
// except by Tap. A Reporter's mutex is a leaf, held for a few stores. Its one timer is counted in Alive
// while it is armed, and Stop ends it. Hooks and loggers are called without a lock, and may
// panic, block or end the goroutine: what remains to be told is told then.
package notice

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/gofanout/fanout/internal/message"
)

// A Kind is a kind of event. Each is told to the hook of its number, and some are logged.
type Kind uint8

// The kinds.
const (
	Published Kind = iota
	Delivered
	Settled
	DeadLettered
	Parked
	Redriven
	Dropped
	Stuck
	StuckStack
	Stalled
	EngineFailed
	Late
	LateCancelled // late, because the handler heard that it was: hooked, not logged
	Panicked      // settled by a panic: logged; the hook is that of Settled
	Exited        // the same for runtime.Goexit
	Kinds
)

// lines are the kinds that are logged as well as hooked, with their lines.
var lines = [Kinds]string{
	DeadLettered: "fanout: messages went to the dead-letter queue",
	Panicked:     "fanout: attempts ended in a panic",
	Exited:       "fanout: attempts ended in runtime.Goexit",
	Parked:       "fanout: the dead-letter queue did not take messages, they are parked",
	Dropped:      "fanout: messages dropped",
	Stuck:        "fanout: handler is still running after its visibility timeout",
	Stalled:      "fanout: a publish waits for room in a queue",
	EngineFailed: "fanout: the engine failed",
	Late:         "fanout: handler failed after its delivery had been settled or lost",
}

// Line is the log's line for events of the kind, empty if they are not logged.
func (k Kind) Line() string { return lines[k] }

// A Reason says why messages were dropped.
type Reason uint8

// The reasons.
const (
	DroppedOldest Reason = iota + 1
	DroppedNewest
	DroppedByClose
	DroppedByPurge
	DroppedByDelete

	LastReason = DroppedByDelete
)

var reasonNames = [...]string{"none", "drop oldest", "drop newest", "close", "purge", "delete"}

// String is the reason's name.
func (r Reason) String() string {
	if int(r) < len(reasonNames) {
		return reasonNames[r]
	}
	return fmt.Sprintf("DropReason(%d)", uint8(r))
}

// An Event is what a hook is told, and what is logged.
type Event struct {
	Topic, Queue string // set by the reporter
	Seq          uint64
	Time         time.Time
	MessageID    string
	PublishedAt  time.Time
	Attempt      int
	Cause        message.Cause
	Err          error
	Elapsed      time.Duration
	Wait         time.Duration
	Reason       Reason
	Subscriber   string
	Stack        string
	Stats        any
	Count        int

	Goroutine *string     // whose stack StuckStack tells
	Logged    []slog.Attr // for the log alone
	Message   any         // what the topic keeps of the message, for the log's context; nil: nothing
}

func (e *Event) attrs() []slog.Attr {
	attrs := []slog.Attr{slog.String("topic", e.Topic), slog.String("queue", e.Queue), slog.Int("count", e.Count)}
	if e.Reason != 0 {
		attrs = append(attrs, slog.String("reason", e.Reason.String()))
	}
	if e.MessageID != "" {
		attrs = append(attrs, slog.String("message_id", e.MessageID))
	}
	if e.Subscriber != "" {
		attrs = append(attrs, slog.String("subscriber", e.Subscriber))
	}
	if e.Attempt != 0 {
		attrs = append(attrs, slog.Int("attempt", e.Attempt))
	}
	if e.Cause != 0 {
		attrs = append(attrs, slog.String("cause", e.Cause.String()))
	}
	if e.Elapsed != 0 {
		attrs = append(attrs, slog.Duration("elapsed", e.Elapsed))
	}
	attrs = append(attrs, e.Logged...)
	if e.Err != nil {
		attrs = append(attrs, slog.Any("error", e.Err))
	}
	if e.Stack != "" {
		attrs = append(attrs, slog.String("stack", e.Stack))
	}
	return attrs
}
