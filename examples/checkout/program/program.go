// Package program is the checkout example but for the place where its queues are
// kept, which a [Where] says: the same program runs in memory and on any engine.
package program

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/gofanout/fanout"
)

// Where says where the queues are kept. The zero Where is the memory of the process.
type Where struct {
	// Command is how the program is started, for its help.
	Command string
	// Flags adds flags of the place to those of the program. It may be nil.
	Flags func(fs *flag.FlagSet)
	// Open is called once, when the flags are read. It returns the option that puts
	// a topic on an engine, and what ends the engine, to be called last. It is nil
	// for the memory.
	Open func(ctx context.Context) (engine fanout.TopicOption, end func() error, err error)
}

// Main is the main function of a checkout. It doesn't return.
func Main(w Where) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the second signal is not caught: it kills
	err := Run(ctx, w, os.Args[1:], os.Stdout)
	stop()
	var usage *usageError
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
		os.Exit(0)
	case errors.As(err, &usage):
		fmt.Fprintf(os.Stderr, "checkout: %v\nUsage: %s -h\n", err, w.Command)
		os.Exit(2)
	default:
		fmt.Fprintln(os.Stderr, "checkout:", err)
		os.Exit(1)
	}
}

// Run is the program without the process around it. When ctx ends it publishes no
// more, drains, and balances the books of what was published.
func Run(ctx context.Context, w Where, args []string, stdout io.Writer) error {
	cfg, err := parseFlags(w, args, stdout)
	if err != nil {
		return err
	}
	c := &checkout{cfg: cfg, out: newConsole(stdout, isTerminal(stdout))}
	if err := c.stockShop(); err != nil {
		return err
	}
	if w.Open == nil {
		return c.run(ctx)
	}
	var end func() error
	if c.engine, end, err = w.Open(ctx); err != nil {
		return err
	}
	return errors.Join(c.run(ctx), end())
}
