package message

import (
	"fmt"
	"runtime/debug"

	"github.com/gofanout/fanout/internal/callback"
)

// Told returns v with its error's text, which it is asked for now: no lock is held.
// An error with a text that is too long becomes one with a short text that wraps
// what of the long one's tree has no such text.
func (v Verdict) Told() Verdict {
	if v.Err == nil || v.Text != "" {
		return v
	}
	v.Text, v.Err = askError(v.Err) // not here: v would be allocated, whatever it is
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
	short := ShortText(text, MostText)
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
		case len(e.Error()) <= MostText/mostParts:
			parts = append(parts, e)
		default:
			parts = shortParts(e, parts)
		}
	}
	return parts
}

// Stack returns the stack of a panic, as its message's history keeps it.
func Stack() string {
	return ShortText(string(debug.Stack()), MostText)
}
