package model_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofanout/fanout/internal/model"
	"github.com/gofanout/fanout/internal/raced"
	"github.com/gofanout/fanout/internal/tests/kit"
)

// The reference model of internal/model, run beside the library in virtual time.
// The tests of what it found are among those of the features. The programs here are the
// same each time; new ones, by the million, are run in internal/proof, which
// shrinks those that fail.

// tries is how often a program may be run until the model and the library agree. With the
// race detector goroutines start in another order, and one program of the first two
// hundred (36) ends one time in five in a way that the model does not try: two callers
// that waited to receive get each other's message. Without it once must do, here and
// in internal/proof.
func tries() int {
	if raced.On {
		return 4
	}
	return 1
}

// runModel runs one program in a bubble of its own.
func runModel(t *testing.T, p model.Program) (report model.Report) {
	var err error
	for range tries() {
		synctest.Test(t, func(t *testing.T) {
			report, err = model.Run(t.Context(), p, model.Options{Check: kit.Invariants[int]})
		})
		if err == nil {
			return report
		}
		t.Log(err)
	}
	t.Fatal("the model and the library do not agree")
	return report
}

func TestModelRandomPrograms(t *testing.T) {
	const seed = 35
	var sum model.Report
	for k, begun := uint64(0), time.Now(); k < 2000 && time.Since(begun) < 3*time.Second; k++ {
		if !t.Run("", func(t *testing.T) {
			t.Logf("seed %d, program %d", seed, k)
			r := runModel(t, model.Random(seed, k, 150))
			sum.Operations += r.Operations
			sum.Deliveries += r.Deliveries
		}) {
			return
		}
	}
	t.Logf("seed %d: %d operations, %d deliveries", seed, sum.Operations, sum.Deliveries)
}

// FuzzModel is run with -fuzzminimizetime 1x: which lines a program reaches
// depends on the scheduler too, and minimizing by that does not end.
func FuzzModel(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		p := model.Split(data)
		runModel(t, p[:min(len(p), 300)])
	})
}
