package fanouttest

import (
	"strings"
	"time"
)

// Advance lets d pass and then waits until all is quiet. In virtual time that is
// the exact instant, with everything done that was due by then, and every
// goroutine waiting for something; in real time it takes d, and quiet means that
// no handler runs and none is about to. It ends the test if that takes more
// than 10 seconds.
func (k *Kit) Advance(d time.Duration) {
	k.tb.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	<-timer.C
	k.mustBeQuiet()
}

// Next lets the time pass until something happens in one of the kit's topics (a
// retry or a delay is due and is delivered, a visibility timeout passes, a
// handler returns, somebody publishes), then waits until all is quiet, and
// returns how long it took. What becomes ready in a queue that nobody consumes
// is no event. It ends the test if nothing happens for 10 seconds, in virtual
// time for 30 days. It is for virtual time: in real time what it should wait for
// can happen just before it is called.
func (k *Kit) Next() time.Duration {
	k.tb.Helper()
	begin := time.Now()
	k.mustBeQuiet()
	changed, _ := k.watch()
	timeout := time.NewTimer(patience())
	defer timeout.Stop()
	select {
	case <-changed:
	case <-timeout.C:
		k.tb.Fatalf("fanouttest: nothing happened for %v", patience())
	}
	k.mustBeQuiet()
	return time.Since(begin)
}

func (k *Kit) mustBeQuiet() {
	k.tb.Helper()
	if left := k.quiet(patience()); left != nil {
		k.tb.Fatalf("fanouttest: not quiet after %v:\n    %s", patience(), strings.Join(left, "\n    "))
	}
	k.report()
}
