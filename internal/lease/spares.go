package lease

// spares are blocks that are over.
type spares[T any] struct {
	slabs []slab[T]
	heads []*Lease[T]
	bytes int // of slabs
	clear int // the first so many of slabs keep nothing
}

// head returns an empty lease without places.
func (p *spares[T]) head() *Lease[T] {
	n := len(p.heads)
	if n == 0 {
		return new(Lease[T])
	}
	l := p.heads[n-1]
	p.heads[n-1] = nil
	p.heads = p.heads[:n-1]
	return l
}

// take returns an empty lease of so many places, of which the first ones, dirty in
// number, may keep what is over.
func (p *spares[T]) take(room, dirty int) *Lease[T] {
	l := p.head()
	b, ok := p.slab(room)
	if !ok {
		b = newSlab[T](max(room, least[T]())) // a smaller one would not be kept, and made anew each time
	}
	if len(b.items) > dirty {
		clear(b.items[dirty:])
	}
	l.items, l.starts = b.items[:room], b.starts
	return l
}

// slab returns the last slab, or one of the few before it, that is large enough.
func (p *spares[T]) slab(room int) (b slab[T], ok bool) {
	last := len(p.slabs) - 1
	for k := last; k >= 0 && k > last-small; k-- {
		if b = p.slabs[k]; cap(b.items) >= room {
			p.slabs[k] = p.slabs[last]
			p.slabs[last] = slab[T]{}
			p.slabs = p.slabs[:last]
			p.clear = min(p.clear, k)
			p.bytes -= b.bytes()
			return b, true
		}
	}
	return b, false
}

// takes reports whether a slab of so many places is kept, of most bytes in all.
func (p *spares[T]) takes(size, most int) bool {
	return size >= small && (len(p.slabs) == 0 || p.bytes+size*placeBytes[T]() <= most)
}

// spareMost is how many bytes may be kept: no more than what is in use.
func (t *Table[T]) spareMost() int {
	return min(max(t.Held()*placeBytes[T](), fewBytes), spareBytes)
}

// give keeps the parts of a lease that is over. What is in its items may be so,
// too.
func (p *spares[T]) give(l *Lease[T], most int) {
	p.giveSlab(slab[T]{l.items, l.starts}, most)
	l.items, l.starts, l.more = nil, nil, nil
	l.n, l.begun, l.counted, l.dueBit = 0, 0, 0, 0
	if len(p.heads) < spareLen {
		p.heads = append(p.heads, l)
	}
}

func (p *spares[T]) giveSlab(b slab[T], most int) {
	if p.takes(cap(b.items), most) {
		p.slabs = append(p.slabs, b)
		p.bytes += b.bytes()
	}
	for last := len(p.slabs) - 1; p.bytes > most && last > 0; last-- {
		p.bytes -= p.slabs[last].bytes()
		p.slabs[last] = slab[T]{}
		p.slabs = p.slabs[:last]
		p.clear = min(p.clear, last)
	}
}

// clean lets go of all that is over.
func (p *spares[T]) clean() {
	for ; p.clear < len(p.slabs); p.clear++ {
		b := &p.slabs[p.clear]
		clear(b.items)
		b.items = b.items[:0]
	}
}

// trim keeps no more than so many bytes.
func (p *spares[T]) trim(most int) {
	n, bytes := 0, 0
	for _, b := range p.slabs {
		if bytes+b.bytes() <= most {
			p.slabs[n] = b
			n++
			bytes += b.bytes()
		}
	}
	clear(p.slabs[n:])
	p.slabs, p.bytes, p.clear = p.slabs[:n], bytes, 0
	if cap(p.slabs) > 4*max(n, 1) {
		p.slabs = append([]slab[T](nil), p.slabs...)
	}
}
