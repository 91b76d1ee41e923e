package fanout

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/gofanout/fanout/internal/callback"
)

// WithBackoff sets how long a failed message waits before it is delivered
// again. The default is Exponential(100*time.Millisecond, 30*time.Second).
func WithBackoff(b Backoff) QueueOption {
	return queueOption(func(s *queueSettings) error {
		if b.rule == nil {
			return invalid("WithBackoff", "Backoff{}", "Constant, Exponential or BackoffFunc")
		}
		if b.err != nil {
			return fmt.Errorf("%w: WithBackoff: %w", ErrInvalidOption, b.err)
		}
		s.backoff = b
		return nil
	})
}

// A Backoff says how long to wait after a failed attempt. [Constant], [Exponential] and
// [BackoffFunc] make one. A message always waits at least a millisecond, so that none is
// retried in a tight loop.
type Backoff struct{ *rule }

type rule struct {
	wait   func(attempt int) time.Duration
	theirs bool // wait is the user's
	name   string
	err    error
}

// String is the call that made b, as "Exponential(100ms, 30s)".
func (b Backoff) String() string {
	if b.rule == nil {
		return "Backoff{}"
	}
	return b.name
}

// Constant waits d after each attempt, exactly. d must be positive.
func Constant(d time.Duration) Backoff {
	b := Backoff{&rule{name: fmt.Sprintf("Constant(%v)", d), wait: func(int) time.Duration { return d }}}
	if d <= 0 {
		b.err = fmt.Errorf("%v: want a positive duration", b)
	}
	return b
}

// Exponential waits about first after the first attempt and twice as long
// after each further one, up to longest. With w for that time, the wait is
// uniform in [w/2, w], so that what failed together does not return together.
// Both must be positive and longest not below first.
func Exponential(first, longest time.Duration) Backoff {
	b := Backoff{&rule{name: fmt.Sprintf("Exponential(%v, %v)", first, longest), wait: func(attempt int) time.Duration {
		w := longest
		if shift := max(attempt, 1) - 1; shift < 63 && first <= longest>>shift {
			w = first << shift
		}
		return w/2 + rand.N(w-w/2+1)
	}}}
	switch {
	case first <= 0:
		b.err = fmt.Errorf("%v: want a positive first wait", b)
	case longest < first:
		b.err = fmt.Errorf("%v: want a longest wait that is not below the first", b)
	}
	return b
}

// BackoffFunc waits for the time that f returns for the number of attempts spent, 1 or more.
// f is called without a lock, possibly concurrently, in a goroutine of its own, and the
// settlement waits for it. If f panics or calls [runtime.Goexit], that is logged and the
// default backoff is used.
func BackoffFunc(f func(attempt int) time.Duration) Backoff {
	if f == nil {
		return Backoff{&rule{name: "BackoffFunc(nil)", err: fmt.Errorf("BackoffFunc(nil): want a function")}}
	}
	return Backoff{&rule{name: "BackoffFunc", wait: f, theirs: true}}
}

// ask says how long to wait after the given number of spent attempts, and how the
// user's function ended.
func (b Backoff) ask(attempt int) (d time.Duration, e callback.End) {
	if !b.theirs {
		return max(b.wait(attempt), minWait), callback.End{Returned: true}
	}
	e = callback.Apart(func() { d = b.wait(attempt) })
	if !e.Returned {
		d = defaultBackoff.wait(attempt)
	}
	return max(d, minWait), e
}
