package topic

import (
	"errors"
	"fmt"
)

// Check returns an error if an invariant that stands above Topic, Queue or the lines
// does not hold. It is for tests. Nothing else may run on the topic meanwhile but consumers.
func (t *Topic[T]) Check() error {
	t.Mu.Lock()
	defer t.Mu.Unlock()
	if head := t.log.Head(); head != t.log.Published() {
		return fmt.Errorf("the log has %d, %d are published", head, t.log.Published())
	}
	if t.Pending.Any() || t.RoomMade != nil {
		return errors.New("something was not told")
	}
	if err := t.lines.Check(); err != nil {
		return err
	}
	for _, q := range t.queues {
		if err := q.Check(); err != nil {
			return err
		}
		if q.Log == t.log && t.limit > q.Allow.Load() {
			return fmt.Errorf("queue %q allows %d, the topic's limit is %d", q.QueueName, q.Allow.Load(), t.limit)
		}
		if d := q.DeadNow(); d != nil {
			if err := d.Check(); err != nil {
				return err
			}
		}
	}
	return nil
}
