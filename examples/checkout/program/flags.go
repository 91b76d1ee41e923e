package program

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"time"
)

// config is what the flags say, each value in its bounds.
type config struct {
	orders   string
	flood    int
	failure  float64
	speed    float64
	seed     uint64
	workers  int
	capacity int
	grace    time.Duration
	letters  bool
	http     string
}

// A usageError is a flag or argument that can't be.
type usageError struct{ error }

func (e *usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

// parseFlags returns [flag.ErrHelp] after it has written the help that was asked for.
func parseFlags(w Where, args []string, stdout io.Writer) (config, error) {
	var c config
	fs := flag.NewFlagSet("checkout", flag.ContinueOnError)
	fs.SetOutput(io.Discard) // an error is returned, and told once
	fs.StringVar(&c.orders, "orders", "", "read orders.csv, order_details.csv and products.csv from `dir` instead of the sample")
	fs.IntVar(&c.flood, "flood", 0, "publish `n` generated payments as fast as possible; nothing takes any time then")
	fs.Float64Var(&c.failure, "failure", 0.15, "`share` of calls to warehouses and carriers that fail, 0 to 1")
	fs.Float64Var(&c.speed, "speed", 1, "how many `times` as fast as real life, 0.01 to 1000; 10 by default with -orders")
	fs.Uint64Var(&c.seed, "seed", 1, "`number` that decides which calls fail")
	fs.IntVar(&c.workers, "workers", 8, "workers of each service")
	fs.IntVar(&c.capacity, "capacity", 32, "`messages` that each queue holds; 256 by default with -flood")
	fs.DurationVar(&c.grace, "grace", 3*time.Second, "how long to drain after an interrupt")
	fs.BoolVar(&c.letters, "letters", false, "show each dead letter with its history, however many there are")
	fs.StringVar(&c.http, "http", "", "serve a page of the queues on `address`, such as 127.0.0.1:8080, of a shop that goes on until it is interrupted")
	if w.Flags != nil {
		w.Flags(fs)
	}
	err := fs.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(stdout, "Usage:", w.Command, "[flags]")
		fs.SetOutput(stdout)
		fs.PrintDefaults()
		return c, err
	}
	if err != nil {
		return c, &usageError{err}
	}
	if fs.NArg() > 0 {
		return c, usagef("unexpected argument %q", fs.Arg(0))
	}
	given := map[string]bool{}
	fs.Visit(func(f *flag.Flag) { given[f.Name] = true })
	if w.Open != nil && given["capacity"] {
		return c, usagef("-capacity is for queues in memory")
	}
	return c, c.check(given)
}

// check validates the flags and sets the defaults that depend on others.
func (c *config) check(given map[string]bool) error {
	switch {
	case given["orders"] && given["flood"]:
		return usagef("-orders and -flood exclude each other")
	case given["orders"] && c.orders == "":
		return usagef("-orders: want a directory")
	case given["flood"] && given["speed"]:
		return usagef("-speed and -flood exclude each other: in a flood nothing takes any time")
	case given["flood"] && (c.flood < 1 || c.flood > 100_000_000):
		return usagef("-flood %d: want 1 to 100000000", c.flood)
	case !(c.failure >= 0 && c.failure <= 1): // NaN too
		return usagef("-failure %v: want 0 to 1", c.failure)
	case !(c.speed >= 0.01 && c.speed <= 1000):
		return usagef("-speed %v: want 0.01 to 1000", c.speed)
	case c.http != "" && (given["orders"] || given["flood"]):
		return usagef("-http excludes -orders and -flood: its shop has orders of its own")
	case c.workers < 1 || c.workers > 10_000:
		return usagef("-workers %d: want 1 to 10000", c.workers)
	case c.capacity < 1 || c.capacity > 1_000_000:
		return usagef("-capacity %d: want 1 to 1000000", c.capacity)
	case c.grace < 0:
		return usagef("-grace %v: want a duration that is not negative", c.grace)
	}
	if given["orders"] && !given["speed"] {
		c.speed = 10
	}
	if given["flood"] && !given["capacity"] {
		c.capacity = 256
	}
	return nil
}
