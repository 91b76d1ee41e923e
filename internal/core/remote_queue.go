package core

import (
	"context"
	"fmt"
	"time"

	"github.com/gofanout/fanout/internal/onengine"

	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
)

// A remoteQueue is what a queue has of its engine. The queue's mu guards the
// fields below.
//
// Invariants: every entry of the window has a lease; the queue's calls counts what is
// being told to the engine; its polling says that the poller runs, and it does only
// while some worker is free.
type remoteQueue[T any] struct {
	// Immutable.
	on *remoteTopic[T]
	q  *Queue[T]
	eq engine.Queue
	// dead is what keeps the dead letters, nil of one that keeps letters.
	dead *remoteQueue[T]

	asked int // capacity that the user asked for; Unknown if he asked for none

	deleted bool // from the engine; guarded by the topic's turn

	stopPoll  context.CancelFunc       // of the poller that runs
	resumed   chan struct{}            // closed by Resume and Close; made when somebody waits for it
	ending    map[uint64]chan struct{} // by stamp, deliveries whose settlement the engine is told; closed after it
	memories  onengine.Memories
	oversized map[string]bool // IDs of messages that were told to be too large for the dead letters
	found     engine.Stats    // what a shutdown found in the engine
}

// A remoteLease is what an entry has of the engine's.
type remoteLease struct {
	receipt    engine.Receipt
	msg        engine.Message
	deliveries int
	born       time.Time // when the time to live began, if not at publication
}

// Encoded returns the body as the engine carried it.
func (l *remoteLease) Encoded() []byte { return l.msg.Body }

// leaseOf is what a message has of an engine's, nil in memory.
func leaseOf(x *extra) *remoteLease {
	if x == nil {
		return nil
	}
	l, _ := x.Receipt.(*remoteLease)
	return l
}

func newRemoteQueue[T any](t *remoteTopic[T], q *Queue[T], eq engine.Queue) *remoteQueue[T] {
	r := &remoteQueue[T]{on: t, q: q, eq: eq, asked: Unknown}
	q.keeper, q.local, q.entries, q.renews, q.evicts = r, false, true, true, false
	return r
}

// capacity is what the user asked for.
func (r *remoteQueue[T]) capacity() int { return r.asked }

// changedLocked looks again at whether the poller has to wait, and whoever waits for the
// queue's end of a pause.
func (r *remoteQueue[T]) changedLocked() {
	r.stopPollLocked()
	r.resumeLocked()
}

// hide makes unknown what only the engine knows.
func (r *remoteQueue[T]) hide(s *Stats) {
	s.InFlight += s.Ready // received, and with no worker yet
	s.Capacity = r.asked
	for _, n := range []*int{&s.Ready, &s.Delayed, &s.Retrying, &s.Parked, &s.Released, &s.Blocked, &s.Published} {
		*n = Unknown
	}
	s.OldestAge = Unknown
	if !r.q.letters {
		s.Dead = Unknown
	}
}

// lease is what the engine is asked for a visibility timeout of vis: 0, the
// engine's own, if it keeps none.
func (r *remoteQueue[T]) lease(vis time.Duration) time.Duration {
	if !r.on.Caps[engine.Visibility].Kept {
		return 0
	}
	lease := time.Duration(after(int64(vis), leaseSlack))
	if most := r.on.Caps[engine.Visibility].Most; most > 0 {
		lease = min(lease, most)
	}
	return lease
}

// close is Close for a queue on an engine. Its dead letters stay where they are, there.
func (r *remoteQueue[T]) close() error {
	q := r.q
	if q.letters {
		return r.lettersOpen(false)
	}
	p, first := r.on.host.leave(q, false)
	if !first {
		return nil
	}
	defer q.core.release()
	defer q.report.Stop()
	defer q.dead.report.Stop()
	return r.closeAfter(&p)
}

// lettersOpen returns the error for ending a dead-letter queue before its queue, with
// which it ends; nil if that has ended.
func (r *remoteQueue[T]) lettersOpen(deleting bool) error {
	if r.on.host.hasEnded(r.q.source) {
		return nil
	}
	return errOpenSource(r.q, deleting)
}

// closeAfter closes the engine's queue once p was performed, even if a hook ends
// the goroutine.
func (r *remoteQueue[T]) closeAfter(p *notice.Pending) (err error) {
	defer func() { err = onengine.Error(r.eq.Close()) }()
	p.Perform()
	return nil
}

// delete removes the queue from the engine.
func (r *remoteQueue[T]) delete(ctx context.Context) error {
	q := r.q
	if err := r.on.Need(true, "Delete", engine.Deletion, 0); err != nil {
		return err
	}
	if q.letters {
		return r.lettersOpen(true)
	}
	p, first, err := r.deleteInTurn(ctx)
	if first {
		defer q.core.release()
		defer q.report.Stop()
		defer q.dead.report.Stop()
	}
	p.Perform()
	return err
}

// deleteInTurn closes the queue and removes it from the engine while no other is being
// opened: one of its name would be removed, too. What has to be told waits until then.
func (r *remoteQueue[T]) deleteInTurn(ctx context.Context) (p notice.Pending, first bool, err error) {
	q := r.q
	select {
	case r.on.Turn <- struct{}{}:
		defer func() { <-r.on.Turn }()
	case <-ctx.Done():
		return p, false, message.ContextError(ctx)
	}
	if r.deleted {
		return p, false, nil
	}
	p, first = r.on.host.leave(q, true)
	p.CancelAll()
	again, over := r.on.host.queueState(q.name)
	switch {
	case again:
		return p, first, fmt.Errorf("%w: it was opened again since: delete that one", message.ErrClosed)
	case over:
		return p, first, fmt.Errorf("%w: topic %q", message.ErrClosed, q.core.name)
	}
	if first {
		_ = r.eq.Close() // the queue is closed here, whatever the engine says
	}
	n, letters, err := r.eq.Delete(ctx)
	if err != nil {
		return p, first, onengine.Error(err)
	}
	r.deleted = true
	q.droppedByDelete(n, &p)
	q.dead.droppedByDelete(letters, &p)
	return p, first, nil
}

// purge drops what the engine holds of the queue, and takes back what is in flight here.
func (r *remoteQueue[T]) purge(ctx context.Context) (int, error) {
	q := r.q
	n, err := r.eq.Purge(ctx)
	if err != nil {
		return n, fmt.Errorf("fanout: purge of %q: %w", q.name, onengine.Error(err))
	}
	// What is in flight here the engine held, too: it counts once. An engine that knows
	// its depth roughly may have said less.
	q.mu.Lock()
	defer q.unlock()
	here, err := q.purgeLocked()
	if n -= here; n > 0 {
		q.noteLocked(notice.Dropped, notice.Event{Reason: notice.DroppedByPurge, Count: n})
		q.rareLocked().dropped += uint64(n)
	}
	return max(n, 0) + here, err
}

// awaitEmpty waits until the engine holds nothing of the queue that is ready or
// in flight, here or elsewhere.
func (r *remoteQueue[T]) awaitEmpty(ctx context.Context) error {
	q := r.q
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		q.mu.Lock()
		paused, closed := q.paused, q.closed
		q.mu.Unlock()
		if closed {
			return nil
		}
		s, err := r.eq.Stats(ctx)
		if err == nil {
			q.mu.Lock()
			r.found = s
			q.mu.Unlock()
		}
		if paused || err == nil && s.Ready == 0 && s.InFlight == 0 {
			return nil
		}
		pause(ctx, wait)
		if ctx.Err() != nil {
			return message.ContextError(ctx)
		}
	}
}

// askLeft asks the engine what it holds of the queue, for the error of a Shutdown.
func (r *remoteQueue[T]) askLeft() {
	ctx, cancel := context.WithTimeout(context.Background(), probeTime)
	defer cancel()
	if s, err := r.eq.Stats(ctx); err == nil {
		r.q.mu.Lock()
		r.found = s
		r.q.mu.Unlock()
	}
}

// left is what askLeft, or awaitEmpty, found last.
func (r *remoteQueue[T]) left() (ready, inFlight int) { return r.found.Ready, r.found.InFlight }

// letGo closes the engine's queue. The queue is closed here, whatever the engine says.
func (r *remoteQueue[T]) letGo() { _ = r.eq.Close() }

// look returns dead letters. They can't be looked at page by page.
func (r *remoteQueue[T]) look(ctx context.Context, _ seat, o PeekOptions) (seen []sight[T], more bool, err error) {
	if o.After != "" {
		return nil, false, r.on.Refuse(fmt.Sprintf("PeekOptions.After(%q)", o.After), "letters are received to be looked at; ask for more at a time")
	}
	ds, err := r.peek(ctx, o.Most)
	for _, d := range ds {
		seen = append(seen, sight[T]{d: d, state: due})
	}
	return seen, false, err
}

func (r *remoteQueue[T]) depth(ctx context.Context) (d Depth, err error) {
	info := engine.QueueInfo{Name: r.q.name}
	if info.Stats, err = r.eq.Stats(ctx); err == nil && !r.q.letters {
		info.Letters, err = r.dead.eq.Stats(ctx)
	}
	return remoteDepth(info), err
}

// remoteDepth is what an engine says of a queue.
func remoteDepth(i engine.QueueInfo) Depth {
	return Depth{
		Queue: i.Name, Ready: i.Stats.Ready, Delayed: i.Stats.Delayed, InFlight: i.Stats.InFlight,
		Dead: i.Letters.Sum(), OldestAge: i.Stats.OldestAge,
	}
}
