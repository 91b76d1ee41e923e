package queue

import (
	"fmt"
	"slices"

	"github.com/gofanout/fanout/internal/consumers"
	"github.com/gofanout/fanout/internal/handling"
	"github.com/gofanout/fanout/internal/store"
)

func (q *Queue[T]) Label() string {
	return fmt.Sprintf("%q of topic %q", q.Name(), q.Core.TopicName)
}

func (q *Queue[T]) WaitState() (s handling.State) {
	q.Mu.Lock()
	defer q.Mu.Unlock()
	// What stands behind another of its key can be taken only after that one.
	toTake := q.Store.Ready() + q.Store.In(store.Delayed) + q.Store.In(store.Retrying)
	s.Free = q.Store.Closed || q.Store.In(store.InFlight) > 0 || q.receivedLocked() > 0 || q.Group.Ranges > 0 || q.Store.In(store.Parked) > 0 || q.Group.Receivers.N > 0 && toTake > 0
	if !s.Free && q.Expires() {
		_, s.Free = q.LookForExpiryLocked(q.Core.Now()) // that makes room
	}
	for _, sub := range q.Group.Subs {
		if !sub.Stopping && len(sub.Busy) < sub.Set.Concurrency && toTake > 0 {
			s.Free = true
		}
		for _, w := range sub.Busy {
			waits := w.WaitsLocked()
			if len(waits) == 0 {
				s.Free = true // it may return
			}
			if s.Free {
				return s
			}
			s.Runs = append(s.Runs, slices.Clone(waits))
		}
	}
	s.Free = s.Free || len(s.Runs) == 0
	return s
}

// receivedLocked counts what is in flight in leases, and no worker has.
func (q *Queue[T]) receivedLocked() int {
	n := q.Store.Leases.Counts().InFlight
	for _, l := range q.Store.Leases.Leases() {
		if _, ok := l.Owner().(consumers.Holder[T]); ok {
			n -= q.Store.Leases.InFlightOf(l)
		}
	}
	return n
}
