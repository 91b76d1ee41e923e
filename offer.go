package fanout

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Publish hands body to every queue whose filter accepts it, all or none: when
// it returns nil the message is in all of them, save where a queue's own Drop
// policy dropped it; when it returns an error it is in none, nothing was
// dropped for it, and the publish can be tried again.
//
// It blocks while a queue with the [Block] policy is full, in the order of
// arrival, until there is room or ctx ends. It returns ctx's error, [ErrClosed],
// [ErrQueueFull], or an error that names the queue whose filter panicked.
func (t *Topic[T]) Publish(ctx context.Context, body T) error {
	if done, err := t.publishFast(ctx, body); done {
		return err
	}
	items := [1]item[T]{{body: body}}
	return t.publish(ctx, items[:], false)
}

// publishFast publishes one message when there is nothing to look at and
// nobody to wait for: one short lock, one append. It reports whether it has.
func (t *Topic[T]) publishFast(ctx context.Context, body T) (done bool, err error) {
	if ctx == nil || ctx.Err() != nil || t.before != nil || t.filtered.Load() != nil {
		return false, nil
	}
	now := t.now()
	t.mu.Lock()
	head := t.log.Head()
	if head >= t.limit || t.state != topicOpen || len(t.waiters) > 0 {
		t.mu.Unlock()
		return false, nil
	}
	t.seq++
	it := item[T]{seq: t.seq, at: t.timeOf(now), body: body}
	if len(t.open) > 0 { // else nobody would read it
		t.log.Append(it)
		t.log.Publish()
	}
	t.retained.add(it)
	t.mu.Unlock()
	t.wakeAll()
	if t.funcs[published] != nil {
		t.tellPublished([]item[T]{it})
	}
	return true, nil
}

// PublishMessages publishes a batch, all or none: when it returns nil all the
// messages are in all queues whose filters accept them, in the order given,
// with no other publisher's between them; when it returns an error none is in
// any. Beside what Publish returns it returns [ErrInvalidMessage], and
// [ErrBatchTooLarge] for more messages than the capacity of a [Block] or
// [Reject] queue that would take them. No message is no error.
func (t *Topic[T]) PublishMessages(ctx context.Context, messages ...Message[T]) error {
	items, err := t.items(messages)
	if err != nil {
		return err
	}
	return t.publish(ctx, items, false)
}

// TryPublish is Publish without waiting: where Publish would wait it returns
// [ErrQueueFull].
func (t *Topic[T]) TryPublish(ctx context.Context, body T) error {
	if done, err := t.publishFast(ctx, body); done {
		return err
	}
	items := [1]item[T]{{body: body}}
	return t.publish(ctx, items[:], true)
}

// TryPublishMessages is PublishMessages without waiting: where that would wait
// it returns [ErrQueueFull].
func (t *Topic[T]) TryPublishMessages(ctx context.Context, messages ...Message[T]) error {
	items, err := t.items(messages)
	if err != nil {
		return err
	}
	return t.publish(ctx, items, true)
}

// items checks messages and copies what the topic keeps of them.
func (t *Topic[T]) items(messages []Message[T]) ([]item[T], error) {
	items := make([]item[T], len(messages))
	for k, m := range messages {
		if m.Delay < 0 {
			return nil, fmt.Errorf("%w: message %d: Delay is %v: want a duration that is not negative", ErrInvalidMessage, k, m.Delay)
		}
		switch {
		case m.TimeToLive < 0:
			return nil, fmt.Errorf("%w: message %d: TimeToLive is %v: want a duration that is not negative", ErrInvalidMessage, k, m.TimeToLive)
		case m.OrderingKey != "" && !t.ordering:
			return nil, fmt.Errorf("%w: message %d: OrderingKey is %q, but topic %q was not made WithOrdering", ErrUnsupported, k, m.OrderingKey, t.name)
		case m.OrderingKey != "" && m.Delay > 0:
			return nil, fmt.Errorf("%w: message %d: Delay is %v and OrderingKey %q: with a key, delay the queue", ErrUnsupported, k, m.Delay, m.OrderingKey)
		case m.DeduplicationID != "" && t.dedup == nil:
			return nil, fmt.Errorf("%w: message %d: DeduplicationID is %q, but topic %q was not made WithDeduplication", ErrUnsupported, k, m.DeduplicationID, t.name)
		}
		items[k].body = m.Body
		x := extra{id: m.ID, key: m.OrderingKey, dedup: m.DeduplicationID, delay: m.Delay, ttl: m.TimeToLive}
		if len(m.Attributes) > 0 || x.id != "" || x.key != "" || x.dedup != "" || x.delay > 0 || x.ttl > 0 {
			x.attributes = maps.Clone(m.Attributes)
			items[k].ext = &x
		}
	}
	return items, nil
}

// An offer is what one call wants to add to the queues: messages published, or
// dead letters redriven to one queue.
type offer[T any] struct {
	items   []item[T]
	delayed bool // some item has a delay of its own
	dedup   bool // some item has a deduplication ID
	rows    []row[T]

	redrive *Queue[T]
	letters []Delivery[T]
	moved   int
}

// A row says which of an offer's items a queue's filter accepted.
type row[T any] struct {
	q        *Queue[T]
	accepted []int // indexes of items
}

// A waiter is an offer that waits for room. decided is closed, by whoever
// decided about it, after err was set; both belong to the topic's mu until then.
type waiter[T any] struct {
	*offer[T]
	decided chan struct{}
	err     error
	run     *run // of the handler that publishes, or nil
	// again gets a token when the waiter was looked at and has to wait on,
	// perhaps for another queue.
	again chan struct{}
}

// lookAgain has w look for a deadlock again.
func (w *waiter[T]) lookAgain() {
	select {
	case w.again <- struct{}{}:
	default: // it will
	}
}

func (t *Topic[T]) publish(ctx context.Context, items []item[T], try bool) error {
	err := t.intercepted(ctx, items, try)
	if err == nil {
		return nil
	}
	return fmt.Errorf("fanout: publish to %q: %w", t.name, err)
}

func (t *Topic[T]) intercepted(ctx context.Context, items []item[T], try bool) error {
	if t.before == nil {
		return t.tryAll(ctx, items, try)
	}
	return intercept(ctx, t.before, t.publishing(items), func(ctx context.Context) error { return t.tryAll(ctx, items, try) })
}

func (t *Topic[T]) tryAll(ctx context.Context, items []item[T], try bool) error {
	if ctx == nil {
		return fmt.Errorf("%w: %w", ErrInvalidOption, errNilContext)
	}
	if ctx.Err() != nil {
		return contextError(ctx)
	}
	o := &offer[T]{items: slices.Clone(items)}
	for _, it := range items {
		if it.ext != nil {
			o.delayed = o.delayed || it.ext.delay > 0
			o.dedup = o.dedup || it.ext.dedup != ""
		}
	}
	if err := t.applyFilters(o); err != nil {
		return err
	}
	err := t.offer(ctx, o, try)
	if err == nil && t.funcs[published] != nil {
		t.tellPublished(o.items)
	}
	return err
}

// applyFilters asks the filters of the queues that have one. No lock is held.
func (t *Topic[T]) applyFilters(o *offer[T]) (err error) {
	p := t.filtered.Load()
	if p == nil {
		return nil
	}
	var q *Queue[T]
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("filter of queue %q: %w", q.name, panicError(r))
		}
	}()
	for _, q = range *p {
		r := row[T]{q: q}
		for k := range o.items {
			if q.accepts(&o.items[k]) {
				r.accepted = append(r.accepted, k)
			}
		}
		if len(r.accepted) > 0 {
			o.rows = append(o.rows, r)
		}
	}
	return nil
}

func (q *Queue[T]) accepts(it *item[T]) bool {
	for _, f := range q.filters {
		if !f(it) {
			return false
		}
	}
	return true
}

// offer adds o to the queues, and waits for its turn if it must and may.
func (t *Topic[T]) offer(ctx context.Context, o *offer[T], try bool) error {
	t.mu.Lock()
	full, fx, err := t.firstLookLocked(o)
	w := &waiter[T]{offer: o, decided: make(chan struct{}), again: make(chan struct{}, 1), run: runOf(ctx)}
	if full != nil && !try {
		t.waiters = append(t.waiters, w)
	}
	moved := o.moved
	t.mu.Unlock()
	switch {
	case err != nil:
		return err
	case full == nil || moved > 0:
		fx.and(t.after(o)).perform()
	}
	if full == nil {
		return nil
	}
	if try {
		return fmt.Errorf("%w: queue %q", ErrQueueFull, full.name)
	}

	err = t.await(ctx, w, full)
	t.mu.Lock()
	k := slices.Index(t.waiters, w)
	if k < 0 { // decided, perhaps just now: what was decided is what happened
		t.mu.Unlock()
		<-w.decided
		return w.err
	}
	t.waiters = slices.Delete(t.waiters, k, k+1)
	t.mu.Unlock()
	t.admitWaiters().perform() // those behind this one may not share the queue it waited for
	return err
}

// stallAfter is how long a publish waits before it is reported, and how long
// until it is reported again.
const stallAfter = 10 * time.Second

// await waits until w is decided, and returns early with an error if ctx ends
// or if it would wait for ever.
func (t *Topic[T]) await(ctx context.Context, w *waiter[T], full *Queue[T]) error {
	since := t.now()
	hw := &handlerWait{blockers: func() []waitQueue { return t.blockersOf(w) }}
	if w.run != nil {
		w.run.add(hw)
		defer w.run.remove(hw)
	}
	stalled := time.NewTimer(stallAfter)
	defer stalled.Stop()
	for {
		if w.run != nil {
			if err := w.run.deadlock(hw); err != nil {
				return err
			}
		}
		select {
		case <-w.decided:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("%w while waiting for room in queue %q", contextError(ctx), full.name)
		case <-w.again:
		case <-stalled.C:
			if qs := t.blockersOf(w); len(qs) > 0 {
				full = qs[0].(*Queue[T]) // it may have become another
			}
			full.reportStall(time.Duration(t.now() - since))
			stalled.Reset(stallAfter)
		}
	}
}

// reportStall tells that a publish has been waiting for room.
func (q *Queue[T]) reportStall(waited time.Duration) {
	s := q.Stats()
	q.mu.Lock()
	fx := q.noteLocked(nil, stalledEvent, Event{Elapsed: waited, Count: 1, Stats: &s})
	q.mu.Unlock()
	fx.perform()
}

// firstLookLocked admits a new offer, unless one that came before it waits for
// a queue that this one wants too. It returns the queue to wait for.
func (t *Topic[T]) firstLookLocked(o *offer[T]) (full *Queue[T], fx *effects, err error) {
	if t.state != topicOpen {
		return nil, nil, ErrClosed
	}
	t.dropDuplicatesLocked(o)
	if len(t.waiters) > 0 && (o.redrive != nil || len(o.items) > 0) {
		t.pass++
		for _, w := range t.waiters {
			t.claimLocked(w.offer)
		}
		if q := t.claimedLocked(o); q != nil {
			if err := t.refusedLocked(o); err != nil {
				return nil, nil, err
			}
			return q, nil, nil
		}
	}
	return t.admitLocked(o)
}

// targets yields the queues that an offer goes to with the number of messages
// that each would get. The topic's mu is held.
func (t *Topic[T]) targets(o *offer[T]) func(yield func(q *Queue[T], n int) bool) {
	return func(yield func(*Queue[T], int) bool) {
		if o.redrive != nil {
			if !o.redrive.gone {
				yield(o.redrive, 1)
			}
			return
		}
		for _, q := range t.open {
			if len(o.items) == 0 || !yield(q, len(o.items)) {
				return
			}
		}
		for _, r := range o.rows {
			if !r.q.gone && !yield(r.q, len(r.accepted)) {
				return
			}
		}
	}
}

// claimLocked marks the targets of an offer that waits: who comes later and
// wants one of them waits behind it. Nobody waits for a queue that drops, so
// that a redrive to one, which does wait, keeps no publish waiting.
func (t *Topic[T]) claimLocked(o *offer[T]) {
	for q := range t.targets(o) {
		if o.redrive == nil || !q.set.overflow.drops() {
			q.mark = t.pass
		}
	}
}

// claimedLocked returns a target of o that one who came before waits for.
func (t *Topic[T]) claimedLocked(o *offer[T]) *Queue[T] {
	for q := range t.targets(o) {
		if q.mark == t.pass {
			return q
		}
	}
	return nil
}

// refusedLocked returns the error of an offer that waiting would not help.
func (t *Topic[T]) refusedLocked(o *offer[T]) error {
	if o.redrive != nil {
		return nil
	}
	head := t.log.Head()
	for q, n := range t.targets(o) {
		if q.set.overflow.drops() {
			continue
		}
		if n > q.set.capacity {
			return fmt.Errorf("%w: %d messages for queue %q, which has a capacity of %d", ErrBatchTooLarge, n, q.name, q.set.capacity)
		}
		if q.set.overflow == Reject && q.room(head) < int64(n) {
			return fmt.Errorf("%w: queue %q holds %d", ErrQueueFull, q.name, q.set.capacity-int(max(q.room(head), 0)))
		}
	}
	return nil
}

// admitLocked adds o to all its queues if there is room in all of them, or
// returns a full one to wait for, or an error; then it has changed nothing,
// but that a redrive may have moved some of its letters.
func (t *Topic[T]) admitLocked(o *offer[T]) (full *Queue[T], fx *effects, err error) {
	if o.redrive != nil {
		return t.admitRedriveLocked(o)
	}
	t.dropDuplicatesLocked(o)
	head, n := t.log.Head(), len(o.items)
	if n == 0 {
		return nil, nil, nil
	}
	if len(o.rows) == 0 && !o.delayed && head+int64(n) <= t.limit {
		t.stampLocked(o)
		t.appendLocked(o)
		t.log.Publish()
		return nil, nil, nil
	}

	// Look at all before touching any.
	if err := t.refusedLocked(o); err != nil {
		return nil, nil, err
	}
	for q, n := range t.targets(o) {
		if q.set.overflow == Block && !q.hasRoomOrGate(head, int64(n)) {
			return q, nil, nil
		}
	}

	// Nothing can fail from here on.
	t.stampLocked(o)
	if !o.delayed {
		t.appendLocked(o)
	}
	for _, q := range t.open {
		switch {
		case q.direct || o.delayed:
			fx = fx.and(q.add(o.items, nil))
		case q.room(head) < int64(n):
			fx = fx.and(q.overflow(o.items, head))
		}
	}
	for _, r := range o.rows {
		if !r.q.gone {
			fx = fx.and(r.q.add(o.items, r.accepted))
		}
	}
	t.log.Publish()
	t.relimitLocked()
	return nil, fx, nil
}

// hasRoomOrGate reports whether there is room for n messages. If not, whoever
// makes some will come to admit waiters.
func (q *Queue[T]) hasRoomOrGate(head, n int64) bool {
	if q.room(head) >= n {
		return true
	}
	q.gated.Store(true)
	return q.room(head) >= n // made before the gate was seen?
}

func (t *Topic[T]) stampLocked(o *offer[T]) {
	at := t.timeOf(t.now())
	for k := range o.items {
		it := &o.items[k]
		t.seq++
		it.seq, it.at = t.seq, at
		t.retained.add(*it)
		if it.ext != nil && it.ext.dedup != "" {
			t.dedup.remember(it.ext.dedup, at)
		}
	}
	if o.dedup {
		t.armDedupLocked(at)
	}
}

// appendLocked appends o's items to the log, if any queue reads it.
func (t *Topic[T]) appendLocked(o *offer[T]) {
	if len(t.open) == 0 {
		return
	}
	for _, it := range o.items {
		t.log.Append(it)
	}
}

func (t *Topic[T]) admitRedriveLocked(o *offer[T]) (full *Queue[T], fx *effects, err error) {
	q := o.redrive
	if q.gone {
		return nil, nil, fmt.Errorf("%w: queue %q", ErrClosed, q.name)
	}
	for again := true; again; again = len(o.letters) > 0 && q.hasRoomOrGate(t.log.Head(), 1) {
		var moved int
		var more *effects
		o.letters, moved, more = q.redriveLocked(o.letters, t.log.Head())
		o.moved += moved
		fx = fx.and(more)
	}
	t.relimitLocked()
	if len(o.letters) > 0 {
		return q, fx, nil
	}
	return nil, fx, nil
}

// after does what remains once an offer was admitted, as a whole or in part. No
// lock is held; an offer admitted in part is a waiter's again, so that only what
// of it never changes may be looked at.
func (t *Topic[T]) after(o *offer[T]) *effects {
	if o.redrive != nil {
		return o.redrive.DeadLetters().madeRoom()
	}
	t.wakeAll()
	return nil
}

func (t *Topic[T]) tellPublished(items []item[T]) {
	for _, it := range items {
		t.call(t.funcs[published], Event{
			Topic: t.name, Seq: it.seq, Time: t.time(it.at), MessageID: t.id(it.seq, it.at, it.ext), Count: 1,
		})
	}
}

// admitWaiters admits those who wait for room, in the order of their arrival.
// One that still has to wait holds back those behind it that share a queue
// with it, and no others. A redrive that moved some of its letters goes behind
// the others for the rest.
func (t *Topic[T]) admitWaiters() (fx *effects) {
	var admitted, decided, waiting, again []*waiter[T]
	t.mu.Lock()
	t.pass++
	for _, w := range t.waiters {
		t.dropDuplicatesLocked(w.offer)
		if w.redrive == nil && len(w.items) == 0 { // published by another meanwhile
			decided = append(decided, w)
			continue
		}
		if t.claimedLocked(w.offer) != nil {
			t.claimLocked(w.offer)
			waiting = append(waiting, w)
			continue
		}
		moved := w.moved
		full, more, err := t.admitLocked(w.offer)
		fx = fx.and(more)
		if full == nil && err == nil || w.moved > moved {
			admitted = append(admitted, w)
		}
		switch {
		case full == nil:
			w.err = err
			decided = append(decided, w)
		case w.moved > moved:
			again = append(again, w)
		default:
			t.claimLocked(w.offer)
			waiting = append(waiting, w)
		}
	}
	t.waiters = append(waiting, again...)
	var inHandlers []*waiter[T]
	for _, w := range t.waiters {
		if w.run != nil {
			inHandlers = append(inHandlers, w)
		}
	}
	t.mu.Unlock()
	for _, w := range decided {
		close(w.decided)
	}
	for _, w := range inHandlers {
		w.lookAgain()
	}
	for _, w := range admitted {
		fx = fx.and(t.after(w.offer))
	}
	return fx
}

// refuseWaitersLocked decides about all waiters that the topic is closed. The
// caller closes their decided.
func (t *Topic[T]) refuseWaitersLocked() []*waiter[T] {
	ws := t.waiters
	t.waiters = nil
	for _, w := range ws {
		w.err = ErrClosed
	}
	return ws
}

// add puts items, or those of them with the given indexes, into the window of a
// queue that is direct, or that gets messages with a delay of their own. The
// topic's mu is held.
func (q *Queue[T]) add(items []item[T], accepted []int) (fx *effects) {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := len(items)
	if accepted != nil {
		n = len(accepted)
	}
	q.offered += uint64(n)
	q.spillLocked()
	over := q.win.Len() + n - q.set.capacity
	for k := range n {
		it := &items[k]
		if accepted != nil {
			it = &items[accepted[k]]
		}
		if q.set.overflow == DropNewest && k >= n-over {
			fx = q.dropLocked(fx, it, DroppedNewest)
			continue
		}
		q.addLocked(it)
	}
	if q.set.overflow == DropOldest {
		for ; over > 0; over-- {
			q.dropOldestLocked(0, &fx)
		}
	}
	q.armLocked(q.core.now())
	q.handOnLocked()
	return fx
}

// replay adds what was published before the queue was opened.
func (q *Queue[T]) replay(past []item[T]) {
	for k := range past {
		q.addLocked(&past[k])
	}
	q.offered += uint64(len(past))
	q.armLocked(q.core.now())
}

func (q *Queue[T]) addLocked(it *item[T]) {
	i := q.win.Add(held[T]{item: *it})
	q.allow.Add(-1)
	delay := q.set.delay
	if it.ext != nil && it.ext.delay > 0 {
		delay = it.ext.delay
	}
	if delay == 0 {
		q.putLocked(i, backlogged)
		return
	}
	q.putLocked(i, delayed)
	q.win.Schedule(i, after(it.at, delay))
}

// spillLocked takes the backlog out of the log into the window, so that what is
// added to the window comes behind it, or so that the cursor can pass what the
// queue does not get.
func (q *Queue[T]) spillLocked() {
	for n := q.inLogLocked(); n > 0; n-- {
		q.putLocked(q.win.Add(held[T]{item: *q.cursor.Next()}), backlogged)
	}
}

// overflow makes a queue that reads the log, and has too little room for items,
// drop what its policy says. The items have been appended at head and are not
// visible to consumers yet. The topic's mu is held.
func (q *Queue[T]) overflow(items []item[T], head int64) (fx *effects) {
	q.mu.Lock()
	defer q.mu.Unlock()
	end := head + int64(len(items))
	over := int(end - q.allow.Load())
	if over <= 0 {
		return nil // room was made meanwhile
	}
	if q.set.overflow == DropOldest {
		for ; over > 0; over-- {
			q.dropOldestLocked(end, &fx)
		}
		q.cursor.SkipTo(q.cursor.Pos()) // lets go of the log behind what was dropped
		q.armLocked(q.core.now())
		return fx
	}
	q.spillLocked()
	for k := range items {
		if k < len(items)-over {
			q.putLocked(q.win.Add(held[T]{item: items[k]}), backlogged)
		} else {
			fx = q.dropLocked(fx, &items[k], DroppedNewest)
			q.allow.Add(1)
		}
	}
	q.cursor.SkipTo(end)
	q.handOnLocked()
	return fx
}

// dropOldestLocked drops what was published first among what is not in flight,
// and reports whether there was anything. The log is read up to end, which may
// be beyond what consumers see.
func (q *Queue[T]) dropOldestLocked(end int64, fx **effects) bool {
	i, seq, ok := q.win.Lowest()
	if b, found := q.backlog.First(); found && (!ok || q.win.At(b).seq < uint64(seq)) {
		i, seq, ok = b, int64(q.win.At(b).seq), true
	}
	if !q.direct && q.cursor.Pos() < end {
		if it := q.cursor.Peek(); !ok || it.seq < uint64(seq) {
			q.cursor.Next()
			q.allow.Add(1)
			*fx = q.dropLocked(*fx, it, DroppedOldest)
			return true
		}
	}
	if ok {
		*fx = q.dropLocked(*fx, &q.win.At(i).item, DroppedOldest)
		q.takeOutLocked(i)
		q.freeLocked(i)
	}
	return ok
}

func (q *Queue[T]) dropLocked(fx *effects, it *item[T], why DropReason) *effects {
	q.counters.dropped++
	return q.noteItemLocked(fx, dropped, it, Event{Reason: why})
}
