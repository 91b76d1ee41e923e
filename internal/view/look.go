package view

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sort"

	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/store"
)

// Peek returns up to most of the queue's messages in the order of publication. It takes none.
// ctx has not ended.
func Peek[T any](ctx context.Context, q *queue.Queue[T], most int) ([]delivery.Delivery[T], error) {
	e, ok := elsewhere(q)
	if !ok {
		return peekHere(q, most), nil
	}
	ds, err := e.Peek(ctx, most)
	if err != nil {
		return ds, fmt.Errorf("fanout: peek at %q: %w", q.Name(), err)
	}
	return ds, nil
}

// peekHere is Peek in memory.
func peekHere[T any](q *queue.Queue[T], most int) []delivery.Delivery[T] {
	q.Mu.Lock()
	q.Store.TakeAllBack()
	ds := peekLocked(q)
	if !q.Store.Direct && !q.Store.Closed {
		q.Store.Cursor.Scan(func(it *message.Item[T]) bool {
			ds = append(ds, delivery.InLog(q, it))
			return len(ds) < most
		})
	}
	q.Unlock() // what was taken back was tallied
	return ds[:min(most, len(ds))]
}

// peekLocked returns what of the window is neither in flight nor parked, in
// the order of publication.
func peekLocked[T any](q *queue.Queue[T]) []delivery.Delivery[T] {
	q.Store.UnfoldAll()
	var ds []delivery.Delivery[T]
	q.Store.Win.All(func(i int32) bool {
		if m := q.Store.Win.Meta(i); m.State != store.Parked && !q.Store.InFlight(i) {
			ds = append(ds, delivery.PeekedLocked(q, i))
		}
		return true
	})
	InOrder(ds)
	return ds
}

// InOrder sorts deliveries by when their messages were published.
func InOrder[T any](ds []delivery.Delivery[T]) {
	sort.Slice(ds, func(j, k int) bool { return ds[j].Seq < ds[k].Seq })
}

// LookLen is how many messages are looked at under one lock.
const LookLen = 1024

// lookHere returns the messages behind a seat, at most as many as are asked for, in the
// order of publication, and whether there are more. It looks at the log before the window,
// since that is the way that messages go.
func lookHere[T any](ctx context.Context, q *queue.Queue[T], after Seat, most int) (seen []Sight[T], more bool, err error) {
	s := sights[T]{after: after, most: min(most, math.MaxInt-1) + 1}
	q.Mu.Lock()
	q.Store.TakeAllBack()
	held := q.Store.Win.Len()
	q.Unlock() // what was taken back was tallied
	s.seen = make([]Sight[T], 0, min(s.most, held)+min(LookLen, held))
	pos, entry := int64(0), int32(0)
	for _, step := range []func() bool{
		func() bool { // what timed out together
			q.Store.Unfold(LookLen)
			return q.Store.Leases.TimedOut() > 0
		},
		func() bool { return seeLogLocked(q, &s, &pos) },
		func() (more bool) {
			entry, more = q.Store.Win.Scan(entry, LookLen, func(i int32) { seeLocked(q, &s, i) })
			return more
		},
	} {
		for more := true; more; {
			q.Locked(func() { more = step() })
			s.trim()
			if ctx.Err() != nil {
				return nil, false, message.ContextError(ctx)
			}
		}
	}
	if len(s.seen) == s.most {
		return s.seen[:most], true, nil
	}
	return s.seen, false, nil
}

// seeLogLocked looks at what stands in the log from pos on, and reports whether there may
// be more that is wanted.
func seeLogLocked[T any](q *queue.Queue[T], s *sights[T], pos *int64) (more bool) {
	if q.Store.Direct || q.Store.Closed {
		return false
	}
	*pos = max(*pos, q.Store.Cursor.Pos())
	n := 0
	q.Store.Cursor.ScanFrom(*pos, func(it *message.Item[T]) bool {
		if at := (Seat{it.Seq, inLog}); s.wants(at) {
			s.seen = append(s.seen, Sight[T]{place: at, D: delivery.InLog(q, it), State: store.Backlogged})
		}
		n++
		return n < LookLen
	})
	*pos += int64(n)
	return n == LookLen && len(s.seen) < s.most // they come in order
}

// seeLocked looks at an entry of the window.
func seeLocked[T any](q *queue.Queue[T], s *sights[T], i int32) {
	m, h := q.Store.Win.Meta(i), q.Store.Win.At(i)
	at := Seat{h.Seq, i}
	if !s.wants(at) || q.Store.InFlight(i) {
		return
	}
	seen := Sight[T]{place: at, D: delivery.PeekedLocked(q, i), State: m.State}
	if m.State == store.Delayed || m.State == store.Retrying {
		seen.due = m.Deadline
	}
	s.seen = append(s.seen, seen)
}

// sights are the first messages behind a seat, as far as a queue was looked at. They
// belong to one goroutine.
type sights[T any] struct {
	after   Seat
	most    int
	seen    []Sight[T]
	trimmed int // how many of seen are in order, and the first of all
}

// wants reports whether a message is behind the seat and before the last that is wanted.
func (s *sights[T]) wants(at Seat) bool {
	return at.compare(s.after) > 0 && (s.trimmed < s.most || at.compare(s.seen[s.most-1].place) < 0)
}

// trim brings what was seen in order, and forgets what is too much. A message that was
// seen twice, in the log and in the window or in two entries, is there once.
func (s *sights[T]) trim() {
	if len(s.seen) == s.trimmed {
		return
	}
	sort.Slice(s.seen, func(j, k int) bool { return s.seen[j].place.compare(s.seen[k].place) < 0 })
	s.seen = slices.CompactFunc(s.seen, func(a, b Sight[T]) bool {
		return a.place.seq == b.place.seq && (a.place.entry == inLog || !a.D.Q.Store.Letters)
	})
	if len(s.seen) > s.most {
		clear(s.seen[s.most:])
		s.seen = s.seen[:s.most]
	}
	s.trimmed = len(s.seen)
}
