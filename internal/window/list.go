package window

// A List is a chain of entries of one window. The zero List is empty.
type List = list[struct{}]

// A list is generic only so that the compiler inlines its methods in the programs of users,
// see instep.Place.
type list[_ any] struct {
	first, last int32 // an entry's number plus one; 0 is none
	n           int32
}

// Len is the number of entries in l.
func (l *list[_]) Len() int { return int(l.n) }

// First returns l's first entry.
func (l *list[_]) First() (i int32, ok bool) { return l.first - 1, l.first != 0 }

// Last returns l's last entry.
func (l *list[_]) Last() (i int32, ok bool) { return l.last - 1, l.last != 0 }

// Prev returns the entry before entry i in the list that holds i.
func (w *Window[E]) Prev(i int32) (before int32, ok bool) {
	before = w.Meta(i).prev
	return before - 1, before != 0
}

// Next returns the entry behind entry i in the list that holds i.
func (w *Window[E]) Next(i int32) (behind int32, ok bool) {
	behind = w.Meta(i).next
	return behind - 1, behind != 0
}

// Listed reports whether entry i, which is held, is in a list.
func (w *Window[E]) Listed(i int32) bool { return w.Meta(i).where == inList }

// PushAfter puts entry i, which is linked nowhere, into l: behind entry before
// if ok is true, and else at the front.
func (w *Window[E]) PushAfter(l *List, i, before int32, ok bool) {
	next := l.first
	if ok {
		next = w.Meta(before).next
	}
	if next == 0 {
		w.Push(l, i)
		return
	}
	m, n := w.Meta(i), w.Meta(next-1)
	m.prev, m.next, m.where = n.prev, next, inList
	if n.prev == 0 {
		l.first = i + 1
	} else {
		w.Meta(n.prev - 1).next = i + 1
	}
	n.prev = i + 1
	l.n++
}

// Push appends entry i, which is linked nowhere, to l.
func (w *Window[E]) Push(l *List, i int32) { w.link(l, i, inList) }

// Pull takes entry i out of l, which holds it.
func (w *Window[E]) Pull(l *List, i int32) { w.unlink(l, i) }

// Pop takes the first entry out of l.
func (w *Window[E]) Pop(l *List) (i int32, ok bool) {
	i, ok = l.First()
	if ok {
		w.unlink(l, i)
	}
	return i, ok
}

func (w *Window[E]) link(l *List, i int32, where uint8) {
	m := w.Meta(i)
	m.prev, m.next, m.where = l.last, 0, where
	if l.last == 0 {
		l.first = i + 1
	} else {
		w.Meta(l.last - 1).next = i + 1
	}
	l.last = i + 1
	l.n++
}

func (w *Window[E]) unlink(l *List, i int32) {
	m := w.Meta(i)
	if m.prev == 0 {
		l.first = m.next
	} else {
		w.Meta(m.prev - 1).next = m.next
	}
	if m.next == 0 {
		l.last = m.prev
	} else {
		w.Meta(m.next - 1).prev = m.prev
	}
	m.prev, m.next, m.where = 0, 0, nowhere
	l.n--
}
