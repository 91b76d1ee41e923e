package topic

import (
	"context"
	"fmt"
	"slices"

	"github.com/gofanout/fanout/internal/callback"
	"github.com/gofanout/fanout/internal/lifecycle"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/settings"
)

// A replaying queue has filters, which are asked about what the topic retains
// while others publish. They are asked without a lock, about one snapshot.
// Meanwhile the queue is one of t.opening: it gets what is published, as any queue
// with a filter does, but nobody else sees it, and it arms no timer.
type replaying[T any] struct {
	q     *queue.Queue[T]
	its   []message.Item[T] // the snapshot, oldest first
	most  int               // how many of them q may get
	aside int               // the room that was set aside for them
	stamp uint64            // of its[0]: they come before what is published from now on
}

// beginReplayLocked makes q one of t.opening. Room for the replay is set aside,
// so that q never holds more than its capacity. DropOldest needs none: it would
// drop first what is replayed.
func (t *Topic[T]) beginReplayLocked(q *queue.Queue[T]) *replaying[T] {
	r := &replaying[T]{q: q, its: t.In.RetainedLocked(), most: min(q.Store.Set.Replay, q.Store.Set.Capacity)}
	if q.Store.Set.Overflow != settings.DropOldest {
		r.aside = min(r.most, len(r.its))
	}
	q.Store.Allow.Add(-int64(r.aside))
	r.stamp = q.Store.Win.Reserve(len(r.its))
	q.Opening = true
	if t.opening == nil {
		t.opening = make(map[string]*queue.Queue[T])
	}
	t.opening[q.Name()] = q
	t.In.AddLocked(q)
	return r
}

// replay asks q's filters and opens q, or leaves nothing of it. No lock is held.
func (t *Topic[T]) replay(ctx context.Context, r *replaying[T]) (err error) {
	opened := false
	defer func() { // even if a filter ends the goroutine
		if !opened {
			t.giveUpReplay(r.q)
		}
	}()
	accepted, err := r.accepted(ctx)
	if err != nil {
		return err
	}
	t.In.Mu.Lock()
	if !t.In.IsOpenLocked() {
		t.In.Mu.Unlock()
		return message.ErrClosed
	}
	opened = true
	delete(t.opening, r.q.Name())
	t.queues[r.q.Name()] = r.q
	t.In.Live.Add(1)
	r.open(accepted)
	t.In.Unlock()
	return nil
}

// giveUpReplay forgets a queue that was not opened, and lets those go on who wait
// for room in it.
func (t *Topic[T]) giveUpReplay(q *queue.Queue[T]) {
	t.In.Mu.Lock()
	delete(t.opening, q.Name())
	q.Closing = true
	d := lifecycle.DeadIfAny(q) // what expired meanwhile is there
	if !t.In.IsClosedLocked() {
		t.In.RemoveLocked(q)
		if d != nil {
			t.keepOrphanLocked(d)
			d = nil
		}
	}
	if d != nil {
		lifecycle.CloseNow(d, false)
	}
	t.In.TurnsWithoutLocked(q)
	var p notice.Pending
	t.In.UnlockTo(&p)
	q.Report.Stop()
	if d != nil {
		d.Report.Stop()
	}
	p.Perform()
}

// accepted returns the indexes of what of the snapshot q's filters accept.
func (r *replaying[T]) accepted(ctx context.Context) (accepted []int, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("filter of queue %q: %w", r.q.Name(), callback.Error(p))
		}
	}()
	for k := range r.its {
		if ctx.Err() != nil {
			return nil, message.ContextError(ctx)
		}
		if r.q.Filters.Accepts(&r.its[k]) {
			accepted = append(accepted, k)
		}
	}
	return accepted, nil
}

// open adds the newest of the accepted that have not expired, before all that
// was published meanwhile. The topic's Mu is held.
func (r *replaying[T]) open(accepted []int) {
	q := r.q
	q.Mu.Lock()
	defer q.UnlockUnder(q.T)
	q.AdoptLocked()
	q.Opening = false
	q.Store.Allow.Add(int64(r.aside))
	now := q.Core.Now()
	accepted = slices.DeleteFunc(accepted, func(k int) bool { return q.Store.Expired(&r.its[k], now) })
	accepted = accepted[max(len(accepted)-r.most, 0):]
	for _, k := range accepted { // the oldest first: keys stand in line as they are added
		q.Store.Enter(&r.its[k], r.stamp+uint64(k), now)
	}
	q.Store.Offered += uint64(len(accepted))
	for over := -q.Store.Room(); over > 0; over-- {
		q.DropOldestLocked(0) // one that is replayed
	}
	q.ArmLocked(now)
}
