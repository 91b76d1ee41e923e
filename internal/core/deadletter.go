package core

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/settings"
)

// deadSuffix makes the name of a queue's own dead-letter queue. No other queue
// may have such a name.
const deadSuffix = "/dead"

// DeadLetters returns the queue's dead-letter queue, and makes it if there is none.
func (q *Queue[T]) DeadLetters() *Queue[T] {
	if q.letters {
		return q
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.deadLocked()
}

func (q *Queue[T]) deadLocked() *Queue[T] {
	if q.dead == nil {
		set := settings.DefaultQueue().Limits
		set.Capacity, set.Overflow = q.set.DeadCapacity, q.set.DeadOverflow
		set.Visibility, set.Backoff = q.set.Visibility, q.set.Backoff
		q.dead = newDeadLetterQueue(q.core, q.t, q.name+deadSuffix, set)
		q.dead.source = q
		q.dead.closed, q.dead.draining = q.closed, q.drainingDead
		if !q.closed {
			q.core.live.Add(1)
		}
	}
	return q.dead
}

// shared reports whether a dead-letter queue belongs to no topic.
func (q *Queue[T]) shared() bool { return q.t == nil }

func (q *Queue[T]) origin() origin { return origin{q.core, q.name} }

// adoptLocked makes q, which is being opened, the owner of the dead-letter queue
// that a closed queue of its name has left, if there is one. Others may be using
// that: it keeps its settings, except its capacity and overflow, which are only
// read under its mutex. The topic's mu and q's are held.
func (q *Queue[T]) adoptLocked() {
	if q.dead != nil {
		return
	}
	d := q.t.owner.takeOrphanLocked(q.name + deadSuffix)
	if d == nil {
		return
	}
	q.dead, d.source = d, q
	d.mu.Lock()
	defer d.mu.Unlock()
	capacity, ranked := max(q.set.DeadCapacity, d.heldLocked()), d.set.Overflow == settings.DropOldest
	d.allow.Add(int64(min(capacity, maxCapacity)) - int64(min(d.set.Capacity, maxCapacity)))
	d.set.Capacity, d.set.Overflow = capacity, q.set.DeadOverflow
	if ranked || d.set.Overflow != settings.DropOldest {
		return
	}
	d.win.All(func(i int32) bool {
		if s := d.win.Meta(i).State; s != inFlight && s != inHandler {
			d.rankLocked(i)
		}
		return true
	})
}

func newDeadLetterQueue[T any](c *core, t *home[T], name string, set settings.Limits) *Queue[T] {
	set.MaxAttempts = message.Unlimited
	d := newQueue(c, t, name, &set)
	d.letters, d.direct, d.entries, d.evicts = true, true, true, false
	return d
}

// NewLetters returns a dead-letter queue that belongs to no topic.
func NewLetters[T any](name string, top settings.Topic, set settings.Queue) (*Queue[T], error) {
	set.Capacity, set.Overflow = set.DeadCapacity, set.DeadOverflow
	c, err := newCore(name, top)
	if err != nil {
		return nil, fmt.Errorf("fanout: dead-letter queue %q: %w", name, err)
	}
	return newDeadLetterQueue[T](c, nil, name, set.Limits), nil
}

// buryLocked moves entry i, whose state has been left, to the dead-letter
// queue, or parks it. The lock of a queue comes before that of its dead-letter
// queue, so that the move is one step for everybody else.
func (q *Queue[T]) buryLocked(i int32) {
	if q.keeper != nil {
		q.keeper.buryLocked(i)
		return
	}
	h := q.win.At(i)
	if q.sendLocked(i) {
		q.removeLocked(i)
		return
	}
	q.leaveKeyLocked(&h.item, i)
	q.putLocked(i, parked)
	q.rareLocked().parked++
	q.offerSwapLocked()
	q.noteItemLocked(notice.Parked, &h.item, q.lastAttempt(i))
}

// offerSwapLocked has a redrive that waits for room here looked at, since it can
// change places with what is parked: it makes the gate as low as no allow is,
// so that the next unlock goes to tell.
func (q *Queue[T]) offerSwapLocked() {
	for g := q.gate.Load(); g != 0 && !q.gate.CompareAndSwap(g, math.MinInt64); {
		g = q.gate.Load()
	}
}

// canSwap reports whether a redrive could change places with something parked.
func (q *Queue[T]) canSwap() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.parked.Len() > 0
}

// sendLocked copies entry i's message to the dead-letter queue if there is room.
func (q *Queue[T]) sendLocked(i int32) bool {
	d := q.deadLocked()
	d.mu.Lock()
	defer d.mu.Unlock()
	return q.sendBothLocked(d, i)
}

// sendBothLocked is sendLocked with the lock of the dead-letter queue d held, too.
// What is pending in d then is left to q's unlock.
func (q *Queue[T]) sendBothLocked(d *Queue[T], i int32) bool {
	if d.closed {
		return false
	}
	if d.heldLocked() >= d.set.Capacity {
		if d.set.Overflow != settings.DropOldest || !d.dropOldestLocked(0) {
			if r := d.rareLocked(); !r.starved[q] {
				if r.starved == nil {
					r.starved = make(map[*Queue[T]]bool)
				}
				r.starved[q] = true
				r.starving = append(r.starving, q)
			}
			d.starving.Store(true)
			return false
		}
		q.pending.Join(d.pending.Take())
		d.armLocked(d.core.now())
	}
	d.offered++
	d.allow.Add(-1)
	h := q.win.At(i)
	d.putLocked(d.win.Add(held[T]{item: q.letter(d, h.item), hist: h.hist}), backlogged)
	d.handOnLocked()
	q.rareLocked().deadLettered++
	q.noteItemLocked(notice.DeadLettered, &h.item, q.lastAttempt(i))
	return true
}

// letter returns q's message as dead-letter queue d keeps it. In one that is
// shared, times, numbers and IDs of several topics come together: they become
// d's own, and the message takes its ID and its origin along.
func (q *Queue[T]) letter(d *Queue[T], it item[T]) item[T] {
	if !d.shared() {
		return it
	}
	it.Ext = it.Ext.With(func(x *extra) {
		x.ID = q.core.id(it.Seq, it.At, it.Ext)
		x.Source, x.Seq = q.origin(), it.Seq
	})
	it.At = d.core.clock.At(q.core.time(it.At))
	it.Seq = d.offered
	return it
}

// unletter is the reverse of letter, for a message whose time to live begins anew.
func (q *Queue[T]) unletter(d *Queue[T], it item[T], now int64) item[T] {
	if d.shared() {
		it.Seq = it.Ext.Seq
		it.At = q.core.clock.At(d.core.time(it.At))
	}
	if it.Ext != nil || q.set.TTL > 0 {
		it.Ext = it.Ext.With(func(x *extra) { x.Born, x.Source, x.Seq = now, nil, 0 })
	}
	return it
}

// lastAttempt is what an event says of the attempt that made a message dead.
func (q *Queue[T]) lastAttempt(i int32) notice.Event {
	h := q.win.At(i).hist
	a := h.Last()
	return notice.Event{Attempt: int(q.win.Meta(i).Spent), Cause: a.Cause, Err: a.Err, Elapsed: a.Elapsed}
}

// unpark moves what is parked to the dead-letter queue, as far as there is room.
// What has to be told is left in p.
func (q *Queue[T]) unpark(p *notice.Pending) {
	q.mu.Lock()
	for !q.closed {
		i, ok := q.parked.First()
		if !ok || !q.sendLocked(i) {
			break
		}
		q.win.Pull(&q.parked, i)
		q.freeLocked(i)
	}
	q.checkDrainedLocked()
	q.unlockTo(p)
}

// Peek returns up to most of the queue's messages in the order of publication. It takes none.
// ctx has not ended.
func (q *Queue[T]) Peek(ctx context.Context, most int) ([]Delivery[T], error) {
	ds, err := q.at().peek(ctx, most)
	if err != nil {
		return ds, fmt.Errorf("fanout: peek at %q: %w", q.name, err)
	}
	return ds, nil
}

// peekHere is Peek in memory.
func (q *Queue[T]) peekHere(most int) []Delivery[T] {
	q.mu.Lock()
	q.takeAllBackLocked()
	ds := q.peekLocked()
	if !q.direct && !q.closed {
		q.cursor.Scan(func(it *item[T]) bool {
			ds = append(ds, q.inLogDelivery(it))
			return len(ds) < most
		})
	}
	q.unlock() // what was taken back was tallied
	return ds[:min(most, len(ds))]
}

// peekLocked returns what of the window is neither in flight nor parked, in
// the order of publication.
func (q *Queue[T]) peekLocked() []Delivery[T] {
	q.unfoldLocked()
	var ds []Delivery[T]
	q.win.All(func(i int32) bool {
		if m := q.win.Meta(i); m.State != parked && !q.inFlightLocked(m) {
			ds = append(ds, q.peekedLocked(i))
		}
		return true
	})
	inOrder(ds)
	return ds
}

func inOrder[T any](ds []Delivery[T]) {
	slices.SortFunc(ds, func(a, b Delivery[T]) int { return cmp.Compare(a.seq, b.seq) })
}

// peekedLocked is entry i for those who look at it.
func (q *Queue[T]) peekedLocked(i int32) Delivery[T] {
	m, h := q.win.Meta(i), q.win.At(i)
	return q.delivery(&h.item, h.hist, message.Ref{Block: i, Attempt: int32(min(m.Spent+1, 1<<31-1))})
}

// inLogDelivery is a message of the log for those who look at it.
func (q *Queue[T]) inLogDelivery(it *item[T]) Delivery[T] {
	return q.delivery(it, nil, message.Ref{Attempt: 1})
}

// RedriveLetters sends dead letters back to this queue: those that c selects. It returns how many
// moved.
func (q *Queue[T]) RedriveLetters(ctx context.Context, c *LetterChoice[T]) (moved int, err error) {
	return q.redriveAround(ctx, c)
}

// redriveTo is Redrive with its options, and nothing around it.
func (q *Queue[T]) redriveTo(ctx context.Context, c *LetterChoice[T]) (moved int, err error) {
	if err := q.findLetters("redrive", c); err != nil {
		return 0, err
	}
	if moved, err = q.at().redrive(ctx, c); err != nil {
		err = fmt.Errorf("fanout: redrive of %q: %w", q.name, err)
	}
	return moved, err
}

// A LetterChoice says which letters of a queue are meant. It is good for one call.
type LetterChoice[T any] struct {
	dead *Queue[T] // nil: none has died
	settings.Letters
	Keep []func(*Delivery[T]) bool // all must accept a letter
}

// findLetters finds the dead-letter queue of c, for a call that does what.
func (q *Queue[T]) findLetters(what string, c *LetterChoice[T]) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	c.dead = q.dead
	if q.closed {
		return fmt.Errorf("fanout: %s of %q: %w", what, q.name, message.ErrClosed)
	}
	return nil
}

// redriveFrom redrives letters in memory.
func (q *Queue[T]) redriveFrom(ctx context.Context, c *LetterChoice[T]) (moved int, err error) {
	letters, err := q.selectFrom(c)
	if err != nil {
		return 0, err
	}
	unknown := c.Unknown()
	if len(letters) == 0 {
		return 0, unknown
	}
	if moved, err = q.t.owner.redriveLetters(ctx, q, letters); err == nil {
		err = unknown
	} else if unknown != nil {
		err = fmt.Errorf("%w; %w", err, unknown)
	}
	return moved, err
}

// selectFrom returns the queue's letters that are chosen, in the order of publication. It
// looks at lookLen of them under one lock. One that came meanwhile, or that a consumer has
// taken, is not among them.
func (q *Queue[T]) selectFrom(c *LetterChoice[T]) (letters []Delivery[T], err error) {
	d := c.dead
	var newer uint64 // stamp of what is
	for from, more := int32(0), true; more; {
		var some []Delivery[T]
		d.mu.Lock()
		if newer == 0 {
			newer = d.win.Reserve(1)
		}
		from, more = d.win.Scan(from, lookLen, func(i int32) {
			m := d.win.Meta(i)
			if m.Stamp < newer && !d.inFlightLocked(m) && (!d.shared() || d.win.At(i).Ext.Source == q.origin()) {
				some = append(some, d.peekedLocked(i))
			}
		})
		d.mu.Unlock()
		if some, err = selectLetters(some, c); err != nil {
			return nil, err
		}
		letters = append(letters, some...)
	}
	inOrder(letters)
	return letters, nil
}

// selectLetters applies the options, with no lock held. Of the IDs asked for it notes
// those that a letter has.
func selectLetters[T any](letters []Delivery[T], c *LetterChoice[T]) (kept []Delivery[T], err error) {
	defer func() {
		if p := recover(); p != nil {
			kept, err = nil, fmt.Errorf("fanout: RedriveIf: %w", panicError(p))
		}
	}()
	for _, l := range letters {
		keep := (c.IDs == nil || c.Met(l.ID())) && c.InTime(l.hist)
		for _, pred := range c.Keep {
			keep = keep && pred(&l)
		}
		if keep {
			kept = append(kept, l)
		}
	}
	return kept, nil
}

// redriveLocked moves letters back as far as there is room. A letter takes the
// place of a parked message if it must, which takes the letter's: a queue that
// is full of parked messages and its full dead-letter queue could otherwise wait
// for each other for ever. It returns the letters that remain, and how many
// moved. The topic's mu is held.
func (q *Queue[T]) redriveLocked(letters []Delivery[T]) (rest []Delivery[T], moved int) {
	q.mu.Lock()
	defer q.unlockUnder(q.t)
	now := q.core.now()
	d := q.dead
	d.mu.Lock()
	defer d.unlockUnder(q.t)
	for len(letters) > 0 && (q.room() > 0 || q.parked.Len() > 0) {
		l := letters[0]
		letters = letters[1:]
		if !d.hasLetterLocked(&l) {
			continue
		}
		h := *d.win.At(l.ref.Block)
		d.takeOutLocked(l.ref.Block)
		d.freeLocked(l.ref.Block)
		d.rareLocked().redriven++
		if q.room() <= 0 {
			p, _ := q.parked.First()
			q.sendBothLocked(d, p)
			q.win.Pull(&q.parked, p)
			q.freeLocked(p)
		}
		i := q.win.Add(held[T]{item: q.unletter(d, h.item, now), hist: h.hist})
		q.allow.Add(-1)
		q.rareLocked().redriven++
		q.putLocked(i, due)
		moved++
		q.noteItemLocked(notice.Redriven, &h.item, notice.Event{})
	}
	d.armLocked(d.core.now())
	d.handOnLocked() // a letter that went may have been the head of its key
	q.handOnLocked()
	return letters, moved
}

// hasLetterLocked reports whether a letter that was looked at is still there. It may
// have been taken, settled or redriven meanwhile.
func (d *Queue[T]) hasLetterLocked(l *Delivery[T]) bool {
	return !d.closed && d.win.Holds(l.ref.Block) && d.win.At(l.ref.Block).Seq == l.seq && !d.inFlightLocked(d.win.Meta(l.ref.Block))
}
