package fanout

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// An Attempt is how one delivery of a message ended.
type Attempt struct {
	// Number is 1 for the message's first delivery and counts on through
	// snoozes, releases and redrives.
	Number int
	// Cause says how it ended.
	Cause Cause
	// Queue is the queue that made the delivery.
	Queue string
	// Start is when the delivery was made, and Elapsed how long it lasted. For a
	// handler whose worker took several messages at once Start may be up to a
	// millisecond late, and Elapsed as much too short.
	Start   time.Time
	Elapsed time.Duration
	// Err is what the handler returned or panicked with, nil if there was none.
	Err error
	// Stack is where a panic came from, at most 8 KiB of it.
	Stack string
}

// String tells the attempt in one line, without the stack.
func (a Attempt) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "attempt %d: %v after %v", a.Number, a.Cause, a.Elapsed.Round(time.Microsecond))
	if a.Err != nil {
		fmt.Fprintf(&b, ": %v", a.Err)
	}
	return b.String()
}

// A history is what ended attempts left behind. It is never changed, so that a
// delivery can carry it: each attempt makes a new one that shares what came before.
type history struct {
	attempts []Attempt
	past     *past // of messages that timed out together: instead of attempts
}

// of returns the attempts of the message with the given number.
func (h *history) of(seq uint64) []Attempt {
	if h.past != nil {
		return h.past.attempts(seq)
	}
	return slices.Clone(h.attempts)
}

// releases counts the releases with an error that h ends with, up to most: those
// that had to wait. What h has not kept between them counts, too.
func (h *history) releases(most int) (n int) {
	if h == nil {
		return 0
	}
	next := 0 // the number of the attempt behind
	for _, a := range slices.Backward(h.attempts) {
		if a.Cause != Released {
			break
		}
		if a.Err != nil {
			n++
		}
		if next > 0 {
			n += next - a.Number - 1
		}
		next = a.Number
	}
	return min(n, most)
}

// with returns h and a behind it, numbered. Of more than keep attempts it keeps
// the first and the newer half.
func (h *history) with(a Attempt, keep int) *history {
	if h == nil {
		a.Number = 1
		first := &struct { // most have one: in one piece
			history
			only [1]Attempt
		}{only: [1]Attempt{a}}
		first.attempts = first.only[:]
		return &first.history
	}
	old := h.attempts
	a.Number = old[len(old)-1].Number + 1
	if len(old) >= keep {
		kept := make([]Attempt, 0, len(old))
		kept = append(kept, old[0])
		old = append(kept, old[len(old)/2:]...)
	}
	return &history{attempts: append(old, a)}
}
