package enginequeue

import (
	"context"
	"fmt"
	"time"

	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/internal/deadletter"
	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/engineletters"
	"github.com/gofanout/fanout/internal/lifecycle"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/onengine"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/store"
	"github.com/gofanout/fanout/internal/view"
)

// What it is asked for beside what a keeper is: these are found by their type.
var (
	_ delivery.Elsewhere[int]   = (*Queue[int])(nil)
	_ view.Elsewhere[int]       = (*Queue[int])(nil)
	_ deadletter.Elsewhere[int] = (*Queue[int])(nil)
)

// A Queue is what a queue has of its engine. The queue's Mu guards the
// fields below.
//
// Invariants: every entry of the window has a lease; the queue's calls counts what is
// being told to the engine; its polling says that the poller runs, and it does only
// while some worker is free.
type Queue[T any] struct {
	// Immutable.
	on *Topic[T]
	q  *queue.Queue[T]
	eq engine.Queue
	// dead is what keeps the dead letters, nil of one that keeps letters.
	dead *Queue[T]

	asked int // capacity that the user asked for; Unknown if he asked for none

	deleted bool // from the engine; guarded by the topic's turn

	stopPoll  context.CancelFunc       // of the poller that runs
	resumed   chan struct{}            // closed by Resume and Close; made when somebody waits for it
	ending    map[uint64]chan struct{} // by stamp, deliveries whose settlement the engine is told; closed after it
	memories  onengine.Memories
	oversized map[string]bool // IDs of messages that were told to be too large for the dead letters
	found     engine.Stats    // what a shutdown found in the engine
}

// A leased is what an entry has of the engine's.
type leased struct {
	receipt    engine.Receipt
	msg        engine.Message
	deliveries int
	born       time.Time // when the time to live began, if not at publication
}

// Encoded returns the body as the engine carried it.
func (l *leased) Encoded() []byte { return l.msg.Body }

// leaseOf is what a message has of an engine's, nil in memory.
func leaseOf(x *message.Extra) *leased {
	if x == nil {
		return nil
	}
	l, _ := x.Receipt.(*leased)
	return l
}

func newQueue[T any](t *Topic[T], q *queue.Queue[T], eq engine.Queue) *Queue[T] {
	r := &Queue[T]{on: t, q: q, eq: eq, asked: engine.Unknown}
	q.Keeper, q.Local, q.Entries, q.Renews, q.Store.Evicts = r, false, true, true, false
	return r
}

// Capacity is what the user asked for.
func (r *Queue[T]) Capacity() int { return r.asked }

// ChangedLocked looks again at whether the poller has to wait, and whoever waits for the
// queue's end of a pause.
func (r *Queue[T]) ChangedLocked() {
	r.stopPollLocked()
	r.resumeLocked()
}

// Hide makes unknown what only the engine knows.
func (r *Queue[T]) Hide(s *view.Stats) {
	s.InFlight += s.Ready // received, and with no worker yet
	s.Capacity = r.asked
	for _, n := range []*int{&s.Ready, &s.Delayed, &s.Retrying, &s.Parked, &s.Released, &s.Blocked, &s.Published} {
		*n = engine.Unknown
	}
	s.OldestAge = engine.Unknown
	if !r.q.Store.Letters {
		s.Dead = engine.Unknown
	}
}

// lease is what the engine is asked for a visibility timeout of vis: 0, the
// engine's own, if it keeps none.
func (r *Queue[T]) lease(vis time.Duration) time.Duration {
	if !r.on.Caps[engine.Visibility].Kept {
		return 0
	}
	lease := time.Duration(message.After(int64(vis), leaseSlack))
	if most := r.on.Caps[engine.Visibility].Most; most > 0 {
		lease = min(lease, most)
	}
	return lease
}

// Close is Close for a queue on an engine. Its dead letters stay where they are, there.
func (r *Queue[T]) Close() error {
	q := r.q
	if q.Store.Letters {
		return r.lettersOpen(false)
	}
	p, first := r.on.Host.Leave(q, false)
	if !first {
		return nil
	}
	defer q.Core.Release()
	defer q.Report.Stop()
	defer q.Dead.Report.Stop()
	return r.closeAfter(&p)
}

// lettersOpen returns the error for ending a dead-letter queue before its queue, with
// which it ends; nil if that has ended.
func (r *Queue[T]) lettersOpen(deleting bool) error {
	if r.on.Host.HasEnded(r.q.Source) {
		return nil
	}
	return lifecycle.SourceIsOpen(r.q, deleting)
}

// closeAfter closes the engine's queue once p was performed, even if a hook ends
// the goroutine.
func (r *Queue[T]) closeAfter(p *notice.Pending) (err error) {
	defer func() { err = onengine.Error(r.eq.Close()) }()
	p.Perform()
	return nil
}

// Delete removes the queue from the engine.
func (r *Queue[T]) Delete(ctx context.Context) error {
	q := r.q
	if err := r.on.Need(true, "Delete", engine.Deletion, 0); err != nil {
		return err
	}
	if q.Store.Letters {
		return r.lettersOpen(true)
	}
	p, first, err := r.deleteInTurn(ctx)
	if first {
		defer q.Core.Release()
		defer q.Report.Stop()
		defer q.Dead.Report.Stop()
	}
	p.Perform()
	return err
}

// deleteInTurn closes the queue and removes it from the engine while no other is being
// opened: one of its name would be removed, too. What has to be told waits until then.
func (r *Queue[T]) deleteInTurn(ctx context.Context) (p notice.Pending, first bool, err error) {
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
	p, first = r.on.Host.Leave(q, true)
	p.CancelAll()
	again, over := r.on.Host.QueueState(q.Name())
	switch {
	case again:
		return p, first, fmt.Errorf("%w: it was opened again since: delete that one", message.ErrClosed)
	case over:
		return p, first, fmt.Errorf("%w: topic %q", message.ErrClosed, q.Core.TopicName)
	}
	if first {
		_ = r.eq.Close() // the queue is closed here, whatever the engine says
	}
	n, letters, err := r.eq.Delete(ctx)
	if err != nil {
		return p, first, onengine.Error(err)
	}
	r.deleted = true
	q.DroppedByDelete(n, &p)
	q.Dead.DroppedByDelete(letters, &p)
	return p, first, nil
}

// Purge drops what the engine holds of the queue, and takes back what is in flight here.
func (r *Queue[T]) Purge(ctx context.Context) (int, error) {
	q := r.q
	n, err := r.eq.Purge(ctx)
	if err != nil {
		return n, fmt.Errorf("fanout: purge of %q: %w", q.Name(), onengine.Error(err))
	}
	// What is in flight here the engine held, too: it counts once. An engine that knows
	// its depth roughly may have said less.
	q.Mu.Lock()
	defer q.Unlock()
	here, err := lifecycle.PurgeLocked(q)
	if n -= here; n > 0 {
		q.NoteLocked(notice.Dropped, notice.Event{Reason: notice.DroppedByPurge, Count: n})
		q.Store.Counters().Dropped += uint64(n)
	}
	return max(n, 0) + here, err
}

// AwaitEmpty waits until the engine holds nothing of the queue that is ready or
// in flight, here or elsewhere.
func (r *Queue[T]) AwaitEmpty(ctx context.Context) error {
	q := r.q
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		q.Mu.Lock()
		paused, closed := q.Paused, q.Store.Closed
		q.Mu.Unlock()
		if closed {
			return nil
		}
		s, err := r.eq.Stats(ctx)
		if err == nil {
			q.Mu.Lock()
			r.found = s
			q.Mu.Unlock()
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

// AskLeft asks the engine what it holds of the queue, for the error of a Shutdown.
func (r *Queue[T]) AskLeft() {
	ctx, cancel := context.WithTimeout(context.Background(), onengine.ProbeTime)
	defer cancel()
	if s, err := r.eq.Stats(ctx); err == nil {
		r.q.Mu.Lock()
		r.found = s
		r.q.Mu.Unlock()
	}
}

// Left is what AskLeft, or AwaitEmpty, found last.
func (r *Queue[T]) Left() (ready, inFlight int) { return r.found.Ready, r.found.InFlight }

// LetGo closes the engine's queue. The queue is closed here, whatever the engine says.
func (r *Queue[T]) LetGo() { _ = r.eq.Close() }

// Look returns dead letters. They can't be looked at page by page.
func (r *Queue[T]) Look(ctx context.Context, _ view.Seat, o view.PeekOptions) (seen []view.Sight[T], more bool, err error) {
	if o.After != "" {
		return nil, false, r.on.Refuse(fmt.Sprintf("PeekOptions.After(%q)", o.After), "letters are received to be looked at; ask for more at a time")
	}
	ds, err := r.Peek(ctx, o.Most)
	for _, d := range ds {
		seen = append(seen, view.Sight[T]{D: d, State: store.Due})
	}
	return seen, false, err
}

// letters is the queue as dead letters that can be looked at.
func (r *Queue[T]) letters() *engineletters.Source[T] {
	return &engineletters.Source[T]{Q: r.q, Engine: r.eq, Lease: r.lease, Decode: func(got []engine.Received) []engineletters.Letter[T] {
		ls := make([]engineletters.Letter[T], len(got))
		for k, a := range r.decode(got) {
			ls[k] = engineletters.Letter[T]{Held: a.Held, Spent: a.spent}
		}
		return ls
	}}
}

// Peek looks at dead letters.
func (r *Queue[T]) Peek(ctx context.Context, most int) (ds []delivery.Delivery[T], err error) {
	if !r.q.Store.Letters {
		return nil, r.on.Refuse("Peek", "only dead letters can be looked at there; Depth says how many messages there are")
	}
	return r.letters().Peek(ctx, most)
}

// Redrive moves dead letters back to the queue.
func (r *Queue[T]) Redrive(ctx context.Context, c *deadletter.Choice[T]) (moved int, err error) {
	return r.dead.letters().Redrive(ctx, r.q, c)
}

// DeleteLetters acknowledges dead letters.
func (r *Queue[T]) DeleteLetters(ctx context.Context, c *deadletter.Choice[T]) (deleted int, err error) {
	return r.dead.letters().Delete(ctx, r.q, c)
}

func (r *Queue[T]) Depth(ctx context.Context) (d view.Depth, err error) {
	info := engine.QueueInfo{Name: r.q.Name()}
	if info.Stats, err = r.eq.Stats(ctx); err == nil && !r.q.Store.Letters {
		info.Letters, err = r.dead.eq.Stats(ctx)
	}
	return DepthOf(info), err
}

// DepthOf is what an engine says of a queue.
func DepthOf(i engine.QueueInfo) view.Depth {
	return view.Depth{
		Queue: i.Name, Ready: i.Stats.Ready, Delayed: i.Stats.Delayed, InFlight: i.Stats.InFlight,
		Dead: i.Letters.Sum(), OldestAge: i.Stats.OldestAge,
	}
}
