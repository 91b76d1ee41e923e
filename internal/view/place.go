package view

import (
	"context"

	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/queue"
)

// An Elsewhere is the keeper of a queue whose messages an engine keeps, which has to be asked
// what these are. No lock is held; ctx is not nil and has not ended.
type Elsewhere[T any] interface {
	Depth(ctx context.Context) (Depth, error)
	Peek(ctx context.Context, most int) ([]delivery.Delivery[T], error)
	// Look returns a page of messages behind a seat, and whether there are more.
	Look(ctx context.Context, after Seat, o PeekOptions) (seen []Sight[T], more bool, err error)
	// Hide makes unknown what only the engine knows.
	Hide(s *Stats)
}

// elsewhere returns the keeper of the queue, if it has one.
func elsewhere[T any](q *queue.Queue[T]) (e Elsewhere[T], ok bool) {
	if q.Keeper == nil {
		return nil, false
	}
	return q.Keeper.(Elsewhere[T]), true
}
