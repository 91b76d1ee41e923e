package proof

import (
	"testing"

	"github.com/gofanout/fanout/internal/model"
	"pgregory.net/rapid"
)

// TestModelShrinks is TestModel as a property of rapid, which shrinks what
// fails: fewer steps, and smaller choices in each. The program is drawn as a
// whole before the bubble begins, so that rapid can stop a draw at any time,
// and a disagreement is an error, which leaves the bubble in good order. How
// many programs are run says -rapid.checks; -rapid.seed repeats a run.
func TestModelShrinks(t *testing.T) {
	// A step without bytes does nothing: that is what steps shrink to.
	programs := rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 0, 8), 100, 150)
	operations := 0
	rapid.Check(t, func(rt *rapid.T) {
		p := model.Program(programs.Draw(rt, "program"))
		r, err := run(t, p, model.Options{})
		operations += r.Operations
		if err != nil {
			rt.Fatal(err)
		}
	})
	t.Logf("%d operations", operations)
}
