// Package enginetest says whether an engine keeps the contract of package engine
// and, through fanout itself, the promises of the library that its capabilities
// imply. Whoever writes an engine runs both:
//
//	func TestContract(t *testing.T) {
//		enginetest.Contract(t, func(t testing.TB) engine.Engine { return myengine.New(...) })
//	}
//
//	func TestPromises(t *testing.T) {
//		enginetest.Run(t, func(t testing.TB) engine.Engine { return myengine.New(...) })
//	}
//
// Each check makes an engine, a topic and queues of its own, with names that no
// other uses, so that they can share a server. What an engine doesn't declare
// is not applicable, which is no failure and no skipped test: the [Report] counts
// it. A check that fails says which sentence does not hold and what was seen
// instead.
//
// # Time
//
// In real time nothing fails for being slow: what must come is waited for as long
// as [Patience] says, and what must not come early is measured from before the
// engine could begin to count. The checks run beside each other, since most of
// them wait. An engine that works in testing/synctest runs [InVirtualTime].
package enginetest

import (
	"testing"

	"github.com/gofanout/fanout/engine"
)

// Contract checks the engines that make makes against every rule of package
// engine that their capabilities imply, on encoded messages, as subtests of t. make is
// called for each check, with a testing.TB that ends with it: what it makes for
// the engine can be taken down in its Cleanup. Contract returns when all checks
// have ended, with a report that it also logs.
func Contract(t *testing.T, make func(t testing.TB) engine.Engine, options ...Option) *Report {
	t.Helper()
	k := &kit{suite: "contract", make: make, o: settingsOf(options), checks: contractChecks()}
	return k.run(t)
}

// contractChecks returns all checks of the contract, in the order of reports.
func contractChecks() (all []check) {
	for _, cs := range [][]check{
		topicChecks(), messageChecks(), receiveChecks(), leaseChecks(), settleChecks(), deadLetterChecks(), ruleChecks(), delayChecks(),
		batchChecks(), boundedChecks(), orderChecks(), deduplicationChecks(), filterChecks(), stateChecks(), fencingChecks(),
		statsChecks(), deletionChecks(), reopenChecks(), siblingChecks(),
	} {
		all = append(all, cs...)
	}
	return all
}
