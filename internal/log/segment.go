package log

import "unsafe"

// SegmentOf is how many items of one type a segment of a log holds.
func SegmentOf[T any]() int {
	return min(max(SegmentBytes/int(unsafe.Sizeof(*new(T))), 1), MaxSegment)
}

// MaxSegment is the most messages that a segment holds, and SegmentBytes
// the most bytes, if that is more than one message.
const (
	MaxSegment   = 192
	SegmentBytes = 8 << 10
)
