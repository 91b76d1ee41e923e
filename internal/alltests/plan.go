package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// A plan is what there is to test in a module.
type plan struct {
	packages, tests int
	left            []string // what this platform leaves out
}

var testFunction = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Example)\w*)\(`)

// look counts the tests of the module at dir. Files that this platform leaves out,
// by their names or by a constraint, are in the plan with what they test.
func look(ctx context.Context, dir string) (p plan, err error) {
	c := exec.CommandContext(ctx, "go", "list", "-race", "-e", "-json=Dir,ImportPath,TestGoFiles,XTestGoFiles,IgnoredGoFiles", "./...")
	c.Dir, c.Stderr = dir, os.Stderr
	out, err := c.Output()
	if err != nil {
		return p, fmt.Errorf("go list in %s: %w", dir, err)
	}
	for list := json.NewDecoder(strings.NewReader(string(out))); ; {
		var pkg struct {
			Dir, ImportPath                           string
			TestGoFiles, XTestGoFiles, IgnoredGoFiles []string
		}
		switch err := list.Decode(&pkg); {
		case errors.Is(err, io.EOF):
			return p, nil
		case err != nil:
			return p, err
		}
		here := 0
		for _, name := range append(pkg.TestGoFiles, pkg.XTestGoFiles...) {
			names, _, err := testsOf(filepath.Join(pkg.Dir, name))
			if err != nil {
				return p, err
			}
			here += len(names)
		}
		if here > 0 {
			p.packages++
			p.tests += here
		}
		for _, name := range pkg.IgnoredGoFiles {
			names, why, err := testsOf(filepath.Join(pkg.Dir, name))
			if err != nil {
				return p, err
			}
			if strings.HasSuffix(name, "_test.go") && len(names) > 0 {
				p.left = append(p.left, fmt.Sprintf("%s/%s, which is %s: %s", pkg.ImportPath, name, why, strings.Join(names, ", ")))
			}
		}
	}
}

// testsOf are the names of a file's tests, and where the file belongs to the build.
func testsOf(file string) (names []string, where string, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, "", err
	}
	for _, m := range testFunction.FindAllStringSubmatch(string(text), -1) {
		if m[1] != "TestMain" {
			names = append(names, m[1])
		}
	}
	where = "for another platform"
	for line := range strings.Lines(string(text)) {
		if constraint, is := strings.CutPrefix(line, "//go:build "); is {
			where = "for " + strings.TrimSpace(constraint)
		}
	}
	return names, where, nil
}
