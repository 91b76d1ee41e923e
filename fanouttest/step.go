package fanouttest

import (
	"strings"
	"time"
)

// Advance lets d pass and then waits until all is quiet. In virtual time it returns at that
// exact instant, when everything that was due is done and every goroutine waits for
// something. In real time it takes d, and quiet means that no handler runs and none is about
// to. It ends the test if that takes more than 10 seconds.
func (k *Kit) Advance(d time.Duration) {
	k.tb.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	<-timer.C
	k.mustBeQuiet()
}

// Next lets time pass until something happens in one of the kit's topics: a retry or a delay
// is due and is delivered, a visibility timeout passes, a handler returns, or somebody
// publishes. Then it waits until all is quiet, and returns how long that took. A message
// that becomes ready in a queue without a consumer doesn't count. It ends the test if
// nothing happens for 10 seconds, in virtual time for 30 days. It is meant for virtual time:
// in real time the event can come just before the call.
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
