package fanout

import "time"

// A deduplicator remembers the deduplication IDs of what was published, each
// for its window and at most max of them: beyond, it forgets the oldest.
//
// Invariant: until holds exactly the IDs in order[first:], which stand in the
// order they end. The topic's mu guards it.
type deduplicator struct {
	// Immutable.
	window time.Duration
	max    int

	until map[string]int64
	order []rememberedID
	first int

	duplicates, forgotten uint64

	// One timer gives back the memory of a topic that gets nothing more. It is
	// armed while anything is remembered and comes at most 8 times a window.
	timer *time.Timer
	armed bool
}

type rememberedID struct {
	id    string
	until int64
}

func (d *deduplicator) has(id string, now int64) bool {
	until, ok := d.until[id]
	return ok && now < until
}

// remember adds an ID that is not remembered.
func (d *deduplicator) remember(id string, now int64) {
	d.expire(now)
	if len(d.until) >= d.max {
		d.forgetFirst()
		d.forgotten++
	}
	if d.until == nil {
		d.until = make(map[string]int64)
	}
	until := after(now, d.window)
	d.until[id] = until
	d.order = append(d.order, rememberedID{id, until})
}

// expire forgets what need not be remembered any longer.
func (d *deduplicator) expire(now int64) {
	for d.first < len(d.order) && d.order[d.first].until <= now {
		d.forgetFirst()
	}
}

func (d *deduplicator) forgetFirst() {
	delete(d.until, d.order[d.first].id)
	d.order[d.first] = rememberedID{}
	d.first++
	switch {
	case d.first == len(d.order):
		d.until, d.order, d.first = nil, nil, 0 // a map does not shrink
	case d.first >= 64 && d.first > len(d.order)/2:
		n := copy(d.order, d.order[d.first:])
		clear(d.order[n:])
		d.order, d.first = d.order[:n], 0
	}
}

// armDedupLocked sees to it that what is remembered will be forgotten.
func (t *Topic[T]) armDedupLocked(now int64) {
	d := t.dedup
	if d.armed || len(d.until) == 0 || t.state == topicClosed {
		return
	}
	d.armed = true
	t.live.Add(1)
	wait := max(time.Duration(d.order[d.first].until-now), d.window/8)
	d.timer = time.AfterFunc(wait, t.forgetIDs)
}

// forgetIDs is the timer's function. Done waits for it.
func (t *Topic[T]) forgetIDs() {
	t.mu.Lock()
	t.dedup.armed = false
	now := t.now()
	t.dedup.expire(now)
	t.armDedupLocked(now)
	t.mu.Unlock()
	t.release()
}

// stopDedupLocked forgets everything.
func (t *Topic[T]) stopDedupLocked() {
	d := t.dedup
	if d == nil {
		return
	}
	d.until, d.order, d.first = nil, nil, 0
	if d.armed && d.timer.Stop() {
		d.armed = false
		t.release() // not the last: the topic itself is still counted
	}
}

// dropDuplicatesLocked takes out of an offer what was published before, or
// stands earlier in the same batch. They count once the offer is published.
func (t *Topic[T]) dropDuplicatesLocked(o *offer[T]) {
	if !o.dedup {
		return
	}
	now := t.now()
	var batch map[string]bool
	moved := make([]int, len(o.items)) // the new index of each item, or -1
	kept := o.items[:0]
	for k, it := range o.items {
		if it.ext != nil && it.ext.dedup != "" {
			id := it.ext.dedup
			if batch[id] || t.dedup.has(id, now) {
				o.duplicates++
				moved[k] = -1
				continue
			}
			if batch == nil {
				batch = make(map[string]bool)
			}
			batch[id] = true
		}
		moved[k] = len(kept)
		kept = append(kept, it)
	}
	if len(kept) == len(o.items) {
		return
	}
	clear(o.items[len(kept):])
	o.items = kept
	rows := o.rows[:0]
	for _, r := range o.rows {
		accepted := r.accepted[:0]
		for _, k := range r.accepted {
			if moved[k] >= 0 {
				accepted = append(accepted, moved[k])
			}
		}
		if r.accepted = accepted; len(accepted) > 0 {
			rows = append(rows, r)
		}
	}
	o.rows = rows
}

// countDuplicatesLocked counts an offer's duplicates, now that the rest of it
// is published: one that is refused has changed nothing.
func (t *Topic[T]) countDuplicatesLocked(o *offer[T]) {
	if o.dedup {
		t.dedup.duplicates += o.duplicates
		o.duplicates = 0
	}
}
