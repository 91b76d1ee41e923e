package deadletter

import (
	"fmt"

	"github.com/gofanout/fanout/internal/core"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/settings"
)

// NewShared returns a dead-letter queue that belongs to no topic.
func NewShared[T any](name string, top settings.Topic, set settings.Queue) (*queue.Queue[T], error) {
	set.Capacity, set.Overflow = set.DeadCapacity, set.DeadOverflow
	c, err := core.New(name, top)
	if err != nil {
		return nil, fmt.Errorf("fanout: dead-letter queue %q: %w", name, err)
	}
	return queue.NewDeadLetterQueue[T](c, nil, name, set.Limits), nil
}
