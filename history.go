package fanout

import (
	"fmt"
	"strings"
	"time"

	"github.com/gofanout/fanout/internal/callback"
	"github.com/gofanout/fanout/internal/message"
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
	// Start is when the delivery was made, and Elapsed how long it lasted. If a worker took
	// several messages at once, Start may be up to a millisecond late, and Elapsed that much
	// too short.
	Start   time.Time
	Elapsed time.Duration
	// Err is what the handler returned or panicked with, nil if there was none. If its text
	// is longer than 8 KiB, the beginning is kept, and of the errors that it wraps only
	// those with short texts. On an engine it is the text alone. See [Delivery.History].
	Err error
	// Stack is where a panic came from, at most 8 KiB of it.
	Stack string
}

// String returns the attempt in one line, without the stack.
func (a Attempt) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "attempt %d: %v after %v", a.Number, a.Cause, a.Elapsed.Round(time.Microsecond))
	if a.Err != nil {
		fmt.Fprintf(&b, ": %v", a.Err)
	}
	return b.String()
}

// attemptOf is what a delivery shows of an attempt that was kept.
func attemptOf(a *message.Attempt) Attempt {
	return Attempt{Number: a.Number, Cause: Cause(a.Cause), Queue: a.Queue, Start: a.Start, Elapsed: a.Elapsed, Err: a.Err, Stack: a.Stack}
}

// attemptsOf returns the attempts of the message with the given number.
func attemptsOf(h *history, seq uint64) []Attempt {
	shown := h.Attempts(seq)
	as := make([]Attempt, len(shown))
	for k := range shown {
		as[k] = attemptOf(&shown[k])
	}
	return as
}

// told returns v with its error's text, which it is asked for now: no lock is held.
// An error with a text that is too long becomes one with a short text that wraps
// what of the long one's tree has no such text.
func (v verdict) told() verdict {
	if v.err == nil || v.text != "" {
		return v
	}
	v.text, v.err = askError(v.err) // not here: v would be allocated, whatever it is
	return v
}

// askError is shortError for an error of the user's, whose methods may not return.
func askError(err error) (text string, short error) {
	if e := callback.Apart(func() { text, short = shortError(err) }); !e.Returned {
		return fmt.Sprintf("a %T, whose text could not be had", err), err
	}
	return text, short
}

// A shortened error has a text that was cut.
type shortened struct {
	text  string
	wraps []error
}

func (e *shortened) Error() string   { return e.text }
func (e *shortened) Unwrap() []error { return e.wraps }

// shortError returns the text that is kept of err, and err, or what is kept of it
// if its text is too long.
func shortError(err error) (string, error) {
	text := err.Error()
	short := message.ShortText(text, message.MostText)
	if len(short) == len(text) {
		return text, err
	}
	return short, &shortened{short, shortParts(err, nil)}
}

// mostParts is how many errors a shortened one wraps.
const mostParts = 8

// shortParts adds to parts what of the errors that err wraps has a short text.
func shortParts(err error, parts []error) []error {
	var inner []error
	switch u := err.(type) {
	case interface{ Unwrap() error }:
		inner = []error{u.Unwrap()}
	case interface{ Unwrap() []error }:
		inner = u.Unwrap()
	}
	for _, e := range inner {
		switch {
		case e == nil || len(parts) >= mostParts:
		case len(e.Error()) <= message.MostText/mostParts:
			parts = append(parts, e)
		default:
			parts = shortParts(e, parts)
		}
	}
	return parts
}
