package routing

import (
	"iter"
	"sync/atomic"

	"github.com/gofanout/fanout/internal/queue"
)

// A List holds queues in the order in which they were added. Adding one and
// removing one cost the same however many there are: who is removed leaves a gap, and
// the list is made anew when there are more gaps than queues. The topic's Mu guards it,
// but what places held at some instant can be read without: it is only added to, and
// gaps are made in it. A queue is in one list at most.
type List[T any] struct {
	places []atomic.Pointer[queue.Queue[T]] // nil: a gap
	n      int                              // queues
}

// Add puts q at the end.
func (l *List[T]) Add(q *queue.Queue[T]) {
	if len(l.places) == cap(l.places) {
		l.renew()
	}
	l.append(q)
	l.n++
}

// append puts q at the end. There is room for it.
func (l *List[T]) append(q *queue.Queue[T]) {
	q.Place = int32(len(l.places))
	l.places = l.places[:q.Place+1]
	l.places[q.Place].Store(q)
}

// Remove takes q out. It is in the list.
func (l *List[T]) Remove(q *queue.Queue[T]) {
	l.places[q.Place].Store(nil)
	switch l.n--; {
	case l.n == 0:
		l.places = nil
	case len(l.places) > 2*l.n+4:
		l.renew()
	}
}

// renew closes the gaps, and makes room for an eighth more queues.
func (l *List[T]) renew() {
	old := *l
	l.places = make([]atomic.Pointer[queue.Queue[T]], 0, l.n+l.n/8+4)
	for q := range old.All() {
		l.append(q)
	}
}

// All yields the queues in their order.
func (l *List[T]) All() iter.Seq[*queue.Queue[T]] {
	return func(yield func(*queue.Queue[T]) bool) {
		for k := range l.places {
			if q := l.places[k].Load(); q != nil && !yield(q) {
				return
			}
		}
	}
}

// Len is how many queues there are.
func (l *List[T]) Len() int { return l.n }
