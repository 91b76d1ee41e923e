package enginetest

import (
	"testing"

	"github.com/gofanout/fanout/engine"
)

// Run checks, as subtests of t, what a user of fanout is promised on the engines
// that make makes: every promise of the library that the engine's capabilities
// imply, and that what is not kept is refused by name. It goes through
// fanout.NewTopic and fanout.WithEngine, so it checks fanout and the engine
// together; Contract, on the engine alone, tells whose fault it is. With an
// engine that is nil the checks run on topics without one, in memory.
//
// It is called, and returns, as Contract is and does.
func Run(t *testing.T, make func(t testing.TB) engine.Engine, options ...Option) *Report {
	t.Helper()
	k := &kit{suite: "promises", make: make, o: settingsOf(options), checks: promiseChecks()}
	return k.run(t)
}

// promiseChecks returns all checks of the promises, in the order of reports.
func promiseChecks() (all []check) {
	for _, cs := range [][]check{
		deliverChecks(), retryChecks(), buryChecks(), selectChecks(), groupChecks(), lifeChecks(), processChecks(), refusalChecks(),
	} {
		all = append(all, cs...)
	}
	return all
}
