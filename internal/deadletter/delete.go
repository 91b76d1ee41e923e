package deadletter

import (
	"context"
	"fmt"
	"slices"

	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/view"
)

// Delete deletes dead letters of this queue: those that c selects. It returns how many.
func Delete[T any](ctx context.Context, q *queue.Queue[T], c *Choice[T]) (deleted int, err error) {
	if err := find(q, "delete letters", c); err != nil {
		return 0, err
	}
	if e, ok := q.Keeper.(Elsewhere[T]); ok {
		deleted, err = e.DeleteLetters(ctx, c)
	} else if c.dead == nil {
		err = c.Unknown()
	} else {
		deleted, err = deleteFrom(ctx, q, c)
	}
	if err != nil {
		err = fmt.Errorf("fanout: delete letters of %q: %w", q.Name(), err)
	}
	return deleted, err
}

// deleteFrom deletes letters in memory.
func deleteFrom[T any](ctx context.Context, q *queue.Queue[T], c *Choice[T]) (deleted int, err error) {
	letters, err := selectFrom(q, c)
	if err != nil {
		return 0, err
	}
	for some := range slices.Chunk(lettersOf(letters), view.LookLen) {
		if ctx.Err() != nil {
			return deleted, message.ContextError(ctx)
		}
		deleted += drop(c.dead, some)
	}
	return deleted, c.Unknown()
}

// drop deletes letters that are still in this dead-letter queue, and not in flight.
func drop[T any](d *queue.Queue[T], letters []queue.Letter) (n int) {
	d.Mu.Lock()
	defer d.Unlock()
	for _, l := range letters {
		if !hasLetterLocked(d, l) {
			continue
		}
		it := d.Store.Win.At(l.Entry).Item
		d.Store.Discard(l.Entry)
		d.Store.Counters().Dropped++
		d.NoteItemLocked(notice.Dropped, &it, notice.Event{Reason: notice.DroppedByDelete})
		n++
	}
	d.ArmLocked(d.Core.Now())
	d.HandOnLocked() // a letter that went may have been the head of its key
	return n
}
