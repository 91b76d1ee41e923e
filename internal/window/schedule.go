package window

// The schedule is one structure for every instant that a queue waits for: the
// end of a visibility timeout, a retry, a delay. Most come in order, because
// most of a queue's time-outs are equally long: those stand in a list, where
// adding, removing and finding the first are a few stores. One that is earlier
// than the last of the list goes to a heap.

// Schedule makes entry i, which is linked nowhere, wait for the instant at.
func (w *Window[E]) Schedule(i int32, at int64) {
	m := w.Meta(i)
	m.Deadline = at
	if w.line.last == 0 || w.Meta(w.line.last-1).Deadline <= at {
		w.link(&w.line, i, inLine)
		return
	}
	m.where = inHeap
	w.heap.push(item{key: at, i: i, stamp: m.Stamp}, w.scheduledInHeap)
}

// Unschedule makes entry i, which is scheduled, wait no longer.
func (w *Window[E]) Unschedule(i int32) {
	m := w.Meta(i)
	if m.where == inLine {
		w.unlink(&w.line, i)
		return
	}
	m.where = nowhere // its item in the heap is stale from here on
}

// NextDue returns the earliest instant that any entry waits for.
func (w *Window[E]) NextDue() (at int64, ok bool) {
	at, _, ok = w.FirstDue()
	return at, ok
}

// FirstDue returns the deadline and the stamp of the entry that PopDue would return
// once its time has come.
func (w *Window[E]) FirstDue() (at int64, stamp uint64, ok bool) {
	if w.n == 0 {
		return 0, 0, false
	}
	var first item
	if i, found := w.line.First(); found {
		m := w.Meta(i)
		first, ok = item{key: m.Deadline, stamp: m.Stamp}, true
	}
	if it, found := w.heap.peek(w.scheduledInHeap); found && (!ok || it.less(first)) {
		first, ok = it, true
	}
	return first.key, first.stamp, ok
}

// PopDue unschedules and returns the entry with the earliest deadline if that
// is not after now.
func (w *Window[E]) PopDue(now int64) (i int32, ok bool) {
	if w.n == 0 {
		return 0, false
	}
	first := item{key: now, stamp: ^uint64(0)}
	if i, found := w.line.First(); found {
		if m := w.Meta(i); m.Deadline <= now {
			first, ok = item{key: m.Deadline, stamp: m.Stamp, i: i}, true
		}
	}
	if it, found := w.heap.peek(w.scheduledInHeap); found && it.less(first) {
		first, ok = it, true
	}
	if ok {
		w.Unschedule(first.i)
	}
	return first.i, ok
}

func (w *Window[E]) scheduledInHeap(it item) bool {
	if !w.Owns(it.i, it.stamp) {
		return false
	}
	m := w.Meta(it.i)
	return m.where == inHeap && m.Deadline == it.key
}

// Rank enters entry i into the order by rank, for as long as it keeps its stamp.
func (w *Window[E]) Rank(i int32, rank int64) {
	w.elder.push(item{key: rank, i: i, stamp: w.Meta(i).Stamp}, w.ranked)
}

// Lowest returns the ranked entry with the lowest rank.
func (w *Window[E]) Lowest() (i int32, rank int64, ok bool) {
	if w.n == 0 {
		return 0, 0, false
	}
	it, ok := w.elder.peek(w.ranked)
	return it.i, it.key, ok
}

// SetExpiry notes when entry i expires, for as long as it keeps its stamp.
func (w *Window[E]) SetExpiry(i int32, at int64) {
	w.expiring.push(item{key: at, i: i, stamp: w.Meta(i).Stamp}, w.ranked)
}

// FirstExpiry returns the entry that expires first, and when.
func (w *Window[E]) FirstExpiry() (i int32, at int64, ok bool) {
	if w.n == 0 {
		return 0, 0, false
	}
	it, ok := w.expiring.peek(w.ranked)
	return it.i, it.key, ok
}

func (w *Window[E]) ranked(it item) bool { return w.Owns(it.i, it.stamp) }

// A lazyHeap is a binary heap that is not told when what it holds is gone: an
// item counts only while its owner says so. So nothing needs an index into the
// heap, and an entry that leaves costs nothing until its item comes up.
//
// Items that no longer count are dropped when they come up, and all at once
// when they may be half of what is held.
type lazyHeap struct {
	items []item
	limit int // length at which to look for items that no longer count
}

// An item is ordered by key, and among equals by stamp: first come, first served.
type item struct {
	key   int64
	stamp uint64
	i     int32
}

func (a item) less(b item) bool {
	return a.key < b.key || a.key == b.key && a.stamp < b.stamp
}

func (h *lazyHeap) push(it item, live func(item) bool) {
	h.items = append(h.items, it)
	s, k := h.items, len(h.items)-1
	for k > 0 && s[k].less(s[(k-1)/2]) {
		s[k], s[(k-1)/2] = s[(k-1)/2], s[k]
		k = (k - 1) / 2
	}
	if len(s) > max(h.limit, 64) {
		h.compact(live)
	}
}

// compact drops every item that no longer counts.
func (h *lazyHeap) compact(live func(item) bool) {
	kept := h.items[:0]
	for _, it := range h.items {
		if live(it) {
			kept = append(kept, it)
		}
	}
	h.items = kept
	for k := len(kept)/2 - 1; k >= 0; k-- {
		h.down(k)
	}
	h.limit = 2 * len(kept)
}

// peek returns the least item that counts, and drops those before it.
func (h *lazyHeap) peek(live func(item) bool) (item, bool) {
	for len(h.items) > 0 {
		if it := h.items[0]; live(it) {
			return it, true
		}
		last := len(h.items) - 1
		h.items[0] = h.items[last]
		h.items = h.items[:last]
		h.down(0)
	}
	return item{}, false
}

func (h *lazyHeap) down(k int) {
	s := h.items
	for {
		c := 2*k + 1
		if c >= len(s) {
			return
		}
		if c+1 < len(s) && s[c+1].less(s[c]) {
			c++
		}
		if !s[c].less(s[k]) {
			return
		}
		s[k], s[c] = s[c], s[k]
		k = c
	}
}
