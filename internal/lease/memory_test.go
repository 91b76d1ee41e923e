package lease

import (
	"unsafe"

	"github.com/gofanout/fanout/internal/block"
)

// bytes is what a table has allocated, as it was asked for.
func (t *Table[T]) bytes() int {
	n := t.slots.Bytes() + t.ranked.Bytes() + t.due.Outside() + 8*cap(t.steps)
	for _, s := range t.slots.All {
		n += int(unsafe.Sizeof(*s.Lease)) + cap(s.Lease.block.Items)*block.PlaceLen[T]()
	}
	return n + len(t.heads)*int(unsafe.Sizeof(Lease[T]{})) + 8*cap(t.heads)
}
