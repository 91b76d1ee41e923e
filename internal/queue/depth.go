package queue

import (
	"context"
	"fmt"
	"time"

	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/internal/onengine"
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
	d, err := q.At().Depth(ctx)
	if err != nil {
		return Depth{}, fmt.Errorf("fanout: depth of %q: %w", q.QueueName, onengine.Error(err))
	}
	return d, nil
}

// DepthHere is Depth in memory.
func (q *Queue[T]) DepthHere() Depth {
	s := q.Stats()
	return Depth{
		Queue: q.QueueName, Ready: s.Ready + s.Blocked + s.Released, Delayed: s.Delayed + s.Retrying + s.Parked, InFlight: s.InFlight,
		Dead: s.Dead, OldestAge: s.OldestAge,
	}
}
