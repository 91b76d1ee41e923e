// Package alarm has the one timer of a queue.
//
// It promises that the queue's Tick is called at the exact instant that the timer was armed for, or, if it was
// armed briefly, at that or a millisecond from now, whichever is first; and that nobody waits for a timer that has
// been stopped.
//
// An Alarm has no lock: its owner's guards it, which Tick takes. It has a timer only while it is armed, whose
// goroutine the owner waits for by Quiet.
package alarm

import (
	"time"

	"github.com/gofanout/fanout/internal/message"
)

// An Alarm is the one timer of its owner, a queue. It calls the queue's Tick at the first instant
// that the queue waits for. The queue's lock guards it.
//
// A timer that has fired or was stopped is not kept to be armed again: it belongs to the
// bubble of testing/synctest that it was made in. One that is armed for an instant that no
// longer matters is left alone: it costs less to let it come.
//
// A brief alarm comes soon, whatever it is armed for, and finds most often that there is
// nothing to wait for any more. So it is touched once a millisecond, not once a message,
// and is gone a [CheckAge] and a [SpareAge] after the last: the first time it finds that
// messages came.
type Alarm struct {
	Timer *time.Timer // nil while it is not armed
	At    int64       // when it comes, while it is armed
	// CheckAt is when what was prefetched is checked, and the log let go of; 0: there is
	// nothing to check. Who arms the alarm looks at it.
	CheckAt int64
	Ticking int32 // calls of Tick that have begun and not ended
	Armed   bool
	Brief   bool
}

// A Ticker is called by an alarm.
type Ticker interface{ Tick() }

// Arm has q.Tick called at the given instant, unless it will be called before.
func (a *Alarm) Arm(now, at int64, q Ticker) {
	if !a.comesBy(at) {
		a.Brief = false
		a.set(now, at, q)
	}
}

// ArmBriefly is Arm by a brief Alarm.
func (a *Alarm) ArmBriefly(now, at int64, q Ticker) {
	if !a.comesBy(at) {
		a.Brief = true
		a.set(now, min(at, message.After(now, CheckAge)), q)
	}
}

// ArmCheck has q.Tick called when CheckAt comes, unless it will be called before.
func (a *Alarm) ArmCheck(now int64, q Ticker) {
	if !a.comesBy(a.CheckAt) {
		a.Brief = true
		a.set(now, a.CheckAt, q)
	}
}

// comesBy reports whether Tick is called by the given instant, as it is. If not, the
// timer has been stopped. One that can't be stopped is about to run, and arms itself again.
func (a *Alarm) comesBy(at int64) bool { return a.Armed && (a.At <= at || !a.Timer.Stop()) }

func (a *Alarm) set(now, at int64, q Ticker) {
	a.Armed, a.At = true, at
	wait := time.Duration(max(at-now, 0))
	if a.Timer == nil {
		a.Timer = time.AfterFunc(wait, q.Tick)
	} else {
		a.Timer.Reset(wait)
	}
}

// Stop stops the timer, unless it is about to run.
func (a *Alarm) Stop() {
	if a.Armed && a.Timer.Stop() {
		a.Armed, a.Timer = false, nil
	}
}

// Begin says that Tick has begun. The timer can be armed again until it rests.
func (a *Alarm) Begin() {
	a.Armed = false
	a.Ticking++
}

// Rest says that Tick will not arm the timer any more.
func (a *Alarm) Rest() {
	if !a.Armed {
		a.Timer = nil
	}
}

// End says that Tick has ended.
func (a *Alarm) End() { a.Ticking-- }

// Quiet reports whether Tick neither runs nor will be called.
func (a *Alarm) Quiet() bool { return !a.Armed && a.Ticking == 0 }

// CheckBy makes the next check come at the given instant at the latest, and reports
// whether that is earlier than before.
func (a *Alarm) CheckBy(at int64) bool {
	if a.CheckAt != 0 && a.CheckAt <= at {
		return false
	}
	a.CheckAt = at
	return true
}

// CheckAge is when the timer looks at what was prefetched, and how long a brief alarm waits.
const CheckAge = time.Millisecond

// SpareAge is how long a queue that has become idle keeps memory that it may need in a moment.
const SpareAge = 8 * time.Millisecond
