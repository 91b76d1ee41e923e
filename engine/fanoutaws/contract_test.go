package fanoutaws

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/engine/enginetest"
)

// conformance says of SNS and SQS what the conformance tests have to know.
func conformance() []enginetest.Option {
	options := []enginetest.Option{
		enginetest.DeduplicationWindow(dedupWindow),
		enginetest.TooLarge(snsDefault),
		enginetest.Attributes(3 * attributeMost),
		enginetest.Sibling(func(t testing.TB, e engine.Engine) engine.Engine {
			first := e.(*Engine)
			sibling, err := New(first.sns, first.sqs, conformingOptions...)
			require.NoError(t, err)
			return sibling
		}),
	}
	if virtual() {
		options = append(options, enginetest.InVirtualTime())
	}
	if isMoto() {
		why := "moto forgets an ID when its message is deleted; SQS does not"
		options = append(options, enginetest.Waive("deduplication", why), enginetest.Waive("deduplicate", why),
			enginetest.Waive("delete and open again", "SQS makes no queue of a name within 60 seconds of its deletion, which the engine waits for: the suite on fakeaws, in virtual time, waits too"))
	}
	return options
}

var conformingOptions = []Option{WithPollTime(time.Second), WithNumberAttributes("cents")}

func conforming(t testing.TB) engine.Engine { return newEngine(t, WithNumberAttributes("cents")) }

// TestContract runs the conformance tests of the engine's contract.
func TestContract(t *testing.T) { enginetest.Contract(t, conforming, conformance()...) }

// TestPromises runs the conformance tests of what users are promised, through
// fanout.WithEngine.
func TestPromises(t *testing.T) { enginetest.Run(t, conforming, conformance()...) }

func TestCapabilitiesAreAnswered(t *testing.T) {
	e := newEngine(t)
	for _, f := range engine.Features() {
		require.Contains(t, e.Capabilities(), f)
		if f != engine.Distributed {
			require.NotEmpty(t, e.Capabilities()[f].Note, f.String())
		}
	}
}
