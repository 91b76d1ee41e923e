package queue

import (
	"math"

	"github.com/gofanout/fanout/internal/store"
)

// offerSwapLocked has a redrive that waits for room here looked at, since it can
// change places with what is parked: it makes RoomWanted as low as no allow is,
// so that the next Unlock goes to tell.
func (q *Queue[T]) offerSwapLocked() {
	for g := q.RoomWanted.Load(); g != 0 && !q.RoomWanted.CompareAndSwap(g, math.MinInt64); {
		g = q.RoomWanted.Load()
	}
}

// CanSwap reports whether a redrive could change places with something parked.
func (q *Queue[T]) CanSwap() bool {
	q.Mu.Lock()
	defer q.Mu.Unlock()
	return q.In(store.Parked) > 0
}
