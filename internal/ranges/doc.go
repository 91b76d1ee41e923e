// Package ranges has Queue.Deliveries: the messages that a range loop over a queue receives, one
// after the other.
//
// It promises that each message is yielded once and in order, and is not in flight before
// that; that what a loop has not begun is ready for whoever looks; and that a message times out
// a millisecond late at most, and never early.
//
// A Range is its loop's. It changes its lease under the queue's Mu, and takes most messages
// without that. It has no goroutine and no timer of its own.
package ranges
