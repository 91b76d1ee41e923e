package settings

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/gofanout/fanout/internal/callback"
	"github.com/gofanout/fanout/internal/message"
)

// A Backoff says how long to wait after a failed attempt.
type Backoff struct {
	wait   func(attempt int) time.Duration
	theirs bool // wait is the user's
	name   string
	err    error
}

// String is the call that made b, as "Exponential(100ms, 30s)".
func (b *Backoff) String() string { return b.name }

// Err says what is wrong with b; nil if nothing is.
func (b *Backoff) Err() error { return b.err }

// Constant waits d after each attempt, exactly.
func Constant(d time.Duration) *Backoff {
	b := &Backoff{name: fmt.Sprintf("Constant(%v)", d), wait: func(int) time.Duration { return d }}
	if d <= 0 {
		b.err = fmt.Errorf("%v: want a positive duration", b)
	}
	return b
}

// Exponential waits about first after the first attempt and twice as long
// after each further one, up to longest. With w for that time, the wait is
// uniform in [w/2, w], so that what failed together does not return together.
func Exponential(first, longest time.Duration) *Backoff {
	b := &Backoff{name: fmt.Sprintf("Exponential(%v, %v)", first, longest), wait: func(attempt int) time.Duration {
		w := longest
		if shift := max(attempt, 1) - 1; shift < 63 && first <= longest>>shift {
			w = first << shift
		}
		return w/2 + rand.N(w-w/2+1)
	}}
	switch {
	case first <= 0:
		b.err = fmt.Errorf("%v: want a positive first wait", b)
	case longest < first:
		b.err = fmt.Errorf("%v: want a longest wait that is not below the first", b)
	}
	return b
}

// BackoffFunc waits for the time that f returns for the number of attempts spent.
func BackoffFunc(f func(attempt int) time.Duration) *Backoff {
	if f == nil {
		return &Backoff{name: "BackoffFunc(nil)", err: fmt.Errorf("BackoffFunc(nil): want a function")}
	}
	return &Backoff{name: "BackoffFunc", wait: f, theirs: true}
}

// After says how long to wait after the given number of spent attempts.
func (b *Backoff) After(attempt int) time.Duration {
	d, _ := b.Ask(attempt)
	return d
}

// Ask says how long to wait after the given number of spent attempts, and how the
// user's function ended. No lock is held.
func (b *Backoff) Ask(attempt int) (d time.Duration, e callback.End) {
	if !b.theirs {
		return max(b.wait(attempt), message.MinWait), callback.End{Returned: true}
	}
	e = callback.Apart(func() { d = b.wait(attempt) })
	if !e.Returned {
		d = defaultBackoff.wait(attempt)
	}
	return max(d, message.MinWait), e
}
