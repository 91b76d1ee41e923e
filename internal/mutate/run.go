package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// A Result is what became of a mutant.
type Result struct {
	Mutant
	By string // the first test that failed, or how the program ended; empty: it survived
}

// memory is how much address space a run may have, in KiB: a mutant may want
// all there is.
const memory = 6 << 20

// A runner tries mutants.
type runner struct {
	dir      string
	above    map[string][]string      // which packages of the core stand on one
	blackBox []string                 // packages that only test the core from outside
	alone    bool                     // a change is tried with the tests of its own package alone
	took     map[string]time.Duration // by the tests of each package
	skip     string
	verbose  bool
	timeout  time.Duration // for all tests
	silence  time.Duration // how long a test may take: longer, and it hangs
}

// blackBox are the packages with tests below internal/tests, relative to the module.
func blackBox(module string) (pkgs []string, err error) {
	files, err := filepath.Glob(filepath.Join(module, "internal", "tests", "*", "*_test.go"))
	for _, f := range files {
		if p := "internal/tests/" + filepath.Base(filepath.Dir(f)); !slices.Contains(pkgs, p) {
			pkgs = append(pkgs, p)
		}
	}
	return pkgs, err
}

// A watcher keeps what a test program prints, and ends it at the first failure,
// or when it prints nothing for too long: with -test.v it prints something for
// every test. (-test.failfast would still run all examples.)
type watcher struct {
	strings.Builder
	end     func()
	hung    *time.Timer
	silence time.Duration
}

func (w *watcher) Write(p []byte) (int, error) {
	w.hung.Reset(w.silence)
	n, err := w.Builder.Write(p)
	if bytes.Contains(p, []byte("--- FAIL: ")) && failed.MatchString(w.String()) {
		w.end()
	}
	return n, err
}

// build compiles the test programs that the mutants are tried with, and measures the suite with no mutant on.
func (r *runner) build(mutants []Mutant) error {
	pkgs := map[string]bool{}
	for _, m := range mutants {
		pkg := path.Dir(m.File)
		pkgs[pkg] = true
		for _, p := range r.others(pkg) {
			pkgs[p] = true
		}
	}
	for p := range pkgs {
		cmd := exec.Command("go", "test", "-c", "-vet=off", "-trimpath", "-o", r.program(p), "./"+p)
		cmd.Dir = r.dir
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("compiling %s: %w\n%s", p, err, out)
		}
		if _, err := os.Stat(r.program(p)); errors.Is(err, fs.ErrNotExist) {
			delete(pkgs, p) // it has no tests of its own: those above it test it
		}
	}
	r.timeout = 5 * time.Minute
	var longest time.Duration
	for p := range pkgs {
		began := time.Now()
		if by, out := r.test(p, 0); by != "" {
			return fmt.Errorf("the suite fails without a mutant: %s\n%s", by, out)
		}
		r.took[p] = time.Since(began)
		longest = max(longest, r.took[p])
	}
	r.timeout = 4*longest + 10*time.Second
	return nil
}

func (r *runner) program(pkg string) string {
	return filepath.Join(r.dir, strings.ReplaceAll(pkg, "/", "_")+".mutated")
}

var (
	failed = regexp.MustCompile(`(?m)^\s*--- FAIL: (\S+).*\n`)
	died   = regexp.MustCompile(`(?m)^(panic: .*|fatal error: .*)`)
)

// test runs one package's tests with a mutant on.
func (r *runner) test(pkg string, id int) (by, out string) {
	ctx, cancel := context.WithTimeout(context.Background(), r.timeout+10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", fmt.Sprintf(`ulimit -v %d; exec "$0" "$@"`, memory), r.program(pkg),
		"-test.v", "-test.short", "-test.failfast", "-test.timeout", r.timeout.String(), "-test.skip", r.skip)
	cmd.Dir = filepath.Join(r.dir, filepath.FromSlash(pkg))
	cmd.Env = append(os.Environ(), fmt.Sprintf("FANOUT_MUTANT=%d", id))
	w := &watcher{end: cancel, hung: time.AfterFunc(r.silence, cancel), silence: r.silence}
	cmd.Stdout, cmd.Stderr = w, w
	err := cmd.Run()
	w.hung.Stop()
	out = w.String()
	if err == nil {
		return "", out
	}
	if f := failed.FindStringSubmatch(out); f != nil {
		return f[1], out
	}
	if ctx.Err() != nil || strings.Contains(out, "panic: test timed out") {
		return timedOut + lastRun(out), out
	}
	if f := died.FindString(out); f != "" {
		return f, out
	}
	return err.Error(), out
}

// timedOut begins the By of a mutant that hangs.
const timedOut = "hang in "

var running = regexp.MustCompile(`(?m)^=== RUN +(\S+)`)

func lastRun(out string) string {
	all := running.FindAllStringSubmatch(out, -1)
	if len(all) == 0 {
		return "nothing"
	}
	return all[len(all)-1][1]
}

// suites are the packages whose tests a change in pkg is tried with, in that order: its
// own, then all that stands on it, the quickest first.
func (r *runner) suites(pkg string) []string {
	others := r.others(pkg)
	slices.SortStableFunc(others, func(a, b string) int { return cmp.Compare(r.took[a], r.took[b]) })
	return slices.DeleteFunc(append([]string{pkg}, others...), func(p string) bool {
		_, built := r.took[p]
		return !built // it has no tests of its own
	})
}

// others are the packages whose tests a change in pkg is tried with, beside its own.
func (r *runner) others(pkg string) (others []string) {
	if r.alone {
		return nil
	}
	for _, p := range slices.Concat([]string{"."}, r.above[pkg], r.blackBox) {
		if p != pkg && !slices.Contains(others, p) {
			others = append(others, p)
		}
	}
	return others
}

func (r *runner) try(m Mutant) Result {
	pkgs := r.suites(path.Dir(m.File))
	for _, p := range pkgs {
		by, out := r.test(p, m.ID)
		if r.verbose {
			fmt.Fprintf(os.Stdout, "%s\n", out)
		}
		if by != "" {
			return Result{m, by}
		}
	}
	return Result{Mutant: m}
}

// tryAll tries mutants, some at once, and writes each result to a file as it
// comes. What is in the file already is not tried again if resume says so.
func (r *runner) tryAll(mutants []Mutant, parallel int, file string, resume bool, interrupted <-chan os.Signal) ([]Result, error) {
	var known []Result
	if resume {
		var err error
		if known, err = readResults(file); err != nil {
			return nil, err
		}
	}
	f, err := os.Create(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	c := &collector{todo: make(chan Mutant), total: len(mutants), out: json.NewEncoder(f)}
	left := slices.Clone(mutants)
	for _, res := range known {
		if k := slices.Index(left, res.Mutant); k >= 0 {
			left = slices.Delete(left, k, k+1)
			c.results = append(c.results, res)
			c.err = cmpError(c.err, c.out.Encode(res))
		}
	}
	var wg sync.WaitGroup
	for range parallel {
		wg.Go(func() { c.work(r) })
	}
feed:
	for _, m := range left {
		select {
		case c.todo <- m:
		case <-interrupted:
			break feed
		}
	}
	close(c.todo)
	wg.Wait()
	return c.results, c.err
}

func readResults(file string) (results []Result, err error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for d := json.NewDecoder(f); d.More(); {
		var res Result
		if err := d.Decode(&res); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		results = append(results, res)
	}
	return results, nil
}

// A collector hands out mutants and takes results.
type collector struct {
	todo  chan Mutant
	total int

	mu      sync.Mutex // guards the fields below
	out     *json.Encoder
	results []Result
	err     error
}

// work tries what is to be tried. Started by tryAll; ends when all has been
// handed out; joined by tryAll.
func (c *collector) work(r *runner) {
	for m := range c.todo {
		res := r.try(m)
		c.mu.Lock()
		c.results = append(c.results, res)
		c.err = cmpError(c.err, c.out.Encode(res))
		if n := len(c.results); res.By == "" {
			fmt.Fprintf(os.Stdout, "%4d/%d survived: %d %s:%d %s: %s\n", n, c.total, m.ID, m.File, m.Line, m.Func, m.Change)
		} else if n%50 == 0 {
			fmt.Fprintf(os.Stdout, "%4d/%d\n", n, c.total)
		}
		c.mu.Unlock()
	}
}
