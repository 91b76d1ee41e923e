// Alltests runs the tests of every module of the repository, with the race
// detector (except those of benchmarks and with a newer SDK), two modules at a time:
//
//	go run ./internal/alltests        # every test; those that can be short (go test -short) are
//	go run ./internal/alltests -full  # the tests that the first command runs in short, at full length
//
// It says first how much there is to run, and what is not part of the run on this
// platform or with these arguments. The core comes first and downloads nothing of
// the others. It prints each package as it ends, and the output of what failed; on
// a terminal the last line says what is under way. Other arguments go to go test:
// -v (all output), -run, -short=false (all tests at full length), -race=false. It ends with a
// table, and with status 1 if a test failed or was skipped: what is left out on
// purpose logs "not part of this run" and why. It does not vet: .ci/run does.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sync/errgroup"
)

// atOnce is how many modules are tested side by side: those that talk to servers
// wait most of the time.
const atOnce = 2

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	err := run(ctx, os.Stdout, isTerminal(os.Stdout), os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "alltests:", err)
		os.Exit(1)
	}
}

var errFailed = errors.New("not all tests passed")

func run(ctx context.Context, w io.Writer, terminal bool, arguments []string) error {
	modules, err := modulesBelow(".")
	if err != nil {
		return fmt.Errorf("run it from the top of the repository: %w", err)
	}
	o := optionsOf(arguments)
	plans := make([]plan, len(modules))
	for k, m := range modules {
		if plans[k], err = look(ctx, m, o.raced(m)); err != nil {
			return err
		}
	}
	announce(w, plans, o)
	began := time.Now()
	p := newPrinter(w, terminal, isVerbose(arguments), len(modules))
	runs := make([]moduleRun, len(modules))
	var tests errgroup.Group
	tests.SetLimit(atOnce)
	for k, m := range modules {
		runs[k] = moduleRun{module: m, printer: p}
		tests.Go(func() error {
			runs[k].test(ctx, o.of(m, plans[k]))
			return nil
		})
	}
	if err := tests.Wait(); err != nil {
		return err
	}
	p.end()
	return conclude(w, runs, plans, time.Since(began))
}

func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

func isVerbose(arguments []string) bool {
	return slices.Contains(append(strings.Fields(os.Getenv("GOFLAGS")), arguments...), "-v")
}

// options are what the arguments say.
type options struct {
	full  bool // only the tests that have a short length, at full length
	short bool
	race  bool
	rest  []string // for go test
}

func optionsOf(arguments []string) options {
	o := options{short: true, race: true}
	for _, a := range arguments {
		switch name, value, _ := strings.Cut(strings.TrimLeft(a, "-"), "="); name {
		case "full":
			o.full, o.short = true, false
		case "short", "test.short":
			o.short = value != "false"
		case "race":
			o.race = value != "false"
		default:
			o.rest = append(o.rest, a)
		}
	}
	return o
}

// raced says whether a module's tests run with the race detector. The benchmarks' do
// not: what they compare fanout with would be compiled once more for it, minutes of C.
// Nor do those that run other modules' tests with a newer SDK: these run with it where
// they stand.
func (o options) raced(module string) bool {
	module = filepath.ToSlash(module)
	return o.race && !strings.HasPrefix(module, "internal/bench") && !strings.HasSuffix(module, "/sdknext")
}

// of are the arguments of go test for a module, or none if there is nothing to run.
func (o options) of(module string, p plan) []string {
	packages := []string{"./..."}
	arguments := []string{"test", "-json", "-vet=off", "-race=" + strconv.FormatBool(o.raced(module)), "-short=" + strconv.FormatBool(o.short)}
	if o.full {
		if len(p.long) == 0 {
			return nil
		}
		packages = slices.Sorted(maps.Keys(p.long))
		arguments = append(arguments, "-run=^("+strings.Join(p.longTests(), "|")+")$")
	}
	if o.raced(module) {
		// Nobody debugs these programs: without DWARF an eighth of the compiling is saved.
		arguments = append(arguments, "-gcflags=all=-dwarf=false")
	}
	if env, err := exec.LookPath("env"); err == nil {
		// The compiler collects garbage less often, which saves a sixth of its time and
		// takes a seventh more memory. The tests run as ever.
		arguments = append(arguments, "-toolexec="+env+" GOGC=400")
	}
	return append(append(arguments, packages...), o.rest...)
}

// announce says what is to come.
func announce(w io.Writer, plans []plan, o options) {
	modules, packages, tests := 0, 0, 0
	var long []string
	for _, p := range plans {
		for _, path := range slices.Sorted(maps.Keys(p.long)) {
			long = append(long, path+" "+strings.Join(p.long[path], ", "))
		}
		if o.full {
			p = plan{packages: len(p.long), tests: len(p.longTests())}
		}
		if p.packages > 0 {
			modules++
		}
		packages += p.packages
		tests += p.tests
	}
	race := "with the race detector (internal/bench and sdknext without)"
	if !o.race {
		race = "without the race detector"
	}
	fmt.Fprintf(w, "%d modules, %d packages with tests, %d test functions, %s, %d modules at a time.\n",
		modules, packages, tests, race, atOnce)
	if o.full {
		fmt.Fprintln(w, "About three minutes on two processors, after a run without -full.")
	} else {
		fmt.Fprintln(w, "Ten to twenty-five minutes on two processors, by how fast they are; half of it compiles. With nothing cached 200 MB of modules\nare downloaded.")
	}
	for _, p := range plans {
		for _, left := range p.left {
			fmt.Fprintln(w, "not part of this run:", left)
		}
	}
	for _, of := range long {
		if o.short {
			fmt.Fprintln(w, "not part of this run: the full length (-full) of", of)
		}
	}
	if o.full {
		fmt.Fprintln(w, "not part of this run: the tests that have one length (without -full)")
	}
	for _, a := range o.rest {
		switch name, _, _ := strings.Cut(strings.TrimLeft(a, "-"), "="); name {
		case "run", "skip", "test.run", "test.skip":
			fmt.Fprintln(w, "not part of this run: the tests that", a, "leaves out")
		}
	}
	fmt.Fprintln(w)
}

// conclude prints what was left out while tests ran, and the table.
func conclude(out io.Writer, runs []moduleRun, plans []plan, took time.Duration) error {
	var passed, failed, skipped int
	for k := range runs {
		r := &runs[k]
		for _, line := range r.left {
			fmt.Fprintln(out, "not part of this run:", line)
		}
		for _, name := range r.skipped {
			fmt.Fprintln(out, "SKIPPED:", name)
		}
		passed, failed, skipped = passed+r.passed, failed+r.failed, skipped+len(r.skipped)
	}
	fmt.Fprintln(out)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "module\ttime\ttests\tresult")
	bad := false
	for k := range runs {
		r := &runs[k]
		verdict := "ok"
		switch {
		case r.err != nil:
			verdict = "FAILED: " + r.err.Error()
		case len(r.skipped) > 0:
			verdict = "SKIPPED tests"
		}
		bad = bad || verdict != "ok"
		if r.took == 0 {
			continue // nothing was to be run
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\n", r.module, r.took.Round(time.Second), r.passed+r.failed, verdict)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(out, "\nIn %s; examples and fuzz seeds count as tests, subtests do not.\n", took.Round(time.Second))
	fmt.Fprintf(out, "%d passed, %d failed, %d skipped\n", passed, failed, skipped)
	if bad {
		return errFailed
	}
	return nil
}

// A moduleRun is the test of one module.
type moduleRun struct {
	module  string
	printer *printer

	took           time.Duration
	err            error
	passed, failed int      // tests, without subtests
	skipped        []string // tests, with subtests
	left           []string // what tests said is not part of the run
}

// test runs go with these arguments; with none there is nothing to run.
func (r *moduleRun) test(ctx context.Context, arguments []string) {
	began := time.Now()
	if len(arguments) == 0 {
		r.printer.began(r.module)
		r.printer.ended(r.module)
		return
	}
	c := exec.CommandContext(ctx, "go", arguments...)
	c.Dir = r.module
	e := newEvents(r)
	c.Stdout, c.Stderr = e, e
	r.printer.began(r.module)
	r.err = c.Run()
	e.end()
	r.took = time.Since(began)
	r.printer.ended(r.module)
}

// modulesBelow finds the folders that have a go.mod, root first.
func modulesBelow(root string) (dirs []string, err error) {
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != root && strings.HasPrefix(d.Name(), "."), d.IsDir() && d.Name() == "testdata":
			return fs.SkipDir
		case d.Name() == "go.mod":
			dirs = append(dirs, filepath.Dir(path))
		}
		return nil
	})
	if err == nil && (len(dirs) == 0 || dirs[0] != root) {
		// WalkDir is lexical: the root's go.mod comes after folders that sort before it.
		for k, d := range dirs {
			if d == root {
				copy(dirs[1:k+1], dirs[:k])
				dirs[0] = root
				return dirs, nil
			}
		}
		err = fmt.Errorf("no go.mod in %s", root)
	}
	return dirs, err
}
