package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A plan is what there is to test in a module.
type plan struct {
	packages, tests int
	left            []string            // what this platform leaves out
	long            map[string][]string // the tests that are shorter with -short, by package
}

// longTests are the names of the tests of long, each once.
func (p plan) longTests() (names []string) {
	for _, of := range p.long {
		names = append(names, of...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

var testFunction = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Example)\w*)\(`)

// look counts the tests of the module at dir. Files that this platform leaves out,
// by their names or by a constraint, are in the plan with what they test.
func look(ctx context.Context, dir string, race bool) (p plan, err error) {
	c := exec.CommandContext(ctx, "go", "list", "-race="+strconv.FormatBool(race), "-e", "-json=Dir,ImportPath,TestGoFiles,XTestGoFiles,IgnoredGoFiles", "./...")
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
		var files []string
		for _, name := range append(pkg.TestGoFiles, pkg.XTestGoFiles...) {
			file := filepath.Join(pkg.Dir, name)
			names, _, err := testsOf(file)
			if err != nil {
				return p, err
			}
			here += len(names)
			files = append(files, file)
		}
		if here > 0 {
			p.packages++
			p.tests += here
		}
		long, err := longOf(files)
		if err != nil {
			return p, err
		}
		if len(long) > 0 {
			if p.long == nil {
				p.long = map[string][]string{}
			}
			p.long[pkg.ImportPath] = long
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

// longOf are the names of the tests in these files of a package whose length depends
// on testing.Short, which they, or functions of the same files that they call, ask.
func longOf(files []string) (names []string, err error) {
	calls := map[string][]string{} // by the name of a function: what it mentions
	asks := map[string]bool{}      // and whether it asks for itself
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, text, parser.SkipObjectResolution)
		if err != nil {
			continue // go test says what is wrong with it
		}
		for _, d := range parsed.Decls {
			f, is := d.(*ast.FuncDecl)
			if !is || f.Body == nil {
				continue
			}
			ast.Inspect(f.Body, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.Ident:
					calls[f.Name.Name] = append(calls[f.Name.Name], n.Name)
				case *ast.SelectorExpr:
					if x, is := n.X.(*ast.Ident); is && x.Name == "testing" && n.Sel.Name == "Short" {
						asks[f.Name.Name] = true
					}
				}
				return true
			})
		}
	}
	for more := len(asks) > 0; more; {
		more = false
		for name, mentions := range calls {
			if !asks[name] && slices.ContainsFunc(mentions, func(m string) bool { return asks[m] }) {
				asks[name], more = true, true
			}
		}
	}
	for name := range asks {
		if strings.HasPrefix(name, "Test") || strings.HasPrefix(name, "Fuzz") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
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
