package enginetest

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/engine"
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
