package fanout

import (
	"fmt"
)

// What the model found.

// CheckInvariants is check for the model's driver, which is outside of the
// package and wants an error.
func CheckInvariants(top *Topic[int]) error {
	top.mu.Lock()
	defer top.mu.Unlock()
	head := top.log.Head()
	for _, q := range top.queues {
		q.mu.Lock()
		err := q.checkLocked(head)
		d := q.dead
		q.mu.Unlock()
		if err == nil && d != nil {
			d.mu.Lock()
			err = d.checkLocked(head)
			d.mu.Unlock()
		}
		if err != nil {
			return fmt.Errorf("queue %q: %w", q.name, err)
		}
	}
	return nil
}
