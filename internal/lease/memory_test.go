package lease

import (
	"unsafe"

	"github.com/gofanout/fanout/internal/block"
)

// bytes is what a table has allocated, as it was asked for.
func (t *Table[T]) bytes() int {
	n := 8*cap(t.slots.chunks) + 4*cap(t.slots.roomy) + 4*cap(t.slots.holes) + 16*cap(t.ranked.blocks) + t.due.Outside() + 8*cap(t.steps)
	for _, c := range t.slots.chunks {
		if c == nil {
			continue
		}
		n += int(unsafe.Sizeof(*c))
		for i := range c.slots {
			if l := c.slots[i].lease; l != nil {
				n += int(unsafe.Sizeof(*l)) + cap(l.items)*block.PlaceLen[T]()
			}
		}
	}
	return n + len(t.heads)*int(unsafe.Sizeof(Lease[T]{})) + 8*cap(t.heads)
}
