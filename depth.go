package fanout

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/gofanout/fanout/engine"
)

// Unknown, which is -1, stands in [Depth], [Stats] and [TopicStats] for a number that only
// an engine knows, or that it can't tell. In memory nothing is unknown.
const Unknown = engine.Unknown

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
func (d Depth) Unsettled() int { return d.stats().Sum() }

func (d Depth) stats() engine.Stats {
	return engine.Stats{Ready: d.Ready, Delayed: d.Delayed, InFlight: d.InFlight}
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
	if q.remote == nil {
		return q.depth(), nil
	}
	d, err := q.remote.depth(ctx)
	if err != nil {
		return Depth{}, fmt.Errorf("fanout: depth of %q: %w", q.name, remoteError(err))
	}
	return d, nil
}

// depth is Depth in memory.
func (q *Queue[T]) depth() Depth {
	s := q.Stats()
	return Depth{
		Queue: q.name, Ready: s.Ready + s.Blocked + s.Released, Delayed: s.Delayed + s.Retrying + s.Parked, InFlight: s.InFlight,
		Dead: s.Dead, OldestAge: s.OldestAge,
	}
}

func (r *remoteQueue[T]) depth(ctx context.Context) (d Depth, err error) {
	info := engine.QueueInfo{Name: r.q.name}
	if info.Stats, err = r.eq.Stats(ctx); err == nil && !r.q.letters {
		info.Letters, err = r.q.dead.remote.eq.Stats(ctx)
	}
	return remoteDepth(info), err
}

// remoteDepth is what an engine says of a queue.
func remoteDepth(i engine.QueueInfo) Depth {
	return Depth{
		Queue: i.Name, Ready: i.Stats.Ready, Delayed: i.Stats.Delayed, InFlight: i.Stats.InFlight,
		Dead: i.Letters.Sum(), OldestAge: i.Stats.OldestAge,
	}
}

// ListQueues returns what each of the topic's queues holds, in the order of their names. In
// memory these are the queues of [Topic.Queues], there is no error, and ctx is ignored. On
// an engine it asks the engine, until ctx ends. There the list includes queues that no
// process has open: they get messages until they are deleted, see [Queue.Delete]. Their
// depths are read one after the other. ListQueues returns the engine's errors,
// [ErrUnsupported] if the engine does not support [engine.Listing], [ErrClosed] once the
// topic is closed there, and [ErrInvalidOption] for a zero Topic.
func (t *Topic[T]) ListQueues(ctx context.Context) ([]Depth, error) {
	if err := t.made(); err != nil {
		return nil, err
	}
	var ds []Depth
	if t.remote == nil {
		for _, q := range t.Queues() {
			ds = append(ds, q.depth())
		}
		return ds, nil
	}
	infos, err := t.listRemote(ctx)
	if err != nil {
		return nil, fmt.Errorf("fanout: queues of topic %q: %w", t.name, err)
	}
	for _, i := range infos {
		ds = append(ds, remoteDepth(i))
	}
	return ds, nil
}

// listRemote asks the engine for the topic's queues.
func (t *Topic[T]) listRemote(ctx context.Context) ([]engine.QueueInfo, error) {
	if err := t.remote.need(true, "ListQueues", engine.Listing, 0); err != nil {
		return nil, err
	}
	t.mu.Lock()
	closed := t.state == topicClosed
	t.mu.Unlock()
	if closed {
		return nil, ErrClosed
	}
	et, err := t.remote.topic(ctx)
	if err != nil {
		return nil, err
	}
	l, ok := et.(engine.Lister)
	if !ok {
		return nil, t.remote.refuse("ListQueues", "it says that it keeps "+engine.Listing.String()+", but its topics are no engine.Lister")
	}
	infos, err := l.ListQueues(ctx)
	return infos, remoteError(err)
}
