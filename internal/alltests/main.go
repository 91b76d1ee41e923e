// Alltests runs the tests of every module of the repository, with the race
// detector, one module after the other:
//
//	go run ./internal/alltests
//
// The core comes first and downloads nothing of the others. Arguments go to go
// test: -short, -v, -run. It ends with a table, and with status 1 if a module
// failed.
package main

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"
)

func main() {
	modules, err := modulesBelow(".")
	if err != nil {
		fmt.Fprintln(os.Stderr, "alltests: run it from the top of the repository:", err)
		os.Exit(2)
	}
	failed := false
	var results []string
	for k, m := range modules {
		fmt.Printf("== module %d of %d: %s\n", k+1, len(modules), m)
		began := time.Now()
		c := exec.Command("go", append([]string{"test", "-race", "./..."}, os.Args[1:]...)...)
		c.Dir, c.Stdout, c.Stderr = m, os.Stdout, os.Stderr
		verdict := "ok"
		if err := c.Run(); err != nil {
			verdict, failed = "FAILED: "+err.Error(), true
		}
		results = append(results, fmt.Sprintf("%s\t%s\t%s", m, time.Since(began).Round(time.Second), verdict))
	}
	fmt.Println()
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "module\ttime\tresult\n%s\n", strings.Join(results, "\n"))
	w.Flush()
	if failed {
		os.Exit(1)
	}
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
