package proof

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofanout/fanout/internal/model"
	"golang.org/x/sync/errgroup"
)

var (
	operations = flag.Int64("operations", 20_000, "how many operations TestModel runs on the library and the model")
	duration   = flag.Duration("duration", 0, "how long TestModel runs, if not by operations")
	seed       = flag.Uint64("seed", 0, "of TestModel's programs; random if 0")
	first      = flag.Uint64("first", 0, "the number of TestModel's first program")
	parallel   = flag.Int("workers", 2, "how many programs TestModel runs at once")
)

// shrinkTime is how long a program that fails is shrunk.
const shrinkTime = 20 * time.Second

// stepsEach is the length of one program.
const stepsEach = 200

// run runs a program in a bubble of its own.
func run(t *testing.T, p model.Program, o model.Options) (report model.Report, err error) {
	for range maxTries {
		synctest.Test(t, func(t *testing.T) {
			report, err = model.Run(t.Context(), p, o)
		})
		if err == nil {
			break
		}
	}
	return report, err
}

// A campaign runs programs of one seed and counts.
type campaign struct {
	t                                               *testing.T
	seed                                            uint64
	begun                                           time.Time
	next                                            atomic.Uint64
	operations, deliveries, retraced, tries, failed atomic.Int64
}

// TestModel runs random programs on the library and on the reference model, as
// many as -operations or -duration say. It prints how far it is. A program that
// fails is shrunk, by leaving out steps, and told; its seed and number run it
// again.
func TestModel(t *testing.T) {
	c := &campaign{t: t, seed: *seed, begun: time.Now()}
	for c.seed == 0 {
		c.seed = rand.Uint64()
	}
	c.next.Store(*first)
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // programs are small and make much garbage
	fmt.Fprintf(os.Stderr, "model: seed %d\n", c.seed)
	var g errgroup.Group
	for range *parallel {
		g.Go(c.work)
	}
	err := g.Wait()
	c.tell()
	if err != nil {
		t.Fatal(err)
	}
}

func (c *campaign) over() bool {
	if *duration > 0 {
		return time.Since(c.begun) > *duration
	}
	return c.operations.Load() >= *operations
}

// work runs programs until enough have been run. Started by TestModel, which
// waits for it.
func (c *campaign) work() error {
	for !c.over() && c.failed.Load() == 0 {
		k := c.next.Add(1) - 1
		p := model.Random(c.seed, k, stepsEach)
		r, err := run(c.t, p, model.Options{Tell: func(format string, args ...any) { // of searches that take long
			fmt.Fprintf(os.Stderr, "model: program %d, %s\n", k, fmt.Sprintf(format, args...))
		}})
		c.deliveries.Add(int64(r.Deliveries))
		c.retraced.Add(int64(r.Retraced))
		c.tries.Add(int64(r.Tries))
		before := c.operations.Add(int64(r.Operations)) - int64(r.Operations)
		if before/100_000 != (before+int64(r.Operations))/100_000 {
			c.tell()
		}
		if err != nil {
			c.failed.Add(1)
			return fmt.Errorf("seed %d, program %d: %w", c.seed, k, c.shrink(p, err))
		}
	}
	return nil
}

func (c *campaign) tell() {
	s := time.Since(c.begun).Seconds()
	n := c.operations.Load()
	fmt.Fprintf(os.Stderr, "model: %d operations, %d deliveries, %d programs, %d tries, %d retraced, %.0f s, %.0f operations/s\n",
		n, c.deliveries.Load(), c.next.Load()-*first, c.tries.Load(), c.retraced.Load(), s, float64(n)/s)
}

// shrink returns what a smaller program fails with.
func (c *campaign) shrink(p model.Program, err error) error {
	var d *model.Disagreement
	if !errors.As(err, &d) {
		return err
	}
	begun := time.Now()
	model.Shrink(p, func(p model.Program) bool {
		if time.Since(begun) > shrinkTime {
			return false
		}
		_, again := run(c.t, p, model.Options{})
		if again != nil {
			err = again
		}
		return again != nil
	})
	return err
}
