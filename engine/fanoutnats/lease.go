package fanoutnats

import (
	"context"
	"fmt"
	"time"

	"github.com/gofanout/fanout/engine"
)

// ackDone acknowledges a message.
var ackDone = []byte("+ACK")

// hideFor makes the server hide a message for d from now on, and then deliver it
// again, wherever it is. It is what a client calls a negative acknowledgement with a
// delay; one that comes before is still an acknowledgement. It is how a message is
// returned and how the end of a lease is moved: the server has a time for each
// message of its own, and keeps it over a restart. Without a delay, even of 0, it
// would not be kept.
func hideFor(d time.Duration) []byte {
	return fmt.Appendf(nil, `-NAK {"delay": %d}`, max(d, 0))
}

// A lease is one delivery of a message to this process, and the receipt for it.
type lease struct {
	queue      *queue
	sequence   uint64 // in the stream
	deliveries uint64 // as the server counts
	reply      string // subject of its acknowledgements
	record     uint64 // sequence of its record, 0 for none or if it isn't known
	noted      bool   // a record was sent, see note
	uncounted  uint64 // of the deliveries, those that nobody received
	stateful   bool   // came with a state

	// Guarded by queue.mu.
	alive bool
	until time.Time // when it ends
	kept  time.Time // how long the server is known to hide the message
}

// end is when the lease is over: for its holder, or because another one may have
// the message.
func (l *lease) end() time.Time {
	if l.kept.Before(l.until) {
		return l.kept
	}
	return l.until
}

// addLeases begins leases of d, of messages that arrived at the given time. Another
// lease of one of the messages is an old one, and ends.
func (q *queue) addLeases(ls []*lease, arrived time.Time, d time.Duration) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return engine.ErrClosed
	}
	now := time.Now()
	for _, l := range ls {
		if old := q.leases[l.sequence]; old != nil {
			q.removeLocked(old)
		}
		l.alive = true
		l.until, l.kept = now.Add(d), arrived.Add(q.ackWait-margin(q.ackWait))
		q.leases[l.sequence] = l
	}
	// What was neither settled nor received again is forgotten now and then.
	if len(q.leases) > 2*q.swept+1000 {
		for _, l := range q.leases {
			if !now.Before(l.end()) {
				q.removeLocked(l)
			}
		}
		q.swept = len(q.leases)
	}
	return nil
}

// stretch makes the servers hide the messages of new leases for d, if that isn't
// about what they do anyway. If no server confirms it, a longer lease ends earlier,
// and a shorter one later.
func (q *queue) stretch(ctx context.Context, ls []*lease, d time.Duration) {
	usual := q.ackWait - margin(q.ackWait)
	if len(ls) == 0 || d > usual-2*margin(q.ackWait) && d <= usual {
		return
	}
	sent := time.Now()
	hide := hideFor(d + margin(q.ackWait))
	last := len(ls) - 1
	for _, l := range ls[:last] {
		// If it fails, so does the last one.
		_ = q.topic.engine.nc.Publish(l.reply, hide)
	}
	// A consumer takes acknowledgements in their order: the last speaks for all.
	if q.confirm(ctx, ls[last], hide) == nil {
		q.mu.Lock()
		for _, l := range ls {
			l.kept = sent.Add(d)
		}
		q.mu.Unlock()
	}
}

// margin is how much of what a server hides a message is not given to leases: for
// the way to here and back, and because a server that was restarted counts in
// seconds.
func margin(d time.Duration) time.Duration {
	return min(max(d/20, time.Second), 10*time.Second)
}

// take ends the lease of r for its holder to settle, if it has not ended.
func (q *queue) take(r engine.Receipt) (*lease, error) {
	l, err := q.own(r)
	if err != nil {
		return nil, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := q.leasedLocked(l); err != nil {
		return nil, err
	}
	q.removeLocked(l)
	return l, nil
}

// restore undoes take, of a lease with which nothing was done: its holder may try something
// else.
func (q *queue) restore(l *lease) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.leases[l.sequence] == nil && l.sequence > q.purged && time.Now().Before(l.end()) {
		l.alive = true
		q.leases[l.sequence] = l
	}
}

// own returns the lease that r is.
func (q *queue) own(r engine.Receipt) (*lease, error) {
	if l, ok := r.(*lease); ok && l.queue == q {
		return l, nil
	}
	return nil, fmt.Errorf("fanoutnats: queue %q: the receipt is not one of its own", q.spec.Name)
}

// aliveLocked says why l can't be settled, or nil.
func (q *queue) aliveLocked(l *lease) error {
	if q.closed {
		return engine.ErrClosed
	}
	return q.leasedLocked(l)
}

// leasedLocked is aliveLocked, also after Close.
func (q *queue) leasedLocked(l *lease) error {
	if !l.alive || !time.Now().Before(l.end()) {
		return fmt.Errorf("fanoutnats: topic %q: queue %q: message %d, delivery %d: %w",
			q.topic.spec.Name, q.spec.Name, l.sequence, l.deliveries, engine.ErrStale)
	}
	return nil
}

func (q *queue) removeLocked(l *lease) {
	l.alive = false
	delete(q.leases, l.sequence)
}

// dropLeases forgets all leases, without telling the server.
func (q *queue) dropLeases() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, l := range q.leases {
		l.alive = false
	}
	clear(q.leases)
}

// hide makes a message available again after d.
func (q *queue) hide(reply string, d time.Duration) {
	// It fails only if the connection is closed. Then what the server had been told
	// before holds.
	_ = q.topic.engine.nc.Publish(reply, hideFor(d))
}
