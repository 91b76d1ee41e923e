package fanout

import (
	"context"
	"fmt"
	"iter"
	"reflect"
	"strings"
	"time"

	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/internal/deadletter"
	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/lifecycle"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/ranges"
	"github.com/gofanout/fanout/internal/settings"
	"github.com/gofanout/fanout/internal/view"
)

// A Queue is one subscription. It gets every message published to its topic that its filter
// accepts, and keeps it until it is acknowledged or dead here, whatever other queues do. It
// holds no more messages than its capacity. The body is not copied: what it points to is
// shared with the other queues. Consumers compete for the queue's messages: the workers of
// its subscribers, and those who call Receive and its siblings.
//
// A dead-letter queue is a Queue too: you can receive from it, subscribe to it and peek into
// it. It has no dead-letter queue of its own, and retries for ever.
//
// All methods may be called concurrently. [Topic.OpenQueue] makes a queue.
type Queue[T any] struct{ core queue.Queue[T] }

// NewDeadLetterQueue returns a dead-letter queue that several queues can share, of one topic
// or of several, by [WithDeadLetterQueue]. Each letter remembers its queue, and that queue's
// Redrive moves only its own letters. The caller owns it: it ends by its Close, not with a
// topic.
//
// Its defaults are those of any dead-letter queue. [WithDeadLetterCapacity],
// [WithDeadLetterOverflow], [WithVisibilityTimeout], [WithHooks] and [WithLogger] change
// them. It returns [ErrInvalidOption] for an empty name or a bad option.
func NewDeadLetterQueue[T any](name string, options ...DeadLetterOption) (*Queue[T], error) {
	if name == "" {
		return nil, invalid("NewDeadLetterQueue", `""`, "a name that is not empty")
	}
	set := settings.DefaultQueue()
	var top settings.Topic
	err := applyAll(options, func(o DeadLetterOption) error { return o.applyDeadLetters(&top, &set) })
	if err != nil {
		return nil, err
	}
	d, err := deadletter.NewShared[T](name, top, set)
	if err != nil {
		return nil, err
	}
	return queueOf(d), nil
}

// made returns an error if q was not made by OpenQueue or its siblings.
func (q *Queue[T]) made() error {
	if !q.core.Made() {
		return zeroValue(q, "Topic.OpenQueue")
	}
	return nil
}

// Name is the queue's name.
func (q *Queue[T]) Name() string { return q.core.Name() }

// Receive takes the next message, and waits for one if there is none. Waiting receivers get
// messages in the order of their arrival. It returns [ErrClosed] once the queue is closed,
// ctx's error if ctx ends first, and [ErrInvalidOption]. A topic that shuts down closes its
// queues when they are drained, so a caller can receive until ErrClosed.
func (q *Queue[T]) Receive(ctx context.Context, options ...ReceiveOption) (d Delivery[T], err error) {
	vis, err := q.receiving(ctx, options)
	if err != nil {
		return d, err
	}
	err = delivery.TakeOne(ctx, &q.core, d.laid(), vis)
	return d, err
}

// receiving checks what a receive is called with, and returns the visibility timeout.
func (q *Queue[T]) receiving(ctx context.Context, options []ReceiveOption) (time.Duration, error) {
	if err := q.made(); err != nil {
		return 0, err
	}
	if ctx == nil {
		return 0, fmt.Errorf("%w: %w", ErrInvalidOption, message.ErrNilContext)
	}
	if len(options) == 0 {
		return q.core.Visibility(), nil
	}
	s := receiveSettings{visibility: q.core.Visibility()}
	err := applyAll(options, func(o ReceiveOption) error { return o.applyReceive(&s) })
	return s.visibility, err
}

// TryReceive takes the next message if there is one. ok says whether there was. In memory it
// does not wait; on an engine it waits for the answer, up to a second. It returns the errors
// of Receive.
func (q *Queue[T]) TryReceive(ctx context.Context, options ...ReceiveOption) (d Delivery[T], ok bool, err error) {
	vis, err := q.receiving(ctx, options)
	if err != nil {
		return d, false, err
	}
	ok, err = delivery.TryTake(ctx, &q.core, d.laid(), vis)
	return d, ok, err
}

// ReceiveInto is ReceiveBatch into a slice of the caller's: it takes up to len(ds) messages
// into ds and returns how many. A caller that uses one slice again and again saves the
// allocation of ReceiveBatch, which costs more than all the rest of it. Elements beyond n
// keep the deliveries of earlier calls. A delivery that was copied out of the slice is not
// changed by the next call. ReceiveInto returns [ErrInvalidOption] for an empty slice, and
// otherwise the errors of Receive.
func (q *Queue[T]) ReceiveInto(ctx context.Context, ds []Delivery[T], options ...ReceiveOption) (n int, err error) {
	if len(ds) == 0 {
		return 0, invalid("ReceiveInto", len(ds), "a slice with room for at least 1")
	}
	vis, err := q.receiving(ctx, options)
	if err != nil {
		return 0, err
	}
	return delivery.TakeInto(ctx, &q.core, coreDeliveries(ds), vis)
}

// ReceiveBatch takes up to most messages. It waits until there is one, and then returns what
// is there. The slice is the caller's. It returns the errors of Receive.
func (q *Queue[T]) ReceiveBatch(ctx context.Context, most int, options ...ReceiveOption) ([]Delivery[T], error) {
	if most < 1 {
		return nil, invalid("ReceiveBatch", most, "at least 1")
	}
	vis, err := q.receiving(ctx, options)
	if err != nil {
		return nil, err
	}
	ds, err := delivery.TakeBatch(ctx, &q.core, most, vis)
	return deliveries(ds), err
}

// Deliveries returns an iterator that receives one message after the other:
//
//	for d, err := range q.Deliveries(ctx) {
//
// It ends without an error when the queue is closed, as a range over a closed channel does.
// Any other error, ctx's or [ErrInvalidOption], is yielded once with the zero Delivery and
// ends it. The loop settles each delivery, before it asks for the next or later. A loop that
// acknowledges each delivery before it asks for the next costs a fraction of Receive and
// Ack.
//
// The iterator may take several messages from the queue at once. Those that it has not
// yielded are still ready: other consumers get them if they find nothing else, and after a
// millisecond at the latest they are back in their places. The visibility timeout of a
// message counts from when it is yielded, and may come up to a millisecond late, never
// early.
func (q *Queue[T]) Deliveries(ctx context.Context, options ...ReceiveOption) iter.Seq2[Delivery[T], error] {
	return func(yield func(Delivery[T], error) bool) {
		vis, err := q.receiving(ctx, options)
		if err != nil {
			yield(Delivery[T]{}, err)
			return
		}
		r := ranges.New(&q.core, vis)
		defer r.Leave()
		for err == nil {
			var d *delivery.Delivery[T]
			if d, err = r.Next(ctx); err == nil && !yield(*deliveryOf(d), nil) {
				return
			}
		}
		if !r.IsOver(err) {
			yield(Delivery[T]{}, err)
		}
	}
}

// AckBatch acknowledges deliveries of this queue, as Ack does for each, but at a lower
// price. It returns nil if it acknowledged all of them. Otherwise it returns a [*BatchError]
// with the errors of the others: [ErrStale], [ErrSettled] or [ErrClosed], and
// [ErrInvalidOption] for a delivery of another queue, which is left alone. As
// DeleteMessageBatch in SQS it goes on after an error. In memory it never waits, ignores
// ctx, and allocates nothing if there is no error.
func (q *Queue[T]) AckBatch(ctx context.Context, ds ...Delivery[T]) error {
	if err := q.made(); err != nil {
		return err
	}
	if failed := delivery.AckAll(ctx, &q.core, coreDeliveries(ds)); failed != nil {
		return &BatchError{Queue: q.Name(), Failed: failed}
	}
	return nil
}

// Peek returns up to most of the queue's messages in the order of publication, all of them
// for [Unlimited]. It takes none: they stay ready for consumers. It does not see messages
// that are in flight or parked; in a closed queue nothing is in flight. The deliveries that
// it returns can be read, History included. Settling one returns [ErrStale] or [ErrClosed].
func (q *Queue[T]) Peek(ctx context.Context, most int) ([]Delivery[T], error) {
	if err := q.made(); err != nil {
		return nil, err
	}
	if most < 1 {
		return nil, invalid("Peek", most, "at least 1")
	}
	if ctx == nil {
		return nil, fmt.Errorf("%w: Peek: %w", ErrInvalidOption, message.ErrNilContext)
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("fanout: peek at %q: %w", q.Name(), message.ContextError(ctx))
	}
	ds, err := view.Peek(ctx, &q.core, most)
	return deliveries(ds), err
}

// DeadLetters returns the queue's dead-letter queue. It has the messages whose attempts are
// spent, whose handler returned [Permanent], whose time to live has passed, or which were
// snoozed or released too often, each with the history of its attempts. Look at them by
// [Queue.Peek], take them by Receive or Subscribe, and send them back by [Queue.Redrive].
//
// Somebody has to empty it. It holds up to [WithDeadLetterCapacity] letters. When it is
// full, a dead message is parked in its own queue: it is not delivered again, takes up that
// queue's room, and moves as soon as there is room for it. So a dead message is never lost,
// but in the end publishers wait. [WithDeadLetterOverflow] drops the oldest letters instead.
// [Hooks].DeadLettered and Parked, the log, and [Stats].Dead and Parked tell of it.
//
// The dead-letter queue is made when it is first needed, and is named after its queue with
// "/dead" behind. A queue opened [WithDeadLetterQueue] uses that one instead. It outlives
// its queue, until its topic ends or its queue is deleted. A queue that is opened later by
// the same name gets it, with its letters and its consumers, and can redrive them; its
// capacity and overflow are then those of the new queue's options, but its capacity is at
// least the number of its letters. The same holds for a queue's letters in a shared
// dead-letter queue.
//
// A dead-letter queue has no dead-letter queue of its own. What fails there is retried for
// ever, with Permanent too, and its DeadLetters returns itself.
func (q *Queue[T]) DeadLetters() *Queue[T] { return queueOf(q.core.DeadLetters()) }

// Redrive sends dead letters back to this queue, and to no other: all that are in its
// dead-letter queue when it is called, or those that the options select. It returns how many
// moved. Their attempts start anew, and their histories stay. They are due at once, and the
// queue takes them in turn with its backlog; its filter is not asked. A letter that a
// consumer of the dead-letter queue has received stays there.
//
// Redriven messages need room, as published ones do. If the queue is full, Redrive waits in
// turn with publishers, whatever the overflow policy. If ctx ends meanwhile, it returns
// ctx's error and how many it has moved; if the queue is closed, [ErrClosed]. On an engine
// it does not wait, but returns [ErrQueueFull]. An option for another T is
// [ErrInvalidOption]. IDs that no letter has are [ErrUnknownID], see [RedriveIDs]; the other
// letters have moved then.
func (q *Queue[T]) Redrive(ctx context.Context, options ...RedriveOption) (moved int, err error) {
	c, err := q.chooseLetters(ctx, "Redrive", "redrive", options)
	if err != nil {
		return 0, err
	}
	return deadletter.Redrive(ctx, &q.core, c)
}

// chooseLetters checks the options and the context of a call about the queue's letters,
// which does what.
func (q *Queue[T]) chooseLetters(ctx context.Context, call, what string, options []RedriveOption) (*deadletter.Choice[T], error) {
	if err := q.made(); err != nil {
		return nil, err
	}
	if q.core.IsLetters() {
		return nil, fmt.Errorf("%w: %s of %q: call it on the queue that the dead letters come from", ErrUnsupported, call, q.Name())
	}
	var set redriveSettings
	if err := applyAll(options, func(o RedriveOption) error { return o.applyRedrive(&set) }); err != nil {
		return nil, err
	}
	preds, err := typed[func(Delivery[T]) bool]("RedriveIf", set.preds, reflect.TypeFor[T]())
	if err != nil {
		return nil, err
	}
	if ctx == nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrInvalidOption, call, message.ErrNilContext)
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("fanout: %s of %q: %w", what, q.Name(), message.ContextError(ctx))
	}
	c := &deadletter.Choice[T]{Letters: set.Letters}
	for _, keep := range preds {
		c.Keep = append(c.Keep, func(d *delivery.Delivery[T]) bool { return keep(*deliveryOf(d)) })
	}
	return c, nil
}

// Pause makes the queue give out no messages until Resume. Deliveries that were made go on,
// and publishes go on filling the queue. Receivers wait, TryReceive finds nothing, and
// Shutdown doesn't wait for what the queue holds. Pausing a paused queue does nothing. Pause
// returns [ErrClosed] once the queue is closed. It never waits; ctx is not used.
func (q *Queue[T]) Pause(ctx context.Context) error {
	if err := q.made(); err != nil {
		return err
	}
	return lifecycle.Pause(ctx, &q.core)
}

// Resume ends a Pause. Resuming a queue that isn't paused does nothing. Resume returns
// [ErrClosed] once the queue is closed. It never waits; ctx is not used.
func (q *Queue[T]) Resume(ctx context.Context) error {
	if err := q.made(); err != nil {
		return err
	}
	return lifecycle.Resume(ctx, &q.core)
}

// Purge drops all that the queue holds, also what is in flight, as PurgeQueue in SQS does.
// Settling those deliveries returns [ErrStale], and the contexts of their handlers are
// cancelled with a cause that wraps it. What is dropped is counted and told to the hooks and
// the log. Dead letters stay. The topic still remembers deduplication IDs: to publish one of
// them again does nothing until its window has passed, see [WithDeduplication]. Purge
// returns how many messages it dropped, or [ErrClosed]. In memory it ignores ctx; on an
// engine it waits for an answer until ctx ends.
func (q *Queue[T]) Purge(ctx context.Context) (dropped int, err error) {
	if err := q.made(); err != nil {
		return 0, err
	}
	return lifecycle.Purge(ctx, &q.core)
}

// Close ends the queue at once. It gets no more messages, and publishes no longer wait for
// room in it. Receives and settlements get [ErrClosed], and the contexts of running handlers
// are cancelled with a cause that wraps it. What the queue held is lost; it is counted and
// told to the hooks and the log, and [Queue.Leftovers] returns it. Dead letters stay where
// they are, see [Queue.DeadLetters]. The name is free again. Close doesn't wait for
// handlers. A second call does nothing. To remove the dead letters too, and on an engine the
// queue, call [Queue.Delete].
//
// A queue's own dead-letter queue ends with its topic; to close it while its queue is open
// is [ErrUnsupported]. A dead-letter queue of [NewDeadLetterQueue] is closed by its owner.
// Messages that die after that are parked in their queues.
func (q *Queue[T]) Close() error {
	if err := q.made(); err != nil {
		return err
	}
	return lifecycle.Close(&q.core)
}

// Delete ends the queue as [Queue.Close] does, and removes all that it held and its own dead
// letters. There are no Leftovers. What is lost is counted and told to the hooks and the log
// as [DroppedByDelete]. Letters in a shared dead-letter queue stay there, and a queue of the
// same name can redrive them. The name is free again. Delete does not wait for handlers. A
// second call does nothing. A call after Close removes what Close has left, except letters
// that a new queue of the same name has taken over.
//
// A queue's own dead-letter queue is deleted with it; to delete it while its queue is open
// is [ErrUnsupported]. A dead-letter queue of [NewDeadLetterQueue] is closed, and its
// letters are dropped.
//
// In memory Delete ignores ctx. On an engine it removes the queue and its dead-letter queue
// for all processes, whose receives end with [ErrClosed]. It waits for that, and for other
// queues that are being opened, until ctx ends. If it fails, the queue is closed but still
// there: call Delete again. If the topic was closed, or a queue was opened by that name, it
// returns ErrClosed and removes nothing. If the engine does not support [engine.Deletion],
// it returns ErrUnsupported and the queue stays open. It returns [ErrInvalidOption] for a
// nil ctx.
func (q *Queue[T]) Delete(ctx context.Context) error {
	if err := q.made(); err != nil {
		return err
	}
	if ctx == nil {
		return fmt.Errorf("%w: Delete: %w", ErrInvalidOption, message.ErrNilContext)
	}
	return lifecycle.Delete(ctx, &q.core)
}

// Leftovers returns what the queue held when it was closed, in the order of publication, as
// messages that can be published again. They have their IDs, attributes and ordering keys,
// and what is left of their delays and times to live, also of those that come from the
// queue's options. They have no deduplication IDs, which would prevent the publication. A
// delay that has passed is 1 ns, and so is the passed time to live of a message that was in
// flight or parked, because with 0 the queue's own would begin anew. A message that expired
// while it waited is not there: it is in the dead-letter queue, or was parked if that was
// full.
//
// Leftovers returns nil before the queue is closed, for a queue that was deleted, and on an
// engine, where messages stay in the queue.
func (q *Queue[T]) Leftovers() []Message[T] { return messages(lifecycle.Leftovers(&q.core)) }

// Stats is a snapshot of a queue. All its numbers belong to one instant, and
//
//	Published + Redriven = Acked + DeadLettered + Dropped + Left + Unsettled()
//
// In a dead-letter queue Published counts the letters that came, and Redriven those that
// went back.
//
// On an engine the numbers are those of this process. What only the engine knows is
// [Unknown]: Ready, Delayed, Retrying, Parked, Released, Blocked, OldestAge, Dead and
// Published, and Capacity unless [WithCapacity] was given. [Queue.Depth] asks the engine.
type Stats struct {
	Topic, Queue string
	Capacity     int

	// What the queue holds.
	Ready    int // could be delivered now
	Delayed  int // delayed or snoozed, not due yet
	Retrying int // failed, waiting for the next attempt
	InFlight int // delivered, neither settled nor timed out; on an engine also received, waiting for a worker here
	Parked   int // dead, waiting for room in the dead-letter queue
	Released int // given back by a shutdown
	Blocked  int // waiting behind another message with their ordering key
	Paused   bool

	// OldestAge is how long ago the oldest of the ready messages was published, 0 if none is
	// ready. It is exact. Stats computes it, and for that looks at all messages that are
	// ready again after a delivery.
	OldestAge time.Duration

	// Dead is what the dead-letter queue holds.
	Dead int

	// Workers is the number of running worker goroutines, Stuck the number of
	// handlers that run on past their visibility timeout.
	Workers, Stuck int

	// Counts since the queue was opened.
	Published    int    // messages published to the queue, those it dropped included
	Delivered    uint64 // deliveries made
	DeadLettered uint64
	Redriven     uint64
	Dropped      uint64 // by a Drop policy, Purge or Delete
	Left         uint64 // held when the queue was closed, see Leftovers
	TimesParked  uint64 // messages that had to be parked

	WorkersStarted uint64 // worker goroutines, those that have ended included

	// Attempts that ended, by cause.
	Acked, Failed, Panicked, Exited, TimedOut, Nacked  uint64
	PermanentlyFailed, Expired, Snoozed, ReleasedCount uint64
}

// Unsettled is the number of messages that count against the capacity; on an engine it is
// [Unknown].
func (s Stats) Unsettled() int {
	if s.Ready == Unknown {
		return Unknown
	}
	return s.Ready + s.Delayed + s.Retrying + s.InFlight + s.Parked + s.Released + s.Blocked
}

// Stats returns a snapshot of the queue's counters.
func (q *Queue[T]) Stats() Stats { return Stats(view.StatsOf(&q.core)) }

// A Depth is what a queue holds, see [Queue.Depth] and [Topic.ListQueues]. Numbers that an
// engine does not know are [Unknown].
type Depth struct {
	// Queue is the queue's name.
	Queue string
	// Ready messages wait for a consumer: those behind another with their ordering key,
	// and those that a shutdown gave back, are among them.
	Ready int
	// Delayed messages wait for the end of a delay, a snooze or a backoff, or for room in
	// the dead-letter queue. An engine may count as InFlight all that were delivered before.
	Delayed int
	// InFlight messages are delivered, and neither settled nor timed out.
	InFlight int
	// Dead is how many letters the dead-letter queue holds. In a shared one the letters of
	// other queues count too. A dead-letter queue itself has none: it is 0.
	Dead int
	// OldestAge is how long ago the oldest of the messages that could be delivered now was
	// published, 0 if there is none.
	OldestAge time.Duration
}

// Unsettled is how many messages the queue holds: Ready, Delayed and InFlight. It is
// [Unknown] if one of them is.
func (d Depth) Unsettled() int {
	return engine.Stats{Ready: d.Ready, Delayed: d.Delayed, InFlight: d.InFlight}.Sum()
}

// String returns the depth in one line, with "unknown" for each number that is [Unknown]:
// `queue "billing": 3 ready, 0 delayed, 1 in flight, unknown dead, oldest 2m0s`.
func (d Depth) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "queue %q: ", d.Queue)
	for _, n := range []struct {
		count int
		what  string
	}{{d.Ready, "ready"}, {d.Delayed, "delayed"}, {d.InFlight, "in flight"}, {d.Dead, "dead"}} {
		fmt.Fprintf(&b, "%v %s, ", known(n.count), n.what)
	}
	fmt.Fprintf(&b, "oldest %v", known(d.OldestAge))
	return b.String()
}

// known is n for a text.
func known[N int | time.Duration](n N) any {
	if n == Unknown {
		return "unknown"
	}
	return n
}

// Depth returns what the queue holds. In memory the numbers are exact and of one instant,
// there is no error, and ctx is ignored. On an engine it asks for what the queue holds, in
// all processes, and then for its dead letters, until ctx ends; [engine.ExactStats] says how
// exact the answers are. It returns the engine's errors, [ErrClosed] once the queue is
// closed there, and [ErrInvalidOption] for a zero Queue.
func (q *Queue[T]) Depth(ctx context.Context) (Depth, error) {
	if err := q.made(); err != nil {
		return Depth{}, err
	}
	d, err := view.DepthOf(ctx, &q.core)
	return Depth(d), err
}

// View returns a view of the queue that needs no T.
func (q *Queue[T]) View() QueueView { return (*queueView[T])(q) }
