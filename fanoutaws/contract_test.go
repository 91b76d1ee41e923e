package fanoutaws

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/enginetest"
)

// TestContract runs the conformance tests of the engine's contract on moto.
func TestContract(t *testing.T) {
	clients(t) // or no test at all
	options := []enginetest.Option{
		enginetest.DeduplicationWindow(dedupWindow),
		enginetest.TooLarge(snsDefault),
		enginetest.Attributes(attributeMost - 1),
		enginetest.Sibling(func(t testing.TB, _ engine.Engine) engine.Engine { return newEngine(t, WithNumberAttributes("cents")) }),
	}
	if os.Getenv(endpointVariable) == "" {
		options = append(options, enginetest.Waive("deduplication", "moto forgets an ID when its message is deleted; SQS does not"))
	}
	enginetest.Contract(t, func(t testing.TB) engine.Engine { return newEngine(t, WithNumberAttributes("cents")) }, options...)
}

func TestCapabilitiesAreAnswered(t *testing.T) {
	e := newEngine(t)
	for _, f := range engine.Features() {
		require.Contains(t, e.Capabilities(), f)
		if f != engine.Distributed {
			require.NotEmpty(t, e.Capabilities()[f].Note, f.String())
		}
	}
}
