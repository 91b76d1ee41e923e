package enginetest

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/internal/fakeengine"
)

func memory(testing.TB) engine.Engine { return nil }

func TestTheMemoryEngineKeepsItsPromisesInVirtualTime(t *testing.T) {
	r := Run(t, memory, InVirtualTime())
	require.Zero(t, r.Failed())
	require.Greater(t, r.Passed(), 50)
}

func TestTheMemoryEngineKeepsItsPromisesInRealTime(t *testing.T) {
	r := Run(t, memory, Pace(200*time.Millisecond))
	require.Zero(t, r.Failed())
}

func TestAnEngineThatKeepsEverythingKeepsThePromises(t *testing.T) {
	r := Run(t, fake(small), InVirtualTime(), Sibling(sibling), Reopen(crash))
	require.Zero(t, r.Failed())
}

func TestAnEngineThatKeepsNothingKeepsThePromisesThatAreLeft(t *testing.T) {
	c := small
	// Without waits fanout takes no engine: what fails would spin.
	c.Without = slices.DeleteFunc(engine.Features(), func(f engine.Feature) bool { return f == engine.RetryDelay })
	r := Run(t, fake(c), InVirtualTime())
	require.Zero(t, r.Failed())
}

func TestBrokenEnginesBreakPromises(t *testing.T) {
	for _, name := range []string{"loses on return", "drops state", "does not acknowledge", "loses dead letters", "redrives to all queues",
		"loses a publish", "publishes twice", "has no order", "does not deduplicate", "ignores delays", "ignores policies", "ignores the capacity",
		"drops attributes", "own IDs", "dead letters without state"} {
		t.Run(name, func(t *testing.T) {
			f := faults[name]
			if f.config.MaxBody == 0 {
				f.config = small
			}
			found, said := runBroken(t, &kit{suite: "promises", o: brokenSettings(f), checks: promiseChecks(),
				make: func(testing.TB) engine.Engine { return brokenEngine{fakeengine.New(f.config), f} }})
			require.NotEmpty(t, found)
			t.Log(found, said)
		})
	}
}
