package core

import (
	"context"
	"fmt"
	"time"

	"github.com/gofanout/fanout/internal/onengine"

	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/internal/message"
)

// Unknown stands for a number that only an engine knows, or that it can't tell.
const Unknown = engine.Unknown

// A Depth is what a queue holds. Package fanout explains the numbers.
type Depth struct {
	Queue                          string
	Ready, Delayed, InFlight, Dead int
	OldestAge                      time.Duration
}

// Depth returns what the queue holds. On an engine it asks the engine.
func (q *Queue[T]) Depth(ctx context.Context) (Depth, error) {
	d, err := q.at().depth(ctx)
	if err != nil {
		return Depth{}, fmt.Errorf("fanout: depth of %q: %w", q.name, onengine.Error(err))
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
		info.Letters, err = r.dead.eq.Stats(ctx)
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

// ListQueues returns what each of the topic's queues holds, in the order of their names. On
// an engine it asks the engine.
func (t *Topic[T]) ListQueues(ctx context.Context) ([]Depth, error) {
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
	if err := t.remote.Need(true, "ListQueues", engine.Listing, 0); err != nil {
		return nil, err
	}
	t.mu.Lock()
	closed := t.state == topicClosed
	t.mu.Unlock()
	if closed {
		return nil, message.ErrClosed
	}
	et, err := t.remote.Open(ctx)
	if err != nil {
		return nil, err
	}
	l, ok := et.(engine.Lister)
	if !ok {
		return nil, t.remote.Refuse("ListQueues", "it says that it keeps "+engine.Listing.String()+", but its topics are no engine.Lister")
	}
	infos, err := l.ListQueues(ctx)
	return infos, onengine.Error(err)
}
