// Release checks, proves and prepares a release of all modules of this
// repository, from any folder in it:
//
//	go run -C internal/release . check         # versions, licenses, API texts, changelog; writes nothing
//	go run -C internal/release . prove         # what users do with a release, on this tree as it is; writes nothing
//	go run -C internal/release . prove -empty  # the same, and no module comes from this machine's module cache
//	go run -C internal/release . api           # writes the API texts of the coming release
//	go run -C internal/release . tidy          # go mod tidy in every module; -diff says what it would change
//	go run -C internal/release . prepare       # all of it: the changelog gets the version, and the tags are printed
//	go run -C internal/release . next v0.2.0   # after a release: names the coming one
//
// The coming release is the one that the modules require of each other. A module
// is released unless it is below a folder named internal or has only tests.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, arguments []string) error {
	if len(arguments) == 0 {
		return errors.New("want one of check, prove, api, tidy, prepare, next VERSION")
	}
	root, err := output(ctx, ".", "git", "rev-parse", "--show-toplevel")
	if err != nil {
		return err
	}
	flags := flag.NewFlagSet(arguments[0], flag.ContinueOnError)
	empty := flags.Bool("empty", false, "prove: take no module from this machine's module cache")
	diff := flags.Bool("diff", false, "tidy: say what would change, and change nothing")
	keep := flags.String("keep", "", "prove: leave the file-system proxy in `DIR`")
	if err := flags.Parse(arguments[1:]); err != nil {
		return err
	}
	r, err := open(root)
	if err != nil {
		return err
	}
	switch arguments[0] {
	case "check":
		return r.check(ctx)
	case "prove":
		return r.prove(ctx, *empty, *keep)
	case "api":
		return r.writeAPI(ctx)
	case "tidy":
		return r.tidy(ctx, *diff)
	case "prepare":
		return r.prepare(ctx, time.Now())
	case "next":
		return r.next(ctx, flags.Arg(0))
	default:
		return fmt.Errorf("%q: want one of check, prove, api, tidy, prepare, next VERSION", arguments[0])
	}
}

// output runs a command in dir and returns what it prints, without the last newline.
func output(ctx context.Context, dir, name string, arguments ...string) (string, error) {
	c := exec.CommandContext(ctx, name, arguments...)
	c.Dir = dir
	return finish(c)
}

func finish(c *exec.Cmd) (string, error) {
	var errs strings.Builder
	if c.Stderr == nil {
		c.Stderr = &errs
	}
	out, err := c.Output()
	if err != nil {
		return "", fmt.Errorf("%s, in %s: %w\n%s%s", strings.Join(c.Args, " "), c.Dir, err, out, errs.String())
	}
	return strings.TrimSuffix(string(out), "\n"), nil
}
