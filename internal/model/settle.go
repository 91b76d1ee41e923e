package model

import (
	"slices"
	"time"

	"github.com/gofanout/fanout"
)

// An outcome is how a delivery is to end. A negative wait is the queue's backoff.
type outcome struct {
	cause fanout.Cause
	wait  time.Duration
	err   error
}

// settle ends a delivery of queue r.
func (m *topic) settle(r ref, id deliveryID, o outcome) error {
	q := m.at(r)
	x, why := m.owner(q, id)
	if x == nil {
		return why
	}
	m.lost(id, fanout.ErrSettled)
	if o.wait < 0 || q.letters && o.cause == fanout.PermanentlyFailed {
		n := x.spent + 1
		if o.cause == fanout.Released {
			n = min(x.releases(q), x.passes) + 1
		}
		o.wait = m.backoff(q, x, n)
	}
	m.end(q, x, o)
	return nil
}

// releases counts the releases in a row that x has behind it, save those that did
// not have to wait.
func (x *message) releases(q *queue) (n int) {
	for _, a := range slices.Backward(x.history) {
		if a.Cause != fanout.Released || a.Queue != q.name {
			break
		}
		if a.Err != nil {
			n++
		}
	}
	return n
}

// backoff returns how long x waits after the attempt that ends now, if it is asked
// for number n.
func (m *topic) backoff(q *queue, x *message, n int) time.Duration {
	shortest, longest := q.set.waits(n)
	if shortest == longest {
		return shortest
	}
	id := waitID{x.copyID(), q.letters}
	var can []time.Duration
	for _, wait := range m.seen.waits[id] {
		if shortest <= wait && wait <= longest {
			can = append(can, wait)
		}
	}
	switch told := m.seen.waits[id]; {
	case len(can) > 0:
		return can[m.choose(len(can))]
	case len(told) > 0 && !slices.Contains(told, 0):
		m.refuse("a backoff is outside of its range")
	}
	return shortest // it was not told, or the message does not wait
}

// end ends a delivery.
func (m *topic) end(q *queue, x *message, o outcome) {
	q.ended[o.cause]++
	if o.cause == fanout.Acked {
		m.remove(q, x)
		return
	}
	x.note(attempt{Cause: o.cause, Queue: q.name, Start: x.start, Elapsed: m.now - x.start, Err: o.err, slack: min(x.slack, m.now-x.start)})
	spends := o.cause != fanout.Snoozed && o.cause != fanout.Released
	if spends {
		x.spent++
	} else if o.wait > 0 {
		x.passes++
	}
	m.turn++
	x.turn = m.turn
	switch {
	case !q.letters && spends && (o.cause == fanout.PermanentlyFailed || x.spent >= q.set.maxAttempts):
		m.bury(q, x)
	case q.expired(x, m.now):
		m.expire(q, x)
	case o.cause == fanout.Released && q.draining:
		x.state = released
	case o.cause == fanout.Released && o.wait == 0 && !q.letters:
		x.state = backlog
	case o.wait == 0:
		x.state, x.since = due, m.now
	case o.cause == fanout.Snoozed:
		x.state, x.until = delayed, m.now+o.wait
	default:
		x.state, x.until = retrying, m.now+o.wait
	}
}

func (x *message) note(a attempt) {
	a.Number = 1
	if n := len(x.history); n > 0 {
		a.Number = x.history[n-1].Number + 1
	}
	x.history = append(slices.Clip(x.history), a)
}

// extend moves the deadline of a delivery, never to an earlier one.
func (m *topic) extend(r ref, id deliveryID, by time.Duration) error {
	if by <= 0 {
		return fanout.ErrInvalidOption
	}
	x, err := m.owner(m.at(r), id)
	if x != nil {
		x.extended = max(x.extended, m.now+by)
		x.until, x.most = max(x.until, x.extended), max(x.most, x.extended)
	}
	return err
}
