package message

import (
	"context"
	"errors"
	"fmt"
	"strconv"
)

// The errors of the library. Package fanout exports them, and says which call returns which;
// what is returned wraps them.
var (
	ErrClosed         = errors.New("fanout: closed")
	ErrQueueFull      = errors.New("fanout: queue full")
	ErrUnconfirmed    = errors.New("fanout: not confirmed")
	ErrBatchTooLarge  = errors.New("fanout: batch too large")
	ErrWouldDeadlock  = errors.New("fanout: would deadlock")
	ErrInvalidMessage = errors.New("fanout: invalid message")
	ErrStale          = errors.New("fanout: stale delivery")
	ErrSettled        = errors.New("fanout: delivery already settled")
	ErrInvalidOption  = errors.New("fanout: invalid option")
	ErrExists         = fmt.Errorf("%w: the name exists", ErrInvalidOption)
	ErrUnknownID      = fmt.Errorf("%w: unknown ID", ErrInvalidOption)
	ErrUnsupported    = errors.New("fanout: unsupported")

	// ErrNilContext is what a nil context gets.
	ErrNilContext = errors.New("nil context")
)

// Unlimited stands for no limit.
const Unlimited = int(^uint(0) >> 1)

// Invalid is the error for a bad option or argument. It names it and its value, and says
// what is wanted.
func Invalid(option string, value any, want string) error {
	if n, ok := value.(int); ok {
		value = Limit(n)
	}
	return fmt.Errorf("%w: %s(%v): want %s", ErrInvalidOption, option, value, want)
}

// A Limit is a number that is printed as Unlimited if it is that.
type Limit int

// String returns the number, or "Unlimited".
func (l Limit) String() string {
	if l == Limit(Unlimited) {
		return "Unlimited"
	}
	return strconv.Itoa(int(l))
}

// ContextError is the error of a context that has ended: what errors.Is finds
// is both ctx.Err() and, if it was given one, its cause.
func ContextError(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if cause == err {
		return err
	}
	return fmt.Errorf("%w: %w", err, cause)
}

// IsClosed reports whether err is ErrClosed, or wraps it.
func IsClosed(err error) bool { return errors.Is(err, ErrClosed) }

// Plural counts things.
func Plural(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
