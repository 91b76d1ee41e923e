package window

import (
	"fmt"
	"math/bits"
)

// check walks the invariants of w and returns the first that does not hold.
// Lists are all those that the owner of w keeps.
func check[E comparable](w *Window[E], lists ...*List) error {
	if w.tables == nil {
		for k, l := range lists {
			if l.Len() > 0 {
				return fmt.Errorf("list %d is not empty, and the window never held anything", k)
			}
		}
		if w.Len() > 0 {
			return fmt.Errorf("holds %d in no table", w.Len())
		}
		return nil
	}
	if err := checkChunks(w); err != nil {
		return err
	}
	linked := make(map[int32]bool)
	for k, l := range lists {
		if err := checkList(w, l, inList, linked); err != nil {
			return fmt.Errorf("list %d: %w", k, err)
		}
	}
	if err := checkList(w, &w.line, inLine, linked); err != nil {
		return fmt.Errorf("line: %w", err)
	}
	if err := checkHeap(&w.heap); err != nil {
		return fmt.Errorf("heap: %w", err)
	}
	if err := checkHeap(&w.elder); err != nil {
		return fmt.Errorf("elder: %w", err)
	}
	if err := checkHeap(&w.expiring); err != nil {
		return fmt.Errorf("expiring: %w", err)
	}
	return checkPlaces(w, linked)
}

// checkChunks checks what is free, and that the tables agree with it.
func checkChunks[E comparable](w *Window[E]) error {
	var (
		zero          E
		room, gone    int
		allFreeChunks int32
		held          int
		stamps        = make(map[uint64]int32)
		open          = make(map[int32]bool)
		holes         = make(map[int32]bool)
	)
	for _, ci := range w.open {
		if open[ci] || int(ci) >= len(w.chunks) || w.chunks[ci] == nil || w.chunks[ci].free == 0 {
			return fmt.Errorf("chunk %d is open twice or has no room", ci)
		}
		open[ci] = true
	}
	for _, ci := range w.holes {
		if holes[ci] || int(ci) >= len(w.chunks) || w.chunks[ci] != nil {
			return fmt.Errorf("chunk %d is a hole twice or is there", ci)
		}
		holes[ci] = true
	}
	for ci, c := range w.chunks {
		if c == nil {
			gone++
			continue
		}
		if c.free&^allFree != 0 {
			return fmt.Errorf("chunk %d: free bits %b beyond its length", ci, c.free)
		}
		if c.free != 0 {
			room++
		}
		if c.free == allFree {
			allFreeChunks++
		}
		held += chunkLen - bits.OnesCount32(c.free)
		for bit := range chunkLen {
			i, e := int32(ci*chunkLen+bit), c.slots[bit]
			if c.free&(1<<bit) != 0 {
				if e != nil {
					return fmt.Errorf("entry %d is free and not let go of: %+v", i, e)
				}
				continue
			}
			m := e.Meta
			if m.Stamp == 0 || m.Stamp > w.stamp {
				return fmt.Errorf("entry %d has stamp %d, the last given is %d", i, m.Stamp, w.stamp)
			}
			if other, ok := stamps[m.Stamp]; ok {
				return fmt.Errorf("entries %d and %d share stamp %d", i, other, m.Stamp)
			}
			stamps[m.Stamp] = i
		}
	}
	for _, e := range w.unusedEntries() {
		if e.Meta != (Meta{}) || e.val != zero {
			return fmt.Errorf("an entry to be used again is not empty: %+v", e)
		}
	}
	switch {
	case len(open) != room:
		return fmt.Errorf("%d chunks have room, %d are open", room, len(open))
	case len(holes) != gone:
		return fmt.Errorf("%d chunks were given back, %d are holes", gone, len(holes))
	case allFreeChunks > 1 || allFreeChunks != w.spare:
		return fmt.Errorf("%d chunks are entirely free, spare is %d", allFreeChunks, w.spare)
	case held != w.Len():
		return fmt.Errorf("%d entries are held, Len is %d", held, w.Len())
	case held == 0 && len(w.chunks) > 1:
		return fmt.Errorf("an empty window keeps a table of %d chunks", len(w.chunks))
	}
	return nil
}

// checkList follows l in both directions and notes what stands in it.
func checkList[E any](w *Window[E], l *List, where uint8, linked map[int32]bool) error {
	n, prev := 0, int32(0)
	for at := l.first; at != 0; n++ {
		i := at - 1
		m := w.Meta(i)
		switch {
		case linked[i]:
			return fmt.Errorf("entry %d is linked twice", i)
		case m.Stamp == 0:
			return fmt.Errorf("entry %d is free and linked", i)
		case m.where != where:
			return fmt.Errorf("entry %d says it is at %d", i, m.where)
		case m.prev != prev:
			return fmt.Errorf("entry %d has %d before it, it should be %d", i, m.prev-1, prev-1)
		case where == inLine && prev != 0 && w.Meta(prev-1).Deadline > m.Deadline:
			return fmt.Errorf("entry %d stands after a later deadline", i)
		}
		linked[i] = true
		prev, at = at, m.next
	}
	if l.last != prev {
		return fmt.Errorf("the last entry is %d, it should be %d", l.last-1, prev-1)
	}
	if l.Len() != n {
		return fmt.Errorf("%d entries, Len is %d", n, l.Len())
	}
	return nil
}

func checkHeap(h *lazyHeap) error {
	for k := 1; k < len(h.items); k++ {
		if h.items[k].less(h.items[(k-1)/2]) {
			return fmt.Errorf("item %d is less than its parent", k)
		}
	}
	if len(h.items) > max(h.limit, 64) {
		return fmt.Errorf("%d items, the limit is %d", len(h.items), h.limit)
	}
	return nil
}

// checkPlaces checks that every entry is where it says. Linked are those that
// were found in a list or in the line.
func checkPlaces[E any](w *Window[E], linked map[int32]bool) (err error) {
	heaped := make(map[int32]bool)
	for _, it := range w.heap.items {
		if w.scheduledInHeap(it) {
			heaped[it.i] = true
		}
	}
	n := 0
	w.All(func(i int32) bool {
		n++
		m := w.Meta(i)
		switch {
		case (m.where == inList || m.where == inLine) != linked[i]:
			err = fmt.Errorf("entry %d says it is at %d, linked: %v", i, m.where, linked[i])
		case (m.where == inHeap) != heaped[i]:
			err = fmt.Errorf("entry %d says it is at %d, in the heap: %v", i, m.where, heaped[i])
		case !linked[i] && (m.prev != 0 || m.next != 0):
			err = fmt.Errorf("entry %d is not linked and has neighbours", i)
		}
		return err == nil
	})
	if err == nil && n != w.Len() {
		err = fmt.Errorf("All found %d entries, Len is %d", n, w.Len())
	}
	return err
}

// unusedEntries are those that are kept to be used again.
func (w *Window[E]) unusedEntries() []*slot[E] {
	if w.tables == nil {
		return nil
	}
	return w.unused
}
