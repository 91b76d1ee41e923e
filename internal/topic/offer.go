package topic

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"unicode/utf8"
	"unsafe"

	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/policy"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/settings"
)

// Publish publishes one message.
func (t *Topic[T]) Publish(ctx context.Context, body T) error {
	if t.publishFast(ctx, body) {
		return nil
	}
	return t.publish(ctx, t.offerOf(body), false)
}

// publishFast publishes one message when there is nothing to look at and
// nobody to wait for: one short lock, one append. It reports whether it has.
func (t *Topic[T]) publishFast(ctx context.Context, body T) (done bool) {
	if ctx == nil || ctx.Err() != nil || !t.plain || t.filtered.Load() != nil {
		return false
	}
	now := t.Now()
	t.Mu.Lock()
	if t.state != topicOpen || t.waiting > 0 || !t.fitsLocked(1) {
		t.Mu.Unlock()
		return false
	}
	t.seq++
	it := queue.Item[T]{Seq: t.seq, At: t.timeOf(now), Body: body}
	if t.open.n > 0 { // else nobody would read it
		t.log.Append(it)
		t.log.Publish()
	} else {
		t.unrouted++
	}
	t.retained.add(it)
	t.Mu.Unlock()
	t.WakeAll(&t.Sleep)
	if t.To.Hooked(notice.Published) {
		t.TellPublished([]queue.Item[T]{it})
	}
	return true
}

// PublishBatch publishes a batch, all or none.
func (t *Topic[T]) PublishBatch(ctx context.Context, messages []queue.Message[T]) error {
	if t.publishPlain(ctx, messages) {
		return nil
	}
	o, err := t.offerOfAll(messages)
	if err != nil {
		return t.publishError(err)
	}
	return t.publish(ctx, o, false)
}

// TryPublish is Publish without waiting.
func (t *Topic[T]) TryPublish(ctx context.Context, body T) error {
	if t.publishFast(ctx, body) {
		return nil
	}
	return t.publish(ctx, t.offerOf(body), true)
}

// TryPublishBatch is PublishBatch without waiting.
func (t *Topic[T]) TryPublishBatch(ctx context.Context, messages []queue.Message[T]) error {
	if t.publishPlain(ctx, messages) {
		return nil
	}
	o, err := t.offerOfAll(messages)
	if err != nil {
		return t.publishError(err)
	}
	return t.publish(ctx, o, true)
}

// publishPlain is publishFast for a batch of messages that are nothing but
// their bodies.
func (t *Topic[T]) publishPlain(ctx context.Context, messages []queue.Message[T]) (done bool) {
	if ctx == nil || ctx.Err() != nil || !t.plain || t.filtered.Load() != nil || t.To.Hooked(notice.Published) || t.retained.size > 0 {
		return false
	}
	for k := range messages {
		if !messages[k].Plain() {
			return false
		}
	}
	n := int64(len(messages))
	now := t.Now()
	t.Mu.Lock()
	if t.state != topicOpen || t.waiting > 0 || !t.fitsLocked(n) {
		t.Mu.Unlock()
		return false
	}
	at, seq := t.timeOf(now), t.seq
	t.seq += uint64(n)
	for rest := messages; len(rest) > 0 && t.open.n > 0; { // else nobody would read them
		room := t.log.Extend(len(rest))
		for k := range room {
			seq++
			room[k] = queue.Item[T]{Seq: seq, At: at, Body: rest[k].Body}
		}
		rest = rest[len(room):]
	}
	if t.open.n == 0 {
		t.unrouted += uint64(n)
	}
	t.log.Publish()
	t.Mu.Unlock()
	t.WakeAll(&t.Sleep)
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

// offerOf returns an offer of one message that is nothing but its body.
func (t *Topic[T]) offerOf(body T) *offer[T] {
	o := t.newOffer()
	o.items = append(o.items, queue.Item[T]{Body: body})
	return o
}

// offerOfAll checks messages and returns an offer with what the topic keeps of them.
func (t *Topic[T]) offerOfAll(messages []queue.Message[T]) (*offer[T], error) {
	o := t.newOffer()
	o.items = slices.Grow(o.items, len(messages))
	for k := range messages {
		m := &messages[k]
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
		it := queue.Item[T]{Body: m.Body}
		if !m.Plain() {
			it.Ext = &queue.Extra{
				ID: m.ID, Attributes: maps.Clone(m.Attributes), Key: m.OrderingKey, Dedup: m.DeduplicationID,
				Delay: m.Delay, TTL: m.TimeToLive,
			}
		}
		o.items = append(o.items, it)
	}
	return o, nil
}

// lacks returns the error of message k for a field that needs an option.
func (t *Topic[T]) lacks(option string, k int, field, value string) error {
	return fmt.Errorf("%w: message %d: %s is %q, but topic %q was not made %s", message.ErrUnsupported, k, field, value, t.TopicName, option)
}

// An offer is what one call wants to add to the queues: messages published, or
// dead letters redriven to one queue. It is the call's until it waits for room, and
// used again after a publish that did not.
type offer[T any] struct {
	items   []queue.Item[T]
	delayed bool // some item has a delay of its own
	dedup   bool // some item has a deduplication ID
	// duplicates counts the items taken out for theirs.
	duplicates uint64
	rows       []row[T]
	waits      bool            // if there is no room, it will wait
	gated      *queue.Queue[T] // whose gate says how much room it waits for; nil: none

	redrive *queue.Queue[T]
	letters []queue.Delivery[T]
	moved   int

	// What the filters are asked with, and room for what they accept.
	seen    []queue.Seen[T] // items
	entries []*policy.Entry[*queue.Queue[T]]
	found   []found[T]
	indexes []int // of rows
}

// offerBytes is about how much room an offer may have that is used again.
const offerBytes = 64 << 10

// newOffer returns an empty offer.
func (t *Topic[T]) newOffer() *offer[T] {
	if o, ok := t.offers.Get().(*offer[T]); ok {
		return o
	}
	return new(offer[T])
}

// doneWith says that nobody will look at o again, unless it waited.
func (t *Topic[T]) doneWith(o *offer[T]) {
	size := unsafe.Sizeof(queue.Item[T]{}) + unsafe.Sizeof(queue.Seen[T]{})
	if o.waits || uintptr(cap(o.items)) > offerBytes/size || cap(o.found)+cap(o.indexes) > offerBytes/8 {
		return
	}
	clear(o.items)
	clear(o.rows)
	clear(o.found)
	for k := range o.seen {
		if o.seen[k].Made {
			o.seen[k] = queue.Seen[T]{}
		}
	}
	o.delayed, o.dedup, o.duplicates = false, false, 0
	o.items, o.rows, o.seen, o.found, o.indexes = o.items[:0], o.rows[:0], o.seen[:0], o.found[:0], o.indexes[:0]
	t.offers.Put(o)
}

// A row says which of an offer's items a queue's filter accepted.
type row[T any] struct {
	q        *queue.Queue[T]
	accepted []int // indexes of items
}

// publish publishes o, which is not its caller's any more.
func (t *Topic[T]) publish(ctx context.Context, o *offer[T], try bool) error {
	err := t.intercepted(ctx, o, try)
	if err == nil {
		return nil
	}
	return t.publishError(err)
}

func (t *Topic[T]) publishError(err error) error {
	return fmt.Errorf("fanout: publish to %q: %w", t.TopicName, err)
}

func (t *Topic[T]) intercepted(ctx context.Context, o *offer[T], try bool) error {
	if t.plain {
		err := t.tryAll(ctx, o, try)
		t.doneWith(o)
		return err
	}
	s := t.fixed(o, try)
	info := s.info(t.TopicName)
	s.chain.Info = info
	err := t.before[0](ctx, info, s.chain.Next)
	s.release()
	return err
}

// tryAll publishes o.
func (t *Topic[T]) tryAll(ctx context.Context, o *offer[T], try bool) error {
	if ctx == nil {
		return fmt.Errorf("%w: %w", message.ErrInvalidOption, message.ErrNilContext)
	}
	if ctx.Err() != nil {
		return message.ContextError(ctx)
	}
	if t.remote != nil {
		return t.remote.Publish(ctx, o.items, try)
	}
	for k := range o.items {
		if x := o.items[k].Ext; x != nil {
			o.delayed = o.delayed || x.Delay > 0
			o.dedup = o.dedup || x.Dedup != ""
		}
	}
	if err := t.applyFilters(o); err != nil {
		return err
	}
	err := t.offer(ctx, o, try)
	if err == nil && t.To.Hooked(notice.Published) {
		t.TellPublished(o.items)
	}
	return err
}

// targets yields the queues that an offer goes to with the number of messages
// that each would get. The topic's mu is held.
func (t *Topic[T]) targets(o *offer[T]) func(yield func(q *queue.Queue[T], n int) bool) {
	return func(yield func(*queue.Queue[T], int) bool) {
		if o.redrive != nil {
			if !o.redrive.Gone {
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
			if !r.q.Gone && !yield(r.q, len(r.accepted)) {
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
	for q, n := range t.targets(o) {
		if q.Set.Overflow.Drops() {
			continue
		}
		if n > q.Set.Capacity {
			return fmt.Errorf("%w: %d messages for queue %q, which has a capacity of %d", message.ErrBatchTooLarge, n, q.QueueName, q.Set.Capacity)
		}
		if q.Set.Overflow == settings.Reject && !q.FindRoom(int64(n)) {
			return fmt.Errorf("%w: queue %q holds %d", message.ErrQueueFull, q.QueueName, q.Set.Capacity-int(max(q.Room(), 0)))
		}
	}
	return nil
}

// admitLocked adds o to all its queues if there is room in all of them, or
// returns a full one to wait for, or an error; then it has changed nothing, but
// that a redrive may have moved some of its letters, and that what has expired may
// be dead.
func (t *Topic[T]) admitLocked(o *offer[T]) (full *queue.Queue[T], err error) {
	if o.redrive != nil {
		return t.admitRedriveLocked(o)
	}
	n := len(o.items)
	if n == 0 {
		t.countDuplicatesLocked(o)
		return nil, nil
	}
	if !o.delayed && t.log.Head()+int64(n) <= t.limit && o.fitsRows() {
		t.stampLocked(o)
		t.appendLocked(o)
		t.showLocked(o)
		return nil, nil
	}

	// Look at all before touching any.
	if err = t.refusedLocked(o); err != nil {
		return nil, err
	}
	for q, n := range t.targets(o) {
		if q.Set.Overflow == settings.Block && !o.hasRoomOrGate(q, int64(n)) {
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
		case q.Direct || o.delayed:
			q.Add(o.items, nil)
		case q.Room() < 0:
			q.Overflow(o.items, nil)
		}
	}
	for _, r := range o.rows {
		switch {
		case r.q.Gone:
		case r.q.Direct || o.delayed:
			r.q.Add(o.items, r.accepted)
		case r.q.Room() < 0:
			r.q.Overflow(o.items, r.accepted)
		}
	}
	t.showLocked(o)
	for q := range t.targets(o) {
		if q.Set.Overflow.Drops() && q.Gate.Load() != 0 { // a redrive waits for what expires
			t.TurnsOfLocked(q)
		}
	}
	t.relimitLocked()
	return nil, nil
}

// fitsRows reports whether o can be appended to the logs of all queues whose filters
// accept some of it, without looking at any of them.
func (o *offer[T]) fitsRows() bool {
	for _, r := range o.rows {
		if !r.q.Gone && (r.q.Direct || r.q.Room() < int64(len(r.accepted))) {
			return false
		}
	}
	return true
}

// hasRoomOrGate reports whether there is room for n messages of o. If not, and o
// waits, whoever makes some will come to admit waiters. The gate is there before the
// last look: who makes room and does not see it has made it before that look.
func (o *offer[T]) hasRoomOrGate(q *queue.Queue[T], n int64) bool {
	if q.Room() >= n {
		return true
	}
	if !o.waits {
		return q.FindRoom(n)
	}
	target := n
	if !q.Direct {
		target += q.Log.Head()
	}
	o.gated = q
	q.Gate.Store(target)
	if !q.FindRoom(n) {
		return false
	}
	o.ungateLocked()
	return true
}

func (t *Topic[T]) stampLocked(o *offer[T]) {
	t.unrouted += t.unroutedLocked(o)
	at := t.timeOf(t.Now())
	for k := range o.items {
		it := &o.items[k]
		t.seq++
		it.Seq, it.At = t.seq, at
		t.retained.add(*it)
		if it.Ext != nil && it.Ext.TTL > 0 {
			t.Expiring.Store(it.Seq)
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
	if len(o.items) == 1 { // in each row
		for _, r := range o.rows {
			if !r.q.Gone {
				return 0
			}
		}
		return 1
	}
	var few [16]bool // stays on the stack
	taken := few[:min(len(o.items), len(few))]
	if len(o.items) > len(few) {
		taken = make([]bool, len(o.items))
	}
	for _, r := range o.rows {
		for _, k := range r.accepted {
			taken[k] = taken[k] || !r.q.Gone
		}
	}
	for _, is := range taken {
		if !is {
			n++
		}
	}
	return n
}

// appendLocked appends o's items to the log, if any queue reads it, and to those of the
// queues whose filters accept them. None has a delay.
func (t *Topic[T]) appendLocked(o *offer[T]) {
	if t.log.Read() {
		for _, it := range o.items {
			t.log.Append(it)
		}
	}
	for _, r := range o.rows {
		if r.q.Direct || r.q.Gone {
			continue
		}
		for _, k := range r.accepted {
			r.q.Log.Append(o.items[k])
		}
	}
}

// RedriveLetters adds letters to q, and waits for room.
func (t *Topic[T]) RedriveLetters(ctx context.Context, q *queue.Queue[T], letters []queue.Delivery[T]) (moved int, err error) {
	o := &offer[T]{redrive: q, letters: letters}
	err = t.offer(ctx, o, false)
	return o.moved, err
}

// showLocked shows consumers what was appended: all of it has been. Who finds a message in a
// queue without filters finds it in those with filters, too.
func (t *Topic[T]) showLocked(o *offer[T]) {
	for _, r := range o.rows {
		if !r.q.Direct && !r.q.Gone {
			r.q.Log.Publish()
		}
	}
	t.log.Publish()
}

func (t *Topic[T]) admitRedriveLocked(o *offer[T]) (full *queue.Queue[T], err error) {
	q := o.redrive
	if q.Gone {
		return nil, fmt.Errorf("%w: queue %q", message.ErrClosed, q.QueueName)
	}
	for again := true; again; again = len(o.letters) > 0 && (o.hasRoomOrGate(q, 1) || q.CanSwap()) {
		var moved int
		o.letters, moved = q.RedriveLocked(o.letters)
		o.moved += moved
	}
	if t.limit >= 0 && q.Log == t.log { // it can only have become less
		t.limit = min(t.limit, q.Allow.Load())
	}
	if len(o.letters) > 0 {
		return q, nil
	}
	o.ungateLocked() // it may have gone on by changing places
	return nil, nil
}

// TellPublished tells hooks of items that were published.
func (t *Topic[T]) TellPublished(items []queue.Item[T]) {
	if !t.To.Hooked(notice.Published) {
		return
	}
	for _, it := range items {
		t.To.Call(notice.Published, &notice.Event{
			Topic: t.TopicName, Seq: it.Seq, Time: t.Time(it.At), MessageID: t.Id(it.Seq, it.At, it.Ext), PublishedAt: t.Time(it.At), Count: 1,
		})
	}
}

// ungateLocked says that o does not wait for room any more, or not where it did. The
// topic's mu is held.
func (o *offer[T]) ungateLocked() {
	q := o.gated
	if q == nil {
		return
	}
	o.gated = nil
	q.Gate.Store(0) // it was for o: of those who want room in q only the first waits for it
	if q.Expires() {
		q.Mu.Lock()
		q.ArmLocked(q.Core.Now())
		q.Mu.Unlock()
	}
}
