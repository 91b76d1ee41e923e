package fanout

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/view"
)

// Hooks are functions that are called when things happen, as those of net/http/httptrace
// are. Set the ones that you need; nil ones cost nothing. Each is called in the goroutine
// that caused the event, after the event, without a lock, and possibly concurrently with
// others. A panic in a hook is recovered and logged. A hook that calls [runtime.Goexit] ends
// the goroutine that called it; a worker is replaced, and what remained to be done is done
// first.
//
// Calls may overtake each other. So each event has a number, Seq: the events of one queue
// happened in the order of their numbers.
type Hooks struct {
	// Published is called for each message that a topic accepted.
	// Event.Queue is empty and Event.Seq counts the topic's messages.
	Published func(Event)
	// Delivered is called when a message is handed to a consumer.
	Delivered func(Event)
	// Settled is called when an attempt ended, whatever the Cause. Wait is how
	// long the message waits before it is ready again.
	Settled func(Event)
	// DeadLettered is called when a message went to the dead-letter queue, with
	// the last attempt's Cause and Err.
	DeadLettered func(Event)
	// Parked is called when a dead message found its dead-letter queue full. On an engine it
	// is also called when the engine failed to move the message; EngineFailed says why.
	Parked func(Event)
	// Redriven is called when a dead letter went back to its queue.
	Redriven func(Event)
	// Dropped is called when messages were lost in a way that the user chose. Reason says
	// which way, and Count how many. MessageID is set if it is one message.
	Dropped func(Event)
	// Stuck is called when a handler is still running as its visibility timeout passes.
	Stuck func(Event)
	// StuckStack is called after Stuck, with the handler's stack in Event.Stack. Collecting
	// the stack stops the world, so it is done only if StuckStack is set, and at most once a
	// minute for each topic. For other handlers that are stuck within that minute StuckStack
	// is not called.
	StuckStack func(Event)
	// Stalled is called when a publish or redrive has waited ten seconds for room in a
	// queue, and every ten seconds after that, in the goroutine that waits. Elapsed says how
	// long it has waited, Stats is the queue's.
	Stalled func(Event)
	// EngineFailed is called when an engine failed in something that no caller waits for:
	// receiving for workers, or storing a time-out or what a handler returned. It is tried
	// again, or the lease ends and the message comes again. Err says what happened.
	EngineFailed func(Event)
	// Late is called when a handler returned an error after its delivery had been settled or
	// lost, so that the error has no effect. Err is the error.
	Late func(Event)
}

// An Event is what a hook is told.
type Event struct {
	Topic, Queue string
	// Seq orders the events of one queue.
	Seq uint64
	// Time is when it happened.
	Time time.Time
	// MessageID is the message's ID, empty if the event is about several.
	MessageID string
	// PublishedAt is when that message was published, zero if there are several.
	PublishedAt time.Time
	// Attempt is the number of the attempt, 0 if there was none.
	Attempt int
	Cause   Cause
	Err     error
	// Elapsed is how long the delivery lasted.
	Elapsed time.Duration
	// Wait is how long until the message is ready again.
	Wait time.Duration
	// Reason is why messages were dropped.
	Reason DropReason
	// Subscriber is the file and line that subscribed, for Stuck and Late.
	Subscriber string
	// Stack is the handler's stack, for StuckStack.
	Stack string
	// Stats is a snapshot of the queue, for Stalled.
	Stats *Stats
	// Count is the number of messages, 1 for most events.
	Count int
}

// A DropReason says why messages were lost.
type DropReason uint8

const (
	// DroppedOldest is the [DropOldest] policy of a full queue.
	DroppedOldest DropReason = iota + 1
	// DroppedNewest is the [DropNewest] policy of a full queue.
	DroppedNewest
	// DroppedByClose is a queue or topic that was closed with messages in it.
	DroppedByClose
	// DroppedByPurge is [Queue.Purge].
	DroppedByPurge
	// DroppedByDelete is [Queue.Delete], or DeleteLetters of [QueueView].
	DroppedByDelete

	lastReason = DroppedByDelete
)

// String returns the reason in words.
func (r DropReason) String() string { return notice.Reason(r).String() }

// MarshalText returns what [DropReason.String] does. The zero DropReason is "none". A number
// that is not a reason is [ErrInvalidOption].
func (r DropReason) MarshalText() ([]byte, error) {
	return namedText(r, 0, lastReason, DropReason.String)
}

// UnmarshalText reads what MarshalText writes. Any other text is [ErrInvalidOption],
// naming the text.
func (r *DropReason) UnmarshalText(text []byte) (err error) {
	read, err := fromName(text, 0, lastReason, DropReason.String)
	if err == nil {
		*r = read
	}
	return err
}

// listen makes the hooks listeners.
func (h *Hooks) listen(l *notice.Listeners) {
	for k, f := range h.byKind() {
		if f != nil {
			l.Hook(notice.Kind(k), f)
		}
	}
}

func (h *Hooks) byKind() (all [notice.Kinds]func(*notice.Event)) {
	for k, f := range []func(Event){
		h.Published, h.Delivered, h.Settled, h.DeadLettered, h.Parked, h.Redriven, h.Dropped, h.Stuck, h.StuckStack, h.Stalled, h.EngineFailed, h.Late, h.Late,
	} {
		if f != nil {
			all[k] = func(e *notice.Event) { f(eventOf(e)) }
		}
	}
	return all
}

// eventOf is what a hook is told of e.
func eventOf(e *notice.Event) Event {
	stats, _ := e.Stats.(*view.Stats)
	return Event{
		Topic: e.Topic, Queue: e.Queue, Seq: e.Seq, Time: e.Time, MessageID: e.MessageID, PublishedAt: e.PublishedAt, Attempt: e.Attempt,
		Cause: Cause(e.Cause), Err: e.Err, Elapsed: e.Elapsed, Wait: e.Wait, Reason: DropReason(e.Reason), Subscriber: e.Subscriber, Stack: e.Stack,
		Stats: (*Stats)(stats), Count: e.Count,
	}
}

// eventJSON is an Event in JSON.
type eventJSON struct {
	plainEvent
	Err *string
}

type plainEvent Event

// MarshalJSON writes the event as an object with the names of its fields. Err is its text,
// or null if there is none.
func (e Event) MarshalJSON() ([]byte, error) {
	j := eventJSON{plainEvent: plainEvent(e)}
	if e.Err != nil {
		text := fmt.Sprint(e.Err) // a text that panics is said to, as in String
		j.Err = &text
	}
	return json.Marshal(j)
}

// UnmarshalJSON reads what MarshalJSON writes. An error comes back as its text, in which
// errors.Is and errors.As find nothing. If the data is not valid, the event stays as it was.
func (e *Event) UnmarshalJSON(data []byte) error {
	if string(data) == "null" {
		return nil // as package json has it
	}
	var j eventJSON
	if err := json.Unmarshal(data, &j); err != nil {
		return fmt.Errorf("fanout: event: %w", err)
	}
	*e = Event(j.plainEvent)
	if j.Err != nil {
		e.Err = errors.New(*j.Err)
	}
	return nil
}

// MessageFromContext returns the message that a record of a topic's log is about, from the
// context that the slog.Handler is given. If the record is about several messages, it is the
// last. Its Body is nil. ok is false if the record is about no message.
func MessageFromContext(ctx context.Context) (m MessageInfo, ok bool) {
	about := notice.MessageOf(ctx)
	return MessageInfo{about: about}, about != nil
}
