package fakeaws

import (
	"container/heap"
	"time"
)

// attemptInterval is how long a FIFO queue remembers a ReceiveRequestAttemptId.
const attemptInterval = 5 * time.Minute

// attempts are the receives that a FIFO queue remembers by their
// ReceiveRequestAttemptId.
type attempts map[string]*attempt

// An attempt is what a receive got.
type attempt struct {
	at       instant
	messages []*message
	stamps   []uint64
}

// note remembers what a receive got, if it has an ID and got anything.
func (as *attempts) note(r receive, taken []*message, now instant) {
	if r.attempt == "" || len(taken) == 0 {
		return
	}
	for id, a := range *as {
		if a.at+attemptInterval <= now {
			delete(*as, id)
		}
	}
	if *as == nil {
		*as = attempts{}
	}
	a := &attempt{at: now, messages: taken}
	for _, m := range taken {
		a.stamps = append(a.stamps, m.stamp)
	}
	(*as)[r.attempt] = a
}

// againLocked returns what an earlier receive with the same ID got, with the
// same receipt handles, and hides it anew. It returns nil if there was none, if
// that is too long ago, or if any of the messages was deleted, changed or shown
// since.
func (as attempts) againLocked(q *queue, r receive, now instant) (ds []delivery) {
	a := as[r.attempt]
	if r.attempt == "" || a == nil || a.at+attemptInterval <= now {
		return nil
	}
	for k, m := range a.messages {
		if q.byNumber[m.number] != m || m.state != inFlight || m.stamp != a.stamps[k] || m.changed {
			return nil
		}
	}
	for _, m := range a.messages {
		m.due = min(now+r.visibility, m.received+longestVisibility)
		heap.Fix(&q.waiting, m.waitingAt)
		ds = append(ds, delivery{message: *m, handle: q.handleOf(m)})
	}
	for _, m := range a.messages {
		if m.due <= now {
			q.showLocked(m)
		}
	}
	return ds
}
