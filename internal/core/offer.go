package core

import (
	"context"
	"fmt"
	"maps"
	"unicode/utf8"

	"github.com/gofanout/fanout/internal/intercept"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/settings"
)

// Publish publishes one message.
func (t *Topic[T]) Publish(ctx context.Context, body T) error {
	if t.publishFast(ctx, body) {
		return nil
	}
	items := [1]item[T]{{Body: body}}
	return t.publish(ctx, items[:], false)
}

// publishFast publishes one message when there is nothing to look at and
// nobody to wait for: one short lock, one append. It reports whether it has.
func (t *Topic[T]) publishFast(ctx context.Context, body T) (done bool) {
	if ctx == nil || ctx.Err() != nil || !t.plain || t.filtered.Load() != nil {
		return false
	}
	now := t.now()
	t.mu.Lock()
	if t.state != topicOpen || t.waiting > 0 || !t.fitsLocked(1) {
		t.mu.Unlock()
		return false
	}
	t.seq++
	it := item[T]{Seq: t.seq, At: t.timeOf(now), Body: body}
	if t.open.n > 0 { // else nobody would read it
		t.log.Append(it)
		t.log.Publish()
	} else {
		t.unrouted++
	}
	t.retained.add(it)
	t.mu.Unlock()
	t.wakeAll()
	if t.to.Hooked(notice.Published) {
		t.tellPublished([]item[T]{it})
	}
	return true
}

// PublishBatch publishes a batch, all or none.
func (t *Topic[T]) PublishBatch(ctx context.Context, messages []Message[T]) error {
	if t.publishPlain(ctx, messages) {
		return nil
	}
	items, err := t.items(messages)
	if err != nil {
		return t.publishError(err)
	}
	return t.publish(ctx, items, false)
}

// TryPublish is Publish without waiting.
func (t *Topic[T]) TryPublish(ctx context.Context, body T) error {
	if t.publishFast(ctx, body) {
		return nil
	}
	items := [1]item[T]{{Body: body}}
	return t.publish(ctx, items[:], true)
}

// TryPublishBatch is PublishBatch without waiting.
func (t *Topic[T]) TryPublishBatch(ctx context.Context, messages []Message[T]) error {
	if t.publishPlain(ctx, messages) {
		return nil
	}
	items, err := t.items(messages)
	if err != nil {
		return t.publishError(err)
	}
	return t.publish(ctx, items, true)
}

// publishPlain is publishFast for a batch of messages that are nothing but
// their bodies.
func (t *Topic[T]) publishPlain(ctx context.Context, messages []Message[T]) (done bool) {
	if ctx == nil || ctx.Err() != nil || !t.plain || t.filtered.Load() != nil || t.to.Hooked(notice.Published) || t.retained.size > 0 {
		return false
	}
	for k := range messages {
		if !messages[k].plain() {
			return false
		}
	}
	n := int64(len(messages))
	now := t.now()
	t.mu.Lock()
	if t.state != topicOpen || t.waiting > 0 || !t.fitsLocked(n) {
		t.mu.Unlock()
		return false
	}
	at, seq := t.timeOf(now), t.seq
	t.seq += uint64(n)
	for rest := messages; len(rest) > 0 && t.open.n > 0; { // else nobody would read them
		room := t.log.Extend(len(rest))
		for k := range room {
			seq++
			room[k] = item[T]{Seq: seq, At: at, Body: rest[k].Body}
		}
		rest = rest[len(room):]
	}
	if t.open.n == 0 {
		t.unrouted += uint64(n)
	}
	t.log.Publish()
	t.mu.Unlock()
	t.wakeAll()
	return true
}

// fitsLocked reports whether n messages can be appended without looking at any
// queue. What the topic remembers of the queues may have become better since.
func (t *Topic[T]) fitsLocked(n int64) bool {
	if t.log.Head()+n <= t.limit {
		return true
	}
	if t.limit >= 0 {
		t.relimitLocked()
	}
	return t.log.Head()+n <= t.limit
}

// checkAttributes returns an error for attributes that no engine and no filter could
// take: without a name, or not of UTF-8.
func checkAttributes(attributes map[string]string) error {
	for name, value := range attributes {
		if err := checkAttribute(name, value); err != nil {
			return err
		}
	}
	return nil
}

func checkAttribute(name, value string) error {
	switch {
	case name == "":
		return fmt.Errorf("an attribute without a name has the value %q: want a name", value)
	case !utf8.ValidString(name):
		return fmt.Errorf("attribute %q: want a name of UTF-8", name)
	case !utf8.ValidString(value):
		return fmt.Errorf("attribute %q is %q: want a value of UTF-8", name, value)
	}
	return nil
}

// items checks messages and copies what the topic keeps of them.
func (t *Topic[T]) items(messages []Message[T]) ([]item[T], error) {
	items := make([]item[T], len(messages))
	for k, m := range messages {
		if m.Delay < 0 {
			return nil, fmt.Errorf("%w: message %d: Delay is %v: want a duration that is not negative", message.ErrInvalidMessage, k, m.Delay)
		}
		if err := checkAttributes(m.Attributes); err != nil {
			return nil, fmt.Errorf("%w: message %d: %w", message.ErrInvalidMessage, k, err)
		}
		switch {
		case m.TimeToLive < 0:
			return nil, fmt.Errorf("%w: message %d: TimeToLive is %v: want a duration that is not negative", message.ErrInvalidMessage, k, m.TimeToLive)
		case m.OrderingKey != "" && !t.ordering:
			return nil, t.lacks("WithOrdering", k, "OrderingKey", m.OrderingKey)
		case m.OrderingKey != "" && m.Delay > 0:
			return nil, fmt.Errorf("%w: message %d: Delay is %v and OrderingKey %q: with a key, delay the queue", message.ErrUnsupported, k, m.Delay, m.OrderingKey)
		case m.DeduplicationID != "" && t.dedup == nil:
			return nil, t.lacks("WithDeduplication", k, "DeduplicationID", m.DeduplicationID)
		}
		items[k].Body = m.Body
		if m.ID != "" || len(m.Attributes) > 0 || m.OrderingKey != "" || m.DeduplicationID != "" || m.Delay > 0 || m.TimeToLive > 0 {
			items[k].Ext = &extra{
				ID: m.ID, Attributes: maps.Clone(m.Attributes), Key: m.OrderingKey, Dedup: m.DeduplicationID,
				Delay: m.Delay, TTL: m.TimeToLive,
			}
		}
	}
	return items, nil
}

// lacks returns the error of message k for a field that needs an option.
func (t *Topic[T]) lacks(option string, k int, field, value string) error {
	return fmt.Errorf("%w: message %d: %s is %q, but topic %q was not made %s", message.ErrUnsupported, k, field, value, t.name, option)
}

// An offer is what one call wants to add to the queues: messages published, or
// dead letters redriven to one queue.
type offer[T any] struct {
	items   []item[T]
	delayed bool // some item has a delay of its own
	dedup   bool // some item has a deduplication ID
	// duplicates counts the items taken out for theirs.
	duplicates uint64
	rows       []row[T]
	waits      bool      // if there is no room, it will wait
	gated      *Queue[T] // whose gate says how much room it waits for; nil: none

	redrive *Queue[T]
	letters []Delivery[T]
	moved   int
}

// A row says which of an offer's items a queue's filter accepted.
type row[T any] struct {
	q        *Queue[T]
	accepted []int // indexes of items
}

func (t *Topic[T]) publish(ctx context.Context, items []item[T], try bool) error {
	err := t.intercepted(ctx, items, try)
	if err == nil {
		return nil
	}
	return t.publishError(err)
}

func (t *Topic[T]) publishError(err error) error {
	return fmt.Errorf("fanout: publish to %q: %w", t.name, err)
}

func (t *Topic[T]) intercepted(ctx context.Context, items []item[T], try bool) error {
	if t.plain {
		return t.tryAll(ctx, items, try)
	}
	o := t.fixed(items)
	return intercept.Call(ctx, t.before, o.info(t.name), func(ctx context.Context) error {
		if o.err != nil {
			return o.err
		}
		return t.tryAll(ctx, o.copied(), try) // next may be called again
	})
}

// tryAll publishes items, which are its own from here on.
func (t *Topic[T]) tryAll(ctx context.Context, items []item[T], try bool) error {
	if ctx == nil {
		return fmt.Errorf("%w: %w", message.ErrInvalidOption, message.ErrNilContext)
	}
	if ctx.Err() != nil {
		return message.ContextError(ctx)
	}
	if t.remote != nil {
		return t.remote.publish(ctx, items, try)
	}
	o := &offer[T]{items: items}
	for _, it := range items {
		if it.Ext != nil {
			o.delayed = o.delayed || it.Ext.Delay > 0
			o.dedup = o.dedup || it.Ext.Dedup != ""
		}
	}
	if err := t.applyFilters(o); err != nil {
		return err
	}
	err := t.offer(ctx, o, try)
	if err == nil && t.to.Hooked(notice.Published) {
		t.tellPublished(o.items)
	}
	return err
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
		for q := range t.open.all() {
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

// refusedLocked returns the error of an offer that waiting would not help. What has
// expired is dead then, whatever becomes of the offer.
func (t *Topic[T]) refusedLocked(o *offer[T]) error {
	if o.redrive != nil {
		return nil
	}
	head := t.log.Head()
	for q, n := range t.targets(o) {
		if q.set.Overflow.Drops() {
			continue
		}
		if n > q.set.Capacity {
			return fmt.Errorf("%w: %d messages for queue %q, which has a capacity of %d", message.ErrBatchTooLarge, n, q.name, q.set.Capacity)
		}
		if q.set.Overflow == settings.Reject && !q.findRoom(head, int64(n)) {
			return fmt.Errorf("%w: queue %q holds %d", message.ErrQueueFull, q.name, q.set.Capacity-int(max(q.room(head), 0)))
		}
	}
	return nil
}

// admitLocked adds o to all its queues if there is room in all of them, or
// returns a full one to wait for, or an error; then it has changed nothing, but
// that a redrive may have moved some of its letters, and that what has expired may
// be dead.
func (t *Topic[T]) admitLocked(o *offer[T]) (full *Queue[T], err error) {
	if o.redrive != nil {
		return t.admitRedriveLocked(o)
	}
	t.dropDuplicatesLocked(o)
	head, n := t.log.Head(), len(o.items)
	if n == 0 {
		t.countDuplicatesLocked(o)
		return nil, nil
	}
	if len(o.rows) == 0 && !o.delayed && head+int64(n) <= t.limit {
		t.stampLocked(o)
		t.appendLocked(o)
		t.log.Publish()
		return nil, nil
	}

	// Look at all before touching any.
	if err = t.refusedLocked(o); err != nil {
		return nil, err
	}
	for q, n := range t.targets(o) {
		if q.set.Overflow == settings.Block && !q.hasRoomOrGate(o, head, int64(n)) {
			return q, nil
		}
	}

	// Nothing can fail from here on.
	t.stampLocked(o)
	if !o.delayed {
		t.appendLocked(o)
	}
	for q := range t.open.all() {
		switch {
		case q.direct || o.delayed:
			q.add(o.items, nil)
		case q.room(head) < int64(n):
			q.overflow(o.items, head)
		}
	}
	for _, r := range o.rows {
		if !r.q.gone {
			r.q.add(o.items, r.accepted)
		}
	}
	t.log.Publish()
	for q := range t.targets(o) {
		if q.set.Overflow.Drops() && q.gate.Load() != 0 { // a redrive waits for what expires
			t.turnsOfLocked(q)
		}
	}
	t.relimitLocked()
	return nil, nil
}

// hasRoom reports whether there is room for n messages, that of messages just
// done included.
func (q *Queue[T]) hasRoom(head, n int64) bool {
	if q.room(head) >= n {
		return true
	}
	q.countDone()
	return q.room(head) >= n
}

// hasRoomOrGate reports whether there is room for n messages of o. If not, and o
// waits, whoever makes some will come to admit waiters. The gate is there before the
// last look: who makes room and does not see it has made it before that look.
func (q *Queue[T]) hasRoomOrGate(o *offer[T], head, n int64) bool {
	if q.room(head) >= n {
		return true
	}
	if !o.waits {
		return q.findRoom(head, n)
	}
	target := n
	if !q.direct {
		target += head
	}
	o.gated = q
	q.gate.Store(target)
	if !q.findRoom(head, n) {
		return false
	}
	o.ungateLocked()
	return true
}

func (t *Topic[T]) stampLocked(o *offer[T]) {
	t.unrouted += t.unroutedLocked(o)
	at := t.timeOf(t.now())
	for k := range o.items {
		it := &o.items[k]
		t.seq++
		it.Seq, it.At = t.seq, at
		t.retained.add(*it)
		if it.Ext != nil && it.Ext.TTL > 0 {
			t.expiring.Store(it.Seq)
		}
		if it.Ext != nil && it.Ext.Dedup != "" {
			t.dedup.Remember(it.Ext.Dedup, at)
			t.turnsOfWantedLocked(it.Ext.Dedup)
		}
	}
	if o.dedup {
		t.countDuplicatesLocked(o)
		t.armDedupLocked(at)
	}
}

// unroutedLocked counts o's items that no queue takes.
func (t *Topic[T]) unroutedLocked(o *offer[T]) (n uint64) {
	if t.open.n > 0 {
		return 0
	}
	var few [16]bool // stays on the stack
	taken := few[:min(len(o.items), len(few))]
	if len(o.items) > len(few) {
		taken = make([]bool, len(o.items))
	}
	for _, r := range o.rows {
		for _, k := range r.accepted {
			taken[k] = taken[k] || !r.q.gone
		}
	}
	for _, is := range taken {
		if !is {
			n++
		}
	}
	return n
}

// appendLocked appends o's items to the log, if any queue reads it.
func (t *Topic[T]) appendLocked(o *offer[T]) {
	if !t.log.Read() {
		return
	}
	for _, it := range o.items {
		t.log.Append(it)
	}
}

// redriveLetters adds letters to q, and waits for room.
func (t *Topic[T]) redriveLetters(ctx context.Context, q *Queue[T], letters []Delivery[T]) (moved int, err error) {
	o := &offer[T]{redrive: q, letters: letters}
	err = t.offer(ctx, o, false)
	return o.moved, err
}

func (t *Topic[T]) admitRedriveLocked(o *offer[T]) (full *Queue[T], err error) {
	q := o.redrive
	if q.gone {
		return nil, fmt.Errorf("%w: queue %q", message.ErrClosed, q.name)
	}
	for again := true; again; again = len(o.letters) > 0 && (q.hasRoomOrGate(o, t.log.Head(), 1) || q.canSwap()) {
		var moved int
		o.letters, moved = q.redriveLocked(o.letters, t.log.Head())
		o.moved += moved
	}
	if t.limit >= 0 && !q.direct { // it can only have become less
		t.limit = min(t.limit, q.allow.Load())
	}
	if len(o.letters) > 0 {
		return q, nil
	}
	o.ungateLocked() // it may have gone on by changing places
	return nil, nil
}

// tellPublished tells hooks of items that were published.
func (t *Topic[T]) tellPublished(items []item[T]) {
	if !t.to.Hooked(notice.Published) {
		return
	}
	for _, it := range items {
		t.to.Call(notice.Published, &notice.Event{
			Topic: t.name, Seq: it.Seq, Time: t.time(it.At), MessageID: t.id(it.Seq, it.At, it.Ext), PublishedAt: t.time(it.At), Count: 1,
		})
	}
}
