package window

import "math/bits"

// Scan calls f with the entries that are held among about the most numbers from from on,
// in the order of their numbers, and returns the number to go on with, and false at the
// end. f may not add or remove; between two calls anybody may. An entry that is held all
// the time is met once.
func (w *Window[E]) Scan(from int32, most int, f func(i int32)) (next int32, more bool) {
	if w.tables == nil {
		return 0, false
	}
	end := min(from/chunkLen+int32(max(most/chunkLen, 1)), int32(len(w.chunks)))
	for ci := from / chunkLen; ci < end; ci++ {
		if c := w.chunks[ci]; c != nil {
			for used := ^c.free & allFree; used != 0; used &= used - 1 {
				f(ci*chunkLen + int32(bits.TrailingZeros32(used)))
			}
		}
	}
	return end * chunkLen, end < int32(len(w.chunks))
}
