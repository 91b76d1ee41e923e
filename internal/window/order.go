package window

import "slices"

// The places of a List whose entries are in the order of a number. Most often entries come
// back in order, or where the last one went: the search begins there. If the place is not
// near, it goes on from a mark. Where a search was long the entry becomes a mark, so that
// marks are as far apart as a search may be long, and few if entries come in order.

const (
	near = 16 // steps from where the last one was put
	far  = 64 // steps after which an entry becomes a mark
)

// An Order finds places in a list. Its marks are in the order of their keys. A mark counts
// as long as its entry is listed with its stamp. The zero Order is ready for use.
type Order struct {
	last  mark // what was put last
	marks []mark
	limit int // how many marks there may be before those that don't count are dropped
}

// A mark names an entry of the list, by the key that the list is in order of.
type mark struct {
	key, stamp uint64
	i          int32
}

// Order is an Order for one list, which is given back with the window's tables. The window
// holds something.
func (w *Window[E]) Order() *Order { return &w.order }

// PushInOrder puts entry i, which is linked nowhere, into l by its key. The entries of l are
// in the order of their keys, and each gets a new stamp before it is put into another list.
// An Order o is of one list, for as long as that has any entries.
func (w *Window[E]) PushInOrder(l *List, o *Order, i int32, key func(i int32) uint64) {
	m := mark{key(i), w.Meta(i).Stamp, i}
	before := int32(0)
	if w.marks(o.last) {
		before = o.last.i + 1
		if next := w.Meta(o.last.i).next; o.last.key < m.key && (next == 0 || key(next-1) > m.key) { // most often
			o.last = m
			w.PushAfter(l, i, before-1, true)
			return
		}
	}
	before, steps := w.walk(l, before, m.key, near, key)
	if steps == near {
		before, steps = w.walk(l, w.marked(o, m.key), m.key, l.Len()+1, key)
	}
	o.last = m
	w.PushAfter(l, i, before-1, before != 0)
	if steps > far {
		w.mark(o, m)
	}
}

// walk looks, in at most so many steps, for the last entry of l whose key is less, from a given
// one on. Entries are their numbers plus one; 0 is before the first.
func (w *Window[E]) walk(l *List, before int32, than uint64, most int, key func(i int32) uint64) (_ int32, steps int) {
	for before != 0 && steps < most && key(before-1) > than {
		before = w.Meta(before - 1).prev
		steps++
	}
	for steps < most {
		next := l.first
		if before != 0 {
			next = w.Meta(before - 1).next
		}
		if next == 0 || key(next-1) > than {
			break
		}
		before = next
		steps++
	}
	return before, steps
}

// marks reports whether a mark counts.
func (w *Window[E]) marks(m mark) bool { return w.Owns(m.i, m.stamp) && w.Listed(m.i) }

// marked returns the last marked entry whose key is less, as its number plus one, or 0. It
// drops the marks that it meets and that don't count.
func (w *Window[E]) marked(o *Order, than uint64) int32 {
	k, _ := slices.BinarySearchFunc(o.marks, than, mark.compare)
	for j := k; j > 0; j-- {
		if w.marks(o.marks[j-1]) {
			o.marks = slices.Delete(o.marks, j, k)
			return o.marks[j-1].i + 1
		}
	}
	o.marks = slices.Delete(o.marks, 0, k)
	return 0
}

func (m mark) compare(key uint64) int {
	switch {
	case m.key < key:
		return -1
	case m.key > key:
		return 1
	}
	return 0
}

// mark adds a mark.
func (w *Window[E]) mark(o *Order, m mark) {
	k, _ := slices.BinarySearchFunc(o.marks, m.key, mark.compare)
	o.marks = slices.Insert(o.marks, k, m)
	if len(o.marks) > max(o.limit, 64) {
		o.marks = slices.DeleteFunc(o.marks, func(m mark) bool { return !w.marks(m) })
		o.limit = 2 * len(o.marks)
	}
}
