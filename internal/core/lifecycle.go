package core

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"time"
	"unsafe"

	"github.com/gofanout/fanout/internal/lease"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/settings"
	"github.com/gofanout/fanout/internal/window"
)

// Close ends the queue at once.
func (q *Queue[T]) Close() error {
	return q.at().close()
}

// Delete ends the queue as Close does, and removes all that it held and its own dead letters.
func (q *Queue[T]) Delete(ctx context.Context) error {
	if err := q.at().delete(ctx); err != nil {
		return fmt.Errorf("fanout: delete of %q: %w", q.name, err)
	}
	return nil
}

// end closes a queue in memory. If it is to be deleted nothing of it is left.
func (q *Queue[T]) end(deleting bool) error {
	if q.t == nil {
		return q.endShared(deleting)
	}
	return q.t.owner.endQueue(q, deleting)
}

// endShared is end for a dead-letter queue that belongs to no topic.
func (q *Queue[T]) endShared(deleting bool) error {
	q.mu.Lock()
	if q.closed && !deleting {
		q.mu.Unlock()
		return nil
	}
	if !q.closed {
		q.core.live.Add(1) // the reporter may arm a timer until it is stopped
		defer q.core.release()
	}
	q.closeLocked(deleting)
	defer q.report.Stop()
	q.unlock()
	return nil
}

// errOpenSource is the error for ending the dead-letter queue d before its queue.
func errOpenSource[T any](d *Queue[T], deleting bool) error {
	if deleting {
		return fmt.Errorf("%w: deleting the dead-letter queue %q: delete %q", message.ErrUnsupported, d.name, d.source.name)
	}
	return fmt.Errorf("%w: closing the dead-letter queue %q: close %q first", message.ErrUnsupported, d.name, d.source.name)
}

// deadIfAny returns the queue's own dead-letter queue, if it has been made.
func (q *Queue[T]) deadIfAny() *Queue[T] {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.dead == nil || q.dead.shared() {
		return nil
	}
	return q.dead
}

// Leftovers returns what the queue held when it was closed, in the order of publication.
func (q *Queue[T]) Leftovers() []Message[T] {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.Clone(q.leftoversLocked())
}

func (q *Queue[T]) leftoversLocked() []Message[T] {
	if q.rare != nil && len(q.rare.left) > 0 {
		return q.rare.left
	}
	if q.closed && !q.letters {
		return []Message[T]{}
	}
	return nil
}

// closeNow closes the queue and says what was left in it. The topic's mu is held. A
// dead-letter queue keeps its letters, to be looked at, unless it is being deleted.
func (q *Queue[T]) closeNow(deleting bool) Left {
	q.mu.Lock()
	defer q.unlockUnder(q.t)
	return q.closeLocked(deleting)
}

func (q *Queue[T]) closeLocked(deleting bool) (l Left) {
	if q.closed {
		if deleting {
			q.forgetLocked()
		}
		return l
	}
	q.endAllLocked(func(out *lease.Out[T], _ lease.Consumer[T]) {
		i := q.landLocked(out, out.Past.Hist, out.Past.Spent, out.Past.Passes)
		q.win.Meta(i).State = inFlight
		q.n[inFlight]++
	})
	q.offered = q.publishedLocked(q.inLogLocked())
	now := q.core.now()
	if q.keeper == nil && !q.letters {
		q.spillLocked()
		q.expireWaitingLocked(now)
	}
	l = q.leftLocked()
	switch {
	case q.keeper != nil:
		q.emptyLocked()
	case deleting:
		q.dropAllLocked()
	case q.letters:
	default:
		left := q.messagesLocked(now)
		if n := len(left); n > 0 {
			q.rareLocked().left = left
			q.noteLocked(notice.Dropped, notice.Event{Reason: notice.DroppedByClose, Count: n})
		}
		q.emptyLocked()
	}
	if !q.letters {
		q.cursor.Close()
		if !q.direct && !q.log.Read() {
			q.log.Forget()
		}
		q.stale = window.Spans{}
	}
	if len(q.leases.Leases()) == 0 {
		q.leases = nil
	}
	q.closed = true
	q.changedLocked()
	if !q.direct {
		q.sleep.remove(q)
	}
	for _, s := range slices.Clone(q.subs) {
		for _, w := range s.busy {
			w.cancelLocked(fmt.Errorf("%w: queue %q", message.ErrClosed, q.name))
		}
		s.workers.trimLocked()
		s.workers.stopLocked()
	}
	for q.receivers.wake() {
	}
	q.armLocked(0)
	q.checkDrainedLocked()
	q.checkHomeLocked()
	return l
}

// emptyLocked lets go of all that the window holds.
func (q *Queue[T]) emptyLocked() {
	q.win = window.Window[held[T]]{}
	q.backlog, q.due, q.parked, q.keys = window.List{}, window.List{}, window.List{}, nil
	clear(q.n[:])
}

// dropAllLocked drops all that the window holds, because the queue is being deleted.
func (q *Queue[T]) dropAllLocked() {
	n := q.win.Len()
	q.emptyLocked()
	if n == 0 {
		return
	}
	q.rareLocked().dropped += uint64(n)
	q.noteLocked(notice.Dropped, notice.Event{Reason: notice.DroppedByDelete, Count: n})
}

// forgetLocked drops what a closed queue still holds: letters, or its leftovers, of which
// was told when it was closed.
func (q *Queue[T]) forgetLocked() {
	switch {
	case q.letters:
		q.dropAllLocked()
	case q.rare != nil:
		q.rare.dropped += uint64(len(q.rare.left))
		q.rare.left = nil
	}
}

func (q *Queue[T]) leftLocked() Left {
	l := Left{
		Queue: q.name, Ready: q.readyLocked(), Retrying: q.n[retrying], Delayed: q.n[delayed],
		InFlight: q.n[inFlight] + q.n[inHandler], Parked: q.n[parked], Released: q.n[released],
		Blocked: q.n[blocked],
	}
	for _, s := range q.subs {
		l.Running += s.handlersLocked()
	}
	return l
}

// entriesLocked returns the window's entries in the order of publication.
func (q *Queue[T]) entriesLocked() []int32 {
	all := make([]int32, 0, q.win.Len())
	q.win.All(func(i int32) bool {
		all = append(all, i)
		return true
	})
	slices.SortFunc(all, func(a, b int32) int { return cmp.Compare(q.win.At(a).Seq, q.win.At(b).Seq) })
	return all
}

// expireWaitingLocked buries the window's messages whose time to live has passed
// and that are neither in flight, which may finish, nor parked, which are dead.
func (q *Queue[T]) expireWaitingLocked(now int64) {
	for _, i := range q.entriesLocked() {
		state := q.win.Meta(i).State
		if state == inFlight || state == inHandler || state == parked || !q.expired(&q.win.At(i).item, now) {
			continue
		}
		q.takeOutLocked(i)
		q.n[state]--
		q.expireLocked(i, now)
	}
}

// messagesLocked returns the window's messages as they would have to be published,
// with what is left of their delays and times to live: at least 1 ns, as 0 would
// be the queue's own.
func (q *Queue[T]) messagesLocked(now int64) []Message[T] {
	all := q.entriesLocked()
	ms := make([]Message[T], len(all))
	for k, i := range all {
		h, m := q.win.At(i), q.win.Meta(i)
		ms[k] = messageOf(q.core, &h.item)
		switch {
		case ms[k].OrderingKey != "": // it can't have a delay of its own
		case m.State == delayed:
			ms[k].Delay = time.Duration(max(m.Deadline-now, 1))
		case q.set.Delay > 0:
			ms[k].Delay = 1 // it has passed
		}
		if until, ok := q.expiry(&h.item); ok {
			ms[k].TimeToLive = time.Duration(max(until-now, 1))
		}
	}
	return ms
}

// drain tells the queue that its topic shuts down.
func (q *Queue[T]) drain() {
	q.mu.Lock()
	q.draining = true
	q.mu.Unlock()
}

// awaitDrained returns nil if nothing is left that Shutdown waits for, and
// otherwise a channel that is closed when that is so.
func (q *Queue[T]) awaitDrained() <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.isDrainedLocked() {
		return nil
	}
	if q.drained == nil {
		q.drained = make(chan struct{})
	}
	return q.drained
}

func (q *Queue[T]) isDrainedLocked() bool {
	if q.closed {
		return true
	}
	busy := q.n[inFlight] + q.n[inHandler] + int(q.running+q.calls) + q.leases.Counts().InFlight
	if !q.letters && !q.paused {
		// What is blocked is waited for only if the head of its line is in one of these
		// states, and else stands behind one that is delayed or put aside.
		busy += q.readyLocked() + q.n[retrying]
	}
	return busy == 0
}

// Pause makes the queue give out no messages until Resume.
func (q *Queue[T]) Pause(context.Context) error { return q.setPaused(true) }

// Resume ends a Pause.
func (q *Queue[T]) Resume(context.Context) error { return q.setPaused(false) }

func (q *Queue[T]) setPaused(paused bool) error {
	q.mu.Lock()
	defer q.unlock() // what is taken back was tallied
	if q.closed {
		return fmt.Errorf("%w: queue %q", message.ErrClosed, q.name)
	}
	q.paused = paused
	if paused {
		q.takeAllBackLocked()
	}
	q.changedLocked()
	q.checkDrainedLocked()
	q.handOnLocked()
	return nil
}

// Purge drops all that the queue holds, also what is in flight, and returns how much it was.
func (q *Queue[T]) Purge(ctx context.Context) (dropped int, err error) {
	return q.at().purge(ctx)
}

// purgeHere is Purge in memory.
func (q *Queue[T]) purgeHere() (dropped int, err error) {
	if q.t == nil { // a shared dead-letter queue, which reads no log
		q.mu.Lock()
		defer q.unlock()
		return q.purgeLocked()
	}
	q.t.mu.Lock()
	defer q.t.unlock()
	q.mu.Lock()
	defer q.unlockUnder(q.t)
	return q.purgeLocked()
}

// purgeLocked empties the queue. Of one that reads the log the topic's mu is held, too.
func (q *Queue[T]) purgeLocked() (n int, err error) {
	if q.closed {
		return 0, fmt.Errorf("%w: queue %q", message.ErrClosed, q.name)
	}
	ended := 0
	cause := fmt.Errorf("%w: queue %q was purged", message.ErrStale, q.name)
	q.endAllLocked(func(out *lease.Out[T], owner lease.Consumer[T]) {
		ended++
		q.stale.Add(out.Stamp)
		if w, ok := owner.(holder[T]); ok {
			w.cancelLocked(cause)
		}
	})
	n = ended + q.win.Len() + q.inLogLocked()
	if n == 0 {
		return 0, nil
	}
	all := make([]int32, 0, q.win.Len())
	q.win.All(func(i int32) bool {
		all = append(all, i)
		return true
	})
	find := q.finder()
	for _, i := range all {
		m := q.win.Meta(i)
		if m.State == inFlight || m.State == inHandler {
			q.stale.Add(m.Stamp)
			if w := find(m.Stamp); w != nil {
				w.cancelLocked(cause)
			}
		}
		q.takeOutLocked(i)
		q.n[m.State]--
		q.win.Remove(i)
	}
	q.keys = nil
	allow := int64(min(q.set.Capacity, maxCapacity))
	if !q.direct {
		q.cursor.SkipTo(q.log.Published())
		q.cursor.Rest()
		allow += q.cursor.Pos()
	}
	q.allow.Store(allow)
	q.rareLocked().dropped += uint64(n)
	q.armLocked(q.core.now())
	q.handOnLocked()
	q.checkDrainedLocked()
	q.noteLocked(notice.Dropped, notice.Event{Reason: notice.DroppedByPurge, Count: n})
	return n, nil
}

// changedLocked tells the queue's keeper, if it has one, that the queue was paused, resumed
// or closed, or that a subscriber has stopped.
func (q *Queue[T]) changedLocked() {
	if q.keeper != nil {
		q.keeper.changedLocked()
	}
}

func (q *Queue[T]) checkDrainedLocked() {
	if q.drained != nil && q.isDrainedLocked() {
		close(q.drained)
		q.drained = nil
	}
}

// checkHomeLocked tells the topic once nothing of a closed queue runs.
func (q *Queue[T]) checkHomeLocked() {
	if q.closed && !q.home && q.running == 0 && q.alarm.quiet() && q.calls == 0 && !q.polling {
		q.home = true
		q.core.release()
	}
}

func newQueue[T any](c *core, t *home[T], name string, set *settings.Limits) *Queue[T] {
	q := &Queue[T]{core: c, t: t, name: name, set: set, sleepAt: awake, local: c.calls == nil, evicts: true}
	q.report.Init(&c.to, name)
	q.allow.Store(int64(min(set.Capacity, maxCapacity)))
	return q
}

// maxCapacity is what Unlimited means for a capacity, with room to calculate.
const maxCapacity = math.MaxInt / 4

func segmentOf[T any]() int {
	return min(max(segmentBytes/int(unsafe.Sizeof(item[T]{})), 1), maxSegment)
}

// maxSegment is the most messages that a segment of the log holds, and segmentBytes
// the most bytes, if that is more than one message.
const (
	maxSegment   = 256
	segmentBytes = 8 << 10
)
