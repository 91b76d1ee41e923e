package message

import "errors"

// The errors of the library. The root exports them and documents which call
// returns which; what is returned wraps them.
var (
	ErrClosed         = errors.New("fanout: closed")
	ErrQueueFull      = errors.New("fanout: queue full")
	ErrBatchTooLarge  = errors.New("fanout: batch too large")
	ErrWouldDeadlock  = errors.New("fanout: would deadlock")
	ErrInvalidMessage = errors.New("fanout: invalid message")

	// ErrStale says that a delivery no longer owns its message: its visibility
	// timeout has passed, or the message was taken back. It may also mean that the
	// delivery ended too long ago to tell how.
	ErrStale = errors.New("fanout: stale delivery")
	// ErrSettled says that a delivery was settled before. It is always true.
	ErrSettled = errors.New("fanout: delivery already settled")

	ErrInvalidOption = errors.New("fanout: invalid option")
	ErrUnsupported   = errors.New("fanout: unsupported")
)
