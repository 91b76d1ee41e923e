package fanout

// A batch is taken from the log in one claim, and acknowledged in one step when
// the handler returns nil. Until then it is the worker's hand, and all of it is
// current: whoever needs more of one message than that it runs (its settlement,
// an error, the end of its visibility timeout) makes all of them entries of the
// window, with the stamps and the start that they have.
//
// The slice that a handler is given is its to keep and to change, so it is
// neither what the worker settles nor what it uses again. Such slices are cut
// from slabs while batches come quickly one after the other. A slab keeps all in
// memory that any of its batches holds, so it is dropped a millisecond later.

// slabLen is how many deliveries a slab has room for.
const slabLen = 4 * handLen

// A slab is room for batches to come. The queue's mu guards it.
type slab[T any] struct {
	room  []Delivery[T]
	cutAt int64 // when the last batch was cut from it
}

// holdBatchLocked takes a batch from the log, if all that it would be made of
// is there and can be taken in this way. If that is less than a whole batch, what
// waits in hands goes first: it was published earlier.
func (w *worker[T]) holdBatchLocked(now int64) bool {
	s, q := w.s, w.s.q
	n := min(q.inLogLocked(), s.most)
	if s.stopping || !q.servesLocked() || q.dueLocked() > 0 || q.n[backlogged] > 0 || n < s.most && q.takeAllBackLocked() || !q.plainLocked(n) {
		return false
	}
	ds, base := w.roomFor(n), q.win.Reserve(n)
	for k := 0; k < n; {
		run := q.cursor.Run(n - k)
		q.copyOut(ds[k:k+len(run)], run, base+uint64(k), inHand)
		q.cursor.Step(len(run))
		k += len(run)
	}
	w.grasp(ds, base, n, now)
	w.giveLocked(ds, now)
	return true
}

// plainLocked reports whether nothing has to be kept apart of the next n messages
// of the log.
func (q *Queue[T]) plainLocked(n int) bool {
	run := q.cursor.Run(n)
	if plainOf(run) < len(run) {
		return false
	}
	if n -= len(run); n == 0 {
		return true
	}
	plain, skip := true, len(run)
	q.cursor.Scan(func(it *item[T]) bool {
		if skip > 0 {
			skip--
			return true
		}
		plain = it.Ext.Plain()
		n--
		return plain && n > 0
	})
	return plain
}

// giveLocked makes ds the worker's batch, and what its handler is given.
func (w *worker[T]) giveLocked(ds []Delivery[T], now int64) {
	w.batch, w.given = ds, ds
	if w.s.keeps {
		w.given = w.s.slab.cut(len(ds), now)
		copy(w.given, ds)
	}
}

// cut returns a slice of n deliveries that nobody else has.
func (s *slab[T]) cut(n int, now int64) []Delivery[T] {
	quick := now-s.cutAt < int64(handAge)
	s.cutAt = now
	switch {
	case len(s.room) >= n:
	case !quick || n > slabLen/2:
		return make([]Delivery[T], n)
	default:
		s.room = make([]Delivery[T], slabLen)
	}
	ds := s.room[:n:n]
	s.room = s.room[n:]
	if len(s.room) == 0 {
		s.room = nil // an empty slice would keep the array too
	}
	return ds
}

// drop lets go of the room that is left.
func (s *slab[T]) drop() {
	if s != nil {
		s.room = nil
	}
}

// ackBatch acknowledges the worker's batch if nobody has asked for more of it,
// and reports whether it has.
func (w *worker[T]) ackBatch() bool {
	q := w.s.q
	q.mu.Lock()
	held := len(w.claims) == 0
	if !held {
		q.mu.Unlock()
		return false
	}
	w.countLocked(len(w.hand), len(w.hand))
	q.unlock()
	return true
}
