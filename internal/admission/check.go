package admission

import (
	"errors"
	"fmt"

	"github.com/gofanout/fanout/internal/queue"
)

// Check returns an error if an invariant of the admission or its lines does not hold. It and
// what follows is for tests. Nothing else may run on the topic meanwhile but consumers.
func (a *Admission[T]) Check() error {
	a.Mu.Lock()
	defer a.Mu.Unlock()
	if head := a.log.Head(); head != a.log.Published() {
		return fmt.Errorf("the log has %d, %d are published", head, a.log.Published())
	}
	if a.Pending.Any() || a.RoomMade != nil {
		return errors.New("something was not told")
	}
	if err := a.lines.Check(); err != nil {
		return err
	}
	for q := range a.open.All() {
		if err := a.CheckLimitLocked(q); err != nil {
			return err
		}
	}
	return nil
}

// CheckLimitLocked returns an error if a queue allows less than the admission believes.
func (a *Admission[T]) CheckLimitLocked(q *queue.Queue[T]) error {
	if q.Store.Log == a.log && a.limit > q.Store.Allow.Load() {
		return fmt.Errorf("queue %q allows %d, the topic's limit is %d", q.Name(), q.Store.Allow.Load(), a.limit)
	}
	return nil
}

// CheckTurns returns an error if somebody stands behind nobody, and nobody will look at him.
// Nothing else may run on the topic meanwhile.
func (a *Admission[T]) CheckTurns() error {
	a.Mu.Lock()
	defer a.Mu.Unlock()
	if a.lines.HasTurns() {
		return errors.New("somebody was not looked at")
	}
	for w := range a.everyWaiter() {
		gated := a.standsBehind(w)
		for q := range w.Targets(&a.open) {
			gated = gated || q.RoomWanted.Load() != 0
		}
		if !gated {
			return errors.New("nobody will look at one who stands behind nobody")
		}
	}
	return nil
}

// IDsLocked is how many deduplication IDs are remembered, and whether the timer is armed that
// forgets them.
func (a *Admission[T]) IDsLocked() (n int, armed bool) {
	if a.dedup == nil {
		return 0, false
	}
	return a.dedup.Len(), a.dedup.armed
}
