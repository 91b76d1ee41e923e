package enginetest

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/internal/fakeengine"
)

func sibling(_ testing.TB, e engine.Engine) engine.Engine { return e.(*fakeengine.Engine).Sibling() }

func crash(_ testing.TB, e engine.Engine) engine.Engine {
	f := e.(*fakeengine.Engine)
	f.Crash()
	return f.Sibling()
}

func fake(c fakeengine.Config) func(testing.TB) engine.Engine {
	return func(testing.TB) engine.Engine { return fakeengine.New(c) }
}

// small is a fake with limits, so that what is too large can be checked.
var small = fakeengine.Config{MaxBody: 128 << 10, MaxAttributes: 10}

func TestAnEngineThatKeepsEverythingPassesInVirtualTime(t *testing.T) {
	r := Contract(t, fake(small), InVirtualTime(), TooLarge(small.MaxBody+1), Sibling(sibling), Reopen(crash))
	require.Zero(t, r.Failed())
	require.Zero(t, r.NotApplicable(), r.String())
	require.Equal(t, len(contractChecks()), r.Passed())
}

func TestAnEngineThatKeepsEverythingPassesInRealTime(t *testing.T) {
	r := Contract(t, fake(small), Pace(100*time.Millisecond), TooLarge(small.MaxBody+1), Sibling(sibling), Reopen(crash))
	require.Equal(t, len(contractChecks()), r.Passed())
}

func TestAnEngineThatKeepsNothingPasses(t *testing.T) {
	c := small
	c.Without = engine.Features()
	r := Contract(t, fake(c), InVirtualTime(), TooLarge(small.MaxBody+1))
	require.Zero(t, r.Failed())
	require.Positive(t, r.Passed())
	require.Contains(t, r.Markdown(), "| n/a |")
	t.Log(r.MarkdownHeader() + r.Markdown())
}

func TestEachFeatureCanBeMissing(t *testing.T) {
	for _, f := range engine.Features() {
		t.Run(f.String(), func(t *testing.T) {
			c := small
			c.Without = []engine.Feature{f}
			r := Contract(t, fake(c), InVirtualTime(), TooLarge(small.MaxBody+1), Sibling(sibling), Reopen(crash))
			require.Zero(t, r.Failed())
			require.Positive(t, r.NotApplicable())
		})
	}
}
