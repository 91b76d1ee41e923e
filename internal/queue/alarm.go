package queue

import (
	"time"

	"github.com/gofanout/fanout/internal/message"
)

// An alarm is the one timer of a queue. It calls the queue's tick at the first instant
// that the queue waits for. The queue's Mu guards it.
//
// A timer that has fired or was stopped is not kept to be armed again: it belongs to the
// bubble of testing/synctest that it was made in. One that is armed for an instant that no
// longer matters is left alone: it costs less to let it come.
//
// A brief alarm comes soon, whatever it is armed for, and finds most often that there is
// nothing to wait for any more. So it is touched once a millisecond, not once a message,
// and is gone a millisecond after the last.
type alarm struct {
	Timer *time.Timer // nil while it is not armed
	At    int64       // when it comes, while it is armed
	// CheckAt is when what was prefetched is checked, and the log let go of; 0: there is
	// nothing to check. Who arms the alarm looks at it.
	CheckAt int64
	Ticking int32 // calls of tick that have begun and not ended
	Armed   bool
	Brief   bool
}

// A ticker is called by an alarm.
type ticker interface{ tick() }

// arm has q.tick called at the given instant, unless it will be called before.
func (a *alarm) arm(now, at int64, q ticker) {
	if !a.comesBy(at) {
		a.Brief = false
		a.set(now, at, q)
	}
}

// armBriefly is arm by a brief alarm.
func (a *alarm) armBriefly(now, at int64, q ticker) {
	if !a.comesBy(at) {
		a.Brief = true
		a.set(now, min(at, message.After(now, CheckAge)), q)
	}
}

// comesBy reports whether tick is called by the given instant, as it is. If not, the
// timer has been stopped. One that can't be stopped is about to run, and arms itself again.
func (a *alarm) comesBy(at int64) bool { return a.Armed && (a.At <= at || !a.Timer.Stop()) }

func (a *alarm) set(now, at int64, q ticker) {
	a.Armed, a.At = true, at
	wait := time.Duration(max(at-now, 0))
	if a.Timer == nil {
		a.Timer = time.AfterFunc(wait, q.tick)
	} else {
		a.Timer.Reset(wait)
	}
}

// stop stops the timer, unless it is about to run.
func (a *alarm) stop() {
	if a.Armed && a.Timer.Stop() {
		a.Armed, a.Timer = false, nil
	}
}

// begin says that tick has begun. The timer can be armed again until it rests.
func (a *alarm) begin() {
	a.Armed = false
	a.Ticking++
}

// rest says that tick will not arm the timer any more.
func (a *alarm) rest() {
	if !a.Armed {
		a.Timer = nil
	}
}

// end says that tick has ended.
func (a *alarm) end() { a.Ticking-- }

// quiet reports whether tick neither runs nor will be called.
func (a *alarm) quiet() bool { return !a.Armed && a.Ticking == 0 }

// checkBy makes the next check come at the given instant at the latest, and reports
// whether that is earlier than before.
func (a *alarm) checkBy(at int64) bool {
	if a.CheckAt != 0 && a.CheckAt <= at {
		return false
	}
	a.CheckAt = at
	return true
}
