package block

import (
	"sync"
	"unsafe"

	"github.com/gofanout/fanout/internal/message"
)

// A block has one of four sizes: places for one message, for Small, for Medium or for Len.
const (
	Small  = 4
	Medium = 16
	Len    = 64
)

// SizeFor has the size of a block for so many messages.
var SizeFor = func() (sizes [Len + 1]uint8) {
	for n := range sizes {
		switch {
		case n <= 1:
			sizes[n] = 1
		case n <= Small:
			sizes[n] = Small
		case n <= Medium:
			sizes[n] = Medium
		default:
			sizes[n] = Len
		}
	}
	return sizes
}()

// A Pool has the places of blocks that are over, of messages of one type. The zero Pool is
// empty.
type Pool struct{ small, medium, large sync.Pool }

// The places of a block, and when the deliveries there began, are in one piece.
type (
	one[T any] struct {
		items  [1]message.Item[T]
		starts [1]int64
	}
	few[T any] struct {
		items  [Small]message.Item[T]
		starts [Small]int64
	}
	some[T any] struct {
		items  [Medium]message.Item[T]
		starts [Medium]int64
	}
	many[T any] struct {
		items  [Len]message.Item[T]
		starts [Len]int64
	}
)

// PlaceLen is the size of a place, in bytes.
func PlaceLen[T any]() int { return int(unsafe.Sizeof(message.Item[T]{})) + 8 }

// Places returns as many as SizeFor says for so many messages, at most Len.
func Places[T any](p *Pool, wanted int) []message.Item[T] {
	switch SizeFor[wanted] {
	case 1:
		return new(one[T]).items[:]
	case Small:
		b, ok := p.small.Get().(*few[T])
		if !ok {
			b = new(few[T])
		}
		return b.items[:]
	case Medium:
		b, ok := p.medium.Get().(*some[T])
		if !ok {
			b = new(some[T])
		}
		return b.items[:]
	}
	b, ok := p.large.Get().(*many[T])
	if !ok {
		b = new(many[T])
	}
	return b.items[:]
}

// Exactly returns so many places, no more. The pool does not take them back, unless they are
// as many as a block has.
func Exactly[T any](p *Pool, n int) []message.Item[T] {
	if int(SizeFor[n]) != n {
		return make([]message.Item[T], n)
	}
	return Places[T](p, n)
}

// Return gives back what Places or Exactly returned. The caller has emptied them.
func Return[T any](p *Pool, items []message.Item[T]) {
	first := unsafe.Pointer(unsafe.SliceData(items))
	switch cap(items) {
	case Small:
		p.small.Put((*few[T])(first))
	case Medium:
		p.medium.Put((*some[T])(first))
	case Len:
		p.large.Put((*many[T])(first))
	}
}

// Starts returns the first of as many instants as there are places. What they say is of
// whoever had the places before.
func Starts[T any](items []message.Item[T]) *int64 {
	first := unsafe.Pointer(unsafe.SliceData(items))
	switch cap(items) {
	case 1:
		return &(*one[T])(first).starts[0]
	case Small:
		return &(*few[T])(first).starts[0]
	case Medium:
		return &(*some[T])(first).starts[0]
	case Len:
		return &(*many[T])(first).starts[0]
	}
	return &make([]int64, len(items))[0] // they came from Exactly
}
