package fanout

import "fmt"

// retained is the last messages of a topic, for queues that are opened later:
// a ring that grows up to its size. The topic's mu guards it.
type retained[T any] struct {
	size int
	ring []item[T]
	next int // where the next message goes, once the ring has its size
}

func (r *retained[T]) add(it item[T]) {
	switch {
	case r.size == 0:
	case len(r.ring) < r.size:
		r.ring = append(r.ring, it)
	default:
		r.ring[r.next] = it
		r.next = (r.next + 1) % r.size
	}
}

// since returns what was published after message number seq, oldest first.
func (r *retained[T]) since(seq uint64) (its []item[T]) {
	for k := range r.ring {
		if it := r.ring[(r.next+k)%len(r.ring)]; it.seq > seq {
			its = append(its, it)
		}
	}
	return its
}

// pastLocked returns with t.mu held, and with the messages that queue q, which is
// being opened, replays. Its filters are asked without the lock, so it looks
// again until nothing was published meanwhile.
func (t *Topic[T]) pastLocked(q *Queue[T]) (past []item[T], err error) {
	t.mu.Lock()
	if q.set.replay == 0 {
		return nil, nil
	}
	var seen uint64
	for {
		its := t.retained.since(seen)
		if len(its) == 0 {
			break
		}
		seen = its[len(its)-1].seq
		t.mu.Unlock()
		its, err = q.accepted(its)
		past = append(past, its...)
		t.mu.Lock()
		if err != nil {
			return nil, err
		}
	}
	now := t.now()
	live := past[:0]
	for k := range past {
		if !q.expired(&past[k], now) {
			live = append(live, past[k])
		}
	}
	return live[max(len(live)-min(q.set.replay, q.set.capacity), 0):], nil
}

// accepted returns what of its q's filters accept. No lock is held.
func (q *Queue[T]) accepted(its []item[T]) (kept []item[T], err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("filter of queue %q: %w", q.name, panicError(p))
		}
	}()
	for k := range its {
		if q.accepts(&its[k]) {
			kept = append(kept, its[k])
		}
	}
	return kept, nil
}

// replay adds what was published before the queue was opened.
func (q *Queue[T]) replay(past []item[T]) {
	for k := range past {
		q.addLocked(&past[k])
	}
	q.offered += uint64(len(past))
	q.armLocked(q.core.now())
}
