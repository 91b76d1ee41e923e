// Package block has arrays of up to 64 places that leases keep messages in, with the start of
// each delivery and each message's history.
//
// It promises that places are empty when they are given out, and that those that are given
// back serve the next lease of any queue of the topic: one queue goes on with what another has
// just left in the processor's cache. The garbage collector takes what nobody wants.
//
// A Pool owns the places that are not in use. It may be used concurrently. A Block, and its
// places, belong to whoever has them: there is no lock for these.
package block

import (
	"math/bits"
	"unsafe"

	"github.com/gofanout/fanout/internal/message"
)

// A Block is messages in their places, and when each of them began. The zero Block has no places.
//
// Invariants: all places are taken in order, but in a block that has shrunk: there, message k
// has the place that counts the messages of Present below it. Without starts, all began at Began.
type Block[T any] struct {
	Items   []message.Item[T] // by place
	Present uint64            // bit k: message k may have a place; all bits of one that did not shrink
	Began   int64
	starts  *int64 // the first of as many as there are places; nil: all are Began
}

// Place is where message k is in the block.
func (b *Block[T]) Place(k int) int {
	if b.Present == ^uint64(0) {
		return k
	}
	return bits.OnesCount64(b.Present & (1<<k - 1))
}

// Start is when message k began.
func (b *Block[T]) Start(k int) int64 {
	if b.starts == nil {
		return b.Began
	}
	return b.StartAt(b.Place(k))
}

// StartAt is when the message at place p began.
func (b *Block[T]) StartAt(p int) int64 {
	if b.starts == nil {
		return b.Began
	}
	return unsafe.Slice(b.starts, len(b.Items))[p]
}

// Begin says that n messages from place p on begin, of a block in which there are others up
// to place end.
func (b *Block[T]) Begin(p, n, end int, now int64) {
	if b.starts == nil {
		if now == b.Began {
			return
		}
		b.starts = Starts(b.Items)
		for k, starts := 0, unsafe.Slice(b.starts, end); k < end; k++ {
			starts[k] = b.Began
		}
	}
	starts := unsafe.Slice(b.starts, p+n)[p:]
	for k := range starts {
		starts[k] = now
	}
}

// BeginAll says that all messages begin.
func (b *Block[T]) BeginAll(now int64) { b.Began, b.starts = now, nil }

// Clear lets go of the messages of some bits.
func (b *Block[T]) Clear(dead uint64) {
	for dead != 0 {
		k := bits.TrailingZeros64(dead)
		n := bits.TrailingZeros64(^(dead >> k))
		p := b.Place(k)
		if n == 1 { // a call less
			b.Items[p] = message.Item[T]{}
		} else {
			clear(b.Items[p : p+n])
		}
		dead &^= (1<<n - 1) << k
	}
}

// Move moves the messages of some bits, and what they have been through if ps is not nil, to
// other places, of which there are as many, and gives those back that they had.
func (b *Block[T]) Move(pool *Pool, to []message.Item[T], live uint64, ps *Pasts) {
	var starts *int64
	if b.starts != nil {
		starts = Starts(to)
	}
	var own []message.Past
	if ps != nil && ps.own != nil {
		own, ps.own = ps.own, make([]message.Past, len(to))
	}
	for n, x := 0, live; x != 0; n, x = n+1, x&(x-1) {
		p := b.Place(bits.TrailingZeros64(x))
		to[n] = b.Items[p]
		if starts != nil {
			unsafe.Slice(starts, len(to))[n] = b.StartAt(p)
		}
		if own != nil {
			ps.own[n] = own[p]
		}
	}
	clear(b.Items)
	Return(pool, b.Items)
	b.Items, b.starts, b.Present = to, starts, live
}

// Drop gives the places back. In none behind the first n is anything, unless the block has
// shrunk.
func (b *Block[T]) Drop(pool *Pool, n int) {
	if b.Present != ^uint64(0) {
		n = len(b.Items)
	}
	clear(b.Items[:n])
	Return(pool, b.Items)
	b.Items, b.starts = nil, nil
}
