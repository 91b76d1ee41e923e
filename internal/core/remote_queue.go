package core

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/gofanout/fanout/internal/onengine"

	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/internal/callback"
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

// droppedByDelete counts what an engine says that it dropped, and leaves in p what has to
// be told of it.
func (q *Queue[T]) droppedByDelete(n int, p *notice.Pending) {
	if n <= 0 {
		return
	}
	q.mu.Lock()
	q.rareLocked().dropped += uint64(n)
	q.noteLocked(notice.Dropped, notice.Event{Reason: notice.DroppedByDelete, Count: n})
	q.unlockTo(p)
}

// receive asks the engine for messages, for a caller.
func (r *remoteQueue[T]) receive(ctx context.Context, most int, vis time.Duration) ([]Delivery[T], error) {
	q := r.q
	if err := r.on.Need(vis != q.set.Visibility, fmt.Sprintf("WithVisibilityTimeout(%v)", vis), engine.Visibility, vis); err != nil {
		return nil, err
	}
	for {
		if err := r.awaitServing(ctx); err != nil {
			return nil, q.receiveError(err)
		}
		got, err := r.eq.Receive(ctx, most, r.lease(vis))
		if err != nil {
			return nil, q.receiveError(r.receiveError(ctx, err))
		}
		if ds := r.deliver(got, vis); len(ds) > 0 {
			return ds, nil
		}
	}
}

// tryReceive is receive for one who does not want to wait.
func (r *remoteQueue[T]) tryReceive(ctx context.Context, vis time.Duration) (d Delivery[T], ok bool, err error) {
	q := r.q
	soon, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	q.mu.Lock()
	paused := !q.closed && !q.servesLocked()
	q.mu.Unlock()
	if paused {
		return d, false, nil
	}
	ds, err := r.receive(soon, 1, vis)
	switch {
	case err == nil:
		return ds[0], true, nil
	case ctx.Err() == nil && soon.Err() != nil:
		return d, false, nil
	}
	return d, false, err
}

func (r *remoteQueue[T]) receiveError(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, engine.ErrClosed):
		return errQueueClosed
	case ctx.Err() != nil:
		return message.ContextError(ctx)
	}
	return onengine.Error(err)
}

// awaitServing waits while the queue is paused.
func (r *remoteQueue[T]) awaitServing(ctx context.Context) error {
	q := r.q
	for {
		ended := ctx.Err() != nil
		q.mu.Lock()
		if q.closed {
			q.mu.Unlock()
			return errQueueClosed
		}
		if ended || q.servesLocked() {
			q.mu.Unlock()
			if ended {
				return message.ContextError(ctx)
			}
			return nil
		}
		if r.resumed == nil {
			r.resumed = make(chan struct{})
		}
		resumed := r.resumed
		q.mu.Unlock()
		select {
		case <-resumed:
		case <-ctx.Done():
		}
	}
}

// resumeLocked tells those who wait in awaitServing to look again.
func (r *remoteQueue[T]) resumeLocked() {
	if r.resumed != nil {
		close(r.resumed)
		r.resumed = nil
	}
}

// deliver puts what was received in flight, for a caller.
func (r *remoteQueue[T]) deliver(got []engine.Received, vis time.Duration) (ds []Delivery[T]) {
	q := r.q
	arrivals := r.decode(got)
	q.mu.Lock()
	now := q.core.now()
	for k := range arrivals {
		i, ok := r.enterLocked(&arrivals[k], now)
		if !ok {
			continue
		}
		m, h := q.win.Meta(i), q.win.At(i)
		q.n[inFlight]++
		q.delivered++
		q.win.Schedule(i, after(now, vis))
		d := q.delivery(&h.item, h.hist, message.Ref{Stamp: m.Stamp, Block: i, Attempt: int32(m.Spent + 1)})
		q.deliveredLocked(&d)
		ds = append(ds, d)
	}
	q.armLocked(now)
	q.unlock()
	return ds
}

// An arrival is a message received and decoded, or why it can't be.
type arrival[T any] struct {
	held[T]
	spent    uint32
	passes   uint16
	dead     bool            // it was to be a dead letter already, and found no way there
	rejected bool            // by a filter
	failed   message.Verdict // without a cause unless the codec returned an error
	broken   message.Verdict // without a cause unless the codec or a filter did not return
	by       string          // which of them was asked last
}

// isDead reports whether the message has no attempt left. A letter that was redriven
// has the same history, but has spent nothing.
func (a *arrival[T]) isDead(maxAttempts int) bool {
	if maxAttempts != message.Unlimited && int64(a.spent) >= int64(maxAttempts) || a.passes >= message.MostPasses {
		return true
	}
	return a.spent > 0 && a.hist != nil && a.hist.Last().Cause == message.PermanentlyFailed
}

// decode decodes what was received and asks the filters. It calls the user's
// code: no lock is held.
func (r *remoteQueue[T]) decode(got []engine.Received) []arrival[T] {
	as := make([]arrival[T], len(got))
	for k := 0; k < len(got); k++ {
		e := callback.Apart(func() {
			for ; k < len(got); k++ {
				r.decodeOne(&got[k], &as[k])
			}
		})
		if e.Returned {
			break
		}
		a := &as[k]
		a.broken = message.Verdict{Cause: causeOf(e), Stack: message.ShortText(e.Stack, message.MostText), Err: fmt.Errorf("%s of queue %q: %w", a.by, r.q.name, errExited)}
		if e.Panicked != nil {
			a.broken.Err = fmt.Errorf("%s of queue %q: %w", a.by, r.q.name, panicError(e.Panicked))
		}
		a.broken = a.broken.Told()
		a.broken.Wait = r.q.waitAfter(message.Verdict{Cause: causeOf(e), Wait: message.FromBackoff}, int32(a.spent+1))
	}
	return as
}

// errExited is the error of a codec or a filter that called runtime.Goexit.
var errExited = errors.New("called runtime.Goexit")

func (r *remoteQueue[T]) decodeOne(m *engine.Received, a *arrival[T]) {
	q := r.q
	data := m.State
	if !r.on.Caps[engine.State].Kept && !q.letters {
		q.mu.Lock()
		if known := r.memories.Take(m.ID); known != nil {
			data = known
		}
		q.mu.Unlock()
	}
	state, hist := onengine.Decode(data)
	a.hist = hist
	if !q.letters {
		// Leases that ended without a word, in a process that is gone, count as attempts.
		lost := max(m.Deliveries-1-state.Deliveries, 0)
		a.spent, a.passes = uint32(state.Spent)+uint32(lost), state.Passes
		for range min(lost, onengine.MostAttempts) {
			now := q.core.now()
			a.hist = a.hist.With(q.attempt(message.Verdict{Cause: message.TimedOut, Err: errLeaseLost, Text: errLeaseLost.Error()}, now, now))
		}
		// Where the engine keeps no state nobody knows if a handler has run in them:
		// others may have received the message and given it back. It is dead only if
		// it was found to be so here. The engine's own limit of deliveries is the net.
		a.dead = state.Dead || r.on.Caps[engine.State].Kept && a.isDead(q.set.MaxAttempts)
	} else {
		a.spent = uint32(max(m.Deliveries-1, 0))
	}
	a.At = q.core.clock.At(m.PublishedAt)
	a.Ext = &extra{
		ID: m.ID, Attributes: m.Attributes, Key: m.OrderingKey, TTL: m.TimeToLive,
		Receipt: &remoteLease{receipt: m.Receipt, msg: m.Message, deliveries: m.Deliveries, born: state.Born},
	}
	if !state.Born.IsZero() {
		a.Ext.Born = max(q.core.clock.At(state.Born), 1)
	}
	a.by = "codec"
	if err := r.on.Codec.Decode(m.Body, &a.Body); err != nil {
		a.failed = message.Verdict{Cause: message.PermanentlyFailed, Err: fmt.Errorf("fanout: decode: %w", err)}.Told()
		return
	}
	a.by = "filter"
	a.rejected = !q.accepts(&a.item)
}

// errLeaseLost is the error of an attempt that somebody made who is gone.
var errLeaseLost = errors.New("fanout: the lease ended without a word from whoever had it")

// enterLocked makes an arrival an entry that is in flight from now on, but is not
// counted yet, unless its way ends here.
func (r *remoteQueue[T]) enterLocked(a *arrival[T], now int64) (i int32, ok bool) {
	q := r.q
	q.offered++
	a.Seq = q.offered
	a.start = now
	i = q.win.Add(a.held)
	m := q.win.Meta(i)
	m.Spent, m.Passes, m.State = a.spent, a.passes, inFlight
	end := message.Verdict{}
	switch {
	case q.closed:
		end = message.Verdict{Cause: message.Released, Unstarted: true}
	case a.rejected:
		r.tell(i, remoteEnd{ack: true})
		q.win.Remove(i)
		return i, false
	case a.failed.Cause != 0 && !q.letters: // a letter has nowhere to go: it is delivered without its body
		end = a.failed
	case a.broken.Cause != 0 && !q.letters:
		end = a.broken
	case a.dead:
		r.buryAgainLocked(i, true)
		return i, false
	case q.expired(&q.win.At(i).item, now):
		q.expireLocked(i, now)
		return i, false
	default:
		return i, true
	}
	q.n[inFlight]++
	r.endLocked(i, end, now)
	return i, false
}

// wantLocked sees to it that the poller runs.
func (r *remoteQueue[T]) wantLocked() {
	if r.q.polling || r.q.closed {
		return
	}
	var ctx context.Context
	r.q.polling = true
	ctx, r.stopPoll = context.WithCancel(context.Background())
	go r.poll(ctx)
}

// stopPollLocked ends the poller's wait if no worker is there to serve.
func (r *remoteQueue[T]) stopPollLocked() {
	if r.q.polling && (r.q.closed || !r.q.servesLocked() || r.wantedLocked() <= 0) {
		r.stopPoll()
	}
}

// wantedLocked is how many messages the queue's workers could begin with now.
func (r *remoteQueue[T]) wantedLocked() (n int) {
	q := r.q
	for _, s := range q.subs {
		switch {
		case s.stopping || s.limitedLocked() > 0:
		case s.set.Every > 0:
			n++
		default:
			n += min((s.set.Concurrency-s.running)*s.most, mostPolled)
		}
	}
	return n - q.readyLocked()
}

// poll receives for the queue's workers. Started by wantLocked; ends when no
// worker is free, or nobody may be served; the queue's close waits for it.
func (r *remoteQueue[T]) poll(ctx context.Context) {
	q := r.q
	stop, over := r.stopPoll, false
	defer func() {
		if !over { // a hook called runtime.Goexit: another goroutine takes this one's place
			go r.poll(ctx)
			return
		}
		stop()
	}()
	for failures := 0; ; {
		ended := ctx.Err() != nil
		q.mu.Lock()
		n := 0
		if !ended && !q.closed && q.servesLocked() {
			n = r.wantedLocked()
		}
		if n <= 0 {
			r.restLocked()
			over = true
			q.unlock()
			return
		}
		q.mu.Unlock()
		got, err := r.eq.Receive(ctx, min(n, mostPolled), r.lease(q.set.Visibility))
		if err != nil && ctx.Err() == nil && !r.ended(err) {
			r.failedAt("receive", onengine.Error(err))
			pause(ctx, min(100*time.Millisecond<<failures, 10*time.Second))
			failures = min(failures+1, 10)
			continue
		}
		failures = 0
		arrivals := r.decode(got)
		q.mu.Lock()
		now := q.core.now()
		for k := range arrivals {
			if i, ok := r.enterLocked(&arrivals[k], now); ok {
				q.putLocked(i, backlogged)
			}
		}
		q.handOnLocked()
		q.unlock()
	}
}

// ended reports whether err is that of a queue that this side has closed. One that
// was closed by somebody else is a failure like others: it may come back.
func (r *remoteQueue[T]) ended(err error) bool {
	r.q.mu.Lock()
	defer r.q.mu.Unlock()
	return r.q.closed && errors.Is(err, engine.ErrClosed)
}

// pause waits for d or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// restLocked ends the poller: what nobody is there for goes back to the engine.
func (r *remoteQueue[T]) restLocked() {
	q := r.q
	q.polling = false
	if q.closed || !q.servesLocked() || !slices.ContainsFunc(q.subs, func(s *Subscriber[T]) bool { return !s.stopping }) {
		for _, l := range []uint8{due, backlogged} {
			for {
				i, ok := q.win.Pop(q.listOf(l))
				if !ok {
					break
				}
				q.win.Restamp(i)
				r.endLocked(i, message.Verdict{Cause: message.Released, Unstarted: true}, q.core.now())
			}
		}
	}
	q.handOnLocked() // somebody may have become free meanwhile
	q.checkDrainedLocked()
	q.checkHomeLocked()
}

// A remoteEnd is how a lease ends, as the engine is told.
type remoteEnd struct {
	ack, bury bool
	wait      time.Duration
	state     onengine.Full
	dead      notice.Event // of a message that is to be a dead letter
	again     bool         // it was parked before
}

// planLocked says how the delivery of entry i ends by v: what the engine is told, and
// how many attempts are spent then. It changes nothing.
func (r *remoteQueue[T]) planLocked(i int32, v message.Verdict, now int64) (end remoteEnd, spent uint32) {
	q := r.q
	m, h := q.win.Meta(i), q.win.At(i)
	if v.Cause == message.Acked {
		return remoteEnd{ack: true}, m.Spent
	}
	hist := h.hist
	if !v.Unstarted {
		hist = hist.With(q.attempt(v, h.start, now))
	}
	end.wait = max(v.Wait, 0)
	then, spent, passes := q.judge(v, m.Spent, m.Passes, v.Cause != message.Released && q.expired(&h.item, now))
	if then == expires {
		hist = hist.With(q.attempt(message.Verdict{Cause: message.Expired}, now, now))
	}
	end.bury = then != retries
	if most := r.on.Caps[engine.RetryDelay].Most; most > 0 {
		end.wait = min(end.wait, most)
	}
	s := onengine.State{Spent: int32(min(spent, math.MaxInt32)), Passes: passes, Dead: end.bury, Deliveries: leaseOf(h.Ext).deliveries, Born: leaseOf(h.Ext).born}
	end.state = onengine.Full{State: s, Hist: hist}
	if end.bury {
		last := hist.Last()
		end.dead = notice.Event{Attempt: int(spent), Cause: last.Cause, Err: last.Err, Elapsed: last.Elapsed}
	}
	return end, spent
}

// do tells the engine how a lease ends. A message that finds no way to the dead
// letters is parked: it comes again, and tries again.
func (r *remoteQueue[T]) do(ctx context.Context, l *remoteLease, end remoteEnd) (parked bool, err error) {
	wait := end.wait
	var refused error // by the dead-letter queue, and not because it is full
	switch {
	case end.ack:
		return false, onengine.Error(r.eq.Ack(ctx, l.receipt))
	case end.bury:
		m := l.msg
		err = end.state.Fit(func(data []byte) error {
			m.State = data
			return r.eq.DeadLetter(ctx, l.receipt, m)
		})
		if err == nil || errors.Is(err, engine.ErrStale) {
			return false, onengine.Error(err)
		}
		if !errors.Is(err, engine.ErrFull) {
			refused = r.refusal(&m, err)
		}
		parked, wait = true, parkedWait
		if errors.Is(err, engine.ErrTooLarge) {
			wait, _ = r.q.set.Backoff.Ask(math.MaxInt32)
		}
		if most := r.on.Caps[engine.RetryDelay].Most; most > 0 {
			wait = min(wait, most)
		}
	}
	if !r.on.Caps[engine.State].Kept {
		data := end.state.Encode(onengine.MostState)
		r.q.mu.Lock()
		r.memories.Put(l.msg.ID, data)
		r.q.mu.Unlock()
	}
	err = onengine.Error(end.state.Fit(func(data []byte) error { return r.eq.Return(ctx, l.receipt, wait, data) }))
	if err == nil && refused != nil {
		r.failedAt("dead-letter", refused)
	}
	return parked, err
}

// parkedWait is when a message that was refused by the dead-letter queue tries again. One
// that is too large for it, which somebody else has published, waits as long as the backoff
// does at the longest: it tries in case the limit is raised, or until the engine's own
// limit of deliveries ends it.
const parkedWait = 5 * time.Second

// mostOversized bounds the messages of which a queue remembers that they are too large.
const mostOversized = 1000

// refusal returns the error to be told of a message that the dead-letter queue refused:
// nil for one that is too large and was told of before.
func (r *remoteQueue[T]) refusal(m *engine.Message, err error) error {
	if errors.Is(err, engine.ErrTooLarge) {
		r.q.mu.Lock()
		defer r.q.mu.Unlock()
		if r.oversized[m.ID] {
			return nil
		}
		if r.oversized == nil || len(r.oversized) >= mostOversized {
			r.oversized = make(map[string]bool)
		}
		r.oversized[m.ID] = true
	}
	return fmt.Errorf("message %q: %w", m.ID, onengine.Error(err))
}

// settle ends the delivery as v says, for whoever has it. If
// the engine fails, the delivery is as it was before. A ctx without a deadline
// gets one, so that no worker hangs on an engine that does not answer.
func (r *remoteQueue[T]) settle(ctx context.Context, ref message.Ref, v message.Verdict) error {
	q, i, stamp := r.q, ref.Block, ref.Stamp
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, settleTime)
		defer cancel()
	}
	v = v.Told()
	v.Wait = q.waitAfter(v, q.countFor(v, ref))
	q.mu.Lock()
	now, err := r.awaitOwnedLocked(ctx, i, stamp)
	if err != nil {
		q.mu.Unlock()
		return err
	}
	m, h := q.win.Meta(i), q.win.At(i)
	deadline, lease, it, start := m.Deadline, leaseOf(h.Ext), h.item, h.start
	q.win.Unschedule(i)
	during := q.win.Restamp(i) // whoever settles it meanwhile waits, and comes second
	end, spent := r.planLocked(i, v, now)
	q.calls++
	ended := make(chan struct{})
	if r.ending == nil {
		r.ending = make(map[uint64]chan struct{})
	}
	r.ending[stamp] = ended
	q.mu.Unlock()
	parked, err := r.do(ctx, lease, end)
	var late message.Verdict // if the visibility timeout has passed meanwhile
	if err != nil {
		late = message.Verdict{Cause: message.TimedOut, Err: fmt.Errorf("settle: %w", err)}.Told()
	}
	q.mu.Lock()
	q.calls--
	delete(r.ending, stamp)
	close(ended)
	owns := !q.closed && q.win.Owns(i, during)
	if err != nil && (!owns || errors.Is(err, message.ErrStale)) {
		q.stale.Add(stamp) // nobody has settled it, and nobody can
	}
	if owns {
		switch now := q.core.now(); {
		case err != nil && !errors.Is(err, message.ErrStale) && now < deadline:
			m := q.win.Meta(i)
			m.Stamp = stamp
			q.win.Schedule(i, deadline)
			q.armLocked(now)
		case err != nil && !errors.Is(err, message.ErrStale):
			q.stale.Add(stamp)
			r.endLocked(i, late, now)
		default:
			if err == nil {
				r.countLocked(&it, v, end, spent, time.Duration(now-start))
				if end.bury {
					r.buriedLocked(&it, end.dead, parked)
				}
			}
			q.n[q.win.Meta(i).State]--
			q.leaveKeyLocked(&q.win.At(i).item, i)
			q.win.Remove(i)
		}
	}
	q.checkDrainedLocked()
	q.checkHomeLocked()
	q.handOnLocked()
	q.unlock()
	if err != nil {
		return fmt.Errorf("queue %q: %w", q.name, err)
	}
	return nil
}

// awaitOwnedLocked returns nil, and the time, if stamp owns entry i now. While the
// engine is told of another settlement of the delivery it waits for how that
// ends, without the lock: the delivery may be as it was before.
func (r *remoteQueue[T]) awaitOwnedLocked(ctx context.Context, i int32, stamp uint64) (now int64, err error) {
	q := r.q
	for !q.closed && r.ending[stamp] != nil {
		ended := r.ending[stamp]
		q.mu.Unlock()
		select {
		case <-ended:
			q.mu.Lock()
		case <-ctx.Done():
			q.mu.Lock()
			return 0, fmt.Errorf("fanout: queue %q: another settlement of the delivery has not ended: %w", q.name, message.ContextError(ctx))
		}
	}
	now = q.core.now()
	err = q.ownedLocked(i, stamp)
	if err == nil && now > q.win.Meta(i).Deadline {
		err = fmt.Errorf("%w: queue %q", message.ErrStale, q.name)
	}
	return now, err
}

// countLocked counts and notes how an attempt ended.
func (r *remoteQueue[T]) countLocked(it *item[T], v message.Verdict, end remoteEnd, spent uint32, elapsed time.Duration) {
	q := r.q
	q.countEndLocked(v.Cause)
	attempt := int(spent)
	if !v.Cause.Spends() { // else spent has it already
		attempt++
	}
	q.noteItemLocked(notice.Settled, it, notice.Event{Attempt: attempt, Cause: message.Cause(v.Cause), Err: v.Err, Elapsed: elapsed, Wait: end.wait})
	q.noteUnreturnedLocked(it, v, attempt, elapsed)
	if end.bury && end.dead.Cause == message.Expired {
		q.rareLocked().ended[message.Expired]++
	}
}

// buriedLocked counts and notes that a dead message is with the engine's dead letters,
// or found no way there.
func (r *remoteQueue[T]) buriedLocked(it *item[T], dead notice.Event, parked bool) {
	q := r.q
	if parked {
		q.rareLocked().parked++
		q.noteItemLocked(notice.Parked, it, dead)
		return
	}
	q.rareLocked().deadLettered++
	q.noteItemLocked(notice.DeadLettered, it, dead)
}

// endLocked ends the delivery of entry i, which is no longer scheduled, for nobody who
// could wait: the entry is gone, and the engine is told after unlocking.
func (r *remoteQueue[T]) endLocked(i int32, v message.Verdict, now int64) {
	q := r.q
	h := q.win.At(i)
	end, spent := r.planLocked(i, v, now)
	r.countLocked(&h.item, v, end, spent, time.Duration(now-h.start))
	q.n[q.win.Meta(i).State]--
	r.tell(i, end)
	q.leaveKeyLocked(&q.win.At(i).item, i)
	q.win.Remove(i)
}

// buryLocked has entry i, whose state has been left, go to the engine's dead-letter queue.
func (r *remoteQueue[T]) buryLocked(i int32) { r.buryAgainLocked(i, false) }

// buryAgainLocked is buryLocked for a message that could not go there before, if again is
// true.
func (r *remoteQueue[T]) buryAgainLocked(i int32, again bool) {
	q := r.q
	m, h := q.win.Meta(i), q.win.At(i)
	s := onengine.State{Spent: int32(m.Spent), Passes: m.Passes, Dead: true, Deliveries: leaseOf(h.Ext).deliveries, Born: leaseOf(h.Ext).born}
	r.tell(i, remoteEnd{bury: true, state: onengine.Full{State: s, Hist: h.hist}, dead: q.lastAttempt(i), again: again})
	q.leaveKeyLocked(&q.win.At(i).item, i)
	q.win.Remove(i)
}

// tell has the engine told, after unlocking, how the lease of entry i ends, and counts a
// dead message once the engine has it. The queue's mu is held.
func (r *remoteQueue[T]) tell(i int32, end remoteEnd) {
	it := r.q.win.At(i).item
	r.later("settle", func(ctx context.Context) (then func(), err error) {
		parked, err := r.do(ctx, leaseOf(it.Ext), end)
		switch {
		case errors.Is(err, message.ErrStale):
			return nil, nil // it is with somebody else, or about to be
		case err != nil || !end.bury || parked && end.again:
			return nil, err
		}
		return func() { r.buriedLocked(&it, end.dead, parked) }, nil
	})
}

// later has f done after unlocking, which the queue's end waits for, and then, with the
// queue's mu held, what f returns. The queue's mu is held.
func (r *remoteQueue[T]) later(what string, f func(ctx context.Context) (then func(), err error)) {
	r.q.calls++
	r.q.pending.Call(func() {
		q := r.q
		ctx, cancel := context.WithTimeout(context.Background(), settleTime)
		defer cancel()
		then, err := f(ctx)
		q.mu.Lock()
		if then != nil {
			then()
		}
		q.calls--
		q.checkDrainedLocked()
		q.checkHomeLocked()
		q.unlock()
		if err != nil && !isClosed(err) {
			r.failedAt(what, err)
		}
	})
}

// failedAt tells that the engine failed at what the queue does by itself.
func (r *remoteQueue[T]) failedAt(what string, err error) {
	r.q.report.Tell(notice.EngineFailed, notice.Event{Time: time.Now(), Err: fmt.Errorf("%s: %w", what, err), Count: 1})
}

// failed tells so of a worker's settlement that ended in err, and reports whether
// it was the engine that failed: not if the worker came too late.
func (r *remoteQueue[T]) failed(err error) bool {
	if errors.Is(err, message.ErrStale) || errors.Is(err, message.ErrSettled) {
		return false
	}
	r.failedAt("settle", err)
	return true
}

// extend moves the deadline of the delivery, here and in the
// engine.
func (r *remoteQueue[T]) extend(ctx context.Context, ref message.Ref, by time.Duration) error {
	q, i, stamp := r.q, ref.Block, ref.Stamp
	q.mu.Lock()
	now, err := r.awaitOwnedLocked(ctx, i, stamp)
	var lease *remoteLease
	if err == nil {
		lease = leaseOf(q.win.At(i).Ext)
	}
	at := after(now, by)
	enough := err == nil && at <= q.win.Meta(i).Deadline
	q.mu.Unlock()
	if err == nil && !enough {
		err = r.on.Need(true, fmt.Sprintf("Extend(%v)", by), engine.Visibility, by)
	}
	if err != nil || enough {
		return err
	}
	if err := r.eq.Extend(ctx, lease.receipt, r.lease(by)); err != nil {
		return fmt.Errorf("queue %q: %w", q.name, onengine.Error(err))
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := q.ownedLocked(i, stamp); err != nil {
		return err
	}
	if at > q.win.Meta(i).Deadline {
		q.win.Unschedule(i)
		q.win.Schedule(i, at)
		q.armLocked(q.core.now())
	}
	return nil
}

// extendLocked has the engine extend the lease of entry i, after unlocking.
func (r *remoteQueue[T]) extendLocked(i int32, by time.Duration) {
	lease := leaseOf(r.q.win.At(i).Ext)
	r.later("extend", func(ctx context.Context) (func(), error) {
		return nil, onengine.Error(r.eq.Extend(ctx, lease.receipt, r.lease(by)))
	})
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
