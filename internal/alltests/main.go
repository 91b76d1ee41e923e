// Alltests runs the tests of every module of the repository, with the race
// detector, two modules at a time, and prints them in order:
//
//	go run ./internal/alltests
//
// The core comes first and downloads nothing of the others. Arguments go to go
// test: -short, -v, -run. It ends with a table, and with status 1 if a module
// failed.
package main

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"golang.org/x/sync/errgroup"
)

// atOnce is how many modules are tested side by side: those that talk to servers
// wait most of the time.
const atOnce = 2

func main() {
	modules, err := modulesBelow(".")
	if err != nil {
		fmt.Fprintln(os.Stderr, "alltests: run it from the top of the repository:", err)
		os.Exit(2)
	}
	runs := make([]run, len(modules))
	for k, m := range modules {
		runs[k] = run{module: m, done: make(chan struct{})}
	}
	var all errgroup.Group
	all.Go(func() error { return testAll(runs) })
	for k := range runs {
		fmt.Printf("== module %d of %d: %s\n", k+1, len(runs), runs[k].module)
		runs[k].output.to(os.Stdout)
		<-runs[k].done
	}
	failed := all.Wait() != nil
	fmt.Println()
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "module\ttime\tresult")
	for k := range runs {
		r := &runs[k]
		verdict := "ok"
		if r.err != nil {
			verdict = "FAILED: " + r.err.Error()
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", r.module, r.took.Round(time.Second), verdict)
	}
	w.Flush()
	if failed {
		os.Exit(1)
	}
}

// A run is the test of one module.
type run struct {
	module string
	output later
	took   time.Duration
	err    error
	done   chan struct{} // closed when took and err are set
}

// testAll tests modules, atOnce of them at a time. One that fails ends no other's
// test, so the group has no context.
func testAll(runs []run) error {
	var tests errgroup.Group
	tests.SetLimit(atOnce)
	for k := range runs {
		tests.Go(runs[k].test)
	}
	return tests.Wait()
}

func (r *run) test() error {
	defer close(r.done)
	began := time.Now()
	c := exec.Command("go", append([]string{"test", "-race", "./..."}, os.Args[1:]...)...)
	c.Dir, c.Stdout, c.Stderr = r.module, &r.output, &r.output
	r.err = c.Run()
	r.took = time.Since(began)
	return r.err
}

// A later keeps what is written to it until it is told where that goes.
type later struct {
	mu   sync.Mutex
	kept bytes.Buffer
	w    io.Writer // nil: nowhere yet
}

func (l *later) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.w == nil {
		return l.kept.Write(p)
	}
	return l.w.Write(p)
}

func (l *later) to(w io.Writer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.kept.WriteTo(w)
	l.w = w
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
