package message

import (
	"errors"
	"fmt"
	"time"

	"github.com/gofanout/fanout/internal/callback"
)

// A Cause says how an attempt ended.
//
// A new one goes to the end, as engines keep causes by their numbers (package onengine), and
// after the last one here Causes counts on it, and the text forms of fanout.Cause. It has to
// be added to causeNames and Spends below; to fanout.Cause; to the counters of view.Stats and
// fanout.Stats; to what the test kit (journal.go, state.go), the page (series.go, info.go,
// queuepage.go) and the OpenTelemetry plugin (errors.go, around.go) call it and add up; to
// enginetest; and to the model and the stress. Store.Judge says what follows, and Store.Retry
// and delivery.WaitAfter when. (What a publish refuses is an error and no Cause; what is
// dropped has a reason of package notice.)
type Cause uint8

// The causes. All but Acked, Snoozed and Released spend one of the message's attempts.
const (
	Acked             Cause = iota + 1 // acknowledged
	Failed                             // the handler returned an error
	Panicked                           // the handler panicked
	Exited                             // the handler called runtime.Goexit
	TimedOut                           // the visibility timeout passed
	Nacked                             // given back by Nack or NackAfter
	PermanentlyFailed                  // the handler returned Permanent
	Expired                            // the message's time to live passed
	Snoozed                            // the handler returned Snooze
	Released                           // given back: by a shutdown, by Release, or by an error that wraps ErrClosed
)

// Causes is one more than the last Cause: the length of an array by cause.
const Causes = int(Released) + 1

var causeNames = [Causes]string{
	"none", "acked", "failed", "panicked", "exited", "timed out", "nacked",
	"permanent", "expired", "snoozed", "released",
}

// String is the cause's name.
func (c Cause) String() string {
	if int(c) < len(causeNames) {
		return causeNames[c]
	}
	return fmt.Sprintf("Cause(%d)", uint8(c))
}

// Spends reports whether an attempt that ended so is one of those that the
// message has.
func (c Cause) Spends() bool { return c != Acked && c != Snoozed && c != Released }

// Permanent is what a handler returns if no further attempt can succeed.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &outcome{Verdict{Cause: PermanentlyFailed, Err: err}}
}

// RetryAfter is what a handler returns if the next attempt should begin after wait.
func RetryAfter(err error, wait time.Duration) error {
	if err == nil {
		return nil
	}
	return &outcome{Verdict{Cause: Failed, Wait: max(wait, MinWait), Err: err}}
}

// Snooze is what a handler returns if it is too early for the message.
func Snooze(wait time.Duration) error {
	return &outcome{Verdict{Cause: Snoozed, Wait: max(wait, MinWait)}}
}

// Release is what a handler returns if the attempt should not count.
func Release(err error) error {
	if err == nil {
		return nil
	}
	return &outcome{Verdict{Cause: Released, Wait: FromBackoff, Err: err}}
}

// outcome is a verdict as an error, for a handler to return.
type outcome struct{ Verdict }

func (o *outcome) Error() string {
	if o.Cause == Snoozed {
		return fmt.Sprintf("fanout: snooze for %v", o.Wait)
	}
	return o.Err.Error()
}

func (o *outcome) Unwrap() error { return o.Err }

// A Verdict says how a delivery ends.
type Verdict struct {
	Cause Cause
	Wait  time.Duration // until the next delivery; or FromBackoff
	Err   error
	Text  string // Err's; see Told
	Stack string
	// Unstarted says that no consumer had the message: there was no attempt.
	Unstarted bool
}

const (
	// MinWait is the least that a message waits after a failure or a snooze.
	MinWait = time.Millisecond
	// FromBackoff as a Verdict's Wait stands for the queue's backoff.
	FromBackoff time.Duration = -1
	// MostPasses is after how many snoozes and releases a message is dead.
	MostPasses = 1000
)

// Judge turns what a handler returned into a verdict. It calls the error's own methods: no
// lock is held.
func Judge(err error) Verdict {
	if err == nil {
		return Verdict{Cause: Acked}
	}
	var o *outcome
	if errors.As(err, &o) {
		v := o.Verdict
		if v.Cause != Snoozed {
			v.Err = err
		}
		return v
	}
	if errors.Is(err, ErrClosed) {
		return Verdict{Cause: Released, Wait: FromBackoff, Err: err}
	}
	return Verdict{Cause: Failed, Wait: FromBackoff, Err: err}
}

// CauseOf is the cause with which an attempt ends whose handler returns err.
func CauseOf(err error) Cause { return Judge(err).Cause }

// CauseOfEnd is what the end of a call that did not return counts as.
func CauseOfEnd(e callback.End) Cause {
	if e.Panicked != nil {
		return Panicked
	}
	return Exited
}
