// Stress attacks the library with everything at once, in real time and at
// random, keeps a ledger, and proves at the end of each round that the promises
// held.
//
//	go run ./internal/stress                               # ten million deliveries
//	go run -race ./internal/stress -deliveries 1000000     # under the race detector
//	go run ./internal/stress -seed 0x5eed -v               # the same inputs again
//
// A round is a small world: two topics, hundreds of queues that come and go,
// publishers of all kinds, consumers that do all that consumers may, and an end
// by Shutdown or Close at a random moment. When it is over every message is
// accounted for in every queue, the ledger is thrown away, and the next round
// begins: so memory stays bounded however long a run is.
//
// The seed determines all random inputs: what is published how, which queues
// there are, and what a handler does with a message at an attempt. What the
// scheduler makes of it differs from run to run.
//
// If a promise was broken, the program prints which, with all that the ledger
// knows about the message concerned, and the seed, and exits with 1.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the second signal is not caught: it kills
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errUsage):
		os.Exit(2)
	default:
		fmt.Fprintf(os.Stderr, "stress: %v\n", err)
		os.Exit(1)
	}
}

// errUsage is a mistake in the flags, which the flag package has explained.
var errUsage = errors.New("usage")

// errBroken says that a promise was broken; what and where was printed.
var errBroken = errors.New("a promise was broken")

type config struct {
	deliveries uint64
	seed       uint64
	queues     int
	publishers int
	verbose    bool
}

// run is the whole program but for the process around it.
func run(ctx context.Context, args []string, out, messages io.Writer) error {
	c, err := parse(args, messages)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "stress: seed %#x, %d deliveries, up to %d queues and %d publishers at once\n",
		c.seed, c.deliveries, c.queues, c.publishers)
	sum := newSummary()
	p := newProgress(out, c, sum)
	var found []violation
	before := runtime.NumGoroutine()
	for n := 0; sum.deliveries.Load() < c.deliveries && ctx.Err() == nil && len(found) == 0; n++ {
		found = playRound(c, n, before, sum, p)
		if n%4 == 1 && len(found) == 0 {
			found = playEngine(c, n, sum)
		}
	}
	p.end()
	for k, v := range found {
		if k == mostShown {
			fmt.Fprintf(out, "... and %d more\n", len(found)-k)
			break
		}
		fmt.Fprintf(out, "\nBROKEN: %v\n", v)
	}
	sum.write(out, time.Now(), len(found))
	if len(found) > 0 {
		fmt.Fprintf(out, "again: go run ./internal/stress -seed %#x -queues %d -publishers %d -deliveries %d\n",
			c.seed, c.queues, c.publishers, c.deliveries)
		return errBroken
	}
	return nil
}

// mostShown is how many violations are printed.
const mostShown = 5

func parse(args []string, messages io.Writer) (config, error) {
	c := config{}
	f := flag.NewFlagSet("stress", flag.ContinueOnError)
	f.SetOutput(messages)
	f.Usage = func() {
		fmt.Fprint(messages, `Stress attacks the library at random, keeps a ledger, and proves at the end that
nothing was lost, no bound exceeded, and nothing delivered after its
acknowledgement. It exits with 0 if the ledger balanced, and with 1 if not.

	go run ./internal/stress [flags]

`)
		f.PrintDefaults()
	}
	f.Uint64Var(&c.deliveries, "deliveries", 10_000_000, "stop after so many `deliveries`, dead letters' included")
	seed := f.String("seed", "", "the `number` that all random inputs are made of, 0x allowed (default random)")
	f.IntVar(&c.queues, "queues", 240, "how many `queues` are open at once, at most; rounds differ")
	f.IntVar(&c.publishers, "publishers", 16, "how many `publishers` publish at once, at most; rounds differ")
	f.BoolVar(&c.verbose, "v", false, "a line for each round")
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return c, err
		}
		return c, errUsage
	}
	c.seed = rand.Uint64()
	if *seed != "" {
		n, err := strconv.ParseUint(*seed, 0, 64)
		if err != nil {
			fmt.Fprintf(messages, "stress: -seed %q: want a number\n", *seed)
			return c, errUsage
		}
		c.seed = n
	}
	if c.queues < 2 || c.publishers < 1 || c.deliveries < 1 || f.NArg() > 0 {
		fmt.Fprintf(messages, "stress: want at least 2 queues, 1 publisher, 1 delivery, and no arguments\n")
		return c, errUsage
	}
	return c, nil
}
