package fanout

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
)

// deadSuffix makes the name of a queue's own dead-letter queue. No other queue
// may have such a name.
const deadSuffix = "/dead"

// DeadLetters returns the queue's dead-letter queue. It has the messages whose attempts are
// spent, whose handler returned [Permanent], whose time to live has passed, or which were
// snoozed or released too often, each with the history of its attempts. Look at them by
// [Queue.Peek], take them by Receive or Subscribe, and send them back by [Queue.Redrive].
//
// Somebody has to empty it. It holds up to [WithDeadLetterCapacity] letters. When it is
// full, a dead message is parked in its own queue: it is not delivered again, takes up that
// queue's room, and moves as soon as there is room for it. So a dead message is never lost,
// but in the end publishers wait. [WithDeadLetterOverflow] drops the oldest letters instead.
// [Hooks].DeadLettered and Parked, the log, and [Stats].Dead and Parked tell of it.
//
// The dead-letter queue is made when it is first needed, and is named after its queue with
// "/dead" behind. A queue opened [WithDeadLetterQueue] uses that one instead. It outlives
// its queue, until its topic ends or its queue is deleted. A queue that is opened later by
// the same name gets it, with its letters and its consumers, and can redrive them; its
// capacity and overflow are then those of the new queue's options, but its capacity is at
// least the number of its letters. The same holds for a queue's letters in a shared
// dead-letter queue.
//
// A dead-letter queue has no dead-letter queue of its own. What fails there is retried for
// ever, with Permanent too, and its DeadLetters returns itself.
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
		set := defaultQueueSettings().queueLimits
		set.capacity, set.overflow = q.set.deadCapacity, q.set.deadOverflow
		set.visibility, set.backoff = q.set.visibility, q.set.backoff
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
	d := q.t.orphans[q.name+deadSuffix]
	if d == nil || q.dead != nil {
		return
	}
	delete(q.t.orphans, d.name)
	q.dead, d.source = d, q
	d.mu.Lock()
	defer d.mu.Unlock()
	capacity, ranked := max(q.set.deadCapacity, d.heldLocked()), d.set.overflow == DropOldest
	d.allow.Add(int64(min(capacity, maxCapacity)) - int64(min(d.set.capacity, maxCapacity)))
	d.set.capacity, d.set.overflow = capacity, q.set.deadOverflow
	if ranked || d.set.overflow != DropOldest {
		return
	}
	d.win.All(func(i int32) bool {
		if s := d.win.Meta(i).State; s != inFlight && s != handling {
			d.rankLocked(i)
		}
		return true
	})
}

func newDeadLetterQueue[T any](c *core, t *Topic[T], name string, set queueLimits) *Queue[T] {
	set.maxAttempts = Unlimited
	d := newQueue(c, t, name, &set)
	d.letters, d.direct = true, true
	return d
}

// NewDeadLetterQueue returns a dead-letter queue that several queues can share, of one topic
// or of several, by [WithDeadLetterQueue]. Each letter remembers its queue, and that queue's
// Redrive moves only its own letters. The caller owns it: it ends by its Close, not with a
// topic.
//
// Its defaults are those of any dead-letter queue. [WithDeadLetterCapacity],
// [WithDeadLetterOverflow], [WithVisibilityTimeout], [WithHooks] and [WithLogger] change
// them. It returns [ErrInvalidOption] for an empty name or a bad option.
func NewDeadLetterQueue[T any](name string, options ...DeadLetterOption) (*Queue[T], error) {
	if name == "" {
		return nil, invalid("NewDeadLetterQueue", `""`, "a name that is not empty")
	}
	set := defaultQueueSettings()
	var top topicSettings
	err := applyAll(options, func(o DeadLetterOption) error { return o.applyDeadLetters(&top, &set) })
	if err != nil {
		return nil, err
	}
	set.capacity, set.overflow = set.deadCapacity, set.deadOverflow
	c, err := newCore(name, top)
	if err != nil {
		return nil, fmt.Errorf("fanout: dead-letter queue %q: %w", name, err)
	}
	return newDeadLetterQueue[T](c, nil, name, set.queueLimits), nil
}

// buryLocked moves entry i, whose state has been left, to the dead-letter
// queue, or parks it. The lock of a queue comes before that of its dead-letter
// queue, so that the move is one step for everybody else.
func (q *Queue[T]) buryLocked(i int32) {
	if q.remote != nil {
		q.buryRemoteLocked(i, false)
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
	if d.heldLocked() >= d.set.capacity {
		if d.set.overflow != DropOldest || !d.dropOldestLocked(0) {
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
	if it.Ext != nil || q.set.ttl > 0 {
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

// Peek returns up to most of the queue's messages in the order of publication, all of them
// for [Unlimited]. It takes none: they stay ready for consumers. It does not see messages
// that are in flight or parked; in a closed queue nothing is in flight. The deliveries that
// it returns can be read, History included. Settling one returns [ErrStale] or [ErrClosed].
func (q *Queue[T]) Peek(ctx context.Context, most int) ([]Delivery[T], error) {
	if err := q.made(); err != nil {
		return nil, err
	}
	if most < 1 {
		return nil, invalid("Peek", most, "at least 1")
	}
	if ctx == nil {
		return nil, fmt.Errorf("%w: Peek: %w", ErrInvalidOption, errNilContext)
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("fanout: peek at %q: %w", q.name, contextError(ctx))
	}
	if q.remote != nil {
		ds, err := q.remote.peek(ctx, most)
		if err != nil {
			return ds, fmt.Errorf("fanout: peek at %q: %w", q.name, err)
		}
		return ds, nil
	}
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
	return ds[:min(most, len(ds))], nil
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
	return Delivery[T]{
		Body: h.Body, q: q, ext: h.Ext, hist: h.hist, seq: h.Seq, at: h.At, ref: message.Ref{Block: i, Attempt: int32(min(m.Spent+1, 1<<31-1))},
	}
}

// inLogDelivery is a message of the log for those who look at it.
func (q *Queue[T]) inLogDelivery(it *item[T]) Delivery[T] {
	return Delivery[T]{Body: it.Body, q: q, ext: it.Ext, seq: it.Seq, at: it.At, ref: message.Ref{Attempt: 1}}
}

// Redrive sends dead letters back to this queue, and to no other: all that are in its
// dead-letter queue when it is called, or those that the options select. It returns how many
// moved. Their attempts start anew, and their histories stay. They are due at once, and the
// queue takes them in turn with its backlog; its filter is not asked. A letter that a
// consumer of the dead-letter queue has received stays there.
//
// Redriven messages need room, as published ones do. If the queue is full, Redrive waits in
// turn with publishers, whatever the overflow policy. If ctx ends meanwhile, it returns
// ctx's error and how many it has moved; if the queue is closed, [ErrClosed]. On an engine
// it does not wait, but returns [ErrQueueFull]. An option for another T is
// [ErrInvalidOption]. IDs that no letter has are [ErrUnknownID], see [RedriveIDs]; the other
// letters have moved then.
func (q *Queue[T]) Redrive(ctx context.Context, options ...RedriveOption) (moved int, err error) {
	c, err := q.chooseLetters(ctx, "Redrive", "redrive", options)
	if err != nil {
		return 0, err
	}
	return q.redriveAround(ctx, c)
}

// redriveTo is Redrive with its options, and nothing around it.
func (q *Queue[T]) redriveTo(ctx context.Context, c *letterChoice[T]) (moved int, err error) {
	if err := q.findLetters("redrive", c); err != nil {
		return 0, err
	}
	switch {
	case q.remote != nil:
		moved, err = q.remote.redrive(ctx, c)
	case c.dead == nil:
		err = c.set.unknown()
	default:
		moved, err = q.redriveFrom(ctx, c)
	}
	if err != nil {
		err = fmt.Errorf("fanout: redrive of %q: %w", q.name, err)
	}
	return moved, err
}

// A letterChoice says which letters of a queue options select.
type letterChoice[T any] struct {
	dead  *Queue[T] // nil: none has died
	set   redriveSettings
	preds []func(Delivery[T]) bool
}

// chooseLetters checks the options and the context of a call about the queue's letters,
// which does what.
func (q *Queue[T]) chooseLetters(ctx context.Context, call, what string, options []RedriveOption) (*letterChoice[T], error) {
	if err := q.made(); err != nil {
		return nil, err
	}
	if q.letters {
		return nil, fmt.Errorf("%w: %s of %q: call it on the queue that the dead letters come from", ErrUnsupported, call, q.name)
	}
	c := new(letterChoice[T])
	if err := applyAll(options, func(o RedriveOption) error { return o.applyRedrive(&c.set) }); err != nil {
		return nil, err
	}
	var err error
	if c.preds, err = typed[func(Delivery[T]) bool]("RedriveIf", c.set.preds, reflect.TypeFor[T]()); err != nil {
		return nil, err
	}
	if ctx == nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrInvalidOption, call, errNilContext)
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("fanout: %s of %q: %w", what, q.name, contextError(ctx))
	}
	return c, nil
}

// findLetters finds the dead-letter queue of c, for a call that does what.
func (q *Queue[T]) findLetters(what string, c *letterChoice[T]) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	c.dead = q.dead
	if q.closed {
		return fmt.Errorf("fanout: %s of %q: %w", what, q.name, ErrClosed)
	}
	return nil
}

// redriveFrom redrives letters in memory.
func (q *Queue[T]) redriveFrom(ctx context.Context, c *letterChoice[T]) (moved int, err error) {
	letters, err := q.selectFrom(c)
	if err != nil {
		return 0, err
	}
	unknown := c.set.unknown()
	if len(letters) == 0 {
		return 0, unknown
	}
	o := &offer[T]{redrive: q, letters: letters}
	if err = q.t.offer(ctx, o, false); err == nil {
		err = unknown
	} else if unknown != nil {
		err = fmt.Errorf("%w; %w", err, unknown)
	}
	return o.moved, err
}

// selectFrom returns the queue's letters that are chosen, in the order of publication. It
// looks at lookLen of them under one lock. One that came meanwhile, or that a consumer has
// taken, is not among them.
func (q *Queue[T]) selectFrom(c *letterChoice[T]) (letters []Delivery[T], err error) {
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
func selectLetters[T any](letters []Delivery[T], c *letterChoice[T]) (kept []Delivery[T], err error) {
	defer func() {
		if p := recover(); p != nil {
			kept, err = nil, fmt.Errorf("fanout: RedriveIf: %w", panicError(p))
		}
	}()
	for _, l := range letters {
		keep := (c.set.ids == nil || c.set.met(l.ID())) && c.set.inTime(l.hist)
		for _, pred := range c.preds {
			keep = keep && pred(l)
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
func (q *Queue[T]) redriveLocked(letters []Delivery[T], head int64) (rest []Delivery[T], moved int) {
	q.mu.Lock()
	defer q.unlockUnder(q.t)
	now := q.core.now()
	d := q.dead
	d.mu.Lock()
	defer d.unlockUnder(q.t)
	for len(letters) > 0 && (q.room(head) > 0 || q.parked.Len() > 0) {
		l := letters[0]
		letters = letters[1:]
		if !d.hasLetterLocked(&l) {
			continue
		}
		h := *d.win.At(l.ref.Block)
		d.takeOutLocked(l.ref.Block)
		d.freeLocked(l.ref.Block)
		d.rareLocked().redriven++
		if q.room(head) <= 0 {
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

// inTime reports whether a letter with this history died before all are too new.
func (s *redriveSettings) inTime(h *history) bool {
	if s.until.IsZero() {
		return true
	}
	at, _ := died(h)
	return !at.IsZero() && !at.After(s.until)
}

// met reports whether a letter's ID is asked for, and notes that there is one.
func (s *redriveSettings) met(id string) bool {
	_, asked := s.ids[id]
	if asked {
		s.ids[id] = true
	}
	return asked
}

// mostUnknown is how many IDs one error names.
const mostUnknown = 100

// unknown returns an error that names the IDs asked for that no letter has, nil if
// there is none.
func (s *redriveSettings) unknown() error {
	var ids []string
	for id, met := range s.ids {
		if !met {
			ids = append(ids, strconv.Quote(id))
		}
	}
	if ids == nil {
		return nil
	}
	slices.Sort(ids)
	list, more := strings.Join(ids[:min(len(ids), mostUnknown)], ", "), ""
	if n := len(ids) - mostUnknown; n > 0 {
		more = fmt.Sprintf(" and %d more", n)
	}
	return fmt.Errorf("%w: RedriveIDs(%s)%s: want IDs of its dead letters that no consumer has in hand", ErrUnknownID, list, more)
}

// RedriveIDs selects dead letters by the IDs of their messages. Several such options add up.
// No ID at all selects nothing. Beside [RedriveIf] a letter must meet both.
//
// If no dead letter of the queue has one of the IDs, Redrive returns [ErrUnknownID], which
// names it, and moves the others. A letter that a consumer of the dead-letter queue has
// received counts as missing. If Redrive fails on an engine before it has seen all letters,
// it calls no ID unknown.
func RedriveIDs(ids ...string) RedriveOption {
	return redriveOption(func(s *redriveSettings) error {
		if s.ids == nil {
			s.ids = make(map[string]bool, len(ids))
		}
		for _, id := range ids {
			s.ids[id] = false
		}
		return nil
	})
}

// RedriveUntil selects the dead letters that had died by newest: those that somebody has
// looked at, and none that died later, not even the same message again. A letter dies when
// the attempt ends that makes it dead. A letter without a history is not selected. Of
// several such options the last counts. The zero Time is [ErrInvalidOption].
func RedriveUntil(newest time.Time) RedriveOption {
	return redriveOption(func(s *redriveSettings) error {
		if newest.IsZero() {
			return invalid("RedriveUntil", newest, "a time that is not zero")
		}
		s.until = newest
		return nil
	})
}

// RedriveIf selects the dead letters that keep accepts. With several such options all must
// accept a letter. The delivery given to keep can be read, its history included, but not
// settled. On an engine the errors in a history are texts, in which errors.Is and errors.As
// find nothing: look at the Cause or the text. keep is called without a lock. If it panics,
// Redrive fails before anything has moved.
func RedriveIf[T any](keep func(d Delivery[T]) bool) RedriveOption {
	return redriveOption(func(s *redriveSettings) error {
		if keep == nil {
			return invalid("RedriveIf", nil, "a function")
		}
		s.preds = append(s.preds, keep)
		return nil
	})
}
