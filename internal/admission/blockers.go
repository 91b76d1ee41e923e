package admission

import (
	"github.com/gofanout/fanout/internal/handling"
	"github.com/gofanout/fanout/internal/overflow"
	"github.com/gofanout/fanout/internal/settings"
)

// blockersOf returns the full queues that waiter w waits for: its own, and those
// of the waiters that it stands behind, as far as they are the first of their lines.
// Who stands in between is looked at when he is the first.
func (a *Admission[T]) blockersOf(w *waiter[T]) (full []handling.Queue) {
	a.Mu.Lock()
	defer a.Mu.Unlock()
	if !w.Waits() {
		return nil
	}
	seen := map[*waiter[T]]bool{w: true}
	for todo := []*waiter[T]{w}; len(todo) > 0; {
		o, number := todo[0].Offer, todo[0].Number()
		todo = todo[1:]
		for q, n := range o.Targets(&a.open) {
			switch {
			case q.Store.Set.Overflow != settings.Block && o.Redrive == nil:
			case overflow.HasRoom(q, int64(n)):
				q.Blocks = false
			default:
				full = append(full, q)
			}
		}
		for ahead := range a.lines.Ahead(o, a.open.Len() > 0, number) {
			if first := waiterOf[T](ahead); !seen[first] {
				seen[first] = true
				todo = append(todo, first)
			}
		}
	}
	return full
}
