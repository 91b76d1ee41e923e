package queue

import (
	"fmt"
	"slices"

	"github.com/gofanout/fanout/internal/consumers"
	"github.com/gofanout/fanout/internal/handling"
	"github.com/gofanout/fanout/internal/store"
)

func (q *Queue[T]) Label() string {
	return fmt.Sprintf("%q of topic %q", q.QueueName, q.Core.TopicName)
}

func (q *Queue[T]) WaitState() (s handling.State) {
	q.Mu.Lock()
	defer q.Mu.Unlock()
	// What stands behind another of its key can be taken only after that one.
	toTake := q.Ready() + q.In(store.Delayed) + q.In(store.Retrying)
	s.Free = q.Closed || q.In(store.InFlight) > 0 || q.receivedLocked() > 0 || q.Ranges > 0 || q.In(store.Parked) > 0 || q.Receivers.N > 0 && toTake > 0
	if !s.Free && q.Expires() {
		_, s.Free = q.LookForExpiryLocked(q.Core.Now()) // that makes room
	}
	for _, sub := range q.Subs {
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
	n := q.Leases.Counts().InFlight
	for _, l := range q.Leases.Leases() {
		if _, ok := l.Owner().(consumers.Holder[T]); ok {
			n -= q.Leases.InFlightOf(l)
		}
	}
	return n
}
