package fanout

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gofanout/fanout/internal/callback"
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

// A history is what ended attempts left behind. It is never changed, so that a
// delivery can carry it: each attempt makes a new one that shares what came before.
//
// Invariant: attempts are at most mostAttempts and a slack that is cut at times;
// texts is how many bytes of texts they have, at most mostTexts.
type history struct {
	attempts []kept
	texts    int
	past     *past // of messages that timed out together: instead of attempts
}

// A kept is an attempt as a history keeps it.
type kept struct {
	Attempt
	text   string // Err's, so that nobody calls code of the user's to have it
	letter bool   // a dead-letter queue made the delivery
}

const (
	// mostAttempts is how many attempts a history shows.
	mostAttempts = 1000
	// slack is how many more are kept before all above are cut, which copies them.
	slack = mostAttempts / 4
	// mostText bounds one text, of an error or a stack, and mostTexts those of a
	// history, in bytes.
	mostText  = 8 << 10
	mostTexts = 256 << 10
)

// of returns the attempts of the message with the given number.
func (h *history) of(seq uint64) []Attempt {
	if h.past != nil {
		return h.past.attempts(seq)
	}
	shown := cut(h.attempts, mostAttempts)
	as := make([]Attempt, len(shown))
	for k := range shown {
		as[k] = shown[k].Attempt
	}
	return as
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

// last returns the newest attempt.
func (h *history) last() *kept { return &h.attempts[len(h.attempts)-1] }

// with returns h and a behind it, numbered.
func (h *history) with(a kept) *history {
	if h == nil {
		a.Number = 1
		first := &struct { // most have one: in one piece
			history
			only [1]kept
		}{only: [1]kept{a}}
		first.attempts, first.texts = first.only[:], a.size()
		return &first.history
	}
	a.Number = h.last().Number + 1
	next := &history{attempts: append(h.attempts, a), texts: h.texts + a.size()}
	if len(next.attempts) >= mostAttempts+slack || next.texts > mostTexts {
		next.attempts, next.texts = bounded(next.attempts, mostAttempts, mostText, mostTexts)
	}
	return next
}

func (a *kept) size() int { return len(a.text) + len(a.Stack) }

// bounded returns what is kept of attempts: at most most of them, as cut says,
// each text shortened to at most each bytes, and of the oldest texts only how long
// they were, until all are at most total bytes. It returns how many they are. What
// is left out can't be had again, but as is said of it: a note of some ten bytes
// may stand in for a text even if total has no room for it. It changes nothing.
func bounded(as []kept, most, each, total int) (out []kept, texts int) {
	out = slices.Clone(cut(as, most))
	for k := range out {
		out[k].shorten(each)
		texts += out[k].size()
	}
	for k := 0; k < len(out) && texts > total; k++ {
		a := &out[k]
		texts -= a.size()
		a.Stack = shortText(a.Stack, 0)
		if texts+a.size() > total {
			a.shorten(0)
		}
		texts += a.size()
	}
	return out, texts
}

// cut returns at most most attempts: what dead-letter queues did goes first, the
// oldest before the newer, and then the middle. The newest always stays.
func cut(as []kept, most int) []kept {
	over := len(as) - most
	if over <= 0 {
		return as
	}
	out := make([]kept, 0, len(as))
	for k, a := range as {
		if over > 0 && a.letter && k < len(as)-1 {
			over--
			continue
		}
		out = append(out, a)
	}
	return slices.Delete(out, most/2, most/2+over)
}

// shorten makes each text of a at most that many bytes. An error whose text is
// longer becomes one that has the short text; nothing else of it is left, as it
// would keep the long one.
func (a *kept) shorten(most int) {
	a.Stack = shortText(a.Stack, most)
	if short := shortText(a.text, most); short != a.text {
		a.text, a.Err = short, errors.New(short)
	}
}

// noteLen is more than a note of what was left out is long.
const noteLen = 48

// shortText returns text if it is at most most bytes; else its beginning, with a
// note of how many bytes were left out, and all of that at most most bytes. If
// there is no room for a note it is the note, unless text is as short.
func shortText(text string, most int) string {
	if len(text) <= max(most, noteLen) {
		return text
	}
	before := 0 // left out when text was shortened before
	if i := strings.LastIndex(text, noteBegin); i >= 0 && len(text)-i < noteLen {
		if n, _ := fmt.Sscanf(text[i:], noteFormat, &before); n == 1 {
			text = text[:i]
		}
	}
	end := max(most-noteLen, 0)
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return strings.Clone(text[:end]) + fmt.Sprintf(noteFormat, before+len(text)-end)
}

const (
	noteBegin  = "... ("
	noteFormat = "... (%d bytes left out)"
)

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
	short := shortText(text, mostText)
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
		case len(e.Error()) <= mostText/mostParts:
			parts = append(parts, e)
		default:
			parts = shortParts(e, parts)
		}
	}
	return parts
}
